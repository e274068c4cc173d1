//! Linux.

mod events;
mod image;
mod mounts;
mod places;
mod presence;
mod privileges;
mod process;

pub use events::{Asked, Events, Wakeup};
pub use image::{PrivateDirectory, RunImage, SealedMemory, make_executable};
pub use mounts::{PrivateMount, mount_privately, mount_zones};
pub use places::private_directory;
pub use presence::Presence;
pub use privileges::{give_up_privileges, is_root};
pub use process::{Child, Lock, try_lock_shared};
