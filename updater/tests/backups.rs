//! How closely a start looks at the backups, and that nobody waits for them.

mod common;

use std::cell::RefCell;
use std::fs;
use std::rc::Rc;

use common::*;
use firmware_image::hidden::SlotName;
use firmware_image::places::Place;
use firmware_image::updater_image::{MAX_TRAILER_BYTES, UpdaterVersion, read_trailer};
use release_store::serve::Server;
use updater::backups::Turn;
use updater::{Action, Outcome};

const A: Turn = Turn::Backup(Place::Hidden(SlotName::BackupA));
const B: Turn = Turn::Backup(Place::Hidden(SlotName::BackupB));
const MIRROR: Turn = Turn::Backup(Place::BackupMirror);

/// Bytes of the tests' updaters: some segments of a backup.
const LONG: usize = 400_000;

/// A device with an updater that proved itself, and three equal backups.
fn settled() -> (World, Server) {
    let world = World::new();
    let program = world.updater_program("u", &noise(21, LONG));
    world.publish_with("1.0.0", &first(), |request| request.updaters.push((PLATFORM.into(), program)));
    let server = world.serve();
    *world.host.own_version.lock().unwrap() = UpdaterVersion::parse("9.0.0");
    run(&world, &server, A);
    run(&world, &server, A);
    assert_eq!(sound(&world), 3);
    (world, server)
}

fn run(world: &World, server: &Server, turn: Turn) -> Outcome {
    run_where(world, server, turn, true)
}

fn run_where(world: &World, server: &Server, turn: Turn, hidden: bool) -> Outcome {
    let mut setup = world.setup(&[&server.url()]);
    (setup.limits.turn, setup.hidden) = (Some(turn), hidden);
    setup.run(|engine| engine.run(&mut TestLauncher::default()).unwrap())
}

fn sound(world: &World) -> usize {
    world.engine(&[], |engine| engine.backups().len())
}

