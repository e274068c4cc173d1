//! A new device image from keys, programs and a release.
//!
//! The parts in the order in which they are made: programs (stamped and signed), `device.cfg` (signed), the release (read
//! and verified), the image with its virtual zone, then what goes into the free zone, and last everything sealed.
//! Equal inputs and an equal seed make equal bytes.

pub(crate) mod kind;
mod lacks;
mod programs;
mod release;
mod virtual_files;

use std::path::{Path, PathBuf};

use firmware_image::device_config::{MAX_CONFIG_BYTES, Policies, Profile};
use firmware_image::free_zone::FreeZone;
use firmware_image::hidden::{DISK_ALIGN_BYTES, HiddenLayout, HiddenZone};
use firmware_image::host::{Access, FileZone};
use firmware_image::image::build::{self, Layout};
use firmware_image::image::device::{DeviceError, lock};
use firmware_image::image::gpt::Guids;
use firmware_image::image::{AnyFreeZone, Device};
use firmware_image::key_slot::DeviceId;
use firmware_image::places::{Place, Scratch};
use firmware_image::record::{
    MAX_CONTENT_KEYS, ModuleVersion, Release as RecordRelease, StoredContentKey, VersionRecord,
};
use firmware_image::updater_image::UpdaterVersion;
use firmware_image::{ZoneError, paths};
use release_store::keys::{ConfigRequest, KeySource, Passphrase, ProductSecrets};

pub use self::kind::check_platform;
pub use self::release::Preinstalled;
use crate::error::ToolError;
use crate::identity;
use crate::progress::Progress;
use crate::random::Random;

/// The least room of each backup slot, unless told otherwise: updaters grow.
const MIN_BACKUP_SLOT_BYTES: u64 = 16 << 20;
/// The time stamp of seeded images without a release: 1 January 2026.
const SEEDED_TIMESTAMP: i64 = 1_767_225_600;

