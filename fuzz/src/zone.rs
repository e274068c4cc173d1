//! Storage in memory: a sound image that is shared, and what was changed of it.

use std::collections::BTreeMap;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};
use firmware_image::storage::seek_target;
use firmware_image::{RawZone, ZoneError};

const SECTOR: u64 = 512;

/// An image under changes.
#[derive(Clone)]
pub struct Changed {
    base: &'static [u8],
    sectors: BTreeMap<u64, [u8; SECTOR as usize]>,
    position: u64,
}

impl Changed {
    /// `base`, whose length is a multiple of 512, with `changes`: each six bytes, of which four say where, one which bits
    /// to flip, and one how often to do so in the bytes that follow.
    pub fn new(base: &'static [u8], changes: &[u8]) -> Self {
        let mut zone = Self { base, sectors: BTreeMap::new(), position: 0 };
        for change in changes.chunks_exact(6).take(512) {
            let at = u64::from(u32::from_le_bytes([change[0], change[1], change[2], change[3]]));
            for at in (at..).take(usize::from(change[5] % 32) + 1).filter(|at| *at < base.len() as u64) {
                zone.sector(at / SECTOR)[(at % SECTOR) as usize] ^= change[4];
            }
        }
        zone
    }

    /// A sector, to be changed.
    pub fn sector(&mut self, number: u64) -> &mut [u8; SECTOR as usize] {
        let base = self.base;
        self.sectors.entry(number).or_insert_with(|| {
            let at = (number * SECTOR) as usize;
            base[at..at + SECTOR as usize].try_into().unwrap()
        })
    }
}

impl ErrorType for Changed {
    type Error = ZoneError;
}

impl Read for Changed {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let left = (self.base.len() as u64).saturating_sub(self.position);
        let (sector, within) = (self.position / SECTOR, (self.position % SECTOR) as usize);
        let most = left.min(SECTOR - within as u64).min(buf.len() as u64) as usize;
        let at = self.position as usize;
        match self.sectors.get(&sector) {
            Some(bytes) => buf[..most].copy_from_slice(&bytes[within..within + most]),
            None if most == 0 => {}
            None => buf[..most].copy_from_slice(&self.base[at..at + most]),
        }
        self.position += most as u64;
        Ok(most)
    }
}

impl Write for Changed {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        let left = (self.base.len() as u64).saturating_sub(self.position);
        let within = (self.position % SECTOR) as usize;
        let most = left.min(SECTOR - within as u64).min(buf.len() as u64) as usize;
        if most == 0 && !buf.is_empty() {
            return Err(ZoneError::OutOfBounds);
        }
        let sector = self.position / SECTOR;
        self.sector(sector)[within..within + most].copy_from_slice(&buf[..most]);
        self.position += most as u64;
        Ok(most)
    }
    fn flush(&mut self) -> Result<(), ZoneError> {
        Ok(())
    }
}

impl Seek for Changed {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.base.len() as u64)?;
        Ok(self.position)
    }
}

impl RawZone for Changed {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.base.len() as u64)
    }
}
