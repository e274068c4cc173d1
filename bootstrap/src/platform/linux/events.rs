//! One place to wait at: the updater's pipe, ended children, and signals that ask the launcher to stop.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::super::{Asked, Wakeup};
use super::process::Child;

/// Signals, taken in order and not by surprise. Children start with none of them blocked.
pub struct Events {
    signals: OwnedFd,
}

const TAKEN: [i32; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGCHLD];

impl Events {
    /// Takes over the signals of this process.
    ///
    /// # Errors
    /// What the system reports.
    pub fn new() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises `set` before anything reads it; the other calls take it by pointer for the
        // time of the call only. The descriptor is new, and nobody else owns it.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in TAKEN {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), core::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            // Where whoever started this ignores the ends of its children, so would the kernel here, and nobody be told.
            if libc::signal(libc::SIGCHLD, libc::SIG_DFL) == libc::SIG_ERR {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self { signals: OwnedFd::from_raw_fd(fd) })
        }
    }

    /// Waits for the next thing to happen. The pipe of `talker` comes first: what was said before an end is heard before it.
    ///
    /// # Errors
    /// What the system reports.
    pub fn wait(&self, talker: Option<&Child>, deadline: Option<Instant>) -> io::Result<Wakeup> {
        loop {
            let timeout = deadline.map(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
            });
            let pipe = talker.and_then(Child::pipe);
            let mut fds = [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.signals, PollFlags::empty())];
            let count = match &pipe {
                Some(pipe) => {
                    fds[1] = PollFd::new(pipe, PollFlags::IN);
                    2
                }
                None => 1,
            };
            match rustix::event::poll(&mut fds[..count], timeout.as_ref()) {
                Ok(0) => return Ok(Wakeup::Deadline),
                Ok(_) if count == 2 && !fds[1].revents().is_empty() => return Ok(Wakeup::Pipe),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(wakeup) = self.take()? {
                return Ok(wakeup);
            }
        }
    }

    fn take(&self) -> io::Result<Option<Wakeup>> {
        const INFO_BYTES: usize = size_of::<libc::signalfd_siginfo>();
        let mut bytes = [0; INFO_BYTES];
        match rustix::io::read(self.signals.as_fd(), &mut bytes) {
            Ok(INFO_BYTES) => {}
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // signalfd_siginfo begins with the signal (u32), errno (i32) and code (i32).
        let signal = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let code = i32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if signal == libc::SIGCHLD {
            return Ok(Some(Wakeup::Child));
        }
        Ok(Some(Wakeup::Asked(Asked { signal, by_terminal: code > 0 })))
    }
}
