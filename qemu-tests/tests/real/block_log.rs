//! The log of QEMU's `blklogwrites`, as QEMU itself writes it.

use std::fs;
use std::path::Path;
use std::process::Command;

use firmware_image::sim::figures;
use qemu_tests::block_log::{BlockLog, MAX_ENTRIES, Told};
use qemu_tests::replay::{Effort, Kind, Recording, State};
use xtask::{run, system};

const IMAGE_BYTES: usize = 4 << 20;

/// Has `qemu-io` do these commands on an image that is recorded: image before, image after, log. `None`: it is missing.
fn recorded(dir: &Path, commands: &[&str]) -> Option<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let Some(qemu_io) = system::find("qemu-io") else {
        figures::skipped("qemu-io is not installed (Debian package qemu-utils)");
        return None;
    };
    let before: Vec<u8> = (0..IMAGE_BYTES).map(|at| (at / 512 * 7 + at % 13) as u8).collect();
    let (image, log) = (dir.join("disk.img"), dir.join("disk.log"));
    fs::write(dir.join("before.img"), &before).unwrap();
    fs::write(&image, &before).unwrap();
    fs::write(&log, b"").unwrap();
    let options = format!(
        "driver=blklogwrites,discard=unmap,file.driver=file,file.discard=unmap,file.filename={},log.driver=file,log.filename={},\
         log-sector-size=512,log-super-update-interval=1",
        image.display(),
        log.display()
    );
    let mut qemu = Command::new(qemu_io);
    qemu.args(["--image-opts", "-t", "writeback", "-d", "unmap", &options]);
    for command in commands {
        qemu.args(["-c", command]);
    }
    run::text(&mut qemu).unwrap();
    Some((before, fs::read(&image).unwrap(), fs::read(&log).unwrap()))
}

const COMMANDS: &[&str] = &[
    "write -P 0x11 0 4k",
    "write -P 0x22 64k 100k",
    "flush",
    "write -f -P 0x33 2k 4k",
    "write -z 1M 64k",
    "discard 3M 128k",
    "write -P 0x44 66k 512",
    "flush",
    "write -P 0x55 4095k 1k",
];

#[test]
fn what_qemu_recorded_makes_the_same_image_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some((mut image, after, log)) = recorded(dir.path(), COMMANDS) else { return };
    let log = BlockLog::decode(log).unwrap();
    let entries = log.entries();
    // A write that must be durable (`write -f`) is flushed below the recorder, since plain files know no better way: the log
    // shows a plain write. So it allows more states than there are, never fewer.
    assert_eq!(entries.iter().filter(|entry| entry.flush).count(), 2 + entries_at_close(&log));
    assert!(entries.iter().any(|entry| entry.told == Told::Discard && entry.length == 128 << 10));
    assert_eq!(log.data(&entries[0]), vec![0x11; 4096]);
    log.replay(&mut image).unwrap();
    assert!(image == after, "a full replay is another image than QEMU left");
    // The same through overlays.
    let recording = Recording::new(&dir.path().join("before.img"), log).unwrap();
    let cut = recording.log().entries().len();
    let last = recording.overlay(&State::Prefix { cut }).unwrap();
    recording.write_image(&last, &dir.path().join("rebuilt.img")).unwrap();
    assert!(fs::read(dir.path().join("rebuilt.img")).unwrap() == after);
}

/// QEMU flushes once more when it closes an image that was written to since.
fn entries_at_close(log: &BlockLog) -> usize {
    usize::from(log.entries().last().unwrap().flush)
}

#[test]
fn a_log_that_is_cut_off_or_changed_is_an_error_and_nothing_worse() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_, _, log)) = recorded(dir.path(), &["write -P 1 0 1k", "flush", "write -P 2 8k 512"]) else { return };
    let whole = BlockLog::decode(log.clone()).unwrap().entries().len();
    for length in 0..log.len() {
        // Only what stands behind the last entry may be missing.
        if let Ok(log) = BlockLog::decode(log[..length].to_vec()) {
            assert_eq!(log.entries().len(), whole, "{length}");
        }
    }
    assert!(BlockLog::decode(log[..log.len() / 2].to_vec()).is_err());
    for at in (0..4096.min(log.len())).filter(|at| at % 512 < 40) {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut changed = log.clone();
            changed[at] = value;
            // Decoded or refused: a changed length of a write may happen to fit.
            let _ = BlockLog::decode(changed);
        }
    }
    let mut many = log;
    many[16..24].copy_from_slice(&(MAX_ENTRIES + 1).to_le_bytes());
    assert!(BlockLog::decode(many).is_err());
}

fn super_block(entries: u64) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..8].copy_from_slice(&0x006a_7366_7773_6872u64.to_le_bytes());
    bytes[8] = 1;
    bytes[16..24].copy_from_slice(&entries.to_le_bytes());
    bytes[24..28].copy_from_slice(&512u32.to_le_bytes());
    bytes
}

