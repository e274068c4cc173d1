//! Finding and opening the device's zones.

use std::ffi::OsString;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use anyhow::Result;
use embedded_io::{Read as _, Seek as _, SeekFrom};
use firmware_image::device_config::MAX_CONFIG_BYTES;
use firmware_image::host::{Access, DirZone, FileZone};
use firmware_image::image::any_zone::{AnyFreeZone, VirtualZone as _};
use firmware_image::image::device::{Device, DeviceError};
use firmware_image::signature::PublicKey;
use firmware_image::storage::Window;
use firmware_image::{FreeZone as _, RawZone as _, ZoneError, paths};
use release_store::transport::{GetOutcome, Sink};
use release_store::{Directory, Transport, TransportError};
use updater::Config;

use super::exit::{self, Status};
use super::{Globals, ZoneArgs};
use crate::platform::{self, Locked};

/// Raw storage of the hidden zone or of a CD.
pub type Raw = Window<FileZone>;

/// A device's zones, opened.
pub struct Zones {
    /// The free zone.
    pub free: AnyFreeZone,
    /// The hidden zone, where it is in reach.
    pub hidden: Option<Raw>,
    /// The storage behind the CD's file system.
    pub cd_tail: Option<Raw>,
    /// The configuration.
    pub config: Config,
    /// The copy of a store in the virtual zone.
    pub offline: Option<Box<dyn Transport>>,
    /// The managed directory, where it is mounted.
    pub client: Option<PathBuf>,
    /// The options that lead to the same zones.
    pub args: Vec<OsString>,
    /// What a person should know of the zones that are not in reach.
    pub notes: Vec<String>,
    /// The device's lock, held as long as this lives.
    _lock: Locked,
}

fn no_device(text: impl Into<String>) -> anyhow::Error {
    Status(exit::NO_DEVICE, text.into()).into()
}

impl Zones {
    /// Opens what the options name, else what this program stands in.
    ///
    /// # Errors
    /// What is not there or not accepted, with the exit status for it.
    pub fn open(globals: &Globals, vendor: &PublicKey, access: Access) -> Result<Self> {
        let zones = &globals.zones;
        match &zones.device {
            Some(disk) => Self::open_disk(disk, zones, vendor, access),
            None => Self::open_directories(zones, vendor, access),
        }
    }

    fn open_disk(disk: &Path, zones: &ZoneArgs, vendor: &PublicKey, access: Access) -> Result<Self> {
        let virtual_zone = zones.virtual_zone.as_deref();
        let device = Device::open(disk, virtual_zone, access).map_err(|error| match error {
            DeviceError::Open { source: ZoneError::Busy, .. } => updater::EngineError::Busy.into(),
            error @ DeviceError::InUse { .. } => {
                let text =
                    format!("{error}: unmount it, or name its mounted zones: --virtual DIR --free DIR --hidden NODE");
                Status(exit::BUSY, text).into()
            }
            DeviceError::Open { source: ZoneError::ReadOnly | ZoneError::Denied, .. }
                if access == Access::ReadWrite =>
            {
                let text = format!("{} cannot be written: it is write-protected, or not this user's", disk.display());
                anyhow::Error::from(Status(exit::READ_ONLY, text))
            }
            error => anyhow::Error::from(error).context(Status(exit::NO_DEVICE, "there is no device".into())),
        })?;
        let name = disk.display();
        let mut notes = Vec::new();
        let free = device.free_zone().map_err(|error| {
            no_device(format!("the free zone of {name} cannot be opened: {error}; format it as FAT32 and try again"))
        })?;
        let mut config = None;
        let mut offline: Option<Box<dyn Transport>> = None;
        match device.virtual_zone() {
            Ok(zone) => {
                config = zone.read_file(paths::DEVICE_CONFIG, MAX_CONFIG_BYTES as u64).ok().flatten();
                let timestamp = format!("{}/metadata/timestamp.json", paths::OFFLINE_STORE_DIR);
                if zone.open_file(&timestamp).is_ok_and(|file| file.is_some()) {
                    let virtual_zone = zones.virtual_zone.clone();
                    offline = Some(Box::new(ImageStore { disk: disk.to_owned(), virtual_zone }));
                }
            }
            Err(error) => notes.push(format!("the virtual zone of {name} cannot be read: {error}")),
        }
        let hidden = match device.hidden_zone() {
            Ok(zone) => Some(zone),
            Err(error) => {
                notes.push(format!("the hidden zone of {name} is not in reach: {error}; its mirrors serve"));
                None
            }
        };
        let cd_tail = device.cd_tail().ok().flatten();
        let config = read_config(config, &free, vendor)?;
        let mut args: Vec<OsString> = vec!["--device".into(), disk.into()];
        if let Some(path) = virtual_zone {
            args.extend(["--virtual".into(), path.into()]);
        }
        let lock = Locked::Held(None);
        Ok(Self { free, hidden, cd_tail, config, offline, client: None, args, notes, _lock: lock })
    }

