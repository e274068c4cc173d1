//! Zones of either kind, mounted or raw, as one type, for programs that learn only at run time which they have.

use std::ops::ControlFlow;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};

use super::fat::{FatFile, RawFat};
use super::iso::{IsoReader, IsoZone};
use crate::free_zone::{FreeZone, Metadata, ZoneFile, check_path};
use crate::host::{Access, DirFile, DirZone, FileZone};
use crate::storage::Window;
use crate::{RawZone, ZoneError};

/// The virtual zone: files to read, by path.
pub trait VirtualZone {
    /// An open file, which refuses every write.
    type File: RawZone;

    /// Opens a file; `None`: there is none of that name.
    ///
    /// # Errors
    /// `BadPath`, `Corrupt`, or what the storage reports.
    fn open_file(&self, path: &str) -> Result<Option<Self::File>, ZoneError>;

    /// Reads a file of at most `max_bytes`; `None`: there is none of that name.
    ///
    /// # Errors
    /// `OutOfBounds` for a longer one, else as [`VirtualZone::open_file`].
    fn read_file(&self, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, ZoneError> {
        let Some(mut file) = self.open_file(path)? else { return Ok(None) };
        let length = file.len()?;
        if length > max_bytes {
            return Err(ZoneError::OutOfBounds);
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| ZoneError::OutOfBounds)?];
        crate::storage::read_exact_at(&mut file, 0, &mut bytes)?;
        Ok(Some(bytes))
    }
}

/// A virtual zone of either kind.
pub enum AnyVirtualZone {
    /// An ISO 9660 file system in raw storage.
    Iso(IsoZone<Window<FileZone>>),
    /// A mounted one.
    Directory(DirZone),
}

impl VirtualZone for AnyVirtualZone {
    type File = AnyVirtualFile;

    fn open_file(&self, path: &str) -> Result<Option<AnyVirtualFile>, ZoneError> {
        Ok(match self {
            Self::Iso(zone) => zone.open_file(path)?.map(AnyVirtualFile::Iso),
            Self::Directory(zone) => match zone.open(path)? {
                Some(file) => {
                    let file = FileZone::from_file(file.into_file(), Access::ReadOnly)?;
                    Some(AnyVirtualFile::Host(file))
                }
                None => None,
            },
        })
    }
}

/// A file of an [`AnyVirtualZone`].
pub enum AnyVirtualFile {
    /// In raw storage.
    Iso(IsoReader<Window<FileZone>>),
    /// Mounted.
    Host(FileZone),
}

/// A free zone of either kind.
pub enum AnyFreeZone {
    /// A mounted one.
    Directory(DirZone),
    /// FAT32 in raw storage.
    Fat(Box<RawFat<Window<FileZone>>>),
}

impl AnyFreeZone {
    /// Ends the work: everything is durable, and a raw volume is marked clean.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn close(self) -> Result<(), ZoneError> {
        match self {
            Self::Directory(zone) => zone.sync_dir(""),
            Self::Fat(zone) => zone.close(),
        }
    }
}

/// A file of an [`AnyFreeZone`].
pub enum AnyFreeFile<'z> {
    /// Mounted.
    Host(DirFile),
    /// In raw storage.
    Fat(FatFile<'z, Window<FileZone>>),
}

macro_rules! each {
    ($self:expr, $type:ident { $($variant:ident)|+ }, $inner:ident => $call:expr) => {
        match $self { $($type::$variant($inner) => $call,)+ }
    };
}

impl FreeZone for AnyFreeZone {
    type File<'a> = AnyFreeFile<'a>;

    fn open<'a>(&'a self, path: &str) -> Result<Option<AnyFreeFile<'a>>, ZoneError> {
        Ok(match self {
            Self::Directory(zone) => zone.open(path)?.map(AnyFreeFile::Host),
            Self::Fat(zone) => zone.open(path)?.map(AnyFreeFile::Fat),
        })
    }

    fn open_rw<'a>(&'a self, path: &str) -> Result<AnyFreeFile<'a>, ZoneError> {
        match self {
            Self::Directory(zone) => zone.open_rw(path).map(AnyFreeFile::Host),
            Self::Fat(zone) => zone.open_rw(path).map(AnyFreeFile::Fat),
        }
    }

    fn create<'a>(&'a self, path: &str) -> Result<AnyFreeFile<'a>, ZoneError> {
        match self {
            Self::Directory(zone) => zone.create(path).map(AnyFreeFile::Host),
            Self::Fat(zone) => zone.create(path).map(AnyFreeFile::Fat),
        }
    }

    fn reserve_all<'z: 'f, 'f>(
        &'z self,
        files: &mut dyn Iterator<Item = (&'f mut AnyFreeFile<'z>, u64)>,
    ) -> Result<(), ZoneError>
    where
        AnyFreeFile<'z>: 'f,
    {
        // A zone's files are of its own kind.
        match self {
            Self::Directory(zone) => zone.reserve_all(&mut files.filter_map(|(file, length)| match file {
                AnyFreeFile::Host(file) => Some((file, length)),
                AnyFreeFile::Fat(_) => None,
            })),
            Self::Fat(zone) => zone.reserve_all(&mut files.filter_map(|(file, length)| match file {
                AnyFreeFile::Fat(file) => Some((file, length)),
                AnyFreeFile::Host(_) => None,
            })),
        }
    }

    fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        each!(self, AnyFreeZone { Directory | Fat }, zone => zone.metadata(path))
    }

    fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        each!(self, AnyFreeZone { Directory | Fat }, zone => zone.list(path, visit))
    }

    fn spells_exactly(&self) -> bool {
        each!(self, AnyFreeZone { Directory | Fat }, zone => zone.spells_exactly())
    }

    fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        each!(self, AnyFreeZone { Directory | Fat }, zone => zone.remove(path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        each!(self, AnyFreeZone { Directory | Fat }, zone => zone.rename(from, to))
    }

    fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        each!(self, AnyFreeZone { Directory | Fat }, zone => zone.create_dir_all(path))
    }

    fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        each!(self, AnyFreeZone { Directory | Fat }, zone => zone.sync_dir(path))
    }

    fn set_executable(&self, path: &str, executable: bool) -> Result<(), ZoneError> {
        each!(self, AnyFreeZone { Directory | Fat }, zone => zone.set_executable(path, executable))
    }

    fn free_bytes(&self) -> Result<u64, ZoneError> {
        each!(self, AnyFreeZone { Directory | Fat }, zone => zone.free_bytes())
    }
}

