//! The version record: read from the best place, written to all of them.
//!
//! To write: into the hidden slot that the newest good record does not stand in, with the next generation, then into the
//! mirror in the free zone. Where no hidden zone is in reach the mirror is the only copy; it is then first written under
//! a second name, so that one whole copy exists at every cut.

use firmware_image::free_zone::FreeZone;
use firmware_image::hidden::SlotName;
use firmware_image::key_slot::{Cost, Identity};
use firmware_image::places::{MirrorFile, Place, Places, Scratch};
use firmware_image::record::MAX_RECORD_BYTES;
use firmware_image::seal::Secret;
use firmware_image::slot::{self, Header, Kind, SlotError};
use firmware_image::{RawZone, paths};

use crate::error::EngineError;
use crate::host::Host;
use crate::state::State;
use crate::zone_io::{self, Copied};

/// Segments of records, as a power of two.
const RECORD_SEGMENT_LOG2: u8 = 12;

/// Where the identity came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The newest good record.
    Record(Place),
    /// No record opens; the key slots of this place do.
    KeySlots(Place),
    /// No slot opens anywhere: the device has a new identity.
    Minted,
}

/// Reads and writes the record of one device.
pub struct RecordStore<'z, H, F, C> {
    /// Every place where a slot may stand.
    pub places: Places<'z, H, F, C>,
    /// Memory for unlocking and unsealing.
    pub scratch: Box<Scratch>,
    /// Who the device is.
    pub identity: Identity,
    /// Where that was learned.
    pub origin: Origin,
    free: &'z F,
    secret: Secret,
    /// By hidden slot: the generation of its record, where it opens as this device's.
    hidden: [Option<u64>; 2],
    mirror: Option<u64>,
    /// The generation of the record under the mirror's second name, where it is the newest: a cut came while the mirror itself
    /// was being written.
    unfinished: Option<u64>,
    stored: Option<Vec<u8>>,
}

impl<'z, H: RawZone, F: FreeZone, C: RawZone> RecordStore<'z, H, F, C> {
    /// Finds the newest record, or at least who the device is. Writes nothing.
    ///
    /// # Errors
    /// `Random` where a new identity is needed and there is no random source.
    pub fn load(
        places: Places<'z, H, F, C>,
        free: &'z F,
        secret: &Secret,
        host: &dyn Host,
    ) -> Result<(Self, State), EngineError> {
        let mut places = places;
        let mut scratch = Box::<Scratch>::default();
        let mut out = vec![0; MAX_RECORD_BYTES];
        let newest = places
            .newest_record(secret, &mut scratch.memory(), &mut out)
            .map(|found| (State::from_record(&found.record), found.identity, found.place, found.generation));
        let mut record_new = None;
        if newest.as_ref().is_none_or(|(.., place, _)| *place == Place::RecordMirror) {
            record_new = read_record_new(free, secret, &mut scratch, &mut out);
        }
        // The mirror's second name counts where it is whole, this device's, and newer than the mirror.
        let is_newer = |(_, identity, generation): &(State, Identity, u64)| {
            newest
                .as_ref()
                .is_none_or(|(_, known, _, oldest)| identity.device_id == known.device_id && generation > oldest)
        };
        let record_new = record_new.filter(is_newer);
        let unfinished = record_new.as_ref().map(|(.., generation)| *generation);
        let (state, identity, origin) = match (newest, record_new) {
            (_, Some((state, identity, _))) => (Some(state), identity, Origin::Record(Place::RecordMirror)),
            (Some((state, identity, place, _)), None) => (Some(state), identity, Origin::Record(place)),
            (None, None) => {
                let (identity, origin) = find_identity(&mut places, secret, &mut scratch, host)?;
                (None, identity, origin)
            }
        };
        let mut store = Self {
            places,
            scratch,
            identity,
            origin,
            free,
            secret: secret.clone(),
            hidden: [None; 2],
            mirror: None,
            unfinished,
            stored: None,
        };
        store.survey(&mut out);
        let had = state.is_some();
        let state = state.unwrap_or_else(|| State::new(store.identity.device_id));
        if had {
            store.stored = Some(state.encode()?);
        }
        Ok((store, state))
    }

    /// Notes the generation of each place's record.
    fn survey(&mut self, out: &mut [u8]) {
        let device = self.identity.device_id;
        let mut generation = |place| {
            let found = self.places.read_record(place, &self.secret, &mut self.scratch.memory(), out).ok()?;
            (found.identity.device_id == device).then_some(found.generation)
        };
        self.hidden = SlotName::RECORDS.map(|slot| generation(Place::Hidden(slot)));
        self.mirror = generation(Place::RecordMirror);
    }

