//! A device and its zones, wherever they are: a whole image or block device, or zones given one by one, mounted or raw.
//!
//! A zone is opened when it is asked for, and each reports its own fault: a free zone that somebody formatted away says
//! nothing about the hidden one. A device opened for writing is locked, since two writers in one raw FAT destroy it; the
//! operating system's own driver is such a writer.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::any_zone::{AnyFreeZone, AnyVirtualZone};
use super::fat::{self, FormatOptions, RawFat};
use super::gpt::{ALIGN_BYTES, Extent, SECTOR_BYTES, Table, TableError};
use super::iso::{self, IsoZone};
use crate::host::{Access, DirZone, FileZone};
use crate::storage::Window;
use crate::{RawZone as _, ZoneError};

/// Why a device is of no use as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// It cannot be opened.
    #[error("{path} cannot be opened")]
    Open {
        /// What was named.
        path: PathBuf,
        /// Why.
        #[source]
        source: ZoneError,
    },
    /// It is a directory, as which no whole disk is named.
    #[error("{path} is a directory; an image of a disk, or a whole block device, is wanted")]
    Directory {
        /// What was named.
        path: PathBuf,
    },
    /// Somebody else has a block device that was to be written: a file system of it is mounted, or a program keeps it.
    #[error("{path} is mounted, or another program has it for itself")]
    InUse {
        /// What was named.
        path: PathBuf,
    },
    /// Its partition table is missing, damaged, or somebody else's.
    #[error("{path} is not a Holdfast device")]
    Table {
        /// What was named.
        path: PathBuf,
        /// Why.
        #[source]
        source: TableError,
    },
}

/// Where a zone is.
enum Place {
    /// Not part of this device.
    Nowhere,
    /// A stretch of a disk.
    Disk(FileZone, Extent),
    /// A file or block device that is nothing but the zone.
    Whole(FileZone),
    /// A mounted directory.
    Directory(PathBuf),
}

impl Place {
    /// A directory, an image file, or a block device.
    fn given(path: Option<&Path>, access: Access) -> Result<Self, DeviceError> {
        let Some(path) = path else { return Ok(Self::Nowhere) };
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        open(path, access).map(Self::Whole)
    }

    fn raw(&self) -> Result<Window<FileZone>, ZoneError> {
        match self {
            Self::Nowhere => Err(ZoneError::NotFound),
            Self::Directory(_) => Err(ZoneError::BadPath),
            Self::Disk(disk, extent) => Window::new(disk.try_clone()?, extent.start, extent.length),
            Self::Whole(zone) => {
                let mut zone = zone.try_clone()?;
                let length = zone.len()?;
                Window::new(zone, 0, length)
            }
        }
    }
}

/// How long another program may still have a device, and how often it is asked: a child that was just begun has the locks of who
/// began it for a moment.
const PATIENCE: Duration = Duration::from_millis(200);
const ASKED_EVERY: Duration = Duration::from_millis(5);

/// Opens an image or block device, for oneself if it is to be written.
fn open(path: &Path, access: Access) -> Result<FileZone, DeviceError> {
    let failed = |source| DeviceError::Open { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(DeviceError::Directory { path: path.to_owned() });
    }
    if access == Access::ReadOnly {
        return FileZone::open(path, access).map_err(failed);
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    exclusively(&mut options);
    let file = patiently(|| match options.open(path) {
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(None),
        opened => opened.map(Some),
    });
    let file = file.map_err(|error| failed(error.into()))?;
    let file = file.ok_or_else(|| DeviceError::InUse { path: path.to_owned() })?;
    if is_write_protected(&file) {
        return Err(failed(ZoneError::ReadOnly));
    }
    let zone = FileZone::from_file(file, access).map_err(failed)?;
    lock(&zone).map_err(failed)?;
    Ok(zone)
}

/// Whether no write to this block device would succeed: Linux opens it for writing all the same.
fn is_write_protected(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let Ok(found) = file.metadata() else { return false };
        let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
        let says = || std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/ro")).ok();
        found.file_type().is_block_device() && says().is_some_and(|says| says.trim() == "1")
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

/// Lets a block device be opened only where nothing of it is mounted, and nothing be mounted meanwhile (open(2), `O_EXCL`). A file,
/// and other systems' devices, are opened all the same.
pub fn exclusively(options: &mut OpenOptions) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed());
    }
    #[cfg(not(target_os = "linux"))]
    let _ = options;
}

/// Tries something until it can be had, or [`PATIENCE`] is at its end; then `None`.
fn patiently<T, E>(mut attempt: impl FnMut() -> Result<Option<T>, E>) -> Result<Option<T>, E> {
    let mut waited = Duration::ZERO;
    loop {
        match attempt()? {
            None if waited < PATIENCE => {
                std::thread::sleep(ASKED_EVERY);
                waited += ASKED_EVERY;
            }
            done => return Ok(done),
        }
    }
}

/// Takes an image or block device for oneself, until the last view of it is closed: two writers in one raw FAT destroy it.
///
/// # Errors
/// `Busy` where another program keeps it, else what the operating system reports.
pub fn lock(zone: &FileZone) -> Result<(), ZoneError> {
    let locked = patiently(|| match zone.file().try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        // Where the file system has no locks, there is nobody to take turns with.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(Some(())),
        Err(TryLockError::Error(error)) => Err(ZoneError::from(error)),
    });
    locked?.ok_or(ZoneError::Busy)
}

