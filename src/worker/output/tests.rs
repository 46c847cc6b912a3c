use super::{Count, Fact, Outputs, Span};
use crate::host::{AddressOf, Connection, HostFailure, NoHeaders, RequestAttributes};
use crate::metadata::Object;
use crate::policy::{Mode, PolicySet};
use crate::timestamp::Timestamp;
use crate::worker::Worker;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const SLEEP: &str = "spiffe://example.org/ns/default/sa/sleep";

/// A connection over HBONE.
struct Tunnel;

impl Connection for Tunnel {
    fn exposes_peer_certificate(&self) -> Result<bool, HostFailure> {
        Ok(false)
    }

    fn is_mutual_tls(&self) -> Result<Option<bool>, HostFailure> {
        Ok(None)
    }

    fn peer_certificate(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(None)
    }

    fn peer_uri_san(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(None)
    }

    fn peer_certificate_digest(&self) -> Result<Option<impl AsRef<[u8]>>, HostFailure> {
        Ok(None::<Vec<u8>>)
    }

    fn peer_certificate_valid(&self) -> Result<Option<bool>, HostFailure> {
        Ok(None)
    }

    fn peer_principal(&self) -> Result<Option<Vec<u8>>, HostFailure> {
        Ok(Some(SLEEP.into()))
    }
}

/// A request with this path.
struct Path(&'static str);

impl RequestAttributes for Path {
    type Text = &'static str;
    type Headers = NoHeaders;

    fn path(&self) -> Result<Option<&'static str>, HostFailure> {
        Ok(Some(self.0))
    }

    fn headers(&self) -> Result<NoHeaders, HostFailure> {
        Ok(NoHeaders)
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Ok(None)
    }

    fn address(&self, _: AddressOf) -> Result<Option<std::net::IpAddr>, HostFailure> {
        Ok(None)
    }

    fn server_name(&self) -> Result<Option<&'static str>, HostFailure> {
        Ok(None)
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        Ok(Object::default())
    }
}

/// A host that records its outputs. `FACTS_ARE_STATE` differs between the adapters.
#[derive(Default)]
struct Recorder<const FACTS_ARE_STATE: bool> {
    /// The life of the filter state about the caller.
    span: Option<Span>,
    /// The peer in the filter state of the connection.
    peer: Option<String>,
    recorded: Vec<String>,
}

impl<const FACTS_ARE_STATE: bool> Outputs for Recorder<FACTS_ARE_STATE> {
    const FACTS_ARE_STATE: bool = FACTS_ARE_STATE;

    fn shows_peer(&self, spiffe_id: &str) -> bool {
        self.peer.as_deref() == Some(spiffe_id)
    }

    fn set_state(&mut self, fact: Fact, value: &str) {
        if (fact, self.span) == (Fact::Peer, Some(Span::Connection)) {
            // The same value again shows nothing new.
            if self.shows_peer(value) {
                return;
            }
            self.peer = Some(value.to_owned());
        }
        self.recorded.push(format!("{} {value}", fact.key()));
    }

    fn show<'f>(&mut self, facts: impl Iterator<Item = (Fact, &'f str)> + Clone) {
        self.recorded.extend(facts.map(|(fact, value)| format!("fact {} {value}", fact.key())));
    }

    fn count_allowed(&mut self) {
        self.recorded.push("allowed".to_owned());
    }

    fn count(&mut self, count: &Count<'_>) {
        self.recorded.push(count.values().join(" "));
    }

    fn log(&mut self, _: &str) {
        self.recorded.push("log".to_owned());
    }
}

/// Returns the outputs of two requests on one connection, of which the first one is allowed.
fn outputs<const FACTS_ARE_STATE: bool>(settings: &str) -> [Vec<String>; 2] {
    let document = format!(
        r#"{{"trustDomain": "example.org", "identity": {{"from": "peerPrincipal"}}, "outputs": {settings}, "policies": [
            {{"name": "open", "namespace": "n", "rules": [{{"to": [{{"operation": {{"paths": ["/open"]}}}}]}}]}}
        ]}}"#
    );
    let policies = PolicySet::from_json(document.as_bytes()).unwrap();
    let mut worker = Worker::default();
    let mut host = Recorder::<FACTS_ARE_STATE> { span: Some(Span::of_caller(&policies)), ..Recorder::default() };
    ["/open", "/closed"].map(|path| {
        let now = || Ok(Timestamp::from_seconds(0));
        worker.decide(&policies, Mode::Enforce, &Tunnel, Path(path), now).record(&mut host);
        std::mem::take(&mut host.recorded)
    })
}

#[test]
fn by_default_an_allowed_request_costs_one_state_and_one_counter() {
    let denied = ["decision deny no-policy-allows", "enforce deny no-policy-allows none", "log"];
    for [first, second] in [outputs::<true>("{}"), outputs::<false>("{}")] {
        assert_eq!(first, [&*format!("peer {SLEEP}"), "decision allow n/open 0", "allowed"]);
        assert_eq!(second, denied);
    }
}

#[test]
fn facts_about_the_caller_are_repeated_if_they_belong_to_the_request() {
    let caller = ["trust_domain example.org", "namespace default", "service_account sleep"];
    let caller: Vec<String> = [format!("peer {SLEEP}")].into_iter().chain(caller.map(str::to_owned)).collect();
    let count = |facts: &[String], what: &str| facts.iter().filter(|fact| fact.starts_with(what)).count();
    for (repeats, [first, second]) in
        [(false, outputs::<true>(r#"{"decision": "facts"}"#)), (true, outputs::<false>(r#"{"decision": "facts"}"#))]
    {
        for fact in &caller {
            let fact = format!("fact {fact}");
            assert!(first.contains(&fact), "{first:?}");
            assert_eq!(second.contains(&fact), repeats, "{second:?}");
        }
        for (facts, expected) in [
            (&first, ["fact verdict allow", "fact policy n/open", "fact rule 0"].as_slice()),
            (&second, &["fact verdict deny", "fact reason no-policy-allows"]),
        ] {
            assert!(expected.iter().all(|fact| facts.iter().any(|found| found == fact)), "{facts:?}");
            assert_eq!(count(facts, "decision"), 0);
        }
    }
    let [both, _] = outputs::<false>(r#"{"decision": "both"}"#);
    assert!(both.iter().any(|fact| fact == "decision allow n/open 0") && count(&both, "fact ") == 7, "{both:?}");
}

#[test]
fn the_caller_is_shown_as_often_as_the_settings_say() {
    for (settings, expected) in [
        (r#"{"caller": "connection"}"#, [1, 0]),
        (r#"{"caller": "request"}"#, [1, 1]),
        (r#"{"caller": "none"}"#, [0, 0]),
    ] {
        let shown = |facts: Vec<String>| facts.iter().filter(|fact| fact.contains(SLEEP)).count();
        assert_eq!(outputs::<true>(settings).map(shown), expected, "{settings}");
    }
    let [facts, _] = outputs::<false>(r#"{"decision": "facts", "caller": "none"}"#);
    assert!(!facts.iter().any(|fact| fact.contains("default")), "{facts:?}");
}

#[test]
fn allowed_requests_can_be_counted_by_policy() {
    let [allowed, denied] = outputs::<true>(r#"{"counters": "policy", "caller": "none"}"#);
    assert_eq!(allowed, ["decision allow n/open 0", "enforce allow none n/open"]);
    assert_eq!(denied, ["decision deny no-policy-allows", "enforce deny no-policy-allows none", "log"]);
}
