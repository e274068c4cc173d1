//! The table of regions: what factory, bootstrap and application agree on.

use firmware_image::key_slot::Cost;
use firmware_image::region::{Extent, RegionLayout};

/// Bytes of an erase block.
pub const ERASE_BYTES: u64 = 4 << 10;
/// Bytes of the flash.
pub const FLASH_BYTES: u64 = 384 << 10;

/// Where the regions stand.
pub const LAYOUT: RegionLayout = RegionLayout {
    config: Extent { start: 0, length: 4 << 10 },
    factory: Extent { start: 4 << 10, length: 64 << 10 },
    application: Extent { start: 68 << 10, length: 64 << 10 },
    hidden: Extent { start: 144 << 10, length: 192 << 10 },
    align_bytes: 16 << 10,
};
const _: () = assert!(LAYOUT.is_sound(FLASH_BYTES, ERASE_BYTES));

/// The platform that the application is for.
pub const PLATFORM: &str = "mps2-an386";
/// What the factory lets a key slot cost. The product secret is 256 random bits, which stretching does not make better.
pub const UNLOCK_COST: Cost = Cost { memory_kib: 16, passes: 1, lanes: 1 };
/// Segments as a power of two: 4 KiB.
pub const SEGMENT_LOG2: u8 = 12;
/// Room for `device.cfg`.
pub const CONFIG_BYTES: usize = 512;
/// Room for a version record: floors, and the statement that raised them.
pub const RECORD_BYTES: usize = 1536;
