//! The launcher: checks the updater, restores it, runs it, then runs the client.
//!
//! The library decides and restores over traits, `no_std` and without an allocator, so that the same decisions are made
//! by a program on a computer and by a microcontroller. Feature `launcher` adds the program: it finds the zones, starts
//! processes and speaks to people. `docs/launcher.md` tells the whole.
//!
//! | module | subject |
//! |---|---|
//! | [`device`] | the zones of a device, and the copies of the updater in them |
//! | [`verified`] | bytes that were verified where they run: the only ones that can be started or restored |
//! | [`copies`] | which copies there are, newest first |
//! | [`decide`] | which copy is started next, given how the last one fared |
//! | [`restore`] | a verified copy written into the free zone |
//! | [`region`] | all of it for a microcontroller: the application runs where it is installed |
//! | [`trial`] | what the launcher notes of a new release |
//! | [`report`] | what was found and done, bounded |
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

#[cfg(all(feature = "launcher", not(feature = "std")))]
extern crate tiny_std as std;

pub mod copies;
pub mod decide;
pub mod device;
pub mod region;
pub mod report;
pub mod restore;
pub mod trial;
pub mod verified;

#[cfg(feature = "launcher")]
pub mod launcher;
#[cfg(feature = "launcher")]
pub mod platform;

pub use decide::Session;
pub use device::{Device, Product, Source};
pub use verified::VerifiedCopy;
