//! Regions of flash: a file is there whole, or not at all.

mod common;

use common::*;
use firmware_image::ZoneError;
use firmware_image::region::{self, Extent, RegionLayout};
use firmware_image::sim::{Faults, Medium, SimDisk};
use firmware_image::storage::{MemoryZone, SliceReader, read_exact_at};

#[test]
fn the_vectors_are_read_and_refused_as_the_page_says() {
    let dir = testdata().join("region/v1");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "region") {
            continue;
        }
        seen += 1;
        let mut bytes = std::fs::read(&path).unwrap();
        let found = region::file_bytes(&mut MemoryZone::new(&mut bytes));
        if !path.ends_with("file-of-100-bytes.region") {
            assert_eq!(found, Err(ZoneError::NotFound), "{}", path.display());
            continue;
        }
        assert_eq!(found, Ok(100));
        let mut out = [0; 100];
        let mut zone = MemoryZone::new(&mut bytes);
        let file = region::read(&mut zone, &mut out).unwrap().to_vec();
        assert_eq!(region::read(&mut zone, &mut [0; 99]), Err(ZoneError::Full));
        let mut again = vec![0xff; 512];
        region::write(&mut MemoryZone::new(&mut again), &mut SliceReader::new(&file), 100).unwrap();
        assert_eq!(again, bytes);
    }
    assert_eq!(seen, 7);
}

#[test]
fn a_file_that_does_not_fit_its_region_leaves_what_stands_there() {
    let mut bytes = vec![7; 512];
    let file = [1; 481];
    let written = region::write(&mut MemoryZone::new(&mut bytes), &mut SliceReader::new(&file), 481);
    assert_eq!(written, Err(ZoneError::Full));
    assert_eq!(bytes, vec![7; 512]);
    region::write(&mut MemoryZone::new(&mut bytes), &mut SliceReader::new(&file), 480).unwrap();
    let mut zone = region::file(MemoryZone::new(&mut bytes)).unwrap();
    assert_eq!(read_exact_at(&mut zone, 0, &mut [0; 481]), Err(ZoneError::OutOfBounds));
}

#[test]
fn a_write_that_is_cut_leaves_no_footer_before_the_file_is_whole() {
    let file: Vec<u8> = (0..1000).map(|i| i as u8).collect();
    let mut cuts = 0;
    for write in 0.. {
        let faults = Faults { cut: Some((write, 3)), ..Faults::default() };
        let mut disk = SimDisk::faulty(Medium::of(&[0xff; 2048]), faults);
        let written = region::write(&mut disk, &mut SliceReader::new(&file), 1000);
        if written.is_ok() {
            break;
        }
        cuts += 1;
        let mut bytes = disk.medium().bytes(0, 2048);
        assert_eq!(region::file_bytes(&mut MemoryZone::new(&mut bytes)), Err(ZoneError::NotFound), "write {write}");
    }
    assert_eq!(cuts, 5, "four pieces and a footer");
}

#[test]
fn tables_that_contradict_themselves_are_not_sound() {
    let extent = |start: u64, length: u64| Extent { start: start << 10, length: length << 10 };
    let good = RegionLayout {
        config: extent(0, 4),
        factory: extent(4, 64),
        application: extent(68, 64),
        hidden: extent(144, 192),
        align_bytes: 16 << 10,
    };
    let sound = |layout: RegionLayout| layout.is_sound(336 << 10, 4 << 10);
    assert!(sound(good));
    assert!(!good.is_sound(335 << 10, 4 << 10), "leaves the flash");
    assert!(!sound(RegionLayout { factory: extent(4, 68), ..good }), "overlaps the application");
    assert!(!sound(RegionLayout { config: extent(0, 3), ..good }), "no whole block");
    assert!(!sound(RegionLayout { align_bytes: 4 << 10, ..good }), "a record slot without room for a record");
    assert!(!sound(RegionLayout { align_bytes: 24 << 10, ..good }), "no power of two");
    assert!(!sound(RegionLayout { hidden: extent(144, 60), ..good }), "no room for backups");
}
