//! A factory's device on a simulated disk: the same plug-ins as of a [`Unit`](super::Unit), in one process, and what must be
//! true of what they leave.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bootstrap::report::Crash;
use bootstrap::verified::SealedBytes;
use bootstrap::{Product, Session};
use firmware_image::boot_sector::{Geometry, Root};
use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES, Profile};
use firmware_image::hidden::{HiddenZone, SlotName};
use firmware_image::host::Access;
use firmware_image::image::VirtualZone as _;
use firmware_image::image::any_zone::walk;
use firmware_image::image::fat::RawFat;
use firmware_image::image::gpt::Extent;
use firmware_image::journal::Journal;
use firmware_image::key_slot::{Cost, DeviceId, KeySlot, SlotKind};
use firmware_image::places::{Places, Scratch};
use firmware_image::record::MAX_RECORD_BYTES;
use firmware_image::signature::PublicKey;
use firmware_image::sim::{Effort, Medium, SimDisk};
use firmware_image::slot::{self, Kind};
use firmware_image::storage::{MemoryZone, Window};
use firmware_image::{FreeZone as _, ZoneError, ZoneFile as _, paths};
use release_store::Directory;
use updater::backups::Turn;
use updater::host::Silent;
use updater::meter::Meter;
use updater::servers::Servers;
use updater::{Action, Config, Engine, EngineError, Limits, Outcome, Parts, Wish};

use super::{Factory, Interrupted, Machine, Told, USERS};
use crate::support::{Memory, PLATFORM};

/// How [`Model::check`] begins to say that a user's file was harmed.
pub const USERS_FILE: &str = "the user's file";

/// The free zone of a simulated disk.
pub type Fat = RawFat<Window<SimDisk>>;
type FatEngine<'e> = Engine<'e, Fat, Window<SimDisk>, Window<SimDisk>>;
type FatDevice<'d, 'p> = bootstrap::Device<'d, Window<SimDisk>, Fat, Window<SimDisk>, MemoryZone<'p>>;

/// A device, apart from what stands on its disk.
pub struct Model {
    vendor: PublicKey,
    store: PathBuf,
    config: Vec<u8>,
    plain: Vec<u8>,
    free: Extent,
    hidden: Extent,
    /// Which device it is.
    id: DeviceId,
    /// Updaters that may run.
    images: Vec<Vec<u8>>,
    /// What the client may be.
    clients: Vec<(&'static str, BTreeMap<String, Vec<u8>>)>,
    /// Files that nobody but the user may touch.
    users: BTreeMap<String, Vec<u8>>,
    /// The disk as it left the factory.
    pub made: Medium,
}

/// How a plug-in ended.
#[derive(Debug)]
pub struct Started {
    /// What the updater did; `None`: it failed.
    pub action: Option<Action>,
    /// What launcher and updater said.
    pub said: Vec<String>,
}

impl Model {
    /// A stick of `disk_bytes` with release 1.0.0; 2.0.0 is in the store, or will be.
    pub fn new(factory: &Factory, disk_bytes: u64) -> Self {
        Self::named(factory, "ours", disk_bytes)
    }

    /// The same of the device with this name.
    pub fn named(factory: &Factory, name: &str, disk_bytes: u64) -> Self {
        let unit = factory.device_of(name, Profile::Stick, disk_bytes);
        let device = unit.open(Access::ReadOnly);
        let config = device.virtual_zone().unwrap().read_file(paths::DEVICE_CONFIG, MAX_CONFIG_BYTES as u64);
        let table = device.table().unwrap();
        let client = |version, seed| (version, factory.release(version, seed).into_iter().collect());
        let mut model = Self {
            vendor: factory.vendor,
            store: factory.path("store"),
            config: config.unwrap().unwrap(),
            plain: unit.images[0].clone(),
            free: table.free().unwrap(),
            hidden: table.hidden().unwrap(),
            id: unit.id.unwrap(),
            images: unit.images.clone(),
            clients: vec![client("1.0.0", 1), client("2.0.0", 2)],
            users: USERS.iter().map(|(path, seed, length)| ((*path).into(), super::noise(*seed, *length))).collect(),
            made: Medium::of_file(&unit.disk).unwrap(),
        };
        model.made = model.cheaply_locked();
        model
    }

