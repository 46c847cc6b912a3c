//! The field `identity`: which identities count, and where they come from.

use crate::diagnostic::Code;
use crate::identity::IdentitySource;
use crate::pattern::Pattern;
use crate::policy::PeerRequirement;
use crate::policy::node::Node;
use crate::policy::pointer::Pointer;
use crate::policy::reader::Reader;
use crate::spiffe_id::SpiffeId;

pub(super) struct Identity {
    pub(super) pattern: Pattern,
    pub(super) source: IdentitySource,
    pub(super) peer: PeerRequirement,
    pub(super) require_validated: bool,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            pattern: Pattern::istio(),
            source: IdentitySource::Tls,
            peer: PeerRequirement::Required,
            require_validated: false,
        }
    }
}

/// The words of `from`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Tls,
    PeerPrincipal,
    Xfcc,
}

pub(super) fn read_identity(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Identity> {
    let fields = r.object(node, at, &["pattern", "from", "trustedProxies", "peer", "requireValidated"])?;
    let pattern = fields.optional(r, "pattern", read_pattern);
    let words = [("tls", From::Tls), ("peerPrincipal", From::PeerPrincipal), ("xfcc", From::Xfcc)];
    let from = fields.optional(r, "from", |r, node, at| r.one_of(node, at, &words));
    let from = if fields.node("from").is_some() { from? } else { From::Tls };
    let proxies = if from == From::Xfcc {
        fields.required(r, "trustedProxies", |r, n, at| r.some(n, at, read_proxy))
    } else {
        if fields.node("trustedProxies").is_some() {
            let message = "identities are not told by proxies".to_owned();
            r.report(&at.key("trustedProxies"), Code::ConflictingFields, message, "it stands beside `from: xfcc`");
        }
        None
    };
    let peer = fields.optional(r, "peer", |r, node, at| {
        r.one_of(node, at, &[("required", PeerRequirement::Required), ("optional", PeerRequirement::Optional)])
    });
    let require_validated = fields.optional(r, "requireValidated", Reader::boolean);
    if from == From::PeerPrincipal && require_validated == Some(true) {
        let message = "the tunnel's handshake is not this connection's".to_owned();
        let help = "it stands beside `from: tls` and `from: xfcc`";
        r.report(&at.key("requireValidated"), Code::ConflictingFields, message, help);
    }
    let default = Identity::default();
    Some(Identity {
        pattern: pattern.unwrap_or(default.pattern),
        source: match from {
            From::Tls => IdentitySource::Tls,
            From::PeerPrincipal => IdentitySource::PeerPrincipal,
            From::Xfcc => IdentitySource::Xfcc(proxies?.into()),
        },
        peer: peer.unwrap_or(default.peer),
        require_validated: require_validated.unwrap_or(default.require_validated),
    })
}

fn read_pattern(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Pattern> {
    let text = r.string(node, at)?;
    Pattern::parse(&text)
        .map_err(|error| {
            let help = "`istio`, `any`, or a template such as `/{cluster}/ns/{namespace}/sa/{serviceAccount}`";
            r.report(at, Code::InvalidValue, format!("`{text}`: {error}"), help);
        })
        .ok()
}

/// A principal, to the letter; the SPIFFE ID that it stands for.
fn read_proxy(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<Box<str>> {
    let principal = r.string(node, at)?;
    let id = format!("spiffe://{principal}");
    let wrong = match SpiffeId::parse(id.as_bytes()) {
        Err(error) => error.to_string(),
        Ok(parsed) if parsed.path().is_empty() => "it names a trust domain, no workload".to_owned(),
        Ok(_) => return Some(id.into()),
    };
    let help = "a SPIFFE ID without `spiffe://`, such as `example.org/ns/istio-system/sa/gateway`; no wildcards";
    r.report(at, Code::InvalidValue, format!("`{principal}`: {wrong}"), help);
    None
}
