//! `--plugged`: what of it an ordinary test can do. The whole of it needs a device and a service manager: see `qemu-tests`.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use bootstrap::platform::{self, MountFault};
use firmware_image::sim::{LoopDevice, figures};

fn launcher(args: &[&str]) -> (i32, String) {
    let Output { status, stderr, .. } = Command::new(env!("CARGO_BIN_EXE_bootstrap")).args(args).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn root_is_refused_and_an_ordinary_user_is_told_of_a_node_that_is_none() {
    let (status, said) = launcher(&["--plugged", "/dev/null"]);
    if platform::is_root() {
        assert_eq!(status, 77, "{said}");
        assert!(said.contains("root must not") && said.contains("--allow-root"), "{said}");
    } else {
        assert_eq!(status, 66, "{said}");
    }
    let (status, said) = launcher(&["--plugged=/dev/null", "--allow-root"]);
    assert_eq!(status, 66);
    assert_eq!(said, "/dev/null is no disk, partition or CD-ROM of this computer.\nIs the device still plugged in?\n");
}

#[test]
fn zones_are_not_named_beside_a_plugged_device() {
    for (args, word) in [
        (&["--plugged", "/dev/sr0", "--free", "/x"][..], "name none beside it"),
        (&["--plugged", "/dev/sr0", "--device", "/x"], "name none beside it"),
        (&["--plugged", "/dev/sr0", "--plugged", "/dev/sr1"], "stands there twice"),
        (&["--plugged"], "needs a path"),
        (&["--allow-root"], "goes with --plugged"),
    ] {
        let (status, said) = launcher(args);
        assert!(status == 64 && said.contains(word), "{args:?}: {status} {said}");
    }
}

/// The lines of a process' or thread's status that tell of its rights.
fn rights(status: &str) -> Vec<(String, String)> {
    let fields = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"];
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    lines.filter(|(name, _)| fields.contains(name)).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn every_capability_is_given_up_and_no_program_started_later_gets_one() {
    // Rights are a thread's own.
    let (own, childs) = std::thread::spawn(|| {
        platform::give_up_privileges().unwrap();
        let child = Command::new("cat").arg("/proc/self/status").output().unwrap();
        (fs::read_to_string("/proc/thread-self/status").unwrap(), String::from_utf8(child.stdout).unwrap())
    })
    .join()
    .unwrap();
    for status in [own, childs] {
        let rights = rights(&status);
        assert_eq!(rights.len(), 6, "{status}");
        for (name, value) in rights {
            match &*name {
                "NoNewPrivs" => assert_eq!(value, "1"),
                // Only who may change it has it emptied; it gives nothing to others either.
                "CapBnd" if !platform::is_root() => {}
                _ => assert_eq!(value, "0000000000000000", "{name}"),
            }
        }
    }
    // The test itself still has what it had.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(rights(&status).contains(&("NoNewPrivs".into(), "0".into())) || !platform::is_root());
}

#[test]
fn zones_are_mounted_where_nobody_else_sees_them_and_vanish_with_whoever_mounted_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("free.img");
    fs::File::create(&file).unwrap().set_len(8 << 20).unwrap();
    let format = ["-q", "-E", "root_owner=0:0", "-L", "free"];
    if !Command::new("mkfs.ext4").args(format).arg(&file).status().is_ok_and(|status| status.success()) {
        figures::skipped("mkfs.ext4 is not installed");
        return;
    }
    let Some(node) = LoopDevice::over(&file, &[]) else { return };
    let name = format!("test-{}", std::process::id());
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places: Vec<PathBuf> = (0..2)
        .map(|round| {
            let (node, name) = (node.node().to_owned(), name.clone());
            std::thread::spawn(move || {
                // No virtual zone: it has no file system that one could have.
                let mounts = platform::mount_zones(name.as_ref(), &node, Some(&node)).unwrap();
                assert!(matches!(mounts.virtual_zone, Err(MountFault::NoFileSystem)), "{mounts:?}");
                let free = mounts.free.unwrap().unwrap();
                assert!(free.directory.ends_with("free") && !free.read_only);
                assert_eq!(free.directory.join("written").exists(), round == 1);
                fs::write(free.directory.join("written"), b"here").unwrap();
                let own = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                let line = own.lines().find(|line| line.contains(free.directory.to_str().unwrap())).unwrap().to_owned();
                for flag in ["nosuid", "nodev", "noatime", "errors=remount-ro"] {
                    assert!(line.contains(flag), "{line}");
                }
                free.directory
            })
            .join()
            .unwrap()
        })
        .collect();
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    assert_eq!(places[0], places[1]);
    assert_eq!(fs::read_dir(&places[0]).unwrap().count(), 0);
    let place = places[0].parent().unwrap();
    assert_eq!(fs::metadata(place).map(|found| std::os::unix::fs::MetadataExt::mode(&found) & 0o777).unwrap(), 0o700);
    fs::remove_dir_all(place).unwrap();
}
