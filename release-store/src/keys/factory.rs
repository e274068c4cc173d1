//! What a factory may hold of a product's keys: enough to make devices, nothing that signs.
//!
//! ```text
//! DIR/factory.json               product, vendor key, wrapped content keys, list of the rest
//!     root.json                  the trusted root
//!     device-PROFILE.cfg         signed device configurations
//!     updater-PLATFORM[.exe]     signed updaters
//! ```
//! It is as secret as a device: whoever holds it can read releases, as every device can, and can make none.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use firmware_image::Digest;
use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES, Profile, WrappedContentKey};
use firmware_image::seal::Secret;
use firmware_image::signature::PublicKey;
use firmware_image::updater_image::{MAX_IMAGE_BYTES, UpdaterVersion};
use serde::{Deserialize, Serialize};

use super::source::sign_config;
use super::{ConfigRequest, KeyDir, KeyKind, Passphrase, ProductSecrets, SignedUpdater, decode_key};
use crate::content_key::{ContentKey, ContentKeys};
use crate::error::StoreError;
use crate::store_files::{check_not_in, is_store, json, read_small, sync_dir, write_secret};
use crate::trust::MAX_ROOT_BYTES;

const FACTORY_FILE: &str = "factory.json";
const ROOT_FILE: &str = "root.json";
const FORMAT: u16 = 1;
const MAX_FACTORY_FILE_BYTES: u64 = 256 << 10;
const PROFILES: [Profile; 3] = [Profile::Stick, Profile::Dual, Profile::Region];

#[derive(Serialize, Deserialize)]
struct FactoryFile {
    format: u16,
    product: String,
    vendor_key: String,
    channel: String,
    servers: Vec<(String, u16)>,
    client_commands: Vec<(String, String)>,
    align_bytes: u32,
    /// postcard of [`WrappedContentKey`]s, wrapped under the product secret in the device configuration.
    content_keys: Vec<String>,
    updaters: Vec<FactoryUpdater>,
}

/// A signed updater in an export.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FactoryUpdater {
    /// The platform it runs on.
    pub platform: String,
    /// Its file's name in the export.
    pub file: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// A factory's export, opened.
pub struct FactoryExport {
    dir: PathBuf,
    product: String,
    vendor: PublicKey,
    root: Vec<u8>,
    channel: String,
    servers: Vec<(String, u16)>,
    client_commands: Vec<(String, String)>,
    align_bytes: u32,
    configs: Vec<(Profile, Vec<u8>)>,
    updaters: Vec<FactoryUpdater>,
    secrets: ProductSecrets,
}

impl fmt::Debug for FactoryExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configurations hold the product secret.
        write!(f, "FactoryExport({}, {})", self.product, self.dir.display())
    }
}

fn config_name(profile: Profile) -> String {
    format!("device-{profile}.cfg")
}

impl FactoryExport {
    /// Whether `dir` holds an export.
    pub fn is_at(dir: &Path) -> bool {
        dir.join(FACTORY_FILE).is_file()
    }

