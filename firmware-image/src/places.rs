//! Every place on a device where a slot may stand, behind one face: the hidden zone, the mirrors in the free zone, the
//! tail of a CD. Launcher, updater and factory tools look for records and backups through this and nothing else.
//!
//! Places come and go: a hidden partition that this user may not open, a free zone without a file system, a stick without
//! a CD. What is not in reach is `NotFound`, and the search goes on.

use argon2::Block;

use crate::free_zone::{FreeZone, ZoneFile};
use crate::hidden::{HiddenZone, SlotName};
use crate::key_slot::{Cost, DeviceId, Identity};
use crate::record::{MAX_RECORD_BYTES, VersionRecord};
use crate::seal::Secret;
use crate::signature::PublicKey;
use crate::slot::{Header, Kind, OpenSlot, SEGMENT_BUFFER_BYTES, SlotError};
use crate::storage::RawZone;
use crate::updater_image::Floors;
use crate::{ZoneError, paths};

/// Where a slot may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A slot of the hidden zone.
    Hidden(SlotName),
    /// The record's mirror in the free zone.
    RecordMirror,
    /// The backup's mirror in the free zone.
    BackupMirror,
    /// The factory backup behind the CD's file system.
    CdTail,
}

impl Place {
    /// Where a record may stand.
    pub const RECORDS: [Self; 3] =
        [Self::Hidden(SlotName::RecordA), Self::Hidden(SlotName::RecordB), Self::RecordMirror];
    /// Where a backup may stand, in the order in which equally new ones are taken.
    pub const BACKUPS: [Self; 4] =
        [Self::Hidden(SlotName::BackupA), Self::Hidden(SlotName::BackupB), Self::BackupMirror, Self::CdTail];

    /// What stands there.
    pub fn kind(self) -> Kind {
        match self {
            Self::Hidden(slot) => slot.kind(),
            Self::RecordMirror => Kind::Record,
            Self::BackupMirror | Self::CdTail => Kind::Backup,
        }
    }
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Hidden(slot) => write!(f, "hidden {slot}"),
            Self::RecordMirror => f.write_str("record mirror"),
            Self::BackupMirror => f.write_str("backup mirror"),
            Self::CdTail => f.write_str("factory backup on the CD"),
        }
    }
}

/// Memory for unlocking and unsealing, as much as the slots of a device ask for.
pub struct Memory<'m> {
    /// Argon2's memory for unattended key slots: one block a KiB of their cost.
    pub blocks: &'m mut [Block],
    /// A segment with its tag ([`segment_buffer_bytes`](crate::slot::segment_buffer_bytes)).
    pub segment: &'m mut [u8],
}

/// Memory for whatever a slot may ask for: allocate one, use it for everything.
pub struct Scratch {
    /// Argon2's memory for unattended key slots.
    pub blocks: [Block; Cost::UNATTENDED.memory_kib as usize],
    /// A segment with its tag.
    pub segment: [u8; SEGMENT_BUFFER_BYTES],
}

impl Scratch {
    /// Zeroed memory; about 320 KiB, so put it into a static or a box.
    pub const fn new() -> Self {
        Self {
            blocks: [const { Block::new() }; Cost::UNATTENDED.memory_kib as usize],
            segment: [0; SEGMENT_BUFFER_BYTES],
        }
    }

    /// All of it, lent.
    pub fn memory(&mut self) -> Memory<'_> {
        Memory { blocks: &mut self.blocks, segment: &mut self.segment }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// The places in reach.
pub struct Places<'f, H, F, C> {
    /// The hidden zone, where this user may open it.
    pub hidden: Option<HiddenZone<H>>,
    /// The free zone, where there is one with a sound file system.
    pub free: Option<&'f F>,
    /// The storage behind the CD's file system.
    pub cd_tail: Option<C>,
}

/// A record that opened.
pub struct FoundRecord<'o> {
    /// Where it stood.
    pub place: Place,
    /// Its generation.
    pub generation: u64,
    /// Who the device is.
    pub identity: Identity,
    /// What it says.
    pub record: VersionRecord<'o>,
}

