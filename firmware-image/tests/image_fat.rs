//! The raw FAT zone against the tools that users have.
#![cfg(all(feature = "image", feature = "sim"))]

mod volume;

use embedded_io::{Read as _, Seek as _, SeekFrom, Write as _};
use firmware_image::free_zone::Kind;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::fat::{FormatOptions, RawFat, format};
use firmware_image::{FreeZone, RawZone as _, ZoneError, ZoneFile};
use volume::*;

#[test]
fn a_new_volume_of_any_usual_size_is_sound_and_fat32_or_in_a_small_zone_fat16() {
    let dir = tempfile::tempdir().unwrap();
    for mib in [4, 5, 8, 12, 16, 20, 32, 33, 40, 100, 256, 300, 1024, 8192, 9000, 32 * 1024] {
        let path = dir.path().join(format!("{mib}.img"));
        let zone = volume(&path, mib * MIB);
        assert_eq!(zone.volume_id(), 0x1234_5678);
        assert_eq!(zone.label(), "HOLDFAST");
        assert!(zone.free_bytes().unwrap() > mib * MIB * 95 / 100, "{mib}");
        zone.close().unwrap();
        assert_sound(&path);
        let kind = if mib < 33 { "FAT16" } else { "FAT32" };
        if let Some(output) = tool("minfo", &["-i", text(&path), "::"]) {
            assert!(String::from_utf8_lossy(&output.stdout).contains(kind), "{mib}");
        }
        if let Some(output) = tool("blkid", &["-p", "-o", "value", "-s", "SEC_TYPE", "-s", "VERSION", text(&path)]) {
            assert!(String::from_utf8_lossy(&output.stdout).contains(kind), "{mib}: {output:?}");
        }
    }
}

#[test]
fn a_zone_too_small_for_fat16_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut zone = FileZone::create_new(&dir.path().join("x"), 2 * MIB).unwrap();
    let options = FormatOptions { label: *b"HOLDFAST   ", volume_id: 1, hidden_sectors: 0 };
    assert_eq!(format(&mut zone, &options), Err(ZoneError::Full));
}

#[test]
fn a_root_directory_of_fixed_length_is_full_in_the_end_and_the_rest_of_the_volume_goes_on() {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let zone = volume(&path, 4 * MIB);
    zone.create_dir_all("client").unwrap();
    let made = (0..600).take_while(|number| match zone.create(&format!("FILE{number}")) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, ZoneError::Full);
            false
        }
    });
    // 512 less the label, two for each name.
    assert_eq!(made.count(), 254);
    assert_eq!(zone.create_dir_all("more"), Err(ZoneError::Full));
    assert_eq!(zone.rename("client", "a name that needs more entries than there are").err(), Some(ZoneError::Full));
    for number in 0..200 {
        put(&zone, &format!("client/a long name for {number}"), b"inside");
    }
    assert!(zone.remove("FILE7").unwrap());
    put(&zone, "NEW", b"in its place");
    assert_eq!(names(&zone, "").len(), 255);
    assert_eq!(names(&zone, "client").len(), 200);
    zone.close().unwrap();
    assert_sound(&path);
    let zone = RawFat::open(FileZone::open(&path, Access::ReadOnly).unwrap(), true).unwrap();
    assert_eq!(get(&zone, "new").unwrap(), b"in its place");
}

#[test]
fn a_format_leaves_the_file_system_full_of_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    volume(&path, 8192 * MIB).close().unwrap();
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::fs::MetadataExt as _;
        let held = std::fs::metadata(&path).unwrap().st_blocks() * 512;
        assert!(held < MIB, "{held} bytes are held");
    }
}

#[test]
fn files_and_directories_come_back_as_written_and_fsck_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let zone = volume(&path, 300 * MIB);
    let big = noise(7, 9 * MIB as usize + 123);
    put(&zone, "updater-linux-x86_64", &big);
    put(&zone, "client/run.sh", b"#!/bin/sh\n");
    put(&zone, "client/deep/er/and/deeper/Größe mit Umlaut.txt", b"x");
    put(&zone, ".holdfast/journal", &[0; 8192]);
    put(&zone, "empty", b"");
    assert_eq!(get(&zone, "UPDATER-LINUX-X86_64").unwrap(), big);
    assert_eq!(get(&zone, "client/deep/er/AND/deeper/größe MIT umlaut.txt").unwrap(), b"x");
    assert_eq!(get(&zone, "empty").unwrap(), b"");
    assert_eq!(get(&zone, "client/none"), None);
    assert_eq!(get(&zone, "none/none"), None);
    assert_eq!(get(&zone, "empty/none"), None);
    assert_eq!(names(&zone, ""), [".holdfast", "client", "empty", "updater-linux-x86_64"]);
    assert_eq!(zone.metadata("client").unwrap().unwrap().kind, Kind::Directory);
    assert_eq!(zone.metadata("updater-linux-x86_64").unwrap().unwrap().length, big.len() as u64);
    zone.close().unwrap();
    assert_sound(&path);

    let again = RawFat::open(FileZone::open(&path, Access::ReadOnly).unwrap(), true).unwrap();
    assert_eq!(get(&again, "updater-linux-x86_64").unwrap(), big);
    assert_eq!(again.create("y").err(), Some(ZoneError::ReadOnly));
    assert_eq!(again.remove("empty").err(), Some(ZoneError::ReadOnly));
}

