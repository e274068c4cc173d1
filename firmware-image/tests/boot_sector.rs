//! A FAT32 boot sector and its copy, each damaged and mended from the other.

use firmware_image::boot_sector::{Finding, Mended, Which, examine, mend, write_from};
use firmware_image::image::fat::{FormatOptions, RawFat, format};
use firmware_image::sim::{Faults, Medium, SimDisk};
use firmware_image::{RawZone as _, ZoneError};

const COPY: u64 = 6 * 512;

fn volume() -> Medium {
    let mut disk = SimDisk::new(Medium::zeros(48 << 20));
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
