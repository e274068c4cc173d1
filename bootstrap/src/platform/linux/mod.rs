//! Linux.

mod events;
mod image;
mod mounts;
mod process;

pub use events::{Asked, Events, Wakeup};
pub use image::{PrivateDirectory, RunImage, SealedMemory, make_executable, private_directory};
pub use mounts::{Presence, PrivateMount, mount_privately};
pub use process::{Child, Lock, try_lock_shared};
