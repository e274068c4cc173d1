//! Power is cut at every change that an operation makes, and once more at every change of the recovery. What is left comes to
//! rest: after a few plug-ins one writes nothing.

mod common;

use std::fs;

use common::*;
use firmware_image::host::{Access, DirZone, FileZone};
use firmware_image::journal::Journal;
use firmware_image::launcher_note::{LauncherNote, Trial};
use firmware_image::sim::{Cut, CutZone, Power, figures};
use firmware_image::updater_image::UpdaterVersion;
use release_store::Directory;
use updater::{Action, Engine, EngineError, Outcome, Wish, hash};

/// Plug-ins until one must write nothing.
const MAX_STARTS: usize = 5;

/// An engine on zones that lose power.
type CutEngine<'e, 'z> = Engine<'e, CutZone<'z, DirZone>, Cut<FileZone>, FileZone>;

fn is_full() -> bool {
    std::env::var_os("HOLDFAST_FULL").is_some()
}

/// A device with release 1.0.0 and a file of the user's, and release 2.0.0 in the store.
struct Stage {
    world: World,
    saved: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let world = World::new();
        let one = world.updater_program("u1", &noise(11, 30_000));
        world.publish_with("1.0.0", &first(), |request| request.updaters.push((PLATFORM.into(), one)));
        let stage = Self { world, saved: temporary() };
        stage.attempt(&Power::endless(), true).unwrap();
        write(&stage.world.free().join("mine/letter.txt"), b"mine");
        write(&stage.world.client().join("notes.txt"), b"mine too");
        let two = stage.world.updater_program("u2", &noise(12, 40_000));
        stage.world.publish_with("2.0.0", &second(), |request| request.updaters.push((PLATFORM.into(), two)));
        stage.save(&stage.saved);
        stage
    }

    fn save(&self, to: &tempfile::TempDir) {
        copy_tree(&self.world.free(), &to.path().join("free"));
        fs::copy(self.world.path("hidden.img"), to.path().join("hidden.img")).unwrap();
    }

    fn restore(&self, from: &tempfile::TempDir) {
        copy_tree(&from.path().join("free"), &self.world.free());
        fs::copy(from.path().join("hidden.img"), self.world.path("hidden.img")).unwrap();
    }

    /// A plug-in under `power`; with or without a store in reach.
    fn attempt(&self, power: &Power, online: bool) -> Result<Outcome, EngineError> {
        self.work(power, online, |engine| engine.run(&mut TestLauncher::default()))
    }

    /// As [`Self::attempt`], for what a person asks for.
    fn work(
        &self,
        power: &Power,
        online: bool,
        work: impl FnOnce(&mut CutEngine<'_, '_>) -> Result<Outcome, EngineError>,
    ) -> Result<Outcome, EngineError> {
        let free = DirZone::open(&self.world.free()).unwrap();
        let free = CutZone(&free, power.clone());
        let hidden = FileZone::open(&self.world.path("hidden.img"), Access::ReadWrite).unwrap();
        let mut setup = self.world.setup(&[]);
        setup.limits.rounds = 1;
        if online {
            setup.transports.push(Box::new(Directory::new(self.world.store())));
        }
        let hash = hash::sequential::<CutZone<'_, DirZone>>;
        setup.run_zones(&free, Some(Cut(hidden, power.clone())), hash, work)
    }

    /// What must be true after every cut.
    fn assert_never_a_mixture(&self, at: &str) {
        let zone = DirZone::open(&self.world.free()).unwrap();
        if !Journal::read(&zone).unwrap().state().is_open() {
            self.assert_one_whole_release(at);
        }
        self.assert_users_files(at);
    }

    fn assert_one_whole_release(&self, at: &str) -> bool {
        let found = self.whole_release();
        found.unwrap_or_else(|| panic!("a mixture after a cut at {at}: {:?}", self.world.client_files().keys()))
    }

    /// Whether the client is the new release; `None`: it is no whole one.
    fn whole_release(&self) -> Option<bool> {
        let mut found = self.world.client_files();
        found.remove("notes.txt");
        let releases = [(false, first()), (true, second())];
        releases.into_iter().find(|(_, files)| found == expected(files)).map(|(new, _)| new)
    }

    fn assert_users_files(&self, at: &str) {
        assert_eq!(fs::read(self.world.free().join("mine/letter.txt")).unwrap(), b"mine", "{at}");
        assert_eq!(fs::read(self.world.client().join("notes.txt")).unwrap(), b"mine too", "{at}");
    }

    /// After at most five more plug-ins one writes nothing, not even a time.
    fn assert_comes_to_rest(&self, at: &str, online: bool) {
        let mut before = self.world.fingerprint();
        for _ in 0..MAX_STARTS {
            let outcome = self.attempt(&Power::endless(), online).unwrap_or_else(|error| panic!("after {at}: {error}"));
            assert!(outcome.whole, "{at}");
            let after = self.world.fingerprint();
            if after == before {
                return;
            }
            before = after;
        }
        panic!("{at}: it still writes after {MAX_STARTS} plug-ins");
    }

    fn assert_ends_well(&self, at: &str) {
        let outcome = self.attempt(&Power::endless(), true).unwrap_or_else(|error| panic!("after {at}: {error}"));
        assert!(outcome.whole, "{at}");
        assert!(self.assert_one_whole_release(at), "{at}: still the old release");
        self.assert_users_files(at);
        let status = self.world.engine(&[], |engine| engine.status().unwrap());
        assert_eq!(status.version.as_deref(), Some("2.0.0"), "{at}");
        let mirrored = status.records.iter().any(|record| record.place == "record mirror");
        assert!(mirrored && status.records.len() >= 2, "{at}: {:?}", status.records);
        let updater = status.updaters.iter().find(|updater| !updater.file.ends_with(".new")).unwrap();
        assert_eq!(updater.version.as_deref(), Some("0.1.1"), "{at}: {:?}", status.updaters);
        self.assert_comes_to_rest(at, true);
    }
}

