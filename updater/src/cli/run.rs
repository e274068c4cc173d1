//! `run`: what the launcher calls at each plug-in.

use std::io::{Read as _, Write as _};

use anyhow::Result;
use clap::Args;
use firmware_image::host::Access;
use updater::backups::Turn;
use updater::operations::Launcher;
use updater::{EngineError, FailureKind, Limits};

use super::{Session, exit, print_error};
use crate::platform::{self, Pipes};

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Do nothing but fetch an updater that may run here: this one is too old for the device.
    #[arg(long)]
    recover: bool,
}

/// The launcher at the other end of two pipes.
struct PipedLauncher(Pipes);

impl PipedLauncher {
    fn say(&mut self, byte: u8) -> bool {
        // A launcher that has gone away needs to hear nothing.
        self.0.ready.as_mut().is_some_and(|pipe| pipe.write_all(&[byte]).is_ok())
    }
}

impl Launcher for PipedLauncher {
    fn ready(&mut self) {
        self.say(b'R');
    }

    fn go(&mut self) -> bool {
        self.0.client.is_some() && self.say(b'G')
    }

    fn wait_for_client(&mut self) {
        if let Some(pipe) = &mut self.0.client {
            // Nothing is ever written to it: reading ends when the client has.
            let _ = pipe.read_to_end(&mut Vec::new());
        }
    }
}

/// Runs it; the exit status tells the launcher whether the client may start.
pub fn main(session: &Session<'_>, args: &RunArgs) -> u8 {
    let mut launcher = PipedLauncher(platform::launcher_pipes());
    let said = &mut launcher;
    let result = session.with_engine(Access::ReadWrite, |engine| {
        let launcher = said;
        if args.recover {
            launcher.ready();
            let outcome = engine.recover_updater()?;
            session.print_outcome(&outcome)?;
            return Ok(exit::FINE);
        }
        if std::env::var_os(platform::ALL_BACKUPS).is_some() {
            engine.set_limits(Limits { turn: Some(Turn::Everything), ..engine.limits() });
        }
        match engine.run(launcher) {
            Ok(outcome) => {
                session.print_outcome(&outcome)?;
                Ok(if outcome.whole { exit::FINE } else { exit::NOT_WHOLE })
            }
            Err(error) => {
                let whole = engine.is_whole();
                let busy = error.kind() == FailureKind::Busy;
                print_error(&error.into());
                Ok(match (whole, busy) {
                    (true, true) => exit::BUSY,
                    (true, false) => exit::FAILED,
                    (false, _) => exit::NOT_WHOLE,
                })
            }
        }
    });
    match result {
        Ok(status) => status,
        Err(error) => {
            print_error(&error);
            if matches!(exit::of(&error), exit::NO_DEVICE | exit::READ_ONLY) {
                // The device's fault, not this program's: no other copy would do better.
                launcher.ready();
            }
            let busy = error.chain().any(|cause| matches!(cause.downcast_ref(), Some(EngineError::Busy)));
            // Nothing could be judged, so nothing was changed: whether the client is whole is as it was.
            if busy { exit::BUSY } else { exit::FAILED }
        }
    }
}

/// Loads the state and says so.
pub fn probe(session: &Session<'_>) -> Result<u8> {
    let mut launcher = PipedLauncher(platform::launcher_pipes());
    session.with_engine(Access::ReadOnly, |_engine| {
        launcher.ready();
        Ok(exit::FINE)
    })
}
