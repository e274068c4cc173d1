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
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use firmware_image::digest::Hasher;
use firmware_image::{Digest, paths};
use updater::host::Probe;
use windows_sys::Win32::Foundation as codes;
use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, SetHandleInformation};
use windows_sys::Win32::Storage::FileSystem::{FILE_SHARE_READ, FILE_TYPE_PIPE, GetFileType};
use windows_sys::Win32::System::Diagnostics::Debug::{
    SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SEM_NOOPENFILEERRORBOX, SetErrorMode,
};
use windows_sys::Win32::System::Threading::CREATE_NO_WINDOW;

use super::{CLIENT_FD, Locked, Pipes, READY_FD};

/// How private directories begin, the launcher's and those of trials.
const PRIVATE: &str = "holdfast-";
/// How often something that is held is tried, as scanners hold what they look at, and how long between.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);
/// The deepest directory, the most entries, and the most files in use that are looked at.
const MAX_DEPTH: usize = 64;
const MAX_ENTRIES: usize = 262_144;
const MAX_NAMED: usize = 5;

/// Called first. The system shows no box of its own and waits for nobody's click: that a reader has no card any more is told to
/// this program. What it starts inherits that.
pub fn prepare() {
    // SAFETY: takes no memory of ours.
    unsafe { SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX | SEM_NOOPENFILEERRORBOX) };
}

/// Locks a zone's directory against others that do the same: the client's, or that of the updater's state. One that does not
/// exist needs no lock.
///
/// # Errors
/// What the operating system reports.
pub fn lock_directory(directory: &Path) -> io::Result<Locked> {
    let (Some(zone), true) = (directory.parent(), directory.is_dir()) else { return Ok(Locked::Held(None)) };
    let is_state = directory.file_name().is_some_and(|name| name == paths::STATE_DIR);
    let path = zone.join(if is_state { paths::DEVICE_LOCK } else { paths::CLIENT_LOCK });
    match patiently(|| open_lock(&path)) {
        Ok(file) => Ok(Locked::Held(Some(file))),
        Err(error) if is_held(&error) => Ok(Locked::Busy),
        // No state directory yet, and so nobody who could hold a lock in it; or no right to make one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Locked::Held(None)),
        Err(error) => Err(error),
    }
}

/// Opens a lock's file as nobody else has it, made if it is missing. Where it cannot be written, it is read: what counts is that
/// it is not shared.
fn open_lock(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).share_mode(0).open(path);
    let cannot_write = |error: &io::Error| {
        error.kind() == io::ErrorKind::PermissionDenied
            || is_any(error, &[codes::ERROR_WRITE_PROTECT, codes::ERROR_ACCESS_DENIED])
    };
    match open() {
        Err(error) if cannot_write(&error) => {}
        done => return done,
    }
    if make_writable(path)
        && let Ok(file) = open()
    {
        return Ok(file);
    }
    OpenOptions::new().read(true).share_mode(0).open(path)
}

/// Takes the attribute *read-only* off. `false`: it was not there, or stays.
fn make_writable(path: &Path) -> bool {
    let Ok(mut permissions) = std::fs::metadata(path).map(|found| found.permissions()) else { return false };
    if !permissions.readonly() {
        return false;
    }
    #[allow(clippy::permissions_set_readonly_false, reason = "the attribute of Windows, which is about everybody")]
    permissions.set_readonly(false);
    std::fs::set_permissions(path, permissions).is_ok()
}

/// Tries again what somebody else holds.
fn patiently<T>(act: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match act() {
            Err(error) if is_held(&error) => std::thread::sleep(BETWEEN_TRIES),
            done => return done,
        }
    }
    act()
}

fn is_any(error: &io::Error, codes: &[u32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code.cast_unsigned()))
}

fn is_held(error: &io::Error) -> bool {
    is_any(error, &[codes::ERROR_SHARING_VIOLATION, codes::ERROR_LOCK_VIOLATION, codes::ERROR_USER_MAPPED_FILE])
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
    let result = match start_probe(&directory, image, args) {
        Ok((child, _held)) => wait_for_probe(child, limit).unwrap_or_else(|error| Probe::Failed(error.to_string())),
        Err(error) if is_any(&error, &NO_PROGRAM) => Probe::Failed(error.to_string()),
        // This computer's doing (no room, a scanner that refuses it, a policy): it says nothing of the program.
        Err(error) => Probe::NotTried(error.to_string()),
    };
    // What stays behind is a copy of a public program in a temporary directory, which a later launcher removes.
    let _ = std::fs::remove_dir_all(&directory);
    result
}

/// What Windows answers when the file itself is no program that it could run.
const NO_PROGRAM: [u32; 5] = [
    codes::ERROR_BAD_EXE_FORMAT,
    codes::ERROR_BAD_FORMAT,
    codes::ERROR_EXE_MACHINE_TYPE_MISMATCH,
    codes::ERROR_INVALID_EXE_SIGNATURE,
    codes::ERROR_EXE_MARKED_INVALID,
];

/// Passes bytes on, and hashes them.
struct Hashed<'r>(&'r mut dyn Read, Hasher);

impl<'r> Hashed<'r> {
    /// Copies all that `from` reads, and returns its digest.
    fn copy(from: &'r mut dyn Read, to: &mut dyn io::Write) -> io::Result<Digest> {
        let mut hashed = Self(from, Hasher::new());
        io::copy(&mut hashed, to)?;
        Ok(hashed.1.finish())
    }
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.update(&buffer[..n]);
        Ok(n)
    }
}

/// Starts the image from a file which nobody can write, rename or remove as long as the returned handle is open, and which was
/// read through that handle.
fn start_probe(directory: &Path, image: &mut dyn Read, args: &[OsString]) -> io::Result<(Child, File)> {
    std::fs::create_dir(directory)?;
    let program = directory.join("updater.exe");
    let mut file = OpenOptions::new().write(true).create_new(true).share_mode(0).open(&program)?;
    let digest = Hashed::copy(image, &mut file)?;
    // What is open for writing does not run.
    drop(file);
    let mut held = patiently(|| OpenOptions::new().read(true).share_mode(FILE_SHARE_READ).open(&program))?;
    if Hashed::copy(&mut held, &mut io::sink())? != digest {
        return Err(io::Error::other("somebody changed its private copy"));
    }
    let child = Command::new(&program)
        .args(args)
        .env_remove(READY_FD)
        .env_remove(CLIENT_FD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .creation_flags(CREATE_NO_WINDOW)
        .spawn()?;
    Ok((child, held))
}

/// Waits for its end, and ends it when the time is over.
fn wait_for_probe(mut child: Child, limit: Duration) -> io::Result<Probe> {
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
