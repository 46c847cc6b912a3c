//! The documents of filters and the settings of routes, each compiled once although a dump repeats them in every filter chain.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use spiffe_authz::diagnostic::Diagnostic;
use spiffe_authz::policy::{Mode, Node, Proxy, RoutePolicy};

use crate::document::Document;

/// A compiled document, or its errors.
pub(crate) type Compiled = Rc<Result<Document, Vec<String>>>;

/// The settings that a route has for the dynamic module.
#[derive(Debug, Clone)]
pub(crate) struct RouteSettings {
    /// Whether policies are enforced.
    pub(crate) mode: Mode,
    /// The document that replaces that of the filter.
    pub(crate) document: Option<Compiled>,
}

/// Values by the JSON that they come from.
type Known<V> = RefCell<HashMap<Vec<u8>, V>>;

/// The documents and settings that are compiled so far.
#[derive(Debug, Default)]
pub(crate) struct CompiledOnce {
    documents: Known<Compiled>,
    /// Those that were compiled without a workload.
    unplaced: Known<Compiled>,
    routes: Known<Result<RouteSettings, Vec<String>>>,
}

impl CompiledOnce {
    /// Returns the compiled document of a JSON text for the proxy of the page, or for an unknown one.
    pub(crate) fn document(&self, text: &[u8], proxy: Proxy<'_>) -> Compiled {
        let known = if proxy == Proxy::Unknown { &self.unplaced } else { &self.documents };
        once(known, text, || Rc::new(Document::from_json(text, proxy).map_err(|errors| lines(&errors))))
    }

    /// Returns the compiled settings of a route.
    pub(crate) fn route(&self, text: &[u8]) -> Result<RouteSettings, Vec<String>> {
        once(&self.routes, text, || {
            let RoutePolicy { mode, policies: policy } =
                RoutePolicy::from_json(text).map_err(|errors| lines(&errors))?;
            let Some(policy) = policy else { return Ok(RouteSettings { mode, document: None }) };
            let settings: Node<'static> =
                serde_json::from_slice(text).map(Node::into_owned).map_err(|error| vec![error.to_string()])?;
            let root = settings.field("configuration").cloned().unwrap_or(Node::Null);
            Ok(RouteSettings { mode, document: Some(Rc::new(Ok(Document { root, policy }))) })
        })
    }
}

/// Returns the known value, or makes it.
fn once<V: Clone>(known: &Known<V>, text: &[u8], make: impl FnOnce() -> V) -> V {
    if let Some(value) = known.borrow().get(text) {
        return value.clone();
    }
    let value = make();
    known.borrow_mut().insert(text.to_vec(), value.clone());
    value
}

fn lines(errors: &[Diagnostic]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use spiffe_authz::policy::Proxy;

    use super::CompiledOnce;

    const DOCUMENT: &str = r#"{"trustDomain": "example.org", "policies": []}"#;

    #[test]
    fn documents_and_settings_are_compiled_once() {
        let compiled = CompiledOnce::default();
        let document = || compiled.document(DOCUMENT.as_bytes(), Proxy::Unknown);
        assert!(document().is_ok() && Rc::ptr_eq(&document(), &document()));
        let route =
            || compiled.route(format!("{{\"configuration\": {DOCUMENT}}}").as_bytes()).unwrap().document.unwrap();
        assert!(route().is_ok() && Rc::ptr_eq(&route(), &route()));
        assert!(!Rc::ptr_eq(&compiled.document(b"{}", Proxy::Unknown), &document()));
    }
}
