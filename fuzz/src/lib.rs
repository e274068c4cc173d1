//! What each fuzz target does with bytes from outside: it must return, whatever they are.
//!
//! Where a checksum or a signature would stop nearly every input, a target makes it fit again, as someone could who has the
//! vendor's key or just can count: what lies behind must hold, too. Targets over whole images begin with a sound one and
//! take the input for a list of changes to it.

mod device;
mod engine;
mod images;
mod store;
mod zone;

pub use device::{device_config, hidden_zone, journal, launcher_note, region, updater_image};
pub use engine::{commit_plan, http, spool};
pub use images::{fat, gpt, iso};
pub use store::{chunk_list, frame, manifest, patch, paths, step, tuf};
