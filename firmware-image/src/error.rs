//! What can go wrong when a zone is read or written, small enough for a microcontroller.

use core::fmt;

/// A fault of a zone's storage. `Copy` and without strings, so that it crosses `no_std` code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZoneError {
    /// The file or place does not exist.
    NotFound,
    /// No space is left.
    Full,
    /// The medium, mount or file is write-protected.
    ReadOnly,
    /// The operating system refuses access to this user.
    Denied,
    /// Something else holds the file.
    Busy,
    /// A read or write reaches past the end of the storage.
    OutOfBounds,
    /// The file system on the medium contradicts itself.
    Corrupt,
    /// Something whole that a later program wrote.
    LaterFormat,
    /// A path that this zone cannot hold.
    BadPath,
    /// A range that this flash cannot erase, or a place where it cannot begin to write.
    Misaligned,
    /// The device reported an error (the operating system's code, 0 where it gives none).
    Io(i32),
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("not found"),
            Self::Full => f.write_str("no space is left"),
            Self::ReadOnly => f.write_str("write-protected"),
            Self::Denied => f.write_str("access denied"),
            Self::Busy => f.write_str("in use by another program"),
            Self::OutOfBounds => f.write_str("reaches past the end"),
            Self::Corrupt => f.write_str("the file system is damaged"),
            Self::LaterFormat => f.write_str("of a later format"),
            Self::BadPath => f.write_str("not a path this zone can hold"),
            Self::Misaligned => f.write_str("not on the flash's boundaries"),
            Self::Io(code) => write!(f, "input/output error {code}"),
        }
    }
}

impl core::error::Error for ZoneError {}

impl embedded_io::Error for ZoneError {
    fn kind(&self) -> embedded_io::ErrorKind {
        use embedded_io::ErrorKind as K;
        match self {
            Self::NotFound => K::NotFound,
            Self::Full => K::OutOfMemory,
            Self::ReadOnly | Self::Denied => K::PermissionDenied,
            Self::Busy => K::AddrInUse,
            Self::OutOfBounds | Self::Misaligned => K::InvalidInput,
            Self::Corrupt => K::InvalidData,
            Self::LaterFormat => K::Unsupported,
            Self::BadPath => K::InvalidInput,
            Self::Io(_) => K::Other,
        }
    }
}

#[cfg(feature = "host")]
impl From<std::io::Error> for ZoneError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        match error.kind() {
            K::NotFound => Self::NotFound,
            K::StorageFull | K::QuotaExceeded => Self::Full,
            K::ReadOnlyFilesystem => Self::ReadOnly,
            K::PermissionDenied => Self::Denied,
            K::ResourceBusy | K::ExecutableFileBusy | K::WouldBlock => Self::Busy,
            K::UnexpectedEof => Self::OutOfBounds,
            K::InvalidFilename | K::NotADirectory | K::IsADirectory => Self::BadPath,
            K::InvalidData => Self::Corrupt,
            #[cfg(windows)]
            _ => windows(error.raw_os_error().unwrap_or(0)),
            #[cfg(not(windows))]
            _ => Self::Io(error.raw_os_error().unwrap_or(0)),
        }
    }
}

/// What the standard library has no kind for (system error codes of Windows).
#[cfg(all(feature = "host", windows))]
fn windows(code: i32) -> ZoneError {
    use windows_sys::Win32::Foundation as codes;
    match code.cast_unsigned() {
        codes::ERROR_SHARING_VIOLATION | codes::ERROR_LOCK_VIOLATION | codes::ERROR_USER_MAPPED_FILE => ZoneError::Busy,
        codes::ERROR_WRITE_PROTECT => ZoneError::ReadOnly,
        // A scanner refuses it.
        codes::ERROR_VIRUS_INFECTED | codes::ERROR_VIRUS_DELETED => ZoneError::Denied,
        codes::ERROR_DISK_CORRUPT | codes::ERROR_FILE_CORRUPT => ZoneError::Corrupt,
        codes::ERROR_HANDLE_EOF => ZoneError::OutOfBounds,
        _ => ZoneError::Io(code),
    }
}
