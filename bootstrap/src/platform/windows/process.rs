//! Starting processes, the updater's two pipes, and the lock that a client holds.
#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::ffi::OsStrExt as _;
use std::os::windows::fs::OpenOptionsExt as _;
use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::path::{Path, PathBuf};
use std::prelude::v1::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

use firmware_image::paths;
use windows_sys::Win32::Foundation as codes;
use windows_sys::Win32::Foundation::{DUPLICATE_SAME_ACCESS, DuplicateHandle, HANDLE, WAIT_OBJECT_0};
use windows_sys::Win32::Storage::FileSystem::FILE_SHARE_READ;
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE,
};
use windows_sys::Win32::System::Threading::{
    CREATE_DEFAULT_ERROR_MODE, CREATE_NO_WINDOW, CreateProcessW, DeleteProcThreadAttributeList,
    EXTENDED_STARTUPINFO_PRESENT, GetCurrentProcess, GetExitCodeProcess, INFINITE, InitializeProcThreadAttributeList,
    LPPROC_THREAD_ATTRIBUTE_LIST, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, PROCESS_INFORMATION, STARTF_USESTDHANDLES,
    STARTUPINFOEXW, TerminateProcess, UpdateProcThreadAttribute, WaitForSingleObject,
};

use super::super::{End, Program, SharedLock, Start, StartError};
use super::console::{has_console, leads_somewhere};
use super::pipe::{self, Ear};
use super::{patiently, wide};

/// The environment variable with the updater's end of the pipe on which it says that it is ready: a handle's number.
const READY_FD: &str = "HOLDFAST_READY_FD";
/// The environment variable with the end of the pipe that closes when the client has ended.
const CLIENT_FD: &str = "HOLDFAST_CLIENT_FD";
/// The environment variable that asks the updater to read every backup whole: a copy of it was no good.
const ALL_BACKUPS: &str = "HOLDFAST_ALL_BACKUPS";
/// How a process ends that was ended: as by a console's Ctrl-C.
const ENDED: u32 = codes::STATUS_CONTROL_C_EXIT.cast_unsigned();

/// The children whose end nobody has been told of.
static CHILDREN: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn children() -> MutexGuard<'static, Vec<usize>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to be waited for.
pub fn not_waited_for() -> Vec<HANDLE> {
    children().iter().map(|child| *child as HANDLE).collect()
}

/// That this child has ended has been told.
pub fn was_waited_for(child: HANDLE) {
    children().retain(|other| *other != child as usize);
}

/// A running child. It is not ended by dropping this.
pub struct Child {
    process: OwnedHandle,
    end: Option<End>,
    ready: Option<Ear>,
    client: Option<OwnedHandle>,
}

impl Drop for Child {
    fn drop(&mut self) {
        was_waited_for(self.process.as_raw_handle());
    }
}

