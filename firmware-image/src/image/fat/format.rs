//! Making a new volume: FAT32, or FAT16 in a small zone. Source: Microsoft, *FAT: General Overview of On-Disk Format*, 1.03.

use std::ops::Range;

use crate::boot_sector::{
    DIRECTORY_ENTRY_BYTES, FIRST_CLUSTER, MAX_CLUSTERS, MIN_FAT16_CLUSTERS, MIN_FAT32_CLUSTERS, fs_info,
};
use crate::storage::write_all_at;
use crate::{RawZone, ZoneError};

/// So many clusters are kept away from where FAT16 begins and ends, where drivers disagree.
const MARGIN: u64 = 16;
/// The sector size that new volumes use.
const SECTOR: u64 = 512;
/// Reserved sectors of a new volume, before padding.
const FAT32_RESERVED_SECTORS: u64 = 32;
const FAT16_RESERVED_SECTORS: u64 = 1;
/// The sectors of FAT32's summary and of the boot sector's copy.
const FS_INFO: u64 = 1;
const BACKUP_BOOT: u64 = 6;
/// Entries of FAT16's root directory (section 3.1 wants this number).
const FAT16_ROOT_ENTRIES: u64 = 512;
/// Everything in a new volume starts at a multiple of this: flash pages are written whole.
const ALIGN_BYTES: u64 = 4096;
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fat16,
    Fat32,
}

impl Kind {
    fn clusters(self) -> Range<u64> {
        match self {
            Self::Fat16 => MIN_FAT16_CLUSTERS + MARGIN..MIN_FAT32_CLUSTERS - MARGIN,
            Self::Fat32 => MIN_FAT32_CLUSTERS + MARGIN..MAX_CLUSTERS + 1,
        }
    }

    fn reserved_sectors(self) -> u64 {
        match self {
            Self::Fat16 => FAT16_RESERVED_SECTORS,
            Self::Fat32 => FAT32_RESERVED_SECTORS,
        }
    }

    /// Sectors of the root directory that are no clusters.
    fn root_sectors(self) -> u64 {
        match self {
            Self::Fat16 => FAT16_ROOT_ENTRIES * DIRECTORY_ENTRY_BYTES / SECTOR,
            Self::Fat32 => 0,
        }
    }

    /// How each table begins: two entries that are no cluster's, and FAT32's root directory.
    fn first_entries(self) -> &'static [u8] {
        match self {
            Self::Fat16 => &[0xF8, 0xFF, 0xFF, 0xFF],
            Self::Fat32 => &[0xF8, 0xFF, 0xFF, 0x0F, 0xFF, 0xFF, 0xFF, 0x0F, 0xFF, 0xFF, 0xFF, 0x0F],
        }
    }

    fn entry_bytes(self) -> u64 {
        match self {
            Self::Fat16 => 2,
            Self::Fat32 => 4,
        }
    }
}

/// The figures of a volume about to be made, in sectors.
struct Plan {
    kind: Kind,
    total: u64,
    cluster: u64,
    reserved: u64,
    table: u64,
    clusters: u64,
}

impl Plan {
    /// The usual cluster size for the zone, halved until there are enough clusters for FAT32, or else for FAT16.
    fn new(zone_bytes: u64) -> Result<Self, ZoneError> {
        const GIB: u64 = 1 << 30;
        let total = (zone_bytes / SECTOR).min(u64::from(u32::MAX));
        let largest: u64 = match zone_bytes {
            bytes if bytes <= 8 * GIB => 4096,
            bytes if bytes <= 16 * GIB => 8192,
            bytes if bytes <= 32 * GIB => 16384,
            _ => 32768,
        };
        for kind in [Kind::Fat32, Kind::Fat16] {
            let mut cluster_bytes = largest;
            while cluster_bytes >= SECTOR {
                let plan = Self::with_clusters(kind, total, cluster_bytes / SECTOR);
                if let Some(plan) = plan.filter(|plan| kind.clusters().contains(&plan.clusters)) {
                    return Ok(plan);
                }
                cluster_bytes /= 2;
            }
        }
        Err(ZoneError::Full)
    }

    fn with_clusters(kind: Kind, total: u64, cluster: u64) -> Option<Self> {
        let align = ALIGN_BYTES / SECTOR;
        let entries = total / cluster + u64::from(FIRST_CLUSTER);
        let table = (entries * kind.entry_bytes()).div_ceil(SECTOR).next_multiple_of(align);
        let behind = 2 * table + kind.root_sectors();
        let data = (kind.reserved_sectors() + behind).next_multiple_of(align.max(cluster));
        let clusters = total.checked_sub(data)? / cluster;
        Some(Self { kind, total, cluster, reserved: data - behind, table, clusters })
    }

    /// The first sector behind the tables: that of the root directory.
    fn root(&self) -> u64 {
        self.reserved + 2 * self.table
    }

