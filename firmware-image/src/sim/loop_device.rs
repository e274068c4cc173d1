//! A real block device over a file, where this computer gives one: to root.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::figures;

/// A loop device, as long as this lives.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    /// One over `file`, with these options of losetup(8) besides; `None`, told at the end of a run of tests: there is none for us.
    pub fn over(file: &Path, options: &[&str]) -> Option<Self> {
        let made = Command::new("losetup").args(["--find", "--show"]).args(options).arg(file).output();
        let Some(made) = made.ok().filter(|made| made.status.success()) else {
            figures::skipped("loop devices are not to be had here: only root makes them");
            return None;
        };
        Some(Self(String::from_utf8_lossy(&made.stdout).trim().into()))
    }

    /// Its node.
    pub fn node(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // Leaves a loop device behind, at worst.
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}
