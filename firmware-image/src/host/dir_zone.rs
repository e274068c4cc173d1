//! A mounted directory as a free zone.
//!
//! Invariant: nothing outside the directory is ever reached. No link is followed, neither as a parent nor as the last
//! component: a link is [`Kind::Other`], is never opened, and a path through one is refused with `BadPath`. On Unix
//! every component is opened from its parent's handle, so that no rename in between can lead outside.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::ops::ControlFlow;
use std::path::Path;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};

use crate::ZoneError;
#[cfg(doc)]
use crate::free_zone::Kind;
use crate::free_zone::{FreeZone, Metadata, ZoneFile, check_path};

#[cfg_attr(unix, path = "dir_zone_unix.rs")]
#[cfg_attr(windows, path = "dir_zone_windows.rs")]
mod os;

/// A mounted directory. See the module.
pub struct DirZone {
    root: os::Root,
}

impl DirZone {
    /// The free zone in `directory`, which itself may be reached through links.
    ///
    /// # Errors
    /// `NotFound` or `BadPath` where there is no such directory, else what the operating system reports.
    pub fn open(directory: &Path) -> Result<Self, ZoneError> {
        Ok(Self { root: os::Root::open(directory)? })
    }
}

impl FreeZone for DirZone {
    type File<'a> = DirFile;

    fn open(&self, path: &str) -> Result<Option<DirFile>, ZoneError> {
        check_path(path)?;
        Ok(self.root.open_file(path)?.map(|file| DirFile { file, written: None }))
    }

    fn open_rw(&self, path: &str) -> Result<DirFile, ZoneError> {
        self.make_parents(path)?;
        let (file, written) = self.root.open_rw(path)?;
        Ok(DirFile { file, written: Some(written) })
    }

    fn create(&self, path: &str) -> Result<DirFile, ZoneError> {
        self.make_parents(path)?;
        let (file, written) = self.root.create(path)?;
        Ok(DirFile { file, written: Some(written) })
    }

    fn reserve_all<'z: 'f, 'f>(
        &'z self,
        files: &mut dyn Iterator<Item = (&'f mut DirFile, u64)>,
    ) -> Result<(), ZoneError> {
        os::Written::reserve_all(
            &mut files.filter_map(|(file, length)| Some((file.written.as_mut()?, &file.file, length))),
        )
    }

    fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        check_path(path)?;
        self.root.metadata(path)
    }

    fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        if !path.is_empty() {
            check_path(path)?;
        }
        self.root.list(path, visit)
    }

    fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        check_path(path)?;
        self.root.remove(path)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        check_path(from)?;
        self.make_parents(to)?;
        self.root.rename(from, to)
    }

    fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        if path.is_empty() {
            return Ok(());
        }
        check_path(path)?;
        self.root.create_dir_all(path)
    }

    fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        if !path.is_empty() {
            check_path(path)?;
        }
        self.root.sync_dir(path)
    }

    fn set_executable(&self, path: &str, executable: bool) -> Result<(), ZoneError> {
        check_path(path)?;
        self.root.set_executable(path, executable)
    }

    fn free_bytes(&self) -> Result<u64, ZoneError> {
        self.root.free_bytes()
    }
}

impl DirZone {
    fn make_parents(&self, path: &str) -> Result<(), ZoneError> {
        check_path(path)?;
        match path.rsplit_once('/') {
            Some((parent, _)) => self.root.create_dir_all(parent),
            None => Ok(()),
        }
    }
}

/// An open regular file of a mounted zone.
pub struct DirFile {
    file: File,
    written: Option<os::Written>,
}

impl DirFile {
    /// The file underneath.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file underneath, for good.
    pub fn into_file(self) -> File {
        self.file
    }
}

impl ErrorType for DirFile {
    type Error = ZoneError;
}

impl Read for DirFile {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        loop {
            match self.file.read(buf) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => return Ok(other?),
            }
        }
    }
}

impl Write for DirFile {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        loop {
            match self.file.write(buf).map_err(|error| (error.kind(), ZoneError::from(error))) {
                Err((std::io::ErrorKind::Interrupted, _)) => {}
                Err((_, ZoneError::Full)) if self.written.as_mut().is_some_and(|w| w.give_way() == Ok(true)) => {}
                other => return other.map_err(|(_, error)| error),
            }
        }
    }

    fn flush(&mut self) -> Result<(), ZoneError> {
        match &mut self.written {
            Some(written) => written.flush(&self.file),
            None => Ok(self.file.sync_all()?),
        }
    }
}

impl Seek for DirFile {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        Ok(self.file.seek(match to {
            SeekFrom::Start(at) => std::io::SeekFrom::Start(at),
            SeekFrom::End(by) => std::io::SeekFrom::End(by),
            SeekFrom::Current(by) => std::io::SeekFrom::Current(by),
        })?)
    }
}

impl ZoneFile for DirFile {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&mut self, length: u64) -> Result<(), ZoneError> {
        Ok(self.file.set_len(length)?)
    }

    fn reserve(&mut self, length: u64) -> Result<(), ZoneError> {
        match &mut self.written {
            Some(written) => written.reserve(&self.file, length),
            None => Ok(()),
        }
    }

    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        super::file_zone::drop_file_caches(&self.file);
        Ok(())
    }
}
