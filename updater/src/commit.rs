//! The commit: from one whole release to another, over a journal that flips.
//!
//! Invariant: while the journal is idle the managed directory is one whole release (or was never filled); while it is
//! open, everything that leads on to the new release, and (but for a repair) back to the old one, stands flushed in
//! staging and undo. Each step compares before it writes, so that all of it can be done again after a cut anywhere.
//!
//! ```text
//! undo copies, plan, flush │ journal: committing │ removals, files, marks, flush │ local manifest │ updaters
//! │ version record │ journal: cleaning │ staging and spool are removed │ journal: idle
//! ```
//! Nothing depends on a rename.

use std::collections::{BTreeSet, HashMap};

use firmware_image::free_zone::{FreeZone, Kind};
use firmware_image::journal::{Journal, State as JournalState};
use firmware_image::record::Health;
use firmware_image::{Digest, RawZone, paths};
use release_store::Manifest;
use serde::{Deserialize, Serialize};

use crate::backups::Look;
use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::inventory::{Inventory, Item, client_path};
use crate::plan::Plan;
use crate::room::{RESERVE_BYTES, footprint};
use crate::state::KnownRelease;
use crate::zone_io::{self, Copied, CopyJob};

/// Where the plan of an open commit stands.
pub const COMMIT_PLAN: &str = ".holdfast/staging/plan";
/// The longest plan that is read, in bytes.
pub const MAX_PLAN_BYTES: u64 = 48 << 20;
/// The plan's format.
const PLAN_FORMAT: u16 = 1;

/// Why a commit is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// To the newest release.
    Update,
    /// To a release that a person chose: nothing newer is taken by itself until `update` is asked for.
    Hold,
    /// To the installed release.
    Repair,
    /// Back from a release that failed here, whose serial is not taken again.
    Undo {
        /// The release that failed.
        failed: u64,
    },
}

