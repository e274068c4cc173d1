//! Files of a raw free zone whose chain of clusters a cut has broken: they count as missing, and are written anew.

mod common;

use std::path::Path;

use common::{NOW, TestLauncher, World, first, noise, temporary};
use embedded_io::{Seek as _, SeekFrom, Write as _};
use firmware_image::free_zone::FreeZone as _;
use firmware_image::host::{Access, DirZone};
use firmware_image::image::build::{Layout, stick};
use firmware_image::image::gpt::Guids;
use firmware_image::image::iso::{IsoFile, Source};
use firmware_image::image::{AnyFreeZone, Device};
use firmware_image::launcher_note::LauncherNote;
use firmware_image::storage::read_exact_at;
use firmware_image::{Digest, RawZone, ZoneError, paths};
use release_store::frame::{FrameId, FrameKind};
use release_store::trust::TrustCache as _;
use updater::spool::{MAX_FRAMES, SPOOL, Spool};
use updater::trust_cache::ZoneTrustCache;
use updater::{Action, hash, log, misnamed, zone_io};

/// An image with a formatted free zone.
fn image(dir: &Path) -> std::path::PathBuf {
    let image = dir.join("device.img");
    let layout = Layout {
        disk_bytes: 96 << 20,
        leave_bytes: 0,
        hidden_bytes: 16 << 20,
        product: "Testbird".into(),
        volume_id: 7,
        guids: Guids { disk: [1; 16], partitions: [[2; 16], [3; 16], [4; 16]] },
        timestamp: NOW,
    };
    stick(&image, &layout, &[IsoFile::new("device.cfg", Source::Bytes(vec![1].into()))]).unwrap();
    image
}

fn open(image: &Path) -> (Device, AnyFreeZone) {
    let device = Device::open(image, None, Access::ReadWrite).unwrap();
    let free = device.free_zone().unwrap();
    (device, free)
}

/// The allocation tables of a free zone: where, and the bytes.
fn tables(zone: &mut impl RawZone) -> (u64, Vec<u8>) {
    let mut boot = [0; 512];
    read_exact_at(zone, 0, &mut boot).unwrap();
    let start = u64::from(u16::from_le_bytes([boot[14], boot[15]])) * 512;
    let sectors = u32::from_le_bytes([boot[36], boot[37], boot[38], boot[39]]);
    let mut bytes = vec![0; sectors as usize * 512 * usize::from(boot[16])];
    read_exact_at(zone, start, &mut bytes).unwrap();
    (start, bytes)
}

/// Writes files, and then takes the tables back to what they were before: the entries lead to clusters that are free.
fn broken(image: &Path, files: &[(&str, &[u8])]) {
    let (device, free) = open(image);
    // The directories stay sound.
    for (path, _) in files {
        free.create_dir_all(zone_io::parent(path)).unwrap();
    }
    free.close().unwrap();
    let (start, before) = tables(&mut device.free_raw().unwrap());
    let free = device.free_zone().unwrap();
    for (path, bytes) in files {
        zone_io::write_durable(&free, path, bytes).unwrap();
    }
    free.close().unwrap();
    let mut raw = device.free_raw().unwrap();
    raw.seek(SeekFrom::Start(start)).unwrap();
    raw.write_all(&before).unwrap();
    raw.flush().unwrap();
    let free = device.free_zone().unwrap();
    for (path, _) in files {
        assert_eq!(free.open(path).err(), Some(ZoneError::Corrupt), "{path}");
    }
}

#[test]
fn a_broken_file_is_not_what_was_wanted_and_is_no_source() {
    let dir = temporary();
    let image = image(dir.path());
    let content = noise(1, 9_000);
    let (length, digest) = (content.len() as u64, Digest::of(&content));
    broken(&image, &[("client/a", &content)]);
    let (_device, free) = open(&image);
    assert!(!zone_io::file_is(&free, "client/a", length, &digest).unwrap());
    assert_eq!(zone_io::read_small(&free, "client/a", 1 << 20).unwrap(), None);
    let copied = zone_io::copy_checked(&free, "client/a", "client/b", length, &digest, &|_| {}).unwrap();
    assert_eq!(copied, zone_io::Copied::WrongSource);
    zone_io::write_durable(&free, "source", &content).unwrap();
    let copied = zone_io::copy_checked(&free, "source", "client/a", length, &digest, &|_| {}).unwrap();
    assert_eq!(copied, zone_io::Copied::Whole);
    assert!(zone_io::file_is(&free, "client/a", length, &digest).unwrap());
}

