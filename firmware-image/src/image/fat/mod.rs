//! A free zone inside an image or device: FAT32, or FAT16 where it is small, through `fatfs`, without mounting.
//!
//! What FAT promises is little, and the order of writes is ours: file contents and directories go before the tables,
//! and a directory entry that shows a new length or a new directory goes last. So a cut leaves lost clusters at worst
//! in what was being written. [`FreeZone::rename`] over an existing name removes that name first: a cut may leave
//! either, neither, never a mixture.
//!
//! On bad input: the boot sector is checked strictly before anything is mounted, every path is walked with bounds
//! before `fatfs` sees it (`walk`), and no number out of range passes from the table to `fatfs` (`disk`). A file
//! whose chain contradicts its entry can't be read (`Corrupt`), but it can be replaced or removed: its entry is emptied
//! first, and its clusters stay lost until somebody runs `fsck`. A directory like that can be removed, with what was in it. A chain that comes to a free cluster was being lengthened:
//! it ends before that. At the first change of a volume that was not unmounted, every directory is looked through for
//! such chains, its own and its files', and for entries behind its end, which other drivers may take for real.
//!
//! Not handled: clusters that two files share; both can be read.

mod disk;
mod file;
mod format;
mod walk;

use std::cell::{OnceCell, RefCell};
use std::io;
use std::ops::{ControlFlow, Range};
use std::rc::Rc;

use fatfs::{FileSystem, FsOptions};

use self::disk::Disk;
pub use self::file::FatFile;
pub use self::format::{FormatOptions, format};
use self::walk::{DELETED, Directory, Entry, Found, MAX_DIRECTORY_BYTES, UNITS_PER_ENTRY, Walk};
use super::block_cache::{BLOCK_BYTES, BlockCache, CAPACITY_BLOCKS, from_io};
use crate::boot_sector::{DIRECTORY_ENTRY_BYTES, Geometry, Root, fs_info, fs_info_is_sound};
use crate::free_zone::{FreeZone, Kind, Metadata, check_path};
use crate::storage::read_exact_at;
use crate::{RawZone, ZoneError};

/// The longest name in UTF-16 units (FAT specification, section 7).
const MAX_NAME_UNITS: usize = 255;
/// The bit by which the boot sector notes that the volume is in use.
const NOT_UNMOUNTED: u8 = 1;
/// Linux' number for a directory that has entries, as a mounted zone reports it.
const NOT_EMPTY: ZoneError = ZoneError::Io(39);

/// A FAT16 or FAT32 volume over raw storage. See the module.
pub struct RawFat<Z: RawZone> {
    // Before the cache: its last writes go there when it is dropped.
    mounted: OnceCell<FileSystem<Disk<Z>>>,
    cache: Rc<RefCell<BlockCache<Z>>>,
    geometry: Rc<Geometry>,
    read_only: bool,
}

impl<Z: RawZone> RawFat<Z> {
    /// Opens the volume in `zone`. Nothing is written before the first change.
    ///
    /// # Errors
    /// `Corrupt` where there is no such volume, or one that claims more than the zone has, or one whose boot sector
    /// differs from its copy and fits the volume less, or keeps none and does not fit it.
    pub fn open(mut zone: Z, read_only: bool) -> Result<Self, ZoneError> {
        let length = zone.len()?;
        let mut boot = [0; 512];
        read_exact_at(&mut zone, 0, &mut boot)?;
        let geometry = Geometry::parse(&boot, length)?;
        if geometry.backup_boot == 0 {
            // A wrong place for the tables or the clusters would have users' files overwritten.
            if !geometry.fits(&mut zone)? {
                return Err(ZoneError::Corrupt);
            }
        } else {
            read_exact_at(&mut zone, geometry.backup_boot, &mut boot)?;
            if let Ok(copy) = Geometry::parse(&boot, length)
                && !geometry.says_the_same(&copy)
            {
                // As above.
                if geometry.evidence(&mut zone)? < copy.evidence(&mut zone)? {
                    return Err(ZoneError::Corrupt);
                }
            }
        }
        // Blocks are written in an order by what they hold: none holds a table and something else.
        let block_bytes = 1 << (geometry.fat_start | geometry.fats_end | BLOCK_BYTES as u64).trailing_zeros();
        let cache = BlockCache::with_sizes(zone, block_bytes, CAPACITY_BLOCKS * (BLOCK_BYTES / block_bytes))?;
        Ok(Self {
            mounted: OnceCell::new(),
            cache: Rc::new(RefCell::new(cache)),
            geometry: Rc::new(geometry),
            read_only,
        })
    }

