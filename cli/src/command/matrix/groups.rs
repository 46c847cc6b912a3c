//! The workloads that the selectors and targets of policies distinguish.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use spiffe_authz::diagnostic::Diagnostic;
use spiffe_authz::policy::{self, GATEWAY_NAME, Node, PolicySet, Proxy};

use super::workloads::{ProxyKind, Workload};

/// The most sets of labels of a namespace that several selectors choose.
const MAX_COMBINATIONS: usize = 2_000;
/// The fields of a policy that choose its workloads.
const CHOOSING: [&str; 3] = ["namespace", "selector", "targetRefs"];

type Labels = BTreeMap<String, String>;

/// A document with `scope`, with what its policies select.
pub(super) struct Groups<'n> {
    root: &'n Node<'n>,
    root_namespace: &'n str,
    namespaces: BTreeMap<&'n str, Chosen>,
    has_gateway_class: bool,
    /// The policies that can apply in each namespace. The one of [`Self::unused_namespace`] is for namespaces without policies.
    candidates: HashMap<String, Candidates<'n>>,
}

/// The selectors and Gateways of a namespace's policies, and the policies themselves.
#[derive(Default)]
struct Chosen {
    selectors: BTreeSet<Labels>,
    gateways: BTreeSet<String>,
    policies: Vec<usize>,
}

/// The policies that can apply in a namespace.
struct Candidates<'n> {
    /// The positions of the policies that choose the same workloads.
    alike: Vec<Vec<usize>>,
    /// The document with one policy of each of these lists, without its rules. It compiles fast.
    document: Node<'n>,
}

/// The workloads with the same policies.
pub(super) struct Group {
    pub(super) workload: Workload,
    /// A proxy of one of them, or `None` if there are too many groups to list.
    pub(super) proxy: Option<policy::Workload>,
}

impl<'n> Groups<'n> {
    /// Reads the selectors of a document that compiles.
    pub(super) fn of(root: &'n Node<'n>) -> Self {
        let root_namespace =
            root.field("scope").and_then(|scope| scope.field("rootNamespace")).and_then(Node::text).unwrap_or_default();
        let mut groups = Self {
            root,
            root_namespace,
            namespaces: BTreeMap::new(),
            has_gateway_class: false,
            candidates: HashMap::new(),
        };
        for (position, policy) in root.list("policies").iter().enumerate() {
            let namespace = policy.field("namespace").and_then(Node::text).unwrap_or_default();
            let chosen = groups.namespaces.entry(namespace).or_default();
            chosen.policies.push(position);
            let labels = policy.field("selector").and_then(|selector| selector.field("matchLabels")).map(labels);
            chosen.selectors.extend(labels.filter(|labels| !labels.is_empty()));
            for target in policy.list("targetRefs") {
                let text = |name: &str| target.field(name).and_then(Node::text);
                match (text("kind"), text("name")) {
                    (Some("GatewayClass"), _) => groups.has_gateway_class = true,
                    (_, Some(name)) => {
                        chosen.gateways.insert(name.to_owned());
                    }
                    (_, None) => {}
                }
            }
        }
        let names: Vec<String> = groups.namespaces.keys().map(|name| (*name).to_owned()).collect();
        for namespace in names.into_iter().chain([groups.unused_namespace()]) {
            let candidates = groups.candidates(&namespace);
            groups.candidates.insert(namespace, candidates);
        }
        groups
    }

