//! Partition tables and file systems, damaged.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use embedded_io::{Read as _, Write as _};
use firmware_image::boot_sector;
use firmware_image::free_zone::FreeZone as _;
use firmware_image::image::fat::{FormatOptions, RawFat, format};
use firmware_image::image::gpt::{Guids, Plan, Table, write};
use firmware_image::image::iso::{self, IsoFile, IsoOptions, IsoZone, Source};
use firmware_image::key_slot::DeviceId;
use firmware_image::storage::MemoryZone;

use crate::zone::Changed;

const MIB: usize = 1 << 20;
const DISK_BYTES: usize = 24 * MIB;

/// An image, made once.
fn made(length: usize, make: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = vec![0; length];
    make(&mut bytes);
    bytes
}

/// A table with one byte or another that is not what it was, its checksums right where the first byte is odd.
pub fn gpt(data: &[u8]) {
    static DISK: LazyLock<Vec<u8>> = LazyLock::new(|| {
        made(DISK_BYTES, |bytes| {
            let plan = Plan::new(bytes.len() as u64, Some(4 << 20), 4 << 20).unwrap();
            write(MemoryZone::new(bytes), &plan, &Guids::new(&DeviceId([7; 16]), &[7; 48])).unwrap();
        })
    });
    let Some((first, changes)) = data.split_first() else { return };
    // Places count within the tables: 34 sectors in front, 33 behind.
    let places: Vec<u8> = changes
        .chunks_exact(6)
        .flat_map(|change| {
            let at = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) % (67 * 512);
            let at = if at < 34 * 512 { at } else { at - 34 * 512 + DISK_BYTES as u32 - 33 * 512 };
            let at = at.to_le_bytes();
            [at[0], at[1], at[2], at[3], change[4], change[5]]
        })
        .collect();
    let mut disk = Changed::new(&DISK, &places);
    if first & 1 == 1 {
        let sectors = (DISK.len() / 512) as u64;
        for (header, entries) in [(1, 2), (sectors - 1, sectors - 33)] {
            mend_header(&mut disk, header, entries);
        }
    }
    if let Ok(table) = Table::read(disk) {
        let places = [table.free(), table.virtual_zone(), table.hidden()];
        for place in places.into_iter().flatten() {
            assert!(place.end() <= DISK.len() as u64, "{place:?}");
        }
        for other in table.others() {
            assert!(other.extent.end() <= DISK.len() as u64, "{other:?}");
        }
        // Carried over to another disk, it says the same.
        let mut disk = Changed::new(&DISK, &[]);
        if table.write(&mut disk, Some(&Guids::new(&DeviceId([9; 16]), &[9; 48]))).is_ok() {
            let written = Table::read(&mut disk).unwrap();
            assert_eq!(written.partitions.len(), table.partitions.len());
            for (new, old) in written.partitions.iter().zip(&table.partitions) {
                assert_eq!((new.number, &new.name, new.extent), (old.number, &old.name, old.extent));
            }
        }
    }
}

/// Makes a header's two checksums right.
fn mend_header(disk: &mut Changed, header: u64, entries: u64) {
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    let mut digest = crc.digest();
    for sector in entries..entries + 32 {
        digest.update(disk.sector(sector));
    }
    let entries = digest.finalize();
    let header = disk.sector(header);
    header[88..92].copy_from_slice(&entries.to_le_bytes());
    header[16..20].fill(0);
    let length = (u32::from_le_bytes(header[12..16].try_into().unwrap()) as usize).min(512);
    let checksum = crc.checksum(&header[..length]);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
}

