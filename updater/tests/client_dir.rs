//! What may stand in `client/`, what is the user's own, and when its files may be replaced.

mod common;

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::*;
use firmware_image::Digest;
use firmware_image::host::{Access, DirZone, FileZone};
use firmware_image::launcher_note::{LauncherNote, Trial};
use firmware_image::sim::{FullZone, Room};
use updater::{Action, FailureKind, Outcome, Wish, hash};

fn installed() -> (World, release_store::serve::Server) {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    (world, server)
}

#[test]
fn unlisted_programs_are_set_aside_and_other_files_are_left_alone() {
    let (world, server) = installed();
    write(&world.client().join("evil.exe"), b"not even an exe");
    write(&world.client().join("app/dropper"), b"\x7fELF and so on");
    write(&world.client().join("script"), b"#!/bin/sh\nrm -rf /\n");
    write(&world.client().join("photo.jpg"), b"a photo");
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!(outcome.alarms.len(), 3, "{:?}", outcome.alarms);
    let mut files = first();
    files.push(("photo.jpg", b"a photo".to_vec()));
    world.assert_client(&files);
    let set_aside = read_tree(&world.free().join(".holdfast/quarantine"));
    assert_eq!(set_aside.len(), 3);
    assert!(set_aside.values().any(|bytes| bytes == b"not even an exe"));
    assert!(set_aside.keys().all(|name| name.ends_with(".quarantined")));
}

#[test]
fn ignored_files_are_seeded_once_and_never_touched_again() {
    let world = World::new();
    let mut files = first();
    files.push(("settings.ini", b"factory settings".to_vec()));
    world.publish_with("1.0.0", &files, |request| request.ignore = vec!["settings.ini".into(), "plugins/**".into()]);
    let server = world.serve();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    assert_eq!(fs::read(world.client().join("settings.ini")).unwrap(), b"factory settings");
    write(&world.client().join("settings.ini"), b"my settings");
    write(&world.client().join("plugins/mine.exe"), b"MZ");
    assert_eq!(run().action, Action::None);
    let mut files = second();
    files.push(("settings.ini", b"new factory settings".to_vec()));
    world.publish_with("2.0.0", &files, |request| request.ignore = vec!["settings.ini".into(), "plugins/**".into()]);
    assert_eq!(run().action, Action::Updated);
    assert_eq!(fs::read(world.client().join("settings.ini")).unwrap(), b"my settings");
    assert_eq!(fs::read(world.client().join("plugins/mine.exe")).unwrap(), b"MZ");
    fs::remove_file(world.client().join("settings.ini")).unwrap();
    run();
    assert_eq!(fs::read(world.client().join("settings.ini")).unwrap(), b"new factory settings");
}

#[test]
fn what_stands_where_a_file_belongs_is_set_aside() {
    let world = World::new();
    world.publish("1.0.0", &first());
    write(&world.client().join("readme.txt/inside.txt"), b"a directory in the way");
    write(&world.client().join("app"), b"a file in the way");
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    world.assert_client(&first());
    let set_aside = read_tree(&world.free().join(".holdfast/quarantine"));
    assert!(set_aside.values().any(|bytes| bytes == b"a directory in the way"));
    assert!(set_aside.values().any(|bytes| bytes == b"a file in the way"));
}

#[cfg(unix)]
#[test]
fn a_link_in_the_client_directory_leads_nowhere() {
    let (world, server) = installed();
    let outside = world.path("outside.txt");
    fs::write(&outside, "not yours").unwrap();
    fs::remove_file(world.client().join("readme.txt")).unwrap();
    std::os::unix::fs::symlink(&outside, world.client().join("readme.txt")).unwrap();
    fs::remove_dir_all(world.client().join("app")).unwrap();
    fs::create_dir(world.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), world.client().join("app")).unwrap();
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    world.assert_client(&first());
    assert_eq!(fs::read_to_string(&outside).unwrap(), "not yours");
    assert_eq!(fs::read_dir(world.path("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_running_client_is_not_overwritten() {
    let (world, server) = installed();
    world.publish("2.0.0", &second());
    world.host.client_runs.store(true, Ordering::SeqCst);
    let error = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap_err());
    assert_eq!(error.kind(), FailureKind::Busy);
    world.assert_client(&first());
    world.host.client_runs.store(false, Ordering::SeqCst);
    server.counters().reset();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    world.assert_client(&second());
    // All that was fetched before is still there.
    assert!(server.counters().bytes() < 20_000, "{}", server.counters().bytes());
}

#[test]
fn a_long_download_goes_on_behind_the_client_and_waits_for_its_end() {
    let (world, server) = installed();
    let mut files = second();
    files.push(("film.bin", noise(77, 3_000_000)));
    world.publish("2.0.0", &files);
    let client = world.client();
    let old = first();
    let mut launcher = TestLauncher { can_go: true, ..TestLauncher::default() };
    launcher.on_wait = Some(Box::new(move || {
        // While the client runs, its files are still the old ones.
        assert_eq!(read_tree(&client), expected(&old));
    }));
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut launcher).unwrap());
    assert_eq!(launcher.said, "RGW");
    assert_eq!(outcome.action, Action::Updated);
    world.assert_client(&files);
}

