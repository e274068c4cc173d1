//! The decision for a device of the region profile: the updater is the application, it runs where it is installed, and
//! there is no free zone. `docs/embedding.md` tells the whole.
//!
//! | the application in its region | then |
//! |---|---|
//! | sound: signature, product, platform, version and key serial not below the floors, not known to fail | it runs; nothing is written |
//! | sound, and has asked for a newer one | as above, unless a newer copy is good: that is written in its place, verified there, run |
//! | missing, damaged, foreign, too old, known to fail | the newest good copy from the hidden backups or the factory's region is written in its place, verified there, run |
//! | known to fail, and no copy is good that is not | the newest of those that are known to fail: what stands there already, where none is newer |
//! | only the factory's copy is left, and it is below the floors | the factory's copy, told to recover |
//!
//! Invariant: the application's region is erased only for a copy that was read and verified whole, it has a footer only
//! behind a whole file that was read back, and nothing runs that was not verified where it runs. A cut at any moment leaves a
//! region without a footer, or a whole one.

use firmware_image::free_zone::NoFreeZone;
use firmware_image::hidden::HiddenZone;
use firmware_image::launcher_note::LauncherNote;
use firmware_image::places::{Memory, Places};
use firmware_image::updater_image::ImageError;
use firmware_image::{RawZone, ZoneError, region};

use crate::copies::{Candidate, Copies, Rank};
use crate::device::{CopyFault, Device, Product, Source};
use crate::verified::{Claim, check};

/// The regions of a device, and the memory to open them with.
pub struct Regions<'d, H, V, A> {
    /// The hidden zone; `None` where its flash does not answer.
    pub hidden: Option<HiddenZone<H>>,
    /// The factory's copy.
    pub factory: V,
    /// The application.
    pub application: A,
    /// For unlocking and unsealing.
    pub memory: Memory<'d>,
}

/// The application was verified where it stands: it may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What its trailer says.
    pub claim: Claim,
    /// Where it was restored from; `None`: nothing was written.
    pub restored_from: Option<Source>,
    /// It is below the floors: all it may do is fetch a newer one.
    pub recover: bool,
}

/// There is no good copy anywhere, or none could be written into the application's region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoCopy;

impl core::fmt::Display for NoCopy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("there is no good copy of the application")
    }
}

impl core::error::Error for NoCopy {}

/// Times that a copy is written before the next one is taken: flash may fail at a write and take the next, and the next
/// copy may be an older one.
const WRITES: u32 = 2;

/// Sees to it that a sound application stands in its region. `note` names applications that are known to fail (empty where
/// nobody notes that); `record_bytes` is room for the version record, which a longer one does not open into; `wants_newer` is
/// the application's wish that a newer copy is looked for although it is sound itself; `on_fault` is told why a place has
/// nothing to offer, and of [`Source::Installed`] also why it did not take a copy.
///
/// # Errors
/// [`NoCopy`].
pub fn settle<H: RawZone, V: RawZone, A: RawZone>(
    product: &Product<'_>,
    regions: Regions<'_, H, V, A>,
    note: &LauncherNote,
    record_bytes: &mut [u8],
    wants_newer: bool,
    on_fault: &mut dyn FnMut(Source, CopyFault),
) -> Result<Settled, NoCopy> {
    let Regions { hidden, factory, mut application, memory } = regions;
    let plain = match region::file(factory) {
        Ok(file) => Some(file),
        Err(ZoneError::NotFound) => None,
        Err(error) => {
            on_fault(Source::Plain, error.into());
            None
        }
    };
    let places = Places { hidden, free: None::<&NoFreeZone>, cd_tail: None::<A> };
    let mut device = Device { places, plain, memory };
    let floors = device
        .places
        .newest_floors(&product.secret, &mut device.memory, record_bytes, &product.vendor, product.name)
        .unwrap_or_default();
    let rank_of = |claim| Rank::of(&Candidate { source: Source::Installed, claim }, &floors, note);
    let mut present = match installed(&mut application, product) {
        Ok(claim) => {
            match rank_of(claim) {
                Rank::Fresh if !wants_newer => return Ok(Settled { claim, restored_from: None, recover: false }),
                Rank::Fresh => {}
                Rank::FailedBefore => on_fault(Source::Installed, CopyFault::FailedBefore(claim.version)),
                _ => on_fault(Source::Installed, ImageError::BelowFloor(claim.version).into()),
            }
            Some(claim)
        }
        Err(fault) => {
            on_fault(Source::Installed, fault);
            None
        }
    };
    let mut copies = Copies::survey(&mut device, product, Some(Source::Installed), &mut *on_fault);
    for rank in [Rank::Fresh, Rank::FailedBefore, Rank::Recovery] {
        loop {
            let best = copies.best(rank, &floors, note, &[]);
            if let Some(claim) = present.filter(|claim| rank_of(*claim) == rank)
                && best.is_none_or(|best| best.claim.age() <= claim.age())
            {
                // It stands there, and no copy is better.
                return Ok(Settled { claim, restored_from: None, recover: false });
            }
            let Some(Candidate { source, claim }) = best else { break };
            let recover = rank == Rank::Recovery;
            if present == Some(claim) {
                // What stands there already is not written again at every start.
                return Ok(Settled { claim, restored_from: None, recover });
            }
            for _ in 0..WRITES {
                // What stands in the region is given up only for a copy that is whole.
                let written = device.with_copy(source, product, |file, length| {
                    check(file, length, product)?;
                    Ok(region::write(&mut application, file, length))
                });
                let Ok(written) = written.map_err(|fault| on_fault(source, fault)) else { break };
                match written.map_err(CopyFault::from).and_then(|()| installed(&mut application, product)) {
                    Ok(claim) => return Ok(Settled { claim, restored_from: Some(source), recover }),
                    Err(fault) => on_fault(Source::Installed, fault),
                }
                present = installed(&mut application, product).ok();
            }
            copies.strike(source);
        }
    }
    Err(NoCopy)
}

/// Verifies the application where it stands.
#[inline(never)]
fn installed<A: RawZone>(application: &mut A, product: &Product<'_>) -> Result<Claim, CopyFault> {
    let mut file = match region::file(application) {
        Err(ZoneError::NotFound) => return Err(CopyFault::Missing),
        file => file?,
    };
    let length = file.len()?;
    Ok(check(&mut file, length, product)?)
}
