//! A device's zones as the launcher opens them. Opened anew for each step: an updater that was started in between may have
//! changed them, and a raw image must not be held open beside it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::prelude::v1::*;

use firmware_image::device_config::DeviceConfig;
use firmware_image::device_config::MAX_CONFIG_BYTES;
use firmware_image::hidden::{DISK_ALIGN_BYTES, HiddenZone};
use firmware_image::host::{Access, DirZone, FileZone};
use firmware_image::places::{Places, Scratch};
use firmware_image::signature::PublicKey;
use firmware_image::storage::{Window, read_exact_at};
use firmware_image::{FreeZone, RawZone, ZoneError, paths};

use super::find::{Block, Found, Siblings};
use super::words::Teller;
use crate::device::Device;
use crate::platform::{self, Presence, PrivateMount};

/// ISO 9660: the primary volume descriptor's place, and its magic.
const DESCRIPTOR_AT: u64 = 16 * 2048;
const DESCRIPTOR_MAGIC: &[u8; 6] = b"\x01CD001";

/// Zones that were opened, as far as they are in reach.
pub struct Opened<H, F, C, V> {
    /// The hidden zone.
    pub hidden: Option<HiddenZone<H>>,
    /// The free zone.
    pub free: Option<F>,
    /// The storage behind the CD's file system.
    pub cd_tail: Option<C>,
    /// The plain copy in the virtual zone.
    pub plain: Option<V>,
}

impl<H: RawZone, F: FreeZone, C: RawZone, V: RawZone> Opened<H, F, C, V> {
    /// The device that these zones are. To be called once.
    pub fn device<'d>(&'d mut self, scratch: &'d mut Scratch) -> Device<'d, H, F, C, V> {
        Device {
            places: Places { hidden: self.hidden.take(), free: self.free.as_ref(), cd_tail: self.cd_tail.take() },
            plain: self.plain.take(),
            memory: scratch.memory(),
        }
    }
}

/// Zones as [`Zones::open`] returns them.
pub type OpenedOf<Z> = Opened<<Z as Zones>::Hidden, <Z as Zones>::Free, <Z as Zones>::Tail, <Z as Zones>::Plain>;

/// How the zones of a device are reached.
pub trait Zones {
    /// The hidden zone.
    type Hidden: RawZone;
    /// The free zone.
    type Free: FreeZone;
    /// The storage behind the CD's file system.
    type Tail: RawZone;
    /// The plain copy of the updater.
    type Plain: RawZone;

    /// Whether the launcher may write to the free zone while the updater runs.
    const SHARED: bool;

    /// `device.cfg`.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn config(&self, vendor: &PublicKey) -> Result<Vec<u8>, ZoneError>;

    /// Opens what is in reach.
    fn open(&self, align_bytes: u64, platform: &str) -> OpenedOf<Self>;

    /// How the updater is told which device.
    fn updater_args(&self) -> Vec<OsString>;

    /// The directory in which the client runs, with `client/` in it.
    ///
    /// # Errors
    /// Why there is none.
    fn client_home(&self) -> io::Result<ClientHome>;

    /// The managed directory, which a running client locks; `None` where the client runs from a private copy, which nobody
    /// changes.
    fn managed_directory(&self) -> Option<PathBuf>;

    /// Tells whether the device was pulled.
    fn presence(&self) -> Presence;

    /// The virtual zone, for people.
    fn virtual_zone(&self) -> String;

    /// Whether there is a free zone for an updater and a client to work in.
    fn is_of_use(&self) -> bool {
        true
    }

    /// What of the device this user may not open, for people.
    fn out_of_reach(&self) -> Vec<String>;
}

/// Where the client runs.
pub enum ClientHome {
    /// In the free zone itself.
    Mounted(PathBuf),
    /// In a private copy, removed when this is dropped.
    #[cfg(feature = "image")]
    Private(PathBuf),
}

impl ClientHome {
    /// The directory.
    pub fn path(&self) -> &Path {
        match self {
            Self::Mounted(path) => path,
            #[cfg(feature = "image")]
            Self::Private(path) => path,
        }
    }
}

