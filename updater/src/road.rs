//! The one road to a release: plan, fetch, stage, commit, and what is done where a part of it fails.

use std::sync::Arc;
use std::time::Instant;

use firmware_image::free_zone::FreeZone;
use firmware_image::{RawZone, ZoneError, paths};
use release_store::Manifest;
use release_store::trust::{MAX_ARCHIVE_BYTES, Release, VerifiedManifest};

use crate::backups::Look;
use crate::commit::Intent;
use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::host::Guard;
use crate::inventory::{self, FileState, Inventory};
use crate::misnamed;
use crate::operations::{Action, Launcher, MAX_PLANS, Outcome};
use crate::plan::Plan;
use crate::spool::Spool;
use crate::stage::Staged;
use crate::zone_io;

/// After so many plans that did not hold while there were patches, patches are done without.
const MAX_PATCH_FAILURES: usize = 3;

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// The one road to a release: plan, fetch, stage, commit.
    pub(crate) fn bring_to(
        &mut self,
        release: &Release,
        intent: Intent,
        mut background: Option<(&mut dyn Launcher, Instant)>,
    ) -> Result<Outcome, EngineError> {
        let tried = match self.try_bring_to(release, intent, &mut background) {
            // Somebody took the room meanwhile: a new plan finds out how much is missing.
            Err(EngineError::Zone { source: ZoneError::Full, .. }) => {
                self.try_bring_to(release, intent, &mut background)
            }
            tried => tried,
        };
        let error = match tried {
            Err(error) if may_be_elsewhere(&error) => error,
            other => return other,
        };
        // What is known of an older release was kept long ago: the store may hold it in another way by now.
        let asked = self.archive_asked;
        if self.releases.is_none() && !self.on_device_only {
            // Where no server answers, none will say more.
            if matches!(error, EngineError::Offline { .. }) || self.refresh().is_err() {
                return Err(error);
            }
        }
        self.ask_archive();
        let newly = self.releases.as_ref().filter(|_| !asked).and_then(|releases| releases.by_serial(release.serial));
        match newly.filter(|newly| *newly != release && newly.manifest == release.manifest).cloned() {
            Some(newly) => self.try_bring_to(&newly, intent, &mut background),
            None => Err(error),
        }
    }

    fn try_bring_to(
        &mut self,
        release: &Release,
        intent: Intent,
        background: &mut Option<(&mut dyn Launcher, Instant)>,
    ) -> Result<Outcome, EngineError> {
        let before = self.state.release.clone();
        // Until the client was let go, what must be known of the release has to come within the check window.
        let mut window = background.as_ref().filter(|_| before.is_some()).map(|(_, deadline)| *deadline);
        let patience = window.map(|window| window + self.limits.patience);
        let mut basis = match self.within(window, |engine| engine.basis(release)) {
            Err(error) if window.is_some() && error.kind() == FailureKind::Offline => {
                window = self.let_go(background, error)?;
                self.within(window, |engine| engine.basis(release))?
            }
            other => other?,
        };
        let outdated = self.outdated_updaters(&basis.manifest)?;
        if !self.limits.dry_run && !outdated.is_empty() {
            // What a backup holds need not be fetched.
            self.restore_from_backups(&basis.manifest, &outdated)?;
        }
        let (mut patch_failures, mut names_looked_at) = (0, self.limits.dry_run);
        for _ in 0..MAX_PLANS {
            let mut spool = Spool::open(self.free)?;
            let planned = match self.within(window, |engine| engine.plan(&basis, &spool)) {
                Err(error) if window.is_some() && error.kind() == FailureKind::Offline => {
                    window = self.let_go(background, error)?;
                    self.within(window, |engine| engine.plan(&basis, &spool))
                }
                other => other,
            };
            let plan = match planned {
                Err(error) if error.kind() == FailureKind::Offline && !basis.without_updaters => {
                    // Where only an updater is out of reach, the client must not wait for it.
                    self.watch.detail(&error.to_string());
                    basis.without_updaters = true;
                    self.plan(&basis, &spool)?
                }
                other => other?,
            };
            match self.check_reach(&plan) {
                Err(_) if !plan.updaters.is_empty() => {
                    basis.without_updaters = true;
                    continue;
                }
                other => other?,
            }
            if !std::mem::replace(&mut names_looked_at, true) && self.mend_names(&plan)? {
                continue;
            }
            self.report_damage(&plan.inventory, &plan.manifest, before.as_ref().map(|known| known.serial));
            if self.limits.dry_run {
                return Ok(Outcome { plan: Some(plan.summary()), ..self.outcome(Action::Planned) });
            }
            let same = before
                .as_ref()
                .is_some_and(|known| known.serial == plan.release.serial && known.manifest == plan.release.manifest);
            let settled = plan.is_empty() && same && !self.is_open()?;
            let mut programs = plan.inventory.unlisted_programs();
            if settled {
                match intent {
                    Intent::Update => self.state.held = false,
                    Intent::Hold => self.state.held = true,
                    _ => {}
                }
                self.restore_manifest(&plan.verified, plan.statement.as_deref())?;
                self.set_aside(&programs)?;
                return Ok(self.outcome(Action::None));
            }
            self.clear_leftovers(&plan)?;
            match self.make_space(&plan, intent, &mut spool) {
                Err(EngineError::NoSpace { .. }) if !plan.patches.is_empty() && release.base.is_none() => {
                    // Patches may need more room on the way than chunks do.
                    basis.without_patches = true;
                    continue;
                }
                other => other?,
            }
            let installed = basis.installed.as_ref().map(|installed| &installed.manifest);
            let whole = before.is_some() && client_is_whole(&plan.inventory, &plan.manifest, installed);
            if background.is_some() && whole && !self.let_go && plan.fetch_bytes > 0 {
                // Before the client may start, which would find them beside it.
                let is_own = |path: &String| installed.is_some_and(|installed| installed.file(path).is_some());
                let foreign;
                (programs, foreign) = programs.into_iter().partition(is_own);
                self.set_aside(&foreign)?;
            }
            let mut let_go = self.let_go;
            let meter = Arc::clone(self.servers.meter());
            meter.set_deadline(patience.filter(|_| whole && !let_go));
            let mut late = || {
                if let Some((launcher, deadline)) = background
                    && whole
                    && !let_go
                    && (Instant::now() >= *deadline || !fits(plan.fetch_bytes, *deadline))
                    && launcher.go()
                {
                    let_go = true;
                    meter.set_deadline(None);
                }
            };
            if plan.fetch_bytes > 0 {
                late();
            }
            let fetched = self.fetch(&plan, &mut spool, &mut late);
            meter.set_deadline(None);
            self.let_go = let_go;
            match fetched {
                Err(error) if !plan.patches.is_empty() && release.base.is_none() && patches_may_be_at_fault(&error) => {
                    // What was fetched stays. Chunks may lie elsewhere, and be all that is needed.
                    self.watch.detail(&format!("{error}; trying without patches"));
                    basis.without_patches = true;
                    continue;
                }
                Err(error) if error.kind() == FailureKind::Offline && !basis.without_updaters => {
                    if plan.updaters.is_empty() {
                        return Err(error);
                    }
                    basis.without_updaters = true;
                    continue;
                }
                other => other?,
            }
            match self.stage(&plan, &mut spool)? {
                Staged::All => {}
                Staged::Distrust(sources) => {
                    basis.distrusted.extend(sources);
                    patch_failures += usize::from(!plan.patches.is_empty());
                    basis.without_patches |= patch_failures >= MAX_PATCH_FAILURES;
                    continue;
                }
            }
            if let Some((launcher, _)) = background
                && self.let_go
            {
                launcher.wait_for_client();
            }
            let guard = self.lock_client()?;
            self.look = Look::Whole;
            match self.commit(&plan, intent) {
                Ok(()) => {}
                Err(EngineError::StagingDamaged { .. }) => continue,
                Err(error) => return Err(error),
            }
            self.set_aside_locked(&programs);
            drop(guard);
            let action = match &before {
                None => Action::Installed,
                Some(known) if known.serial == plan.release.serial => Action::Repaired,
                Some(_) => Action::Updated,
            };
            let verb = match action {
                Action::Installed => "installed",
                Action::Repaired => "repaired",
                _ => "updated to",
            };
            let files = plan.puts.len();
            self.lines.push(format!("note {verb} release {} ({files} files written)", plan.release.version));
            let previous = before.filter(|known| known.serial != plan.release.serial).map(|known| known.version);
            return Ok(Outcome { previous, files_written: files, ..self.outcome(action) });
        }
        Err(EngineError::Internal("the medium does not keep what is written to it"))
    }

    /// Does something in one round over the servers that ends at `deadline`; without one, as patiently as ever.
    pub(crate) fn within<R>(
        &mut self,
        deadline: Option<Instant>,
        f: impl FnOnce(&mut Self) -> Result<R, EngineError>,
    ) -> Result<R, EngineError> {
        if deadline.is_none() {
            return f(self);
        }
        let rounds = std::mem::replace(&mut self.limits.rounds, 1);
        self.servers.meter().set_deadline(deadline);
        let result = f(self);
        self.servers.meter().set_deadline(None);
        self.limits.rounds = rounds;
        result
    }

    /// The check window is over: lets the client go, and goes on behind it, without a deadline. A client that is not whole is
    /// mended first, and where nobody starts one beside this run there is no behind: a release that only is known is not asked
    /// for where no server has answered (`late`, which says why, is returned), and else has until the deadline that is returned.
    fn let_go(
        &mut self,
        background: &mut Option<(&mut dyn Launcher, Instant)>,
        late: EngineError,
    ) -> Result<Option<Instant>, EngineError> {
        let (whole, programs) = self.standing();
        if !whole {
            return Err(late);
        }
        // The client would find them beside it.
        self.set_aside(&programs)?;
        self.let_go = background.as_mut().is_some_and(|(launcher, _)| launcher.go());
        let patience = background.as_ref().map(|(_, window)| *window + self.limits.patience);
        let until = patience.filter(|_| !self.let_go);
        if until.is_some_and(|until| self.releases.is_none() || Instant::now() >= until) {
            return Err(late);
        }
        self.watch.detail(&format!("{late}; trying on"));
        Ok(until)
    }

    /// Gives files of the client their names back that a damaged directory calls otherwise. Whether there were any.
    fn mend_names(&mut self, plan: &Plan) -> Result<bool, EngineError> {
        if plan.inventory.entries == 0 {
            return Ok(false);
        }
        // Another release's spelling is the commit's affair.
        let is_here = self.state.release.as_ref().is_none_or(|known| known.serial == plan.release.serial);
        let missing = plan.puts.iter().filter(|put| put.state == FileState::Missing).map(|put| &put.path);
        let misspelled = plan.inventory.misspelled.iter().filter(|_| is_here);
        let found = misnamed::find(self.free, missing.chain(misspelled).map(String::as_str), is_here)?;
        if found.is_empty() {
            return Ok(false);
        }
        // Who has the client open may have these.
        let _guard = match self.host.lock_client() {
            Ok(None) => return Ok(false),
            Ok(guard) => guard,
            Err(_) => None,
        };
        for path in &found {
            if let Err(error) = misnamed::mend(self.free, path) {
                // As good as it was: by its other name it is there.
                self.watch.detail(&format!("{path} keeps its damaged name: {error}"));
                return Ok(false);
            }
            self.alarm(format!("{path} had a damaged name, and has its own again"));
        }
        Ok(true)
    }

    /// Alarms about files of the installed release that somebody changed or deleted (P2).
    fn report_damage(&mut self, inventory: &Inventory, manifest: &Manifest, installed: Option<u64>) {
        /// Paths that one run names; the rest is counted.
        const MAX_NAMED: usize = 20;
        if let [first, rest @ ..] = &inventory.skipped[..] {
            let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            let at = crate::inventory::client_path(first);
            let text = format!("{at} cannot be looked through, and no release made it: it was passed over{more}");
            if !self.alarms.contains(&text) {
                self.alarm(text);
            }
        }
        if installed.is_none() {
            return;
        }
        let same = installed == Some(manifest.serial);
        let odd = |state: FileState| state == FileState::Modified || (same && state == FileState::Missing);
        let items: Vec<_> = inventory.items.iter().filter(|item| odd(item.state)).collect();
        for item in items.iter().take(MAX_NAMED) {
            let text = format!("{} is {}", manifest.files[item.file].path, item.state);
            if !self.alarms.contains(&text) {
                self.alarm(text);
            }
        }
        if items.len() > MAX_NAMED {
            let text = format!("{} more files are missing or modified", items.len() - MAX_NAMED);
            if !self.alarms.contains(&text) {
                self.alarm(text);
            }
        }
    }

    /// Puts the installed release's manifest, and what vouches for it, back where a format took them.
    fn restore_manifest(&self, manifest: &VerifiedManifest, statement: Option<&[u8]>) -> Result<(), EngineError> {
        zone_io::write_if_changed(self.free, paths::MANIFEST, manifest.bytes())?;
        // One that is there and vouches stays: `statement` may be another that does, and would change at each news.
        let kept = zone_io::read_small(self.free, paths::STATEMENT, MAX_ARCHIVE_BYTES)?;
        let (release, trust) = (manifest.release(), self.trust()?);
        let vouches = kept.is_some_and(|kept| trust.vouches(&kept, release.serial, &release.manifest));
        if let Some(statement) = statement.filter(|_| !vouches) {
            zone_io::write_if_changed(self.free, paths::STATEMENT, statement)?;
        }
        Ok(())
    }

    fn set_aside(&mut self, programs: &[String]) -> Result<(), EngineError> {
        if programs.is_empty() {
            return Ok(());
        }
        match self.lock_client() {
            Ok(_guard) => {
                self.set_aside_locked(programs);
                Ok(())
            }
            Err(EngineError::ClientRunning) => {
                self.alarm(format!("{} unlisted programs wait to be set aside: the client is running", programs.len()));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// One that cannot be set aside (its copy has no room, say) stays, and keeps nobody from anything else.
    fn set_aside_locked(&mut self, programs: &[String]) {
        for path in programs {
            match crate::quarantine::set_aside(self.free, path) {
                Ok(_) => self.alarm(format!("{path} is a program that no release lists: it was set aside")),
                Err(error) => {
                    let reason =
                        std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
                    self.alarm(format!(
                        "{path} is a program that no release lists, and could not be set aside: {error}{reason}"
                    ));
                }
            }
        }
    }

    /// Keeps the client from starting, or waits until it has ended (F5).
    fn lock_client(&self) -> Result<Guard, EngineError> {
        loop {
            match self.host.lock_client() {
                Ok(Some(guard)) => return Ok(guard),
                Ok(None) if self.host.wait_for_client() => {}
                Ok(None) => return Err(EngineError::ClientRunning),
                Err(reason) => {
                    self.watch.detail(&format!("whether the client runs cannot be told: {reason}"));
                    return Ok(Box::new(()));
                }
            }
        }
    }
}

/// Whether so many bytes come before `deadline`, at a careful guess.
fn fits(bytes: u64, deadline: Instant) -> bool {
    /// What a slow line brings in a second.
    const SLOW_BYTES_PER_SEC: u64 = 256 << 10;
    let left = deadline.saturating_duration_since(Instant::now()).as_secs_f64();
    bytes as f64 / SLOW_BYTES_PER_SEC as f64 <= left
}

/// Whether the installed release stands whole, as a comparison with the wanted one shows it.
fn client_is_whole(inventory: &Inventory, goal: &Manifest, installed: Option<&Manifest>) -> bool {
    let Some(installed) = installed else { return false };
    let damaged = |item: &inventory::Item| match item.state {
        FileState::Modified => true,
        FileState::Missing => installed.file(&goal.files[item.file].path).is_some(),
        _ => false,
    };
    let gone = installed.files.iter().filter(|file| goal.file(&file.path).is_none()).count();
    !inventory.items.iter().any(damaged) && inventory.gone.len() >= gone
}

/// Whether fetching may go better if no patch is wanted.
fn patches_may_be_at_fault(error: &EngineError) -> bool {
    matches!(error.kind(), FailureKind::Offline | FailureKind::NotAuthentic) || matches!(error, EngineError::Store(_))
}

/// Whether what was missing may be found where newer metadata says.
fn may_be_elsewhere(error: &EngineError) -> bool {
    matches!(error, EngineError::Unobtainable { .. } | EngineError::Store(_))
        || matches!(error.kind(), FailureKind::Offline | FailureKind::NotAuthentic)
}
