//! The leaf certificate that a caller showed, held against the rules for an X509-SVID.
//!
//! Source: X509-SVID specification, sections 2 to 5. Signatures, chains and dates are Envoy's work and are done before
//! a request comes here; what is checked here are the rules for a leaf that Envoy's SPIFFE validator leaves unchecked,
//! and those again that it checks, since another validator may be configured.

mod chain;
mod issuance;

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest as _, Sha256};
use x509_parser::asn1_rs::{Any, FromDer as _, Oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::pem::{Pem, parse_x509_pem};

use crate::spiffe_id::{SpiffeId, SpiffeIdReason};
use crate::timestamp::Timestamp;

pub use chain::{Described, describe};
pub use issuance::Issuance;

const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const URI_TAG: u32 = 6;
/// The SVIDs of SPIRE have six extensions.
const MAX_EXTENSIONS: usize = 32;

/// A leaf certificate that is an X509-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    spiffe_id: Box<str>,
    digest: Digest,
    not_before: Timestamp,
    not_after: Timestamp,
    serial_number: Box<[u8]>,
    authority_key_id: Option<Box<[u8]>>,
}

/// The SHA-256 digest of a certificate's DER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// Reads 64 hexadecimal digits of either case, as Envoy reports a digest; `None` if `hex` is anything else.
    #[must_use]
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        let mut digest = [0; 32];
        if hex.len() != 2 * digest.len() {
            return None;
        }
        let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16)?).ok();
        for (byte, digits) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            let [high, low] = digits else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(digest))
    }
}

impl Svid {
    /// Reads one leaf certificate: PEM as Envoy gives it, plain or URL-encoded, or DER.
    ///
    /// # Errors
    /// The first rule that the certificate breaks.
    pub fn parse(certificate: &[u8]) -> Result<Self, CertificateError> {
        let der = der(certificate)?;
        let (rest, parsed) =
            X509Certificate::from_der(&der).map_err(|_| CertificateError(CertificateReason::Malformed))?;
        if !rest.is_empty() {
            return Err(CertificateError(CertificateReason::TrailingBytes));
        }
        let extensions = Extensions(parsed.extensions());
        extensions.check_distinct()?;
        extensions.check_basic_constraints()?;
        extensions.check_key_usage()?;
        extensions.check_extended_key_usage()?;
        let uri = extensions.only_uri_san(parsed.subject().as_raw())?;
        check_spiffe_id(uri)?;
        let validity = parsed.validity();
        Ok(Self {
            spiffe_id: uri.into(),
            digest: Digest::of(&der),
            not_before: Timestamp::from_seconds(validity.not_before.timestamp()),
            not_after: Timestamp::from_seconds(validity.not_after.timestamp()),
            serial_number: without_leading_zeros(parsed.raw_serial()).into(),
            authority_key_id: extensions.authority_key_id()?.map(Box::from),
        })
    }

    /// The one URI subject alternative name, a valid SPIFFE ID with a path.
    #[must_use]
    pub const fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }

    /// The digest of the certificate.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The first second at which the certificate is valid.
    #[must_use]
    pub const fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The last second at which the certificate is valid (RFC 5280 section 4.1.2.5).
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The serial number, as a big-endian number without leading zeros.
    #[must_use]
    pub const fn serial_number(&self) -> &[u8] {
        &self.serial_number
    }

    /// The key identifier of the authority that issued the certificate (RFC 5280 section 4.2.1.1).
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.authority_key_id.as_deref()
    }
}

/// A rule, and what a certificate makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// The rule.
    pub rule: &'static str,
    /// Where it stands.
    pub section: &'static str,
    /// How the certificate breaks it, if it does.
    pub result: Result<(), CertificateError>,
}

