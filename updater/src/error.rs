//! What can go wrong, with the object it went wrong on and what to do about it.

use firmware_image::device_config::ConfigError;
use firmware_image::places::Place;
use firmware_image::slot::SlotError;
use firmware_image::updater_image::ImageError;
use firmware_image::{Digest, ZoneError};
use release_store::{StoreError, TransportError};

/// A failure of the engine. `Display` leaves the source out; print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The free zone could not be read or written.
    #[error("cannot {action} {path} in the free zone")]
    Zone {
        /// What was tried: `read`, `write`, ….
        action: &'static str,
        /// On which path.
        path: String,
        /// The reason.
        #[source]
        source: ZoneError,
    },
    /// A record or backup could not be written.
    #[error("cannot write the {place}")]
    Slot {
        /// Where.
        place: Place,
        /// The reason.
        #[source]
        source: SlotError,
    },
    /// No place for the version record can be written.
    #[error("the version record cannot be written anywhere: neither the hidden zone nor its mirror takes it")]
    NoRecordPlace,
    /// The configuration is missing or not accepted.
    #[error("device.cfg is not accepted: is this the virtual zone of this product's device?")]
    Config(#[source] ConfigError),
    /// A store's content is not accepted, or did not come.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No server answered.
    #[error(
        "no server could be reached ({tried}): check the connection and try again; what is on the device stays as it is"
    )]
    Offline {
        /// Which servers failed, and why.
        tried: String,
    },
    /// What the servers that answered have is signed, and out of date: expired, or older than what was accepted before.
    #[error(
        "no server has news of this time ({tried}): the vendor has to renew what expired, or the mirror is behind; try again later, or tell the vendor; what is on the device stays as it is"
    )]
    OutOfDate {
        /// Which servers failed, and why.
        tried: String,
    },
    /// Every server that answered sent something that is not accepted.
    #[error(
        "no server has an acceptable answer ({tried}): what came is not what the vendor signed; try again later, or tell the vendor"
    )]
    NotAuthentic {
        /// Which servers failed, and why.
        tried: String,
    },
    /// Every server answered, and none has it.
    #[error("no server has it ({tried}): is this the store's address? If it is, tell the vendor")]
    NotThere {
        /// Which servers, and what.
        tried: String,
    },
    /// Something is not on the device, and no server may be asked for it.
    #[error("it is not all on this device, and no server could be reached")]
    OutOfReach,
    /// The configuration names no server, and nothing is carried along.
    #[error("this device knows no server")]
    NoServers,
    /// The space in the free zone does not suffice.
    #[error("{needed} bytes are needed in the free zone and {free} are free: remove {} bytes of your own files and try again; nothing was changed", needed.saturating_sub(*free))]
    NoSpace {
        /// What the update takes at its height.
        needed: u64,
        /// What there is.
        free: u64,
    },
    /// Somebody took the room that an open commit needs, and it can be neither finished nor undone without.
    #[error("the client is not whole: {needed} bytes are needed in the free zone and {free} are free; remove {} bytes of your own files and start again, and what was begun comes to its end", needed.saturating_sub(*free))]
    NoSpaceInside {
        /// What there must be.
        needed: u64,
        /// What there is.
        free: u64,
    },
    /// More bytes would have to come than the caller allows.
    #[error(
        "the limit of {limit} bytes is reached, {wanted} more bytes are wanted: run again with a higher limit; what came is kept"
    )]
    LimitReached {
        /// What the caller allows.
        limit: u64,
        /// What is still missing.
        wanted: u64,
    },
    /// The client runs, and its files must not be replaced under it.
    #[error("the client is running: close it and try again, or wait for it with --wait; what was fetched is kept")]
    ClientRunning,
    /// Another updater works on this device.
    #[error("another updater is at work on this device: wait until it has finished")]
    Busy,
    /// Content that no source has.
    #[error("content {digest} of {path} is nowhere to be had")]
    Unobtainable {
        /// The content.
        digest: Digest,
        /// The file it is for.
        path: String,
    },
    /// A staged copy is not what it was: the medium lost it.
    #[error("the staged copy of {path} is damaged: the medium loses data; the commit was undone")]
    StagingDamaged {
        /// The file it is for.
        path: String,
    },
    /// An open commit can be neither finished nor undone from what is on the device.
    #[error("an interrupted commit can be neither finished nor undone from what is on the device: a repair is needed")]
    CommitStuck,
    /// There is no release to go to.
    #[error("{0}")]
    NoRelease(String),
    /// An updater image is not accepted.
    #[error("the updater for {platform} is not accepted")]
    Image {
        /// Its platform.
        platform: String,
        /// The reason.
        #[source]
        source: ImageError,
    },
    /// A new updater does not run.
    #[error("updater {version} for this platform would not start: {reason}; the one that works stays")]
    ProbeFailed {
        /// Its version.
        version: String,
        /// What happened.
        reason: String,
    },
    /// There is no random source.
    #[error("the operating system gives no random bytes: {0}")]
    Random(String),
    /// Something that cannot be encoded.
    #[error("{0}")]
    Internal(&'static str),
}

/// What kind of failure it is, for exit statuses and decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No server in reach.
    Offline,
    /// Servers in reach, with nothing but what has expired or was seen to be older.
    OutOfDate,
    /// Not signed by whom it should be, or for another product.
    NotAuthentic,
    /// No space.
    NoSpace,
    /// The caller's limit.
    Limit,
    /// Another updater, or the client, is at work, or another program keeps a file to itself.
    Busy,
    /// The medium is write-protected.
    ReadOnly,
    /// No such release.
    NoRelease,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// Whether there is no news, and nothing that speaks against what is here: the device goes on with that.
    pub fn is_no_news(self) -> bool {
        matches!(self, Self::Offline | Self::OutOfDate)
    }
}

impl EngineError {
    /// Its kind.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Offline { .. } | Self::NotThere { .. } | Self::OutOfReach | Self::NoServers => FailureKind::Offline,
            Self::OutOfDate { .. } | Self::Store(StoreError::Expired { .. } | StoreError::Rollback { .. }) => {
                FailureKind::OutOfDate
            }
            Self::NotAuthentic { .. } | Self::Config(_) | Self::Image { .. } => FailureKind::NotAuthentic,
            Self::NoSpace { .. } | Self::NoSpaceInside { .. } => FailureKind::NoSpace,
            Self::LimitReached { .. } => FailureKind::Limit,
            Self::ClientRunning | Self::Busy => FailureKind::Busy,
            Self::NoRelease(_) | Self::Store(StoreError::NoSuchRelease { .. }) => FailureKind::NoRelease,
            Self::Zone { source, .. } => match source {
                ZoneError::Full => FailureKind::NoSpace,
                ZoneError::ReadOnly => FailureKind::ReadOnly,
                ZoneError::Busy => FailureKind::Busy,
                _ => FailureKind::Other,
            },
            Self::NoRecordPlace => FailureKind::ReadOnly,
            Self::Store(StoreError::Transport(error)) if !matches!(error, TransportError::Stopped(_)) => {
                FailureKind::Offline
            }
            Self::Store(_) => FailureKind::NotAuthentic,
            _ => FailureKind::Other,
        }
    }

    /// An adapter for `map_err`: what was tried on which path.
    pub(crate) fn zone(action: &'static str, path: &str) -> impl FnOnce(ZoneError) -> Self {
        let path = path.to_owned();
        move |source| Self::Zone { action, path, source }
    }
}