/// A damaged FAT volume: everything in it is read, then it is written to. The first byte says which: FAT32, or FAT16.
pub fn fat(data: &[u8]) {
    static FAT32: LazyLock<Vec<u8>> = LazyLock::new(|| volume(40 * MIB));
    static FAT16: LazyLock<Vec<u8>> = LazyLock::new(|| volume(16 * MIB));
    fn volume(length: usize) -> Vec<u8> {
        made(length, |bytes| {
            format(
                &mut MemoryZone::new(bytes),
                &FormatOptions { label: *b"HOLDFAST   ", volume_id: 1, hidden_sectors: 0 },
            )
            .unwrap();
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), &bytes).unwrap();
            fill(path.path());
            bytes.copy_from_slice(&std::fs::read(path.path()).unwrap());
        })
    }
    let Some((which, data)) = data.split_first() else { return };
    let volume = if which & 1 == 0 { &FAT32 } else { &FAT16 };
    // Where tables and directories are: the first eighth of the volume's metadata is enough to lead anywhere.
    let near: Vec<u8> = data
        .chunks_exact(6)
        .flat_map(|change| {
            let at = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) % (1 << 20);
            let at = at.to_le_bytes();
            [at[0], at[1], at[2], at[3], change[4], change[5]]
        })
        .collect();
    let mut mended = Changed::new(volume, &near);
    if boot_sector::mend(&mut mended).is_ok() {
        assert_eq!(boot_sector::examine(&mut mended), Ok(boot_sector::Finding::Sound));
    }
    for read_only in [true, false] {
        let Ok(zone) = RawFat::open(Changed::new(volume, &near), read_only) else { return };
        read_all(&zone, "", 0);
        let _ = (zone.free_bytes(), zone.volume_id(), zone.label(), zone.capacity_bytes());
        if !read_only {
            if let Ok(mut file) = zone.create("client/new.txt") {
                let _ = file.write_all(&[5; 9000]);
                let _ = file.flush();
            }
            let _ = zone.rename("client/new.txt", "client/app.txt");
            let _ = zone.remove("READ ME.txt");
            let _ = zone.sync_dir("client");
            let _ = zone.close();
        }
    }
}

fn fill(path: &Path) {
    let file = firmware_image::host::FileZone::open(path, firmware_image::host::Access::ReadWrite).unwrap();
    let zone = RawFat::open(file, false).unwrap();
    for (name, length) in
        [("READ ME.txt", 700), ("client/app.txt", 20_000), ("client/long file name of many words.bin", 3000)]
    {
        let mut file = zone.create(name).unwrap();
        file.write_all(&vec![0x5a; length]).unwrap();
        file.flush().unwrap();
    }
    zone.create_dir_all(".holdfast/staging").unwrap();
    zone.close().unwrap();
}

fn read_all(zone: &RawFat<Changed>, path: &str, depth: usize) {
    let mut names = Vec::new();
    let _ = zone.list(path, &mut |name, metadata| {
        names.push((name.to_owned(), metadata));
        if names.len() < 64 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    for (name, _) in names {
        let path = if path.is_empty() { name } else { format!("{path}/{name}") };
        if let Ok(Some(mut file)) = zone.open(&path) {
            let mut buffer = [0; 4096];
            for _ in 0..64 {
                if !matches!(file.read(&mut buffer), Ok(n) if n > 0) {
                    break;
                }
            }
        } else if depth < 4 {
            read_all(zone, &path, depth + 1);
        }
    }
}

/// A damaged ISO 9660 volume.
pub fn iso(data: &[u8]) {
    static VOLUME: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let bytes = |text: &[u8]| Source::Bytes(Arc::from(text));
        let files = [
            IsoFile::new("device.cfg", bytes(&[3; 5000])),
            IsoFile::new("READ ME FIRST.html", bytes(b"<p>hello</p>")),
            IsoFile::program("bootstrap-linux-x86_64", bytes(&[9; 9000])),
            IsoFile::new("store/metadata/timestamp.json", bytes(b"[]")),
        ];
        let mut length = iso::bytes_needed(&files).unwrap() as usize;
        length = length.next_multiple_of(2048);
        let options = IsoOptions { volume_name: "HOLDFAST".into(), timestamp: 1_700_000_000 };
        made(length, |bytes| {
            iso::build(MemoryZone::new(bytes), &files, &options).unwrap();
        })
    });
    let length = VOLUME.len() as u32;
    let within: Vec<u8> = data
        .chunks_exact(6)
        .flat_map(|change| {
            // Behind the system area, where nothing is read.
            let at = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) % (length - 32768) + 32768;
            let at = at.to_le_bytes();
            [at[0], at[1], at[2], at[3], change[4], change[5]]
        })
        .collect();
    let mut zone = Changed::new(&VOLUME, &within);
    let _ = iso::file_system_bytes(&mut zone);
    let Ok(zone) = IsoZone::open(zone) else { return };
    let _ = zone.walk("", &mut |_, _| {});
    for path in ["device.cfg", "bootstrap-linux-x86_64", "store/metadata/timestamp.json"] {
        if let Ok(Some(mut file)) = zone.open_file(path) {
            let mut buffer = [0; 4096];
            for _ in 0..16 {
                if !matches!(file.read(&mut buffer), Ok(n) if n > 0) {
                    break;
                }
            }
        }
    }
}
