//! `spiffe-authz secret`: what has a proxy got from SPIRE?

mod dump;
mod finding;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anstream::stdout;
use serde_json::{Value, json};
use spiffe_authz::certificate::{Issuance, Svid};
use spiffe_authz::spiffe_id::SpiffeId;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::printable::{say, styled, write_json};
use crate::style::{BAD, GOOD, HEADING};
use crate::{Ended, Format, document};
use dump::{Dump, Found, Secret, Validation};
use finding::Finding;

/// Tells which identity a proxy has, who issued it and until when it is good, and whose bundles it holds.
///
/// Reads what `istioctl proxy-config secret POD -o json` writes, or Envoy's own /config_dump. Names and key identifiers tell who
/// issued what; signatures are not verified.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The dump in JSON; `-` is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// A trust domain whose bundle must be there, besides the proxy's own.
    #[arg(long = "bundle", value_name = "TRUST_DOMAIN")]
    bundles: Vec<String>,
    /// The secret with the certificate.
    #[arg(long, value_name = "NAME", default_value = "default")]
    svid_secret: String,
    /// The secret with the bundles.
    #[arg(long, value_name = "NAME", default_value = "ROOTCA")]
    bundle_secret: String,
    /// How results are written.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// The proxy's own certificate.
struct Identity {
    /// The SPIFFE ID, or the reason that it has none.
    id: Result<String, &'static str>,
    /// The certificate, and those that stand behind it in the chain.
    chain: Vec<Issuance>,
}

/// The authorities by which callers of one trust domain are validated; of any, when there is no trust domain.
struct Bundle {
    trust_domain: Option<String>,
    authorities: Vec<Issuance>,
}

