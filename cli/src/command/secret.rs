//! `spiffe-authz secret`: the identity and the bundles that a proxy received.

mod output;

use std::io;
use std::path::PathBuf;

use spiffe_authz::spiffe_id::TrustDomain;

use crate::clock;
use crate::envoy::certificate::Certificate;
use crate::envoy::config_dump::Section;
use crate::envoy::message::Secret;
use crate::envoy::snapshot::{Envoy, Page, Pages};
use crate::envoy::validator::{Bundles, Validator};
use crate::examine::Usage;
use crate::examine::own_certificate::OwnCertificate;
use crate::examine::validation::{bundle_missing, check_exceptions, check_validator};
use crate::exit::Ended;
use crate::finding::FindingCode;
use crate::input;
use crate::options::Format;
use crate::printable::write_json;
use crate::report::{Place, Report};
use crate::stream::stdout;

/// Shows the identity, the issuer and the bundles that a proxy received
///
/// Reads the output of `istioctl proxy-config secret POD -o json`, or Envoy's `/config_dump`. The issuer is found by
/// names and key identifiers. Signatures are not verified.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  istioctl proxy-config secret httpbin-7d8f -n default -o json |
    spiffe-authz secret

Exit status:
  0  no findings
  1  the command could not run
  3  findings")]
pub(crate) struct Arguments {
    /// The dump in JSON; `-` is standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// A trust domain whose bundle is required, in addition to that of the proxy; can be repeated; `spiffe://` can
    /// precede it
    #[arg(long = "bundle", value_name = "TRUST_DOMAIN", value_parser = trust_domain)]
    bundles: Vec<String>,
    /// The name of the secret with the certificate
    #[arg(long, value_name = "NAME", default_value = "default")]
    svid_secret: String,
    /// The name of the secret with the bundles
    #[arg(long, value_name = "NAME", default_value = "ROOTCA")]
    bundle_secret: String,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

fn trust_domain(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("spiffe://").unwrap_or(text);
    TrustDomain::parse(name.as_bytes()).map(|domain| domain.to_string()).map_err(|error| error.to_string())
}

/// The content of the secrets.
#[derive(Default)]
struct Content {
    certificate: Option<OwnCertificate>,
    validator: Option<Validator>,
    report: Report,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let pages = Pages {
        config_dump: Page::of_file(&arguments.file)?,
        taken: Some(clock::now()?.seconds()),
        ..Pages::default()
    };
    let envoy = Envoy::read(pages)?;
    if !envoy.has(Section::Secrets) {
        let message = "expected the output of `istioctl proxy-config secret POD -o json`, found a dump without secrets";
        return Err(io::Error::other(format!("{}: {message}", input::name(&arguments.file))));
    }
    let content = Content::read(&envoy, arguments);
    let mut out = stdout();
    match arguments.format {
        Format::Human => output::write_human(&mut out, &content, arguments)?,
        Format::Json => write_json(&mut out, &output::as_json(&content))?,
    }
    Ok(if content.report.findings.is_empty() { Ended::Well } else { Ended::WithFindings })
}

impl Content {
    fn read(envoy: &Envoy, arguments: &Arguments) -> Self {
        let Arguments { bundles, svid_secret, bundle_secret, .. } = arguments;
        let mut content = Self::default();
        let svid = content.arrived(envoy, svid_secret);
        if let Some(secret) = content.arrived(envoy, bundle_secret) {
            content.read_validator(secret, bundle_secret, envoy);
        }
        if let Some(secret) = svid {
            content.read_certificate(secret, svid_secret, envoy);
        }
        content.check_bundles(bundles, bundle_secret);
        content.report.finish();
        content
    }

    fn find(&mut self, code: FindingCode, secret: &str, message: impl Into<String>) {
        self.report.find(code, &place(secret), message);
    }