impl ErrorType for AnyFreeFile<'_> {
    type Error = ZoneError;
}

impl Read for AnyFreeFile<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        each!(self, AnyFreeFile { Host | Fat }, file => file.read(buf))
    }
}

impl Write for AnyFreeFile<'_> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        each!(self, AnyFreeFile { Host | Fat }, file => file.write(buf))
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        each!(self, AnyFreeFile { Host | Fat }, file => file.flush())
    }
}

impl Seek for AnyFreeFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        each!(self, AnyFreeFile { Host | Fat }, file => file.seek(to))
    }
}

impl ZoneFile for AnyFreeFile<'_> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        each!(self, AnyFreeFile { Host | Fat }, file => ZoneFile::len(file))
    }
    fn set_len(&mut self, length: u64) -> Result<(), ZoneError> {
        each!(self, AnyFreeFile { Host | Fat }, file => file.set_len(length))
    }
    fn reserve(&mut self, length: u64) -> Result<(), ZoneError> {
        each!(self, AnyFreeFile { Host | Fat }, file => file.reserve(length))
    }
    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        each!(self, AnyFreeFile { Host | Fat }, file => file.drop_caches())
    }
}

impl ErrorType for AnyVirtualFile {
    type Error = ZoneError;
}

impl Read for AnyVirtualFile {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        each!(self, AnyVirtualFile { Iso | Host }, file => file.read(buf))
    }
}

impl Write for AnyVirtualFile {
    fn write(&mut self, _buf: &[u8]) -> Result<usize, ZoneError> {
        Err(ZoneError::ReadOnly)
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        Ok(())
    }
}

impl Seek for AnyVirtualFile {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        each!(self, AnyVirtualFile { Iso | Host }, file => file.seek(to))
    }
}

impl RawZone for AnyVirtualFile {
    fn len(&mut self) -> Result<u64, ZoneError> {
        match self {
            Self::Iso(file) => Ok(file.len()),
            Self::Host(file) => RawZone::len(file),
        }
    }
}

/// A virtual zone's directory, as far as the programs read one: every file below `path`, by path.
impl AnyVirtualZone {
    /// Calls `visit` with the path and length of every file below `path` (empty: all).
    ///
    /// # Errors
    /// `Corrupt`, or what the storage reports.
    pub fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, u64)) -> Result<(), ZoneError> {
        if !path.is_empty() {
            check_path(path)?;
        }
        match self {
            Self::Iso(zone) => zone.walk(path, visit),
            Self::Directory(zone) => walk_free(zone, path, 0, visit),
        }
    }
}

/// The deepest directory that is walked.
const MAX_DEPTH: usize = 32;

/// Calls `visit` with the path and length of every file below `path` (empty: all) of a free zone.
///
/// # Errors
/// `Corrupt` for directories nested deeper than 32, or what the zone reports.
pub fn walk<F: FreeZone>(zone: &F, path: &str, visit: &mut dyn FnMut(&str, u64)) -> Result<(), ZoneError> {
    walk_free(zone, path, 0, visit)
}

fn walk_free<F: FreeZone>(
    zone: &F,
    path: &str,
    depth: usize,
    visit: &mut dyn FnMut(&str, u64),
) -> Result<(), ZoneError> {
    use crate::free_zone::Kind;
    if depth > MAX_DEPTH {
        return Err(ZoneError::Corrupt);
    }
    let mut entries = Vec::new();
    zone.list(path, &mut |name, metadata| {
        entries.push((if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }, metadata));
        ControlFlow::Continue(())
    })?;
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (full, metadata) in entries {
        match metadata.kind {
            Kind::File => visit(&full, metadata.length),
            Kind::Directory => walk_free(zone, &full, depth + 1, visit)?,
            Kind::Other => {}
        }
    }
    Ok(())
}
