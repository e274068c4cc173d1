//! What is on a device, and what of it is sound. Never shows a secret.
//!
//! Every zone, slot and program is looked at by itself: one that is damaged is reported and the rest is still read.
//! Trust begins with the vendor's public key: from the keys that are given, else from the stamp in the device's own
//! launcher, which tells whether the parts of the device fit together, and no more.

mod launchers;
mod report;

use std::path::Path;

use crate::error::ToolError;
use crate::progress::Progress;
use crate::repair;
use embedded_io::{ErrorType, Read, Seek};
use firmware_image::backup::{ImageReader, Index};
use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES};
use firmware_image::digest::Hasher;
use firmware_image::free_zone::{FreeZone, ZoneFile as _};
use firmware_image::hidden::HiddenZone;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::any_zone::walk;
use firmware_image::image::gpt::Copy;
use firmware_image::image::{AnyFreeZone, AnyVirtualZone, Device, VirtualZone as _};
use firmware_image::places::{Place, Places, Scratch};
use firmware_image::record::MAX_RECORD_BYTES;
use firmware_image::seal::Secret;
use firmware_image::signature::PublicKey;
use firmware_image::slot::{Header, Kind, OpenSlot};
use firmware_image::stamp;
use firmware_image::storage::Window;
use firmware_image::updater_image::{
    self, Floors, ImageError, MAX_IMAGE_BYTES, MAX_TRAILER_BYTES, authenticate, read_trailer,
};
use firmware_image::{Digest, RawZone as _, ZoneError, paths};
use release_store::manifest::{MAX_ENCODED_BYTES, Manifest, Policy};

pub use self::report::{
    ConfigReport, LauncherReport, OtherPartition, RecordReport, SlotReport, State, Survey, UpdaterReport, ZoneReport,
};

/// What is said of the disk of a *dual* device that is named alone.
const NO_CD: &str = "this is the disk of a dual device, whose virtual zone is the CD: name that with --virtual cd.iso";

/// What to look at, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The vendor's public key, where it is known.
    pub vendor: Option<PublicKey>,
    /// Whether every file is read and compared.
    pub thorough: bool,
}

