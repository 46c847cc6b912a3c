//! What can be wrong with a proxy's secrets.

use std::fmt;

use spiffe_authz::certificate::{CertificateError, Issuance};

use super::date;

/// Something that is wrong.
pub(crate) enum Finding {
    /// The proxy has not asked for this secret.
    SecretMissing(String),
    /// The proxy asked for this secret, and has no answer.
    SecretWarming(String),
    /// This secret does not hold what it should.
    SecretUnreadable(String),
    /// The certificate is no X509-SVID.
    NoSvid(CertificateError),
    /// Something is not good yet, from when on it will be.
    NotYetGood(String, i64),
    /// Something is good no more, and since when.
    Expired(String, i64),
    /// One pool of authorities for every trust domain.
    Pool,
    /// Another validator than SPIFFE's, by its name.
    OtherValidator(String),
    /// There is no bundle of this trust domain.
    BundleMissing(String),
    /// This bundle has no authority, or cannot be read.
    BundleUnreadable(String),
    /// Who issued the certificate is not in the bundle of its own trust domain.
    ForeignIssuer(String),
}

impl Finding {
    /// What is wrong with the dates of a certificate.
    pub(crate) fn of_dates(what: &str, issuance: &Issuance, now: i64) -> Option<Self> {
        if now < issuance.not_before {
            Some(Self::NotYetGood(what.to_owned(), issuance.not_before))
        } else if now > issuance.not_after {
            Some(Self::Expired(what.to_owned(), issuance.not_after))
        } else {
            None
        }
    }

    /// The stable name of this finding; of a certificate that is no X509-SVID, the reason's.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::SecretMissing(_) => "secret-missing",
            Self::SecretWarming(_) => "secret-warming",
            Self::SecretUnreadable(_) => "secret-unreadable",
            Self::NoSvid(error) => error.reason().slug(),
            Self::NotYetGood(..) => "not-yet-good",
            Self::Expired(..) => "expired",
            Self::Pool => "authorities-pooled",
            Self::OtherValidator(_) => "other-validator",
            Self::BundleMissing(_) => "bundle-missing",
            Self::BundleUnreadable(_) => "bundle-unreadable",
            Self::ForeignIssuer(_) => "foreign-issuer",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretMissing(name) => write!(f, "the proxy has no secret `{name}`, and waits for none"),
            Self::SecretWarming(name) => {
                write!(f, "the proxy waits for the secret `{name}`: SPIRE does not know it, or knows no secret of this name")
            }
            Self::SecretUnreadable(name) => write!(f, "the secret `{name}` does not hold what it should"),
            Self::NoSvid(_) => f.write_str("the certificate is no X509-SVID; `spiffe-authz cert` tells more"),
            Self::NotYetGood(what, moment) => write!(f, "{what} is not good before {}", date(*moment)),
            Self::Expired(what, moment) => write!(f, "{what} was good until {}", date(*moment)),
            Self::Pool => f.write_str(
                "one pool of authorities, each of which can speak for every trust domain: these come from istiod, or from a SPIRE \
                 agent whose SPIFFE validator is switched off",
            ),
            Self::OtherValidator(name) => write!(f, "callers are validated by `{name}`, not by the SPIFFE validator"),
            Self::BundleMissing(name) => write!(f, "there is no bundle of {name}: its callers fail in the handshake"),
            Self::BundleUnreadable(whose) => write!(f, "{whose} holds no authority that can be read"),
            Self::ForeignIssuer(issuer) => {
                write!(f, "{issuer} is no authority of the bundle of the certificate's own trust domain")
            }
        }
    }
}
