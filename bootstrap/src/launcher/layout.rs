//! Which volumes and partitions are a device's zones, where the system tells of disks and units by their numbers, as Windows
//! does. Rules only: what the system tells comes from whoever calls, and a test makes it up.

use std::path::{Path, PathBuf};
use std::prelude::v1::*;

use firmware_image::paths;

use super::find::{Block, FREE_NAME, HIDDEN_NAME, Siblings, VIRTUAL_NAME};

/// A partition of a disk, a whole disk (partition 0), or a CD-ROM unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Whether it is of a disk; else it is a CD-ROM.
    pub is_disk: bool,
    /// The number of the disk or CD-ROM.
    pub unit: u32,
    /// The partition's number, counted from 1; 0 for the whole.
    pub partition: u32,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// On what it stands.
    pub place: Place,
    /// Its root directory: a drive's letter, a directory, or its own name where it has neither.
    pub root: PathBuf,
}

/// An entry of a partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, counted from 1.
    pub number: u32,
    /// The name that the table gives it; empty where there is none.
    pub name: String,
    /// Its first byte on the disk.
    pub start: i64,
}

/// What a system tells.
pub trait Storage {
    /// The partitions of a disk, in the order of its table.
    fn partitions(&self, disk: u32) -> Vec<Partition>;

    /// The disks (or CD-ROMs) that are units of the same USB device as `own`; none where it is on no USB device: a controller's
    /// units belong to the computer.
    fn beside(&self, own: Place, disks: bool) -> Vec<u32>;
}

/// The zones beside the virtual zone in `own`; `None`: there are none.
pub fn siblings(storage: &dyn Storage, own: Place, volumes: &[Volume]) -> Option<Siblings> {
    let disks = if own.is_disk { vec![own.unit] } else { storage.beside(own, true) };
    let is_virtual = |partition: &Partition| partition.number == own.partition && partition.name == VIRTUAL_NAME;
    // The disk that holds the virtual zone is the device's; and so is a USB device's only one, also if no name is left on it.
    let known = if own.is_disk { storage.partitions(own.unit).iter().any(is_virtual) } else { disks.len() == 1 };
    for disk in disks {
        let (free, hidden) = zones_of(storage, disk, own, known);
        let place = |partition| Place { is_disk: true, unit: disk, partition };
        // A disk without partitions is a volume itself.
        let free = free.map(place).or_else(|| (known && !own.is_disk).then(|| place(0)));
        let volume = free.and_then(|free| volumes.iter().find(|volume| volume.place == free));
        let free = volume.map(|volume| Block { node: volume.root.clone(), mounted: Some(volume.root.clone()) });
        if free.is_some() || hidden.is_some() {
            // The bytes behind the CD's file system are left to hosts that show them to ordinary users.
            return Some(Siblings { cd: None, free, hidden });
        }
    }
    None
}

/// The hidden zone on the disk of the free zone in `own`.
pub fn hidden_beside(storage: &dyn Storage, own: Place) -> Option<PathBuf> {
    if own.is_disk { zones_of(storage, own.unit, own, false).1 } else { None }
}

/// The number of the free zone's partition, and the device that is the hidden zone. A format may take the free zone's name
/// away: it is then the first partition that nothing else can be, provided that a hidden zone is there, or the disk is
/// `known` to be a device's. It stands in front of the other zones; what is behind them is a board's own and never taken.
fn zones_of(storage: &dyn Storage, disk: u32, own: Place, known: bool) -> (Option<u32>, Option<PathBuf>) {
    let is_own = |partition: &Partition| own.is_disk && own.unit == disk && own.partition == partition.number;
    let (own, others): (Vec<Partition>, Vec<Partition>) = storage.partitions(disk).into_iter().partition(is_own);
    let named = |name: &str| others.iter().find(|partition| partition.name == name);
    let hidden = named(HIDDEN_NAME);
    let zones_start = own.iter().chain(hidden).map(|zone| zone.start).min().unwrap_or(i64::MAX);
    let may_be = |partition: &&Partition| {
        partition.name != HIDDEN_NAME && partition.name != VIRTUAL_NAME && partition.start < zones_start
    };
    let free = named(FREE_NAME).or_else(|| if known || hidden.is_some() { others.iter().find(may_be) } else { None });
    let device = |partition: &Partition| PathBuf::from(format!(r"\\.\Harddisk{disk}Partition{}", partition.number));
    (free.map(|partition| partition.number), hidden.map(device))
}

/// The virtual zone of the device whose free zone is `own`: a volume of the same disk or of a CD-ROM beside it, with a
/// configuration. Never `own` itself, where everybody can write.
pub fn virtual_zone_beside(storage: &dyn Storage, own: Place, volumes: &[Volume]) -> Option<PathBuf> {
    let cds = storage.beside(own, false);
    let belongs = |place: &Place| {
        if place.is_disk { own.is_disk && place.unit == own.unit } else { cds.contains(&place.unit) }
    };
    let is_virtual = |root: &Path| root.join(paths::DEVICE_CONFIG).is_file();
    let mut others = volumes.iter().filter(|volume| volume.place != own && belongs(&volume.place));
    others.find(|volume| is_virtual(&volume.root)).map(|volume| volume.root.clone())
}
