//! The sealed slots of a device: record and backup, in both hidden slots and in their mirrors in the free zone, and the
//! factory backup behind a CD.
//!
//! Invariant: all copies of a new device have generation 1 and equal content, so that its first start finds nothing to
//! mend and writes nothing.

use std::io;

use embedded_io::Write as _;
use firmware_image::ZoneError;
use firmware_image::backup::{BackupBody, Index};
use firmware_image::free_zone::{FreeZone, ZoneFile as _};
use firmware_image::hidden::{HiddenZone, SlotName};
use firmware_image::key_slot::{Cost, Identity};
use firmware_image::paths;
use firmware_image::places::{MirrorFile, Place, Scratch};
use firmware_image::record::{MAX_RECORD_BYTES, VersionRecord};
use firmware_image::seal::Secret;
use firmware_image::slot::{self, Body, Kind};
use firmware_image::storage::RawZone;

use crate::error::ToolError;

/// Segments of records, as a power of two: what the updater uses too.
pub const RECORD_SEGMENT_LOG2: u8 = 12;
/// Segments of backups, as a power of two.
pub const BACKUP_SEGMENT_LOG2: u8 = 16;
/// The generation of everything in a new device.
pub const FIRST_GENERATION: u64 = 1;

/// Mints an identity from 64 random bytes.
///
/// # Errors
/// `Refused` where there is no memory for it.
pub fn mint(random: &[u8; 64], product_secret: &Secret, scratch: &mut Scratch) -> Result<Identity, ToolError> {
    Identity::mint(random, Cost::UNATTENDED, product_secret, &mut scratch.blocks)
        .map_err(|_| ToolError::Refused("there is no memory to make the device's identity".into()))
}

/// A body in memory: an updater image, a record.
pub struct Bytes<'b>(pub &'b [u8]);

impl Body for Bytes<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ZoneError> {
        Body::read_at(&mut &*self.0, offset, buf)
    }
}

/// Bytes that a backup slot needs for images of these lengths.
///
/// # Errors
/// `Refused` for more or longer images than a backup holds.
pub fn backup_slot_bytes<'a>(images: impl Iterator<Item = (&'a str, u64)>) -> Result<u64, ToolError> {
    Ok(slot::slot_bytes(layout(images)?.body_bytes(), BACKUP_SEGMENT_LOG2))
}

fn layout<'a>(images: impl Iterator<Item = (&'a str, u64)>) -> Result<Index, ToolError> {
    Index::layout(images)
        .map_err(|_| ToolError::Refused("these updaters are more, or longer, than a backup can hold".into()))
}

/// Seals the updaters (platform, image) into the slot that is all of `zone`.
///
/// # Errors
/// `Slot` (`TooLong` where the slot is too small), `Refused`.
pub fn write_backup<Z: RawZone>(
    zone: &mut Z,
    place: Place,
    images: &[(String, Vec<u8>)],
    identity: &Identity,
    scratch: &mut Scratch,
) -> Result<(), ToolError> {
    let index = layout(images.iter().map(|(platform, image)| (platform.as_str(), image.len() as u64)))?;
    let mut bodies: Vec<Bytes<'_>> = images.iter().map(|(_, image)| Bytes(image)).collect();
    let mut body = BackupBody::new(index, &mut bodies).map_err(ToolError::zone("laid out", "the backup"))?;
    write_body(zone, place, &mut body, FIRST_GENERATION, identity, scratch)
}

/// Seals any body into the slot that is all of `zone`.
///
/// # Errors
/// `Slot`.
pub fn write_body<Z: RawZone>(
    zone: &mut Z,
    place: Place,
    body: &mut dyn Body,
    generation: u64,
    identity: &Identity,
    scratch: &mut Scratch,
) -> Result<(), ToolError> {
    let kind = place.kind();
    let segment_log2 = if kind == Kind::Record { RECORD_SEGMENT_LOG2 } else { BACKUP_SEGMENT_LOG2 };
    slot::Write { kind, generation, identity, segment_log2 }
        .write(zone, body, &mut scratch.segment)
        .map(|_| ())
        .map_err(ToolError::slot("written", place))
}

/// Seals any body into a mirror in the free zone, made as long as it needs to be.
///
/// # Errors
/// `Zone`, `Slot`.
pub fn write_mirror<F: FreeZone>(
    free: &F,
    place: Place,
    body: &mut dyn Body,
    generation: u64,
    identity: &Identity,
    scratch: &mut Scratch,
) -> Result<(), ToolError> {
    let (path, segment_log2) = match place.kind() {
        Kind::Record => (paths::RECORD_MIRROR, RECORD_SEGMENT_LOG2),
        Kind::Backup => (paths::BACKUP_MIRROR, BACKUP_SEGMENT_LOG2),
    };
    let mut file = free.create(path).map_err(ToolError::zone("written", path))?;
    file.set_len(slot::slot_bytes(body.len(), segment_log2)).map_err(ToolError::zone("written", path))?;
    write_body(&mut MirrorFile(file), place, body, generation, identity, scratch)
}

/// Writes everything sealed of a new device: records and backups in the hidden zone, and their mirrors.
///
/// # Errors
/// `Zone`, `Slot`, `Refused`.
pub fn write_all<H: RawZone, F: FreeZone>(
    hidden: &mut HiddenZone<H>,
    free: &F,
    record: &VersionRecord<'_>,
    images: &[(String, Vec<u8>)],
    identity: &Identity,
    scratch: &mut Scratch,
) -> Result<(), ToolError> {
    for name in SlotName::BACKUPS {
        let mut zone = hidden.slot(name).map_err(ToolError::zone("opened", "the hidden zone"))?;
        write_backup(&mut zone, Place::Hidden(name), images, identity, scratch)?;
    }
    let mut out = vec![0; MAX_RECORD_BYTES];
    let bytes = record
        .encode(&mut out)
        .map_err(|_| ToolError::Refused("the release's metadata is longer than a version record can hold".into()))?;
    for name in SlotName::RECORDS {
        let mut zone = hidden.slot(name).map_err(ToolError::zone("opened", "the hidden zone"))?;
        write_body(&mut zone, Place::Hidden(name), &mut Bytes(bytes), FIRST_GENERATION, identity, scratch)?;
    }
    let index = layout(images.iter().map(|(platform, image)| (platform.as_str(), image.len() as u64)))?;
    let mut bodies: Vec<Bytes<'_>> = images.iter().map(|(_, image)| Bytes(image)).collect();
    let mut body = BackupBody::new(index, &mut bodies).map_err(ToolError::zone("laid out", "the backup"))?;
    write_mirror(free, Place::BackupMirror, &mut body, FIRST_GENERATION, identity, scratch)?;
    write_mirror(free, Place::RecordMirror, &mut Bytes(bytes), FIRST_GENERATION, identity, scratch)
}

/// Copies all of `reader` into a file of the free zone.
///
/// # Errors
/// `Host` for the reader, `Zone` for the file.
pub fn put_file<F: FreeZone>(
    free: &F,
    path: &str,
    reader: &mut dyn io::Read,
    mut wrote: impl FnMut(u64),
) -> Result<u64, ToolError> {
    let object = || format!("{path} in the free zone");
    let mut file = free.create(path).map_err(ToolError::zone("written", object()))?;
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let n = reader.read(&mut buffer).map_err(ToolError::host("read", path))?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(ToolError::zone("written", object()))?;
        total += n as u64;
        wrote(n as u64);
    }
    Ok(total)
}
