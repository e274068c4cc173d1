//! Where things stand on a FAT32 volume: strict reading of its boot sector, and making a new volume.
//!
//! Source: Microsoft, *FAT: General Overview of On-Disk Format*, 1.03. A volume that passes [`Geometry::parse`] cannot
//! make the arithmetic of `fatfs` overflow, and claims no byte outside its zone. Only FAT32 is accepted: the free zone
//! is never made as anything else.

use super::BlockCache;
use crate::storage::write_all_at;
use crate::{RawZone, ZoneError};

/// FAT32 by definition has at least this many clusters; a few more keep off the edge where drivers disagree.
const MIN_CLUSTERS: u64 = 65_525 + 16;
/// The highest cluster count that leaves the reserved numbers alone.
const MAX_CLUSTERS: u64 = 0x0FFF_FFF4;
/// The longest table accepted: 256 MiB, enough for 2 TiB in clusters of 32 KiB.
const MAX_FAT_BYTES: u64 = 256 * 1024 * 1024;
/// The largest cluster accepted.
const MAX_CLUSTER_BYTES: u32 = 64 * 1024;
/// The sector size that new volumes use.
const SECTOR: u64 = 512;
/// Reserved sectors of a new volume, before padding.
const RESERVED_SECTORS: u64 = 32;
/// Everything in a new volume starts at a multiple of this: flash pages are written whole.
const ALIGN_BYTES: u64 = 4096;
/// The first cluster's number.
pub(crate) const FIRST_CLUSTER: u32 = 2;
/// Midnight of 1 January 1980, FAT's first day: volumes are reproducible.
const FIRST_DAY: [u8; 2] = 0x0021u16.to_le_bytes();

/// What a new volume is called.
#[derive(Debug, Clone, Copy)]
pub struct FormatOptions {
    /// The label: upper case, padded with blanks.
    pub label: [u8; 11],
    /// The volume's serial number.
    pub volume_id: u32,
    /// Sectors before the volume on its disk (the partition's start).
    pub hidden_sectors: u32,
}

impl FormatOptions {
    /// A label made of `name`: what FAT allows of its first eleven characters, in upper case.
    pub fn label_of(name: &str) -> [u8; 11] {
        let mut label = [b' '; 11];
        let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_');
        for (to, from) in label.iter_mut().zip(name.chars().filter(allowed)) {
            *to = from.to_ascii_uppercase() as u8;
        }
        if label == [b' '; 11] { *b"HOLDFAST   " } else { label }
    }
}

/// How much longer than its entries a table may be made to fill flash pages, in bytes.
const MAX_TABLE_PADDING: u64 = 128 << 10;

/// The places of a mounted volume, in bytes from its start.
#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    pub cluster_bytes: u32,
    /// The table that is read.
    pub fat_start: u64,
    pub fat_bytes: u64,
    /// All tables together.
    pub fats_end: u64,
    pub data_start: u64,
    /// Clusters, numbered from 2.
    pub clusters: u32,
    pub root_cluster: u32,
    pub fs_info: u64,
    /// The copy of the boot sector; 0: there is none.
    pub backup_boot: u64,
    pub volume_id: u32,
    pub label: [u8; 11],
}

