//! An open file on a raw FAT volume.

use std::io::{Read as _, Seek as _, Write as _};
use std::ops::ControlFlow;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};

use super::disk::Disk;
use super::walk::{Entry, Walk};
use super::{RawFat, fault};
use crate::free_zone::ZoneFile;
use crate::storage::seek_target;
use crate::{RawZone, ZoneError};

/// Zeros written at once where a file is lengthened.
const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// A file of a [`RawFat`]. One file must not be open twice while one of the two is written.
pub struct FatFile<'z, Z: RawZone> {
    zone: &'z RawFat<Z>,
    position: u64,
    body: Body<'z, Z>,
}

enum Body<'z, Z: RawZone> {
    /// Opened for reading: its stretches on the volume, as (start in the file, start on the volume, length).
    Reader { length: u64, runs: Vec<(u64, u64, u64)> },
    /// Opened for changes through the library; the length is ours, since asking it walks the chain.
    Writer { length: u64, file: fatfs::File<'z, Disk<Z>> },
}

impl<'z, Z: RawZone> FatFile<'z, Z> {
    pub(super) fn reader(zone: &'z RawFat<Z>, walk: &mut Walk<'_, Z>, entry: &Entry) -> Result<Self, ZoneError> {
        walk.check_file(entry)?;
        let (length, cluster_bytes) = (u64::from(entry.size), u64::from(walk.geometry.cluster_bytes));
        let mut runs: Vec<(u64, u64, u64)> = Vec::new();
        if length > 0 {
            let (geometry, needed) = (walk.geometry, length.div_ceil(cluster_bytes));
            let mut at = 0;
            walk.chain(entry.first_cluster, u64::from(geometry.clusters), &mut |cluster| {
                // The chain was checked: every cluster in it has a place.
                let start = geometry.cluster_at(cluster).unwrap_or(u64::MAX);
                match runs.last_mut() {
                    Some(run) if run.1 + run.2 == start => run.2 += cluster_bytes,
                    _ => runs.push((at, start, cluster_bytes)),
                }
                at += cluster_bytes;
                if at >= needed * cluster_bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
        }
        Ok(Self { zone, position: 0, body: Body::Reader { length, runs } })
    }

    pub(super) fn writer(zone: &'z RawFat<Z>, file: fatfs::File<'z, Disk<Z>>, length: u64) -> Self {
        Self { zone, position: 0, body: Body::Writer { length, file } }
    }

    fn end(&self) -> u64 {
        match &self.body {
            Body::Reader { length, .. } | Body::Writer { length, .. } => *length,
        }
    }
}

/// The library's file at `position`, which must not lie past its end.
fn at<'f, 'z, Z: RawZone>(
    file: &'f mut fatfs::File<'z, Disk<Z>>,
    position: u64,
) -> Result<&'f mut fatfs::File<'z, Disk<Z>>, ZoneError> {
    let reached = file.seek(std::io::SeekFrom::Start(position)).map_err(fault)?;
    if reached == position { Ok(file) } else { Err(ZoneError::Corrupt) }
}

impl<Z: RawZone> ErrorType for FatFile<'_, Z> {
    type Error = ZoneError;
}

impl<Z: RawZone> Read for FatFile<'_, Z> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let end = self.end();
        let left = usize::try_from(end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = left.min(buf.len());
        if wanted == 0 {
            return Ok(0);
        }
        let n = match &mut self.body {
            Body::Reader { runs, .. } => {
                let run = runs.partition_point(|run| run.0 <= self.position).saturating_sub(1);
                let (start, place, length) = *runs.get(run).ok_or(ZoneError::Corrupt)?;
                let within = self.position - start;
                let take = usize::try_from(length.saturating_sub(within)).unwrap_or(usize::MAX).min(wanted);
                self.zone.cache.borrow_mut().read_at(place + within, &mut buf[..take])?;
                take
            }
            Body::Writer { file, .. } => match at(file, self.position)?.read(&mut buf[..wanted]).map_err(fault)? {
                // The chain ends before the size says.
                0 => return Err(ZoneError::Corrupt),
                n => n,
            },
        };
        self.position += n as u64;
        Ok(n)
    }
}

impl<Z: RawZone> Write for FatFile<'_, Z> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        let end = self.end();
        if buf.is_empty() {
            return Ok(0);
        }
        if self.position > end {
            self.set_len(self.position)?;
        }
        let Body::Writer { length, file } = &mut self.body else { return Err(ZoneError::ReadOnly) };
        let file = at(file, self.position)?;
        let mut done = 0;
        while done < buf.len() {
            match file.write(&buf[done..]) {
                // 4 GiB less one byte is the longest file.
                Ok(0) if done == 0 => return Err(ZoneError::Full),
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if done == 0 => return Err(fault(error)),
                // What was written counts; the next call meets the fault again.
                Err(_) => break,
            }
        }
        self.position += done as u64;
        *length = (*length).max(self.position);
        Ok(done)
    }

    /// Contents and table first, then the entry that shows the new length.
    fn flush(&mut self) -> Result<(), ZoneError> {
        if let Body::Writer { file, .. } = &mut self.body {
            self.zone.sync(&[])?;
            file.flush().map_err(fault)?;
            self.zone.sync(&[])?;
        }
        Ok(())
    }
}

impl<Z: RawZone> Seek for FatFile<'_, Z> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        let end = self.end();
        self.position = seek_target(to, self.position, end)?;
        Ok(self.position)
    }
}

impl<Z: RawZone> ZoneFile for FatFile<'_, Z> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.end())
    }

    fn set_len(&mut self, length: u64) -> Result<(), ZoneError> {
        if length > u64::from(u32::MAX) {
            return Err(ZoneError::Full);
        }
        let end = self.end();
        let Body::Writer { length: now, file } = &mut self.body else { return Err(ZoneError::ReadOnly) };
        if length < end {
            at(file, length)?.truncate().map_err(fault)?;
            *now = length;
            return Ok(());
        }
        let file = at(file, end)?;
        while *now < length {
            let take = usize::try_from(length - *now).unwrap_or(usize::MAX).min(ZEROS.len());
            match file.write(&ZEROS[..take]).map_err(fault)? {
                0 => return Err(ZoneError::Full),
                n => *now += n as u64,
            }
        }
        Ok(())
    }

    fn drop_caches(&mut self) -> Result<(), ZoneError> {
        self.zone.cache.borrow_mut().drop_caches()
    }
}
