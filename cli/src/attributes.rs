//! The attributes of a request, from options.

use std::net::IpAddr;

use serde_json::{Map, Value};

/// The attributes of a request that most rules do not use.
#[derive(clap::Args)]
pub(crate) struct Attributes {
    /// The host: the header `:authority`
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// The port of the local address
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// A header as `name: value`; can be repeated
    #[arg(long = "header", value_name = "LINE", value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// The direct remote address: the peer of the TCP connection
    #[arg(long)]
    pub(crate) source_ip: Option<IpAddr>,
    /// The remote address: the client that trusted proxies report
    #[arg(long)]
    pub(crate) remote_ip: Option<IpAddr>,
    /// The server name of the TLS handshake
    #[arg(long)]
    pub(crate) sni: Option<String>,
    /// The claims of a verified token, as a JSON object. A claim that it lacks is absent
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    pub(crate) claims: Option<Map<String, Value>>,
}

fn parse_header(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or("expected `name: value`")?;
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))
}
