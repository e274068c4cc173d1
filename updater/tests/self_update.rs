//! The updater renews itself, its backups and the floors, in this order.

mod common;

use std::fs;

use common::*;
use firmware_image::updater_image::{Floors, UpdaterVersion};
use updater::Action;
use updater::host::Probe;

fn version(text: &str) -> UpdaterVersion {
    UpdaterVersion::parse(text).unwrap()
}

fn publish(world: &World, release: &str, updater: &[u8], number: &str, floor: &str) {
    let program = world.updater_program("u", updater);
    world.publish_with(release, &first(), |request| {
        request.updaters.push((PLATFORM.into(), program));
        request.updater_version = Some(version(number));
        request.updater_floors = Floors { version: version(floor), key_serial: 0 };
    });
}

fn free_version(world: &World) -> Option<String> {
    let status = world.engine(&[], |engine| engine.status().unwrap());
    status.updaters.first().and_then(|updater| updater.version.clone())
}

#[test]
fn a_new_updater_is_installed_backed_up_and_raises_the_floors_only_when_both_backups_have_it() {
    let world = World::new();
    publish(&world, "1.0.0", b"one", "1.0.0", "0.0.0");
    let server = world.serve();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    let status = || world.engine(&[], |engine| engine.status().unwrap());
    let backups = |text: &str| {
        let hidden = |backup: &&updater::status::BackupStanding| backup.place.starts_with("hidden");
        let all = status().backups;
        all.iter().filter(hidden).filter(|backup| backup.updaters[0].ends_with(text)).count()
    };
    run();
    *world.host.own_version.lock().unwrap() = Some(version("1.0.0"));
    run();
    assert_eq!((free_version(&world).as_deref(), backups("1.0.0")), (Some("1.0.0"), 2));

    publish(&world, "2.0.0", b"two, which is longer", "2.0.0", "2.0.0");
    assert_eq!(run().action, Action::Updated);
    // The old one still runs: one backup holds it, the floor has not moved.
    assert_eq!((free_version(&world).as_deref(), backups("1.0.0"), backups("2.0.0")), (Some("2.0.0"), 1, 1));
    assert_eq!(status().floor, "0.0.0");
    run();
    assert_eq!((backups("1.0.0"), status().floor.as_str()), (1, "0.0.0"));
    // Now the new one runs.
    *world.host.own_version.lock().unwrap() = Some(version("2.0.0"));
    run();
    let now = status();
    let said = "note updaters before 2.0.0 may no longer run";
    assert!(now.floor == "2.0.0" && now.log.iter().any(|line| line.ends_with(said)), "{now:?}");
    assert_eq!((backups("2.0.0"), now.key_floor), (2, 0));
    // An updater below the floor is not accepted any more, wherever it comes from.
    let name = firmware_image::paths::updater_name(PLATFORM);
    fs::write(world.free().join(name.as_str()), world.signed_updater(b"one", "1.0.0", Floors::default())).unwrap();
    run();
    assert_eq!(free_version(&world).as_deref(), Some("2.0.0"));
}

#[test]
fn an_updater_that_does_not_start_is_refused_and_the_client_still_updated() {
    let world = World::new();
    publish(&world, "1.0.0", b"one", "1.0.0", "0.0.0");
    let server = world.serve();
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    publish(&world, "2.0.0", b"two", "2.0.0", "0.0.0");
    *world.host.probe.lock().unwrap() = Probe::Failed("it crashed".into());
    let outcome = run();
    assert_eq!((outcome.action, outcome.version.as_deref()), (Action::Updated, Some("2.0.0")));
    assert!(outcome.alarms.iter().any(|alarm| alarm.contains("would not start")), "{:?}", outcome.alarms);
    assert_eq!(free_version(&world).as_deref(), Some("1.0.0"));
    // It is not fetched again and again.
    server.counters().reset();
    assert_eq!(run().action, Action::None);
    assert!(server.counters().requests() <= 2);
}

