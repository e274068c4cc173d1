//! Directory operations by path, with every component checked for links (on Windows also junctions) beforehand.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::ZoneError;
use crate::free_zone::{Kind, Metadata};

/// The zone's directory.
pub struct Root(PathBuf);

/// A file open to be written.
pub struct Written;

impl Written {
    /// Nothing that was replaced is kept here.
    pub fn give_way(&mut self) -> Result<bool, ZoneError> {
        Ok(false)
    }

    /// Nothing is known of clusters here.
    pub fn reserve(&mut self, _file: &File, _length: u64) -> Result<(), ZoneError> {
        Ok(())
    }

    /// The same of several.
    pub fn reserve_all<'f>(_files: &mut dyn Iterator<Item = (&'f mut Self, &'f File, u64)>) -> Result<(), ZoneError> {
        Ok(())
    }

    /// Makes the file durable.
    pub fn flush(&mut self, file: &File) -> Result<(), ZoneError> {
        Ok(file.sync_all()?)
    }
}

impl Root {
    pub fn open(directory: &Path) -> Result<Self, ZoneError> {
        if !fs::metadata(directory)?.is_dir() {
            return Err(ZoneError::BadPath);
        }
        Ok(Self(fs::canonicalize(directory)?))
    }

    /// The host path of `path`, refused where a parent is a link; `None` where a parent is missing or a file.
    fn resolve(&self, path: &str) -> Result<Option<PathBuf>, ZoneError> {
        let mut here = self.0.clone();
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            here.push(part);
            if parts.peek().is_none() {
                break;
            }
            match stat(&here)? {
                Some(found) if found.kind == Kind::Other => return Err(ZoneError::BadPath),
                Some(found) if found.kind == Kind::Directory => {}
                _ => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// Opens a file to be read. `None`: there is no regular file of that name.
    pub fn open_file(&self, path: &str) -> Result<Option<File>, ZoneError> {
        let Some(host) = self.resolve(path)? else { return Ok(None) };
        match stat(&host)?.map(|found| found.kind) {
            Some(Kind::File) => Ok(Some(File::open(host)?)),
            _ => Ok(None),
        }
    }

    /// Opens a file to be written as it is, or an empty one.
    pub fn open_rw(&self, path: &str) -> Result<(File, Written), ZoneError> {
        let host = self.resolve(path)?.ok_or(ZoneError::BadPath)?;
        match stat(&host)?.map(|found| found.kind) {
            Some(Kind::Directory | Kind::Other) => return Err(ZoneError::BadPath),
            None | Some(Kind::File) => {}
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(host)?;
        Ok((file, Written))
    }

    /// Makes an empty file, in place of one that was there.
    pub fn create(&self, path: &str) -> Result<(File, Written), ZoneError> {
        let host = self.resolve(path)?.ok_or(ZoneError::BadPath)?;
        match stat(&host)?.map(|found| found.kind) {
            Some(Kind::Directory) => return Err(ZoneError::BadPath),
            Some(Kind::Other) => fs::remove_file(&host)?,
            None | Some(Kind::File) => {}
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(host)?;
        Ok((file, Written))
    }

    pub fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        match self.resolve(path)? {
            Some(host) => stat(&host),
            None => Ok(None),
        }
    }

    pub fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        let Some(host) = self.resolve(path)? else { return Ok(()) };
        match stat(&host)?.map(|found| found.kind) {
            Some(Kind::Directory) => {}
            Some(Kind::Other) => return Err(ZoneError::BadPath),
            _ => return Ok(()),
        }
        for entry in fs::read_dir(host)? {
            let entry = entry?;
            let name = entry.file_name();
            let flow = match name.to_str() {
                // Gone since the directory was read: not an entry any more.
                Some(name) => match stat(&entry.path())? {
                    Some(found) => visit(name, found),
                    None => ControlFlow::Continue(()),
                },
                // Shown, but no path of this trait can name it.
                None => visit(&name.to_string_lossy(), Metadata { length: 0, kind: Kind::Other }),
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    pub fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        let Some(host) = self.resolve(path)? else { return Ok(false) };
        let done = match stat(&host)?.map(|found| found.kind) {
            None => return Ok(false),
            Some(Kind::Directory) => fs::remove_dir(host),
            // A directory link is removed as a directory.
            Some(Kind::Other) => fs::remove_file(&host).or_else(|_| fs::remove_dir(&host)),
            Some(Kind::File) => fs::remove_file(host),
        };
        match done {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        let from = self.resolve(from)?.ok_or(ZoneError::NotFound)?;
        let to = self.resolve(to)?.ok_or(ZoneError::BadPath)?;
        Ok(fs::rename(from, to)?)
    }

    pub fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        let mut here = self.0.clone();
        for part in path.split('/') {
            here.push(part);
            match stat(&here)?.map(|found| found.kind) {
                Some(Kind::Directory) => {}
                Some(_) => return Err(ZoneError::BadPath),
                None => fs::create_dir(&here)?,
            }
        }
        Ok(())
    }

    /// Only files can be flushed here; the driver orders its directories by itself.
    pub fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        match self.resolve(path)? {
            Some(host) if host.is_dir() => Ok(()),
            _ => Err(ZoneError::NotFound),
        }
    }

    /// No such mark here: a name's ending decides.
    pub fn set_executable(&self, path: &str, _executable: bool) -> Result<(), ZoneError> {
        match self.metadata(path)? {
            Some(found) if found.kind == Kind::File => Ok(()),
            _ => Err(ZoneError::NotFound),
        }
    }

    /// The standard library cannot tell; a write that does not fit fails with `Full`.
    pub fn free_bytes(&self) -> Result<u64, ZoneError> {
        Ok(u64::MAX)
    }
}

fn stat(host: &Path) -> Result<Option<Metadata>, ZoneError> {
    match fs::symlink_metadata(host) {
        Ok(found) => {
            let kind = match found.file_type() {
                link if link.is_symlink() => Kind::Other,
                directory if directory.is_dir() => Kind::Directory,
                file if file.is_file() => Kind::File,
                _ => Kind::Other,
            };
            Ok(Some(Metadata { length: if kind == Kind::File { found.len() } else { 0 }, kind }))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
