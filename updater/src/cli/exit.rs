//! What the program's exit statuses mean. `--help` and the README list them; scripts rely on them.

use updater::{EngineError, FailureKind};

/// All went well.
pub const FINE: u8 = 0;
/// It failed; the client is whole.
pub const FAILED: u8 = 1;
/// The arguments make no sense; clap itself ends so.
#[allow(dead_code, reason = "listed for scripts; clap uses it")]
pub const USAGE: u8 = 2;
/// The client is not whole, and could not be mended.
pub const NOT_WHOLE: u8 = 3;
/// Another updater is at work, the client is running, or another program keeps a file to itself.
pub const BUSY: u8 = 4;
/// Whether the client is whole cannot be told: the device cannot be read, or the list of the client's files is not at hand.
pub const UNKNOWN: u8 = 5;
/// No server could be reached.
pub const OFFLINE: u8 = 10;
/// No space in the free zone.
pub const NO_SPACE: u8 = 11;
/// Signatures do not hold, or it is another product's.
pub const NOT_AUTHENTIC: u8 = 12;
/// The limit of `--max-bytes` is reached.
pub const LIMIT: u8 = 13;
/// The device is write-protected.
pub const READ_ONLY: u8 = 14;
/// There is no such release.
pub const NO_RELEASE: u8 = 15;
/// The device or one of its zones was not found or is of no use.
pub const NO_DEVICE: u8 = 16;
/// What the servers have is out of date.
pub const OUT_OF_DATE: u8 = 17;

/// For `--help`.
pub const HELP: &str = "\
Exit status:
   0  fine
   1  failed; the client is whole
   2  wrong usage
   3  the client is not whole and could not be mended
   4  another updater is at work, the client is running, or another program keeps a file to itself
   5  whether the client is whole cannot be told: the list of its files is not at hand
  10  no server could be reached
  11  no space in the free zone
  12  not authentic: signatures do not hold, or another product's
  13  the limit of --max-bytes is reached; what came is kept
  14  the device is write-protected
  15  no such release
  16  the device or one of its zones was not found
  17  what the servers have has expired, or is older than what this device has seen

`run`, which the launcher calls, uses 0 to 5 only.

SIZE is a number of bytes, with an optional unit: 500k, 10MiB, 1.5G.

Examples:
  updater --device device.img status
  updater --virtual /media/cd --free /media/stick update --dry-run
  updater --free /media/stick verify --json";

/// The status for a failure.
pub fn of(error: &anyhow::Error) -> u8 {
    if let Some(status) = error.downcast_ref::<Status>() {
        return status.0;
    }
    let engine = error.chain().find_map(|cause| cause.downcast_ref::<EngineError>());
    match engine.map(EngineError::kind) {
        Some(FailureKind::Offline) => OFFLINE,
        Some(FailureKind::OutOfDate) => OUT_OF_DATE,
        Some(FailureKind::NotAuthentic) => NOT_AUTHENTIC,
        Some(FailureKind::NoSpace) => NO_SPACE,
        Some(FailureKind::Limit) => LIMIT,
        Some(FailureKind::Busy) => BUSY,
        Some(FailureKind::ReadOnly) => READ_ONLY,
        Some(FailureKind::NoRelease) => NO_RELEASE,
        Some(FailureKind::Other) | None => FAILED,
    }
}

/// A failure that brings its own status.
#[derive(Debug)]
pub struct Status(pub u8, pub String);

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.1)
    }
}

impl std::error::Error for Status {}
