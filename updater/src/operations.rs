//! The operations: check, update, verify, repair, roll back, and `run`, which the launcher calls at each plug-in.

use std::time::{Duration, Instant};

use firmware_image::free_zone::{FreeZone, Kind};
use firmware_image::launcher_note::LauncherNote;
use firmware_image::record::Health;
use firmware_image::{RawZone, paths};
use release_store::Manifest;
use release_store::trust::Release;
use serde::Serialize;

use crate::backups::Look;
use crate::check::Wish;
use crate::commit::{Intent, Recovery};
use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::inventory::{self, FileState};
use crate::own_places;
use crate::record_store::Origin;
use crate::spool::Spool;
use crate::stage::Staged;
use crate::summary::Summary;
use crate::zone_io;

/// Plans made anew because a source was not what it seemed, before an operation gives up.
pub(crate) const MAX_PLANS: usize = 16;

/// What an operation did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing was to be done.
    None,
    /// Only said what would be done.
    Planned,
    /// A first release was installed.
    Installed,
    /// Another release was installed.
    Updated,
    /// Files of the installed release were mended.
    Repaired,
}

/// What came of an operation.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// What was done.
    pub action: Action,
    /// The installed release's version.
    pub version: Option<String>,
    /// Its serial.
    pub serial: Option<u64>,
    /// The version before, where it changed.
    pub previous: Option<String>,
    /// Whether the client stands whole, as far as can be known.
    pub whole: bool,
    /// No server could be asked.
    pub offline: bool,
    /// What would be done, with `--dry-run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Summary>,
    /// Files mended or installed.
    pub files_written: usize,
    /// Frames that came over the network.
    pub frames_fetched: u64,
    /// Bytes that came over the network.
    pub bytes_fetched: u64,
    /// Requests made.
    pub requests: u64,
    /// What an administrator should know.
    pub alarms: Vec<String>,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// The installed release's version.
    pub installed: Option<String>,
    /// Its serial.
    pub serial: Option<u64>,
    /// Whether it was withdrawn, and why.
    pub withdrawn: Option<String>,
    /// The newest release's version.
    pub newest: Option<String>,
    /// Its serial.
    pub newest_serial: Option<u64>,
    /// Whether an update would install it.
    pub update: bool,
    /// A person chose the installed release.
    pub held: bool,
}

/// What a verification found.
#[derive(Debug, Clone, Serialize)]
pub struct VerifyReport {
    /// The release that the files were compared with.
    pub version: String,
    /// Its serial.
    pub serial: u64,
    /// Whether it stands whole.
    pub whole: bool,
    /// Files as they should be.
    pub current: usize,
    /// The user's own files of the release.
    pub ignored: usize,
    /// Every file that is not as it should be.
    pub damaged: Vec<DamagedFile>,
    /// Programs that no manifest lists.
    pub unlisted_programs: Vec<String>,
    /// Whether an interrupted change waits to be finished.
    pub open_commit: bool,
}

/// A file that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct DamagedFile {
    /// Its path.
    pub path: String,
    /// How it stands.
    pub state: FileState,
}

/// How `run` speaks with the launcher.
pub trait Launcher {
    /// The state is loaded.
    fn ready(&mut self);
    /// The client may start; the download goes on behind it. `false`: there is no launcher that can do so.
    fn go(&mut self) -> bool;
    /// Waits until the client that was let go has ended.
    fn wait_for_client(&mut self);
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Asks what is newest.
    ///
    /// # Errors
    /// `Offline`, `OutOfDate`, `NotAuthentic`.
    pub fn check(&mut self) -> Result<CheckReport, EngineError> {
        self.refresh()?;
        self.save_state()?;
        let newest = self.choose(&Wish::Newest).ok();
        let installed = self.state.release.clone();
        let releases = self.known_releases().unwrap_or_default();
        let withdrawn =
            installed.as_ref().and_then(|installed| releases.withdrawn(installed.serial)).map(str::to_owned);
        let differs = newest.as_ref().is_some_and(|newest| Some(newest.serial) != installed.as_ref().map(|i| i.serial));
        Ok(CheckReport {
            installed: installed.as_ref().map(|installed| installed.version.clone()),
            serial: installed.as_ref().map(|installed| installed.serial),
            withdrawn,
            newest: newest.as_ref().map(|newest| newest.version.clone()),
            newest_serial: newest.as_ref().map(|newest| newest.serial),
            update: differs,
            held: self.state.held,
        })
    }

