//! The boot sector of a FAT16 or FAT32 volume: strict reading, and mending it or its copy, each from the other.
//!
//! Source: Microsoft, *FAT: General Overview of On-Disk Format*, 1.03. A volume that passes [`Geometry::parse`] cannot
//! make the arithmetic of a reader overflow, and claims no byte outside its zone. FAT12 is refused: a free zone is never as
//! small. FAT16 keeps no copy. Nothing here but the boot sector, its copy and their summaries of free clusters is written.

use crate::ZoneError;
use crate::storage::{RawZone, read_exact_at, write_all_at};

/// The highest cluster count that leaves the reserved numbers alone.
pub(crate) const MAX_CLUSTERS: u64 = 0x0FFF_FFF4;
/// With this many clusters a volume is no FAT12 any more, and with that many FAT32 (section 3.5).
pub(crate) const MIN_FAT16_CLUSTERS: u64 = 4085;
pub(crate) const MIN_FAT32_CLUSTERS: u64 = 65_525;
/// Bytes of a directory's entry.
pub(crate) const DIRECTORY_ENTRY_BYTES: u64 = 32;
/// The longest table accepted: 256 MiB, enough for 2 TiB in clusters of 32 KiB.
const MAX_FAT_BYTES: u64 = 256 * 1024 * 1024;
/// The largest cluster accepted.
const MAX_CLUSTER_BYTES: u32 = 64 * 1024;
/// The first cluster's number.
pub const FIRST_CLUSTER: u32 = 2;
/// How much longer than its entries a table may be made to fill flash pages, in bytes.
const MAX_TABLE_PADDING: u64 = 128 << 10;

/// The sector that has the copy, as the specification wants it, and the sizes of sectors.
const USUAL_COPY: u64 = 6;
const SECTOR_SIZES: [u64; 4] = [512, 1024, 2048, 4096];
/// Where the boot sector notes that the volume is in use: no copy follows that.
const STATE_AT: usize = 65;
const FAT16_STATE_AT: usize = 37;
/// Where it has the volume's serial number, and the label right behind.
const VOLUME_ID_AT: usize = 67;
const FAT16_VOLUME_ID_AT: usize = 39;
/// So much of a volume ([`Geometry::evidence`]) has to speak for a copy before it takes the place of what cannot be read.
const ENOUGH: u32 = 2;

/// Where the root directory is: what sets FAT16 and FAT32 apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// FAT16: between tables and clusters, of a fixed length.
    Fixed {
        /// In bytes from the volume's start.
        start: u64,
        /// At most 2 MiB.
        bytes: u64,
    },
    /// FAT32: a directory like any, with this cluster as its first.
    Cluster(u32),
}

/// The places of a volume, in bytes from its start.
#[derive(Debug, Clone)]
pub struct Geometry {
    /// Bytes of a cluster.
    pub cluster_bytes: u32,
    /// The table that is read.
    pub fat_start: u64,
    /// Bytes of a table.
    pub fat_bytes: u64,
    /// The end of all tables together.
    pub fats_end: u64,
    /// The first cluster.
    pub data_start: u64,
    /// Clusters, numbered from 2.
    pub clusters: u32,
    /// The root directory.
    pub root: Root,
    /// The summary of free clusters; 0: there is none, as in FAT16.
    pub fs_info: u64,
    /// The copy of the boot sector; 0: there is none.
    pub backup_boot: u64,
    /// The volume's serial number.
    pub volume_id: u32,
    /// The volume's label.
    pub label: [u8; 11],
}

