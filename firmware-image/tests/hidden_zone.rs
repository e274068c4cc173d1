//! The hidden zone: what was sealed opens, what was damaged does not, and a cut loses at most what was being written.

mod common;

use common::*;
use embedded_io::{Read as _, Seek as _, SeekFrom};
use firmware_image::backup::{BackupBody, Entry, INDEX_BYTES, ImageReader, Index, MalformedIndex};
use firmware_image::hidden::{DISK_ALIGN_BYTES, HiddenLayout, HiddenZone, SlotName};
use firmware_image::key_slot::{Cost, Identity, KeySlot, SlotKind, UnlockError};
use firmware_image::record::{
    Health, MAX_RECORD_BYTES, MalformedRecord, ModuleVersion, Release, StoredContentKey, VersionRecord,
};
use firmware_image::seal::Secret;
use firmware_image::sim::{Effort, Faults, Medium, SimDisk, figures};
use firmware_image::slot::{self, Header, Kind, OpenSlot, SlotError};
use firmware_image::storage::{MemoryZone, Window, read_exact_at};
use firmware_image::updater_image::MAX_IMAGE_BYTES;
use firmware_image::{Digest, RawZone, ZoneError};

const SLOT: usize = 64 << 10;

fn seal(
    zone: &mut impl RawZone,
    kind: Kind,
    generation: u64,
    identity: &Identity,
    body: &[u8],
) -> Result<u64, SlotError> {
    let write = slot::Write { kind, generation, identity, segment_log2: 12 };
    write.write(zone, &mut &*body, &mut scratch().segment)
}

fn open(bytes: &[u8], kind: Kind) -> Result<(u64, Vec<u8>), SlotError> {
    let mut bytes = bytes.to_vec();
    let mut zone = MemoryZone::new(&mut bytes);
    let mut scratch = scratch();
    let header = Header::read(&mut zone, kind)?;
    let identity = header.unlock(product_secret().expose(), &mut scratch.blocks)?;
    let generation = header.generation();
    let mut out = vec![0; 1 << 20];
    let mut open = OpenSlot::new(&mut zone, kind, header, &identity, &mut scratch.segment);
    let body = open.read_whole(&mut out)?.to_vec();
    assert_eq!((open.seek(SeekFrom::End(0)), open.read(&mut [0])), (Ok(body.len() as u64), Ok(0)), "behind its end");
    Ok((generation, body))
}

fn sealed(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; SLOT];
    seal(&mut MemoryZone::new(&mut bytes), kind, 7, &identity(1), body).unwrap();
    bytes
}

#[test]
fn what_is_sealed_opens_at_every_length_around_a_segment() {
    for length in [0, 1, 4095, 4096, 4097, 8192, 12_345] {
        let body: Vec<u8> = (0..length).map(|i| i as u8).collect();
        assert_eq!(open(&sealed(Kind::Record, &body), Kind::Record), Ok((7, body)), "{length} bytes");
    }
}

#[test]
fn sealing_the_same_twice_is_the_same_and_another_generation_shares_no_key() {
    let body = vec![5; 5000];
    assert_eq!(sealed(Kind::Record, &body), sealed(Kind::Record, &body));
    let mut next = vec![0; SLOT];
    seal(&mut MemoryZone::new(&mut next), Kind::Record, 8, &identity(1), &body).unwrap();
    let first = sealed(Kind::Record, &body);
    assert_ne!(first[48..80], next[48..80], "the salt follows the header");
    assert_ne!(first[4096..8192], next[4096..8192]);
}

#[test]
fn no_flipped_byte_of_header_or_body_opens_to_something_else() {
    let body: Vec<u8> = (0..9000).map(|i| (i * 7) as u8).collect();
    let good = sealed(Kind::Backup, &body);
    let used = slot::slot_bytes(body.len() as u64, 12) as usize;
    for at in 0..used {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert!(open(&bad, Kind::Backup).is_err(), "byte {at} flipped, and it opened");
    }
    for at in used..used + 512 {
        let mut padded = good.clone();
        padded[at] ^= 0x10;
        assert_eq!(open(&padded, Kind::Backup), Ok((7, body.clone())), "byte {at} is no part of the slot");
    }
}

