//! What stands on a simulated disk.
//!
//! Pages of 4 KiB are shared between copies until one of them is changed; a page of zeros is none. So a copy of a device of
//! any size costs a pointer for each page that it uses, and two media with the same bytes have the same digest.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use crate::digest::Hasher;

/// Bytes of a page.
const PAGE_BYTES: usize = 4096;

struct Page {
    bytes: [u8; PAGE_BYTES],
    digest: u128,
}

/// The bytes of a medium.
#[derive(Clone)]
pub struct Medium {
    length: u64,
    pages: HashMap<u64, Arc<Page>>,
    digest: u128,
}

impl Medium {
    /// `length` zeros.
    pub fn zeros(length: u64) -> Self {
        Self { length, pages: HashMap::new(), digest: 0 }
    }

    /// These bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut medium = Self::zeros(bytes.len() as u64);
        medium.write(0, bytes);
        medium
    }

    /// The bytes of an image file.
    ///
    /// # Errors
    /// What the operating system reports.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut medium = Self::zeros(file.metadata()?.len());
        let mut piece = vec![0; 256 * PAGE_BYTES];
        let mut at = 0;
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 {
                return Ok(medium);
            }
            medium.write(at, &piece[..n]);
            at += n as u64;
        }
    }

    /// The length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Equal for equal bytes of equal length, and for no others that anybody will meet.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    /// Fills `buf` from `at`.
    ///
    /// # Panics
    /// Past the end.
    pub fn read(&self, at: u64, buf: &mut [u8]) {
        self.check(at, buf.len());
        each_page(at, buf.len(), |page, within, range| {
            let piece = &mut buf[range];
            match self.pages.get(&page) {
                Some(page) => piece.copy_from_slice(&page.bytes[within..within + piece.len()]),
                None => piece.fill(0),
            }
        });
    }

    /// The bytes from `at` on, so many.
    ///
    /// # Panics
    /// Past the end.
    pub fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.read(at, &mut bytes);
        bytes
    }

    /// Writes `bytes` at `at`.
    ///
    /// # Panics
    /// Past the end.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        self.check(at, bytes.len());
        each_page(at, bytes.len(), |number, within, range| {
            let piece = &bytes[range];
            let old = self.pages.get(&number);
            let mut page = old.map_or([0; PAGE_BYTES], |page| page.bytes);
            if page[within..within + piece.len()] == *piece {
                return;
            }
            page[within..within + piece.len()].copy_from_slice(piece);
            self.digest ^= old.map_or(0, |page| page.digest);
            if page == [0; PAGE_BYTES] {
                self.pages.remove(&number);
                return;
            }
            let digest = page_digest(number, &page);
            self.digest ^= digest;
            self.pages.insert(number, Arc::new(Page { bytes: page, digest }));
        });
    }

    /// The first place, in steps of `step` bytes, where `bytes` stand.
    pub fn find(&self, bytes: &[u8], step: usize) -> Option<u64> {
        let mut numbers: Vec<u64> = self.pages.keys().copied().collect();
        numbers.sort_unstable();
        let places = numbers.iter().flat_map(|page| {
            (0..PAGE_BYTES).step_by(step.max(1)).map(move |within| page * PAGE_BYTES as u64 + within as u64)
        });
        let fits = |at: &u64| at + bytes.len() as u64 <= self.length;
        places.filter(fits).find(|at| {
            let start = bytes.len().min(16);
            self.bytes(*at, start) == bytes[..start] && self.bytes(*at, bytes.len()) == bytes
        })
    }

    fn check(&self, at: u64, length: usize) {
        let end = at.checked_add(length as u64);
        assert!(end.is_some_and(|end| end <= self.length), "{length} bytes at {at} of a medium of {}", self.length);
    }
}

/// Calls `work` with each page's number, where in it the part begins, and which part of the whole it is.
fn each_page(at: u64, length: usize, mut work: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < length {
        let place = at + done as u64;
        let within = (place % PAGE_BYTES as u64) as usize;
        let take = (PAGE_BYTES - within).min(length - done);
        work(place / PAGE_BYTES as u64, within, done..done + take);
        done += take;
    }
}

fn page_digest(number: u64, bytes: &[u8; PAGE_BYTES]) -> u128 {
    let mut hasher = Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    let mut half = [0; 16];
    half.copy_from_slice(&hasher.finish().0[..16]);
    u128::from_le_bytes(half)
}
