//! A FAT32 boot sector and its copy, each damaged and mended from the other; FAT16's, which has no copy.

use firmware_image::boot_sector::{Finding, Geometry, Mended, Root, Which, examine, mend, set_volume_id, write_from};
use firmware_image::image::fat::{FormatOptions, RawFat, format};
use firmware_image::sim::{Faults, Medium, SimDisk};
use firmware_image::{RawZone as _, ZoneError};

const COPY: u64 = 6 * 512;

fn volume() -> Medium {
    volume_of(48 << 20)
}

fn volume_of(bytes: u64) -> Medium {
    let mut disk = SimDisk::new(Medium::zeros(bytes));
    format(&mut disk, &FormatOptions { label: *b"HOLDFAST   ", volume_id: 7, hidden_sectors: 8192 }).unwrap();
    disk.medium()
}

#[test]
fn whichever_byte_is_flipped_both_say_the_same_afterwards_or_nothing_is_written() {
    let sound = volume();
    let mut outcomes = [0; 4];
    for place in [0, COPY] {
        for at in 0..512 {
            for flip in [0x01, 0x80, 0xFF] {
                let mut medium = sound.clone();
                let byte = medium.bytes(place + at, 1)[0] ^ flip;
                medium.write(place + at, &[byte]);
                let mut disk = SimDisk::new(medium);
                let found = examine(&mut disk.for_reading()).unwrap();
                let mended = mend(&mut disk);
                let what = format!("byte {at} of {place}, flipped by {flip:#x}: {found:?}, {mended:?}");
                match mended {
                    Ok(Mended::Nothing) => assert!(found == Finding::Sound && disk.writes() == 0 && at == 65, "{what}"),
                    Ok(Mended::First) => assert!(place == 0 && disk.medium().digest() == sound.digest(), "{what}"),
                    Ok(Mended::Backup) => {
                        assert_eq!(disk.medium().bytes(0, 512), disk.medium().bytes(COPY, 512), "{what}");
                        assert!(RawFat::open(disk.for_reading(), true).is_ok(), "{what}");
                    }
                    Err(error) => {
                        let unclear = matches!(found, Finding::Unclear { first: Some(_), .. });
                        assert!(error == ZoneError::Corrupt && unclear && disk.writes() == 0, "{what}");
                        // Somebody says that the other one is right.
                        let right = if place == 0 { Which::Backup } else { Which::First };
                        write_from(&mut disk, right).unwrap();
                        assert_eq!(disk.medium().digest(), sound.digest(), "{what}");
                    }
                }
                assert_eq!((examine(&mut disk), mend(&mut disk)), (Ok(Finding::Sound), Ok(Mended::Nothing)), "{what}");
                outcomes[mended.map_or(3, |mended| mended as usize)] += 1;
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn where_both_are_gone_or_the_zone_ends_early_nothing_is_written() {
    let mut medium = volume();
    medium.write(0, &[0; 8 * 512]);
    let mut disk = SimDisk::new(medium);
    assert_eq!((examine(&mut disk), mend(&mut disk)), (Ok(Finding::Neither), Err(ZoneError::Corrupt)));
    for length in [0, 100, 512, 4096, 1 << 20] {
        let mut disk = SimDisk::new(Medium::of(&volume().bytes(0, length)));
        assert_eq!(mend(&mut disk), Err(ZoneError::Corrupt), "{length}");
        assert_eq!((disk.len(), disk.writes()), (Ok(length as u64), 0));
    }
}

#[test]
fn a_write_that_fails_is_an_error_and_leaves_the_copy() {
    let mut medium = volume();
    medium.write(0, &[0; 1024]);
    for write in 0..2 {
        let faults = Faults { failing_writes: write..write + 1, ..Faults::default() };
        let mut disk = SimDisk::faulty(medium.clone(), faults);
        assert!(matches!(mend(&mut disk), Err(ZoneError::Io(_))), "{write}");
        assert_eq!(mend(&mut disk), Ok(Mended::First), "{write}");
    }
}

#[test]
fn fat16_has_no_copy_and_whatever_byte_is_flipped_nothing_is_written() {
    let sound = volume_of(16 << 20);
    let boot = |medium: &Medium| <[u8; 512]>::try_from(medium.bytes(0, 512)).unwrap();
    let geometry = Geometry::parse(&boot(&sound), 16 << 20).unwrap();
    assert!(matches!(geometry.root, Root::Fixed { bytes: 16_384, .. }) && geometry.backup_boot == 0, "{geometry:?}");
    assert_eq!(
        (geometry.volume_id, &geometry.label, geometry.evidence(&mut SimDisk::new(sound.clone()))),
        (7, b"HOLDFAST   ", Ok(3))
    );
    let mut refused = 0;
    for at in 0..512 {
        for flip in [0x01, 0x80, 0xFF] {
            let mut medium = sound.clone();
            let byte = medium.bytes(at, 1)[0] ^ flip;
            medium.write(at, &[byte]);
            let parsed = Geometry::parse(&boot(&medium), 16 << 20);
            let mut disk = SimDisk::new(medium);
            let (found, mended) = (examine(&mut disk.for_reading()).unwrap(), mend(&mut disk));
            let what = format!("byte {at}, flipped by {flip:#x}: {found:?}, {mended:?}");
            match found {
                Finding::Sound => assert_eq!(mended, Ok(Mended::Nothing), "{what}"),
                _ => assert_eq!(mended, Err(ZoneError::Corrupt), "{what}"),
            }
            assert_eq!(disk.writes(), 0, "{what}");
            if let Ok(parsed) = &parsed {
                let end = parsed.data_start + u64::from(parsed.clusters) * u64::from(parsed.cluster_bytes);
                assert!(end <= 16 << 20, "{what}: {parsed:?}");
            }
            refused += usize::from(parsed.is_err());
        }
    }
    assert!(refused > 30, "{refused}");
}

#[test]
fn a_volumes_number_changes_in_both_places_and_nothing_else_does() {
    for (bytes, places) in [(16 << 20, vec![39]), (48 << 20, vec![67, COPY + 67])] {
        let mut wanted = volume_of(bytes);
        let mut disk = SimDisk::new(wanted.clone());
        set_volume_id(&mut disk, 0xA1B2_C3D4).unwrap();
        for place in places {
            wanted.write(place, &[0xD4, 0xC3, 0xB2, 0xA1]);
        }
        assert_eq!(disk.medium().digest(), wanted.digest());
        assert_eq!(RawFat::open(disk.for_reading(), true).unwrap().volume_id(), 0xA1B2_C3D4);
    }
}