#[test]
fn two_thousand_files_are_made_changed_moved_and_removed_and_fsck_finds_nothing() {
    [16, 100].into_iter().for_each(two_thousand_files);
}

fn two_thousand_files(mib: u64) {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    for i in 0..2000 {
        put(&zone, &format!("shard-{:02}/file number {i}.dat", i % 20), &noise(i, (i as usize * 37) % 9000));
    }
    zone.sync_dir("").unwrap();
    for i in (0..2000).step_by(3) {
        assert!(zone.remove(&format!("shard-{:02}/file number {i}.dat", i % 20)).unwrap());
    }
    for i in (1..2000).step_by(30) {
        let from = format!("shard-{:02}/file number {i}.dat", i % 20);
        zone.rename(&from, &format!("moved/{i}.dat")).unwrap();
    }
    for i in (2..2000).step_by(30) {
        put(&zone, &format!("shard-{:02}/file number {i}.dat", i % 20), b"short");
    }
    zone.rename("shard-03", "moved/shard").unwrap();
    assert_eq!(get(&zone, "moved/1.dat").unwrap(), noise(1, 37));
    assert_eq!(get(&zone, "shard-02/file number 2.dat").unwrap(), b"short");
    assert_eq!(get(&zone, "shard-05/file number 5.dat").unwrap(), noise(5, 5 * 37));
    assert_eq!(zone.remove("moved"), Err(ZoneError::Io(39)));
    zone.close().unwrap();
    assert_sound(&path);
}

#[test]
fn what_is_in_use_is_all_that_a_volume_needs() {
    [32, 200].into_iter().for_each(what_is_in_use);
}

fn what_is_in_use(mib: u64) {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    zone.create_dir_all("d").unwrap();
    for number in 0..40 {
        put(&zone, &format!("d/{number}"), &noise(number + 1, 10_000 * number as usize));
    }
    (0..40).step_by(3).for_each(|number| assert!(zone.remove(&format!("d/{number}")).unwrap()));
    zone.close().unwrap();
    let zone = RawFat::open(FileZone::open(&path, Access::ReadOnly).unwrap(), true).unwrap();
    let used = zone.used().unwrap();
    assert!(
        used.len() > 10 && used[0].start == 0 && used.windows(2).all(|pair| pair[0].end < pair[1].start),
        "{used:?}"
    );
    let bytes: u64 = used.iter().map(|range| range.end - range.start).sum();
    assert!(bytes < 12 * MIB, "{bytes}");
    // All else is nobody's.
    let whole = std::fs::read(&path).unwrap();
    let mut copy = vec![0xAA; whole.len()];
    for range in used {
        let range = range.start as usize..range.end as usize;
        copy[range.clone()].copy_from_slice(&whole[range]);
    }
    let other = dir.path().join("y");
    std::fs::write(&other, copy).unwrap();
    assert_sound(&other);
    let other = RawFat::open(FileZone::open(&other, Access::ReadOnly).unwrap(), true).unwrap();
    for number in 0..40 {
        let expected = (number % 3 != 0).then(|| noise(number + 1, 10_000 * number as usize));
        assert!(get(&other, &format!("d/{number}")) == expected, "{number}");
    }
    assert_eq!(other.used().unwrap(), zone.used().unwrap());
}

#[test]
fn rename_replaces_a_file_and_refuses_directories() {
    SMALL.into_iter().for_each(rename_replaces);
}

fn rename_replaces(mib: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    put(&zone, "old", &[1; 5000]);
    put(&zone, "new.tmp", &[2; 9000]);
    put(&zone, "dir/inner", b"i");
    zone.rename("new.tmp", "OLD").unwrap();
    assert_eq!(get(&zone, "old").unwrap(), [2; 9000]);
    assert_eq!(zone.metadata("new.tmp").unwrap(), None);
    assert_eq!(zone.rename("old", "dir"), Err(ZoneError::BadPath));
    assert_eq!(zone.rename("dir", "dir/below/it"), Err(ZoneError::BadPath));
    assert_eq!(zone.rename("nothing", "x"), Err(ZoneError::NotFound));
    assert_eq!(zone.create("dir").err(), Some(ZoneError::BadPath));
    assert_eq!(zone.create("old/x").err(), Some(ZoneError::BadPath));
    zone.close().unwrap();
    assert_sound(&path);
}