    fn arrived<'e>(&mut self, envoy: &'e Envoy, name: &str) -> Option<&'e Secret> {
        let found = envoy.secret(name);
        if found.is_none() {
            let is_awaited = envoy.dump.warming_secrets.iter().any(|secret| secret == name);
            let message = if is_awaited {
                format!("the proxy waits for the secret `{name}`")
            } else {
                format!("the proxy has not requested a secret `{name}`")
            };
            self.find(FindingCode::SecretMissing, name, message);
        }
        found
    }

    fn read_certificate(&mut self, secret: &Secret, name: &str, envoy: &Envoy) {
        let certificate = secret.tls_certificate.as_ref();
        let own = certificate.and_then(|certificate| OwnCertificate::read(certificate, envoy));
        match own.filter(|own| !own.chain.is_empty()) {
            Some(own) => {
                let places = [place(name)];
                let usage = Usage { places: &places, stale: None };
                own.check(usage, self.validator.as_ref(), envoy, &mut self.report);
                self.certificate = Some(own);
            }
            None => self.find(FindingCode::SecretUnreadable, name, "the secret has no certificate that can be read"),
        }
    }

    fn read_validator(&mut self, secret: &Secret, name: &str, envoy: &Envoy) {
        let Some(context) = &secret.validation_context else {
            self.find(FindingCode::SecretUnreadable, name, "the secret has no validation context");
            return;
        };
        let places = [place(name)];
        check_exceptions(context, &places, &mut self.report);
        let validator = context.validator(envoy);
        match &validator {
            Validator::None => {
                self.find(FindingCode::SecretUnreadable, name, "the validation context does not name an authority");
            }
            Validator::Spiffe(Bundles::Elsewhere) => {
                let message = "the bundles are in a file, which the dump does not contain";
                self.find(FindingCode::SecretUnreadable, name, message);
            }
            Validator::System => {
                let message = "Envoy trusts every authority that the machine trusts";
                self.find(FindingCode::BundlesPooled, name, message);
            }
            _ => check_validator(&validator, Usage { places: &places, stale: None }, envoy, &mut self.report),
        }
        self.validator = Some(validator);
    }

    /// Checks that there is a bundle of the proxy's trust domain and of those that the options require.
    fn check_bundles(&mut self, required: &[String], name: &str) {
        // The owners of the authorities in a pool are unknown.
        let Some(Validator::Spiffe(Bundles::Here(bundles))) = &self.validator else { return };
        let has = |name: &str| bundles.iter().any(|bundle| bundle.trust_domain == name);
        let own = self.svid_trust_domain().into_iter().map(|domain| ("the proxy's trust domain", domain));
        let required = required.iter().map(|domain| ("the required trust domain", domain.as_str()));
        let missing = own.chain(required).filter(|(_, domain)| !has(domain));
        let missing: Vec<(&str, String)> = missing.map(|(whose, domain)| (whose, domain.to_owned())).collect();
        for (whose, domain) in missing {
            bundle_missing(whose, &domain, &[place(name)], &mut self.report);
        }
    }

    /// Returns the trust domain of the certificate, if it is an X509-SVID.
    fn svid_trust_domain(&self) -> Option<&str> {
        let certificate = self.certificate.as_ref()?;
        if certificate.violation().is_some() { None } else { certificate.trust_domain() }
    }

    /// Returns the bundle that issued the certificate, or `None` if none did or the authorities are pooled. The flag is
    /// `true` if an authority issued the certificate.
    fn issuing_bundle(&self) -> (bool, Option<&str>) {
        let issued = || {
            let domain = self.svid_trust_domain()?;
            let authorities = self.validator.as_ref()?.authorities_of(domain)?;
            self.certificate.as_ref()?.is_issued_by(authorities).then_some(domain)
        };
        let domain = issued();
        let is_bundle = matches!(self.validator, Some(Validator::Spiffe(_)));
        (domain.is_some(), domain.filter(|_| is_bundle))
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
}

fn place(secret: &str) -> Place {
    Place::default().secret(secret)
}
