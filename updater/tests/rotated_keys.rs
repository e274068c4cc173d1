//! A vendor's keys are others: what is installed stays, offline too, and the device follows.

mod common;

use std::fs;

use common::*;
use firmware_image::updater_image::{Floors, UpdaterVersion};
use release_store::keys::{KeyDir, KeyKind, rotation};
use release_store::repository::{NoObserver, Repository};
use updater::{Action, Wish};

impl World {
    /// New keys for everything that a device hears of, and a store that is signed with them.
    fn rotate(&mut self) {
        self.change(&[KeyKind::Root, KeyKind::Targets, KeyKind::Online]);
        Repository::open(&self.store(), &self.keys).unwrap().renew(&passphrase(), NOW).unwrap();
    }

    fn change(&mut self, kinds: &[KeyKind]) {
        let keys = self.keys.path().to_owned();
        rotation::rotate(&keys, kinds, &passphrase(), NOW, &mut NoObserver).unwrap();
        self.keys = KeyDir::open(&keys).unwrap();
    }

    fn plug_in(&self, servers: &[&str]) -> updater::Outcome {
        self.engine(servers, |engine| engine.run(&mut TestLauncher::default()).unwrap())
    }

    fn verifies(&self) -> bool {
        self.engine(&[], |engine| engine.verify().is_ok_and(|report| report.whole))
    }
}

#[test]
fn a_device_goes_on_with_what_it_has_and_takes_what_the_new_keys_sign() {
    let mut world = World::new();
    world.publish("1.0.0", &first());
    let config = fs::read(world.path("virtual/device.cfg")).unwrap();
    let server = world.serve();
    world.plug_in(&[&server.url()]);
    world.publish("2.0.0", &second());
    world.plug_in(&[&server.url()]);
    world.rotate();
    // The factory's root is on the device still.
    assert!(fs::read(world.path("virtual/device.cfg")).unwrap() == config);
    assert!(world.plug_in(&[]).whole && world.verifies(), "it has heard of nothing");

    let outcome = world.plug_in(&[&server.url()]);
    assert!(outcome.action == Action::None && outcome.whole && outcome.alarms.is_empty(), "{outcome:?}");
    world.assert_client(&second());
    let before = world.fingerprint();
    assert!(world.plug_in(&[]).whole && world.verifies(), "offline, after the old keys are worth nothing");
    world.plug_in(&[&server.url()]);
    assert_same(&before, &world.fingerprint());

    // A damaged file is mended, with the old statement worth nothing.
    fs::write(world.client().join("readme.txt"), "edited").unwrap();
    assert_eq!(world.plug_in(&[&server.url()]).action, Action::Repaired);
    world.assert_client(&second());
    let previous = world.engine(&[&server.url()], |engine| engine.update(&Wish::Previous).unwrap());
    assert_eq!(previous.version.as_deref(), Some("1.0.0"));
    world.assert_client(&first());
    world.publish("3.0.0", &second());
    let newest = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    assert_eq!(newest.version.as_deref(), Some("3.0.0"));
    assert!(world.verifies());

    // One that was wiped but for the hidden zone, and one that is new.
    world.wipe_free();
    assert_eq!(world.plug_in(&[&server.url()]).version.as_deref(), Some("3.0.0"));
    world.wipe_free();
    world.wipe_hidden();
    assert_eq!(world.plug_in(&[&server.url()]).version.as_deref(), Some("3.0.0"));
    world.assert_client(&second());
}

#[test]
fn a_store_that_is_only_half_changed_takes_nothing_from_a_device() {
    let mut world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    world.plug_in(&[&server.url()]);
    world.rotate();
    // What a store and its mirrors write last.
    let (root, away) = (world.store().join("metadata/2.root.json"), world.path("away"));
    fs::rename(&root, &away).unwrap();
    for servers in [&[&*server.url()][..], &[]] {
        let outcome = world.plug_in(servers);
        assert!(outcome.whole && outcome.offline, "{outcome:?}");
        world.assert_client(&first());
        assert!(world.verifies(), "{servers:?}");
    }
    fs::rename(&away, &root).unwrap();
    let outcome = world.plug_in(&[&server.url()]);
    assert!(outcome.whole && !outcome.offline, "{outcome:?}");
    assert!(world.verifies());
}

#[test]
fn what_a_stolen_updater_key_signs_is_left_behind() {
    let mut world = World::new();
    let version = |text: &str| UpdaterVersion::parse(text).unwrap();
    let publish = |world: &World, release: &str, updater: &[u8], number: &str, key_serial: u32| {
        let program = world.updater_program("u", updater);
        world.publish_with(release, &first(), |request| {
            request.updaters.push((PLATFORM.into(), program));
            request.updater_version = Some(version(number));
            request.updater_floors.key_serial = key_serial;
        });
    };
    let name = firmware_image::paths::updater_name(PLATFORM);
    publish(&world, "1.0.0", b"one", "1.0.0", 0);
    let server = world.serve();
    let run_as = |world: &World, own: &str| {
        *world.host.own_version.lock().unwrap() = Some(version(own));
        world.plug_in(&[&server.url()]);
        fs::read(world.free().join(name.as_str())).unwrap()
    };
    run_as(&world, "1.0.0");
    // The thief's: of this vendor, and newer than anything.
    let stolen = world.signed_updater(b"evil", "9.0.0", Floors::default());

    world.change(&[KeyKind::Updater]);
    publish(&world, "2.0.0", b"two", "2.0.0", 2);
    run_as(&world, "1.0.0");
    // Once the new one runs, and both backups hold it.
    let good = run_as(&world, "2.0.0");
    run_as(&world, "2.0.0");
    let status = world.engine(&[], |engine| engine.status().unwrap());
    let said = "note updaters signed by a key before serial 2 may no longer run";
    assert!(status.key_floor == 2 && status.log.iter().any(|line| line.ends_with(said)), "{status:?}");
    fs::write(world.free().join(name.as_str()), &stolen).unwrap();
    assert!(run_as(&world, "2.0.0") == good && good != stolen);
}
