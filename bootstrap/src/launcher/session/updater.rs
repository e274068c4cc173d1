//! The updater's part: one copy after the other until one is ready, what it says, its end.

use std::io;
use std::prelude::v1::*;
use std::time::{Duration, Instant};

use firmware_image::paths;

use super::Run;
use crate::decide::{Session, Start};
use crate::launcher::zones::Zones;
use crate::platform::{self, Asked, Child, End, Program, RunImage, SealedMemory, StartError, Wakeup};
use crate::report::{Crash, Event};

/// The updater says that it has loaded its state.
const READY: u8 = b'R';
/// The updater says that the client may start while it goes on.
const GO: u8 = b'G';
/// Exit statuses of `updater run`: the client is whole.
pub(super) const UPDATER_FINE: i32 = 0;
/// It failed; the client is whole.
pub(super) const UPDATER_FAILED: i32 = 1;
/// The client is not whole.
pub(super) const UPDATER_NOT_WHOLE: i32 = 3;
/// Another updater is at work; after it was ready: the client is in use, and whole.
pub(super) const UPDATER_BUSY: i32 = 4;
/// How long a child that was asked to end may take.
const GRACE: Duration = Duration::from_secs(10);

/// How the attempt to have an updater run went.
pub(super) enum Outcome {
    /// It became ready and runs, or has ended since.
    Ready { start: Box<Start<RunImage>>, child: Child, go: bool },
    /// It ended by itself without a fault and without being ready: nothing to do, or another one is at work.
    Ended(End),
    /// None can be started: every copy was tried.
    None,
    /// The system refuses to run it.
    Refused(StartError),
    /// It was ended from outside.
    Killed(End),
    /// The launcher was asked to end.
    Interrupted(i32),
    /// The device was pulled.
    DeviceGone,
}

/// How one copy fared.
enum Tried {
    Ready(Child, bool),
    Crashed(Crash),
    Ended(End),
    Refused(StartError),
    Killed(End),
    Interrupted(i32),
}

