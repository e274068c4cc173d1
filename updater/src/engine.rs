//! The engine: a device's zones, what it trusts and knows, and the machine it is plugged into.
//!
//! Everything that an operation needs comes in as a trait; nothing here asks what it runs on. The operations are in
//! modules of their own: [`crate::check`], [`crate::plan`], [`crate::fetch`], [`crate::stage`], [`crate::commit`],
//! [`crate::operations`], [`crate::renewal`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use firmware_image::free_zone::FreeZone;
use firmware_image::places::{Place, Places};
use firmware_image::signature::PublicKey;
use firmware_image::{Digest, RawZone, paths};
use release_store::trust::{Accepted, Releases, Trust};
use release_store::{ContentKey, ContentKeys, Step, Transport};

use crate::backups::{FoundBackup, Look, Turn};
use crate::config::Config;
use crate::error::EngineError;
use crate::hash::HashFiles;
use crate::host::{Host, Watch};
use crate::log;
use crate::record_store::{Origin, RecordStore};
use crate::renewal::SoundImage;
use crate::servers::Servers;
use crate::state::State;
use crate::trust_cache::ZoneTrustCache;

/// What an engine works on and with.
pub struct Parts<'z, F: FreeZone, H, C> {
    /// The free zone.
    pub free: &'z F,
    /// Every place where a record or backup may stand.
    pub places: Places<'z, H, F, C>,
    /// The configuration.
    pub config: Config,
    /// The vendor's key.
    pub vendor: PublicKey,
    /// Where releases come from.
    pub servers: Servers,
    /// The copy of a store that the device carries with it.
    pub offline: Option<Box<dyn Transport>>,
    /// The machine.
    pub host: &'z dyn Host,
    /// Who is told what happens.
    pub watch: &'z dyn Watch,
    /// How files are hashed.
    pub hash: HashFiles<F>,
}

/// How far an operation may go.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Rounds over all servers without a byte of progress before an operation gives up.
    pub rounds: u32,
    /// What is read whole in a start that finds nothing amiss; `None`: drawn at random. (Tests say it.)
    pub turn: Option<Turn>,
    /// How long a newer release may take to come where somebody waits for the end of the run, and could start what is here.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { dry_run: false, rounds: 5, turn: None, patience: Duration::from_secs(15 * 60) }
    }
}

/// The engine of one device. One at a time: whoever makes one holds the device's lock.
pub struct Engine<'z, F: FreeZone, H, C> {
    pub(crate) free: &'z F,
    pub(crate) config: Config,
    pub(crate) vendor: PublicKey,
    pub(crate) records: RecordStore<'z, H, F, C>,
    pub(crate) state: State,
    pub(crate) servers: Servers,
    pub(crate) offline: Option<Box<dyn Transport>>,
    pub(crate) host: &'z dyn Host,
    pub(crate) watch: &'z dyn Watch,
    pub(crate) hash: HashFiles<F>,
    pub(crate) limits: Limits,
    /// No server may be asked: what is not on the device is out of reach.
    pub(crate) on_device_only: bool,
    /// The store's releases, once they were asked for in this run.
    pub(crate) releases: Option<Releases>,
    /// The releases that are not current were asked for in this run.
    pub(crate) archive_asked: bool,
    /// Steps that were asked for in this run, by the digest of their sealed bytes; `None`: not to be had.
    pub(crate) steps: HashMap<Digest, Option<Rc<Step>>>,
    pub(crate) lines: Vec<String>,
    pub(crate) alarms: Vec<String>,
    pub(crate) frames_fetched: u64,
    /// Updaters of the free zone that were verified in this run, by path.
    pub(crate) images: RefCell<HashMap<String, SoundImage>>,
    /// How closely backups and updaters are looked at.
    pub(crate) look: Look,
    /// Backups that were read or written whole in this run.
    pub(crate) whole_backups: Vec<FoundBackup>,
    /// The client was let go in this run, and may run.
    pub(crate) let_go: bool,
}

