//! Zones that lose power at the n-th change: that one is torn, and nothing works afterwards.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};
use firmware_image::free_zone::{FreeZone, Metadata, ZoneFile};
use firmware_image::host::{DirFile, DirZone, FileZone};
use firmware_image::{RawZone, ZoneError};

/// What power is left.
#[derive(Clone)]
pub struct Power(Rc<Cell<u64>>);

const DEAD: ZoneError = ZoneError::Io(5);

impl Power {
    /// Power for `changes` changes.
    pub fn for_changes(changes: u64) -> Self {
        Self(Rc::new(Cell::new(changes)))
    }
    /// Power that does not end, and what was used of it.
    pub fn endless() -> Self {
        Self::for_changes(u64::MAX)
    }
    pub fn used(&self) -> u64 {
        u64::MAX - self.0.get()
    }
    pub fn is_out(&self) -> bool {
        self.0.get() == 0
    }
    fn alive(&self) -> Result<(), ZoneError> {
        if self.is_out() { Err(DEAD) } else { Ok(()) }
    }
    /// Takes power for a change; `false`: it ends in the middle of this one.
    fn change(&self) -> Result<bool, ZoneError> {
        self.alive()?;
        self.0.set(self.0.get() - 1);
        Ok(!self.is_out())
    }
    /// Runs a change that is done whole or not at all.
    fn whole<R>(&self, f: impl FnOnce() -> Result<R, ZoneError>) -> Result<R, ZoneError> {
        if self.change()? { f() } else { Err(DEAD) }
    }
}

/// A free zone that loses power.
pub struct CutZone<'z>(pub &'z DirZone, pub Power);

/// A file of it.
pub struct CutFile<T>(pub T, pub Power);

impl<'z> FreeZone for CutZone<'z> {
    type File<'a>
        = CutFile<DirFile>
    where
        Self: 'a;

    fn open(&self, path: &str) -> Result<Option<CutFile<DirFile>>, ZoneError> {
        self.1.alive()?;
        Ok(self.0.open(path)?.map(|file| CutFile(file, self.1.clone())))
    }
    fn open_rw(&self, path: &str) -> Result<CutFile<DirFile>, ZoneError> {
        self.1.whole(|| self.0.open_rw(path)).map(|file| CutFile(file, self.1.clone()))
    }
    fn create(&self, path: &str) -> Result<CutFile<DirFile>, ZoneError> {
        // The old content is gone before the power is.
        if !self.1.change()? {
            self.0.create(path)?;
            return Err(DEAD);
        }
        Ok(CutFile(self.0.create(path)?, self.1.clone()))
    }
    fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        self.1.alive()?;
        self.0.metadata(path)
    }
    fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        self.1.alive()?;
        self.0.list(path, visit)
    }
    fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        self.1.whole(|| self.0.remove(path))
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        // As on FAT: the old target goes first.
        if !self.1.change()? {
            self.0.remove(to)?;
            return Err(DEAD);
        }
        self.0.rename(from, to)
    }
    fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.create_dir_all(path))
    }
    fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        self.1.alive()?;
        self.0.sync_dir(path)
    }
    fn set_executable(&self, path: &str, executable: bool) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.set_executable(path, executable))
    }
    fn free_bytes(&self) -> Result<u64, ZoneError> {
        self.0.free_bytes()
    }
}

impl<T> ErrorType for CutFile<T> {
    type Error = ZoneError;
}

impl<T: Read<Error = ZoneError>> Read for CutFile<T> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        self.1.alive()?;
        self.0.read(buf)
    }
}

impl<T: Write<Error = ZoneError>> Write for CutFile<T> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        if !self.1.change()? {
            self.0.write(&buf[..buf.len() / 2])?;
            return Err(DEAD);
        }
        self.0.write(buf)
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        self.1.alive()?;
        self.0.flush()
    }
}

impl<T: Seek<Error = ZoneError>> Seek for CutFile<T> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.0.seek(to)
    }
}

impl ZoneFile for CutFile<DirFile> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        self.1.alive()?;
        ZoneFile::len(&mut self.0)
    }
    fn set_len(&mut self, length: u64) -> Result<(), ZoneError> {
        self.1.whole(|| self.0.set_len(length))
    }
}

impl RawZone for CutFile<FileZone> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        self.1.alive()?;
        RawZone::len(&mut self.0)
    }
}
