//! The subcommands, one file each.

pub(crate) mod cert;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod controller;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod id;
pub(crate) mod import;
pub(crate) mod learn;
pub(crate) mod man;
pub(crate) mod matrix;
pub(crate) mod prove;
pub(crate) mod prune;
pub(crate) mod render;
pub(crate) mod replay;
pub(crate) mod rule;
pub(crate) mod schema;
pub(crate) mod secret;
pub(crate) mod test;
pub(crate) mod version;
pub(crate) mod who;
