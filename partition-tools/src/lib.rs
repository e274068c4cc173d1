//! Builds, writes, checks, reads and mends device images and devices.
//!
//! | module | subject |
//! |---|---|
//! | [`create`] | a new device image from keys, programs and a release |
//! | [`survey`] | what is on a device, and what of it is sound |
//! | [`gadget`] | what makes a Linux board show a dual device |
//! | [`host`] | what lets a Linux host do more: udev rule, systemd unit |
//! | [`repair`] | what stands around the zones, mended |
//! | [`mod@write`] | an image onto a real device |
//! | [`identity`] | the sealed slots of a new or re-made device |
//! | [`random`] | randomness that can be repeated |
//! | [`size`] | sizes as people write them |
//! | [`system_files`] | files that are installed into a system |
//! | [`printable`] | text from outside for people |
//! | [`progress`] | telling somebody how far it is |
#![forbid(unsafe_code)]

pub mod create;
pub mod error;
pub mod gadget;
pub mod host;
pub mod identity;
pub mod printable;
pub mod progress;
pub mod random;
pub mod repair;
pub mod size;
pub mod survey;
pub mod system_files;
pub mod write;

pub use error::ToolError;
