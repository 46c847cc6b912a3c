//! A certificate authority for certificates that SPIRE does not sign, and TLS clients that present them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};

use crate::http::Client;

const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const TRUST_DOMAIN_CONFIG: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// A subject alternative name.
#[derive(Debug, Clone)]
pub enum Name {
    /// `dNSName`
    Dns(Vec<u8>),
    /// `uniformResourceIdentifier`
    Uri(Vec<u8>),
}

impl Name {
    /// A URI with these bytes, which can be invalid.
    pub fn uri(uri: impl AsRef<[u8]>) -> Self {
        Self::Uri(uri.as_ref().to_vec())
    }

    /// A DNS name with these bytes, which can be invalid.
    pub fn dns(name: impl AsRef<[u8]>) -> Self {
        Self::Dns(name.as_ref().to_vec())
    }
}

/// A day, in seconds.
pub const DAY: i64 = 24 * 60 * 60;

/// The content of a leaf certificate.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The common name. With `None`, the subject is empty.
    pub common_name: Option<String>,
    /// The subject alternative names. Without any, the certificate has no such extension.
    pub names: Vec<Name>,
    /// Basic constraints.
    pub is_ca: IsCa,
    /// Key usage. Without any, the certificate has no such extension.
    pub key_usages: Vec<KeyUsagePurpose>,
    /// Extended key usage. Without any, the certificate has no such extension.
    pub extended_key_usages: Vec<ExtendedKeyUsagePurpose>,
    /// Not before and not after, in seconds from now.
    pub validity: (i64, i64),
}

impl Shape {
    /// The content that SPIRE gives a certificate with this SPIFFE ID.
    pub fn svid(id: impl AsRef<[u8]>) -> Self {
        Self {
            common_name: Some("test workload".to_owned()),
            names: vec![Name::uri(id)],
            is_ca: IsCa::ExplicitNoCa,
            key_usages: vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyAgreement],
            extended_key_usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            validity: (-DAY, DAY),
        }
    }
}

/// The X.509 authority of a trust domain.
#[derive(Debug)]
pub struct Authority {
    trust_domain: String,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its intermediates, and its key, in PEM.
#[derive(Debug)]
pub struct Leaf {
    certificate: String,
    key: String,
}

impl Authority {
    /// Creates an authority with a new key.
    ///
    /// # Errors
    /// Returns an error if the key or certificate cannot be created.
    pub fn new(trust_domain: &str) -> Result<Self> {
        Self::with(trust_domain, CertificateParams::default())
    }

    /// Creates an authority whose certificate expired yesterday.
    ///
    /// # Errors
    /// Returns an error if the key or certificate cannot be created.
    pub fn expired(trust_domain: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.not_after = time::OffsetDateTime::now_utc() - time::Duration::days(1);
        Self::with(trust_domain, params)
    }

    /// Creates an authority whose certificate is valid from tomorrow.
    ///
    /// # Errors
    /// Returns an error if the key or certificate cannot be created.
    pub fn early(trust_domain: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.not_before = time::OffsetDateTime::now_utc() + time::Duration::days(1);
        Self::with(trust_domain, params)
    }

    fn with(trust_domain: &str, mut params: CertificateParams) -> Result<Self> {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.custom_extensions.push(subject_alt_name(&[Name::uri(format!("spiffe://{trust_domain}"))]));
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { trust_domain: trust_domain.to_owned(), certificate, issuer: Issuer::new(params, key) })
    }

