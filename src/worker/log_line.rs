//! The log line of a denial, an AUDIT match, or a denial by shadow policies: one JSON object.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;

use super::output::Event;
use crate::decision::{Decision, Outcome};
use crate::host::RequestAttributes;
use crate::identity::Peer;
use crate::policy::Mode;
use crate::request::Request;

/// The maximum length of a client's string in a log line, in bytes. A longer string is cut.
pub const MAX_TEXT_BYTES: usize = 1024;

/// One line of the log.
#[derive(Debug, Serialize)]
pub(super) struct LogLine<'a> {
    event: &'static str,
    mode: &'static str,
    reason: Option<&'static str>,
    peer: Option<&'a str>,
    method: Option<Cow<'a, str>>,
    path: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
    policy: Option<&'a str>,
    rule: Option<u32>,
    /// The number of lines that the rate limit has dropped since the previous line.
    #[serde(skip_serializing_if = "is_zero")]
    suppressed: u64,
}

#[cfg_attr(
    target_pointer_width = "64",
    expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")
)]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl<'a> LogLine<'a> {
    /// Returns the line of an outcome, or `None` if it needs none. An attribute that cannot be read is `null`.
    pub(super) fn of<A: RequestAttributes>(
        outcome: &Outcome<'a>,
        peer: Option<&'a Peer>,
        request: &'a Request<A>,
    ) -> Option<Self> {
        let denied = |decision: &Decision<'_>| decision.verdict.reason();
        let (event, mode, reason, rule) = if let Some(reason) = denied(&outcome.decision) {
            (Event::Verdict(outcome.decision.verdict), Mode::Enforce, Some(reason), outcome.decision.rule)
        } else if let Some((reason, shadow)) = outcome.shadow.and_then(|shadow| Some((denied(&shadow)?, shadow))) {
            (Event::Verdict(shadow.verdict), Mode::Shadow, Some(reason), shadow.rule)
        } else {
            (Event::Audit, Mode::Enforce, None, Some(outcome.audit?))
        };
        let text = |value: Option<&'a [u8]>| {
            value.map(|value| String::from_utf8_lossy(value.get(..MAX_TEXT_BYTES).unwrap_or(value)))
        };
        Some(Self {
            event: event.slug(),
            mode: mode.slug(),
            reason: reason.map(|reason| reason.slug()),
            peer: peer.map(|peer| peer.id().as_str()),
            method: text(request.method().unwrap_or_default()),
            path: text(request.path_and_query().unwrap_or_default()),
            host: text(request.authority().unwrap_or_default()),
            policy: rule.map(|rule| rule.policy),
            rule: rule.map(|rule| rule.position),
            suppressed: 0,
        })
    }

    /// Returns the JSON text, with the number of lines that were dropped before it. It is printable ASCII, because a client chooses
    /// some of the values, and must not be able to control a terminal that shows the log.
    #[must_use]
    pub(super) fn into_json(mut self, suppressed: u64) -> String {
        self.suppressed = suppressed;
        // A struct of strings and numbers always serializes.
        escaped(serde_json::to_string(&self).unwrap_or_default())
    }
}

/// Returns the same JSON with every character outside printable ASCII escaped (RFC 8259 section 7).
fn escaped(json: String) -> String {
    let is_plain = |character: char| matches!(character, ' '..='~');
    if json.chars().all(is_plain) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_plain(character) {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

/// A limit on the lines per second, which counts the dropped lines. A flood of denials must not become a flood of log lines.
#[derive(Debug, Default)]
pub(super) struct RateLimit {
    second: i64,
    passed: u32,
    suppressed: u64,
}

/// The maximum number of lines per second of a worker.
pub(super) const LINES_PER_SECOND: u32 = 100;

impl RateLimit {
    /// Whether a line may pass at `now`, in seconds of any clock; if so, how many were dropped since the last that did.
    pub(super) const fn pass(&mut self, now: i64) -> Option<u64> {
        if now != self.second {
            self.second = now;
            self.passed = 0;
        }
        if self.passed >= LINES_PER_SECOND {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.passed = self.passed.saturating_add(1);
        let suppressed = self.suppressed;
        self.suppressed = 0;
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::{LINES_PER_SECOND, RateLimit, escaped};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn lines_are_printable_ascii() {
        let text = "/x?\u{1b}\u{7}\u{9b}\u{85}\u{202e}\u{2028}\u{7f}\u{1f600}\n\"é\\";
        let json = escaped(serde_json::to_string(text).unwrap());
        assert!(json.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        assert_eq!(escaped(r#"{"path":"/x"}"#.to_owned()), r#"{"path":"/x"}"#);
    }

    #[test]
    fn limits_lines_per_second_and_counts_dropped_ones() {
        let mut limit = RateLimit::default();
        for _ in 0..LINES_PER_SECOND {
            assert_eq!(limit.pass(7), Some(0));
        }
        assert_eq!(limit.pass(7), None);
        assert_eq!(limit.pass(7), None);
        assert_eq!(limit.pass(8), Some(2));
        assert_eq!(limit.pass(8), Some(0));
    }
}
