//! The partition table of a *stick* or of the disk half of a *dual* device.
//!
//! Three partitions, in this order, each from one 4 MiB boundary to another:
//!
//! | name | type | attributes |
//! |---|---|---|
//! | `HOLDFAST-FREE` | basic data | none |
//! | `HOLDFAST-VIRTUAL` (not in *dual*) | basic data | 60, 62, 63: read-only, hidden, no drive letter |
//! | `HOLDFAST-HIDDEN` | [`TYPE_HIDDEN`] | 62, 63: hidden, no drive letter |
//!
//! A zone is found by name and type together. The primary table is believed if it is whole, else the backup at the end. The
//! disk's GUID is the device's own: [`disk_guid`].
//! A table with parts that overlap or leave the disk is refused as a whole. Source: UEFI specification 2.10, chapter 5.

use gptman::{GPT, GPTHeader, GPTPartitionEntry};

use super::block_cache::{BlockCache, CacheStream, from_io};
use crate::digest::Hasher;
use crate::key_slot::DeviceId;
use crate::storage::{read_exact_at, write_all_at};
use crate::{RawZone, ZoneError};

/// Microsoft's basic data, `EBD0A0A2-B9E5-4433-87C0-68B6B72699C7`, as it stands on the disk.
pub const TYPE_BASIC_DATA: [u8; 16] = guid(0xEBD0_A0A2, 0xB9E5, 0x4433, 0x87C0_68B6_B726_99C7);
/// Holdfast's hidden zone, `7B0E3C5A-91D4-4F6B-A8C2-5D1F60E97A34`, as it stands on the disk.
pub const TYPE_HIDDEN: [u8; 16] = guid(0x7B0E_3C5A, 0x91D4, 0x4F6B, 0xA8C2_5D1F_60E9_7A34);
/// The free zone's partition.
pub const NAME_FREE: &str = "HOLDFAST-FREE";
/// The virtual zone's partition.
pub const NAME_VIRTUAL: &str = "HOLDFAST-VIRTUAL";
/// The hidden zone's partition.
pub const NAME_HIDDEN: &str = "HOLDFAST-HIDDEN";

/// Where partitions start and end.
pub const ALIGN_BYTES: u64 = 4 * 1024 * 1024;
/// The sector size of new tables.
pub const SECTOR_BYTES: u64 = 512;
/// Sector sizes that a table is looked for with.
const SECTOR_SIZES: [u64; 2] = [512, 4096];
/// The most entries read of a table.
const MAX_ENTRIES: u32 = 1024;
/// The size of an entry; other sizes exist on paper only.
const ENTRY_BYTES: u32 = 128;

const READ_ONLY: u64 = 1 << 60;
const HIDDEN: u64 = 1 << 62;
const NO_DRIVE_LETTER: u64 = 1 << 63;
/// The zones: name, type and attributes of their partitions.
const ZONES: [(&str, [u8; 16], u64); 3] = [
    (NAME_FREE, TYPE_BASIC_DATA, 0),
    (NAME_VIRTUAL, TYPE_BASIC_DATA, READ_ONLY | HIDDEN | NO_DRIVE_LETTER),
    (NAME_HIDDEN, TYPE_HIDDEN, HIDDEN | NO_DRIVE_LETTER),
];
/// Where an MBR has its four entries, and where a protective one has its entry's type, number of sectors, and the others.
const MBR_ENTRIES: std::ops::Range<usize> = 446..510;
const MBR_ENTRY_BYTES: usize = 16;
const MBR_TYPE_AT: usize = 450;
const MBR_SECTORS_AT: u64 = 458;
const MBR_OTHERS: std::ops::Range<usize> = 462..510;
/// The type of the entry that says: look for a GPT.
const MBR_PROTECTIVE: u8 = 0xEE;

/// What stands in place of the primary header while a device is being written, filled up with zeros.
const UNFINISHED: &[u8; 29] = b"HOLDFAST-WRITE-NOT-FINISHED\r\n";

/// What marks a file system that has no boot sector, and where: ext2 to ext4, XFS, LUKS, Btrfs.
const FILE_SYSTEMS: [(u64, &[u8]); 4] = [(1080, &[0x53, 0xEF]), (0, b"XFSB"), (0, b"LUKS"), (65_600, b"_BHRfS_M")];

