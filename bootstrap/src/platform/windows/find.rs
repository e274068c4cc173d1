//! The device that this launcher stands on: its own volume, what that volume stands on, and the volumes beside.
//!
//! ```text
//! program ─▶ volume ─▶ partition of a disk ─▶ the other partitions of that disk, and the CD-ROM of the same USB device
//!                  └─▶ CD-ROM unit ─────────▶ the disks of the same USB device
//! ```
//! Nothing else is looked at: never another disk, whatever its partitions are called. Where Windows tells nothing, the
//! directory from which the launcher was started is all that there is.

use std::path::{Path, PathBuf};

use firmware_image::paths;

use super::storage::{self, Partition, Place, Volume};
use crate::launcher::find::{Block, FREE_NAME, FindError, Found, HIDDEN_NAME, Siblings, VIRTUAL_NAME};

/// The device that this program stands on. It may stand in the virtual zone, or, since Windows mounts no ISO partition, as a
/// copy in the free zone.
///
/// # Errors
/// See [`FindError`].
pub fn own_device() -> Result<Found, FindError> {
    let program = std::env::current_exe().map_err(|_| FindError::NoProgram)?;
    let here = program.parent().ok_or(FindError::NoProgram)?;
    let in_virtual_zone = here.join(paths::DEVICE_CONFIG).is_file();
    let in_free_zone = here.join(paths::CONFIG_COPY).is_file();
    if !in_virtual_zone && !in_free_zone {
        return Err(FindError::NotOnADevice(here.to_path_buf()));
    }
    let own = storage::place_of(here);
    let volumes = if own.is_some() { storage::volumes() } else { Vec::new() };
    if in_free_zone {
        let virtual_zone = own.and_then(|own| virtual_zone_beside(own, &volumes));
        let hidden = own.filter(|own| own.is_disk).and_then(|own| zones_of(own.unit, own, false).1);
        let free = Some(Block { node: here.to_path_buf(), mounted: Some(here.to_path_buf()) });
        return Ok(Found { virtual_zone, siblings: Siblings { cd: None, free, hidden }, is_complete: own.is_some() });
    }
    let siblings = own.and_then(|own| siblings(own, &volumes));
    let siblings = siblings.ok_or_else(|| FindError::NoZones(here.to_path_buf()))?;
    Ok(Found { virtual_zone: Some(here.to_path_buf()), siblings, is_complete: true })
}

/// The zones beside the virtual zone in `own`; `None`: there are none.
fn siblings(own: Place, volumes: &[Volume]) -> Option<Siblings> {
    let disks = if own.is_disk { vec![own.unit] } else { storage::beside(own, true) };
    let is_virtual = |partition: &Partition| partition.number == own.partition && partition.name == VIRTUAL_NAME;
    // The disk that holds the virtual zone is the device's; and so is a USB device's only one, also if no name is left on it.
    let known = if own.is_disk { storage::partitions(own.unit).iter().any(is_virtual) } else { disks.len() == 1 };
    for disk in disks {
        let (free, hidden) = zones_of(disk, own, known);
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

/// The number of the free zone's partition, and the device that is the hidden zone. A format may take the free zone's name
/// away: it is then the first partition that nothing else can be, provided that a hidden zone is there, or the disk is
/// `known` to be a device's. It stands in front of the other zones; what is behind them is a board's own and never taken.
fn zones_of(disk: u32, own: Place, known: bool) -> (Option<u32>, Option<PathBuf>) {
    let is_own = |partition: &Partition| own.is_disk && own.unit == disk && own.partition == partition.number;
    let (own, others): (Vec<Partition>, Vec<Partition>) = storage::partitions(disk).into_iter().partition(is_own);
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
fn virtual_zone_beside(own: Place, volumes: &[Volume]) -> Option<PathBuf> {
    let cds = storage::beside(own, false);
    let belongs = |place: &Place| {
        if place.is_disk { own.is_disk && place.unit == own.unit } else { cds.contains(&place.unit) }
    };
    let is_virtual = |root: &Path| root.join(paths::DEVICE_CONFIG).is_file();
    let mut others = volumes.iter().filter(|volume| volume.place != own && belongs(&volume.place));
    others.find(|volume| is_virtual(&volume.root)).map(|volume| volume.root.clone())
}