/// Looks at the device whose disk is `disk`; `cd` is the CD of a *dual* one.
///
/// # Errors
/// `Device` where there is no device at all.
pub fn survey(
    disk: &Path,
    cd: Option<&Path>,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Survey, ToolError> {
    let device = Device::open(disk, cd, Access::ReadOnly)?;
    let mut survey = Survey {
        vendor_key: None,
        vendor_key_given: options.vendor.is_some(),
        table: device.table().map(|table| match (table.both_agree, table.copy) {
            (true, _) => State::Sound,
            (false, Copy::Primary) => State::Damaged("the copy at the end differs or is damaged".into()),
            (false, Copy::Backup) => {
                State::Damaged("the one at the start is damaged; the copy at the end serves".into())
            }
        }),
        around: Vec::new(),
        to_format: false,
        zones: Vec::new(),
        others: Vec::new(),
        config: None,
        config_state: State::Missing,
        slots: Vec::new(),
        launchers: Vec::new(),
        updaters: Vec::new(),
        record: None,
        client: None,
        findings: Vec::new(),
    };
    if let Some(table) = device.table() {
        let around = FileZone::open(disk, Access::ReadOnly).and_then(|mut disk| {
            Ok((repair::around(table, &mut disk)?, repair::has_lost_free_zone(table, &mut disk)?))
        });
        match around {
            Ok(found) => (survey.around, survey.to_format) = found,
            Err(error) => survey.findings.push(format!("what is around the zones cannot be read: {error}")),
        }
    }
    let virtual_zone = device.virtual_zone();
    let bytes = device.virtual_raw().and_then(|mut zone| zone.len()).ok();
    survey.add_zone("virtual", virtual_zone.as_ref().err(), bytes, None);
    let free = device.free_zone();
    let bytes = device.free_raw().and_then(|mut zone| zone.len()).ok();
    survey.add_zone("free", free.as_ref().err(), bytes, free.as_ref().ok().and_then(|zone| zone.free_bytes().ok()));
    let hidden = device.hidden_zone();
    let bytes =
        hidden.as_ref().err().is_none().then(|| device.hidden_zone().and_then(|mut zone| zone.len()).ok()).flatten();
    survey.add_zone("hidden", hidden.as_ref().err(), bytes, None);
    if let Some(table) = device.table() {
        let extents = [table.virtual_zone(), table.free(), table.hidden()];
        for (zone, extent) in survey.zones.iter_mut().zip(extents) {
            zone.start = extent.map(|extent| extent.start);
        }
        survey.others = table
            .others()
            .map(|other| OtherPartition {
                number: other.number,
                name: other.name.clone(),
                start: other.extent.start,
                bytes: other.extent.length,
            })
            .collect();
    }

    let (virtual_zone, free) = (virtual_zone.ok(), free.ok());
    let Some(virtual_zone) = virtual_zone else {
        let of_cd = if lacks_cd(&device) { format!("; {NO_CD}") } else { String::new() };
        survey.findings.push(format!("without the virtual zone nothing sealed can be opened{of_cd}"));
        return Ok(survey);
    };
    let vendor = match options.vendor {
        Some(vendor) => Some(vendor),
        None => stamped_vendor(&virtual_zone),
    };
    survey.vendor_key = vendor.map(|vendor| hex::encode(vendor.0));
    let Some(vendor) = vendor else {
        survey
            .findings
            .push("no launcher with a vendor's key is on the virtual zone; name the keys with --keys".into());
        return Ok(survey);
    };
    survey.launchers_in_files(&virtual_zone, free.as_ref(), &vendor);
    let config_bytes = virtual_zone.read_file(paths::DEVICE_CONFIG, MAX_CONFIG_BYTES as u64);
    let config_bytes = match config_bytes {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(survey),
        Err(error) => {
            survey.config_state = State::of(error);
            return Ok(survey);
        }
    };
    let config = match DeviceConfig::open(&config_bytes, &vendor) {
        Ok(config) => config,
        Err(error) => {
            survey.config_state = State::Damaged(error.to_string());
            return Ok(survey);
        }
    };
    survey.config_state = State::Sound;
    survey.config = Some(ConfigReport {
        product: config.product.into(),
        channel: config.channel.into(),
        profile: config.profile.to_string(),
        servers: config.servers.iter().map(|server| (server.url.into(), server.weight)).collect(),
        client_commands: config.client_commands.iter().map(|one| (one.platform.into(), one.command.into())).collect(),
    });
    survey.updaters_in_files(&virtual_zone, free.as_ref(), &vendor, config.product);
    survey.sealed(&device, hidden.ok(), free.as_ref(), &config, &vendor);
    if options.thorough {
        survey.read_everything(&virtual_zone, free.as_ref(), progress);
        survey.compare_client(&device, free.as_ref(), &config);
    }
    Ok(survey)
}

/// The vendor's key in the launchers on a virtual zone.
pub(crate) fn stamped_vendor(zone: &AnyVirtualZone) -> Option<PublicKey> {
    let mut launchers = Vec::new();
    let prefix = paths::bootstrap_name("");
    zone.walk("", &mut |path, _| {
        if path.starts_with(prefix.as_str()) {
            launchers.push(path.to_owned());
        }
    })
    .ok()?;
    launchers.iter().find_map(|path| {
        let program = zone.read_file(path, MAX_IMAGE_BYTES).ok()??;
        stamp::stamped_key(&program).ok()?
    })
}

/// The platform in the name of an updater's file.
fn platform_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("updater-")?;
    let platform = rest.strip_suffix(".exe").unwrap_or(rest);
    (paths::updater_name(platform).as_str() == name).then_some(platform)
}

impl Survey {
    fn add_zone(&mut self, zone: &'static str, error: Option<&ZoneError>, bytes: Option<u64>, free_bytes: Option<u64>) {
        let state = error.map_or(State::Sound, |error| State::of(*error));
        self.zones.push(ZoneReport { zone, state, start: None, bytes, free_bytes });
    }

