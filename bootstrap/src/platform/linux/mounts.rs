//! Mounts of the launcher's own, and whether a device is still plugged in.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::image::private_directory;

/// File systems of a free zone, and how each is mounted: as the user who started the launcher would.
const FILE_SYSTEMS: [(&str, &std::ffi::CStr); 4] =
    [("vfat", c"utf8=1,shortname=mixed"), ("exfat", c""), ("ntfs3", c""), ("ext4", c"")];

/// A mount that nobody else sees. Dropping it takes it away.
pub struct PrivateMount {
    directory: PathBuf,
    read_only: bool,
}

impl PrivateMount {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Whether it could only be mounted for reading.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }
}

impl Drop for PrivateMount {
    fn drop(&mut self) {
        // What cannot be unmounted now is when the last process that uses it ends; an empty directory may stay behind.
        let _ = rustix::mount::unmount(&self.directory, UnmountFlags::empty());
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// Mounts the block device `node` where only this process and its children see it, and nothing stays behind when they
/// have ended.
///
/// # Errors
/// `PermissionDenied` without the right to mount; what the last file system tried reports.
#[allow(deprecated, reason = "safe: no thread of this process shares what is unshared")]
pub fn mount_privately(node: &Path) -> io::Result<PrivateMount> {
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let directory = private_directory()?;
    let mut last = Errno::NODEV;
    for (file_system, data) in FILE_SYSTEMS {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        for (flags, read_only) in [(flags, false), (flags | MountFlags::RDONLY, true)] {
            match rustix::mount::mount(node, &directory, file_system, flags, data) {
                Ok(()) => return Ok(PrivateMount { directory, read_only }),
                Err(error @ (Errno::ROFS | Errno::ACCESS)) => last = error,
                Err(error) => {
                    last = error;
                    break;
                }
            }
        }
    }
    let _ = std::fs::remove_dir(&directory);
    Err(last.into())
}

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
