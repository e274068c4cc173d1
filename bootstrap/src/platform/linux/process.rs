//! Starting processes, the updater's two pipes, and the lock that a client holds.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use firmware_image::RawZone as _;
use firmware_image::host::{Access, FileZone};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};

use super::super::{End, Program, SharedLock, Start, StartError};
use super::image::SealedMemory;
use crate::verified::{RunPlace as _, SealedBytes as _};

/// The environment variable with the updater's end of the pipe on which it says that it is ready.
const READY_FD: &str = "HOLDFAST_READY_FD";
/// The environment variable that asks the updater to read every backup whole: a copy of it was no good.
const ALL_BACKUPS: &str = "HOLDFAST_ALL_BACKUPS";
/// The environment variable with the end of the pipe that closes when the client has ended.
const CLIENT_FD: &str = "HOLDFAST_CLIENT_FD";
/// What is read of a file to see what it is.
const MAX_HEAD_BYTES: u64 = 512;
/// Signals that a program earns by what it does.
const FAULTS: [i32; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGSYS, libc::SIGTRAP];

/// A running child. It is not ended by dropping this.
pub struct Child {
    child: std::process::Child,
    end: Option<End>,
    ready: Option<File>,
    client: Option<OwnedFd>,
}

impl Child {
    /// Starts a process. It inherits standard input, output and error, and nothing else that was not asked for.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(start: &Start<'_>) -> Result<Self, StartError> {
        let mut inherited: Vec<RawFd> = Vec::with_capacity(4);
        let mut command = match &start.program {
            Program::File(path) => Command::new(path),
            // Reached by name only where the kernel cannot execute a descriptor.
            Program::Image(image) => Command::new(format!("/proc/self/fd/{}", image.fd().as_raw_fd())),
        };
        command.arg0(&start.name).args(&start.args);
        if let Some(directory) = &start.directory {
            command.current_dir(directory);
        }
        let pipes = if start.pipes { Some(Pipes::new().map_err(StartError::System)?) } else { None };
        if let Some(pipes) = &pipes {
            // What the updater says is for people; standard output is the client's.
            command.stdout(io::stderr().as_fd().try_clone_to_owned().map_err(StartError::System)?);
            command.env(READY_FD, pipes.ready_in.as_raw_fd().to_string());
            command.env(CLIENT_FD, pipes.client_out.as_raw_fd().to_string());
            inherited.extend([pipes.ready_in.as_raw_fd(), pipes.client_out.as_raw_fd()]);
        } else {
            command.env_remove(READY_FD).env_remove(CLIENT_FD);
        }
        // No argument: an updater that does not know it must start all the same.
        if start.all_backups {
            command.env(ALL_BACKUPS, "1");
        } else {
            command.env_remove(ALL_BACKUPS);
        }
        if let Some(lock) = start.lock {
            inherited.push(lock.0.as_raw_fd());
        }
        let image = match &start.program {
            Program::File(_) => None,
            Program::Image(image) => {
                let fd = image.fd().as_raw_fd();
                if image.bytes().starts_with(b"#!") {
                    // The interpreter opens the script by a name of this descriptor after it has taken over.
                    inherited.push(fd);
                }
                Some((fd, Vectors::new(start, command.get_envs()).map_err(StartError::System)?))
            }
        };
        // SAFETY: between fork and exec the closure only makes system calls that are async-signal-safe, on descriptors that
        // this process keeps open until `spawn` has returned, and on strings that the closure owns.
        unsafe {
            command.pre_exec(move || {
                for fd in &inherited {
                    rustix::io::fcntl_setfd(BorrowedFd::borrow_raw(*fd), rustix::io::FdFlags::empty())?;
                }
                let mut none = core::mem::MaybeUninit::<libc::sigset_t>::uninit();
                libc::sigemptyset(none.as_mut_ptr());
                libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), core::ptr::null_mut());
                let Some((fd, vectors)) = &image else { return Ok(()) };
                // By descriptor and not by name: `execvp` would hand what is no program to a shell.
                let (argv, envp) = (vectors.args.as_ptr(), vectors.env.as_ptr());
                libc::execveat(*fd, c"".as_ptr(), argv.cast(), envp.cast(), libc::AT_EMPTY_PATH);
                let error = io::Error::last_os_error();
                if error.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(error) }
            });
        }
        let child = command.spawn().map_err(classify)?;
        let (ready, client) = match pipes {
            Some(pipes) => (Some(File::from(pipes.ready_out)), Some(pipes.client_in)),
            None => (None, None),
        };
        Ok(Self { child, end: None, ready, client })
    }

    /// Starts a file as [`Self::start`] does. One that lies on a mount without the right to run programs is run all the
    /// same: a script by its interpreter, a program from a memory file.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_file(start: Start<'_>) -> Result<Self, StartError> {
        let error = match Self::start(&start) {
            Err(error @ (StartError::Refused(_) | StartError::NotAProgram(_))) => error,
            started => return started,
        };
        let Program::File(path) = &start.program else { return Err(error) };
        let Ok(head) = read_head(path) else { return Err(error) };
        if let Some((interpreter, argument)) = interpreter(&head) {
            let args = argument.into_iter().chain([path.clone().into()]).chain(start.args.iter().cloned()).collect();
            let program = Program::File(interpreter.clone());
            return Self::start(&Start { program, name: interpreter.into(), args, ..start });
        }
        if matches!(error, StartError::Refused(_)) && head.starts_with(b"\x7fELF") {
            let Ok(mut file) = FileZone::open(path, Access::ReadOnly) else { return Err(error) };
            let Ok(length) = file.len() else { return Err(error) };
            let Ok(image) = SealedMemory::default().load(&mut file, length) else { return Err(error) };
            return Self::start(&Start { program: Program::Image(&image), ..start });
        }
        Err(error)
    }

    /// Takes what the updater has said; nothing, where there is nothing new.
    pub fn hear(&mut self) -> Vec<u8> {
        let mut said = [0; 64];
        let Some(ready) = &mut self.ready else { return Vec::new() };
        match ready.read(&mut said) {
            Ok(0) => {
                self.ready = None;
                Vec::new()
            }
            Ok(n) => said[..n].to_vec(),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Vec::new(),
            Err(_) => {
                // A pipe that cannot be read says nothing more; the process' end does.
                self.ready = None;
                Vec::new()
            }
        }
    }

    /// Tells the updater that the client has ended.
    pub fn tell_client_ended(&mut self) {
        self.client = None;
    }

    /// How it ended; `None`: it runs.
    pub fn end(&mut self) -> Option<End> {
        if self.end.is_none() {
            // An error means that it was waited for elsewhere, which nobody does.
            self.end = self.child.try_wait().ok().flatten().map(end_of);
        }
        self.end
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&mut self, signal: i32) {
        if self.end().is_some() {
            return;
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
            // It was not waited for, so the number is still its own. One that ended meanwhile needs no signal.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Ends it at once and waits for that.
    pub fn kill(&mut self) {
        if self.end().is_none() {
            // It may have ended meanwhile, which is what is wanted.
            let _ = self.child.kill();
            self.end = self.child.wait().ok().map(end_of);
        }
    }

    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.ready.as_ref().map(AsFd::as_fd)
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) if FAULTS.contains(&signal) => End::Fault(signal),
        (None, signal) => End::Killed(signal.unwrap_or(0)),
    }
}

