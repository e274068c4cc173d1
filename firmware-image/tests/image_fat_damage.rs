//! The raw FAT zone against damage.
#![cfg(all(feature = "image", feature = "sim"))]

mod volume;

use std::ops::ControlFlow;
use std::path::Path;

use embedded_io::{Read as _, Seek as _, SeekFrom, Write as _};
use firmware_image::free_zone::Kind;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::fat::{FormatOptions, RawFat, format};
use firmware_image::sim::{Faults, Medium, SimDisk};
use firmware_image::{FreeZone, ZoneError, ZoneFile};
use volume::*;

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
    // The label goes from a volume that another system formatted, or is not the first entry.
    let mut unlabelled = sound.clone();
    unlabelled[root as usize + 11] = 0x20;
    for (sound, is_labelled) in [(&sound, true), (&unlabelled, false)] {
        let mut refused = 0;
        for (at, bit) in (11..36).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut raw = sound.clone();
            raw[at] ^= 1 << bit;
            let leads_elsewhere = geometry(&raw).is_ok_and(|found| places(&found) != places(&own));
            let opened = opens(&raw);
            let what = format!("byte {at}, bit {bit}, {is_labelled}: {opened:?}, {:?}", found());
            assert!(!leads_elsewhere || opened == Err(ZoneError::Corrupt) && found() == Finding::Neither, "{what}");
            refused += usize::from(leads_elsewhere);
        }
        assert!(refused > 10, "{refused}");
        let mut raw = sound.clone();
        // One table: the root directory is said to be where the second is.
        raw[16] = 1;
        assert_eq!(opens(&raw), Err(ZoneError::Corrupt), "{is_labelled}");
        // Its first sector is what stands in a file.
        let mut raw = sound.clone();
        raw.copy_within(root as usize..root as usize + 16 * 512, root as usize + 8 * 512);
        raw[root as usize..][..512].copy_from_slice(&noise(1, 512));
        raw[root as usize + 11] = 0x08;
        raw[own.fat_start as usize + own.fat_bytes as usize] = 0;
        assert_eq!(opens(&raw), Err(ZoneError::Corrupt), "{is_labelled}");
        for place in [own.fat_start, own.fat_start + own.fat_bytes, root, own.data_start] {
            for fill in [0, 0xF6, 0xFF] {
                let mut raw = sound.clone();
                raw[place as usize..][..512].fill(fill);
                // Where nothing tells of the root directory, the table that is read has to.
                let tells = is_labelled || place != own.fat_start || fill == 0xFF;
                assert_eq!(opens(&raw).is_ok(), tells, "{fill:#x} at {place}, {is_labelled}");
            }
        }
        let mut raw = sound.clone();
        for table in [own.fat_start, own.fat_start + own.fat_bytes] {
            // Another mark of an end than ours.
            raw[table as usize + 2] = 0xF8;
        }
        assert_eq!(opens(&raw), Ok(()), "{is_labelled}");
    }
    // The first directory of a volume, whose cluster a cut kept from the medium.
    let path = dir.path().join("new");
    let zone = volume(&path, 16 * MIB);
    put(&zone, "client/run.sh", b"new");
    zone.close().unwrap();
    let mut raw = std::fs::read(&path).unwrap();
    let one = raw.clone();
    raw[own.data_start as usize..][..4096].fill(0);
    assert_eq!(opens(&raw), Ok(()));
    // One that is somewhere else; of two, the first is where it is whatever the length of clusters.
    let path = dir.path().join("two");
    let zone = volume(&path, 32 * MIB);
    put(&zone, "client/run.sh", b"new");
    put(&zone, "letters/mine.txt", b"mine");
    zone.close().unwrap();
    let two = std::fs::read(&path).unwrap();
    for (sound, bytes) in [(one, vec![17, 18]), (two, vec![13, 17, 18])] {
        let own = Geometry::parse(sound[..512].try_into().unwrap(), sound.len() as u64).unwrap();
        for at in bytes {
            let mut refused = 0;
            for value in 0..=0xFF {
                let mut raw = sound.clone();
                raw[at] = value;
                let found = Geometry::parse(raw[..512].try_into().unwrap(), raw.len() as u64);
                if found.is_ok_and(|found| places(&found) != places(&own)) {
                    assert_eq!(opens(&raw), Err(ZoneError::Corrupt), "byte {at}: {value:#x}");
                    refused += 1;
                }
            }
            assert!(refused > 0, "byte {at}");
        }
    }
}

#[test]
fn a_directory_that_cannot_be_read_keeps_no_volume_without_a_copy_from_being_opened() {
    let mut disk = SimDisk::new(Medium::zeros(16 * MIB));
    format(&mut disk, &FormatOptions { label: *b"HOLDFAST   ", volume_id: 7, hidden_sectors: 0 }).unwrap();
    let zone = RawFat::open(disk.clone(), false).unwrap();
    for name in ["client/a.bin", ".holdfast/log", "letters/mine.txt"] {
        put(&zone, name, &[7; 5000]);
    }
    zone.close().unwrap();
    // Behind the boot sector and the root directory.
    for read in 2..5 {
        let faults = Faults { bad_from: Some(read), ..Faults::default() };
        assert_eq!(RawFat::open(SimDisk::faulty(disk.medium(), faults), true).map(drop), Ok(()), "{read}");
    }
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
