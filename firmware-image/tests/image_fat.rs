//! The raw FAT zone against the tools that users have, and against damage.
#![cfg(all(feature = "image", feature = "sim"))]

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};

use embedded_io::{Read as _, Seek as _, SeekFrom, Write as _};
use firmware_image::free_zone::Kind;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::fat::{FormatOptions, RawFat, format};
use firmware_image::sim::figures;
use firmware_image::{FreeZone, RawZone as _, ZoneError, ZoneFile};

const MIB: u64 = 1 << 20;
/// A volume of FAT16 and one of FAT32, both with clusters of 512 bytes.
const SMALL: [u64; 2] = [4, 40];

/// The tables of a volume, by its boot sector.
struct Tables {
    start: usize,
    bytes: usize,
    entry_bytes: usize,
}

impl Tables {
    fn of(raw: &[u8]) -> Self {
        let start = usize::from(u16::from_le_bytes([raw[14], raw[15]])) * 512;
        match usize::from(u16::from_le_bytes([raw[22], raw[23]])) {
            0 => {
                let sectors = u32::from_le_bytes([raw[36], raw[37], raw[38], raw[39]]) as usize;
                Self { start, bytes: sectors * 512, entry_bytes: 4 }
            }
            sectors => Self { start, bytes: sectors * 512, entry_bytes: 2 },
        }
    }

    fn end(&self) -> usize {
        self.start + 2 * self.bytes
    }
}

/// Runs a tool, or says once that it is missing.
fn tool(name: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(name).args(arguments).env("MTOOLS_SKIP_CHECK", "1").env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => Some(output),
        Err(_) => {
            figures::skipped(&format!("{name} is not installed"));
            None
        }
    }
}

/// A directory in memory where the host has one: the sweeps flush thousands of times.
fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn volume(path: &Path, bytes: u64) -> RawFat<FileZone> {
    let mut zone = FileZone::create_new(path, bytes).unwrap();
    let options = FormatOptions { label: *b"HOLDFAST   ", volume_id: 0x1234_5678, hidden_sectors: 8192 };
    format(&mut zone, &options).unwrap();
    RawFat::open(zone, false).unwrap()
}

fn put<Z: FreeZone>(zone: &Z, path: &str, bytes: &[u8]) {
    let mut file = zone.create(path).unwrap();
    file.write_all(bytes).unwrap();
}

fn get<Z: FreeZone>(zone: &Z, path: &str) -> Option<Vec<u8>> {
    let mut file = zone.open(path).unwrap()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(file.read(&mut [0; 1]).unwrap(), 0);
    Some(bytes)
}

