//! The simulated disk itself: what it panics on, what it does wrong on demand and nowhere else, and the states that a cut
//! can leave.

#![allow(missing_docs)]

use embedded_io::{Read as _, Write as _};
use firmware_image::sim::{Effort, Faults, Medium, Recording, SimDisk};
use firmware_image::storage::{read_exact_at, write_all_at};
use firmware_image::{RawZone as _, ZoneError};

const FAILED: Result<(), ZoneError> = Err(ZoneError::Io(5));

fn disk(bytes: u64) -> SimDisk {
    SimDisk::new(Medium::zeros(bytes))
}

fn faulty(faults: Faults) -> SimDisk {
    SimDisk::faulty(Medium::zeros(4096), faults)
}

/// Writes two bytes.
fn write(disk: &mut SimDisk, at: u64, byte: u8) -> Result<(), ZoneError> {
    write_all_at(disk, at, &[byte; 2])
}

/// Reads two bytes.
fn read(disk: &mut SimDisk, at: u64) -> Result<[u8; 2], ZoneError> {
    let mut bytes = [0; 2];
    read_exact_at(disk, at, &mut bytes).map(|()| bytes)
}

#[test]
#[should_panic(expected = "byte 9 of a disk of 8")]
fn a_read_that_begins_past_the_end_panics() {
    let _ = read(&mut disk(8), 9);
}

#[test]
#[should_panic(expected = "byte 9 of a disk of 8")]
fn a_write_that_begins_past_the_end_panics() {
    let _ = write(&mut disk(8), 9, 1);
}

#[test]
#[should_panic(expected = "2 bytes written at 7 of a disk of 8")]
fn a_write_across_the_end_panics() {
    let _ = write(&mut disk(8), 7, 1);
}

#[test]
#[should_panic(expected = "2 bytes written at 0 through a view for reading")]
fn a_write_through_a_view_for_reading_panics() {
    let _ = write(&mut disk(8).for_reading(), 0, 1);
}

#[test]
#[should_panic(expected = "2 bytes at 7 of a medium of 8")]
fn a_medium_is_not_read_past_its_end() {
    Medium::zeros(8).bytes(7, 2);
}

#[test]
#[should_panic(expected = "2 bytes at 18446744073709551615 of a medium of 8")]
fn a_medium_is_not_written_past_its_end() {
    Medium::zeros(8).write(u64::MAX, &[1; 2]);
}

#[test]
fn views_share_a_disk_and_a_read_ends_where_it_does() {
    let mut disk = disk(8);
    let mut view = disk.for_reading();
    assert_eq!((write(&mut disk, 6, 7), view.len()), (Ok(()), Ok(8)));
    assert_eq!(read(&mut view, 5), Ok([0, 7]));
    assert_eq!((view.read(&mut [0; 4]), view.read(&mut [0; 4])), (Ok(1), Ok(0)));
    assert_eq!(read(&mut view, 7), Err(ZoneError::OutOfBounds));
    assert_eq!((disk.write(&[]), disk.writes(), disk.reads()), (Ok(0), 2, 5));
}

#[test]
fn a_write_or_read_fails_where_it_was_asked_to_and_nowhere_else() {
    let mut disk = faulty(Faults { failing_writes: 1..3, failing_reads: 0..1, bad_from: Some(2), ..Faults::default() });
    let wrote: Vec<_> = (0..5).map(|at| write(&mut disk, at * 2, 9)).collect();
    assert_eq!(wrote, [Ok(()), FAILED, FAILED, Ok(()), Ok(())]);
    assert_eq!(disk.medium().bytes(0, 12), [9, 9, 0, 0, 0, 0, 9, 9, 9, 9, 0, 0]);
    assert_eq!(disk.recording().writes(), 3, "what failed did not happen");
    // The first fails once; the third finds a place that stays bad.
    let places = [0, 0, 6, 0, 4, 5, 6, 7, 8];
    let failed: Vec<_> = places.iter().map(|at| read(&mut disk, *at).is_err()).collect();
    assert_eq!(failed, [true, false, true, false, false, true, true, true, false]);
    assert_eq!(read(&mut disk, 0), Ok([9, 9]));
}

#[test]
fn a_cut_leaves_so_many_bytes_and_nothing_works_afterwards() {
    let mut disk = faulty(Faults { cut: Some((1, 1)), ..Faults::default() });
    assert_eq!((write(&mut disk, 0, 9), write(&mut disk, 2, 9)), (Ok(()), FAILED));
    assert_eq!((write(&mut disk, 4, 9), disk.flush(), read(&mut disk, 0)), (FAILED, FAILED, Err(ZoneError::Io(5))));
    assert_eq!(disk.medium().bytes(0, 6), [9, 9, 9, 0, 0, 0]);
}

#[test]
fn a_disk_that_turns_read_only_refuses_each_write_and_can_be_read() {
    let mut disk = faulty(Faults { read_only_from: Some(1), ..Faults::default() });
    assert_eq!(write(&mut disk, 0, 9), Ok(()));
    for at in 0..4 {
        assert_eq!(write(&mut disk, at, 8), Err(ZoneError::ReadOnly));
    }
    assert_eq!(read(&mut disk, 0), Ok([9, 9]));
}

#[test]
fn a_sector_wears_out_and_no_other_with_it() {
    let mut disk = faulty(Faults { endurance: Some(2), ..Faults::default() });
    assert_eq!((write(&mut disk, 0, 1), write(&mut disk, 511, 2)), (Ok(()), Ok(())));
    for at in [0, 100, 511] {
        assert_eq!(write(&mut disk, at, 3), FAILED, "the first sector took two");
    }
    // The last of those began in the first sector: the second is as good as it was.
    assert_eq!((write(&mut disk, 512, 4), write(&mut disk, 1022, 5)), (Ok(()), FAILED));
    assert_eq!(disk.medium().bytes(510, 4), [0, 2, 4, 4]);
}

