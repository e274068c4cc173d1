//! The virtual zone's file system: ISO 9660 with Joliet and Rock Ridge.
//!
//! Made and read by `hadris-iso`. Two things are ours: every time stamp is set to the one given (the library writes the
//! clock's), so that equal input is an equal image; and the numbers of the primary descriptor are checked before the
//! library allocates or loops by them.
//!
//! Rock Ridge carries names of any length and modes 0444 and 0555, without which Linux shows every file as 0400. Joliet,
//! which Windows reads, cuts names after 64 characters: the offline store's longer names can be read there raw only.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use embedded_io::{ErrorType, Read, Seek, SeekFrom};
use hadris_iso::directory::DirectoryRef;
use hadris_iso::file::EntryType;
use hadris_iso::joliet::JolietLevel;
use hadris_iso::read::{IsoImage, PathSeparator};
use hadris_iso::rrip::RripOptions;
use hadris_iso::write::options::{BaseIsoLevel, CreationFeatures, IsoFormatOptions};
use hadris_iso::write::{FileSource, InputEntry, InputEntryKind, InputMetadata, InputTree, IsoImageWriter};

use super::block_cache::{BlockCache, CacheStream, into_io, stream_target};
use super::iso_times;
use crate::free_zone::check_path;
use crate::storage::{read_exact_at, seek_target};
use crate::{RawZone, ZoneError};

/// The size of a sector.
pub const SECTOR_BYTES: u64 = 2048;
/// Where the primary volume descriptor stands.
const DESCRIPTOR_AT: u64 = 16 * SECTOR_BYTES;
/// The longest path table accepted.
const MAX_PATH_TABLE_BYTES: u32 = 1 << 20;
/// The longest directory accepted: the offline store of a large release has thousands of packs.
const MAX_DIRECTORY_BYTES: u32 = 16 << 20;
/// The deepest path followed.
const MAX_DEPTH: usize = 16;
/// A drive reads nothing shorter (300 sectors).
pub const MIN_CD_BYTES: u64 = 300 * SECTOR_BYTES;

/// Where a file's bytes come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// From memory.
    Bytes(Arc<[u8]>),
    /// From a file of the host, streamed.
    File(PathBuf),
}

/// A file for a new image.
#[derive(Debug, Clone)]
pub struct IsoFile {
    /// Its path, components separated by `/`.
    pub path: String,
    /// Its bytes.
    pub source: Source,
    /// Whether Linux may run it.
    pub executable: bool,
}

impl IsoFile {
    /// A file that nobody runs.
    pub fn new(path: impl Into<String>, source: Source) -> Self {
        Self { path: path.into(), source, executable: false }
    }

    /// A program.
    pub fn program(path: impl Into<String>, source: Source) -> Self {
        Self { executable: true, ..Self::new(path, source) }
    }

    fn length(&self) -> io::Result<u64> {
        match &self.source {
            Source::Bytes(bytes) => Ok(bytes.len() as u64),
            Source::File(path) => Ok(std::fs::metadata(path)?.len()),
        }
    }
}

/// What a new image is called, and when it was made.
#[derive(Debug, Clone)]
pub struct IsoOptions {
    /// The volume's name, at most 16 characters (Joliet's limit).
    pub volume_name: String,
    /// Seconds since 1970 (UTC), for every time stamp.
    pub timestamp: i64,
}

/// Bytes that are enough for an image of these files, before it is made.
///
/// # Errors
/// What the host reports for a file.
pub fn bytes_needed(files: &[IsoFile]) -> io::Result<u64> {
    let mut sectors = MIN_CD_BYTES / SECTOR_BYTES;
    for file in files {
        // Records in two trees and, at worst, two sectors a tree for each directory on the way.
        let depth = file.path.split('/').count() as u64;
        sectors += file.length()?.div_ceil(SECTOR_BYTES) + 1 + 4 * (depth - 1);
    }
    Ok(sectors * SECTOR_BYTES)
}

