//! The time of the pages, and the dates in them.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The time of the pages, as Unix time in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// This moment.
    At(i64),
    /// The pages do not contain it. It is not earlier than this.
    NotBefore(i64),
}

/// The relation of the time of the pages to the dates of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Validity {
    /// Within the dates.
    Valid,
    /// Before the dates.
    NotYet,
    /// After the dates.
    Expired,
    /// The moment of the pages is unknown.
    Unknown,
}

impl Default for Moment {
    fn default() -> Self {
        Self::NotBefore(i64::MIN)
    }
}

impl Moment {
    /// Returns the earliest time of the pages.
    pub(crate) const fn earliest(self) -> i64 {
        match self {
            Self::At(moment) | Self::NotBefore(moment) => moment,
        }
    }

    /// Compares the moment with the dates of a certificate.
    pub(crate) fn within(self, not_before: Option<i64>, not_after: i64) -> Validity {
        if self.earliest() > not_after {
            return Validity::Expired;
        }
        match self {
            Self::At(moment) if not_before.is_some_and(|start| moment < start) => Validity::NotYet,
            Self::At(_) => Validity::Valid,
            Self::NotBefore(_) => Validity::Unknown,
        }
    }
}

/// Returns the Unix time of a date in RFC 3339, which Envoy writes.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

/// Returns Unix time as RFC 3339, or as a number beyond its range.
pub(crate) fn moment(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|moment| moment.format(&Rfc3339).ok());
    moment.unwrap_or_else(|| format!("{seconds} s after 1970"))
}
