//! Two launchers at once on one device, and launchers without room, without memory, and killed in the middle of a restore: what is
//! sound is started, nothing is damaged, and the next start heals.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::process::{Child, Stdio};
use std::time::Instant;

use firmware_image::hidden::SlotName;
use firmware_image::paths;
use firmware_image::sim::{Random, figures, limits};
use support::{Device, Ended, Maker, Mounted, good_script};

/// The statuses of the launcher's own.
const STATUSES: std::ops::RangeInclusive<i32> = 64..=78;

fn spawn(device: &Device) -> Child {
    support::patiently(|| device.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn())
}

/// Two launchers at once: both start the client, and after them the device heals and settles. Each may have removed what
/// the other was writing beside the updater; then the next start restores it.
fn two_at_once(spoil: impl Fn(&Device)) {
    let updater = good_script("1.0.0");
    let device = Device::from_factory(&updater);
    device.client("echo the client speaks; exit 7");
    device.launcher();
    for round in 0..12 {
        spoil(&device);
        let both = [spawn(&device), spawn(&device)].map(|child| Ended::of(child.wait_with_output().unwrap()));
        for ended in &both {
            assert_eq!((ended.status, &*ended.out), (7, "the client speaks\n"), "round {round}: {}", ended.said);
        }
        let ended = device.start(&[]);
        assert_eq!(ended.status, 7, "round {round}: {}", ended.said);
        assert_eq!(device.installed().as_deref(), Some(&*updater), "round {round}");
        let before = device.everything();
        let ended = device.start(&[]);
        assert_eq!((ended.status, &*ended.said), (7, ""), "round {round}");
        assert_eq!(device.everything(), before, "round {round}");
    }
}

#[test]
fn two_launchers_on_a_sound_device_start_the_client_each() {
    two_at_once(|_| ());
}

#[test]
fn two_launchers_that_restore_the_updater_at_once_leave_a_whole_one() {
    two_at_once(|device| fs::remove_file(device.installed_path()).unwrap());
    two_at_once(|device| fs::write(device.installed_path(), b"a virus").unwrap());
}

#[test]
fn two_launchers_with_one_good_copy_left_do_not_lose_it() {
    two_at_once(|device| {
        fs::remove_file(device.installed_path()).unwrap();
        device.scribble(SlotName::BackupA, 0, 4096);
        device.scribble(SlotName::BackupB, 0, 4096);
        let _ = fs::remove_file(device.free.join(paths::BACKUP_MIRROR));
    });
}