#[test]
fn a_lie_is_one_bit_of_each_write_that_is_long_enough() {
    let mut disk = faulty(Faults { lying_at: Some(1), ..Faults::default() });
    assert_eq!((write(&mut disk, 0, 8), disk.write(&[8]), read(&mut disk, 0)), (Ok(()), Ok(1), Ok([8, 9])));
    assert_eq!(disk.medium().bytes(0, 3), [8, 9, 8]);
}

#[test]
fn a_read_that_lies_does_so_in_one_bit_and_changes_nothing() {
    let mut disk = faulty(Faults { lying_reads: 1..2, ..Faults::default() });
    write(&mut disk, 0, 8).unwrap();
    assert_eq!([0, 0, 0].map(|at| read(&mut disk, at)), [Ok([8, 8]), Ok([8, 9]), Ok([8, 8])]);
}

#[test]
fn three_writes_and_a_flush_leave_these_states_and_no_others() {
    // The last two overlap.
    let writes = [(0, 1100, b'a'), (500, 600, b'b'), (1000, 100, b'c')];
    let mut disk = disk(2048);
    for (number, (at, length, byte)) in writes.into_iter().enumerate() {
        write_all_at(&mut disk, at, &vec![byte; length]).unwrap();
        if number == 0 {
            disk.flush().unwrap();
            disk.flush().unwrap();
        }
    }
    let recording = disk.recording();
    assert_eq!((recording.writes(), recording.after().digest()), (3, disk.medium().digest()));
    assert_eq!((disk.recording().writes(), disk.recording().states(&Effort::ALL).len()), (0, 1), "it begins anew");

    // Which parts of the writes arrived, and in which order. The flush is the second of four operations.
    let whole = |write: usize| (write, 0, writes[write].1);
    let mut expected = Vec::new();
    let cuts = [
        (0, vec![], vec![(0, 512), (0, 1024), (512, 1100), (1024, 1100), (0, 1), (0, 1099)]),
        (2, vec![whole(0)], vec![(0, 512), (512, 600), (0, 1), (0, 599)]),
        (3, vec![whole(0), whole(1)], vec![(0, 1), (0, 99)]),
    ];
    for (write, (cut, before, tears)) in cuts.into_iter().enumerate() {
        // Nothing new is durable right behind a flush.
        expected.push((if cut == 2 { "1".into() } else { cut.to_string() }, before.clone()));
        for (from, to) in tears {
            let name = format!("{cut} and bytes {from}..{to} of the next");
            expected.push((name, [&before[..], &[(write, from, to)]].concat()));
        }
    }
    expected.push(("4".into(), vec![whole(0), whole(1), whole(2)]));
    expected.push(("4 without [2]".into(), vec![whole(0), whole(2)]));
    expected.push(("4 with 2 last".into(), vec![whole(0), whole(2), whole(1)]));

    let mut states = recording.states(&Effort::ALL);
    let names = states.iter().map(ToString::to_string);
    let drawn: Vec<String> = names.filter(|name| expected.iter().all(|(known, _)| known != name)).collect();
    assert_eq!(drawn.len(), 3, "one more tear of each write: {drawn:?}");
    for (name, cut) in drawn.iter().zip(["0", "2", "3"]) {
        let end = name.strip_prefix(&format!("{cut} and bytes 0..")).and_then(|end| end.strip_suffix(" of the next"));
        let end: usize = end.unwrap().parse().unwrap();
        assert_eq!(end % 2, 1, "not at an odd byte: {name}");
    }
    states.retain(|state| expected.iter().any(|(name, _)| *name == state.to_string()));
    assert_eq!(states.len(), expected.len());
    for (state, (name, parts)) in states.iter().zip(expected) {
        assert_eq!(state.to_string(), name);
        assert_eq!(state.is_between_writes(), !name.contains(' '));
        let mut medium = Medium::zeros(2048);
        for (write, from, to) in parts {
            let (at, _, byte) = writes[write];
            medium.write(at + from as u64, &vec![byte; to - from]);
        }
        assert_eq!(recording.medium(state).bytes(0, 2048), medium.bytes(0, 2048), "{name}");
    }
    let cuts = recording.states(&Effort::CUTS);
    assert_eq!(cuts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0", "1", "3", "4"]);
}

#[test]
fn what_was_flushed_is_never_lost_and_what_was_not_is_lost_in_any_order() {
    const EPOCH: u64 = 5;
    let mut disk = disk(40 * 512);
    for sector in 0..40 {
        write_all_at(&mut disk, sector * 512, &[1; 512]).unwrap();
        if sector % EPOCH == EPOCH - 1 {
            disk.flush().unwrap();
        }
    }
    let recording: Recording = disk.recording();
    let mut gaps = 0;
    for seed in 0..20 {
        // Too many writes in each epoch for every subset of them.
        for state in recording.states(&Effort { seed, ..Effort::ALL }) {
            let medium = recording.medium(&state);
            let arrived: Vec<bool> = (0..40).map(|sector| medium.bytes(sector * 512, 512) == [1; 512]).collect();
            let Some(last) = arrived.iter().rposition(|arrived| *arrived) else { continue };
            let epoch = last - last % EPOCH as usize;
            assert!(arrived[..epoch].iter().all(|arrived| *arrived), "{state} lost what was flushed");
            gaps += arrived[epoch..last].iter().filter(|arrived| !**arrived).count();
        }
    }
    assert!(gaps > 0, "nothing was lost");
}