    /// Goes to the newest release, or to the one wished for; repairs on the way.
    ///
    /// # Errors
    /// What kept it from that. The client is then as it was, unless [`Engine::is_whole`] says otherwise.
    pub fn update(&mut self, wish: &Wish) -> Result<Outcome, EngineError> {
        self.prepare()?;
        let asked = self.refresh();
        let offline = asked.as_ref().is_err_and(|error| error.kind().is_no_news());
        if let Err(error) = asked {
            // Without news, what the device carries may still be what is wished for.
            if offline
                && *wish == Wish::Newest
                && let Some(outcome) = self.bring_to_what_is_here(false)?
            {
                self.settle(None)?;
                return self.report(outcome);
            }
            let reachable = match self.choose(wish) {
                // By itself never to an older one: a formatted free zone opens no way back.
                Ok(release) => {
                    self.state.release.as_ref().is_none_or(|installed| match wish {
                        Wish::Newest => release.serial > installed.serial,
                        Wish::Previous | Wish::Version(_) => release.serial != installed.serial,
                    }) && offline
                }
                Err(_) => false,
            };
            if !reachable {
                return Err(error);
            }
        }
        let release = self.seek(wish)?;
        if *wish != Wish::Newest
            && let Some(reason) = &release.withdrawn
        {
            self.note(format!("release {} was withdrawn by its vendor: {reason}", release.version));
        }
        let intent = if *wish == Wish::Newest { Intent::Update } else { Intent::Hold };
        let mut outcome = self.bring_to(&release, intent, None)?;
        outcome.offline = offline;
        self.settle(None)?;
        self.report(outcome)
    }

    /// Compares the files with the installed release. Writes nothing, asks nobody.
    ///
    /// # Errors
    /// `NoRelease` where nothing is installed or nothing is known of what is.
    pub fn verify(&mut self) -> Result<VerifyReport, EngineError> {
        let (release, manifest) = self.installed_manifest(false)?;
        let inventory = inventory::survey(self.free, &manifest, None, self.hash, self.watch)?;
        let damaged = inventory
            .items
            .iter()
            .filter(|item| !matches!(item.state, FileState::Current | FileState::Ignored))
            .map(|item| DamagedFile { path: manifest.files[item.file].path.clone(), state: item.state })
            .collect();
        let programs = inventory.unlisted.iter().filter(|file| file.executable.is_some());
        Ok(VerifyReport {
            version: release.version,
            serial: release.serial,
            whole: inventory.is_whole(),
            current: inventory.count(FileState::Current),
            ignored: inventory.count(FileState::Ignored),
            damaged,
            unlisted_programs: programs.map(|file| file.path.clone()).collect(),
            open_commit: self.is_open()?,
        })
    }

    /// Mends the files of the installed release.
    ///
    /// # Errors
    /// What kept it from that.
    pub fn repair(&mut self) -> Result<Outcome, EngineError> {
        self.prepare()?;
        let (release, _) = self.installed_manifest(true)?;
        let outcome = self.bring_to(&release, Intent::Repair, None)?;
        self.settle(None)?;
        self.report(outcome)
    }

    /// Whether the client may be started: no commit is open, and every file of the installed release is as it should be.
    /// Where nothing is known of the release ([`Engine::has_list`]), an idle journal and a managed directory are all that can
    /// be asked for.
    pub fn is_whole(&mut self) -> bool {
        self.standing().0
    }