    fn open_directories(zones: &ZoneArgs, vendor: &PublicKey, access: Access) -> Result<Self> {
        let free_dir = match &zones.free {
            Some(directory) => directory.clone(),
            None => own_directory().ok_or_else(|| {
                no_device(
                    "which device? Name it with --device IMAGE_OR_BLOCK_DEVICE, or its zones with --virtual DIR --free DIR; \
                     or start the updater that stands on the device",
                )
            })?,
        };
        let name = free_dir.display().to_string();
        let zone = DirZone::open(&free_dir).map_err(|error| {
            no_device(format!("the free zone {name} cannot be opened: {error}; is the device plugged in and mounted?"))
        })?;
        let lock = if access == Access::ReadWrite { lock(&zone, &free_dir)? } else { Locked::Held(None) };
        if access == Access::ReadWrite {
            empty_aside(&zone);
        }
        let free = AnyFreeZone::Directory(zone);
        let mut notes = Vec::new();
        let mut config = None;
        let mut offline: Option<Box<dyn Transport>> = None;
        if let Some(directory) = &zones.virtual_zone {
            let path = directory.join(paths::DEVICE_CONFIG);
            config = read_limited(&path);
            if config.is_none() {
                notes.push(format!("{} cannot be read", path.display()));
            }
            let store = directory.join(paths::OFFLINE_STORE_DIR);
            if store.join("metadata").is_dir() {
                offline = Some(Box::new(Directory::new(store)));
            }
        }
        let config = read_config(config, &free, vendor)?;
        let hidden = zones.hidden.as_deref().and_then(|path| match open_raw(path, access) {
            Ok(zone) => Some(zone),
            Err(error) => {
                notes.push(format!("the hidden zone {} is not in reach: {error}; its mirrors serve", path.display()));
                None
            }
        });
        let mut args: Vec<OsString> = vec!["--free".into(), free_dir.clone().into()];
        for (option, path) in [("--virtual", &zones.virtual_zone), ("--hidden", &zones.hidden)] {
            if let Some(path) = path {
                args.extend([option.into(), path.into()]);
            }
        }
        let client = Some(free_dir.join(paths::CLIENT_DIR));
        Ok(Self { free, hidden, cd_tail: None, config, offline, client, args, notes, _lock: lock })
    }
}

/// The directory of this program, if it is a free zone.
fn own_directory() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let directory = program.parent()?;
    let has_config = paths::CONFIGS_IN_FREE.iter().any(|path| directory.join(path).is_file());
    has_config.then(|| directory.to_owned())
}

/// One updater at a time.
fn lock(zone: &DirZone, free: &Path) -> Result<Locked> {
    // What cannot be cleared away is what the next lines report.
    let _ = updater::own_places::clear_state_dir(zone);
    let _ = updater::own_places::clear_lock(zone);
    if let Err(error) = zone.create_dir_all(paths::STATE_DIR) {
        match error {
            // Nothing can be written: there is nothing to take turns with, and each write will say so.
            ZoneError::ReadOnly | ZoneError::Denied => return Ok(Locked::Held(None)),
            error => return Err(no_device(format!("{} cannot be used: {error}", free.display()))),
        }
    }
    match platform::lock_directory(&free.join(paths::STATE_DIR)) {
        Ok(Locked::Busy) => Err(updater::EngineError::Busy.into()),
        Ok(held) => Ok(held),
        // The device's fault: no other updater would do better.
        Err(error) => Err(no_device(format!("{} cannot be locked: {error}", free.display()))),
    }
}

