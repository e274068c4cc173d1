//! The device's configuration, verified and owned.

use firmware_image::device_config::{DeviceConfig, Policies, WrappedContentKey};
use firmware_image::seal::Secret;
use firmware_image::signature::PublicKey;
use release_store::ContentKey;

use crate::error::EngineError;

/// What `device.cfg` says. It can only be had from bytes that the vendor signed.
#[derive(Clone)]
pub struct Config {
    /// The product's name.
    pub product: String,
    /// The channel whose releases it takes.
    pub channel: String,
    /// The boundary on which the hidden zone's slots stand, in bytes.
    pub align_bytes: u64,
    /// Addresses and weights of the servers.
    pub servers: Vec<(String, u16)>,
    /// The trusted TUF `root.json`.
    pub root: Vec<u8>,
    /// Opens key slots unattended.
    pub secret: Secret,
    /// Limits and habits.
    pub policies: Policies,
    content_key: WrappedContentKey,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config({}, {})", self.product, self.channel)
    }
}

impl Config {
    /// Reads a configuration that `vendor` signed.
    ///
    /// # Errors
    /// `Config`.
    pub fn open(bytes: &[u8], vendor: &PublicKey) -> Result<Self, EngineError> {
        let config = DeviceConfig::open(bytes, vendor).map_err(EngineError::Config)?;
        Ok(Self {
            product: config.product.to_owned(),
            channel: config.channel.to_owned(),
            align_bytes: config.align_bytes.into(),
            servers: config.servers.iter().map(|server| (server.url.to_owned(), server.weight)).collect(),
            root: config.root.to_vec(),
            secret: config.secret(),
            policies: config.policies,
            content_key: config.content_key,
            bytes: bytes.to_vec(),
        })
    }

    /// The configuration as it was signed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The factory's content key; `None` where it was wrapped for another product.
    pub fn content_key(&self) -> Option<ContentKey> {
        let key = self.content_key.unwrap(&self.secret).ok()?;
        Some(ContentKey::new(self.content_key.number, *key.expose()))
    }
}
