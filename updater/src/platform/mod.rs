//! What only the operating system can tell or do. Nothing else asks what it runs on.

#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(windows, path = "windows.rs")]
#[cfg_attr(not(any(target_os = "linux", windows)), path = "elsewhere.rs")]
mod os;

pub use os::{in_use_by, is_launched, launcher_pipes, lock_directory, own_image, prepare, probe};

use std::fs::File;

/// A directory's lock.
#[derive(Debug)]
pub enum Locked {
    /// It is held as long as this lives; `None` where the file system knows no locks.
    Held(#[allow(dead_code, reason = "held, not read")] Option<File>),
    /// Somebody else holds it.
    Busy,
}

/// The launcher's two pipes, as `run` was given them.
#[derive(Debug, Default)]
pub struct Pipes {
    /// Takes `R` (ready) and `G` (the client may start).
    pub ready: Option<File>,
    /// Ends when the client has.
    pub client: Option<File>,
}

/// The environment variable that names the first pipe.
pub const READY_FD: &str = "HOLDFAST_READY_FD";
/// The environment variable that names the second pipe.
pub const CLIENT_FD: &str = "HOLDFAST_CLIENT_FD";
/// The environment variable that asks for every backup to be read whole: the launcher met a copy that was no good.
pub const ALL_BACKUPS: &str = "HOLDFAST_ALL_BACKUPS";
