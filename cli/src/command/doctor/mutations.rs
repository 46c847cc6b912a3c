//! Examines mutated pages. Each must give a report or an error, and no panic.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::output::Heading;
use super::redact::Redaction;
use super::{checks, output};
use crate::envoy::snapshot::{Envoy, Pages};

const PAGES: u32 = 3000;

/// A generator of numbers (xorshift64*), whose seed is fixed so that a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// Returns the number of values in a JSON value.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    }
}

/// Returns the value at this position of a walk, the root first.
fn at<'v>(value: &'v mut Value, position: &mut usize) -> Option<&'v mut Value> {
    if *position == 0 {
        return Some(value);
    }
    *position -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| at(item, position)),
        Value::Object(fields) => fields.values_mut().find_map(|field| at(field, position)),
        _ => None,
    }
}

fn mutate(page: &mut Value, random: &mut Random) {
    let (mut from, mut to) = (random.below(size(page)), random.below(size(page)));
    let other = at(page, &mut from).cloned().unwrap_or_default();
    let kind = random.below(9);
    let Some(found) = at(page, &mut to) else { return };
    match (kind, found) {
        (0, found) => *found = Value::Null,
        (1, found) => *found = json!(u64::MAX),
        (2, found) => *found = json!("\u{202e}/\0|::1 spiffe://".repeat(40)),
        (3, found) => *found = json!([]),
        (4, found) => *found = json!({}),
        (5, Value::Object(fields)) => {
            let name = fields.keys().nth(random.below(fields.len())).cloned().unwrap_or_default();
            fields.remove(&name);
        }
        (5 | 6, Value::Array(items)) => {
            let position = random.below(items.len());
            if kind == 5 && position < items.len() {
                items.remove(position);
            } else if let Some(item) = items.get(position).cloned() {
                items.push(item);
            }
        }
        (7, Value::String(text)) => *text = text.chars().skip(random.below(text.len())).collect(),
        (_, found) => *found = other,
    }
}

fn mutate_bytes(page: &mut Vec<u8>, random: &mut Random) {
    let position = random.below(page.len());
    match random.below(4) {
        0 => page.truncate(position),
        1 => page.insert(position, u8::try_from(random.below(256)).unwrap()),
        2 => {
            page.drain(position..(position + random.below(40)).min(page.len()));
        }
        _ => {
            if let Some(byte) = page.get_mut(position) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor_cases");
    let folders = fs::read_dir(folder).unwrap().map(|case| case.unwrap().path());
    let mut cases: Vec<PathBuf> = folders.filter(|case| case.join("stats.txt").is_file()).collect();
    cases.sort();
    cases
}

/// Returns `true` if the pages can be read.
fn is_examined(pages: Pages) -> bool {
    let Ok(envoy) = Envoy::read(pages) else { return false };
    let Ok(mut report) = checks::examine(&envoy) else { return false };
    output::write_human(&mut Vec::new(), Heading::of(&envoy), &report).unwrap();
    Redaction::default().apply(&mut report);
    output::as_json(Heading::of(&envoy), &report);
    true
}

#[test]
fn mutated_pages_cause_no_panic() {
    let cases: Vec<[Vec<u8>; 3]> = cases()
        .iter()
        .map(|case| ["config_dump.json", "certs.json", "stats.txt"].map(|file| fs::read(case.join(file)).unwrap()))
        .collect();
    assert!(cases.len() > 30, "{}", cases.len());
    let dumps: Vec<Option<Value>> = cases.iter().map(|[dump, ..]| serde_json::from_slice(dump).ok()).collect();
    let mut random = Random(0x5b1f_fe00_dead_beef);
    let mut examined = 0;
    for _ in 0..PAGES {
        let case = random.below(cases.len());
        let [mut config_dump, mut certs, mut stats] = cases[case].clone();
        match (random.below(4), &dumps[case]) {
            (0, _) => mutate_bytes(&mut config_dump, &mut random),
            (1, _) => {
                mutate_bytes(&mut certs, &mut random);
                mutate_bytes(&mut stats, &mut random);
            }
            (_, Some(dump)) => {
                let mut dump = dump.clone();
                (0..=random.below(4)).for_each(|_| mutate(&mut dump, &mut random));
                config_dump = dump.to_string().into_bytes();
            }
            (_, None) => {}
        }
        let pages = Pages {
            config_dump: config_dump.into(),
            certs: Some(certs.into()),
            stats: Some(stats.into()),
            taken: None,
        };
        examined += u32::from(is_examined(pages));
    }
    assert!((500..PAGES).contains(&examined), "{examined}");
}
