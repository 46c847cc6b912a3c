//! The limits on the lifetime of an SVID.

use std::time::Duration;

use super::IdentityReason;
use crate::certificate::Svid;
use crate::timestamp::Timestamp;

/// The limits on the lifetime of an SVID: the fields `identity.expired` and `identity.maxAge`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// The treatment of an SVID that has expired.
    pub expired: Expired,
    /// The maximum age of an SVID.
    pub max_age: Option<Duration>,
}

/// The treatment of an SVID that has expired, on an open connection or in a resumed session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Expired {
    /// The caller is denied.
    #[default]
    Deny,
    /// The policies decide, as before the expiry.
    Allow,
}

impl Lifetime {
    /// Returns the first moment at which this SVID is no longer accepted.
    #[must_use]
    pub fn end(self, svid: &Svid) -> Timestamp {
        let expiry = match self.expired {
            Expired::Deny => first_after(svid.not_after()),
            Expired::Allow => Timestamp::NEVER,
        };
        expiry.min(self.max_age.map_or(Timestamp::NEVER, |max_age| first_after(svid.not_before().after(max_age))))
    }

    /// Returns the reason why this SVID is not accepted at this moment, or `None` if it is.
    #[must_use]
    pub fn rejects(self, svid: &Svid, now: Timestamp) -> Option<IdentityReason> {
        if now < self.end(svid) {
            None
        } else if self.expired == Expired::Deny && now > svid.not_after() {
            Some(IdentityReason::SvidExpired)
        } else {
            Some(IdentityReason::SvidTooOld)
        }
    }
}

fn first_after(last: Timestamp) -> Timestamp {
    last.after(Duration::from_secs(1))
}