/// Holds a leaf certificate against every rule: the first that is broken is the error of `Svid::parse`. Rules that look at what
/// cannot be read are left out.
#[must_use]
pub fn examine(certificate: &[u8]) -> Vec<Check> {
    let check = |rule, section, result| Check { rule, section, result };
    let encoding = |result| check("a certificate, and nothing behind it", "RFC 5280 section 4.1", result);
    let malformed = CertificateError(CertificateReason::Malformed);
    let der = match der(certificate) {
        Ok(der) => der,
        Err(error) => return vec![encoding(Err(error))],
    };
    let parsed = match X509Certificate::from_der(&der) {
        Ok(([], parsed)) => parsed,
        Ok(_) => return vec![encoding(Err(CertificateError(CertificateReason::TrailingBytes)))],
        Err(_) => return vec![encoding(Err(malformed))],
    };
    let extensions = Extensions(parsed.extensions());
    let uri = extensions.only_uri_san(parsed.subject().as_raw());
    let authority_key_id = extensions.authority_key_id().map(|_| ());
    let mut checks = vec![
        encoding(Ok(())),
        check("each extension once", "RFC 5280 section 4.2", extensions.check_distinct()),
        check("not a CA's", "X509-SVID section 4.1", extensions.check_basic_constraints()),
        check(
            "key usage: critical, `digitalSignature`, neither `keyCertSign` nor `cRLSign`",
            "X509-SVID section 4.3",
            extensions.check_key_usage(),
        ),
        check(
            "extended key usage: absent, or `serverAuth` and `clientAuth`",
            "X509-SVID section 4.4",
            extensions.check_extended_key_usage(),
        ),
        check("exactly one URI SAN", "X509-SVID sections 2 and 5.2", uri.map(|_| ())),
    ];
    checks.push(check("a readable authority key identifier, or none", "RFC 5280 section 4.2.1.1", authority_key_id));
    if let Ok(uri) = uri {
        checks.push(check(
            "a SPIFFE ID with a path",
            "SPIFFE-ID section 2, X509-SVID section 5.2",
            check_spiffe_id(uri),
        ));
    }
    checks
}

/// X509-SVID section 5.2: the ID of a leaf has a path that is not the root's.
fn check_spiffe_id(uri: &str) -> Result<(), CertificateError> {
    let broken = |reason| CertificateError(CertificateReason::SpiffeId(reason));
    let id = SpiffeId::parse(uri.as_bytes()).map_err(|error| broken(error.reason()))?;
    if id.path().is_empty() { Err(broken(SpiffeIdReason::NoPath)) } else { Ok(()) }
}

/// The DER in `certificate`.
fn der(certificate: &[u8]) -> Result<Cow<'_, [u8]>, CertificateError> {
    let decoded: Cow<'_, [u8]> = if certificate.starts_with(PEM_BEGIN) {
        certificate.into()
    } else {
        // DER begins with the tag of a SEQUENCE, 0x30; URL-encoded PEM with a hyphen.
        match certificate.first() {
            Some(b'-') => percent_encoding::percent_decode(certificate).into(),
            _ => return Ok(certificate.into()),
        }
    };
    let (rest, pem) = parse_x509_pem(&decoded).map_err(|_| CertificateError(CertificateReason::Malformed))?;
    if pem.label != "CERTIFICATE" {
        return Err(CertificateError(CertificateReason::Malformed));
    }
    if !rest.trim_ascii().is_empty() {
        return Err(CertificateError(CertificateReason::TrailingBytes));
    }
    Ok(pem.contents.into())
}

pub(crate) fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