    /// The volume's serial number.
    pub fn volume_id(&self) -> u32 {
        self.geometry.volume_id
    }

    /// The label in the boot sector.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(&self.geometry.label).trim_end().to_owned()
    }

    /// Bytes that files can have in all.
    pub fn capacity_bytes(&self) -> u64 {
        u64::from(self.geometry.clusters) * u64::from(self.geometry.cluster_bytes)
    }

    /// The bytes that mean something, in ascending ranges: all in front of the clusters, and the clusters in use.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn used(&self) -> Result<Vec<Range<u64>>, ZoneError> {
        self.walk(|walk| walk.used())
    }

    /// Ends the work: summary and clean mark are written, everything is durable.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn close(mut self) -> Result<(), ZoneError> {
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount().map_err(fault)?;
        }
        self.sync(&[])
    }

    fn walk<T>(&self, work: impl FnOnce(&mut Walk<'_, Z>) -> Result<T, ZoneError>) -> Result<T, ZoneError> {
        work(&mut Walk::new(&mut self.cache.borrow_mut(), &self.geometry))
    }

    /// Where `path` leads. Once the volume is mounted for changes, no directory on the way leads `fatfs` astray after this.
    fn locate(&self, path: &str) -> Result<Found, ZoneError> {
        check_path(path)?;
        self.walk(|walk| {
            let found = walk.locate(path)?;
            if self.mounted.get().is_some() {
                walk.mend_directories()?;
            }
            Ok(found)
        })
    }

    fn entry(&self, path: &str) -> Result<Option<Entry>, ZoneError> {
        Ok(match self.locate(path)? {
            Found::Entry(entry) => Some(entry),
            Found::Free | Found::NoParent | Found::NotADirectory => None,
        })
    }

    /// The library's view of the volume, mounted at the first change.
    fn mounted(&self) -> Result<&FileSystem<Disk<Z>>, ZoneError> {
        if self.read_only {
            return Err(ZoneError::ReadOnly);
        }
        if let Some(mounted) = self.mounted.get() {
            return Ok(mounted);
        }
        if self.geometry.fs_info > 0 {
            self.mend_summary()?;
        }
        if self.byte_at(self.geometry.state_at() as u64)? & NOT_UNMOUNTED != 0 {
            // What a cut left behind must not come back, here or under another driver, when its place is given away: nor after
            // another cut.
            self.walk(|walk| walk.mend_volume())?;
            self.sync(&[])?;
        }
        let disk = Disk::new(self.cache.clone(), self.geometry.clone());
        let mounted = FileSystem::new(disk, FsOptions::new()).map_err(fault)?;
        Ok(self.mounted.get_or_init(|| mounted))
    }

    /// Puts the summary of free clusters right.
    fn mend_summary(&self) -> Result<(), ZoneError> {
        let mut info = [0; 512];
        let mut cache = self.cache.borrow_mut();
        cache.read_at(self.geometry.fs_info, &mut info)?;
        if !fs_info_is_sound(&info) {
            // The summary is a hint that can be made anew; `fatfs` would refuse the volume over it.
            cache.write_at(self.geometry.fs_info, &fs_info(u32::MAX, u32::MAX))?;
        }
        drop(cache);
        // Counted here once, so that the summary is right when the volume is closed.
        let free = self.walk(|walk| walk.free_clusters())?;
        let next = u32::from_le_bytes([info[492], info[493], info[494], info[495]]);
        let next = if self.geometry.holds(next) { next } else { u32::MAX };
        let counted = fs_info(u32::try_from(free).unwrap_or(u32::MAX), next);
        if counted[488..496] != info[488..496] {
            self.cache.borrow_mut().write_at(self.geometry.fs_info + 488, &counted[488..496])?;
        }
        Ok(())
    }

    /// Makes everything durable: contents and directories, then the tables, then the blocks at the places in `last`.
    fn sync(&self, last: &[u64]) -> Result<(), ZoneError> {
        if self.read_only {
            return Ok(());
        }
        let tables = self.geometry.fat_start..self.geometry.fats_end;
        self.cache.borrow_mut().sync_ordered(&|bytes| {
            if last.iter().any(|place| bytes.contains(place)) { 2 } else { u8::from(tables.contains(&bytes.start)) }
        })
    }

    /// Empties the entry of a file whose chain cannot be followed.
    fn sever(&self, entry: &Entry) -> Result<(), ZoneError> {
        let mut cache = self.cache.borrow_mut();
        cache.write_at(entry.position + 20, &[0; 2])?;
        cache.write_at(entry.position + 26, &[0; 6])
    }

    fn byte_at(&self, place: u64) -> Result<u8, ZoneError> {
        let mut byte = [0];
        self.cache.borrow_mut().read_at(place, &mut byte)?;
        Ok(byte[0])
    }

    /// The directory that holds the name at the end of `path`.
    fn parent_of(&self, path: &str) -> Result<Directory, ZoneError> {
        match path.rsplit_once('/') {
            Some((parent, _)) => Ok(self.entry(parent)?.ok_or(ZoneError::Corrupt)?.directory()),
            None => Ok(Directory::Root),
        }
    }

    /// Makes sure that `fatfs` can follow what it is about to free.
    fn make_followable(&self, entry: &Entry) -> Result<(), ZoneError> {
        match self.walk(|walk| walk.check_file(entry)) {
            Err(ZoneError::Corrupt) => self.sever(entry),
            Err(error) => Err(error),
            Ok(chain) => self.walk(|walk| walk.tie(chain)),
        }
    }

    fn make_parents(&self, path: &str) -> Result<(), ZoneError> {
        check_names(path)?;
        match path.rsplit_once('/') {
            Some((parent, _)) => self.create_dir_all(parent),
            None => Ok(()),
        }
    }

    /// Has `fatfs` add a name, in the root directory with more care than it takes (0.3.6): where that cannot grow, it would
    /// write a part of the name's entries; where it grows, what stood in its new clusters before would count as entries.
    /// `spare`: entries that become free at the same time.
    fn add_name<T>(&self, path: &str, spare: usize, add: impl FnOnce() -> io::Result<T>) -> Result<T, ZoneError> {
        if path.contains('/') {
            return add().map_err(fault);
        }
        let needed = entries_of(path);
        let (before, has_room) = self.walk(|walk| Ok((walk.root_pieces()?, walk.root_has_room(needed)?)))?;
        let bytes: u64 = before.iter().map(|piece| piece.end - piece.start).sum();
        let grows = matches!(self.geometry.root, Root::Cluster(_)) && bytes < MAX_DIRECTORY_BYTES;
        if !has_room && !grows && spare < needed {
            return Err(ZoneError::Full);
        }
        let added = add().map_err(fault);
        let after = self.walk(|walk| walk.root_pieces())?;
        if after.len() > before.len() {
            let behind = match &added {
                Ok(_) => self.entry(path)?.ok_or(ZoneError::Corrupt)?.position + DIRECTORY_ENTRY_BYTES,
                Err(_) => after[before.len()].start,
            };
            self.walk(|walk| walk.clear(&after[before.len()..], behind))?;
        }
        added
    }

    fn add_file<'a>(&'a self, path: &str) -> Result<FatFile<'a, Z>, ZoneError> {
        let mounted = self.mounted()?;
        let file = self.add_name(path, 0, || mounted.root_dir().create_file(path))?;
        Ok(FatFile::writer(self, file, 0))
    }

    /// Makes one directory whose parent exists, and puts its first sector right.
    ///
    /// `fatfs` 0.3.6 writes the entries `.` and `..` with long names before them, where every other driver expects them
    /// to stand first and alone.
    fn create_one_dir(&self, path: &str) -> Result<(), ZoneError> {
        let mounted = self.mounted()?;
        self.locate(path)?;
        self.add_name(path, 0, || mounted.root_dir().create_dir(path))?;
        let made = self.entry(path)?.ok_or(ZoneError::Corrupt)?;
        let parent = match path.rsplit_once('/') {
            Some((parent, _)) => self.entry(parent)?.ok_or(ZoneError::Corrupt)?.first_cluster,
            // The root is 0 in a `..` entry, whatever its cluster (FAT specification, section 6.5).
            None => 0,
        };
        let place = self.geometry.cluster_at(made.first_cluster)?;
        let mut sector = [0; 512];
        sector[..32].copy_from_slice(&dot_entry(b".          ", made.first_cluster));
        sector[32..64].copy_from_slice(&dot_entry(b"..         ", parent));
        self.cache.borrow_mut().write_at(place, &sector)?;
        // Never an entry that leads to a directory without contents.
        self.sync(&[made.position])
    }
}