/// Makes an image of `files` at the start of `zone` and returns its length. Files are streamed, never held whole.
///
/// # Errors
/// `OutOfBounds` where the zone is too small, `BadPath` for a path no zone can hold or that is given twice, else what
/// zone or host report.
pub fn build<Z: RawZone>(zone: Z, files: &[IsoFile], options: &IsoOptions) -> Result<u64, ZoneError> {
    let mut cache = BlockCache::new(zone)?;
    let mut entries = Vec::new();
    for file in files {
        check_path(&file.path)?;
        let parts: Vec<&str> = file.path.split('/').collect();
        insert(&mut entries, &parts, file, options.timestamp)?;
    }
    let name: String = options.volume_name.chars().take(16).collect();
    let format = IsoFormatOptions {
        volume_name: name,
        system_id: None,
        volume_set_id: None,
        publisher_id: None,
        preparer_id: None,
        application_id: None,
        sector_size: SECTOR_BYTES as usize,
        features: CreationFeatures {
            filenames: BaseIsoLevel::Level2 { supports_lowercase: false, supports_rrip: true },
            joliet: Some(JolietLevel::Level3),
            rock_ridge: Some(RripOptions::default()),
            ..CreationFeatures::default()
        },
        path_separator: PathSeparator::ForwardSlash,
        strict_charset: false,
    };
    let tree = InputTree::new(PathSeparator::ForwardSlash, entries);
    if let Err(error) = IsoImageWriter::create(CacheStream::new(&mut cache), tree, format) {
        return Err(cache.take_fault().unwrap_or(creation_fault(error)));
    }
    iso_times::set_all(&mut cache, options.timestamp)?;
    let length = volume_bytes(&mut cache)?;
    cache.flush_blocks()?;
    Ok(length)
}

fn insert(entries: &mut Vec<InputEntry>, parts: &[&str], file: &IsoFile, timestamp: i64) -> Result<(), ZoneError> {
    let metadata = |mode| InputMetadata {
        mode: Some(mode),
        uid: Some(0),
        gid: Some(0),
        created: None,
        modified: Some(timestamp),
        accessed: Some(timestamp),
    };
    let [first, rest @ ..] = parts else { return Err(ZoneError::BadPath) };
    let here = entries.iter_mut().find(|entry| *entry.name == *first);
    if rest.is_empty() {
        if here.is_some() {
            return Err(ZoneError::BadPath);
        }
        let kind = match &file.source {
            Source::Bytes(bytes) => {
                let (length, bytes) = (bytes.len() as u64, bytes.clone());
                InputEntryKind::Source(FileSource::new(length, move || Ok(Box::new(io::Cursor::new(bytes.clone())))))
            }
            Source::File(path) => InputEntryKind::Source(FileSource::from_path(path.clone())?),
        };
        let name = Arc::new((*first).to_owned());
        entries.push(InputEntry { name, kind, metadata: metadata(if file.executable { 0o555 } else { 0o444 }) });
        return Ok(());
    }
    match here {
        Some(InputEntry { kind: InputEntryKind::Directory(children), .. }) => insert(children, rest, file, timestamp),
        Some(_) => Err(ZoneError::BadPath),
        None => {
            let mut children = Vec::new();
            insert(&mut children, rest, file, timestamp)?;
            entries.push(InputEntry::directory(*first, children).with_metadata(metadata(0o555)));
            Ok(())
        }
    }
}

fn creation_fault(error: hadris_iso::write::IsoCreationError) -> ZoneError {
    match error {
        hadris_iso::write::IsoCreationError::Io(error) => library_fault(&error),
    }
}

/// The library's errors keep a kind and a text only.
fn library_fault(error: &hadris_iso::io::Error) -> ZoneError {
    use hadris_iso::io::ErrorKind as K;
    match error.kind() {
        K::NotFound => ZoneError::NotFound,
        K::UnexpectedEof | K::WriteZero => ZoneError::OutOfBounds,
        K::InvalidInput => ZoneError::BadPath,
        K::InvalidData | K::Unsupported => ZoneError::Corrupt,
        _ => ZoneError::Io(0),
    }
}

fn volume_bytes<Z: RawZone>(cache: &mut BlockCache<Z>) -> Result<u64, ZoneError> {
    let mut descriptor = [0; SECTOR_BYTES as usize];
    cache.read_at(DESCRIPTOR_AT, &mut descriptor)?;
    check_descriptor(&descriptor, cache.length())
}

/// The length of the file system at the start of `zone`, from its primary descriptor: a CD's tail begins at the next
/// 4 MiB boundary.
///
/// # Errors
/// `Corrupt` where there is no ISO 9660 file system, or one that claims more than the zone has.
pub fn file_system_bytes<Z: RawZone + ?Sized>(zone: &mut Z) -> Result<u64, ZoneError> {
    let mut descriptor = [0; SECTOR_BYTES as usize];
    let length = zone.len()?;
    match read_exact_at(zone, DESCRIPTOR_AT, &mut descriptor) {
        Err(ZoneError::OutOfBounds) => Err(ZoneError::Corrupt),
        Err(other) => Err(other),
        Ok(()) => check_descriptor(&descriptor, length),
    }
}