#[test]
fn a_damaged_client_is_mended_before_it_may_start() {
    let (world, server) = installed();
    let mut files = second();
    files.push(("film.bin", noise(77, 3_000_000)));
    world.publish("2.0.0", &files);
    fs::write(world.client().join("same.bin"), "x").unwrap();
    let mut launcher = TestLauncher { can_go: true, ..TestLauncher::default() };
    let (client, new) = (world.client(), files.clone());
    launcher.on_go = Some(Box::new(move || assert_eq!(read_tree(&client), expected(&new))));
    world.engine(&[&server.url()], |engine| engine.run(&mut launcher).unwrap());
    assert_eq!(launcher.said, "RG");
    world.assert_client(&files);
}

#[test]
fn a_release_that_fails_three_starts_is_undone_and_skipped() {
    let (world, server) = installed();
    world.publish("2.0.0", &second());
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    world.assert_client(&second());
    let zone = DirZone::open(&world.free()).unwrap();
    let trial = |failed_starts, proven| Some(Trial { serial: 2, failed_starts, proven });
    LauncherNote { trial: trial(2, false), ..LauncherNote::default() }.write(&zone).unwrap();
    assert_eq!(run().action, Action::None);
    LauncherNote { trial: trial(3, false), ..LauncherNote::default() }.write(&zone).unwrap();
    let outcome = run();
    assert_eq!(outcome.version.as_deref(), Some("1.0.0"));
    world.assert_client(&first());
    assert_eq!(run().action, Action::None);
    world.assert_client(&first());
    // What it went back to is watched over like any other, and no server is needed to know what it is.
    let program = world.client().join("run.sh");
    let good = fs::read(&program).unwrap();
    fs::write(&program, b"damage").unwrap();
    assert!(!world.engine(&[], |engine| engine.verify().unwrap().whole));
    assert_eq!(run().action, Action::Repaired);
    assert_eq!(fs::read(&program).unwrap(), good);
    fs::write(&program, b"damage").unwrap();
    // Asked for by hand, too: the newest that stands and did not fail here is the old one.
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert_eq!(outcome.version.as_deref(), Some("1.0.0"));
    world.assert_client(&first());
    // The next release is taken again.
    world.publish("3.0.0", &second());
    assert_eq!(run().version.as_deref(), Some("3.0.0"));
}

#[test]
fn what_goes_is_kept_as_it_stands_also_where_it_is_not_what_it_seems() {
    let world = World::new();
    let mut files = first();
    files.extend([("gone/one.txt", b"the same twice\n".to_vec()), ("gone/two.txt", b"the same twice\n".to_vec())]);
    world.publish("1.0.0", &files);
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    world.publish("2.0.0", &second());
    // As long as before: only its bytes tell.
    fs::write(world.client().join("gone/one.txt"), b"somebody's own\n").unwrap();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    world.assert_client(&second());
    let kept = read_tree(&world.free().join(".holdfast/undo"));
    for (path, bytes) in &first() {
        let replaced = second().iter().all(|(other, same)| (other, same) != (path, bytes));
        assert_eq!(kept.values().any(|kept| kept == bytes), replaced, "{path}");
    }
    for bytes in [&b"somebody's own\n"[..], b"the same twice\n"] {
        assert!(kept.values().any(|kept| kept == bytes), "{kept:?}");
    }
    assert!(kept.iter().all(|(name, bytes)| *name == Digest::of(bytes).to_string()));
}