fn classify(error: io::Error) -> StartError {
    match error.raw_os_error() {
        Some(libc::ENOEXEC | libc::ELIBBAD | libc::EINVAL) => StartError::NotAProgram(error),
        Some(libc::EACCES | libc::EPERM) => StartError::Refused(error),
        Some(libc::ENOENT | libc::ENOTDIR) => StartError::Missing(error),
        _ => StartError::System(error),
    }
}

/// Argument and environment vectors for `execveat`.
struct Vectors {
    _strings: Vec<CString>,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
}

// SAFETY: the pointers are to heap memory of `_strings`, which is never changed and lives as long as they do.
unsafe impl Send for Vectors {}
// SAFETY: as for `Send`; nothing here can be changed through a shared reference.
unsafe impl Sync for Vectors {}

impl Vectors {
    fn new<'e>(start: &Start<'_>, changes: impl Iterator<Item = (&'e OsStr, Option<&'e OsStr>)>) -> io::Result<Self> {
        let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for (name, value) in changes {
            match value {
                Some(value) => env.insert(name.to_owned(), value.to_owned()),
                None => env.remove(name),
            };
        }
        let mut strings = Vec::with_capacity(1 + start.args.len() + env.len());
        for arg in std::iter::once(&start.name).chain(&start.args) {
            strings.push(CString::new(arg.as_bytes())?);
        }
        let count = strings.len();
        for (name, value) in &env {
            strings.push(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?);
        }
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([core::ptr::null()]).collect::<Vec<_>>()
        };
        let (args, env) = (pointers(&strings[..count]), pointers(&strings[count..]));
        Ok(Self { _strings: strings, args, env })
    }
}

fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(MAX_HEAD_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

/// The interpreter that a script names, and its argument (execve(2)); the shell for other text.
fn interpreter(head: &[u8]) -> Option<(PathBuf, Option<OsString>)> {
    let Some(line) = head.strip_prefix(b"#!") else {
        return (!head.is_empty() && !head.contains(&0)).then(|| ("/bin/sh".into(), None));
    };
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (program, argument) = line.split_at(end);
    let argument = argument.trim_ascii();
    let argument = (!argument.is_empty()).then(|| OsStr::from_bytes(argument).to_owned());
    (!program.is_empty()).then(|| (PathBuf::from(OsStr::from_bytes(program)), argument))
}

struct Pipes {
    ready_out: OwnedFd,
    ready_in: OwnedFd,
    client_out: OwnedFd,
    client_in: OwnedFd,
}

impl Pipes {
    fn new() -> io::Result<Self> {
        let (ready_out, ready_in) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (client_out, client_in) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ready_out, true)?;
        Ok(Self { ready_out, ready_in, client_out, client_in })
    }
}

/// A shared lock on a directory, which a child may inherit.
pub struct Lock(OwnedFd);

/// Locks `directory` against an updater that wants to change it.
pub fn try_lock_shared(directory: &Path) -> SharedLock {
    // Never waits, whatever stands there under that name.
    let Ok(fd) = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    else {
        return SharedLock::None;
    };
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockShared) {
        Ok(()) => SharedLock::Held(Lock(fd)),
        Err(Errno::WOULDBLOCK) => SharedLock::Busy,
        Err(_) => SharedLock::None,
    }
}
