//! The classes of addresses and ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::super::super::rule::Matcher;
use super::{Atoms, Class, Classes, Value};

/// Returns the classes of ports: each one that a policy has, and an absent or other port.
pub(super) fn ports(matchers: &[&Matcher]) -> Classes {
    let mut atoms = Atoms::new();
    for (number, matcher) in matchers.iter().enumerate() {
        let Matcher::Ports(values) = matcher else { continue };
        values.any_of.iter().chain(&values.none_of).for_each(|port| atoms.add(*port, Some(number)));
    }
    let mut classes = vec![Class { value: Value::Absent, atoms: Box::default() }];
    classes.extend(
        (0..).zip(&atoms.atoms).map(|(number, port)| Class { value: Value::Port(*port), atoms: [number].into() }),
    );
    let displays = atoms.atoms.iter().map(u16::to_string).collect();
    Classes { classes, atoms: displays, uses: atoms.uses, spelled: 0, limit: None }
}

/// Returns the classes of addresses. The networks that contain an address change only at the first address of a network, and at the
/// first one after it. So these addresses are in all classes.
pub(super) fn classes(matchers: &[&Matcher]) -> Classes {
    let mut atoms = Atoms::new();
    for (number, matcher) in matchers.iter().enumerate() {
        let Matcher::Addresses(_, values) = matcher else { continue };
        values.any_of.iter().chain(&values.none_of).for_each(|network| atoms.add(*network, Some(number)));
    }
    // The networks that begin or end at an address.
    let mut v4: BTreeMap<u64, Vec<(u32, bool)>> = BTreeMap::from([(0, Vec::new())]);
    let mut v6: BTreeMap<u128, Vec<(u32, bool)>> = BTreeMap::from([(0, Vec::new())]);
    for (number, network) in (0..).zip(&atoms.atoms) {
        match network {
            IpNet::V4(network) => {
                let (first, last) = (u32::from(network.network()), u32::from(network.broadcast()));
                v4.entry(first.into()).or_default().push((number, true));
                v4.entry(u64::from(last) + 1).or_default().push((number, false));
            }
            IpNet::V6(network) => {
                v6.entry(network.network().into()).or_default().push((number, true));
                if let Some(after) = u128::from(network.broadcast()).checked_add(1) {
                    v6.entry(after).or_default().push((number, false));
                }
            }
        }
    }
    let mut found: FxHashMap<Box<[u32]>, ()> = FxHashMap::from_iter([(Box::default(), ())]);
    let mut classes = vec![Class { value: Value::Absent, atoms: Box::default() }];
    let mut add = |active: &[u32], address: IpAddr| {
        let mut atoms = active.to_vec();
        atoms.sort_unstable();
        // An IPv4-mapped IPv6 address is an IPv4 address.
        if address.to_canonical() == address && found.insert(atoms.clone().into(), ()).is_none() {
            classes.push(Class { value: Value::Address(address), atoms: atoms.into() });
        }
    };
    let mut active = Vec::new();
    for (address, changes) in v4 {
        update(&mut active, &changes);
        if let Ok(address) = u32::try_from(address) {
            add(&active, Ipv4Addr::from(address).into());
        }
    }
    active.clear();
    for (address, changes) in v6 {
        update(&mut active, &changes);
        add(&active, Ipv6Addr::from(address).into());
        // The addresses from here can begin with IPv4-mapped ones, which end at ::ffff:ffff:ffff.
        if Ipv6Addr::from(address).to_ipv4_mapped().is_some() {
            add(&active, Ipv6Addr::from(0x1_0000_0000_0000_u128).into());
        }
    }
    let displays = atoms.atoms.iter().map(ToString::to_string).collect();
    Classes { classes, atoms: displays, uses: atoms.uses, spelled: 0, limit: None }
}

fn update(active: &mut Vec<u32>, changes: &[(u32, bool)]) {
    for (number, begins) in changes {
        if *begins {
            active.push(*number);
        } else {
            active.retain(|other| other != number);
        }
    }
}