#[test]
fn what_a_person_chose_is_held_no_more_when_it_was_undone() {
    let (world, server) = installed();
    world.publish("2.0.0", &second());
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Version("2.0.0".into())).unwrap());
    let zone = DirZone::open(&world.free()).unwrap();
    let trial = Some(Trial { serial: 2, failed_starts: 3, proven: false });
    LauncherNote { trial, ..LauncherNote::default() }.write(&zone).unwrap();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!(run().version.as_deref(), Some("1.0.0"));
    world.publish("3.0.0", &second());
    assert_eq!(run().version.as_deref(), Some("3.0.0"));
}

#[test]
fn a_rollback_never_goes_to_a_release_that_failed_here() {
    let (world, server) = installed();
    let zone = DirZone::open(&world.free()).unwrap();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    let fail = |serial| {
        let trial = Some(Trial { serial, failed_starts: 3, proven: false });
        LauncherNote { trial, ..LauncherNote::default() }.write(&zone).unwrap();
    };
    world.publish("2.0.0", &second());
    run();
    fail(2);
    assert_eq!(run().version.as_deref(), Some("1.0.0"));
    world.publish("3.0.0", &second());
    run();
    world.publish("4.0.0", &first());
    run();
    fail(4);
    assert_eq!(run().version.as_deref(), Some("3.0.0"));
    // What failed is nothing to go back to, so the record names nothing; among the releases, 2.0.0 is the one before.
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Previous).unwrap());
    assert_eq!(outcome.version.as_deref(), Some("1.0.0"));
}

/// Where a program in the client's directory is set aside to.
fn place_of(name: &str, bytes: &[u8]) -> String {
    format!(".holdfast/quarantine/{}-{name}.quarantined", &Digest::of(bytes).to_hex()[..16])
}

/// A plug-in of a device with so much room.
fn run_in(world: &World, room: &Rc<Room>) -> Outcome {
    let free = DirZone::open(&world.free()).unwrap();
    let hidden = FileZone::open(&world.path("hidden.img"), Access::ReadWrite).unwrap();
    let mut setup = world.setup(&[]);
    setup.transports.push(Box::new(release_store::Directory::new(world.store())));
    let free = FullZone(&free, room.clone());
    setup.run_zones(&free, Some(hidden), hash::sequential::<FullZone<'_, DirZone>>, |engine| {
        engine.run(&mut TestLauncher::default()).unwrap()
    })
}

#[test]
fn a_program_that_cannot_be_set_aside_keeps_nobody_from_an_update() {
    let (world, _server) = installed();
    write(&world.client().join("evil.exe"), b"not even an exe");
    let room = Room::without_a_place_for(place_of("evil.exe", b"not even an exe").leak());
    let outcome = run_in(&world, &room);
    assert!(outcome.alarms.iter().any(|alarm| alarm.contains("could not be set aside")), "{:?}", outcome.alarms);
    assert!(world.client().join("evil.exe").exists());
    world.publish("2.0.0", &second());
    assert_eq!(run_in(&world, &room).action, Action::Updated);
}

#[test]
fn a_file_of_the_client_that_nobody_may_read_is_written_anew() {
    let (world, _server) = installed();
    let room = Room::endless();
    let name = first()[0].0;
    let forbidden: &str = format!("client/{name}").leak();
    write(&world.free().join(forbidden), b"infected");
    room.forbid(forbidden);
    let outcome = run_in(&world, &room);
    assert_eq!((outcome.action, outcome.whole), (Action::Repaired, true));
    world.assert_client(&first());
    // By an update, too, which keeps what it replaces, where that may be read.
    write(&world.free().join(forbidden), b"infected");
    room.forbid(forbidden);
    let mut files = second();
    files.retain(|(path, _)| *path != name);
    files.push((name, b"newer".to_vec()));
    world.publish("2.0.0", &files);
    let outcome = run_in(&world, &room);
    assert_eq!((outcome.action, outcome.whole), (Action::Updated, true));
    world.assert_client(&files);
}