#[test]
fn what_is_broken_is_removed_and_nothing_else() {
    let dir = temporary();
    let image = image(dir.path());
    broken(&image, &[("own/broken", &noise(7, 5_000)), ("own/theirs", &noise(8, 5_000))]);
    let (_device, free) = open(&image);
    zone_io::write_durable(&free, "own/sound", b"sound").unwrap();
    zone_io::remove_broken(&free, "own", |name| name != "theirs").unwrap();
    zone_io::remove_broken(&free, "missing", |_| true).unwrap();
    let names: Vec<String> = zone_io::files_in(&free, "own").unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["theirs", "sound"]);
}

#[test]
fn a_broken_spool_is_empty_and_takes_frames_again() {
    let dir = temporary();
    let image = image(dir.path());
    broken(&image, &[(SPOOL, &noise(2, 9_000))]);
    let (_device, free) = open(&image);
    let mut spool = Spool::open(&free).unwrap();
    assert!(spool.is_empty());
    let id = FrameId { kind: FrameKind::Chunk, digest: Digest::of(b"x"), raw_len: 500, stored_len: 500 };
    spool.append(&id, 1, &noise(3, 500)).unwrap();
    spool.sync().unwrap();
    drop(spool);
    assert!(Spool::open(&free).unwrap().contains(&id.digest));
}

#[test]
fn a_broken_log_a_broken_note_and_broken_metadata_are_made_anew() {
    let dir = temporary();
    let image = image(dir.path());
    let cached = format!("{}/timestamp.json", paths::TRUST_DIR);
    broken(&image, &[(paths::LOG, &noise(4, 900)), (paths::LAUNCHER_NOTE, &noise(5, 1024)), (&cached, &noise(6, 900))]);
    let (_device, free) = open(&image);
    log::append(&free, NOW, &["note it goes on".into()]).unwrap();
    assert_eq!(log::tail(&free, 9).unwrap().len(), 1);
    let mut note = LauncherNote::read(&free).unwrap();
    assert_eq!(note, LauncherNote::default());
    note.add_failed(Digest::of(b"y"));
    note.write(&free).unwrap();
    assert_eq!(LauncherNote::read(&free).unwrap(), note);
    let cache = ZoneTrustCache { zone: &free, read_only: false };
    assert_eq!(cache.load("timestamp.json"), None);
    // It is gone: the next start does not stumble over it again.
    assert_eq!(free.metadata(&cached).unwrap(), None);
}

/// Anybody can write to the free zone, also a spool that is all entries.
#[test]
fn a_planted_spool_takes_no_more_memory_than_a_release_needs() {
    let entry = |number: u32, frame: &[u8]| {
        let mut entry = Digest::of(&number.to_le_bytes()).0.to_vec();
        for word in [1, frame.len() as u32, 1] {
            entry.extend_from_slice(&word.to_le_bytes());
        }
        let check = Digest::of(&[&entry, frame].concat());
        entry.extend_from_slice(&check.0[..16]);
        entry.extend_from_slice(frame);
        entry
    };
    let dir = temporary();
    let zone = DirZone::open(dir.path()).unwrap();
    let open = |entries: &mut dyn Iterator<Item = Vec<u8>>| {
        zone.create_dir_all(zone_io::parent(SPOOL)).unwrap();
        let mut bytes = b"HOLDSPL1".to_vec();
        entries.for_each(|entry| bytes.extend_from_slice(&entry));
        std::fs::write(dir.path().join(SPOOL), bytes).unwrap();
        Spool::open(&zone).unwrap()
    };
    assert_eq!(open(&mut (0..3).map(|number| entry(number, b"x"))).len(), 3);
    assert_eq!(open(&mut (0..3).map(|number| entry(number, b""))).len(), 0, "frames of nothing");
    let planted = MAX_FRAMES as u32 + 3;
    assert_eq!(open(&mut (0..planted).map(|number| entry(number, b"x"))).len(), MAX_FRAMES);
}

/// Damages the long names, as they begin, of what stands in the free zone of `image`: the byte at `place` of their entries.
fn misname(image: &Path, beginnings: &[&str], place: u64) {
    let (device, free) = open(image);
    free.close().unwrap();
    let mut raw = device.free_raw().unwrap();
    let mut bytes = vec![0; 8 << 20];
    read_exact_at(&mut raw, 0, &mut bytes).unwrap();
    for beginning in beginnings {
        let utf16: Vec<u8> = beginning.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let is_long_name = |entry: &[u8]| entry[11] == 0x0f && entry[0] & 0x40 != 0 && entry[1..].starts_with(&utf16);
        let at = bytes.chunks(32).position(is_long_name).unwrap() as u64 * 32;
        raw.seek(SeekFrom::Start(at + place)).unwrap();
        raw.write_all(b"z").unwrap();
    }
    raw.flush().unwrap();
}

