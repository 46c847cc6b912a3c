//! The secrets that an Envoy got through SDS: its certificate, and the authorities that it trusts.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::envoy::Envoy;

/// Returns the serial number of Envoy's certificate, or `None` if it has none yet.
///
/// # Errors
/// Returns an error if the admin interface does not respond.
pub fn serial_number(envoy: &Envoy) -> Result<Option<String>> {
    let certificates: Value = serde_json::from_slice(&envoy.admin("/certs")?.body)?;
    let certificates = certificates["certificates"].as_array().cloned().unwrap_or_default();
    let own = certificates.iter().find_map(|entry| entry["cert_chain"][0]["serial_number"].as_str());
    Ok(own.map(str::to_owned))
}

/// Returns `true` if Envoy trusts this authority, given as PEM, and limits it to its trust domain, as the SPIFFE validator
/// does.
///
/// # Errors
/// Returns an error if the admin interface does not respond.
pub fn trusts(envoy: &Envoy, authority: &str) -> Result<bool> {
    let dump: Value = serde_json::from_slice(&envoy.admin("/config_dump?resource=dynamic_active_secrets")?.body)?;
    let mut bundles = Vec::new();
    inline_texts(&dump, &mut bundles);
    Ok(bundles.iter().any(|bundle| bundle.contains(authority.trim())))
}

/// Collects the inline strings of a dump. SPIRE sends bytes, which the dump contains in base64.
fn inline_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| inline_texts(item, texts)),
        Value::Object(fields) => {
            let bytes = fields.get("inline_bytes").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
            texts.extend(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
            texts.extend(fields.get("inline_string").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| inline_texts(field, texts));
        }
        _ => {}
    }
}
