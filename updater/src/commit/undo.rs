//! The way back from an open commit: copies of what it replaces, and putting them back.

use std::collections::{BTreeSet, HashMap};

use firmware_image::free_zone::FreeZone;
use firmware_image::journal::{Journal, State as JournalState};
use firmware_image::{Digest, RawZone, ZoneError, paths};
use release_store::Manifest;

use super::CommitPlan;
use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::inventory::{Inventory, Item, client_path};
use crate::room::{RESERVE_BYTES, footprint};
use crate::zone_io::{self, Copied, CopyJob};

/// What seems to stand at the paths of an inventory: digests and lengths.
pub(super) fn believed<'p>(inventory: &'p Inventory, manifest: &'p Manifest) -> HashMap<&'p str, (Digest, u64)> {
    let item = |item: &Item| Some((manifest.files[item.file].path.as_str(), item.found?));
    let items = inventory.items.iter().filter_map(item);
    let items = items.filter_map(|(path, (length, digest))| Some((path, (digest?, length))));
    items.chain(inventory.gone.iter().map(|gone| (gone.path.as_str(), (gone.believed, gone.length)))).collect()
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Keeps copies of what the commit replaces and removes, in place of those of the commit before. `believed`: what seems to
    /// stand at a path. Where all is what it seems, each file is read once, by the copy itself.
    pub(super) fn keep_undo(
        &self,
        commit: &mut CommitPlan,
        believed: &HashMap<&str, (Digest, u64)>,
    ) -> Result<(), EngineError> {
        if self.keep_as_believed(commit, believed)? || self.keep_as_believed(commit, &HashMap::new())? {
            return Ok(());
        }
        Err(EngineError::Internal("a client file changed during the update"))
    }

    /// As [`Self::keep_undo`]; `false`: something is not what it seemed.
    fn keep_as_believed(
        &self,
        commit: &mut CommitPlan,
        believed: &HashMap<&str, (Digest, u64)>,
    ) -> Result<bool, EngineError> {
        let puts = commit.puts.iter_mut().map(|put| (&put.path, &mut put.old));
        let removes = commit.removes.iter_mut().map(|step| (&step.path, &mut step.old));
        let mut jobs = Vec::new();
        let mut keep: BTreeSet<Digest> = BTreeSet::new();
        for (path, old) in puts.chain(removes) {
            let full = client_path(path);
            let known = believed.get(path.as_str()).copied().filter(|(digest, _)| !keep.contains(digest));
            *old = match known {
                // Not copied, it is read here.
                Some((digest, length)) if !zone_io::is_there(self.free, &Self::undo(&digest), length)? => known,
                _ => self.what_stands(&full)?,
            };
            let Some((digest, length)) = *old else { continue };
            if keep.insert(digest) {
                jobs.push((full, length, digest));
            }
        }
        let unwanted = |name: &String| Digest::from_hex(name).is_none_or(|digest| !keep.contains(&digest));
        let names = zone_io::files_in(self.free, paths::UNDO_DIR)?.into_iter().map(|(name, _)| name);
        zone_io::remove_all(self.free, paths::UNDO_DIR, names.filter(unwanted))?;
        let mut copies = Vec::new();
        for (from, length, digest) in &jobs {
            let (to, length, digest) = (Self::undo(digest), *length, *digest);
            if !zone_io::file_is(self.free, &to, length, &digest)? {
                copies.push(CopyJob { from, to, length, digest });
            }
        }
        let mut done = |_: &CopyJob<'_>| {
            self.watch.step("undo copy");
            Ok(())
        };
        if zone_io::copy_all(self.free, &copies, &|_| {}, &mut done)?.is_some() {
            return Ok(false);
        }
        if !keep.is_empty() {
            zone_io::sync_parents(self.free, &format!("{}/x", paths::UNDO_DIR))?;
        }
        Ok(true)
    }

    /// Digest and length of a file; `None` where there is none that can be kept.
    fn what_stands(&self, full: &str) -> Result<Option<(Digest, u64)>, EngineError> {
        let mut buffer = vec![0; zone_io::BUFFER_BYTES];
        match zone_io::digest_file(self.free, full, &mut buffer, &|_| {}) {
            Ok(found) => Ok(found.map(|(length, digest)| (digest, length))),
            // What cannot be read cannot be kept; it is damage that is about to be mended.
            Err(ZoneError::Io(_) | ZoneError::Corrupt | ZoneError::Denied) => Ok(None),
            Err(ZoneError::BadPath) => Ok(None),
            Err(error) => Err(EngineError::zone("read", full)(error)),
        }
    }

    /// Undoes a commit whose room somebody else took, so that the release before can be started.
    ///
    /// # Errors
    /// `NoSpaceInside` where even that takes more room than there is, or where there is nothing to go back to.
    pub(super) fn undo_for_room(&mut self, plan: &CommitPlan, journal: &mut Journal) -> Result<(), EngineError> {
        if self.is_applied(plan) || !plan.keeps_undo() {
            return Err(self.no_room_inside(plan)?);
        }
        let undone = match self.undo_commit(plan, journal, None) {
            Err(error) if error.kind() == FailureKind::NoSpace => {
                // What was staged comes again when there is room for it.
                let staged = plan.puts.iter().map(|put| put.digest.to_string());
                zone_io::remove_all(self.free, paths::STAGING_DIR, staged)?;
                self.undo_commit(plan, journal, None)
            }
            undone => undone,
        };
        match undone {
            Err(error) if error.kind() == FailureKind::NoSpace => Err(self.no_room_inside(plan)?),
            undone => undone,
        }
    }

    /// What is said of an open commit for which there is no room.
    pub(super) fn no_room_inside(&self, plan: &CommitPlan) -> Result<EngineError, EngineError> {
        let mut needed = RESERVE_BYTES;
        for put in &plan.puts {
            let full = client_path(&put.path);
            let found = self.free.metadata(&full).map_err(EngineError::zone("read", &full))?;
            // The larger of the two releases' files: it may be finished or undone.
            let wanted = put.size.max(put.old.map_or(0, |(_, length)| length));
            // A user's own file that stood there may have any length, and a forged plan says any.
            needed = needed.saturating_add(footprint(wanted.saturating_sub(found.map_or(0, |found| found.length))));
        }
        let image = plan.updaters.iter().map(|updater| footprint(updater.size)).max().unwrap_or(0);
        let needed = needed.saturating_add(image);
        let free = self.free.free_bytes().map_err(EngineError::zone("measure", "/"))?;
        Ok(EngineError::NoSpaceInside { needed: needed.max(free + RESERVE_BYTES), free })
    }

    /// Puts back what the commit replaced, and closes the journal. `damaged`: the file whose staged copy is not good.
    pub(super) fn undo_commit(
        &mut self,
        plan: &CommitPlan,
        journal: &mut Journal,
        damaged: Option<&str>,
    ) -> Result<(), EngineError> {
        if !plan.keeps_undo() {
            return Err(EngineError::CommitStuck);
        }
        let mut touched: BTreeSet<String> = BTreeSet::new();
        let puts = plan.puts.iter().map(|put| (&put.path, put.old));
        let removes = plan.removes.iter().map(|step| (&step.path, step.old));
        let mut due = Vec::new();
        for (path, old) in puts.chain(removes) {
            let full = client_path(path);
            touched.insert(zone_io::parent(&full).to_owned());
            match old {
                Some((digest, length)) if zone_io::file_is(self.free, &full, length, &digest)? => continue,
                Some((digest, length)) => {
                    self.clear_way(path)?;
                    due.push((full.clone(), length, digest));
                }
                // The commit put a file there, and no directory.
                None if self.is_directory(&full)? => continue,
                None => {}
            }
            // All of it goes before anything is put back: it takes room that this may need.
            zone_io::remove(self.free, &full)?;
        }
        // Before another file is flushed: see `zone_io::remove_all`.
        self.sync_touched(&touched)?;
        for (full, length, digest) in due {
            match zone_io::copy_checked(self.free, &Self::undo(&digest), &full, length, &digest, &|_| {})? {
                Copied::Whole => {}
                Copied::WrongSource => return Err(EngineError::CommitStuck),
            }
        }
        self.sync_touched(&touched)?;
        if let Some(put) = plan.puts.iter().find(|put| Some(put.path.as_str()) == damaged) {
            zone_io::remove(self.free, &Self::staged(&put.digest))?;
        }
        journal.advance(self.free, JournalState::Idle).map_err(EngineError::zone("write", paths::JOURNAL))?;
        self.alarm(format!("the change to release {} was undone", plan.release.version));
        Ok(())
    }
}
