//! Whether a device is still plugged in.
#![allow(unsafe_code)]

use std::path::Path;
use std::prelude::v1::*;
use std::time::{Duration, Instant};

use windows_sys::Win32::Storage::FileSystem::{GetFileAttributesW, GetVolumePathNameW, INVALID_FILE_ATTRIBUTES};

use super::wide;

/// How long Windows may take to forget a volume whose reads and writes fail already because it was pulled.
const PULL: Duration = Duration::from_millis(500);
/// How often is looked meanwhile.
const LOOK: Duration = Duration::from_millis(10);
/// The longest path, in units of 16 bits.
const MAX_PATH_UNITS: usize = 32_768;

/// The volumes that hold some files, to tell whether they were pulled.
#[derive(Debug, Default)]
pub struct Presence {
    roots: Vec<Vec<u16>>,
}

impl Presence {
    /// The volumes that hold `paths`.
    pub fn of<'p>(paths: impl IntoIterator<Item = &'p Path>) -> Self {
        let mut roots: Vec<Vec<u16>> = paths.into_iter().filter_map(volume_of).filter(|root| is_there(root)).collect();
        roots.sort();
        roots.dedup();
        Self { roots }
    }

    /// Whether one of them is gone.
    pub fn is_gone(&self) -> bool {
        !self.roots.iter().all(|root| is_there(root))
    }

    /// Whether one of them is gone, asked after something failed: errors come a moment before the device goes.
    pub fn explains_failure(&self) -> bool {
        let deadline = Instant::now() + PULL;
        while !self.is_gone() {
            if self.roots.is_empty() || Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

fn is_there(root: &[u16]) -> bool {
    // SAFETY: a string that ends in zero and lives through the call.
    unsafe { GetFileAttributesW(root.as_ptr()) != INVALID_FILE_ATTRIBUTES }
}

/// The root directory of the volume that holds `path`, such as `E:\`, ended by a zero.
pub fn volume_of(path: &Path) -> Option<Vec<u16>> {
    let mut root = vec![0; MAX_PATH_UNITS];
    // SAFETY: a string that ends in zero, and room of the length that is told; both live through the call.
    let found = unsafe { GetVolumePathNameW(wide(path).as_ptr(), root.as_mut_ptr(), root.len() as u32) };
    let end = root.iter().position(|unit| *unit == 0)?;
    root.truncate(end + 1);
    (found != 0 && end > 0).then_some(root)
}
