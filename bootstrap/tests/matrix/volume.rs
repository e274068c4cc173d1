//! Where the structures of a FAT volume stand on a disk.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use firmware_image::boot_sector::{Geometry, Root};
use firmware_image::image::gpt::Extent;

const ENTRY_BYTES: usize = 32;
/// Attributes of an entry: a part of a long name, a directory.
const LONG_NAME: u8 = 0x0F;
const DIRECTORY: u8 = 0x10;
/// Where an entry has a long name's characters.
const CHARACTERS: [std::ops::Range<usize>; 3] = [1..11, 14..26, 28..32];

/// A volume on a disk. Places are in bytes from the disk's start.
pub struct Volume {
    disk: File,
    start: u64,
    pub geometry: Geometry,
}

impl Volume {
    pub fn of(disk: &Path, free: Extent) -> Self {
        let disk = File::open(disk).unwrap();
        let mut boot = [0; 512];
        disk.read_exact_at(&mut boot, free.start).unwrap();
        Self { disk, start: free.start, geometry: Geometry::parse(&boot, free.length).unwrap() }
    }

    /// Table `number`, from 0.
    pub fn table(&self, number: u64) -> (u64, usize) {
        let geometry = &self.geometry;
        (self.start + geometry.fat_start + number * geometry.fat_bytes, geometry.fat_bytes as usize)
    }

    /// The root directory, of FAT32 its first cluster.
    pub fn root(&self) -> (u64, usize) {
        match self.geometry.root {
            Root::Fixed { start, bytes } => (self.start + start, bytes as usize),
            Root::Cluster(cluster) => self.cluster(cluster),
        }
    }

    /// The first cluster of a directory of the root's.
    pub fn directory(&self, wanted: &str) -> (u64, usize) {
        let mut long = String::new();
        for entry in self.root_entries().chunks_exact(ENTRY_BYTES) {
            if entry[11] == LONG_NAME {
                // The parts of a name stand in front of its entry, the last one first.
                let units = CHARACTERS.into_iter().flat_map(|range| entry[range].chunks_exact(2));
                let units: Vec<u16> = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
                let ends = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
                long.insert_str(0, &String::from_utf16_lossy(&units[..ends]));
                continue;
            }
            let short = String::from_utf8_lossy(&entry[..11]).trim_end().to_ascii_lowercase();
            let name = if long.is_empty() { short } else { std::mem::take(&mut long) };
            if entry[11] & DIRECTORY != 0 && name == wanted {
                let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                return self.cluster(half(20) << 16 | half(26));
            }
            long.clear();
        }
        panic!("the root has no directory {wanted}");
    }

    fn cluster(&self, number: u32) -> (u64, usize) {
        (self.start + self.geometry.cluster_at(number).unwrap(), self.geometry.cluster_bytes as usize)
    }

    fn root_entries(&self) -> Vec<u8> {
        let Root::Cluster(mut cluster) = self.geometry.root else { return self.bytes(self.root()) };
        let mut entries = Vec::new();
        while self.geometry.holds(cluster) {
            entries.extend(self.bytes(self.cluster(cluster)));
            let next = self.bytes((self.table(0).0 + u64::from(cluster) * self.geometry.entry_bytes(), 4));
            cluster = u32::from_le_bytes(next.try_into().unwrap()) & 0x0FFF_FFFF;
        }
        entries
    }

    fn bytes(&self, (at, length): (u64, usize)) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.disk.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}