#[cfg(feature = "image")]
impl Drop for ClientHome {
    fn drop(&mut self) {
        if let Self::Private(path) = self {
            // What a client left behind without write permission stays, in a temporary place that only this user can enter.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Zones that are mounted directories and block devices.
pub struct Directories {
    /// Not in sight, where the launcher stands in the free zone: its copy of the configuration serves.
    virtual_zone: Option<PathBuf>,
    free: Option<PathBuf>,
    hidden: Option<PathBuf>,
    cd: Option<PathBuf>,
    /// Whether a hidden zone should be there and is not.
    hidden_is_lost: bool,
    /// Keeps the free zone mounted.
    _mount: Option<PrivateMount>,
}

/// A zone that was named is not there.
#[derive(Debug)]
pub struct NoZone {
    path: PathBuf,
    error: io::Error,
}

impl NoZone {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "Is the device plugged in and mounted? Name its virtual zone with --virtual."
    }
}

impl fmt::Display for NoZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "The virtual zone {} cannot be used: {}.", self.path.display(), self.error)
    }
}

impl std::error::Error for NoZone {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Directories {
    /// Zones that were named.
    ///
    /// # Errors
    /// The virtual zone is no directory.
    pub fn given(virtual_zone: &Path, free: Option<&Path>, hidden: Option<&Path>) -> Result<Self, NoZone> {
        let no_zone = |error| NoZone { path: virtual_zone.to_path_buf(), error };
        let virtual_zone = std::path::absolute(virtual_zone).map_err(no_zone)?;
        match std::fs::metadata(&virtual_zone) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(no_zone(io::ErrorKind::NotADirectory.into())),
            Err(error) => return Err(no_zone(error)),
        }
        // An empty path was refused with the command line, which is all that `absolute` refuses.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let (free, hidden) = (free.map(absolute), hidden.map(absolute));
        Ok(Self { virtual_zone: Some(virtual_zone), free, hidden, cd: None, hidden_is_lost: false, _mount: None })
    }

    /// Zones that were found. A free zone that is not mounted is mounted, where this user may.
    pub fn of_device(found: Found, teller: &mut Teller) -> Self {
        let Found { virtual_zone, siblings, is_complete } = found;
        let mut mount = None;
        let free = match &siblings.free {
            None => {
                teller.no_free_zone();
                None
            }
            Some(Block { mounted: Some(path), .. }) => Some(path.clone()),
            Some(Block { node, mounted: None }) => match platform::mount_privately(node) {
                Ok(mounted) => {
                    if mounted.is_read_only() {
                        teller.write_protected();
                    }
                    let path = mounted.path().to_path_buf();
                    mount = Some(mounted);
                    Some(path)
                }
                Err(fault) => {
                    teller.not_mounted(node, &fault);
                    None
                }
            },
        };
        let zones = Self::mounted(virtual_zone, free, siblings);
        Self { _mount: mount, hidden_is_lost: zones.hidden_is_lost && is_complete, ..zones }
    }

    /// Zones that are mounted.
    pub fn mounted(virtual_zone: Option<PathBuf>, free: Option<PathBuf>, siblings: Siblings) -> Self {
        let Siblings { cd, hidden, .. } = siblings;
        let hidden_is_lost = hidden.is_none();
        Self { virtual_zone, free, hidden, hidden_is_lost, cd, _mount: None }
    }
}

impl Zones for Directories {
    type Hidden = FileZone;
    type Free = DirZone;
    type Tail = Window<FileZone>;
    type Plain = FileZone;
    const SHARED: bool = true;

    fn config(&self, vendor: &PublicKey) -> Result<Vec<u8>, ZoneError> {
        match (&self.virtual_zone, &self.free) {
            (Some(virtual_zone), _) => read_limited(&virtual_zone.join(paths::DEVICE_CONFIG)),
            (None, Some(free)) => {
                let read = |path: &&str| read_limited(&free.join(path));
                let holds = |bytes: &Vec<u8>| DeviceConfig::open(bytes, vendor).is_ok();
                let sound = paths::CONFIGS_IN_FREE.iter().filter_map(|path| read(path).ok()).find(holds);
                sound.map_or_else(|| read(&paths::CONFIG_COPY), Ok)
            }
            (None, None) => Err(ZoneError::NotFound),
        }
    }

