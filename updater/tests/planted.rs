//! What somebody puts into the free zone, or puts back into it from another time: it decides nothing.

mod common;

use std::fs;

use common::*;
use firmware_image::host::{Access, DirZone, FileZone};
use firmware_image::journal::{Journal, State};
use firmware_image::launcher_note::{LauncherNote, Trial};
use firmware_image::sim::{Cut, CutZone, Power};
use firmware_image::{Digest, paths};
use release_store::Directory;
use updater::commit::COMMIT_PLAN;
use updater::{Action, EngineError, Outcome, Wish, hash, zone_io};

/// A server's address that nobody answers at.
const NOBODY: &str = "http://127.0.0.1:9";

/// A device with release 1.0.0, and 2.0.0 in the store.
fn behind() -> World {
    let world = World::new();
    let program = world.updater_program("u", &noise(11, 30_000));
    world.publish_with("1.0.0", &first(), |request| request.updaters.push((PLATFORM.into(), program)));
    attempt(&world, &Power::endless()).unwrap();
    world.publish("2.0.0", &second());
    world
}

/// A plug-in with the store in reach, under `power`.
fn attempt(world: &World, power: &Power) -> Result<Outcome, EngineError> {
    let free = DirZone::open(&world.free()).unwrap();
    let free = CutZone(&free, power.clone());
    let hidden = FileZone::open(&world.path("hidden.img"), Access::ReadWrite).unwrap();
    let mut setup = world.setup(&[]);
    setup.limits.rounds = 1;
    setup.transports.push(Box::new(Directory::new(world.store())));
    let hash = hash::sequential::<CutZone<'_, DirZone>>;
    setup.run_zones(&free, Some(Cut(hidden, power.clone())), hash, |engine| engine.run(&mut TestLauncher::default()))
}

fn run_alone(world: &World) -> (Result<Outcome, EngineError>, bool) {
    world.engine(&[NOBODY], |engine| (engine.run(&mut TestLauncher::default()), engine.is_whole()))
}

fn installed(world: &World) -> Option<String> {
    world.engine(&[], |engine| engine.status().unwrap().version)
}

/// Whether the client has these files; what else is there nobody can tell from a user's.
fn has(world: &World, files: &[(&str, Vec<u8>)]) -> bool {
    let found = world.client_files();
    expected(files).iter().all(|(path, bytes)| found.get(path) == Some(bytes))
}

fn is_open(world: &World) -> bool {
    Journal::read(&DirZone::open(&world.free()).unwrap()).unwrap().state().is_open()
}

/// Its free zone in the middle of the commit to 2.0.0, when some of the files are replaced.
fn free_amid_the_commit(world: &World) -> tempfile::TempDir {
    let before = temporary();
    copy_tree(&world.free(), &before.path().join("free"));
    fs::copy(world.path("hidden.img"), before.path().join("hidden.img")).unwrap();
    for changes in 1.. {
        let _ = attempt(world, &Power::for_changes(changes));
        if is_open(world) && world.client_files() != expected(&first()) {
            break;
        }
        copy_tree(&before.path().join("free"), &world.free());
        fs::copy(before.path().join("hidden.img"), world.path("hidden.img")).unwrap();
    }
    let amid = temporary();
    copy_tree(&world.free(), amid.path());
    amid
}

#[test]
fn a_commit_that_is_put_back_from_another_time_decides_nothing() {
    let world = behind();
    let amid = free_amid_the_commit(&world);
    attempt(&world, &Power::endless()).unwrap();
    let mut third = second();
    third.push(("third.txt", b"three".to_vec()));
    world.publish("3.0.0", &third);
    assert_eq!(attempt(&world, &Power::endless()).unwrap().version.as_deref(), Some("3.0.0"));
    copy_tree(amid.path(), &world.free());
    assert!(is_open(&world));
    let (_, whole) = run_alone(&world);
    assert!(!whole, "a mixture is no client");
    assert_eq!(installed(&world).as_deref(), Some("3.0.0"));
    let outcome = attempt(&world, &Power::endless()).unwrap();
    assert!(outcome.whole);
    assert!(has(&world, &third));
    assert_eq!(installed(&world).as_deref(), Some("3.0.0"));
}

#[test]
fn a_plan_that_this_device_did_not_make_installs_nothing() {
    for changed in [false, true] {
        let world = behind();
        let amid = free_amid_the_commit(&world);
        copy_tree(amid.path(), &world.free());
        // Whoever writes the free zone can write a plan and a journal, too; the device's key is not there.
        let mut plan = fs::read(amid.path().join(COMMIT_PLAN)).unwrap();
        *plan.last_mut().unwrap() ^= u8::from(changed);
        write(&world.free().join(COMMIT_PLAN), &plan);
        let zone = DirZone::open(&world.free()).unwrap();
        let open = State::Committing { plan: Digest::of(&plan), serial: 2 };
        Journal::read(&zone).unwrap().advance(&zone, open).unwrap();
        // What else is on the device may give a whole release, which the record then names.
        let (result, whole) = run_alone(&world);
        assert!(result.is_ok_and(|outcome| outcome.alarms.iter().any(|alarm| alarm.contains("has lost its plan"))));
        let files = if installed(&world).as_deref() == Some("1.0.0") { first() } else { second() };
        assert_eq!(whole, has(&world, &files));
        assert!(attempt(&world, &Power::endless()).unwrap().whole);
        assert!(has(&world, &second()));
    }
}

