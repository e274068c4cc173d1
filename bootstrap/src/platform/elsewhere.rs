//! Systems whose launcher is not written yet: the program builds, says so, and ends. The library needs none of this.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::prelude::v1::*;
use std::time::Instant;

use super::{End, MountFault, Start, StartError, Wakeup, ZoneMounts};
use crate::device::Stored;
use crate::launcher::find::{self, FindError, Found};
use crate::verified::{LoadError, RunPlace, SealedBytes};
use firmware_image::ZoneError;

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this launcher does not know how to start programs on this system")
}

/// Cannot be had here.
pub enum RunImage {}

impl SealedBytes for RunImage {
    fn bytes(&self) -> &[u8] {
        match *self {}
    }
}

/// Refuses.
#[derive(Default)]
pub struct SealedMemory;

impl SealedMemory {
    /// See Linux.
    pub fn forbid(&mut self) -> bool {
        false
    }
}

/// Refuses.
pub struct PrivateDirectory;

impl RunPlace for SealedMemory {
    type Image = RunImage;
    fn load(&mut self, _source: &mut dyn Stored, _length: u64) -> Result<RunImage, LoadError> {
        Err(LoadError::Place(ZoneError::Denied))
    }
}

impl RunPlace for PrivateDirectory {
    type Image = RunImage;
    fn load(&mut self, _source: &mut dyn Stored, _length: u64) -> Result<RunImage, LoadError> {
        Err(LoadError::Place(ZoneError::Denied))
    }
}

/// Cannot be had here.
pub enum Events {}

impl Events {
    /// Always fails, and with that the launcher.
    ///
    /// # Errors
    /// `Unsupported`.
    pub fn new() -> io::Result<Self> {
        Err(unsupported())
    }

    /// See Linux.
    ///
    /// # Errors
    /// Never called.
    pub fn wait(&self, _talker: Option<&Child>, _deadline: Option<Instant>) -> io::Result<Wakeup> {
        match *self {}
    }
}

/// Cannot be had here.
pub enum Child {}

impl Child {
    /// Always fails.
    ///
    /// # Errors
    /// `System`.
    pub fn start(_start: &Start<'_>) -> Result<Self, StartError> {
        Err(StartError::System(unsupported()))
    }

    /// Always fails.
    ///
    /// # Errors
    /// `System`.
    pub fn start_file(_start: Start<'_>) -> Result<Self, StartError> {
        Err(StartError::System(unsupported()))
    }

    /// See Linux.
    pub fn hear(&mut self) -> Vec<u8> {
        match *self {}
    }

    /// See Linux.
    pub fn tell_client_ended(&mut self) {
        match *self {}
    }

    /// See Linux.
    pub fn end(&mut self) -> Option<End> {
        match *self {}
    }

    /// See Linux.
    pub fn signal(&mut self, _signal: i32) {
        match *self {}
    }

    /// See Linux.
    pub fn kill(&mut self) {
        match *self {}
    }
}

/// Cannot be had here.
pub enum Lock {}

/// No locks.
pub fn try_lock_shared(_directory: &Path) -> super::SharedLock {
    super::SharedLock::None
}

/// Every file may be run that may be read.
///
/// # Errors
/// None.
pub fn make_executable(_file: &std::fs::File) -> io::Result<()> {
    Ok(())
}

/// Cannot be had here.
pub enum PrivateMount {}

impl PrivateMount {
    /// See Linux.
    pub fn path(&self) -> &Path {
        match *self {}
    }

    /// See Linux.
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

/// Refuses.
///
/// # Errors
/// `Unsupported`.
pub fn private_directory() -> io::Result<PathBuf> {
    Err(unsupported())
}

/// Knows of no device.
#[derive(Debug, Default)]
pub struct Presence;

impl Presence {
    /// See Linux.
    pub fn of<'p>(_paths: impl IntoIterator<Item = &'p Path>) -> Self {
        Self
    }

    /// See Linux.
    pub fn is_gone(&self) -> bool {
        false
    }

    /// See Linux.
    pub fn explains_failure(&self) -> bool {
        false
    }
}

/// Whether a launcher may have to mount zones by itself.
pub const MOUNTS: bool = false;
/// What to do about a zone that is out of this user's reach.
pub const REACH_HINT: &str = "Whoever looks after this computer can change that.";

/// Nothing but this file's own directory is known here.
///
/// # Errors
/// See [`FindError`].
pub fn own_device() -> Result<Found, FindError> {
    find::own_device(&find::System::default(), find::PATIENCE)
}

/// Standard error is there from the start.
pub fn prepare() {}

/// Nobody reads windows here.
pub fn show(_title: &str, _text: &str) {}