    /// Returns the policies that can apply in a namespace.
    fn candidates(&self, namespace: &str) -> Candidates<'n> {
        let of = |namespace: &str| self.namespaces.get(namespace).map_or(&[][..], |chosen| &chosen.policies);
        let of_root = if namespace == self.root_namespace { &[] } else { of(self.root_namespace) };
        let mut alike: Vec<Vec<usize>> = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let policies = self.root.list("policies");
        for position in of(namespace).iter().chain(of_root) {
            let field = |name: &str| policies.get(*position).and_then(|policy| policy.field(name));
            let choice = format!("{:?}", CHOOSING.map(field));
            let number = *numbers.entry(choice).or_insert_with(|| {
                alike.push(Vec::new());
                alike.len() - 1
            });
            if let Some(positions) = alike.get_mut(number) {
                positions.push(*position);
            }
        }
        let firsts: Vec<usize> = alike.iter().filter_map(|positions| positions.first().copied()).collect();
        let document = self.with_policies(&firsts, |policy| match policy {
            Node::Object(fields) => {
                let is_kept = |name: &str| name == "name" || CHOOSING.contains(&name);
                Node::Object(fields.iter().filter(|(name, _)| is_kept(name)).cloned().collect())
            }
            other => other.clone(),
        });
        Candidates { alike, document }
    }

    /// Returns the groups: those of each namespace with policies, and those of every other one.
    pub(super) fn all(&self, file: Option<&str>) -> Vec<Group> {
        let none = Chosen::default();
        let of_root = self.namespaces.get(self.root_namespace).unwrap_or(&none);
        let has_own = |namespace: &str, chosen: &Chosen| {
            // Without a Gateway, the workloads of the root namespace have the policies of any namespace without its own.
            namespace != self.root_namespace || !chosen.gateways.is_empty()
        };
        let mut groups = Vec::new();
        for (namespace, chosen) in self.namespaces.iter().filter(|(namespace, chosen)| has_own(namespace, chosen)) {
            self.add(&mut groups, file, Some(namespace), chosen, of_root);
        }
        self.add(&mut groups, file, None, &none, of_root);
        groups
    }

    fn add(&self, groups: &mut Vec<Group>, file: Option<&str>, namespace: Option<&str>, own: &Chosen, root: &Chosen) {
        let selectors = own.selectors.iter().chain(&root.selectors).cloned();
        let gateways = own.gateways.iter().map(|name| Labels::from([(GATEWAY_NAME.to_owned(), name.clone())]));
        let choices: BTreeSet<Labels> = selectors.chain(gateways).collect();
        let (mut sets, is_complete) = unions(&choices);
        // The combinations come last.
        sets.sort_by_key(|labels| !choices.contains(labels));
        let unused = self.unused_namespace();
        let group = |mut labels: Labels, proxy: ProxyKind| {
            let is_waypoint = proxy == ProxyKind::Waypoint;
            let mut own_labels: Vec<(String, String)> = labels.clone().into_iter().collect();
            let gateway = labels.remove(GATEWAY_NAME);
            if is_waypoint && gateway.is_none() {
                own_labels.push((GATEWAY_NAME.to_owned(), String::new()));
            }
            Group {
                workload: Workload {
                    file: file.map(str::to_owned),
                    namespace: namespace.map(str::to_owned),
                    labels,
                    gateway,
                    service: None,
                    proxy,
                    is_document: false,
                },
                proxy: (proxy != ProxyKind::Combinations).then(|| policy::Workload {
                    namespace: namespace.unwrap_or(&unused).to_owned(),
                    labels: Some(own_labels),
                    is_waypoint,
                }),
            }
        };
        for labels in sets {
            if !labels.contains_key(GATEWAY_NAME) {
                groups.push(group(labels, ProxyKind::Workload));
                continue;
            }
            // A waypoint ignores selectors.
            let is_only_gateway = labels.len() == 1;
            groups.push(group(labels.clone(), ProxyKind::Gateway));
            if is_only_gateway {
                groups.push(group(labels, ProxyKind::Waypoint));
            }
        }
        groups.push(group(Labels::new(), ProxyKind::Workload));
        if self.has_gateway_class && namespace.is_none() {
            groups.push(group(Labels::new(), ProxyKind::Waypoint));
        }
        if !is_complete {
            groups.push(group(Labels::new(), ProxyKind::Combinations));
        }
    }

    /// Returns a namespace that no policy has.
    fn unused_namespace(&self) -> String {
        let mut name = "other".to_owned();
        while self.namespaces.contains_key(&*name) || name == self.root_namespace {
            name.push_str("-other");
        }
        name
    }

    /// Returns the positions of the policies that apply to a workload, by the code of the filter.
    ///
    /// # Errors
    /// Returns the errors in the document.
    pub(super) fn applicable(&self, workload: &policy::Workload) -> Result<Vec<usize>, Vec<Diagnostic>> {
        let Some(Candidates { alike, document }) = self.candidates.get(&workload.namespace) else {
            return Ok(Vec::new());
        };
        let set = PolicySet::from_node(document, Proxy::Of(workload))?;
        let applicable = set.positions().filter_map(|position| alike.get(position)).flatten().copied();
        let mut applicable: Vec<usize> = applicable.collect();
        applicable.sort_unstable();
        Ok(applicable)
    }

    /// Compiles the document with these policies only.
    ///
    /// # Errors
    /// Returns the errors in the document.
    pub(super) fn compile(
        &self,
        positions: &[usize],
        workload: &policy::Workload,
    ) -> Result<PolicySet, Vec<Diagnostic>> {
        PolicySet::from_node(&self.with_policies(positions, Node::clone), Proxy::Of(workload))
    }

    /// Returns the document with these policies only.
    fn with_policies(&self, positions: &[usize], form: impl Fn(&Node<'n>) -> Node<'n>) -> Node<'n> {
        let all = self.root.list("policies");
        let policies = positions.iter().filter_map(|position| all.get(*position)).map(form).collect();
        let Node::Object(fields) = self.root else { return Node::Null };
        let mut fields: Vec<_> = fields.iter().filter(|(name, _)| name != "policies").cloned().collect();
        fields.push((Cow::Borrowed("policies"), Node::List(policies)));
        Node::Object(fields)
    }
}