/// Changes a byte in the middle of a backup's body.
fn damage(world: &World, place: Turn) {
    let slot_bytes = (4 << 20) / 2;
    let (path, start) = match place {
        A => (world.path("hidden.img"), 2 * ALIGN as usize),
        B => (world.path("hidden.img"), 2 * ALIGN as usize + slot_bytes),
        _ => (world.free().join(".holdfast/mirror/backup"), 0),
    };
    let mut bytes = fs::read(&path).unwrap();
    bytes[start + 4096 + LONG / 2] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn damage_inside_a_backup_is_found_and_mended_when_its_turn_comes() {
    let (world, server) = settled();
    for (place, other) in [(A, B), (B, MIRROR), (MIRROR, A)] {
        damage(&world, place);
        assert_eq!(sound(&world), 2, "{place:?}");
        assert_eq!(run(&world, &server, other).action, Action::None);
        assert_eq!(sound(&world), 2, "{place:?}: it was not its turn");
        run(&world, &server, place);
        assert_eq!(sound(&world), 3, "{place:?}");
    }
}

#[test]
fn whatever_is_amiss_has_all_of_them_read() {
    let (world, server) = settled();
    damage(&world, A);
    // The mirror is gone, which a glance shows.
    fs::remove_file(world.free().join(".holdfast/mirror/backup")).unwrap();
    run(&world, &server, B);
    assert_eq!(sound(&world), 3);
    // A repair that a person asks for reads all, whatever is in turn.
    damage(&world, B);
    let mut setup = world.setup(&[&server.url()]);
    setup.limits.turn = Some(A);
    setup.run(|engine| engine.repair().unwrap());
    assert_eq!(sound(&world), 3);
}

#[test]
fn where_no_hidden_zone_is_in_reach_the_mirror_is_all_there_is_to_keep() {
    let (world, server) = settled();
    let sound = || {
        let mut setup = world.setup(&[]);
        setup.hidden = false;
        setup.run(|engine| engine.backups().len())
    };
    damage(&world, MIRROR);
    // Nothing is amiss at a glance, and it is not its turn.
    assert_eq!(run_where(&world, &server, Turn::OtherUpdaters, false).action, Action::None);
    assert_eq!(sound(), 0);
    run_where(&world, &server, MIRROR, false);
    assert_eq!(sound(), 1);
    // At rest: the hidden zone that is not there is nothing to be renewed.
    let before = world.fingerprint();
    run_where(&world, &server, MIRROR, false);
    assert!(world.fingerprint() == before);
}

#[test]
fn a_launcher_that_met_a_bad_copy_has_all_of_them_read() {
    let (world, server) = settled();
    damage(&world, A);
    run(&world, &server, Turn::Everything);
    assert_eq!(sound(&world), 3);
}

#[test]
fn each_place_is_drawn_within_some_starts() {
    let (world, server) = settled();
    damage(&world, A);
    for _ in 0..100 {
        world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
        if sound(&world) == 3 {
            return;
        }
    }
    panic!("one of three was not drawn in a hundred starts");
}

#[test]
fn a_torn_backup_and_one_of_another_device_are_seen_at_a_glance() {
    let (world, server) = settled();
    // The first segment of a new body under the old header.
    let mut hidden = fs::read(world.path("hidden.img")).unwrap();
    let at = 2 * ALIGN as usize + 4096;
    hidden[at..at + 4096].copy_from_slice(&noise(5, 4096));
    fs::write(world.path("hidden.img"), hidden).unwrap();
    run(&world, &server, B);
    assert_eq!(sound(&world), 3);
    let other = settled().0;
    fs::copy(other.free().join(".holdfast/mirror/backup"), world.free().join(".holdfast/mirror/backup")).unwrap();
    assert_eq!(sound(&world), 2);
    run(&world, &server, B);
    assert_eq!(sound(&world), 3);
}

#[test]
fn the_client_starts_before_the_other_backup_is_renewed() {
    let (world, server) = settled();
    // So little that it comes within the check window.
    let program = world.updater_program("u2", &patched(&noise(21, LONG), 1000, b"new"));
    let mut files = first();
    files[4].1 = b"the second release\n".to_vec();
    world.publish_with("2.0.0", &files, |request| request.updaters.push((PLATFORM.into(), program)));
    // The update itself, and the start after it.
    for round in ["update", "start after it"] {
        let path = world.path("hidden.img");
        let at_go: Rc<RefCell<Vec<u8>>> = Rc::default();
        let seen = at_go.clone();
        let backups_at = 2 * ALIGN as usize;
        let before = fs::read(&path).unwrap()[backups_at..].to_vec();
        let from = path.clone();
        let on_go = Box::new(move || *seen.borrow_mut() = fs::read(&from).unwrap()[backups_at..].to_vec());
        let mut launcher = TestLauncher { can_go: true, on_go: Some(on_go), ..TestLauncher::default() };
        let outcome = world.engine(&[&server.url()], |engine| engine.run(&mut launcher).unwrap());
        assert!(outcome.whole, "{round}");
        assert_eq!(launcher.said, "RG", "{round}");
        assert!(*at_go.borrow() == before, "{round}: a backup was written before the client was let go");
        assert!(fs::read(&path).unwrap()[backups_at..] != before, "{round}: no backup was written");
        world.assert_client(&files);
    }
    assert_eq!(sound(&world), 3);
}

#[test]
fn a_client_that_is_not_whole_is_not_let_go() {
    let (world, server) = settled();
    drop(server);
    fs::remove_file(world.client().join("same.bin")).unwrap();
    let mut launcher = TestLauncher { can_go: true, ..TestLauncher::default() };
    let whole = world.engine(&[], |engine| {
        let _ = engine.run(&mut launcher);
        engine.is_whole()
    });
    assert!(!whole);
    assert_eq!(launcher.said, "R");
}

#[test]
fn what_a_launcher_vouches_for_is_still_read_whole_before_it_is_copied() {
    let (world, server) = settled();
    let name = firmware_image::paths::updater_name(PLATFORM);
    let path = world.free().join(name.as_str());
    let good = fs::read(&path).unwrap();
    let mut trailer = [0; MAX_TRAILER_BYTES];
    let mut file = firmware_image::host::FileZone::open(&path, firmware_image::host::Access::ReadOnly).unwrap();
    let trailer = read_trailer(&mut file, good.len() as u64, &mut trailer).unwrap().to_vec();
    fs::write(&path, patched(&good, 1000, b"infected")).unwrap();
    // Vouched for: nothing to be done. (A launcher would have replaced it.)
    *world.host.launched_trailer.lock().unwrap() = Some(trailer);
    let before = world.fingerprint();
    run(&world, &server, A);
    assert_same(&before, &world.fingerprint());
    // Now a backup has to be made, and the file is looked at.
    fs::remove_file(world.free().join(".holdfast/mirror/backup")).unwrap();
    run(&world, &server, A);
    assert_eq!(fs::read(&path).unwrap(), good);
    assert_eq!(sound(&world), 3);
    // Another trailer than the running one's: looked at each time.
    fs::write(&path, patched(&good, 1000, b"infected")).unwrap();
    *world.host.launched_trailer.lock().unwrap() = Some(b"another".to_vec());
    run(&world, &server, A);
    assert_eq!(fs::read(&path).unwrap(), good);
}
