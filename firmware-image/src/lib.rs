//! The device's anatomy: zones, sealing, and every byte format that a device carries.
//!
//! The core is `no_std` without an allocator: it reads and writes over [`embedded_io`] with fixed buffers, so that
//! the same code runs in a launcher, in a factory tool and on a microcontroller. Feature `std` adds files and mounted
//! directories, feature `sign` what only a factory or a release machine does, feature `image` whole images (GPT,
//! raw FAT, ISO 9660), feature `sim` a simulated disk for tests, feature `embedded-storage` zones over flash drivers.
//!
//! | module | subject |
//! |---|---|
//! | [`storage`] | raw stretches of storage, and windows into them |
//! | [`boot_sector`] | the boot sector of a FAT32 volume, and its copy |
//! | [`free_zone`] | the files of the free zone, mounted or raw |
//! | [`paths`] | the names that Holdfast uses on a device |
//! | [`digest`] | SHA-256 |
//! | [`signature`] | Ed25519 with domains |
//! | [`stamp`] | the vendor key inside a program |
//! | [`updater_image`] | the signed updater |
//! | [`device_config`] | what a device is told at the factory |
//! | [`key_slot`], [`seal`], [`slot`] | how the hidden zone's content is locked and laid out |
//! | [`hidden`], [`record`], [`backup`] | the hidden zone, its version record, its copy of the updater |
//! | [`places`] | every place where a slot may stand |
//! | [`region`] | flash without partitions: a file in each region |
//! | [`journal`], [`launcher_note`] | what a commit and the launcher remember |
//! | `sim` | a disk in memory that fails as a test wants it |
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(all(feature = "host", not(feature = "std")))]
extern crate tiny_std as std;

pub mod backup;
pub mod boot_sector;
mod byte_array;
mod checksum;
pub mod device_config;
pub mod digest;
pub mod error;
#[cfg(feature = "embedded-storage")]
pub mod flash;
pub mod free_zone;
pub mod hidden;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "image")]
pub mod image;
pub mod journal;
pub mod key_slot;
pub mod launcher_note;
pub mod paths;
pub mod places;
pub mod record;
pub mod region;
pub mod seal;
pub mod signature;
#[cfg(feature = "sim")]
pub mod sim;
pub mod slot;
pub mod stamp;
pub mod storage;
pub mod updater_image;

pub use digest::Digest;
pub use error::ZoneError;
pub use free_zone::{FreeZone, ZoneFile};
pub use storage::RawZone;