impl<Z: Zones> Run<'_, Z> {
    /// Starts one copy after the other until one is ready.
    pub(super) fn updater(
        &mut self,
        session: &mut Session<'_>,
        first: Option<Start<RunImage>>,
        place: &mut SealedMemory,
    ) -> io::Result<Outcome> {
        let align = u64::from(self.config.align_bytes);
        let platform = session.product().platform;
        let mut next = first;
        while let Some(mut start) = next {
            self.teller.tell(session);
            let crash = match self.try_updater(session, &mut start, place)? {
                Tried::Ready(child, go) => return Ok(Outcome::Ready { start: Box::new(start), child, go }),
                Tried::Crashed(crash) => crash,
                Tried::Ended(end) => return Ok(Outcome::Ended(end)),
                Tried::Refused(error) => return Ok(Outcome::Refused(error)),
                Tried::Killed(end) => return Ok(Outcome::Killed(end)),
                Tried::Interrupted(signal) => return Ok(Outcome::Interrupted(signal)),
            };
            if self.presence.explains_failure() {
                return Ok(Outcome::DeviceGone);
            }
            let mut opened = self.zones.open(align, platform);
            session.crashed(opened.free.as_ref(), &start, crash);
            // Its memory is not needed any more; the next copy is as large.
            drop(start);
            next = session.next(&mut opened.device(&mut self.scratch), place);
        }
        Ok(if self.presence.explains_failure() { Outcome::DeviceGone } else { Outcome::None })
    }

    /// Starts one copy and waits until it is ready, or will not be.
    fn try_updater(
        &mut self,
        session: &Session<'_>,
        start: &mut Start<RunImage>,
        place: &mut SealedMemory,
    ) -> io::Result<Tried> {
        let looked_further = session.report().events().iter().any(|event| matches!(event, Event::Unusable { .. }));
        let refused = loop {
            match self.start_updater(start, looked_further) {
                Ok(child) => return self.until_ready(child),
                Err(StartError::Refused(error)) => {
                    self.teller
                        .detail(&format!("This system does not run it from where its private copy is: {error}."));
                    if !place.forbid() {
                        break error;
                    }
                    match start.copy.moved_to(place, session.product()) {
                        Ok(copy) => start.copy = copy,
                        Err(_) => break error,
                    }
                }
                // Missing: the program's interpreter or loader is not on this system.
                Err(StartError::NotAProgram(_) | StartError::Missing(_)) => {
                    return Ok(Tried::Crashed(Crash::NotAProgram));
                }
                Err(StartError::System(error)) => return Err(error),
            }
        };
        Ok(Tried::Refused(StartError::Refused(refused)))
    }

    /// Starts it. Where the launcher `looked_further` than the free zone, a backup that it passed over may be damaged.
    fn start_updater(&self, start: &Start<RunImage>, looked_further: bool) -> Result<Child, StartError> {
        let mut args = vec!["run".into()];
        args.extend(self.zones.updater_args());
        if start.recover {
            args.push("--recover".into());
        }
        Child::start(&platform::Start {
            program: Program::Image(start.copy.image()),
            name: paths::updater_name(paths::THIS_PLATFORM).as_str().into(),
            args,
            directory: None,
            pipes: true,
            client_beside: !self.options.no_client,
            all_backups: looked_further,
            lock: None,
        })
    }

    fn until_ready(&mut self, mut child: Child) -> io::Result<Tried> {
        let timeout_secs = u32::from(self.policies().ready_timeout_secs.max(1));
        let mut deadline = Instant::now() + Duration::from_secs(timeout_secs.into());
        let mut asked = None;
        loop {
            let wakeup = self.wait(Some(&mut child), Some(deadline))?;
            // Looked at before it is listened to: what it said before it ended is heard then.
            let mut end = child.end();
            let said = child.hear();
            if asked.is_none() && said.iter().any(|byte| matches!(*byte, READY | GO)) {
                return Ok(Tried::Ready(child, said.contains(&GO)));
            }
            if let Wakeup::Asked(Asked { signal, by_terminal }) = wakeup {
                if !by_terminal {
                    child.signal(signal);
                }
                asked = Some(signal);
                deadline = Instant::now() + GRACE;
            }
            if wakeup == Wakeup::Deadline {
                child.kill();
                end = child.end();
            }
            match (end, asked) {
                (None, _) => {}
                (Some(_), Some(signal)) => return Ok(Tried::Interrupted(signal)),
                (Some(_), None) if wakeup == Wakeup::Deadline => {
                    return Ok(Tried::Crashed(Crash::NotReady(timeout_secs)));
                }
                (Some(end @ End::Exited(UPDATER_FINE | UPDATER_BUSY)), None) => return Ok(Tried::Ended(end)),
                (Some(End::Exited(status)), None) => return Ok(Tried::Crashed(Crash::FailedExit(status))),
                (Some(End::Fault(signal)), None) => return Ok(Tried::Crashed(Crash::Fault(signal))),
                (Some(end @ End::Killed(_)), None) => return Ok(Tried::Killed(end)),
            }
        }
    }

    /// Waits until the client may start: the updater says so, or has ended. `Some`: the launcher was asked to end.
    pub(super) fn until_go(&mut self, child: &mut Child, go: &mut bool) -> io::Result<Option<i32>> {
        let patience = Duration::from_secs(u64::from(self.policies().check_timeout_secs) + 2);
        let mut deadline = Some(Instant::now() + patience);
        let mut asked = None;
        while !*go && child.end().is_none() {
            let wakeup = self.wait(Some(child), deadline)?;
            *go |= child.hear().contains(&GO);
            match wakeup {
                Wakeup::Asked(Asked { signal, by_terminal }) => {
                    if asked.is_some() {
                        // Twice: now.
                        child.kill();
                    } else if !by_terminal {
                        child.signal(signal);
                    }
                    asked = Some(signal);
                }
                Wakeup::Deadline => {
                    deadline = None;
                    self.teller.say(match self.options.no_client {
                        true => "The updater is still at work.",
                        false => "The updater is still at work; the client starts when it allows it.",
                    });
                }
                Wakeup::Pipe | Wakeup::Child => {}
            }
        }
        Ok(asked)
    }

    /// Waits for the updater's end, after the client's.
    pub(super) fn until_end(&mut self, child: &mut Child) -> io::Result<()> {
        child.tell_client_ended();
        let mut deadline = Some(Instant::now() + Duration::from_secs(2));
        while child.end().is_none() {
            let wakeup = self.wait(Some(child), deadline)?;
            child.hear();
            match wakeup {
                Wakeup::Asked(Asked { signal, by_terminal: false }) => child.signal(signal),
                Wakeup::Deadline => {
                    deadline = None;
                    self.teller.say("The updater is still at work: do not pull the device yet.");
                }
                Wakeup::Asked(_) | Wakeup::Pipe | Wakeup::Child => {}
            }
        }
        Ok(())
    }
}
