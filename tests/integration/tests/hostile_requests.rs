//! No request stops the filter: the next valid request on the same worker is allowed.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use spiffe_authz_integration::bootstrap::Adapter;
use spiffe_authz_integration::fixture::{ProtectedServer, Validation};
use spiffe_authz_integration::http::Client;
use spiffe_authz_integration::http2::Connection;

spiffe_authz_integration::test_with_each_adapter![
    bytes_that_are_not_utf8,
    headers_of_60_kilobytes,
    a_thousand_denials_at_once_do_not_flood_the_log,
    control_characters_in_a_path_are_escaped_in_the_log,
];

/// A server whose policies use every attribute.
fn server(adapter: Adapter) -> Result<ProtectedServer> {
    ProtectedServer::start(
        adapter,
        Validation::Spiffe,
        &json!({
            "trustDomain": "example.org",
            "policies": [{"name": "all", "rules": [{"to": [{"operation": {
                "paths": ["*"], "methods": ["*"], "notHosts": ["x"], "notPorts": ["1"]
            }}]}]}]
        }),
    )
}

fn raw(client: &mut Client, request: &[u8]) -> Result<u16> {
    Ok(client.raw(request)?.status)
}

fn bytes_that_are_not_utf8(adapter: Adapter) -> Result<()> {
    let server = server(adapter)?;
    let mut client = server.caller("default", "sleep")?;
    for header in [b"x-bytes: \xff\xfe\x80".as_slice(), b"user-agent: \xc3\x28", b"cookie: \xf0\x9f", b"accept: \x80"] {
        assert_eq!(client.request("GET", "/", &[header])?.status, 200, "{header:?}");
    }
    let mut paths = 0;
    for path in [b"/\xff\xfe".as_slice(), b"/%ff%fe", b"/%", b"/%zz", b"/\\..\\", b"/;x=\x80?\xff#\xfe"] {
        // Envoy can reject the path and close the connection, and the filter can deny the request. It must not fail.
        let request = [b"GET ", path, b" HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
        let status = raw(&mut server.caller("default", "sleep")?, &request)?;
        assert!([200, 400].contains(&status), "{path:?}: {status}");
        paths += u32::from(status == 200);
    }
    assert!(paths > 0, "no path reached the filter");
    for host in [b"\xff".as_slice(), b"[::1", b"a:b:c", b""] {
        let request = [b"GET / HTTP/1.1\r\nhost: ", host, b"\r\n\r\n"].concat();
        let status = raw(&mut server.caller("default", "sleep")?, &request)?;
        assert!([200, 400].contains(&status), "{host:?}: {status}");
    }
    still_well(&server, &mut client)
}

fn headers_of_60_kilobytes(adapter: Adapter) -> Result<()> {
    let server = server(adapter)?;
    let mut client = server.caller("default", "sleep")?;
    let long = "x".repeat(56_000);
    assert_eq!(client.request("GET", "/", &[format!("x-long: {long}").as_bytes()])?.status, 200);
    assert_eq!(client.get(&format!("/{long}"))?.status, 200);
    // Longer than Envoy accepts.
    let longer = "x".repeat(62_000);
    let response = server.caller("default", "sleep")?.request("GET", "/", &[format!("x-long: {longer}").as_bytes()])?;
    assert_eq!(response.status, 431);
    still_well(&server, &mut client)
}

fn a_thousand_denials_at_once_do_not_flood_the_log(adapter: Adapter) -> Result<()> {
    let document = json!({"trustDomain": "example.org", "policies": [{"name": "none"}]});
    let server = ProtectedServer::start(adapter, Validation::Spiffe, &document)?;
    let mut client = server.caller("default", "sleep")?;
    let started = std::time::Instant::now();
    for _ in 0..1000 {
        assert_eq!(client.get("/x")?.status, 403);
    }
    let seconds = started.elapsed().as_secs() + 2;
    let lines = server.envoy.log()?.matches(r#""event":"deny""#).count();
    assert!(lines >= 100 && u64::try_from(lines)? <= 100 * seconds, "{lines} lines in {seconds} s");
    Ok(())
}

/// Over HTTP/2, Envoy accepts every byte above 0x7F in a path. The ordinary path is the control: it is logged as it is.
fn control_characters_in_a_path_are_escaped_in_the_log(adapter: Adapter) -> Result<()> {
    // The C1 controls CSI and NEL, and the override that reverses the direction of text.
    const HOSTILE: &str = "/x?\u{9b}\u{85}\u{202e}";
    const ORDINARY: &str = "/x?y=%7e~";
    let document = json!({"trustDomain": "example.org", "policies": [{"name": "none"}]});
    let server = ProtectedServer::start(adapter, Validation::Spiffe, &document)?;
    let leaf = server.fixture.leaf("default", "sleep")?;
    let mut connection = Connection::open(server.address()?, &leaf)?;
    for path in [HOSTILE, ORDINARY] {
        assert!(!connection.get(path)?, "{path:?} is allowed");
    }
    let log = server.envoy.log()?;
    let lines: Vec<&str> = log.lines().filter_map(|line| line.get(line.find(r#"{"event":"#)?..)).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(log.bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')), "{log:?}");
    let paths = lines.iter().map(|line| {
        let line: Value = serde_json::from_str(line)?;
        Ok(line["path"].as_str().context("no path")?.to_owned())
    });
    assert_eq!(paths.collect::<Result<Vec<_>>>()?, [HOSTILE, ORDINARY]);
    assert!(lines[1].contains(&format!(r#""path":"{ORDINARY}""#)), "{log}");
    Ok(())
}

fn still_well(server: &ProtectedServer, client: &mut Client) -> Result<()> {
    assert_eq!(client.get("/")?.status, 200);
    let log = server.envoy.log()?;
    assert!(!log.contains("panicked") && !log.contains("Wasm VM failed"), "{log}");
    assert_eq!(server.envoy.stat("wasm.spiffe-authz.vm_reload")?.unwrap_or(0), 0);
    Ok(())
}
