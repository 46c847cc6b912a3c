//! Envoys that replace each other without downtime (`--restart-epoch`).

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Envoy, READY_LIMIT, Start, launch};
use crate::bootstrap::Bootstrap;
use crate::wait;

/// An Envoy ends two seconds after its successor is ready. This is the limit for the end.
const END_LIMIT: Duration = Duration::from_secs(20);

/// The position in a series of hot restarts, and the file that the Envoys of the series share.
#[derive(Debug, Clone, Copy)]
pub struct Epoch<'a> {
    /// The restart epoch. The first Envoy has 0.
    pub number: u32,
    /// The file with the base ID, which the first Envoy writes.
    pub base_id: &'a Path,
}

impl Envoy {
    /// Starts an Envoy of a series. The listener of a successor must have the port that the first Envoy got.
    ///
    /// # Errors
    /// Returns an error if Envoy ends, or is not ready in time.
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
        Self::serving(launch(start, &arguments, bootstrap, directory)?, READY_LIMIT)
    }

    /// Waits for the end of an Envoy that has a successor.
    ///
    /// # Errors
    /// Returns an error if Envoy does not end in time.
    pub fn wait_for_end(mut self) -> Result<()> {
        wait::until("the old Envoy ends", END_LIMIT, || self.process.ended()).map(|_| ())
    }
}