fn labels(node: &Node<'_>) -> Labels {
    let Node::Object(fields) = node else { return Labels::new() };
    fields.iter().filter_map(|(name, value)| Some((name.to_string(), value.text()?.to_owned()))).collect()
}

/// Returns the sets of labels that a workload with the labels of one or more of these choices has. Each of them chooses
/// different policies. Returns only the choices, and `false`, if there are too many sets.
fn unions(choices: &BTreeSet<Labels>) -> (Vec<Labels>, bool) {
    let mut found = choices.clone();
    let mut pending: Vec<Labels> = choices.iter().cloned().collect();
    while let Some(labels) = pending.pop() {
        for choice in choices {
            let is_consistent = choice.iter().all(|(name, value)| labels.get(name).is_none_or(|other| other == value));
            if !is_consistent {
                continue;
            }
            let mut union = labels.clone();
            union.extend(choice.clone());
            if !found.contains(&union) {
                if found.len() >= choices.len() + MAX_COMBINATIONS {
                    return (choices.iter().cloned().collect(), false);
                }
                pending.push(union.clone());
                found.insert(union);
            }
        }
    }
    (found.into_iter().collect(), true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Labels, unions};

    fn labels(text: &str) -> Labels {
        text.split(',').map(|label| label.split_once('=').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    #[test]
    fn combinations_have_no_label_with_two_values() {
        let choices = ["a=1", "a=2", "b=1", "a=1,c=1"].map(labels).into_iter().collect();
        let expected = ["a=1", "a=1,b=1", "a=1,b=1,c=1", "a=1,c=1", "a=2", "a=2,b=1", "b=1"].map(labels);
        assert_eq!(unions(&choices), (expected.to_vec(), true));
    }

    #[test]
    fn too_many_combinations_are_reported() {
        let choices: BTreeSet<Labels> = (0..12).map(|number| labels(&format!("{number}=x"))).collect();
        assert_eq!(unions(&choices), (choices.iter().cloned().collect(), false));
    }
}
