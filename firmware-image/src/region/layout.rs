//! The table of a device's regions. It is compiled into whoever uses it: nothing on the flash has to be sound to find them.

use crate::ZoneError;
use crate::hidden::HiddenLayout;
use crate::storage::{RawZone, Window};

/// A stretch of flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts, in bytes from the start of the flash.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
}

impl Extent {
    /// This stretch of `zone`.
    ///
    /// # Errors
    /// `OutOfBounds` where `zone` ends before it.
    pub fn of<Z: RawZone>(self, zone: Z) -> Result<Window<Z>, ZoneError> {
        Window::new(zone, self.start, self.length)
    }

    const fn end(self) -> u64 {
        self.start + self.length
    }

    const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// Where the regions stand. The program that restores may stand anywhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionLayout {
    /// `device.cfg`.
    pub config: Extent,
    /// The factory's copy of the application, which nothing renews.
    pub factory: Extent,
    /// The application: the updater that is installed. It runs where it stands.
    pub application: Extent,
    /// The hidden zone.
    pub hidden: Extent,
    /// The boundary on which the hidden zone's slots stand, a power of two: whole erase blocks, and so large that a header of
    /// 4 KiB and a record fit.
    pub align_bytes: u32,
}

impl RegionLayout {
    /// Whether all of it fits a flash of `flash_bytes` with erase blocks of `erase_bytes`: regions of whole blocks that do not
    /// overlap, and a hidden zone that has room for its slots. To be checked when the table is compiled.
    pub const fn is_sound(&self, flash_bytes: u64, erase_bytes: u64) -> bool {
        let regions = [self.config, self.factory, self.application, self.hidden];
        let align = self.align_bytes as u64;
        let mut sound = erase_bytes > 0
            && self.align_bytes.is_power_of_two()
            && align > crate::slot::HEADER_BYTES as u64
            && align.is_multiple_of(erase_bytes)
            && HiddenLayout::of(self.hidden.length, align).is_some();
        let mut i = 0;
        while sound && i < regions.len() {
            let region = regions[i];
            sound = region.length > 0
                && region.start <= flash_bytes
                && region.length <= flash_bytes - region.start
                && region.start.is_multiple_of(erase_bytes)
                && region.length.is_multiple_of(erase_bytes);
            let mut j = 0;
            while sound && j < i {
                sound = !region.overlaps(regions[j]);
                j += 1;
            }
            i += 1;
        }
        sound
    }
}
