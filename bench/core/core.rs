//! Measures decisions and compilation by the number of policies. `cargo xtask bench --core` runs it and prints a table.
#![expect(missing_docs, reason = "criterion's macro writes a public function")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use cpu_time::ThreadTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use spiffe_authz::decision::{DenyReason, Verdict};
use spiffe_authz::host::{AddressOf, Headers, HostFailure, RequestAttributes};
use spiffe_authz::metadata::Object;
use spiffe_authz::policy::PolicySet;
use spiffe_authz::request::Request;
use spiffe_authz::timestamp::Timestamp;

const COUNTS: [u32; 3] = [10, 1_000, 10_000];
const CALLER: &str = "spiffe://example.org/ns/default/sa/sleep";

/// Policies that differ in one field, and a request that the last one of them matches.
#[derive(Clone, Copy)]
enum Case {
    /// Every policy has a different principal, and none matches.
    NoneMatches,
    /// Every policy has a different principal in `when`, and none matches.
    Conditions,
    Paths,
    PathTemplates,
    Ports,
    Addresses,
    Headers,
    ServerNames,
    RequestPrincipals,
    Claims,
    /// Every policy has the same path, and a header distinguishes the policies.
    PathAndHeader,
}

impl Case {
    const ALL: [Self; 11] = [
        Self::NoneMatches,
        Self::Conditions,
        Self::Paths,
        Self::PathTemplates,
        Self::Ports,
        Self::Addresses,
        Self::Headers,
        Self::ServerNames,
        Self::RequestPrincipals,
        Self::Claims,
        Self::PathAndHeader,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::NoneMatches => "no principal matches",
            Self::Conditions => "no source.principal matches",
            Self::Paths => "paths",
            Self::PathTemplates => "path templates",
            Self::Ports => "ports",
            Self::Addresses => "ipBlocks",
            Self::Headers => "request.headers",
            Self::ServerNames => "connection.sni",
            Self::RequestPrincipals => "requestPrincipals",
            Self::Claims => "request.auth.claims",
            Self::PathAndHeader => "one path, and request.headers",
        }
    }

    /// The rule of the policy with this number. Every rule names the caller, if one matches.
    fn rule(self, number: u32) -> Value {
        let other = format!("example.org/ns/default/sa/other-{number}");
        let mut source = json!({"principals": ["example.org/ns/default/sa/sleep"]});
        let mut operation = json!({"methods": ["GET"]});
        let mut when = Vec::new();
        match self {
            Self::NoneMatches => source["principals"] = json!([other]),
            Self::Conditions => return json!({"when": [{"key": "source.principal", "values": [other]}]}),
            Self::Paths => operation["paths"] = json!([path(number)]),
            Self::PathTemplates => operation["paths"] = json!([format!("/{{*}}/items/{number:05}")]),
            Self::Ports => operation["ports"] = json!([(number + 1).to_string()]),
            Self::Addresses => source["ipBlocks"] = json!([address(number).to_string()]),
            Self::Headers => when.push(json!({"key": "request.headers[x-key]", "values": [text(number)]})),
            Self::ServerNames => when.push(json!({"key": "connection.sni", "values": [text(number)]})),
            Self::RequestPrincipals => source["requestPrincipals"] = json!([format!("issuer/{}", text(number))]),
            Self::Claims => when.push(json!({"key": "request.auth.claims[group]", "values": [text(number)]})),
            Self::PathAndHeader => {
                operation["paths"] = json!(["/items"]);
                when.push(json!({"key": "request.headers[x-key]", "values": [text(number)]}));
            }
        }
        let mut rule = json!({"from": [{"source": source}], "to": [{"operation": operation}]});
        if !when.is_empty() {
            rule["when"] = json!(when);
        }
        rule
    }

    fn document(self, count: u32) -> String {
        let policy =
            |number| json!({"name": format!("p{number}"), "namespace": "default", "rules": [self.rule(number)]});
        json!({"trustDomain": "example.org", "policies": (0..count).map(policy).collect::<Vec<_>>()}).to_string()
    }

    /// A request that matches the policy with this number.
    fn request(self, number: u32) -> Attributes {
        let path = match self {
            Self::PathTemplates => format!("/x/items/{number:05}"),
            Self::PathAndHeader => "/items".to_owned(),
            _ => path(number),
        };
        let claims = json!({"iss": "issuer", "sub": text(number), "group": text(number)});
        let metadata = json!({"envoy.filters.http.jwt_authn": {"payload": claims}});
        Attributes {
            path,
            port: u64::from(number + 1),
            address: address(number),
            text: text(number),
            metadata: metadata.as_object().map(Object::from).unwrap_or_default(),
        }
    }

    const fn verdict(self) -> Verdict {
        match self {
            Self::NoneMatches | Self::Conditions => Verdict::Deny(DenyReason::NoPolicyAllows),
            _ => Verdict::Allow,
        }
    }
}

/// A path. All have one length, so that the cost of a comparison does not depend on the number.
fn path(number: u32) -> String {
    format!("/p{number:05}/items")
}

/// A value of a header, a server name or a claim.
fn text(number: u32) -> String {
    format!("value-{number:05}")
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

/// The attributes of a GET.
struct Attributes {
    path: String,
    port: u64,
    address: IpAddr,
    /// The header `x-key`, and the server name.
    text: String,
    metadata: Object,
}

/// The header `x-key`.
struct OneHeader<'a>(&'a str);

impl Headers for OneHeader<'_> {
    fn lines<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> + Clone {
        (name == "x-key").then_some(self.0.as_bytes()).into_iter()
    }
}

impl<'a> RequestAttributes for &'a Attributes {
    type Text = &'a str;
    type Headers = OneHeader<'a>;

    fn method(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some("GET"))
    }

    fn path(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some(&self.path))
    }

    fn authority(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some("example.org"))
    }

    fn destination_port(&self) -> Result<Option<u64>, HostFailure> {
        Ok(Some(self.port))
    }

    fn headers(&self) -> Result<OneHeader<'a>, HostFailure> {
        Ok(OneHeader(&self.text))
    }

    fn address(&self, _: AddressOf) -> Result<Option<IpAddr>, HostFailure> {
        Ok(Some(self.address))
    }

    fn server_name(&self) -> Result<Option<&'a str>, HostFailure> {
        Ok(Some(&self.text))
    }

    fn metadata(&self) -> Result<Object, HostFailure> {
        Ok(self.metadata.clone())
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
    for case in Case::ALL {
        let mut group = criterion.benchmark_group(format!("decide, {}", case.name()));
        for count in COUNTS {
            let policies = PolicySet::from_json(case.document(count).as_bytes()).expect("a valid document");
            let subject = policies.subject(policies.identity().identify(Some(CALLER.as_bytes())));
            let attributes = case.request(count - 1);
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    let request = Request::new(black_box(&attributes), Timestamp::from_seconds(0));
                    assert_eq!(policies.decide(&subject, &request).decision.verdict, case.verdict());
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
        let document = Case::Paths.document(count);
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
