//! Reads an Envoy: its admin interface, its pages, and the messages in them.

pub(crate) mod admin;
pub(crate) mod certificate;
pub(crate) mod dump;
pub(crate) mod message;
pub(crate) mod page;
pub(crate) mod stats;
pub(crate) mod tls;
