//! A restore that is cut at any of its writes, or finds no more room at one, leaves a device that the next launch heals.
//!
//! The free zone under test is a mounted one that counts what changes it, and loses power or is full at the n-th change.

mod support;

use bootstrap::Source;
use bootstrap::report::Event;
use bootstrap::restore::RestoreError;
use firmware_image::host::DirZone;
use firmware_image::sim::{CutZone, FullZone, Power, Room, figures};
use firmware_image::{ZoneError, paths};
use support::{Device, Fate, image};

/// A launch whose power fails at the `cut`-th change; how many changes it made where none does.
fn launch(device: &Device, cut: Option<u64>, crash: bool) -> u64 {
    let power = cut.map_or_else(Power::endless, Power::for_changes);
    let free = DirZone::open(&device.free).unwrap();
    let mut crash = crash;
    device.launch_over(&CutZone(&free, power.clone()), |_| match std::mem::take(&mut crash) {
        true => Fate::Crash,
        false => Fate::Ready,
    });
    power.used()
}

/// One more launch writes nothing, not even a time.
fn assert_at_rest(device: &Device, at: &str) {
    let before = device.everything();
    device.launch(|_| Fate::Ready);
    assert!(before == device.everything(), "{at}: it still writes");
}

fn sweep(prepare: impl Fn(&Device)) {
    let make = || {
        let device = Device::from_factory(&image("1.0.0"));
        prepare(&device);
        device
    };
    let writes = launch(&make(), None, false);
    assert!(writes > 5, "the sweep has something to cut: {writes}");
    let mut tried = 0;
    for cut in 1..=writes {
        // Without a cut in the recovery, and with one at each of its changes: it makes no more than the whole.
        for again in 0..=writes {
            let device = make();
            launch(&device, Some(cut), false);
            if again > 0 {
                launch(&device, Some(again), false);
            }
            tried += 1;
            let launched = device.launch(|start| {
                assert_eq!(start.copy.bytes(), image("1.0.0"), "cut {cut}, {again}");
                Fate::Ready
            });
            assert_eq!(launched.runs.len(), 1, "cut {cut}, {again}");
            assert_eq!(device.installed().unwrap(), image("1.0.0"), "cut {cut}, {again}");
            let launched = device.launch(|_| Fate::Ready);
            assert_eq!(launched.last().source, Source::Installed, "cut {cut}, {again}: healed for good");
            assert_at_rest(&device, &format!("cut {cut}, {again}"));
        }
    }
    figures::count(figures::CUT_STATES, "restore in a mounted directory", tried, 0);
}

fn lose(device: &Device) {
    std::fs::remove_file(device.installed_path()).unwrap();
}

fn damage(device: &Device) {
    let mut damaged = image("1.0.0");
    damaged[5000] ^= 4;
    device.install(&damaged);
}

#[test]
fn a_restore_of_a_missing_updater_cut_at_any_write_heals() {
    sweep(lose);
}

#[test]
fn a_restore_over_a_damaged_updater_cut_at_any_write_heals() {
    sweep(damage);
}

#[test]
fn a_zone_that_is_full_at_any_change_of_a_restore_loses_nothing_and_is_healed_with_room() {
    let mut tried = 0;
    for (spoil, greedy) in [(lose as fn(&Device), false), (lose, true), (damage, false), (damage, true)] {
        for changes in 0.. {
            let at = format!("full at change {changes}, greedy: {greedy}");
            let device = Device::from_factory(&image("1.0.0"));
            spoil(&device);
            device.client("exit 7");
            let room = Room::for_changes(changes, greedy);
            let free = DirZone::open(&device.free).unwrap();
            let launched = device.launch_over(&FullZone(&free, room.clone()), |_| Fate::Ready);
            assert!(launched.last().bytes == image("1.0.0"), "{at}: it runs all the same");
            let full = RestoreError::Zone(ZoneError::Full);
            let is_told = launched.events.iter().any(|event| match event {
                Event::NotRestored { why, .. } => *why == full,
                _ => false,
            });
            let is_restored = device.installed().is_some_and(|installed| installed == image("1.0.0"));
            assert_ne!(is_told, is_restored, "{at}: {:?}", launched.events);
            assert!(device.free.join("client/run.sh").exists(), "{at}");
            if !room.is_full() {
                assert!(is_restored && changes > 1, "{at}");
                break;
            }
            tried += 1;
            device.launch(|_| Fate::Ready);
            assert!(device.installed().is_some_and(|installed| installed == image("1.0.0")), "{at}");
            assert_at_rest(&device, &at);
        }
    }
    println!("full at a change of a restore: {tried} tried");
}

#[test]
fn giving_up_an_updater_that_will_not_start_cut_at_any_write_never_loses_the_one_that_does() {
    let device = || {
        let device = Device::from_factory(&image("1.0.0"));
        device.install(&image("1.1.0"));
        device
    };
    let writes = launch(&device(), None, true);
    for cut in 1..=writes {
        let device = device();
        launch(&device, Some(cut), true);
        let bad = support::digest_of(&image("1.1.0"));
        let launched = device.launch(|start| if start.copy.claim().digest == bad { Fate::Crash } else { Fate::Ready });
        assert_eq!(launched.last().bytes, image("1.0.0"), "cut {cut}");
        assert_eq!(device.installed().unwrap(), image("1.0.0"), "cut {cut}");
        assert_at_rest(&device, &format!("cut {cut}"));
    }
}

#[test]
fn a_restore_leaves_nothing_of_its_own_behind() {
    let device = Device::from_factory(&image("1.0.0"));
    std::fs::remove_file(device.installed_path()).unwrap();
    launch(&device, None, false);
    let beside = format!("{}.new", paths::updater_name(support::PLATFORM));
    assert!(!device.free.join(beside).exists());
}
