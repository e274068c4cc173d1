//! Install, update, repair, roll back: what a device does when everything goes well, and what it costs.

mod common;

use std::fs;

use common::*;
use updater::{Action, FailureKind, Wish};

#[test]
fn the_first_run_installs_the_newest_release() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    let mut launcher = TestLauncher::default();
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut launcher).unwrap());
    assert_eq!((outcome.action, outcome.version.as_deref()), (Action::Installed, Some("1.0.0")));
    assert!(outcome.whole);
    assert_eq!(launcher.said, "R");
    world.assert_client(&first());
    let report = world.engine(&[], |engine| engine.verify().unwrap());
    assert!(report.whole && report.damaged.is_empty());
}

#[cfg(unix)]
#[test]
fn programs_of_the_release_may_be_executed() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    world.publish("1.0.0", &first());
    world.engine(&[&world.serve().url()], |engine| engine.update(&Wish::Newest).unwrap());
    let mode = |path: &str| fs::metadata(world.client().join(path)).unwrap().permissions().mode() & 0o111;
    assert_ne!(mode("run.sh"), 0);
    assert_eq!(mode("readme.txt"), 0);
}

#[test]
fn nothing_new_costs_two_requests_and_not_one_byte_written() {
    let world = World::new();
    let program = world.updater_program("u", b"updater one");
    world.publish_with("1.0.0", &first(), |request| request.updaters.push((PLATFORM.into(), program)));
    let server = world.serve();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    // The second run renews the other backup slot, since the new updater has run by now.
    *world.host.own_version.lock().unwrap() = firmware_image::updater_image::UpdaterVersion::parse("9.0.0");
    run();
    server.counters().reset();
    let before = world.fingerprint();
    let outcome = run();
    assert_eq!(outcome.action, Action::None);
    assert!(server.counters().requests() <= 2, "{}", server.counters().requests());
    assert!(server.counters().bytes() <= 2048, "{}", server.counters().bytes());
    assert_same(&before, &world.fingerprint());
}

#[test]
fn an_update_fetches_only_what_the_device_lacks() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    world.publish("2.0.0", &second());
    server.counters().reset();
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!((outcome.action, outcome.previous.as_deref()), (Action::Updated, Some("1.0.0")));
    world.assert_client(&second());
    // New: 120,000 bytes and the chunks around the patch (at most three of 256 KiB); never the whole 970,000.
    assert!(server.counters().bytes() < 500_000, "{}", server.counters().bytes());
}

#[test]
fn edited_deleted_and_infected_files_are_mended_and_reported() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    fs::write(world.client().join("readme.txt"), "edited").unwrap();
    fs::remove_file(world.client().join("same.bin")).unwrap();
    let infected = patched(&first()[0].1, 0, b"VIRUS");
    fs::write(world.client().join("app/big.bin"), &infected).unwrap();
    let report = world.engine(&[], |engine| engine.verify().unwrap());
    assert_eq!(report.damaged.len(), 3);
    server.counters().reset();
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!(outcome.action, Action::Repaired);
    for needle in ["readme.txt is modified", "same.bin is missing", "app/big.bin is modified"] {
        assert!(outcome.alarms.iter().any(|alarm| alarm == needle), "{:?}", outcome.alarms);
    }
    world.assert_client(&first());
    // The infected file itself gives all chunks but its first.
    assert!(server.counters().bytes() < 200_000 + 262_144 + 30_000, "{}", server.counters().bytes());
    let status = world.engine(&[], |engine| engine.status().unwrap());
    assert!(status.alarms.iter().any(|alarm| alarm.contains("readme.txt is modified")), "{:?}", status.alarms);
}

#[test]
fn everything_comes_back_after_the_free_zone_was_formatted() {
    let world = World::new();
    let program = world.updater_program("u", b"updater one");
    world.publish_with("1.0.0", &first(), |request| request.updaters.push((PLATFORM.into(), program)));
    let server = world.serve();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    world.wipe_free();
    let outcome = run();
    assert!(outcome.whole, "{outcome:?}");
    world.assert_client(&first());
    let status = world.engine(&[], |engine| engine.status().unwrap());
    assert_eq!(status.version.as_deref(), Some("1.0.0"));
    assert!(status.records.iter().any(|record| record.place == "record mirror"), "{:?}", status.records);
    assert!(status.backups.iter().any(|backup| backup.place == "backup mirror"), "{:?}", status.backups);
    assert!(status.updaters.iter().any(|updater| updater.version.is_some()), "{:?}", status.updaters);
}

#[test]
fn the_hidden_zone_comes_back_from_its_mirrors() {
    let world = World::new();
    let program = world.updater_program("u", b"updater one");
    world.publish_with("1.0.0", &first(), |request| request.updaters.push((PLATFORM.into(), program)));
    let server = world.serve();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    let id = world.engine(&[], |engine| engine.state().device_id);
    world.wipe_hidden();
    let outcome = run();
    assert_eq!(outcome.action, Action::None);
    let status = world.engine(&[], |engine| engine.status().unwrap());
    assert_eq!(status.device_id, Some(id.to_string()));
    assert!(status.records.iter().any(|record| record.place.starts_with("hidden")), "{:?}", status.records);
    assert!(status.backups.iter().any(|backup| backup.place.starts_with("hidden")), "{:?}", status.backups);
    // And without its mirrors.
    fs::remove_dir_all(world.free().join(".holdfast/mirror")).unwrap();
    run();
    let status = world.engine(&[], |engine| engine.status().unwrap());
    assert_eq!(status.device_id, Some(id.to_string()));
}

