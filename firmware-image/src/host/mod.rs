//! Zones on a host with an operating system: files and block devices, and mounted directories.
//!
//! | module | subject |
//! |---|---|
//! | [`file_zone`] | an image file or a block device as raw storage |
//! | [`dir_zone`] | a mounted directory as a free zone |
//! | `program_memory` | memory that a program runs from, on Linux |

pub mod dir_zone;
pub mod file_zone;
#[cfg(target_os = "linux")]
mod program_memory;

pub use dir_zone::{DirFile, DirZone};
pub use file_zone::{Access, FileZone};
#[cfg(target_os = "linux")]
pub use program_memory::program_memory;