fn names<Z: FreeZone>(zone: &Z, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    zone.list(path, &mut |name, _| {
        names.push(name.to_owned());
        ControlFlow::Continue(())
    })
    .unwrap();
    names.sort();
    names
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn assert_sound(path: &Path) {
    if let Some(said) = fsck(path) {
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

/// What is said of a volume without errors.
fn fsck(path: &Path) -> Option<String> {
    let output = tool("fsck.vfat", &["-n", text(path)])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    Some(said)
}

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
fn an_entry_of_the_table_that_leads_nowhere_keeps_no_file_from_being_written() {
    let dir = fast_dir();
    for mib in SMALL {
        let path = dir.path().join(format!("{mib}"));
        volume(&path, mib * MIB).close().unwrap();
        let mut raw = std::fs::read(&path).unwrap();
        let tables = Tables::of(&raw);
        for table in [tables.start, tables.start + tables.bytes] {
            // Of no file: a chain that nobody has any more.
            let entry = &mut raw[table + 20 * tables.entry_bytes..][..tables.entry_bytes];
            entry.copy_from_slice(&0x0FFF_DFFF_u32.to_le_bytes()[..tables.entry_bytes]);
        }
        std::fs::write(&path, &raw).unwrap();
        let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
        for n in 0..20 {
            put(&zone, &format!("file {n}"), &[n; 5000]);
        }
        for n in 0..20 {
            assert_eq!(get(&zone, &format!("file {n}")).as_deref(), Some(&[n; 5000][..]), "{mib} MiB");
        }
        zone.close().unwrap();
    }
}

#[test]
fn a_volume_without_a_copy_is_refused_where_its_boot_sector_leads_elsewhere_and_not_for_damage_of_one_place() {
    use firmware_image::boot_sector::{Finding, Geometry, Root, examine};
    let dir = fast_dir();
    let path = dir.path().join("volume");
    let zone = volume(&path, 16 * MIB);
    for name in ["client/data/a.bin", ".holdfast/log", "letters/mine.txt"] {
        put(&zone, name, &[7; 5000]);
    }
    zone.close().unwrap();
    let sound = std::fs::read(&path).unwrap();
    let geometry = |raw: &[u8]| Geometry::parse(raw[..512].try_into().unwrap(), 16 * MIB);
    let opens = |raw: &[u8]| {
        std::fs::write(&path, raw).unwrap();
        RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).map(drop)
    };
    let places = |of: &Geometry| (of.cluster_bytes, of.fat_start, of.fat_bytes, of.data_start, of.root);
    let found = || examine(&mut FileZone::open(&path, Access::ReadOnly).unwrap()).unwrap();
    let own = geometry(&sound).unwrap();
    let Root::Fixed { start: root, .. } = own.root else { panic!("{own:?}") };
    let mut refused = 0;
    for (at, bit) in (11..36).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut raw = sound.clone();
        raw[at] ^= 1 << bit;
        let leads_elsewhere = geometry(&raw).is_ok_and(|found| places(&found) != places(&own));
        let opened = opens(&raw);
        let what = format!("byte {at}, bit {bit}: {opened:?}, {:?}", found());
        assert!(!leads_elsewhere || opened == Err(ZoneError::Corrupt) && found() == Finding::Neither, "{what}");
        refused += usize::from(leads_elsewhere);
    }
    assert!(refused > 10, "{refused}");
    for place in [own.fat_start, own.fat_start + own.fat_bytes, root, own.data_start] {
        for fill in [0, 0xFF] {
            let mut raw = sound.clone();
            raw[place as usize..][..512].fill(fill);
            assert_eq!(opens(&raw), Ok(()), "{fill:#x} at {place}");
        }
    }
    // The first directory of a volume, whose cluster a cut kept from the medium.
    let path = dir.path().join("new");
    let zone = volume(&path, 16 * MIB);
    put(&zone, "client/run.sh", b"new");
    zone.close().unwrap();
    let mut raw = std::fs::read(&path).unwrap();
    raw[own.data_start as usize..][..4096].fill(0);
    assert_eq!(opens(&raw), Ok(()));
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
fn a_volume_that_claims_more_than_its_zone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    volume(&path, 40 * MIB).close().unwrap();
    let mut zone = FileZone::open(&path, Access::ReadWrite).unwrap();
    zone.set_len(39 * MIB).unwrap();
    assert_eq!(RawFat::open(zone, false).err(), Some(ZoneError::Corrupt));
}

#[test]
fn a_file_whose_chain_is_broken_cannot_be_read_but_can_be_replaced() {
    SMALL.into_iter().for_each(broken_chain);
}

fn broken_chain(mib: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    put(&zone, "updater", &noise(5, 20_000));
    zone.close().unwrap();
    let raw = std::fs::read(&path).unwrap();
    let entry = raw.windows(11).position(|name| name == b"UPDATER    ").unwrap();
    let clusters = match Tables::of(&raw).entry_bytes {
        2 => [1u32, 0xFFF7, 0xFFFF, 60_000, 9],
        _ => [1u32, 0x0FFF_FFF7, 0xFFFF_FFFF, 70_000_000, 9],
    };
    for cluster in clusters {
        let mut bytes = raw.clone();
        // Where FAT16 has whatever some system wanted there.
        let high = if mib == SMALL[0] { 0xABCD } else { (cluster >> 16) as u16 };
        bytes[entry + 20..entry + 22].copy_from_slice(&high.to_le_bytes());
        bytes[entry + 26..entry + 28].copy_from_slice(&(cluster as u16).to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
        if cluster != 9 {
            assert_eq!(zone.open("updater").err(), Some(ZoneError::Corrupt), "{cluster}");
        }
        put(&zone, "updater.new", b"good");
        zone.rename("updater.new", "updater").unwrap();
        assert_eq!(get(&zone, "updater").unwrap(), b"good");
        zone.close().unwrap();
    }
}

/// A directory or file that was being lengthened when its table's new end was cut off: its last old cluster leads to a free
/// one. What it had before is there, and it can be lengthened again, or go.
#[test]
fn a_chain_that_leads_to_a_free_cluster_ends_before_it() {
    SMALL.into_iter().for_each(chain_to_a_free_cluster);
}

fn chain_to_a_free_cluster(mib: u64) {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    zone.create_dir_all("full").unwrap();
    // A cluster of 512 bytes: the two dots, and seven names of two entries each.
    for number in 0..7 {
        put(&zone, &format!("full/a long name {number:x}"), &noise(number, 300));
    }
    put(&zone, "spool", &noise(9, 512));
    zone.close().unwrap();
    let before = std::fs::read(&path).unwrap();
    let Tables { start, bytes: length, entry_bytes } = Tables::of(&before);
    let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
    for number in 7..11 {
        put(&zone, &format!("full/a long name {number:x}"), b"");
    }
    let mut spool = zone.open_rw("spool").unwrap();
    spool.set_len(2000).unwrap();
    drop(spool);
    zone.close().unwrap();
    let mut raw = std::fs::read(&path).unwrap();
    // Every cluster that was free before is free again: only the old ends still lead there.
    let mut cut = 0;
    for table in [start, start + length] {
        for at in (table..table + length).step_by(entry_bytes) {
            let entry = at..at + entry_bytes;
            if before[entry.clone()] == [0; 4][..entry_bytes] && raw[entry.clone()] != [0; 4][..entry_bytes] {
                raw[entry].fill(0);
                cut += 1;
            }
        }
    }
    assert!(cut >= 6, "{cut}");
    // The entry is written after the table.
    let entry = |bytes: &[u8]| bytes.windows(11).position(|name| name == b"SPOOL      ").unwrap();
    let place = entry(&raw) + 28;
    raw[place..place + 4].copy_from_slice(&before[entry(&before) + 28..][..4]);
    // Nobody unmounted it, which stays noted until somebody runs fsck.
    let state = if entry_bytes == 2 { 37 } else { 65 };
    raw[state] |= 1;
    std::fs::write(&path, &raw).unwrap();
    let assert_no_errors_but_for_the_mark = || {
        let mut found = std::fs::read(&path).unwrap();
        assert_eq!(found[state], 1);
        found[state] = 0;
        if entry_bytes == 4 {
            // The summary of such a volume counts for nothing.
            found[1000..1008].fill(0xFF);
        }
        let copy = dir.path().join("copy");
        std::fs::write(&copy, found).unwrap();
        fsck(&copy);
    };

    let zone = RawFat::open(FileZone::open(&path, Access::ReadOnly).unwrap(), true).unwrap();
    assert_eq!(names(&zone, "full").len(), 7);
    assert_eq!(get(&zone, "spool").unwrap(), noise(9, 512));
    drop(zone);
    let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
    for number in 7..14 {
        put(&zone, &format!("full/a long name {number:x}"), &noise(number, 300));
    }
    let mut spool = zone.open_rw("spool").unwrap();
    spool.seek(SeekFrom::End(0)).unwrap();
    spool.write_all(&noise(10, 900)).unwrap();
    drop(spool);
    for number in 0..14 {
        assert_eq!(get(&zone, &format!("full/a long name {number:x}")).unwrap(), noise(number, 300));
    }
    assert_eq!(get(&zone, "spool").unwrap(), [noise(9, 512), noise(10, 900)].concat());
    zone.close().unwrap();
    assert_no_errors_but_for_the_mark();
    std::fs::write(&path, &raw).unwrap();
    let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
    assert!(zone.remove("spool").unwrap());
    for number in 0..7 {
        assert!(zone.remove(&format!("full/a long name {number:x}")).unwrap());
    }
    assert!(zone.remove("full").unwrap());
    zone.close().unwrap();
    assert_no_errors_but_for_the_mark();
}

#[test]
fn what_stands_behind_the_end_of_a_directory_does_not_come_back() {
    SMALL.into_iter().for_each(behind_the_end);
}

fn behind_the_end(mib: u64) {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    put(&zone, "d/A", b"a");
    zone.close().unwrap();
    let mut raw = std::fs::read(&path).unwrap();
    let a = raw.windows(11).position(|name| name == b"A          ").unwrap();
    let mut stale: [u8; 32] = raw[a..a + 32].try_into().unwrap();
    stale[0] = b'Z';
    raw[a + 64..a + 96].copy_from_slice(&stale);
    std::fs::write(&path, raw).unwrap();
    let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
    assert_eq!(names(&zone, "d"), ["A"]);
    for name in ["d/B", "d/C", "d/D"] {
        put(&zone, name, b"new");
    }
    assert_eq!(names(&zone, "d"), ["A", "B", "C", "D"]);
    zone.close().unwrap();
    assert_sound(&path);
}

#[test]
fn a_directory_that_was_never_written_is_damaged_and_can_be_removed() {
    SMALL.into_iter().for_each(never_written);
}

fn never_written(mib: u64) {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let zone = volume(&path, mib * MIB);
    zone.create_dir_all("SOUND").unwrap();
    put(&zone, "SOUND/file", &noise(3, 3000));
    zone.create_dir_all("FRESH").unwrap();
    zone.close().unwrap();
    let mut raw = std::fs::read(&path).unwrap();
    let entry = |raw: &[u8], name: &[u8]| raw.windows(11).position(|found| found == name).unwrap();
    let cluster = |raw: &[u8], at: usize| u16::from_le_bytes([raw[at + 26], raw[at + 27]]);
    let fresh = entry(&raw, b"FRESH      ");
    let data = entry(&raw, b".          ") - 512 * usize::from(cluster(&raw, entry(&raw, b"SOUND      ")));
    let place = data + 512 * usize::from(cluster(&raw, fresh));
    assert_eq!(&raw[place..place + 11], b".          ");
    // What was there before: a directory of other files.
    let other = data + 512 * usize::from(cluster(&raw, entry(&raw, b"SOUND      ")));
    raw.copy_within(other..other + 512, place);
    std::fs::write(&path, raw).unwrap();
    let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
    let listed = zone.list("FRESH", &mut |_, _| ControlFlow::Continue(()));
    assert_eq!(listed, Err(ZoneError::Corrupt));
    assert_eq!(zone.open("FRESH/file").err(), Some(ZoneError::Corrupt));
    assert!(zone.remove("FRESH").unwrap());
    assert!(!zone.remove("FRESH").unwrap());
    put(&zone, "FRESH/file", b"new");
    assert_eq!(get(&zone, "SOUND/file").unwrap(), noise(3, 3000));
    assert_eq!(get(&zone, "FRESH/file").unwrap(), b"new");
    zone.close().unwrap();
}

/// All of these may fail; none may panic, hang or leave the zone.
fn use_everything(zone: &RawFat<FileZone>) {
    let mut paths = vec![String::new()];
    let mut visited = 0;
    while let Some(path) = paths.pop() {
        visited += 1;
        if visited > 50 {
            break;
        }
        let _ = zone.list(&path, &mut |name, metadata| {
            let full = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            if metadata.kind == Kind::Directory {
                paths.push(full);
            } else if let Ok(Some(mut file)) = zone.open(&full) {
                let mut buf = [0; 4096];
                for _ in 0..64 {
                    if !matches!(file.read(&mut buf), Ok(n) if n > 0) {
                        break;
                    }
                }
            }
            ControlFlow::Continue(())
        });
    }
    let _ = zone.free_bytes();
    if let Ok(mut file) = zone.create("dir/made after damage.bin") {
        let _ = file.write_all(&[1; 5000]);
        let _ = file.flush();
    }
    if let Ok(mut file) = zone.open_rw("dir/file two.txt") {
        let _ = file.seek(SeekFrom::End(0)).map(|_| file.write_all(&[2; 9000]));
        let _ = file.set_len(10);
    }
    let _ = zone.create_dir_all("dir/new/er");
    let _ = zone.rename("dir/file two.txt", "a");
    let _ = zone.remove("a");
    let _ = zone.remove("dir/sub/leaf");
    let _ = zone.sync_dir("dir");
}

/// A small, used volume, and the offsets of its bytes worth damaging.
fn victim(path: &Path, mib: u64) -> (Vec<u8>, Vec<usize>) {
    let zone = volume(path, mib * MIB);
    put(&zone, "a", &noise(1, 3000));
    put(&zone, "dir/file two.txt", &noise(2, 6000));
    put(&zone, "dir/sub/leaf", b"leaf");
    zone.close().unwrap();
    let raw = std::fs::read(path).unwrap();
    let tables = Tables::of(&raw);
    let mut offsets: Vec<usize> = (0..96).chain(508..512).chain(512..516).chain(996..1024).collect();
    offsets.extend(tables.start..tables.start + tables.entry_bytes * 48);
    // Root, directories, files: FAT16's root has 32 sectors.
    offsets.extend((tables.end()..tables.end() + 56 * 512).filter(|&at| raw[at] != 0));
    (raw, offsets)
}

#[test]
fn no_flipped_byte_makes_it_panic_hang_or_write_outside() {
    SMALL.into_iter().for_each(no_flipped_byte);
}

fn no_flipped_byte(mib: u64) {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let (raw, offsets) = victim(&path, mib);
    let mut cases = 0;
    for at in offsets {
        // File contents need no sweep.
        if raw[at..].starts_with(b"leaf") {
            continue;
        }
        // Each field of the boot sector matters in more than one way; elsewhere one flip a byte, another for each.
        let all = [0x01, 0xFF, 0x80, 0x10];
        let flips = if at < 1024 { &all[..2] } else { &all[at % 4..at % 4 + 1] };
        for flip in flips {
            let mut file = FileZone::open(&path, Access::ReadWrite).unwrap();
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&[raw[at] ^ flip]).unwrap();
            if let Ok(zone) = RawFat::open(file, false) {
                use_everything(&zone);
                drop(zone);
            }
            restore(&path, &raw);
            cases += 1;
        }
    }
    assert!(cases > 500, "{cases}");
}

#[test]
fn random_bytes_in_tables_and_directories_make_no_panic() {
    SMALL.into_iter().for_each(random_bytes);
}

fn random_bytes(mib: u64) {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let (raw, offsets) = victim(&path, mib);
    for round in 0..100u64 {
        let mut file = FileZone::open(&path, Access::ReadWrite).unwrap();
        let random = noise(round * 2 + 1, 64);
        // The boot sector stays, or most volumes would not open at all.
        let from = offsets.iter().position(|&at| at > 1024).unwrap();
        for pair in random.chunks_exact(4) {
            let pick = usize::from(u16::from_le_bytes([pair[0], pair[1]])) % (offsets.len() - from) + from;
            file.seek(SeekFrom::Start(offsets[pick] as u64)).unwrap();
            file.write_all(&pair[2..]).unwrap();
        }
        if let Ok(zone) = RawFat::open(file, false) {
            use_everything(&zone);
        }
        restore(&path, &raw);
    }
}

/// Puts the first megabytes back, where everything that a round touches stands.
fn restore(path: &Path, raw: &[u8]) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(&raw[..raw.len().min(2 << 20)]).unwrap();
}

