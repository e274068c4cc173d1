//! The partition table against the tools that users have, and against damage.
#![cfg(all(feature = "image", feature = "sim"))]

use std::path::Path;
use std::process::Command;

use embedded_io::{Seek as _, SeekFrom, Write as _};
use firmware_image::ZoneError;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::gpt::{self, ALIGN_BYTES, Copy, Guids, Plan, Table, TableError};
use firmware_image::key_slot::DeviceId;
use firmware_image::sim::figures;

const MIB: u64 = 1 << 20;

fn disk(path: &Path) -> Plan {
    let plan = Plan::new(256 * MIB, Some(5 * MIB), 20 * MIB).unwrap();
    let guids = Guids::new(&DeviceId([1; 16]), &std::array::from_fn(|i| i as u8));
    gpt::write(FileZone::create_new(path, 256 * MIB).unwrap(), &plan, &guids).unwrap();
    plan
}

fn open(path: &Path) -> FileZone {
    FileZone::open(path, Access::ReadWrite).unwrap()
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = open(path);
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn every_zone_starts_and_ends_on_a_boundary_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let plan = disk(&path);
    let table = Table::read(open(&path)).unwrap();
    assert_eq!((table.copy, table.both_agree), (Copy::Primary, true));
    assert_eq!(table.free(), Some(plan.free));
    assert_eq!(table.virtual_zone(), plan.virtual_zone);
    assert_eq!(table.hidden(), Some(plan.hidden));
    for extent in [plan.free, plan.virtual_zone.unwrap(), plan.hidden] {
        assert_eq!((extent.start % ALIGN_BYTES, extent.length % ALIGN_BYTES), (0, 0));
    }
    assert_eq!(plan.virtual_zone.unwrap().length, 8 * MIB);
}

#[test]
fn sfdisk_and_sgdisk_accept_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    disk(&path);
    match Command::new("sfdisk").arg("-d").arg(&path).output() {
        Err(_) => figures::skipped("sfdisk is not installed"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            assert!(said.contains("label: gpt"), "{said}");
            assert!(said.contains("type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"), "{said}");
            assert!(said.contains("type=7B0E3C5A-91D4-4F6B-A8C2-5D1F60E97A34"), "{said}");
            for name in ["HOLDFAST-FREE", "HOLDFAST-VIRTUAL", "HOLDFAST-HIDDEN"] {
                assert!(said.contains(&format!("name=\"{name}\"")), "{said}");
            }
            assert!(said.contains("attrs=\"GUID:60,62,63\"") && said.contains("attrs=\"GUID:62,63\""), "{said}");
        }
    }
    match Command::new("sgdisk").arg("-v").arg(&path).output() {
        Err(_) => figures::skipped("sgdisk is not installed"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("No problems found"), "{said}");
        }
    }
}

#[test]
fn the_backup_serves_when_the_primary_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let plan = disk(&path);
    overwrite(&path, 512, &[0; 512]);
    let table = Table::read(open(&path)).unwrap();
    assert_eq!((table.copy, table.both_agree), (Copy::Backup, false));
    assert_eq!(table.hidden(), Some(plan.hidden));
    overwrite(&path, 256 * MIB - 512, &[0; 512]);
    assert_eq!(Table::read(open(&path)), Err(TableError::None));
}

#[test]
fn a_truncated_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    disk(&path);
    open(&path).set_len(200 * MIB).unwrap();
    assert_eq!(Table::read(open(&path)), Err(TableError::Contradictory));
    for length in [0, 100, 511, 512, 1024, 4096] {
        open(&path).set_len(length).unwrap();
        assert!(Table::read(open(&path)).is_err());
    }
}

#[test]
fn no_flipped_byte_of_a_header_makes_it_panic_or_believe() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    disk(&path);
    let whole = Table::read(open(&path)).unwrap();
    let mut raw = vec![0; 1024 + 512];
    {
        use embedded_io::Read as _;
        open(&path).read_exact(&mut raw).unwrap();
    }
    for at in (512..604).chain(1024..1024 + 384) {
        for flip in [0x01, 0xFF] {
            overwrite(&path, at as u64, &[raw[at] ^ flip]);
            let table = Table::read(open(&path)).unwrap();
            assert_eq!(table.copy, Copy::Backup, "byte {at}");
            assert_eq!(table.partitions, whole.partitions);
        }
        overwrite(&path, at as u64, &raw[at..at + 1]);
    }
}

#[test]
fn overlapping_parts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let mut plan = Plan::new(256 * MIB, None, 20 * MIB).unwrap();
    plan.hidden.start -= ALIGN_BYTES;
    let guids = Guids::new(&DeviceId([7; 16]), &[7; 48]);
    gpt::write(FileZone::create_new(&path, 256 * MIB).unwrap(), &plan, &guids).unwrap();
    assert_eq!(Table::read(open(&path)), Err(TableError::Contradictory));
}

#[test]
fn a_disks_guid_comes_from_the_device_id() {
    // Computed by Python's hashlib and uuid: 309240B3-A762-88D9-8125-C9D94E6FA275.
    let id = DeviceId(std::array::from_fn(|i| i as u8));
    let expected = "b340923062a7d9888125c9d94e6fa275";
    assert_eq!(hex::encode(gpt::disk_guid(&id)), expected);
    assert_eq!(hex::encode(Guids::new(&id, &[0; 48]).disk), expected);
}

#[test]
fn a_plan_that_does_not_fit_is_refused() {
    assert_eq!(Plan::new(20 * MIB, Some(8 * MIB), 16 * MIB), Err(ZoneError::Full));
    assert_eq!(Plan::new(0, None, 16 * MIB), Err(ZoneError::Full));
    assert_eq!(Plan::new(u64::MAX, Some(u64::MAX), 16 * MIB), Err(ZoneError::Full));
}

#[test]
fn of_a_protective_mbr_only_the_length_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    disk(&path);
    let table = Table::read(open(&path)).unwrap();
    // The active flag (`parted disk_set pmbr_boot on`), an end in heads and cylinders as another tool counts them, and code.
    let sector = || std::fs::read(&path).unwrap()[..512].to_vec();
    overwrite(&path, 0, &[0xEB; 446]);
    overwrite(&path, 446, &[0x80]);
    overwrite(&path, 451, &[1, 2, 3]);
    let mut expected = sector();
    open(&path).set_len(300 * MIB).unwrap();
    table.write(open(&path), None).unwrap();
    expected[458..462].copy_from_slice(&(300 * 2048_u32 - 1).to_le_bytes());
    assert_eq!(sector(), expected);
    assert!(Table::read(open(&path)).unwrap().both_agree);
}
