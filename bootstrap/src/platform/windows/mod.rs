//! Windows.

mod console;
mod events;
mod find;
mod image;
mod mounts;
mod pipe;
mod places;
mod presence;
mod process;
mod storage;

pub use console::{prepare, show};
pub use events::Events;
pub use find::own_device;
pub use image::{PrivateDirectory, RunImage, SealedMemory, make_executable};
pub use mounts::{PrivateMount, give_up_privileges, is_root, mount_privately, mount_zones};
pub use places::private_directory;
pub use presence::Presence;
pub use process::{Child, Lock, try_lock_shared};

use std::ffi::OsStr;
use std::io;
use std::os::windows::ffi::OsStrExt as _;
use std::prelude::v1::*;
use std::time::Duration;

/// Whether a launcher may have to mount zones by itself.
pub const MOUNTS: bool = false;
/// What to do about a zone that is out of this user's reach.
pub const REACH_HINT: &str = "On a computer with Linux it can be in reach.";

/// A scanner may hold what was just written for a moment, and Windows what just ended.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Tries again, for a second, while what goes wrong `may_pass`.
fn patiently<T>(may_pass: impl Fn(&io::Error) -> bool, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match act() {
            Err(error) if may_pass(&error) => std::thread::sleep(BETWEEN_TRIES),
            done => return done,
        }
    }
    act()
}

/// Text as Windows takes it, ended by a zero.
fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}