impl<H: RawZone, F: FreeZone, C: RawZone> Places<'_, H, F, C> {
    /// Calls `f` with the storage of a place.
    ///
    /// # Errors
    /// `Zone(NotFound)` for a place that is not in reach, what opening reports, or what `f` returns.
    pub fn with<R>(
        &mut self,
        place: Place,
        f: impl FnOnce(&mut dyn RawZone) -> Result<R, SlotError>,
    ) -> Result<R, SlotError> {
        let out_of_reach = SlotError::Zone(ZoneError::NotFound);
        match place {
            Place::Hidden(slot) => f(&mut self.hidden.as_mut().ok_or(out_of_reach)?.slot(slot)?),
            Place::RecordMirror => self.with_mirror(paths::RECORD_MIRROR, f),
            Place::BackupMirror => self.with_mirror(paths::BACKUP_MIRROR, f),
            Place::CdTail => f(self.cd_tail.as_mut().ok_or(out_of_reach)?),
        }
    }

    fn with_mirror<R>(
        &self,
        path: &str,
        f: impl FnOnce(&mut dyn RawZone) -> Result<R, SlotError>,
    ) -> Result<R, SlotError> {
        let out_of_reach = SlotError::Zone(ZoneError::NotFound);
        let file = self.free.ok_or(out_of_reach)?.open(path)?.ok_or(out_of_reach)?;
        f(&mut MirrorFile(file))
    }

    /// The header in a place.
    ///
    /// # Errors
    /// As [`Header::read`] and [`Self::with`].
    #[inline(never)]
    pub fn header(&mut self, place: Place) -> Result<Header, SlotError> {
        self.with(place, |zone| patiently(|| Header::read(zone, place.kind())))
    }

    /// Reads the record in a place into `out`.
    ///
    /// # Errors
    /// Why it does not open.
    pub fn read_record<'o>(
        &mut self,
        place: Place,
        product_secret: &Secret,
        memory: &mut Memory<'_>,
        out: &'o mut [u8],
    ) -> Result<FoundRecord<'o>, SlotError> {
        let (generation, identity, length) = self.open_record(place, product_secret, memory, out)?;
        let record = VersionRecord::decode(&out[..length]).map_err(|_| SlotError::Malformed)?;
        Ok(FoundRecord { place, generation, identity, record })
    }

    /// The newest record that opens, wherever it stands, read into `out`; `None`: no place has one. Of hidden records those count
    /// first that are of the device that most hidden slots name, and beside a hidden record a mirror only if it is the same
    /// device's: neither files nor a slot copied from another unit change anything.
    pub fn newest_record<'o>(
        &mut self,
        product_secret: &Secret,
        memory: &mut Memory<'_>,
        out: &'o mut [u8],
    ) -> Option<FoundRecord<'o>> {
        let (place, generation, identity, length) = self.open_newest(product_secret, memory, out)?;
        let record = VersionRecord::decode(&out[..length]).ok()?;
        Some(FoundRecord { place, generation, identity, record })
    }

    /// The floors of the newest record; `None`: no place has one. As [`Self::newest_record`], without holding the record beside
    /// what opening one takes.
    pub fn newest_floors(
        &mut self,
        product_secret: &Secret,
        memory: &mut Memory<'_>,
        out: &mut [u8],
        vendor: &PublicKey,
        product: &str,
    ) -> Option<Floors> {
        let (_, _, _, length) = self.open_newest(product_secret, memory, out)?;
        floors_of(&out[..length], vendor, product)
    }

    /// The device that more than half of the hidden slots name, of those that name one.
    #[inline(never)]
    fn owner(&mut self) -> Option<DeviceId> {
        let ids = SlotName::ALL.map(|slot| Some(self.header(Place::Hidden(slot)).ok()?.device_id()));
        let named = || ids.iter().flatten();
        named().find(|id| 2 * named().filter(|other| other == id).count() > named().count()).copied()
    }

    /// Reads the newest record into `out`: where it stands, its generation, whose it is, its length.
    #[inline(never)]
    fn open_newest(
        &mut self,
        product_secret: &Secret,
        memory: &mut Memory<'_>,
        out: &mut [u8],
    ) -> Option<(Place, u64, Identity, usize)> {
        let mut passed_over = 0;
        while let Some(at) = self.newest_place(passed_over) {
            let place = Place::RECORDS[at];
            if let Ok((generation, identity, length)) = self.open_record(place, product_secret, memory, out) {
                return Some((place, generation, identity, length));
            }
            passed_over |= 1 << at;
        }
        None
    }

    /// Where in [`Place::RECORDS`] the newest record stands, by its header alone. Places whose bit is set in `passed_over` are
    /// left out.
    #[inline(never)]
    fn newest_place(&mut self, passed_over: u8) -> Option<usize> {
        let owner = self.owner();
        let mut newest: Option<(u64, DeviceId, usize)> = None;
        for (at, place) in Place::RECORDS.into_iter().enumerate() {
            if passed_over >> at & 1 == 1 {
                continue;
            }
            let Ok(header) = self.header(place) else { continue };
            let (generation, device_id) = (header.generation(), header.device_id());
            let better = match newest {
                None => true,
                Some((best, of, _)) if of == device_id => generation > best,
                Some((best, of, _)) => {
                    let newer = matches!(place, Place::Hidden(_)) && generation > best;
                    owner == Some(device_id) || newer && owner != Some(of)
                }
            };
            if better {
                newest = Some((generation, device_id, at));
            }
        }
        newest.map(|(_, _, at)| at)
    }

    #[inline(never)]
    fn open_record(
        &mut self,
        place: Place,
        product_secret: &Secret,
        memory: &mut Memory<'_>,
        out: &mut [u8],
    ) -> Result<(u64, Identity, usize), SlotError> {
        self.with(place, |zone| patiently(|| open_record(zone, product_secret, memory, out)))
    }
}