/// A log of these entries: first sector, sectors, flags, what each byte is.
fn written(entries: &[(u64, u64, u64, u8)]) -> BlockLog {
    let mut bytes = super_block(entries.len() as u64);
    for (sector, sectors, flags, fill) in entries {
        let mut header = vec![0; 512];
        for (field, value) in [sector, sectors, flags].into_iter().enumerate() {
            header[8 * field..8 * field + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes.extend(header);
        bytes.extend(vec![*fill; usize::try_from(sectors * 512).unwrap()]);
    }
    BlockLog::decode(bytes).unwrap()
}

/// An image of 8 sectors of zeros, and what `state` makes of it: the first byte of each sector.
fn sectors(recording: &Recording, state: &str, dir: &Path) -> Vec<u8> {
    let state: State = state.parse().unwrap();
    let image = dir.join("state.img");
    recording.write_image(&recording.overlay(&state).unwrap(), &image).unwrap();
    let image = fs::read(image).unwrap();
    assert!(image.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
    image.chunks(512).map(|sector| sector[0]).collect()
}

fn small(dir: &Path, entries: &[(u64, u64, u64, u8)]) -> Recording {
    fs::write(dir.join("base.img"), vec![0; 8 * 512]).unwrap();
    Recording::new(&dir.join("base.img"), written(entries)).unwrap()
}

const FLUSH: (u64, u64, u64, u8) = (0, 0, 1, 0);

#[test]
fn every_name_is_the_state_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let recording = small(dir.path(), &[(0, 2, 0, 1), FLUSH, (1, 2, 0, 2), (2, 2, 0, 3), (6, 1, 2, 4), (7, 1, 0, 5)]);
    let is = |state: &str, expected: [u8; 8]| assert_eq!(sectors(&recording, state, dir.path()), expected, "{state}");
    is("at:0", [0; 8]);
    is("at:3", [1, 2, 2, 0, 0, 0, 0, 0]);
    is("at:6", [1, 2, 3, 3, 0, 0, 4, 5]);
    is("torn:3=1", [1, 2, 2, 3, 0, 0, 0, 0]);
    is("lost:6=2", [1, 1, 3, 3, 0, 0, 4, 5]);
    is("lost:4=3", [1, 2, 2, 0, 0, 0, 0, 0]);
    is("kept:6=none", [1, 1, 0, 0, 0, 0, 0, 0]);
    is("kept:6=3,2", [1, 2, 2, 3, 0, 0, 0, 0]);
    for wrong in [
        "at:7",
        "lost:6=0",
        "lost:6=1",
        "kept:3=3",
        "torn:1=0",
        "torn:3=2",
        "at",
        "at:x",
        "lost:3",
        "kept:6=5-2",
        "x:1",
    ] {
        let state = wrong.parse::<State>().and_then(|state| recording.overlay(&state).map(|_| ()));
        assert!(state.is_err(), "{wrong}");
    }
}

#[test]
fn the_states_of_a_small_log_are_all_there_and_repeat_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let recording = small(dir.path(), &[(0, 2, 0, 1), FLUSH, (1, 2, 0, 2), (2, 2, 0, 3), (6, 1, 2, 4), (7, 1, 0, 5)]);
    let states = recording.states(&Effort::default());
    for state in &states {
        let again: State = state.to_string().parse().unwrap();
        assert_eq!(again.to_string(), state.to_string());
        assert_eq!(again.kind(), state.kind());
    }
    let images: std::collections::BTreeSet<_> =
        states.iter().map(|state| sectors(&recording, &state.to_string(), dir.path())).collect();
    // After the flush: any subset of two overlapping writes, the order of the two, half of each; the last write only behind
    // the durable one.
    for expected in [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 2, 2, 0, 0, 0, 0, 0],
        [1, 1, 3, 3, 0, 0, 0, 0],
        [1, 2, 2, 3, 0, 0, 4, 5],
        [1, 1, 0, 0, 0, 0, 4, 0],
        [1, 1, 0, 0, 0, 0, 4, 5],
        [1, 2, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
    ] {
        assert!(images.contains(expected.as_slice()), "{expected:?}");
    }
    assert!(images.iter().all(|image| image[7] == 0 || image[6] == 4), "a durable write was lost before a later one");
    // Equal images have equal digests, others have others.
    let mut by_digest = std::collections::BTreeMap::new();
    for state in &states {
        let digest = recording.overlay(state).unwrap().digest();
        let image = sectors(&recording, &state.to_string(), dir.path());
        assert_eq!(*by_digest.entry(digest).or_insert_with(|| image.clone()), image, "{state}");
    }
    assert_eq!(by_digest.len(), images.len());
}

#[test]
fn many_writes_between_two_flushes_are_sampled_the_same_way_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let writes: Vec<_> = (0..40).map(|number| (number % 8, 1, 0, number as u8 + 1)).collect();
    let recording = small(dir.path(), &writes);
    let effort = Effort::default();
    let states = recording.states(&effort);
    assert_eq!(states, recording.states(&effort));
    assert_ne!(states, recording.states(&Effort { seed: 2, ..effort }));
    assert!(states.iter().filter(|state| state.kind() == Kind::Lost).count() > 80);
    let few = Recording::thinned(states.clone(), 30);
    assert_eq!(few.len(), 30);
    assert_eq!(few.iter().filter(|state| state.kind() == Kind::Prefix).count(), 15);
    assert_eq!(Recording::thinned(states.clone(), 1000), states);
}