#[test]
fn a_name_with_path_characters_is_neither_file_nor_directory_and_never_the_way_to_another() {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let zone = volume(&path, 40 * MIB);
    put(&zone, "client/app/file.txt", b"the real one");
    for name in ["app+file.txt", "back+slash", "co+lon", "con+trol", "+planted dir/inner"] {
        put(&zone, &format!("client/{name}"), b"planted");
    }
    zone.close().unwrap();
    let mut raw = std::fs::read(&path).unwrap();
    for (name, with) in
        [("app+file", '/'), ("back+slas", '\\'), ("co+lon", ':'), ("con+trol", '\u{7}'), ("+planted dir", '/')]
    {
        // Units of a long name: 1–5 of an entry stand before its attributes, and each `+` here is among them.
        let head: Vec<u8> = name.encode_utf16().take(5).flat_map(u16::to_le_bytes).collect();
        let at = raw.windows(10).position(|window| window == head).unwrap();
        let plus = name.find('+').unwrap();
        raw[at + 2 * plus] = with as u8;
    }
    std::fs::write(&path, &raw).unwrap();
    let zone = RawFat::open(FileZone::open(&path, Access::ReadWrite).unwrap(), false).unwrap();
    let mut listed = Vec::new();
    zone.list("client", &mut |name, metadata| {
        listed.push((name.to_owned(), metadata.kind));
        ControlFlow::Continue(())
    })
    .unwrap();
    let others: Vec<_> = listed.iter().filter(|(_, kind)| *kind == Kind::Other).collect();
    assert_eq!((listed.len(), others.len()), (6, 5), "{listed:?}");
    assert!(listed.contains(&("app".into(), Kind::Directory)), "{listed:?}");
    for (name, _) in others {
        let barred = name.contains(['/', '\\', ':']) || name.chars().any(char::is_control);
        assert!(!barred && !name.is_empty(), "{name:?}");
    }
    assert_eq!(get(&zone, "client/app/file.txt").unwrap(), b"the real one");
}