const fn guid(a: u32, b: u16, c: u16, d: u64) -> [u8; 16] {
    let (a, b, c, d) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes(), d.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// A stretch of the disk in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

impl Extent {
    /// The first byte after it.
    pub fn end(&self) -> u64 {
        self.start + self.length
    }
}

/// Where the zones of a new disk go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The free zone.
    pub free: Extent,
    /// The virtual zone.
    pub virtual_zone: Option<Extent>,
    /// The hidden zone.
    pub hidden: Extent,
}

impl Plan {
    /// Lays out a disk of `disk_bytes`: the zones asked for at the end, the rest is free zone. Sizes are rounded up to
    /// whole erase blocks.
    ///
    /// # Errors
    /// `Full` where less than one block would be left for the free zone.
    pub fn new(disk_bytes: u64, virtual_bytes: Option<u64>, hidden_bytes: u64) -> Result<Self, ZoneError> {
        let round = |bytes: u64| bytes.checked_next_multiple_of(ALIGN_BYTES).ok_or(ZoneError::Full);
        let virtual_length = virtual_bytes.map(round).transpose()?;
        let hidden_length = round(hidden_bytes)?;
        // The backup table takes the last 33 sectors.
        let usable = disk_bytes.saturating_sub(33 * SECTOR_BYTES) / ALIGN_BYTES * ALIGN_BYTES;
        let taken = hidden_length.checked_add(virtual_length.unwrap_or(0)).ok_or(ZoneError::Full)?;
        let free_end = usable.checked_sub(taken).filter(|end| *end > ALIGN_BYTES).ok_or(ZoneError::Full)?;
        let free = Extent { start: ALIGN_BYTES, length: free_end - ALIGN_BYTES };
        let virtual_zone = virtual_length.map(|length| Extent { start: free_end, length });
        let hidden = Extent { start: usable - hidden_length, length: hidden_length };
        Ok(Self { free, virtual_zone, hidden })
    }
}

/// The numbers of a table, all from the caller.
#[derive(Debug, Clone, Copy)]
pub struct Guids {
    /// The disk's.
    pub disk: [u8; 16],
    /// Of the free, virtual and hidden partition.
    pub partitions: [[u8; 16]; 3],
}

impl Guids {
    /// Those of the device `id`: the disk's is [`disk_guid`], the partitions' are 48 random bytes, marked as version 4.
    pub fn new(id: &DeviceId, random: &[u8; 48]) -> Self {
        let mut partitions = [[0; 16]; 3];
        for (guid, random) in partitions.iter_mut().zip(random.chunks_exact(16)) {
            *guid = marked(random, 4);
        }
        Self { disk: disk_guid(id), partitions }
    }
}

/// The GUID of the disk of the device `id`, as it stands on the disk: the first 16 bytes of SHA-256 over
/// `holdfast disk guid v1`, a zero byte and the id, marked as version 8 (RFC 9562, section 5.8). So a table shows whose it is:
/// each slot header of the hidden zone names the device in plain text.
pub fn disk_guid(id: &DeviceId) -> [u8; 16] {
    let mut hasher = Hasher::new();
    hasher.update(b"holdfast disk guid v1\0");
    hasher.update(&id.0);
    marked(&hasher.finish().0, 8)
}

/// A GUID of the first 16 bytes, marked as of this version and of the variant of RFC 9562.
fn marked(bytes: &[u8], version: u8) -> [u8; 16] {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[..16]);
    guid[7] = guid[7] & 0x0F | version << 4;
    guid[8] = guid[8] & 0x3F | 0x80;
    guid
}

/// Writes the protective MBR and both tables: the backup first, so that at any cut one of the two is whole.
///
/// # Errors
/// `OutOfBounds` where the plan does not fit the disk, else what the storage reports.
pub fn write<Z: RawZone>(disk: Z, plan: &Plan, guids: &Guids) -> Result<(), ZoneError> {
    let mut cache = BlockCache::with_sizes(disk, SECTOR_BYTES as usize, 256)?;
    let mut table = GPT::new_from(&mut CacheStream::new(&mut cache), SECTOR_BYTES, guids.disk).map_err(failed)?;
    let extents = [Some(plan.free), plan.virtual_zone, Some(plan.hidden)];
    let mut number = 0;
    for (((name, type_guid, attributes), extent), unique) in ZONES.into_iter().zip(extents).zip(guids.partitions) {
        let Some(extent) = extent else { continue };
        number += 1;
        let (first, last) = (extent.start / SECTOR_BYTES, extent.end() / SECTOR_BYTES - 1);
        if first < table.header.first_usable_lba || last > table.header.last_usable_lba {
            return Err(ZoneError::OutOfBounds);
        }
        table[number] = GPTPartitionEntry {
            partition_type_guid: type_guid,
            unique_partition_guid: unique,
            starting_lba: first,
            ending_lba: last,
            attribute_bits: attributes,
            partition_name: name.into(),
        };
    }
    let entries: Vec<GPTPartitionEntry> = table.iter().map(|(_, entry)| entry.clone()).collect();
    write_copies(&mut cache, SECTOR_BYTES, &table.header, &entries, Copy::Primary)?;
    GPT::write_protective_mbr_into(&mut CacheStream::new(&mut cache), SECTOR_BYTES).map_err(failed)?;
    cache.sync()
}

