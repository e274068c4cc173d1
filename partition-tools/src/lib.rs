//! Builds, writes, checks, reads and mends device images and devices.
//!
//! | module | subject |
//! |---|---|
//! | [`create`] | a new device image from keys, programs and a release |
//! | [`survey`] | what is on a device, and what of it is sound |
//! | [`mod@write`] | an image onto a real device |
//! | [`identity`] | the sealed slots of a new or re-made device |
//! | [`random`] | randomness that can be repeated |
//! | [`size`] | sizes as people write them |
//! | [`progress`] | telling somebody how far it is |
#![forbid(unsafe_code)]

pub mod create;
pub mod error;
pub mod identity;
pub mod progress;
pub mod random;
pub mod size;
pub mod survey;
pub mod write;

pub use error::ToolError;
