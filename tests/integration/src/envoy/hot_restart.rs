//! Envoys that follow one another without a moment in which nobody listens (`--restart-epoch`).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Envoy, Start, launch};
use crate::bootstrap::Bootstrap;
use crate::wait;

/// An old Envoy ends two seconds after its successor serves; this much later it is an error.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Which Envoy in the row this is, and where the first one wrote what the later ones must know.
#[derive(Debug, Clone, Copy)]
pub struct Epoch<'a> {
    /// 0 is the first.
    pub number: u32,
    /// A file that is there from the first one on.
    pub base_id: &'a Path,
}

impl Envoy {
    /// Starts an Envoy of a row. The listener of a later one must name the very port that the first one got.
    ///
    /// # Errors
    /// Returns an error if it ends or does not serve in time.
    pub fn start_epoch(start: &Start<'_>, bootstrap: &Bootstrap, directory: &Path, epoch: Epoch<'_>) -> Result<Self> {
        let file = epoch.base_id.to_string_lossy();
        let number = epoch.number.to_string();
        let base_id = if epoch.number == 0 { String::new() } else { fs::read_to_string(epoch.base_id)? };
        let mut arguments = vec!["--parent-shutdown-time-s", "2"];
        if epoch.number == 0 {
            arguments.extend(["--use-dynamic-base-id", "--base-id-path", &file]);
        } else {
            arguments.extend(["--base-id", base_id.trim(), "--restart-epoch", &number]);
        }
        Self::serving(launch(start, &arguments, bootstrap, directory)?)
    }

    /// Waits for the end of an Envoy that has a successor.
    ///
    /// # Errors
    /// Returns an error if it does not end in time.
    pub fn superseded(mut self) -> Result<()> {
        wait::until("the old Envoy ends", END_LIMIT, || self.process.ended()).map(|_| ())
    }
}
