//! Mounts of the launcher's own, which only it and its children see.
//!
//! The mount namespace is left as a *slave* of the one that it was copied from: what is unmounted there is unmounted here
//! too, so that no other stick stays busy because of us; and nothing that is mounted here shows anywhere else. It ends with
//! the last process in it, and the mounts with it, also when the device was pulled.

use std::ffi::{CStr, OsStr};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::super::{MountFault, ZoneMount, ZoneMounts};
use super::places::{mounting_place, private_directory};

/// File systems of a free zone, and how each is mounted: as the user who started the launcher would, since files on FAT
/// belong to whoever mounts it. Without `flush`: it waits a tenth of a second at each close of a written file, and what must
/// be durable is flushed by whoever writes it. With `errors=continue`: a pull between a directory's sector and the table's
/// leaves a file without its clusters; the driver meets it, and would else mount the zone read-only, so that nothing could
/// be healed any more, at no plug-in. On ext4 `errors=` goes before what the file system itself says, which may be to stop
/// the computer.
const FREE_FILE_SYSTEMS: [(&str, &CStr); 4] = [
    ("vfat", c"utf8=1,shortname=mixed,errors=continue"),
    ("exfat", c"errors=continue"),
    ("ntfs3", c""),
    ("ext4", c"errors=remount-ro"),
];
/// File systems of a virtual zone.
const VIRTUAL_FILE_SYSTEMS: [(&str, &CStr); 1] = [("iso9660", c"")];
/// Without access times: reading must write nothing.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOATIME);
/// A drive that was just plugged in may be busy or without its medium for a moment.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

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

/// Mounts the free zone on `node` where only this process and its children see it, and nothing stays behind when they have
/// ended.
///
/// # Errors
/// See [`MountFault`].
pub fn mount_privately(node: &Path) -> Result<PrivateMount, MountFault> {
    enter_namespace()?;
    let directory = private_directory().map_err(MountFault::System)?;
    match mount(node, &directory, &FREE_FILE_SYSTEMS, MountFlags::empty()) {
        Ok(read_only) => Ok(PrivateMount { directory, read_only }),
        Err(fault) => {
            // Empty, and in a temporary place.
            let _ = std::fs::remove_dir(&directory);
            Err(fault)
        }
    }
}

/// Mounts the zones of a device that was plugged in, at `virtual` and `free` in one private place that is called after
/// `name`. The mounts stay as long as this process or a child of it lives.
///
/// # Errors
/// The namespace or the private place cannot be had; a zone that cannot be mounted is told in its own place.
pub fn mount_zones(name: &OsStr, virtual_node: &Path, free_node: Option<&Path>) -> Result<ZoneMounts, MountFault> {
    enter_namespace()?;
    let place = mounting_place(name).map_err(MountFault::System)?;
    let at = |zone: &str| -> Result<PathBuf, MountFault> {
        let directory = place.join(zone);
        match std::fs::create_dir(&directory) {
            // Left over from the last time, outside a systemd unit.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(MountFault::System)?,
        }
        Ok(directory)
    };
    let zone = |directory: PathBuf, node: &Path, systems: &[(&str, &CStr)], more: MountFlags| {
        let read_only = mount(node, &directory, systems, more)?;
        Ok(ZoneMount { directory, read_only })
    };
    // Nothing runs from the virtual zone: verified copies do.
    let reading = MountFlags::RDONLY.union(MountFlags::NOEXEC);
    Ok(ZoneMounts {
        virtual_zone: at("virtual").and_then(|at| zone(at, virtual_node, &VIRTUAL_FILE_SYSTEMS, reading)),
        free: free_node.map(|node| at("free").and_then(|at| zone(at, node, &FREE_FILE_SYSTEMS, MountFlags::empty()))),
    })
}

#[allow(deprecated, reason = "safe: no thread of this process shares what is unshared")]
fn enter_namespace() -> Result<(), MountFault> {
    rustix::thread::unshare(UnshareFlags::NEWNS).map_err(fault)?;
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC).map_err(fault)
}

/// Mounts `node` with the first of these file systems that it has. `true`: for reading only, although more was wanted.
fn mount(node: &Path, at: &Path, systems: &[(&str, &CStr)], more: MountFlags) -> Result<bool, MountFault> {
    let mut tries = TRIES;
    loop {
        match mount_once(node, at, systems, FLAGS | more) {
            Err(Errno::BUSY | Errno::NOMEDIUM) if tries > 1 => {
                tries -= 1;
                std::thread::sleep(BETWEEN_TRIES);
            }
            done => return done.map_err(fault),
        }
    }
}

fn mount_once(node: &Path, at: &Path, systems: &[(&str, &CStr)], flags: MountFlags) -> Result<bool, Errno> {
    let mut last = Errno::INVAL;
    for (system, data) in systems {
        match rustix::mount::mount(node, at, *system, flags, *data) {
            Ok(()) => return Ok(false),
            Err(Errno::ROFS | Errno::ACCESS) if !flags.contains(MountFlags::RDONLY) => {
                match rustix::mount::mount(node, at, *system, flags | MountFlags::RDONLY, *data) {
                    Ok(()) => return Ok(true),
                    Err(error) => last = worse(last, error),
                }
            }
            Err(error) => last = worse(last, error),
        }
    }
    Err(last)
}

/// What tells more: that it is not this file system (EINVAL), or that this kernel does not know it (ENODEV), says little.
fn worse(last: Errno, error: Errno) -> Errno {
    if matches!(error, Errno::INVAL | Errno::NODEV) { last } else { error }
}

fn fault(error: Errno) -> MountFault {
    match error {
        Errno::PERM => MountFault::NotAllowed,
        Errno::INVAL => MountFault::NoFileSystem,
        other => MountFault::System(other.into()),
    }
}