/// Checks the primary descriptor's numbers; the length of the file system.
fn check_descriptor(descriptor: &[u8; SECTOR_BYTES as usize], zone_bytes: u64) -> Result<u64, ZoneError> {
    let u32_at =
        |at: usize| u32::from_le_bytes([descriptor[at], descriptor[at + 1], descriptor[at + 2], descriptor[at + 3]]);
    let (block, length) =
        (u16::from_le_bytes([descriptor[128], descriptor[129]]), u64::from(u32_at(80)) * SECTOR_BYTES);
    let sound = descriptor[..7] == *b"\x01CD001\x01"
        && u64::from(block) == SECTOR_BYTES
        && length > DESCRIPTOR_AT
        && length <= zone_bytes
        && u32_at(132) <= MAX_PATH_TABLE_BYTES
        && u32_at(166) <= MAX_DIRECTORY_BYTES;
    if sound { Ok(length) } else { Err(ZoneError::Corrupt) }
}

/// A virtual zone inside raw storage, read only.
pub struct IsoZone<Z: RawZone> {
    image: IsoImage<Shared<Z>>,
    cache: Rc<RefCell<BlockCache<Z>>>,
    root: DirectoryRef,
    /// Whether the names below it are Joliet's, which the library shows undecoded.
    has_joliet_names: bool,
    length: u64,
}

impl<Z: RawZone> IsoZone<Z> {
    /// Opens the file system at the start of `zone`.
    ///
    /// # Errors
    /// `Corrupt` where there is none, or one that contradicts itself.
    pub fn open(zone: Z) -> Result<Self, ZoneError> {
        let mut cache = BlockCache::new(zone)?;
        if cache.length() < DESCRIPTOR_AT + SECTOR_BYTES {
            return Err(ZoneError::Corrupt);
        }
        let length = volume_bytes(&mut cache)?;
        let cache = Rc::new(RefCell::new(cache));
        let stream = Shared { cache: cache.clone(), position: 0 };
        let image = IsoImage::open(stream).map_err(|error| library_fault(&error))?;
        let primary = |root: &&hadris_iso::read::RootDir| matches!(root.entry_type(), EntryType::Level1 { .. });
        let (root, has_joliet_names) = match image.root_dirs().iter().find(primary) {
            Some(root) if image.supports_rrip() => (root.dir_ref(), false),
            _ => {
                let root = image.root_dir();
                (root.dir_ref(), matches!(root.entry_type(), EntryType::Joliet { .. }))
            }
        };
        Ok(Self { image, cache, root, has_joliet_names, length })
    }