impl Intent {
    /// Whether copies of what is replaced are kept.
    pub fn keeps_undo(self) -> bool {
        !matches!(self, Self::Repair)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct PutStep {
    path: String,
    digest: Digest,
    size: u64,
    executable: bool,
    old: Option<(Digest, u64)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct RemoveStep {
    path: String,
    old: Option<(Digest, u64)>,
}

/// An updater that the commit brings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UpdaterStep {
    pub platform: String,
    pub digest: Digest,
    pub size: u64,
}

/// The updaters that a plan brings.
pub(crate) fn updater_steps(plan: &Plan) -> Vec<UpdaterStep> {
    let entries = plan.updaters.iter().map(|at| &plan.manifest.updaters[*at]);
    entries
        .map(|entry| UpdaterStep { platform: entry.platform.clone(), digest: entry.sha256, size: entry.size })
        .collect()
}

/// Everything that an open commit needs to know to be finished or undone.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CommitPlan {
    format: u16,
    intent: Intent,
    release: KnownRelease,
    previous: Option<KnownRelease>,
    modules: Vec<(String, String)>,
    puts: Vec<PutStep>,
    removes: Vec<RemoveStep>,
    marks: Vec<(String, bool)>,
    manifest_bytes: u64,
    list: Option<(Digest, u64)>,
    statement: Option<(Digest, u64)>,
    previous_statement: Option<(Digest, u64)>,
    updaters: Vec<UpdaterStep>,
}

/// What seems to stand at the paths of an inventory: digests and lengths.
fn believed<'p>(inventory: &'p Inventory, manifest: &'p Manifest) -> HashMap<&'p str, (Digest, u64)> {
    let item = |item: &Item| Some((manifest.files[item.file].path.as_str(), item.found?));
    let items = inventory.items.iter().filter_map(item);
    let items = items.filter_map(|(path, (length, digest))| Some((path, (digest?, length))));
    items.chain(inventory.gone.iter().map(|gone| (gone.path.as_str(), (gone.believed, gone.length)))).collect()
}

/// What recovery found at the start of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// No commit was open.
    Nothing,
    /// An open commit was finished.
    Finished,
    /// An open commit was undone.
    Undone,
    /// An open commit can be neither finished nor undone: the client must be repaired.
    Stuck,
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Finishes or undoes a commit that a cut left open.
    ///
    /// # Errors
    /// What the zones report.
    pub fn recover(&mut self) -> Result<Recovery, EngineError> {
        let mut journal = Journal::read(self.free).map_err(EngineError::zone("read", paths::JOURNAL))?;
        match journal.state() {
            JournalState::Idle => Ok(Recovery::Nothing),
            JournalState::Cleaning { .. } => {
                if !self.limits.dry_run {
                    self.clean_up(&mut journal)?;
                }
                Ok(Recovery::Nothing)
            }
            JournalState::Committing { .. } if self.limits.dry_run => Ok(Recovery::Stuck),
            JournalState::Committing { plan: digest, .. } => {
                self.look = Look::Whole;
                let Some(plan) = self.read_commit_plan(&digest)? else {
                    self.alarm("an interrupted update has lost its plan: the client must be repaired");
                    return Ok(Recovery::Stuck);
                };
                match self.execute(&plan, &mut journal, false) {
                    Ok(()) => {
                        self.note(format!("an interrupted change to release {} was finished", plan.release.version));
                        Ok(Recovery::Finished)
                    }
                    Err(EngineError::StagingDamaged { path }) => {
                        self.alarm(format!("the staged copy of {path} is damaged: the medium loses data"));
                        match self.undo_commit(&plan, &mut journal, Some(&path)) {
                            Ok(()) => Ok(Recovery::Undone),
                            Err(EngineError::CommitStuck) => Ok(Recovery::Stuck),
                            Err(error) if error.kind() == FailureKind::NoSpace => Err(self.no_room_inside(&plan)?),
                            Err(error) => Err(error),
                        }
                    }
                    Err(error) if error.kind() == FailureKind::NoSpace => {
                        self.undo_for_room(&plan, &mut journal)?;
                        Ok(Recovery::Undone)
                    }
                    Err(error) if self.may_undo(&plan, &error) => {
                        // A place on the medium that takes no file of the new release must not keep the old one from
                        // starting. Where going back fails as well, the first error says why.
                        match self.undo_commit(&plan, &mut journal, None) {
                            Ok(()) => Ok(Recovery::Undone),
                            Err(_) => Err(error),
                        }
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Whether a commit that `error` keeps from being finished can be taken back.
    fn may_undo(&self, plan: &CommitPlan, error: &EngineError) -> bool {
        let passes = matches!(error.kind(), FailureKind::ReadOnly | FailureKind::Busy);
        !passes && !self.is_applied(plan) && plan.intent.keeps_undo()
    }

    /// Whether the release of `plan` is the installed one already.
    fn is_applied(&self, plan: &CommitPlan) -> bool {
        self.state.release.as_ref().is_some_and(|installed| installed.serial == plan.release.serial)
    }

    /// Whether the journal says that the managed directory may be a mixture.
    pub(crate) fn is_open(&self) -> Result<bool, EngineError> {
        let journal = Journal::read(self.free).map_err(EngineError::zone("read", paths::JOURNAL))?;
        Ok(journal.state().is_open())
    }

    /// Whether the managed directory may be a mixture; where the journal cannot be read, it counts as one.
    pub fn has_open_commit(&self) -> bool {
        self.is_open().unwrap_or(true)
    }

    fn read_commit_plan(&self, digest: &Digest) -> Result<Option<CommitPlan>, EngineError> {
        let Some(bytes) = zone_io::read_small(self.free, COMMIT_PLAN, MAX_PLAN_BYTES)? else { return Ok(None) };
        if Digest::of(&bytes) != *digest {
            return Ok(None);
        }
        let plan = postcard::take_from_bytes::<CommitPlan>(&bytes).ok().map(|(plan, _appended)| plan);
        Ok(plan.filter(|plan| plan.format == PLAN_FORMAT))
    }

    /// Makes the release of `plan` the installed one. Everything is staged, and the client does not run.
    pub(crate) fn commit(&mut self, plan: &Plan, intent: Intent) -> Result<(), EngineError> {
        let mut journal = Journal::read(self.free).map_err(EngineError::zone("read", paths::JOURNAL))?;
        let previous = match &self.state.release {
            Some(installed) if installed.serial != plan.release.serial => Some(installed.clone()),
            _ => self.state.previous.clone(),
        };
        let mut commit = CommitPlan {
            format: PLAN_FORMAT,
            intent,
            release: plan.release.clone(),
            previous,
            modules: plan.manifest.modules.iter().map(|module| (module.id.clone(), module.version.clone())).collect(),
            puts: plan
                .puts
                .iter()
                .map(|put| PutStep {
                    path: put.path.clone(),
                    digest: put.digest,
                    size: put.size,
                    executable: put.executable,
                    old: None,
                })
                .collect(),
            removes: plan.removes.iter().map(|(path, _)| RemoveStep { path: path.clone(), old: None }).collect(),
            marks: plan.marks.clone(),
            manifest_bytes: plan.verified.bytes().len() as u64,
            list: plan.sealed_list.as_ref().map(|list| (Digest::of(list), list.len() as u64)),
            statement: plan.statement.as_ref().map(|bytes| (Digest::of(bytes), bytes.len() as u64)),
            previous_statement: plan.previous_statement.as_ref().map(|bytes| (Digest::of(bytes), bytes.len() as u64)),
            updaters: updater_steps(plan),
        };
        if intent.keeps_undo() {
            self.keep_undo(&mut commit, &believed(&plan.inventory, &plan.manifest))?;
        }
        let bytes = postcard::to_allocvec(&commit).map_err(|_| EngineError::Internal("a plan does not encode"))?;
        zone_io::write_durable(self.free, COMMIT_PLAN, &bytes)?;
        self.watch.step("planned");
        let open = JournalState::Committing { plan: Digest::of(&bytes), serial: plan.release.serial };
        journal.advance(self.free, open).map_err(EngineError::zone("write", paths::JOURNAL))?;
        self.watch.step("committing");
        match self.execute(&commit, &mut journal, true) {
            Err(EngineError::StagingDamaged { path }) => {
                self.undo_commit(&commit, &mut journal, Some(&path))?;
                Err(EngineError::StagingDamaged { path })
            }
            Err(error) if error.kind() == FailureKind::NoSpace => {
                self.undo_for_room(&commit, &mut journal)?;
                Err(error)
            }
            other => other,
        }
    }

    /// Keeps copies of what the commit replaces and removes, in place of those of the commit before. `believed`: what seems to
    /// stand at a path. Where all is what it seems, each file is read once, by the copy itself.
    fn keep_undo(&self, commit: &mut CommitPlan, believed: &HashMap<&str, (Digest, u64)>) -> Result<(), EngineError> {
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
            Err(firmware_image::ZoneError::Io(_) | firmware_image::ZoneError::Corrupt) => Ok(None),
            Err(firmware_image::ZoneError::BadPath) => Ok(None),
            Err(error) => Err(EngineError::zone("read", full)(error)),
        }
    }

    /// Does what the plan says, or what is left of it. `fresh`: nothing of it was done before.
    fn execute(&mut self, plan: &CommitPlan, journal: &mut Journal, fresh: bool) -> Result<(), EngineError> {
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
        let changes = state.release.as_ref().is_none_or(|installed| installed.serial != plan.release.serial);
        state.release = Some(plan.release.clone());
        state.modules = plan.modules.clone();
        if changes {
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
                state.health = Health::Proven;
                // What failed is nothing to go back to.
                state.previous = None;
            }
        }
    }

    fn change_files(&mut self, plan: &CommitPlan, fresh: bool) -> Result<(), EngineError> {
        let mut touched: BTreeSet<String> = BTreeSet::new();
        for step in &plan.removes {
            let full = client_path(&step.path);
            if self.free.remove(&full).map_err(EngineError::zone("remove", &full))? {
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
            self.free.set_executable(&full, *executable).map_err(EngineError::zone("mark", &full))?;
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
    fn sync_touched(&self, touched: &BTreeSet<String>) -> Result<(), EngineError> {
        let mut all: BTreeSet<&str> = BTreeSet::new();
        for directory in touched {
            let mut at = directory.as_str();
            while all.insert(at) && !at.is_empty() {
                at = zone_io::parent(at);
            }
        }
        // Longest first: a name is durable when its own directory is.
        for directory in all.into_iter().rev() {
            let there = directory.is_empty()
                || self
                    .free
                    .metadata(directory)
                    .map_err(EngineError::zone("read", directory))?
                    .is_some_and(|metadata| metadata.kind == Kind::Directory);
            if there {
                self.free.sync_dir(directory).map_err(EngineError::zone("sync", directory))?;
            }
        }
        Ok(())
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
    fn clear_way(&mut self, path: &str) -> Result<(), EngineError> {
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
                    let place = crate::quarantine::move_away(self.free, path)?;
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

    /// Undoes a commit whose room somebody else took, so that the release before can be started.
    ///
    /// # Errors
    /// `NoSpaceInside` where even that takes more room than there is, or where there is nothing to go back to.
    fn undo_for_room(&mut self, plan: &CommitPlan, journal: &mut Journal) -> Result<(), EngineError> {
        if self.is_applied(plan) || !plan.intent.keeps_undo() {
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
    fn no_room_inside(&self, plan: &CommitPlan) -> Result<EngineError, EngineError> {
        let mut needed = RESERVE_BYTES;
        for put in &plan.puts {
            let full = client_path(&put.path);
            let found = self.free.metadata(&full).map_err(EngineError::zone("read", &full))?;
            // The larger of the two releases' files: it may be finished or undone.
            let wanted = put.size.max(put.old.map_or(0, |(_, length)| length));
            needed += footprint(wanted.saturating_sub(found.map_or(0, |found| found.length)));
        }
        needed += plan.updaters.iter().map(|updater| footprint(updater.size)).max().unwrap_or(0);
        let free = self.free.free_bytes().map_err(EngineError::zone("measure", "/"))?;
        Ok(EngineError::NoSpaceInside { needed: needed.max(free + RESERVE_BYTES), free })
    }

    /// Puts back what the commit replaced, and closes the journal. `damaged`: the file whose staged copy is not good.
    fn undo_commit(
        &mut self,
        plan: &CommitPlan,
        journal: &mut Journal,
        damaged: Option<&str>,
    ) -> Result<(), EngineError> {
        if !plan.intent.keeps_undo() {
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
                Some((digest, length)) => due.push((full.clone(), length, digest)),
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

    /// Removes what only an open commit needs. Undo copies stay, to go back with.
    fn clean_up(&mut self, journal: &mut Journal) -> Result<(), EngineError> {
        let names = zone_io::files_in(self.free, paths::STAGING_DIR)?.into_iter().map(|(name, _)| name);
        zone_io::remove_all(self.free, paths::STAGING_DIR, names)?;
        self.watch.step("cleaned");
        journal.advance(self.free, JournalState::Idle).map_err(EngineError::zone("write", paths::JOURNAL))
    }
}