impl Child {
    /// Starts a process. It inherits standard input, output and error, and nothing else that was not asked for.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(start: &Start<'_>) -> Result<Self, StartError> {
        let path = match &start.program {
            // With the separators of Windows.
            Program::File(path) => path.components().collect::<PathBuf>(),
            Program::Image(image) => image.path().to_path_buf(),
        };
        let mut inherited = Vec::with_capacity(6);
        let mut inherit = |handle: HANDLE| -> Result<HANDLE, StartError> {
            let handle = inheritable(handle).map_err(StartError::System)?;
            inherited.push(handle);
            Ok(inherited.last().map_or(std::ptr::null_mut(), |handle| handle.as_raw_handle()))
        };
        // One that cannot be handed on is none: nothing is worth less than the child.
        let mut standard = |which: STD_HANDLE| match leads_somewhere(which) {
            // SAFETY: takes no memory of ours.
            true => inherit(unsafe { GetStdHandle(which) }).unwrap_or(std::ptr::null_mut()),
            false => std::ptr::null_mut(),
        };
        // What the updater says is for people; standard output is the client's.
        let output = if start.pipes { STD_ERROR_HANDLE } else { STD_OUTPUT_HANDLE };
        let standard = [standard(STD_INPUT_HANDLE), standard(output), standard(STD_ERROR_HANDLE)];
        let (mut ready, mut client) = (None, None);
        let mut environment = vec![(READY_FD, None), (CLIENT_FD, None)];
        environment.push((ALL_BACKUPS, start.all_backups.then(|| "1".to_owned())));
        // Closed with the end of this function: what the child has is its own.
        let mut theirs = Vec::with_capacity(2);
        if start.pipes {
            let (ear, mouth) = Ear::new().map_err(StartError::System)?;
            let (end, closes) = pipe::silent().map_err(StartError::System)?;
            environment[0].1 = Some((inherit(mouth.as_raw_handle())? as usize).to_string());
            if start.client_beside {
                environment[1].1 = Some((inherit(end.as_raw_handle())? as usize).to_string());
            }
            (ready, client) = (Some(ear), Some(closes));
            theirs.extend([mouth, end]);
        }
        if let Some(lock) = start.lock {
            inherit(lock.0.as_raw_handle())?;
        }
        let handles: Vec<HANDLE> = inherited.iter().map(|handle| handle.as_raw_handle()).collect();
        let mut line = command_line(&path, &start.args);
        let process = with_environment(&environment, || {
            let flags = match start.pipes {
                // What the system shows when a client fails is between the two.
                false => CREATE_DEFAULT_ERROR_MODE,
                // An updater is silent work behind the launcher; a client that wants a window of its own has one.
                true if !has_console() => CREATE_NO_WINDOW,
                true => 0,
            };
            patiently(is_held, || create(&path, &mut line, start.directory.as_deref(), standard, &handles, flags))
        });
        let process = process.map_err(|error| match (classify(error), &start.program) {
            // It was there, verified and held open: a scanner took it, or this system does not find its way to it.
            (StartError::Missing(error), Program::Image(_)) => StartError::Refused(error),
            (error, _) => error,
        })?;
        children().push(process.as_raw_handle() as usize);
        Ok(Self { process, end: None, ready, client })
    }

    /// Starts a file as [`Self::start`] does.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_file(start: Start<'_>) -> Result<Self, StartError> {
        Self::start(&start)
    }

    /// Takes what the updater has said; nothing, where there is nothing new.
    pub fn hear(&mut self) -> Vec<u8> {
        let said = self.ready.as_mut().map(Ear::hear);
        match said {
            Some(Some(said)) => said,
            Some(None) => {
                self.ready = None;
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Tells the updater that the client has ended.
    pub fn tell_client_ended(&mut self) {
        self.client = None;
    }

    /// How it ended; `None`: it runs.
    pub fn end(&mut self) -> Option<End> {
        let process = self.process.as_raw_handle();
        // SAFETY: a process handle that is open, and a place for the number.
        if self.end.is_none() && unsafe { WaitForSingleObject(process, 0) } == WAIT_OBJECT_0 {
            let mut code = 0;
            // SAFETY: as above.
            self.end = (unsafe { GetExitCodeProcess(process, &mut code) } != 0).then(|| end_of(code));
        }
        self.end
    }

    /// Ends it, if it runs: Windows knows no other request to a process that may have no window and no console. Whoever shares
    /// a console with it has sent it that console's requests already.
    pub fn signal(&mut self, _signal: i32) {
        if self.end().is_none() {
            // SAFETY: a process handle that is open. One that ended meanwhile needs nothing.
            unsafe { TerminateProcess(self.process.as_raw_handle(), ENDED) };
        }
    }

    /// Ends it at once and waits for that.
    pub fn kill(&mut self) {
        self.signal(0);
        // SAFETY: a process handle that is open.
        unsafe { WaitForSingleObject(self.process.as_raw_handle(), INFINITE) };
        self.end();
    }

    pub(super) fn pipe(&self) -> Option<HANDLE> {
        self.ready.as_ref().map(Ear::event)
    }
}

/// A copy of a handle that a child may inherit.
fn inheritable(handle: HANDLE) -> io::Result<OwnedHandle> {
    let mut copy = std::ptr::null_mut();
    // SAFETY: takes no memory of ours but the place for the handle.
    let done = unsafe {
        let own = GetCurrentProcess();
        DuplicateHandle(own, handle, own, &mut copy, 0, 1, DUPLICATE_SAME_ACCESS)
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a handle that the call has just made.
    Ok(unsafe { OwnedHandle::from_raw_handle(copy) })
}

/// Calls `f` while these variables are set, or are not.
fn with_environment<T>(variables: &[(&str, Option<String>)], f: impl FnOnce() -> T) -> T {
    for (name, value) in variables {
        // SAFETY: on Windows these calls are always sound (std::env::set_var).
        match value {
            Some(value) => unsafe { std::env::set_var(name, value) },
            None => unsafe { std::env::remove_var(name) },
        }
    }
    let result = f();
    for (name, _) in variables {
        // SAFETY: as above.
        unsafe { std::env::remove_var(name) };
    }
    result
}

fn create(
    path: &Path,
    line: &mut [u16],
    directory: Option<&Path>,
    standard: [HANDLE; 3],
    handles: &[HANDLE],
    flags: u32,
) -> io::Result<OwnedHandle> {
    let path = wide(path);
    let directory = directory.map(wide);
    let mut list = Inherited::new(handles)?;
    let mut info = STARTUPINFOEXW::default();
    info.StartupInfo.cb = size_of::<STARTUPINFOEXW>() as u32;
    // Where the launcher has none of them, a console program gets those of its own console.
    if standard.iter().any(|handle| !handle.is_null()) {
        info.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
        [info.StartupInfo.hStdInput, info.StartupInfo.hStdOutput, info.StartupInfo.hStdError] = standard;
    }
    info.lpAttributeList = list.as_mut_ptr();
    let mut made = PROCESS_INFORMATION::default();
    // SAFETY: strings that end in zero, a command line that may be written to, and structures of their own lengths, all of
    // which live through the call; the handles in the list are open and may be inherited.
    let done = unsafe {
        CreateProcessW(
            path.as_ptr(),
            line.as_mut_ptr(),
            std::ptr::null(),
            std::ptr::null(),
            i32::from(!handles.is_empty()),
            EXTENDED_STARTUPINFO_PRESENT | flags,
            std::ptr::null(),
            directory.as_ref().map_or(std::ptr::null(), |directory| directory.as_ptr()),
            &raw const info.StartupInfo,
            &mut made,
        )
    };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: two handles that the call has just made; the thread's is not needed.
    unsafe {
        drop(OwnedHandle::from_raw_handle(made.hThread));
        Ok(OwnedHandle::from_raw_handle(made.hProcess))
    }
}

/// The list of handles that a child inherits.
struct Inherited<'h> {
    /// Memory for the system's structure, as aligned as a pointer is.
    memory: Vec<usize>,
    _handles: &'h [HANDLE],
}

impl<'h> Inherited<'h> {
    fn new(handles: &'h [HANDLE]) -> io::Result<Self> {
        let mut bytes = 0;
        // SAFETY: without memory the call tells how much it needs.
        unsafe { InitializeProcThreadAttributeList(std::ptr::null_mut(), 1, 0, &mut bytes) };
        let mut list = Self { memory: vec![0; bytes.div_ceil(size_of::<usize>())], _handles: handles };
        // SAFETY: memory of the length that the system asked for.
        if unsafe { InitializeProcThreadAttributeList(list.as_mut_ptr(), 1, 0, &mut bytes) } == 0 {
            list.memory = Vec::new();
            return Err(io::Error::last_os_error());
        }
        if handles.is_empty() {
            return Ok(list);
        }
        // SAFETY: a list that was initialised, and handles that live as long as it.
        let done = unsafe {
            UpdateProcThreadAttribute(
                list.as_mut_ptr(),
                0,
                PROC_THREAD_ATTRIBUTE_HANDLE_LIST as usize,
                handles.as_ptr().cast(),
                size_of_val(handles),
                std::ptr::null_mut(),
                std::ptr::null(),
            )
        };
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(list) }
    }

    fn as_mut_ptr(&mut self) -> LPPROC_THREAD_ATTRIBUTE_LIST {
        self.memory.as_mut_ptr().cast()
    }
}

impl Drop for Inherited<'_> {
    fn drop(&mut self) {
        if !self.memory.is_empty() {
            // SAFETY: a list that was initialised.
            unsafe { DeleteProcThreadAttributeList(self.as_mut_ptr()) };
        }
    }
}