/// Removes programs that ran when they were replaced. One that still runs stays until the next start.
fn empty_aside(zone: &DirZone) {
    let mut names = Vec::new();
    let listed = zone.list(paths::ASIDE_DIR, &mut |name, _| {
        names.push(format!("{}/{name}", paths::ASIDE_DIR));
        ControlFlow::Continue(())
    });
    // What cannot be listed or removed now is in nobody's way.
    if listed.is_ok() {
        for name in names {
            let _ = zone.remove(&name);
        }
    }
}

fn open_raw(path: &Path, access: Access) -> Result<Raw, ZoneError> {
    let mut zone = match FileZone::open(path, access) {
        // What may only be read still tells.
        Err(ZoneError::ReadOnly | ZoneError::Denied) if access == Access::ReadWrite => {
            FileZone::open(path, Access::ReadOnly)?
        }
        other => other?,
    };
    let length = zone.len()?;
    Window::new(zone, 0, length)
}

fn read_limited(path: &Path) -> Option<Vec<u8>> {
    let length = std::fs::metadata(path).ok()?.len();
    (length <= MAX_CONFIG_BYTES as u64).then(|| std::fs::read(path).ok()).flatten()
}

/// The configuration from the virtual zone, else the first signed copy in the free zone that holds.
fn read_config(given: Option<Vec<u8>>, free: &AnyFreeZone, vendor: &PublicKey) -> Result<Config> {
    if let Some(bytes) = given {
        return Ok(Config::open(&bytes, vendor)?);
    }
    let mut refused = None;
    for path in paths::CONFIGS_IN_FREE {
        let read = updater::zone_io::read_small(free, path, MAX_CONFIG_BYTES as u64)?;
        match read.map(|bytes| Config::open(&bytes, vendor)) {
            Some(Ok(config)) => return Ok(config),
            Some(Err(error)) => refused = refused.or(Some(error)),
            None => {}
        }
    }
    Err(match refused {
        Some(error) => error.into(),
        None => no_device(format!(
            "{} was found neither in a virtual zone nor in the free zone: name the virtual zone with --virtual",
            paths::DEVICE_CONFIG
        )),
    })
}

/// The copy of a store in the virtual zone of an image. Each file is found anew, so that nothing is held open.
struct ImageStore {
    disk: PathBuf,
    virtual_zone: Option<PathBuf>,
}

/// Bytes read at a time.
const READ_BYTES: usize = 128 << 10;

impl Transport for ImageStore {
    fn describe(&self) -> String {
        format!("the virtual zone of {}", self.disk.display())
    }

    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        type Cause = Box<dyn std::error::Error + Send + Sync>;
        let unreachable = |source: Cause| TransportError::Unreachable { path: path.to_owned(), source };
        let device = Device::open(&self.disk, self.virtual_zone.as_deref(), Access::ReadOnly);
        let zone = device.map_err(|error| unreachable(error.into()))?.virtual_zone();
        let zone = zone.map_err(|error| unreachable(error.into()))?;
        let file = zone.open_file(&format!("{}/{path}", paths::OFFLINE_STORE_DIR));
        let file = file.map_err(|error| unreachable(error.into()))?;
        let mut file = file.ok_or_else(|| TransportError::NotFound { path: path.to_owned() })?;
        let whole = file.len().map_err(|error| unreachable(error.into()))?;
        let wanted = range.unwrap_or(0..whole);
        let (start, end) = (wanted.start.min(whole), wanted.end.min(whole));
        if end.saturating_sub(start) > max_bytes {
            return Err(TransportError::TooLarge { path: path.to_owned(), limit: max_bytes });
        }
        file.seek(SeekFrom::Start(start)).map_err(|error| unreachable(error.into()))?;
        let mut buffer = vec![0; READ_BYTES];
        let mut at = start;
        while at < end {
            let take = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let n = file.read(&mut buffer[..take]).map_err(|error| unreachable(error.into()))?;
            if n == 0 {
                return Err(TransportError::Bad { path: path.to_owned(), reason: "it became shorter".into() });
            }
            sink(at, &buffer[..n])?;
            at += n as u64;
        }
        Ok(GetOutcome::new(start, at - start).with_whole(Some(whole)))
    }
}
