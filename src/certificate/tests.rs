use sha2::Digest as _;

use super::der_writer::{
    AUTHORITY_KEY_ID, BASIC_CONSTRAINTS, EXTENDED_KEY_USAGE, Extension, KEY_USAGE, SUBJECT_ALT_NAME, authority_key_id,
    basic_constraints, certificate, extended_key_usage, key_usage, subject_alt_name, tlv,
};
use super::{CertificateReason as Reason, Described, Digest, Svid, describe};
use crate::spiffe_id::SpiffeIdReason as Id;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const ID: &str = "spiffe://example.org/ns/default/sa/sleep";
const DIGITAL_SIGNATURE: u8 = 0x80;
const KEY_CERT_SIGN: u8 = 0x04;
const CRL_SIGN: u8 = 0x02;

fn uri(uri: &[u8]) -> Extension {
    subject_alt_name(false, &[(6, uri)])
}

/// A certificate like SPIRE's, in which `changes` replace the extensions of the same kind.
fn leaf(changes: &[Extension]) -> Vec<u8> {
    let mut extensions = vec![
        basic_constraints(false),
        key_usage(true, DIGITAL_SIGNATURE),
        extended_key_usage(&[1, 2]),
        uri(ID.as_bytes()),
    ];
    for change in changes {
        extensions.retain(|extension| extension.0 != change.0);
        extensions.push(change.clone());
    }
    certificate("sleep", &extensions)
}

fn refusal(certificate: &[u8]) -> Option<Reason> {
    Svid::parse(certificate).err().map(|error| error.reason())
}

fn pem(der: &[u8], line_end: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * digit) & 63).unwrap();
            text.push(if digit <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!(
        "-----BEGIN CERTIFICATE-----{line_end}{}{line_end}-----END CERTIFICATE-----{line_end}",
        lines.join(line_end)
    )
}

#[test]
fn reads_every_encoding() {
    let der = leaf(&[]);
    let plain = pem(&der, "\n");
    let url_encoded: String = plain
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    for certificate in [der.as_slice(), plain.as_bytes(), url_encoded.as_bytes(), pem(&der, "\r\n").as_bytes()] {
        assert_eq!(Svid::parse(certificate).unwrap().spiffe_id().as_str(), ID);
    }
}

#[test]
fn the_digest_is_of_the_der() {
    let svid = Svid::parse(&leaf(&[])).unwrap();
    let hex: String = sha2::Sha256::digest(leaf(&[])).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(Svid::parse(pem(&leaf(&[]), "\n").as_bytes()).unwrap().digest(), svid.digest());
    for same in [hex.clone(), hex.to_uppercase()] {
        assert_eq!(Digest::from_hex(same.as_bytes()), Some(svid.digest()));
    }
    assert_ne!(Digest::from_hex("0".repeat(64).as_bytes()), Some(svid.digest()));
    for wrong in [&hex[..62], &hex[..63], "", &"+1".repeat(32), &"g0".repeat(32), &format!("{hex}00")] {
        assert_eq!(Digest::from_hex(wrong.as_bytes()), None, "{wrong}");
    }
}

#[test]
fn accepts_what_the_specification_leaves_open() {
    let no_basic_constraints = [key_usage(true, DIGITAL_SIGNATURE), extended_key_usage(&[1, 2]), uri(ID.as_bytes())];
    let no_extended_key_usage = [basic_constraints(false), key_usage(true, DIGITAL_SIGNATURE), uri(ID.as_bytes())];
    for (what, der) in [
        ("no basic constraints", certificate("sleep", &no_basic_constraints)),
        ("no extended key usage", certificate("sleep", &no_extended_key_usage)),
        ("more purposes", leaf(&[extended_key_usage(&[1, 2, 4])])),
        ("more key usages", leaf(&[key_usage(true, DIGITAL_SIGNATURE | 0x28)])),
        ("DNS names", leaf(&[subject_alt_name(false, &[(2, b"a"), (6, ID.as_bytes()), (2, b"b;URI=x,y")])])),
        ("delimiters in the subject", certificate("a;URI=spiffe://x/y,b", &no_extended_key_usage)),
        ("critical names, empty subject", {
            let names = subject_alt_name(true, &[(6, ID.as_bytes())]);
            certificate("", &[key_usage(true, DIGITAL_SIGNATURE), names])
        }),
    ] {
        assert_eq!(Svid::parse(&der).map(|svid| svid.spiffe_id().to_string()).as_deref(), Ok(ID), "{what}");
    }
}

