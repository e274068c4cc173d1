//! Exit statuses. The client's own wins whenever it ran; the launcher's are those of sysexits.h or near them, so that they
//! rarely meet a client's.

/// How the launcher ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything went as it should, and no client was to be started.
    Fine,
    /// The client's own status; 128 and the signal's number if one ended it, on Windows the exception.
    Client(i32),
    /// The command line makes no sense.
    Usage,
    /// The device, or a zone that was named, is not there.
    NoDevice,
    /// No good copy of the updater anywhere.
    NoUpdater,
    /// There are good copies, and none of them starts.
    NoneStarts,
    /// The operating system failed the launcher.
    System,
    /// The client cannot be started.
    NoClient,
    /// The client is in the middle of a change, or the updater says that it is not whole: it was not started.
    ClientNotWhole,
    /// The device was pulled.
    DeviceGone,
    /// The system refuses to run the updater or to mount the zones, or root asked for what root should not do.
    Refused,
    /// The device's configuration is missing, damaged, or another vendor's.
    BadConfig,
    /// A person ended the launcher with this signal.
    Interrupted(i32),
}

impl Exit {
    /// The number.
    pub fn status(self) -> i32 {
        match self {
            Self::Fine => 0,
            Self::Client(status) => status,
            Self::Usage => 64,
            Self::NoDevice => 66,
            Self::NoUpdater => 69,
            Self::NoneStarts => 70,
            Self::System => 71,
            Self::NoClient => 72,
            Self::ClientNotWhole => 73,
            Self::DeviceGone => 74,
            Self::Refused => 77,
            Self::BadConfig => 78,
            Self::Interrupted(signal) => (signal & 0x7f) + 128,
        }
    }

    /// Whether the launcher could not do what it was started for. How a client ends is the client's to tell.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Fine | Self::Client(_) | Self::Interrupted(_))
    }

    /// A word for scripts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Client(_) => "client",
            Self::Usage => "usage",
            Self::NoDevice => "no-device",
            Self::NoUpdater => "no-updater",
            Self::NoneStarts => "none-starts",
            Self::System => "system",
            Self::NoClient => "no-client",
            Self::ClientNotWhole => "client-not-whole",
            Self::DeviceGone => "device-gone",
            Self::Refused => "refused",
            Self::BadConfig => "bad-config",
            Self::Interrupted(_) => "interrupted",
        }
    }
}
