//! Whole images: partition table, raw FAT, ISO 9660, finding the zones of a device, building one from parts.
//!
//! | module | subject |
//! |---|---|
//! | [`device`] | a device and its zones, wherever they are |
//! | [`any_zone`] | zones of either kind, mounted or raw, as one type |
//! | [`build`] | a new device |
//! | [`gpt`] | the partition table |
//! | [`fat`] | the free zone inside an image |
//! | [`iso`] | the virtual zone inside an image |
//! | [`block_cache`] | write-back cache between libraries and raw storage |

pub mod any_zone;
pub mod block_cache;
pub mod build;
pub mod device;
pub mod fat;
pub mod gpt;
pub mod iso;
mod iso_times;

pub use any_zone::{AnyFreeZone, AnyVirtualZone, VirtualZone};
pub use device::{Device, DeviceError};