#[test]
fn directory_loops_end() {
    SMALL.into_iter().for_each(loops);
}

fn loops(mib: u64) {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let (raw, _) = victim(&path, mib);
    let Tables { start, entry_bytes, .. } = Tables::of(&raw);
    for (cluster, next) in [(2, 2u32), (3, 3), (4, 4), (4, 2), (5, 4)] {
        let mut file = FileZone::open(&path, Access::ReadWrite).unwrap();
        file.seek(SeekFrom::Start((start + cluster * entry_bytes) as u64)).unwrap();
        file.write_all(&next.to_le_bytes()[..entry_bytes]).unwrap();
        let zone = RawFat::open(file, false).unwrap();
        use_everything(&zone);
        drop(zone);
        restore(&path, &raw);
    }
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

#[test]
fn a_boot_sector_that_names_other_places_than_its_copy_is_not_believed() {
    let dir = fast_dir();
    let path = dir.path().join("x");
    let zone = volume(&path, 1024 * MIB);
    put(&zone, "client/app", &noise(3, 200_000));
    zone.close().unwrap();
    let sound = std::fs::read(&path).unwrap();
    // Cluster size, reserved sectors, number and length of the tables, root directory; in the boot sector and in its copy.
    let places = (13..17).chain(36..40).chain(44..48);
    let mut believed = 0;
    for (at, bit) in places.flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        for sector in [0, 6 * 512] {
            let mut damaged = sound[..8192].to_vec();
            damaged[sector + at] ^= 1 << bit;
            let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            std::io::Write::write_all(&mut file, &damaged).unwrap();
            let opened = RawFat::open(FileZone::open(&path, Access::ReadOnly).unwrap(), true);
            match (sector, opened) {
                (0, Ok(_)) => panic!("byte {at}, bit {bit}"),
                (0, Err(error)) => assert_eq!(error, ZoneError::Corrupt),
                (_, opened) => {
                    assert_eq!(get(&opened.unwrap(), "client/app").unwrap(), noise(3, 200_000), "byte {at}, bit {bit}");
                    believed += 1;
                }
            }
        }
    }
    assert_eq!(believed, 12 * 8);
}
