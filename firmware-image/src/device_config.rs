//! The device configuration, `device.cfg` on the virtual zone: what the factory tells every unit of a product, signed by
//! the vendor (`docs/formats/device-config.md`).
//!
//! ```text
//! magic 8 │ format u16 │ 0 u16 │ body length u32 │ body (postcard) │ signature 64
//! ```
//! The signature covers everything before it.

use serde::{Deserialize, Serialize};

use crate::paths::MAX_PLATFORM_BYTES;
use crate::seal::{self, Secret, TAG_BYTES, Unauthentic};
use crate::signature::{Domain, PublicKey, SIGNATURE_BYTES};
use crate::updater_image::MAX_PRODUCT_BYTES;

/// The first bytes.
pub const CONFIG_MAGIC: [u8; 8] = *b"HOLDFCFG";
/// The format's number.
pub const CONFIG_FORMAT: u16 = 1;
/// The longest configuration that a reader accepts, in bytes.
pub const MAX_CONFIG_BYTES: usize = 64 << 10;
/// Servers in a configuration.
pub const MAX_SERVERS: usize = 8;
/// Client commands in a configuration.
pub const MAX_COMMANDS: usize = 8;
/// The longest server address, in bytes.
pub const MAX_URL_BYTES: usize = 512;
/// The longest client command, in bytes.
pub const MAX_COMMAND_BYTES: usize = 512;

const HEAD_BYTES: usize = 16;

/// How the zones are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// One disk with three partitions.
    Stick,
    /// A CD-ROM unit and a disk unit.
    Dual,
    /// Fixed regions of flash, without partitions.
    Region,
}

impl core::fmt::Display for Profile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Stick => "stick",
            Self::Dual => "dual",
            Self::Region => "region",
        })
    }
}

/// Where releases come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server<'a> {
    /// `http:`, `https:` or `file:`.
    pub url: &'a str,
    /// How often it is tried first, in proportion to the others.
    pub weight: u16,
}

/// How the client is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCommand<'a> {
    /// For this platform; empty: for every one that has none of its own.
    pub platform: &'a str,
    /// A path in the free zone, and arguments behind it, separated by blanks.
    pub command: &'a str,
}

/// The factory's content key, wrapped under the product secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedContentKey {
    /// Its number.
    pub number: u32,
    #[serde(with = "crate::byte_array")]
    wrapped: [u8; 32],
    #[serde(with = "crate::byte_array")]
    tag: [u8; TAG_BYTES],
}

impl WrappedContentKey {
    fn wrapping_key(number: u32, product_secret: &Secret) -> Secret {
        product_secret.derive(&number.to_le_bytes(), b"holdfast content key v1")
    }

    /// Wraps content key `number`.
    pub fn wrap(number: u32, key: &Secret, product_secret: &Secret) -> Self {
        let mut wrapped = *key.expose();
        let tag = seal::wrap(&Self::wrapping_key(number, product_secret), &number.to_le_bytes(), &mut wrapped);
        Self { number, wrapped, tag }
    }

    /// Unwraps it.
    ///
    /// # Errors
    /// [`Unauthentic`] with another product's secret.
    pub fn unwrap(&self, product_secret: &Secret) -> Result<Secret, Unauthentic> {
        let mut key = self.wrapped;
        let wrapping = Self::wrapping_key(self.number, product_secret);
        seal::unwrap(&wrapping, &self.number.to_le_bytes(), &mut key, &self.tag)?;
        Ok(Secret::new(key))
    }
}

/// Limits and habits that the vendor chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// How long a plug-in waits for the version check before the client starts.
    pub check_timeout_secs: u16,
    /// How long the updater may take to become ready.
    pub ready_timeout_secs: u16,
    /// How long a new release is watched.
    pub probation_secs: u16,
    /// Failed starts of a new release before it is undone.
    pub max_failed_starts: u8,
}

impl Default for Policies {
    fn default() -> Self {
        Self { check_timeout_secs: 5, ready_timeout_secs: 10, probation_secs: 30, max_failed_starts: 3 }
    }
}

/// The configuration. New fields are appended; a reader skips what it does not know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceConfig<'a> {
    /// The product's name.
    pub product: &'a str,
    /// The channel whose releases it takes.
    pub channel: &'a str,
    /// How the zones are arranged.
    pub profile: Profile,
    /// The boundary on which the hidden zone's slots stand, in bytes.
    pub align_bytes: u32,
    /// Where releases come from.
    #[serde(borrow)]
    pub servers: heapless::Vec<Server<'a>, MAX_SERVERS>,
    /// How the client is started.
    pub client_commands: heapless::Vec<ClientCommand<'a>, MAX_COMMANDS>,
    /// The trusted TUF `root.json`, as it was signed.
    pub root: &'a [u8],
    /// Opens key slots unattended. Whoever holds a device holds it too.
    #[serde(with = "crate::byte_array")]
    pub product_secret: [u8; 32],
    /// The factory's content key.
    pub content_key: WrappedContentKey,
    /// Limits and habits.
    pub policies: Policies,
}

impl core::fmt::Debug for DeviceConfig<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "DeviceConfig({}, {}, {})", self.product, self.channel, self.profile)
    }
}