fn names(free: &AnyFreeZone, directory: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut visit = |name: &str, _| {
        names.push(name.to_owned());
        std::ops::ControlFlow::Continue(())
    };
    free.list(directory, &mut visit).unwrap();
    names.sort();
    names
}

#[test]
fn files_and_directories_under_a_damaged_name_get_their_own_back() {
    let dir = temporary();
    let image = image(dir.path());
    let files = ["client/data.bin", "client/deep/inner.bin", "client/whole.bin"];
    let (device, free) = open(&image);
    for (seed, path) in (1..).zip(files) {
        free.create_dir_all(zone_io::parent(path)).unwrap();
        zone_io::write_durable(&free, path, &noise(seed, 5000)).unwrap();
    }
    free.close().unwrap();
    drop(device);
    /// Of the third letter, and of the checksum: without it only the short name is left.
    const PLACES: [(u64, [&str; 3]); 2] =
        [(5, ["daza.bin", "dezp", "whole.bin"]), (13, ["DATA.BIN", "DEEP", "whole.bin"])];
    for (place, wrong) in PLACES {
        misname(&image, &["data.", "deep", "inner"], place);
        names_come_back(&image, &wrong, &files);
    }
}

fn names_come_back(image: &Path, wrong: &[&str], files: &[&str]) {
    let (device, free) = open(image);
    let mut wrong = wrong.to_vec();
    wrong.sort_unstable();
    assert_eq!(names(&free, "client"), wrong);
    let wanted = ["data.bin", "deep/inner.bin", "gone.bin"];
    let found = misnamed::find(&free, wanted.into_iter(), true).unwrap();
    assert!(found.len() >= 2, "{found:?}");
    for path in &found {
        misnamed::mend(&free, path).unwrap();
    }
    // What stands in a directory under a wrong name is seen when that has its own.
    for path in misnamed::find(&free, wanted.into_iter(), true).unwrap() {
        misnamed::mend(&free, &path).unwrap();
    }
    assert!(misnamed::find(&free, wanted.into_iter(), true).unwrap().is_empty());
    free.close().unwrap();
    drop(device);
    let (_device, free) = open(image);
    assert_eq!(names(&free, "client"), ["data.bin", "deep", "whole.bin"]);
    assert_eq!(names(&free, "client/deep"), ["inner.bin"]);
    for (seed, path) in (1..).zip(files) {
        assert!(zone_io::file_is(&free, path, 5000, &Digest::of(&noise(seed, 5000))).unwrap(), "{path}");
    }
}

/// The whole way, on a raw volume: a program, a directory, and a file that is the user's own by pattern.
#[test]
fn a_start_gives_names_back_without_a_server_and_then_rests() {
    const DIRECTORIES: [&str; 3] = ["client", "client/app", "client/saves"];
    let dir = temporary();
    let image = image(dir.path());
    let world = World::new();
    let mut files = first();
    files.push(("saves/settings.ini", b"factory settings".to_vec()));
    world.publish_with("1.0.0", &files, |request| request.ignore = vec!["saves/**".into()]);
    let server = world.serve();
    let run = |servers: &[&str]| {
        let (_device, free) = open(&image);
        let outcome = world
            .setup(servers)
            .run_on(&free, hash::sequential, |engine| engine.run(&mut TestLauncher::default()).unwrap());
        free.close().unwrap();
        outcome
    };
    assert_eq!(run(&[&server.url()]).action, Action::Installed);
    let (device, free) = open(&image);
    zone_io::write_durable(&free, "client/saves/settings.ini", b"my settings").unwrap();
    let before: Vec<_> = DIRECTORIES.map(|directory| names(&free, directory)).into();
    free.close().unwrap();
    drop(device);
    run(&[]);
    for (place, beginning) in [(13, "setti"), (13, "saves"), (5, "saves"), (13, "big.b"), (5, "run.s"), (13, "run.s")] {
        misname(&image, &[beginning], place);
        let outcome = run(&[]);
        assert!(outcome.whole && outcome.alarms.iter().any(|alarm| alarm.contains("damaged name")), "{outcome:?}");
        let (device, free) = open(&image);
        assert_eq!(DIRECTORIES.map(|directory| names(&free, directory)).to_vec(), before, "{beginning}");
        let settings = zone_io::read_small(&free, "client/saves/settings.ini", 99).unwrap().unwrap();
        assert_eq!(settings, b"my settings");
        free.close().unwrap();
        drop(device);
        let outcome = run(&[]);
        assert!(outcome.alarms.is_empty() && outcome.action == Action::None, "{outcome:?}");
    }
}