    /// Exports what a factory needs into `dir`, which must not exist or be empty: configurations for all profiles as
    /// `request` says (its own profile does not count), and `updaters`.
    ///
    /// # Errors
    /// `Refused`, `Key`, `WrongPassphrase`, `Io`.
    pub fn create(
        dir: &Path,
        keys: &KeyDir,
        passphrase: &Passphrase,
        request: &ConfigRequest,
        updaters: &[SignedUpdater],
    ) -> Result<Self, StoreError> {
        if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(StoreError::Refused(format!("{} is not empty; name a new directory", dir.display())));
        }
        check_not_in(dir, "the factory export", is_store, "a store")?;
        let vendor = keys.signing_key(KeyKind::Vendor, passphrase)?;
        let secrets = keys.secrets(passphrase)?;
        let sign = |profile| sign_config(keys, &secrets, &vendor, &ConfigRequest { profile, ..request.clone() });
        let configs = PROFILES.into_iter().map(|profile| Ok((profile, sign(profile)?)));
        let configs = configs.collect::<Result<Vec<_>, StoreError>>()?;
        super::create_private_dir(dir)?;
        for (profile, config) in configs {
            // It holds the product secret, as every device does.
            write_secret(&dir.join(config_name(profile)), &config)?;
        }
        super::write_public(&dir.join(ROOT_FILE), &keys.root_json()?)?;
        let mut listed = Vec::new();
        for updater in updaters {
            let file = firmware_image::paths::updater_name(&updater.platform).to_string();
            super::write_public(&dir.join(&file), &updater.image)?;
            listed.push(FactoryUpdater {
                platform: updater.platform.clone(),
                file,
                version: updater.version.to_string(),
                sha256: Digest::of(&updater.image).to_string(),
            });
        }
        let content_keys = secrets.content_keys.iter().map(|key| {
            let wrapped = WrappedContentKey::wrap(key.number, &Secret::new(key.key), &secrets.product_secret);
            postcard::to_allocvec(&wrapped).map(hex::encode)
        });
        let content_keys: Result<_, _> = content_keys.collect();
        let file = FactoryFile {
            format: FORMAT,
            product: keys.product().into(),
            vendor_key: hex::encode(keys.vendor_key().0),
            channel: request.channel.clone(),
            servers: request.servers.clone(),
            client_commands: request.client_commands.clone(),
            align_bytes: request.align_bytes,
            content_keys: content_keys
                .map_err(|error| StoreError::malformed("the wrapped content keys", error.to_string()))?,
            updaters: listed,
        };
        // Last: what has it is complete.
        write_secret(&dir.join(FACTORY_FILE), &json(&file))?;
        sync_dir(dir)?;
        Self::open(dir)
    }

    /// Opens an export and checks that its parts belong together.
    ///
    /// # Errors
    /// `Key` names the file that is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let refuse = |name: &str, reason: &str| StoreError::Key { path: dir.join(name), reason: reason.into() };
        let read = |name: &str, limit: u64| {
            read_small(&dir.join(name), limit)?
                .ok_or_else(|| refuse(name, "it is not there; export again with `keys export`"))
        };
        let file: FactoryFile = serde_json::from_slice(&read(FACTORY_FILE, MAX_FACTORY_FILE_BYTES)?)
            .map_err(|_| refuse(FACTORY_FILE, "it is damaged"))?;
        if file.format != FORMAT {
            return Err(refuse(FACTORY_FILE, "it has a format that this program does not know"));
        }
        let vendor = decode_key(&file.vendor_key).map(PublicKey);
        let vendor = vendor.ok_or_else(|| refuse(FACTORY_FILE, "the vendor key in it is damaged"))?;
        let root = read(ROOT_FILE, MAX_ROOT_BYTES)?;
        let mut configs = Vec::new();
        let mut product_secret = None;
        for profile in PROFILES {
            let name = config_name(profile);
            let bytes = read(&name, MAX_CONFIG_BYTES as u64)?;
            let config = DeviceConfig::open(&bytes, &vendor).map_err(|error| refuse(&name, &error.to_string()))?;
            if config.product != file.product || config.profile != profile || config.root != root {
                return Err(refuse(&name, "it is of another export"));
            }
            product_secret = Some(config.secret());
            drop(config);
            configs.push((profile, bytes));
        }
        let product_secret = product_secret.ok_or_else(|| refuse(FACTORY_FILE, "there is no configuration"))?;
        let mut content_keys = ContentKeys::new();
        for wrapped in &file.content_keys {
            let wrapped = hex::decode(wrapped).ok();
            let wrapped = wrapped.and_then(|bytes| postcard::from_bytes::<WrappedContentKey>(&bytes).ok());
            let key = wrapped.and_then(|wrapped| Some((wrapped.number, wrapped.unwrap(&product_secret).ok()?)));
            let (number, key) = key.ok_or_else(|| refuse(FACTORY_FILE, "a content key in it is damaged"))?;
            if !content_keys.insert(ContentKey::new(number, *key.expose())) {
                return Err(refuse(FACTORY_FILE, "it holds too many content keys"));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            product: file.product,
            vendor,
            root,
            channel: file.channel,
            servers: file.servers,
            client_commands: file.client_commands,
            align_bytes: file.align_bytes,
            configs,
            updaters: file.updaters,
            secrets: ProductSecrets { product_secret, content_keys },
        })
    }

    /// The product.
    pub fn product(&self) -> &str {
        &self.product
    }

    /// The vendor's public key.
    pub fn vendor_key(&self) -> &PublicKey {
        &self.vendor
    }

    /// The trusted `root.json`.
    pub fn root_json(&self) -> &[u8] {
        &self.root
    }

    /// What every device shares.
    pub fn secrets(&self) -> ProductSecrets {
        self.secrets.clone()
    }

    /// The updaters in it.
    pub fn updaters(&self) -> &[FactoryUpdater] {
        &self.updaters
    }

    /// The signed updater for `platform`.
    ///
    /// # Errors
    /// `Refused` where the export has none; `Key` where it is damaged.
    pub fn updater(&self, platform: &str) -> Result<SignedUpdater, StoreError> {
        let listed = self.updaters.iter().find(|updater| updater.platform == platform);
        let listed = listed.ok_or_else(|| {
            StoreError::Refused(format!("the factory export has no updater for {platform}: export again with one"))
        })?;
        let path = self.dir.join(&listed.file);
        let refuse = |reason: &str| StoreError::Key { path: path.clone(), reason: reason.into() };
        crate::paths::check(&listed.file).map_err(|problem| refuse(&problem.to_string()))?;
        let image = read_small(&path, MAX_IMAGE_BYTES)?.ok_or_else(|| refuse("it is not there; export again"))?;
        if Digest::from_hex(&listed.sha256) != Some(Digest::of(&image)) {
            return Err(refuse("it is not the updater that was exported; export again"));
        }
        let version = UpdaterVersion::parse(&listed.version).ok_or_else(|| refuse("its version makes no sense"))?;
        Ok(SignedUpdater { platform: platform.to_owned(), version, image, newly_signed: false })
    }

    /// The configuration that was signed for `request.profile`, where it says what is asked for. Empty lists and an empty
    /// channel ask for nothing.
    ///
    /// # Errors
    /// `Refused` names what differs.
    pub fn device_config(&self, request: &ConfigRequest) -> Result<Vec<u8>, StoreError> {
        let differs = |what: &str| {
            Err(StoreError::Refused(format!(
                "the factory export was signed with another {what}; leave the option out, or export again with it"
            )))
        };
        if !request.channel.is_empty() && request.channel != self.channel {
            return differs("channel");
        }
        if !request.servers.is_empty() && request.servers != self.servers {
            return differs("list of servers");
        }
        if !request.client_commands.is_empty() && request.client_commands != self.client_commands {
            return differs("client command");
        }
        if request.align_bytes != self.align_bytes {
            return differs("alignment");
        }
        let config = self.configs.iter().find(|(profile, _)| *profile == request.profile);
        config.map(|(_, bytes)| bytes.clone()).ok_or_else(|| StoreError::Refused("no such profile".into()))
    }
}
