//! Errors of the system, and what reads and writes.

use alloc::vec::Vec;
use core::fmt;

use rustix::io::Errno;

pub use self::Kind as ErrorKind;

pub type Result<T> = core::result::Result<T, Error>;

/// What kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    NotFound,
    PermissionDenied,
    AlreadyExists,
    WouldBlock,
    NotADirectory,
    IsADirectory,
    ReadOnlyFilesystem,
    InvalidInput,
    InvalidData,
    WriteZero,
    StorageFull,
    QuotaExceeded,
    FileTooLarge,
    ResourceBusy,
    ExecutableFileBusy,
    InvalidFilename,
    Interrupted,
    Unsupported,
    UnexpectedEof,
    OutOfMemory,
    Other,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::NotFound => "entity not found",
            Self::NotADirectory => "not a directory",
            Self::InvalidData => "invalid data",
            Self::WriteZero => "failed to write whole buffer",
            Self::FileTooLarge => "file too large",
            Self::UnexpectedEof => "failed to fill whole buffer",
            _ => "other error",
        }
    }
}

/// Why the system did not do something.
#[derive(Debug, Clone, Copy)]
pub enum Error {
    /// The system's own number.
    Os(i32),
    /// Of this kind.
    Of(Kind),
    /// Of this kind, in these words.
    Said(Kind, &'static str),
}

impl Error {
    pub fn new(kind: Kind, words: &'static str) -> Self {
        Self::Said(kind, words)
    }

    pub fn from_raw_os_error(number: i32) -> Self {
        Self::Os(number)
    }

    #[allow(unsafe_code)]
    pub fn last_os_error() -> Self {
        // SAFETY: the number is always there.
        Self::Os(unsafe { *libc::__errno_location() })
    }

    pub fn raw_os_error(&self) -> Option<i32> {
        if let Self::Os(number) = self { Some(*number) } else { None }
    }

    pub fn kind(&self) -> Kind {
        let number = match self {
            Self::Os(number) => *number,
            Self::Of(kind) | Self::Said(kind, _) => return *kind,
        };
        match number {
            libc::ENOENT => Kind::NotFound,
            libc::EPERM | libc::EACCES => Kind::PermissionDenied,
            libc::EEXIST => Kind::AlreadyExists,
            libc::EAGAIN => Kind::WouldBlock,
            libc::ENOTDIR => Kind::NotADirectory,
            libc::EISDIR => Kind::IsADirectory,
            libc::EROFS => Kind::ReadOnlyFilesystem,
            libc::EINVAL => Kind::InvalidInput,
            libc::ENOSPC => Kind::StorageFull,
            libc::EDQUOT => Kind::QuotaExceeded,
            libc::EFBIG => Kind::FileTooLarge,
            libc::EBUSY => Kind::ResourceBusy,
            libc::ETXTBSY => Kind::ExecutableFileBusy,
            libc::ENAMETOOLONG => Kind::InvalidFilename,
            libc::EINTR => Kind::Interrupted,
            libc::ENOSYS | libc::EOPNOTSUPP => Kind::Unsupported,
            libc::ENOMEM => Kind::OutOfMemory,
            _ => Kind::Other,
        }
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self::Of(kind)
    }
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Self::Os(error.raw_os_error())
    }
}

impl From<alloc::ffi::NulError> for Error {
    fn from(_: alloc::ffi::NulError) -> Self {
        Self::Said(Kind::InvalidInput, "data provided contains a nul byte")
    }
}

