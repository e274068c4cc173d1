//! An image onto a real device: refuse what must not be overwritten, copy, flush, read back past the cache, and give the
//! device an identity of its own.

mod copy;
mod mint;
pub mod target;

use std::fs::OpenOptions;
use std::ops::Range;
use std::path::{Path, PathBuf};

use firmware_image::RawZone as _;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::Device;
use firmware_image::image::device::{DeviceError, lock};
use firmware_image::image::fat::RawFat;
use firmware_image::key_slot::DeviceId;

use crate::error::ToolError;
use crate::progress::Progress;
use crate::random::Random;
use target::{Checks, System};

/// What to write where.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image of a disk.
    pub image: PathBuf,
    /// The device.
    pub target: PathBuf,
    /// The CD of a *dual* device, where `device.cfg` is.
    pub cd: Option<PathBuf>,
    /// Whether the device keeps the image's identity.
    pub clone_identity: bool,
    /// Whether zeros are written too where they mean nothing, over what was there before.
    pub zeros_too: bool,
    /// What is allowed that is refused otherwise.
    pub checks: Checks,
    /// Where the new identity comes from.
    pub random: Random,
    /// The vendor's key, where the launcher's stamp is not to be believed.
    pub vendor: Option<firmware_image::signature::PublicKey>,
}

/// What was done.
#[derive(Debug, Clone)]
pub struct Written {
    /// Bytes written.
    pub bytes: u64,
    /// Who the device is now; `None` for a clone.
    pub device_id: Option<DeviceId>,
}

/// Writes the image.
///
/// # Errors
/// `Target` for a device that is refused, `Device` (`Busy`: another program writes to it), `ReadBack` for one that lies, else what
/// failed.
pub fn write(request: &Request, system: &System, progress: &mut dyn Progress) -> Result<Written, ToolError> {
    // An image that is not whole is found before anything is overwritten.
    let image = Device::open(&request.image, request.cd.as_deref(), Access::ReadOnly)?;
    let source =
        FileZone::open(&request.image, Access::ReadOnly).map_err(ToolError::zone("read", shown(&request.image)))?;
    let secret = match request.clone_identity {
        true => None,
        false => Some(crate::survey::own_secret(&image, request.vendor)?),
    };
    let owner = secret.as_ref().map(|(secret, _)| mint::owner(secret, &request.random)).transpose()?;
    let image_bytes =
        source.try_clone().and_then(|mut zone| zone.len()).map_err(ToolError::zone("read", shown(&request.image)))?;
    system.check(&request.target, image_bytes, &request.checks)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    system.open_exclusively(&mut options, &request.checks);
    let file = options.open(&request.target).map_err(ToolError::host("written", &request.target))?;
    let busy = |source| ToolError::Device(DeviceError::Open { path: request.target.clone(), source });
    let zone = FileZone::from_file(file, Access::ReadWrite).map_err(busy)?;
    lock(&zone).map_err(busy)?;
    let always = match request.zeros_too {
        true => copy::whole(image_bytes),
        false => meant(&image),
    };
    let bytes = copy::copy(&source, &zone, &request.target, always, progress)?;
    // The backup of the table belongs to the end of this device, not of the image.
    if let Some(table) = image.table() {
        mint::tables(&zone, table, owner.as_ref(), &request.random)
            .map_err(ToolError::zone("written", "the partition table"))?;
    }
    if let (Some(owner), Some((secret, align))) = (&owner, secret) {
        let device = Device::over(zone, &request.target, request.cd.as_deref())?;
        mint::identity(&image, &device, owner, &secret, align, progress)?;
    }
    Ok(Written { bytes, device_id: owner.map(|owner| owner.device_id) })
}

/// Where zeros mean something, even where the image has holes: in front of the zones, where loaders stand; in every partition,
/// whoever's it is; and of the free zone, which may be large, where it is in use. All else is nobody's.
fn meant(image: &Device) -> Vec<Range<u64>> {
    let Some(table) = image.table() else { return Vec::new() };
    let free = table.free();
    let first = table.zones().map(|zone| zone.extent.start).min();
    let mut ranges: Vec<Range<u64>> = first.map(|first| 0..first).into_iter().collect();
    let others = table.partitions.iter().map(|partition| partition.extent).filter(|extent| Some(*extent) != free);
    ranges.extend(others.map(|extent| extent.start..extent.end()));
    if let Some(free) = free {
        let used = image.free_raw().and_then(|raw| RawFat::open(raw, true)?.used());
        // One that does not say what it uses is copied as it is.
        let used = used.unwrap_or_else(|_| copy::whole(free.length));
        ranges.extend(used.into_iter().map(|range| free.start + range.start..free.start + range.end));
    }
    ranges
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