#[test]
fn a_truncated_slot_does_not_open() {
    let body = vec![9; 6000];
    let good = sealed(Kind::Record, &body);
    let used = slot::slot_bytes(body.len() as u64, 12) as usize;
    for length in (0..used).step_by(37).chain(used - 3..used) {
        assert!(open(&good[..length], Kind::Record).is_err(), "cut to {length}");
    }
}

#[test]
fn segments_cannot_be_swapped_repeated_or_left_out() {
    let body: Vec<u8> = (0..3 * 4096).map(|i| (i / 4096) as u8).collect();
    let good = sealed(Kind::Record, &body);
    let segment = |i: usize| 4096 + i * 4112..4096 + (i + 1) * 4112;
    for (to, from) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        let mut bad = good.clone();
        bad[segment(to)].copy_from_slice(&good[segment(from)]);
        assert_eq!(open(&bad, Kind::Record).err(), Some(SlotError::Damaged { segment: to as u32 }));
    }
}

#[test]
fn a_record_is_no_backup_and_another_products_slot_stays_locked() {
    let good = sealed(Kind::Record, b"x");
    assert_eq!(open(&good, Kind::Backup).err(), Some(SlotError::WrongKind));
    let mut copy = good.clone();
    let header = Header::read(&mut MemoryZone::new(&mut copy), Kind::Record).unwrap();
    let other = Secret::new([8; 32]);
    assert!(matches!(
        header.unlock(other.expose(), &mut scratch().blocks),
        Err(SlotError::Locked(UnlockError::Unauthentic))
    ));
}

#[test]
fn a_key_slot_that_asks_for_the_machines_memory_is_refused_before_it_is_given() {
    let identity = identity(1);
    for (at, value) in
        [(4, u32::MAX), (4, (64 << 10) + 1), (4, 1 << 24 | 64), (8, u32::MAX), (12, 255), (4, 0), (8, 0), (12, 0)]
    {
        let mut slot = identity.slots[0];
        slot.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        assert_eq!(slot.unlock(product_secret().expose(), &mut scratch().blocks).err(), Some(UnlockError::Cost));
    }
    let mut typed = identity.slots[0];
    typed.0[4..8].copy_from_slice(&Cost::TYPED.memory_kib.to_le_bytes());
    let refused = typed.unlock(product_secret().expose(), &mut scratch().blocks).err();
    assert_eq!(refused, Some(UnlockError::Memory(19 << 10)));
}

#[test]
fn a_slot_of_a_passphrase_or_a_printed_code_opens_the_same_key() {
    let mut identity = identity(1);
    let mut blocks = vec![argon2::Block::new(); Cost::TYPED.memory_kib as usize];
    let passphrase = b"correct horse";
    for (kind, other) in [(SlotKind::Passphrase, SlotKind::Recovery), (SlotKind::Recovery, SlotKind::Passphrase)] {
        identity.slots[1] = KeySlot::lock(
            kind,
            Cost::TYPED,
            identity.device_id,
            [4; 16],
            &identity.device_key,
            passphrase,
            &mut blocks,
        )
        .unwrap();
        assert_eq!(identity.slots[1].kind(), Some(kind));
        let opened = Identity::unlock(&identity.slots, kind, passphrase, &mut blocks).unwrap();
        assert!(opened.device_key == identity.device_key);
        assert!(Identity::unlock(&identity.slots, kind, b"wrong", &mut blocks).is_err());
        assert!(Identity::unlock(&identity.slots, other, passphrase, &mut blocks).is_err());
    }
}

/// An identity that is unlocked at the least cost that Argon2 takes: sweeps do it thousands of times.
fn cheap_identity() -> Identity {
    let mut cheap = identity(1);
    let (cost, id) = (Cost { memory_kib: 8, passes: 1, lanes: 1 }, cheap.device_id);
    let (kind, secret) = (SlotKind::Unattended, product_secret());
    let locked = KeySlot::lock(kind, cost, id, [7; 16], &cheap.device_key, secret.expose(), &mut scratch().blocks);
    cheap.slots[0] = locked.unwrap();
    cheap
}

