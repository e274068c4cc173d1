//! Where verified bytes run: a sealed memory file, or, where that is forbidden, a file in a directory of mode 0700 that
//! has no name any more when it is verified.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::prelude::v1::*;

use firmware_image::ZoneError;
use firmware_image::host::program_memory;
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};

use super::places::private_directory;
use crate::device::Stored;
use crate::verified::{LoadError, RunPlace, SealedBytes};

/// Bytes copied at a time: fits a core's own cache.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes that nobody can change, mapped for reading.
pub struct RunImage {
    fd: OwnedFd,
    map: Map,
    in_memory: bool,
}

impl RunImage {
    /// Whether it stands in sealed memory, and not in a private directory.
    pub fn is_in_memory(&self) -> bool {
        self.in_memory
    }

    /// What a child executes.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn new(fd: OwnedFd, length: u64, in_memory: bool) -> io::Result<Self> {
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let map = Map::new(fd.as_fd(), length)?;
        Ok(Self { fd, map, in_memory })
    }
}

impl SealedBytes for RunImage {
    fn bytes(&self) -> &[u8] {
        self.map.bytes()
    }
}

/// A read-only mapping of a whole file whose bytes and length do not change.
struct Map {
    start: *mut core::ffi::c_void,
    length: usize,
}

impl Map {
    fn new(fd: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self { start: core::ptr::null_mut(), length });
        }
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours. PRIVATE, because kernels
        // before 6.7 refuse a shared mapping of a file sealed against writing.
        let start = unsafe {
            rustix::mm::mmap(
                core::ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::PRIVATE | MapFlags::POPULATE,
                fd,
                0,
            )
        }?;
        Ok(Self { start, length })
    }

    fn bytes(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: `start` maps `length` bytes readable until `self` is dropped. Nobody changes or cuts them: the file is
        // sealed (memory), or unlinked, without write permission and without a writer (private directory).
        unsafe { core::slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: the mapping was made by `new` with this length, and no slice of it outlives `self`. A failure leaves
            // it in place, which harms nobody.
            let _ = unsafe { rustix::mm::munmap(self.start, self.length) };
        }
    }
}

fn copy(source: &mut dyn Stored, length: u64, buffer: &mut [u8], to: &mut File) -> Result<(), LoadError> {
    let mut left = length;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match source.read(&mut buffer[..take]) {
            Ok(0) => return Err(LoadError::Read(ZoneError::OutOfBounds)),
            Ok(n) => {
                to.write_all(&buffer[..n]).map_err(place)?;
                left -= n as u64;
            }
            Err(error) => return Err(LoadError::Read(error)),
        }
    }
    Ok(())
}

fn place(error: impl Into<io::Error>) -> LoadError {
    LoadError::Place(error.into().into())
}

fn rewind(source: &mut dyn Stored) -> Result<(), LoadError> {
    source.seek(embedded_io::SeekFrom::Start(0)).map(drop).map_err(LoadError::Read)
}

/// Sealed memory files; private directories where the system forbids those.
pub struct SealedMemory {
    buffer: Box<[u8]>,
    forbidden: bool,
}

impl Default for SealedMemory {
    fn default() -> Self {
        Self { buffer: vec![0; PIECE_BYTES].into_boxed_slice(), forbidden: false }
    }
}

impl SealedMemory {
    /// Use private directories from now on: the system makes memory files, but does not run them. `false`: that is known, and
    /// there is nothing else to use.
    pub fn forbid(&mut self) -> bool {
        !std::mem::replace(&mut self.forbidden, true)
    }
}

impl RunPlace for SealedMemory {
    type Image = RunImage;

    fn load(&mut self, source: &mut dyn Stored, length: u64) -> Result<RunImage, LoadError> {
        let memory = if self.forbidden { None } else { program_memory().ok() };
        let Some(memory) = memory else { return PrivateDirectory.load(source, length) };
        rewind(source)?;
        let mut file = File::from(memory);
        copy(source, length, &mut self.buffer, &mut file)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(place)?;
        RunImage::new(file.into(), length, true).map_err(place)
    }
}

/// A file in a fresh directory that only this user may enter.
pub struct PrivateDirectory;

impl RunPlace for PrivateDirectory {
    type Image = RunImage;

    fn load(&mut self, source: &mut dyn Stored, length: u64) -> Result<RunImage, LoadError> {
        let directory = private_directory().map_err(place)?;
        let path = directory.join("updater");
        let loaded = load_into(&path, source, length);
        // The open file needs no name. What cannot be removed is an empty directory in a temporary place.
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_dir(&directory);
        loaded
    }
}

fn load_into(path: &Path, source: &mut dyn Stored, length: u64) -> Result<RunImage, LoadError> {
    rewind(source)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(place)?;
    copy(source, length, &mut vec![0; PIECE_BYTES], &mut file)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o500)).map_err(place)?;
    // A file that is open for writing does not run.
    drop(file);
    let file = OpenOptions::new().read(true).open(path).map_err(place)?;
    RunImage::new(file.into(), length, false).map_err(place)
}

/// Lets this user, and nobody else, run a file.
///
/// # Errors
/// What the system reports.
pub fn make_executable(file: &File) -> io::Result<()> {
    file.set_permissions(std::fs::Permissions::from_mode(0o700))
}