/// Makes `disk` one that no system takes for anything, until a table is written to it: without its first sector and without a
/// header of either copy, in any sector size, and with a mark that says why.
///
/// # Errors
/// What the storage reports.
pub fn mark_unfinished<Z: RawZone>(mut disk: Z) -> Result<(), ZoneError> {
    let length = disk.len()?;
    let mut mark = [0; SECTOR_BYTES as usize];
    let headers = SECTOR_SIZES.into_iter().flat_map(|sector| [sector, (length / sector).saturating_sub(1) * sector]);
    for at in headers.chain([0]).filter(|at| *at != SECTOR_BYTES) {
        write_all_at(&mut disk, at, &mark)?;
    }
    mark[..UNFINISHED.len()].copy_from_slice(UNFINISHED);
    write_all_at(&mut disk, SECTOR_BYTES, &mark)?;
    disk.flush()
}

/// Both copies, the one that is `kept` last; `header` is the primary's, for this disk. A copy that stands there already is not
/// written.
fn write_copies<Z: RawZone>(
    cache: &mut BlockCache<Z>,
    sector: u64,
    header: &GPTHeader,
    entries: &[GPTPartitionEntry],
    kept: Copy,
) -> Result<(), ZoneError> {
    let mut backup = header.clone();
    (backup.primary_lba, backup.backup_lba) = (header.backup_lba, header.primary_lba);
    backup.partition_entry_lba = header.last_usable_lba + 1;
    let mut copies = [(Copy::Backup, backup), (Copy::Primary, header.clone())];
    if kept == Copy::Backup {
        copies.reverse();
    }
    for (copy, mut header) in copies {
        header.update_partition_entry_array_crc32(entries);
        header.update_crc32_checksum();
        let there = read_copy(cache, sector, header.primary_lba, copy);
        if there.is_ok_and(|there| there.raw.header == header && there.raw.entries == entries) {
            continue;
        }
        // Zeros behind the header (UEFI 2.10, table 5-5), whatever stood there.
        cache.write_at(header.primary_lba * sector, &vec![0; sector as usize])?;
        header.write_into(&mut CacheStream::new(cache), sector, entries).map_err(failed)?;
        cache.sync()?;
    }
    Ok(())
}

/// What a table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The disk's GUID.
    pub disk_guid: [u8; 16],
    /// Which of the two copies was read.
    pub copy: Copy,
    /// Whether the other copy says the same.
    pub both_agree: bool,
    /// Partitions in use: name, type, attributes, place.
    pub partitions: Vec<Partition>,
    /// The copy that was read, as it stands on the disk.
    raw: Raw,
}

/// A copy of a table as it stands on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Raw {
    sector: u64,
    header: GPTHeader,
    entries: Vec<GPTPartitionEntry>,
}

/// Which copy of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copy {
    /// The one at the start.
    Primary,
    /// The one at the end.
    Backup,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its place in the table, from 1: the number that a system gives it.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_guid: [u8; 16],
    /// Its own GUID.
    pub unique_guid: [u8; 16],
    /// Its attribute bits.
    pub attributes: u64,
    /// Its place.
    pub extent: Extent,
}

impl Partition {
    fn is(&self, name: &str, type_guid: &[u8; 16]) -> bool {
        self.name == name && self.type_guid == *type_guid
    }

    fn is_zone(&self) -> bool {
        ZONES.iter().any(|(name, type_guid, _)| self.is(name, type_guid))
    }
}

/// Why a disk's table is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Nothing like a table at either end.
    #[error("there is no GUID partition table")]
    None,
    /// A device whose writing began and did not end: [`mark_unfinished`].
    #[error("writing it was begun and not finished: write it anew")]
    Unfinished,
    /// Parts overlap, or leave the disk.
    #[error("the partition table contradicts itself or the disk's length")]
    Contradictory,
    /// A sound table without Holdfast's partitions.
    #[error("the partitions are not Holdfast's")]
    Foreign,
    /// The disk could not be read.
    #[error("the disk could not be read")]
    Storage(#[source] ZoneError),
}