#[test]
fn refuses_more_or_less_than_one_uri() {
    let id = ID.as_bytes();
    for (names, reason) in [
        (vec![], Reason::NoUriSan),
        (vec![(2, b"sleep".as_slice())], Reason::NoUriSan),
        (vec![(6, id), (6, b"spiffe://example.io/ns/default/sa/sleep")], Reason::SeveralUriSans),
        (vec![(6, id), (6, id)], Reason::SeveralUriSans),
        (vec![(6, id), (6, b"https://example.org/")], Reason::SeveralUriSans),
        (vec![(6, id), (6, b"\xff")], Reason::SeveralUriSans),
        (vec![(6, id), (6, b"")], Reason::SeveralUriSans),
        (vec![(6, b"\xff")], Reason::SanMalformed),
        (vec![(6, id), (2, b"\xff")], Reason::SanMalformed),
        (vec![(6, b"")], Reason::SpiffeId(Id::Scheme)),
    ] {
        assert_eq!(refusal(&leaf(&[subject_alt_name(false, &names)])), Some(reason), "{names:?}");
    }
    let without = [basic_constraints(false), key_usage(true, DIGITAL_SIGNATURE)];
    assert_eq!(refusal(&certificate("sleep", &without)), Some(Reason::NoUriSan));
}

#[test]
fn refuses_uris_that_name_no_workload() {
    for (id, reason) in [
        ("https://example.org/x", Id::Scheme),
        ("SPIFFE://example.org/x", Id::Scheme),
        ("spiffe://Example.org/x", Id::TrustDomainCharacter),
        ("spiffe://example.org:80/x", Id::TrustDomainCharacter),
        ("spiffe://user@example.org/x", Id::TrustDomainCharacter),
        ("spiffe://example\0.org/x", Id::TrustDomainCharacter),
        ("spiffe://example.org", Id::NoPath),
        ("spiffe://example.org/", Id::PathTrailingSlash),
        ("spiffe://example.org/a/", Id::PathTrailingSlash),
        ("spiffe://example.org/a//b", Id::PathEmptySegment),
        ("spiffe://example.org/a/../b", Id::PathDotSegment),
        ("spiffe://example.org/a%2fb", Id::PathCharacter),
        ("spiffe://example.org/a;b", Id::PathCharacter),
        ("spiffe://example.org/a,b", Id::PathCharacter),
        ("spiffe://example.org/a\"b", Id::PathCharacter),
        ("spiffe://example.org/a\r\nb", Id::PathCharacter),
        ("spiffe://example.org/a\0b", Id::PathCharacter),
        ("spiffe://example.org/a?b", Id::PathCharacter),
        ("spiffe://example.org/\u{e9}", Id::PathCharacter),
    ] {
        assert_eq!(refusal(&leaf(&[uri(id.as_bytes())])), Some(Reason::SpiffeId(reason)), "{id:?}");
    }
    let long = format!("spiffe://example.org/{}", "a".repeat(6000));
    assert_eq!(refusal(&leaf(&[uri(long.as_bytes())])), Some(Reason::SpiffeId(Id::TooLong)));
}

#[test]
fn refuses_a_signing_certificate() {
    let usage = |bits| key_usage(true, DIGITAL_SIGNATURE | bits);
    assert_eq!(refusal(&leaf(&[basic_constraints(true)])), Some(Reason::IsCa));
    assert_eq!(refusal(&leaf(&[basic_constraints(true), usage(KEY_CERT_SIGN)])), Some(Reason::IsCa));
    assert_eq!(refusal(&leaf(&[usage(KEY_CERT_SIGN)])), Some(Reason::KeyCertSign));
    assert_eq!(refusal(&leaf(&[usage(CRL_SIGN)])), Some(Reason::CrlSign));
}

#[test]
fn refuses_a_wrong_key_usage() {
    let without = [basic_constraints(false), uri(ID.as_bytes())];
    assert_eq!(refusal(&certificate("sleep", &without)), Some(Reason::KeyUsageMissing));
    assert_eq!(refusal(&leaf(&[key_usage(false, DIGITAL_SIGNATURE)])), Some(Reason::KeyUsageNotCritical));
    assert_eq!(refusal(&leaf(&[key_usage(true, 0x20)])), Some(Reason::NoDigitalSignature));
    for purposes in [&[1][..], &[2], &[4], &[]] {
        let reason = refusal(&leaf(&[extended_key_usage(purposes)]));
        assert!(
            matches!(reason, Some(Reason::ExtendedKeyUsage | Reason::ExtendedKeyUsageMalformed)),
            "{purposes:?}: {reason:?}"
        );
    }
    let any_purpose = tlv(0x30, &tlv(0x06, &[0x55, 0x1d, 0x25, 0x00]));
    assert_eq!(refusal(&leaf(&[(EXTENDED_KEY_USAGE, false, any_purpose)])), Some(Reason::ExtendedKeyUsage));
}

#[test]
fn refuses_names_that_are_not_critical_under_an_empty_subject() {
    let der = certificate("", &[key_usage(true, DIGITAL_SIGNATURE), uri(ID.as_bytes())]);
    assert_eq!(refusal(&der), Some(Reason::SanNotCritical));
}

