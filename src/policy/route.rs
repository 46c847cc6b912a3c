//! The configuration of a route.

use super::compile::pointer::Pointer;
use super::compile::reader::Reader;
use super::compile::{UNSUPPORTED, parse, read_document, read_mode};
use super::field::{CONFIGURATION, MODE};
use super::node::Node;
use super::{Mode, PolicySet, Proxy};
use crate::diagnostic::{Code, Diagnostic};

/// The configuration of a route, which overrides the one of the filter.
///
/// A route cannot accept an identity that the filter rejects, unless it has a policy set of its own.
#[derive(Debug)]
pub struct RoutePolicy {
    /// Whether policies are enforced.
    pub mode: Mode,
    /// The policy set that replaces the one of the filter.
    pub policies: Option<PolicySet>,
}

impl RoutePolicy {
    /// Compiles `{"mode": …, "configuration": …}`, in which one of the fields can be absent.
    ///
    /// # Errors
    /// Returns every error in the JSON text.
    pub fn from_json(text: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let help = "use a JSON object with `mode`, `configuration`, or both";
        let root = parse(text, help, serde_json::from_str::<Node<'_>>)?;
        let mut reader = Reader::new(&UNSUPPORTED);
        let route = Self::read(&mut reader, &root);
        reader.finish(route)
    }

    fn read(r: &mut Reader, root: &Node) -> Option<Self> {
        let fields = r.object(root, &Pointer::ROOT, &[MODE, CONFIGURATION])?;
        if fields.is_empty() {
            let help = "set `mode`, `configuration`, or both";
            r.report(&Pointer::ROOT, Code::Empty, "the configuration of the route is empty".to_owned(), help);
        }
        let mode = fields.optional(r, MODE, read_mode).unwrap_or(Mode::Enforce);
        Some(Self {
            mode,
            policies: fields.optional(r, CONFIGURATION, |r, node, at| read_document(r, node, at, Proxy::Unknown)),
        })
    }
}
