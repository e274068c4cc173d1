//! Linux.

mod events;
mod image;
mod mounts;
mod places;
mod presence;
mod privileges;
mod process;
mod signals;

pub use events::Events;
pub use image::{PrivateDirectory, RunImage, SealedMemory, make_executable};
pub use mounts::{PrivateMount, mount_privately, mount_zones};
pub use places::private_directory;
pub use presence::Presence;
pub use privileges::{give_up_privileges, is_root};
pub use process::{Child, Lock, try_lock_shared};

use std::fs::OpenOptions;
use std::io::Write as _;

use crate::launcher::find::{self, FindError, Found};

/// Whether a launcher may have to mount zones by itself.
pub const MOUNTS: bool = true;
/// What to do about a zone that is out of this user's reach.
pub const REACH_HINT: &str = "Whoever looks after this computer can change that, once, with `partition-tools host`.";

/// The device that this program stands on.
///
/// # Errors
/// See [`FindError`].
pub fn own_device() -> Result<Found, FindError> {
    find::own_device(&find::System::default(), find::PATIENCE)
}

/// Standard output and error are there from the start.
pub fn prepare() {}

/// Whoever starts this reads standard error, or its log; or names an empty file, as `autorun.sh` does on a desktop, to show what is
/// in it when the launcher has ended.
pub fn show(_title: &str, text: &str) {
    let file =
        std::env::var_os("HOLDFAST_MESSAGE_FILE").and_then(|path| OpenOptions::new().write(true).open(path).ok());
    if let Some(mut file) = file {
        // Standard error has it as well.
        let _ = file.write_all(text.as_bytes());
    }
}