/// What to make.
#[derive(Debug, Clone)]
pub struct Request {
    /// How the zones are arranged.
    pub profile: Profile,
    /// The disk image.
    pub out: PathBuf,
    /// The CD image of a *dual* device.
    pub cd_out: Option<PathBuf>,
    /// Bytes of the disk.
    pub disk_bytes: u64,
    /// Bytes at the end of the disk that no zone takes.
    pub leave_bytes: u64,
    /// Bytes of the hidden zone; `None`: twice what the updaters need, at least 40 MiB.
    pub hidden_bytes: Option<u64>,
    /// The product; must be that of the keys.
    pub product: String,
    /// The channel whose releases the device takes; `None`: as the factory export says, or `stable`.
    pub channel: Option<String>,
    /// Servers with weights.
    pub servers: Vec<(String, u16)>,
    /// Launchers by platform.
    pub bootstraps: Vec<(String, PathBuf)>,
    /// Updaters by platform; signed unless they are.
    pub updaters: Vec<(String, PathBuf)>,
    /// The version of updaters signed now.
    pub updater_version: UpdaterVersion,
    /// Commands by platform; an empty platform stands for all.
    pub client_commands: Vec<(String, String)>,
    /// A release to preinstall: store and version.
    pub release: Option<(PathBuf, String)>,
    /// Whether the release's store files go onto the virtual zone too.
    pub offline_source: bool,
    /// Seconds since 1970 for time stamps; `None`: the release's, or the present.
    pub timestamp: Option<i64>,
    /// Where identities come from.
    pub random: Random,
    /// Whether existing images are replaced.
    pub force: bool,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Created {
    /// Who the device is.
    pub device_id: DeviceId,
    /// Updaters: platform, version, whether signed just now.
    pub updaters: Vec<(String, UpdaterVersion, bool)>,
    /// The preinstalled release: version, serial, files, bytes.
    pub release: Option<Preinstalled>,
    /// Whether it knows a server to fetch releases from.
    pub has_server: bool,
    /// What a person should know, though it is no error.
    pub warnings: Vec<String>,
}

/// Makes the image.
///
/// # Errors
/// See [`ToolError`]. On any fault the output files are as they were before.
pub fn create(
    request: &Request,
    keys: &KeySource,
    passphrase: Option<&Passphrase>,
    progress: &mut dyn Progress,
) -> Result<Created, ToolError> {
    check_request(request, keys)?;
    let secrets = keys.secrets(passphrase)?;
    let release = match &request.release {
        Some((store, version)) => Some(release::Opened::open(store, version, request, keys, &secrets)?),
        None => None,
    };
    let mut warnings = Vec::new();
    let updaters = programs::updaters(request, keys, passphrase, release.as_ref())?;
    let launchers = programs::launchers(request, keys.vendor_key())?;
    programs::check_platforms(&updaters, &launchers, &mut warnings);
    let config = keys.device_config(passphrase, &config_request(request, keys))?;
    if config.len() > MAX_CONFIG_BYTES {
        return Err(ToolError::Refused("device.cfg is too long".into()));
    }
    let has_server = lacks::settings(&config, keys, &launchers, release.is_some(), &mut warnings)?;
    if let Some(release) = &release {
        release.check_commands(&request.client_commands, &mut warnings);
    }
    let images: Vec<(String, Vec<u8>)> =
        updaters.iter().map(|updater| (updater.platform.clone(), updater.image.clone())).collect();
    let files = virtual_files::collect(request, &config, &launchers, &images, release.as_ref())?;
    let lengths = || images.iter().map(|(platform, image)| (platform.as_str(), image.len() as u64));
    let slot_bytes = identity::backup_slot_bytes(lengths())?;
    let mut scratch = Box::<Scratch>::default();
    let random = |label: &str| request.random.bytes::<64>(label).map_err(ToolError::host("read", "the random source"));
    let owner = identity::mint(&random("device identity")?, &secrets.product_secret, &mut scratch)?;
    let layout = layout(request, &owner.device_id, slot_bytes, release.as_ref())?;

    let disk = Unfinished::new(&request.out, request.force)?;
    let cd = request.cd_out.as_ref().map(|path| Unfinished::new(path, request.force)).transpose()?;
    progress.begin("virtual zone", 0);
    match &cd {
        Some(cd) => build::dual(disk.beside(), cd.beside(), slot_bytes, &layout, &files)?,
        None => build::stick(disk.beside(), &layout, &files)?,
    }

    let device = Device::open(disk.beside(), None, Access::Draft)?;
    let free = device.free_zone().map_err(ToolError::zone("opened", "the free zone"))?;
    check_room(&free, slot_bytes, &images, release.as_ref())?;
    let measure = || free.free_bytes().map_err(ToolError::zone("measured", "the free zone"));
    let before = measure()?;
    let installed = match &release {
        Some(release) => Some(release.install(&free, progress)?),
        None => None,
    };
    let client_bytes = before.saturating_sub(measure()?);
    for (platform, image) in &images {
        let path = paths::updater_name(platform);
        identity::put_file(&free, &path, &mut image.as_slice(), |_| {})?;
    }
    // Windows mounts no ISO partition: a person finds the launcher where the client is. Of a CD it is started, which nobody can write.
    let of_windows = launchers.iter().find(|(platform, _)| cd.is_none() && platform == paths::WINDOWS_PLATFORM);
    if let Some((platform, launcher)) = of_windows {
        identity::put_file(&free, &paths::bootstrap_name(platform), &mut launcher.as_slice(), |_| {})?;
        identity::put_file(&free, paths::CONFIG_BESIDE, &mut config.as_slice(), |_| {})?;
    }
    // The updater keeps a copy there, and would write it at the first start.
    identity::put_file(&free, paths::CONFIG_COPY, &mut config.as_slice(), |_| {})?;
    // Made here, where nobody pulls: FAT has no way to make a directory that a cut could not leave without contents.
    for directory in [paths::STAGING_DIR, paths::UNDO_DIR, paths::TRUST_DIR, paths::QUARANTINE_DIR] {
        free.create_dir_all(directory).map_err(ToolError::zone("written", "the free zone"))?;
    }
    let zone = device.hidden_zone().map_err(ToolError::zone("opened", "the hidden zone"))?;
    let mut hidden = HiddenZone::new(zone, DISK_ALIGN_BYTES).map_err(ToolError::zone("opened", "the hidden zone"))?;
    let statement = programs::floor_statement(&images, keys.vendor_key());
    let record = record(&owner.device_id, release.as_ref(), &secrets, &statement);
    progress.begin("hidden zone", 0);
    identity::write_all(&mut hidden, &free, &record, &images, &owner, &mut scratch)?;
    if let Some(release) = &release {
        lacks::room(request.disk_bytes, measure()?, client_bytes, release, &mut warnings);
    }
    free.close().map_err(ToolError::zone("written", "the free zone"))?;
    if let Some(cd) = &cd {
        write_cd_tail(cd.beside(), &images, &secrets, &random("CD identity")?, &mut scratch)?;
    }
    drop(device);
    if let Some(cd) = cd {
        cd.finish()?;
    }
    disk.finish()?;
    if request.random.is_seeded() {
        warnings
            .push("made from a seed: whoever knows it knows the device key; `write` gives each device its own".into());
    }
    Ok(Created {
        device_id: owner.device_id,
        updaters: updaters.iter().map(|one| (one.platform.clone(), one.version, one.newly_signed)).collect(),
        release: installed,
        has_server,
        warnings,
    })
}

fn check_request(request: &Request, keys: &KeySource) -> Result<(), ToolError> {
    let refuse = |text: &str| Err(ToolError::Refused(text.into()));
    if keys.product() != request.product {
        return Err(ToolError::WrongProduct {
            object: "the key directory".into(),
            expected: request.product.clone(),
            found: keys.product().into(),
        });
    }
    match (request.profile, &request.cd_out) {
        (Profile::Dual, None) => return refuse("a dual device has a CD: name its image with --cd-out"),
        (Profile::Stick, Some(_)) => return refuse("--cd-out goes with --profile dual; a stick has no CD"),
        (Profile::Region, _) => return refuse("the region profile is not made here: it has no host and no image"),
        _ => {}
    }
    if request.offline_source && request.release.is_none() {
        return refuse("--offline-source needs --store and --release-version: what should be offline?");
    }
    if !request.disk_bytes.is_multiple_of(512) {
        return refuse("the size of a disk is a multiple of 512 bytes");
    }
    Ok(())
}

fn config_request(request: &Request, keys: &KeySource) -> ConfigRequest {
    let channel = match (&request.channel, keys) {
        (Some(channel), _) => channel.clone(),
        (None, KeySource::Factory(_)) => String::new(),
        (None, KeySource::Keys(_)) => release_store::publish::DEFAULT_CHANNEL.to_owned(),
    };
    ConfigRequest {
        channel,
        profile: request.profile,
        align_bytes: DISK_ALIGN_BYTES as u32,
        servers: request.servers.clone(),
        client_commands: request.client_commands.clone(),
        policies: Policies::default(),
    }
}

fn layout(
    request: &Request,
    device_id: &DeviceId,
    slot_bytes: u64,
    release: Option<&release::Opened>,
) -> Result<Layout, ToolError> {
    let default = HiddenLayout::zone_bytes_for((2 * slot_bytes).max(MIN_BACKUP_SLOT_BYTES), DISK_ALIGN_BYTES);
    let hidden_bytes = request.hidden_bytes.unwrap_or(default).next_multiple_of(DISK_ALIGN_BYTES);
    let least = HiddenLayout::zone_bytes_for(slot_bytes, DISK_ALIGN_BYTES);
    if hidden_bytes < least {
        return Err(ToolError::Refused(format!(
            "a hidden zone of {} is too small for the updaters: give --hidden-size at least {}",
            crate::size::show(hidden_bytes),
            crate::size::show(least)
        )));
    }
    let random = ToolError::host("read", "the random source");
    let guids = Guids::new(device_id, &request.random.bytes("partition table").map_err(random)?);
    let random = ToolError::host("read", "the random source");
    let volume_id = u32::from_le_bytes(request.random.bytes("volume id").map_err(random)?);
    let present = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(SEEDED_TIMESTAMP, |since| i64::try_from(since.as_secs()).unwrap_or(SEEDED_TIMESTAMP))
    };
    let timestamp = match (request.timestamp, release) {
        (Some(timestamp), _) => timestamp,
        (None, Some(release)) => release.published(),
        (None, None) if request.random.is_seeded() => SEEDED_TIMESTAMP,
        (None, None) => present(),
    };
    Ok(Layout {
        disk_bytes: request.disk_bytes,
        leave_bytes: request.leave_bytes,
        hidden_bytes,
        product: request.product.clone(),
        volume_id,
        guids,
        timestamp,
    })
}