    fn generation(&self) -> u64 {
        self.hidden.iter().flatten().chain(&self.mirror).chain(&self.unfinished).copied().max().unwrap_or(0)
    }

    /// Whether a hidden zone is in reach.
    pub fn has_hidden(&self) -> bool {
        self.places.hidden.is_some()
    }

    /// Where a sound record stands, with its generation.
    pub fn standing(&self) -> Vec<(Place, u64)> {
        let hidden = SlotName::RECORDS.into_iter().map(Place::Hidden).zip(self.hidden);
        let all = hidden.chain([(Place::RecordMirror, self.mirror)]);
        all.filter_map(|(place, generation)| Some((place, generation?))).collect()
    }

    /// Makes `state` the device's record, unless it is that already. Whether anything was written.
    ///
    /// # Errors
    /// `NoRecordPlace` where neither the hidden zone nor the mirror takes it.
    pub fn save(&mut self, state: &State) -> Result<bool, EngineError> {
        let bytes = state.encode()?;
        if self.stored.as_ref() == Some(&bytes) {
            return Ok(false);
        }
        let Some(generation) = self.generation().checked_add(1) else { return self.start_over(bytes) };
        let hidden = self.write_hidden(self.older_slot(), &bytes, generation);
        if hidden.is_ok() && self.hidden.contains(&None) {
            // The other slot does not open, on a new device or after damage; not being able to write it is no failure of
            // this, and healing tries again.
            let _ = self.write_hidden(self.older_slot(), &bytes, generation);
        }
        let mirror = self.write_mirror(&bytes, generation, hidden.is_err());
        if hidden.is_err() {
            mirror.map_err(|_| EngineError::NoRecordPlace)?;
        }
        self.stored = Some(bytes);
        Ok(true)
    }

    /// Replaces records behind whose generation no other can come, which only a forger writes: the highest is overwritten
    /// last, so that a cut leaves it or what is written now.
    fn start_over(&mut self, bytes: Vec<u8>) -> Result<bool, EngineError> {
        let first = self.older_slot();
        let hidden = self.write_hidden(first, &bytes, 1).and_then(|()| self.write_hidden(1 - first, &bytes, 2));
        let mirror = self.write_mirror(&bytes, 2, hidden.is_err());
        if hidden.is_err() {
            mirror.map_err(|_| EngineError::NoRecordPlace)?;
        }
        self.stored = Some(bytes);
        Ok(true)
    }

    /// Copies the record to each place that lacks it. Whether anything was written.
    ///
    /// # Errors
    /// `NoRecordPlace`.
    pub fn heal(&mut self) -> Result<bool, EngineError> {
        let Some(bytes) = self.stored.clone() else { return Ok(false) };
        let generation = self.generation().max(1);
        let mirror_lacks = self.mirror != Some(generation);
        let mut written = false;
        if self.has_hidden() && !self.hidden.contains(&Some(generation)) {
            // A hidden zone that cannot be written now is tried again next time; the mirror holds the record.
            written |= self.write_hidden(self.older_slot(), &bytes, generation).is_ok();
        }
        if self.has_hidden() && self.hidden.contains(&None) && self.hidden.contains(&Some(generation)) {
            // The other slot does not open: two copies are what a cut needs. Tried again next time, likewise.
            written |= self.write_hidden(self.older_slot(), &bytes, generation).is_ok();
        }
        if mirror_lacks {
            written |= self.write_mirror(&bytes, generation, !self.hidden.contains(&Some(generation))).is_ok();
        }
        Ok(written)
    }

    /// Copies the record under the mirror's second name over the mirror, where a cut left it so; removes one that is of no use.
    ///
    /// # Errors
    /// What the zone reports.
    pub fn finish_mirror(&mut self) -> Result<(), EngineError> {
        let (path, free) = (paths::RECORD_MIRROR_NEW, self.free);
        let Some(generation) = self.unfinished else {
            return zone_io::remove(free, path).map(drop);
        };
        let Some(bytes) = zone_io::read_small(free, path, MAX_RECORD_BYTES as u64 * 2)? else { return Ok(()) };
        let digest = firmware_image::Digest::of(&bytes);
        self.mirror = None;
        let copied = zone_io::copy_checked(free, path, paths::RECORD_MIRROR, bytes.len() as u64, &digest, &|_| {})?;
        if copied == Copied::Whole {
            zone_io::sync_parents(free, paths::RECORD_MIRROR)?;
            self.mirror = Some(generation);
            self.unfinished = None;
            zone_io::remove(free, path)?;
        }
        Ok(())
    }

