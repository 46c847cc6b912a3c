//! Authorization by SPIFFE ID: the core of the filter, which has no I/O, no clock and no host.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::as_conversions)
)]

pub mod case;
pub mod certificate;
pub mod decision;
pub mod diagnostic;
pub mod filter_state;
pub mod host;
pub mod identity;
pub mod lint;
pub mod metadata;
pub mod policy;
pub mod request;
mod slug;
pub mod spiffe_id;
pub mod timestamp;
pub mod worker;