/// Refuses before anything large is written what would not fit.
fn check_room(
    free: &AnyFreeZone,
    slot_bytes: u64,
    images: &[(String, Vec<u8>)],
    release: Option<&release::Opened>,
) -> Result<(), ToolError> {
    // Files end in part of a cluster; 32 KiB is the largest.
    let cluster = |bytes: u64| bytes + 32 * 1024;
    let own: u64 =
        images.iter().map(|(_, image)| cluster(image.len() as u64)).sum::<u64>() + cluster(slot_bytes) + (1 << 20);
    let needed = own + release.map_or(0, release::Opened::install_bytes);
    let available = free.free_bytes().map_err(ToolError::zone("measured", "the free zone"))?;
    if needed > available {
        let what = match release {
            Some(release) => {
                format!("release {} and the updaters; make the device larger with --size", release.version())
            }
            None => "the updaters; make the device larger with --size".into(),
        };
        return Err(ToolError::FreeZoneFull { needed, available, what });
    }
    Ok(())
}

fn record<'r>(
    device_id: &DeviceId,
    release: Option<&'r release::Opened>,
    secrets: &ProductSecrets,
    statement: &'r [u8],
) -> VersionRecord<'r> {
    let mut record = VersionRecord::new(*device_id);
    record.backup_generation = identity::FIRST_GENERATION;
    record.statement = statement;
    if let Some(release) = release {
        let (found, accepted) = (release.release(), release.accepted());
        record.release = Some(RecordRelease {
            serial: found.serial,
            version: &found.version,
            manifest: found.manifest,
            published: u64::try_from(found.published).unwrap_or(0),
        });
        for module in &release.manifest().modules {
            // Longer lists inform no better; the manifest decides.
            let _ = record.modules.push(ModuleVersion { id: &module.id, version: &module.version });
        }
        (record.root, record.timestamp, record.snapshot) = (&accepted.root, &accepted.timestamp, &accepted.snapshot);
    }
    // The newest one stands in device.cfg; the older ones open what was published before it.
    let newest = secrets.content_keys.newest().map(|key| key.number);
    for key in secrets.content_keys.iter().filter(|key| Some(key.number) != newest).take(MAX_CONTENT_KEYS) {
        let _ = record.content_keys.push(StoredContentKey { number: key.number, key: key.key });
    }
    record
}

