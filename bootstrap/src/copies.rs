//! Which copies of the updater a device has, and in which order they are taken: newest first, then by place.
//!
//! A survey reads trailers only, so that a device with four backups of 8 MiB is looked through in milliseconds. Whether a
//! copy's bytes are what its trailer says shows when it is loaded; one that is not is struck out, and the next is taken.

use firmware_image::launcher_note::LauncherNote;
use firmware_image::updater_image::Floors;
use firmware_image::{Digest, FreeZone, RawZone};

use crate::device::{CopyFault, Device, Product, Source};
use crate::verified::Claim;

/// A copy whose trailer is authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Where it stands.
    pub source: Source,
    /// What its trailer says.
    pub claim: Claim,
}

/// What may be done with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// Allowed, and never known to fail: run it, install it.
    Fresh,
    /// Allowed, but it would not start before: run it when nothing else is left, never install it.
    FailedBefore,
    /// Below the floor, from the factory: all it may do is fetch a newer one.
    Recovery,
    /// Below the floor.
    TooOld,
}

impl Rank {
    /// The rank of a copy.
    pub fn of(candidate: &Candidate, floors: &Floors, note: &LauncherNote) -> Self {
        match candidate.claim.is_admitted(floors) {
            true if note.has_failed(&candidate.claim.digest) => Self::FailedBefore,
            true => Self::Fresh,
            false if candidate.source.is_factory() => Self::Recovery,
            false => Self::TooOld,
        }
    }
}

/// The copies of a device that are left to try.
#[derive(Debug, Default)]
pub struct Copies {
    candidates: heapless::Vec<Candidate, { Source::ALL.len() }>,
}

impl Copies {
    /// Looks through every place but `skip`, and tells `on_fault` why one has nothing to offer.
    pub fn survey<H: RawZone, F: FreeZone, C: RawZone, V: RawZone>(
        device: &mut Device<'_, H, F, C, V>,
        product: &Product<'_>,
        skip: Option<Source>,
        mut on_fault: impl FnMut(Source, CopyFault),
    ) -> Self {
        let mut copies = Self::default();
        for source in Source::ALL.into_iter().filter(|source| Some(*source) != skip) {
            let read = device.with_copy(source, product, |file, length| Ok(Claim::read(file, length, product)?));
            match read {
                // There is room for one candidate a source.
                Ok(claim) => drop(copies.candidates.push(Candidate { source, claim })),
                Err(fault) => on_fault(source, fault),
            }
        }
        copies
    }

    /// The newest copy of a rank whose digest was not tried; of equally new ones the first in [`Source::ALL`].
    pub fn best(&self, rank: Rank, floors: &Floors, note: &LauncherNote, tried: &[Digest]) -> Option<Candidate> {
        let untried = self
            .candidates
            .iter()
            .filter(|candidate| !tried.contains(&candidate.claim.digest) && Rank::of(candidate, floors, note) == rank);
        // `max_by_key` takes the last of equals, so the order is turned round.
        untried.rev().max_by_key(|candidate| candidate.claim.age()).copied()
    }

    /// Every copy that is left.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter()
    }

    /// Strikes out the copy in `source`: its bytes are not what its trailer says.
    pub fn strike(&mut self, source: Source) {
        self.candidates.retain(|candidate| candidate.source != source);
    }
}
