//! One run of the launcher over a device's zones: the updater until it is ready, the next copy where it is not, then the
//! client, and the end of both.
//!
//! | module | subject |
//! |---|---|
//! | `updater` | start it, wait until it is ready, try the next; its end |
//! | `client` | wait until its files are at rest, run it, note how it fared |

mod client;
mod updater;

use std::io;
use std::prelude::v1::*;
use std::time::{Duration, Instant};

use client::ClientOutcome;
use firmware_image::device_config::{DeviceConfig, Policies};
use firmware_image::places::Scratch;
use firmware_image::record::MAX_RECORD_BYTES;
use firmware_image::{paths, stamp};
use updater::{Outcome, UPDATER_BUSY, UPDATER_FAILED, UPDATER_FINE, UPDATER_NOT_WHOLE};

use super::args::{Mode, Options};
use super::exit::Exit;
use super::words::Teller;
use super::zones::Zones;
use crate::decide::Session;
use crate::device::Product;
use crate::platform::{Child, End, Events, Presence, SealedMemory, Wakeup};

/// How often is looked whether the device is still there.
const PRESENCE_LOOK: Duration = Duration::from_secs(1);
/// Who is waited for so much longer than was asked for has slept.
const ASLEEP: Duration = Duration::from_secs(10);
/// The signal that ends a process at once (POSIX, `kill -9`).
const SIGNAL_KILL: i32 = 9;
struct Run<'r, Z: Zones> {
    zones: &'r Z,
    config: &'r DeviceConfig<'r>,
    options: &'r Options,
    teller: &'r mut Teller,
    events: Events,
    scratch: Box<Scratch>,
    record: Vec<u8>,
    presence: Presence,
}

/// Runs updater and client of a device.
pub fn run<Z: Zones>(zones: &Z, options: &Options, teller: &mut Teller) -> Exit {
    let Some(vendor) = stamp::vendor_key() else {
        teller.problem(
            "This launcher carries no vendor's key, and trusts nobody.",
            "`partition-tools create` stamps the key into it: start the one on the device.",
        );
        return Exit::BadConfig;
    };
    let file = paths::DEVICE_CONFIG;
    let hint = "Take a device of the same kind, or ask whoever gave you this one.";
    let presence = zones.presence();
    let bytes = match zones.config(&vendor) {
        Ok(bytes) => bytes,
        Err(_) if presence.explains_failure() => return device_gone(teller),
        Err(error) => {
            teller.problem(&format!("{file} in {} cannot be read: {error}.", zones.virtual_zone()), hint);
            return Exit::BadConfig;
        }
    };
    let config = match DeviceConfig::open(&bytes, &vendor) {
        Ok(config) => config,
        Err(error) => {
            teller.problem(&format!("{file} in {} is not to be trusted: {error}.", zones.virtual_zone()), hint);
            return Exit::BadConfig;
        }
    };
    let events = match Events::new() {
        Ok(events) => events,
        Err(error) => return system_failed(teller, &error),
    };
    let product = Product { vendor, name: config.product, platform: paths::THIS_PLATFORM, secret: config.secret() };
    let mut run = Run {
        zones,
        config: &config,
        options,
        teller,
        events,
        scratch: Box::default(),
        record: vec![0; MAX_RECORD_BYTES],
        presence,
    };
    match run.go(product) {
        Ok(exit @ (Exit::NoClient | Exit::ClientNotWhole)) if !run.presence.explains_failure() => exit,
        Ok(Exit::NoClient | Exit::ClientNotWhole) => run.device_gone(),
        Ok(exit) => exit,
        Err(_) if run.presence.explains_failure() => run.device_gone(),
        Err(error) => system_failed(teller, &error),
    }
}

fn device_gone(teller: &mut Teller) -> Exit {
    teller.problem(
        "The device was pulled, or does not answer any more.",
        "Plug it in again and start the launcher: it heals what was interrupted.",
    );
    Exit::DeviceGone
}

fn system_failed(teller: &mut Teller, error: &io::Error) -> Exit {
    teller.problem(&format!("The operating system failed the launcher: {error}."), "Try again.");
    Exit::System
}

/// Whether an updater that ended so, after it was ready, has seen that the client is whole.
fn vouches(end: Option<End>) -> bool {
    matches!(end, Some(End::Exited(UPDATER_FINE | UPDATER_FAILED | UPDATER_BUSY)))
}

