//! One place to wait at: the updater's pipe, ended children, and signals that ask the launcher to stop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::super::{Asked, Wakeup};
use super::process::Child;
use super::signals;

/// Signals, taken in order and not by surprise. Children start with none of them blocked.
pub struct Events {
    signals: OwnedFd,
}

const TAKEN: u64 = signals::only(libc::SIGINT)
    | signals::only(libc::SIGTERM)
    | signals::only(libc::SIGHUP)
    | signals::only(libc::SIGCHLD);

impl Events {
    /// Takes over the signals of this process.
    ///
    /// # Errors
    /// What the system reports.
    pub fn new() -> io::Result<Self> {
        signals::mask(libc::SIG_BLOCK, TAKEN)?;
        // Where whoever started this ignores the ends of its children, so would the kernel here, and nobody be told.
        signals::by_default(libc::SIGCHLD)?;
        Ok(Self { signals: signals::descriptor(TAKEN)? })
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