/// The command line, quoted so that C programs take it apart again (Microsoft, "Parsing C command-line arguments").
fn command_line(program: &Path, args: &[OsString]) -> Vec<u16> {
    let mut line = Vec::new();
    for word in std::iter::once(program.as_os_str()).chain(args.iter().map(OsString::as_os_str)) {
        if !line.is_empty() {
            line.push(u16::from(b' '));
        }
        quote(word, &mut line);
    }
    line.push(0);
    line
}

fn quote(word: &OsStr, line: &mut Vec<u16>) {
    const QUOTE: u16 = b'"' as u16;
    const BACKSLASH: u16 = b'\\' as u16;
    line.push(QUOTE);
    let mut backslashes = 0;
    for unit in word.encode_wide() {
        if unit == QUOTE {
            // Those before it count twice, and it needs one.
            line.extend(std::iter::repeat_n(BACKSLASH, backslashes + 1));
        }
        backslashes = if unit == BACKSLASH { backslashes + 1 } else { 0 };
        line.push(unit);
    }
    line.extend(std::iter::repeat_n(BACKSLASH, backslashes));
    line.push(QUOTE);
}

/// What an exit code tells. The codes of exceptions are NTSTATUS values with the severity *error*, those of languages'
/// exceptions begin with 0xE0, and a debugger's traps are warnings.
fn end_of(code: u32) -> End {
    const LANGUAGES: u32 = 0xe0;
    let status = code.cast_signed();
    match status {
        // A console's request; a session that ends; a program that was started while it ended.
        codes::STATUS_CONTROL_C_EXIT | codes::DBG_TERMINATE_PROCESS | codes::STATUS_DLL_INIT_FAILED => {
            End::Killed(codes::STATUS_CONTROL_C_EXIT)
        }
        codes::STATUS_DATATYPE_MISALIGNMENT | codes::STATUS_BREAKPOINT | codes::STATUS_SINGLE_STEP => {
            End::Fault(status)
        }
        _ if code >> 28 == 0xc || code >> 24 == LANGUAGES => End::Fault(status),
        _ => End::Exited(status),
    }
}

