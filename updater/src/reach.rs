//! What can be had without a server: from the device itself and from the copy of a store that it carries.
//!
//! That copy's metadata may name releases that it does not hold: a device is made with one release, and the metadata is
//! the store's of that day. So where no server could be asked, a release is gone to only if everything that it takes is
//! here, and the newest of those is taken.

use firmware_image::RawZone;
use firmware_image::free_zone::FreeZone;
use release_store::transport::get_range;
use release_store::trust::Release;

use crate::commit::Intent;
use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::operations::Outcome;
use crate::plan::Plan;

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Goes to the newest release for which no server is needed. `by_itself`: nobody asked for it, so that what a person
    /// holds is left alone. `None`: there is none to go to; nothing was changed then.
    ///
    /// # Errors
    /// What kept it from going to a release that is here whole.
    pub(crate) fn bring_to_what_is_here(&mut self, by_itself: bool) -> Result<Option<Outcome>, EngineError> {
        for release in self.newer_releases(by_itself) {
            match self.without_servers(|engine| engine.bring_to(&release, Intent::Update, None)) {
                Ok(outcome) => return Ok(Some(Outcome { offline: true, ..outcome })),
                Err(error) if out_of_reach(&error) => {
                    self.watch.detail(&format!("release {} is known, and not on this device: {error}", release.version))
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The known releases that the device may go to from the installed one, newest first: higher serials, or any other
    /// where the installed one was withdrawn or nothing is installed.
    fn newer_releases(&self, by_itself: bool) -> Vec<Release> {
        let releases = self.known_releases().unwrap_or_default();
        let installed = self.state.release.as_ref().map(|installed| installed.serial);
        let withdrawn = installed.is_some_and(|serial| releases.withdrawn(serial).is_some());
        let held = by_itself && self.state.held;
        let wanted = |release: &&Release| match installed {
            None => true,
            Some(serial) => release.serial != serial && (withdrawn || (release.serial > serial && !held)),
        };
        releases.iter().rev().filter(|release| self.eligible(release)).filter(wanted).cloned().collect()
    }

    /// Does something without asking a server: what needs one fails as out of reach.
    pub(crate) fn without_servers<R>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<R, EngineError>,
    ) -> Result<R, EngineError> {
        self.on_device_only = true;
        let result = f(self);
        self.on_device_only = false;
        result
    }

    /// Where no server may be asked: that every frame of the plan stands in the copy of a store that the device carries.
    ///
    /// # Errors
    /// `OutOfReach`.
    pub(crate) fn check_reach(&self, plan: &Plan) -> Result<(), EngineError> {
        if !self.on_device_only || plan.frames.is_empty() {
            return Ok(());
        }
        let offline = self.offline.as_deref().ok_or(EngineError::OutOfReach)?;
        let mut frames = plan.frames.clone();
        frames.sort_by_key(|frame| (frame.pack.digest, frame.offset));
        for of_pack in frames.chunk_by(|a, b| a.pack.digest == b.pack.digest) {
            let pack = &of_pack[0].pack;
            // A pack that holds the last byte that is wanted of it holds the rest.
            let end = of_pack.iter().map(|frame| frame.range().end).max().unwrap_or(0);
            let last = end.saturating_sub(1)..end;
            get_range(offline, &pack.path(), last, 1, &mut |_, _| Ok(())).map_err(|_| EngineError::OutOfReach)?;
        }
        Ok(())
    }
}

/// Whether a release is only not to be had here, so that an older one may be.
fn out_of_reach(error: &EngineError) -> bool {
    let kind = error.kind();
    kind.is_no_news() || kind == FailureKind::NotAuthentic || matches!(error, EngineError::Unobtainable { .. })
}
