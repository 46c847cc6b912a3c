//! `spiffe-authz secret`: the identity and the bundles that a proxy received.

use std::io::{self, Write};
use std::path::PathBuf;

use anstream::stdout;
use serde_json::{Value, json};
use spiffe_authz::certificate::Svid;
use spiffe_authz::spiffe_id::{SpiffeId, TrustDomain};

use crate::certificate_file::first_certificate;
use crate::envoy::certificate::Certificate;
use crate::envoy::config_dump::Section;
use crate::envoy::message::{Secret, TlsCertificate};
use crate::envoy::moment::{Moment, Validity, moment};
use crate::envoy::snapshot::{Envoy, Pages};
use crate::envoy::validator::{Bundle, Bundles, Validator, trust_domains};
use crate::exit::Ended;
use crate::finding::FindingCode;
use crate::options::Format;
use crate::printable::{say, styled, write_json};
use crate::report::{Place, Report};
use crate::style::{BAD, GOOD, HEADING};
use crate::{clock, document};

/// Tells which identity a proxy has, who issued it and until when it is good, and whose bundles it holds.
///
/// Reads what `istioctl proxy-config secret POD -o json` writes, or Envoy's own /config_dump. Names and key identifiers tell who
/// issued what; signatures are not verified.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The dump in JSON; `-` is standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// A trust domain whose bundle is required, in addition to the proxy's own; `spiffe://` can precede it.
    #[arg(long = "bundle", value_name = "TRUST_DOMAIN", value_parser = trust_domain)]
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

fn trust_domain(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("spiffe://").unwrap_or(text);
    TrustDomain::parse(name.as_bytes()).map(|domain| domain.to_string()).map_err(|error| error.to_string())
}

/// The proxy's own certificate.
struct Identity {
    /// The SPIFFE ID, or the reason that the certificate is not an SVID.
    id: Result<String, &'static str>,
    chain: Vec<Certificate>,
}

/// The content of the secrets.
#[derive(Default)]
struct Content {
    identity: Option<Identity>,
    validator: Option<Validator>,
    report: Report,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let pages = Pages {
        config_dump: document::read(&arguments.file)?,
        taken: Some(clock::now()?.seconds()),
        ..Pages::default()
    };
    let of_file = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", arguments.file.display()));
    let envoy = Envoy::read(pages).map_err(of_file)?;
    if !envoy.has(Section::Secrets) {
        return Err(of_file(io::Error::other("this is not a dump of secrets: it has no section of secrets")));
    }
    let content = Content::of(&envoy, arguments);
    let mut out = stdout().lock();
    match arguments.format {
        Format::Human => content.write_human(&mut out, arguments)?,
        Format::Json => write_json(&mut out, &content.as_json())?,
    }
    Ok(if content.report.findings.is_empty() { Ended::Well } else { Ended::WithFindings })
}

impl Content {
    fn of(envoy: &Envoy, arguments: &Arguments) -> Self {
        let Arguments { bundles, svid_secret, bundle_secret, .. } = arguments;
        let mut content = Self::default();
        if let Some(secret) = content.arrived(envoy, svid_secret) {
            content.read_identity(secret.tls_certificate.as_ref(), svid_secret, envoy.taken);
        }
        if let Some(secret) = content.arrived(envoy, bundle_secret) {
            content.read_bundles(secret, bundle_secret, envoy);
            content.compare(bundles, svid_secret, bundle_secret);
        }
        content.report.finish();
        content
    }

    fn find(&mut self, check: FindingCode, secret: &str, message: impl Into<String>) {
        self.report.find(check, &Place::default().secret(secret), message);
    }