/// Both copies of a table, each read by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// The one at the start.
    pub primary: Result<Table, TableError>,
    /// The one at the end.
    pub backup: Result<Table, TableError>,
}

impl Copies {
    /// Reads both copies of `disk`, with the first sector size for which one of them is sound.
    ///
    /// # Errors
    /// What the storage reports for its length; a copy that can't be read is `Storage` by itself.
    pub fn read<Z: RawZone>(disk: Z) -> Result<Self, ZoneError> {
        let mut cache = BlockCache::with_sizes(disk, 4096, 64)?;
        let mut none = Self { primary: Err(TableError::None), backup: Err(TableError::None) };
        for sector in SECTOR_SIZES {
            let end = cache.length() / sector;
            if end < 8 {
                continue;
            }
            let mut copies = Self {
                primary: read_copy(&mut cache, sector, 1, Copy::Primary),
                backup: read_copy(&mut cache, sector, end - 1, Copy::Backup),
            };
            let agree = copies.agree();
            let mut sound = false;
            for table in [&mut copies.primary, &mut copies.backup].into_iter().flatten() {
                (table.both_agree, sound) = (agree, true);
            }
            if sound {
                return Ok(copies);
            }
            // Something is said of more than of nothing.
            for (kept, found) in [(&mut none.primary, copies.primary), (&mut none.backup, copies.backup)] {
                if found != Err(TableError::None) {
                    *kept = found;
                }
            }
        }
        Ok(none)
    }

    /// Whether both are sound and say the same.
    pub fn agree(&self) -> bool {
        matches!((&self.primary, &self.backup), (Ok(a), Ok(b)) if a.says_the_same(b))
    }

    /// The table to go by: the primary, or else the backup.
    ///
    /// # Errors
    /// Why neither is of use.
    pub fn into_table(self) -> Result<Table, TableError> {
        match (self.primary, self.backup) {
            (Ok(table), _) | (_, Ok(table)) => Ok(table),
            // A copy that is there in part was being written then.
            (Err(TableError::Unfinished), _) => Err(TableError::Unfinished),
            (Err(fault), Err(TableError::None)) | (Err(_), Err(fault)) => Err(fault),
        }
    }
}

/// What stands at the start of a disk with a GPT, its boot code apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mbr {
    /// A protective MBR, or a hybrid one.
    Sound,
    /// A protective one that says another length than the disk's.
    OtherLength,
    /// No entry that is of use to anybody.
    Damaged,
    /// Partitions, and nothing that says: look for a GPT.
    Partitions,
    /// A file system over the whole disk.
    FileSystem,
}

impl Mbr {
    fn of(sector: &[u8; 512], disk_end: u64) -> Self {
        if sector[510..] != [0x55, 0xAA] {
            return Self::Damaged;
        }
        let u32_at = |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
        let (mut protective, mut others) = (None, 0);
        for at in MBR_ENTRIES.step_by(MBR_ENTRY_BYTES) {
            // No partition starts in the sector behind the MBR: that is what is left of a protective entry.
            match (sector[at + 4], u32_at(at + 8), u32_at(at + 12)) {
                (0, ..) | (_, _, 0) => {}
                (MBR_PROTECTIVE, 1, sectors) => protective = Some((at, sectors)),
                (MBR_PROTECTIVE, ..) | (_, 1, _) => {}
                _ => others += 1,
            }
        }
        // FAT and NTFS name a sector size there, exFAT its name.
        let sector_bytes = u16::from_le_bytes([sector[11], sector[12]]);
        let jumps = matches!(sector[0], 0xEB | 0xE9);
        match protective {
            None if others > 0 => Self::Partitions,
            None if jumps && (matches!(sector_bytes, 512..=4096) || sector[3..8] == *b"EXFAT") => Self::FileSystem,
            None => Self::Damaged,
            Some((at, sectors)) if others == 0 && at == MBR_ENTRIES.start => {
                let length = u32::try_from(disk_end).unwrap_or(u32::MAX);
                match sectors == length || sectors == u32::MAX {
                    _ if sector[MBR_OTHERS].iter().any(|byte| *byte != 0) => Self::Damaged,
                    true => Self::Sound,
                    false => Self::OtherLength,
                }
            }
            Some(_) => Self::Sound,
        }
    }
}

