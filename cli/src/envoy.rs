//! Reads an Envoy: its admin interface, its pages, and the messages in them.

pub(crate) mod admin;
pub(crate) mod certificate;
pub(crate) mod certs;
pub(crate) mod config_dump;
pub(crate) mod matchers;
pub(crate) mod message;
pub(crate) mod moment;
pub(crate) mod page;
pub(crate) mod path;
pub(crate) mod snapshot;
pub(crate) mod stats;
pub(crate) mod tls;
pub(crate) mod validator;
