//! Files where directories of ours belong, and directories where files do: out of the way, and the device heals.

mod common;

use std::fs;
use std::path::Path;

use common::*;
use firmware_image::paths;
use release_store::serve::Server;
use updater::commit::COMMIT_PLAN;
use updater::spool::SPOOL;
use updater::{Action, Outcome};

/// A device with a release and an updater, at rest.
fn settled() -> (World, Server) {
    let world = World::new();
    let program = world.updater_program("u", &noise(21, 100_000));
    world.publish_with("1.0.0", &first(), |request| request.updaters.push((PLATFORM.into(), program)));
    let server = world.serve();
    for _ in 0..3 {
        run(&world, &[&server.url()]);
    }
    (world, server)
}

fn run(world: &World, servers: &[&str]) -> Outcome {
    world.engine(servers, |engine| engine.run(&mut TestLauncher::default()).unwrap())
}

/// It becomes whole at once, is at rest soon, and what stood in the way is there under another name.
fn assert_heals(world: &World, server: &Server, what: &str) {
    let outcome = run(world, &[&server.url()]);
    assert!(outcome.whole, "{what}: {outcome:?}");
    world.assert_client(&first());
    for start in 0..3 {
        let before = world.fingerprint();
        assert!(run(world, &[&server.url()]).whole, "{what}");
        if world.fingerprint() == before {
            return;
        }
        assert!(start < 2, "{what}: not at rest");
    }
}

fn replace(path: &Path, as_directory: bool) {
    if path.is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else if path.exists() {
        fs::remove_file(path).unwrap();
    }
    if as_directory {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("somebody's"), "kept").unwrap();
    } else {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "somebody's").unwrap();
    }
}

fn kept_in_quarantine(world: &World) -> usize {
    let quarantine = fs::read_dir(world.free().join(paths::QUARANTINE_DIR));
    let kept = |path: &Path| fs::read(path.join("somebody's")).is_ok_and(|bytes| bytes == b"kept");
    quarantine.map_or(0, |entries| entries.filter(|entry| kept(&entry.as_ref().unwrap().path())).count())
}

#[test]
fn a_file_in_the_place_of_a_directory_of_ours_is_no_obstacle() {
    for directory in [
        paths::QUARANTINE_DIR,
        paths::STAGING_DIR,
        paths::UNDO_DIR,
        paths::TRUST_DIR,
        paths::ASIDE_DIR,
        ".holdfast/mirror",
    ] {
        let (world, server) = settled();
        replace(&world.free().join(directory), false);
        assert_heals(&world, &server, directory);
    }
}

#[test]
fn a_file_with_the_name_of_our_own_directory_gets_another_one() {
    let (world, server) = settled();
    for number in 1..=2 {
        replace(&world.free().join(paths::STATE_DIR), false);
        assert_heals(&world, &server, paths::STATE_DIR);
        let found = world.free().join(format!("holdfast-found-{number}"));
        assert_eq!(fs::read(found).unwrap(), b"somebody's");
    }
    // An empty one is nobody's.
    fs::remove_dir_all(world.free().join(paths::STATE_DIR)).unwrap();
    fs::write(world.free().join(paths::STATE_DIR), "").unwrap();
    assert_heals(&world, &server, "empty");
    assert!(!world.free().join("holdfast-found-3").exists());
}

#[test]
fn a_directory_in_the_place_of_a_file_of_ours_is_moved_away_with_what_is_in_it() {
    let files = [
        paths::JOURNAL,
        paths::RECORD_MIRROR,
        paths::BACKUP_MIRROR,
        paths::MANIFEST,
        paths::STATEMENT,
        paths::CHUNK_LIST,
        paths::CONFIG_COPY,
        paths::REFUSED_UPDATERS,
        paths::LOG,
        paths::LAUNCHER_NOTE,
        SPOOL,
        COMMIT_PLAN,
    ];
    for file in files.into_iter().map(str::to_owned).chain([paths::updater_name(PLATFORM).to_string()]) {
        let (world, server) = settled();
        replace(&world.free().join(&file), true);
        assert_heals(&world, &server, &file);
        assert!(!world.free().join(&file).is_dir(), "{file}");
        assert_eq!(kept_in_quarantine(&world), 1, "{file}");
    }
}

#[test]
fn what_is_a_users_own_stays_where_it_is() {
    let (world, server) = settled();
    for own in ["updater-notes", ".holdfast/of a newer version"] {
        replace(&world.free().join(own), true);
    }
    assert_heals(&world, &server, "a user's");
    assert!(world.free().join("updater-notes/somebody's").is_file());
    assert!(world.free().join(".holdfast/of a newer version/somebody's").is_file());
}

#[test]
fn a_file_in_the_place_of_the_client_is_no_whole_client() {
    let (world, server) = settled();
    replace(&world.client(), false);
    fs::remove_file(world.free().join(paths::MANIFEST)).unwrap();
    // Nobody listens there.
    let whole = world.engine(&["http://127.0.0.1:9"], |engine| {
        let result = engine.run(&mut TestLauncher::default());
        result.is_ok_and(|outcome| outcome.whole) || engine.is_whole()
    });
    assert!(!whole);
    // With the server it comes back.
    assert_ne!(run(&world, &[&server.url()]).action, Action::None);
    world.assert_client(&first());
    assert_eq!(fs::read(world.free().join("holdfast-found-1")).unwrap(), b"somebody's");
}
