//! Headers, or other pairs of strings, in the map layout of the ABI.

use std::rc::Rc;

use spiffe_authz::host::{Headers, HostFailure};

/// A map whose layout was checked. Copies share it.
#[derive(Clone)]
pub(crate) struct HeaderMap(Rc<Vec<u8>>);

impl HeaderMap {
    /// Checks the layout. Returns [`HostFailure`] if the bytes are not a map.
    pub(crate) fn new(bytes: Vec<u8>) -> Result<Self, HostFailure> {
        let map = Self(Rc::new(bytes));
        let count = map.number(0).ok_or(HostFailure)?;
        if map.pairs().count() == count { Ok(map) } else { Err(HostFailure) }
    }

    fn number(&self, offset: usize) -> Option<usize> {
        let (bytes, _) = self.0.get(offset..)?.split_first_chunk()?;
        u32::from_le_bytes(*bytes).try_into().ok()
    }

    /// Returns the name and the value of each line. Ends early if the bytes do.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        let count = self.number(0).unwrap_or(0);
        let lengths = 4;
        let texts = count.checked_mul(8).and_then(|size| size.checked_add(lengths));
        (0..count).scan(texts, move |at, position| {
            let offset = position.checked_mul(8)?.checked_add(lengths)?;
            let start = (*at)?;
            let end = start.checked_add(self.number(offset)?)?;
            let value_start = end.checked_add(1)?;
            let value_end = value_start.checked_add(self.number(offset.checked_add(4)?)?)?;
            *at = value_end.checked_add(1);
            Some((self.0.get(start..end)?, self.0.get(value_start..value_end)?))
        })
    }
}

impl Headers for HeaderMap {
    fn lines<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> + Clone {
        let named = move |found: &[u8]| found.eq_ignore_ascii_case(name.as_bytes());
        self.pairs().filter(move |(found, _)| named(found)).map(|(_, value)| value)
    }
}