/// Two slots of a kind, of which the older one is written anew and cut anywhere, and that is done again and cut anywhere.
fn sweep(kind: Kind, slots: [SlotName; 2], body_bytes: usize) -> (usize, usize) {
    let align = 64 << 10;
    let zone_bytes = HiddenLayout::zone_bytes_for(align, align);
    let layout = HiddenLayout::of(zone_bytes, align).unwrap();
    let identity = cheap_identity();
    let bodies: Vec<Vec<u8>> = (0..4).map(|seed| vec![seed; body_bytes + usize::from(seed) * 100]).collect();
    let write = |disk: &SimDisk, slot: SlotName, generation: u64| {
        let mut zone = HiddenZone::new(disk.clone(), align).unwrap();
        seal(&mut zone.slot(slot).unwrap(), kind, generation, &identity, &bodies[generation as usize])
    };
    let newest = |medium: &Medium| {
        let open =
            |name: &SlotName| open(&medium.bytes(layout.start(*name), layout.slot_bytes(*name) as usize), kind).ok();
        slots.iter().filter_map(open).max().expect("one is left")
    };
    let whole = |found: &(u64, Vec<u8>), at: &dyn std::fmt::Display| {
        assert!(found.0 >= 2 && found.1 == bodies[found.0 as usize], "generation {} after a cut at {at}", found.0);
    };
    let disk = SimDisk::new(Medium::zeros(zone_bytes));
    write(&disk, slots[0], 1).unwrap();
    write(&disk, slots[1], 2).unwrap();
    disk.recording();
    let before = disk.medium();
    write(&disk, slots[0], 3).unwrap();
    let first = disk.recording();
    assert_eq!(newest(first.after()), (3, bodies[3].clone()));

    // The same under the eyes of the writer, who hears of it.
    for number in 0..first.writes() {
        for kept in [0, 1, 511, 512, 4095, 4111] {
            let disk = SimDisk::faulty(before.clone(), Faults { cut: Some((number, kept)), ..Faults::default() });
            assert!(write(&disk, slots[0], 3).is_err());
            whole(&newest(&disk.medium()), &format!("write {number}, {kept} bytes of it"));
        }
        let faults = Faults { failing_writes: number..number + 1, ..Faults::default() };
        let disk = SimDisk::faulty(before.clone(), faults);
        assert!(write(&disk, slots[0], 3).is_err());
        assert_eq!(newest(&disk.medium()).0, 2);
    }

    let effort = Effort { seed: 1, tears: usize::MAX, exhaustive: 8, drawn: 8 };
    let (mut once, mut twice) = (0, 0);
    for state in first.states(&effort) {
        let torn = first.medium(&state);
        let found = newest(&torn);
        whole(&found, &state);
        once += 1;
        if found.0 == 3 {
            continue;
        }
        let disk = SimDisk::new(torn);
        write(&disk, slots[0], 3).unwrap();
        let second = disk.recording();
        assert_eq!(newest(second.after()).0, 3);
        for again in second.states(&effort) {
            whole(&newest(&second.medium(&again)), &format!("{state}, then at {again}"));
            twice += 1;
        }
    }
    (once, twice)
}

#[test]
fn a_cut_at_any_write_of_a_seal_and_at_any_of_doing_it_again_leaves_the_old_body_or_the_new_one() {
    for (kind, slots, body_bytes) in [
        (Kind::Record, [SlotName::RecordA, SlotName::RecordB], 9000),
        (Kind::Backup, [SlotName::BackupA, SlotName::BackupB], 12_000),
    ] {
        let (once, twice) = sweep(kind, slots, body_bytes);
        figures::count(figures::CUT_STATES, &format!("seal, {kind:?}"), once + twice, 0);
        assert!(once > 50 && twice > 1000, "only {once} and {twice} states were tried");
    }
}

