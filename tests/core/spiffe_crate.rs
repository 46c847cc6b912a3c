//! Compares this parser of SPIFFE IDs with the crate `spiffe`: both have the same result for every string, except known
//! differences.

use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};
use spiffe_authz::spiffe_id::SpiffeId;

/// The maximum length of an ID. SPIFFE-ID section 2.3 requires support for 2,048 bytes, and this parser accepts no
/// more. The crate has no limit.
const LIMIT: usize = 2048;

/// Returns the trust domain and the path of a string.
fn ours(text: &str) -> Option<(String, String)> {
    let id = SpiffeId::parse(text.as_bytes()).ok()?;
    Some((id.trust_domain().as_str().to_owned(), id.path().to_owned()))
}

fn theirs(text: &str) -> Option<(String, String)> {
    // The crate converts upper case in the scheme and the trust domain (section 2.4). This parser rejects it (section
    // 2.1).
    let head = text.splitn(4, '/').take(3);
    if head.flat_map(str::chars).any(|character| character.is_ascii_uppercase()) {
        return None;
    }
    let id = spiffe::SpiffeId::new(text).ok()?;
    Some((id.trust_domain().to_string(), id.path().to_owned()))
}

#[test]
fn chosen_strings() {
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
    fn strings_near_the_grammar(text in "(spiffe|SPIFFE|spiff)://[a-cA._:@%-]{0,6}(/[a-cA-C0._%?#~ -]{0,4}){0,5}") {
        prop_assert_eq!(ours(&text), theirs(&text));
    }
}