    fn arrived<'e>(&mut self, envoy: &'e Envoy, name: &str) -> Option<&'e Secret> {
        let found = envoy.secret(name);
        if found.is_none() && envoy.dump.warming_secrets.iter().any(|secret| secret == name) {
            let message = format!(
                "the proxy waits for the secret `{name}`: SPIRE does not know the workload, or does not have a secret of this name"
            );
            self.find(FindingCode::SecretMissing, name, message);
        } else if found.is_none() {
            self.find(FindingCode::SecretMissing, name, format!("the proxy has not requested a secret `{name}`"));
        }
        found
    }

    fn read_identity(&mut self, certificate: Option<&TlsCertificate>, name: &str, taken: Moment) {
        let pem = certificate.and_then(|certificate| certificate.certificate_chain.bytes());
        let read = pem.and_then(|pem| {
            let chain = Certificate::of_pem(&pem).ok().filter(|chain| !chain.is_empty())?;
            Some((pem, chain))
        });
        let Some((pem, chain)) = read else {
            self.find(
                FindingCode::SecretUnreadable,
                name,
                format!("the secret `{name}` has no certificate that can be read"),
            );
            return;
        };
        let id = match Svid::parse(first_certificate(&pem)) {
            Ok(svid) => Ok(svid.spiffe_id().to_string()),
            Err(error) => {
                self.find(FindingCode::SvidMalformed, name, error.to_string());
                Err(error.reason().slug())
            }
        };
        if let Some(leaf) = chain.first() {
            match taken.within(leaf.not_before, leaf.not_after) {
                Validity::NotYet => {
                    let start = moment(leaf.not_before.unwrap_or_default());
                    self.find(
                        FindingCode::NotYetGood,
                        name,
                        format!("the certificate of `{name}` is not valid before {start}"),
                    );
                }
                Validity::Expired => {
                    let end = moment(leaf.not_after);
                    self.find(FindingCode::SvidExpired, name, format!("the certificate of `{name}` expired at {end}"));
                }
                Validity::Valid | Validity::Unknown => {}
            }
        }
        self.identity = Some(Identity { id, chain });
    }

    fn read_bundles(&mut self, secret: &Secret, name: &str, envoy: &Envoy) {
        let Some(context) = &secret.validation_context else {
            self.find(FindingCode::SecretUnreadable, name, format!("the secret `{name}` has no validation context"));
            return;
        };
        let validator = context.validator(envoy);
        match &validator {
            Validator::Spiffe(Bundles::Here(bundles)) => {
                for Bundle { trust_domain, authorities } in bundles {
                    let authorities = authorities.as_deref().unwrap_or_default();
                    self.check_authorities(authorities, &format!("the bundle of {trust_domain}"), name, envoy.taken);
                }
            }
            Validator::Spiffe(Bundles::Unreadable(error)) => {
                self.find(FindingCode::BundleUnreadable, name, error.clone());
            }
            Validator::Default(authorities) => {
                let authorities = authorities.as_deref().unwrap_or_default();
                let is_pool = trust_domains(authorities).is_some_and(|domains| domains.len() > 1);
                let check = if is_pool { FindingCode::BundlesPooled } else { FindingCode::SpiffeValidatorMissing };
                self.find(
                    check,
                    name,
                    "each authority in `trusted_ca` can issue identities of every trust domain: they come from istiod, or from a \
                     SPIRE agent without the SPIFFE validator",
                );
                self.check_authorities(authorities, "`trusted_ca`", name, envoy.taken);
            }
            Validator::Other(other) => {
                self.find(FindingCode::SpiffeValidatorMissing, name, format!("the validator is `{other}`"));
            }
            Validator::None | Validator::System | Validator::Spiffe(Bundles::Elsewhere) => {
                self.find(
                    FindingCode::SecretUnreadable,
                    name,
                    format!("the secret `{name}` has no authority that can be read"),
                );
            }
        }
        self.validator = Some(validator);
    }

    fn check_authorities(&mut self, authorities: &[Certificate], whose: &str, name: &str, taken: Moment) {
        // An authority that expired does no harm next to one that did not: this is how they rotate.
        let Some(last) = authorities.iter().max_by_key(|authority| authority.not_after) else {
            self.find(FindingCode::BundleUnreadable, name, format!("{whose} contains no authority that can be read"));
            return;
        };
        if taken.within(None, last.not_after) == Validity::Expired {
            let end = moment(last.not_after);
            self.find(FindingCode::BundleExpired, name, format!("the last authority of {whose} expired at {end}"));
        }
    }

    /// Compares the identity with the bundles.
    fn compare(&mut self, required: &[String], svid_secret: &str, bundle_secret: &str) {
        let own = self.identity.as_ref().and_then(Identity::trust_domain);
        let Some(Validator::Spiffe(Bundles::Here(bundles))) = &self.validator else {
            // The owners of the authorities in a pool are unknown.
            self.check_issuer(own.as_deref(), svid_secret);
            return;
        };
        let has = |name: &str| bundles.iter().any(|bundle| bundle.trust_domain == name);
        let missing: Vec<String> = own.iter().chain(required).filter(|name| !has(name)).cloned().collect();
        for name in missing {
            let message = format!("Envoy has no bundle of {name}: its callers fail in the handshake");
            self.find(FindingCode::BundleMissing, bundle_secret, message);
        }
        self.check_issuer(own.as_deref(), svid_secret);
    }

    fn check_issuer(&mut self, own: Option<&str>, svid_secret: &str) {
        let Some(own) = own else { return };
        let has_authorities = self
            .validator
            .as_ref()
            .and_then(|validator| validator.authorities_of(own))
            .is_some_and(|authorities| !authorities.is_empty());
        if has_authorities && self.issuing_bundle().is_none() {
            let last = self.identity.as_ref().and_then(|identity| identity.chain.last()?.issuance.as_ref());
            let issuer = last.map_or("the issuer", |issuance| &issuance.issuer);
            let message = format!("{issuer} is not an authority in the bundle of the certificate's own trust domain");
            self.find(FindingCode::ForeignIssuer, svid_secret, message);
        }
    }

    /// Returns the name of the bundle that issued the certificate, or `the pool`.
    fn issuing_bundle(&self) -> Option<Option<&str>> {
        let identity = self.identity.as_ref()?;
        let own = identity.trust_domain()?;
        let authorities = self.validator.as_ref()?.authorities_of(&own)?;
        let is_issued =
            identity.chain.iter().any(|link| authorities.iter().any(|authority| link.may_come_from(authority)));
        is_issued.then(|| self.bundles().into_iter().find_map(|(name, _)| name.filter(|name| *name == own)))
    }

    /// Returns the authorities of each trust domain, or of the pool for every trust domain.
    fn bundles(&self) -> Vec<(Option<&str>, &[Certificate])> {
        match &self.validator {
            Some(Validator::Spiffe(Bundles::Here(bundles))) => bundles
                .iter()
                .map(|bundle| (Some(&*bundle.trust_domain), bundle.authorities.as_deref().unwrap_or_default()))
                .collect(),
            Some(Validator::Default(Some(authorities))) => vec![(None, authorities)],
            _ => Vec::new(),
        }
    }

    fn write_human(&self, out: &mut impl Write, arguments: &Arguments) -> io::Result<()> {
        if let Some(identity) = &self.identity {
            let name = styled(HEADING, &arguments.svid_secret);
            match &identity.id {
                Ok(id) => say!(out, "{}: {}: {}", name, styled(GOOD, "an X509-SVID"), id)?,
                Err(reason) => say!(out, "{}: {}: {}", name, styled(BAD, "not an X509-SVID"), reason)?,
            }
            if let Some(leaf) = identity.chain.first()
                && let Some(issuance) = &leaf.issuance
            {
                let by = match self.issuing_bundle() {
                    Some(Some(trust_domain)) => format!(", of the bundle of {trust_domain}"),
                    Some(None) => ", of the pool".to_owned(),
                    None => String::new(),
                };
                say!(out, "  issued by  {}{}", issuance.issuer, by)?;
                say!(out, "  to         {}", issuance.subject)?;
                say!(out, "  valid from {} until {}", moment(issuance.not_before), moment(issuance.not_after))?;
            }
        }
        let bundles = self.bundles();
        if !bundles.is_empty() {
            say!(out, "{}: whose callers it can validate", styled(HEADING, &arguments.bundle_secret))?;
        }
        for (trust_domain, authorities) in bundles {
            let whose = trust_domain.unwrap_or("any trust domain");
            for issuance in authorities.iter().filter_map(|authority| authority.issuance.as_ref()) {
                say!(out, "  {}: {}, until {}", whose, issuance.subject, moment(issuance.not_after))?;
            }
        }
        for finding in &self.report.findings {
            say!(out, "{}: {}", styled(BAD, finding.code.slug()), finding.message)?;
        }
        Ok(())
    }

    fn as_json(&self) -> Value {
        let described = |certificate: &Certificate| {
            certificate.issuance.as_ref().map(|issuance| {
                json!({
                    "subject": issuance.subject, "issuer": issuance.issuer,
                    "notBefore": moment(issuance.not_before), "notAfter": moment(issuance.not_after),
                })
            })
        };
        let svid = self.identity.as_ref().map(|identity| {
            let mut svid = identity.chain.first().and_then(described).unwrap_or_default();
            svid["spiffeId"] = json!(identity.id.as_ref().ok());
            svid["reason"] = json!(identity.id.as_ref().err());
            svid["issuedByBundle"] = json!(self.issuing_bundle().flatten());
            svid
        });
        let bundles = self.bundles().into_iter().map(|(trust_domain, authorities)| {
            json!({"trustDomain": trust_domain, "authorities": authorities.iter().map(described).collect::<Vec<_>>()})
        });
        let findings = crate::command::doctor::findings_json(&self.report);
        json!({"svid": svid, "bundles": bundles.collect::<Vec<_>>(), "findings": findings})
    }
}

impl Identity {
    fn trust_domain(&self) -> Option<String> {
        let id = self.id.as_ref().ok()?;
        SpiffeId::parse(id.as_bytes()).ok().map(|id| id.trust_domain().to_string())
    }
}
