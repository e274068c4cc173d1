//! The backups of the updater, and how closely they are looked at.
//!
//! A body is as long as all updaters together, and reading every one of them is what a start would mostly do. So in a start
//! that finds nothing new and nothing amiss each place is looked at *at a glance* (header, key slots, index, the
//! authenticated trailers: what shows a backup that is gone, foreign, torn or cut off), and one place, drawn at random, is
//! read whole. No state is kept for that, and with four places one that has rotted is found within four starts on average.
//! Whenever anything is amiss, was changed, or is to be written, all of them are read whole; so they are when the launcher
//! had to look for a good copy, since it may have passed over a backup that is damaged where a glance does not see it.

use embedded_io::SeekFrom;
use firmware_image::RawZone;
use firmware_image::ZoneError;
use firmware_image::backup::{ImageReader, Index};
use firmware_image::free_zone::FreeZone;
use firmware_image::key_slot::Identity;
use firmware_image::places::Place;
use firmware_image::signature::PublicKey;
use firmware_image::slot::{Header, Kind, OpenSlot, SlotError};
use firmware_image::updater_image::{
    Floors, ImageError, MAX_IMAGE_BYTES, MAX_TRAILER_BYTES, authenticate, read_trailer,
};

use crate::engine::Engine;
use crate::renewal::SoundImage;
use crate::zone_io;

/// A backup in one of its places.
#[derive(Debug, Clone)]
pub struct FoundBackup {
    /// Where.
    pub place: Place,
    /// Its generation.
    pub generation: u64,
    /// What it holds; each image verified, as closely as the backup was looked at.
    pub images: Vec<SoundImage>,
}

impl FoundBackup {
    /// The newest first, the hidden zone's before its mirror, and the factory's, which is never renewed, last.
    pub(crate) fn precedence(&self) -> (bool, u64, bool) {
        (self.place != Place::CdTail, self.generation, matches!(self.place, Place::Hidden(_)))
    }
}

/// How closely something is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Header, index, authenticated trailers.
    Glance,
    /// Every byte.
    Whole,
}

/// What is read whole in a start that finds nothing else amiss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A backup.
    Backup(Place),
    /// The updaters in the free zone that are not for this platform, which no launcher here looks at.
    OtherUpdaters,
    /// All of it: the launcher met a copy that was no good.
    Everything,
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Every backup that is whole: all of each is read.
    pub fn backups(&mut self) -> Vec<FoundBackup> {
        Place::BACKUPS.into_iter().filter_map(|place| self.backup(place, Look::Whole).ok()).collect()
    }

    /// Every backup that is whole; what this run has read or written whole is not read again.
    pub(crate) fn whole_backups(&mut self) -> Vec<FoundBackup> {
        let mut found = Vec::new();
        for place in Place::BACKUPS {
            let known = self.whole_backups.iter().find(|backup| backup.place == place).cloned();
            let known = known.or_else(|| self.backup(place, Look::Whole).ok());
            found.extend(known);
        }
        self.whole_backups = found.clone();
        found
    }

    /// Every backup that looks whole. Where one that should be there does not, or the one whose turn it is turns out not to
    /// be, the glances of this run are over.
    pub(crate) fn backups_at_a_glance(&mut self) -> Vec<FoundBackup> {
        let found: Vec<FoundBackup> =
            Place::BACKUPS.into_iter().filter_map(|place| self.backup(place, Look::Glance).ok()).collect();
        let has_hidden = self.records.has_hidden();
        let due = |place: &Place| match place {
            Place::Hidden(_) => has_hidden,
            Place::BackupMirror => true,
            _ => false,
        };
        let lacking =
            Place::BACKUPS.iter().filter(|place| due(place)).any(|place| found.iter().all(|b| b.place != *place));
        if lacking || !self.turn_is_whole(&found) {
            self.look = Look::Whole;
        }
        found
    }

    /// Reads whole what is in turn. Whether it is.
    fn turn_is_whole(&mut self, found: &[FoundBackup]) -> bool {
        let mut turns: Vec<Turn> = found.iter().map(|backup| Turn::Backup(backup.place)).collect();
        let others = self.other_updaters();
        if !others.is_empty() {
            turns.push(Turn::OtherUpdaters);
        }
        let drawn = || {
            let mut bytes = [0; 8];
            self.host.random(&mut bytes).ok()?;
            let at = u64::from_le_bytes(bytes).checked_rem(turns.len() as u64)?;
            turns.get(usize::try_from(at).ok()?).copied()
        };
        match self.limits.turn.or_else(drawn) {
            Some(Turn::Backup(place)) => match self.backup(place, Look::Whole) {
                Ok(backup) => {
                    self.whole_backups.push(backup);
                    true
                }
                Err(_) => false,
            },
            Some(Turn::OtherUpdaters) => others.iter().all(|(path, platform)| self.sound_image(path, platform).is_ok()),
            // Asked for; or nothing to draw from, or no randomness: then everything is read each time.
            Some(Turn::Everything) | None => false,
        }
    }

    /// Whose a backup in some place has to be: this device's, but for the factory's on the CD. A CD is the same for every
    /// unit, and has an identity of its own under the product secret.
    pub(crate) fn owner(&mut self, place: Place) -> Result<Identity, SlotError> {
        if place != Place::CdTail {
            return Ok(self.records.identity.clone());
        }
        let header = self.records.places.header(place)?;
        header.unlock(self.config.secret.expose(), &mut self.records.scratch.blocks)
    }

    fn backup(&mut self, place: Place, look: Look) -> Result<FoundBackup, SlotError> {
        let identity = self.owner(place)?;
        let scratch = &mut *self.records.scratch;
        let (vendor, product, secret) = (&self.vendor, &self.config.product, &self.config.secret);
        self.records.places.with(place, |zone| {
            let header = Header::read(zone, Kind::Backup)?;
            if header.device_id() != identity.device_id {
                return Err(SlotError::WrongKind);
            }
            if header.key_slots() != identity.slots {
                // Locked in another way than the record, and still to be opened by itself.
                header.unlock(secret.expose(), &mut scratch.blocks)?;
            }
            let generation = header.generation();
            let mut open = OpenSlot::new(zone, Kind::Backup, header, &identity, &mut scratch.segment);
            let images = read_images(&mut open, vendor, product, look)?;
            Ok(FoundBackup { place, generation, images })
        })
    }
}

