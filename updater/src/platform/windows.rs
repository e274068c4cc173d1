//! Windows. Directories take no locks here: a file that is open without sharing does, on every file system, and as long as
//! anybody has that handle.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::{FromRawHandle as _, RawHandle};
use std::os::windows::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firmware_image::paths;
use updater::host::Probe;
use windows_sys::Win32::Foundation::{
    ERROR_LOCK_VIOLATION, ERROR_SHARING_VIOLATION, ERROR_USER_MAPPED_FILE, HANDLE_FLAG_INHERIT, SetHandleInformation,
};
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_PIPE, GetFileType};
use windows_sys::Win32::System::Threading::CREATE_NO_WINDOW;

use super::{CLIENT_FD, Locked, Pipes, READY_FD};

/// How private directories begin, the launcher's and those of trials.
const PRIVATE: &str = "holdfast-";
/// The deepest directory, the most entries, and the most files in use that are looked at.
const MAX_DEPTH: usize = 64;
const MAX_ENTRIES: usize = 262_144;
const MAX_NAMED: usize = 5;

/// Locks a zone's directory against others that do the same: the client's, or that of the updater's state. One that does not
/// exist needs no lock.
///
/// # Errors
/// What the operating system reports.
pub fn lock_directory(directory: &Path) -> io::Result<Locked> {
    let (Some(zone), true) = (directory.parent(), directory.is_dir()) else { return Ok(Locked::Held(None)) };
    let is_state = directory.file_name().is_some_and(|name| name == paths::STATE_DIR);
    let path = zone.join(if is_state { paths::DEVICE_LOCK } else { paths::CLIENT_LOCK });
    // Whoever may only read holds it with `read`, and this wants to write.
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).share_mode(0).open(path);
    match opened {
        Ok(file) => Ok(Locked::Held(Some(file))),
        Err(error) if is_held(&error) => Ok(Locked::Busy),
        // No state directory yet, and so nobody who could hold a lock in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Locked::Held(None)),
        Err(error) => Err(error),
    }
}

fn is_held(error: &io::Error) -> bool {
    const HELD: [u32; 3] = [ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_USER_MAPPED_FILE];
    error.raw_os_error().is_some_and(|code| HELD.contains(&code.cast_unsigned()))
}

/// The files in `directory` that somebody uses in a way that keeps them from being replaced: programs that run, libraries
/// that are loaded, documents that are open. Windows does not tell an ordinary user by whom.
pub fn in_use_by(directory: &Path) -> Vec<String> {
    let mut used = Vec::new();
    let mut left: Vec<(PathBuf, usize)> = vec![(directory.to_path_buf(), 0)];
    let mut entries_left = MAX_ENTRIES;
    while let Some((here, depth)) = left.pop() {
        // What cannot be listed cannot be told of.
        let Ok(entries) = std::fs::read_dir(&here) else { continue };
        for entry in entries.flatten() {
            entries_left = entries_left.saturating_sub(1);
            if entries_left == 0 || used.len() == MAX_NAMED {
                return used;
            }
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => left.push((path, depth + 1)),
                // Opened to be written, and not one byte written.
                Ok(kind) if kind.is_file() => {
                    if OpenOptions::new().write(true).open(&path).is_err_and(|error| is_held(&error)) {
                        used.push(path.strip_prefix(directory).unwrap_or(&path).display().to_string());
                    }
                }
                _ => {}
            }
        }
    }
    used
}

/// The file of this very program.
///
/// # Errors
/// What the operating system reports.
pub fn own_image() -> io::Result<File> {
    File::open(std::env::current_exe()?)
}

/// Whether a launcher started this program, from a private file that it has verified and that nobody can change while it
/// runs.
pub fn is_launched() -> bool {
    let private = |directory: &Path| directory.file_name()?.to_str().map(|name| name.starts_with(PRIVATE));
    let program = std::env::current_exe().ok();
    let private = program.as_deref().and_then(Path::parent).and_then(private).unwrap_or(false);
    private && std::env::var_os(READY_FD).is_some()
}

/// The launcher's pipes, where it started this process: inherited handles, named by their numbers. Called once.
pub fn launcher_pipes() -> Pipes {
    let pipe = |name: &str| {
        let number: usize = std::env::var(name).ok()?.parse().ok()?;
        let handle = number as RawHandle;
        // SAFETY: the calls refuse what is no handle of this process. What is a pipe, and named by this variable, was put
        // there for this program alone, which takes it once: nothing else here owns it. No child of ours inherits it.
        unsafe {
            if number == 0 || GetFileType(handle) != FILE_TYPE_PIPE {
                return None;
            }
            SetHandleInformation(handle, HANDLE_FLAG_INHERIT, 0);
            Some(File::from_raw_handle(handle))
        }
    };
    Pipes { ready: pipe(READY_FD), client: pipe(CLIENT_FD) }
}

/// Runs an updater from a fresh private directory; it ends with 0 when it is ready.
pub fn probe(image: &mut dyn Read, args: &[OsString], limit: Duration) -> Probe {
    let mut random = [0; 8];
    if let Err(error) = getrandom::fill(&mut random) {
        return Probe::NotTried(error.to_string());
    }
    let directory = std::env::temp_dir().join(format!("{PRIVATE}{:016x}", u64::from_ne_bytes(random)));
    let result = try_probe(&directory, image, args, limit);
    // What stays behind is a copy of a public program in a temporary directory, which a later launcher removes.
    let _ = std::fs::remove_dir_all(&directory);
    result.unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Probe::NotTried(error.to_string()),
        _ => Probe::Failed(error.to_string()),
    })
}

fn try_probe(directory: &Path, image: &mut dyn Read, args: &[OsString], limit: Duration) -> io::Result<Probe> {
    std::fs::create_dir(directory)?;
    let program = directory.join("updater.exe");
    let mut file = OpenOptions::new().write(true).create_new(true).share_mode(0).open(&program)?;
    io::copy(image, &mut file)?;
    drop(file);
    let mut child = Command::new(&program)
        .args(args)
        .env_remove(READY_FD)
        .env_remove(CLIENT_FD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .creation_flags(CREATE_NO_WINDOW)
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
