//! A root file system with programs and the shared libraries that they need.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{output, run};

/// A directory tree that becomes an image.
pub(crate) struct RootFileSystem {
    directory: PathBuf,
    /// Directories of a user other than root. They are separate, because only root can change the owner of a directory.
    owned: PathBuf,
    owner: Option<u32>,
}

impl RootFileSystem {
    /// Creates an empty root file system in this directory.
    pub(crate) fn new(place: PathBuf) -> Result<Self> {
        if place.exists() {
            fs::remove_dir_all(&place)?;
        }
        let root = Self { directory: place.join("root"), owned: place.join("owned"), owner: None };
        fs::create_dir_all(root.directory.join("usr/bin"))?;
        symlink("usr/bin", root.directory.join("bin"))?;
        Ok(root)
    }

    /// Adds a program of this machine, as found by a shell.
    pub(crate) fn add_system_program(&mut self, name: &str) -> Result<()> {
        let found = output(Command::new("sh").args(["-c", "command -v \"$0\"", name]));
        let found = found.with_context(|| format!("cannot find the program {name} on this machine"))?;
        self.add_program(Path::new(found.trim()), &format!("usr/bin/{name}"))
    }

    /// Adds a program at this path, with its libraries at their paths.
    pub(crate) fn add_program(&mut self, program: &Path, path: &str) -> Result<()> {
        self.copy(program, path)?;
        // A static program has no libraries, which ldd reports as a failure.
        let libraries = output(Command::new("ldd").arg(program)).unwrap_or_default();
        for library in libraries.lines().filter_map(library) {
            self.copy(Path::new(library), library.trim_start_matches('/'))?;
        }
        Ok(())
    }

    /// Adds a text file.
    pub(crate) fn write(&mut self, path: &str, text: &str, executable: bool) -> Result<()> {
        let place = self.place(path)?;
        fs::write(&place, text)?;
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, to: &str, path: &str) -> Result<()> {
        symlink(to, self.place(path)?)?;
        Ok(())
    }

    /// Adds a directory of root.
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        Ok(fs::create_dir_all(self.directory.join(path))?)
    }

    /// Adds a directory in which every user can write.
    pub(crate) fn temporary_directory(&mut self, path: &str) -> Result<()> {
        self.directory(path)?;
        Ok(fs::set_permissions(self.directory.join(path), fs::Permissions::from_mode(0o1777))?)
    }

    /// Adds a directory of this user and the group with the same number.
    pub(crate) fn owned_directory(&mut self, path: &str, owner: u32) -> Result<()> {
        self.owner = Some(owner);
        Ok(fs::create_dir_all(self.owned.join(path))?)
    }

    /// Writes everything to a tar archive next to the directory, and removes the directory.
    pub(crate) fn archive(&self) -> Result<PathBuf> {
        let archive = self.directory.with_file_name("image.tar");
        run(tar("--create", &archive, 0, &self.directory).arg("."))?;
        if let Some(owner) = self.owner {
            let names = fs::read_dir(&self.owned)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
            run(tar("--append", &archive, owner, &self.owned).args(names))?;
            fs::remove_dir_all(&self.owned)?;
        }
        fs::remove_dir_all(&self.directory)?;
        Ok(archive)
    }

    fn copy(&self, from: &Path, path: &str) -> Result<()> {
        let place = self.place(path)?;
        fs::copy(from, place).with_context(|| format!("{}: cannot copy the file", from.display()))?;
        Ok(())
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let place = self.directory.join(path);
        fs::create_dir_all(place.parent().context("a path without a parent")?)?;
        Ok(place)
    }
}

fn tar(action: &str, archive: &Path, owner: u32, directory: &Path) -> Command {
    let mut tar = Command::new("tar");
    tar.args([action, &format!("--owner={owner}"), &format!("--group={owner}"), "--numeric-owner", "--file"]);
    tar.arg(archive).arg("--directory").arg(directory);
    tar
}

/// Returns the path in a line of ldd, such as `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld…
/// (0x…)`.
fn library(line: &str) -> Option<&str> {
    line.split_whitespace().find(|word| word.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::library;

    #[test]
    fn reads_ldd() {
        assert_eq!(library("\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f)"), Some("/lib/x/libc.so.6"));
        assert_eq!(library("\t/lib64/ld-linux-x86-64.so.2 (0x00007f)"), Some("/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(library("\tlinux-vdso.so.1 (0x00007f)"), None);
        assert_eq!(library("\tnot a dynamic executable"), None);
    }
}