impl Table {
    /// Reads the table of `disk`, from the primary or else the backup copy.
    ///
    /// # Errors
    /// `None` or `Contradictory` where neither copy is of use, `Storage` where the disk can't be read.
    pub fn read<Z: RawZone>(disk: Z) -> Result<Self, TableError> {
        Copies::read(disk).map_err(TableError::Storage)?.into_table()
    }

    /// The sectors that the table counts in, in bytes.
    pub fn sector_bytes(&self) -> u64 {
        self.raw.sector
    }

    /// The place of the zone called `name`, of type `type_guid`.
    pub fn find(&self, name: &str, type_guid: &[u8; 16]) -> Option<Extent> {
        self.partitions.iter().find(|partition| partition.is(name, type_guid)).map(|partition| partition.extent)
    }

    /// The free zone.
    pub fn free(&self) -> Option<Extent> {
        self.find(NAME_FREE, &TYPE_BASIC_DATA)
    }

    /// The virtual zone.
    pub fn virtual_zone(&self) -> Option<Extent> {
        self.find(NAME_VIRTUAL, &TYPE_BASIC_DATA)
    }

    /// The hidden zone.
    pub fn hidden(&self) -> Option<Extent> {
        self.find(NAME_HIDDEN, &TYPE_HIDDEN)
    }

    /// Partitions that are zones.
    pub fn zones(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter(|partition| partition.is_zone())
    }

    /// Partitions that are no zone: a board's own.
    pub fn others(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter(|partition| !partition.is_zone())
    }

    /// Writes this table onto a disk that holds the same bytes up to the end of the disk that it was read from, and may go on
    /// behind that: every partition stays what it is, whoever's it is, and the copies stand where this disk has them. The disk
    /// and the zones get `guids`; without them everything keeps its own. The copy that was read is written last, so that at any
    /// cut one of the two is whole. Of the protective MBR only the length is written, of one with entries of its own (a hybrid one)
    /// nothing.
    ///
    /// # Errors
    /// `OutOfBounds` where a partition does not fit the disk or stands where the table is to be, else what the storage reports.
    pub fn write<Z: RawZone>(&self, disk: Z, guids: Option<&Guids>) -> Result<(), ZoneError> {
        let Raw { sector, header, entries } = &self.raw;
        let (sector, mut header, mut entries) = (*sector, header.clone(), entries.clone());
        let mut cache = BlockCache::with_sizes(disk, SECTOR_BYTES as usize, 256)?;
        let array = (entries.len() as u64 * u64::from(ENTRY_BYTES)).div_ceil(sector);
        let end = (cache.length() / sector).checked_sub(1).ok_or(ZoneError::OutOfBounds)?;
        let last_usable = end.checked_sub(array + 1).ok_or(ZoneError::OutOfBounds)?;
        if self.copy == Copy::Backup {
            // Where the primary has its entries is not known; this is where nearly all have them.
            header.partition_entry_lba = 2;
        }
        let front = header.partition_entry_lba..header.partition_entry_lba.saturating_add(array);
        let meets = |entry: &GPTPartitionEntry| entry.starting_lba < front.end && front.start <= entry.ending_lba;
        if entries.iter().any(|entry| entry.is_used() && (entry.ending_lba > last_usable || meets(entry))) {
            return Err(ZoneError::OutOfBounds);
        }
        (header.primary_lba, header.backup_lba, header.last_usable_lba) = (1, end, last_usable);
        if let Some(guids) = guids {
            header.disk_guid = guids.disk;
            for ((name, type_guid, _), unique) in ZONES.into_iter().zip(guids.partitions) {
                let is = |entry: &&mut GPTPartitionEntry| {
                    entry.partition_name.as_str() == name && entry.partition_type_guid == type_guid
                };
                if let Some(entry) = entries.iter_mut().find(is) {
                    entry.unique_partition_guid = unique;
                }
            }
        }
        write_copies(&mut cache, sector, &header, &entries, self.copy)?;
        let mut mbr = [0; 512];
        cache.read_at(0, &mut mbr)?;
        if mbr[MBR_TYPE_AT] == MBR_PROTECTIVE && mbr[MBR_OTHERS].iter().all(|byte| *byte == 0) {
            // All that is behind it, or what the field can say of that (UEFI 2.10, table 5-4).
            let sectors = u32::try_from(end).unwrap_or(u32::MAX);
            cache.write_at(MBR_SECTORS_AT, &sectors.to_le_bytes())?;
            cache.sync()?;
        }
        Ok(())
    }

