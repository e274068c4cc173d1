//! What was measured, kept as JSON between runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// What our own rows are called.
pub const OURS: &str = "Holdfast";
/// Whose store ours is compared with.
pub const STORE_PEER: &str = "borg";
/// Whose processor time ours is compared with.
pub const CPU_PEER: &str = "HDiffPatch";
/// The release as a download.
pub const WHOLE: &str = "whole release, zstd -19";

/// One series, measured in one run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which series.
    pub series: String,
    /// The releases, oldest first.
    pub versions: Vec<String>,
    /// Files of the newest release.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of the largest.
    pub largest_bytes: u64,
    /// What our own publishing took.
    pub publishing: Publishing,
    /// What our updater takes once there is nothing new.
    #[serde(default)]
    pub idle: Option<Usage>,
    /// Us, then the peers.
    pub rows: Vec<Row>,
    /// Peers that were not there.
    pub absent: Vec<String>,
}

/// What publishing the newest release took.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Publishing {
    /// Without any patch.
    pub bare: Usage,
    /// As vendors do it.
    pub usual: Usage,
}

/// What one program needs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Row {
    /// Which program.
    pub program: String,
    /// From the release before.
    pub near: Option<Update>,
    /// From three releases before.
    pub far: Option<Update>,
    /// All releases, in bytes.
    pub store_bytes: Option<u64>,
    /// What did not work, and why.
    pub failures: Vec<String>,
}

/// One update.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Update {
    /// The bytes of patches, chunks or frames; of backup programs none are known.
    pub bytes: Option<u64>,
    /// Everything that was sent.
    pub total_bytes: Option<u64>,
    /// Requests, where they apply.
    pub requests: Option<usize>,
    /// On the client's side.
    pub client: Usage,
    /// On the maker's side, for this update alone where that can be told.
    pub maker: Option<Usage>,
}

/// The release that an update starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// N-1.
    Near,
    /// N-3.
    Far,
}

impl Base {
    /// How many releases before the newest.
    pub fn back(self) -> usize {
        match self {
            Self::Near => 1,
            Self::Far => 3,
        }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Near => "N-1",
            Self::Far => "N-3",
        }
    }
}

impl Row {
    /// What it needs from there.
    pub fn update(&self, base: Base) -> Option<&Update> {
        match base {
            Base::Near => self.near.as_ref(),
            Base::Far => self.far.as_ref(),
        }
    }

    /// The bytes that it needs from there.
    pub fn bytes(&self, base: Base) -> Option<u64> {
        self.update(base)?.bytes
    }
}

impl Outcome {
    /// The row of a program.
    pub fn row(&self, program: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.program == program)
    }

    /// The peer that needs least.
    pub fn best_peer(&self, base: Base) -> Option<(&Row, u64)> {
        let peers = self.rows.iter().filter(|row| row.program != OURS);
        peers.filter_map(|row| Some((row, row.bytes(base)?))).min_by_key(|(_, bytes)| *bytes)
    }

    /// The versions of an update from there.
    pub fn step(&self, base: Base) -> Option<(&str, &str)> {
        let old = self.versions.len().checked_sub(1 + base.back())?;
        Some((self.versions.get(old)?, self.versions.last()?))
    }

    /// Keeps it in `dir`.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("{}.json", self.series));
        fs::write(&path, serde_json::to_vec_pretty(self)?).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What was kept of a series.
    pub fn load(dir: &Path, series: &str) -> Result<Option<Self>> {
        let path = dir.join(format!("{series}.json"));
        if !path.exists() {
            return Ok(None);
        }
        let kept = serde_json::from_slice(&fs::read(&path)?);
        kept.map(Some).with_context(|| format!("{} is of another version: measure again", path.display()))
    }
}
