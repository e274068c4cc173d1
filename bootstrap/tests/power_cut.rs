//! A restore that is cut at any of its writes leaves a device that the next launch heals.
//!
//! The free zone under test is a mounted one that counts what changes it and loses power at the n-th change.

mod support;

use bootstrap::{Session, Source};
use firmware_image::host::{DirZone, FileZone};
use firmware_image::paths;
use firmware_image::places::{Places, Scratch};
use firmware_image::record::MAX_RECORD_BYTES;
use firmware_image::sim::{CutZone, Power, figures};
use firmware_image::storage::Window;
use support::{ALIGN, Device, Fate, Memory, image};

/// A launch whose power fails at the `cut`-th change; how many changes it made where none does.
fn launch(device: &Device, cut: Option<u64>, crash: bool) -> u64 {
    let power = cut.map_or_else(Power::endless, Power::for_changes);
    let free = DirZone::open(&device.free).unwrap();
    let zone = CutZone(&free, power.clone());
    let mut scratch = Box::<Scratch>::default();
    let hidden = FileZone::open(&device.hidden, firmware_image::host::Access::ReadOnly).unwrap();
    let mut zones = bootstrap::Device {
        places: Places {
            hidden: Some(firmware_image::hidden::HiddenZone::new(hidden, ALIGN).unwrap()),
            free: Some(&zone),
            cd_tail: None::<Window<FileZone>>,
        },
        plain: None::<FileZone>,
        memory: scratch.memory(),
    };
    let product = bootstrap::Product {
        vendor: firmware_image::signature::SigningKey::from_seed(&[1; 32]).public(),
        name: support::PRODUCT,
        platform: support::PLATFORM,
        secret: support::secret(),
    };
    let mut session = Session::open(product, &mut zones, &mut vec![0; MAX_RECORD_BYTES]);
    let mut first = crash;
    while let Some(start) = session.next(&mut zones, &mut Memory) {
        if std::mem::take(&mut first) {
            session.crashed(Some(&zone), &start, bootstrap::report::Crash::NotAProgram);
        } else {
            session.settle(&mut zones, &start);
            break;
        }
    }
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

#[test]
fn a_restore_of_a_missing_updater_cut_at_any_write_heals() {
    sweep(|device| std::fs::remove_file(device.installed_path()).unwrap());
}

#[test]
fn a_restore_over_a_damaged_updater_cut_at_any_write_heals() {
    sweep(|device| {
        let mut damaged = image("1.0.0");
        damaged[5000] ^= 4;
        device.install(&damaged);
    });
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