#[test]
fn a_torn_second_record_never_replaces_a_sound_mirror() {
    let world = behind();
    let run = || {
        let mut setup = world.setup(&[NOBODY]);
        setup.hidden = false;
        setup.run(|engine| engine.run(&mut TestLauncher::default()).unwrap())
    };
    run();
    let mirror = fs::read(world.free().join(paths::RECORD_MIRROR)).unwrap();
    for torn in [&[][..], &mirror[..mirror.len() / 2], &noise(3, mirror.len())] {
        write(&world.free().join(paths::RECORD_MIRROR_NEW), torn);
        let outcome = run();
        assert_eq!((outcome.version.as_deref(), outcome.whole), (Some("1.0.0"), true));
        assert_eq!(fs::read(world.free().join(paths::RECORD_MIRROR)).unwrap(), mirror);
        assert!(!world.free().join(paths::RECORD_MIRROR_NEW).exists());
    }
    // The mirror torn, and the second name whole: the way that a cut leaves it.
    write(&world.free().join(paths::RECORD_MIRROR_NEW), &mirror);
    write(&world.free().join(paths::RECORD_MIRROR), &mirror[..100]);
    assert_eq!(run().version.as_deref(), Some("1.0.0"));
    assert_eq!(fs::read(world.free().join(paths::RECORD_MIRROR)).unwrap(), mirror);
}

#[test]
fn a_file_that_no_system_of_ours_can_name_stops_nothing() {
    let world = behind();
    attempt(&world, &Power::endless()).unwrap();
    for name in ["log 12:30.txt", "back\\slash", "bell\u{7}"] {
        fs::write(world.client().join(name), "mine").unwrap();
    }
    fs::write(world.client().join("same.bin"), "damage").unwrap();
    assert_eq!(attempt(&world, &Power::endless()).unwrap().action, Action::Repaired);
    let mut found = world.client_files();
    found.retain(|name, _| expected(&second()).contains_key(name));
    assert_eq!(found, expected(&second()));
    assert_eq!(fs::read(world.client().join("log 12:30.txt")).unwrap(), b"mine");
}

#[test]
fn long_names_in_a_planted_tree_are_not_taken_in() {
    let world = behind();
    attempt(&world, &Power::endless()).unwrap();
    let mut deep = world.client();
    for _ in 0..8 {
        deep.push("n".repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    for file in 0..100 {
        fs::write(deep.join(file.to_string()), "").unwrap();
    }
    let zone = DirZone::open(&world.free()).unwrap();
    let walked = zone_io::walk(&zone, paths::CLIENT_DIR).unwrap();
    assert!(walked.entries.iter().all(|entry| entry.path.len() <= zone_io::MAX_PATH_BYTES + 256));
    assert_eq!(walked.skipped.len(), 1);
    fs::write(world.client().join("same.bin"), "damage").unwrap();
    assert_eq!(attempt(&world, &Power::endless()).unwrap().action, Action::Repaired);
}

#[test]
fn a_file_that_the_client_makes_while_an_update_comes_is_the_users() {
    let world = behind();
    let mut files = second();
    files.extend([("settings.ini", b"default".to_vec()), ("film.bin", noise(77, 3_000_000))]);
    world.publish_with("2.1.0", &files, |request| request.ignore.push("settings.ini".into()));
    let server = world.serve();
    let mut launcher = TestLauncher { can_go: true, ..TestLauncher::default() };
    let settings = world.client().join("settings.ini");
    let path = settings.clone();
    launcher.on_wait = Some(Box::new(move || fs::write(path, "mine").unwrap()));
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut launcher).unwrap());
    assert_eq!((outcome.action, &launcher.said[..]), (Action::Updated, "RGW"));
    assert_eq!(fs::read(settings).unwrap(), b"mine");
}

#[test]
fn a_release_that_a_person_chooses_again_gets_another_trial() {
    let world = behind();
    attempt(&world, &Power::endless()).unwrap();
    let zone = DirZone::open(&world.free()).unwrap();
    let trial = Some(Trial { serial: 2, failed_starts: 3, proven: false });
    LauncherNote { trial, ..LauncherNote::default() }.write(&zone).unwrap();
    assert_eq!(attempt(&world, &Power::endless()).unwrap().version.as_deref(), Some("1.0.0"));
    let server = world.serve();
    let wish = Wish::Version("2.0.0".into());
    world.engine(&[&server.url()], |engine| engine.update(&wish)).unwrap();
    assert_eq!(attempt(&world, &Power::endless()).unwrap().version.as_deref(), Some("2.0.0"));
}
