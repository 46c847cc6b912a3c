//! The leaf certificate of a caller, checked against the rules for an X509-SVID.
//!
//! Source: X509-SVID specification, sections 2 to 5. Envoy has verified signatures, chains and dates before a request arrives
//! here. This module checks the rules for a leaf: those that Envoy's SPIFFE validator does not check, and those that it does,
//! because a different validator can be configured.

mod chain;
mod issuance;

use std::borrow::Cow;
use std::fmt;

use sha2::{Digest as _, Sha256};
use x509_parser::asn1_rs::{Any, FromDer, Oid};
use x509_parser::certificate::{X509Certificate, X509CertificateParser};
use x509_parser::error::X509Error;
use x509_parser::extensions::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, GeneralName, KeyUsage, SubjectAlternativeName,
    X509Extension,
};
use x509_parser::nom::Parser as _;
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::pem::{Pem, parse_x509_pem};

use crate::slugs;
use crate::spiffe_id::{SpiffeId, SpiffeIdBuf, SpiffeIdReason};
use crate::timestamp::Timestamp;

pub use chain::{Described, describe};
pub use issuance::Issuance;

const PEM_BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const URI_TAG: u32 = 6;
/// The maximum number of extensions. The SVIDs of SPIRE have six.
const MAX_EXTENSIONS: usize = 32;

/// A leaf certificate that is an X509-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    spiffe_id: SpiffeIdBuf,
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

    /// Parses 64 hexadecimal digits of either case, as Envoy reports a digest. Returns `None` for anything else.
    #[must_use]
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        let mut digest = [0; 32];
        if hex.len() != 2 * digest.len() {
            return None;
        }
        // An invalid digit sets the upper bits, which are checked once: this runs for each request.
        let mut seen = 0;
        for (byte, digits) in digest.iter_mut().zip(hex.as_chunks::<2>().0) {
            let [high, low] = digits.map(hex_digit);
            seen |= high | low;
            *byte = high << 4 | low;
        }
        (seen <= 0xf).then_some(Self(digest))
    }
}

/// Returns the value of a hexadecimal digit, or 255 for another byte.
const fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => u8::MAX,
    }
}

impl Svid {
    /// Parses a leaf certificate: PEM as Envoy provides it, plain or URL-encoded, or DER.
    ///
    /// # Errors
    /// Returns the first rule that the certificate breaks.
    pub fn parse(certificate: &[u8]) -> Result<Self, CertificateError> {
        let der = der(certificate)?;
        let parsed = only_certificate(&der)?;
        let extensions = Extensions(parsed.extensions());
        let leaf = Leaf::new(&extensions, parsed.subject().as_raw());
        RULES.iter().filter_map(|rule| (rule.check)(&leaf)).collect::<Result<(), _>>()?;
        let validity = parsed.validity();
        Ok(Self {
            spiffe_id: leaf.workload_id?.into(),
            digest: Digest::of(&der),
            not_before: Timestamp::from_seconds(validity.not_before.timestamp()),
            not_after: Timestamp::from_seconds(validity.not_after.timestamp()),
            serial_number: without_leading_zeros(parsed.raw_serial()).into(),
            authority_key_id: leaf.authority_key_id?.map(Box::from),
        })
    }