impl Geometry {
    /// Whether both say the same of where tables, clusters and the root directory are.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let places = |of: &Self| (of.cluster_bytes, of.fat_start, of.fat_bytes, of.data_start, of.clusters, of.root);
        places(self) == places(other)
    }

    /// Bytes of a table's entry: 2 or 4.
    pub fn entry_bytes(&self) -> u64 {
        match self.root {
            Root::Fixed { .. } => 2,
            Root::Cluster(_) => 4,
        }
    }

    /// Where in the boot sector is noted that the volume is in use.
    pub fn state_at(&self) -> usize {
        match self.root {
            Root::Fixed { .. } => FAT16_STATE_AT,
            Root::Cluster(_) => STATE_AT,
        }
    }

    /// How much of a volume, of 3, shows that these are its places: each table begins as a table does, the tables are no longer
    /// than the clusters need, and the root directory begins with the label.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn evidence<Z: RawZone + ?Sized>(&self, zone: &mut Z) -> Result<u32, ZoneError> {
        let needed = (u64::from(self.clusters) + u64::from(FIRST_CLUSTER)) * self.entry_bytes();
        let are_as_long = self.fat_bytes <= needed + needed / 4 + MAX_TABLE_PADDING;
        let label_begins = begins_with_label(&self.root_begin(zone)?);
        Ok(u32::from(self.tables_begin(zone)?) + u32::from(are_as_long) + u32::from(label_begins))
    }

    /// Whether a volume that keeps no copy of this has its tables, root directory and clusters at these places, as far as they
    /// tell. One of them that is damaged is no reason to say no.
    ///
    /// # Errors
    /// What the storage reports of the root directory and the tables.
    pub fn fits<Z: RawZone + ?Sized>(&self, zone: &mut Z) -> Result<bool, ZoneError> {
        let root = self.root_begin(zone)?;
        let (mut here, mut elsewhere, mut missed) = (0, 0, 0);
        for entry in root.as_chunks::<{ DIRECTORY_ENTRY_BYTES as usize }>().0 {
            if entry[0] == 0 {
                break;
            }
            // Neither a label, nor a part of a long name, nor removed, nor bytes of anything: a directory has no size.
            let is_directory = entry[11] & 0x18 == 0x10 && entry[0] != 0xE5 && entry[28..] == [0; 4];
            if is_directory {
                let cluster = self.cluster_of(entry);
                match self.begins_with_itself(zone, cluster) {
                    Ok(true) => here += 1,
                    Ok(false) => (elsewhere, missed) = (elsewhere + 1, cluster),
                    // What cannot be read says nothing.
                    Err(_) => {}
                }
            }
        }
        // Whether or not a label tells where the root directory is, directories tell where the clusters are.
        let is_root = begins_with_label(&root)
            || self.table_begins(zone, self.fat_start)?
                && !begins_with_dot(&root)
                && (here > 0 || self.tables_begin(zone)? && self.may_be_root(zone, &root)?);
        Ok(is_root
            && match (here, elsewhere) {
                // It may be new, and a cut came before its cluster was written. The first cluster is where it is whatever the
                // length of clusters: one directory that is here does not tell of that.
                (0 | 1, 1) => !self.begins_elsewhere(zone, missed),
                _ => elsewhere <= here,
            })
    }

    /// Whether this is a root directory, where tables do not tell: one has no other to show its length, and none shows FAT32's
    /// first cluster.
    fn may_be_root<Z: RawZone + ?Sized>(&self, zone: &mut Z, root: &[u8; 512]) -> Result<bool, ZoneError> {
        let (first, is_shown) = match self.root {
            Root::Fixed { .. } => (FIRST_CLUSTER, self.fat_start + self.fat_bytes < self.fats_end),
            Root::Cluster(first) => (first, false),
        };
        let (mut link, width) = ([0; 4], self.entry_bytes());
        read_exact_at(zone, self.fat_start + u64::from(first) * width, &mut link[..width as usize])?;
        let first_is_free = link == [0; 4];
        let entries = root.as_chunks::<{ DIRECTORY_ENTRY_BYTES as usize }>().0;
        // No attribute has these bits.
        let are_entries = entries.iter().take_while(|entry| entry[0] != 0).all(|entry| entry[11] & 0xC0 == 0);
        let agrees = match self.root {
            // Where nothing is named, nothing is in use.
            Root::Fixed { .. } => root[0] != 0 || first_is_free,
            Root::Cluster(_) => !first_is_free,
        };
        let mut table = [0; 512];
        read_exact_at(zone, self.fat_start, &mut table)?;
        let is_table = table == *root;
        Ok(!is_table && (is_shown || are_entries && agrees))
    }

    /// Whether each table begins as one does.
    fn tables_begin<Z: RawZone + ?Sized>(&self, zone: &mut Z) -> Result<bool, ZoneError> {
        let mut at = self.fat_start;
        let mut begin = true;
        while at < self.fats_end {
            begin &= self.table_begins(zone, at)?;
            at += self.fat_bytes;
        }
        Ok(begin)
    }

    /// Whether a table begins here.
    fn table_begins<Z: RawZone + ?Sized>(&self, zone: &mut Z, at: u64) -> Result<bool, ZoneError> {
        // What the first two entries hold besides marks of the volume's state.
        let last_bits = if matches!(self.root, Root::Fixed { .. }) { 0x3F } else { 0x0F };
        let mut entry = [0; 4];
        read_exact_at(zone, at, &mut entry)?;
        // The second entry of FAT16 is any mark of an end.
        Ok(entry[0] >= 0xF0 && entry[1] == 0xFF && entry[2] >= 0xF8 && entry[3] & last_bits == last_bits)
    }

    /// The first bytes of the root directory.
    fn root_begin<Z: RawZone + ?Sized>(&self, zone: &mut Z) -> Result<[u8; 512], ZoneError> {
        let start = match self.root {
            Root::Fixed { start, .. } => start,
            Root::Cluster(cluster) => self.cluster_at(cluster)?,
        };
        let mut begin = [0; 512];
        read_exact_at(zone, start, &mut begin)?;
        Ok(begin)
    }

    /// The first cluster of what a directory's entry names.
    fn cluster_of(&self, entry: &[u8; DIRECTORY_ENTRY_BYTES as usize]) -> u32 {
        let high = if self.entry_bytes() == 4 { u16::from_le_bytes([entry[20], entry[21]]) } else { 0 };
        u32::from(high) << 16 | u32::from(u16::from_le_bytes([entry[26], entry[27]]))
    }

    /// Whether a directory begins in this cluster: its first entry names itself (section 6.5).
    fn begins_with_itself<Z: RawZone + ?Sized>(&self, zone: &mut Z, cluster: u32) -> Result<bool, ZoneError> {
        let Ok(at) = self.cluster_at(cluster) else { return Ok(false) };
        let mut entry = [0; DIRECTORY_ENTRY_BYTES as usize];
        read_exact_at(zone, at, &mut entry)?;
        Ok(entry[..11] == *b".          " && self.cluster_of(&entry) == cluster)
    }

    /// Whether the directory with this first cluster is where it would be if clusters had another length, or one byte of the
    /// number of the root directory's entries were another.
    fn begins_elsewhere<Z: RawZone + ?Sized>(&self, zone: &mut Z, cluster: u32) -> bool {
        let lengths = (9..=16).map(|bits| (self.data_start, 1 << bits));
        let (start, entries) = match self.root {
            Root::Fixed { start, bytes } => (start, bytes / DIRECTORY_ENTRY_BYTES),
            Root::Cluster(_) => (self.data_start, 0),
        };
        let others = (0..=0xFF).flat_map(|byte| [entries & 0xFF00 | byte, entries & 0xFF | byte << 8]);
        let starts = others
            .filter(|other| entries > 0 && other.is_multiple_of(16))
            .map(|other| (start + other * DIRECTORY_ENTRY_BYTES, self.cluster_bytes));
        lengths.chain(starts).any(|(data_start, cluster_bytes)| {
            let other = Self { data_start, cluster_bytes, ..self.clone() };
            matches!(other.begins_with_itself(zone, cluster), Ok(true))
        })
    }

    /// Reads a boot sector for a zone of `zone_bytes`.
    ///
    /// # Errors
    /// `Corrupt` for one that is neither a FAT16 nor a FAT32 volume's, contradicts itself, or claims more than the zone has.
    pub fn parse(boot: &[u8; 512], zone_bytes: u64) -> Result<Self, ZoneError> {
        let u16_at = |at: usize| u16::from_le_bytes([boot[at], boot[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);

        sound(boot[510..] == [0x55, 0xAA])?;
        let sector = u64::from(u16_at(11));
        sound(SECTOR_SIZES.contains(&sector))?;
        let cluster_sectors = u64::from(boot[13]);
        sound(cluster_sectors.is_power_of_two())?;
        let cluster_bytes = (cluster_sectors * sector) as u32;
        sound(cluster_bytes <= MAX_CLUSTER_BYTES)?;
        let (reserved, fats) = (u64::from(u16_at(14)), u64::from(boot[16]));
        sound(reserved >= 1 && (1..=2).contains(&fats))?;
        // FAT16 has a fixed root and counts its tables' sectors in 16 bits; FAT32 has neither.
        let (root_entries, fat_sectors_16) = (u64::from(u16_at(17)), u64::from(u16_at(22)));
        let (total_16, total_32) = (u64::from(u16_at(19)), u64::from(u32_at(32)));
        let is_fat16 = root_entries > 0;
        sound(is_fat16 == (fat_sectors_16 > 0))?;
        sound(total_16 == 0 || (is_fat16 && total_32 == 0))?;
        let total = total_16 + total_32;
        sound(total * sector <= zone_bytes)?;
        let fat_sectors = if is_fat16 { fat_sectors_16 } else { u64::from(u32_at(36)) };
        let fat_bytes = fat_sectors * sector;
        sound(fat_bytes > 0 && fat_bytes <= MAX_FAT_BYTES)?;
        let fats_end = reserved + fats * fat_sectors;
        let root_bytes = root_entries * DIRECTORY_ENTRY_BYTES;
        // What would be left of a sector, some readers take for entries.
        sound(root_bytes.is_multiple_of(sector))?;
        let data = fats_end + root_bytes / sector;
        sound(data < total)?;
        let clusters = (total - data) / cluster_sectors;
        let numbers =
            if is_fat16 { MIN_FAT16_CLUSTERS..MIN_FAT32_CLUSTERS } else { MIN_FAT32_CLUSTERS..MAX_CLUSTERS + 1 };
        sound(numbers.contains(&clusters))?;
        let volume = Self {
            cluster_bytes,
            fat_start: reserved * sector,
            fat_bytes,
            fats_end: fats_end * sector,
            data_start: data * sector,
            clusters: clusters as u32,
            root: Root::Fixed { start: fats_end * sector, bytes: root_bytes },
            fs_info: 0,
            backup_boot: 0,
            volume_id: u32_at(FAT16_VOLUME_ID_AT),
            label: label_behind(boot, FAT16_VOLUME_ID_AT),
        };
        let volume = if is_fat16 { volume } else { volume.fat32(boot, reserved, fats)? };
        sound(volume.fat_bytes / volume.entry_bytes() >= clusters + u64::from(FIRST_CLUSTER))?;
        Ok(volume)
    }

    /// The rest of a FAT32 volume's boot sector: where FAT16 has number and label, this has other places.
    fn fat32(self, boot: &[u8; 512], reserved: u64, fats: u64) -> Result<Self, ZoneError> {
        let u16_at = |at: usize| u16::from_le_bytes([boot[at], boot[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);
        let sector = u64::from(u16_at(11));
        let (flags, version) = (u16_at(40), u16_at(42));
        sound(version == 0)?;
        let active = if flags & 0x80 == 0 { 0 } else { u64::from(flags & 0x0F) };
        sound(active < fats)?;
        let root_cluster = u32_at(44);
        sound(self.holds(root_cluster))?;
        let (fs_info, backup) = (u64::from(u16_at(48)), u64::from(u16_at(50)));
        sound((1..reserved).contains(&fs_info) && backup < reserved)?;
        Ok(Self {
            fat_start: self.fat_start + active * self.fat_bytes,
            root: Root::Cluster(root_cluster),
            fs_info: fs_info * sector,
            backup_boot: backup * sector,
            volume_id: u32_at(VOLUME_ID_AT),
            label: label_behind(boot, VOLUME_ID_AT),
            ..self
        })
    }

    /// Whether `cluster` is one of the volume's.
    pub fn holds(&self, cluster: u32) -> bool {
        (FIRST_CLUSTER..self.clusters + FIRST_CLUSTER).contains(&cluster)
    }

    /// Where a cluster's bytes stand.
    ///
    /// # Errors
    /// `Corrupt` for a number that is no cluster's.
    pub fn cluster_at(&self, cluster: u32) -> Result<u64, ZoneError> {
        if !self.holds(cluster) {
            return Err(ZoneError::Corrupt);
        }
        Ok(self.data_start + u64::from(cluster - FIRST_CLUSTER) * u64::from(self.cluster_bytes))
    }
}

/// Whether a root directory begins with the volume's label, which has neither cluster nor size.
fn begins_with_label(root: &[u8; 512]) -> bool {
    root[11] == 0x08 && root[0] != 0 && root[26..32] == [0; 6]
}

/// Whether a directory begins with an entry for itself, as any but the root does.
fn begins_with_dot(directory: &[u8; 512]) -> bool {
    directory[..11] == *b".          "
}

fn sound(condition: bool) -> Result<(), ZoneError> {
    if condition { Ok(()) } else { Err(ZoneError::Corrupt) }
}

/// The label behind the serial number that stands `at`.
fn label_behind(boot: &[u8; 512], at: usize) -> [u8; 11] {
    let mut label = [0; 11];
    label.copy_from_slice(&boot[at + 4..at + 15]);
    label
}

/// The summary sector: free clusters and where to look for the next, both hints (`u32::MAX`: unknown).
pub(crate) fn fs_info(free: u32, next: u32) -> [u8; 512] {
    let mut info = [0; 512];
    info[..4].copy_from_slice(b"RRaA");
    info[484..488].copy_from_slice(b"rrAa");
    info[488..492].copy_from_slice(&free.to_le_bytes());
    info[492..496].copy_from_slice(&next.to_le_bytes());
    info[510..].copy_from_slice(&[0x55, 0xAA]);
    info
}

/// Whether a summary sector has its three signatures.
pub(crate) fn fs_info_is_sound(info: &[u8; 512]) -> bool {
    info[..4] == *b"RRaA" && info[484..488] == *b"rrAa" && info[508..] == [0, 0, 0x55, 0xAA]
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The boot sector.
    First,
    /// Its copy.
    Backup,
}

/// How boot sector and copy are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// They say the same, or the volume keeps no copy.
    Sound,
    /// This one is damaged or out of date, and the other is sound.
    Wrong(Which),
    /// Which is right cannot be told for sure: both are sound and name different places, or the copy alone is, and little of the
    /// volume fits it. How much speaks for each ([`Geometry::evidence`]).
    Unclear {
        /// For the boot sector, where it is sound.
        first: Option<u32>,
        /// For the copy.
        backup: u32,
    },
    /// Neither is the boot sector of the FAT16 or FAT32 volume in this zone.
    Neither,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// Nothing: there was no need.
    Nothing,
    /// The boot sector, from its copy.
    First,
    /// The copy, from the boot sector.
    Backup,
}

/// A sound boot sector, and where it stands.
struct Sector {
    bytes: [u8; 512],
    geometry: Geometry,
    at: u64,
}

impl Sector {
    fn read<Z: RawZone + ?Sized>(zone: &mut Z, at: u64) -> Result<Option<Self>, ZoneError> {
        let zone_bytes = zone.len()?;
        if at.saturating_add(512) > zone_bytes {
            return Ok(None);
        }
        let mut bytes = [0; 512];
        read_exact_at(zone, at, &mut bytes)?;
        let Ok(geometry) = Geometry::parse(&bytes, zone_bytes) else { return Ok(None) };
        // What operating systems look at, too: the jump, the kind of medium.
        let begins =
            matches!((bytes[0], bytes[2]), (0xEB, 0x90) | (0xE9, _)) && (bytes[21] == 0xF0 || bytes[21] >= 0xF8);
        let sound = begins && (geometry.fs_info == 0 || geometry.backup_boot != geometry.fs_info);
        Ok(sound.then_some(Self { bytes, geometry, at }))
    }

    /// The copy, where a sound one names itself: where the boot sector says, else where copies stand.
    fn copy<Z: RawZone + ?Sized>(zone: &mut Z, first: Option<&Self>) -> Result<Option<Self>, ZoneError> {
        let named = first.map_or(0, |first| first.geometry.backup_boot);
        for at in core::iter::once(named).chain(SECTOR_SIZES.map(|size| USUAL_COPY * size)) {
            if at > 0
                && let Some(copy) = Self::read(zone, at)?
                && copy.geometry.backup_boot == at
            {
                return Ok(Some(copy));
            }
        }
        Ok(None)
    }

    /// Whether copy and summary are where this says.
    fn names_what_is_there<Z: RawZone + ?Sized>(&self, zone: &mut Z, copy_at: u64) -> Result<bool, ZoneError> {
        Ok(self.geometry.backup_boot == copy_at && summary_is_sound(zone, self.geometry.fs_info)?)
    }
}

fn summary_is_sound<Z: RawZone + ?Sized>(zone: &mut Z, at: u64) -> Result<bool, ZoneError> {
    let mut info = [0; 512];
    read_exact_at(zone, at, &mut info)?;
    Ok(fs_info_is_sound(&info))
}

/// Looks at the boot sector of the volume in `zone`, and at its copy.
///
/// # Errors
/// What the storage reports.
pub fn examine<Z: RawZone + ?Sized>(zone: &mut Z) -> Result<Finding, ZoneError> {
    let first = Sector::read(zone, 0)?;
    let copy = Sector::copy(zone, first.as_ref())?;
    Ok(match (first, copy) {
        (None, None) => Finding::Neither,
        (None, Some(copy)) => match copy.geometry.evidence(zone)? {
            ENOUGH.. => Finding::Wrong(Which::First),
            backup => Finding::Unclear { first: None, backup },
        },
        (Some(first), _) if first.geometry.backup_boot == 0 && !first.geometry.fits(zone)? => Finding::Neither,
        (Some(first), None) if first.geometry.backup_boot == 0 => Finding::Sound,
        (Some(_), None) => Finding::Wrong(Which::Backup),
        // Whoever made this volume keeps none: what stands there is an older one's.
        (Some(first), Some(copy))
            if first.geometry.backup_boot == 0 && !first.geometry.says_the_same(&copy.geometry) =>
        {
            Finding::Sound
        }
        (Some(first), Some(copy)) if !first.geometry.says_the_same(&copy.geometry) => {
            Finding::Unclear { first: Some(first.geometry.evidence(zone)?), backup: copy.geometry.evidence(zone)? }
        }
        (Some(first), Some(copy)) => {
            let bytes = |of: &Sector| {
                let mut bytes = of.bytes;
                bytes[STATE_AT] = 0;
                bytes
            };
            if bytes(&first) == bytes(&copy) {
                Finding::Sound
            } else if !first.names_what_is_there(zone, copy.at)? && copy.names_what_is_there(zone, copy.at)? {
                Finding::Wrong(Which::First)
            } else if first.geometry.backup_boot == 0 {
                Finding::Sound
            } else {
                Finding::Wrong(Which::Backup)
            }
        }
    })
}

/// Mends the boot sector or its copy from the other, where it is clear which is right. Durable; at any cut one of them is whole.
///
/// # Errors
/// `Corrupt` where neither is sound or it is not clear ([`examine`] tells which), else what the storage reports.
pub fn mend<Z: RawZone + ?Sized>(zone: &mut Z) -> Result<Mended, ZoneError> {
    match examine(zone)? {
        Finding::Sound => Ok(Mended::Nothing),
        Finding::Wrong(Which::First) => write_from(zone, Which::Backup).map(|()| Mended::First),
        Finding::Wrong(Which::Backup) => write_from(zone, Which::First).map(|()| Mended::Backup),
        Finding::Unclear { .. } | Finding::Neither => Err(ZoneError::Corrupt),
    }
}

/// Writes the other one from the one that is `right`, and a new summary beside it if that is damaged. Durable.
///
/// # Errors
/// `Corrupt` where the `right` one is not sound or the volume keeps no copy, else what the storage reports.
pub fn write_from<Z: RawZone + ?Sized>(zone: &mut Z, right: Which) -> Result<(), ZoneError> {
    let first = Sector::read(zone, 0)?;
    let source = match right {
        Which::First => first,
        Which::Backup => Sector::copy(zone, first.as_ref())?,
    };
    let Some(Sector { mut bytes, geometry, .. }) = source else { return Err(ZoneError::Corrupt) };
    let to = match right {
        Which::First if geometry.backup_boot == 0 => return Err(ZoneError::Corrupt),
        Which::First => geometry.backup_boot,
        Which::Backup => 0,
    };
    let summary = to + geometry.fs_info;
    if summary + 512 <= geometry.fat_start && !summary_is_sound(zone, summary)? {
        write_all_at(zone, summary, &fs_info(u32::MAX, u32::MAX))?;
        // Behind a sound boot sector nobody would look at it again.
        zone.flush()?;
    }
    // Whether the volume is in use is said in the first alone.
    bytes[STATE_AT] = 0;
    write_all_at(zone, to, &bytes)?;
    zone.flush()
}

/// Gives the volume another serial number, in the copy and in the boot sector, as far as they are sound. Durable.
///
/// # Errors
/// What the storage reports.
pub fn set_volume_id<Z: RawZone + ?Sized>(zone: &mut Z, volume_id: u32) -> Result<(), ZoneError> {
    let first = Sector::read(zone, 0)?;
    let copy = Sector::copy(zone, first.as_ref())?;
    for sector in [copy, first].into_iter().flatten() {
        let place = match sector.geometry.root {
            Root::Fixed { .. } => FAT16_VOLUME_ID_AT,
            Root::Cluster(_) => VOLUME_ID_AT,
        };
        write_all_at(zone, sector.at + place as u64, &volume_id.to_le_bytes())?;
    }
    zone.flush()
}