#[test]
fn a_medium_that_does_not_keep_what_it_takes_is_found_out() {
    let mut disk = SimDisk::faulty(Medium::zeros(SLOT as u64), Faults { lying_at: Some(1000), ..Faults::default() });
    assert_eq!(seal(&mut disk, Kind::Record, 1, &identity(1), &[1; 5000]), Err(SlotError::ReadBack));
}

#[test]
fn a_medium_that_wears_out_or_turns_read_only_keeps_the_slot_that_was_not_written() {
    let identity = cheap_identity();
    let full = |faults: Faults| {
        let disk = SimDisk::faulty(Medium::zeros(2 * SLOT as u64), faults);
        let mut kept = None;
        for generation in 1..20 {
            let start = generation % 2 * SLOT as u64;
            let mut window = Window::new(disk.clone(), start, SLOT as u64).unwrap();
            match seal(&mut window, Kind::Record, generation, &identity, &[generation as u8; 5000]) {
                Ok(_) => kept = Some(generation),
                Err(error) => {
                    let found = [0, SLOT as u64].map(|start| open(&disk.medium().bytes(start, SLOT), Kind::Record));
                    let newest = found.into_iter().flatten().max();
                    return (kept, newest.map(|(generation, _)| generation), Some(error));
                }
            }
        }
        (kept, None, None)
    };
    let worn = full(Faults { endurance: Some(4), ..Faults::default() });
    assert!(worn.0.is_some() && worn.1 == worn.0 && worn.2 == Some(SlotError::Zone(ZoneError::Io(5))), "{worn:?}");
    for write in 0..12 {
        let refused = full(Faults { read_only_from: Some(write), ..Faults::default() });
        assert!(refused.1 == refused.0 && refused.2 == Some(SlotError::Zone(ZoneError::ReadOnly)), "{refused:?}");
    }
}

#[test]
fn a_body_that_changes_while_it_is_sealed_gets_no_header() {
    /// Says something else when it is read again, as a file that another program writes to.
    struct Changing(u8);
    impl slot::Body for Changing {
        fn len(&self) -> u64 {
            5000
        }
        fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ZoneError> {
            self.0 += u8::from(offset == 0);
            buf.fill(self.0);
            Ok(())
        }
    }
    let mut bytes = sealed(Kind::Backup, &[9; 5000]);
    let before = bytes[..slot::HEADER_BYTES].to_vec();
    let write = slot::Write { kind: Kind::Backup, generation: 8, identity: &identity(1), segment_log2: 12 };
    let result = write.write(&mut MemoryZone::new(&mut bytes), &mut Changing(0), &mut scratch().segment);
    assert_eq!(result, Err(SlotError::Changed));
    assert_eq!(bytes[..slot::HEADER_BYTES], before);
}

#[test]
fn a_slot_takes_the_room_and_the_memory_that_are_said_and_no_less_will_do() {
    const LOG2: u8 = 12;
    let identity = identity(1);
    for length in [0, 1, 4096, 10_000] {
        let body = vec![6; length];
        let room = slot::slot_bytes(length as u64, LOG2) as usize;
        let memory = slot::segment_buffer_bytes(LOG2);
        assert_eq!(memory, 4096 + 16);
        let write = |room: usize, memory: usize| {
            let mut bytes = vec![0; room];
            let write = slot::Write { kind: Kind::Backup, generation: 1, identity: &identity, segment_log2: LOG2 };
            let written = write.write(&mut MemoryZone::new(&mut bytes), &mut &*body, &mut vec![0; memory]);
            written.map(|written| (written as usize, bytes))
        };
        let (written, bytes) = write(room, memory).unwrap();
        assert_eq!(written, room);
        assert_eq!(open(&bytes, Kind::Backup), Ok((1, body.clone())));
        assert_eq!(write(room - 1, memory).err(), Some(SlotError::TooLong), "{length} bytes");
        assert_eq!(write(room, memory - 1).err(), Some(SlotError::Segment(LOG2)), "{length} bytes");
        assert!(write(room + 4096, 3 * memory).is_ok());
    }
}

