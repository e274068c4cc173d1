//! What making a device needs of a product's keys, from whichever directory is at hand: the release machine's KEYS, or a
//! factory's export, which signs nothing but holds what was signed for it.

use std::path::Path;

use firmware_image::device_config::{
    ClientCommand, DeviceConfig, MAX_COMMAND_BYTES, MAX_CONFIG_BYTES, MAX_URL_BYTES, Policies, Profile, Server,
    WrappedContentKey,
};
use firmware_image::seal::Secret;
use firmware_image::signature::{PublicKey, SigningKey};
use firmware_image::updater_image::{
    self, Floors, ImageError, KeyCertificate, MAX_TRAILER_BYTES, SignError, Statement, UpdaterVersion,
};

use super::{FactoryExport, KeyDir, KeyKind, Passphrase, ProductSecrets};
use crate::error::StoreError;
use crate::manifest::{PLATFORMS, check_platform};
use crate::patch;

/// The least boundary that slots stand on.
const MIN_ALIGN_BYTES: u32 = 4096;

/// A key directory of either kind.
#[derive(Debug)]
pub enum KeySource {
    /// The release machine's.
    Keys(KeyDir),
    /// A factory's.
    Factory(FactoryExport),
}

/// What a device configuration is to say beside what the keys say.
#[derive(Debug, Clone)]
pub struct ConfigRequest {
    /// The channel whose releases the devices take.
    pub channel: String,
    /// How the zones are arranged.
    pub profile: Profile,
    /// The boundary on which the hidden zone's slots stand, in bytes.
    pub align_bytes: u32,
    /// Addresses of servers, with their weights.
    pub servers: Vec<(String, u16)>,
    /// The client's commands, by platform; an empty platform stands for all others.
    pub client_commands: Vec<(String, String)>,
    /// Limits and habits.
    pub policies: Policies,
}

/// An updater image that this product's vendor vouches for.
#[derive(Debug, Clone)]
pub struct SignedUpdater {
    /// The platform it runs on.
    pub platform: String,
    /// Its version.
    pub version: UpdaterVersion,
    /// The whole file, trailer included.
    pub image: Vec<u8>,
    /// Whether it was signed just now, and not before.
    pub newly_signed: bool,
}

impl KeySource {
    /// Opens the key directory or factory export at `dir`.
    ///
    /// # Errors
    /// `Key` where it is neither.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        if FactoryExport::is_at(dir) {
            FactoryExport::open(dir).map(Self::Factory)
        } else {
            KeyDir::open(dir).map(Self::Keys)
        }
    }

    /// The product.
    pub fn product(&self) -> &str {
        match self {
            Self::Keys(keys) => keys.product(),
            Self::Factory(export) => export.product(),
        }
    }

    /// The vendor's public key.
    pub fn vendor_key(&self) -> &PublicKey {
        match self {
            Self::Keys(keys) => keys.vendor_key(),
            Self::Factory(export) => export.vendor_key(),
        }
    }

    /// The trusted `root.json`.
    ///
    /// # Errors
    /// `Key`, `Io`.
    pub fn root_json(&self) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Keys(keys) => keys.root_json(),
            Self::Factory(export) => Ok(export.root_json().to_vec()),
        }
    }

    /// Whether its secrets need a passphrase.
    pub fn needs_passphrase(&self) -> bool {
        matches!(self, Self::Keys(_))
    }

    /// What every device shares. A factory export needs no passphrase.
    ///
    /// # Errors
    /// `Key`, `WrongPassphrase`.
    pub fn secrets(&self, passphrase: Option<&Passphrase>) -> Result<ProductSecrets, StoreError> {
        match self {
            Self::Keys(keys) => keys.secrets(needed(passphrase)?),
            Self::Factory(export) => Ok(export.secrets()),
        }
    }

    /// The updater image made of `program` for `platform`: `program` itself where the vendor signed it before; else
    /// stamped and signed with `version` and `floors`, which only the release machine's keys can do.
    ///
    /// # Errors
    /// `Refused` names what is wrong with the program, as one for another platform; `Key`, `WrongPassphrase`.
    pub fn updater(
        &self,
        passphrase: Option<&Passphrase>,
        platform: &str,
        program: Vec<u8>,
        version: UpdaterVersion,
        floors: Floors,
    ) -> Result<SignedUpdater, StoreError> {
        if let Some(signed) = already_signed(self.product(), self.vendor_key(), platform, &program)? {
            return Ok(signed);
        }
        match self {
            Self::Keys(keys) => {
                let key = keys.signing_key(KeyKind::Updater, needed(passphrase)?)?;
                let statement = Statement { product: keys.product(), platform, version, floors };
                sign(program, &statement, keys.vendor_key(), keys.certificate(), &key)
            }
            Self::Factory(_) => Err(StoreError::Refused(format!(
                "the updater for {platform} is not signed, and a factory export cannot sign: take the one in the export, \
                 or export again with `keys export --updater {platform}=FILE`"
            ))),
        }
    }

    /// The signed `device.cfg`. A factory export yields the one that was signed for it, and refuses a request for
    /// anything else.
    ///
    /// # Errors
    /// `Refused` names what cannot be; `Key`, `WrongPassphrase`.
    pub fn device_config(
        &self,
        passphrase: Option<&Passphrase>,
        request: &ConfigRequest,
    ) -> Result<Vec<u8>, StoreError> {
        match self {
            Self::Keys(keys) => {
                let passphrase = needed(passphrase)?;
                let vendor = keys.signing_key(KeyKind::Vendor, passphrase)?;
                sign_config(keys, &keys.secrets(passphrase)?, &vendor, request)
            }
            Self::Factory(export) => export.device_config(request),
        }
    }
}

