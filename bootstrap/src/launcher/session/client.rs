//! The client's part: nobody changes its files, it runs, and how it fared is noted.

use std::io;
use std::prelude::v1::*;
use std::time::{Duration, Instant};

use firmware_image::journal::Journal;
use firmware_image::launcher_note::LauncherNote;
use firmware_image::paths;

use super::Run;
use crate::launcher::client;
use crate::launcher::exit::Exit;
use crate::launcher::zones::{OpenedOf, Zones};
use crate::platform::{self, Asked, Child, End, Lock, SharedLock, Wakeup};
use crate::trial::{self, ClientRun};

/// How often is looked whether another updater has finished.
const LOOK: Duration = Duration::from_millis(200);

/// What a client that is whole is started with: the lock that it holds, and the zones.
pub(super) type Whole<Z> = (Option<Lock>, OpenedOf<Z>);

/// How the client fared.
pub(super) enum ClientOutcome {
    Ended(End),
    NotStarted(Exit),
}

impl<Z: Zones> Run<'_, Z> {
    pub(super) fn client(&mut self, platform: &str, mut updater: Option<&mut Child>) -> io::Result<ClientOutcome> {
        if self.presence.is_gone() {
            self.device_gone();
            return Ok(ClientOutcome::NotStarted(Exit::DeviceGone));
        }
        let Some(command) = self.config.client_command(platform) else {
            self.teller.detail("This product has no client for this platform.");
            return Ok(ClientOutcome::NotStarted(Exit::Fine));
        };
        let (lock, mut opened) = match self.whole_client(platform)? {
            Ok(whole) => whole,
            Err(exit) => return Ok(ClientOutcome::NotStarted(exit)),
        };
        let on_probation = self.on_probation(&mut opened);
        drop(opened);
        let home = match self.zones.client_home() {
            Ok(home) => home,
            Err(error) => {
                let hint = match self.zones.managed_directory() {
                    Some(_) => "Start the launcher again when the device is mounted.",
                    #[cfg(feature = "image")]
                    None if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                        "It runs from a copy in this computer's temporary directory: make room there, then start the launcher again."
                    }
                    None => {
                        "Start the launcher again where there is a network; if this stays so, format the free zone."
                    }
                };
                self.teller.problem(&format!("The client has no place to run in: {error}."), hint);
                return Ok(ClientOutcome::NotStarted(Exit::NoClient));
            }
        };
        let mut child = match client::start(&home, command, lock.as_ref()) {
            Ok(child) => child,
            Err(error) => {
                let hint = "If this stays so, ask whoever gave you this device.";
                self.teller.problem(&error.to_string(), hint);
                if error.is_the_release()
                    && let Some(serial) = on_probation
                {
                    self.note_after(updater, serial, ClientRun::Failed)?;
                }
                return Ok(ClientOutcome::NotStarted(Exit::NoClient));
            }
        };
        let watched_until = on_probation.map(|_| self.probation_end());
        let mut run = None;
        let end = loop {
            let deadline = watched_until.filter(|_| run.is_none());
            let wakeup = self.wait(updater.as_deref_mut(), deadline)?;
            if let Some(updater) = &mut updater {
                updater.hear();
                // Takes note of its end, so that nothing is left to be waited for.
                updater.end();
            }
            if wakeup == Wakeup::Deadline {
                run = Some(ClientRun::Well);
                if let (Some(serial), true) = (on_probation, Z::SHARED) {
                    self.note(serial, ClientRun::Well);
                }
            }
            if let Wakeup::Asked(Asked { signal, by_terminal: false }) = wakeup {
                child.signal(signal);
                // It is asked once only, and whoever asked does not want to wait for a download.
                if let Some(updater) = &mut updater {
                    updater.signal(signal);
                }
            }
            if let Some(end) = child.end() {
                break end;
            }
        };
        drop(lock);
        drop(home);
        if !matches!(end, End::Exited(_)) {
            self.teller.say(&format!("The client {end}."));
        }
        if let Some(serial) = on_probation {
            let early = match end {
                End::Exited(0) => ClientRun::Well,
                End::Exited(_) | End::Fault(_) => ClientRun::Failed,
                End::Killed(_) => ClientRun::Unclear,
            };
            self.note_after(updater, serial, run.unwrap_or(early))?;
        }
        Ok(ClientOutcome::Ended(end))
    }

    /// Waits until nobody changes the client's files. `Err`: a change was left open, or the launcher was asked to end.
    pub(super) fn whole_client(&mut self, platform: &str) -> io::Result<Result<Whole<Z>, Exit>> {
        // The lock comes first: an updater that holds it may be ended in the middle of its change, and what the journal said
        // before that is worth nothing.
        let lock = match self.client_lock()? {
            Ok(lock) => lock,
            Err(signal) => return Ok(Err(Exit::Interrupted(signal))),
        };
        let opened = self.zones.open(u64::from(self.config.align_bytes), platform);
        match opened.free.as_ref().map(Journal::read) {
            Some(Ok(journal)) if journal.state().is_open() => {
                self.teller.problem(
                    "The client is in the middle of a change that could not be finished: it was not started.",
                    "Plug the device in again; the updater then finishes or undoes the change.",
                );
                Ok(Err(Exit::ClientNotWhole))
            }
            Some(Err(error)) => {
                self.teller.problem(
                    &format!(
                        "Whether the client is whole cannot be told, so it was not started: the journal in the free zone \
                         cannot be read ({error})."
                    ),
                    "Plug the device in again where there is a network; if this stays so, format its free zone.",
                );
                Ok(Err(Exit::ClientNotWhole))
            }
            Some(Ok(_)) | None => Ok(Ok((lock, opened))),
        }
    }

    /// The lock that a client holds, once nobody changes its files; `Err`: the launcher was asked to end with this signal.
    fn client_lock(&mut self) -> io::Result<Result<Option<Lock>, i32>> {
        let Some(directory) = self.zones.managed_directory() else { return Ok(Ok(None)) };
        let mut said = false;
        loop {
            match platform::try_lock_shared(&directory) {
                SharedLock::Held(lock) => return Ok(Ok(Some(lock))),
                SharedLock::None => return Ok(Ok(None)),
                SharedLock::Busy => {}
            }
            if !said {
                self.teller.say("Waiting for another updater to finish its change.");
                said = true;
            }
            if let Wakeup::Asked(Asked { signal, .. }) = self.events.wait(None, Some(Instant::now() + LOOK))? {
                return Ok(Err(signal));
            }
        }
    }

    fn probation_end(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.policies().probation_secs.into())
    }

    /// The serial of the release on probation, read after the updater may have changed it.
    fn on_probation(&mut self, opened: &mut OpenedOf<Z>) -> Option<u64> {
        // A note that cannot be read says nothing, and a record that does not open has no release to watch.
        let note = opened.free.as_ref().and_then(|free| LauncherNote::read(free).ok()).unwrap_or_default();
        let secret = self.config.secret();
        let crate::Device { mut places, mut memory, .. } = opened.device(&mut self.scratch);
        let found = places.newest_record(&secret, &mut memory, &mut self.record)?;
        trial::on_probation(&found.record, &note)
    }

    /// Notes how the client fared, when nobody else writes to the free zone.
    fn note_after(&mut self, updater: Option<&mut Child>, serial: u64, run: ClientRun) -> io::Result<()> {
        if let (Some(updater), false) = (updater, Z::SHARED) {
            self.until_end(updater)?;
        }
        self.note(serial, run);
        Ok(())
    }

    fn note(&mut self, serial: u64, run: ClientRun) {
        let opened = self.zones.open(u64::from(self.config.align_bytes), paths::THIS_PLATFORM);
        let Some(free) = opened.free.as_ref() else { return };
        let mut note = LauncherNote::read(free).unwrap_or_default();
        if !trial::enter(&mut note, serial, run) {
            return;
        }
        if let Err(error) = note.write(free) {
            self.teller.detail(&format!("How the client fared could not be noted in the free zone: {error}."));
        }
    }
}
