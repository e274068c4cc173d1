//! `run`: what the launcher calls at each plug-in.

use std::io::{Read as _, Write as _};

use anyhow::Result;
use clap::Args;
use firmware_image::host::Access;
use updater::backups::Turn;
use updater::operations::Launcher;
use updater::{EngineError, FailureKind, Limits};

use super::{DeviceEngine, Session, exit, print_error};
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
            let whole = engine.is_whole();
            return Ok(verdict(engine, whole, exit::FINE));
        }
        if std::env::var_os(platform::ALL_BACKUPS).is_some() {
            engine.set_limits(Limits { turn: Some(Turn::Everything), ..engine.limits() });
        }
        match engine.run(launcher) {
            Ok(outcome) => {
                session.print_outcome(&outcome)?;
                Ok(verdict(engine, outcome.whole, exit::FINE))
            }
            Err(error) => {
                let status = if error.kind() == FailureKind::Busy { exit::BUSY } else { exit::FAILED };
                print_error(&error.into());
                let whole = engine.is_whole();
                Ok(verdict(engine, whole, status))
            }
        }
    });
    match result {
        Ok(status) => status,
        Err(error) => {
            print_error(&error);
            let status = exit::of(&error);
            if matches!(status, exit::NO_DEVICE | exit::READ_ONLY) {
                // The device's fault, not this program's: no other copy would do better.
                launcher.ready();
            }
            if error.chain().any(|cause| matches!(cause.downcast_ref(), Some(EngineError::Busy))) {
                // Whoever has the device may take long. That the client is whole can be seen meanwhile.
                let looked = session.with_engine(Access::ReadOnly, |engine| Ok(engine.is_whole() && engine.has_list()));
                if matches!(looked, Ok(true)) {
                    launcher.ready();
                }
                return exit::BUSY;
            }
            // Nothing was changed. What nobody may write can still be looked at.
            let looked = (status == exit::READ_ONLY).then(|| {
                session.with_engine(Access::ReadOnly, |engine| {
                    let whole = engine.is_whole();
                    Ok(verdict(engine, whole, exit::FAILED))
                })
            });
            looked.and_then(Result::ok).unwrap_or(exit::UNKNOWN)
        }
    }
}

/// `status`, where what was found to be `whole` is known to be: there is a list of its files.
fn verdict(engine: &mut DeviceEngine<'_>, whole: bool, status: u8) -> u8 {
    match whole {
        true if engine.has_list() => status,
        true => exit::UNKNOWN,
        false => exit::NOT_WHOLE,
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