#[test]
fn neither_what_stands_in_the_way_nor_a_full_device_keeps_a_program_from_being_set_aside() {
    let (world, _server) = installed();
    let place = world.free().join(place_of("evil.dll", b"a library"));
    for room in [Room::endless(), Room::for_changes(0, false)] {
        write(&world.client().join("evil.dll"), b"a library");
        // Its place can be told beforehand.
        if room.used() == 0 {
            fs::create_dir_all(place.join("in the way")).unwrap();
        }
        let outcome = run_in(&world, &room);
        assert!(outcome.alarms.iter().any(|alarm| alarm.ends_with("it was set aside")), "{:?}", outcome.alarms);
        assert!(!world.client().join("evil.dll").exists());
        let kept = read_tree(&world.free().join(".holdfast/quarantine"));
        assert_eq!(kept.values().filter(|bytes| *bytes == b"a library").count(), 1, "{:?}", kept.keys());
        for name in kept.keys() {
            fs::remove_file(world.free().join(".holdfast/quarantine").join(name)).unwrap();
        }
    }
    // A link leads wherever it likes; a person's own that is called like no program is left alone.
    write(&world.free().join("mine.txt"), b"mine");
    for name in ["version.dll", "letter.txt"] {
        std::os::unix::fs::symlink(world.free().join("mine.txt"), world.client().join(name)).unwrap();
    }
    run_in(&world, &Room::endless());
    assert!(!world.client().join("version.dll").is_symlink() && world.client().join("letter.txt").is_symlink());
    assert_eq!(fs::read(world.free().join("mine.txt")).unwrap(), b"mine");
}

#[test]
fn unlisted_programs_are_set_aside_before_the_client_may_start_beside_a_download() {
    let (world, server) = installed();
    let mut files = second();
    files.push(("film.bin", noise(5, 2_000_000)));
    world.publish("2.0.0", &files);
    let evil = world.client().join("evil.dll");
    let launcher = || {
        write(&evil, b"a library");
        let there = Rc::new(Cell::new(None));
        let look = (there.clone(), evil.clone());
        let on_go: Box<dyn FnOnce()> = Box::new(move || look.0.set(Some(look.1.exists())));
        (TestLauncher { can_go: true, on_go: Some(on_go), ..TestLauncher::default() }, there)
    };
    let (mut one, there) = launcher();
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut one).unwrap());
    assert_eq!((outcome.action, there.get()), (Action::Updated, Some(false)), "{}", one.said);
    assert_eq!(outcome.alarms.iter().filter(|alarm| alarm.contains("evil.dll")).count(), 1, "{:?}", outcome.alarms);
    // Nor beside one of which nothing is known within the check window.
    world.publish("3.0.0", &first());
    let (mut one, there) = launcher();
    let mut setup = world.setup(&[]);
    setup.limits.rounds = 5;
    setup.transports = vec![Box::new(Slow { store: release_store::Directory::new(world.store()), stalls: 3.into() })];
    let outcome = setup.run(|engine| engine.run(&mut one).unwrap());
    assert_eq!((outcome.action, there.get()), (Action::Updated, Some(false)), "{}", one.said);
}

#[test]
fn a_program_that_a_cut_left_under_two_names_loses_its_clusters_under_neither() {
    let (world, _server) = installed();
    let full = "client/evil.dll";
    let moved = format!("{}-client_evil.dll.quarantined", &Digest::of(full.as_bytes()).to_hex()[..16]);
    // As a move that was cut leaves it: one file, two entries.
    write(&world.free().join(full), b"a library");
    let quarantine = world.free().join(".holdfast/quarantine");
    fs::create_dir_all(&quarantine).unwrap();
    fs::hard_link(world.free().join(full), quarantine.join(&moved)).unwrap();
    run_in(&world, &Room::endless());
    assert!(!world.free().join(full).exists());
    // Nothing was removed: each entry still leads to it.
    let links = std::os::unix::fs::MetadataExt::nlink(&fs::metadata(quarantine.join(moved)).unwrap());
    assert_eq!((links, fs::read_dir(quarantine).unwrap().count()), (2, 2));
}

/// A server whose manifests and packs do not come within the check window.
struct Slow {
    store: release_store::Directory,
    stalls: std::sync::atomic::AtomicU32,
}

impl release_store::Transport for Slow {
    fn describe(&self) -> String {
        "a slow server".into()
    }
    fn get(
        &self,
        path: &str,
        range: Option<std::ops::Range<u64>>,
        max_bytes: u64,
        sink: &mut release_store::transport::Sink<'_>,
    ) -> Result<release_store::transport::GetOutcome, release_store::TransportError> {
        if path.contains("manifest-")
            && self.stalls.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
        {
            return Err(release_store::TransportError::Unreachable { path: path.into(), source: "time-out".into() });
        }
        self.store.get(path, range, max_bytes, sink)
    }
}

fn run_slowly(world: &World, stalls: u32) -> (String, updater::Outcome, Duration) {
    let mut launcher = TestLauncher { can_go: true, ..TestLauncher::default() };
    let mut setup = world.setup(&[]);
    setup.limits.rounds = 5;
    setup.transports =
        vec![Box::new(Slow { store: release_store::Directory::new(world.store()), stalls: stalls.into() })];
    *world.host.slept.lock().unwrap() = Duration::ZERO;
    let outcome = setup.run(|engine| engine.run(&mut launcher).unwrap());
    let slept = *world.host.slept.lock().unwrap();
    (launcher.said, outcome, slept)
}

