//! A device that carries a copy of a store: its metadata is the whole store's, its packs are one release's.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::*;
use updater::{Action, FailureKind, Wish};

/// The store as a device carries it: manifests and packs of what was published before `newer`, metadata with `newer`.
fn carried(world: &World, newer: impl FnOnce()) -> PathBuf {
    let carried = world.path("carried");
    copy_tree(&world.store(), &carried);
    newer();
    fs::remove_dir_all(carried.join("metadata")).unwrap();
    copy_tree(&world.store().join("metadata"), &carried.join("metadata"));
    carried
}

/// A vendor with two releases; the device carries the first, and metadata that names both.
fn world() -> (World, PathBuf) {
    let world = World::new();
    let program = world.updater_program("u", b"updater one");
    world.publish_with("1.0.0", &first(), |request| request.updaters.push((PLATFORM.into(), program)));
    copy_tree(&world.store(), &world.path("before"));
    let carried = carried(&world, || {
        world.publish("1.1.0", &second());
    });
    (world, carried)
}

fn run(world: &World, carried: &Path, servers: &[&str]) -> updater::Outcome {
    let mut setup = world.setup(servers);
    setup.offline = Some(carried.to_path_buf());
    setup.run(|engine| engine.run(&mut TestLauncher::default()).unwrap())
}

/// A server's address that nobody answers at.
const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn a_device_without_a_server_installs_the_newest_release_that_it_carries_and_backs_itself_up() {
    for servers in [&[][..], &[NOBODY]] {
        let (world, carried) = world();
        let outcome = run(&world, &carried, servers);
        assert_eq!((outcome.action, outcome.version.as_deref()), (Action::Installed, Some("1.0.0")));
        assert!(outcome.whole && outcome.offline);
        world.assert_client(&first());
        assert_eq!(world.engine(&[], |engine| engine.backups().len()), 3);
        // Nothing more can be done, and nothing more is.
        *world.host.own_version.lock().unwrap() = firmware_image::updater_image::UpdaterVersion::parse("9.0.0");
        run(&world, &carried, servers);
        let before = world.fingerprint();
        let outcome = run(&world, &carried, servers);
        assert_eq!((outcome.action, outcome.whole), (Action::None, true));
        assert_same(&before, &world.fingerprint());
    }
}

#[test]
fn a_formatted_free_zone_gets_the_installed_release_back_from_what_is_carried_without_alarms() {
    let (world, carried) = world();
    run(&world, &carried, &[]);
    world.wipe_free();
    let outcome = run(&world, &carried, &[]);
    assert_eq!((outcome.version.as_deref(), outcome.whole), (Some("1.0.0"), true));
    world.assert_client(&first());
    let log = fs::read_to_string(world.free().join(".holdfast/log")).unwrap();
    assert!(!log.contains("could not be installed"), "{log}");
}

#[test]
fn what_is_carried_never_takes_a_device_back() {
    let (world, carried) = world();
    let server = world.serve();
    let outcome = run(&world, &carried, &[&server.url()]);
    assert_eq!(outcome.version.as_deref(), Some("1.1.0"));
    drop(server);
    world.wipe_free();
    let mut setup = world.setup(&[]);
    setup.offline = Some(carried.clone());
    let (result, whole) = setup.run(|engine| (engine.run(&mut TestLauncher::default()), engine.is_whole()));
    assert_eq!(result.unwrap_err().kind(), FailureKind::Offline);
    assert!(!whole);
    assert!(world.client_files().is_empty());
    // Nor when a person asks for the newest one; the metadata that it knew of are gone with the free zone.
    copy_tree(&world.path("before"), &carried);
    let mut setup = world.setup(&[]);
    setup.offline = Some(carried);
    setup.run(|engine| engine.update(&Wish::Newest)).unwrap_err();
    assert!(world.client_files().is_empty());
    assert_eq!(world.engine(&[], |engine| engine.status().unwrap().version).as_deref(), Some("1.1.0"));
}

#[test]
fn a_carried_release_that_was_withdrawn_or_failed_here_is_no_goal() {
    let world = World::new();
    world.publish("1.0.0", &first());
    world.publish("1.1.0", &second());
    let carried = carried(&world, || {
        world.publish("1.2.0", &[("run.sh", b"three".to_vec())]);
        world.withdraw("1.1.0");
    });
    assert_eq!(run(&world, &carried, &[]).version.as_deref(), Some("1.0.0"));
    world.assert_client(&first());
}

#[test]
fn frames_that_the_carried_copy_lacks_are_noticed_before_anything_is_written() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let carried = carried(&world, || {
        world.publish("1.1.0", &second());
    });
    // Its manifest and its chunk list are there, its pack is not.
    let known: Vec<_> = walk(&carried);
    for path in walk(&world.store()) {
        let from = world.store().join(&path);
        if !known.contains(&path) && fs::metadata(&from).unwrap().len() < 20_000 {
            write(&carried.join(&path), &fs::read(&from).unwrap());
        }
    }
    assert!(walk(&carried).len() > known.len());
    assert_eq!(run(&world, &carried, &[]).version.as_deref(), Some("1.0.0"));
    let before = world.fingerprint();
    assert_eq!(run(&world, &carried, &[]).action, Action::None);
    assert_same(&before, &world.fingerprint());
    // A person who asks is told.
    let mut setup = world.setup(&[]);
    setup.offline = Some(carried);
    let error = setup.run(|engine| engine.update(&Wish::Newest).unwrap_err());
    assert_eq!(error.kind(), FailureKind::Offline);
}

fn walk(root: &Path) -> Vec<PathBuf> {
    read_tree(root).into_keys().map(PathBuf::from).collect()
}
