//! The free zone as the launcher and the updater see it: named files, with `flush` that is durable.
//!
//! One trait, two bodies: a mounted directory (`std`), and raw FAT inside an image or device (`image`). FAT promises
//! little, so the contract is small: nothing but [`FreeZone::rename`], [`FreeZone::remove`] and [`FreeZone::create`] changes a
//! name, and none is atomic. What must survive a cut is written under a new name, flushed together with its directory
//! ([`FreeZone::sync_dir`]), and only then relied on.
//!
//! Paths are relative to the zone's root, separated by `/`, without empty, `.` or `..` components.

use core::ops::ControlFlow;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};

use crate::ZoneError;

/// An open file of a zone. `flush` makes data and length durable.
pub trait ZoneFile: Read + Write + Seek + ErrorType<Error = ZoneError> {
    /// The length in bytes.
    fn len(&mut self) -> Result<u64, ZoneError>;

    /// Whether the file has no bytes.
    fn is_empty(&mut self) -> Result<bool, ZoneError> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file off at `length`, or lengthens it with zeros.
    fn set_len(&mut self, length: u64) -> Result<(), ZoneError>;

    /// Takes the room for a file of `length` bytes beforehand, where a driver would else lead an entry to clusters before it
    /// has them. Its length stays what it is; `set_len` to that length gives back what was not used.
    ///
    /// # Errors
    /// `Full` where there is no such room.
    fn reserve(&mut self, length: u64) -> Result<(), ZoneError> {
        let _ = length;
        Ok(())
    }

    /// Makes later reads come from the medium and not from a cache, where the platform can. Call it after `flush`.
    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        Ok(())
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Bytes of a file; 0 for a directory.
    pub length: u64,
    /// A file, a directory, or neither.
    pub kind: Kind,
}

/// The kind of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link, device or anything else: never followed, never opened.
    Other,
}

/// The files of a free zone. See the module for the contract.
pub trait FreeZone {
    /// An open file.
    type File<'a>: ZoneFile
    where
        Self: 'a;

    /// Opens a file for reading. `None`: there is no regular file of that name.
    fn open(&self, path: &str) -> Result<Option<Self::File<'_>>, ZoneError>;

    /// Opens a file for reading and writing as it is, made empty where it is missing; missing parents are made.
    fn open_rw(&self, path: &str) -> Result<Self::File<'_>, ZoneError>;

    /// Makes an empty file, in place of one that was there, which is gone whatever follows; missing parents are made.
    fn create(&self, path: &str) -> Result<Self::File<'_>, ZoneError>;

    /// As [`ZoneFile::reserve`] for several files that were just made, which may cost less than one by one.
    ///
    /// # Errors
    /// `Full` where there is no such room.
    fn reserve_all<'z: 'f, 'f>(
        &'z self,
        files: &mut dyn Iterator<Item = (&'f mut Self::File<'z>, u64)>,
    ) -> Result<(), ZoneError>
    where
        Self::File<'z>: 'f,
    {
        for (file, length) in files {
            file.reserve(length)?;
        }
        Ok(())
    }

    /// What stands at `path`; `None`: nothing.
    fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError>;

    /// Calls `visit` with each entry's name and metadata, in no order, until it breaks. A missing directory is empty.
    fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError>;

    /// Whether `list` gives each name just as it was given. Drivers of an operating system may spell short ones as they like.
    fn spells_exactly(&self) -> bool {
        false
    }

    /// Removes a file or an empty directory; `false` where there was none.
    fn remove(&self, path: &str) -> Result<bool, ZoneError>;

    /// Renames a file over what may stand at `to`. Not atomic on FAT.
    fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError>;

    /// Makes a directory and its parents.
    fn create_dir_all(&self, path: &str) -> Result<(), ZoneError>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &str) -> Result<(), ZoneError>;

    /// Marks a file executable or not, where the zone can hold such a mark.
    fn set_executable(&self, path: &str, executable: bool) -> Result<(), ZoneError>;

    /// Bytes that can still be written.
    fn free_bytes(&self) -> Result<u64, ZoneError>;
}

/// Checks that `path` is one this trait allows.
///
/// # Errors
/// `BadPath` for an absolute path, empty, `.` or `..` components, a backslash, a colon or a control character.
pub fn check_path(path: &str) -> Result<(), ZoneError> {
    let bad = |c: char| c == '\\' || c == ':' || c.is_control();
    let sound = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..") && !path.contains(bad);
    if sound { Ok(()) } else { Err(ZoneError::BadPath) }
}

/// The free zone of a device that has none, and a file in it: there is no value of this type.
#[derive(Debug, Clone, Copy)]
pub enum NoFreeZone {}

impl ErrorType for NoFreeZone {
    type Error = ZoneError;
}

impl Read for NoFreeZone {
    fn read(&mut self, _: &mut [u8]) -> Result<usize, ZoneError> {
        match *self {}
    }
}

impl Write for NoFreeZone {
    fn write(&mut self, _: &[u8]) -> Result<usize, ZoneError> {
        match *self {}
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        match *self {}
    }
}

impl Seek for NoFreeZone {
    fn seek(&mut self, _: SeekFrom) -> Result<u64, ZoneError> {
        match *self {}
    }
}

impl ZoneFile for NoFreeZone {
    fn len(&mut self) -> Result<u64, ZoneError> {
        match *self {}
    }
    fn set_len(&mut self, _: u64) -> Result<(), ZoneError> {
        match *self {}
    }
}

impl FreeZone for NoFreeZone {
    type File<'a> = Self;

    fn open(&self, _: &str) -> Result<Option<Self>, ZoneError> {
        match *self {}
    }
    fn open_rw(&self, _: &str) -> Result<Self, ZoneError> {
        match *self {}
    }
    fn create(&self, _: &str) -> Result<Self, ZoneError> {
        match *self {}
    }
    fn metadata(&self, _: &str) -> Result<Option<Metadata>, ZoneError> {
        match *self {}
    }
    fn list(&self, _: &str, _: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        match *self {}
    }
    fn remove(&self, _: &str) -> Result<bool, ZoneError> {
        match *self {}
    }
    fn rename(&self, _: &str, _: &str) -> Result<(), ZoneError> {
        match *self {}
    }
    fn create_dir_all(&self, _: &str) -> Result<(), ZoneError> {
        match *self {}
    }
    fn sync_dir(&self, _: &str) -> Result<(), ZoneError> {
        match *self {}
    }
    fn set_executable(&self, _: &str, _: bool) -> Result<(), ZoneError> {
        match *self {}
    }
    fn free_bytes(&self) -> Result<u64, ZoneError> {
        match *self {}
    }
}

/// Whether Windows takes a name for one of the devices of DOS, which it finds in every directory and with every extension.
pub fn is_device_name(name: &str) -> bool {
    const DEVICES: [&str; 7] = ["CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"];
    let stem = name.split('.').next().unwrap_or(name).trim_end_matches(' ');
    if DEVICES.iter().any(|device| stem.eq_ignore_ascii_case(device)) {
        return true;
    }
    let Some((port, number)) = stem.split_at_checked(3) else { return false };
    let mut number = number.chars();
    (port.eq_ignore_ascii_case("COM") || port.eq_ignore_ascii_case("LPT"))
        && matches!((number.next(), number.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
}