    /// As [`Engine::is_whole`], and the programs that stand among the client's files and that the installed release does not list.
    pub fn standing(&mut self) -> (bool, Vec<String>) {
        if self.is_open().unwrap_or(true) || self.state.release.is_none() {
            return (false, Vec::new());
        }
        match self.installed_manifest(false) {
            Ok((_, manifest)) => match inventory::survey(self.free, &manifest, None, self.hash, self.watch) {
                Ok(inventory) => (inventory.is_whole(), inventory.unlisted_programs()),
                Err(_) => (false, Vec::new()),
            },
            Err(_) => {
                let found = self.free.metadata(paths::CLIENT_DIR);
                (found.is_ok_and(|found| found.is_some_and(|found| found.kind == Kind::Directory)), Vec::new())
            }
        }
    }

    /// Whether the signed list of the installed release's files is at hand: without it nobody can tell whether they are whole.
    pub fn has_list(&mut self) -> bool {
        self.installed_manifest(false).is_ok()
    }

    /// What the launcher calls at each plug-in: finish what is open, check, update or repair, renew what is the
    /// updater's own.
    ///
    /// # Errors
    /// What kept it from that; see [`Engine::is_whole`].
    pub fn run(&mut self, launcher: &mut dyn Launcher) -> Result<Outcome, EngineError> {
        launcher.ready();
        if matches!(self.records.origin, Origin::Record(_)) {
            self.look = Look::Glance;
        }
        let result = self.run_road(launcher);
        if result.is_err()
            && let Err(error) = self.settle(None)
        {
            // Backups and record do not wait for a client that is not to be had; what keeps them back is not why it failed.
            self.watch.detail(&error.to_string());
        }
        result
    }