    /// The device as it was made, with key slots that cost the least that Argon2 takes: it opens them some ten times a start.
    fn cheaply_locked(&self) -> Medium {
        let config = DeviceConfig::open(&self.config, &self.vendor).unwrap();
        let (mut scratch, mut body) = (Box::<Scratch>::default(), vec![0; MAX_RECORD_BYTES]);
        let zone = Window::new(SimDisk::new(self.made.clone()), self.hidden.start, self.hidden.length).unwrap();
        let mut places = Places {
            hidden: Some(HiddenZone::new(zone, config.align_bytes.into()).unwrap()),
            free: None::<&Fat>,
            cd_tail: None::<Window<SimDisk>>,
        };
        let found = places.newest_record(&config.secret(), &mut scratch.memory(), &mut body).unwrap();
        let (record, mut identity) = (found.record, found.identity);
        let cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
        let (id, key, secret) = (identity.device_id, &identity.device_key, config.secret());
        let kind = SlotKind::Unattended;
        let slot = KeySlot::lock(kind, cost, id, [1; 16], key, secret.expose(), &mut scratch.blocks);
        identity.slots[0] = slot.unwrap();

        // One record is written so; the updater makes the rest from it.
        let mut medium = self.with_free(&self.made, |fat| {
            assert!(fat.remove(paths::RECORD_MIRROR).unwrap() && fat.remove(paths::BACKUP_MIRROR).unwrap());
        });
        medium.write(self.hidden.start, &vec![0; self.hidden.length as usize]);
        let disk = SimDisk::new(medium);
        let zone = Window::new(disk.clone(), self.hidden.start, self.hidden.length).unwrap();
        let mut zone = HiddenZone::new(zone, config.align_bytes.into()).unwrap();
        let mut bytes = vec![0; MAX_RECORD_BYTES];
        let bytes = record.encode(&mut bytes).unwrap().to_vec();
        let write = slot::Write { kind: Kind::Record, generation: 1, identity: &identity, segment_log2: 12 };
        let mut place = zone.slot(SlotName::RecordA).unwrap();
        write.write(&mut place, &mut &bytes[..], &mut scratch.segment).unwrap();
        loop {
            let before = disk.writes();
            assert!(self.plug_in(&disk, false).unwrap().action.is_some());
            if disk.writes() == before {
                return disk.medium();
            }
        }
    }

    /// Where the hidden zone stands on the disk.
    pub fn hidden(&self) -> Extent {
        self.hidden
    }

    /// Whether the free zone is FAT16.
    pub fn has_fat16(&self) -> bool {
        let boot = <[u8; 512]>::try_from(self.made.bytes(self.free.start, 512)).unwrap();
        matches!(Geometry::parse(&boot, self.free.length).unwrap().root, Root::Fixed { .. })
    }

    /// Notes that the updater that is installed now is one of the product's.
    pub fn trust_installed(&mut self, medium: &Medium) {
        let image = self.file(medium, &paths::updater_name(PLATFORM)).unwrap();
        assert!(!self.images.contains(&image));
        self.images.push(image);
    }

    /// The free zone, for changes.
    pub fn fat(&self, disk: &SimDisk) -> Result<Fat, ZoneError> {
        RawFat::open(Window::new(disk.clone(), self.free.start, self.free.length)?, false)
    }

    fn fat_of(&self, medium: &Medium) -> Result<Fat, ZoneError> {
        let disk = SimDisk::new(medium.clone()).for_reading();
        RawFat::open(Window::new(disk, self.free.start, self.free.length)?, true)
    }

    /// What stands on the disk after a change of the free zone's files.
    pub fn with_free(&self, medium: &Medium, work: impl FnOnce(&Fat)) -> Medium {
        let disk = SimDisk::new(medium.clone());
        let fat = self.fat(&disk).unwrap();
        work(&fat);
        fat.close().unwrap();
        disk.medium()
    }

    /// A file of the free zone.
    pub fn file(&self, medium: &Medium, path: &str) -> Option<Vec<u8>> {
        read(&self.fat_of(medium).unwrap(), path).unwrap()
    }

    /// Whether a commit is open.
    pub fn has_open_commit(&self, medium: &Medium) -> bool {
        Journal::read(&self.fat_of(medium).unwrap()).unwrap().state().is_open()
    }

    /// Whether a download was begun, and nothing committed yet.
    pub fn has_downloaded(&self, medium: &Medium) -> bool {
        !self.has_open_commit(medium)
            && self.file(medium, updater::spool::SPOOL).is_some_and(|spool| spool.len() > 1 << 10)
    }

    /// The zones as the launcher opens them, each time anew.
    fn zones<R>(
        &self,
        disk: &SimDisk,
        align: u64,
        plain: &mut [u8],
        scratch: &mut Scratch,
        work: impl FnOnce(&mut FatDevice<'_, '_>) -> R,
    ) -> Result<R, String> {
        let opened = Window::new(disk.clone(), self.hidden.start, self.hidden.length)
            .and_then(|zone| Ok((HiddenZone::new(zone, align)?, self.fat(disk)?)));
        let (hidden, fat) = opened.map_err(|error| format!("a zone cannot be opened: {error}"))?;
        let places = Places { hidden: Some(hidden), free: Some(&fat), cd_tail: None };
        Ok(work(&mut bootstrap::Device { places, plain: Some(MemoryZone::new(plain)), memory: scratch.memory() }))
    }

