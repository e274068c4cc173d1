//! Starting processes, the updater's two pipes, and the lock that a client holds.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::prelude::v1::*;

use firmware_image::RawZone as _;
use firmware_image::host::{Access, FileZone};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::super::{End, Program, SharedLock, Start, StartError};
use super::image::SealedMemory;
use super::signals::{self, done};
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
    pid: Pid,
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
        let pipes = if start.pipes { Some(Pipes::new().map_err(StartError::System)?) } else { None };
        let plan = Plan::new(start, pipes.as_ref()).map_err(StartError::System)?;
        let pid = plan.spawn().map_err(classify)?;
        let (ready, client) = match pipes {
            Some(pipes) => (Some(File::from(pipes.ready_out)), Some(pipes.client_in)),
            None => (None, None),
        };
        Ok(Self { pid, end: None, ready, client })
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
        self.wait(WaitOptions::NOHANG)
    }

    /// Sends it a signal, if it runs.
    pub fn signal(&mut self, signal: i32) {
        if self.end().is_some() {
            return;
        }
        if let Some(signal) = Signal::from_named_raw(signal) {
            // It was not waited for, so the number is still its own. One that ended meanwhile needs no signal.
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Ends it at once and waits for that.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL.as_raw());
        self.wait(WaitOptions::empty());
    }

    fn wait(&mut self, options: WaitOptions) -> Option<End> {
        while self.end.is_none() {
            match rustix::process::waitpid(Some(self.pid), options) {
                Ok(status) => {
                    self.end = status.map(|(_, status)| end_of(status));
                    break;
                }
                Err(Errno::INTR) => {}
                // It was waited for elsewhere, which nobody does.
                Err(_) => break,
            }
        }
        self.end
    }

    pub(super) fn pipe(&self) -> Option<BorrowedFd<'_>> {
        self.ready.as_ref().map(AsFd::as_fd)
    }
}

fn end_of(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
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

/// Everything that a child does between its birth and its program, ready before it is born: from then on it may only make
/// system calls.
struct Plan {
    /// A descriptor to execute.
    image: Option<RawFd>,
    /// A name to execute where there is no descriptor, or where the kernel cannot execute one.
    path: CString,
    directory: Option<CString>,
    inherited: Vec<RawFd>,
    stdout_is_stderr: bool,
    _strings: Vec<CString>,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
}

impl Plan {
    fn new(start: &Start<'_>, pipes: Option<&Pipes>) -> io::Result<Self> {
        let mut inherited: Vec<RawFd> = Vec::with_capacity(4);
        let mut own: Vec<String> = Vec::with_capacity(3);
        if let Some(pipes) = pipes {
            let ends = [(READY_FD, &pipes.ready_in), (CLIENT_FD, &pipes.client_out)];
            for (name, end) in ends.into_iter().take(if start.client_beside { 2 } else { 1 }) {
                own.push(format!("{name}={}", end.as_raw_fd()));
                inherited.push(end.as_raw_fd());
            }
        }
        // No argument: an updater that does not know it must start all the same.
        if start.all_backups {
            own.push(format!("{ALL_BACKUPS}=1"));
        }
        if let Some(lock) = start.lock {
            inherited.push(lock.0.as_raw_fd());
        }
        let (image, path) = match &start.program {
            Program::File(path) => (None, CString::new(path.as_os_str().as_bytes())?),
            Program::Image(image) => {
                let fd = image.fd().as_raw_fd();
                if image.bytes().starts_with(b"#!") {
                    // The interpreter opens the script by a name of this descriptor after it has taken over.
                    inherited.push(fd);
                }
                (Some(fd), CString::new(format!("/proc/self/fd/{fd}"))?)
            }
        };
        let mut strings = Vec::new();
        for arg in std::iter::once(&start.name).chain(&start.args) {
            strings.push(CString::new(arg.as_bytes())?);
        }
        let count = strings.len();
        for text in own {
            strings.push(CString::new(text)?);
        }
        for (name, value) in std::env::vars_os() {
            if [READY_FD, CLIENT_FD, ALL_BACKUPS].iter().all(|own| name != **own) {
                strings.push(CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())?);
            }
        }
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([core::ptr::null()]).collect::<Vec<_>>()
        };
        let (args, env) = (pointers(&strings[..count]), pointers(&strings[count..]));
        let directory = match &start.directory {
            Some(directory) => Some(CString::new(directory.as_os_str().as_bytes())?),
            None => None,
        };
        // What the updater says is for people; standard output is the client's.
        Ok(Self { image, path, directory, inherited, stdout_is_stderr: start.pipes, _strings: strings, args, env })
    }

    /// Starts the child, and waits until it runs its program or has failed to.
    fn spawn(&self) -> io::Result<Pid> {
        let (failed_out, failed_in) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the child only makes system calls that are async-signal-safe, on descriptors that this process has open
        // and on strings that `self` owns, and then ends without coming back.
        let pid = unsafe {
            // fork(2), which not every processor's kernel has.
            let pid = done(libc::syscall(libc::SYS_clone, libc::SIGCHLD as usize, 0_usize, 0_usize, 0_usize, 0_usize))?;
            if pid == 0 {
                let error = self.become_it();
                // Nobody hears it where the pipe fails; the status says as much.
                let _ = rustix::io::write(&failed_in, &error.raw_os_error().to_ne_bytes());
                libc::syscall(libc::SYS_exit_group, 127);
            }
            pid
        };
        drop(failed_in);
        let pid = Pid::from_raw(pid as i32).ok_or(io::ErrorKind::InvalidData)?;
        let mut error = [0; size_of::<i32>()];
        match File::from(failed_out).read_exact(&mut error) {
            Ok(()) => {
                // It ends by itself, and at once.
                while matches!(rustix::process::waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
                Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error)))
            }
            // The pipe was closed by the program's start.
            Err(_) => Ok(pid),
        }
    }

    /// Makes this process the child's program; the system's error if it does not.
    ///
    /// # Safety
    /// To be called in a child after `fork`, which must end when this returns.
    unsafe fn become_it(&self) -> Errno {
        match self.prepare() {
            Ok(()) => {}
            Err(error) => return error,
        }
        let (argv, envp) = (self.args.as_ptr(), self.env.as_ptr());
        // SAFETY: every pointer is to a string or a vector with a null at its end that `self` owns; the descriptor is open.
        unsafe {
            if let Some(fd) = self.image {
                // By descriptor: what is executed is what was verified.
                libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH);
                let error = last_error();
                if error != Errno::NOSYS {
                    return error;
                }
            }
            libc::syscall(libc::SYS_execve, self.path.as_ptr(), argv, envp);
        }
        last_error()
    }

    /// What becomes of a child before its program starts.
    fn prepare(&self) -> Result<(), Errno> {
        for fd in &self.inherited {
            // SAFETY: open in the parent, and so here.
            rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(*fd) }, FdFlags::empty())?;
        }
        if self.stdout_is_stderr {
            // SAFETY: borrowed for the call; where it was never open the system says so.
            rustix::stdio::dup2_stdout(unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) })?;
        }
        if let Some(directory) = &self.directory {
            rustix::process::chdir(&**directory)?;
        }
        // Rust's runtime ignores it, and ignored it would stay. Neither fails with signals that there are.
        let _ = signals::by_default(libc::SIGPIPE);
        let _ = signals::mask(libc::SIG_SETMASK, 0);
        Ok(())
    }
}

fn last_error() -> Errno {
    Errno::from_raw_os_error(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
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