    /// The slot that may be written: not the one with the newest record.
    fn older_slot(&self) -> usize {
        match self.hidden {
            [Some(a), Some(b)] if a < b => 0,
            [None, _] => 0,
            _ => 1,
        }
    }

    fn write_hidden(&mut self, at: usize, bytes: &[u8], generation: u64) -> Result<(), SlotError> {
        let slot = SlotName::RECORDS[at];
        let (identity, segment) = (&self.identity, &mut self.scratch.segment);
        let write = slot::Write { kind: Kind::Record, generation, identity, segment_log2: RECORD_SEGMENT_LOG2 };
        self.hidden[at] = None;
        self.places.with(Place::Hidden(slot), |mut zone| write.write(&mut zone, &mut &*bytes, segment).map(|_| ()))?;
        self.hidden[at] = Some(generation);
        Ok(())
    }

    fn write_mirror(&mut self, bytes: &[u8], generation: u64, only_copy: bool) -> Result<(), EngineError> {
        self.mirror = None;
        if only_copy {
            self.write_mirror_file(paths::RECORD_MIRROR_NEW, bytes, generation)?;
        }
        self.write_mirror_file(paths::RECORD_MIRROR, bytes, generation)?;
        self.mirror = Some(generation);
        if self.free.metadata(paths::RECORD_MIRROR_NEW).is_ok_and(|found| found.is_some()) {
            zone_io::remove(self.free, paths::RECORD_MIRROR_NEW)?;
        }
        Ok(())
    }

    fn write_mirror_file(&mut self, path: &str, bytes: &[u8], generation: u64) -> Result<(), EngineError> {
        use firmware_image::free_zone::ZoneFile as _;
        let mut file = self.free.create(path).map_err(EngineError::zone("write", path))?;
        file.set_len(slot::slot_bytes(bytes.len() as u64, RECORD_SEGMENT_LOG2))
            .map_err(EngineError::zone("write", path))?;
        let (identity, segment) = (&self.identity, &mut self.scratch.segment);
        slot::Write { kind: Kind::Record, generation, identity, segment_log2: RECORD_SEGMENT_LOG2 }
            .write(&mut MirrorFile(file), &mut &*bytes, segment)
            .map_err(|source| EngineError::Slot { place: Place::RecordMirror, source })?;
        zone_io::sync_parents(self.free, path)
    }
}

/// The record under the mirror's second name: a cut came while the mirror itself was being written.
fn read_record_new<F: FreeZone>(
    free: &F,
    secret: &Secret,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Option<(State, Identity, u64)> {
    let file = free.open(paths::RECORD_MIRROR_NEW).ok()??;
    let mut zone = MirrorFile(file);
    let header = Header::read(&mut zone, Kind::Record).ok()?;
    let identity = header.unlock(secret.expose(), &mut scratch.blocks).ok()?;
    let generation = header.generation();
    let mut open = slot::OpenSlot::new(zone, Kind::Record, header, &identity, &mut scratch.segment);
    let record = firmware_image::record::VersionRecord::decode(open.read_whole(out).ok()?).ok()?;
    (record.device_id == identity.device_id).then(|| (State::from_record(&record), identity, generation))
}

/// Who the device is, where no record says so: any one good slot opens by itself.
fn find_identity<H: RawZone, F: FreeZone, C: RawZone>(
    places: &mut Places<'_, H, F, C>,
    secret: &Secret,
    scratch: &mut Scratch,
    host: &dyn Host,
) -> Result<(Identity, Origin), EngineError> {
    let hidden = SlotName::ALL.into_iter().map(Place::Hidden);
    for place in hidden.chain([Place::RecordMirror, Place::BackupMirror]) {
        let Ok(header) = places.header(place) else { continue };
        if let Ok(identity) = header.unlock(secret.expose(), &mut scratch.blocks) {
            return Ok((identity, Origin::KeySlots(place)));
        }
    }
    let mut random = [0; 64];
    host.random(&mut random).map_err(EngineError::Random)?;
    let identity = Identity::mint(&random, Cost::UNATTENDED, secret, &mut scratch.blocks)
        .map_err(|_| EngineError::Internal("no memory for a new identity"))?;
    Ok((identity, Origin::Minted))
}
