//! The workload of this proxy, from the metadata of Envoy's node. Istio's bootstrap sets it.

use spiffe_authz::policy::Workload;

use crate::header_map::HeaderMap;
use crate::host;

/// Returns the workload, or `None` if the node has no `NAMESPACE`, or a value that Kubernetes does not allow, such as the bytes of a
/// number. NUL separates the parts of a path.
pub(crate) fn workload() -> Option<Workload> {
    let property = |path| host::property(path).ok().flatten();
    let is_legal = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let namespace = property(b"xds\0node\0metadata\0NAMESPACE").filter(|name| name.iter().all(is_legal))?;
    let namespace = String::from_utf8(namespace).ok().filter(|name| !name.is_empty())?;
    let labels = property(b"xds\0node\0metadata\0LABELS").and_then(|labels| HeaderMap::new(labels).ok());
    let is_waypoint = property(b"xds\0node\0id").is_some_and(|id| Workload::is_waypoint_id(&id));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let labels =
        labels.and_then(|labels| labels.pairs().map(|(name, value)| Some((text(name)?, text(value)?))).collect());
    Some(Workload { namespace, labels, is_waypoint })
}
