//! Explanations: the result of each rule and matcher for a request, from the same walk as the decision.

use super::PolicySet;
use super::action::{Action, Mode};
use super::decide::Subject;
use super::field::Names;
use super::rule::{JWT_PAYLOAD, Matcher, Part, Trace};
use crate::decision::Outcome;
use crate::host::{Headers as _, HostFailure, RequestAttributes};
use crate::identity::{Identity, Peer};
use crate::metadata::Value;
use crate::request::Request;

/// An outcome, and the result of every rule for the request.
#[derive(Debug, Clone)]
pub struct Explanation<'p> {
    /// The outcome.
    pub outcome: Outcome<'p>,
    /// The policies, in the order of the document. Empty if the identity is rejected, because then no policy is evaluated.
    pub policies: Vec<PolicyTrace<'p>>,
}

/// The result of a policy for a request.
#[derive(Debug, Clone)]
pub struct PolicyTrace<'p> {
    /// `<namespace>/<name>`, or `<name>` for a policy without a namespace.
    pub name: &'p str,
    /// The effect of the policy on the requests that it matches.
    pub action: Action,
    /// Whether the verdict of the policy is enforced.
    pub mode: Mode,
    /// Whether the policy applies at the time of the request, by its `notBefore` and `expires`.
    pub applies: bool,
    /// The rules, in the order of the document.
    pub rules: Vec<RuleTrace>,
}

/// The result of a rule for a request.
#[derive(Debug, Clone)]
pub struct RuleTrace {
    /// The JSON pointer to the rule.
    pub pointer: String,
    /// Whether the rule matches.
    pub matched: bool,
    /// Whether the rule never matches, because it needs attributes that this layer does not have.
    pub left_out: bool,
    /// The smallest number of fields that would have to change for the rule to match. 0 if the rule is left out.
    pub misses: usize,
    /// The fields of the rule. Empty if the rule is left out.
    pub fields: Vec<MatcherTrace>,
}

/// The result of a field for a request.
#[derive(Debug, Clone)]
pub struct MatcherTrace {
    /// The JSON pointer to the source, operation or condition that contains the field.
    pub pointer: String,
    /// The names of the field and of its negated form.
    pub names: [&'static str; 2],
    /// Whether the field matches.
    pub matched: bool,
    /// Whether the field is not evaluated on this layer, and counts as matched.
    pub skipped: bool,
    /// The values of the request. Empty if the attribute is absent.
    pub found: Vec<String>,
}

impl PolicySet {
    /// Decides a request as [`PolicySet::decide`] does, and reports the result of every rule.
    ///
    /// # Errors
    /// Returns [`HostFailure`] if the host cannot read an attribute that a rule needs.
    pub fn explain<A: RequestAttributes>(
        &self,
        subject: &Subject,
        request: &Request<A>,
    ) -> Result<Explanation<'_>, HostFailure> {
        let outcome = self.decide(subject, request);
        let peer = match subject.identity() {
            Identity::Peer(peer) => Some(peer),
            Identity::Anonymous => None,
            Identity::Rejected(_) => return Ok(Explanation { outcome, policies: Vec::new() }),
        };
        let mut policies: Vec<PolicyTrace<'_>> = self
            .policies
            .iter()
            .map(|policy| PolicyTrace {
                name: &policy.full_name,
                action: policy.action,
                mode: policy.mode,
                applies: policy.period.contains(request.now()),
                rules: Vec::new(),
            })
            .collect();
        for rule in &self.rules {
            let Some(policy) = self.policy(rule) else { continue };
            let pointer = format!("/policies/{}/rules/{}", policy.position, rule.position);
            let mut recorder = Recorder { results: Vec::new() };
            let fields_match = !rule.left_out && rule.matches(peer, request, &mut recorder)?;
            let matched = fields_match && self.applies(rule, request.now());
            let misses = recorder.misses();
            let fields = recorder.results.into_iter().map(|result| result.into_trace(&pointer, peer, request));
            let fields = fields.collect::<Result<_, _>>()?;
            if let Some(policy) = policies.get_mut(rule.policy.index()) {
                policy.rules.push(RuleTrace { pointer, matched, left_out: rule.left_out, misses, fields });
            }
        }
        Ok(Explanation { outcome, policies })
    }
}

/// The result of one matcher.
struct MatcherResult<'r> {
    part: Part,
    position: usize,
    matcher: &'r Matcher,
    matched: bool,
}

struct Recorder<'r> {
    results: Vec<MatcherResult<'r>>,
}

