//! Converts the rules of an AuthorizationPolicy. Values of the wrong type are copied, for the compiler to report.

use serde_json::{Map, Value, json};
use spiffe_authz::policy::field::{Field, Key};

use super::remark::Remark;
use super::trust_domain_bundle::TrustDomainBundle;

/// The fields whose values can omit the trust domain.
const NAMESPACE_FIELDS: [Field; 2] = [Field::Namespaces, Field::ServiceAccounts];
/// The values of a condition, and the negated form.
const VALUES: [&str; 2] = ["values", "notValues"];

/// The conversion of one policy's rules.
pub(crate) struct RuleImport<'i> {
    /// The name of the policy, for remarks.
    pub(crate) place: &'i str,
    /// Whether the policy allows requests that its rules match.
    pub(crate) allows: bool,
    pub(crate) bundle: &'i TrustDomainBundle,
    pub(crate) remarks: &'i mut Vec<Remark>,
}

impl RuleImport<'_> {
    /// Returns the rules of the document.
    pub(crate) fn rules(&mut self, rules: &Value) -> Value {
        self.each(rules, "rules", Self::rule)
    }

    fn rule(&mut self, rule: &Value, at: &str) -> Value {
        let conditions = rule["when"].as_array().map_or(&[][..], Vec::as_slice);
        let names_trust_domain = conditions
            .iter()
            .any(|condition| field_of(condition) == Some(Field::TrustDomains) && condition.get(VALUES[0]).is_some());
        self.fields(rule, at, |this, name, value, at| match name {
            "from" => this.each(value, at, |this, from, at| this.from(from, at, names_trust_domain)),
            "when" => this.each(value, at, |this, condition, at| this.condition(condition, at, names_trust_domain)),
            _ => value.clone(),
        })
    }

    fn from(&mut self, from: &Value, at: &str, names_trust_domain: bool) -> Value {
        self.fields(from, at, |this, name, value, at| match name {
            "source" => this.source(value, at, names_trust_domain),
            _ => value.clone(),
        })
    }

    fn source(&mut self, source: &Value, at: &str, names_trust_domain: bool) -> Value {
        let fields: Vec<(&str, Field, bool)> = source
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .filter_map(|name| Field::named(name).map(|(field, negated)| (name.as_str(), field, negated)))
            .collect();
        let names_trust_domain =
            names_trust_domain || fields.iter().any(|(_, field, negated)| *field == Field::TrustDomains && !negated);
        if !names_trust_domain {
            for (name, field, negated) in fields {
                self.remark_trust_domain(field, negated, name, at);
            }
        }
        self.fields(source, at, |this, name, value, at| match Field::named(name) {
            Some((Field::Principals, _)) => this.replaced(value, at, TrustDomainBundle::principals),
            Some((Field::TrustDomains, _)) => this.replaced(value, at, TrustDomainBundle::trust_domains),
            _ => value.clone(),
        })
    }

    fn condition(&mut self, condition: &Value, at: &str, names_trust_domain: bool) -> Value {
        let Some(field) = field_of(condition) else { return condition.clone() };
        if !names_trust_domain {
            for (name, negated) in [(VALUES[0], false), (VALUES[1], true)] {
                if condition.get(name).is_some() {
                    self.remark_trust_domain(field, negated, condition["key"].as_str().unwrap_or_default(), at);
                }
            }
        }
        if field == Field::Header {
            let message =
                "if a request has several lines of the header, the filter takes the reading that grants less access";
            self.remarks.push(Remark::note(self.place, message).at(at));
        }
        let replacement = match field {
            Field::Principals => TrustDomainBundle::principals,
            Field::TrustDomains => TrustDomainBundle::trust_domains,
            _ => return condition.clone(),
        };
        self.fields(condition, at, |this, name, value, at| {
            if VALUES.contains(&name) { this.replaced(value, at, replacement) } else { value.clone() }
        })
    }

    /// Adds a remark if the filter takes a reading that grants less access than Istio, because a source or condition omits
    /// the trust domain. An ALLOW rule then matches local namespaces, and a negated field of another rule excludes local
    /// namespaces. `name` is the name of the field or the key of the condition.
    fn remark_trust_domain(&mut self, field: Field, negated: bool, name: &str, at: &str) {
        if !NAMESPACE_FIELDS.contains(&field) || negated == self.allows {
            return;
        }
        let verb = if self.allows { "matches" } else { "excludes" };
        let message = format!(
            "`{name}` without a trust domain: the filter {verb} only the local trust domain, Istio {verb} every one (add \
             `trustDomains`)"
        );
        self.remarks.push(Remark::note(self.place, message).at(at));
    }

    /// Returns the values that Istio matches instead of these.
    fn replaced(
        &mut self,
        values: &Value,
        at: &str,
        replacement: fn(&TrustDomainBundle, &str) -> Vec<String>,
    ) -> Value {
        let before: Option<Vec<&str>> = values.as_array().and_then(|values| values.iter().map(Value::as_str).collect());
        let Some(before) = before else { return values.clone() };
        let mut after: Vec<String> = Vec::new();
        for value in before.iter().flat_map(|value| replacement(self.bundle, value)) {
            if !after.contains(&value) {
                after.push(value);
            }
        }
        if after != before {
            let message = format!("replaced {} with {}, in the same way as Istio", before.join(", "), after.join(", "));
            self.remarks.push(Remark::note(self.place, message).at(at));
        }
        json!(after)
    }

    /// Converts each item of a list.
    fn each(&mut self, list: &Value, at: &str, mut convert: impl FnMut(&mut Self, &Value, &str) -> Value) -> Value {
        let Some(items) = list.as_array() else { return list.clone() };
        let converted =
            items.iter().enumerate().map(|(position, item)| convert(self, item, &format!("{at}[{position}]")));
        Value::Array(converted.collect())
    }

    /// Converts each field of an object.
    fn fields(
        &mut self,
        object: &Value,
        at: &str,
        mut convert: impl FnMut(&mut Self, &str, &Value, &str) -> Value,
    ) -> Value {
        let Some(fields) = object.as_object() else { return object.clone() };
        let converted =
            fields.iter().map(|(name, value)| (name.clone(), convert(self, name, value, &format!("{at}.{name}"))));
        Value::Object(converted.collect())
    }
}

/// Returns the attribute that a condition matches.
fn field_of(condition: &Value) -> Option<Field> {
    Key::parse(condition["key"].as_str()?).map(|key| key.field)
}
