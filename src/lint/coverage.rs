//! Whether one rule matches everything that another matches, as far as their words tell. Never wrongly yes.

use crate::policy::Node;

/// Whether `wide` matches whatever `narrow` matches.
pub(super) fn covers(wide: &Node, narrow: &Node) -> bool {
    // A trust domain that is said in `when` changes how every namespace of the rule is read.
    says_trust_domain(wide) == says_trust_domain(narrow)
        && selectors_cover(wide, narrow, "from", "source")
        && selectors_cover(wide, narrow, "to", "operation")
        && items(wide, "when")
            .iter()
            .all(|condition| items(narrow, "when").iter().any(|other| asks_no_more(condition, other)))
}

fn says_trust_domain(rule: &Node) -> bool {
    let says = |condition: &Node| {
        // As in the compiler: `notValues` alone does not say which trust domain a namespace belongs to.
        condition.field("key").and_then(Node::text) == Some("source.trustDomain") && condition.field("values").is_some()
    };
    items(rule, "when").iter().any(says)
}

/// Every selector of `narrow` is within one of `wide`; no selectors at all is no restriction.
fn selectors_cover(wide: &Node, narrow: &Node, list: &str, wrapper: &str) -> bool {
    let of = |rule| selectors(rule, list, wrapper);
    let (wide, narrow) = (of(wide), of(narrow));
    wide.is_empty()
        || (!narrow.is_empty() && narrow.iter().all(|narrow| wide.iter().any(|wide| asks_no_more(wide, narrow))))
}

/// Whether an object of fields that must all match asks for nothing that `narrow` does not ask for.
fn asks_no_more(wide: &Node, narrow: &Node) -> bool {
    let Node::Object(fields) = wide else { return false };
    // A trust domain that stands beside changes how a namespace is read.
    let same_reading = ["trustDomains", "notTrustDomains"].iter().all(|name| wide.field(name) == narrow.field(name));
    same_reading
        && fields.iter().all(|(name, wide)| {
            let Some(narrow) = narrow.field(name) else { return false };
            match (wide, narrow) {
                (Node::List(wide), Node::List(narrow)) if name.starts_with("not") => subset(wide, narrow),
                (Node::List(wide), Node::List(narrow)) => {
                    subset(narrow, wide) || wide.contains(&Node::String("*".into()))
                }
                (wide, narrow) => wide == narrow,
            }
        })
}

fn subset(small: &[Node], large: &[Node]) -> bool {
    small.iter().all(|item| large.contains(item))
}

fn selectors<'n>(rule: &'n Node<'n>, list: &str, wrapper: &str) -> Vec<&'n Node<'n>> {
    items(rule, list).iter().filter_map(|item| item.field(wrapper)).collect()
}

fn items<'n>(node: &'n Node<'n>, name: &str) -> &'n [Node<'n>] {
    node.field(name).map_or(&[], Node::items)
}
