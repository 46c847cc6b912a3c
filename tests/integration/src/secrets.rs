//! What an Envoy has been told by SDS: its own certificate, and whom it trusts.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::envoy::Envoy;

/// The serial number of the certificate that the Envoy shows; `None` when it has none yet.
///
/// # Errors
/// Returns an error if its admin interface does not answer.
pub fn serial_number(envoy: &Envoy) -> Result<Option<String>> {
    let certificates: Value = serde_json::from_slice(&envoy.admin("/certs")?.body)?;
    let certificates = certificates["certificates"].as_array().cloned().unwrap_or_default();
    let own = certificates.iter().find_map(|entry| entry["cert_chain"][0]["serial_number"].as_str());
    Ok(own.map(str::to_owned))
}

/// Whether the Envoy trusts an authority, given by its certificate in PEM: for the authority's own trust domain alone, which is
/// how the SPIFFE validator has it.
///
/// # Errors
/// Returns an error if its admin interface does not answer.
pub fn trusts(envoy: &Envoy, authority: &str) -> Result<bool> {
    let dump: Value = serde_json::from_slice(&envoy.admin("/config_dump?resource=dynamic_active_secrets")?.body)?;
    let mut bundles = Vec::new();
    inline_texts(&dump, &mut bundles);
    Ok(bundles.iter().any(|bundle| bundle.contains(authority.trim())))
}

/// Every text that stands inline in what Envoy dumps; SPIRE sends bytes, which the dump has in base64.
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
