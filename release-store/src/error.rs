//! What can go wrong, with the object it went wrong on.

use std::path::PathBuf;

use firmware_image::Digest;

use crate::paths::PathProblem;
use crate::transport::TransportError;

/// A failure of this crate. `Display` leaves the source out; print the chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Bytes did not come.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A path that some target system cannot hold, or that would leave its directory.
    #[error("{path:?}: {problem}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: PathProblem,
    },
    /// Bytes that contradict their format.
    #[error("{object} is malformed: {reason}")]
    Malformed {
        /// What was read.
        object: String,
        /// What is wrong.
        reason: String,
    },
    /// A format that this program does not know.
    #[error("{object} has the unknown format {format}: a newer program is needed")]
    UnknownFormat {
        /// What was read.
        object: String,
        /// The format's number.
        format: u16,
    },
    /// Something is larger than a reader accepts.
    #[error("{object}: {what} is {found}, more than the limit of {limit}")]
    TooLarge {
        /// What was read.
        object: String,
        /// What was counted.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What was found.
        found: u64,
    },
    /// Sealed under a content key that is not at hand.
    #[error("{object} is sealed under content key {number}, which is not at hand")]
    UnknownKey {
        /// What was read.
        object: String,
        /// The key's number.
        number: u32,
    },
    /// A frame that does not open: damaged, or sealed under another key.
    #[error("{object} does not decrypt: it is damaged, or sealed for another product")]
    Undecryptable {
        /// What was read.
        object: String,
    },
    /// Bytes that are not those that were named.
    #[error("{object} has the digest {found}, not {expected}")]
    WrongDigest {
        /// What was read.
        object: String,
        /// The digest it is named by.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// A length that is not the one that was named.
    #[error("{object} has {found} bytes, not {expected}")]
    WrongLength {
        /// What was read.
        object: String,
        /// The length it should have.
        expected: u64,
        /// The length it has.
        found: u64,
    },
    /// A sound object that says it is something else than what was asked for.
    #[error("{object} is for {what} {found:?}, not {expected:?}")]
    Mismatch {
        /// What was read.
        object: String,
        /// What differs.
        what: &'static str,
        /// What was asked for.
        expected: String,
        /// What it is.
        found: String,
    },
    /// TUF metadata that is not accepted.
    #[error("the TUF {role} metadata is not accepted")]
    Tuf {
        /// The role.
        role: String,
        /// Why.
        #[source]
        source: sigstore_tuf::Error,
    },
    /// Metadata older than what was accepted before: a downgrade, or a mirror that lags behind.
    #[error("the TUF {role} metadata has version {offered}, older than version {known} that was accepted before")]
    Rollback {
        /// The role.
        role: String,
        /// The version accepted before.
        known: u64,
        /// The version that was offered.
        offered: u64,
    },
    /// Metadata that is authentic but no longer says what is newest.
    #[error("the TUF {role} metadata expired at {expires}: nothing newer can be learned from this store")]
    Expired {
        /// The role.
        role: String,
        /// When it expired, RFC 3339.
        expires: String,
    },
    /// There is no accepted metadata yet.
    #[error("no verified metadata is at hand: a connection to the store is needed first")]
    NothingKnown,
    /// No such release.
    #[error("the store has no release {wanted}")]
    NoSuchRelease {
        /// What was looked for.
        wanted: String,
    },
    /// A release does not hold what was looked for in it.
    #[error("the release's chunk list has no content {digest} (wanted for {wanted})")]
    MissingContent {
        /// The content's digest.
        digest: Digest,
        /// What it was wanted for.
        wanted: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `read`, `write`, ….
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// Another program works on the store.
    #[cfg(feature = "publish")]
    #[error("{} is in use by another release-store: wait until it has finished", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// The version was published before.
    #[cfg(feature = "publish")]
    #[error("release {version} was already published to channel {channel} (serial {serial}): choose another version")]
    AlreadyPublished {
        /// The version.
        version: String,
        /// The channel.
        channel: String,
        /// The serial it has.
        serial: u64,
    },
    /// A directory entry that no release can hold.
    #[cfg(feature = "publish")]
    #[error("{} is {kind}: a release holds plain files only; remove it, or copy what it stands for", path.display())]
    NotAFile {
        /// The entry.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A tree that no release can hold, for what is in it.
    #[cfg(feature = "publish")]
    #[error("{}: {problem}", path.display())]
    Tree {
        /// The tree, or an entry of it.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A key file that is missing, damaged, or not of this kind.
    #[cfg(feature = "publish")]
    #[error("the key file {}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key file that the passphrase does not open.
    #[cfg(feature = "publish")]
    #[error("{} does not open with this passphrase: it is the wrong one, or the file is damaged", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// Something that the caller asked for cannot be.
    #[error("{0}")]
    Refused(String),
    /// An observer asked to stop.
    #[error("stopped before it was done; nothing that was published has changed")]
    Stopped,
}

impl StoreError {
    /// Whether the same call may succeed later, or from another server.
    pub fn retry_may_help(&self) -> bool {
        match self {
            Self::Transport(error) => error.retry_may_help(),
            // Another server, or this one when it is in step again, may do better.
            Self::Rollback { .. }
            | Self::Expired { .. }
            | Self::WrongDigest { .. }
            | Self::WrongLength { .. }
            | Self::Tuf { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn malformed(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed { object: object.into(), reason: reason.into() }
    }

    #[cfg(feature = "publish")]
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
