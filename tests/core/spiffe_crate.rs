//! SPIFFE IDs by this parser and by the crate `spiffe`: the same answer for every text, but for known differences.

use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};
use spiffe_authz::spiffe_id::SpiffeId;

/// The crate sets no limit on the whole ID; SPIFFE-ID section 2.3 asks for 2,048 bytes, and we take no more.
const LIMIT: usize = 2048;

/// What both make of a text: trust domain and path.
fn ours(text: &str) -> Option<(String, String)> {
    let id = SpiffeId::parse(text.as_bytes()).ok()?;
    Some((id.trust_domain().as_str().to_owned(), id.path().to_owned()))
}

fn theirs(text: &str) -> Option<(String, String)> {
    // The crate folds upper case in scheme and trust domain (section 2.4); here it is refused (section 2.1).
    let head = text.splitn(4, '/').take(3);
    if head.flat_map(str::chars).any(|character| character.is_ascii_uppercase()) {
        return None;
    }
    let id = spiffe::SpiffeId::new(text).ok()?;
    Some((id.trust_domain().to_string(), id.path().to_owned()))
}

#[test]
fn on_chosen_texts() {
    for text in [
        "",
        "spiffe:",
        "spiffe://",
        "spiffe:///",
        "spiffe://td",
        "spiffe://td/",
        "spiffe://td/a",
        "spiffe://td/a/",
        "spiffe://td//a",
        "spiffe://td/./a",
        "spiffe://td/..",
        "spiffe://td/...",
        "spiffe://td/.a",
        "spiffe://TD/a",
        "spiffe://td/A",
        "spiffe://td:1/a",
        "spiffe://u@td/a",
        "spiffe://td/a?b",
        "spiffe://td/a#b",
        "spiffe://td/%41",
        "spiffe://1.2.3.4/a",
        "spiffe://_/a",
        "spiffe://-x/a",
        "spiffe://.x/a",
        "spiffe://a..b/a",
        "http://td/a",
        "spiffe://[::1]/a",
        "spiffe://td/\u{e4}",
        "spiffe://t\u{e4}/a",
        " spiffe://td/a",
        "spiffe://td/a ",
    ] {
        assert_eq!(ours(text), theirs(text), "{text}");
    }
    let long = format!("spiffe://{}/a", "a".repeat(255));
    assert_eq!((ours(&long), ours(&format!("spiffe://a{}", &long[9..]))), (theirs(&long), None));
    assert_eq!(ours(&format!("spiffe://td/{}", "a".repeat(LIMIT))), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn on_texts_near_the_grammar(text in "(spiffe|SPIFFE|spiff)://[a-cA._:@%-]{0,6}(/[a-cA-C0._%?#~ -]{0,4}){0,5}") {
        prop_assert_eq!(ours(&text), theirs(&text));
    }
}
