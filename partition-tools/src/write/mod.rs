//! An image onto a real device: refuse what must not be overwritten, copy, flush, read back past the cache, and give the
//! device an identity of its own.
//!
//! | order | a cut there leaves |
//! |---|---|
//! | 1 every header of a table that stands there, and the first sector, make way for a mark; flush | what stood there, of whose table and first sector some or nothing is left; or the mark |
//! | 2 blocks that are like no others all over the disk, and back past the cache | a disk that says that its writing was not finished |
//! | 3 the image without its first sector and its table's headers, and back past the cache; the blocks of 2 once more, which go then | the same |
//! | 4 volume, backups, records and mirrors of the device's own, and back past the cache | the same |
//! | 5 the first sector; flush; the table, one copy after the other; back past the cache | the same, or the whole device without one copy of its table, which `repair` mends |
//!
//! Invariant: a disk with a sound table has all else that it is to have.

mod copy;
mod marks;
mod mint;
mod recorder;
pub mod target;

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use embedded_io::Write as _;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::Device;
use firmware_image::image::device::{DeviceError, lock};
use firmware_image::image::fat::RawFat;
use firmware_image::image::gpt::{self, Table};
use firmware_image::key_slot::{DeviceId, Identity};
use firmware_image::seal::Secret;
use firmware_image::storage::{read_exact_at, write_all_at};
use firmware_image::{RawZone, ZoneError};

use crate::error::ToolError;
use crate::progress::Progress;
use crate::random::Random;
use marks::Marks;
use recorder::Recorder;
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
/// `Target` for a device that is refused, `Device` (`Busy`: another program writes to it), else as [`Plan::make`] and
/// [`Plan::carry_out`].
pub fn write(request: &Request, system: &System, progress: &mut dyn Progress) -> Result<Written, ToolError> {
    // An image that is not whole is found before anything is overwritten.
    let plan = Plan::make(request)?;
    let sources: Vec<&Path> = [&request.image].into_iter().chain(&request.cd).map(PathBuf::as_path).collect();
    system.check(&request.target, &sources, plan.image_bytes, &request.checks)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    system.open_exclusively(&mut options, &request.checks);
    let file = options.open(&request.target).map_err(|error| match error.kind() {
        ErrorKind::ResourceBusy => target::in_use(&request.target),
        _ => ToolError::host("written", &request.target)(error),
    })?;
    let busy = |source| ToolError::Device(DeviceError::Open { path: request.target.clone(), source });
    let zone = FileZone::from_file(file, Access::ReadWrite).map_err(busy)?;
    lock(&zone).map_err(busy)?;
    plan.carry_out(zone, progress)
}

/// An image that is whole, and who its device is to be.
pub struct Plan<'r> {
    request: &'r Request,
    image: Device,
    table: Table,
    source: FileZone,
    image_bytes: u64,
    /// Who the device is to be, what its zones are opened with, and how they are aligned; `None` for a clone.
    owner: Option<(Identity, Secret, u64)>,
}

impl<'r> Plan<'r> {
    /// Looks at the image, and draws what is to be drawn. Nothing is written.
    ///
    /// # Errors
    /// What is wrong with the image.
    pub fn make(request: &'r Request) -> Result<Self, ToolError> {
        let image = Device::open(&request.image, request.cd.as_deref(), Access::ReadOnly)?;
        let unread = || ToolError::zone("read", request.image.display().to_string());
        let mut source = FileZone::open(&request.image, Access::ReadOnly).map_err(unread())?;
        let image_bytes = source.len().map_err(unread())?;
        let table = image.table().cloned().ok_or(ZoneError::NotFound).map_err(unread())?;
        let owner = match request.clone_identity {
            true => None,
            false => {
                let (secret, align) = crate::survey::own_secret(&image, request.vendor)?;
                Some((mint::owner(&secret, &request.random)?, secret, align))
            }
        };
        Ok(Self { request, image, table, source, image_bytes, owner })
    }

