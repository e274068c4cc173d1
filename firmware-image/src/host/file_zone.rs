//! An image file or a block device as raw storage of a fixed length.
//!
//! Reads and writes are positioned, so that clones of one zone (free, hidden and virtual zone of the same image) never
//! disturb each other. Nothing ever grows: a write past the end is refused.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom as StdSeekFrom};
use std::path::Path;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};

use crate::storage::seek_target;
use crate::{RawZone, ZoneError};

/// Runs of zeros at least this long become holes in a sparse zone.
const MIN_HOLE_BYTES: usize = 32 * 1024;

/// What may be done with a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every write is refused.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
    /// Reads and writes of an image that is still being made: `flush` waits for nothing. Who wants it durable syncs the
    /// file when it is whole.
    Draft,
}

/// A file or block device. See the module.
pub struct FileZone {
    file: File,
    length: u64,
    position: u64,
    access: Access,
    sparse: bool,
}

impl FileZone {
    /// Opens an image file or a block device that exists; its length is taken now.
    ///
    /// # Errors
    /// What the operating system reports; `BadPath` for a directory.
    pub fn open(path: &Path, access: Access) -> Result<Self, ZoneError> {
        let file = OpenOptions::new().read(true).write(access != Access::ReadOnly).open(path)?;
        Self::from_file(file, access)
    }

    /// Makes a new image file of `length` bytes, all of them a hole. Long runs of zeros written to it stay holes where
    /// the file system has them.
    ///
    /// # Errors
    /// What the operating system reports; a file that exists is not touched.
    pub fn create_new(path: &Path, length: u64) -> Result<Self, ZoneError> {
        Self::create(path, length, Access::ReadWrite)
    }

    /// As [`FileZone::create_new`], with [`Access::Draft`].
    ///
    /// # Errors
    /// As there.
    pub fn create_draft(path: &Path, length: u64) -> Result<Self, ZoneError> {
        Self::create(path, length, Access::Draft)
    }

    fn create(path: &Path, length: u64, access: Access) -> Result<Self, ZoneError> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(length)?;
        Ok(Self { sparse: true, ..Self::from_file(file, access)? })
    }

    /// A zone over an open file, which must allow what `access` says.
    ///
    /// # Errors
    /// What the operating system reports; `BadPath` for a directory.
    pub fn from_file(mut file: File, access: Access) -> Result<Self, ZoneError> {
        if file.metadata()?.is_dir() {
            return Err(ZoneError::BadPath);
        }
        // A block device's metadata has length 0; its end tells.
        let length = file.seek(StdSeekFrom::End(0))?;
        Ok(Self { file, length, position: 0, access, sparse: false })
    }

    /// A second, independent view of the same storage.
    ///
    /// # Errors
    /// What the operating system reports.
    pub fn try_clone(&self) -> Result<Self, ZoneError> {
        Ok(Self {
            file: self.file.try_clone()?,
            length: self.length,
            position: 0,
            access: self.access,
            sparse: self.sparse,
        })
    }

    /// Lengthens or cuts an image file. Views cloned before keep their old length.
    ///
    /// # Errors
    /// `ReadOnly`, or what the operating system reports (a block device has its length).
    pub fn set_len(&mut self, length: u64) -> Result<(), ZoneError> {
        self.check_writable()?;
        self.file.set_len(length)?;
        self.length = length;
        Ok(())
    }

    /// The file underneath.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What may be done with the zone.
    pub fn access(&self) -> Access {
        self.access
    }

    fn check_writable(&self) -> Result<(), ZoneError> {
        if self.access == Access::ReadOnly { Err(ZoneError::ReadOnly) } else { Ok(()) }
    }

    fn room(&self, wanted: usize) -> usize {
        let left = self.length.saturating_sub(self.position);
        usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
    }
}

impl ErrorType for FileZone {
    type Error = ZoneError;
}

impl Read for FileZone {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let room = self.room(buf.len());
        if room == 0 {
            return Ok(0);
        }
        let n = positioned::read(&self.file, &mut buf[..room], self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Write for FileZone {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        self.check_writable()?;
        let room = self.room(buf.len());
        if room == 0 {
            return if buf.is_empty() { Ok(0) } else { Err(ZoneError::OutOfBounds) };
        }
        let buf = &buf[..room];
        let hole = self.sparse && room >= MIN_HOLE_BYTES && all_zero(buf);
        let n = if hole && positioned::punch(&self.file, self.position, room as u64) {
            room
        } else {
            positioned::write(&self.file, buf, self.position)?
        };
        self.position += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), ZoneError> {
        match self.access {
            Access::ReadOnly | Access::Draft => Ok(()),
            Access::ReadWrite => Ok(self.file.sync_data()?),
        }
    }
}

impl Seek for FileZone {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.length)?;
        Ok(self.position)
    }
}

impl RawZone for FileZone {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.length)
    }

    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        // What was not flushed can't be dropped; asking would only cost time.
        if self.access != Access::Draft {
            drop_file_caches(&self.file);
        }
        Ok(())
    }
}

/// Asks the operating system to forget what it holds of `file`. A hint: where it is not taken, reads come from memory
/// that was written from the same bytes.
pub(crate) fn drop_file_caches(file: &File) {
    #[cfg(unix)]
    {
        let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
    }
    #[cfg(not(unix))]
    let _ = file;
}

fn all_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

#[cfg(unix)]
mod positioned {
    use std::fs::File;
    use std::io::Result;
    use std::os::unix::fs::FileExt;

    pub fn read(file: &File, buf: &mut [u8], at: u64) -> Result<usize> {
        loop {
            match file.read_at(buf, at) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    pub fn write(file: &File, buf: &[u8], at: u64) -> Result<usize> {
        loop {
            match file.write_at(buf, at) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Makes a hole; `false` where that cannot be done and zeros must be written.
    #[cfg(target_os = "linux")]
    pub fn punch(file: &File, at: u64, length: u64) -> bool {
        use rustix::fs::{FallocateFlags, fallocate};
        fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, length).is_ok()
    }

    /// Makes a hole; `false` where that cannot be done and zeros must be written.
    #[cfg(not(target_os = "linux"))]
    pub fn punch(_file: &File, _at: u64, _length: u64) -> bool {
        false
    }
}

#[cfg(windows)]
mod positioned {
    use std::fs::File;
    use std::io::Result;
    use std::os::windows::fs::FileExt;

    pub fn read(file: &File, buf: &mut [u8], at: u64) -> Result<usize> {
        file.seek_read(buf, at)
    }

    pub fn write(file: &File, buf: &[u8], at: u64) -> Result<usize> {
        file.seek_write(buf, at)
    }

    /// NTFS needs a file marked sparse first; zeros are written instead.
    pub fn punch(_file: &File, _at: u64, _length: u64) -> bool {
        false
    }
}