struct Extensions<'c>(&'c [X509Extension<'c>]);

impl<'c> Extensions<'c> {
    /// RFC 5280 section 4.2: no more than one instance of an extension. A certificate with more than `MAX_EXTENSIONS` is rejected,
    /// so that no certificate makes the comparison of all pairs slow.
    fn check_distinct(&self) -> Result<(), CertificateError> {
        if self.0.len() > MAX_EXTENSIONS {
            return Err(CertificateError(CertificateReason::Malformed));
        }
        for (position, extension) in self.0.iter().enumerate() {
            if self.0.iter().take(position).any(|earlier| earlier.oid == extension.oid) {
                return Err(CertificateError(CertificateReason::DuplicateExtension));
            }
        }
        Ok(())
    }

    /// The extension `oid`, with nothing behind its value: the parser drops such bytes silently.
    fn find(
        &self,
        oid: &Oid<'_>,
        malformed: CertificateReason,
    ) -> Result<Option<&'c X509Extension<'c>>, CertificateError> {
        let Some(extension) = self.0.iter().find(|extension| extension.oid == *oid) else { return Ok(None) };
        match Any::from_der(extension.value) {
            Ok(([], _)) => Ok(Some(extension)),
            _ => Err(CertificateError(malformed)),
        }
    }

    /// X509-SVID section 4.1: a leaf's `cA` is false. Absent means the same (RFC 5280 section 4.2.1.9).
    fn check_basic_constraints(&self) -> Result<(), CertificateError> {
        let malformed = CertificateReason::BasicConstraintsMalformed;
        match self.find(&OID_X509_EXT_BASIC_CONSTRAINTS, malformed)?.map(X509Extension::parsed_extension) {
            None => Ok(()),
            Some(ParsedExtension::BasicConstraints(constraints)) if constraints.ca => {
                Err(CertificateError(CertificateReason::IsCa))
            }
            Some(ParsedExtension::BasicConstraints(_)) => Ok(()),
            Some(_) => Err(CertificateError(malformed)),
        }
    }

    /// X509-SVID section 4.3: present, critical, `digitalSignature`, neither `keyCertSign` nor `cRLSign`.
    fn check_key_usage(&self) -> Result<(), CertificateError> {
        let malformed = CertificateReason::KeyUsageMalformed;
        let extension = self
            .find(&OID_X509_EXT_KEY_USAGE, malformed)?
            .ok_or(CertificateError(CertificateReason::KeyUsageMissing))?;
        let ParsedExtension::KeyUsage(usage) = extension.parsed_extension() else {
            return Err(CertificateError(malformed));
        };
        let broken = if !extension.critical {
            CertificateReason::KeyUsageNotCritical
        } else if usage.key_cert_sign() {
            CertificateReason::KeyCertSign
        } else if usage.crl_sign() {
            CertificateReason::CrlSign
        } else if !usage.digital_signature() {
            CertificateReason::NoDigitalSignature
        } else {
            return Ok(());
        };
        Err(CertificateError(broken))
    }

    /// X509-SVID section 4.4: absent, or with both `serverAuth` and `clientAuth`.
    fn check_extended_key_usage(&self) -> Result<(), CertificateError> {
        let malformed = CertificateReason::ExtendedKeyUsageMalformed;
        match self.find(&OID_X509_EXT_EXTENDED_KEY_USAGE, malformed)?.map(X509Extension::parsed_extension) {
            None => Ok(()),
            Some(ParsedExtension::ExtendedKeyUsage(usage)) if usage.server_auth && usage.client_auth => Ok(()),
            Some(ParsedExtension::ExtendedKeyUsage(_)) => Err(CertificateError(CertificateReason::ExtendedKeyUsage)),
            Some(_) => Err(CertificateError(malformed)),
        }
    }

    /// The `keyIdentifier` of RFC 5280 section 4.2.1.1, if there is one.
    fn authority_key_id(&self) -> Result<Option<&'c [u8]>, CertificateError> {
        let malformed = CertificateReason::Malformed;
        let extension = self.find(&OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, malformed)?;
        match extension.map(X509Extension::parsed_extension) {
            None => Ok(None),
            Some(ParsedExtension::AuthorityKeyIdentifier(found)) => Ok(found.key_identifier.as_ref().map(|key| key.0)),
            Some(_) => Err(CertificateError(malformed)),
        }
    }

    /// X509-SVID sections 2 and 5.2: exactly one URI, whatever its scheme. Section 4.1: critical when the subject is
    /// empty.
    fn only_uri_san(&self, subject: &[u8]) -> Result<&'c str, CertificateError> {
        let malformed = CertificateReason::SanMalformed;
        let extension = self
            .find(&OID_X509_EXT_SUBJECT_ALT_NAME, malformed)?
            .ok_or(CertificateError(CertificateReason::NoUriSan))?;
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            return Err(CertificateError(malformed));
        };
        // The parser tells a URI that is no UTF-8 as an invalid name of that tag: it counts all the same.
        let mut uris = names.general_names.iter().filter(|name| {
            matches!(name, GeneralName::URI(_)) || matches!(name, GeneralName::Invalid(tag, _) if tag.0 == URI_TAG)
        });
        let only = match (uris.next(), uris.next()) {
            (None, _) => return Err(CertificateError(CertificateReason::NoUriSan)),
            (Some(_), Some(_)) => return Err(CertificateError(CertificateReason::SeveralUriSans)),
            (Some(only), None) => only,
        };
        if names.general_names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
            return Err(CertificateError(malformed));
        }
        // An empty subject is an empty SEQUENCE.
        if subject == [0x30, 0x00] && !extension.critical {
            return Err(CertificateError(CertificateReason::SanNotCritical));
        }
        match only {
            GeneralName::URI(uri) => Ok(uri),
            _ => Err(CertificateError(malformed)),
        }
    }
}

