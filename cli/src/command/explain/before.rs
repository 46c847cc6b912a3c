//! Changes that Envoy makes to a request before the filter gets it, with the defaults of a sidecar in Istio.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;

use spiffe_authz::case::{CaseRequest, Lines};
use spiffe_authz::policy::PolicySet;
use spiffe_authz::policy::field::Field;

use crate::claims;
use crate::envoy::path::PathNormalization;

/// The heading of the options in `--help`.
const HEADING: &str = "Options for changes that Envoy makes before the filter";
/// The header with the addresses of the client and of the proxies.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Headers of which Envoy joins the lines while it reads a request: those with a slot of their own in its header map. A test in
/// `tests/integration` compares them with a real Envoy.
const JOINED: [&str; 27] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "authentication",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-forwarded-host",
    "x-forwarded-port",
    FORWARDED_FOR,
];

/// The settings of Envoy and Istio that change a request before the filter.
#[derive(clap::Args)]
pub(super) struct BeforeFilter {
    /// The normalization of the path by Envoy: `pathNormalization` in Istio's mesh configuration
    #[arg(help_heading = HEADING, long, value_enum, default_value = "base", conflicts_with = "log")]
    path_normalization: PathNormalization,
    /// Takes the remote address from the connection, as Istio's gateways do, and not from `x-forwarded-for`, as sidecars do
    #[arg(help_heading = HEADING, long, conflicts_with_all = ["remote_ip", "log"])]
    use_remote_address: bool,
    /// The number of trusted proxies in `x-forwarded-for`
    #[arg(help_heading = HEADING, long, value_name = "NUMBER", default_value_t, conflicts_with_all = ["remote_ip", "log"])]
    xff_num_trusted_hops: usize,
    /// A header whose lines Envoy joins; can be repeated; an empty name means none [default: those of Envoy 1.40]
    #[arg(help_heading = HEADING, long = "joined-header", value_name = "NAME", value_parser = lower_case, default_values = JOINED, hide_default_value = true)]
    joined: Vec<String>,
    /// A claim that Envoy splits at spaces; can be repeated; an empty name means none [default: scope and permission, as in
    /// Istio]
    #[arg(help_heading = HEADING, long = "space-delimited-claim", value_name = "CLAIM", default_values = claims::OF_ISTIO, hide_default_value = true)]
    space_delimited: Vec<String>,
}

/// A request as the filter gets it.
pub(super) struct Received {
    pub(super) request: CaseRequest,
    /// The assumptions about attributes that the policies read.
    pub(super) assumed: Vec<String>,
}

impl BeforeFilter {
    /// Returns the request that the filter gets if a client sends this one. With `is_received`, its path and addresses are already
    /// those that the filter gets, as in a log and on TCP.
    ///
    /// # Errors
    /// Returns an error if Envoy responds without asking the filter.
    pub(super) fn apply(&self, policy: &PolicySet, sent: &CaseRequest, is_received: bool) -> io::Result<Received> {
        let mut request = claims::split(sent, &self.space_delimited);
        let mut assumed = Vec::new();
        if request.claims != sent.claims && claims::FIELDS.iter().any(|field| policy.reads(*field)) {
            let names = self.space_delimited.join("`, `");
            assumed.push(format!("Envoy splits the claims `{names}` at spaces (`--space-delimited-claim`)"));
        }
        assumed.extend(self.join(policy, &mut request));
        if !is_received {
            assumed.extend(self.normalize(policy, &mut request)?);
            assumed.extend(self.find_client(policy, &mut request));
        }
        Ok(Received { request, assumed })
    }

    fn join(&self, policy: &PolicySet, request: &mut CaseRequest) -> Vec<String> {
        let mut assumed = Vec::new();
        for (name, lines) in &mut request.headers {
            if lines.as_slice().len() > 1 && self.joined.contains(name) {
                let joined = lines.as_slice().join(",");
                if policy.reads(Field::Header) {
                    assumed.push(format!("Envoy joins the lines of `{name}` to `{joined}` (`--joined-header`)"));
                }
                *lines = Lines::One(joined);
            }
        }
        assumed
    }

    fn normalize(&self, policy: &PolicySet, request: &mut CaseRequest) -> io::Result<Option<String>> {
        let option = format!("`--path-normalization {}`", self.path_normalization.name());
        let path = self.path_normalization.apply(&request.path).ok_or_else(|| {
            io::Error::other(format!(
                "`--path`: Envoy responds with 400 to this path with {option}, without the filter"
            ))
        })?;
        let assumed = (path != request.path && policy.reads(Field::Paths))
            .then(|| format!("Envoy normalizes the path to `{path}` ({option})"));
        request.path = path;
        Ok(assumed)
    }

    /// Determines the remote address as `ConnectionManagerUtility::mutateRequestHeaders` does.
    fn find_client(&self, policy: &PolicySet, request: &mut CaseRequest) -> Option<String> {
        if request.remote_ip.is_some() {
            return None;
        }
        let hops = self.xff_num_trusted_hops;
        let skipped = if self.use_remote_address { hops.checked_sub(1) } else { Some(hops) };
        let forwarded = skipped.and_then(|skipped| forwarded_for(request, skipped));
        request.remote_ip = forwarded.or(request.source_ip);
        let address = request.remote_ip.filter(|_| policy.reads(Field::RemoteIpBlocks))?;
        let source = if forwarded.is_some() { "from `x-forwarded-for`" } else { "that of the connection" };
        Some(format!(
            "the remote address is {address}, {source} (`--use-remote-address`, `--xff-num-trusted-hops`, `--remote-ip`)"
        ))
    }

    /// Returns the path with each normalization that does more than the assumed one, if the paths differ.
    pub(super) fn other_paths(&self, sent: &CaseRequest) -> Vec<(PathNormalization, String)> {
        let mut last = self.path_normalization.apply(&sent.path);
        let stronger =
            [PathNormalization::Base, PathNormalization::MergeSlashes, PathNormalization::DecodeAndMergeSlashes]
                .into_iter()
                .filter(|normalization| *normalization > self.path_normalization);
        stronger
            .filter_map(|normalization| {
                let path = normalization.apply(&sent.path);
                let differs = path != last;
                last.clone_from(&path);
                Some((normalization, path.filter(|_| differs)?))
            })
            .collect()
    }
}

/// Returns the name of a header in lower case, the form in requests.
fn lower_case(name: &str) -> Result<String, Infallible> {
    Ok(name.to_ascii_lowercase())
}

/// Returns the last address in `x-forwarded-for` before this number of trusted proxies.
fn forwarded_for(request: &CaseRequest, skipped: usize) -> Option<IpAddr> {
    let lines = request.headers.get(FORWARDED_FOR)?.as_slice().join(",");
    lines.rsplit(',').nth(skipped)?.trim().parse().ok()
}
