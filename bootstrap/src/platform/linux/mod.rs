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
    find::own_device(&find::System::default())
}

/// Standard output and error are there from the start.
pub fn prepare() {}

/// Whoever starts this reads standard error, or its log.
pub fn show(_title: &str, _text: &str) {}