/// A device. See the module.
pub struct Device {
    table: Option<Table>,
    virtual_zone: Place,
    free: Place,
    hidden: Place,
    access: Access,
}

impl Device {
    /// Opens a whole disk: an image file or a block device. `virtual_zone` names the CD of a *dual* device, as an ISO image,
    /// a block device, or the directory where it is mounted; it goes before a partition of the disk.
    ///
    /// # Errors
    /// `Open` (`Busy`: another program writes to it), `Directory`, `InUse`, `Table` with `Foreign` for a disk without Holdfast's partitions.
    pub fn open(disk: &Path, virtual_zone: Option<&Path>, access: Access) -> Result<Self, DeviceError> {
        let zone = open(disk, access)?;
        let failed = |source| DeviceError::Open { path: disk.to_owned(), source };
        let no_table = |source| DeviceError::Table { path: disk.to_owned(), source };
        let table = Table::read(zone.try_clone().map_err(failed)?).map_err(no_table)?;
        if !table.is_holdfast() {
            return Err(no_table(TableError::Foreign));
        }
        let place = |extent: Option<Extent>| -> Result<Place, ZoneError> {
            Ok(match extent {
                Some(extent) => Place::Disk(zone.try_clone()?, extent),
                None => Place::Nowhere,
            })
        };
        let given = Place::given(virtual_zone, Access::ReadOnly)?;
        Ok(Self {
            virtual_zone: match given {
                Place::Nowhere => place(table.virtual_zone()).map_err(failed)?,
                given => given,
            },
            free: place(table.free()).map_err(failed)?,
            hidden: place(table.hidden()).map_err(failed)?,
            table: Some(table),
            access,
        })
    }

    /// Takes zones that are given one by one: directories, image files, block devices.
    ///
    /// # Errors
    /// `Open` or `InUse` for one that is given and cannot be opened.
    pub fn from_parts(
        virtual_zone: Option<&Path>,
        free: Option<&Path>,
        hidden: Option<&Path>,
        access: Access,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            table: None,
            virtual_zone: Place::given(virtual_zone, Access::ReadOnly)?,
            free: Place::given(free, access)?,
            hidden: Place::given(hidden, access)?,
            access,
        })
    }

    /// The partition table, where the device is a disk.
    pub fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// The virtual zone's files.
    ///
    /// # Errors
    /// `NotFound` where the device has none, `Corrupt` where it is no ISO 9660 file system, or what the storage reports.
    pub fn virtual_zone(&self) -> Result<AnyVirtualZone, ZoneError> {
        match &self.virtual_zone {
            Place::Directory(path) => DirZone::open(path).map(AnyVirtualZone::Directory),
            raw => IsoZone::open(raw.raw()?).map(AnyVirtualZone::Iso),
        }
    }

    /// The virtual zone as raw storage.
    ///
    /// # Errors
    /// `NotFound` where the device has none, `BadPath` for a mounted one, or what the storage reports.
    pub fn virtual_raw(&self) -> Result<Window<FileZone>, ZoneError> {
        self.virtual_zone.raw()
    }

    /// The free zone's files.
    ///
    /// # Errors
    /// `NotFound` where the device has none, `Corrupt` where it holds no FAT32 volume, or what the storage reports.
    pub fn free_zone(&self) -> Result<AnyFreeZone, ZoneError> {
        match &self.free {
            Place::Directory(path) => DirZone::open(path).map(AnyFreeZone::Directory),
            raw => {
                RawFat::open(raw.raw()?, self.access == Access::ReadOnly).map(|zone| AnyFreeZone::Fat(Box::new(zone)))
            }
        }
    }

    /// The free zone as raw storage.
    ///
    /// # Errors
    /// `NotFound` where the device has none, `BadPath` for a mounted one, or what the storage reports.
    pub fn free_raw(&self) -> Result<Window<FileZone>, ZoneError> {
        self.free.raw()
    }

    /// The hidden zone.
    ///
    /// # Errors
    /// `NotFound` where the device has none, `BadPath` for a directory, or what the storage reports.
    pub fn hidden_zone(&self) -> Result<Window<FileZone>, ZoneError> {
        self.hidden.raw()
    }

    /// The storage behind the file system of a CD, where the virtual zone is one and has something there.
    ///
    /// # Errors
    /// As [`iso::file_system_bytes`].
    pub fn cd_tail(&self) -> Result<Option<Window<FileZone>>, ZoneError> {
        let Place::Whole(cd) = &self.virtual_zone else { return Ok(None) };
        let mut cd = cd.try_clone()?;
        let start = iso::file_system_bytes(&mut cd)?.next_multiple_of(ALIGN_BYTES);
        match cd.len()?.checked_sub(start) {
            None | Some(0) => Ok(None),
            Some(length) => Window::new(cd, start, length).map(Some),
        }
    }

    /// Makes the free zone's file system anew, as the factory made it. Everything in it is lost.
    ///
    /// # Errors
    /// As [`Device::free_raw`] and [`fat::format`]; `ReadOnly`.
    pub fn format_free(&self, label: [u8; 11], volume_id: u32) -> Result<(), ZoneError> {
        let hidden_sectors = match &self.free {
            Place::Disk(_, extent) => u32::try_from(extent.start / SECTOR_BYTES).unwrap_or(0),
            _ => 0,
        };
        fat::format(&mut self.free.raw()?, &FormatOptions { label, volume_id, hidden_sectors })
    }
}