/// The library takes the old name away before it makes the new one.
#[test]
fn what_is_moved_where_there_is_no_room_stays_where_it_was() {
    SMALL.into_iter().for_each(move_without_room);
}

fn move_without_room(mib: u64) {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    // One part of a long name, just filled and not filled; two.
    let moved = ["short", "thirteen long", "a name that is somewhat longer", "in a/directory of thirteen"];
    moved.iter().for_each(|name| put(&zone, name, name.as_bytes()));
    put(&zone, "in a/tree/leaf", b"leaf");
    zone.create_dir_all("full").unwrap();
    // A cluster of 512 bytes: the two dots, and seven names of two entries each.
    (0..7).for_each(|number| put(&zone, &format!("full/{number}"), b""));
    let mut filler = zone.create("filler").unwrap();
    while filler.write_all(&[7; 512]).is_ok() {}
    drop(filler);
    assert_eq!(zone.free_bytes().unwrap(), 0);
    for name in moved.into_iter().chain(["in a/tree"]) {
        assert_eq!(zone.rename(name, &format!("full/{}", name.replace('/', " "))), Err(ZoneError::Full), "{name}");
    }
    let check = |zone: &RawFat<FileZone>| {
        moved.iter().for_each(|name| assert_eq!(get(zone, name).unwrap(), name.as_bytes()));
        assert_eq!(get(zone, "in a/tree/leaf").unwrap(), b"leaf");
        assert_eq!(
            names(zone, ""),
            ["a name that is somewhat longer", "filler", "full", "in a", "short", "thirteen long"]
        );
        assert_eq!(names(zone, "in a"), ["directory of thirteen", "tree"]);
    };
    check(&zone);
    zone.close().unwrap();
    assert_sound(&path);
    let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
    check(&zone);
    assert!(zone.remove("filler").unwrap());
    zone.rename("in a/tree", "full/tree").unwrap();
    assert_eq!(get(&zone, "full/tree/leaf").unwrap(), b"leaf");
    zone.close().unwrap();
    assert_sound(&path);
}

/// As another system may format it: one reserved sector, and so no table on a boundary of the cache's usual blocks.
#[test]
fn a_small_volume_made_by_another_tool_is_read_and_written() {
    let dir = fast_dir();
    let path = dir.path().join("x");
    for arguments in
        [&["-F", "16"][..], &["-F", "16", "-r", "112"], &["-F", "16", "-s", "8", "-f", "1"], &["-F", "32", "-s", "1"]]
    {
        let _ = std::fs::remove_file(&path);
        FileZone::create_new(&path, 40 * MIB).unwrap();
        let arguments: Vec<&str> = arguments.iter().copied().chain([text(&path)]).collect();
        let Some(made) = tool("mkfs.vfat", &arguments) else { return };
        assert!(made.status.success(), "{made:?}");
        let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
        for number in 0..50 {
            put(&zone, &format!("file {number}"), &noise(number, 3000));
            put(&zone, &format!("dir/{number}/inner"), &noise(number + 100, 5000));
        }
        (0..50).step_by(2).for_each(|number| assert!(zone.remove(&format!("file {number}")).unwrap()));
        zone.close().unwrap();
        assert_sound(&path);
        let zone = RawFat::open(FileZone::open(&path, Access::ReadOnly).unwrap(), true).unwrap();
        for number in 0..50 {
            let expected = (number % 2 == 1).then(|| noise(number, 3000));
            assert_eq!(get(&zone, &format!("file {number}")), expected);
            assert_eq!(get(&zone, &format!("dir/{number}/inner")).unwrap(), noise(number + 100, 5000));
        }
    }
}