    /// The only URI SAN, which is a SPIFFE ID with a path.
    #[must_use]
    pub const fn spiffe_id(&self) -> &SpiffeIdBuf {
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

/// The result of checking a certificate against one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// The rule.
    pub rule: &'static str,
    /// The specification and section of the rule.
    pub section: &'static str,
    /// The error, if the certificate breaks the rule.
    pub result: Result<(), CertificateError>,
}

/// Checks a leaf certificate against every rule. The first broken rule is the error of [`Svid::parse`]. Rules about a part that
/// is malformed are omitted.
#[must_use]
pub fn examine(certificate: &[u8]) -> Vec<Check> {
    let encoding =
        |result| Check { rule: "one certificate and no trailing bytes", section: "RFC 5280 section 4.1", result };
    let der = match der(certificate) {
        Ok(der) => der,
        Err(error) => return vec![encoding(Err(error))],
    };
    let parsed = match only_certificate(&der) {
        Ok(parsed) => parsed,
        Err(error) => return vec![encoding(Err(error))],
    };
    let extensions = Extensions(parsed.extensions());
    let leaf = Leaf::new(&extensions, parsed.subject().as_raw());
    let checks = RULES.iter().filter_map(|Rule { rule, section, check }| {
        let result = check(&leaf)?;
        Some(Check { rule, section, result })
    });
    std::iter::once(encoding(Ok(()))).chain(checks).collect()
}

/// The parts of a leaf certificate that the rules check.
struct Leaf<'l, 'c> {
    extensions: &'l Extensions<'c>,
    uri: Result<&'c str, CertificateError>,
    workload_id: Result<SpiffeId<'c>, CertificateError>,
    authority_key_id: Result<Option<&'c [u8]>, CertificateError>,
}

/// A rule for a leaf certificate. `check` returns `None` if the rule is about a part that is malformed.
struct Rule {
    rule: &'static str,
    section: &'static str,
    check: fn(&Leaf<'_, '_>) -> Option<Result<(), CertificateError>>,
}

/// The rules, in the order in which a certificate is checked.
const RULES: [Rule; 7] = [
    Rule {
        rule: "no duplicate extension",
        section: "RFC 5280 section 4.2",
        check: |leaf| Some(leaf.extensions.check_distinct()),
    },
    Rule {
        rule: "not a CA certificate",
        section: "X509-SVID section 4.1",
        check: |leaf| Some(leaf.extensions.check_basic_constraints()),
    },
    Rule {
        rule: "key usage: critical, `digitalSignature`, neither `keyCertSign` nor `cRLSign`",
        section: "X509-SVID section 4.3",
        check: |leaf| Some(leaf.extensions.check_key_usage()),
    },
    Rule {
        rule: "extended key usage: absent, or `serverAuth` and `clientAuth`",
        section: "X509-SVID section 4.4",
        check: |leaf| Some(leaf.extensions.check_extended_key_usage()),
    },
    Rule {
        rule: "exactly one URI SAN",
        section: "X509-SVID sections 2 and 5.2",
        check: |leaf| Some(leaf.uri.map(|_| ())),
    },
    Rule {
        rule: "no malformed authority key identifier",
        section: "RFC 5280 section 4.2.1.1",
        check: |leaf| Some(leaf.authority_key_id.map(|_| ())),
    },
    Rule {
        rule: "a SPIFFE ID with a path",
        section: "SPIFFE-ID section 2, X509-SVID section 5.2",
        check: |leaf| leaf.uri.ok().map(|_| leaf.workload_id.map(|_| ())),
    },
];

impl<'l, 'c> Leaf<'l, 'c> {
    fn new(extensions: &'l Extensions<'c>, subject: &[u8]) -> Self {
        let uri = extensions.only_uri_san(subject);
        let workload_id = uri.and_then(|uri| {
            SpiffeId::parse_workload(uri.as_bytes())
                .map_err(|error| CertificateError(CertificateReason::SpiffeId(error.reason())))
        });
        Self { extensions, uri, workload_id, authority_key_id: extensions.authority_key_id() }
    }
}

/// Parses DER that contains exactly one certificate. The contents of extensions are parsed when a rule reads them, which are
/// few: the parsers of the others would add 30 kB to the Wasm filter.
fn only_certificate(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509CertificateParser::new().with_deep_parse_extensions(false).parse(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(CertificateError(CertificateReason::TrailingBytes)),
        Err(_) => Err(CertificateError(CertificateReason::Malformed)),
    }
}

/// Returns the DER of a certificate in PEM or DER.
fn der(certificate: &[u8]) -> Result<Cow<'_, [u8]>, CertificateError> {
    let decoded: Cow<'_, [u8]> = if certificate.starts_with(PEM_BEGIN) {
        certificate.into()
    } else {
        // DER starts with the tag of a SEQUENCE, 0x30. URL-encoded PEM starts with a hyphen.
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

    /// Returns the content of the extension `oid`, and whether it is critical. Rejects trailing bytes after its value, which the
    /// parser drops.
    fn find<E: FromDer<'c, X509Error>>(
        &self,
        oid: &Oid<'_>,
        malformed: CertificateReason,
    ) -> Result<Option<(E, bool)>, CertificateError> {
        let Some(extension) = self.0.iter().find(|extension| extension.oid == *oid) else { return Ok(None) };
        match (Any::from_der(extension.value), E::from_der(extension.value)) {
            (Ok(([], _)), Ok((_, content))) => Ok(Some((content, extension.critical))),
            _ => Err(CertificateError(malformed)),
        }
    }

    /// X509-SVID section 4.1: `cA` is false in a leaf. If it is absent, it is false (RFC 5280 section 4.2.1.9).
    fn check_basic_constraints(&self) -> Result<(), CertificateError> {
        let malformed = CertificateReason::BasicConstraintsMalformed;
        match self.find::<BasicConstraints>(&OID_X509_EXT_BASIC_CONSTRAINTS, malformed)? {
            Some((constraints, _)) if constraints.ca => Err(CertificateError(CertificateReason::IsCa)),
            _ => Ok(()),
        }
    }

    /// X509-SVID section 4.3: present, critical, `digitalSignature`, neither `keyCertSign` nor `cRLSign`.
    fn check_key_usage(&self) -> Result<(), CertificateError> {
        let (usage, critical) = self
            .find::<KeyUsage>(&OID_X509_EXT_KEY_USAGE, CertificateReason::KeyUsageMalformed)?
            .ok_or(CertificateError(CertificateReason::KeyUsageMissing))?;
        let broken = if !critical {
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
        match self.find::<ExtendedKeyUsage<'_>>(&OID_X509_EXT_EXTENDED_KEY_USAGE, malformed)? {
            Some((usage, _)) if !(usage.server_auth && usage.client_auth) => {
                Err(CertificateError(CertificateReason::ExtendedKeyUsage))
            }
            _ => Ok(()),
        }
    }

    /// RFC 5280 section 4.2.1.1: `keyIdentifier`, which is optional.
    fn authority_key_id(&self) -> Result<Option<&'c [u8]>, CertificateError> {
        let found = self
            .find::<AuthorityKeyIdentifier<'_>>(&OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, CertificateReason::Malformed)?;
        Ok(found.and_then(|(found, _)| found.key_identifier).map(|key| key.0))
    }

    /// X509-SVID sections 2 and 5.2: exactly one URI, of any scheme. Section 4.1: critical if the subject is empty.
    fn only_uri_san(&self, subject: &[u8]) -> Result<&'c str, CertificateError> {
        let malformed = CertificateReason::SanMalformed;
        let (names, critical) = self
            .find::<SubjectAlternativeName<'_>>(&OID_X509_EXT_SUBJECT_ALT_NAME, malformed)?
            .ok_or(CertificateError(CertificateReason::NoUriSan))?;
        // The parser reports a URI that is not UTF-8 as an invalid name with this tag. It counts as a URI.
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
        if subject == [0x30, 0x00] && !critical {
            return Err(CertificateError(CertificateReason::SanNotCritical));
        }
        match only {
            GeneralName::URI(uri) => Ok(uri),
            _ => Err(CertificateError(malformed)),
        }
    }
}

