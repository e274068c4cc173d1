//! The device that this launcher stands on: its own volume, what that volume stands on, and the volumes beside.
//!
//! ```text
//! program ─▶ volume ─▶ partition of a disk ─▶ the other partitions of that disk, and the CD-ROM of the same USB device
//!                  └─▶ CD-ROM unit ─────────▶ the disks of the same USB device
//! ```
//! Nothing else is looked at: never another disk, whatever its partitions are called. Where Windows tells nothing, the
//! directory from which the launcher was started is all that there is.

use firmware_image::paths;
use std::prelude::v1::*;

use super::storage::{self, OfWindows};
use crate::launcher::find::{Block, FindError, Found, Siblings};
use crate::launcher::layout::{hidden_beside, siblings, virtual_zone_beside};

/// The device that this program stands on. It may stand in the virtual zone, or, since Windows mounts no ISO partition, as a
/// copy in the free zone.
///
/// # Errors
/// See [`FindError`].
pub fn own_device() -> Result<Found, FindError> {
    let program = std::env::current_exe().map_err(|_| FindError::NoProgram)?;
    let here = program.parent().ok_or(FindError::NoProgram)?;
    let in_virtual_zone = here.join(paths::DEVICE_CONFIG).is_file();
    let in_free_zone = paths::CONFIGS_IN_FREE.iter().any(|path| here.join(path).is_file());
    if !in_virtual_zone && !in_free_zone {
        return Err(FindError::NotOnADevice(here.to_path_buf()));
    }
    let own = storage::place_of(here);
    let volumes = if own.is_some() { storage::volumes() } else { Vec::new() };
    if in_free_zone {
        let virtual_zone = own.and_then(|own| virtual_zone_beside(&OfWindows, own, &volumes));
        let hidden = own.and_then(|own| hidden_beside(&OfWindows, own));
        let free = Some(Block { node: here.to_path_buf(), mounted: Some(here.to_path_buf()) });
        return Ok(Found { virtual_zone, siblings: Siblings { cd: None, free, hidden }, is_complete: own.is_some() });
    }
    let siblings = own.and_then(|own| siblings(&OfWindows, own, &volumes));
    let siblings = siblings.ok_or_else(|| FindError::NoZones(here.to_path_buf()))?;
    Ok(Found { virtual_zone: Some(here.to_path_buf()), siblings, is_complete: true })
}
