//! One run of the launcher over a device's zones: the updater until it is ready, the next copy where it is not, then the
//! client, and the end of both.

use std::io;
use std::time::{Duration, Instant};

use firmware_image::device_config::{DeviceConfig, Policies};
use firmware_image::journal::Journal;
use firmware_image::launcher_note::LauncherNote;
use firmware_image::places::Scratch;
use firmware_image::record::MAX_RECORD_BYTES;
use firmware_image::{paths, stamp};

use super::args::Options;
use super::client;
use super::exit::Exit;
use super::words::Teller;
use super::zones::{self, Zones};
use crate::decide::{Session, Start};
use crate::device::Product;
use crate::platform::{
    self, Asked, Child, End, Events, Lock, Presence, Program, RunImage, SealedMemory, SharedLock, StartError, Wakeup,
};
use crate::report::{Crash, Event};
use crate::trial::{self, ClientRun};

/// The updater says that it has loaded its state.
const READY: u8 = b'R';
/// The updater says that the client may start while it goes on.
const GO: u8 = b'G';
/// Exit statuses of `updater run`: the client is whole.
const UPDATER_FINE: i32 = 0;
/// It failed; the client is whole.
const UPDATER_FAILED: i32 = 1;
/// The client is not whole.
const UPDATER_NOT_WHOLE: i32 = 3;
/// Another updater is at work; after it was ready: the client is in use, and whole.
const UPDATER_BUSY: i32 = 4;
/// How long a child that was asked to end may take.
const GRACE: Duration = Duration::from_secs(10);
/// How often is looked whether the device is still there.
const PRESENCE_LOOK: Duration = Duration::from_secs(1);
/// The signal that ends a process at once (POSIX, `kill -9`).
const SIGNAL_KILL: i32 = 9;
/// How often is looked whether another updater has finished.
const LOOK: Duration = Duration::from_millis(200);

/// How the attempt to have an updater run went.
enum Outcome {
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

/// What a client that is whole is started with: the lock that it holds, and the zones.
type Whole<Z> = (Option<Lock>, zones::OpenedOf<Z>);

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
    let bytes = match zones.config() {
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
                ready = Some((start, child));
            }
            Outcome::Ended(end) => self.teller.detail(&format!("The updater {end} without having anything to do.")),
            Outcome::None => {
                let exit = if session.has_started_any() { Exit::NoneStarts } else { Exit::NoUpdater };
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

        let mut client_end = None;
        let mut vouched = false;
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
            vouched = matches!(child.end(), Some(End::Exited(UPDATER_FINE | UPDATER_FAILED | UPDATER_BUSY)));
            let mut opened = self.zones.open(align, platform);
            session.settle(&mut opened.device(&mut self.scratch), &start);
            self.teller.tell(&session);
        }
        // Whoever asked for no client may start one now, if the updater has seen that it is whole.
        if self.options.no_client && client_may_start && trouble.is_none() {
            trouble = match vouched {
                true => self.whole_client(platform)?.err(),
                false => {
                    self.teller.problem(
                        "Nobody could tell whether the client is whole.",
                        "Start the launcher again, where there is a network and no other updater at work.",
                    );
                    Some(Exit::ClientNotWhole)
                }
            };
        }
        Ok(match (client_end, trouble) {
            (Some(end), Some(trouble)) if end.status() == 0 => trouble,
            (Some(end), _) => Exit::Client(end.status()),
            (None, Some(trouble)) => trouble,
            (None, None) => Exit::Fine,
        })
    }

    /// Whether the device is gone, or goes now that the updater has failed.
    fn was_pulled(&self, updater: &mut Child) -> bool {
        match updater.end() {
            Some(End::Exited(1..) | End::Fault(_)) => self.presence.explains_failure(),
            _ => self.presence.is_gone(),
        }
    }

    /// Starts one copy after the other until one is ready.
    fn updater(
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
        let mut child = match self.start_updater(start, looked_further) {
            Err(StartError::Refused(error)) if start.copy.image().is_in_memory() => {
                self.teller.detail(&format!("Memory files are not run here ({error}); trying a private directory."));
                place.forbid();
                match start.copy.moved_to(place, session.product()) {
                    Ok(copy) => start.copy = copy,
                    Err(_) => return Ok(Tried::Refused(StartError::Refused(error))),
                }
                self.start_updater(start, looked_further)
            }
            started => started,
        };
        let child = match &mut child {
            Ok(_) => child.map_err(io::Error::other)?,
            Err(StartError::Refused(_)) => {
                return Ok(child.err().map_or(Tried::Crashed(Crash::NotAProgram), Tried::Refused));
            }
            // Missing: the program's interpreter or loader is not on this system.
            Err(StartError::NotAProgram(_) | StartError::Missing(_)) => return Ok(Tried::Crashed(Crash::NotAProgram)),
            Err(StartError::System(_)) => {
                return Err(child.err().map_or(io::ErrorKind::Other.into(), io::Error::other));
            }
        };
        self.until_ready(child)
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
            }
            match (child.end(), asked) {
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

    /// Waits for the next thing to happen. Looks meanwhile whether the device is still there: an updater whose device was
    /// pulled is ended, since it may wait for a server for long before it notices.
    fn wait(&self, mut updater: Option<&mut Child>, deadline: Option<Instant>) -> io::Result<Wakeup> {
        loop {
            let look = Instant::now() + PRESENCE_LOOK;
            let until = deadline.map_or(look, |deadline| deadline.min(look));
            let wakeup = self.events.wait(updater.as_deref(), Some(until))?;
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

    /// Waits until the client may start: the updater says so, or has ended. `Some`: the launcher was asked to end.
    fn until_go(&mut self, child: &mut Child, go: &mut bool) -> io::Result<Option<i32>> {
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
    fn until_end(&mut self, child: &mut Child) -> io::Result<()> {
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

    fn client(&mut self, platform: &str, mut updater: Option<&mut Child>) -> io::Result<ClientOutcome> {
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
                let hint = "Start the launcher again when the device is mounted.";
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
    fn whole_client(&mut self, platform: &str) -> io::Result<Result<Whole<Z>, Exit>> {
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

    fn policies(&self) -> Policies {
        self.config.policies
    }

    fn probation_end(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.policies().probation_secs.into())
    }

    /// The serial of the release on probation, read after the updater may have changed it.
    fn on_probation(&mut self, opened: &mut zones::OpenedOf<Z>) -> Option<u64> {
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

    fn device_gone(&mut self) -> Exit {
        device_gone(self.teller)
    }
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

/// How the client fared.
enum ClientOutcome {
    Ended(End),
    NotStarted(Exit),
}