fn changes_of(stage: &Stage) -> u64 {
    stage.restore(&stage.saved);
    let power = Power::endless();
    let outcome = stage.attempt(&power, true).unwrap();
    assert_eq!(outcome.action, Action::Updated);
    power.used()
}

#[test]
fn a_cut_at_any_change_of_an_update_leaves_one_whole_release_after_the_next_start() {
    let stage = Stage::new();
    let total = changes_of(&stage);
    assert!(total > 100, "{total}");
    for changes in 1..total {
        let at = format!("change {changes} of {total}");
        stage.restore(&stage.saved);
        let power = Power::for_changes(changes);
        let _ = stage.attempt(&power, true);
        assert!(power.is_out(), "{at} was never made");
        stage.assert_never_a_mixture(&at);
        // The next start has no network: what is on the device suffices for a whole release.
        let outcome = stage.attempt(&Power::endless(), false).unwrap_or_else(|error| panic!("after {at}: {error}"));
        assert!(outcome.whole, "{at}");
        stage.assert_one_whole_release(&at);
        stage.assert_users_files(&at);
        stage.assert_ends_well(&at);
    }
}

/// The start goes on after the fault; whatever it makes of it, it and the next one leave no mixture.
#[test]
fn a_change_that_fails_once_in_an_update_leaves_one_whole_release() {
    let stage = Stage::new();
    let total = changes_of(&stage);
    for changes in 1..total {
        let at = format!("a failed change {changes} of {total}");
        stage.restore(&stage.saved);
        let _ = stage.attempt(&Power::failing_at(changes), true);
        stage.assert_never_a_mixture(&at);
        stage.assert_ends_well(&at);
    }
}

#[test]
fn a_second_cut_in_the_recovery_changes_nothing_about_that() {
    let stage = Stage::new();
    let total = changes_of(&stage);
    let torn = temporary();
    // A sample, unless all are asked for.
    let steps = if is_full() { (1, 1) } else { (11, 5) };
    let mut tried = 0;
    for changes in (1..total).step_by(steps.0) {
        stage.restore(&stage.saved);
        let _ = stage.attempt(&Power::for_changes(changes), true);
        stage.save(&torn);
        let power = Power::endless();
        let _ = stage.attempt(&power, false);
        let recovery = power.used();
        for second in (1..=recovery).step_by(steps.1) {
            tried += 1;
            let at = format!("change {changes} of {total}, then change {second} of {recovery} of the recovery");
            stage.restore(&torn);
            let _ = stage.attempt(&Power::for_changes(second), false);
            stage.assert_never_a_mixture(&at);
            let outcome = stage.attempt(&Power::endless(), false).unwrap_or_else(|error| panic!("after {at}: {error}"));
            assert!(outcome.whole, "{at}");
            stage.assert_one_whole_release(&at);
            stage.assert_comes_to_rest(&at, false);
        }
        stage.assert_ends_well(&format!("change {changes} of {total}"));
    }
    figures::count(figures::CUT_STATES, "update in a mounted directory, cut twice", tried, 0);
}

/// Something that a device does to itself.
struct Operation<'s> {
    name: &'static str,
    stage: &'s Stage,
    /// What is done.
    act: &'s dyn Fn(&Power) -> Result<Outcome, EngineError>,
    /// Whether what recovers from a cut needs the store.
    online: bool,
    /// Of the changes, and of those of the recovery, every how many-th is cut where two are.
    steps: (usize, usize),
}

