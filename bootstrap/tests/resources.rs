//! Two launchers at once on one device: each starts what is sound, and both together damage nothing.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::process::{Child, Stdio};

use firmware_image::hidden::SlotName;
use firmware_image::paths;
use support::{Device, Ended, good_script};

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