/// Whether somebody else has the file open, so that it does not run: a scanner looks at what was just written.
fn is_held(error: &io::Error) -> bool {
    const HELD: [u32; 2] = [codes::ERROR_SHARING_VIOLATION, codes::ERROR_LOCK_VIOLATION];
    error.raw_os_error().is_some_and(|code| HELD.contains(&code.cast_unsigned()))
}

fn classify(error: io::Error) -> StartError {
    match error.raw_os_error().unwrap_or(0).cast_unsigned() {
        codes::ERROR_BAD_EXE_FORMAT
        | codes::ERROR_BAD_FORMAT
        | codes::ERROR_EXE_MACHINE_TYPE_MISMATCH
        | codes::ERROR_INVALID_EXE_SIGNATURE
        | codes::ERROR_EXE_MARKED_INVALID => StartError::NotAProgram(error),
        codes::ERROR_ACCESS_DENIED
        | codes::ERROR_VIRUS_INFECTED
        | codes::ERROR_VIRUS_DELETED
        | codes::ERROR_ACCESS_DISABLED_BY_POLICY
        | codes::ERROR_ELEVATION_REQUIRED
        | codes::ERROR_SYSTEM_INTEGRITY_POLICY_VIOLATION
        | codes::ERROR_SYSTEM_INTEGRITY_POLICY_NOT_SIGNED => StartError::Refused(error),
        codes::ERROR_FILE_NOT_FOUND | codes::ERROR_PATH_NOT_FOUND => StartError::Missing(error),
        _ => StartError::System(error),
    }
}

/// A shared lock on a directory, which a child may inherit: a file that is open without sharing writes. It is held as long
/// as anybody has that handle, on every file system, and ends with the last of them: a client outlives a launcher that was ended.
pub struct Lock(File);

/// Locks `directory` against an updater that wants to change it.
pub fn try_lock_shared(directory: &Path) -> SharedLock {
    let Some(zone) = directory.parent().filter(|_| directory.is_dir()) else { return SharedLock::None };
    let path = zone.join(paths::CLIENT_LOCK);
    let mut options = OpenOptions::new();
    let opened = options.read(true).share_mode(FILE_SHARE_READ).open(&path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            // Made once. Another launcher may be as quick.
            drop(OpenOptions::new().write(true).create_new(true).open(&path));
            options.open(&path)
        }
        _ => Err(error),
    });
    match opened {
        Ok(file) => SharedLock::Held(Lock(file)),
        Err(error) if error.raw_os_error() == Some(codes::ERROR_SHARING_VIOLATION.cast_signed()) => SharedLock::Busy,
        Err(_) => SharedLock::None,
    }
}