#[test]
fn a_manifest_that_does_not_come_in_the_check_window_is_waited_for_behind_the_client() {
    let (world, _server) = installed();
    world.publish("2.0.0", &second());
    let (said, outcome, _) = run_slowly(&world, 3);
    assert_eq!((&*said, outcome.action), ("RGW", Action::Updated));
    world.assert_client(&second());
}

#[test]
fn a_release_that_is_known_is_not_asked_for_again_and_again_where_somebody_waits_for_the_end() {
    let (world, server) = installed();
    world.publish("2.0.0", &second());
    world.engine(&[&server.url()], |engine| engine.check().unwrap());
    let run = |can_go: bool| {
        let mut launcher = TestLauncher { can_go, ..TestLauncher::default() };
        let mut setup = world.setup(&["http://127.0.0.1:1/store"]);
        setup.limits.rounds = 5;
        *world.host.slept.lock().unwrap() = Duration::ZERO;
        let outcome = setup.run(|engine| engine.run(&mut launcher).unwrap());
        let slept = *world.host.slept.lock().unwrap();
        assert_eq!((outcome.action, outcome.offline, outcome.whole), (Action::None, true, true));
        (launcher.said, slept)
    };
    assert_eq!(run(false), ("R".into(), Duration::ZERO));
    let (said, slept) = run(true);
    assert_eq!(said, "RG");
    assert!(slept > Duration::ZERO);
    world.assert_client(&first());
}

#[test]
fn what_stays_damaged_is_told_each_time_and_written_down_once() {
    let (world, server) = installed();
    let damage = || fs::write(world.client().join("run.sh"), b"virus").unwrap();
    let logged = || {
        let log = fs::read_to_string(world.free().join(firmware_image::paths::LOG)).unwrap();
        log.matches("alarm run.sh is modified").count()
    };
    damage();
    let mut before = None;
    for _ in 0..3 {
        let mut launcher = TestLauncher::default();
        world.engine(&["http://127.0.0.1:1/store"], |engine| {
            assert!(engine.run(&mut launcher).is_err());
            assert!(engine.alarms().iter().any(|alarm| alarm.contains("run.sh")), "{:?}", engine.alarms());
            engine.write_log();
        });
        let now = read_tree(&world.free());
        assert!(before.is_none_or(|before| before == now));
        before = Some(now);
    }
    assert_eq!(logged(), 1);
    let repair = || {
        world.engine(&[&server.url()], |engine| {
            engine.repair().unwrap();
            engine.write_log();
        });
    };
    repair();
    damage();
    repair();
    assert_eq!(logged(), 2, "it was mended in between");
}

#[test]
fn a_damaged_client_is_mended_before_a_slow_server_is_waited_for() {
    let (world, _server) = installed();
    world.publish("2.0.0", &second());
    fs::remove_file(world.client().join("app/empty")).unwrap();
    let (said, outcome, slept) = run_slowly(&world, 3);
    // Let go after it was mended, and with nothing to wait for.
    assert_eq!((&*said, outcome.action, slept), ("RG", Action::Repaired, Duration::ZERO));
    world.assert_client(&first());
    assert_eq!(run_slowly(&world, 0).1.action, Action::Updated);
}

#[test]
fn a_release_that_ran_well_is_proven() {
    let (world, server) = installed();
    let zone = DirZone::open(&world.free()).unwrap();
    assert!(!world.engine(&[], |engine| engine.status().unwrap().proven));
    let trial = Some(Trial { serial: 1, failed_starts: 0, proven: true });
    LauncherNote { trial, ..LauncherNote::default() }.write(&zone).unwrap();
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert!(world.engine(&[], |engine| engine.status().unwrap().proven));
}

#[test]
fn a_name_in_other_case_is_a_file_of_its_own_only_where_the_zone_says_so() {
    let (world, server) = installed();
    write(&world.client().join("RUN.SH"), b"#!/bin/sh\necho evil twin\n");
    let twins = read_tree(&world.client()).len() == first().len() + 1;
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert!(outcome.whole);
    assert_eq!(fs::read(world.client().join("run.sh")).unwrap(), b"#!/bin/sh\necho one\n");
    if twins {
        assert!(!world.client().join("RUN.SH").exists(), "an unlisted program beside the listed one");
    }
}