/// Why a configuration is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not a configuration, or cut off.
    NotAConfig,
    /// Of a format that this program does not know.
    UnknownFormat(u16),
    /// The signature is not this vendor's.
    BadSignature,
    /// Signed, but with fields over their limits.
    Malformed,
    /// Longer than a configuration may be.
    TooLong,
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotAConfig => f.write_str("not a device configuration, or cut off"),
            Self::UnknownFormat(format) => write!(f, "a device configuration of the unknown format {format}"),
            Self::BadSignature => f.write_str("not signed by this product's vendor, or damaged"),
            Self::Malformed => f.write_str("the device configuration has fields over their limits"),
            Self::TooLong => f.write_str("longer than a device configuration may be"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl<'a> DeviceConfig<'a> {
    /// Reads a configuration and checks that `vendor` signed it.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn open(bytes: &'a [u8], vendor: &PublicKey) -> Result<Self, ConfigError> {
        let (signed, body, signature) = split(bytes)?;
        if !vendor.verifies(Domain::DeviceConfig, signed, signature) {
            return Err(ConfigError::BadSignature);
        }
        Self::decode(body)
    }

    /// Reads a configuration whatever its signature is: for whoever was given it by the one who signs.
    ///
    /// # Errors
    /// See [`ConfigError`].
    #[cfg(feature = "sign")]
    pub(crate) fn read_unverified(bytes: &'a [u8]) -> Result<Self, ConfigError> {
        let (_, body, _) = split(bytes)?;
        Self::decode(body)
    }

    fn decode(body: &'a [u8]) -> Result<Self, ConfigError> {
        let (config, _appended) = postcard::take_from_bytes::<Self>(body).map_err(|_| ConfigError::Malformed)?;
        if config.within_limits() { Ok(config) } else { Err(ConfigError::Malformed) }
    }

    /// The product secret.
    pub fn secret(&self) -> Secret {
        Secret::new(self.product_secret)
    }

    /// The client's command for a platform: its own, else the one for all.
    pub fn client_command(&self, platform: &str) -> Option<&'a str> {
        let of = |wanted: &str| self.client_commands.iter().find(|entry| entry.platform == wanted);
        of(platform).or_else(|| of("")).map(|entry| entry.command)
    }

    fn within_limits(&self) -> bool {
        self.product.len() <= MAX_PRODUCT_BYTES
            && !self.product.is_empty()
            && self.channel.len() <= MAX_PRODUCT_BYTES
            && self.align_bytes.is_power_of_two()
            && self.align_bytes >= 4096
            && self.servers.iter().all(|server| server.url.len() <= MAX_URL_BYTES)
            && self
                .client_commands
                .iter()
                .all(|entry| entry.command.len() <= MAX_COMMAND_BYTES && entry.platform.len() <= MAX_PLATFORM_BYTES)
    }

    /// Signs the configuration into `out` and returns the part that it fills.
    ///
    /// # Errors
    /// `TooLong`, `Malformed` for fields over their limits.
    #[cfg(feature = "sign")]
    pub fn sign<'o>(&self, vendor: &crate::signature::SigningKey, out: &'o mut [u8]) -> Result<&'o [u8], ConfigError> {
        if !self.within_limits() {
            return Err(ConfigError::Malformed);
        }
        let room = out.len().min(MAX_CONFIG_BYTES);
        let out = out.get_mut(..room).filter(|out| out.len() > HEAD_BYTES).ok_or(ConfigError::TooLong)?;
        let body = postcard::to_slice(self, &mut out[HEAD_BYTES..]).map_err(|_| ConfigError::TooLong)?.len();
        let signed = HEAD_BYTES + body;
        if signed + SIGNATURE_BYTES > out.len() {
            return Err(ConfigError::TooLong);
        }
        out[..8].copy_from_slice(&CONFIG_MAGIC);
        out[8..10].copy_from_slice(&CONFIG_FORMAT.to_le_bytes());
        out[10..12].fill(0);
        out[12..16].copy_from_slice(&(body as u32).to_le_bytes());
        let signature = vendor.sign(Domain::DeviceConfig, &out[..signed]);
        out[signed..signed + SIGNATURE_BYTES].copy_from_slice(&signature);
        Ok(&out[..signed + SIGNATURE_BYTES])
    }
}

/// What is signed, the body in it, and the signature.
type Parts<'a> = (&'a [u8], &'a [u8], &'a [u8; SIGNATURE_BYTES]);

fn split(bytes: &[u8]) -> Result<Parts<'_>, ConfigError> {
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLong);
    }
    if bytes.len() < HEAD_BYTES || bytes[..8] != CONFIG_MAGIC {
        return Err(ConfigError::NotAConfig);
    }
    let format = u16::from_le_bytes([bytes[8], bytes[9]]);
    if format != CONFIG_FORMAT {
        return Err(ConfigError::UnknownFormat(format));
    }
    let body_bytes = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
    let rest = &bytes[HEAD_BYTES..];
    let (body, rest) = rest.split_at_checked(body_bytes).ok_or(ConfigError::NotAConfig)?;
    let signature = rest.first_chunk::<SIGNATURE_BYTES>().ok_or(ConfigError::NotAConfig)?;
    if rest.len() != SIGNATURE_BYTES {
        return Err(ConfigError::NotAConfig);
    }
    Ok((&bytes[..HEAD_BYTES + body_bytes], body, signature))
}
