//! Replays every seed and every finding of every target, without libFuzzer.

use std::fs;
use std::path::Path;

use spiffe_authz_fuzz::seeds::{found, seeds};
use spiffe_authz_fuzz::{TARGETS, targets};

#[test]
fn no_input_breaks_a_property() {
    for target in TARGETS {
        let seeds = seeds(target.name).expect("the seeds");
        assert!(seeds.len() >= 3, "{}: {} seeds", target.name, seeds.len());
        let found = found(target.name).expect("the findings");
        for input in seeds.iter().chain(&found) {
            (target.run)(input);
        }
        println!("{}: {} seeds, {} findings", target.name, seeds.len(), found.len());
    }
}

#[test]
fn seeds_reach_the_accepted_cases() {
    let accepted = |target: &str, accepts: fn(&[u8]) -> bool| {
        let seeds = seeds(target).expect("the seeds");
        let accepted = seeds.iter().filter(|seed| accepts(seed)).count();
        assert!(accepted >= 2, "{target}: {accepted} of {} seeds are accepted", seeds.len());
    };
    accepted("spiffe_id", |seed| spiffe_authz::spiffe_id::SpiffeId::parse(seed).is_ok());
    accepted("certificate", |seed| spiffe_authz::certificate::Svid::parse(seed).is_ok());
    accepted("xfcc", |seed| spiffe_authz::identity::xfcc::caller([seed], targets::PROXY).is_ok());
    accepted("metadata", |seed| spiffe_authz::metadata::Object::from_metadata(seed).is_ok());
    for verdict in ["allow", "deny"] {
        let decided =
            seeds("decide").expect("the seeds").iter().filter(|seed| verdict_of(seed) == Some(verdict)).count();
        assert!(decided >= 50, "decide: only {decided} seeds are decided as {verdict}");
    }
    accepted("document", |seed| spiffe_authz::policy::PolicySet::from_json(seed).is_ok());
}

/// The verdict on a seed of the target `decide`.
fn verdict_of(seed: &[u8]) -> Option<&'static str> {
    let text = std::str::from_utf8(seed).ok()?;
    let (document, request) = text.split_once('\0')?;
    let policy = spiffe_authz::policy::PolicySet::from_json(document.as_bytes()).ok()?;
    let request: spiffe_authz::case::CaseRequest = serde_json::from_str(request).ok()?;
    Some(request.decide(&policy, targets::NOW).decision.verdict.slug())
}

#[test]
fn every_target_has_a_program_and_is_known_to_xtask() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(folder.join("../xtask/src/fuzz.rs")).expect("xtask/src/fuzz.rs");
    let names = TARGETS.map(|target| format!("{:?}", target.name)).join(", ");
    assert!(
        text.contains(&format!("const TARGETS: [&str; {}] = [{names}];", TARGETS.len())),
        "xtask has other targets"
    );
    let programs = fs::read_dir(folder.join("fuzz_targets")).expect("fuzz/fuzz_targets").count();
    assert_eq!(programs, TARGETS.len());
    for target in TARGETS {
        let program = fs::read_to_string(folder.join(format!("fuzz_targets/{}.rs", target.name))).expect("a program");
        assert!(program.contains(&format!("spiffe_authz_fuzz::targets::{}(data)", target.name)), "{program}");
    }
}

#[test]
fn every_finding_belongs_to_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    for entry in fs::read_dir(folder).expect("fuzz/found") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_dir() {
            let name = entry.file_name();
            assert!(TARGETS.iter().any(|target| name == target.name), "unknown target {name:?}");
        }
    }
}