#[test]
fn a_planted_tree_too_deep_to_walk_stops_neither_repair_nor_update() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    let deep = format!("planted/{}", ["d"; 80].join("/"));
    fs::create_dir_all(world.client().join(&deep)).unwrap();
    fs::write(world.client().join("readme.txt"), "damaged").unwrap();
    let outcome = world.engine(&[&server.url()], |engine| engine.repair().unwrap());
    assert_eq!(fs::read(world.client().join("readme.txt")).unwrap(), b"the first release\n");
    let passed_over = outcome.alarms.iter().filter(|alarm| alarm.contains("passed over")).count();
    assert_eq!(passed_over, 1, "{:?}", outcome.alarms);
    assert!(world.engine(&[], |engine| engine.is_whole()));
    // In the place of a file of the next release, likewise.
    fs::create_dir_all(world.client().join(format!("app/new.bin/{}", ["d"; 80].join("/")))).unwrap();
    world.publish("2.0.0", &second());
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    world.assert_client(&second());
    assert!(world.client().join(&deep).is_dir(), "what is foreign stays");
}

/// Release 3.0.0 on trial, which failed; 2.0.0 before it, and 1.0.0 before that.
fn third_failed(world: &World, server: &release_store::serve::Server) {
    for version in ["2.0.0", "3.0.0"] {
        world.publish(version, &[second(), vec![("version", version.as_bytes().to_vec())]].concat());
        world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    }
    let zone = DirZone::open(&world.free()).unwrap();
    let trial = Some(Trial { serial: 3, failed_starts: 3, proven: false });
    LauncherNote { trial, ..LauncherNote::default() }.write(&zone).unwrap();
}

#[test]
fn a_release_that_fails_is_left_for_a_withdrawn_one_only_where_there_is_no_other() {
    let (world, server) = installed();
    third_failed(&world, &server);
    world.withdraw("2.0.0");
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!((outcome.version.as_deref(), outcome.whole), (Some("1.0.0"), true));
    world.assert_client(&first());

    let (world, server) = installed();
    third_failed(&world, &server);
    world.withdraw("1.0.0");
    world.withdraw("2.0.0");
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!((outcome.version.as_deref(), outcome.whole), (Some("2.0.0"), true));
}

#[test]
fn a_release_that_fails_is_left_for_one_that_can_be_had() {
    let (world, server) = installed();
    let packs = || read_tree(&world.store().join("packs")).into_keys().collect::<std::collections::BTreeSet<_>>();
    let of_the_first = packs();
    third_failed(&world, &server);
    // Neither the device nor the store has what release 2.0.0 needs any more; of 4.0.0 all is there.
    fs::write(world.free().join(format!(".holdfast/undo/{}", Digest::of(b"2.0.0"))), b"9.9.9").unwrap();
    for pack in packs().difference(&of_the_first) {
        fs::remove_file(world.store().join("packs").join(pack)).unwrap();
    }
    world.publish("4.0.0", &first());
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    let outcome = run();
    assert_eq!((outcome.version.as_deref(), outcome.whole), (Some("4.0.0"), true));
    world.assert_client(&first());
    assert_eq!(run().action, Action::None);
    // It never ran here: it is on trial like any new one.
    let trial = Some(Trial { serial: 4, failed_starts: 3, proven: false });
    LauncherNote { trial, ..LauncherNote::default() }.write(&DirZone::open(&world.free()).unwrap()).unwrap();
    assert_eq!(run().version.as_deref(), Some("1.0.0"));
}

#[test]
fn undo_copies_that_are_all_wrong_cost_one_more_plan() {
    let world = World::new();
    let files = |seed: u64| -> Vec<(&'static str, Vec<u8>)> {
        let names: Vec<&'static str> = (0..40).map(|n| &*Box::leak(format!("file-{n}").into_boxed_str())).collect();
        names.into_iter().enumerate().map(|(n, name)| (name, noise(seed + n as u64, 3000))).collect()
    };
    world.publish("1.0.0", &files(0));
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    world.publish("2.0.0", &files(100));
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    let undo = world.free().join(".holdfast/undo");
    for (name, mut bytes) in read_tree(&undo) {
        bytes[0] ^= 1;
        fs::write(undo.join(name), bytes).unwrap();
    }
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Previous).unwrap());
    assert_eq!(outcome.version.as_deref(), Some("1.0.0"));
    world.assert_client(&files(0));
}
