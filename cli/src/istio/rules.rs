//! Converts the rules of an AuthorizationPolicy. Values of the wrong type are copied, for the compiler to report.
//!
//! Each value of the result has the position of its source, so an error in the document has a place in the input.

use std::collections::HashSet;

use spiffe_authz::policy::field::{Field, Key};

use super::remark::{Origin, Remark};
use super::trust_domain_bundle::TrustDomainBundle;
use crate::located::{self, Located, Value};

/// The fields whose values can omit the trust domain.
const NAMESPACE_FIELDS: [Field; 2] = [Field::Namespaces, Field::ServiceAccounts];
/// The fields that name a caller.
const CALLER_FIELDS: [Field; 4] = [Field::Principals, Field::Namespaces, Field::ServiceAccounts, Field::TrustDomains];
/// The values of a condition, and the negated form.
const VALUES: [&str; 2] = ["values", "notValues"];

/// The conversion of one policy's rules.
pub(crate) struct RuleImport<'i> {
    /// The policy, for remarks.
    pub(crate) origin: &'i Origin,
    /// Whether the policy allows requests that its rules match.
    pub(crate) allows: bool,
    pub(crate) bundle: &'i TrustDomainBundle,
    pub(crate) remarks: &'i mut Vec<Remark>,
}

impl RuleImport<'_> {
    /// Returns the rules of the document.
    pub(crate) fn rules(&mut self, rules: &Located) -> Located {
        self.each(rules, "spec.rules", Self::rule)
    }

    fn rule(&mut self, rule: &Located, at: &str) -> Located {
        let conditions = rule.field("when").map_or(&[][..], Located::items);
        let names_trust_domain = conditions
            .iter()
            .any(|condition| field_of(condition) == Some(Field::TrustDomains) && condition.field(VALUES[0]).is_some());
        self.fields(rule, at, |this, name, value, at| match name {
            "from" => this.each(value, at, |this, from, at| this.from(from, at, names_trust_domain)),
            "to" => this.each(value, at, |this, to, at| {
                this.fields(to, at, |this, _, operation, at| this.fields(operation, at, copy))
            }),
            "when" => this.each(value, at, |this, condition, at| this.condition(condition, at, names_trust_domain)),
            _ => value.clone(),
        })
    }

    fn from(&mut self, from: &Located, at: &str, names_trust_domain: bool) -> Located {
        self.fields(from, at, |this, name, value, at| match name {
            "source" => this.source(value, at, names_trust_domain),
            _ => value.clone(),
        })
    }

    fn source(&mut self, source: &Located, at: &str, names_trust_domain: bool) -> Located {
        let names = source.fields().iter().filter(|field| !field.value.is_null());
        let fields: Vec<(&located::Field, Field, bool)> = names
            .filter_map(|found| Field::named(&found.name).map(|(field, negated)| (found, field, negated)))
            .collect();
        let names_trust_domain =
            names_trust_domain || fields.iter().any(|(_, field, negated)| *field == Field::TrustDomains && !negated);
        if !names_trust_domain {
            for (found, field, negated) in fields {
                self.remark_trust_domain(field, negated, &found.name, &found.value, at);
            }
        }
        self.fields(source, at, |this, name, value, at| match Field::named(name) {
            Some((Field::Principals, _)) => this.replaced(value, at, TrustDomainBundle::principals),
            Some((Field::TrustDomains, _)) => this.trust_domains(value, at),
            _ => value.clone(),
        })
    }

    fn condition(&mut self, condition: &Located, at: &str, names_trust_domain: bool) -> Located {
        let Some(field) = field_of(condition) else { return self.fields(condition, at, copy) };
        let key = condition.field("key").and_then(Located::text).unwrap_or_default();
        if !names_trust_domain {
            for (name, negated) in [(VALUES[0], false), (VALUES[1], true)] {
                if condition.field(name).is_some() {
                    self.remark_trust_domain(field, negated, key, condition, at);
                }
            }
        }
        if field == Field::Header {
            let message =
                "if a request has several lines of the header, the filter takes the reading that grants less access";
            self.remarks.push(self.origin.remark(condition.position, at, message));
        }
        self.fields(condition, at, |this, name, value, at| match field {
            Field::Principals if VALUES.contains(&name) => this.replaced(value, at, TrustDomainBundle::principals),
            Field::TrustDomains if VALUES.contains(&name) => this.trust_domains(value, at),
            _ => value.clone(),
        })
    }

    /// Adds a remark if the filter takes a reading that grants less access than Istio, because a source or condition omits
    /// the trust domain. An ALLOW rule then matches local namespaces, and a negated field of another rule excludes local
    /// namespaces. `name` is the name of the field or the key of the condition.
    fn remark_trust_domain(&mut self, field: Field, negated: bool, name: &str, value: &Located, at: &str) {
        if !NAMESPACE_FIELDS.contains(&field) || negated == self.allows {
            return;
        }
        let verb = if self.allows { "matches" } else { "excludes" };
        let message = format!(
            "`{name}` without a trust domain: the filter {verb} only the local trust domain, Istio {verb} every one (add \
             `trustDomains`)"
        );
        self.remarks.push(self.origin.remark(value.position, at, message));
    }

    fn trust_domains(&mut self, values: &Located, at: &str) -> Located {
        for value in values.items() {
            if value.text().is_some_and(|text| self.bundle.is_unreplaced_placeholder(text)) {
                let message = "`cluster.local` is not replaced in trust domains, as in Istio: it matches no workload of the \
                               mesh (write the trust domain of the mesh)";
                self.remarks.push(self.origin.remark(value.position, at, message));
            }
        }
        self.replaced(values, at, TrustDomainBundle::trust_domains)
    }

    /// Returns the values that Istio matches instead of these.
    fn replaced(
        &mut self,
        values: &Located,
        at: &str,
        replacement: fn(&TrustDomainBundle, &str) -> Vec<String>,
    ) -> Located {
        let before: Option<Vec<&str>> = values.items().iter().map(Located::text).collect();
        let Some(before) = before.filter(|_| matches!(values.value, Value::List(_))) else { return values.clone() };
        let mut known = HashSet::new();
        let mut after: Vec<(&Located, String)> = Vec::new();
        for value in values.items() {
            for replaced in replacement(self.bundle, value.text().unwrap_or_default()) {
                if known.insert(replaced.clone()) {
                    after.push((value, replaced));
                }
            }
        }
        if !after.iter().map(|(_, text)| &**text).eq(before.iter().copied()) {
            let names: Vec<&str> = after.iter().map(|(_, text)| &**text).collect();
            let message = format!("replaced {} with {}, in the same way as Istio", before.join(", "), names.join(", "));
            self.remarks.push(self.origin.remark(values.position, at, message));
        }
        let items = after.into_iter().map(|(value, text)| Located::string(value.position, text)).collect();
        Located::new(values.position, Value::List(items))
    }

    /// Converts each item of a list.
    fn each(
        &mut self,
        list: &Located,
        at: &str,
        mut convert: impl FnMut(&mut Self, &Located, &str) -> Located,
    ) -> Located {
        let Value::List(items) = &list.value else { return list.clone() };
        let converted =
            items.iter().enumerate().map(|(position, item)| convert(self, item, &format!("{at}[{position}]")));
        Located::new(list.position, Value::List(converted.collect()))
    }

    /// Converts each field of an object. A field that is null is absent, as for Kubernetes. A repeated field is copied in
    /// any case, for the compiler to report.
    fn fields(
        &mut self,
        object: &Located,
        at: &str,
        mut convert: impl FnMut(&mut Self, &str, &Located, &str) -> Located,
    ) -> Located {
        let Value::Object(fields) = &object.value else { return object.clone() };
        let mut names = HashSet::new();
        let repeated: HashSet<&str> =
            fields.iter().map(|field| &*field.name).filter(|name| !names.insert(*name)).collect();
        let present = fields.iter().filter(|field| !field.value.is_null() || repeated.contains(&*field.name));
        let converted = present.map(|field| {
            let value = convert(self, &field.name, &field.value, &format!("{at}.{}", field.name));
            located::Field { value, ..field.clone() }
        });
        Located::new(object.position, Value::Object(converted.collect()))
    }
}

fn copy(_: &mut RuleImport<'_>, _: &str, value: &Located, _: &str) -> Located {
    value.clone()
}

/// Returns the attribute that a condition matches.
fn field_of(condition: &Located) -> Option<Field> {
    Key::parse(condition.field("key")?.text()?).map(|key| key.field)
}

/// Returns `true` if a rule has a field or a condition on the caller's identity.
pub(crate) fn names_caller(rule: &Located) -> bool {
    let sources = rule.field("from").map_or(&[][..], Located::items).iter().filter_map(|from| from.field("source"));
    let mut fields = sources.flat_map(Located::fields).filter_map(|field| Field::named(&field.name));
    let mut conditions = rule.field("when").map_or(&[][..], Located::items).iter().filter_map(field_of);
    fields.any(|(field, _)| CALLER_FIELDS.contains(&field)) || conditions.any(|field| CALLER_FIELDS.contains(&field))
}
