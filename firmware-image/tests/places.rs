//! Which record counts, of all that stand on a device: the rules of docs/formats/hidden-zone.md, against every arrangement.

mod common;

use std::fs;

use common::*;
use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};
use firmware_image::free_zone::ZoneFile;
use firmware_image::hidden::{HiddenZone, SlotName};
use firmware_image::host::DirZone;
use firmware_image::key_slot::{DeviceId, Identity};
use firmware_image::places::{MirrorFile, Place, Places};
use firmware_image::record::{MAX_RECORD_BYTES, VersionRecord};
use firmware_image::slot::{self, Kind, SlotError};
use firmware_image::storage::MemoryZone;
use firmware_image::updater_image::{self, Floors, Statement, UpdaterVersion};
use firmware_image::{RawZone, ZoneError, paths};

const ALIGN: usize = 128 << 10;
const SEGMENT_LOG2: u8 = 12;

/// A slot's bytes.
fn sealed(kind: Kind, generation: u64, identity: &Identity, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; ALIGN];
    let write = slot::Write { kind, generation, identity, segment_log2: SEGMENT_LOG2 };
    write.write(&mut MemoryZone::new(&mut bytes), &mut &*body, &mut scratch().segment).unwrap();
    bytes
}

fn record_of(device_id: DeviceId) -> Vec<u8> {
    let mut out = vec![0; MAX_RECORD_BYTES];
    VersionRecord::new(device_id).encode(&mut out).unwrap().to_vec()
}

fn record_slot(generation: u64, identity: &Identity) -> Vec<u8> {
    sealed(Kind::Record, generation, identity, &record_of(identity.device_id))
}

/// A device: its hidden zone, and a folder as its free zone.
struct Stick {
    hidden: Vec<u8>,
    free: tempfile::TempDir,
}

impl Stick {
    fn new() -> Self {
        Self { hidden: vec![0; 4 * ALIGN], free: tempfile::tempdir().unwrap() }
    }

    fn put(&mut self, slot: SlotName, bytes: &[u8]) {
        let layout = HiddenZone::new(MemoryZone::new(&mut self.hidden), ALIGN as u64).unwrap().layout();
        let start = layout.start(slot) as usize;
        self.hidden[start..][..ALIGN].copy_from_slice(bytes);
    }

    fn mirror(&self, bytes: Option<&[u8]>) {
        let path = self.free.path().join(paths::RECORD_MIRROR);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match bytes {
            Some(bytes) => fs::write(path, bytes).unwrap(),
            None if path.exists() => fs::remove_file(path).unwrap(),
            None => {}
        }
    }

    fn put_record(&mut self, place: Place, bytes: &[u8]) {
        match place {
            Place::Hidden(slot) => self.put(slot, bytes),
            _ => self.mirror(Some(bytes)),
        }
    }

