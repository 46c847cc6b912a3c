//! Reading the values of a field and of its negated form.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::diagnostic::Code;
use crate::host::AddressOf;
use crate::policy::compile::pointer::Pointer;
use crate::policy::compile::reader::{Object, Reader};
use crate::policy::field::Names;
use crate::policy::node::Node;
use crate::policy::rule::Matcher;
use crate::policy::values::{Text, Values};

/// Reads a field and its negated form, or returns `None` if both are absent. `read` gets `true` for the negated form.
pub(super) fn values<M>(
    r: &mut Reader,
    fields: &Object<'_, '_>,
    [positive, negative]: Names,
    read: impl Fn(&mut Reader, &Node, &Pointer<'_>, bool) -> Option<M>,
) -> Option<Values<M>> {
    let mut list = |key, negated| {
        fields.optional(r, key, |r, node, at| r.some(node, at, |r, node, at| read(r, node, at, negated)))
    };
    let (any_of, none_of) = (list(positive, false), list(negative, true));
    (any_of.is_some() || none_of.is_some()).then(|| Values {
        any_of: any_of.unwrap_or_else(Vec::new).into(),
        none_of: none_of.unwrap_or_else(Vec::new).into(),
    })
}

pub(super) fn texts(r: &mut Reader, fields: &Object<'_, '_>, names: Names) -> Option<Values<Text>> {
    values(r, fields, names, |r, n, at, _| Some(Text::new(&r.string(n, at)?)))
}

pub(super) fn addresses(r: &mut Reader, fields: &Object<'_, '_>, names: Names, of: AddressOf) -> Option<Matcher> {
    values(r, fields, names, |r, n, at, _| read_network(r, n, at)).map(|networks| Matcher::Addresses(of, networks))
}

pub(super) fn ports(r: &mut Reader, fields: &Object<'_, '_>, names: Names) -> Option<Matcher> {
    values(r, fields, names, |r, n, at, _| read_port(r, n, at)).map(Matcher::Ports)
}

fn read_port(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<u16> {
    let value = r.string(node, at)?;
    let port = value.parse().ok().filter(|port| *port > 0 && value.bytes().all(|byte| byte.is_ascii_digit()));
    if port.is_none() {
        let help = "use a number from 1 to 65535, as a string";
        r.report(at, Code::InvalidValue, format!("`{value}` is not a port"), help);
    }
    port
}

fn read_network(r: &mut Reader, node: &Node, at: &Pointer<'_>) -> Option<IpNet> {
    let value = r.string(node, at)?;
    let network = value.parse::<IpNet>().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from)).map(canonical);
    if network.is_none() {
        let help = "use an address or a network, such as `10.0.0.1` or `10.0.0.0/8`";
        r.report(at, Code::InvalidValue, format!("`{value}` is neither an IP address nor a network"), help);
    }
    network
}

/// Converts a network of IPv4-mapped IPv6 addresses (`::ffff:0:0/96`) to the IPv4 network, because addresses are compared in
/// this form.
fn canonical(network: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(MAPPED_BITS)),
        IpNet::V4(_) => None,
    };
    let ipv4 = mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    ipv4.map_or(network, IpNet::V4)
}