    /// What stands at the start of `disk`, which has this table.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn mbr<Z: RawZone>(&self, mut disk: Z) -> Result<Mbr, ZoneError> {
        let mut sector = [0; 512];
        let end = (disk.len()? / self.raw.sector).saturating_sub(1);
        read_exact_at(&mut disk, 0, &mut sector)?;
        let mbr = Mbr::of(&sector, end);
        for (at, mark) in FILE_SYSTEMS.iter().filter(|_| mbr == Mbr::Damaged) {
            let mut block = [0; 512];
            read_exact_at(&mut disk, at / SECTOR_BYTES * SECTOR_BYTES, &mut block)?;
            if block[(at % SECTOR_BYTES) as usize..].starts_with(mark) {
                return Ok(Mbr::FileSystem);
            }
        }
        Ok(mbr)
    }

    /// Writes a protective MBR for this table into the first sector of `disk`. Boot code and disk signature, which are in front of
    /// its entries, stay.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn write_mbr<Z: RawZone>(&self, disk: Z) -> Result<(), ZoneError> {
        let mut cache = BlockCache::with_sizes(disk, SECTOR_BYTES as usize, 256)?;
        GPT::write_protective_mbr_into(&mut CacheStream::new(&mut cache), self.raw.sector).map_err(failed)?;
        cache.sync()
    }

    /// Whether at least one partition is Holdfast's.
    pub fn is_holdfast(&self) -> bool {
        self.free().is_some() || self.virtual_zone().is_some() || self.hidden().is_some()
    }

    fn says_the_same(&self, other: &Self) -> bool {
        self.disk_guid == other.disk_guid && self.partitions == other.partitions
    }
}

fn read_copy<Z: RawZone>(cache: &mut BlockCache<Z>, sector: u64, lba: u64, copy: Copy) -> Result<Table, TableError> {
    let mut raw = [0; 512];
    let place = lba.checked_mul(sector).ok_or(TableError::Contradictory)?;
    cache.read_at(place, &mut raw).map_err(TableError::Storage)?;
    let u32_at = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if place == SECTOR_BYTES && raw.starts_with(UNFINISHED) {
        return Err(TableError::Unfinished);
    }
    if raw[..8] != *b"EFI PART" {
        return Err(TableError::None);
    }
    // The library allocates by these numbers and asserts the entries' size: they are checked before it sees them.
    let (count, size, array) = (u32_at(80), u32_at(84), u64_at(72));
    let bytes = u64::from(count) * u64::from(size);
    let sectors = cache.length() / sector;
    let fits = array.checked_add(bytes.div_ceil(sector)).is_some_and(|end| end <= sectors);
    if count == 0 || count > MAX_ENTRIES || size != ENTRY_BYTES || !fits || u64_at(24) != lba {
        return Err(TableError::Contradictory);
    }
    let header = GPTHeader::read_from(&mut std::io::Cursor::new(&raw[..])).map_err(table_fault)?;
    let found = header.read_partitions(&mut CacheStream::new(cache), sector).map_err(table_fault)?;
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(&found).filter(|(_, entry)| entry.is_used()) {
        let (first, last) = (entry.starting_lba, entry.ending_lba);
        let inside = first >= header.first_usable_lba.max(1) && last >= first && last < sectors;
        if !inside {
            return Err(TableError::Contradictory);
        }
        partitions.push(Partition {
            number,
            name: entry.partition_name.as_str().to_owned(),
            type_guid: entry.partition_type_guid,
            unique_guid: entry.unique_partition_guid,
            attributes: entry.attribute_bits,
            extent: Extent { start: first * sector, length: (last - first + 1) * sector },
        });
    }
    let mut order: Vec<Extent> = partitions.iter().map(|partition| partition.extent).collect();
    order.sort_by_key(|extent| extent.start);
    if order.windows(2).any(|pair| pair[0].end() > pair[1].start) {
        return Err(TableError::Contradictory);
    }
    let disk_guid = header.disk_guid;
    Ok(Table { disk_guid, copy, both_agree: false, partitions, raw: Raw { sector, header, entries: found } })
}

fn table_fault(error: gptman::Error) -> TableError {
    match error {
        gptman::Error::Io(error) => TableError::Storage(from_io(error)),
        _ => TableError::Contradictory,
    }
}

fn failed(error: gptman::Error) -> ZoneError {
    match error {
        gptman::Error::Io(error) => from_io(error),
        _ => ZoneError::Corrupt,
    }
}
