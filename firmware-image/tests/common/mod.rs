//! What the tests of the formats share: keys from fixed seeds, and storage that loses power.
#![allow(dead_code)]

use std::path::PathBuf;

use embedded_io::{ErrorType, Read, Seek, SeekFrom, Write};
use firmware_image::key_slot::{Cost, Identity};
use firmware_image::places::Scratch;
use firmware_image::seal::Secret;
use firmware_image::signature::SigningKey;
use firmware_image::storage::seek_target;
use firmware_image::updater_image::{self, Floors, KeyCertificate, Statement, UpdaterVersion};
use firmware_image::{RawZone, ZoneError};

pub const PRODUCT: &str = "Field Handbook";
pub const PLATFORM: &str = "linux-x86_64";

pub fn vendor() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

pub fn updater_key() -> SigningKey {
    SigningKey::from_seed(&[2; 32])
}

pub fn certificate() -> KeyCertificate {
    KeyCertificate::issue(&vendor(), 1, updater_key().public())
}

pub fn product_secret() -> Secret {
    Secret::new([3; 32])
}

pub fn scratch() -> Box<Scratch> {
    let mut scratch = Box::<Scratch>::new_uninit();
    // SAFETY: every field is an array of integers, for which all zeros is a value.
    unsafe {
        scratch.as_mut_ptr().write_bytes(0, 1);
        scratch.assume_init()
    }
}

pub fn identity(seed: u8) -> Identity {
    let mut random = [seed; 64];
    random.iter_mut().enumerate().for_each(|(i, byte)| *byte = byte.wrapping_add(i as u8));
    Identity::mint(&random, Cost::UNATTENDED, &product_secret(), &mut scratch().blocks).unwrap()
}

/// A program with a stamp's place, as long as asked for.
pub fn program(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
    let stamp = b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a";
    bytes[64..96].copy_from_slice(stamp);
    bytes[96..128].fill(0);
    bytes
}

pub fn statement(version: &str) -> Statement<'static> {
    let version = UpdaterVersion::parse(version).unwrap();
    Statement { product: PRODUCT, platform: PLATFORM, version, floors: Floors::default() }
}

pub fn image(version: &str, length: usize) -> Vec<u8> {
    let vendor = vendor().public();
    updater_image::sign(program(length), &statement(version), &vendor, &certificate(), &updater_key()).unwrap()
}

/// The repository's test vectors.
pub fn testdata() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata")
}

/// Storage in memory that counts writes and loses power at one of them, tearing it.
pub struct CutZone<'a> {
    pub bytes: &'a mut Vec<u8>,
    pub writes: usize,
    /// Power fails at this write: so many of its bytes still arrive.
    pub cut: Option<(usize, usize)>,
    position: u64,
}

impl<'a> CutZone<'a> {
    pub fn new(bytes: &'a mut Vec<u8>, cut: Option<(usize, usize)>) -> Self {
        Self { bytes, writes: 0, cut, position: 0 }
    }
}

impl ErrorType for CutZone<'_> {
    type Error = ZoneError;
}

impl Read for CutZone<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let at = (self.position as usize).min(self.bytes.len());
        let n = buf.len().min(self.bytes.len() - at);
        buf[..n].copy_from_slice(&self.bytes[at..at + n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Write for CutZone<'_> {
    fn write(&mut self, buf: &[u8]) -> Result<usize, ZoneError> {
        let at = self.position as usize;
        let mut n = buf.len().min(self.bytes.len().saturating_sub(at));
        if n == 0 && !buf.is_empty() {
            return Err(ZoneError::OutOfBounds);
        }
        let cut = self.cut.filter(|(write, _)| self.writes >= *write);
        if let Some((write, kept)) = cut {
            n = if self.writes == write { n.min(kept) } else { 0 };
        }
        self.bytes[at..at + n].copy_from_slice(&buf[..n]);
        self.writes += 1;
        if cut.is_some() {
            return Err(ZoneError::Io(5));
        }
        self.position += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), ZoneError> {
        Ok(())
    }
}

impl Seek for CutZone<'_> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.bytes.len() as u64)?;
        Ok(self.position)
    }
}

impl RawZone for CutZone<'_> {
    fn len(&mut self) -> Result<u64, ZoneError> {
        Ok(self.bytes.len() as u64)
    }
}