impl<'z, F: FreeZone, H: RawZone, C: RawZone> Engine<'z, F, H, C> {
    /// Loads the device's state. Writes nothing.
    ///
    /// # Errors
    /// `Random` where the device needs a new identity and there is no random source.
    pub fn load(parts: Parts<'z, F, H, C>) -> Result<Self, EngineError> {
        let Parts { free, places, config, vendor, servers, offline, host, watch, hash } = parts;
        let (records, state) = RecordStore::load(places, free, &config.secret, host)?;
        let mut engine = Self {
            free,
            config,
            vendor,
            records,
            state,
            servers,
            offline,
            host,
            watch,
            hash,
            limits: Limits::default(),
            on_device_only: false,
            releases: None,
            archive_asked: false,
            steps: HashMap::new(),
            lines: Vec::new(),
            alarms: Vec::new(),
            frames_fetched: 0,
            images: RefCell::default(),
            look: Look::Whole,
            whole_backups: Vec::new(),
            let_go: false,
        };
        match engine.records.origin {
            Origin::Record(_) => {}
            Origin::KeySlots(place) => {
                engine.alarm(format!("no version record opens; this device was known again by its {place}"));
            }
            Origin::Minted => engine.alarm("nothing on this device says who it is: it gets a new identity"),
        }
        Ok(engine)
    }

    /// Sets how far operations may go.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How far operations may go.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The device's state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The servers, and what went through to them.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// How many frames came over the network in this run.
    pub fn frames_fetched(&self) -> u64 {
        self.frames_fetched
    }

    /// What was found that an administrator should know (P2).
    pub fn alarms(&self) -> &[String] {
        &self.alarms
    }

    /// Something for the log, and for whoever watches.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.watch.note(&text);
        self.lines.push(format!("note {text}"));
    }

    /// Something for the log that stays as it is until something changes: once.
    pub(crate) fn note_once(&mut self, text: &str) {
        let line = format!("note {text}");
        if !self.lines.contains(&line) && !log::has(self.free, &line) {
            self.lines.push(line);
        }
    }

    /// Something that an administrator should know: the log keeps it, `status` shows it.
    pub(crate) fn alarm(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.watch.note(&text);
        let line = format!("alarm {text}");
        if !log::still_says(self.free, &line) {
            self.lines.push(line);
        }
        self.alarms.push(text);
    }

    /// Writes the lines gathered so far into the log.
    pub fn write_log(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if self.limits.dry_run {
            return;
        }
        if let Err(error) = log::append(self.free, self.host.now(), &lines) {
            // The log is a convenience: a full or read-only zone must not fail what has been done.
            self.watch.detail(&format!("the log could not be written: {error}"));
        }
    }

    pub(crate) fn trust(&self) -> Result<Trust<ZoneTrustCache<'z, F>>, EngineError> {
        let accepted = Accepted {
            root: self.state.root.clone(),
            timestamp: self.state.timestamp.clone(),
            snapshot: self.state.snapshot.clone(),
        };
        let cache = ZoneTrustCache { zone: self.free, read_only: self.limits.dry_run };
        Ok(Trust::new(&self.config.root, cache)?.remember(accepted))
    }

    pub(crate) fn content_keys(&self) -> ContentKeys {
        let mut keys = ContentKeys::new();
        let learned = self.state.content_keys.iter().map(|stored| ContentKey::new(stored.number, stored.key));
        for key in learned.chain(self.config.content_key()) {
            // Fewer than a ring holds: a record has room for eight.
            let _ = keys.insert(key);
        }
        keys
    }

    /// Makes the state durable, if it changed.
    pub(crate) fn save_state(&mut self) -> Result<(), EngineError> {
        if self.limits.dry_run {
            return Ok(());
        }
        self.records.save(&self.state)?;
        Ok(())
    }

    /// Copies the record to each place that lacks it, and finishes a mirror that a cut tore.
    ///
    /// # Errors
    /// What the zone reports.
    pub fn heal_records(&mut self) -> Result<(), EngineError> {
        if self.limits.dry_run {
            return Ok(());
        }
        if matches!(self.records.origin, Origin::Record(Place::RecordMirror)) {
            self.records.finish_mirror()?;
        }
        if self.records.heal()? {
            self.look = Look::Whole;
            self.note("the version record was copied to a place that lacked it");
        }
        Ok(())
    }

    /// Where a digest's staged copy stands.
    pub(crate) fn staged(digest: &firmware_image::Digest) -> String {
        format!("{}/{digest}", paths::STAGING_DIR)
    }

    /// Where a digest's undo copy stands.
    pub(crate) fn undo(digest: &firmware_image::Digest) -> String {
        format!("{}/{digest}", paths::UNDO_DIR)
    }
}