    /// The length of the file system.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Opens a file; `None`: there is none of that name.
    ///
    /// # Errors
    /// `Corrupt`, or what the storage reports.
    pub fn open_file(&self, path: &str) -> Result<Option<IsoReader<Z>>, ZoneError> {
        check_path(path)?;
        let mut directory = self.root;
        let parts: Vec<&str> = path.split('/').collect();
        if parts.len() > MAX_DEPTH {
            return Err(ZoneError::BadPath);
        }
        for (i, part) in parts.iter().enumerate() {
            let Some(entry) = self.find(directory, part)? else { return Ok(None) };
            let last = i + 1 == parts.len();
            if entry.is_directory() {
                if last {
                    return Ok(None);
                }
                directory = entry.as_dir_ref(&self.image).map_err(|error| library_fault(&error))?;
            } else if last {
                return self.reader(&entry).map(Some);
            } else {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Calls `visit` with the path and length of every file below `path` (empty: all), in the order of the image.
    ///
    /// # Errors
    /// `Corrupt`, or what the storage reports.
    pub fn walk(&self, path: &str, visit: &mut dyn FnMut(&str, u64)) -> Result<(), ZoneError> {
        let mut directory = self.root;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            match self.find(directory, part)? {
                Some(entry) if entry.is_directory() => {
                    directory = entry.as_dir_ref(&self.image).map_err(|error| library_fault(&error))?;
                }
                _ => return Ok(()),
            }
        }
        self.walk_in(directory, path, 0, visit)
    }

    fn walk_in(
        &self,
        directory: DirectoryRef,
        path: &str,
        depth: usize,
        visit: &mut dyn FnMut(&str, u64),
    ) -> Result<(), ZoneError> {
        if depth >= MAX_DEPTH {
            return Err(ZoneError::Corrupt);
        }
        check_directory(directory)?;
        for entry in self.image.open_dir(directory).entries() {
            let entry = entry.map_err(|error| library_fault(&error))?;
            if entry.is_special() {
                continue;
            }
            let name = match self.has_joliet_names {
                true => without_version(entry.record.joliet_name()),
                false => entry.display_name().into_owned(),
            };
            let full = if path.is_empty() { name } else { format!("{path}/{name}") };
            if entry.is_directory() {
                let below = entry.as_dir_ref(&self.image).map_err(|error| library_fault(&error))?;
                self.walk_in(below, &full, depth + 1, visit)?;
            } else {
                visit(&full, entry.total_size());
            }
        }
        Ok(())
    }

    fn find(&self, directory: DirectoryRef, name: &str) -> Result<Option<hadris_iso::read::DirEntry>, ZoneError> {
        check_directory(directory)?;
        for entry in self.image.open_dir(directory).entries() {
            let entry = entry.map_err(|error| library_fault(&error))?;
            if !entry.is_special() && entry.matches_name(name) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn reader(&self, entry: &hadris_iso::read::DirEntry) -> Result<IsoReader<Z>, ZoneError> {
        let mut extents = Vec::new();
        let mut length = 0u64;
        for extent in entry.extents() {
            let (start, bytes) = (extent.sector.0 as u64 * SECTOR_BYTES, u64::from(extent.length));
            if start.checked_add(bytes).is_none_or(|end| end > self.length) {
                return Err(ZoneError::Corrupt);
            }
            extents.push((length, start, bytes));
            length += bytes;
        }
        Ok(IsoReader { cache: self.cache.clone(), extents, length, position: 0 })
    }
}

/// A file's name without the number of its version, `;1`.
fn without_version(mut name: String) -> String {
    if let Some((base, version)) = name.rsplit_once(';')
        && !version.is_empty()
        && version.bytes().all(|byte| byte.is_ascii_digit())
    {
        name.truncate(base.len());
    }
    name
}

fn check_directory(directory: DirectoryRef) -> Result<(), ZoneError> {
    if directory.size as u64 <= u64::from(MAX_DIRECTORY_BYTES) { Ok(()) } else { Err(ZoneError::Corrupt) }
}

/// A file of an [`IsoZone`].
pub struct IsoReader<Z: RawZone> {
    cache: Rc<RefCell<BlockCache<Z>>>,
    /// Start in the file, start in the zone, length.
    extents: Vec<(u64, u64, u64)>,
    length: u64,
    position: u64,
}

impl<Z: RawZone> IsoReader<Z> {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl<Z: RawZone> ErrorType for IsoReader<Z> {
    type Error = ZoneError;
}

impl<Z: RawZone> Read for IsoReader<Z> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let left = usize::try_from(self.length.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if left.min(buf.len()) == 0 {
            return Ok(0);
        }
        let which = self.extents.partition_point(|extent| extent.0 <= self.position).saturating_sub(1);
        let (start, place, bytes) = *self.extents.get(which).ok_or(ZoneError::Corrupt)?;
        let within = self.position - start;
        let take = usize::try_from(bytes.saturating_sub(within)).unwrap_or(usize::MAX).min(buf.len());
        self.cache.borrow_mut().read_at(place + within, &mut buf[..take])?;
        self.position += take as u64;
        Ok(take)
    }
}

impl<Z: RawZone> Seek for IsoReader<Z> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.length)?;
        Ok(self.position)
    }
}

/// The shared cache as the library's stream.
struct Shared<Z: RawZone> {
    cache: Rc<RefCell<BlockCache<Z>>>,
    position: u64,
}

impl<Z: RawZone> io::Read for Shared<Z> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut cache = self.cache.borrow_mut();
        let left = cache.length().saturating_sub(self.position);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        cache.read_at(self.position, &mut buf[..take]).map_err(into_io)?;
        self.position += take as u64;
        Ok(take)
    }
}

impl<Z: RawZone> io::Seek for Shared<Z> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.position = stream_target(to, self.position, self.cache.borrow().length())?;
        Ok(self.position)
    }
}
