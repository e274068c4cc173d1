//! Which copy of the updater is started next, given how the last one fared: the launcher's table in `docs/launcher.md`.
//!
//! ```text
//! open ─▶ next ─▶ start ─▶ ready ─▶ … ─▶ settle
//!          ▲ │      │
//!          │ └▶ no  └▶ crashed (noted)
//!          └──────────────┘
//! ```
//! Invariants: each digest is started at most once; only a [`VerifiedCopy`] is; a device whose installed updater is sound
//! and starts is not written to. A session keeps no zone open, so that each call may be given a device opened anew: an
//! image that a started updater changes in between is then seen as it is.

use firmware_image::launcher_note::LauncherNote;
use firmware_image::places::Place;
use firmware_image::slot::SlotError;
use firmware_image::updater_image::{Floors, ImageError};
use firmware_image::{Digest, FreeZone, RawZone, ZoneError};

use crate::copies::{Candidate, Copies, Rank};
use crate::device::{CopyFault, Device, Product, Source};
use crate::report::{Crash, Event, Report};
use crate::restore::{Present, RestoreError, restore};
use crate::verified::{RunPlace, SealedBytes, VerifiedCopy, check};

/// What is known of the updater in the free zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Installed {
    /// Not looked at yet.
    Unseen,
    /// A sound one, with this digest.
    Sound(Digest),
    /// None that may run: another is installed before it is started.
    NoGood,
    /// Nothing, or what can never run: as `NoGood`, and it may be removed to make room.
    Worthless,
    /// A sound one that would not start: another is installed once it has shown that it starts.
    WillNotStart,
    /// This computer would not take it to where it runs, or not have it read: others may run, and it stays.
    NotTaken,
}

/// A copy to start now.
pub struct Start<I> {
    /// The updater.
    pub copy: VerifiedCopy<I>,
    /// Where it came from.
    pub source: Source,
    /// It is below the floor: all it may do is fetch a newer one.
    pub recover: bool,
}

/// One run of the launcher.
pub struct Session<'c> {
    product: Product<'c>,
    floors: Floors,
    note: LauncherNote,
    installed: Installed,
    copies: Option<Copies>,
    tried: heapless::Vec<Digest, { Source::ALL.len() }>,
    report: Report,
}

impl<'c> Session<'c> {
    /// Begins: reads the newest version record (into `record_bytes`, which must hold `MAX_RECORD_BYTES`) for the floors,
    /// and the launcher's note.
    pub fn open<H: RawZone, F: FreeZone, C: RawZone, V: RawZone>(
        product: Product<'c>,
        device: &mut Device<'_, H, F, C, V>,
        record_bytes: &mut [u8],
    ) -> Self {
        let mut report = Report::default();
        let Device { places, memory, .. } = device;
        let floors = match places.newest_record(&product.secret, memory, record_bytes) {
            Some(found) => found.record.floors(&product.vendor, product.name),
            None => {
                let nothing = |error: &SlotError| matches!(error, SlotError::Zone(ZoneError::NotFound));
                let headers = Place::RECORDS.map(|place| places.header(place).err());
                if !headers.iter().all(|header| header.as_ref().is_some_and(nothing)) {
                    report.add(Event::NoRecord);
                }
                Floors::default()
            }
        };
        // A note that cannot be read is no note: what failed is tried once more.
        let note = device.free().and_then(|free| LauncherNote::read(free).ok()).unwrap_or_default();
        Self { product, floors, note, installed: Installed::Unseen, copies: None, tried: heapless::Vec::new(), report }
    }

