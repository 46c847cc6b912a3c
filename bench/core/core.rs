//! Measures decisions and compilation by the number of policies. `cargo xtask bench --core` runs it and prints a table.
#![expect(missing_docs, reason = "criterion's macro writes a public function")]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use cpu_time::ThreadTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use spiffe_authz::decision::{DenyReason, Verdict};
use spiffe_authz::host::{AddressOf, HostFailure, RequestAttributes};
use spiffe_authz::metadata::Object;
use spiffe_authz::policy::PolicySet;
use spiffe_authz::request::Request;
use spiffe_authz::timestamp::Timestamp;

const COUNTS: [u32; 3] = [10, 1_000, 10_000];
const CALLER: &str = "spiffe://example.org/ns/default/sa/sleep";

/// The worst cases of a request from `CALLER` for the path of the last policy.
#[derive(Clone, Copy)]
enum Case {
    /// Every policy has a different principal, so none matches.
    NoneMatches,
    /// Every policy has the caller's principal and a path of its own. The last one matches.
    SamePrincipal,
}

impl Case {
    const fn name(self) -> &'static str {
        match self {
            Self::NoneMatches => "no policy matches",
            Self::SamePrincipal => "all name the caller",
        }
    }

    fn document(self, count: u32) -> String {
        let principal = |number: u32| match self {
            Self::NoneMatches => format!("example.org/ns/default/sa/other-{number}"),
            Self::SamePrincipal => "example.org/ns/default/sa/sleep".to_owned(),
        };
        let policies: Vec<Value> = (0..count)
            .map(|number| {
                json!({"name": format!("p{number}"), "namespace": "default", "rules": [{
                    "from": [{"source": {"principals": [principal(number)]}}],
                    "to": [{"operation": {"methods": ["GET"], "paths": [path(number)]}}]
                }]})
            })
            .collect();
        json!({"trustDomain": "example.org", "policies": policies}).to_string()
    }

    const fn verdict(self) -> Verdict {
        match self {
            Self::NoneMatches => Verdict::Deny(DenyReason::NoPolicyAllows),
            Self::SamePrincipal => Verdict::Allow,
        }
    }
}

/// All paths have the same length, so the length of compared strings does not depend on their number.
fn path(number: u32) -> String {
    format!("/p{number:05}/items")
}

/// A GET request for the path of the last policy.
struct Get<'a>(&'a str);

impl<'a> RequestAttributes for &Get<'a> {
    type Text = &'a str;
    type Headers = Vec<(String, Vec<u8>)>;

    fn method(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some("GET"))
    }

    fn path(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some(self.0))
    }

    fn authority(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some("example.org"))
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Ok(Some(8443))
    }

    fn headers(&self) -> Result<Self::Headers, HostFailure> {
        Err(HostFailure)
    }

    fn address(&self, _: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        Err(HostFailure)
    }

    fn server_name(&self) -> Result<Option<&'a str>, HostFailure> {
        Err(HostFailure)
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        Err(HostFailure)
    }
}

/// The CPU time of the thread, which is less sensitive to concurrent load than wall-clock time.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = ThreadTime;
    type Value = Duration;

    fn start(&self) -> ThreadTime {
        ThreadTime::now()
    }

    fn end(&self, start: ThreadTime) -> Duration {
        start.elapsed()
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn decide(criterion: &mut Criterion<CpuTime>) {
    for case in [Case::NoneMatches, Case::SamePrincipal] {
        let mut group = criterion.benchmark_group(format!("decide, {}", case.name()));
        for count in COUNTS {
            let policy = PolicySet::from_json(case.document(count).as_bytes()).expect("a valid document");
            let subject = policy.subject(policy.identity().identify(Some(CALLER.as_bytes())));
            let path = path(count - 1);
            let get = Get(&path);
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    let outcome = policy.decide(&subject, &Request::new(black_box(&get), Timestamp::from_seconds(0)));
                    assert_eq!(outcome.decision.verdict, case.verdict());
                });
            });
        }
        group.finish();
    }
}

fn compile(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(20);
    for count in COUNTS {
        let document = Case::NoneMatches.document(count);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| PolicySet::from_json(black_box(document.as_bytes())).expect("a valid document"));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = decide, compile
}
criterion_main!(benches);