    /// One plug-in: the launcher's decisions, the updater, and what the launcher notes of them. `online`: the store is in
    /// reach.
    ///
    /// # Errors
    /// No updater is found that may run, or a zone cannot be opened.
    pub fn plug_in(&self, disk: &SimDisk, online: bool) -> Result<Started, String> {
        self.plug_in_where(disk, online, &|_| false)
    }

    /// The same where the newest of the product's updaters will not start.
    ///
    /// # Errors
    /// As there.
    pub fn plug_in_where_the_newest_updater_crashes(&self, disk: &SimDisk) -> Result<Started, String> {
        self.plug_in_where(disk, false, &|image| self.images.last().is_some_and(|newest| newest == image))
    }

    fn plug_in_where(&self, disk: &SimDisk, online: bool, crashes: &dyn Fn(&[u8]) -> bool) -> Result<Started, String> {
        let config = DeviceConfig::open(&self.config, &self.vendor).unwrap();
        let (align, vendor) = (u64::from(config.align_bytes), self.vendor);
        let product = Product { vendor, name: config.product, platform: PLATFORM, secret: config.secret() };
        let mut scratch = Box::<Scratch>::default();
        let mut plain = self.plain.clone();
        let mut session = self.zones(disk, align, &mut plain, &mut scratch, |device| {
            Session::open(product, device, &mut vec![0; MAX_RECORD_BYTES])
        })?;
        let start = loop {
            let next = self.zones(disk, align, &mut plain, &mut scratch, |device| session.next(device, &mut Memory))?;
            let Some(start) = next else {
                let said: Vec<String> = session.report().events().iter().map(ToString::to_string).collect();
                return Err(format!("no updater may run: {said:?}"));
            };
            let image = SealedBytes::bytes(start.copy.image());
            assert!(self.images.iter().any(|known| known == image), "a copy runs that is none of the product's");
            if !crashes(image) {
                break start;
            }
            self.zones(disk, align, &mut plain, &mut scratch, |device| {
                session.crashed(device.free(), &start, Crash::Fault(11));
            })?;
        };
        let mut said: Vec<String> = session.report().events().iter().map(ToString::to_string).collect();
        let image = SealedBytes::bytes(start.copy.image());
        let action = match self.updater(disk, image, online, |engine| engine.run(&mut Told)) {
            Ok(outcome) if outcome.whole => Some(outcome.action),
            Ok(_) => {
                said.push("the client is not whole".into());
                None
            }
            Err(error) => {
                said.push(error);
                None
            }
        };
        self.zones(disk, align, &mut plain, &mut scratch, |device| session.settle(device, &start))?;
        Ok(Started { action, said })
    }

    /// Which device it takes itself for.
    fn id_on(&self, medium: &Medium, fat: &Fat) -> Option<DeviceId> {
        let disk = SimDisk::new(medium.clone()).for_reading();
        let hidden = Window::new(disk, self.hidden.start, self.hidden.length).ok();
        let config = DeviceConfig::open(&self.config, &self.vendor).ok()?;
        super::id_of(&config, hidden, Some(fat))
    }

    /// Whether a start did not find the device's record, or not even which device it is.
    pub fn has_forgotten(&self, medium: &Medium) -> bool {
        if self.fat_of(medium).is_ok_and(|fat| self.id_on(medium, &fat) != Some(self.id)) {
            return true;
        }
        let log = self.fat_of(medium).ok().and_then(|fat| read(&fat, paths::LOG).ok().flatten());
        let log = String::from_utf8_lossy(&log.unwrap_or_default()).into_owned();
        ["no version record opens", "nothing on this device says who it is"].iter().any(|alarm| log.contains(alarm))
    }

    /// An update that was cut, in the middle of the states that are `wanted`; earlier: in the first of them.
    pub fn amid_an_update(&self, wanted: impl Fn(&Medium) -> bool) -> Interrupted {
        let disk = SimDisk::new(self.made.clone());
        assert!(self.plug_in(&disk, true).unwrap().action.is_some());
        let updater = self.file(&disk.medium(), &paths::updater_name(PLATFORM)).unwrap();
        let recording = disk.recording();
        let media = recording.states(&Effort::CUTS).into_iter().map(|state| recording.medium(&state));
        let mut found: Vec<Medium> = media.filter(wanted).collect();
        let medium = found.swap_remove(found.len() / 2);
        Interrupted { medium, earlier: found.swap_remove(0), updater }
    }

