//! What the launcher asks of the operating system, and nothing else asks what it runs on: sealed memory to run from,
//! processes, signals, locks, mounts, and whether the device is still there.

#[cfg_attr(target_os = "linux", path = "linux/mod.rs")]
#[cfg_attr(windows, path = "windows/mod.rs")]
#[cfg_attr(not(any(target_os = "linux", windows)), path = "elsewhere.rs")]
mod os;
pub use os::{
    Child, Events, Lock, MOUNTS, Presence, PrivateDirectory, PrivateMount, REACH_HINT, RunImage, SealedMemory,
    give_up_privileges, is_root, make_executable, mount_privately, mount_zones, own_device, prepare, private_directory,
    show, try_lock_shared,
};

use std::ffi::OsString;
use std::path::PathBuf;
use std::prelude::v1::*;

use crate::report::Cause;

/// Somebody asks the launcher to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// The signal.
    pub signal: i32,
    /// A terminal sent it, and so to the children as well.
    pub by_terminal: bool,
}

/// What was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wakeup {
    /// The updater's pipe has something to say.
    Pipe,
    /// A child may have ended.
    Child,
    /// See [`Asked`].
    Asked(Asked),
    /// It is time.
    Deadline,
}

/// Why a zone could not be mounted.
#[derive(Debug)]
pub enum MountFault {
    /// This user may not mount.
    NotAllowed,
    /// It has no file system that this computer knows.
    NoFileSystem,
    /// What the system reports.
    System(std::io::Error),
}

impl std::fmt::Display for MountFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAllowed => f.write_str("this user may not mount it"),
            Self::NoFileSystem => f.write_str("it has no file system that this computer knows"),
            Self::System(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for MountFault {}

/// A zone that was mounted.
#[derive(Debug)]
pub struct ZoneMount {
    /// Where.
    pub directory: PathBuf,
    /// Whether it could only be mounted for reading, although more was wanted.
    pub read_only: bool,
}

/// The zones of a device, as far as they could be mounted.
#[derive(Debug)]
pub struct ZoneMounts {
    /// The virtual zone.
    pub virtual_zone: Result<ZoneMount, MountFault>,
    /// The free zone, where there is one.
    pub free: Option<Result<ZoneMount, MountFault>>,
}

/// What came of asking for a shared lock.
pub enum SharedLock {
    /// It is held.
    Held(Lock),
    /// Somebody changes what is in the directory.
    Busy,
    /// There is no such directory, or its file system knows no locks.
    None,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Exited(i32),
    /// In a fault of its own: a signal or exception that a program earns by what it does.
    Fault(i32),
    /// Ended from outside: by a user, an administrator, a shutdown, a lack of memory.
    Killed(i32),
}

impl End {
    /// What a shell would report; the exception itself, where Windows says that it was one.
    pub fn status(self) -> i32 {
        match self {
            Self::Exited(status) => status,
            Self::Fault(signal) | Self::Killed(signal) if signal >= 0 => (signal & 0x7f) + 128,
            Self::Fault(exception) | Self::Killed(exception) => exception,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "ended with status {status}"),
            Self::Fault(number) => write!(f, "ended in a fault ({})", Cause(*number)),
            Self::Killed(number) => write!(f, "was ended from outside ({})", Cause(*number)),
        }
    }
}

/// Why a process could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The system says that these bytes are no program it can run.
    NotAProgram(std::io::Error),
    /// The system does not let this user run it: a mount without the right, a security program.
    Refused(std::io::Error),
    /// There is no such file.
    Missing(std::io::Error),
    /// The system has no room for another process, or something else of its own went wrong.
    System(std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAProgram(error) => write!(f, "this system cannot run it: {error}"),
            Self::Refused(error) => write!(f, "this system refuses to run it: {error}"),
            Self::Missing(error) | Self::System(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What is started.
pub enum Program<'p> {
    /// Bytes in the place from which they run.
    Image(&'p RunImage),
    /// A file.
    File(PathBuf),
}

/// A process to start.
pub struct Start<'p> {
    /// What is started.
    pub program: Program<'p>,
    /// What it sees as its own name.
    pub name: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where it starts; `None`: where the launcher runs.
    pub directory: Option<PathBuf>,
    /// Whether it gets the updater's two pipes.
    pub pipes: bool,
    /// Whether it is told of the second: a client can be let go while it goes on.
    pub client_beside: bool,
    /// Whether it is asked to read every backup of the updater whole.
    pub all_backups: bool,
    /// A lock that it keeps as long as it lives.
    pub lock: Option<&'p Lock>,
}
