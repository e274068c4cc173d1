//! The commit journal and the launcher's note: a cut leaves the state before or the one after, damage is found.

mod common;

use common::testdata;
use firmware_image::free_zone::FreeZone as _;
use firmware_image::host::DirZone;
use firmware_image::journal::{JOURNAL_SLOT_BYTES, Journal, State};
use firmware_image::launcher_note::{LauncherNote, Trial};
use firmware_image::{Digest, ZoneError, paths};

fn committing() -> State {
    State::Committing { plan: Digest::of(b"plan"), serial: 300 }
}

fn zone() -> (tempfile::TempDir, DirZone) {
    let dir = tempfile::tempdir().unwrap();
    let zone = DirZone::open(dir.path()).unwrap();
    (dir, zone)
}

#[test]
fn a_missing_journal_is_idle_and_an_advance_is_read_back() {
    let (_dir, zone) = zone();
    let mut journal = Journal::read(&zone).unwrap();
    assert_eq!(journal.state(), State::Idle);
    for state in [committing(), State::Cleaning { serial: 300 }, State::Idle, committing()] {
        journal.advance(&zone, state).unwrap();
        assert_eq!(Journal::read(&zone).unwrap().state(), state);
        assert_eq!(state.is_open(), matches!(state, State::Committing { .. }));
    }
    let length = zone.metadata(paths::JOURNAL).unwrap().unwrap().length;
    assert_eq!(length, 2 * JOURNAL_SLOT_BYTES as u64, "its length never changes");
}

#[test]
fn a_slot_torn_at_any_byte_leaves_the_state_before() {
    let (dir, zone) = zone();
    let mut journal = Journal::read(&zone).unwrap();
    journal.advance(&zone, State::Idle).unwrap();
    let path = dir.path().join(paths::JOURNAL);
    let before = std::fs::read(&path).unwrap();
    journal.advance(&zone, committing()).unwrap();
    let after = std::fs::read(&path).unwrap();
    for kept in 0..=JOURNAL_SLOT_BYTES {
        let start = before.iter().zip(&after).position(|(old, new)| old != new).unwrap() / JOURNAL_SLOT_BYTES;
        let start = start * JOURNAL_SLOT_BYTES;
        let mut torn = before.clone();
        torn[start..start + kept].copy_from_slice(&after[start..start + kept]);
        std::fs::write(&path, &torn).unwrap();
        let state = Journal::read(&zone).unwrap().state();
        let whole = torn[start..] == after[start..];
        assert_eq!(state, if whole { committing() } else { State::Idle }, "{kept} bytes arrived");
    }
}

#[test]
fn a_lost_or_shortened_journal_is_made_anew_and_a_sound_one_only_loses_its_older_slot() {
    let (dir, zone) = zone();
    let path = dir.path().join(paths::JOURNAL);
    let slots = || {
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 2 * JOURNAL_SLOT_BYTES);
        let (first, second) = bytes.split_at(JOURNAL_SLOT_BYTES);
        (first.to_vec(), second.to_vec())
    };
    let mut journal = Journal::read(&zone).unwrap();
    let none = journal.encode();
    journal.advance(&zone, committing()).unwrap();
    let one = journal.encode();
    assert!(slots() == (none.to_vec(), one.to_vec()));

    // Bytes that no reader looks at stay: the newest entry is not written again.
    let mut marked = one;
    let body = JOURNAL_SLOT_BYTES - 4;
    marked[body - 1] = 1;
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&marked[..body]);
    marked[body..].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&path, [none, marked].concat()).unwrap();
    let mut again = Journal::read(&zone).unwrap();
    again.advance(&zone, State::Idle).unwrap();
    assert!(slots() == (again.encode().to_vec(), marked.to_vec()));

    // Both slots are there again, whatever was left, and whichever is next.
    for left in [0, 1, JOURNAL_SLOT_BYTES, 2 * JOURNAL_SLOT_BYTES - 1, 2 * JOURNAL_SLOT_BYTES + 1] {
        std::fs::write(&path, vec![7; left]).unwrap();
        let mut lost = journal;
        lost.advance(&zone, State::Idle).unwrap();
        let two = lost.encode();
        assert!(slots() == (two.to_vec(), one.to_vec()), "{left} bytes left");
        std::fs::write(&path, vec![7; left]).unwrap();
        lost.advance(&zone, committing()).unwrap();
        assert!(slots() == (two.to_vec(), lost.encode().to_vec()), "{left} bytes left");
    }
}