    fn updaters_in_files(
        &mut self,
        virtual_zone: &AnyVirtualZone,
        free: Option<&AnyFreeZone>,
        vendor: &PublicKey,
        product: &str,
    ) {
        let mut names = Vec::new();
        let walked = virtual_zone.walk("", &mut |path, _| {
            if platform_of(path).is_some() {
                names.push(path.to_owned());
            }
        });
        if let Err(error) = walked {
            self.findings.push(format!("the virtual zone's directory cannot be read: {error}"));
        }
        for name in &names {
            let Some(platform) = platform_of(name) else { continue };
            let report = match virtual_zone.open_file(name) {
                Ok(Some(mut file)) => {
                    let length = file.len().unwrap_or(0);
                    updater("virtual zone", platform, &mut file, length, vendor, product)
                }
                Ok(None) => missing("virtual zone", platform, State::Missing),
                Err(error) => missing("virtual zone", platform, State::of(error)),
            };
            self.updaters.push(report);
            let Some(free) = free else { continue };
            let report = match free.open(name) {
                Ok(Some(mut file)) => {
                    let length = file.len().unwrap_or(0);
                    updater("free zone", platform, &mut file, length, vendor, product)
                }
                Ok(None) => missing("free zone", platform, State::Missing),
                Err(error) => missing("free zone", platform, State::of(error)),
            };
            self.updaters.push(report);
        }
    }

    fn sealed(
        &mut self,
        device: &Device,
        hidden: Option<Window<FileZone>>,
        free: Option<&AnyFreeZone>,
        config: &DeviceConfig<'_>,
        vendor: &PublicKey,
    ) {
        let secret = config.secret();
        let hidden = hidden.and_then(|zone| HiddenZone::new(zone, u64::from(config.align_bytes)).ok());
        let cd_tail = match device.cd_tail() {
            Ok(tail) => tail,
            Err(error) => {
                self.findings.push(format!("the CD's tail cannot be found: {error}"));
                None
            }
        };
        let has_cd = cd_tail.is_some();
        let mut places = Places { hidden, free, cd_tail };
        let mut scratch = Box::<Scratch>::default();
        let mut out = vec![0; MAX_RECORD_BYTES];
        for place in Place::RECORDS {
            let header = places.header(place);
            let state = match places.read_record(place, &secret, &mut scratch.memory(), &mut out) {
                Ok(_) => State::Sound,
                Err(error) => State::of_slot(error),
            };
            self.slots.push(slot_report(place, header.ok().as_ref(), state));
        }
        for place in Place::BACKUPS {
            if place == Place::CdTail && !has_cd {
                continue;
            }
            let header = places.header(place);
            let mut images = Vec::new();
            let opened = places.with(place, |zone| {
                let header = Header::read(zone, Kind::Backup)?;
                let identity = header.unlock(secret.expose(), &mut scratch.blocks)?;
                let body_bytes = header.body_bytes();
                let mut open = OpenSlot::new(zone, Kind::Backup, header, &identity, &mut scratch.segment);
                open.verify()?;
                let index = Index::read(&mut open, body_bytes)?;
                for entry in &index.entries {
                    let mut reader = ImageReader::new(&mut open, entry);
                    let place = place.to_string();
                    images.push(updater(&place, &entry.platform, &mut reader, entry.length, vendor, config.product));
                }
                Ok(())
            });
            let state = opened.map_or_else(State::of_slot, |()| State::Sound);
            self.slots.push(slot_report(place, header.ok().as_ref(), state));
            self.updaters.extend(images);
        }
        if let Some(found) = places.newest_record(&secret, &mut scratch.memory(), &mut out) {
            let floors = found.record.floors(vendor, config.product);
            self.record = Some(RecordReport {
                place: found.place.to_string(),
                generation: found.generation,
                device_id: found.identity.device_id.to_string(),
                release_version: found.record.release.map(|release| release.version.to_owned()),
                release_serial: found.record.release.map(|release| release.serial),
                modules: found.record.modules.iter().map(|one| (one.id.to_owned(), one.version.to_owned())).collect(),
                proven: found.record.health == firmware_image::record::Health::Proven,
                updater_floor: floors.version.to_string(),
                key_serial_floor: floors.key_serial,
            });
            // Factory copies stay as they are for ever: one below the floor may only fetch another (`--recover`).
            let factory = ["virtual zone".to_owned(), Place::CdTail.to_string()];
            for updater in self.updaters.iter_mut().filter(|updater| !factory.contains(&updater.place)) {
                below_floor(updater, &floors);
            }
        }
    }