#[test]
fn refuses_unreadable_and_padded_extensions() {
    for (oid, critical, reason) in [
        (BASIC_CONSTRAINTS, true, Reason::BasicConstraintsMalformed),
        (KEY_USAGE, true, Reason::KeyUsageMalformed),
        (EXTENDED_KEY_USAGE, false, Reason::ExtendedKeyUsageMalformed),
        (SUBJECT_ALT_NAME, false, Reason::SanMalformed),
    ] {
        for garbage in [&b"\x05\x00"[..], b"\xff", b""] {
            assert_eq!(refusal(&leaf(&[(oid, critical, garbage.to_vec())])), Some(reason), "{garbage:?}");
        }
    }
    for (good, reason) in [
        (basic_constraints(false), Reason::BasicConstraintsMalformed),
        (key_usage(true, DIGITAL_SIGNATURE), Reason::KeyUsageMalformed),
        (extended_key_usage(&[1, 2]), Reason::ExtendedKeyUsageMalformed),
        (uri(ID.as_bytes()), Reason::SanMalformed),
    ] {
        let padded = (good.0, good.1, [good.2.as_slice(), &[0]].concat());
        assert_eq!(refusal(&leaf(&[padded])), Some(reason));
    }
}

#[test]
fn refuses_a_repeated_extension() {
    let names = uri(ID.as_bytes());
    let der = certificate("sleep", &[key_usage(true, DIGITAL_SIGNATURE), names.clone(), names]);
    assert_eq!(refusal(&der), Some(Reason::DuplicateExtension));
}

#[test]
fn refuses_bytes_around_the_certificate() {
    let der = leaf(&[]);
    let text = pem(&der, "\n");
    assert_eq!(refusal(&[der.as_slice(), &[0]].concat()), Some(Reason::TrailingBytes));
    assert_eq!(refusal(format!("{text}{text}").as_bytes()), Some(Reason::TrailingBytes));
    assert_eq!(refusal(format!("{text}x").as_bytes()), Some(Reason::TrailingBytes));
    assert_eq!(refusal(pem(&[der.as_slice(), &[0]].concat(), "\n").as_bytes()), Some(Reason::TrailingBytes));
    for garbage in [&b""[..], b"x", b"-", b"-----BEGIN CERTIFICATE-----", b"0", &der[..der.len() - 1]] {
        assert_eq!(refusal(garbage), Some(Reason::Malformed), "{garbage:?}");
    }
    assert_eq!(refusal(text.replace("CERTIFICATE", "PRIVATE KEY").as_bytes()), Some(Reason::Malformed));
}

#[test]
fn no_prefix_of_a_certificate_passes_or_panics() {
    let der = leaf(&[]);
    for end in 0..der.len() {
        assert!(refusal(&der[..end]).is_some());
    }
    for position in 0..der.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut broken = der.clone();
            broken[position] ^= flip;
            let _ = Svid::parse(&broken);
        }
    }
}

#[test]
fn describes_every_certificate_of_a_text() {
    // 2036-01-01, as in every certificate of these tests.
    let not_after = 2_082_758_400;
    let authority = certificate("CA", &[basic_constraints(true), uri(b"spiffe://example.org")]);
    let nameless = certificate("x", &[basic_constraints(false)]);
    let text = [pem(&leaf(&[]), "\n"), pem(&authority, "\r\n"), pem(&nameless, "\n")].concat();
    let described = |uris: &[&str]| Described { uris: uris.iter().map(|&uri| uri.into()).collect(), not_after };
    let expected = [described(&[ID]), described(&["spiffe://example.org"]), described(&[])];
    assert_eq!(describe(text.as_bytes()).as_deref(), Ok(expected.as_slice()));
    assert_eq!(describe(b"no certificate"), Ok(Vec::new()));
    let broken = format!("{text}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_eq!(describe(broken.as_bytes()).map_err(|error| error.reason()), Err(Reason::Malformed));
}

#[test]
fn reads_dates_numbers_and_the_authority() {
    let svid = Svid::parse(&leaf(&[authority_key_id(&[7, 8])])).unwrap();
    assert_eq!(svid.not_before().to_string(), "2026-01-01T00:00:00Z");
    assert_eq!(svid.not_after().to_string(), "2036-01-01T00:00:00Z");
    assert_eq!((svid.serial_number(), svid.authority_key_id()), ([1].as_slice(), Some([7, 8].as_slice())));
    assert_eq!(Svid::parse(&leaf(&[])).unwrap().authority_key_id(), None);
    let broken = (AUTHORITY_KEY_ID, false, vec![0x04, 0x01, 0x00]);
    assert_eq!(Svid::parse(&leaf(&[broken])).map_err(|error| error.reason()), Err(Reason::Malformed));
}

/// A comparison of all pairs of extensions would be slow with thousands of them.
#[test]
fn many_extensions_are_rejected() {
    let with = |count: u8| {
        // The object identifiers 1.2.n are distinct. The extensions of these tests are static.
        let oids: &[[u8; 2]] = Vec::leak((0..count).map(|number| [0x2a, number]).collect());
        leaf(&oids.iter().map(|oid| (oid.as_slice(), false, vec![5, 0])).collect::<Vec<_>>())
    };
    // The leaf has four extensions of its own.
    assert!(Svid::parse(&with(28)).is_ok());
    assert_eq!(Svid::parse(&with(29)).map_err(|error| error.reason()), Err(Reason::Malformed));
}
