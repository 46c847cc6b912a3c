//! The report on what was learned, in each output format.

use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::Change;

use super::beyond::Generalized;
use super::policies::{Generalization, Policy};
use super::seen::{NotUsed, Observed};
use super::template::Template;
use crate::answer;
use crate::decision::request_json;
use crate::logged_request::{Counts, Period};
use crate::printable::{say, styled, write_json};
use crate::style::NOTABLE;

/// The learned policies, and the requests that they come from.
pub(super) struct Report<'r> {
    pub(super) policies: &'r [Policy<'r>],
    pub(super) generalized: Vec<Generalized<'r>>,
    pub(super) observed: &'r Observed<'r>,
    pub(super) distinct: usize,
    pub(super) counts: Counts,
    pub(super) period: Period,
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Report<'_> {
    fn callers(&self) -> usize {
        self.policies.iter().map(|policy| policy.callers.len()).sum()
    }

    pub(super) fn write_human(&self, out: &mut impl Write) -> io::Result<()> {
        for Generalized { policy, generalization, granted } in &self.generalized {
            let methods = generalization.methods().into_iter().collect::<Vec<_>>().join(", ");
            let count = counted(number(generalization.count()), "request", "requests");
            let Generalization { template, .. } = generalization;
            say!(out, "{}: {}: {} {} from {}", styled(NOTABLE, "generalized"), policy.name, methods, template, count)?;
            for Change { requests, witness, .. } in granted {
                say!(out, "  allowed and not seen")?;
                answer::write_requests(out, requests, witness, Layer::Http)?;
            }
        }
        for (policy, method, template, obstacle) in self.not_generalized() {
            let count = counted(number(template.seen.len()), "request", "requests");
            let what = styled(NOTABLE, "not generalized");
            say!(out, "{}: {}: {} {} from {}: {}", what, policy.name, method, template.text, count, obstacle)?;
        }
        for (reason, count) in &self.observed.not_used() {
            let count = counted(*count, "request", "requests");
            say!(out, "{}: {} {}{}", styled(NOTABLE, "not used"), count, reason.text(), self.names(*reason))?;
        }
        say!(
            out,
            "{} for {}, from {} ({} distinct){}{}",
            counted(number(self.policies.len()), "policy", "policies"),
            counted(number(self.callers()), "caller", "callers"),
            counted(self.observed.count(), "request", "requests"),
            self.distinct,
            self.period.text(),
            self.counts.text()
        )
    }

    /// Returns the templates that are not used, each with its policy, method and the reason.
    fn not_generalized(&self) -> impl Iterator<Item = (&Policy<'_>, &str, &Template<'_>, String)> {
        self.policies.iter().flat_map(|policy| {
            policy
                .not_used
                .iter()
                .map(move |(method, template)| (policy, *method, template, template.obstacle().unwrap_or_default()))
        })
    }

    /// Returns the trust domains of requests that are not used because of them.
    fn names(&self, reason: NotUsed) -> String {
        if reason != NotUsed::TrustDomain {
            return String::new();
        }
        let names = self.observed.trust_domains.iter().map(|(name, count)| format!("{name} ({count})"));
        format!(": {}", names.collect::<Vec<_>>().join(", "))
    }

    pub(super) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let policies = self.policies.iter().map(|policy| {
            let paths: usize = policy.operations.iter().map(|operation| operation.paths.len()).sum();
            json!({"name": policy.name, "callers": policy.callers, "paths": paths})
        });
        let generalizations = self.generalized.iter().map(|Generalized { policy, generalization, granted }| {
            let Generalization { template, excluded, host, port, .. } = generalization;
            let granted = granted.iter().map(|Change { requests, witness, .. }| {
                let mut object = json!({"witness": request_json(witness, Layer::Http)});
                answer::add_requests(&mut object, requests);
                // A learned policy names its callers, so there are no exceptions.
                object["callers"] = requests.callers.iter().map(|caller| caller.pattern.as_str()).collect();
                object
            });
            json!({
                "policy": policy.name, "methods": generalization.methods(), "path": template, "notPaths": excluded,
                "host": host, "port": port, "seen": generalization.count(), "granted": granted.collect::<Vec<_>>(),
            })
        });
        let not_generalized = self.not_generalized().map(|(policy, method, template, obstacle)| {
            let seen = template.seen.len();
            json!({"policy": policy.name, "method": method, "path": template.text, "seen": seen, "because": obstacle})
        });
        let not_used = self.observed.not_used();
        let not_used = not_used.iter().map(|(reason, count)| {
            let domains = self.observed.trust_domains.iter().filter(|_| *reason == NotUsed::TrustDomain);
            let domains = domains.map(|(name, count)| json!({"trustDomain": name, "requests": count}));
            json!({"reason": reason.slug(), "requests": count, "trustDomains": domains.collect::<Vec<_>>()})
        });
        let Counts { other, not_understood, suppressed, .. } = self.counts;
        let value: Value = json!({
            "policies": policies.collect::<Vec<_>>(),
            "requests": self.observed.count(),
            "distinct": self.distinct,
            "generalizations": generalizations.collect::<Vec<_>>(),
            "notGeneralized": not_generalized.collect::<Vec<_>>(),
            "notUsed": not_used.collect::<Vec<_>>(),
            "period": self.period.as_json(),
            "lines": {"withoutRequest": other, "notUnderstood": not_understood, "suppressed": suppressed},
        });
        write_json(out, &value)
    }
}