    /// The product that this is about.
    pub fn product(&self) -> &Product<'c> {
        &self.product
    }

    /// What was found and done so far.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Whether a sound copy was started, ready or not.
    pub fn has_started_any(&self) -> bool {
        !self.tried.is_empty()
    }

    /// Whether this computer had no room to load a copy, which may be sound.
    pub fn lacked_room(&self) -> bool {
        let lacks = |event: &Event| matches!(event, Event::Unusable { fault: CopyFault::NoRoomToRun(_), .. });
        self.report.events().iter().any(lacks)
    }

    /// The next copy to start, brought to `place` and verified there, and installed in the free zone where what is there
    /// is no good. `None`: nothing is left that was not tried.
    pub fn next<H: RawZone, F: FreeZone, C: RawZone, V: RawZone, P: RunPlace>(
        &mut self,
        device: &mut Device<'_, H, F, C, V>,
        place: &mut P,
    ) -> Option<Start<P::Image>> {
        if self.installed == Installed::Unseen {
            match self.load(device, Source::Installed, place) {
                Ok(copy) => {
                    self.installed = Installed::Sound(copy.claim().digest);
                    return Some(self.start(copy, Source::Installed, false));
                }
                Err(fault) => {
                    self.installed = match fault {
                        CopyFault::Image(ImageError::Zone(ZoneError::Denied)) => Installed::NotTaken,
                        CopyFault::NoRoomToRun(_) if self.stands_sound(device) => Installed::NotTaken,
                        _ if is_worthless(&fault) => Installed::Worthless,
                        _ => Installed::NoGood,
                    };
                    self.report.add(Event::Unusable { source: Source::Installed, fault });
                }
            }
        }
        if self.copies.is_none() {
            self.copies = Some(self.survey(device));
        }
        for rank in [Rank::Fresh, Rank::FailedBefore, Rank::Recovery] {
            while let Some(Candidate { source, .. }) = self.best(rank) {
                match self.load_any(device, source, place) {
                    Ok(copy) => {
                        if rank == Rank::Fresh {
                            self.install_before_start(device.free(), &copy, source);
                        }
                        if rank == Rank::Recovery {
                            self.report.add(Event::Recovery { version: copy.claim().version, from: source });
                        }
                        return Some(self.start(copy, source, rank == Rank::Recovery));
                    }
                    Err(fault) => {
                        self.report.add(Event::Unusable { source, fault });
                        if let Some(copies) = &mut self.copies {
                            copies.strike(source);
                        }
                    }
                }
            }
        }
        None
    }

    /// The copy crashed before it was ready. It is noted, and no updater installs it again.
    pub fn crashed<F: FreeZone, I: SealedBytes>(&mut self, free: Option<&F>, start: &Start<I>, crash: Crash) {
        let claim = start.copy.claim();
        self.report.add(Event::Crashed { version: claim.version, from: start.source, crash });
        if self.installed == Installed::Sound(claim.digest) {
            self.installed = Installed::WillNotStart;
        }
        if !self.note.has_failed(&claim.digest) {
            self.write_note(free, |note| note.add_failed(claim.digest));
        }
    }

    /// The last step, when an updater that became ready has ended: takes it off the note, and installs it in place of one
    /// that would not start, unless the updater has seen to that itself.
    pub fn settle<H: RawZone, F: FreeZone, C: RawZone, V: RawZone, I: SealedBytes>(
        &mut self,
        device: &mut Device<'_, H, F, C, V>,
        start: &Start<I>,
    ) {
        let claim = *start.copy.claim();
        if self.note.has_failed(&claim.digest) {
            self.write_note(device.free(), |note| note.failed_updaters.retain(|failed| *failed != claim.digest));
        }
        if self.installed != Installed::WillNotStart || start.recover {
            return;
        }
        if !self.stands_sound(device) {
            self.install(device.free(), &start.copy, start.source, Present::Kept);
        }
    }

    /// Whether the installed updater, looked at where it stands, may run.
    fn stands_sound<H: RawZone, F: FreeZone, C: RawZone, V: RawZone>(
        &self,
        device: &mut Device<'_, H, F, C, V>,
    ) -> bool {
        let present =
            device.with_copy(Source::Installed, &self.product, |file, length| Ok(check(file, length, &self.product)?));
        present.is_ok_and(|present| present.is_admitted(&self.floors) && !self.note.has_failed(&present.digest))
    }

    fn start<I: SealedBytes>(&mut self, copy: VerifiedCopy<I>, source: Source, recover: bool) -> Start<I> {
        // There is room for one digest a source.
        let _ = self.tried.push(copy.claim().digest);
        Start { copy, source, recover }
    }

    fn best(&self, rank: Rank) -> Option<Candidate> {
        self.copies.as_ref()?.best(rank, &self.floors, &self.note, &self.tried)
    }

    /// Looks through all places. What the installed copy lacks was reported when it was loaded.
    fn survey<H: RawZone, F: FreeZone, C: RawZone, V: RawZone>(
        &mut self,
        device: &mut Device<'_, H, F, C, V>,
    ) -> Copies {
        let Self { product, report, .. } = self;
        let skip = matches!(self.installed, Installed::Worthless | Installed::NotTaken).then_some(Source::Installed);
        let copies = Copies::survey(device, product, skip, |source, fault| {
            if source != Source::Installed {
                report.add(Event::Unusable { source, fault });
            }
        });
        for candidate in copies.iter().filter(|candidate| candidate.source != Source::Installed) {
            let fault = match Rank::of(candidate, &self.floors, &self.note) {
                Rank::Fresh | Rank::Recovery => continue,
                Rank::FailedBefore => CopyFault::FailedBefore(candidate.claim.version),
                Rank::TooOld => ImageError::BelowFloor(candidate.claim.version).into(),
            };
            // One that crashed in this session was reported as that.
            if !self.tried.contains(&candidate.claim.digest) {
                self.report.add(Event::Unusable { source: candidate.source, fault });
            }
        }
        copies
    }

    fn load_any<H: RawZone, F: FreeZone, C: RawZone, V: RawZone, P: RunPlace>(
        &self,
        device: &mut Device<'_, H, F, C, V>,
        source: Source,
        place: &mut P,
    ) -> Result<VerifiedCopy<P::Image>, CopyFault> {
        let product = &self.product;
        device.with_copy(source, product, |file, length| VerifiedCopy::load(file, length, place, product))
    }

    /// As [`Self::load_any`], and refuses what may not run by itself.
    fn load<H: RawZone, F: FreeZone, C: RawZone, V: RawZone, P: RunPlace>(
        &self,
        device: &mut Device<'_, H, F, C, V>,
        source: Source,
        place: &mut P,
    ) -> Result<VerifiedCopy<P::Image>, CopyFault> {
        let copy = self.load_any(device, source, place)?;
        let claim = copy.claim();
        if !claim.is_admitted(&self.floors) {
            return Err(ImageError::BelowFloor(claim.version).into());
        }
        if self.note.has_failed(&claim.digest) {
            return Err(CopyFault::FailedBefore(claim.version));
        }
        Ok(copy)
    }

    fn install_before_start<F: FreeZone, I: SealedBytes>(
        &mut self,
        free: Option<&F>,
        copy: &VerifiedCopy<I>,
        from: Source,
    ) {
        match self.installed {
            Installed::NoGood => self.install(free, copy, from, Present::Kept),
            Installed::Worthless => self.install(free, copy, from, Present::Worthless),
            Installed::Unseen | Installed::Sound(_) | Installed::WillNotStart | Installed::NotTaken => {}
        }
    }

    fn install<F: FreeZone, I: SealedBytes>(
        &mut self,
        free: Option<&F>,
        copy: &VerifiedCopy<I>,
        from: Source,
        present: Present,
    ) {
        let version = copy.claim().version;
        let installed =
            free.ok_or(RestoreError::NoFreeZone).and_then(|free| restore(free, self.product.platform, copy, present));
        self.report.add(match installed {
            Ok(()) => {
                self.installed = Installed::Sound(copy.claim().digest);
                Event::Restored { version, from }
            }
            Err(why) => Event::NotRestored { version, from, why },
        });
    }

    /// Changes the note, on top of what an updater may have written into it meanwhile.
    fn write_note<F: FreeZone>(&mut self, free: Option<&F>, change: impl Fn(&mut LauncherNote)) {
        change(&mut self.note);
        let written = free.ok_or(ZoneError::NotFound).and_then(|free| {
            let mut note = LauncherNote::read(free)?;
            change(&mut note);
            note.write(free)
        });
        if let Err(error) = written {
            self.report.add(Event::NotNoted(error));
        }
    }
}

/// Whether what stands under the installed name can never run, here or elsewhere.
fn is_worthless(fault: &CopyFault) -> bool {
    match fault {
        CopyFault::Missing => true,
        CopyFault::Image(error) => !matches!(
            error,
            // Not read, or sound and only unwanted.
            ImageError::Zone(_) | ImageError::BelowFloor(_) | ImageError::WrongProduct | ImageError::WrongPlatform
        ),
        _ => false,
    }
}
