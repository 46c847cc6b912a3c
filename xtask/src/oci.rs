//! The filter as images in an OCI layout directory, without a registry, in the two layouts that Istio's proxies pull.
//!
//! Source: the Wasm Image Specification (solo-io/wasm, `spec`), and `pkg/wasm/imagefetcher.go` of Istio.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::tools::wasm::Toolchain;
use crate::{artifacts, workspace};

/// The name of the module in an image's last layer, which Istio requires.
const MODULE: &str = "plugin.wasm";
const NAME: &str = "org.opencontainers.image.ref.name";
const TITLE: &str = "org.opencontainers.image.title";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const IMAGE_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MODULE_CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
const MODULE_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

/// Builds the filter and its images. Prints the names and digests of the images.
pub(crate) fn run() -> Result<()> {
    artifacts::build(&Toolchain::find_or_get()?)?;
    for (name, digest) in build()? {
        println!("{name} {digest}");
    }
    Ok(())
}

/// Writes the images of the built filter to target/dist/oci. Returns their names and digests.
pub(crate) fn build() -> Result<Vec<(String, String)>> {
    let file = workspace::dist().join("spiffe-authz.wasm");
    let module = fs::read(&file).with_context(|| format!("{}: cannot read the file", file.display()))?;
    write(&module, &workspace::dist().join("oci"))
}

/// Replaces the content of `directory` with the images of `module`. The same module gives the same bytes.
fn write(module: &[u8], directory: &Path) -> Result<Vec<(String, String)>> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("{}: cannot remove the directory", directory.display()))?;
    }
    let layout = Layout { blobs: directory.join("blobs/sha256") };
    fs::create_dir_all(&layout.blobs)?;
    let version = env!("CARGO_PKG_VERSION");
    let mut named = Vec::new();
    for (name, mut manifest) in
        [(version.to_owned(), layout.image(module)?), (format!("{version}-artifact"), layout.artifact(module)?)]
    {
        manifest["annotations"] = json!({NAME: name});
        named.push((name, manifest));
    }
    let manifests: Vec<&Value> = named.iter().map(|(_, manifest)| manifest).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    fs::write(directory.join("index.json"), index.to_string())?;
    fs::write(directory.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    let digest = |manifest: &Value| manifest["digest"].as_str().unwrap_or_default().to_owned();
    Ok(named.iter().map(|(name, manifest)| (name.clone(), digest(manifest))).collect())
}

struct Layout {
    blobs: std::path::PathBuf,
}

impl Layout {
    /// Writes an image like `FROM scratch`, `COPY plugin.wasm ./`, which every registry and tool accepts.
    fn image(&self, module: &[u8]) -> Result<Value> {
        let tar = archive(module)?;
        let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        gzip.write_all(&tar)?;
        let layer = self.blob(IMAGE_LAYER, &gzip.finish()?)?;
        let config = json!({
            "architecture": "wasm", "os": "wasip1", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
        });
        let config = self.blob(IMAGE_CONFIG, config.to_string().as_bytes())?;
        self.manifest(&config, &[layer])
    }

    /// Writes an artifact with two layers, as Istio requires: the module, and the runtime configuration.
    fn artifact(&self, module: &[u8]) -> Result<Value> {
        let runtime = json!({"type": "envoy_proxy", "abiVersions": ["v0.2.1"]});
        let config = self.blob(MODULE_CONFIG, runtime.to_string().as_bytes())?;
        let mut runtime = config.clone();
        runtime["annotations"] = json!({TITLE: "runtime-config.json"});
        let mut content = self.blob(MODULE_LAYER, module)?;
        content["annotations"] = json!({TITLE: MODULE});
        self.manifest(&config, &[runtime, content])
    }

    fn manifest(&self, config: &Value, layers: &[Value]) -> Result<Value> {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    /// Stores a blob under its digest. Returns the descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<Value> {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        fs::write(self.blobs.join(name), bytes).with_context(|| format!("blob {digest}: cannot write the file"))?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(bytes))
}

/// Creates a tar archive with only the module, without an owner or a time.
fn archive(module: &[u8]) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(u64::try_from(module.len())?);
    header.set_mode(0o644);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, MODULE, module)?;
    Ok(archive.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::write;

    /// Returns every file below a directory.
    fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_dir() {
                found.extend(files(&entry.path()).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
            } else {
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
        found
    }

    #[test]
    fn the_same_module_gives_the_same_images_and_another_gives_others() {
        let directory = tempfile::tempdir().unwrap();
        let layout = directory.path().join("oci");
        let images = write(b"\0asm one", &layout).unwrap();
        let first = files(&layout);
        // The second module replaces the files of the first one.
        assert_ne!(write(b"\0asm two", &layout).unwrap(), images);
        assert_eq!(files(&layout).len(), first.len());
        assert_eq!(write(b"\0asm one", &layout).unwrap(), images);
        assert_eq!(files(&layout), first);
    }
}
