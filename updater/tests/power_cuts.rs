//! Power is cut at every change that an operation makes, and once more at every change of the recovery. What is left comes to
//! rest: after a few plug-ins one writes nothing.

mod common;

use std::fs;

use common::*;
use firmware_image::host::{Access, DirZone, FileZone};
use firmware_image::journal::Journal;
use firmware_image::sim::{Cut, CutZone, Power, figures};
use release_store::Directory;
use updater::{Action, EngineError, Outcome, Wish, hash};

/// Plug-ins until one must write nothing.
const MAX_STARTS: usize = 5;

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
        let free = DirZone::open(&self.world.free()).unwrap();
        let free = CutZone(&free, power.clone());
        let hidden = FileZone::open(&self.world.path("hidden.img"), Access::ReadWrite).unwrap();
        let mut setup = self.world.setup(&[]);
        setup.limits.rounds = 1;
        if online {
            setup.transports.push(Box::new(Directory::new(self.world.store())));
        }
        let hash = hash::sequential::<CutZone<'_, DirZone>>;
        setup
            .run_zones(&free, Some(Cut(hidden, power.clone())), hash, |engine| engine.run(&mut TestLauncher::default()))
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
        let mut found = self.world.client_files();
        found.remove("notes.txt");
        let (old, new) = (expected(&first()), expected(&second()));
        assert!(found == old || found == new, "a mixture after a cut at {at}: {:?}", found.keys());
        found == new
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
    let steps = if std::env::var_os("HOLDFAST_FULL").is_some() { (1, 1) } else { (11, 5) };
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

#[test]
fn a_cut_at_any_change_of_a_rollback_leaves_one_whole_release() {
    let stage = Stage::new();
    changes_of(&stage);
    let updated = temporary();
    stage.save(&updated);
    let rollback = |power: &Power| {
        let free = DirZone::open(&stage.world.free()).unwrap();
        let free = CutZone(&free, power.clone());
        let hidden = FileZone::open(&stage.world.path("hidden.img"), Access::ReadWrite).unwrap();
        let hash = hash::sequential::<CutZone<'_, DirZone>>;
        let mut setup = stage.world.setup(&[]);
        setup.limits.rounds = 1;
        setup.run_zones(&free, Some(Cut(hidden, power.clone())), hash, |engine| engine.update(&Wish::Previous))
    };
    let power = Power::endless();
    rollback(&power).unwrap();
    let total = power.used();
    assert!(!stage.assert_one_whole_release("no cut"));
    for changes in 1..total {
        let at = format!("change {changes} of {total}");
        stage.restore(&updated);
        let _ = rollback(&Power::for_changes(changes));
        stage.assert_never_a_mixture(&at);
        stage.attempt(&Power::endless(), false).unwrap_or_else(|error| panic!("after {at}: {error}"));
        stage.assert_one_whole_release(&at);
        stage.assert_users_files(&at);
        stage.assert_comes_to_rest(&at, false);
    }
}