/// The factory backup has an identity of its own: the CD is the same for every unit of the line.
fn write_cd_tail(
    cd: &Path,
    images: &[(String, Vec<u8>)],
    secrets: &ProductSecrets,
    random: &[u8; 64],
    scratch: &mut Scratch,
) -> Result<(), ToolError> {
    let owner = identity::mint(random, &secrets.product_secret, scratch)?;
    let failed = || ToolError::zone("opened", cd.display().to_string());
    let mut zone = FileZone::open(cd, Access::Draft).map_err(failed())?;
    let end = firmware_image::image::iso::file_system_bytes(&mut zone).map_err(failed())?;
    let start = end.next_multiple_of(DISK_ALIGN_BYTES);
    let length = firmware_image::RawZone::len(&mut zone).map_err(failed())?.saturating_sub(start);
    let mut tail = firmware_image::storage::Window::new(zone, start, length).map_err(failed())?;
    identity::write_backup(&mut tail, Place::CdTail, images, &owner, scratch)
}

/// An output file that appears under its name only when it is complete.
struct Unfinished {
    /// The one that is replaced, to which nobody writes meanwhile.
    replaced: Option<FileZone>,
    beside: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Unfinished {
    fn new(path: &Path, force: bool) -> Result<Self, ToolError> {
        let mut replaced = None;
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.is_file() {
                let path = path.display();
                return Err(ToolError::Refused(format!(
                    "{path} is no plain file; `write` puts an image onto a device"
                )));
            }
            if !force {
                let path = path.display();
                return Err(ToolError::Refused(format!("{path} exists; remove it, or give --force to replace it")));
            }
            // What cannot be opened or locked here is at least nobody's who asked for it.
            if let Ok(zone) = FileZone::open(path, Access::ReadOnly) {
                if let Err(source @ ZoneError::Busy) = lock(&zone) {
                    return Err(DeviceError::Open { path: path.to_owned(), source }.into());
                }
                replaced = Some(zone);
            }
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(".part");
        let beside = PathBuf::from(beside);
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ToolError::host("replaced", &beside)(error))
            }
            _ => Ok(Self { replaced, beside, path: path.to_owned(), done: false }),
        }
    }

    fn beside(&self) -> &Path {
        &self.beside
    }

    fn finish(mut self) -> Result<(), ToolError> {
        // What has its name is whole, also after the power was cut.
        let flushed = std::fs::OpenOptions::new().write(true).open(&self.beside).and_then(|file| file.sync_all());
        flushed.map_err(ToolError::host("made", &self.beside))?;
        // Some systems rename over nothing that is open.
        drop(self.replaced.take());
        std::fs::rename(&self.beside, &self.path).map_err(ToolError::host("made", &self.path))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.done {
            // The fault that led here is the one to report.
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}
