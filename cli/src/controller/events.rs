//! Events, which `kubectl describe` shows below an object.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::Instant;

use super::log;
use super::reconcile::FIELD_MANAGER;
use super::status::Problem;

/// The most bytes of the note of an event. Kubernetes allows 1024.
const NOTE: usize = 1000;
/// The time after which a problem is reported again. The API server deletes events after an hour, unless it has another
/// `--event-ttl`.
const REPEAT: Duration = Duration::from_secs(30 * 60);
/// The most events on policies of one comparison. The others follow with the next ones.
const BATCH: usize = 100;

/// The reporter of events.
pub(super) struct Events {
    client: Client,
    reporter: Reporter,
    /// When the problems of a policy were reported, by its UID and the note.
    reported: HashMap<(String, String), Instant>,
}

impl Events {
    pub(super) fn new(client: Client, replica: &str) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(replica.to_owned()) };
        Self { client, reporter, reported: HashMap::new() }
    }

    /// Publishes an event. An event that is lost changes nothing else, so an error is only logged.
    ///
    /// Returns `true` if it was published.
    pub(super) async fn publish(&self, regarding: &ObjectReference, kind: EventType, reason: &str, note: &str) -> bool {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(shortened(note)),
            action: "Deploy".to_owned(),
            secondary: None,
        };
        // A recorder counts events with the same reason as one, and keeps the first note, so it is used only once.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        match recorder.publish(&event, regarding).await {
            Ok(()) => true,
            Err(error) => {
                let object = regarding.name.as_deref().unwrap_or_default();
                log::error("an event is lost", &[("object", object), ("error", &error.to_string())]);
                false
            }
        }
    }

    /// Publishes the problems of policies, unless they were published before.
    pub(super) async fn publish_problems(&mut self, problems: &[Problem]) {
        let notes = notes(problems);
        self.reported.retain(|key, since| notes.contains_key(key) && since.elapsed() < REPEAT);
        let new: Vec<_> = notes.into_iter().filter(|(key, _)| !self.reported.contains_key(key)).take(BATCH).collect();
        for (key, policy) in new {
            if self.publish(policy, EventType::Warning, "NotDeployed", &key.1).await {
                self.reported.insert(key, Instant::now());
            }
        }
    }
}

/// Returns each policy with problems by its UID and the note on it.
fn notes(problems: &[Problem]) -> HashMap<(String, String), &ObjectReference> {
    let mut notes: HashMap<&str, (Vec<&str>, &ObjectReference)> = HashMap::new();
    for Problem { policy, text } in problems {
        if let Some(policy) = policy
            && let Some(uid) = &policy.uid
        {
            let (texts, _) = notes.entry(uid).or_insert((Vec::new(), policy));
            // Several deployments can have the same problem.
            if !texts.contains(&&**text) {
                texts.push(text);
            }
        }
    }
    notes.into_iter().map(|(uid, (texts, policy))| ((uid.to_owned(), texts.join("; ")), policy)).collect()
}

/// Returns the beginning of a note, at most [`NOTE`] bytes.
fn shortened(note: &str) -> String {
    let end = (0..=NOTE.min(note.len())).rfind(|end| note.is_char_boundary(*end)).unwrap_or_default();
    note[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;

    use super::{NOTE, notes, shortened};
    use crate::controller::status::Problem;

    #[test]
    fn a_policy_has_one_note() {
        let problem = |uid: Option<&str>, text: &str| Problem {
            policy: uid.map(|uid| ObjectReference { uid: Some(uid.to_owned()), ..ObjectReference::default() }),
            text: text.to_owned(),
        };
        let problems = [problem(Some("1"), "a"), problem(None, "b"), problem(Some("1"), "c"), problem(Some("1"), "a")];
        let notes = notes(&problems);
        assert_eq!(notes.into_keys().collect::<Vec<_>>(), [("1".to_owned(), "a; c".to_owned())]);
    }

    #[test]
    fn notes_have_a_limit_in_bytes() {
        assert_eq!(shortened("ä"), "ä");
        let long = shortened(&format!("x{}", "ä".repeat(NOTE)));
        assert_eq!(long.len(), NOTE - 1);
    }
}
