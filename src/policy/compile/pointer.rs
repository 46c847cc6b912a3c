//! The place of a value in a document, which is kept on the stack and formatted only for a diagnostic.

use std::fmt;

/// A JSON pointer (RFC 6901) that grows while a document is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pointer<'a> {
    parent: Option<&'a Pointer<'a>>,
    token: Token<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Token<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Pointer<'a> {
    pub(crate) const ROOT: Pointer<'static> = Pointer { parent: None, token: Token::Root };

    pub(crate) const fn key(&'a self, key: &'a str) -> Pointer<'a> {
        Pointer { parent: Some(self), token: Token::Key(key) }
    }

    pub(crate) const fn index(&'a self, index: usize) -> Pointer<'a> {
        Pointer { parent: Some(self), token: Token::Index(index) }
    }
}

impl fmt::Display for Pointer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.token {
            Token::Root => Ok(()),
            Token::Key(key) => write!(f, "/{}", key.replace('~', "~0").replace('/', "~1")),
            Token::Index(index) => write!(f, "/{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pointer;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn displays_by_rfc_6901_section_3() {
        let root = Pointer::ROOT;
        assert_eq!(root.to_string(), "");
        let policies = root.key("policies");
        let first = policies.index(0);
        assert_eq!(first.key("a/b~c").to_string(), "/policies/0/a~1b~0c");
    }
}