impl Operation<'_> {
    /// Cuts it at each of its changes, and the recovery from some of these at some of its own.
    fn sweep(&self) {
        let Self { name, stage, act, online, steps } = *self;
        let before = temporary();
        stage.save(&before);
        let was_whole = stage.whole_release().is_some();
        let power = Power::endless();
        act(&power).unwrap();
        let total = power.used();
        assert!(total > 10, "{name}: {total} changes");
        let steps = if is_full() { (1, 1) } else { steps };
        let torn = temporary();
        let mut tried = 0;
        for changes in 1..=total {
            let at = format!("{name}, change {changes} of {total}");
            stage.restore(&before);
            let power = Power::for_changes(changes);
            let _ = act(&power);
            assert!(power.is_out(), "{at} was never made");
            if was_whole {
                stage.assert_never_a_mixture(&at);
            }
            stage.save(&torn);
            tried += 1;
            self.assert_heals(&at);
            if !(changes as usize).is_multiple_of(steps.0) {
                continue;
            }
            stage.restore(&torn);
            let power = Power::endless();
            stage.attempt(&power, online).unwrap_or_else(|error| panic!("after {at}: {error}"));
            let recovery = power.used();
            for second in (1..=recovery).step_by(steps.1) {
                let at = format!("{at}, then change {second} of {recovery} of the recovery");
                stage.restore(&torn);
                let _ = stage.attempt(&Power::for_changes(second), online);
                tried += 1;
                self.assert_heals(&at);
            }
        }
        figures::count(figures::CUT_STATES, &format!("{name} in a mounted directory"), tried, 0);
    }

    fn assert_heals(&self, at: &str) {
        let Self { stage, online, .. } = *self;
        stage.assert_users_files(at);
        let outcome = stage.attempt(&Power::endless(), online).unwrap_or_else(|error| panic!("after {at}: {error}"));
        assert!(outcome.whole, "{at}");
        stage.assert_one_whole_release(at);
        stage.assert_users_files(at);
        stage.assert_comes_to_rest(at, online);
    }
}

#[test]
fn a_cut_at_any_change_of_a_rollback_and_of_its_recovery_leaves_one_whole_release() {
    let stage = Stage::new();
    changes_of(&stage);
    let rollback = |power: &Power| stage.work(power, false, |engine| engine.update(&Wish::Previous));
    Operation { name: "rollback", stage: &stage, act: &rollback, online: false, steps: (23, 11) }.sweep();
}

#[test]
fn a_cut_at_any_change_of_a_repair_and_of_its_recovery_leaves_the_whole_release() {
    let stage = Stage::new();
    changes_of(&stage);
    stage.assert_comes_to_rest("before", true);
    fs::write(stage.world.client().join("app/big.bin"), noise(5, 600_000)).unwrap();
    fs::remove_file(stage.world.client().join("same.bin")).unwrap();
    let repair = |power: &Power| {
        let outcome = stage.attempt(power, true)?;
        assert_eq!(outcome.action, Action::Repaired);
        Ok(outcome)
    };
    Operation { name: "repair", stage: &stage, act: &repair, online: true, steps: (17, 7) }.sweep();
    assert!(stage.assert_one_whole_release("repaired"));
}

#[test]
fn a_cut_at_any_change_of_the_undo_of_a_release_that_fails_and_of_its_recovery_leaves_one_whole_release() {
    let stage = Stage::new();
    changes_of(&stage);
    stage.assert_comes_to_rest("before", true);
    let trial = Some(Trial { serial: 2, failed_starts: 3, proven: false });
    LauncherNote { trial, ..LauncherNote::default() }.write(&DirZone::open(&stage.world.free()).unwrap()).unwrap();
    let undo = |power: &Power| {
        let outcome = stage.attempt(power, false)?;
        assert_eq!(outcome.version.as_deref(), Some("1.0.0"));
        Ok(outcome)
    };
    Operation { name: "undo of a release that fails", stage: &stage, act: &undo, online: false, steps: (37, 23) }
        .sweep();
    assert!(!stage.assert_one_whole_release("undone"));
}

/// The new updater runs for the first time, and is put where the old one stood.
#[test]
fn a_cut_at_any_change_of_the_renewal_of_the_backups_and_of_its_recovery_keeps_an_updater() {
    let stage = Stage::new();
    changes_of(&stage);
    let held = || {
        let status = stage.world.engine(&[], |engine| engine.status().unwrap());
        status.backups.iter().filter(|backup| backup.updaters.iter().any(|held| held.ends_with("0.1.1"))).count()
    };
    let before = held();
    *stage.world.host.own_version.lock().unwrap() = UpdaterVersion::parse("0.1.1");
    let renew = |power: &Power| stage.attempt(power, false);
    Operation { name: "renewal of the backups", stage: &stage, act: &renew, online: false, steps: (9, 7) }.sweep();
    assert!(before < held() && held() == 3, "{before}, {}", held());
}
