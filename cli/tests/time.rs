//! Policies with `notBefore` and `expires`, and the dates of certificates.

use std::fs;
use std::path::Path;
use std::process::Command;

const DOCUMENT: &str = "trustDomain: example.org
policies:
- name: summer
  notBefore: 2026-06-01T00:00:00Z
  expires: 2026-09-01T00:00:00Z
  rules: [{}]
";
const CALLER: &str = "spiffe://example.org/ns/default/sa/sleep";

/// Runs the command in a directory. Returns the exit status and both outputs.
fn run(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_spiffe-authz")).current_dir(directory).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn directory_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn explain_decides_at_the_given_time() {
    let directory = directory_with(&[("policy.yaml", DOCUMENT)]);
    let explain =
        |at: &str| run(directory.path(), &["explain", "--policy", "policy.yaml", "--peer", CALLER, "--at", at]);
    let (status, _) = explain("2026-06-01T00:00:00Z");
    assert_eq!(status, Some(0));
    for outside in ["2026-05-31T23:59:59Z", "2026-09-01T00:00:00Z"] {
        let (status, out) = explain(outside);
        assert_eq!(status, Some(2), "{out}");
        assert!(out.contains("no-policy-allows") && out.contains("does not apply at this time"), "{out}");
    }
    let (status, out) = explain("tomorrow");
    assert_eq!(status, Some(1));
    assert!(out.contains("expected a date and time in UTC"), "{out}");
}

#[test]
fn tables_have_a_time_for_each_case_that_needs_one() {
    let case = |time: &str, verdict: &str| {
        format!(
            "- {{name: a case{}, request: {{peer: '{CALLER}'{time}}}, expect: {{verdict: {verdict}}}}}\n",
            time.replace([',', ':'], "")
        )
    };
    let table = |cases: &str| format!("policy: policy.yaml\ncases:\n{cases}");
    let inside = case(", time: 2026-07-01T00:00:00Z", "allow");
    let outside = case(", time: 2026-10-01T00:00:00Z", "deny");
    let directory = directory_with(&[
        ("policy.yaml", DOCUMENT),
        ("good.yaml", &table(&(inside + &outside))),
        ("timeless.yaml", &table(&case("", "allow"))),
        ("wrong.yaml", &table(&case(", time: noon", "allow"))),
    ]);
    assert_eq!(run(directory.path(), &["test", "good.yaml"]).0, Some(0));
    let (status, out) = run(directory.path(), &["test", "timeless.yaml"]);
    assert_eq!(status, Some(1), "{out}");
    assert!(out.contains("the case `a case` needs a `time`"), "{out}");
    let (status, out) = run(directory.path(), &["test", "wrong.yaml"]);
    assert_eq!(status, Some(1), "{out}");
    assert!(out.contains("expected a date and time in UTC"), "{out}");
}

#[test]
fn check_reports_lapsed_policies() {
    let lapsed = DOCUMENT.replace("2026-0", "2001-0");
    let lasting = DOCUMENT.replace("expires: 2026", "expires: 2999");
    let directory = directory_with(&[("lapsed.yaml", &lapsed), ("lasting.yaml", &lasting)]);
    let (_, out) = run(directory.path(), &["check", "lapsed.yaml"]);
    assert!(out.contains("/policies/0/expires: warning: lapsed-policy"), "{out}");
    let (_, out) = run(directory.path(), &["check", "lasting.yaml"]);
    assert!(!out.contains("lapsed-policy"), "{out}");
}

#[test]
fn cert_prints_what_revocations_name() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.serial_number = Some(rcgen::SerialNumber::from_slice(&[0, 0x5f, 0x3a]));
    params.subject_alt_names = vec![rcgen::SanType::URI(CALLER.try_into().unwrap())];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    let leaf = params.self_signed(&key).unwrap().pem();
    let directory = directory_with(&[("leaf.pem", &leaf)]);
    let (status, out) = run(directory.path(), &["cert", "leaf.pem"]);
    assert_eq!(status, Some(0), "{out}");
    assert!(out.contains("\n  serial number 5f3a\n") && out.contains("\n  valid from 1975-01-01T00:00:00Z"), "{out}");
}