/// The library grows it by a cluster as it is.
#[test]
fn a_root_directory_that_grows_shows_nothing_of_what_was_in_its_new_clusters() {
    let dir = fast_dir();
    let path = dir.path().join("x");
    for long in [8, 60, 200] {
        let zone = volume(&path, 40 * MIB);
        let mut file = zone.create("noise").unwrap();
        while file.write_all(&noise(5, 1 << 20)).is_ok() {}
        drop(file);
        assert!(zone.remove("noise").unwrap());
        put(&zone, "dir/inner", b"moves");
        let name = |kind: &str, number: usize| format!("{kind} {number:03} {}", "n".repeat(long));
        let mut wanted = vec!["dir".to_owned()];
        for number in 0..40 {
            put(&zone, &name("made", number), b"made");
            zone.create_dir_all(&name("directory", number)).unwrap();
            zone.open_rw(&name("opened", number)).unwrap().set_len(700).unwrap();
            zone.rename("dir/inner", &name("moved", number)).unwrap();
            put(&zone, "dir/inner", b"moves");
            wanted.extend(["made", "directory", "opened", "moved"].map(|kind| name(kind, number)));
            assert_eq!(names(&zone, "").len(), wanted.len(), "{long}, {number}");
        }
        wanted.sort();
        assert_eq!(names(&zone, ""), wanted);
        zone.close().unwrap();
        assert_sound(&path);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_is_cut_lengthened_and_written_past_its_end() {
    SMALL.into_iter().for_each(cut_and_lengthened);
}

fn cut_and_lengthened(mib: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    let mut expected = noise(3, 50_000);
    {
        let mut file = zone.create("f").unwrap();
        file.write_all(&expected).unwrap();
        file.set_len(20_480).unwrap();
        expected.truncate(20_480);
        file.seek(SeekFrom::Start(30_000)).unwrap();
        file.write_all(b"tail").unwrap();
        expected.resize(30_000, 0);
        expected.extend_from_slice(b"tail");
        file.seek(SeekFrom::Start(100)).unwrap();
        file.write_all(b"inside").unwrap();
        expected[100..106].copy_from_slice(b"inside");
        file.flush().unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut back = vec![0; expected.len()];
        file.read_exact(&mut back).unwrap();
        assert_eq!(back, expected);
    }
    assert_eq!(get(&zone, "f").unwrap(), expected);
    zone.open_rw("f").unwrap().set_len(0).unwrap();
    assert_eq!(get(&zone, "f").unwrap(), b"");
    zone.close().unwrap();
    assert_sound(&path);
}

#[test]
fn names_that_fat_cannot_hold_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let zone = volume(&dir.path().join("x"), 40 * MIB);
    let long = "n".repeat(256);
    for name in ["a/../b", "", "/a", "a//b", "a?", "a*b", "a.", "a ", "a\\b", "a:b", "a\u{1}", "\u{1F600}", &long] {
        assert_eq!(zone.create(name).err(), Some(ZoneError::BadPath), "{name:?}");
    }
    put(&zone, &"n".repeat(255), b"ok");
}

#[test]
fn a_full_volume_says_so_and_stays_sound() {
    SMALL.into_iter().for_each(full);
}

fn full(mib: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    let mut file = zone.create("filler").unwrap();
    let chunk = vec![7; 1 << 20];
    let fault = loop {
        if let Err(error) = file.write_all(&chunk) {
            break error;
        }
    };
    assert_eq!(fault, ZoneError::Full);
    drop(file);
    assert_eq!(zone.free_bytes().unwrap(), 0);
    assert_eq!(zone.create_dir_all("more"), Err(ZoneError::Full));
    zone.close().unwrap();
    assert_sound(&path);
}

#[test]
fn mtools_reads_what_we_wrote_and_we_read_what_mtools_wrote() {
    SMALL.into_iter().for_each(exchanged_with_mtools);
}

fn exchanged_with_mtools(mib: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    put(&zone, "client/A long name.txt", b"from us");
    zone.close().unwrap();
    let Some(output) = tool("mtype", &["-i", text(&path), "::client/A long name.txt"]) else { return };
    assert_eq!(output.stdout, b"from us");
    std::fs::write(dir.path().join("theirs"), noise(9, 70_000)).unwrap();
    tool("mmd", &["-i", text(&path), "::made by mtools"]).unwrap();
    let from = dir.path().join("theirs");
    let copied = tool("mcopy", &["-i", text(&path), text(&from), "::made by mtools/Their File"]).unwrap();
    assert!(copied.status.success());
    let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
    assert_eq!(get(&zone, "made by mtools/their file").unwrap(), noise(9, 70_000));
    put(&zone, "made by mtools/ours", b"!");
    assert!(zone.remove("made by mtools/Their File").unwrap());
    zone.close().unwrap();
    assert_sound(&path);
}

#[test]
fn nothing_is_written_before_the_first_change() {
    SMALL.into_iter().for_each(nothing_before_the_first_change);
}

fn nothing_before_the_first_change(mib: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    put(&zone, "f", b"f");
    zone.close().unwrap();
    let before = std::fs::read(&path).unwrap();
    let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
    get(&zone, "f").unwrap();
    zone.free_bytes().unwrap();
    zone.metadata("none").unwrap();
    zone.remove("none").unwrap();
    zone.close().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn file_zones_have_a_fixed_length() {
    let dir = tempfile::tempdir().unwrap();
    let mut zone = FileZone::create_new(&dir.path().join("x"), 100).unwrap();
    zone.seek(SeekFrom::Start(98)).unwrap();
    assert_eq!(zone.write(&[1; 5]).unwrap(), 2);
    assert_eq!(zone.write(&[1; 5]), Err(ZoneError::OutOfBounds));
    assert_eq!(zone.len().unwrap(), 100);
    assert_eq!(zone.read(&mut [0; 5]).unwrap(), 0);
}