/// What is wrong with the updater before a restore, and what makes it so.
type Spoil = (&'static str, fn(&Device));
const SPOILS: [Spoil; 2] = [
    ("missing", |device| fs::remove_file(device.installed_path()).unwrap()),
    ("damaged", |device| {
        let mut damaged = device.installed().unwrap();
        damaged[100] ^= 1;
        device.install(&damaged);
    }),
];

/// As [`good_script`], with so many more bytes.
fn long_script(bytes: usize) -> Vec<u8> {
    let program = format!("#!/bin/sh\nprintf R >&$HOLDFAST_READY_FD\nexit 0\n{}", "#".repeat(bytes));
    Maker::new("1.0.0").make(program.as_bytes())
}

fn full() -> bool {
    std::env::var_os("HOLDFAST_FULL").is_some()
}

/// The files of a device with a client and a user's own.
fn fill(device: &Device) {
    device.client("echo the client speaks; exit 7");
    fs::create_dir_all(device.free.join("mine")).unwrap();
    fs::write(device.free.join("mine/letter.txt"), b"mine").unwrap();
}

fn assert_nothing_is_lost(device: &Device, at: &str) {
    assert_eq!(fs::read(device.free.join("mine/letter.txt")).unwrap(), b"mine", "{at}");
    let client = fs::read_to_string(device.free.join("client/run.sh")).unwrap();
    assert!(client.ends_with("exit 7\n"), "{at}: {client:?}");
}

/// The next start restores the updater and starts the client; the one after it has nothing to do.
fn assert_heals(device: &Device, updater: &[u8], at: &str) {
    let ended = device.start(&[]);
    assert_eq!((ended.status, &*ended.out), (7, "the client speaks\n"), "{at}: {}", ended.said);
    assert!(device.installed().as_deref() == Some(updater), "{at}: {}", ended.said);
    assert_nothing_is_lost(device, at);
    let before = device.everything();
    let ended = device.start(&[]);
    assert_eq!((ended.status, &*ended.said), (7, ""), "{at}");
    assert!(device.everything() == before, "{at}: it still writes");
}

#[test]
fn a_launcher_without_room_for_the_updater_starts_the_client_and_says_so_and_with_room_it_heals() {
    let updater = long_script(40_000);
    for (wrong, spoil) in SPOILS {
        let device = Device::from_factory(&updater);
        device.launcher();
        let everything = |device: &Device| {
            device.install(&updater);
            fill(device);
        };
        let Some(mounted) = Mounted::new(&device, 1024, everything) else { return };
        let (mut without, mut restored) = (0, 0);
        // Page by page, until there is room for it beside what stands there.
        for pages in 0.. {
            let at = format!("{wrong}, with room for {pages} pages");
            device.install(&updater);
            spoil(&device);
            mounted.resize(mounted.used_kib() + pages * 4);
            let ended = device.start(&[]);
            // It runs all the same.
            assert_eq!((ended.status, &*ended.out), (7, "the client speaks\n"), "{at}: {}", ended.said);
            assert_nothing_is_lost(&device, &at);
            if device.installed().as_deref() == Some(&*updater) {
                restored += 1;
            } else {
                without += 1;
                assert!(ended.said.contains("runs without being installed"), "{at}: {}", ended.said);
                assert!(ended.said.contains("Make room in the free zone"), "{at}: {}", ended.said);
            }
            mounted.resize(1024);
            assert_heals(&device, &updater, &at);
            if restored == 2 {
                break;
            }
        }
        println!("no room, updater {wrong}: {without} starts without it");
        // What cannot run makes room for what can.
        assert_eq!(without > 2, wrong == "missing", "{without}");
    }
}

#[test]
fn without_memory_a_launcher_ends_with_an_error_and_damages_nothing() {
    let updater = long_script(1 << 20);
    let device = Device::new();
    device.make_hidden(2 << 20);
    let device = device.made(&updater);
    fill(&device);
    device.launcher();
    let (mut fine, mut without_updater, mut failed, mut ended_by_system) = (0, 0, 0, 0);
    // From where the system cannot even load a program to where there is enough for all.
    let (cases, step) = if full() { (256, 32) } else { (32, 256) };
    for number in 1..=cases {
        let kibibytes = number * step;
        let at = format!("with {kibibytes} KiB");
        SPOILS[number as usize % 2].1(&device);
        let limited = limits::address_space(&device.command(), kibibytes).output().unwrap();
        let ended = Ended::of(limited);
        assert!(!ended.said.contains("panicked"), "{at}: {}", ended.said);
        let has_no_room = ended.said.contains("This computer has no room to run the updater");
        without_updater += usize::from(has_no_room);
        match ended.status {
            7 => {
                fine += usize::from(!has_no_room);
                assert!(!ended.said.contains("no good copy"), "{at}: {}", ended.said);
                assert_eq!(has_no_room, ended.said.contains("use another computer"), "{at}: {}", ended.said);
            }
            // By a signal, it or the client that it started, or by the shell, which could not be loaded itself or could not start it.
            -1 | 126.. => ended_by_system += 1,
            status => {
                failed += 1;
                assert!(STATUSES.contains(&status) && !ended.said.trim().is_empty(), "{at}: {ended:?}");
            }
        }
        assert_nothing_is_lost(&device, &at);
        assert_heals(&device, &updater, &at);
    }
    println!(
        "{cases} sizes of memory: {fine} fine, {without_updater} without room for an updater, {failed} failed, {ended_by_system} ended by the system"
    );
    assert!(fine > 0 && without_updater + failed > 0);
}

#[test]
fn a_launcher_killed_at_any_moment_of_a_restore_is_healed_by_the_next() {
    let updater = long_script(40_000);
    let device = Device::from_factory(&updater);
    fill(&device);
    device.launcher();
    let (wrong, spoil) = SPOILS[0];
    spoil(&device);
    let mut whole = {
        let began = Instant::now();
        assert_eq!(device.start(&[]).status, 7, "{wrong}");
        began.elapsed()
    };
    let kills = if full() { 200 } else { 24 };
    let mut random = Random::new(0x5eed);
    let (mut killed, mut parts, mut too_late) = (0, 0, 0);
    while killed < kills {
        let (wrong, spoil) = SPOILS[(killed + too_late) % 2];
        spoil(&device);
        let delay = whole.mul_f64(random.below(1000) as f64 / 1000.0);
        let at = format!("{wrong}, kill {killed}, after {delay:?}");
        let mut child = spawn(&device);
        std::thread::sleep(delay);
        child.kill().unwrap();
        let ended = child.wait_with_output().unwrap();
        match ended.status.code() {
            None => killed += 1,
            // Measured at a slow moment: how long it takes is learned again.
            Some(status) => {
                too_late += 1;
                assert_eq!(status, 7, "{at}");
                whole = whole.mul_f64(0.9);
            }
        }
        parts += usize::from(device.free.join(format!("{}.new", paths::updater_name(device.platform))).exists());
        assert_nothing_is_lost(&device, &at);
        assert_heals(&device, &updater, &at);
    }
    println!("a restore of {whole:?}: {killed} killed ({parts} left a part), {too_late} had ended");
    figures::count(figures::MOMENTS, "restore, killed", killed, 0);
}
