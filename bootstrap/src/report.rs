//! What was found and done, in a list of fixed size: enough for every place once and every copy once.

use core::fmt;

use firmware_image::ZoneError;
use firmware_image::updater_image::UpdaterVersion;

use crate::device::{CopyFault, Source};
use crate::restore::RestoreError;

/// Events that a report holds.
pub const MAX_EVENTS: usize = 32;

/// How an updater failed to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// A fault signal or exception, by the system's number.
    Fault(i32),
    /// It ended with this failing status before it was ready.
    FailedExit(i32),
    /// It was not ready within so many seconds.
    NotReady(u32),
    /// The system says that this is no program it can run.
    NotAProgram,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(number) => write!(f, "it ended in a fault ({}) before it was ready", Cause(*number)),
            Self::FailedExit(status) => write!(f, "it ended with status {status} before it was ready"),
            Self::NotReady(secs) => write!(f, "it was not ready within {secs} seconds"),
            Self::NotAProgram => f.write_str("this system cannot run it"),
        }
    }
}

/// What ended a process, for people: the number of a signal, or an exception of Windows (an NTSTATUS, which is negative).
pub struct Cause(pub i32);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            signal if signal >= 0 => write!(f, "signal {signal}"),
            exception => write!(f, "exception {:#010x}", exception.cast_unsigned()),
        }
    }
}

/// One thing that was found or done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A place has nothing to offer.
    Unusable {
        /// The place.
        source: Source,
        /// Why.
        fault: CopyFault,
    },
    /// No version record opens, though there is something where they stand: no floors are known.
    NoRecord,
    /// A copy was installed in the free zone.
    Restored {
        /// Its version.
        version: UpdaterVersion,
        /// Where it came from.
        from: Source,
    },
    /// A copy could not be installed; it runs all the same.
    NotRestored {
        /// Its version.
        version: UpdaterVersion,
        /// Where it came from.
        from: Source,
        /// Why.
        why: RestoreError,
    },
    /// The factory's copy runs, below the floor, to fetch a newer one.
    Recovery {
        /// Its version.
        version: UpdaterVersion,
        /// Where it came from.
        from: Source,
    },
    /// A sound copy would not start.
    Crashed {
        /// Its version.
        version: UpdaterVersion,
        /// Where it came from.
        from: Source,
        /// How.
        crash: Crash,
    },
    /// The launcher's note could not be written: the next start will try again what failed.
    NotNoted(ZoneError),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable { source, fault } => write!(f, "{source}: {fault}"),
            Self::NoRecord => f.write_str("The device's version record cannot be read; no updater counts as too old."),
            Self::Restored { version, from } => write!(f, "Restored updater {version} from {from}."),
            Self::NotRestored { version, from, why } => {
                write!(f, "Updater {version} from {from} runs without being installed: {why}.")
            }
            Self::Recovery { version, from } => {
                write!(
                    f,
                    "Updater {version} from {from} is older than this device allows; it only fetches a newer one."
                )
            }
            Self::Crashed { version, from, crash } => {
                write!(f, "Updater {version} from {from} would not start: {crash}.")
            }
            Self::NotNoted(why) => write!(f, "What failed could not be noted in the free zone: {why}."),
        }
    }
}

/// The list. What does not fit is counted.
#[derive(Debug, Default)]
pub struct Report {
    events: heapless::Vec<Event, MAX_EVENTS>,
    dropped: u32,
}

impl Report {
    /// Adds an event.
    pub fn add(&mut self, event: Event) {
        if self.events.push(event).is_err() {
            self.dropped += 1;
        }
    }

    /// What was found and done, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Events that did not fit.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }
}
