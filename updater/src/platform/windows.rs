//! Windows. Directories take no locks here: a file inside them does.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use updater::host::Probe;

use super::{CLIENT_FD, Locked, Pipes, READY_FD};

/// The file that stands for a directory's lock.
const LOCK_FILE: &str = ".lock";

/// Locks a directory against others that do the same. A directory that does not exist needs no lock.
///
/// # Errors
/// What the operating system reports.
pub fn lock_directory(directory: &Path) -> io::Result<Locked> {
    if !directory.is_dir() {
        return Ok(Locked::Held(None));
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(directory.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Locked::Held(Some(file))),
        Err(TryLockError::WouldBlock) => Ok(Locked::Busy),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Windows itself keeps a running program's file from being written; the client's lock tells the rest.
pub fn in_use_by(_directory: &Path) -> Vec<String> {
    Vec::new()
}

/// The file of this very program.
///
/// # Errors
/// What the operating system reports.
pub fn own_image() -> io::Result<File> {
    File::open(std::env::current_exe()?)
}

/// Whether a launcher started this program and has verified what runs: there is none here yet.
pub fn is_launched() -> bool {
    false
}

/// Pipes are not inherited by number here: the launcher waits for this process' end.
pub fn launcher_pipes() -> Pipes {
    Pipes::default()
}

/// Runs an updater from a fresh private directory; it ends with 0 when it is ready.
pub fn probe(image: &mut dyn Read, args: &[OsString], limit: Duration) -> Probe {
    let directory = std::env::temp_dir().join(format!("holdfast-probe-{}", std::process::id()));
    let result = try_probe(&directory, image, args, limit);
    // What stays behind is a copy of a public program in a temporary directory.
    let _ = std::fs::remove_dir_all(&directory);
    result.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Probe::NotTried(error.to_string()),
        _ => Probe::Failed(error.to_string()),
    })
}

fn try_probe(directory: &Path, image: &mut dyn Read, args: &[OsString], limit: Duration) -> io::Result<Probe> {
    std::fs::create_dir(directory)?;
    let program = directory.join("updater.exe");
    let mut file = OpenOptions::new().write(true).create_new(true).open(&program)?;
    io::copy(image, &mut file)?;
    drop(file);
    let mut child = Command::new(&program)
        .args(args)
        .env_remove(READY_FD)
        .env_remove(CLIENT_FD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() { Probe::Ready } else { Probe::Failed(status.to_string()) });
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(Probe::Failed("it did not end in time".into()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
