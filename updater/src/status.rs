//! What a device is and how it stands, for people and scripts. Reads only.

use firmware_image::free_zone::FreeZone;
use firmware_image::record::Health;
use firmware_image::{RawZone, paths};
use serde::Serialize;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::log;
use crate::operations::VerifyReport;
use crate::record_store::Origin;

/// Lines of the log that are shown.
const LOG_LINES: usize = 12;

/// How a device stands.
#[derive(Debug, Clone, Serialize)]
pub struct StatusReport {
    /// The product.
    pub product: String,
    /// The channel.
    pub channel: String,
    /// The device's id; `None`: nothing on the device says who it is.
    pub device_id: Option<String>,
    /// The installed release's version.
    pub version: Option<String>,
    /// Its serial.
    pub serial: Option<u64>,
    /// The release before it.
    pub previous: Option<String>,
    /// Whether the installed release has proven itself.
    pub proven: bool,
    /// A person chose it.
    pub held: bool,
    /// Serials that failed here.
    pub skipped: Vec<u64>,
    /// Modules and their versions.
    pub modules: Vec<Module>,
    /// Where a sound version record stands.
    pub records: Vec<Standing>,
    /// Where a sound backup of the updater stands.
    pub backups: Vec<BackupStanding>,
    /// Updaters in the free zone.
    pub updaters: Vec<UpdaterStanding>,
    /// The lowest updater version that may run.
    pub floor: String,
    /// The lowest serial of an updater key that may have signed it.
    pub key_floor: u32,
    /// Programs that were set aside.
    pub quarantined: Vec<String>,
    /// The files, compared with the installed release.
    pub files: Option<VerifyReport>,
    /// Why they could not be compared.
    pub files_unknown: Option<String>,
    /// Alarms of the log, and of now.
    pub alarms: Vec<String>,
    /// The last lines of the log.
    pub log: Vec<String>,
}

/// A module's version.
#[derive(Debug, Clone, Serialize)]
pub struct Module {
    /// Its name.
    pub id: String,
    /// Its version.
    pub version: String,
}

/// A sound record.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// Where.
    pub place: String,
    /// Its generation.
    pub generation: u64,
}

/// A sound backup.
#[derive(Debug, Clone, Serialize)]
pub struct BackupStanding {
    /// Where.
    pub place: String,
    /// Its generation.
    pub generation: u64,
    /// The updaters in it: platform and version.
    pub updaters: Vec<String>,
}

/// An updater in the free zone.
#[derive(Debug, Clone, Serialize)]
pub struct UpdaterStanding {
    /// Its file.
    pub file: String,
    /// Its version; `None`: it is not sound.
    pub version: Option<String>,
    /// Why it is not sound.
    pub fault: Option<String>,
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// How the device stands.
    ///
    /// # Errors
    /// What reading reports.
    pub fn status(&mut self) -> Result<StatusReport, EngineError> {
        let (files, files_unknown) = match self.verify() {
            Ok(report) => (Some(report), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let backups = self.backups();
        let mut updaters = Vec::new();
        for (name, _) in crate::zone_io::files_in(self.free, "")? {
            let Some(rest) = name.strip_prefix("updater-") else { continue };
            let platform = rest.strip_suffix(".exe").unwrap_or(rest);
            let (version, fault) = match self.sound_image(&name, platform) {
                Ok(image) => (Some(image.version.to_string()), None),
                Err(error) => (None, Some(error.to_string())),
            };
            updaters.push(UpdaterStanding { file: name, version, fault });
        }
        updaters.sort_by(|a, b| a.file.cmp(&b.file));
        let log_lines = log::tail(self.free, usize::MAX)?;
        let mut alarms: Vec<String> = log_lines.iter().filter(|line| line.contains(" alarm ")).cloned().collect();
        alarms.drain(..alarms.len().saturating_sub(LOG_LINES));
        alarms.extend(self.alarms.iter().cloned());
        let quarantined = crate::zone_io::files_in(self.free, paths::QUARANTINE_DIR)?;
        let floors = self.floors();
        let state = &self.state;
        Ok(StatusReport {
            product: self.config.product.clone(),
            channel: self.config.channel.clone(),
            device_id: (self.records.origin != Origin::Minted).then(|| state.device_id.to_string()),
            version: state.release.as_ref().map(|release| release.version.clone()),
            serial: state.release.as_ref().map(|release| release.serial),
            previous: state.previous.as_ref().map(|release| release.version.clone()),
            proven: state.health == Health::Proven,
            held: state.held,
            skipped: state.skipped.clone(),
            modules: state
                .modules
                .iter()
                .map(|(id, version)| Module { id: id.clone(), version: version.clone() })
                .collect(),
            records: self
                .records
                .standing()
                .into_iter()
                .map(|(place, generation)| Standing { place: place.to_string(), generation })
                .collect(),
            backups: backups
                .iter()
                .map(|backup| BackupStanding {
                    place: backup.place.to_string(),
                    generation: backup.generation,
                    updaters: backup.images.iter().map(|i| format!("{} {}", i.platform, i.version)).collect(),
                })
                .collect(),
            updaters,
            floor: floors.version.to_string(),
            key_floor: floors.key_serial,
            quarantined: quarantined.into_iter().map(|(name, _)| name).collect(),
            files,
            files_unknown,
            alarms,
            log: log_lines[log_lines.len().saturating_sub(LOG_LINES)..].to_vec(),
        })
    }
}
