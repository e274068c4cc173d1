//! What can go wrong, with the object it went wrong on.

use std::io;
use std::path::PathBuf;

use firmware_image::ZoneError;
use firmware_image::image::DeviceError;
use firmware_image::image::build::BuildError;
use firmware_image::image::gpt::TableError;
use firmware_image::slot::SlotError;
use firmware_image::stamp::StampError;
use release_store::StoreError;

/// A fault of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The device cannot be used at all.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The image could not be made.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Keys or store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the host.
    #[error("{path} cannot be {action}")]
    Host {
        /// What was tried: "read", "written", …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in a zone.
    #[error("{object} cannot be {action}")]
    Zone {
        /// What was tried.
        action: &'static str,
        /// Which object in which zone.
        object: String,
        /// Why.
        #[source]
        source: ZoneError,
    },
    /// A sealed slot.
    #[error("the {slot} cannot be {action}")]
    Slot {
        /// What was tried.
        action: &'static str,
        /// Which slot.
        slot: String,
        /// Why.
        #[source]
        source: SlotError,
    },
    /// A launcher that takes no stamp.
    #[error("the launcher {path} cannot be stamped with the vendor's key")]
    Stamp {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: StampError,
    },
    /// Something that the vendor did not sign, or that is for another vendor.
    #[error("{object} is not to be trusted: {reason}")]
    Untrusted {
        /// What.
        object: String,
        /// Why.
        reason: String,
    },
    /// Keys of another product, or a device of another one.
    #[error("{object} is for the product '{found}', not '{expected}'")]
    WrongProduct {
        /// What.
        object: String,
        /// The product asked for.
        expected: String,
        /// The product found.
        found: String,
    },
    /// The free zone cannot hold the release.
    #[error("the free zone has {available} bytes free, and {needed} are needed for {what}")]
    FreeZoneFull {
        /// Bytes needed.
        needed: u64,
        /// Bytes there.
        available: u64,
        /// For what.
        what: String,
    },
    /// The target of a write is not to be overwritten.
    #[error("{target} is refused: {reason}")]
    Target {
        /// The device.
        target: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// What was written does not come back.
    #[error("{target} does not keep what is written to it, as byte {offset} shows: do not use this device")]
    ReadBack {
        /// The device.
        target: PathBuf,
        /// The first difference, to the chunk.
        offset: u64,
    },
    /// No copy of a partition table is of use.
    #[error(
        "the partition table of {target} cannot be made anew, since neither of its copies is sound: write the device anew \
         with `partition-tools write`; what of the user's files is wanted, file recovery has to fetch before that"
    )]
    Unmendable {
        /// The device.
        target: PathBuf,
        /// What is wrong.
        #[source]
        source: TableError,
    },
    /// Anything that is the caller's mistake.
    #[error("{0}")]
    Refused(String),
}

impl ToolError {
    /// A fault of a host file.
    pub fn host(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Host { action, path, source }
    }

    /// A fault of something in a zone.
    pub fn zone(action: &'static str, object: impl Into<String>) -> impl FnOnce(ZoneError) -> Self {
        let object = object.into();
        move |source| Self::Zone { action, object, source }
    }

    /// A fault of a slot.
    pub fn slot(action: &'static str, slot: impl ToString) -> impl FnOnce(SlotError) -> Self {
        let slot = slot.to_string();
        move |source| Self::Slot { action, slot, source }
    }
}
