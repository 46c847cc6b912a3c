//! Chromium without a window, for the tests of HTML pages: a build for servers from npm, which needs only the C library.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tar::Archive;

use super::npm;
use crate::process::run;
use crate::versions::{CHROMIUM, CHROMIUM_SHA512, MERMAID, MERMAID_SHA512};
use crate::workspace::cached;

/// The program, the libraries that Debian's base system lacks, and a font.
const FILES: [&str; 3] = ["package/bin/chromium.br", "package/bin/al2023.tar.br", "package/bin/fonts.tar.br"];

/// Decompresses files next to them. Node has Brotli.
const DECOMPRESS: &str = "const fs = require('fs'), zlib = require('zlib');
for (const file of process.argv.slice(1))
  fs.writeFileSync(file.slice(0, -'.br'.length), zlib.brotliDecompressSync(fs.readFileSync(file)));";

/// Without it, Chromium ends if the system has no font.
const FONTS: &str = "<?xml version=\"1.0\"?>
<!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">
<fontconfig><dir prefix=\"relative\">fonts</dir><cachedir prefix=\"xdg\">fontconfig</cachedir></fontconfig>
";

/// Returns the path of the program. The directories `lib` and `fonts.conf` are next to it.
pub(crate) fn find_or_get() -> Result<PathBuf> {
    let entry = cached(&format!("chromium-{CHROMIUM}"), |directory| {
        eprintln!("Chromium {CHROMIUM}: getting it from the npm package @sparticuz/chromium (68 MB)");
        npm::unpack("@sparticuz/chromium", CHROMIUM, CHROMIUM_SHA512, &FILES, directory)?;
        let packed = FILES.map(|file| directory.join(Path::new(file).file_name().unwrap_or_default()));
        run(Command::new("node").args(["-e", DECOMPRESS]).args(&packed))?;
        packed.iter().try_for_each(fs::remove_file)?;
        for archive in ["al2023.tar", "fonts.tar"].map(|name| directory.join(name)) {
            Archive::new(File::open(&archive)?)
                .unpack(directory)
                .with_context(|| format!("{}: cannot unpack the archive", archive.display()))?;
            fs::remove_file(archive)?;
        }
        fs::write(directory.join("fonts.conf"), FONTS)?;
        fs::set_permissions(directory.join("chromium"), Permissions::from_mode(0o755))?;
        Ok(())
    })?;
    Ok(entry.join("chromium"))
}

/// Returns the path of Mermaid's script for browsers, which parses and draws charts.
pub(crate) fn mermaid() -> Result<PathBuf> {
    let entry = cached(&format!("mermaid-{MERMAID}"), |directory| {
        eprintln!("Mermaid {MERMAID}: getting its script from the npm package mermaid (14 MB)");
        npm::unpack("mermaid", MERMAID, MERMAID_SHA512, &["package/dist/mermaid.min.js"], directory)
    })?;
    Ok(entry.join("mermaid.min.js"))
}