    fn read_everything(
        &mut self,
        virtual_zone: &AnyVirtualZone,
        free: Option<&AnyFreeZone>,
        progress: &mut dyn Progress,
    ) {
        let mut files = Vec::new();
        let mut total = 0;
        if let Err(error) = virtual_zone.walk("", &mut |path, bytes| {
            files.push(path.to_owned());
            total += bytes;
        }) {
            self.findings.push(format!("the virtual zone's directories cannot be read: {error}"));
        }
        progress.begin("virtual zone", total);
        for path in &files {
            let read = virtual_zone.open_file(path).and_then(|file| match file {
                Some(mut file) => drain(&mut file, progress),
                None => Err(ZoneError::NotFound),
            });
            if let Err(error) = read {
                self.findings.push(format!("{path} in the virtual zone cannot be read: {error}"));
            }
        }
        let Some(free) = free else { return };
        let mut files = Vec::new();
        let mut total = 0;
        if let Err(error) = walk(free, "", &mut |path, bytes| {
            files.push(path.to_owned());
            total += bytes;
        }) {
            self.findings.push(format!("the free zone's directories cannot be read: {error}"));
        }
        progress.begin("free zone", total);
        for path in &files {
            let read = free.open(path).and_then(|file| match file {
                Some(mut file) => drain(&mut file, progress),
                None => Err(ZoneError::NotFound),
            });
            if let Err(error) = read {
                self.findings.push(format!("{path} in the free zone cannot be read: {error}"));
            }
        }
    }

    /// Compares the client's files with the manifest that the newest record names.
    fn compare_client(&mut self, device: &Device, free: Option<&AnyFreeZone>, config: &DeviceConfig<'_>) {
        let Some(free) = free else { return };
        if self.record.as_ref().is_none_or(|record| record.release_serial.is_none()) {
            return;
        }
        self.client = Some(match client_state(device, free, config) {
            Ok(differing) if differing.is_empty() => State::Sound,
            Ok(differing) => {
                let shown: Vec<&str> = differing.iter().take(5).map(String::as_str).collect();
                let more = if differing.len() > shown.len() { ", …" } else { "" };
                State::Damaged(format!("{} of its files differ: {}{more}", differing.len(), shown.join(", ")))
            }
            Err(why) => State::Unknown(why),
        });
    }
}

/// The client's files that are not as the manifest says.
fn client_state(device: &Device, free: &AnyFreeZone, config: &DeviceConfig<'_>) -> Result<Vec<String>, String> {
    let secret = config.secret();
    let hidden = device.hidden_zone().ok().and_then(|zone| HiddenZone::new(zone, u64::from(config.align_bytes)).ok());
    let mut places = Places { hidden, free: Some(free), cd_tail: None::<Window<FileZone>> };
    let mut scratch = Box::<Scratch>::default();
    let mut out = vec![0; MAX_RECORD_BYTES];
    let found = places.newest_record(&secret, &mut scratch.memory(), &mut out).ok_or("no record opens")?;
    let release = found.record.release.ok_or("no release is installed")?;
    // Nothing here needs it, and the updater needs it for everything.
    config.content_key.unwrap(&secret).map_err(|_| "the content key does not open")?;
    let mut file =
        free.open(paths::MANIFEST).map_err(|error| error.to_string())?.ok_or("its manifest is not on the device")?;
    let length = file.len().map_err(|error| error.to_string())?;
    if length > MAX_ENCODED_BYTES {
        return Err("its manifest is too long".into());
    }
    let mut encoded = vec![0; length as usize];
    firmware_image::storage::read_exact_at(&mut file, 0, &mut encoded).map_err(|error| error.to_string())?;
    if Digest::of(&encoded) != release.manifest {
        return Err("its manifest on the device is not the installed release's".into());
    }
    let manifest = Manifest::decode(&encoded).map_err(|error| error.to_string())?;
    let mut differing = Vec::new();
    for entry in manifest.files.iter().filter(|entry| entry.policy == Policy::Managed) {
        let path = format!("{}/{}", paths::CLIENT_DIR, entry.path);
        let same = match free.open(&path) {
            Ok(Some(mut file)) => {
                file.len() == Ok(entry.size) && digest(&mut file).is_ok_and(|found| found == entry.sha256)
            }
            _ => false,
        };
        if !same {
            differing.push(path);
        }
    }
    Ok(differing)
}