    /// Writes the image to `disk`, whatever stands there. See the module for the order.
    ///
    /// # Errors
    /// `ReadBack` for a device that does not keep what is written to it, else what failed. The device is no Holdfast device then,
    /// and says so.
    pub fn carry_out<Z: RawZone>(&self, disk: Z, progress: &mut dyn Progress) -> Result<Written, ToolError> {
        let (target, table) = (&*self.request.target, &self.table);
        let failed = || ToolError::zone("written", target.display().to_string());
        let mut disk = Recorder::new(disk).map_err(failed())?;
        let disk_bytes = disk.len().map_err(failed())?;
        gpt::mark_unfinished(&mut disk).map_err(failed())?;
        let always = match self.request.zeros_too {
            true => copy::whole(self.image_bytes),
            false => meant(&self.image),
        };
        let ranges = copy::ranges(&self.source, self.image_bytes, always, self.held_back());
        let extents = table.partitions.iter().map(|partition| partition.extent);
        let marks = Marks::new(disk_bytes, extents, &ranges).map_err(ToolError::host("read", "the random source"))?;
        marks.write(&mut disk).map_err(failed())?;
        marks.check(&mut disk, target)?;
        let bytes = copy::copy(&self.source, &mut disk, target, &ranges, progress)?;
        marks.check(&mut disk, target)?;
        disk.record();
        marks.remove(&mut disk).map_err(failed())?;
        if let Some((owner, secret, align)) = &self.owner {
            mint::volume(disk.clone(), table, &self.request.random)
                .map_err(ToolError::zone("written", "the free zone"))
                .and_then(|()| mint::identity(&self.image, table, &disk, owner, secret, *align, progress))
                .map_err(|error| disk.cause(error, target))?;
        }
        disk.check(target)?;
        if let Err(error) = self.finish(&mut disk) {
            // The first fault is the one to report. What can still be done is that nobody takes it for a device.
            let _ = gpt::mark_unfinished(&mut disk);
            return Err(error);
        }
        Ok(Written { bytes, device_id: self.owner.as_ref().map(|(owner, ..)| owner.device_id) })
    }

    /// What makes the disk a device: its first sector, and the two copies of the table.
    fn finish<Z: RawZone>(&self, disk: &mut Recorder<Z>) -> Result<(), ToolError> {
        let failed = || ToolError::zone("written", "the partition table");
        disk.record();
        let mut first = vec![0; self.first_bytes() as usize];
        let mut source = self.source.try_clone().map_err(failed())?;
        read_exact_at(&mut source, 0, &mut first).map_err(ToolError::zone("read", "the image"))?;
        if self.table.sector_bytes() > gpt::SECTOR_BYTES {
            // The mark goes before the table that ends its time.
            write_all_at(disk, gpt::SECTOR_BYTES, &first[gpt::SECTOR_BYTES as usize..]).map_err(failed())?;
        }
        write_all_at(disk, 0, &first[..gpt::SECTOR_BYTES as usize]).map_err(failed())?;
        disk.flush().map_err(failed())?;
        let guids = self.owner.as_ref().map(|(owner, ..)| mint::guids(owner, &self.request.random));
        let guids = guids.transpose().map_err(failed())?;
        // The backup of the table belongs to the end of this device, not of the image.
        let written = self.table.write(disk.clone(), guids.as_ref()).map_err(failed());
        written.map_err(|error| disk.cause(error, &self.request.target))?;
        disk.check(&self.request.target)
    }

    /// What of the image's beginning is written just before the table: the first sector, and where the mark of a device that is
    /// not finished stands if that is no header.
    fn first_bytes(&self) -> u64 {
        self.table.sector_bytes().min(2 * gpt::SECTOR_BYTES)
    }

    /// What would make the disk a device, or take the mark from it that it is none.
    fn held_back(&self) -> Vec<Range<u64>> {
        let sector = self.table.sector_bytes();
        let last = self.image_bytes / sector * sector;
        let mut held = vec![0..2 * gpt::SECTOR_BYTES, sector..2 * sector];
        // The backup of the table, unless the image was cut off behind its last partition.
        if self.table.partitions.iter().all(|partition| partition.extent.end() <= last - sector) {
            held.push(last - sector..last);
        }
        held
    }
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