#[inline(never)]
fn floors_of(record: &[u8], vendor: &PublicKey, product: &str) -> Option<Floors> {
    VersionRecord::decode(record).ok().map(|record| record.floors(vendor, product))
}

/// Reads again what did not come whole: one read that failed is no reason to take a record for lost.
fn patiently<R>(mut read: impl FnMut() -> Result<R, SlotError>) -> Result<R, SlotError> {
    read().or_else(|_| read())
}

/// Whether `bytes` are a record of `device`.
#[inline(never)]
fn is_record_of(bytes: &[u8], device: DeviceId) -> bool {
    VersionRecord::decode(bytes).is_ok_and(|record| record.device_id == device)
}

/// Unlocks and reads a record: its generation, whose it is, and its bytes in `out`. What unlocking, reading and decoding take is
/// never on a microcontroller's stack at the same time, hence functions of their own.
#[inline(never)]
fn open_record(
    zone: &mut dyn RawZone,
    product_secret: &Secret,
    memory: &mut Memory<'_>,
    out: &mut [u8],
) -> Result<(u64, Identity, usize), SlotError> {
    let header = Header::read(zone, Kind::Record)?;
    if header.body_bytes() > MAX_RECORD_BYTES as u64 {
        return Err(SlotError::TooLong);
    }
    let identity = header.unlock(product_secret.expose(), memory.blocks)?;
    let generation = header.generation();
    let length = read_body(zone, header, &identity, memory.segment, out)?;
    if is_record_of(&out[..length], identity.device_id) {
        Ok((generation, identity, length))
    } else {
        Err(SlotError::Malformed)
    }
}

#[inline(never)]
fn read_body(
    zone: &mut dyn RawZone,
    header: Header,
    identity: &Identity,
    segment: &mut [u8],
    out: &mut [u8],
) -> Result<usize, SlotError> {
    Ok(OpenSlot::new(zone, Kind::Record, header, identity, segment).read_whole(out)?.len())
}

/// A mirror's file as raw storage.
pub struct MirrorFile<T>(pub T);

impl<T> embedded_io::ErrorType for MirrorFile<T> {
    type Error = ZoneError;
}

impl<T: ZoneFile> embedded_io::Read for MirrorFile<T> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        self.0.read(buf)
    }
}

impl<T: ZoneFile> embedded_io::Write for MirrorFile<T> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        self.0.flush()
    }
    /// As a [`Window`](crate::storage::Window)'s.
    fn write_fmt(&mut self, _: core::fmt::Arguments<'_>) -> Result<(), embedded_io::WriteFmtError<ZoneError>> {
        Err(embedded_io::WriteFmtError::FmtError)
    }
}

impl<T: ZoneFile> embedded_io::Seek for MirrorFile<T> {
    fn seek(&mut self, to: embedded_io::SeekFrom) -> Result<u64, ZoneError> {
        self.0.seek(to)
    }
}

impl<T: ZoneFile> RawZone for MirrorFile<T> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        self.0.len()
    }
    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        self.0.drop_caches()
    }
}