fn slot_report(place: Place, header: Option<&Header>, state: State) -> SlotReport {
    SlotReport {
        place: place.to_string(),
        generation: header.map(Header::generation),
        device_id: header.map(|header| header.device_id().to_string()),
        body_bytes: header.map(Header::body_bytes),
        state,
    }
}

fn missing(place: &str, platform: &str, state: State) -> UpdaterReport {
    let (place, platform) = (place.into(), platform.into());
    UpdaterReport { place, platform, version: None, key_serial: None, sha256: None, state }
}

fn updater<F>(
    place: &str,
    platform: &str,
    file: &mut F,
    length: u64,
    vendor: &PublicKey,
    product: &str,
) -> UpdaterReport
where
    F: Read + Seek + ErrorType<Error = ZoneError>,
{
    let mut report = missing(place, platform, State::Sound);
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let mut look = || -> Result<(), ImageError> {
        let trailer = authenticate(read_trailer(file, length, &mut buffer)?, vendor)?;
        report.version = Some(trailer.body().version.to_string());
        report.key_serial = Some(trailer.body().certificate.serial);
        trailer.is_for(product, platform)?;
        trailer.verify_image(file, length, &mut vec![0; 64 << 10])?;
        report.sha256 = Some(digest(file)?.to_string());
        Ok(())
    };
    if let Err(error) = look() {
        report.state = match error {
            updater_image::ImageError::Zone(error) => State::of(error),
            other => State::Damaged(other.to_string()),
        };
    }
    report
}

fn below_floor(report: &mut UpdaterReport, floors: &Floors) {
    let version = report.version.as_deref().and_then(updater_image::UpdaterVersion::parse);
    if let (State::Sound, Some(version), Some(serial)) = (&report.state, version, report.key_serial)
        && !floors.admits(version, serial)
    {
        report.state = State::Damaged("older than this device allows".into());
    }
}

fn digest<F: Read + Seek + ErrorType<Error = ZoneError>>(file: &mut F) -> Result<Digest, ZoneError> {
    file.seek(embedded_io::SeekFrom::Start(0))?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn drain<F: Read + ErrorType<Error = ZoneError>>(file: &mut F, progress: &mut dyn Progress) -> Result<(), ZoneError> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => progress.advance(n as u64),
        }
    }
}

/// Whether it is the disk of a *dual* device without its CD.
fn lacks_cd(device: &Device) -> bool {
    let on_disk = device.table().is_some_and(|table| table.virtual_zone().is_some());
    !on_disk && matches!(device.virtual_raw(), Err(ZoneError::NotFound))
}

/// What a device's sealed parts are opened with, from its own virtual zone.
///
/// # Errors
/// `Refused` names what is missing.
pub fn own_secret(device: &Device, vendor: Option<PublicKey>) -> Result<(Secret, u64), ToolError> {
    if lacks_cd(device) {
        return Err(ToolError::Refused(NO_CD.into()));
    }
    let zone = device.virtual_zone().map_err(ToolError::zone("opened", "the virtual zone"))?;
    let vendor = vendor.or_else(|| stamped_vendor(&zone)).ok_or_else(|| {
        ToolError::Refused("the virtual zone has no launcher with a vendor's key; name the keys with --keys".into())
    })?;
    let bytes = zone
        .read_file(paths::DEVICE_CONFIG, MAX_CONFIG_BYTES as u64)
        .map_err(ToolError::zone("read", paths::DEVICE_CONFIG))?
        .ok_or_else(|| ToolError::Refused("there is no device.cfg on the virtual zone".into()))?;
    let config = DeviceConfig::open(&bytes, &vendor)
        .map_err(|error| ToolError::Refused(format!("device.cfg on the virtual zone: {error}")))?;
    Ok((config.secret(), u64::from(config.align_bytes)))
}
