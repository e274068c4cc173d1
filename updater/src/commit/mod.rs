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
//!
//! | module | subject |
//! |---|---|
//! | `apply` | what an open commit changes, and in which order |
//! | `undo` | copies of what it replaces, and putting them back |

mod apply;
mod undo;

use firmware_image::free_zone::{FreeZone, Kind};
use firmware_image::journal::{Journal, State as JournalState};
use firmware_image::launcher_note::LauncherNote;
use firmware_image::updater_image::MAX_IMAGE_BYTES;
use firmware_image::{Digest, RawZone, paths};
use release_store::manifest::{MAX_FILE_BYTES, MAX_UPDATERS, Policy, check_module, check_platform, check_version};
use release_store::paths::PathSet;
use serde::{Deserialize, Serialize};

use crate::backups::Look;
use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::plan::Plan;
use crate::state::KnownRelease;
use crate::zone_io;

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
    /// What stood there before was a mixture already: there is nothing to go back to.
    from_mixture: bool,
}

impl CommitPlan {
    /// Whether copies of what is replaced are kept.
    fn keeps_undo(&self) -> bool {
        self.intent.keeps_undo() && !self.from_mixture
    }

    /// Reads a plan; `None` for one that no updater wrote.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (plan, _appended) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        plan.is_sound().then_some(plan)
    }

    /// Whether it keeps to what holds for every release, whoever wrote it.
    fn is_sound(&self) -> bool {
        let releases = [Some(&self.release), self.previous.as_ref()].into_iter().flatten();
        let mut versions = releases.map(|known| &known.version).chain(self.modules.iter().map(|(_, version)| version));
        let mut others = self.removes.iter().map(|step| &step.path).chain(self.marks.iter().map(|(path, _)| path));
        let mut put = PathSet::new();
        self.format == PLAN_FORMAT
            && versions.all(|version| check_version(version).is_ok())
            && self.modules.iter().all(|(id, _)| check_module(id).is_ok())
            && self.puts.iter().all(|step| step.size <= MAX_FILE_BYTES && put.insert(&step.path).is_ok())
            && others.all(|path| release_store::paths::check(path).is_ok())
            && self.updaters.len() <= MAX_UPDATERS
            && self.updaters.iter().all(|step| check_platform(&step.platform).is_ok() && step.size <= MAX_IMAGE_BYTES)
    }
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
        let mut journal = match Journal::read(self.free) {
            Err(error) if zone_io::is_damage(error) => return self.replace_journal(),
            read => read.map_err(EngineError::zone("read", paths::JOURNAL))?,
        };
        match journal.state() {
            JournalState::Idle => Ok(Recovery::Nothing),
            JournalState::Cleaning { .. } => {
                if !self.limits.dry_run {
                    self.clean_up(&mut journal)?;
                }
                Ok(Recovery::Nothing)
            }
            JournalState::Committing { .. } if self.limits.dry_run => Ok(Recovery::Stuck),
            JournalState::Committing { plan: tag, .. } => {
                self.look = Look::Whole;
                let Some(plan) = self.read_commit_plan(&tag)? else {
                    self.alarm("an interrupted update has lost its plan: the client must be repaired");
                    return Ok(Recovery::Stuck);
                };
                if !self.leads_on(&plan) {
                    self.alarm(
                        "an interrupted update is of another time than the version record: the client must be repaired",
                    );
                    return Ok(Recovery::Stuck);
                }
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

    /// Puts a new journal in the place of one that is damaged so that it cannot be read. What it said is not known: the client
    /// counts as a mixture until each of its files was compared.
    fn replace_journal(&mut self) -> Result<Recovery, EngineError> {
        self.look = Look::Whole;
        self.alarm("the journal cannot be read: the client is checked file by file");
        if !self.limits.dry_run {
            zone_io::remove(self.free, paths::JOURNAL)?;
            let serial = self.state.release.as_ref().map_or(0, |installed| installed.serial);
            let mixture = JournalState::Committing { plan: Digest([0; 32]), serial };
            let mut journal = Journal::default();
            journal.advance(self.free, mixture).map_err(EngineError::zone("write", paths::JOURNAL))?;
        }
        Ok(Recovery::Stuck)
    }

    /// Whether a commit that `error` keeps from being finished can be taken back.
    fn may_undo(&self, plan: &CommitPlan, error: &EngineError) -> bool {
        let passes = matches!(error.kind(), FailureKind::ReadOnly | FailureKind::Busy);
        !passes && !self.is_applied(plan) && plan.keeps_undo()
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

    /// Whether a plan begins at the installed release or ends there: what is put back from another time, or from another
    /// device, decides nothing.
    fn leads_on(&self, plan: &CommitPlan) -> bool {
        let Some(installed) = &self.state.release else { return true };
        let from = plan.previous.as_ref().map(|previous| previous.serial);
        installed.serial == plan.release.serial || from == Some(installed.serial)
    }

    /// What the journal says of a plan: a tag that needs the device's key, as what a plan says becomes the version record.
    pub fn plan_tag(&self, plan: &[u8]) -> Digest {
        let key = &self.records.identity.device_key;
        Digest(*key.derive(&Digest::of(plan).0, b"holdfast commit plan v1").expose())
    }

    fn read_commit_plan(&self, tag: &Digest) -> Result<Option<CommitPlan>, EngineError> {
        let Some(bytes) = zone_io::read_small(self.free, COMMIT_PLAN, MAX_PLAN_BYTES)? else { return Ok(None) };
        if self.plan_tag(&bytes) != *tag {
            return Ok(None);
        }
        Ok(CommitPlan::decode(&bytes))
    }

    /// Makes the release of `plan` the installed one. Everything is staged, and the client does not run.
    pub(crate) fn commit(&mut self, plan: &Plan, intent: Intent) -> Result<(), EngineError> {
        let mut journal = Journal::read(self.free).map_err(EngineError::zone("read", paths::JOURNAL))?;
        if intent != Intent::Repair {
            self.forget_failures_of(plan.release.serial)?;
        }
        let mut puts = Vec::with_capacity(plan.puts.len());
        for put in &plan.puts {
            // The client may have made it since the plan was: then it is the user's.
            let is_users = self.is_users_by_now(&put.path, &plan.manifest)?;
            let (path, digest, size, executable) = (put.path.clone(), put.digest, put.size, put.executable);
            puts.extend((!is_users).then_some(PutStep { path, digest, size, executable, old: None }));
        }
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
            puts,
            removes: plan.removes.iter().map(|(path, _)| RemoveStep { path: path.clone(), old: None }).collect(),
            marks: plan.marks.clone(),
            manifest_bytes: plan.verified.bytes().len() as u64,
            list: plan.sealed_list.as_ref().map(|list| (Digest::of(list), list.len() as u64)),
            statement: plan.statement.as_ref().map(|bytes| (Digest::of(bytes), bytes.len() as u64)),
            previous_statement: plan.previous_statement.as_ref().map(|bytes| (Digest::of(bytes), bytes.len() as u64)),
            updaters: updater_steps(plan),
            from_mixture: journal.state().is_open(),
        };
        if commit.keeps_undo() {
            self.keep_undo(&mut commit, &undo::believed(&plan.inventory, &plan.manifest))?;
        }
        let bytes = postcard::to_allocvec(&commit).map_err(|_| EngineError::Internal("a plan does not encode"))?;
        zone_io::write_durable(self.free, COMMIT_PLAN, &bytes)?;
        self.watch.step("planned");
        let open = JournalState::Committing { plan: self.plan_tag(&bytes), serial: plan.release.serial };
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

    /// Has the launcher count a release's starts anew: who chooses one that failed here once gives it another trial.
    fn forget_failures_of(&self, serial: u64) -> Result<(), EngineError> {
        let mut note = LauncherNote::read(self.free).map_err(EngineError::zone("read", paths::LAUNCHER_NOTE))?;
        if note.trial.as_ref().is_some_and(|trial| trial.serial == serial && !trial.proven) {
            note.trial = None;
            note.write(self.free).map_err(EngineError::zone("write", paths::LAUNCHER_NOTE))?;
        }
        Ok(())
    }

    /// Whether a file that is there belongs to the user: where none is, it is put there once.
    fn is_users_by_now(&self, path: &str, manifest: &release_store::Manifest) -> Result<bool, EngineError> {
        if manifest.file(path).is_none_or(|file| file.policy != Policy::Seed) {
            return Ok(false);
        }
        let full = crate::inventory::client_path(path);
        let found = self.free.metadata(&full).map_err(EngineError::zone("read", &full))?;
        Ok(found.is_some_and(|found| found.kind == Kind::File))
    }

    /// Removes what only an open commit needs. Undo copies stay, to go back with.
    fn clean_up(&mut self, journal: &mut Journal) -> Result<(), EngineError> {
        let names = zone_io::files_in(self.free, paths::STAGING_DIR)?.into_iter().map(|(name, _)| name);
        zone_io::remove_all(self.free, paths::STAGING_DIR, names)?;
        self.watch.step("cleaned");
        journal.advance(self.free, JournalState::Idle).map_err(EngineError::zone("write", paths::JOURNAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str) -> KnownRelease {
        KnownRelease { serial: 2, version: version.into(), manifest: Digest::of(b"manifest"), published: 1 }
    }

    fn put(path: &str) -> PutStep {
        PutStep { path: path.into(), digest: Digest::of(b"new"), size: MAX_FILE_BYTES, executable: false, old: None }
    }

    fn updater(platform: &str) -> UpdaterStep {
        UpdaterStep { platform: platform.into(), digest: Digest::of(b"updater"), size: MAX_IMAGE_BYTES }
    }

    /// One with everything in it, each at its limit.
    fn plan() -> CommitPlan {
        CommitPlan {
            format: PLAN_FORMAT,
            intent: Intent::Update,
            release: release("2.0.0"),
            previous: Some(release("1.0.0")),
            modules: vec![("client".into(), "2.0.0".into())],
            puts: vec![put("run.sh"), put("data/a")],
            removes: vec![RemoveStep { path: "old".into(), old: None }],
            marks: vec![("data/a".into(), true)],
            manifest_bytes: 1,
            list: None,
            statement: None,
            previous_statement: None,
            updaters: vec![updater("linux-x86_64"); MAX_UPDATERS],
            from_mixture: false,
        }
    }

    fn decoded(plan: &CommitPlan) -> Option<CommitPlan> {
        CommitPlan::decode(&postcard::to_allocvec(plan).unwrap())
    }

    #[test]
    fn a_plan_keeps_to_every_limit_of_a_release_or_is_none() {
        type Change = fn(&mut CommitPlan);
        assert_eq!(decoded(&plan()).map(|plan| plan.puts.len()), Some(2));
        let wrong: [(&str, Change); 13] = [
            ("another format", |plan| plan.format += 1),
            ("the release's version", |plan| plan.release.version = "2/0".into()),
            ("the previous one's", |plan| plan.previous = Some(release(""))),
            ("a module's version", |plan| plan.modules[0].1 = "\n".into()),
            ("a module's name", |plan| plan.modules[0].0 = "../client".into()),
            ("a path that leads out", |plan| plan.puts[1].path = "../run.sh".into()),
            ("a path twice, as FAT sees it", |plan| plan.puts[1].path = "RUN.sh".into()),
            ("a file too long", |plan| plan.puts[0].size += 1),
            ("a path to remove", |plan| plan.removes[0].path = "/etc/passwd".into()),
            ("a path to mark", |plan| plan.marks[0].0 = "a\\b".into()),
            ("updaters, one too many", |plan| plan.updaters.push(updater("linux-x86_64"))),
            ("an updater's platform", |plan| plan.updaters[0].platform = "..".into()),
            ("an updater too long", |plan| plan.updaters[0].size += 1),
        ];
        for (what, change) in wrong {
            let mut plan = plan();
            change(&mut plan);
            assert!(decoded(&plan).is_none(), "{what}");
        }
    }

    #[test]
    fn whoever_goes_back_or_on_keeps_what_was_there_unless_it_was_a_mixture() {
        for (intent, from_mixture, keeps) in [
            (Intent::Update, false, true),
            (Intent::Hold, false, true),
            (Intent::Undo { failed: 2 }, false, true),
            (Intent::Repair, false, false),
            (Intent::Update, true, false),
        ] {
            assert_eq!(CommitPlan { intent, from_mixture, ..plan() }.keeps_undo(), keeps, "{intent:?}");
        }
    }
}
