//! `run`: what the launcher calls at each plug-in.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use firmware_image::host::Access;
use updater::backups::Turn;
use updater::operations::Launcher;
use updater::{FailureKind, Limits};

use super::{DeviceEngine, Session, exit, print_error};
use crate::platform::{self, Pipes};

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Do nothing but fetch an updater that may run here: this one is too old for the device.
    #[arg(long)]
    recover: bool,
}

/// The launcher at the other end of two pipes.
struct PipedLauncher {
    pipes: Pipes,
    is_ready: bool,
}

impl PipedLauncher {
    fn new() -> Self {
        Self { pipes: platform::launcher_pipes(), is_ready: false }
    }

    fn say(&mut self, byte: u8) -> bool {
        // A launcher that has gone away needs to hear nothing.
        self.pipes.ready.as_mut().is_some_and(|pipe| pipe.write_all(&[byte]).is_ok())
    }
}

impl Launcher for PipedLauncher {
    fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.say(b'R');
        }
    }

    fn go(&mut self) -> bool {
        self.pipes.client.is_some() && self.say(b'G')
    }

    fn wait_for_client(&mut self) {
        if let Some(pipe) = &mut self.pipes.client {
            // Nothing is ever written to it: reading ends when the client has.
            let _ = pipe.read_to_end(&mut Vec::new());
        }
    }
}

/// How long another updater is waited for, and how often is looked.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(500);

/// Runs it; the exit status tells the launcher whether the client may start.
pub fn main(session: &Session<'_>, args: &RunArgs) -> u8 {
    let mut launcher = PipedLauncher::new();
    let began = Instant::now();
    loop {
        let error = match attempt(session, args, &mut launcher) {
            Ok(status) => return status,
            Err(error) => error,
        };
        let status = exit::of(&error);
        if matches!(status, exit::NO_DEVICE | exit::READ_ONLY | exit::BUSY) {
            // The device's fault, not this program's: no other copy would do better.
            launcher.ready();
        }
        if status != exit::BUSY {
            print_error(&error);
            // Nothing was changed. What nobody may write can still be looked at.
            let looked = (status == exit::READ_ONLY).then(|| look(session, exit::FAILED));
            return looked.and_then(Result::ok).unwrap_or(exit::UNKNOWN);
        }
        // Whoever has the device may take long. That the client is whole can be seen meanwhile.
        let looking = Instant::now();
        let is_whole = matches!(look(session, exit::BUSY), Ok(exit::BUSY));
        if is_whole || began.elapsed() >= PATIENCE {
            print_error(&error);
            return if is_whole { exit::BUSY } else { exit::NOT_WHOLE };
        }
        // Looking must not keep the other one from its work.
        std::thread::sleep(looking.elapsed().max(LOOK));
    }
}

fn attempt(session: &Session<'_>, args: &RunArgs, launcher: &mut PipedLauncher) -> Result<u8> {
    let mut seen = None;
    let ended = session.with_engine(Access::ReadWrite, |engine| {
        let status = attempt_with(engine, session, args, launcher)?;
        seen = Some(status);
        Ok(status)
    });
    match ended {
        // What was seen of the client stays true where the device cannot be closed cleanly.
        Err(error) if seen == Some(exit::NOT_WHOLE) => {
            print_error(&error);
            Ok(exit::NOT_WHOLE)
        }
        ended => ended,
    }
}

fn attempt_with(
    engine: &mut DeviceEngine<'_>,
    session: &Session<'_>,
    args: &RunArgs,
    launcher: &mut PipedLauncher,
) -> Result<u8> {
    if args.recover {
        launcher.ready();
        let status = match engine.recover_updater() {
            Ok(outcome) => {
                session.print_outcome(&outcome)?;
                exit::FINE
            }
            // Where nothing newer is to be had, the client may be whole all the same.
            Err(error) => {
                print_error(&error.into());
                exit::FAILED
            }
        };
        let whole = engine.is_whole();
        return Ok(verdict(engine, whole, status));
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
}

/// `status`, if the client is whole and nothing stands beside it that no release lists and could be run; nothing is written.
fn look(session: &Session<'_>, status: u8) -> Result<u8> {
    session.with_engine(Access::ReadOnly, |engine| {
        engine.set_limits(Limits { dry_run: true, ..engine.limits() });
        let (whole, programs) = engine.standing();
        Ok(verdict(engine, whole && (programs.is_empty() || status != exit::BUSY), status))
    })
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
    let mut launcher = PipedLauncher::new();
    session.with_engine(Access::ReadOnly, |_engine| {
        launcher.ready();
        Ok(exit::FINE)
    })
}