fn dot_entry(name: &[u8; 11], cluster: u32) -> [u8; 32] {
    let mut entry = [0; 32];
    entry[..11].copy_from_slice(name);
    entry[11] = 0x10;
    entry[16..18].copy_from_slice(&0x0021u16.to_le_bytes());
    entry[18..20].copy_from_slice(&0x0021u16.to_le_bytes());
    entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    entry[24..26].copy_from_slice(&0x0021u16.to_le_bytes());
    entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    entry
}

impl<Z: RawZone> FreeZone for RawFat<Z> {
    type File<'a>
        = FatFile<'a, Z>
    where
        Self: 'a;

    fn open<'a>(&'a self, path: &str) -> Result<Option<FatFile<'a, Z>>, ZoneError> {
        match self.entry(path)? {
            Some(entry) if !entry.is_directory() => self.walk(|walk| FatFile::reader(self, walk, &entry)).map(Some),
            _ => Ok(None),
        }
    }

    fn open_rw<'a>(&'a self, path: &str) -> Result<FatFile<'a, Z>, ZoneError> {
        let mounted = self.mounted()?;
        self.make_parents(path)?;
        let length = match self.locate(path)? {
            Found::Entry(entry) if entry.is_directory() => return Err(ZoneError::BadPath),
            Found::Entry(entry) => {
                self.walk(|walk| walk.check_file(&entry).and_then(|chain| walk.tie(chain)))?;
                u64::from(entry.size)
            }
            Found::Free => return self.add_file(path),
            Found::NoParent | Found::NotADirectory => return Err(ZoneError::BadPath),
        };
        let file = mounted.root_dir().open_file(path).map_err(fault)?;
        Ok(FatFile::writer(self, file, length))
    }

    fn create<'a>(&'a self, path: &str) -> Result<FatFile<'a, Z>, ZoneError> {
        self.mounted()?;
        self.make_parents(path)?;
        match self.locate(path)? {
            Found::Entry(entry) if entry.is_directory() => return Err(ZoneError::BadPath),
            Found::Entry(_) => {
                // No entry over clusters that are free, whatever is cut: its end is durable before they are given away.
                self.remove(path)?;
                self.sync(&[])?;
            }
            Found::Free => {}
            Found::NoParent | Found::NotADirectory => return Err(ZoneError::BadPath),
        }
        self.add_file(path)
    }

    fn metadata(&self, path: &str) -> Result<Option<Metadata>, ZoneError> {
        Ok(self.entry(path)?.as_ref().map(Entry::metadata))
    }

    fn list(&self, path: &str, visit: &mut dyn FnMut(&str, Metadata) -> ControlFlow<()>) -> Result<(), ZoneError> {
        let directory = match path {
            "" => Directory::Root,
            path => match self.entry(path)? {
                Some(entry) if entry.is_directory() => entry.directory(),
                _ => return Ok(()),
            },
        };
        // Collected first: the visitor may use the zone.
        let mut found = Vec::new();
        self.walk(|walk| {
            walk.directory(directory, &mut |name, entry| {
                found.push(listed(name.text(), entry.metadata()));
                ControlFlow::Continue(())
            })
        })?;
        for (name, metadata) in found {
            if visit(&name, metadata).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn spells_exactly(&self) -> bool {
        true
    }

    fn remove(&self, path: &str) -> Result<bool, ZoneError> {
        if self.entry(path)?.is_none() {
            return Ok(false);
        }
        let mounted = self.mounted()?;
        let Some(entry) = self.entry(path)? else { return Ok(false) };
        if entry.is_directory() {
            let mut empty = true;
            let walked = self.walk(|walk| {
                walk.directory(entry.directory(), &mut |_, _| {
                    empty = false;
                    ControlFlow::Break(())
                })
            });
            match walked {
                // What was in it is lost; `fatfs` would follow what it leads to.
                Err(ZoneError::Corrupt) => {
                    self.cache.borrow_mut().write_at(entry.position, &[DELETED])?;
                    return Ok(true);
                }
                walked => walked?,
            }
            if !empty {
                return Err(NOT_EMPTY);
            }
        } else {
            self.make_followable(&entry)?;
        }
        mounted.root_dir().remove(path).map_err(fault)?;
        Ok(true)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), ZoneError> {
        let mounted = self.mounted()?;
        let source = self.entry(from)?.ok_or(ZoneError::NotFound)?;
        self.make_parents(to)?;
        match self.locate(to)? {
            Found::Entry(entry) if entry.position == source.position => return Ok(()),
            Found::Entry(entry) if entry.is_directory() || source.is_directory() => return Err(ZoneError::BadPath),
            Found::Entry(_) => {
                self.remove(to)?;
            }
            Found::Free => {}
            Found::NoParent | Found::NotADirectory => return Err(ZoneError::BadPath),
        }
        if source.is_directory() && is_inside(to, from) {
            return Err(ZoneError::BadPath);
        }
        let (root, first) = (mounted.root_dir(), self.byte_at(source.position)?);
        let spare = if from.contains('/') { 0 } else { entries_of(from) };
        if let Err(error) = self.add_name(to, spare, || root.rename(from, &root, to)) {
            // The old name goes before the new one is there (`fatfs` 0.3.6).
            let directory = self.parent_of(from)?;
            self.walk(|walk| walk.put_back(directory, source.position, first))?;
            return Err(error);
        }
        if source.is_directory() {
            self.point_to_parent(to)?;
        }
        Ok(())
    }

    fn create_dir_all(&self, path: &str) -> Result<(), ZoneError> {
        if path.is_empty() {
            return Ok(());
        }
        check_names(path)?;
        match self.locate(path)? {
            Found::Entry(entry) if entry.is_directory() => return Ok(()),
            Found::Entry(_) | Found::NotADirectory => return Err(ZoneError::BadPath),
            Found::Free => {}
            Found::NoParent => {
                if let Some((parent, _)) = path.rsplit_once('/') {
                    self.create_dir_all(parent)?;
                }
            }
        }
        self.create_one_dir(path)
    }

    fn sync_dir(&self, path: &str) -> Result<(), ZoneError> {
        if !path.is_empty() && !self.entry(path)?.is_some_and(|entry| entry.is_directory()) {
            return Err(ZoneError::NotFound);
        }
        self.sync(&[])
    }

    /// FAT has no such mark.
    fn set_executable(&self, path: &str, _executable: bool) -> Result<(), ZoneError> {
        match self.entry(path)? {
            Some(entry) if !entry.is_directory() => Ok(()),
            _ => Err(ZoneError::NotFound),
        }
    }

    fn free_bytes(&self) -> Result<u64, ZoneError> {
        let free = self.walk(|walk| walk.free_clusters())?;
        Ok(free * u64::from(self.geometry.cluster_bytes))
    }
}

impl<Z: RawZone> RawFat<Z> {
    /// Puts the `..` of a moved directory right, which `fatfs` leaves at the old parent.
    fn point_to_parent(&self, path: &str) -> Result<(), ZoneError> {
        let moved = self.entry(path)?.ok_or(ZoneError::Corrupt)?;
        let parent = match path.rsplit_once('/') {
            Some((parent, _)) => self.entry(parent)?.ok_or(ZoneError::Corrupt)?.first_cluster,
            None => 0,
        };
        let place = self.geometry.cluster_at(moved.first_cluster)? + 32;
        let mut cache = self.cache.borrow_mut();
        let mut name = [0; 11];
        cache.read_at(place, &mut name)?;
        if name == *b"..         " {
            cache.write_at(place, &dot_entry(b"..         ", parent))?;
        }
        Ok(())
    }
}

/// An entry as it may be listed. A name that is no component of a path, which only a foreign writer makes, must not be
/// taken for the way to another file: it is shown with replacement characters, and as neither file nor directory.
fn listed(name: String, metadata: Metadata) -> (String, Metadata) {
    if !name.contains('/') && check_path(&name).is_ok() {
        return (name, metadata);
    }
    let barred = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    let shown: String = name.chars().map(|c| if barred(c) { char::REPLACEMENT_CHARACTER } else { c }).collect();
    let shown = match shown.as_str() {
        "" | "." | ".." => format!("{shown}{}", char::REPLACEMENT_CHARACTER),
        _ => shown,
    };
    (shown, Metadata { length: metadata.length, kind: Kind::Other })
}

/// Whether `path` is `directory` or lies in it, as FAT compares names.
fn is_inside(path: &str, directory: &str) -> bool {
    let upper = |text: &str| text.split('/').map(str::to_uppercase).collect::<Vec<_>>();
    upper(path).starts_with(&upper(directory))
}

/// How many entries the name at the end of `path` takes: `fatfs` gives each a long name, too.
fn entries_of(path: &str) -> usize {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.encode_utf16().count().div_ceil(UNITS_PER_ENTRY) + 1
}

/// Checks that FAT can hold every name in `path`.
fn check_names(path: &str) -> Result<(), ZoneError> {
    check_path(path)?;
    let sound = |name: &str| {
        name.encode_utf16().count() <= MAX_NAME_UNITS
            // `fatfs` counts bytes and knows no characters beyond the basic plane.
            && name.len() <= MAX_NAME_UNITS
            && name.chars().all(|c| c <= '\u{FFFF}' && !matches!(c, '"' | '*' | '<' | '>' | '?' | '|' | '\u{7F}'))
            && !name.ends_with(['.', ' '])
    };
    if path.split('/').all(sound) { Ok(()) } else { Err(ZoneError::BadPath) }
}

/// A fault of `fatfs` as a zone's fault.
fn fault(error: io::Error) -> ZoneError {
    // The library names these by their text alone.
    match error.to_string().as_str() {
        "No space left on device" => ZoneError::Full,
        "File name contains unsupported characters" | "File name too long" | "File name is empty" => ZoneError::BadPath,
        _ => match from_io(error) {
            ZoneError::Io(0) => ZoneError::Corrupt,
            other => other,
        },
    }
}