    fn open(&self, align_bytes: u64, platform: &str) -> OpenedOf<Self> {
        let hidden = self.hidden.as_deref().and_then(|path| FileZone::open(path, Access::ReadOnly).ok());
        let plain =
            |zone: &Path| FileZone::open(&zone.join(paths::updater_name(platform).as_str()), Access::ReadOnly).ok();
        Opened {
            hidden: hidden.and_then(|zone| HiddenZone::new(zone, align_bytes).ok()),
            free: self.free.as_deref().and_then(|path| DirZone::open(path).ok()),
            cd_tail: self.cd.as_deref().and_then(|path| cd_tail(FileZone::open(path, Access::ReadOnly).ok()?)),
            plain: self.virtual_zone.as_deref().and_then(plain),
        }
    }

    fn updater_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        if let Some(virtual_zone) = &self.virtual_zone {
            args.extend(["--virtual".into(), virtual_zone.clone().into()]);
        }
        if let Some(free) = &self.free {
            args.extend(["--free".into(), free.clone().into()]);
        }
        // One that cannot be opened, or not as a zone, is not named: the updater would stumble over it.
        if let Some(hidden) = self.hidden.as_ref().filter(|path| FileZone::open(path, Access::ReadOnly).is_ok()) {
            args.extend(["--hidden".into(), hidden.clone().into()]);
        }
        args
    }

    fn client_home(&self) -> io::Result<ClientHome> {
        let free = self.free.clone().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no free zone"))?;
        Ok(ClientHome::Mounted(free))
    }

    fn managed_directory(&self) -> Option<PathBuf> {
        Some(self.free.as_ref()?.join(paths::CLIENT_DIR))
    }

    fn presence(&self) -> Presence {
        let zones = [self.virtual_zone.as_ref(), self.free.as_ref(), self.hidden.as_ref()];
        Presence::of(zones.into_iter().flatten().map(PathBuf::as_path))
    }

    fn virtual_zone(&self) -> String {
        let zone = self.virtual_zone.as_ref();
        zone.map_or_else(|| "the virtual zone".into(), |zone| zone.display().to_string())
    }

    fn is_of_use(&self) -> bool {
        self.free.is_some()
    }

    fn out_of_reach(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, path) in [("hidden zone", &self.hidden), ("CD-ROM", &self.cd)] {
            if let Some((path, Err(error))) = path.as_deref().map(|path| (path, FileZone::open(path, Access::ReadOnly)))
            {
                let path = path.display();
                lines.push(match error {
                    ZoneError::Denied => format!(
                        "The {name} {path} is out of this user's reach; the copies elsewhere serve. {}",
                        platform::REACH_HINT
                    ),
                    _ => format!("The {name} {path} cannot be opened: {error}."),
                });
            }
        }
        if self.hidden_is_lost {
            lines.push("The hidden zone is gone: the device has no partition HOLDFAST-HIDDEN any more.".into());
        }
        if let Some(free) = &self.free
            && let Err(error) = std::fs::read_dir(free)
        {
            lines.push(format!("The free zone {} cannot be opened: {error}.", free.display()));
        }
        lines
    }
}

/// The storage behind the ISO 9660 file system of `cd`, from the next boundary on.
pub fn cd_tail<Z: RawZone>(mut cd: Z) -> Option<Window<Z>> {
    let mut descriptor = [0; 84];
    read_exact_at(&mut cd, DESCRIPTOR_AT, &mut descriptor).ok()?;
    if !descriptor.starts_with(DESCRIPTOR_MAGIC) {
        return None;
    }
    let blocks = u32::from_le_bytes([descriptor[80], descriptor[81], descriptor[82], descriptor[83]]);
    let start = (u64::from(blocks) * 2048).next_multiple_of(DISK_ALIGN_BYTES);
    let length = cd.len().ok()?.checked_sub(start)?;
    Window::new(cd, start, length).ok()
}

/// Reads a file no longer than a configuration may be.
///
/// # Errors
/// What the system reports.
pub fn read_limited(path: &Path) -> Result<Vec<u8>, ZoneError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_CONFIG_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