impl<'r> Trace<'r> for Recorder<'r> {
    const COMPLETE: bool = true;

    fn matcher(&mut self, part: Part, position: usize, matcher: &'r Matcher, matched: bool) {
        self.results.push(MatcherResult { part, position, matcher, matched });
    }
}

impl Recorder<'_> {
    /// Counts the fields that do not match: of the closest source, of the closest operation, and every condition.
    fn misses(&self) -> usize {
        let mut missing: Vec<(Part, usize)> = Vec::new();
        for result in &self.results {
            let miss = usize::from(!result.matched);
            match missing.last_mut() {
                Some((part, misses)) if *part == result.part => *misses += miss,
                _ => missing.push((result.part, miss)),
            }
        }
        let of = |is: fn(Part) -> bool| missing.iter().filter(move |(part, _)| is(*part)).map(|(_, misses)| *misses);
        of(|part| matches!(part, Part::From(_))).min().unwrap_or(0)
            + of(|part| matches!(part, Part::To(_))).min().unwrap_or(0)
            + of(|part| part == Part::When).sum::<usize>()
    }
}

impl MatcherResult<'_> {
    fn into_trace<A: RequestAttributes>(
        self,
        rule: &str,
        peer: Option<&Peer>,
        request: &Request<A>,
    ) -> Result<MatcherTrace, HostFailure> {
        let pointer = match self.part {
            Part::From(position) => format!("{rule}/from/{position}/source"),
            Part::To(position) => format!("{rule}/to/{position}/operation"),
            Part::When => format!("{rule}/when/{}", self.position),
        };
        let found = self.matcher.found(peer, request)?;
        let skipped = matches!(self.matcher, Matcher::Skipped(_));
        let names: Names = self.matcher.names(self.part);
        Ok(MatcherTrace { pointer, names, matched: self.matched, skipped, found })
    }
}

impl Matcher {
    /// The values of the request that this matcher compares.
    fn found<A: RequestAttributes>(
        &self,
        peer: Option<&Peer>,
        request: &Request<A>,
    ) -> Result<Vec<String>, HostFailure> {
        let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let metadata = |value: Option<&Value>| match value {
            None => Vec::new(),
            Some(value) => value.texts().into_iter().map(text).collect(),
        };
        Ok(match self {
            Self::Principals(_) => peer.map(|peer| peer.principal().to_owned()).into_iter().collect(),
            Self::TrustDomains(_) => peer.map(|peer| peer.trust_domain().to_owned()).into_iter().collect(),
            Self::Namespaces(_) => peer
                .and_then(|peer| Some(with_foreign_trust_domain(peer, peer.namespace()?.to_owned())))
                .into_iter()
                .collect(),
            Self::ServiceAccounts(_) => peer
                .and_then(|peer| {
                    let account = format!("{}/{}", peer.namespace()?, peer.service_account()?);
                    Some(with_foreign_trust_domain(peer, account))
                })
                .into_iter()
                .collect(),
            Self::RequestPrincipals(_) => {
                let object = request.metadata()?;
                let claim = |name| {
                    let value = object.get(&[JWT_PAYLOAD[0], JWT_PAYLOAD[1], name]).map_err(|_| HostFailure)?;
                    Ok::<_, HostFailure>(metadata(value).into_iter().next())
                };
                claim("iss")?
                    .zip(claim("sub")?)
                    .map(|(issuer, subject)| format!("{issuer}/{subject}"))
                    .into_iter()
                    .collect()
            }
            Self::Addresses(of, _) => request.address(*of)?.map(|address| address.to_string()).into_iter().collect(),
            Self::Hosts(..) => request.hosts()?.map(text).collect(),
            Self::Ports(_) => request.port()?.map(|port| port.to_string()).into_iter().collect(),
            Self::Methods(_) => request.method()?.map(text).into_iter().collect(),
            Self::Paths(..) => request.paths()?.map(text).collect(),
            Self::ServerNames(_) => request.server_name()?.map(text).into_iter().collect(),
            Self::Header(name, ..) => request.headers()?.lines(name).map(text).collect(),
            Self::Metadata(path, _) => metadata(request.metadata()?.get(path).map_err(|_| HostFailure)?),
            Self::Skipped(_) => Vec::new(),
        })
    }
}

/// Adds a trust domain that is not local, because the same name in a different trust domain is a different workload.
fn with_foreign_trust_domain(peer: &Peer, name: String) -> String {
    if peer.is_local() { name } else { format!("{name} in {}", peer.trust_domain()) }
}
