//! What the tests of the formats share: keys from fixed seeds.
#![allow(dead_code)]

use std::path::PathBuf;

use firmware_image::key_slot::{Cost, Identity};
use firmware_image::places::Scratch;
use firmware_image::seal::Secret;
use firmware_image::signature::SigningKey;
use firmware_image::updater_image::{self, Floors, KeyCertificate, Statement, UpdaterVersion};

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