/// The words of musl's for what a launcher meets.
const WORDS: [(i32, &str); 33] = [
    (libc::EPERM, "Operation not permitted"),
    (libc::ENOENT, "No such file or directory"),
    (libc::EIO, "I/O error"),
    (libc::ENXIO, "No such device or address"),
    (libc::ENOEXEC, "Exec format error"),
    (libc::EAGAIN, "Resource temporarily unavailable"),
    (libc::ENOMEM, "Out of memory"),
    (libc::EACCES, "Permission denied"),
    (libc::EBUSY, "Resource busy"),
    (libc::EEXIST, "File exists"),
    (libc::ENODEV, "No such device"),
    (libc::ENOTDIR, "Not a directory"),
    (libc::EISDIR, "Is a directory"),
    (libc::EINVAL, "Invalid argument"),
    (libc::ENFILE, "Too many open files in system"),
    (libc::EMFILE, "No file descriptors available"),
    (libc::ETXTBSY, "Text file busy"),
    (libc::EFBIG, "File too large"),
    (libc::ENOSPC, "No space left on device"),
    (libc::EROFS, "Read-only file system"),
    (libc::ENAMETOOLONG, "Filename too long"),
    (libc::ENOSYS, "Function not implemented"),
    (libc::ELOOP, "Symbolic link loop"),
    (libc::ENOTCONN, "Socket not connected"),
    (libc::ESTALE, "Stale file handle"),
    (libc::EUCLEAN, "Structure needs cleaning"),
    (libc::EDQUOT, "Quota exceeded"),
    (libc::ENOMEDIUM, "No medium found"),
    (libc::ENOTBLK, "Block device required"),
    (libc::E2BIG, "Argument list too long"),
    (libc::ETIMEDOUT, "Operation timed out"),
    (libc::EREMOTEIO, "Remote I/O error"),
    (libc::ENODATA, "No data available"),
];

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(number) => {
                let known = WORDS.iter().find(|(known, _)| known == number);
                f.write_str(known.map_or("Error", |(_, words)| words))?;
                write!(f, " (os error {number})")
            }
            Self::Of(kind) => f.write_str(kind.words()),
            Self::Said(_, words) => f.write_str(words),
        }
    }
}

impl core::error::Error for Error {}

/// From where in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekFrom {
    Start(u64),
    End(i64),
    Current(i64),
}

pub trait Read {
    fn read(&mut self, to: &mut [u8]) -> Result<usize>;

    fn read_exact(&mut self, mut to: &mut [u8]) -> Result<()> {
        while !to.is_empty() {
            match self.read(to) {
                Ok(0) => return Err(Kind::UnexpectedEof.into()),
                Ok(n) => to = &mut to[n..],
                Err(error) if error.kind() == Kind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_to_end(&mut self, to: &mut Vec<u8>) -> Result<usize> {
        const STEP: usize = 4096;
        let before = to.len();
        loop {
            let filled = to.len();
            to.resize(filled + STEP, 0);
            let read = self.read(&mut to[filled..]);
            to.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(filled - before),
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(self, limit: u64) -> Take<Self>
    where
        Self: Sized,
    {
        Take { inner: self, limit }
    }
}

impl<R: Read + ?Sized> Read for &mut R {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        (**self).read(to)
    }
}

/// Reads so many bytes at most.
pub struct Take<R> {
    inner: R,
    limit: u64,
}

impl<R: Read> Read for Take<R> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        let room = usize::try_from(self.limit).unwrap_or(usize::MAX).min(to.len());
        if room == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut to[..room])?;
        self.limit -= n as u64;
        Ok(n)
    }
}

pub trait Write {
    fn write(&mut self, from: &[u8]) -> Result<usize>;

    fn write_all(&mut self, mut from: &[u8]) -> Result<()> {
        while !from.is_empty() {
            match self.write(from) {
                Ok(0) => return Err(Kind::WriteZero.into()),
                Ok(n) => from = &from[n..],
                Err(error) if error.kind() == Kind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

pub trait Seek {
    fn seek(&mut self, to: SeekFrom) -> Result<u64>;
}

/// Standard output or error. What is written is written at once.
pub struct Stream(i32);

pub fn stdout() -> Stream {
    Stream(libc::STDOUT_FILENO)
}

pub fn stderr() -> Stream {
    Stream(libc::STDERR_FILENO)
}

impl Write for Stream {
    #[allow(unsafe_code)]
    fn write(&mut self, from: &[u8]) -> Result<usize> {
        // SAFETY: borrowed for the call; where it was never open the system says so.
        let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(self.0) };
        Ok(rustix::io::write(fd, from)?)
    }
}
