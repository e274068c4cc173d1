//! Linux.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firmware_image::host::program_memory;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use updater::host::Probe;

use super::{CLIENT_FD, Locked, Pipes, READY_FD};

/// Nothing to set.
pub fn prepare() {}

/// Locks a directory against others that do the same. A directory that does not exist needs no lock.
///
/// # Errors
/// What the operating system reports.
pub fn lock_directory(directory: &Path) -> io::Result<Locked> {
    // Never waits, whatever stands there under that name.
    let file = match rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Locked::Held(None)),
        Err(error) => return Err(error.into()),
    };
    match file.try_lock() {
        Ok(()) => Ok(Locked::Held(Some(file))),
        Err(TryLockError::WouldBlock) => Ok(Locked::Busy),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(Locked::Held(None)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The processes that run from `directory`: their names and numbers, as far as this user may see them.
pub fn in_use_by(directory: &Path) -> Vec<String> {
    let Ok(directory) = directory.canonicalize() else { return Vec::new() };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    let mut users = Vec::new();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == own {
            continue;
        }
        let inside = |name: &str| {
            let target = std::fs::read_link(process.path().join(name));
            target.is_ok_and(|target| target.starts_with(&directory))
        };
        // An interpreter's own file lies elsewhere; its arguments name the script.
        let by_argument = || {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| {
                argument.starts_with(b"/") && Path::new(std::ffi::OsStr::from_bytes(argument)).starts_with(&directory)
            })
        };
        if inside("exe") || inside("cwd") || by_argument() {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            users.push(format!("{} ({pid})", name.trim()));
        }
    }
    users
}

/// The file of this very program, also where it runs from memory.
///
/// # Errors
/// What the operating system reports.
pub fn own_image() -> io::Result<File> {
    File::open("/proc/self/exe")
}

/// Whether a launcher started this program, from sealed memory or a file without a name: it has verified what runs.
pub fn is_launched() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let nameless = own_image().and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.nlink() == 0);
    nameless && std::env::var_os(READY_FD).is_some()
}

/// The launcher's pipes, where it started this process.
pub fn launcher_pipes() -> Pipes {
    let descriptor = |name: &str| {
        let number: u32 = std::env::var(name).ok()?.parse().ok()?;
        Some(format!("/proc/self/fd/{number}"))
    };
    // Opening them anew by name needs no claim on descriptors that others may hold.
    let ready = descriptor(READY_FD).and_then(|path| OpenOptions::new().write(true).open(path).ok());
    let client = descriptor(CLIENT_FD).and_then(|path| File::open(path).ok());
    Pipes { ready, client }
}

/// What ends a program that did nothing wrong.
const INTERRUPTED: i32 = rustix::process::Signal::INT.as_raw();
const KILLED: i32 = rustix::process::Signal::KILL.as_raw();
const TERMINATED: i32 = rustix::process::Signal::TERM.as_raw();

/// Runs an updater from memory until it says that it is ready and has ended.
pub fn probe(image: &mut dyn Read, args: &[OsString], limit: Duration) -> Probe {
    match try_probe(image, args, limit) {
        Ok(probe) => probe,
        // No program at all. Whatever else kept it from being tried, such as too little memory, says nothing of it.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => {
            Probe::Failed(error.to_string())
        }
        Err(error) => Probe::NotTried(error.to_string()),
    }
}

fn try_probe(image: &mut dyn Read, args: &[OsString], limit: Duration) -> io::Result<Probe> {
    let mut file = File::from(program_memory()?);
    io::copy(image, &mut file)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let (said, say) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::fcntl_setfd(&say, rustix::io::FdFlags::empty())?;
    let mut child = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .args(args)
        .env(READY_FD, say.as_raw_fd().to_string())
        .env_remove(CLIENT_FD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    drop(say);
    let deadline = Instant::now() + limit;
    let mut said = File::from(said);
    let ready = wait_for_byte(&mut said, deadline);
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok(match ended {
        None => Probe::Failed("it did not end in time".into()),
        Some(status) if ready && status.success() => Probe::Ready,
        Some(status) if status.success() => Probe::Failed("it ended without being ready".into()),
        // Ended by others: somebody at the keyboard, or a system without memory.
        Some(status) if matches!(status.signal(), Some(INTERRUPTED | KILLED | TERMINATED)) => {
            Probe::NotTried(status.to_string())
        }
        Some(status) => Probe::Failed(status.to_string()),
    })
}

fn wait_for_byte(pipe: &mut File, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = rustix::event::Timespec::try_from(left) else { return false };
        let waited = {
            let descriptor = pipe.as_fd();
            let mut fds = [PollFd::new(&descriptor, PollFlags::IN)];
            poll(&mut fds, Some(&timeout))
        };
        match waited {
            Ok(0) => return false,
            Ok(_) => {
                let mut byte = [0];
                return matches!(pipe.read(&mut byte), Ok(1)) && byte == *b"R";
            }
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}
