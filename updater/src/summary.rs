//! A plan, for people and scripts: what `--dry-run` prints.

use std::collections::{HashMap, HashSet};

use firmware_image::{Digest, paths};
use serde::Serialize;

use crate::plan::{Content, Plan, Way};

impl Plan {
    /// What `--dry-run` prints.
    pub fn summary(&self) -> Summary {
        let by_digest: HashMap<&Digest, &Content> =
            self.contents.iter().map(|content| (&content.digest, content)).collect();
        let mut seen = HashSet::new();
        let mut line = |path: &str, state: String, digest: &Digest, size: u64| {
            let content = by_digest.get(digest);
            let fetch = match content.map(|content| &content.way) {
                Some(Way::Chunks { fetch, .. } | Way::Patch { fetch, .. }) if seen.insert(*digest) => *fetch,
                _ => 0,
            };
            let instead_of_bytes = match content.map(|content| &content.way) {
                Some(Way::Patch { instead_of, .. }) => *instead_of,
                _ => fetch,
            };
            let way = match content.map(|content| &content.way) {
                Some(Way::Patch { .. }) => "patch",
                Some(Way::Staged) => "staged",
                Some(Way::Copy { .. }) => "copy",
                Some(Way::Chunks { fetch: 0, .. }) => "local chunks",
                Some(Way::Chunks { local: 0, .. }) => "download",
                Some(Way::Chunks { .. }) => "download and local chunks",
                None => "keep",
            };
            SummaryLine { path: path.to_owned(), state, way, bytes: size, fetch_bytes: fetch, instead_of_bytes }
        };
        let mut files: Vec<SummaryLine> =
            self.puts.iter().map(|put| line(&put.path, put.state.to_string(), &put.digest, put.size)).collect();
        files.extend(self.updaters.iter().map(|at| {
            let updater = &self.manifest.updaters[*at];
            let name = paths::updater_name(&updater.platform);
            line(&name, format!("updater {}", updater.version), &updater.sha256, updater.size)
        }));
        let on_the_way = self.contents.iter().filter(|content| content.path.is_empty());
        files.extend(on_the_way.map(|content| line("", "on the way".into(), &content.digest, content.size)));
        files.extend(self.removes.iter().map(|(path, bytes)| SummaryLine {
            path: path.clone(),
            state: "gone".into(),
            way: "remove",
            bytes: *bytes,
            fetch_bytes: 0,
            instead_of_bytes: 0,
        }));
        Summary {
            version: self.release.version.clone(),
            serial: self.release.serial,
            kept: self.inventory.items.len() - self.puts.len(),
            write_bytes: self.puts.iter().map(|put| put.size).sum(),
            fetch_bytes: self.fetch_bytes,
            frames: self.frames.len(),
            files,
        }
    }
}

/// A plan, for people and scripts.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The release's version.
    pub version: String,
    /// Its serial.
    pub serial: u64,
    /// Files that stay as they are.
    pub kept: usize,
    /// Bytes to be written into the managed directory.
    pub write_bytes: u64,
    /// Bytes to be downloaded.
    pub fetch_bytes: u64,
    /// Frames to be downloaded.
    pub frames: usize,
    /// What changes.
    pub files: Vec<SummaryLine>,
}

/// One file of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct SummaryLine {
    /// Its path; empty: a content of a release between, which only a patch needs.
    pub path: String,
    /// How it stands.
    pub state: String,
    /// How it is come by.
    pub way: &'static str,
    /// Its bytes.
    pub bytes: u64,
    /// The bytes to be downloaded for it.
    pub fetch_bytes: u64,
    /// The bytes that it would cost whole, where a patch is cheaper; else the same.
    pub instead_of_bytes: u64,
}