fn needed(passphrase: Option<&Passphrase>) -> Result<&Passphrase, StoreError> {
    passphrase.ok_or_else(|| {
        StoreError::Refused("these keys need a passphrase: set HOLDFAST_PASSPHRASE, or run in a terminal".into())
    })
}

/// The updater image made of `program`; see [`KeySource::updater`].
///
/// # Errors
/// As there.
pub fn sign_updater(
    keys: &KeyDir,
    key: &SigningKey,
    platform: &str,
    program: Vec<u8>,
    version: UpdaterVersion,
    floors: Floors,
) -> Result<SignedUpdater, StoreError> {
    if let Some(signed) = already_signed(keys.product(), keys.vendor_key(), platform, &program)? {
        return Ok(signed);
    }
    let statement = Statement { product: keys.product(), platform, version, floors };
    sign(program, &statement, keys.vendor_key(), keys.certificate(), key)
}

/// What a launcher has in its `--help`, and no updater.
const LAUNCHER_USAGE: &[u8] = b"Usage: bootstrap [options]";

/// Whether `program` is a launcher.
pub fn is_launcher(program: &[u8]) -> bool {
    program.windows(LAUNCHER_USAGE.len()).any(|bytes| bytes == LAUNCHER_USAGE)
}

fn already_signed(
    product: &str,
    vendor: &PublicKey,
    platform: &str,
    program: &[u8],
) -> Result<Option<SignedUpdater>, StoreError> {
    check_platform(platform).map_err(StoreError::Refused)?;
    if let Some(found) = patch::platform(program).filter(|found| PLATFORMS.contains(&platform) && *found != platform) {
        let reason =
            format!("the updater for {platform} is a program for {found}: name the one that was built for {platform}");
        return Err(StoreError::Refused(reason));
    }
    if is_launcher(program) {
        return Err(StoreError::Refused(format!("the updater for {platform} is a launcher: name the updater")));
    }
    let refuse = |error: ImageError| StoreError::Refused(format!("the updater for {platform}: {error}"));
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let trailer = match updater_image::verify_bytes(program, vendor, &mut buffer) {
        Err(ImageError::NoTrailer) => return Ok(None),
        other => other.map_err(refuse)?,
    };
    trailer.is_for(product, platform).map_err(refuse)?;
    let version = trailer.body().version;
    Ok(Some(SignedUpdater { platform: platform.into(), version, image: program.to_vec(), newly_signed: false }))
}

