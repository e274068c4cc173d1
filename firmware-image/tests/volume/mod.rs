//! What the tests of raw FAT share: volumes, their tables, and what other tools say of them.
#![allow(dead_code)]

use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Output};

use embedded_io::{Read as _, Write as _};
use firmware_image::host::FileZone;
use firmware_image::image::fat::{FormatOptions, RawFat, format};
use firmware_image::sim::figures;
use firmware_image::{FreeZone, ZoneFile};

pub const MIB: u64 = 1 << 20;
/// A volume of FAT16 and one of FAT32, both with clusters of 512 bytes.
pub const SMALL: [u64; 2] = [4, 40];

/// The tables of a volume, by its boot sector.
pub struct Tables {
    pub start: usize,
    pub bytes: usize,
    pub entry_bytes: usize,
}

impl Tables {
    pub fn of(raw: &[u8]) -> Self {
        let start = usize::from(u16::from_le_bytes([raw[14], raw[15]])) * 512;
        match usize::from(u16::from_le_bytes([raw[22], raw[23]])) {
            0 => {
                let sectors = u32::from_le_bytes([raw[36], raw[37], raw[38], raw[39]]) as usize;
                Self { start, bytes: sectors * 512, entry_bytes: 4 }
            }
            sectors => Self { start, bytes: sectors * 512, entry_bytes: 2 },
        }
    }

    pub fn end(&self) -> usize {
        self.start + 2 * self.bytes
    }
}

/// Runs a tool, or says once that it is missing.
pub fn tool(name: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(name).args(arguments).env("MTOOLS_SKIP_CHECK", "1").env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => Some(output),
        Err(_) => {
            figures::skipped(&format!("{name} is not installed"));
            None
        }
    }
}

/// A directory in memory where the host has one: the sweeps flush thousands of times.
pub fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn volume(path: &Path, bytes: u64) -> RawFat<FileZone> {
    let mut zone = FileZone::create_new(path, bytes).unwrap();
    let options = FormatOptions { label: *b"HOLDFAST   ", volume_id: 0x1234_5678, hidden_sectors: 8192 };
    format(&mut zone, &options).unwrap();
    RawFat::open(zone, false).unwrap()
}

pub fn put<Z: FreeZone>(zone: &Z, path: &str, bytes: &[u8]) {
    let mut file = zone.create(path).unwrap();
    file.write_all(bytes).unwrap();
}

pub fn get<Z: FreeZone>(zone: &Z, path: &str) -> Option<Vec<u8>> {
    let mut file = zone.open(path).unwrap()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(file.read(&mut [0; 1]).unwrap(), 0);
    Some(bytes)
}

pub fn names<Z: FreeZone>(zone: &Z, path: &str) -> Vec<String> {
    let mut names = Vec::new();
    zone.list(path, &mut |name, _| {
        names.push(name.to_owned());
        ControlFlow::Continue(())
    })
    .unwrap();
    names.sort();
    names
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

pub fn assert_sound(path: &Path) {
    if let Some(said) = fsck(path) {
        assert_eq!(said.lines().count(), 2, "{said}");
    }
}

/// What is said of a volume without errors.
pub fn fsck(path: &Path) -> Option<String> {
    let output = tool("fsck.vfat", &["-n", text(path)])?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    Some(said)
}
