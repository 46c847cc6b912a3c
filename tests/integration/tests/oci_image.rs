//! Istio's image fetcher pulls the filter's images from a registry on loopback, like a proxy.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use spiffe_authz_integration::tools;

#[test]
fn istio_pulls_the_filter_from_both_layouts() -> Result<()> {
    let directory = PathBuf::from(env::var_os(tools::OCI).with_context(|| format!("{} is not set", tools::OCI))?);
    let index: Value = serde_json::from_slice(&fs::read(directory.join("index.json"))?)?;
    let digests: BTreeMap<&str, &str> = index["manifests"]
        .as_array()
        .context("no manifests")?
        .iter()
        .filter_map(|manifest| {
            let name = manifest["annotations"]["org.opencontainers.image.ref.name"].as_str()?;
            Some((name, manifest["digest"].as_str()?.strip_prefix("sha256:")?))
        })
        .collect();
    let module = Command::new("sha256sum").arg(tools::path(tools::WASM)?).output()?.stdout;
    let module = String::from_utf8(module)?.split(' ').next().unwrap_or_default().to_owned();

    let output = Command::new(tools::path(tools::WASM_IMAGE)?).arg(&directory).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pulled: Vec<Value> =
        String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(pulled.len() == 2 && digests.len() == 2, "{pulled:?} of {digests:?}");
    for image in &pulled {
        let name = image["name"].as_str().context("no name")?;
        ensure!(image["digest"].as_str() == digests.get(name).copied(), "{image}: expected one of {digests:?}");
        ensure!(image["moduleSha256"] == module, "{image}: expected the filter {module}");
    }
    Ok(())
}
