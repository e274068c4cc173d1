//! What a look at a device found: shown to people, printed as JSON.

use firmware_image::ZoneError;
use firmware_image::slot::SlotError;
use serde::Serialize;

/// How something is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "why", rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Sound,
    /// There, and not as it should be.
    Damaged(String),
    /// Not there.
    Missing,
    /// Could not be looked at.
    Unknown(String),
}

impl State {
    pub(super) fn of(error: ZoneError) -> Self {
        match error {
            ZoneError::NotFound => Self::Missing,
            ZoneError::Corrupt => Self::Damaged("no file system of the right kind, or a damaged one".into()),
            ZoneError::OutOfBounds => Self::Damaged("too small, or cut off".into()),
            other => Self::Unknown(other.to_string()),
        }
    }

    pub(super) fn of_slot(error: SlotError) -> Self {
        match error {
            SlotError::Zone(ZoneError::NotFound) => Self::Missing,
            SlotError::Zone(error) => Self::of(error),
            other => Self::Damaged(other.to_string()),
        }
    }

    /// Whether all is well.
    pub fn is_sound(&self) -> bool {
        *self == Self::Sound
    }
}

/// A zone.
#[derive(Debug, Clone, Serialize)]
pub struct ZoneReport {
    /// `virtual`, `free` or `hidden`.
    pub zone: &'static str,
    /// How it is.
    #[serde(flatten)]
    pub state: State,
    /// Where it starts on the disk, in bytes; nothing for a zone that is no partition of it.
    pub start: Option<u64>,
    /// Bytes of its storage, where that is known.
    pub bytes: Option<u64>,
    /// Bytes free in it.
    pub free_bytes: Option<u64>,
}

/// A copy of the updater.
#[derive(Debug, Clone, Serialize)]
pub struct UpdaterReport {
    /// Where it stands.
    pub place: String,
    /// Its platform.
    pub platform: String,
    /// Its version, as its trailer says.
    pub version: Option<String>,
    /// The serial of the key that signed it.
    pub key_serial: Option<u32>,
    /// SHA-256 of the whole file.
    pub sha256: Option<String>,
    /// How it is.
    #[serde(flatten)]
    pub state: State,
}

/// A launcher. Sound: what any launcher of the vendor has is there. Nothing on a device says what the rest was.
#[derive(Debug, Clone, Serialize)]
pub struct LauncherReport {
    /// Where it stands.
    pub place: String,
    /// Its platform.
    pub platform: String,
    /// How it is.
    #[serde(flatten)]
    pub state: State,
}

/// A sealed slot.
#[derive(Debug, Clone, Serialize)]
pub struct SlotReport {
    /// Where it stands.
    pub place: String,
    /// Its generation.
    pub generation: Option<u64>,
    /// Whose it is.
    pub device_id: Option<String>,
    /// Bytes in it, unsealed.
    pub body_bytes: Option<u64>,
    /// How it is.
    #[serde(flatten)]
    pub state: State,
}

/// What the newest record says.
#[derive(Debug, Clone, Serialize)]
pub struct RecordReport {
    /// Where it stood.
    pub place: String,
    /// Its generation.
    pub generation: u64,
    /// The device.
    pub device_id: String,
    /// The installed release.
    pub release_version: Option<String>,
    /// Its serial.
    pub release_serial: Option<u64>,
    /// Modules and their versions.
    pub modules: Vec<(String, String)>,
    /// Whether the release has proven itself.
    pub proven: bool,
    /// The lowest updater version that may run.
    pub updater_floor: String,
    /// The lowest serial of an updater key that counts.
    pub key_serial_floor: u32,
}

/// What `device.cfg` says, without its secrets.
#[derive(Debug, Clone, Serialize)]
pub struct ConfigReport {
    /// The product.
    pub product: String,
    /// The channel.
    pub channel: String,
    /// The profile.
    pub profile: String,
    /// Servers with their weights.
    pub servers: Vec<(String, u16)>,
    /// The client's commands by platform.
    pub client_commands: Vec<(String, String)>,
}

/// A partition that is no zone.
#[derive(Debug, Clone, Serialize)]
pub struct OtherPartition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Its name.
    pub name: String,
    /// Its first byte.
    pub start: u64,
    /// Its size.
    pub bytes: u64,
}

/// What is on a device.
#[derive(Debug, Clone, Serialize)]
pub struct Survey {
    /// The vendor's public key.
    pub vendor_key: Option<String>,
    /// Whether that key was given, and not taken from the device itself.
    pub vendor_key_given: bool,
    /// The partition table, where the device is a disk.
    pub table: Option<State>,
    /// What else is wrong around the zones, a line each: the protective MBR, the free zone's boot sector.
    pub around: Vec<String>,
    /// Whether the free zone has to be formatted, since it has neither boot sector: neither a start of the device nor
    /// `partition-tools repair` mends that.
    pub to_format: bool,
    /// The zones.
    pub zones: Vec<ZoneReport>,
    /// Partitions that are no zone: a board's own.
    pub others: Vec<OtherPartition>,
    /// `device.cfg`.
    pub config: Option<ConfigReport>,
    /// How `device.cfg` is.
    pub config_state: State,
    /// Records and backups.
    pub slots: Vec<SlotReport>,
    /// Every copy of a launcher.
    pub launchers: Vec<LauncherReport>,
    /// Every copy of an updater.
    pub updaters: Vec<UpdaterReport>,
    /// The newest record.
    pub record: Option<RecordReport>,
    /// How the client's files are; only after a thorough look.
    pub client: Option<State>,
    /// Other findings, for people.
    pub findings: Vec<String>,
}

impl Survey {
    /// What of [`Survey::problems`] no start of the device mends and `partition-tools repair` does.
    pub fn for_repair(&self) -> Vec<String> {
        let table = self.table.iter().filter_map(|state| line("the partition table", state));
        table.chain(self.around.iter().cloned()).collect()
    }

    /// Everything that is not sound, one line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.for_repair();
        let mut look = |what: String, state: &State| problems.extend(line(&what, state));
        self.zones.iter().for_each(|zone| look(format!("the {} zone", zone.zone), &zone.state));
        look("device.cfg".into(), &self.config_state);
        self.slots.iter().for_each(|slot| look(format!("the {}", slot.place), &slot.state));
        for launcher in &self.launchers {
            look(format!("the launcher for {} in the {}", launcher.platform, launcher.place), &launcher.state);
        }
        for updater in &self.updaters {
            look(format!("the updater for {} in the {}", updater.platform, updater.place), &updater.state);
        }
        if let Some(state) = &self.client {
            look("the client".into(), state);
        }
        problems.extend(self.findings.iter().cloned());
        problems
    }
}

/// What is not sound of something.
fn line(what: &str, state: &State) -> Option<String> {
    match state {
        State::Sound => None,
        State::Damaged(why) => Some(format!("{what} is damaged: {why}")),
        State::Missing => Some(format!("{what} is missing")),
        State::Unknown(why) => Some(format!("{what} cannot be looked at: {why}")),
    }
}
