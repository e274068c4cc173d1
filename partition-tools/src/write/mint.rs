//! A device's own identity: its keys, and the numbers by which a computer tells two disks apart.

use firmware_image::boot_sector;
use firmware_image::free_zone::FreeZone;
use firmware_image::hidden::{HiddenZone, SlotName};
use firmware_image::image::Device;
use firmware_image::image::fat::RawFat;
use firmware_image::image::gpt::{Extent, Guids, Table};
use firmware_image::key_slot::Identity;
use firmware_image::places::{MirrorFile, Place, Scratch};
use firmware_image::record::{MAX_RECORD_BYTES, VersionRecord};
use firmware_image::seal::Secret;
use firmware_image::slot::{Body, Header, Kind, OpenSlot, SlotError};
use firmware_image::storage::{Window, read_exact_at};
use firmware_image::{RawZone, ZoneError, paths};

use crate::error::ToolError;
use crate::identity::{self as slots, Bytes};
use crate::progress::Progress;
use crate::random::Random;

/// The numbers of the `owner`'s disk and zones.
pub(super) fn guids(owner: &Identity, random: &Random) -> Result<Guids, ZoneError> {
    Ok(Guids::new(&owner.device_id, &random.bytes("partition table of the device")?))
}

/// Gives the free zone's volume a number of its own.
pub(super) fn volume<Z: RawZone>(disk: Z, table: &Table, random: &Random) -> Result<(), ZoneError> {
    let Some(free) = table.free() else { return Ok(()) };
    let volume_id = u32::from_le_bytes(random.bytes("volume id of the device")?);
    boot_sector::set_volume_id(&mut Window::new(disk, free.start, free.length)?, volume_id)
}

/// Who a new device is.
pub(super) fn owner(secret: &Secret, random: &Random) -> Result<Identity, ToolError> {
    let bytes = random.bytes::<64>("identity of the device").map_err(ToolError::host("read", "the random source"))?;
    slots::mint(&bytes, secret, &mut Box::<Scratch>::default())
}

/// Seals everything on `disk`, which has the image's zones where the image has them, anew for its `owner`. What is sealed comes
/// from `image`, which stays as it is.
pub(super) fn identity<Z: RawZone + Clone>(
    image: &Device,
    table: &Table,
    disk: &Z,
    owner: &Identity,
    secret: &Secret,
    align: u64,
    progress: &mut dyn Progress,
) -> Result<(), ToolError> {
    let mut scratch = Box::<Scratch>::default();
    let hidden = || ToolError::zone("opened", "the hidden zone");
    let zone = |extent: Option<Extent>| {
        let extent = extent.ok_or(ZoneError::NotFound)?;
        Window::new(disk.clone(), extent.start, extent.length)
    };
    let mut from = HiddenZone::new(image.hidden_zone().map_err(hidden())?, align).map_err(hidden())?;
    let mut to = HiddenZone::new(zone(table.hidden()).map_err(hidden())?, align).map_err(hidden())?;
    let free = zone(table.free()).and_then(|zone| RawFat::open(zone, false));
    let free = free.map_err(ToolError::zone("opened", "the free zone"))?;
    progress.begin("identity", 0);
    let mut worker = Worker { owner, secret, scratch: &mut scratch };
    for name in SlotName::BACKUPS.into_iter().chain(SlotName::RECORDS) {
        let place = Place::Hidden(name);
        let failed = || ToolError::zone("opened", place.to_string());
        let mut old = from.slot(name).map_err(failed())?;
        let mut new = to.slot(name).map_err(failed())?;
        worker.reseal(place, &mut old, &mut |place, body, generation, owner, scratch| {
            slots::write_body(&mut new, place, body, generation, owner, scratch)
        })?;
    }
    for (place, path) in [(Place::BackupMirror, paths::BACKUP_MIRROR), (Place::RecordMirror, paths::RECORD_MIRROR)] {
        // The old mirror is read from the image: the new one takes its place on the device.
        let image_free = image.free_zone().map_err(ToolError::zone("opened", "the image's free zone"))?;
        let old = image_free.open(path).map_err(ToolError::zone("read", path))?;
        let Some(file) = old else { continue };
        worker.reseal(place, &mut MirrorFile(file), &mut |place, body, generation, owner, scratch| {
            slots::write_mirror(&free, place, body, generation, owner, scratch)
        })?;
    }
    free.close().map_err(ToolError::zone("written", "the free zone"))
}

struct Worker<'w> {
    owner: &'w Identity,
    secret: &'w Secret,
    scratch: &'w mut Scratch,
}

/// Writes a body to where it belongs.
type Writer<'w> = dyn FnMut(Place, &mut dyn Body, u64, &Identity, &mut Scratch) -> Result<(), ToolError> + 'w;

impl Worker<'_> {
    /// Opens the slot in `old` and gives its content, for the new owner, to `write`. A slot that does not open is an
    /// error: a device is not made from a damaged image.
    fn reseal<Z: RawZone>(&mut self, place: Place, old: &mut Z, write: &mut Writer<'_>) -> Result<(), ToolError> {
        let failed = || ToolError::slot("opened", place);
        let header = Header::read(old, place.kind()).map_err(failed())?;
        let generation = header.generation();
        let before = header.unlock(self.secret.expose(), &mut self.scratch.blocks).map_err(failed())?;
        let mut segment = Box::new(self.scratch.segment);
        let mut open = OpenSlot::new(old, place.kind(), header, &before, &mut segment[..]);
        if place.kind() == Kind::Backup {
            open.verify().map_err(failed())?;
            let length = open.header().body_bytes();
            return write(place, &mut Opened { open, length }, generation, self.owner, self.scratch);
        }
        let (mut text, mut out) = (vec![0; MAX_RECORD_BYTES], vec![0; MAX_RECORD_BYTES]);
        let text = open.read_whole(&mut text).map_err(failed())?;
        let malformed = || ToolError::slot("opened", place)(SlotError::Malformed);
        let mut record = VersionRecord::decode(text).map_err(|_| malformed())?;
        record.device_id = self.owner.device_id;
        let bytes = record.encode(&mut out).map_err(|_| malformed())?;
        write(place, &mut Bytes(bytes), generation, self.owner, self.scratch)
    }
}

/// An opened body as one to be sealed again.
struct Opened<'s, Z> {
    open: OpenSlot<'s, Z>,
    length: u64,
}

impl<Z: RawZone> Body for Opened<'_, Z> {
    fn len(&self) -> u64 {
        self.length
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ZoneError> {
        read_exact_at(&mut self.open, offset, buf)
    }
}
