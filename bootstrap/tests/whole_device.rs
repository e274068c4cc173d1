//! What only whole devices show: a journal that the free zone's file system does not give out any more, a device that is there
//! twice, and one that was put back to what it was.
#![cfg(feature = "image")]

mod matrix;
mod support;

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use firmware_image::device_config::Profile;
use firmware_image::host::Access;
use firmware_image::journal::{Journal, State};
use firmware_image::{ZoneError, paths};
use matrix::{DISK_BYTES, Factory, Family, Unit, write};

/// Calls the first cluster of the journal free, in both tables: its entry leads nowhere.
fn break_chain(unit: &Unit) {
    let free = unit.open(Access::ReadOnly).table().unwrap().free().unwrap();
    let disk = File::options().read(true).write(true).open(&unit.disk).unwrap();
    let mut zone = vec![0; free.length as usize];
    disk.read_exact_at(&mut zone, free.start).unwrap();
    let number = |at: usize, bytes: usize| (0..bytes).rev().fold(0, |n, i| n << 8 | usize::from(zone[at + i]));
    let (reserved, copies, sectors) = (number(14, 2), number(16, 1), number(36, 4));
    let entries: Vec<usize> =
        (0..zone.len()).step_by(32).filter(|at| zone[*at..].starts_with(b"JOURNAL    ")).collect();
    assert_eq!(entries.len(), 1);
    let cluster = number(entries[0] + 20, 2) << 16 | number(entries[0] + 26, 2);
    for copy in 0..copies {
        let at = (reserved + copy * sectors) * 512 + 4 * cluster;
        disk.write_all_at(&[0; 4], free.start + at as u64).unwrap();
    }
    assert_eq!(unit.with_free(|free| Journal::read(free).unwrap_err()), ZoneError::Corrupt);
}

/// Two releases, and devices of which one has the second; with the factories, whose stores go with them.
fn family() -> (Family, [Factory; 2]) {
    let (ours, theirs) = (Factory::new("Testbird"), Factory::new("Other Bird"));
    let mut family = Family::new(&ours, &theirs, Profile::Stick, DISK_BYTES);
    ours.publish("2.0.0", 2);
    family.update();
    (family, [ours, theirs])
}

/// No client is started before each of its files was compared with the signed list.
#[test]
fn a_journal_that_cannot_be_read_is_replaced_and_the_client_compared() {
    let (family, _factories) = family();
    let unit = family.unit;
    for online in [true, false] {
        for damaged in [false, true] {
            unit.put_back();
            if damaged {
                unit.with_free(|free| write(free, "client/run.sh", b"#!/bin/sh\nexit 0\n"));
            }
            break_chain(&unit);
            let ended = unit.start(online);
            let healed = online || !damaged;
            assert_eq!(ended.status, if healed { 0 } else { 73 }, "online {online}, damaged {damaged}: {ended:?}");
            let state = unit.with_free(|free| Journal::read(free).unwrap().state());
            assert_eq!(state == State::Idle, healed, "{state:?}");
            // What could not be healed then is healed by the next start with a server; after that nothing is left to do.
            let ended = unit.start(true);
            assert_eq!(ended.status, 0, "{ended:?}");
            assert_eq!(unit.lost(), None);
            assert_eq!(unit.problems(), Vec::<String>::new());
            unit.set_times();
            let ended = unit.start(true);
            assert!(ended.status == 0 && ended.quiet && !unit.was_written(), "{ended:?}");
        }
    }
    // Whole, and of a later program: nobody but that one knows what it says.
    unit.put_back();
    unit.with_free(|free| {
        let mut slot = Journal::read(free).unwrap().encode();
        slot[8] += 1;
        let crc = crc(&slot[..4092]);
        slot[4092..].copy_from_slice(&crc.to_le_bytes());
        write(free, paths::JOURNAL, &slot.repeat(2));
    });
    let before = unit.file(paths::JOURNAL);
    let ended = unit.start(true);
    assert_eq!(ended.status, 73, "{ended:?}");
    assert_eq!(unit.file(paths::JOURNAL), before);
}

#[test]
fn clones_and_a_device_that_was_put_back_bring_themselves_up_to_date_each() {
    let (family, _factories) = family();
    let clone = family.unit.copy();
    for unit in [&family.unit, &clone] {
        unit.set_times();
        let ended = unit.start(true);
        assert!(ended.status == 0 && ended.quiet && !unit.was_written(), "{ended:?}");
    }
    let newest = family.unit.file("client/run.sh").unwrap();
    let put_back = &clone;
    std::fs::copy(&family.older.disk, &clone.disk).unwrap();
    assert!(put_back.file("client/run.sh").unwrap() != newest);
    for _ in 0..4 {
        let ended = put_back.start(true);
        assert_eq!(ended.status, 0, "{ended:?}");
    }
    assert!(put_back.file("client/run.sh").unwrap() == newest);
    assert_eq!((put_back.lost(), put_back.problems()), (None, Vec::new()));
}

/// CRC-32 (ISO-HDLC), bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}