    fn look<R>(&mut self, f: impl FnOnce(&mut Places<'_, MemoryZone<'_>, DirZone, MemoryZone<'_>>) -> R) -> R {
        let free = DirZone::open(self.free.path()).unwrap();
        let hidden = HiddenZone::new(MemoryZone::new(&mut self.hidden), ALIGN as u64).unwrap();
        f(&mut Places { hidden: Some(hidden), free: Some(&free), cd_tail: None })
    }

    /// Where the record stands that counts, and of which generation and device it is.
    fn newest(&mut self) -> Option<(Place, u64, DeviceId)> {
        self.look(|places| {
            let mut out = vec![0; MAX_RECORD_BYTES];
            let found = places.newest_record(&product_secret(), &mut scratch().memory(), &mut out)?;
            assert_eq!(found.record.device_id, found.identity.device_id);
            Some((found.place, found.generation, found.identity.device_id))
        })
    }
}

/// Which of two devices' a slot is, and its generation.
type Stands = Option<(usize, u64)>;

/// The rules, from the document alone: the device that more than half of the hidden slots name; its newest record, the mirror's
/// included; where it has none, the newest hidden one, or a newer mirror of that one's device; where no hidden one is, the mirror.
fn expected(records: [Stands; 3], backups: [Option<usize>; 2]) -> Option<usize> {
    let named: Vec<usize> =
        records[..2].iter().flatten().map(|(device, _)| *device).chain(backups.into_iter().flatten()).collect();
    let owner = (0..2).find(|device| 2 * named.iter().filter(|named| *named == device).count() > named.len());
    let newest = |among: &[usize], of: Option<usize>| {
        let standing = among.iter().filter_map(|at| records[*at].map(|(device, generation)| (*at, device, generation)));
        let standing: Vec<_> = standing.filter(|(_, device, _)| of.is_none_or(|of| of == *device)).collect();
        // Of equally new ones the first.
        standing.iter().rev().max_by_key(|(.., generation)| *generation).copied()
    };
    if let Some((at, ..)) = owner.and_then(|owner| newest(&[0, 1, 2], Some(owner))) {
        return Some(at);
    }
    match newest(&[0, 1], None) {
        Some((at, device, _)) => newest(&[at, 2], Some(device)).map(|(at, ..)| at),
        None => records[2].map(|_| 2),
    }
}

#[test]
fn of_every_arrangement_of_two_devices_records_the_right_one_counts() {
    let devices = [identity(1), identity(2)];
    let stands = [None, Some((0, 1)), Some((0, 2)), Some((1, 1)), Some((1, 2))];
    let slots = stands.map(|stands| stands.map(|(device, generation)| record_slot(generation, &devices[device])));
    let backups = devices.each_ref().map(|identity| sealed(Kind::Backup, 1, identity, &[0; 100]));
    let empty = vec![0; ALIGN];
    let mut stick = Stick::new();
    let mut tried = 0;
    for (mirror, mirrored) in stands.iter().zip(&slots) {
        stick.mirror(mirrored.as_deref());
        for (a, first) in stands.iter().zip(&slots) {
            stick.put(SlotName::RecordA, first.as_ref().unwrap_or(&empty));
            for (b, second) in stands.iter().zip(&slots) {
                stick.put(SlotName::RecordB, second.as_ref().unwrap_or(&empty));
                for pair in 0..9 {
                    let named = [pair % 3, pair / 3].map(|named: usize| named.checked_sub(1));
                    for (slot, named) in [SlotName::BackupA, SlotName::BackupB].into_iter().zip(named) {
                        stick.put(slot, named.map_or(&empty, |device| &backups[device]));
                    }
                    let records = [*a, *b, *mirror];
                    let wanted = expected(records, named).map(|at| {
                        let (device, generation) = records[at].unwrap();
                        (Place::RECORDS[at], generation, devices[device].device_id)
                    });
                    assert_eq!(stick.newest(), wanted, "{records:?}, backups {named:?}");
                    tried += 1;
                }
            }
        }
    }
    assert_eq!(tried, 1125);
}

#[test]
fn a_record_whose_header_alone_is_sound_is_passed_over_for_the_next() {
    let device = identity(1);
    let mut stick = Stick::new();
    let damaged = |generation| {
        let mut bytes = record_slot(generation, &device);
        bytes[4100] ^= 1; // of the body
        bytes
    };
    let of = |place, generation| Some((place, generation, device.device_id));
    // The newest are damaged, one after the other, in every order of places.
    for [first, second, third] in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for (at, generation) in [(first, 9), (second, 8), (third, 7)] {
            stick.put_record(Place::RECORDS[at], &record_slot(generation, &device));
        }
        assert_eq!(stick.newest(), of(Place::RECORDS[first], 9));
        for (at, generation, next) in
            [(first, 9, of(Place::RECORDS[second], 8)), (second, 8, of(Place::RECORDS[third], 7)), (third, 7, None)]
        {
            stick.put_record(Place::RECORDS[at], &damaged(generation));
            assert_eq!(stick.newest(), next, "{first}, {second}, {third}: {generation} damaged");
        }
    }
}