    /// Takes over an authority with its stolen key: the certificate in PEM, the key in DER.
    ///
    /// # Errors
    /// Returns an error if one of them cannot be read.
    pub fn stolen(trust_domain: &str, certificate: &str, key: &[u8]) -> Result<Self> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::try_from(key)?)?;
        Ok(Self { trust_domain: trust_domain.to_owned(), certificate: certificate.to_owned(), issuer })
    }

    /// The certificate in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Signs a certificate, also an invalid one.
    ///
    /// # Errors
    /// Returns an error if the certificate cannot be encoded.
    pub fn sign(&self, shape: &Shape) -> Result<Leaf> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &shape.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        if !shape.names.is_empty() {
            params.custom_extensions.push(subject_alt_name(&shape.names));
        }
        params.is_ca = shape.is_ca;
        params.key_usages.clone_from(&shape.key_usages);
        params.extended_key_usages.clone_from(&shape.extended_key_usages);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let now = time::OffsetDateTime::from_unix_timestamp(now.try_into()?)?;
        params.not_before = now + time::Duration::seconds(shape.validity.0);
        params.not_after = now + time::Duration::seconds(shape.validity.1);
        let key = KeyPair::generate()?;
        Ok(Leaf::new(params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// The configuration of this trust domain for Envoy's SPIFFE validator.
    fn trust_domain_config(&self) -> Value {
        json!({"name": self.trust_domain, "trust_bundle": {"inline_string": self.certificate}})
    }
}

/// Returns a file of secrets for Envoy with a validation context: the SPIFFE validator, with a bundle for each trust
/// domain.
#[must_use]
pub fn spiffe_validation(authorities: &[&Authority]) -> String {
    let trust_domains: Vec<Value> = authorities.iter().map(|authority| authority.trust_domain_config()).collect();
    let config = json!({"@type": TRUST_DOMAIN_CONFIG, "trust_domains": trust_domains});
    let validator = json!({"name": "envoy.tls.cert_validator.spiffe", "typed_config": config});
    secret("ROOTCA", "validation_context", &json!({"custom_validator_config": validator}))
}

/// Returns the same for Envoy's default validator, with all authorities in one pool. This is insecure. Tests use it so
/// that certificates that the SPIFFE validator rejects reach the filter.
#[must_use]
pub fn pooled_validation(authorities: &[&Authority]) -> String {
    let pool: String = authorities.iter().map(|authority| &*authority.certificate).collect();
    secret("ROOTCA", "validation_context", &json!({"trusted_ca": {"inline_string": pool}}))
}

fn secret(name: &str, kind: &str, content: &Value) -> String {
    json!({"resources": [{"@type": SECRET, "name": name, kind: content}]}).to_string()
}

impl Leaf {
    /// Combines a certificate and its key, in PEM.
    #[must_use]
    pub const fn new(certificate: String, key: String) -> Self {
        Self { certificate, key }
    }

    /// Returns a file of secrets for Envoy with this certificate.
    #[must_use]
    pub fn secret(&self) -> String {
        let content = json!({
            "certificate_chain": {"inline_string": self.certificate},
            "private_key": {"inline_string": self.key},
        });
        secret("default", "tls_certificate", &content)
    }

    /// Connects to `address` with this certificate.
    ///
    /// # Errors
    /// Returns an error if the handshake fails.
    pub fn connect(&self, address: SocketAddr) -> Result<Client> {
        Client::tls(address, client_config(Some(self))?)
    }
}

/// Returns a TLS configuration with this certificate, or with none. It accepts every server, because the server is
/// under test.
///
/// # Errors
/// Returns an error if the key is invalid.
pub fn client_config(leaf: Option<&Leaf>) -> Result<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer));
    let Some(leaf) = leaf else { return Ok(config.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
    let key = default_provider().key_provider.load_private_key(key)?;
    let chain = CertificateDer::pem_slice_iter(leaf.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let certified = CertifiedKey::new(chain, key);
    // `with_client_auth_cert` rejects certificates that it cannot parse. A resolver does not check them.
    Ok(config.with_client_cert_resolver(Arc::new(Always(Arc::new(certified)))))
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn subject_alt_name(names: &[Name]) -> CustomExtension {
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for name in names {
                let (tag, content) = match name {
                    Name::Dns(content) => (2, content),
                    Name::Uri(content) => (6, content),
                };
                let tag = yasna::Tag::context(tag);
                writer.next().write_tagged_implicit(tag, |writer| writer.write_bytes(content));
            }
        });
    });
    CustomExtension::from_oid_content(SUBJECT_ALT_NAME, content)
}
