//! What the launcher needs of Rust's standard library, without it: the same names with the same meaning, in a tenth of the bytes.
//!
//! Whoever depends on this crate says `extern crate tiny_std as std`, and is compiled either way: with feature `std`, and on
//! systems for which nothing else is here, every name is the standard library's own. A program without it has one thread, ends by
//! aborting where it would panic, and is started by `start!`.
//!
//! | module | subject |
//! |---|---|
//! | `path`, `ffi` | names as the system takes them: bytes |
//! | `io`, `fs` | errors of the system, files, directories |
//! | `env`, `process`, `time`, `thread`, `sync` | the rest, as little as there is |
//! | `memory` | an allocator |
#![no_std]

#[cfg(any(feature = "std", not(target_os = "linux")))]
extern crate std as real;
#[cfg(any(feature = "std", not(target_os = "linux")))]
pub use real::*;

#[cfg(all(target_os = "linux", not(feature = "std")))]
extern crate alloc;
#[cfg(all(test, target_os = "linux", not(feature = "std")))]
extern crate std as real;
#[cfg(all(target_os = "linux", not(feature = "std")))]
mod tiny;
#[cfg(all(target_os = "linux", not(feature = "std")))]
pub use tiny::*;
