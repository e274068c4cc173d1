//! One place to wait at: the updater's pipe, ended children, and consoles that ask the launcher to stop.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::windows::io::{IntoRawHandle as _, RawHandle};
use std::prelude::v1::*;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{HANDLE, WAIT_FAILED, WAIT_OBJECT_0};
use windows_sys::Win32::System::Console::{
    CTRL_BREAK_EVENT, CTRL_C_EVENT, CTRL_CLOSE_EVENT, CTRL_SHUTDOWN_EVENT, SetConsoleCtrlHandler,
};
use windows_sys::Win32::System::Threading::{INFINITE, ResetEvent, SetEvent, WaitForMultipleObjects};

use super::super::{Asked, Wakeup};
use super::pipe;
use super::process::{self, Child};

/// The numbers that POSIX gives to what a console can ask for: interrupt, hang up, terminate.
const SIGINT: i32 = 2;
const SIGHUP: i32 = 1;
const SIGTERM: i32 = 15;
/// A wait is never longer: the system counts milliseconds in 32 bits.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// What was asked and not yet taken.
static ASKED: Mutex<VecDeque<i32>> = Mutex::new(VecDeque::new());
/// The event that says so. Made once, never closed.
static ASKED_EVENT: AtomicPtr<core::ffi::c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Requests of the console, taken in order and not by surprise.
pub struct Events {
    asked: RawHandle,
}

/// Called by the system in a thread of its own.
extern "system" fn on_console(request: u32) -> i32 {
    let signal = match request {
        CTRL_C_EVENT => SIGINT,
        CTRL_BREAK_EVENT => SIGTERM,
        CTRL_CLOSE_EVENT | CTRL_SHUTDOWN_EVENT => SIGHUP,
        // Another user logs off.
        _ => return 0,
    };
    ASKED.lock().unwrap_or_else(PoisonError::into_inner).push_back(signal);
    // SAFETY: an event that is never closed.
    unsafe { SetEvent(ASKED_EVENT.load(Ordering::Acquire)) };
    if signal == SIGHUP {
        // The system ends this process when this returns, and some seconds later anyway.
        std::thread::sleep(LONGEST);
    }
    1
}

impl Events {
    /// Takes over what consoles ask of this process.
    ///
    /// # Errors
    /// What the system reports.
    pub fn new() -> io::Result<Self> {
        let asked = pipe::event()?.into_raw_handle();
        ASKED_EVENT.store(asked, Ordering::Release);
        // SAFETY: a function that lives as long as the program.
        if unsafe { SetConsoleCtrlHandler(Some(on_console), 1) } == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { asked })
    }

    /// Waits for the next thing to happen. The pipe of `talker` comes first: what was said before an end is heard before it.
    ///
    /// # Errors
    /// What the system reports.
    pub fn wait(&self, talker: Option<&Child>, deadline: Option<Instant>) -> io::Result<Wakeup> {
        loop {
            let pipe = talker.and_then(Child::pipe);
            let children = process::not_waited_for();
            let mut handles: Vec<HANDLE> = pipe.into_iter().chain([self.asked]).collect();
            let before_children = handles.len();
            handles.extend(&children);
            let left = deadline.map_or(LONGEST, |deadline| deadline.saturating_duration_since(Instant::now()));
            // Rounded up, so that nothing wakes before it is time.
            let millis = u32::try_from(left.min(LONGEST).as_nanos().div_ceil(1_000_000)).unwrap_or(INFINITE - 1);
            // SAFETY: handles that are open: the pipe's and the children's as long as `talker` and the children live, which
            // nobody ends meanwhile.
            let woken = unsafe { WaitForMultipleObjects(handles.len() as u32, handles.as_ptr(), 0, millis) };
            if woken == WAIT_FAILED {
                return Err(io::Error::last_os_error());
            }
            match usize::try_from(woken.wrapping_sub(WAIT_OBJECT_0)).unwrap_or(usize::MAX) {
                0 if pipe.is_some() => return Ok(Wakeup::Pipe),
                at if at + 1 == before_children => {
                    if let Some(signal) = self.take() {
                        return Ok(Wakeup::Asked(Asked { signal, by_terminal: true }));
                    }
                }
                at if at < handles.len() => {
                    process::was_waited_for(handles[at]);
                    return Ok(Wakeup::Child);
                }
                _ if deadline.is_some_and(|deadline| Instant::now() >= deadline) => return Ok(Wakeup::Deadline),
                _ => {}
            }
        }
    }

    fn take(&self) -> Option<i32> {
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        let signal = asked.pop_front();
        if asked.is_empty() {
            // SAFETY: an event that is never closed. Under the lock, so that no request is forgotten.
            unsafe { ResetEvent(self.asked) };
        }
        signal
    }
}
