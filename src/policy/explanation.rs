//! Why a request is decided as it is: the walk that decides, watched.

use super::rule::{Action, Field, JWT_PAYLOAD, Mode, Part, Trace};
use super::{Candidates, Policy};
use crate::decision::Outcome;
use crate::metadata::Value;
use crate::peer::{IdentityReason, Peer};
use crate::request::{Attributes, Headers as _, HostFailure, Request};

/// An outcome, and how every rule was held against the request.
#[derive(Debug, Clone)]
pub struct Explanation<'p> {
    /// What was decided.
    pub outcome: Outcome<'p>,
    /// Every policy, in the order of the document; none where the caller has no identity that counts, since then no
    /// policy is asked.
    pub policies: Vec<PolicyTrace<'p>>,
}

/// How a policy was held against the request.
#[derive(Debug, Clone)]
pub struct PolicyTrace<'p> {
    /// `<namespace>/<name>`, or the bare name.
    pub name: &'p str,
    /// What it does with what it matches.
    pub action: Action,
    /// Whether that is acted on.
    pub mode: Mode,
    /// Whether the policy applies at the moment of the request, by its `notBefore` and `expires`.
    pub applies: bool,
    /// Its rules, in the order of the document.
    pub rules: Vec<RuleTrace>,
}

/// How a rule was held against the request.
#[derive(Debug, Clone)]
pub struct RuleTrace {
    /// JSON pointer to the rule.
    pub pointer: String,
    /// Whether it matches.
    pub matched: bool,
    /// Whether it can match nothing, since it asks for what this layer does not have.
    pub left_out: bool,
    /// How many fields would have to match besides, at least, for the rule to match; of a rule that is left out, 0.
    pub misses: usize,
    /// Its fields; none of a rule that is left out.
    pub fields: Vec<FieldTrace>,
}

/// How a field was held against the request.
#[derive(Debug, Clone)]
pub struct FieldTrace {
    /// JSON pointer to the source, operation or condition that it stands in.
    pub pointer: String,
    /// Its name there, and that of its `not…` twin.
    pub names: [&'static str; 2],
    /// Whether it matches.
    pub matched: bool,
    /// Whether it counts as matched because this layer does not have what it asks for.
    pub unasked: bool,
    /// What the request has there; nothing where it has nothing.
    pub found: Vec<String>,
}

impl Policy {
    /// Decides a request as `authorize`, and tells how every rule was held against it.
    ///
    /// # Errors
    /// When the host fails to tell an attribute that a rule asks for.
    pub fn explain<A: Attributes>(
        &self,
        identity: &Result<Option<Peer>, IdentityReason>,
        candidates: &Candidates,
        request: &Request<A>,
    ) -> Result<Explanation<'_>, HostFailure> {
        let outcome = self.authorize(identity, candidates, request);
        let Ok(peer) = identity else { return Ok(Explanation { outcome, policies: Vec::new() }) };
        let mut policies: Vec<PolicyTrace<'_>> = self
            .names
            .iter()
            .map(|name| PolicyTrace {
                name: &name.full_name,
                action: name.action,
                mode: name.mode,
                applies: name.period.contains(request.now()),
                rules: Vec::new(),
            })
            .collect();
        for rule in &self.rules {
            let pointer = format!("/policies/{}/rules/{}", rule.policy, rule.position);
            let mut recorder = Recorder { fields: Vec::new() };
            let fields_match = !rule.left_out && rule.matches(peer.as_ref(), request, &mut recorder)?;
            let matched = fields_match && self.applies(rule, request.now());
            let misses = recorder.misses();
            let fields = recorder.fields.into_iter().map(|seen| seen.into_trace(&pointer, peer.as_ref(), request));
            let fields = fields.collect::<Result<_, _>>()?;
            if let Some(policy) = usize::try_from(rule.policy).ok().and_then(|policy| policies.get_mut(policy)) {
                policy.rules.push(RuleTrace { pointer, matched, left_out: rule.left_out, misses, fields });
            }
        }
        Ok(Explanation { outcome, policies })
    }
}

/// A field that was held against the request.
struct Seen<'r> {
    part: Part,
    position: usize,
    field: &'r Field,
    matched: bool,
}

struct Recorder<'r> {
    fields: Vec<Seen<'r>>,
}

impl<'r> Trace<'r> for Recorder<'r> {
    const COMPLETE: bool = true;

    fn field(&mut self, part: Part, position: usize, field: &'r Field, matched: bool) {
        self.fields.push(Seen { part, position, field, matched });
    }
}

impl Recorder<'_> {
    /// Of `from` and `to` the selector that misses least counts; every condition counts.
    fn misses(&self) -> usize {
        let mut missing: Vec<(Part, usize)> = Vec::new();
        for seen in &self.fields {
            let miss = usize::from(!seen.matched);
            match missing.last_mut() {
                Some((part, misses)) if *part == seen.part => *misses += miss,
                _ => missing.push((seen.part, miss)),
            }
        }
        let of = |is: fn(Part) -> bool| missing.iter().filter(move |(part, _)| is(*part)).map(|(_, misses)| *misses);
        of(|part| matches!(part, Part::From(_))).min().unwrap_or(0)
            + of(|part| matches!(part, Part::To(_))).min().unwrap_or(0)
            + of(|part| part == Part::When).sum::<usize>()
    }
}

impl Seen<'_> {
    fn into_trace<A: Attributes>(
        self,
        rule: &str,
        peer: Option<&Peer>,
        request: &Request<A>,
    ) -> Result<FieldTrace, HostFailure> {
        let pointer = match self.part {
            Part::From(position) => format!("{rule}/from/{position}/source"),
            Part::To(position) => format!("{rule}/to/{position}/operation"),
            Part::When => format!("{rule}/when/{}", self.position),
        };
        let found = self.field.found(peer, request)?;
        let unasked = matches!(self.field, Field::Unasked(_));
        Ok(FieldTrace { pointer, names: self.field.names(self.part), matched: self.matched, unasked, found })
    }
}

impl Field {
    /// What the request has where this field looks.
    fn found<A: Attributes>(&self, peer: Option<&Peer>, request: &Request<A>) -> Result<Vec<String>, HostFailure> {
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
                    let value = object.get(&[JWT_PAYLOAD[0], JWT_PAYLOAD[1], name])?;
                    Ok(metadata(value).into_iter().next())
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
            Self::Metadata(path, _) => metadata(request.metadata()?.get(path)?),
            Self::Unasked(_) => Vec::new(),
        })
    }
}

/// The same name in another trust domain is another one, and must not look the same.
fn with_foreign_trust_domain(peer: &Peer, name: String) -> String {
    if peer.is_local() { name } else { format!("{name} of {}", peer.trust_domain()) }
}