#[test]
fn a_record_that_names_another_device_than_its_slot_or_is_too_long_is_none() {
    let (device, other) = (identity(1), identity(2));
    let mut stick = Stick::new();
    let mut opened = |bytes: Vec<u8>| {
        stick.put(SlotName::RecordA, &bytes);
        stick.look(|places| {
            let (mut scratch, mut out) = (scratch(), vec![0; 2 * MAX_RECORD_BYTES]);
            let place = Place::Hidden(SlotName::RecordA);
            places.read_record(place, &product_secret(), &mut scratch.memory(), &mut out).map(|found| found.generation)
        })
    };
    assert_eq!(opened(record_slot(3, &device)), Ok(3));
    assert_eq!(opened(sealed(Kind::Record, 3, &device, &record_of(other.device_id))), Err(SlotError::Malformed));
    let padded = |bytes: usize| {
        // What stands behind a record is of a later format.
        let mut body = record_of(device.device_id);
        body.resize(bytes, 0);
        sealed(Kind::Record, 3, &device, &body)
    };
    assert_eq!(opened(padded(MAX_RECORD_BYTES)), Ok(3));
    assert_eq!(opened(padded(MAX_RECORD_BYTES + 1)), Err(SlotError::TooLong));
}

#[test]
fn floors_are_those_of_the_record_that_counts() {
    let device = identity(1);
    let floors = Floors { version: UpdaterVersion::parse("1.2.3").unwrap(), key_serial: 1 };
    let statement = Statement { floors, ..statement("1.2.3") };
    let vendor = vendor().public();
    let image = updater_image::sign(program(4096), &statement, &vendor, &certificate(), &updater_key()).unwrap();
    let mut record = VersionRecord::new(device.device_id);
    record.statement = &image[4096..];
    let mut out = vec![0; MAX_RECORD_BYTES];
    let body = record.encode(&mut out).unwrap();
    let mut stick = Stick::new();
    let told_to = |stick: &mut Stick, product: &str| {
        stick.look(|places| {
            let mut out = vec![0; MAX_RECORD_BYTES];
            places.newest_floors(&product_secret(), &mut scratch().memory(), &mut out, &vendor, product)
        })
    };
    let told = |stick: &mut Stick| told_to(stick, PRODUCT);
    assert_eq!(told(&mut stick), None);
    stick.put(SlotName::RecordB, &sealed(Kind::Record, 1, &device, body));
    stick.put(SlotName::RecordA, &record_slot(2, &identity(1)));
    assert_eq!(told(&mut stick), Some(Floors::default()), "the newest record raises none");
    stick.put(SlotName::RecordA, &vec![0; ALIGN]);
    assert_eq!(told(&mut stick), Some(floors));
    assert_eq!(told_to(&mut stick, "Another"), Some(Floors::default()), "another product's statement raises none");
}

/// A file that notes what must not get lost on the way to it.
struct Noted<'a> {
    zone: MemoryZone<'a>,
    flushed: usize,
    dropped: usize,
}

impl ErrorType for Noted<'_> {
    type Error = ZoneError;
}

impl Read for Noted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        self.zone.read(buf)
    }
}

impl Write for Noted<'_> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        self.zone.write(buf)
    }

    fn flush(&mut self) -> Result<(), ZoneError> {
        self.flushed += 1;
        Ok(())
    }
}

impl Seek for Noted<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.zone.seek(to)
    }
}

impl ZoneFile for Noted<'_> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        RawZone::len(&mut self.zone)
    }

    fn set_len(&mut self, _: u64) -> Result<(), ZoneError> {
        unreachable!("a mirror is as long as its slot")
    }

    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        self.dropped += 1;
        Ok(())
    }
}

#[test]
fn a_mirrors_file_is_written_read_flushed_and_read_past_the_cache_like_a_slot() {
    let mut bytes = [0; 16];
    let mut mirror = MirrorFile(Noted { zone: MemoryZone::new(&mut bytes), flushed: 0, dropped: 0 });
    assert_eq!(RawZone::len(&mut mirror), Ok(16));
    assert_eq!(mirror.seek(SeekFrom::Start(4)), Ok(4));
    mirror.write_all(b"mirrored").unwrap();
    assert_eq!(mirror.seek(SeekFrom::Current(-4)), Ok(8));
    let mut read = [0; 4];
    mirror.read_exact(&mut read).unwrap();
    assert_eq!(&read, b"ored");
    mirror.flush().unwrap();
    mirror.drop_caches().unwrap();
    assert_eq!((mirror.0.flushed, mirror.0.dropped), (1, 1));
    assert_eq!(&bytes, b"\0\0\0\0mirrored\0\0\0\0");
}