/// The updaters in an opened backup. Looked at whole, every byte of them is read.
pub(crate) fn read_images<Z: RawZone>(
    open: &mut OpenSlot<'_, Z>,
    vendor: &PublicKey,
    product: &str,
    look: Look,
) -> Result<Vec<SoundImage>, SlotError> {
    let body_bytes = open.header().body_bytes();
    let index = Index::read(open, body_bytes)?;
    let mut images = Vec::new();
    for entry in &index.entries {
        let mut reader = ImageReader::new(open, entry);
        let image = verify(&mut reader, entry.length, &entry.platform, vendor, product, &Floors::default(), look);
        images.push(image.map_err(|_| SlotError::Malformed)?);
    }
    Ok(images)
}

pub(crate) fn same_images(found: &[SoundImage], wanted: &[SoundImage]) -> bool {
    found.len() == wanted.len() && wanted.iter().all(|image| found.iter().any(|other| other.same(image)))
}

/// Verifies an updater image; at a glance, its trailer alone.
pub(crate) fn verify<R>(
    file: &mut R,
    length: u64,
    platform: &str,
    vendor: &PublicKey,
    product: &str,
    floors: &Floors,
    look: Look,
) -> Result<SoundImage, ImageError>
where
    R: embedded_io::Read + embedded_io::Seek + embedded_io::ErrorType<Error = ZoneError>,
{
    if length > MAX_IMAGE_BYTES {
        return Err(ImageError::TooLong);
    }
    let mut trailer = [0; MAX_TRAILER_BYTES];
    let trailer = authenticate(read_trailer(file, length, &mut trailer)?, vendor)?;
    trailer.is_for(product, platform)?;
    trailer.is_above(floors)?;
    let body = trailer.body();
    let signed_bytes = body.image_bytes + trailer.bytes().len() as u64;
    match look {
        Look::Glance if signed_bytes > length => return Err(ImageError::Damaged),
        Look::Glance => {}
        Look::Whole => {
            let mut buffer = vec![0; zone_io::BUFFER_BYTES];
            trailer.verify_image(file, length, &mut buffer)?;
            // Behind the trailer of a PE stands its certificate table, which no digest covers: it must at least be there.
            file.seek(SeekFrom::Start(signed_bytes))?;
            while file.read(&mut buffer)? > 0 {}
        }
    }
    Ok(SoundImage {
        platform: platform.to_owned(),
        version: body.version,
        key_serial: body.certificate.serial,
        sha256: body.sha256,
        length,
        floors: body.floors,
        statement: trailer.bytes().to_vec(),
    })
}