/// What the secrets say.
#[derive(Default)]
struct Report {
    identity: Option<Identity>,
    bundles: Vec<Bundle>,
    findings: Vec<Finding>,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let dump = Dump::read(&document::read(&arguments.file)?).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: no dump of secrets: {error}", arguments.file.display()))
    })?;
    let report = Report::of(&dump, arguments, now());
    let mut out = stdout().lock();
    match arguments.format {
        Format::Human => report.write_human(&mut out, arguments)?,
        Format::Json => write_json(&mut out, &report.as_json())?,
    }
    Ok(if report.findings.is_empty() { Ended::Well } else { Ended::WithFindings })
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Report {
    fn of(dump: &Dump, arguments: &Arguments, now: i64) -> Self {
        let mut report = Self::default();
        if let Some(secret) = report.active(dump, &arguments.svid_secret) {
            report.read_identity(secret, &arguments.svid_secret, now);
        }
        if let Some(secret) = report.active(dump, &arguments.bundle_secret) {
            report.read_bundles(secret, &arguments.bundle_secret, now);
            report.compare(&arguments.bundles);
        }
        report
    }

    fn active<'d>(&mut self, dump: &'d Dump, name: &str) -> Option<&'d Secret> {
        match dump.secret(name) {
            Found::Active(secret) => return Some(secret),
            Found::Warming => self.findings.push(Finding::SecretWarming(name.to_owned())),
            Found::Nowhere => self.findings.push(Finding::SecretMissing(name.to_owned())),
        }
        None
    }

    fn read_identity(&mut self, secret: &Secret, name: &str, now: i64) {
        let Some((pem, chain)) = secret.certificate_chain().and_then(|pem| {
            let chain = Issuance::of_pem(&pem).ok().filter(|chain| !chain.is_empty())?;
            Some((pem, chain))
        }) else {
            self.findings.push(Finding::SecretUnreadable(name.to_owned()));
            return;
        };
        let id = match Svid::parse(crate::cert::first_certificate(&pem)) {
            Ok(svid) => Ok(svid.spiffe_id().to_owned()),
            Err(error) => {
                self.findings.push(Finding::NoSvid(error));
                Err(error.reason().slug())
            }
        };
        if let Some(leaf) = chain.first() {
            self.findings.extend(Finding::of_dates(&format!("the certificate of `{name}`"), leaf, now));
        }
        self.identity = Some(Identity { id, chain });
    }

    fn read_bundles(&mut self, secret: &Secret, name: &str, now: i64) {
        let bundles = match secret.validation() {
            Some(Validation::Spiffe(bundles)) => {
                bundles.into_iter().map(|(trust_domain, pem)| (Some(trust_domain), pem)).collect()
            }
            Some(Validation::Pool(pem)) => {
                self.findings.push(Finding::Pool);
                vec![(None, pem)]
            }
            Some(Validation::Other(validator)) => {
                self.findings.push(Finding::OtherValidator(validator));
                return;
            }
            None => {
                self.findings.push(Finding::SecretUnreadable(name.to_owned()));
                return;
            }
        };
        for (trust_domain, pem) in bundles {
            let authorities = pem.and_then(|pem| Issuance::of_pem(&pem).ok()).unwrap_or_default();
            let whose =
                trust_domain.as_ref().map_or_else(|| "the pool".to_owned(), |name| format!("the bundle of {name}"));
            if authorities.is_empty() {
                self.findings.push(Finding::BundleUnreadable(whose));
                continue;
            }
            // An authority that has run out does no harm beside one that has not: that is how they rotate.
            if let Some(last) = authorities.iter().max_by_key(|authority| authority.not_after) {
                self.findings.extend(Finding::of_dates(&format!("the last authority of {whose}"), last, now));
            }
            self.bundles.push(Bundle { trust_domain, authorities });
        }
    }

    /// The identity against the bundles.
    fn compare(&mut self, wanted: &[String]) {
        let own = self.identity.as_ref().and_then(|identity| identity.id.as_ref().ok()).and_then(|id| trust_domain(id));
        let mut findings = Vec::new();
        for name in own.iter().chain(wanted) {
            // Whose authorities are in a pool cannot be told.
            let there = self.bundles.iter().any(|bundle| bundle.trust_domain.as_ref().is_none_or(|of| of == name));
            if !there {
                findings.push(Finding::BundleMissing(name.clone()));
            }
        }
        if let Some(identity) = &self.identity
            && self.authority(identity).is_none()
            && self.bundle_of(identity).is_some()
        {
            findings.push(Finding::ForeignIssuer(identity.issuer().to_owned()));
        }
        self.findings.extend(findings);
    }

    /// The bundle that vouches for the trust domain of the identity.
    fn bundle_of(&self, identity: &Identity) -> Option<&Bundle> {
        let own = identity.id.as_ref().ok().and_then(|id| trust_domain(id))?;
        self.bundles.iter().find(|bundle| bundle.trust_domain.as_ref().is_none_or(|name| *name == own))
    }

    /// The authority of that bundle to which the chain leads.
    fn authority(&self, identity: &Identity) -> Option<&Issuance> {
        let authorities = &self.bundle_of(identity)?.authorities;
        authorities.iter().find(|authority| identity.chain.iter().any(|link| link.names_as_issuer(authority)))
    }

    fn write_human(&self, out: &mut impl Write, arguments: &Arguments) -> io::Result<()> {
        if let Some(identity) = &self.identity {
            let name = styled(HEADING, &arguments.svid_secret);
            match &identity.id {
                Ok(id) => say!(out, "{}: {}: {}", name, styled(GOOD, "an X509-SVID"), id)?,
                Err(reason) => say!(out, "{}: {}: {}", name, styled(BAD, "no X509-SVID"), reason)?,
            }
            if let Some(leaf) = identity.chain.first() {
                let by = match (
                    self.authority(identity),
                    self.bundle_of(identity).and_then(|bundle| bundle.trust_domain.as_ref()),
                ) {
                    (Some(_), Some(trust_domain)) => format!(", of the bundle of {trust_domain}"),
                    (Some(_), None) => ", of the pool".to_owned(),
                    (None, _) => String::new(),
                };
                say!(out, "  issued by  {}{}", leaf.issuer, by)?;
                say!(out, "  to         {}", leaf.subject)?;
                say!(out, "  valid from {} until {}", date(leaf.not_before), date(leaf.not_after))?;
            }
        }
        if !self.bundles.is_empty() {
            say!(out, "{}: whose callers it can validate", styled(HEADING, &arguments.bundle_secret))?;
        }
        for Bundle { trust_domain, authorities } in &self.bundles {
            let whose = trust_domain.as_deref().unwrap_or("any trust domain");
            for authority in authorities {
                say!(out, "  {}: {}, until {}", whose, authority.subject, date(authority.not_after))?;
            }
        }
        for finding in &self.findings {
            say!(out, "{}: {}", styled(BAD, finding.code()), finding)?;
        }
        Ok(())
    }

    fn as_json(&self) -> Value {
        let described = |issuance: &Issuance| {
            json!({
                "subject": issuance.subject, "issuer": issuance.issuer,
                "notBefore": date(issuance.not_before), "notAfter": date(issuance.not_after),
            })
        };
        let svid = self.identity.as_ref().map(|identity| {
            let mut svid = identity.chain.first().map(described).unwrap_or_default();
            svid["spiffeId"] = json!(identity.id.as_ref().ok());
            svid["reason"] = json!(identity.id.as_ref().err());
            svid["issuedByBundle"] = json!(
                self.authority(identity).and(self.bundle_of(identity)).and_then(|bundle| bundle.trust_domain.as_ref())
            );
            svid
        });
        let bundles = self.bundles.iter().map(|Bundle { trust_domain, authorities }| {
            json!({"trustDomain": trust_domain, "authorities": authorities.iter().map(described).collect::<Vec<_>>()})
        });
        let findings =
            self.findings.iter().map(|finding| json!({"code": finding.code(), "message": finding.to_string()}));
        json!({"svid": svid, "bundles": bundles.collect::<Vec<_>>(), "findings": findings.collect::<Vec<_>>()})
    }
}

impl Identity {
    fn issuer(&self) -> &str {
        self.chain.last().map_or("", |last| &last.issuer)
    }
}

fn trust_domain(id: &str) -> Option<String> {
    SpiffeId::parse(id.as_bytes()).ok().map(|id| id.trust_domain().to_string())
}

/// A moment as RFC 3339 has it; seconds where it is beyond what that can say.
fn date(seconds: i64) -> String {
    let date = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|date| date.format(&Rfc3339).ok());
    date.unwrap_or_else(|| format!("{seconds} s after 1970"))
}