#[test]
fn a_damaged_segment_is_named_by_whoever_comes_to_it() {
    const SEGMENT: usize = 4096;
    let identity = identity(1);
    for (length, segments) in [(0, 1), (3 * SEGMENT - 1, 3)] {
        let sound = sealed(Kind::Record, &vec![5; length]);
        let read = |damaged: Option<usize>| {
            let mut bytes = sound.clone();
            if let Some(segment) = damaged {
                bytes[slot::HEADER_BYTES + segment * (SEGMENT + 16)] ^= 1;
            }
            let mut scratch = scratch();
            let mut zone = MemoryZone::new(&mut bytes);
            let header = Header::read(&mut zone, Kind::Record).unwrap();
            let mut open = OpenSlot::new(zone, Kind::Record, header, &identity, &mut scratch.segment);
            let verified = open.verify();
            let mut out = vec![0; length];
            let read = open.read_whole(&mut out).map(<[u8]>::len);
            (verified, read, open.fault())
        };
        assert_eq!(read(None), (Ok(()), Ok(length), None));
        for segment in 0..segments {
            let damage = SlotError::Damaged { segment: segment as u32 };
            // Of an empty body nothing is read but what authenticates it.
            let fault = (length > 0).then_some(damage);
            assert_eq!(read(Some(segment)), (Err(damage), Err(damage), fault), "{segment} of {segments}");
        }
    }
}

#[test]
fn a_header_tells_what_the_slot_takes_and_who_opens_it_and_fits_to_the_byte() {
    let mut identity = identity(1);
    identity.slots[1] = identity.slots[0];
    identity.slots[1].0[40] ^= 1;
    for length in [0, 1, 4096, 4097, 12_345] {
        let mut bytes = vec![0; SLOT];
        seal(&mut MemoryZone::new(&mut bytes), Kind::Record, 7, &identity, &vec![3; length]).unwrap();
        let taken = slot::slot_bytes(length as u64, 12);
        let mut read = |zone_bytes: u64| {
            Header::read(&mut MemoryZone::new(&mut bytes[..zone_bytes as usize]), Kind::Record)
                .map(|header| (header.slot_bytes(), header.key_slots() == identity.slots))
        };
        assert_eq!(read(taken), Ok((Some(taken), true)), "{length} bytes");
        assert_eq!(read(taken - 1), Err(SlotError::Malformed), "{length} bytes");
        assert_eq!(read(slot::HEADER_BYTES as u64), Err(SlotError::Malformed));
        assert_eq!(read(slot::HEADER_BYTES as u64 - 1), Err(SlotError::NoHeader));
    }
}

#[test]
fn a_backup_gives_back_every_image() {
    let images = [image("1.0.0", 20_000), image("1.0.1", 33_333)];
    let names = ["linux-x86_64", "linux-aarch64"];
    let index = Index::layout(names.iter().copied().zip(images.iter().map(|image| image.len() as u64))).unwrap();
    let mut bodies: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let mut body = BackupBody::new(index, &mut bodies).unwrap();
    let mut bytes = vec![0; 256 << 10];
    let identity = identity(1);
    let write = slot::Write { kind: Kind::Backup, generation: 1, identity: &identity, segment_log2: 14 };
    let mut scratch = scratch();
    write.write(&mut MemoryZone::new(&mut bytes), &mut body, &mut scratch.segment).unwrap();
    let mut zone = MemoryZone::new(&mut bytes);
    let header = Header::read(&mut zone, Kind::Backup).unwrap();
    let length = header.body_bytes();
    let mut open = OpenSlot::new(zone, Kind::Backup, header, &identity, &mut scratch.segment);
    let index = Index::read(&mut open, length).unwrap();
    for (name, image) in names.iter().zip(&images) {
        let entry = index.find(name).unwrap().clone();
        let mut back = vec![0; image.len()];
        let mut reader = ImageReader::new(&mut open, &entry);
        assert_eq!((reader.len(), reader.is_empty()), (image.len() as u64, false));
        read_exact_at(&mut reader, 0, &mut back).unwrap();
        assert!(back == *image, "{name}");
        let mut tail = [0; 10];
        assert_eq!(reader.seek(SeekFrom::End(-10)), Ok(image.len() as u64 - 10));
        reader.read_exact(&mut tail).unwrap();
        assert!(image.ends_with(&tail) && reader.read(&mut tail) == Ok(0), "{name}: its end");
    }
    assert!(index.find("windows-x86_64").is_none());
}

