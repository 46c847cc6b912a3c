//! The content of the secrets, human-readable and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Arguments, Content};
use crate::envoy::certificate::Certificate;
use crate::envoy::moment::moment;
use crate::printable::{say, styled};
use crate::report::output::{findings_json, write_finding};
use crate::style::{BAD, GOOD, HEADING};

pub(super) fn write_human(out: &mut impl Write, content: &Content, arguments: &Arguments) -> io::Result<()> {
    if let Some(certificate) = &content.certificate {
        let name = styled(HEADING, &arguments.svid_secret);
        match certificate.violation() {
            None => {
                let id = certificate.id().unwrap_or_default();
                say!(out, "{}: {}: {}", name, styled(GOOD, "an X509-SVID"), id)?;
            }
            Some(error) => say!(out, "{}: {}: {}", name, styled(BAD, "not an X509-SVID"), error.reason().slug())?,
        }
        if let Some(issuance) = certificate.chain.first().and_then(|leaf| leaf.issuance.as_ref()) {
            let by = match content.issuing_bundle() {
                (true, Some(trust_domain)) => format!(", from the bundle of {trust_domain}"),
                (true, None) => ", from `trusted_ca`".to_owned(),
                (false, _) => String::new(),
            };
            say!(out, "  issued by  {}{}", issuance.issuer, by)?;
            say!(out, "  to         {}", issuance.subject)?;
            say!(out, "  valid from {} until {}", moment(issuance.not_before), moment(issuance.not_after))?;
        }
    }
    let bundles = content.bundles();
    if !bundles.is_empty() {
        say!(out, "{}: authorities by trust domain", styled(HEADING, &arguments.bundle_secret))?;
    }
    for (trust_domain, authorities) in bundles {
        let whose = trust_domain.unwrap_or("any trust domain");
        for issuance in authorities.iter().filter_map(|authority| authority.issuance.as_ref()) {
            say!(out, "  {}: {}, valid until {}", whose, issuance.subject, moment(issuance.not_after))?;
        }
    }
    content.report.findings.iter().try_for_each(|finding| write_finding(out, finding, &content.report))
}

pub(super) fn as_json(content: &Content) -> Value {
    let described = |certificate: &Certificate| {
        certificate.issuance.as_ref().map(|issuance| {
            json!({
                "subject": issuance.subject, "issuer": issuance.issuer,
                "notBefore": moment(issuance.not_before), "notAfter": moment(issuance.not_after),
            })
        })
    };
    let svid = content.certificate.as_ref().map(|certificate| {
        let violation = certificate.violation();
        let mut svid = certificate.chain.first().and_then(described).unwrap_or_default();
        svid["spiffeId"] = json!(certificate.id().filter(|_| violation.is_none()));
        svid["reason"] = json!(violation.map(|error| error.reason().slug()));
        svid["issuedByBundle"] = json!(content.issuing_bundle().1);
        svid
    });
    let bundles = content.bundles().into_iter().map(|(trust_domain, authorities)| {
        json!({"trustDomain": trust_domain, "authorities": authorities.iter().filter_map(described).collect::<Vec<_>>()})
    });
    json!({"svid": svid, "bundles": bundles.collect::<Vec<_>>(), "findings": findings_json(&content.report)})
}