impl Geometry {
    /// Whether both say the same of where tables, clusters and the root directory are.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let places =
            |of: &Self| (of.cluster_bytes, of.fat_start, of.fat_bytes, of.data_start, of.clusters, of.root_cluster);
        places(self) == places(other)
    }

    /// How much of a volume shows that these are its places: each table begins as a table does, the tables are no longer than
    /// the clusters need, and the root directory begins with the label.
    pub fn evidence<Z: RawZone>(&self, cache: &mut BlockCache<Z>) -> Result<u32, ZoneError> {
        let mut tables_begin = true;
        let mut at = self.fat_start;
        while at < self.fats_end {
            let mut entry = [0; 4];
            cache.read_at(at, &mut entry)?;
            tables_begin &= entry[0] >= 0xF0 && entry[1..3] == [0xFF, 0xFF] && entry[3] & 0x0F == 0x0F;
            at += self.fat_bytes;
        }
        let needed = (u64::from(self.clusters) + u64::from(FIRST_CLUSTER)) * 4;
        let are_as_long = self.fat_bytes <= needed + needed / 4 + MAX_TABLE_PADDING;
        let mut first = [0; 32];
        cache.read_at(self.cluster_at(self.root_cluster)?, &mut first)?;
        let label_begins = first[11] == 0x08 && first[0] != 0;
        Ok(u32::from(tables_begin) + u32::from(are_as_long) + u32::from(label_begins))
    }

    /// Reads a boot sector for a zone of `zone_bytes`.
    pub fn parse(boot: &[u8; 512], zone_bytes: u64) -> Result<Self, ZoneError> {
        let sound = |condition: bool| if condition { Ok(()) } else { Err(ZoneError::Corrupt) };
        let u16_at = |at: usize| u16::from_le_bytes([boot[at], boot[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([boot[at], boot[at + 1], boot[at + 2], boot[at + 3]]);

        sound(boot[510..] == [0x55, 0xAA])?;
        let sector = u64::from(u16_at(11));
        sound(matches!(sector, 512 | 1024 | 2048 | 4096))?;
        let cluster_sectors = u64::from(boot[13]);
        sound(cluster_sectors.is_power_of_two())?;
        let cluster_bytes = (cluster_sectors * sector) as u32;
        sound(cluster_bytes <= MAX_CLUSTER_BYTES)?;
        let (reserved, fats) = (u64::from(u16_at(14)), u64::from(boot[16]));
        sound(reserved >= 1 && (1..=2).contains(&fats))?;
        // No fixed root, no 16-bit counts: FAT32.
        sound(u16_at(17) == 0 && u16_at(19) == 0 && u16_at(22) == 0)?;
        let (total, fat_sectors) = (u64::from(u32_at(32)), u64::from(u32_at(36)));
        sound(total * sector <= zone_bytes)?;
        let fat_bytes = fat_sectors * sector;
        sound(fat_bytes > 0 && fat_bytes <= MAX_FAT_BYTES)?;
        let (flags, version) = (u16_at(40), u16_at(42));
        sound(version == 0)?;
        let active = if flags & 0x80 == 0 { 0 } else { u64::from(flags & 0x0F) };
        sound(active < fats)?;
        let data = reserved + fats * fat_sectors;
        sound(data < total)?;
        let clusters = (total - data) / cluster_sectors;
        sound((65_525..=MAX_CLUSTERS).contains(&clusters) && fat_bytes / 4 >= clusters + 2)?;
        let clusters = clusters as u32;
        let root_cluster = u32_at(44);
        sound((FIRST_CLUSTER..clusters + FIRST_CLUSTER).contains(&root_cluster))?;
        let (fs_info, backup) = (u64::from(u16_at(48)), u64::from(u16_at(50)));
        sound((1..reserved).contains(&fs_info) && backup < reserved)?;

        let mut label = [0; 11];
        label.copy_from_slice(&boot[71..82]);
        Ok(Self {
            cluster_bytes,
            fat_start: (reserved + active * fat_sectors) * sector,
            fat_bytes,
            fats_end: data * sector,
            data_start: data * sector,
            clusters,
            root_cluster,
            fs_info: fs_info * sector,
            backup_boot: backup * sector,
            volume_id: u32_at(67),
            label,
        })
    }

    /// Whether `cluster` is one of the volume's.
    pub fn holds(&self, cluster: u32) -> bool {
        (FIRST_CLUSTER..self.clusters + FIRST_CLUSTER).contains(&cluster)
    }

    /// Where a cluster's bytes stand.
    pub fn cluster_at(&self, cluster: u32) -> Result<u64, ZoneError> {
        if !self.holds(cluster) {
            return Err(ZoneError::Corrupt);
        }
        Ok(self.data_start + u64::from(cluster - FIRST_CLUSTER) * u64::from(self.cluster_bytes))
    }
}

/// The figures of a volume about to be made.
struct Plan {
    total_sectors: u64,
    cluster_sectors: u64,
    reserved: u64,
    fat_sectors: u64,
    clusters: u64,
}

impl Plan {
    /// The usual cluster size for the zone, halved until there are enough clusters for FAT32.
    fn new(zone_bytes: u64) -> Result<Self, ZoneError> {
        const GIB: u64 = 1 << 30;
        let total_sectors = (zone_bytes / SECTOR).min(u64::from(u32::MAX));
        let mut cluster_bytes: u64 = match zone_bytes {
            bytes if bytes <= 8 * GIB => 4096,
            bytes if bytes <= 16 * GIB => 8192,
            bytes if bytes <= 32 * GIB => 16384,
            _ => 32768,
        };
        while cluster_bytes >= SECTOR {
            let plan = Self::with_clusters(total_sectors, cluster_bytes / SECTOR);
            if let Some(plan) = plan.filter(|plan| (MIN_CLUSTERS..=MAX_CLUSTERS).contains(&plan.clusters)) {
                return Ok(plan);
            }
            cluster_bytes /= 2;
        }
        Err(ZoneError::Full)
    }

    fn with_clusters(total_sectors: u64, cluster_sectors: u64) -> Option<Self> {
        let align = ALIGN_BYTES / SECTOR;
        let entries = total_sectors / cluster_sectors + 2;
        let fat_sectors = (entries * 4).div_ceil(SECTOR).next_multiple_of(align);
        let data = (RESERVED_SECTORS + 2 * fat_sectors).next_multiple_of(align.max(cluster_sectors));
        let reserved = data - 2 * fat_sectors;
        let clusters = total_sectors.checked_sub(data)? / cluster_sectors;
        Some(Self { total_sectors, cluster_sectors, reserved, fat_sectors, clusters })
    }
}

/// Makes an empty FAT32 volume over the whole zone. Only the file system's own areas are written.
///
/// `fatfs` has a formatter too; it cannot align the tables and clusters to flash pages, and leaves the summary of free
/// clusters unset.
///
/// # Errors
/// `Full` where the zone is too small for FAT32 (about 34 MiB), else what the storage reports.
pub fn format<Z: RawZone + ?Sized>(zone: &mut Z, options: &FormatOptions) -> Result<(), ZoneError> {
    let plan = Plan::new(zone.len()?)?;
    let data = (plan.reserved + 2 * plan.fat_sectors) * SECTOR;
    let end = data + plan.cluster_sectors * SECTOR;
    // The boot sector goes last: a cut leaves nothing that mounts.
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < end {
        let take = (end - at).min(zeros.len() as u64);
        write_all_at(zone, at, &zeros[..take as usize])?;
        at += take;
    }
    let mut table = [0; 12];
    for (entry, value) in table.chunks_exact_mut(4).zip([0x0FFF_FFF8u32, 0x0FFF_FFFF, 0x0FFF_FFFF]) {
        entry.copy_from_slice(&value.to_le_bytes());
    }
    for copy in 0..2 {
        write_all_at(zone, (plan.reserved + copy * plan.fat_sectors) * SECTOR, &table)?;
    }
    let mut label = [0; 32];
    label[..11].copy_from_slice(&options.label);
    label[11] = 0x08;
    label[24..26].copy_from_slice(&FIRST_DAY);
    write_all_at(zone, data, &label)?;
    let (boot, info) = (boot_sector(&plan, options), fs_info(plan.clusters as u32 - 1, FIRST_CLUSTER + 1));
    for copy in [6, 0] {
        write_all_at(zone, (copy + 1) * SECTOR, &info)?;
        write_all_at(zone, copy * SECTOR, &boot)?;
    }
    zone.flush()
}

fn boot_sector(plan: &Plan, options: &FormatOptions) -> [u8; 512] {
    let mut boot = [0; 512];
    boot[..3].copy_from_slice(&[0xEB, 0x58, 0x90]);
    boot[3..11].copy_from_slice(b"HOLDFAST");
    boot[11..13].copy_from_slice(&(SECTOR as u16).to_le_bytes());
    boot[13] = plan.cluster_sectors as u8;
    boot[14..16].copy_from_slice(&(plan.reserved as u16).to_le_bytes());
    boot[16] = 2;
    boot[21] = 0xF8;
    boot[24..26].copy_from_slice(&63u16.to_le_bytes());
    boot[26..28].copy_from_slice(&255u16.to_le_bytes());
    boot[28..32].copy_from_slice(&options.hidden_sectors.to_le_bytes());
    boot[32..36].copy_from_slice(&(plan.total_sectors as u32).to_le_bytes());
    boot[36..40].copy_from_slice(&(plan.fat_sectors as u32).to_le_bytes());
    boot[44..48].copy_from_slice(&FIRST_CLUSTER.to_le_bytes());
    boot[48..50].copy_from_slice(&1u16.to_le_bytes());
    boot[50..52].copy_from_slice(&6u16.to_le_bytes());
    boot[64] = 0x80;
    boot[66] = 0x29;
    boot[67..71].copy_from_slice(&options.volume_id.to_le_bytes());
    boot[71..82].copy_from_slice(&options.label);
    boot[82..90].copy_from_slice(b"FAT32   ");
    // Not bootable: INT 18h hands on to the next boot device, then a stop.
    boot[90..94].copy_from_slice(&[0xCD, 0x18, 0xEB, 0xFE]);
    boot[510..].copy_from_slice(&[0x55, 0xAA]);
    boot
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