#[test]
fn an_index_that_names_what_is_not_there_or_is_too_long_is_refused() {
    let at = |offset: u64, length: u64| Entry { platform: PLATFORM.try_into().unwrap(), offset, length };
    let read = |entries: &[Entry], stated: Option<usize>, body_bytes: u64| {
        let index = Index { entries: entries.iter().cloned().collect() };
        let mut body = vec![0; INDEX_BYTES];
        let length = postcard::to_slice(&index, &mut body[4..]).unwrap().len();
        body[..4].copy_from_slice(&(stated.unwrap_or(length) as u32).to_le_bytes());
        Index::read(&mut MemoryZone::new(&mut body), body_bytes).map(|read| assert!(read == index))
    };
    let start = INDEX_BYTES as u64;
    assert_eq!(read(&[at(start, 100)], None, start + 100), Ok(()));
    let refused = Err(ZoneError::Corrupt);
    assert_eq!(read(&[at(start, 100)], None, start + 99), refused, "past the end of the body");
    assert_eq!(read(&[at(start - 1, 100)], None, start + 100), refused, "in the index itself");
    assert_eq!(read(&[at(start, 50), at(start - 1, 50)], None, start + 100), refused, "the second, too");
    assert_eq!(read(&[at(start, MAX_IMAGE_BYTES)], None, start + MAX_IMAGE_BYTES), Ok(()));
    assert_eq!(read(&[at(start, MAX_IMAGE_BYTES + 1)], None, start + MAX_IMAGE_BYTES + 1), refused, "too long");
    assert_eq!(read(&[at(u64::MAX, 2)], None, u64::MAX), refused, "past the end of numbers");
    // What a later format appended fills the index at most.
    assert_eq!(read(&[at(start, 100)], Some(INDEX_BYTES - 4), start + 100), Ok(()));
    assert_eq!(read(&[at(start, 100)], Some(INDEX_BYTES - 3), start + 100), refused, "longer than its place");

    assert_eq!(Index::layout([(PLATFORM, MAX_IMAGE_BYTES)].into_iter()).unwrap().body_bytes(), start + MAX_IMAGE_BYTES);
    assert_eq!(Index::layout([(PLATFORM, MAX_IMAGE_BYTES + 1)].into_iter()), Err(MalformedIndex));
}

#[test]
fn slots_stand_on_their_own_boundaries_and_do_not_overlap() {
    assert!(HiddenLayout::of(3 * DISK_ALIGN_BYTES, DISK_ALIGN_BYTES).is_none());
    for megabytes in [16, 20, 24, 64, 1024] {
        let zone = megabytes << 20;
        let layout = HiddenLayout::of(zone, DISK_ALIGN_BYTES).unwrap();
        let mut end = 0;
        for name in SlotName::ALL {
            assert_eq!(layout.start(name) % DISK_ALIGN_BYTES, 0);
            assert!(layout.start(name) >= end);
            end = layout.start(name) + layout.slot_bytes(name);
        }
        assert!(end <= zone);
    }
    let needed = HiddenLayout::zone_bytes_for(5 << 20, DISK_ALIGN_BYTES);
    assert_eq!(HiddenLayout::of(needed, DISK_ALIGN_BYTES).unwrap().slot_bytes(SlotName::BackupB), 8 << 20);
}

