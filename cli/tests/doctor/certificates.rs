//! Certificates, and the secrets that contain them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};
use serde_json::{Value, json};

pub(crate) const SERVER: &str = "spiffe://example.org/ns/default/sa/httpbin";

pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// An authority that names this trust domain.
    pub(crate) fn of(trust_domain: &str) -> Self {
        Self::named(&[SanType::URI(format!("spiffe://{trust_domain}").try_into().unwrap())])
    }

    /// An authority that is valid from the start of one year until the start of another.
    pub(crate) fn valid(trust_domain: &str, years: (i32, i32)) -> Self {
        let name = SanType::URI(format!("spiffe://{trust_domain}").try_into().unwrap());
        Self::made(&[name], years)
    }

    pub(crate) fn named(names: &[SanType]) -> Self {
        Self::made(names, (2025, 2099))
    }

    fn made(names: &[SanType], years: (i32, i32)) -> Self {
        let mut params = params(names, years);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// The chain of an SVID that is valid in these years.
    pub(crate) fn svid(&self, id: &str, years: (i32, i32)) -> String {
        let mut params = params(&[SanType::URI(id.try_into().unwrap())], years);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.signed_by(&KeyPair::generate().unwrap(), &self.issuer).unwrap().pem()
    }
}

fn params(names: &[SanType], (from, until): (i32, i32)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "SPIRE");
    params.subject_alt_names = names.to_vec();
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
    params
}

pub(crate) fn inline(pem: &str) -> Value {
    json!({"inline_bytes": STANDARD.encode(pem)})
}

pub(crate) fn certificate(name: &str, chain: &str) -> Value {
    json!({"name": name, "secret": {"name": name, "tls_certificate": {"certificate_chain": inline(chain)}}})
}

pub(crate) fn validation(context: Value) -> Value {
    json!({"name": "ROOTCA", "secret": {"name": "ROOTCA", "validation_context": context}})
}

pub(crate) fn spiffe(config: Value) -> Value {
    validation(json!({"custom_validator_config": {"name": "envoy.tls.cert_validator.spiffe", "typed_config": config}}))
}

pub(crate) fn bundles(bundles: &[(&str, &str)]) -> Value {
    let domains: Vec<Value> =
        bundles.iter().map(|(name, pem)| json!({"name": name, "trust_bundle": inline(pem)})).collect();
    spiffe(json!({"trust_domains": domains}))
}