/// The error of parsing a certificate that is not the X509-SVID of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateError(CertificateReason);

impl CertificateError {
    /// The broken rule.
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

slugs! {
    /// A rule for the X509-SVID of a workload.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum CertificateReason {
        Malformed = "certificate-malformed", "The certificate is neither PEM nor DER, or is malformed.";
        TrailingBytes = "certificate-trailing-bytes", "The certificate is followed by more bytes.";
        DuplicateExtension = "certificate-duplicate-extension", "The certificate contains an extension twice.";
        NoUriSan = "certificate-no-uri-san", "The certificate has no URI SAN.";
        SeveralUriSans = "certificate-several-uri-sans", "The certificate has several URI SANs.";
        SanMalformed = "certificate-san-malformed", "The subject alternative names are malformed.";
        SanNotCritical = "certificate-san-not-critical",
            "The subject is empty, and the subject alternative names are not critical.";
        IsCa = "certificate-is-ca", "The certificate is a CA certificate.";
        BasicConstraintsMalformed = "certificate-basic-constraints-malformed", "The basic constraints are malformed.";
        KeyUsageMissing = "certificate-key-usage-missing", "The certificate has no key usage.";
        KeyUsageMalformed = "certificate-key-usage-malformed", "The key usage is malformed.";
        KeyUsageNotCritical = "certificate-key-usage-not-critical", "The key usage is not critical.";
        NoDigitalSignature = "certificate-no-digital-signature", "The key usage lacks `digitalSignature`.";
        KeyCertSign = "certificate-key-cert-sign", "The key usage contains `keyCertSign`.";
        CrlSign = "certificate-crl-sign", "The key usage contains `cRLSign`.";
        ExtendedKeyUsage = "certificate-extended-key-usage",
            "The extended key usage lacks `serverAuth` or `clientAuth`.";
        ExtendedKeyUsageMalformed = "certificate-extended-key-usage-malformed", "The extended key usage is malformed.";
        ..SpiffeId(SpiffeIdReason), "The URI SAN is not the SPIFFE ID of a workload.";
    }
}

#[cfg(test)]
pub(crate) mod der_writer;
/// Calls `read` with each certificate of a PEM text, in order.
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