fn sign(
    program: Vec<u8>,
    statement: &Statement<'_>,
    vendor: &PublicKey,
    certificate: &KeyCertificate,
    key: &SigningKey,
) -> Result<SignedUpdater, StoreError> {
    let platform = statement.platform.to_owned();
    let image = updater_image::sign(program, statement, vendor, certificate, key).map_err(|error| {
        StoreError::Refused(match error {
            SignError::Image(ImageError::FloorAboveItself) => {
                let (version, floors) = (statement.version, statement.floors);
                format!(
                    "the updater for {platform} has version {version} and key serial {}, but states the floor {} and key \
                     serial {}: no device could run it; lower the floor, or raise the version",
                    certificate.serial, floors.version, floors.key_serial
                )
            }
            error => format!("the updater for {platform} cannot be signed: {error}"),
        })
    })?;
    Ok(SignedUpdater { platform, version: statement.version, image, newly_signed: true })
}

/// Names the field that no configuration can have.
fn check_limits(request: &ConfigRequest) -> Result<(), String> {
    let ConfigRequest { align_bytes, .. } = request;
    if !align_bytes.is_power_of_two() || *align_bytes < MIN_ALIGN_BYTES {
        return Err(format!(
            "slots cannot stand on multiples of {align_bytes} bytes: name a power of two from {MIN_ALIGN_BYTES} on"
        ));
    }
    let servers = request.servers.iter().map(|(url, _)| ("server's address", url, MAX_URL_BYTES));
    let commands = request.client_commands.iter().map(|(_, command)| ("client command", command, MAX_COMMAND_BYTES));
    let long = servers.chain(commands).find(|(_, text, limit)| text.len() > *limit);
    long.map_or(Ok(()), |(what, text, limit)| {
        let (length, start) = (text.len(), text.chars().take(40).collect::<String>());
        Err(format!("the {what} {start:?}… has {length} bytes, and at most {limit} may be"))
    })
}

pub(super) fn sign_config(
    keys: &KeyDir,
    secrets: &ProductSecrets,
    vendor: &SigningKey,
    request: &ConfigRequest,
) -> Result<Vec<u8>, StoreError> {
    crate::manifest::check_channel(&request.channel).map_err(StoreError::Refused)?;
    check_limits(request).map_err(StoreError::Refused)?;
    let newest = secrets.content_keys.newest();
    let newest = newest.ok_or_else(|| StoreError::Refused("there is no content key".into()))?;
    let too_many = |what: &str, limit: usize| StoreError::Refused(format!("a device takes at most {limit} {what}"));
    let mut servers = heapless::Vec::new();
    for (url, weight) in &request.servers {
        let server = Server { url, weight: *weight };
        servers.push(server).map_err(|_| too_many("servers", firmware_image::device_config::MAX_SERVERS))?;
    }
    let mut client_commands = heapless::Vec::new();
    for (platform, command) in &request.client_commands {
        let command = ClientCommand { platform, command };
        let limit = firmware_image::device_config::MAX_COMMANDS;
        client_commands.push(command).map_err(|_| too_many("client commands", limit))?;
    }
    let root = keys.root_json()?;
    let config = DeviceConfig {
        product: keys.product(),
        channel: &request.channel,
        profile: request.profile,
        align_bytes: request.align_bytes,
        servers,
        client_commands,
        root: &root,
        product_secret: *secrets.product_secret.expose(),
        content_key: WrappedContentKey::wrap(newest.number, &Secret::new(newest.key), &secrets.product_secret),
        policies: request.policies,
    };
    let mut buffer = vec![0; MAX_CONFIG_BYTES];
    config
        .sign(vendor, &mut buffer)
        .map(<[u8]>::to_vec)
        .map_err(|error| StoreError::Refused(format!("device.cfg cannot be made: {error}")))
}