    fn run_road(&mut self, launcher: &mut dyn Launcher) -> Result<Outcome, EngineError> {
        let recovery = self.prepare()?;
        let failed = self.judge_trial()?;
        let began = Instant::now();
        let window = Duration::from_secs(self.config.policies.check_timeout_secs.into());
        let asked = self.within(Some(began + window), Self::refresh);
        let offline = match &asked {
            Ok(()) => false,
            Err(error) => {
                let goes_on = self.state.release.is_some() || self.offline.is_some();
                // The messages name servers, which the log does not.
                match error.kind() {
                    FailureKind::Offline if goes_on => {
                        let why = match error {
                            EngineError::NotThere { .. } => "No store is where it should be",
                            _ => "No server could be reached",
                        };
                        self.watch.note(&format!("{why}: the device goes on with what it has."));
                        self.watch.detail(&error.to_string());
                    }
                    FailureKind::Offline => self.watch.note(&error.to_string()),
                    FailureKind::OutOfDate => {
                        self.watch.note(&error.to_string());
                        self.note_once("what the servers have is expired, or older than what this device has seen");
                    }
                    _ => {
                        self.watch.note(&error.to_string());
                        self.alarm("what the servers answer is not accepted");
                    }
                }
                true
            }
        };
        if offline
            && failed.is_none()
            && let Some(outcome) = self.bring_to_what_is_here(true)?
        {
            self.settle(Some(launcher).filter(|_| outcome.whole))?;
            return self.report(outcome);
        }
        if let Some(failed) = failed
            && let Some(outcome) = self.leave(failed, asked.as_ref().err().map(EngineError::kind))?
        {
            self.settle(Some(launcher).filter(|_| outcome.whole))?;
            let offline = offline || outcome.offline;
            return self.report(Outcome { offline, ..outcome });
        }
        let (release, intent) = self.aim(!offline)?;
        let Some(release) = release else {
            let whole = self.is_whole();
            self.settle(Some(launcher).filter(|_| whole))?;
            return match asked {
                // Nothing is installed and nothing can be: say why.
                Err(error) if self.state.release.is_none() => Err(error),
                _ => {
                    let outcome = Outcome { offline, whole, ..self.outcome(Action::None) };
                    self.report(outcome)
                }
            };
        };
        let background: Option<(&mut dyn Launcher, Instant)> = match intent {
            Intent::Update if recovery != Recovery::Stuck => Some((&mut *launcher, began + window)),
            _ => None,
        };
        let before = self.state.release.as_ref().map(|installed| installed.version.clone());
        let result = self.bring_to(&release, intent, background);
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) if intent == Intent::Update && self.state.release.is_some() && mendable(&error) => {
                self.watch.note(&error.to_string());
                // A repair over a commit that a fault left open would forget what that one brought.
                if self.is_open()? && self.recover()? == Recovery::Finished {
                    let outcome = Outcome { previous: before, ..self.outcome(Action::Updated) };
                    self.settle(Some(launcher))?;
                    return self.report(outcome);
                }
                // The new release is not to be had now: the old one must at least be whole.
                // Without numbers and names: what stays as it is stays one line of the log.
                let why = match error.kind() {
                    FailureKind::NoSpace => ": there is no room for it",
                    FailureKind::Busy => ": the client was running",
                    FailureKind::Offline => ": it could not be fetched",
                    _ => "",
                };
                self.note_once(&format!("release {} could not be installed yet{why}", release.version));
                let (installed, _) = self.installed_manifest(true)?;
                let mended = self.bring_to(&installed, Intent::Repair, None)?;
                match mended.action == Action::None {
                    // Offline is a state: what is here is whole, and goes on.
                    true if error.kind().is_no_news() => Outcome { offline: true, ..mended },
                    true => {
                        self.settle(Some(launcher).filter(|_| mended.whole))?;
                        return Err(error);
                    }
                    false => mended,
                }
            }
            Err(error) => return Err(error),
        };
        self.settle(Some(launcher).filter(|_| outcome.whole))?;
        let offline = offline || outcome.offline;
        self.report(Outcome { offline, ..outcome })
    }

    /// What an updater below the floors may do: fetch one that is not, and put it into its place.
    ///
    /// # Errors
    /// What kept it from that.
    pub fn recover_updater(&mut self) -> Result<Outcome, EngineError> {
        self.refresh()?;
        let release = self.choose(&Wish::Newest)?;
        let mut basis = self.basis(&release)?;
        // What may be the last resort takes the road with the fewest turns.
        basis.without_patches = true;
        for _ in 0..MAX_PLANS {
            let mut spool = Spool::open(self.free)?;
            let plan = self.plan_updaters(&basis, &spool)?;
            if plan.updaters.is_empty() {
                return Err(EngineError::NoRelease("no newer updater is published for this device".into()));
            }
            self.make_space(&plan, Intent::Repair, &mut spool)?;
            self.fetch(&plan, &mut spool, &mut || ())?;
            match self.stage(&plan, &mut spool)? {
                Staged::All => {}
                Staged::Distrust(sources) => {
                    basis.distrusted.extend(sources);
                    continue;
                }
            }
            self.install_updaters(&crate::commit::updater_steps(&plan))?;
            self.renew_backups()?;
            self.save_state()?;
            return self.report(Outcome { whole: true, ..self.outcome(Action::Updated) });
        }
        Err(EngineError::Internal("the medium does not keep what is written to it"))
    }

    /// Before anything else: finish what is open, copy the record where it is missing.
    pub(crate) fn prepare(&mut self) -> Result<Recovery, EngineError> {
        if !self.limits.dry_run {
            // Before anything is written: what is written may be given the clusters that a broken entry leads to.
            match own_places::clear(self.free) {
                Err(error) if error.kind() == FailureKind::ReadOnly => {}
                cleared => cleared?.into_iter().for_each(|told| self.alarm(told)),
            }
        }
        let recovery = self.recover()?;
        self.heal_records()?;
        Ok(recovery)
    }

    /// After everything else: backups, configuration, record. On a write-protected device they wait.
    ///
    /// `launcher`: the client is whole. It starts before the backups are looked at, which do not touch it.
    fn settle(&mut self, launcher: Option<&mut dyn Launcher>) -> Result<(), EngineError> {
        if self.limits.dry_run {
            return Ok(());
        }
        match self.try_settle(launcher) {
            Err(error) if error.kind() == FailureKind::ReadOnly => {
                self.watch.note("the device is write-protected: nothing new could be kept on it");
                Ok(())
            }
            other => other,
        }
    }

    fn try_settle(&mut self, launcher: Option<&mut dyn Launcher>) -> Result<(), EngineError> {
        // What the launcher reads before it starts the client comes first.
        self.save_state()?;
        self.keep_config()?;
        if let Some(launcher) = launcher
            && !self.let_go
            && !self.is_open()?
        {
            self.let_go = launcher.go();
        }
        self.renew_backups()?;
        self.save_state()
    }

    /// Copies of the configuration, for where no virtual zone is in sight.
    fn keep_config(&self) -> Result<(), EngineError> {
        zone_io::write_if_changed(self.free, paths::CONFIG_COPY, self.config.bytes())?;
        let launcher = paths::bootstrap_name(paths::WINDOWS_PLATFORM);
        if self.free.metadata(&launcher).map_err(EngineError::zone("read", &launcher))?.is_none() {
            return Ok(());
        }
        // Whatever stands in its place may be somebody's, and nobody needs it as long as the other one is there.
        if let Err(error) = zone_io::write_if_changed(self.free, paths::CONFIG_BESIDE, self.config.bytes()) {
            self.watch.detail(&error.to_string());
        }
        Ok(())
    }

    /// What the launcher saw of the release on trial (X8): proven, or failed too often. Returns the serial that failed.
    fn judge_trial(&mut self) -> Result<Option<u64>, EngineError> {
        let Some(installed) = self.state.release.clone() else { return Ok(None) };
        if self.state.health == Health::Proven {
            return Ok(None);
        }
        let note = LauncherNote::read(self.free).map_err(EngineError::zone("read", paths::LAUNCHER_NOTE))?;
        let Some(trial) = note.trial.filter(|trial| trial.serial == installed.serial) else { return Ok(None) };
        if trial.proven {
            self.state.health = Health::Proven;
            self.lines.push(format!("note release {} has proven itself", installed.version));
            return Ok(None);
        }
        let most = self.config.policies.max_failed_starts.max(1);
        if trial.failed_starts < most {
            return Ok(None);
        }
        self.alarm(format!("release {} failed to start {} times", installed.version, trial.failed_starts));
        Ok(Some(installed.serial))
    }

    /// Leaves a release that failed here for the one before it; where that was withdrawn or is not to be had, for the newest
    /// of the others. `silent`: why the servers had no news. `None`: none is to be had, and what is here stays.
    ///
    /// # Errors
    /// What keeps the device from any release: see [`mendable`].
    fn leave(&mut self, failed: u64, silent: Option<FailureKind>) -> Result<Option<Outcome>, EngineError> {
        /// So many releases are tried.
        const MAX_TRIED: usize = 4;
        let silent = silent == Some(FailureKind::Offline);
        let mut tried = vec![failed];
        let mut patient = !silent;
        while tried.len() <= MAX_TRIED {
            // A server that just did not answer is asked again only for the best of them, and where nothing else is here.
            let way = if patient {
                self.way_back(&tried)
            } else {
                self.without_servers(|engine| Ok(engine.way_back(&tried)))?
            };
            let Some(release) = way else {
                if patient {
                    break;
                }
                (patient, tried) = (true, vec![failed]);
                continue;
            };
            tried.push(release.serial);
            let go = |engine: &mut Self| engine.bring_to(&release, Intent::Undo { failed }, None);
            let gone = if patient { go(self) } else { self.without_servers(go) };
            match gone {
                Ok(outcome) => return Ok(Some(outcome)),
                Err(error) if mendable(&error) && !self.is_open()? => {
                    self.watch.note(&error.to_string());
                    self.note_once(&format!("release {} could not be gone back to yet", release.version));
                    if silent && patient {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.alarm("there is no release to go back to");
        Ok(None)
    }

    /// Where to go from a release that failed here, but to those in `tried`: to the one before, which was installed once, else
    /// to the newest that may be installed by itself; to one before that was withdrawn only where there is no other.
    fn way_back(&mut self, tried: &[u64]) -> Option<Release> {
        let is_new = |release: &Release| !tried.contains(&release.serial);
        let previous = self.seek(&Wish::Previous).ok().filter(is_new);
        let stands = |engine: &Self, release: &Release| {
            engine.known_releases().is_none_or(|known| known.withdrawn(release.serial).is_none())
        };
        if previous.as_ref().is_some_and(|previous| stands(self, previous)) {
            return previous;
        }
        let newest = |engine: &Self| {
            let known = engine.known_releases().unwrap_or_default();
            known.iter().rev().find(|release| is_new(release) && engine.eligible(release)).cloned()
        };
        let found = newest(self).or_else(|| {
            self.ask_archive();
            newest(self)
        });
        found.or(previous)
    }

    /// What `run` goes to by itself: the newest release, or the installed one where a person holds it or nothing newer is
    /// known. `asked`: a server answered; if not, only what one said before is worth asking for again, and not what is
    /// known from the copy that the device carries.
    fn aim(&mut self, asked: bool) -> Result<(Option<Release>, Intent), EngineError> {
        let newest = self.choose(&Wish::Newest).ok();
        let Some(installed) = self.state.release.clone() else { return Ok((newest, Intent::Update)) };
        let releases = self.known_releases().unwrap_or_default();
        let withdrawn = releases.withdrawn(installed.serial).is_some();
        if withdrawn {
            self.note_once(&format!("the installed release {} was withdrawn", installed.version));
        }
        let wanted = newest.filter(|newest| {
            let moves = newest.serial > installed.serial && !self.state.held;
            let hopeful = asked || self.was_heard_of(newest);
            newest.serial != installed.serial && (moves || withdrawn) && hopeful
        });
        Ok(match wanted {
            Some(newest) => (Some(newest), Intent::Update),
            None if asked => (self.find(&installed), Intent::Repair),
            None => (self.authentic(&installed), Intent::Repair),
        })
    }

    /// Whether a server once named this release, and may give it.
    fn was_heard_of(&self, release: &Release) -> bool {
        let cached = || self.trust().ok()?.cached().ok();
        !self.servers.is_empty() && cached().is_some_and(|known| known.by_serial(release.serial).is_some())
    }

    /// The installed release, as signed metadata has it, and its manifest.
    fn installed_manifest(&mut self, network: bool) -> Result<(Release, Manifest), EngineError> {
        let none = || EngineError::NoRelease("no release is installed: run `update` first".into());
        let known = self.state.release.clone().ok_or_else(none)?;
        if self.authentic(&known).is_none() && network {
            self.refresh()?;
            self.find(&known);
        }
        let unknown = || {
            EngineError::NoRelease(format!(
                "nothing signed is at hand about the installed release {}: connect to a server and try again",
                known.version
            ))
        };
        let release = self.authentic(&known).ok_or_else(unknown)?;
        if network {
            let (_, manifest) = self.manifest(&release, None)?;
            return Ok((release, manifest));
        }
        let manifest = self.local_manifest(&known).ok_or_else(unknown)?;
        Ok((release, manifest))
    }

    pub(crate) fn outcome(&self, action: Action) -> Outcome {
        let meter = self.servers.meter();
        Outcome {
            action,
            version: self.state.release.as_ref().map(|release| release.version.clone()),
            serial: self.state.release.as_ref().map(|release| release.serial),
            previous: None,
            whole: self.state.release.is_some(),
            offline: false,
            plan: None,
            files_written: 0,
            frames_fetched: self.frames_fetched,
            bytes_fetched: meter.bytes(),
            requests: meter.requests(),
            alarms: self.alarms.clone(),
        }
    }

    /// Completes an outcome with what was found since it was made.
    fn report(&mut self, outcome: Outcome) -> Result<Outcome, EngineError> {
        let whole = outcome.whole && !self.is_open()?;
        let alarms = self.alarms.clone();
        self.write_log();
        Ok(Outcome { whole, alarms, ..outcome })
    }
}

/// Whether the installed release can be mended although going to another one failed so.
fn mendable(error: &EngineError) -> bool {
    !matches!(error, EngineError::ClientRunning | EngineError::Busy | EngineError::NoSpaceInside { .. })
}