/// Why a certificate is no X509-SVID of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateError(CertificateReason);

impl CertificateError {
    /// The rule that is broken.
    #[must_use]
    pub const fn reason(&self) -> CertificateReason {
        self.0
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.slug())
    }
}

impl std::error::Error for CertificateError {}

/// The rules for a workload's X509-SVID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CertificateReason {
    /// Neither PEM nor DER of a certificate.
    Malformed,
    /// Something stands behind the certificate.
    TrailingBytes,
    /// An extension stands twice.
    DuplicateExtension,
    /// There is no URI subject alternative name.
    NoUriSan,
    /// There is more than one URI subject alternative name.
    SeveralUriSans,
    /// The subject alternative names cannot be read.
    SanMalformed,
    /// The subject is empty and the subject alternative names are not critical.
    SanNotCritical,
    /// The basic constraints say `cA`.
    IsCa,
    /// The basic constraints cannot be read.
    BasicConstraintsMalformed,
    /// There is no key usage.
    KeyUsageMissing,
    /// The key usage cannot be read.
    KeyUsageMalformed,
    /// The key usage is not critical.
    KeyUsageNotCritical,
    /// The key usage lacks `digitalSignature`.
    NoDigitalSignature,
    /// The key usage has `keyCertSign`.
    KeyCertSign,
    /// The key usage has `cRLSign`.
    CrlSign,
    /// The extended key usage lacks `serverAuth` or `clientAuth`.
    ExtendedKeyUsage,
    /// The extended key usage cannot be read.
    ExtendedKeyUsageMalformed,
    /// The URI is not a workload's SPIFFE ID.
    SpiffeId(SpiffeIdReason),
}

impl CertificateReason {
    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Malformed,
            Self::TrailingBytes,
            Self::DuplicateExtension,
            Self::NoUriSan,
            Self::SeveralUriSans,
            Self::SanMalformed,
            Self::SanNotCritical,
            Self::IsCa,
            Self::BasicConstraintsMalformed,
            Self::KeyUsageMissing,
            Self::KeyUsageMalformed,
            Self::KeyUsageNotCritical,
            Self::NoDigitalSignature,
            Self::KeyCertSign,
            Self::CrlSign,
            Self::ExtendedKeyUsage,
            Self::ExtendedKeyUsageMalformed,
        ]
        .into_iter()
        .chain(SpiffeIdReason::ALL.map(Self::SpiffeId))
    }

    /// The stable name of this reason.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        match self {
            Self::Malformed => "certificate-malformed",
            Self::TrailingBytes => "certificate-trailing-bytes",
            Self::DuplicateExtension => "certificate-duplicate-extension",
            Self::NoUriSan => "certificate-no-uri-san",
            Self::SeveralUriSans => "certificate-several-uri-sans",
            Self::SanMalformed => "certificate-san-malformed",
            Self::SanNotCritical => "certificate-san-not-critical",
            Self::IsCa => "certificate-is-ca",
            Self::BasicConstraintsMalformed => "certificate-basic-constraints-malformed",
            Self::KeyUsageMissing => "certificate-key-usage-missing",
            Self::KeyUsageMalformed => "certificate-key-usage-malformed",
            Self::KeyUsageNotCritical => "certificate-key-usage-not-critical",
            Self::NoDigitalSignature => "certificate-no-digital-signature",
            Self::KeyCertSign => "certificate-key-cert-sign",
            Self::CrlSign => "certificate-crl-sign",
            Self::ExtendedKeyUsage => "certificate-extended-key-usage",
            Self::ExtendedKeyUsageMalformed => "certificate-extended-key-usage-malformed",
            Self::SpiffeId(reason) => reason.slug(),
        }
    }
}

#[cfg(test)]
pub(crate) mod der_writer;
/// What `read` makes of every certificate of a PEM text, in its order.
fn each_of_pem<T>(
    text: &[u8],
    read: impl Fn(&X509Certificate<'_>) -> Result<T, CertificateError>,
) -> Result<Vec<T>, CertificateError> {
    let malformed = CertificateError(CertificateReason::Malformed);
    Pem::iter_from_buffer(text)
        .map(|block| {
            let block = block.map_err(|_| malformed)?;
            read(&block.parse_x509().map_err(|_| malformed)?)
        })
        .collect()
}

#[cfg(test)]
mod tests;