#[test]
fn a_journal_forged_with_the_highest_sequence_can_be_left_again() {
    let (dir, zone) = zone();
    let mut journal = Journal::read(&zone).unwrap();
    journal.advance(&zone, committing()).unwrap();
    let path = dir.path().join(paths::JOURNAL);
    for forged in [&[1][..], &[0, 1], &[0]] {
        let mut bytes = std::fs::read(&path).unwrap();
        for slot in forged {
            let slot = &mut bytes[slot * JOURNAL_SLOT_BYTES..][..JOURNAL_SLOT_BYTES];
            slot.copy_from_slice(&committing_as(u64::MAX));
        }
        std::fs::write(&path, &bytes).unwrap();
        let mut journal = Journal::read(&zone).unwrap();
        assert_eq!(journal.state(), committing());
        for state in [State::Cleaning { serial: 300 }, State::Idle] {
            journal.advance(&zone, state).unwrap();
            assert_eq!(Journal::read(&zone), Ok(journal), "slots {forged:?}");
            assert_eq!(journal.state(), state);
        }
    }
}

/// The slot of an entry with this sequence, as anybody can make it.
fn committing_as(sequence: u64) -> [u8; JOURNAL_SLOT_BYTES] {
    let (_dir, zone) = zone();
    let mut journal = Journal::read(&zone).unwrap();
    journal.advance(&zone, committing()).unwrap();
    let mut slot = journal.encode();
    slot[12..20].copy_from_slice(&sequence.to_le_bytes());
    let (body, checksum) = slot.split_at_mut(JOURNAL_SLOT_BYTES - 4);
    checksum.copy_from_slice(&crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(body).to_le_bytes());
    slot
}

#[test]
fn a_note_is_read_as_written_and_a_damaged_one_is_empty() {
    let (dir, zone) = zone();
    assert_eq!(LauncherNote::read(&zone), Ok(LauncherNote::default()));
    let mut note =
        LauncherNote { trial: Some(Trial { serial: 7, failed_starts: 2, proven: false }), ..Default::default() };
    for i in 0..12_u8 {
        note.add_failed(Digest::of(&[i]));
        note.add_failed(Digest::of(&[i]));
    }
    assert!(note.has_failed(&Digest::of(&[11])) && !note.has_failed(&Digest::of(&[3])), "the oldest are forgotten");
    note.write(&zone).unwrap();
    assert_eq!(LauncherNote::read(&zone), Ok(note));
    let path = dir.path().join(paths::LAUNCHER_NOTE);
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(LauncherNote::read(&zone), Ok(LauncherNote::default()), "byte {at}");
    }
}

#[test]
fn the_vectors_read_as_their_names_say() {
    let dir = testdata().join("journal/v1");
    let (home, zone) = zone();
    let mut journal = Journal::read(&zone).unwrap();
    for state in [State::Cleaning { serial: 299 }, State::Idle, committing()] {
        journal.advance(&zone, state).unwrap();
    }
    let path = home.path().join(paths::JOURNAL);
    let good = std::fs::read(&path).unwrap();
    let newest = JOURNAL_SLOT_BYTES..2 * JOURNAL_SLOT_BYTES;
    let mut torn = good.clone();
    torn[newest.start + 512..].fill(0);
    let mut later = good.clone();
    later[newest.start + 8] = 2;
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&later[newest.start..newest.end - 4]);
    later[newest.end - 4..].copy_from_slice(&crc.to_le_bytes());
    let vectors = [
        ("committing-serial-300.journal", good, Ok(committing())),
        ("newest-slot-torn.journal", torn, Ok(State::Idle)),
        ("newest-slot-of-a-later-format.journal", later, Err(ZoneError::LaterFormat)),
    ];
    for (name, bytes, expected) in vectors {
        if std::env::var_os("HOLDFAST_WRITE_VECTORS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), &bytes).unwrap();
        }
        let stored = std::fs::read(dir.join(name)).unwrap();
        assert!(stored == bytes, "{name} is not what today's writer makes");
        std::fs::write(&path, &stored).unwrap();
        assert_eq!(Journal::read(&zone).map(|journal| journal.state()), expected, "{name}");
    }
}
