//! The results for invariants, in each output format.

use std::io::{self, Write};

use serde_json::{Value, json};
use spiffe_authz::policy::Layer;
use spiffe_authz::policy::analysis::Counterexample;

use super::{Proof, ProofOutcome, Proved};
use crate::answer::{self, answer_json, request, text};
use crate::decision::request_json;
use crate::printable::{say, styled};
use crate::sarif;
use crate::style::{BAD, GOOD, NOTABLE};
use crate::xml::{escaped, write_line};

pub(super) fn write_human(out: &mut impl Write, proved: &[Proved], layer: Layer) -> io::Result<()> {
    let (mut hold, mut fail, mut undecided) = (0, 0, 0);
    for Proved { file, results } in proved {
        for Proof { name, outcome } in results {
            match outcome {
                ProofOutcome::Holds => {
                    hold += 1;
                    say!(out, "{}: {}: {}", file.display(), name, styled(GOOD, "holds"))?;
                }
                ProofOutcome::NotDecided(limits) => {
                    undecided += 1;
                    say!(out, "{}: {}: {}", file.display(), name, styled(NOTABLE, "not decided"))?;
                    limits.iter().try_for_each(|limit| say!(out, "  {}", limit))?;
                }
                ProofOutcome::Fails(counterexample) => {
                    let Counterexample { witness, answer, requests } = &**counterexample;
                    fail += 1;
                    say!(out, "{}: {}: {}: {}", file.display(), name, styled(BAD, "fails"), text(answer))?;
                    answer::write_requests(out, requests, witness, layer)?;
                }
            }
        }
    }
    let undecided = if undecided == 0 { String::new() } else { format!(", {undecided} not decided") };
    say!(out, "{} hold, {} fail{}", hold, fail, undecided)
}

pub(super) fn as_json(Proved { file, results }: &Proved, layer: Layer) -> Value {
    let results = results.iter().map(|Proof { name, outcome }| {
        let (result, counterexample, limits) = match outcome {
            ProofOutcome::Holds => ("holds", None, &[][..]),
            ProofOutcome::NotDecided(limits) => ("not-decided", None, &**limits),
            ProofOutcome::Fails(counterexample) => ("fails", Some(counterexample), &[][..]),
        };
        let counterexample = counterexample.map(|counterexample| {
            let Counterexample { witness, answer, requests } = &**counterexample;
            let mut object = json!({"witness": request_json(witness, layer), "decision": answer_json(answer)});
            answer::add_requests(&mut object, requests);
            object
        });
        json!({"name": name, "result": result, "counterexample": counterexample, "limits": limits})
    });
    let results: Vec<Value> = results.collect();
    json!({"file": file.to_string_lossy(), "invariants": results})
}

/// Returns the message about a counterexample.
fn message(Counterexample { witness, answer, .. }: &Counterexample, layer: Layer) -> String {
    format!("{}: {}", text(answer), request(witness, layer))
}

pub(super) fn write_junit(out: &mut impl Write, proved: &[Proved], layer: Layer) -> io::Result<()> {
    say!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    say!(out, "<testsuites>")?;
    for Proved { file, results } in proved {
        let count = |is: fn(&ProofOutcome) -> bool| results.iter().filter(|proof| is(&proof.outcome)).count();
        let file = escaped(&file.to_string_lossy());
        say!(
            out,
            r#"  <testsuite name="{}" tests="{}" failures="{}" errors="{}">"#,
            file,
            results.len(),
            count(|outcome| matches!(outcome, ProofOutcome::Fails(_))),
            count(|outcome| matches!(outcome, ProofOutcome::NotDecided(_)))
        )?;
        for Proof { name, outcome } in results {
            let start = format!(r#"    <testcase classname="{file}" name="{}""#, escaped(name));
            let line = match outcome {
                ProofOutcome::Holds => format!("{start}/>"),
                ProofOutcome::NotDecided(limits) => {
                    format!(r#"{start}><error message="not decided: {}"/></testcase>"#, escaped(&limits.join("; ")))
                }
                ProofOutcome::Fails(counterexample) => {
                    format!(r#"{start}><failure message="{}"/></testcase>"#, escaped(&message(counterexample, layer)))
                }
            };
            write_line(out, &line)?;
        }
        say!(out, "  </testsuite>")?;
    }
    say!(out, "</testsuites>")
}

/// Returns a log in SARIF, with the invariants that do not hold or are not decided.
pub(super) fn as_sarif(proved: &[Proved], layer: Layer) -> Value {
    let mut rules: Vec<Value> = Vec::new();
    let mut results: Vec<Value> = Vec::new();
    for Proved { file, results: proofs } in proved {
        for Proof { name, outcome } in proofs {
            if !rules.iter().any(|rule| rule["id"] == **name) {
                rules.push(json!({"id": name, "shortDescription": {"text": format!("The document satisfies the invariant {name}.")}}));
            }
            let message = match outcome {
                ProofOutcome::Holds => continue,
                ProofOutcome::NotDecided(limits) => format!("not decided: {}", limits.join("; ")),
                ProofOutcome::Fails(counterexample) => message(counterexample, layer),
            };
            let file = sarif::relative(file);
            let fingerprint = format!("{:016x}", sarif::hash(&[&file.to_string_lossy(), name]));
            results.push(json!({
                "ruleId": name, "level": "error", "message": {"text": message},
                "locations": [{"physicalLocation": {"artifactLocation": {"uri": sarif::uri(file)}}}],
                "partialFingerprints": {"invariant/v1": fingerprint},
            }));
        }
    }
    sarif::log(&rules, &results)
}