    /// A person goes back to the release before.
    ///
    /// # Errors
    /// What kept the updater from it.
    pub fn roll_back(&self, disk: &SimDisk) -> Result<(), String> {
        let updater = self.images.last().unwrap();
        let outcome = self.updater(disk, updater, false, |engine| engine.update(&Wish::Previous))?;
        if outcome.action == Action::Updated { Ok(()) } else { Err(format!("{outcome:?}")) }
    }

    /// As the updater does it: `work`, then the log, then the volume is closed.
    fn updater(
        &self,
        disk: &SimDisk,
        started: &[u8],
        online: bool,
        work: impl FnOnce(&mut FatEngine<'_>) -> Result<Outcome, EngineError>,
    ) -> Result<Outcome, String> {
        let say = |error: &dyn std::fmt::Display| error.to_string();
        let config = Config::open(&self.config, &self.vendor).map_err(|error| say(&error))?;
        let host = Machine::new(started, &self.vendor);
        let meter = Meter::new(None, None);
        let store = Box::new(Directory::new(self.store.clone())) as Box<dyn release_store::Transport>;
        let servers = if online { vec![(store, 1)] } else { Vec::new() };
        let hidden = Window::new(disk.clone(), self.hidden.start, self.hidden.length)
            .and_then(|zone| HiddenZone::new(zone, config.align_bytes))
            .map_err(|error| say(&error))?;
        let fat = self.fat(disk).map_err(|error| say(&error))?;
        let outcome = {
            let parts = Parts {
                free: &fat,
                places: Places { hidden: Some(hidden), free: Some(&fat), cd_tail: None },
                config,
                vendor: self.vendor,
                servers: Servers::new(servers, &meter, &host),
                offline: None,
                host: &host,
                watch: &Silent,
                hash: updater::hash::sequential::<Fat>,
            };
            let mut engine = Engine::load(parts).map_err(|error| say(&error))?;
            engine.set_limits(Limits { turn: Some(Turn::Everything), rounds: 1, ..Limits::default() });
            let outcome = work(&mut engine);
            engine.write_log();
            outcome.map_err(|error| say(&error))
        };
        fat.close().map_err(|error| format!("the free zone could not be closed cleanly: {error}"))?;
        outcome
    }

    /// The version of the one whole release that the client is.
    ///
    /// # Errors
    /// The client is a mixture, a commit is open, a file of the user's is not as it was, or the device takes itself for another.
    pub fn check(&self, medium: &Medium) -> Result<&'static str, String> {
        let failed = |error: ZoneError| format!("the free zone cannot be read: {error}");
        let fat = self.fat_of(medium).map_err(failed)?;
        if Journal::read(&fat).map_err(failed)?.state().is_open() {
            return Err("a commit is open".into());
        }
        for (path, wanted) in &self.users {
            match read(&fat, path) {
                Ok(found) if found.as_ref() == Some(wanted) => {}
                Ok(_) => return Err(format!("{USERS_FILE} {path} is not as it was")),
                Err(error) => return Err(format!("{USERS_FILE} {path} cannot be read: {error}")),
            }
        }
        let id = self.id_on(medium, &fat);
        if id != Some(self.id) {
            return Err(format!("the device takes itself for {id:?} and is {:?}", self.id));
        }
        let mut paths = Vec::new();
        walk(&fat, paths::CLIENT_DIR, &mut |path, _| paths.push(path.to_owned())).map_err(failed)?;
        let mut found = BTreeMap::new();
        for path in paths {
            let bytes = read(&fat, &path).map_err(failed)?.unwrap_or_default();
            found.insert(path[paths::CLIENT_DIR.len() + 1..].to_owned(), bytes);
        }
        match self.clients.iter().find(|(_, client)| *client == found) {
            Some((version, _)) => Ok(version),
            None => {
                let differing = |client: &BTreeMap<String, Vec<u8>>| -> Vec<String> {
                    let names = found.keys().chain(client.keys()).filter(|name| found.get(*name) != client.get(*name));
                    names.cloned().collect()
                };
                let differing: Vec<_> =
                    self.clients.iter().map(|(version, client)| (version, differing(client))).collect();
                Err(format!("the client is none of the releases, but for these files: {differing:?}"))
            }
        }
    }

    /// Adds a file of the user's, which stands there already.
    pub fn add_users_file(&mut self, path: &str, bytes: Vec<u8>) {
        self.users.insert(path.into(), bytes);
    }
}

fn read(fat: &Fat, path: &str) -> Result<Option<Vec<u8>>, ZoneError> {
    let Some(mut file) = fat.open(path)? else { return Ok(None) };
    let mut bytes = vec![0; file.len()? as usize];
    firmware_image::storage::read_exact_at(&mut file, 0, &mut bytes)?;
    Ok(Some(bytes))
}
