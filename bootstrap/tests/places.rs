//! The places from which an updater runs on Linux: nobody can change the bytes once they are verified.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::sync::Mutex;

use bootstrap::device::Stored;
use bootstrap::platform::{Child, End, PrivateDirectory, Program, RunImage, SealedMemory, Start};
use bootstrap::verified::{LoadError, RunPlace, SealedBytes as _};
use firmware_image::ZoneError;
use firmware_image::storage::SliceReader;

/// These tests look at the descriptors of the whole process, and start children that inherit them for a moment.
static ALONE: Mutex<()> = Mutex::new(());

fn load(place: &mut impl RunPlace<Image = RunImage>, bytes: &[u8]) -> RunImage {
    place.load(&mut SliceReader::new(bytes) as &mut dyn Stored, bytes.len() as u64).unwrap()
}

fn status_of(image: &RunImage, args: &[&str]) -> End {
    let args = args.iter().map(Into::into).collect();
    let start = Start {
        program: Program::Image(image),
        name: "updater".into(),
        args,
        directory: None,
        pipes: true,
        client_beside: true,
        all_backups: false,
        lock: None,
    };
    let mut child = Child::start(&start).unwrap();
    loop {
        if let Some(end) = child.end() {
            return end;
        }
        // Not by signals: a test has threads, and the system may give them to another one.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

#[test]
fn sealed_memory_cannot_be_written_cut_or_lengthened_even_by_its_owner() {
    let _alone = ALONE.lock();
    let image = load(&mut SealedMemory::default(), b"verified bytes");
    assert!(image.is_in_memory());
    let mut found = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        let Ok(target) = fs::read_link(&path) else { continue };
        if !target.to_string_lossy().starts_with("/memfd:updater") {
            continue;
        }
        found += 1;
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert!(std::os::unix::fs::FileExt::write_at(&file, b"x", 0).is_err());
        assert!(file.set_len(1).is_err());
        assert!(file.set_len(1 << 20).is_err());
    }
    assert!(found > 0);
    assert_eq!(image.bytes(), b"verified bytes");
}

#[test]
fn programs_and_scripts_run_from_memory_and_from_a_private_directory_and_leave_nothing_behind() {
    let _alone = ALONE.lock();
    let program = fs::read("/bin/sh").unwrap();
    let script = b"#!/bin/sh\nexit $1\n";
    let mut forbidden = SealedMemory::default();
    forbidden.forbid();
    // The private files that this process holds open, by the name they had.
    let private = || {
        let links =
            fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter(|target| target.to_string_lossy().contains("/holdfast-")).collect::<Vec<_>>()
    };
    for (image, in_memory) in [
        (load(&mut SealedMemory::default(), &program), true),
        (load(&mut PrivateDirectory, &program), false),
        (load(&mut forbidden, &program), false),
    ] {
        assert_eq!(image.is_in_memory(), in_memory);
        assert_eq!(image.bytes(), program);
        for was in private() {
            assert!(was.to_string_lossy().ends_with("updater (deleted)"), "{was:?}");
            assert!(!was.parent().unwrap().exists(), "{was:?}");
        }
        assert_eq!(status_of(&image, &["-c", "exit 9"]), End::Exited(9));
    }
    for image in [load(&mut SealedMemory::default(), script), load(&mut PrivateDirectory, script)] {
        assert_eq!(status_of(&image, &["8"]), End::Exited(8));
    }
    assert!(private().is_empty());
}

#[test]
fn a_source_that_ends_early_is_a_fault_of_the_source() {
    let _alone = ALONE.lock();
    let mut short = SliceReader::new(b"short");
    for place in [&mut SealedMemory::default() as &mut dyn RunPlace<Image = RunImage>, &mut PrivateDirectory] {
        let error = place.load(&mut short, 6).err();
        assert_eq!(error, Some(LoadError::Read(ZoneError::OutOfBounds)));
    }
}

#[test]
fn an_empty_image_is_no_mapping() {
    let _alone = ALONE.lock();
    assert_eq!(load(&mut SealedMemory::default(), b"").bytes(), b"");
}
