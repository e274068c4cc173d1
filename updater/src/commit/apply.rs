//! What an open commit changes, and in which order.

use std::collections::BTreeSet;

use firmware_image::free_zone::{FreeZone, Kind};
use firmware_image::journal::{Journal, State as JournalState};
use firmware_image::record::Health;
use firmware_image::{Digest, RawZone, ZoneError, paths};

use super::{CommitPlan, Intent, PutStep};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::inventory::client_path;
use crate::zone_io::{self, Copied, CopyJob};

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Does what the plan says, or what is left of it. `fresh`: nothing of it was done before.
    pub(super) fn execute(&mut self, plan: &CommitPlan, journal: &mut Journal, fresh: bool) -> Result<(), EngineError> {
        let total = plan.puts.iter().map(|put| put.size).sum();
        self.watch.begin("Installing", total);
        let result = self.change_files(plan, fresh);
        self.watch.end();
        result?;
        self.watch.step("files");

        let current = zone_io::read_small(self.free, paths::MANIFEST, release_store::manifest::MAX_ENCODED_BYTES)?;
        let before = plan.previous.as_ref().map(|previous| previous.manifest);
        if let Some(bytes) = current.filter(|bytes| Some(Digest::of(bytes)) == before) {
            zone_io::write_if_changed(self.free, paths::PREVIOUS_MANIFEST, &bytes)?;
        }
        let lists = [
            Some((plan.release.manifest, plan.manifest_bytes, paths::MANIFEST)),
            plan.list.map(|(d, n)| (d, n, paths::CHUNK_LIST)),
            plan.previous_statement.map(|(d, n)| (d, n, paths::PREVIOUS_STATEMENT)),
            plan.statement.map(|(d, n)| (d, n, paths::STATEMENT)),
        ];
        for (digest, length, target) in lists.into_iter().flatten() {
            if zone_io::file_is(self.free, target, length, &digest)? {
                continue;
            }
            match zone_io::copy_checked(self.free, &Self::staged(&digest), target, length, &digest, &|_| {})? {
                Copied::Whole => zone_io::sync_parents(self.free, target)?,
                // A cache: what is lost comes again.
                Copied::WrongSource => {
                    zone_io::remove(self.free, target)?;
                }
            }
        }
        self.watch.step("manifest");

        self.install_updaters(&plan.updaters)?;
        self.apply_to_state(plan);
        self.save_state()?;
        self.watch.step("record");

        let serial = plan.release.serial;
        journal
            .advance(self.free, JournalState::Cleaning { serial })
            .map_err(EngineError::zone("write", paths::JOURNAL))?;
        self.clean_up(journal)
    }

    fn apply_to_state(&mut self, plan: &CommitPlan) {
        let state = &mut self.state;
        let mut was_here = false;
        let changes = state.release.as_ref().is_none_or(|installed| installed.serial != plan.release.serial);
        state.release = Some(plan.release.clone());
        state.modules = plan.modules.clone();
        if changes {
            was_here = state.previous.as_ref().is_some_and(|previous| previous.serial == plan.release.serial);
            state.previous = plan.previous.clone();
            state.health = Health::Unproven { failed_starts: 0 };
        }
        match plan.intent {
            Intent::Update => state.held = false,
            Intent::Hold => state.held = true,
            Intent::Repair => {}
            Intent::Undo { failed } => {
                state.skip(failed);
                // What a person chose is gone.
                state.held = false;
                // The one before has run here; any other is on trial like a new one.
                if was_here {
                    state.health = Health::Proven;
                }
                // What failed is nothing to go back to.
                state.previous = None;
            }
        }
    }

    fn change_files(&mut self, plan: &CommitPlan, fresh: bool) -> Result<(), EngineError> {
        let mut touched: BTreeSet<String> = BTreeSet::new();
        for step in &plan.removes {
            let full = client_path(&step.path);
            // A directory that stands there by now is not what was to go.
            if !self.is_directory(&full)? && self.free.remove(&full).map_err(EngineError::zone("remove", &full))? {
                self.watch.step("removed");
            }
            touched.insert(zone_io::parent(&full).to_owned());
        }
        // Before another file is flushed: see `zone_io::remove_all`.
        self.sync_touched(&touched)?;
        self.put_files(plan, fresh)?;
        touched.extend(plan.puts.iter().map(|step| zone_io::parent(&client_path(&step.path)).to_owned()));
        for (path, executable) in &plan.marks {
            let full = client_path(path);
            match self.free.set_executable(&full, *executable) {
                // Whoever compares the client with its release finds that it is gone.
                Ok(()) | Err(ZoneError::NotFound) => {}
                Err(error) => return Err(EngineError::zone("mark", &full)(error)),
            }
        }
        for step in &plan.removes {
            self.prune(&step.path)?;
        }
        self.sync_touched(&touched)
    }

    /// Puts the new files in their places, from staging.
    fn put_files(&mut self, plan: &CommitPlan, fresh: bool) -> Result<(), EngineError> {
        let mark = |zone: &F, full: &str, step: &PutStep| {
            zone.set_executable(full, step.executable).map_err(EngineError::zone("mark", full))
        };
        let mut due = Vec::new();
        for step in &plan.puts {
            let full = client_path(&step.path);
            if fresh || !zone_io::file_is(self.free, &full, step.size, &step.digest)? {
                self.clear_way(&step.path)?;
                due.push((step, Self::staged(&step.digest), full));
            } else {
                mark(self.free, &full, step)?;
                self.watch.step("installed");
            }
        }
        let copies: Vec<CopyJob<'_>> = due
            .iter()
            .map(|(step, from, to)| CopyJob { from, to: to.clone(), length: step.size, digest: step.digest })
            .collect();
        let mut steps = due.iter().map(|(step, ..)| *step);
        let mut done = |copy: &CopyJob<'_>| {
            if let Some(step) = steps.next() {
                mark(self.free, &copy.to, step)?;
            }
            self.watch.step("installed");
            Ok(())
        };
        match zone_io::copy_all(self.free, &copies, &|n| self.watch.advance(n), &mut done)? {
            Some(place) => Err(EngineError::StagingDamaged { path: due[place].0.path.clone() }),
            None => Ok(()),
        }
    }

    /// Makes the names in these directories, and those on the way to them, durable.
    pub(super) fn sync_touched(&self, touched: &BTreeSet<String>) -> Result<(), EngineError> {
        let mut all: BTreeSet<&str> = BTreeSet::new();
        for directory in touched {
            let mut at = directory.as_str();
            while all.insert(at) && !at.is_empty() {
                at = zone_io::parent(at);
            }
        }
        // Longest first: a name is durable when its own directory is.
        for directory in all.into_iter().rev() {
            if directory.is_empty() || self.is_directory(directory)? {
                self.free.sync_dir(directory).map_err(EngineError::zone("sync", directory))?;
            }
        }
        Ok(())
    }

    pub(super) fn is_directory(&self, path: &str) -> Result<bool, EngineError> {
        let found = self.free.metadata(path).map_err(EngineError::zone("read", path))?;
        Ok(found.is_some_and(|metadata| metadata.kind == Kind::Directory))
    }

    /// Removes the directories that a removed file leaves empty.
    fn prune(&self, path: &str) -> Result<(), EngineError> {
        let mut directory = zone_io::parent(path);
        while !directory.is_empty() {
            let full = client_path(directory);
            let mut empty = true;
            self.free
                .list(&full, &mut |_, _| {
                    empty = false;
                    std::ops::ControlFlow::Break(())
                })
                .map_err(EngineError::zone("list", &full))?;
            if !empty {
                return Ok(());
            }
            zone_io::remove(self.free, &full)?;
            directory = zone_io::parent(directory);
        }
        Ok(())
    }

    /// Sets aside what stands where a file, or a directory on the way to it, belongs.
    pub(super) fn clear_way(&mut self, path: &str) -> Result<(), EngineError> {
        let mut prefix = String::new();
        for part in zone_io::parent(path).split('/').filter(|part| !part.is_empty()) {
            if !prefix.is_empty() {
                prefix.push('/');
            }
            prefix.push_str(part);
            let full = client_path(&prefix);
            let found = self.free.metadata(&full).map_err(EngineError::zone("read", &full))?;
            match found.map(|metadata| metadata.kind) {
                None => return Ok(()),
                Some(Kind::Directory) => {}
                Some(_) => {
                    crate::quarantine::set_aside(self.free, &prefix)?;
                    self.alarm(format!("{prefix} stood where a directory belongs and was set aside"));
                }
            }
        }
        let full = client_path(path);
        let found = self.free.metadata(&full).map_err(EngineError::zone("read", &full))?;
        match found.map(|metadata| metadata.kind) {
            None | Some(Kind::File) => return Ok(()),
            Some(Kind::Directory) => {
                let walked = zone_io::walk(self.free, &full)?;
                if !walked.skipped.is_empty() {
                    // What cannot be looked through cannot be emptied: it is moved away as it is.
                    let place = crate::quarantine::move_away(self.free, &full)?;
                    self.alarm(format!(
                        "{path} was no plain file, but a tree too deep or too large: it was moved to {place}"
                    ));
                    return Ok(());
                }
                for entry in walked.entries.iter().rev() {
                    let inner = format!("{path}/{}", entry.path);
                    if entry.metadata.kind == Kind::Directory {
                        zone_io::remove(self.free, &client_path(&inner))?;
                    } else {
                        crate::quarantine::set_aside(self.free, &inner)?;
                    }
                }
            }
            // A link or a device: nothing is kept of it.
            Some(Kind::Other) => {}
        }
        zone_io::remove(self.free, &full)?;
        self.alarm(format!("{path} was not a plain file: what stood there was set aside"));
        Ok(())
    }
}
