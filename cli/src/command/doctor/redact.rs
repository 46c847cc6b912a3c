//! Removes addresses and secrets from a report, so that it can be attached to an issue.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use crate::report::{Place, Report};

/// A run of base64 or hexadecimal digits of this length can be a key.
const MAX_DIGITS: usize = 40;
/// The strings after which a secret comes, in lower case.
const CREDENTIALS: [&str; 6] = ["bearer ", "basic ", "token=", "password=", "secret=", "api_key="];
/// The start of a JSON Web Token: `{"` in base64.
const TOKEN: &str = "eyJ";

/// Replaces addresses by numbered names: the same address always gets the same name.
#[derive(Debug, Default)]
pub(crate) struct Redaction {
    addresses: RefCell<Vec<String>>,
}

impl Redaction {
    /// Redacts the messages and places of a report.
    pub(crate) fn apply(&self, report: &mut Report) {
        let findings = report.findings.iter_mut().map(|finding| (&mut finding.message, &mut finding.places));
        let fine = report.fine.iter_mut().map(|fine| (&mut fine.message, &mut fine.places));
        for (message, places) in findings.chain(fine) {
            *message = self.text(message);
            places.iter_mut().for_each(|place| self.place(place));
        }
    }

    fn place(&self, place: &mut Place) {
        let Place { listener, filter_chain, upgrade, route, cluster, secret } = place;
        for name in [listener, filter_chain, upgrade, route, cluster, secret].into_iter().flatten() {
            *name = self.text(name);
        }
    }

    /// Returns a string without addresses and secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut redacted = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(start) = CREDENTIALS.iter().find(|start| starts_with(rest, start)) {
                redacted.push_str(&rest[..start.len()]);
                rest = &rest[start.len()..];
                let end =
                    rest.find(|character: char| character.is_whitespace() || matches!(character, '`' | '"' | '&'));
                redacted.push_str("[removed]");
                rest = &rest[end.unwrap_or(rest.len())..];
                continue;
            }
            let length = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
            if length == 0 {
                redacted.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let (word, after) = rest.split_at(length);
            redacted.push_str(&self.word(word));
            rest = after;
        }
        redacted
    }

    /// Redacts a run of characters that occur in addresses, names and base64.
    fn word(&self, word: &str) -> String {
        // A SPIFFE ID is not an address.
        if let Some(scheme) = word.find("://") {
            let (before, after) = word.split_at(scheme + 3);
            if before.ends_with("spiffe://") {
                return word.to_owned();
            }
            let end = after.find('/').unwrap_or(after.len());
            return format!("{before}{}{}", self.numbered(&after[..end]), self.word(&after[end..]));
        }
        if word.starts_with(TOKEN) && word.len() >= MAX_DIGITS {
            return "[removed]".to_owned();
        }
        // Names of Istio's clusters end with the host: `outbound|80|subset|host`, `outbound_.80_.subset_.host`.
        for separator in ["|", "_."] {
            if let Some((before, host)) = word.rsplit_once(separator)
                && host.contains('.')
            {
                return format!("{before}{separator}{}", self.numbered(host));
            }
        }
        for address in [word, word.trim_matches(['.', ':', ',', '-'])] {
            if is_address(address) || is_host_and_port(address) {
                return word.replace(address, &self.numbered(address));
            }
        }
        // A range, or a path after an address.
        if let Some((address, rest)) = word.split_once('/')
            && (is_address(address) || is_host_and_port(address))
        {
            return format!("{}/{}", self.numbered(address), self.word(rest));
        }
        // Names of listeners contain addresses: `0.0.0.0_80`.
        if let Some((host, rest)) = word.split_once('_')
            && is_address(host)
        {
            return format!("{}_{rest}", self.numbered(host));
        }
        let is_digits = |part: &str| part.len() >= MAX_DIGITS && !part.contains(['.', ':', '_', '-']);
        if word.split('/').any(is_digits) { "[removed]".to_owned() } else { word.to_owned() }
    }

    /// Returns the name of an address. Addresses that reveal nothing about a network stay unchanged.
    fn numbered(&self, address: &str) -> String {
        let host = address.parse::<SocketAddr>().map(|socket| socket.ip()).or_else(|_| address.parse::<IpAddr>());
        if host.is_ok_and(|ip| ip.is_unspecified() || ip.is_loopback()) || address.is_empty() {
            return address.to_owned();
        }
        let mut addresses = self.addresses.borrow_mut();
        let known = addresses.iter().position(|known| known == address);
        let position = known.unwrap_or_else(|| {
            addresses.push(address.to_owned());
            addresses.len() - 1
        });
        format!("address-{}", position + 1)
    }
}

fn starts_with(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

fn is_part(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | ':' | '-' | '_' | '/' | '|' | '+' | '=' | '@' | '~')
}

fn is_address(text: &str) -> bool {
    // `::` is also a path in code, and `1:2` is a line of a file.
    let is_ip = text.parse::<IpAddr>().is_ok() && text.len() > 3;
    is_ip || text.parse::<SocketAddr>().is_ok() || {
        text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|ip| ip.parse::<IpAddr>().is_ok())
    }
}

/// Returns `true` for `host.domain:port`.
fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && host.contains('.') && !host.contains([':', '/', '|', '@'])
    })
}

#[cfg(test)]
mod tests {
    use super::Redaction;

    #[test]
    fn addresses_get_numbers_and_secrets_are_removed() {
        let redaction = Redaction::default();
        let key = "MIICLTCCAdKgAwIBAgIRAN9twyYBEWZyRBerkuonnbwwCgYIKoZIzj0EAwIw";
        for (text, expected) in [
            ("cannot bind '10.1.2.3:443': in use", "cannot bind 'address-1': in use"),
            ("[listener 10.1.2.3_8443, 10.9.9.9]", "[listener address-2_8443, address-3]"),
            ("10.1.2.3:443", "address-1"),
            ("fd00:10::7 and [fd00:10::7]:80", "address-4 and [address-4]:80"),
            ("http://registry.internal:5000/a/b", "http://address-5/a/b"),
            ("outbound|80||api.corp.example", "outbound|80||address-6"),
            ("virtualInbound, 0.0.0.0_80, 127.0.0.1:9901", "virtualInbound, 0.0.0.0_80, 127.0.0.1:9901"),
            ("Authorization: Bearer abc.def x", "Authorization: Bearer [removed] x"),
            ("https://h/?token=abc&x", "https://address-7/?token=[removed]&x"),
            (key, "[removed]"),
            ("10.1.2.0/24 and fd00:10::/32", "address-8/24 and address-9/32"),
            ("10.1.2.3->10.9.9.9", "address-2->address-3"),
            ("db.corp.example:5432/orders", "address-10/orders"),
            ("outbound_.80_.v1_.api.corp.example", "outbound_.80_.v1_.address-6"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2ln-bmF0_dXJl", "[removed]"),
        ] {
            assert_eq!(redaction.text(text), expected, "{text}");
        }
        for text in [
            "spiffe://example.org/ns/default/sa/httpbin, valid until 2026-03-02T10:00:00Z",
            "`envoy.filters.http.rbac` and `io.istio.peer_principal`",
            "/federatedTrustDomains/0: invalid-value: `EXAMPLE.io` (expected `example.io`)",
            "Envoy 1.40.0; wasm.spiffe-authz.vm_reload; std::io",
        ] {
            assert_eq!(redaction.text(text), text);
        }
    }
}