fn record() -> VersionRecord<'static> {
    let release = Release { serial: 5, version: "1.4.0", manifest: Digest::of(b"manifest"), published: 1_790_000_000 };
    let mut record = VersionRecord::new(identity(1).device_id);
    record.release = Some(release);
    record.previous = Some(Release { serial: 4, version: "1.3.9", ..release });
    record.health = Health::Unproven { failed_starts: 1 };
    record.skipped.push(3).unwrap();
    record.modules.push(ModuleVersion { id: "client", version: "1.4.0" }).unwrap();
    record.content_keys.push(StoredContentKey { number: 2, key: [6; 32] }).unwrap();
    record.backup_generation = 300;
    record.root = &[b'r'; 5000];
    record
}

#[test]
fn a_record_reads_as_it_was_written_and_skips_appended_fields() {
    let mut out = vec![0; 8192];
    let written = record().encode(&mut out).unwrap().len();
    assert_eq!(VersionRecord::decode(&out[..written]), Ok(record()));
    assert_eq!(VersionRecord::decode(&out[..written + 40]), Ok(record()), "bytes of a later format behind it");
    for length in (0..200).chain(written - 100..written) {
        assert!(VersionRecord::decode(&out[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn a_record_is_as_long_as_a_slot_takes_at_most() {
    let mut out = vec![0; 2 * MAX_RECORD_BYTES];
    let filler = vec![b's'; MAX_RECORD_BYTES];
    let mut long = record();
    long.snapshot = &filler[..50_000];
    let rest = long.encode(&mut out).unwrap().len() - 50_000;
    long.snapshot = &filler[..MAX_RECORD_BYTES - rest];
    assert_eq!(long.encode(&mut out).unwrap().len(), MAX_RECORD_BYTES);
    long.snapshot = &filler[..MAX_RECORD_BYTES - rest + 1];
    assert_eq!(long.encode(&mut out), Err(MalformedRecord));
}

#[test]
fn the_vectors_read_as_their_names_say() {
    let dir = testdata().join("hidden-zone/v1");
    let mut plain = vec![0; 8192];
    let plain = record().encode(&mut plain).unwrap().to_vec();
    let good = sealed(Kind::Record, &plain)[..slot::slot_bytes(plain.len() as u64, 12) as usize].to_vec();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let recrc = |bytes: &mut Vec<u8>| {
        let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&bytes[..4092]);
        bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
    };
    type Vector = (&'static str, Vec<u8>, Option<SlotError>);
    let vectors: [Vector; 7] = [
        ("record-generation-7.slot", good.clone(), None),
        ("header-checksum-wrong.slot", changed(&|bytes| bytes[4092] ^= 1), Some(SlotError::NoHeader)),
        (
            "generation-raised-by-hand.slot",
            changed(&|bytes| {
                bytes[16] = 200;
                recrc(bytes);
            }),
            Some(SlotError::Damaged { segment: 0 }),
        ),
        (
            "argon2-asks-for-four-terabytes.slot",
            changed(&|bytes| {
                bytes[84..88].copy_from_slice(&u32::MAX.to_le_bytes());
                recrc(bytes);
            }),
            Some(SlotError::Locked(UnlockError::Cost)),
        ),
        (
            "body-longer-than-its-slot.slot",
            changed(&|bytes| {
                bytes[24..32].copy_from_slice(&(1u64 << 40).to_le_bytes());
                recrc(bytes);
            }),
            Some(SlotError::Malformed),
        ),
        ("body-byte-flipped.slot", changed(&|bytes| bytes[4100] ^= 1), Some(SlotError::Damaged { segment: 0 })),
        (
            "unknown-format.slot",
            changed(&|bytes| {
                bytes[8] = 9;
                recrc(bytes);
            }),
            Some(SlotError::UnknownFormat(9)),
        ),
    ];
    for (name, bytes, reason) in vectors {
        if std::env::var_os("HOLDFAST_WRITE_VECTORS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), &bytes).unwrap();
        }
        let stored = std::fs::read(dir.join(name)).unwrap();
        assert!(stored == bytes, "{name} is not what today's writer makes");
        let opened = open(&stored, Kind::Record);
        assert_eq!(opened.as_ref().err(), reason.as_ref(), "{name}");
        if let Ok((generation, body)) = opened {
            assert_eq!((generation, VersionRecord::decode(&body)), (7, Ok(record())));
        }
    }
}