#[test]
fn a_missing_or_infected_updater_in_the_free_zone_comes_back() {
    let world = World::new();
    publish(&world, "1.0.0", b"one", "1.0.0", "0.0.0");
    let server = world.serve();
    let run = |servers: &[&str]| world.engine(servers, |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run(&[&server.url()]);
    let name = firmware_image::paths::updater_name(PLATFORM);
    let path = world.free().join(name.as_str());
    let good = fs::read(&path).unwrap();
    fs::write(&path, b"infected").unwrap();
    run(&[]);
    assert_eq!(fs::read(&path).unwrap(), good);
    fs::remove_file(&path).unwrap();
    run(&[]);
    assert_eq!(fs::read(&path).unwrap(), good);
}

#[test]
fn one_host_mends_the_updaters_of_all_others_from_the_devices_own_backups() {
    const OTHERS: [&str; 2] = ["windows-x86_64", "linux-of-another-kind"];
    let world = World::new();
    let own = world.updater_program("own", b"one");
    let others = OTHERS.map(|platform| (platform.to_owned(), world.updater_program(platform, platform.as_bytes())));
    world.publish_with("1.0.0", &first(), |request| {
        request.updaters.push((PLATFORM.into(), own));
        request.updaters.extend(others);
    });
    let server = world.serve();
    let run = |servers: &[&str]| world.engine(servers, |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run(&[&server.url()]);
    let held = world.engine(&[], |engine| engine.status().unwrap()).backups;
    assert!(held.iter().any(|backup| backup.place.starts_with("hidden") && backup.updaters.len() == 3), "{held:?}");

    let paths = OTHERS.map(|platform| world.free().join(firmware_image::paths::updater_name(platform).as_str()));
    let good = paths.each_ref().map(|path| fs::read(path).unwrap());
    fs::write(&paths[0], b"infected").unwrap();
    fs::remove_file(&paths[1]).unwrap();
    // Without a server: everything comes from the device.
    run(&[]);
    assert!(paths.each_ref().map(|path| fs::read(path).unwrap()) == good);
}

#[test]
fn a_rollback_of_the_client_does_not_take_the_updater_back() {
    let world = World::new();
    publish(&world, "1.0.0", b"one", "1.0.0", "0.0.0");
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    publish(&world, "2.0.0", b"two", "2.0.0", "0.0.0");
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    world.engine(&[&server.url()], |engine| engine.update(&updater::Wish::Previous).unwrap());
    assert_eq!(free_version(&world).as_deref(), Some("2.0.0"));
}

#[test]
fn damaged_backups_are_mended() {
    let world = World::new();
    publish(&world, "1.0.0", b"one", "1.0.0", "0.0.0");
    let server = world.serve();
    *world.host.own_version.lock().unwrap() = Some(version("1.0.0"));
    let run = || world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    run();
    run();
    let sound = || world.engine(&[], |engine| engine.backups().len());
    assert_eq!(sound(), 3);
    // One bit in the body of backup A, and the mirror cut short.
    let mut hidden = fs::read(world.path("hidden.img")).unwrap();
    hidden[2 * ALIGN as usize + 4096 + 100] ^= 1;
    fs::write(world.path("hidden.img"), &hidden).unwrap();
    let mirror = world.free().join(".holdfast/mirror/backup");
    let bytes = fs::read(&mirror).unwrap();
    fs::write(&mirror, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(sound(), 1);
    run();
    assert_eq!(sound(), 3);
}

/// What the factory puts behind the CD's file system: a backup under an identity of its own.
fn write_cd(world: &World, image: &[u8]) -> std::path::PathBuf {
    use firmware_image::backup::{BackupBody, Index};
    use firmware_image::host::{Access, FileZone};
    use firmware_image::key_slot::{Cost, Identity};
    use firmware_image::places::Scratch;
    use firmware_image::slot::{Kind, Write};
    let path = world.path("cd-tail.img");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    let mut scratch = Box::<Scratch>::default();
    let identity = Identity::mint(&[77; 64], Cost::UNATTENDED, &world.config().secret, &mut scratch.blocks).unwrap();
    let layout = Index::layout([(PLATFORM, image.len() as u64)].into_iter()).unwrap();
    let mut images = [image];
    let mut body = BackupBody::new(layout, &mut images).unwrap();
    let mut zone = FileZone::open(&path, Access::ReadWrite).unwrap();
    Write { kind: Kind::Backup, generation: 9, identity: &identity, segment_log2: 16 }
        .write(&mut zone, &mut body, &mut scratch.segment)
        .unwrap();
    path
}

#[test]
fn from_the_factory_backup_on_the_cd_alone_updater_and_backups_come_back() {
    let world = World::new();
    publish(&world, "1.0.0", b"one", "1.0.0", "0.0.0");
    let server = world.serve();
    let image = world.signed_updater(b"one", "1.0.0", Floors::default());
    let cd = write_cd(&world, &image);
    let before = fs::read(&cd).unwrap();
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    world.wipe_hidden();
    world.wipe_free();
    let with_cd = || {
        let mut setup = world.setup(&[]);
        setup.cd_tail = Some(cd.clone());
        setup
    };
    // Nothing is installed and no server answers: that run fails, after it did what is the updater's own.
    let _ = with_cd().run(|engine| engine.run(&mut TestLauncher::default()));
    let name = firmware_image::paths::updater_name(PLATFORM);
    assert_eq!(fs::read(world.free().join(name.as_str())).unwrap(), image);
    let places = with_cd().run(|engine| engine.backups().iter().map(|b| b.place.to_string()).collect::<Vec<_>>());
    assert_eq!(places, ["hidden backup A", "hidden backup B", "backup mirror", "factory backup on the CD"]);
    assert_eq!(fs::read(&cd).unwrap(), before, "the CD is only read");
}

#[test]
fn the_factory_backup_on_the_cd_never_takes_precedence_over_the_devices_own() {
    let world = World::new();
    publish(&world, "2.0.0", b"two", "2.0.0", "0.0.0");
    let server = world.serve();
    *world.host.own_version.lock().unwrap() = Some(version("2.0.0"));
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    let cd = write_cd(&world, &world.signed_updater(b"one", "1.0.0", Floors::default()));
    let name = firmware_image::paths::updater_name(PLATFORM);
    fs::remove_file(world.free().join(name.as_str())).unwrap();
    let mut setup = world.setup(&[]);
    setup.cd_tail = Some(cd);
    setup.run(|engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!(free_version(&world).as_deref(), Some("2.0.0"));
}

#[test]
fn an_updater_that_changed_since_it_was_verified_makes_no_backup_and_an_alarm() {
    let world = World::new();
    publish(&world, "1.0.0", b"one", "1.0.0", "0.0.0");
    let server = world.serve();
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    world.wipe_hidden();
    fs::remove_dir_all(world.free().join(".holdfast/mirror")).unwrap();
    let name = firmware_image::paths::updater_name(PLATFORM);
    let path = world.free().join(name.as_str());
    let good = fs::read(&path).unwrap();
    let (alarms, sound) = world.engine(&[], |engine| {
        // This verifies the file, which then changes in place.
        engine.status().unwrap();
        let mut bad = good.clone();
        bad[0] ^= 1;
        fs::write(&path, &bad).unwrap();
        let _ = engine.run(&mut TestLauncher::default());
        (engine.alarms().to_vec(), engine.backups().len())
    });
    assert!(alarms.iter().any(|alarm| alarm.contains("counts for nothing")), "{alarms:?}");
    assert_eq!(sound, 0);
    // With a good one again all is mended.
    fs::write(&path, &good).unwrap();
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!(world.engine(&[], |engine| engine.backups().len()), 3);
}
