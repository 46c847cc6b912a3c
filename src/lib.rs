//! Authorization by SPIFFE ID: the pure core that decides, with no I/O, no clock and no host.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]

pub mod case;
pub mod certificate;
pub mod decision;
pub mod diagnostic;
pub mod filter;
pub mod identity;
pub mod lint;
pub mod log_line;
pub mod metadata;
pub mod pattern;
pub mod peer;
pub mod policy;
pub mod request;
pub mod revocation;
pub mod spiffe_id;
pub mod timestamp;
pub mod worker;
pub mod xfcc;
