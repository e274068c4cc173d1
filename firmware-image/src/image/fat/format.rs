//! Making a new FAT32 volume. Source: Microsoft, *FAT: General Overview of On-Disk Format*, 1.03.

use crate::boot_sector::{FIRST_CLUSTER, MAX_CLUSTERS, fs_info};
use crate::storage::write_all_at;
use crate::{RawZone, ZoneError};

/// FAT32 by definition has at least this many clusters; a few more keep off the edge where drivers disagree.
const MIN_CLUSTERS: u64 = 65_525 + 16;
/// The sector size that new volumes use.
const SECTOR: u64 = 512;
/// Reserved sectors of a new volume, before padding.
const RESERVED_SECTORS: u64 = 32;
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