#[test]
fn both_zones_destroyed_end_in_a_new_identity_and_a_whole_client() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    let id = world.engine(&[], |engine| engine.state().device_id);
    world.wipe_free();
    world.wipe_hidden();
    let outcome = run();
    assert!(outcome.alarms.iter().any(|alarm| alarm.contains("who it is")), "{:?}", outcome.alarms);
    world.assert_client(&first());
    assert_ne!(world.engine(&[], |engine| engine.state().device_id), id);
}

/// A device that was updated from its first release to its second.
fn updated() -> (World, release_store::serve::Server) {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    world.publish("2.0.0", &second());
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    (world, server)
}

#[test]
fn rollback_needs_no_network_and_is_kept_until_an_update_is_asked_for() {
    let (world, server) = updated();
    let outcome = world.engine(&[], |engine| engine.update(&Wish::Previous).unwrap());
    assert_eq!(outcome.version.as_deref(), Some("1.0.0"));
    assert_eq!(outcome.bytes_fetched, 0);
    world.assert_client(&first());
    // A plug-in leaves it so.
    let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!((outcome.action, outcome.version.as_deref()), (Action::None, Some("1.0.0")));
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert_eq!(outcome.version.as_deref(), Some("2.0.0"));
    world.assert_client(&second());
}

#[test]
fn a_repair_leaves_the_way_back_as_it_was() {
    let (world, server) = updated();
    let kept = || read_tree(&world.free().join(firmware_image::paths::UNDO_DIR));
    let before = kept();
    assert!(!before.is_empty());
    fs::write(world.client().join("run.sh"), b"virus").unwrap();
    world.engine(&[&server.url()], |engine| engine.repair().unwrap());
    world.assert_client(&second());
    assert!(kept() == before);
    let outcome = world.engine(&[], |engine| engine.update(&Wish::Previous).unwrap());
    assert_eq!((outcome.version.as_deref(), outcome.bytes_fetched), (Some("1.0.0"), 0));
    world.assert_client(&first());
}

#[test]
fn a_named_version_is_installed_and_held() {
    let world = World::new();
    world.publish("1.0.0", &first());
    world.publish("2.0.0", &second());
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Version("1.0.0".into())).unwrap());
    world.assert_client(&first());
    assert!(world.engine(&[], |engine| engine.state().held));
    let error = world.engine(&[&server.url()], |engine| engine.update(&Wish::Version("9.9".into())).unwrap_err());
    assert_eq!(error.kind(), FailureKind::NoRelease);
}

#[test]
fn a_withdrawn_release_without_a_successor_is_logged_once_and_then_not_one_byte_is_written() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    world.withdraw("1.0.0");
    let lines = || {
        let log = fs::read_to_string(world.free().join(".holdfast/log")).unwrap();
        log.lines().filter(|line| line.ends_with("note the installed release 1.0.0 was withdrawn")).count()
    };
    assert!(run().whole);
    assert_eq!(lines(), 1);
    let before = world.fingerprint();
    assert!(run().whole);
    assert_same(&before, &world.fingerprint());
    // A log that was deleted gets the line again.
    fs::remove_file(world.free().join(".holdfast/log")).unwrap();
    run();
    assert_eq!(lines(), 1);
    world.assert_client(&first());
}

#[test]
fn a_withdrawn_release_is_left_for_the_newest_that_stands() {
    let world = World::new();
    world.publish("1.0.0", &first());
    world.publish("2.0.0", &second());
    let server = world.serve();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    world.assert_client(&second());
    world.withdraw("2.0.0");
    let outcome = run();
    assert_eq!((outcome.action, outcome.version.as_deref()), (Action::Updated, Some("1.0.0")));
    world.assert_client(&first());
}

#[test]
fn offline_is_a_state_and_no_failure() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    let url = server.url();
    drop(server);
    let outcome = world.engine(&[&url], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!((outcome.action, outcome.offline, outcome.whole), (Action::None, true, true));
    let error = world.engine(&[&url], |engine| engine.check().unwrap_err());
    assert_eq!(error.kind(), FailureKind::Offline);
}

#[test]
fn a_damaged_client_heals_offline_from_undo_and_from_the_copy_that_the_device_carries() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    drop(server);
    fs::write(world.client().join("same.bin"), "gone").unwrap();
    let mut setup = world.setup(&[]);
    setup.offline = Some(world.store());
    let outcome = setup.run(|engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!(outcome.action, Action::Repaired);
    world.assert_client(&first());
}

#[test]
fn a_device_that_never_saw_a_server_installs_what_it_carries() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let mut setup = world.setup(&[]);
    setup.offline = Some(world.store());
    let outcome = setup.run(|engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!((outcome.action, outcome.bytes_fetched), (Action::Installed, 0));
    world.assert_client(&first());
}

#[test]
fn a_dry_run_says_what_would_come_and_writes_nothing() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    world.publish("2.0.0", &second());
    let before = world.fingerprint();
    let mut setup = world.setup(&[&server.url()]);
    setup.limits.dry_run = true;
    let plan = setup.run(|engine| engine.update(&Wish::Newest).unwrap().plan.unwrap());
    assert_same(&before, &world.fingerprint());
    let line = |path: &str| plan.files.iter().find(|line| line.path == path).unwrap().clone();
    assert_eq!(line("app/new-name.dat").way, "copy");
    assert_eq!(line("app/new.bin").way, "download");
    assert_eq!(line("app/big.bin").way, "download and local chunks");
    assert_eq!(line("gone/only.txt").way, "remove");
    server.counters().reset();
    let outcome = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert_eq!(outcome.frames_fetched, plan.frames as u64);
}
