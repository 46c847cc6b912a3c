//! `spiffe-authz prune`: the rules that no logged request matches.

mod output;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use spiffe_authz::identity::Identity;
use spiffe_authz::policy::analysis::RuleInfo;
use spiffe_authz::policy::{Action, Layer, PolicySet};
use spiffe_authz::request::Request;
use spiffe_authz::timestamp::Timestamp;

use crate::clock;
use crate::document::Document;
use crate::exit::Ended;
use crate::input::name;
use crate::located::Position;
use crate::located::positions::Positions;
use crate::logged_request::{self, Counts, Logged, Period};
use crate::mesh::MeshOptions;
use crate::options::Format;
use crate::stream::stdout;

/// Shows the rules that no logged request matches
///
/// Decides the requests and TCP connections in logs again, denied ones included, and counts those that each rule matches, also in shadow and
/// AUDIT policies. It changes no file. A DENY or AUDIT rule without a match is listed by itself: it can be for requests that must not occur.
/// A rule that needs an attribute that the log lacks is not decided.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  spiffe-authz prune policy.yaml access.log access.log.1.gz
  kubectl logs deploy/httpbin -c istio-proxy |
    spiffe-authz prune policy.yaml -

Exit status:
  0  every ALLOW rule is used, or it is not decided
  1  the command could not run, or a log has no request
  3  an ALLOW rule is not used")]
pub(crate) struct Arguments {
    /// The document, or AuthorizationPolicies, in JSON or YAML; a file or a directory
    document: PathBuf,
    /// Logs that `replay` reads; `-` is standard input
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    #[command(flatten)]
    mesh: MeshOptions,
    /// The output format
    #[arg(short, long, value_enum, default_value = "human")]
    format: Format,
}

/// A rule, and the requests that it matches.
struct Rule {
    info: RuleInfo,
    /// The file and the position in it, if the document was not imported.
    place: Option<(String, Position)>,
    /// The number of requests that match.
    matched: u64,
    /// The number of requests that match or not, depending on an attribute that the log lacks.
    undecided: u64,
}

/// The result for a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usage {
    Used,
    Unused,
    /// A DENY or AUDIT rule that nothing matches.
    Guard,
    NotDecided,
}

impl Usage {
    /// The stable name.
    const fn slug(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Unused => "unused",
            Self::Guard => "guard",
            Self::NotDecided => "not-decided",
        }
    }
}

impl Rule {
    fn usage(&self) -> Usage {
        match (self.matched, self.undecided, self.info.action) {
            (1.., ..) => Usage::Used,
            (0, 1.., _) => Usage::NotDecided,
            (0, 0, Action::Deny | Action::Audit) => Usage::Guard,
            (0, 0, Action::Allow) => Usage::Unused,
        }
    }
}

/// The usage of all rules, and the requests that it is based on.
struct Pruned {
    rules: Vec<Rule>,
    counts: Counts,
    period: Period,
    connections: u64,
    /// The requests that no rule is evaluated for, because the caller is unknown or has no accepted identity.
    without_caller: u64,
}

/// The maximum number of callers whose rules are cached.
const MAX_CALLERS: usize = 10_000;

/// The rules of a layer that can match each caller.
struct Callers<'p> {
    policies: &'p PolicySet,
    /// `None` for a caller without an accepted identity.
    known: HashMap<Option<String>, Option<(Identity, Vec<usize>)>>,
}

impl Callers<'_> {
    fn of(&mut self, logged: &Logged) -> Option<&(Identity, Vec<usize>)> {
        if self.known.len() > MAX_CALLERS {
            self.known.clear();
        }
        let policies = self.policies;
        let found = self.known.entry(logged.request.peer.clone()).or_insert_with(|| {
            let identity = logged.request.identity_of_caller(policies.identity());
            let rules = match &identity {
                Identity::Peer(peer) => policies.rules_for(Some(peer)),
                Identity::Anonymous => policies.rules_for(None),
                Identity::Rejected(_) => return None,
            };
            Some((identity, rules))
        });
        found.as_ref()
    }
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Ended> {
    let (http, tcp, places) =
        Document::load_with(&arguments.document, &arguments.mesh.mesh()?, |file, located, proxy| {
            let http = Document::compile(located, proxy)?.policy;
            let tcp = Document::compile(located, proxy)?.on(Layer::Tcp).policy;
            let positions = Positions::of(located);
            let places = http
                .rule_infos()
                .map(|info| file.map(|file| (name(file), positions.at(&info.pointer, false))))
                .collect::<Vec<_>>();
            Ok((http, tcp, places))
        })?;
    let rules = http.rule_infos().zip(places).map(|(info, place)| Rule { info, place, matched: 0, undecided: 0 });
    let mut rules: Vec<Rule> = rules.collect();
    let mut callers = [&http, &tcp].map(|policies| Callers { policies, known: HashMap::new() });
    let (mut connections, mut without_caller) = (0, 0);
    let mut period = Period::default();
    let now = clock::now()?;
    let (counts, has_error) = logged_request::read_all(&arguments.logs, |_, _, logged| {
        period.add(logged.time);
        let is_connection = logged.layer == Layer::Tcp;
        connections += u64::from(is_connection);
        let callers = &mut callers[usize::from(is_connection)];
        if !use_rules(callers, &mut rules, &logged, now) {
            without_caller += 1;
        }
        Ok(())
    })?;
    if counts.requests == 0 {
        return Ok(Ended::WithError);
    }
    let pruned = Pruned { rules, counts, period, connections, without_caller };
    let mut out = stdout();
    match arguments.format {
        Format::Human => output::write_human(&mut out, &pruned)?,
        Format::Json => output::write_json(&mut out, &pruned)?,
    }
    let is_unused = pruned.rules.iter().any(|rule| rule.usage() == Usage::Unused);
    Ok(match is_unused {
        _ if has_error => Ended::WithError,
        true => Ended::WithFindings,
        false => Ended::Well,
    })
}

/// Counts a request for the rules that match it, at its own time if the log has it. Returns `false` if no rule is evaluated.
fn use_rules(callers: &mut Callers<'_>, rules: &mut [Rule], logged: &Logged, now: Timestamp) -> bool {
    let policies = callers.policies;
    if !logged.knows_caller() {
        return false;
    }
    let Some((identity, possible)) = callers.of(logged) else { return false };
    let request = Request::new(logged, logged.time.unwrap_or(now));
    for index in possible {
        let Some(rule) = rules.get_mut(*index) else { continue };
        match policies.rule_matches(*index, identity.peer(), &request) {
            Some(true) => rule.matched += 1,
            Some(false) => {}
            None => rule.undecided += 1,
        }
    }
    true
}
