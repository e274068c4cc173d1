//! Whether a device is still plugged in.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::prelude::v1::*;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{major, minor};

/// Where the kernel lists its block devices by number.
const BLOCK_DEVICES: &str = "/sys/dev/block";
/// How long the kernel may take to forget a device whose reads and writes fail already because it was pulled.
const PULL: Duration = Duration::from_millis(500);
/// How often is looked meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// The block devices under some files, to tell whether they were pulled.
#[derive(Debug, Default)]
pub struct Presence {
    entries: Vec<PathBuf>,
}

impl Presence {
    /// The devices that hold `paths`, or that are them. One that is still mounted and was pulled already counts as gone.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let entry = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            let is_node = found.mode() & libc::S_IFMT == libc::S_IFBLK;
            let device = if is_node { found.rdev() } else { found.dev() };
            // File systems without a block device have major number 0 (Documentation/admin-guide/devices.txt).
            (major(device) != 0).then(|| Path::new(BLOCK_DEVICES).join(format!("{}:{}", major(device), minor(device))))
        };
        let known = Path::new(BLOCK_DEVICES).is_dir();
        Self { entries: paths.into_iter().filter(|_| known).filter_map(entry).collect() }
    }

    /// Whether one of them is gone.
    pub fn is_gone(&self) -> bool {
        self.entries.iter().any(|entry| !entry.exists())
    }

    /// Whether one of them is gone, asked after something failed: errors come a moment before the device goes.
    pub fn explains_failure(&self) -> bool {
        let deadline = Instant::now() + PULL;
        while !self.is_gone() {
            if self.entries.is_empty() || Instant::now() > deadline {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_went_before_or_after_a_failure_explains_it_and_one_that_stays_does_not() {
        let directory = std::env::temp_dir().join(format!("holdfast-presence-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let stays = Presence { entries: vec![directory.clone()] };
        assert!(!stays.explains_failure());
        let goes = Presence { entries: vec![directory.clone()] };
        let pull = thread::spawn(move || {
            thread::sleep(PULL / 5);
            std::fs::remove_dir(&directory).unwrap();
        });
        assert!(!goes.is_gone());
        assert!(goes.explains_failure());
        pull.join().unwrap();
        assert!(goes.is_gone());
        assert!(!Presence::default().explains_failure());
    }

    #[test]
    fn files_without_a_block_device_never_go() {
        assert!(Presence::of([Path::new("/proc/self/status")]).entries.is_empty());
    }
}
