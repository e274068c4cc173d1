//! What nobody asks of a launcher on Windows, which mounts every volume by itself and starts no service of ours.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::super::{MountFault, ZoneMounts};

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "Windows mounts volumes by itself")
}

/// Cannot be had here.
pub enum PrivateMount {}

impl PrivateMount {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match *self {}
    }

    /// Whether it could only be mounted for reading.
    pub fn is_read_only(&self) -> bool {
        match *self {}
    }
}

/// Refuses.
///
/// # Errors
/// `Unsupported`.
pub fn mount_privately(_node: &Path) -> Result<PrivateMount, MountFault> {
    Err(MountFault::System(unsupported()))
}

/// Refuses.
///
/// # Errors
/// `Unsupported`.
pub fn mount_zones(_name: &OsStr, _virtual_node: &Path, _free_node: Option<&Path>) -> Result<ZoneMounts, MountFault> {
    Err(MountFault::System(unsupported()))
}

/// Nothing here is started by a system's service.
pub fn is_root() -> bool {
    false
}

/// Refuses.
///
/// # Errors
/// `Unsupported`.
pub fn give_up_privileges() -> io::Result<()> {
    Err(unsupported())
}
