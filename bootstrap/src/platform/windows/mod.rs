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

pub use console::{open_console, show};
pub use events::Events;
pub use find::own_device;
pub use image::{PrivateDirectory, RunImage, SealedMemory, make_executable};
pub use mounts::{PrivateMount, give_up_privileges, is_root, mount_privately, mount_zones};
pub use places::private_directory;
pub use presence::Presence;
pub use process::{Child, Lock, try_lock_shared};

use std::ffi::OsStr;
use std::os::windows::ffi::OsStrExt as _;

/// Whether a launcher may have to mount zones by itself.
pub const MOUNTS: bool = false;
/// What to do about a zone that is out of this user's reach.
pub const REACH_HINT: &str = "Only an administrator of this computer can open it.";

/// Text as Windows takes it, ended by a zero.
fn wide(text: impl AsRef<OsStr>) -> Vec<u16> {
    text.as_ref().encode_wide().chain([0]).collect()
}