impl<Z: Zones> Run<'_, Z> {
    fn go(&mut self, product: Product<'_>) -> io::Result<Exit> {
        let align = u64::from(self.config.align_bytes);
        let platform = product.platform;
        if !self.zones.is_of_use() {
            self.teller.say("Without the free zone there is nothing to check, and no client to start.");
            return Ok(Exit::NoClient);
        }
        let mut place = SealedMemory::default();
        // Every zone is closed again before the updater starts: it takes the device for itself.
        let (mut session, first) = {
            let mut opened = self.zones.open(align, platform);
            let mut device = opened.device(&mut self.scratch);
            let mut session = Session::open(product, &mut device, &mut self.record);
            let first = session.next(&mut device, &mut place);
            (session, first)
        };
        let outcome = self.updater(&mut session, first, &mut place)?;
        self.teller.tell(&session);
        if !matches!(outcome, Outcome::None | Outcome::DeviceGone | Outcome::Interrupted(_)) {
            self.teller.tell_out_of_reach(&session, || self.zones.out_of_reach());
        }

        let mut ready = None;
        let mut client_may_start = true;
        let mut vouched = false;
        let mut trouble = None;
        match outcome {
            Outcome::Ready { start, mut child, mut go } => {
                let version = start.copy.claim().version;
                self.teller.detail(&format!("Updater {version} runs, from {}.", start.source));
                if let Some(signal) = self.until_go(&mut child, &mut go)? {
                    trouble = Some(Exit::Interrupted(signal));
                    client_may_start = false;
                }
                if self.was_pulled(&mut child) {
                    return Ok(self.device_gone());
                }
                if child.end() == Some(End::Exited(UPDATER_NOT_WHOLE)) {
                    trouble = Some(Exit::ClientNotWhole);
                    client_may_start = false;
                    self.teller.problem(
                        "The updater says that the client is not whole: it was not started.",
                        "Plug the device in again where there is a network; the updater then makes it whole.",
                    );
                }
                if let Some(end @ (End::Fault(_) | End::Killed(_))) = child.end() {
                    self.teller.say(&format!("The updater {end}."));
                }
                vouched = go || vouches(child.end());
                ready = Some((start, child));
            }
            Outcome::Ended(End::Exited(UPDATER_BUSY)) => {
                self.teller.problem(
                    "Another updater of this device is at work, and whether the client is whole cannot be seen: it was not started.",
                    "Wait until it has finished, and start the launcher again.",
                );
                trouble = Some(Exit::ClientNotWhole);
                client_may_start = false;
            }
            Outcome::Ended(end) => self.teller.detail(&format!("The updater {end} without having anything to do.")),
            Outcome::None => {
                let exit = match (session.has_started_any(), session.lacked_room()) {
                    (true, _) => Exit::NoneStarts,
                    (false, true) => Exit::System,
                    (false, false) => Exit::NoUpdater,
                };
                self.teller.give_up(&session, &self.zones.virtual_zone(), &self.zones.out_of_reach());
                trouble = Some(exit);
            }
            Outcome::Refused(error) => {
                self.teller.problem(
                    &format!("The updater was not started: {error}."),
                    "It is sound. Allow it in this computer's security program, or use another computer.",
                );
                trouble = Some(Exit::Refused);
            }
            Outcome::Killed(end) => {
                self.teller.say(&format!("The updater {end}; nothing was changed because of that."))
            }
            // A service's launcher is asked to end because the device was pulled.
            Outcome::Interrupted(_) if self.presence.is_gone() => return Ok(self.device_gone()),
            Outcome::Interrupted(signal) => return Ok(Exit::Interrupted(signal)),
            Outcome::DeviceGone => return Ok(self.device_gone()),
        }

        // A service runs nothing of a device that nobody has checked; a person with a stick has nothing better than what is there.
        if matches!(self.options.mode, Mode::Plugged { .. }) && client_may_start && !vouched {
            client_may_start = false;
            trouble = trouble.or_else(|| Some(self.nobody_vouches("Plug the device in again")));
        }
        let mut client_end = None;
        if client_may_start && !self.options.no_client {
            let updater = ready.as_mut().map(|(_, child)| child);
            match self.client(platform, updater)? {
                ClientOutcome::Ended(end) => client_end = Some(end),
                ClientOutcome::NotStarted(exit) => trouble = trouble.or(Some(exit)),
            }
        }
        if let Some((start, mut child)) = ready {
            self.until_end(&mut child)?;
            if self.was_pulled(&mut child) {
                return Ok(self.device_gone());
            }
            vouched = vouches(child.end());
            let mut opened = self.zones.open(align, platform);
            session.settle(&mut opened.device(&mut self.scratch), &start);
            self.teller.tell(&session);
        }
        // Whoever asked for no client may start one now, if the updater has seen that it is whole.
        if self.options.no_client && client_may_start && trouble.is_none() {
            trouble = match vouched {
                true => self.whole_client(platform)?.err(),
                false => Some(self.nobody_vouches("Start the launcher again")),
            };
        }
        Ok(match (client_end, trouble) {
            (Some(end), Some(trouble)) if end.status() == 0 => trouble,
            (Some(end), _) => Exit::Client(end.status()),
            (None, Some(trouble)) => trouble,
            (None, None) => Exit::Fine,
        })
    }

    fn nobody_vouches(&mut self, again: &str) -> Exit {
        self.teller.problem(
            "Nobody could tell whether the client is whole: it was not started.",
            &format!("{again}, where there is a network and no other updater at work."),
        );
        Exit::ClientNotWhole
    }

    /// Whether the device is gone, or goes now that the updater has failed.
    fn was_pulled(&self, updater: &mut Child) -> bool {
        match updater.end() {
            Some(End::Exited(1..) | End::Fault(_)) => self.presence.explains_failure(),
            _ => self.presence.is_gone(),
        }
    }

    /// Waits for the next thing to happen. Looks meanwhile whether the device is still there: an updater whose device was
    /// pulled is ended, since it may wait for a server for long before it notices.
    fn wait(&self, mut updater: Option<&mut Child>, mut deadline: Option<Instant>) -> io::Result<Wakeup> {
        loop {
            let look = Instant::now() + PRESENCE_LOOK;
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            let wakeup = self.events.wait(updater.as_deref(), Some(until))?;
            // A computer that slept did not give anybody time to be ready, and on some systems its clock went on meanwhile.
            let slept = Instant::now().saturating_duration_since(until);
            if slept > ASLEEP {
                deadline = deadline.map(|deadline| deadline + slept);
            }
            if let Some(updater) = updater.as_deref_mut()
                && self.presence.is_gone()
            {
                updater.signal(SIGNAL_KILL);
            }
            if wakeup != Wakeup::Deadline || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(wakeup);
            }
        }
    }

    fn policies(&self) -> Policies {
        self.config.policies
    }

    fn device_gone(&mut self) -> Exit {
        device_gone(self.teller)
    }
}