    /// The first sector behind all that an empty volume has.
    fn end(&self) -> u64 {
        match self.kind {
            Kind::Fat16 => self.root() + self.kind.root_sectors(),
            Kind::Fat32 => self.root() + self.cluster,
        }
    }
}

/// Makes an empty volume over the whole zone, FAT32 where it is large enough for that (33 MiB), else FAT16. Only the file
/// system's own areas are written.
///
/// `fatfs` has a formatter too; it cannot align the tables and clusters to flash pages, and leaves the summary of free
/// clusters unset.
///
/// # Errors
/// `Full` where the zone is too small for FAT16 (about 2.1 MiB), else what the storage reports.
pub fn format<Z: RawZone + ?Sized>(zone: &mut Z, options: &FormatOptions) -> Result<(), ZoneError> {
    let plan = Plan::new(zone.len()?)?;
    // The boot sector goes last: a cut leaves nothing that mounts.
    let zeros = vec![0; 1 << 20];
    let (mut at, end) = (0, plan.end() * SECTOR);
    while at < end {
        let take = (end - at).min(zeros.len() as u64);
        write_all_at(zone, at, &zeros[..take as usize])?;
        at += take;
    }
    for copy in 0..2 {
        write_all_at(zone, (plan.reserved + copy * plan.table) * SECTOR, plan.kind.first_entries())?;
    }
    let mut label = [0; DIRECTORY_ENTRY_BYTES as usize];
    label[..11].copy_from_slice(&options.label);
    label[11] = 0x08;
    label[24..26].copy_from_slice(&FIRST_DAY);
    write_all_at(zone, plan.root() * SECTOR, &label)?;
    let boot = boot_sector(&plan, options);
    if plan.kind == Kind::Fat32 {
        let info = fs_info(plan.clusters as u32 - 1, FIRST_CLUSTER + 1);
        for copy in [BACKUP_BOOT, 0] {
            write_all_at(zone, (copy + FS_INFO) * SECTOR, &info)?;
        }
        write_all_at(zone, BACKUP_BOOT * SECTOR, &boot)?;
    }
    write_all_at(zone, 0, &boot)?;
    zone.flush()
}

fn boot_sector(plan: &Plan, options: &FormatOptions) -> [u8; 512] {
    let mut boot = [0; 512];
    boot[3..11].copy_from_slice(b"HOLDFAST");
    boot[11..13].copy_from_slice(&(SECTOR as u16).to_le_bytes());
    boot[13] = plan.cluster as u8;
    boot[14..16].copy_from_slice(&(plan.reserved as u16).to_le_bytes());
    boot[16] = 2;
    boot[21] = 0xF8;
    boot[24..26].copy_from_slice(&63u16.to_le_bytes());
    boot[26..28].copy_from_slice(&255u16.to_le_bytes());
    boot[28..32].copy_from_slice(&options.hidden_sectors.to_le_bytes());
    // What both kinds have last: drive, serial number, label, kind, and where the code behind begins.
    let last = match plan.kind {
        Kind::Fat16 => {
            boot[17..19].copy_from_slice(&(FAT16_ROOT_ENTRIES as u16).to_le_bytes());
            boot[22..24].copy_from_slice(&(plan.table as u16).to_le_bytes());
            boot[54..62].copy_from_slice(b"FAT16   ");
            36
        }
        Kind::Fat32 => {
            boot[36..40].copy_from_slice(&(plan.table as u32).to_le_bytes());
            boot[44..48].copy_from_slice(&FIRST_CLUSTER.to_le_bytes());
            boot[48..50].copy_from_slice(&(FS_INFO as u16).to_le_bytes());
            boot[50..52].copy_from_slice(&(BACKUP_BOOT as u16).to_le_bytes());
            boot[82..90].copy_from_slice(b"FAT32   ");
            64
        }
    };
    // FAT16 counts in 16 bits where these suffice.
    match u16::try_from(plan.total) {
        Ok(total) if plan.kind == Kind::Fat16 => boot[19..21].copy_from_slice(&total.to_le_bytes()),
        _ => boot[32..36].copy_from_slice(&(plan.total as u32).to_le_bytes()),
    }
    boot[last] = 0x80;
    boot[last + 2] = 0x29;
    boot[last + 3..last + 7].copy_from_slice(&options.volume_id.to_le_bytes());
    boot[last + 7..last + 18].copy_from_slice(&options.label);
    let code = last + 26;
    boot[..3].copy_from_slice(&[0xEB, code as u8 - 2, 0x90]);
    // Not bootable: INT 18h hands on to the next boot device, then a stop.
    boot[code..code + 4].copy_from_slice(&[0xCD, 0x18, 0xEB, 0xFE]);
    boot[510..].copy_from_slice(&[0x55, 0xAA]);
    boot
}
