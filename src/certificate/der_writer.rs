//! Writes certificates for the tests, including malformed ones, on every target. The signature is a placeholder, because the core
//! does not verify signatures.

/// An extension: the bytes of the object identifier, critical, and the DER value.
pub(crate) type Extension = (&'static [u8], bool, Vec<u8>);

pub(crate) const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
pub(crate) const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
pub(crate) const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
pub(crate) const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

pub(crate) fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(value.len()) {
        Ok(short @ 0..=0x7f) => out.push(short),
        _ => out.extend([[0x82].as_slice(), &u16::try_from(value.len()).unwrap().to_be_bytes()].concat()),
    }
    out.extend(value);
    out
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// Writes a certificate with these extensions. An empty `common_name` gives an empty subject.
pub(crate) fn certificate(common_name: &str, extensions: &[Extension]) -> Vec<u8> {
    let ed25519 = sequence(&[tlv(0x06, &[0x2b, 0x65, 0x70])]);
    let validity = sequence(&[tlv(0x17, b"260101000000Z"), tlv(0x17, b"360101000000Z")]);
    let key = sequence(&[ed25519.clone(), tlv(0x03, &[0; 33])]);
    let extensions: Vec<Vec<u8>> = extensions
        .iter()
        .map(|(oid, critical, value)| {
            let mut parts = vec![tlv(0x06, oid)];
            if *critical {
                parts.push(tlv(0x01, &[0xff]));
            }
            parts.push(tlv(0x04, value));
            sequence(&parts)
        })
        .collect();
    let to_be_signed = sequence(&[
        tlv(0xa0, &tlv(0x02, &[2])),
        tlv(0x02, &[1]),
        ed25519.clone(),
        name("test CA"),
        validity,
        name(common_name),
        key,
        tlv(0xa3, &sequence(&extensions)),
    ]);
    sequence(&[to_be_signed, ed25519, tlv(0x03, &[0; 65])])
}

fn name(common_name: &str) -> Vec<u8> {
    if common_name.is_empty() {
        return sequence(&[]);
    }
    let attribute = sequence(&[tlv(0x06, &[0x55, 0x04, 0x03]), tlv(0x0c, common_name.as_bytes())]);
    sequence(&[tlv(0x31, &attribute)])
}

pub(crate) fn basic_constraints(ca: bool) -> Extension {
    let content = if ca { tlv(0x01, &[0xff]) } else { Vec::new() };
    (BASIC_CONSTRAINTS, true, tlv(0x30, &content))
}

/// `bits` by RFC 5280 section 4.2.1.3: bit 0, `digitalSignature`, is the highest of the byte.
pub(crate) fn key_usage(critical: bool, bits: u8) -> Extension {
    (KEY_USAGE, critical, tlv(0x03, &[0, bits]))
}

/// `purposes`: the last number of each id-kp object identifier: 1 `serverAuth`, 2 `clientAuth`, 4 `emailProtection`.
pub(crate) fn extended_key_usage(purposes: &[u8]) -> Extension {
    let purposes: Vec<Vec<u8>> =
        purposes.iter().map(|purpose| tlv(0x06, &[0x2b, 6, 1, 5, 5, 7, 3, *purpose])).collect();
    (EXTENDED_KEY_USAGE, false, sequence(&purposes))
}

/// `names`: context tag (6 URI, 2 DNS) and content of each.
pub(crate) fn subject_alt_name(critical: bool, names: &[(u8, &[u8])]) -> Extension {
    let names: Vec<Vec<u8>> = names.iter().map(|(tag, content)| tlv(0x80 | tag, content)).collect();
    (SUBJECT_ALT_NAME, critical, sequence(&names))
}

pub(crate) fn authority_key_id(key: &[u8]) -> Extension {
    (AUTHORITY_KEY_ID, false, sequence(&[tlv(0x80, key)]))
}
