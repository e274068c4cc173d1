//! Whether a device is still plugged in.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// The block devices under some files, to tell whether they were pulled.
#[derive(Debug, Default)]
pub struct Presence {
    entries: Vec<PathBuf>,
}

impl Presence {
    /// The devices that hold `paths`, or that are them.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let entry = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            let is_node = found.mode() & libc::S_IFMT == libc::S_IFBLK;
            let device = if is_node { found.rdev() } else { found.dev() };
            let entry = PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device)));
            entry.exists().then_some(entry)
        };
        Self { entries: paths.into_iter().filter_map(entry).collect() }
    }

    /// Whether one of them is gone.
    pub fn is_gone(&self) -> bool {
        self.entries.iter().any(|entry| !entry.exists())
    }
}
