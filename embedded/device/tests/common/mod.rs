//! A device as the factory makes it, on simulated flash, and what its application writes.
#![allow(dead_code)] // No test uses all of it.

use std::cell::RefCell;

use argon2::Block;
use bootstrap_core::region::Settled;
use firmware_image::backup::{BackupBody, Index};
use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES, Policies, Profile, WrappedContentKey};
use firmware_image::flash::FlashZone;
use firmware_image::hidden::{HiddenZone, SlotName};
use firmware_image::key_slot::Identity;
use firmware_image::places::Memory;
use firmware_image::record::VersionRecord;
use firmware_image::region::factory::Factory;
use firmware_image::seal::Secret;
use firmware_image::signature::SigningKey;
use firmware_image::slot::{self, Body, SlotError, segment_buffer_bytes};
use firmware_image::updater_image::{
    Floors, KeyCertificate, MAX_TRAILER_BYTES, Statement, UpdaterVersion, make_trailer,
};
use holdfast_device::flash::{Cut, SimFlash};
use holdfast_device::start::{Blocks, Buffers, StartError, start};
use holdfast_device::table::{FLASH_BYTES, LAYOUT, PLATFORM, RECORD_BYTES, SEGMENT_LOG2, UNLOCK_COST};

pub const PRODUCT: &str = "Pump Controller";

pub fn vendor() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

pub fn secret() -> Secret {
    Secret::new([3; 32])
}

pub struct World {
    pub identity: Identity,
    pub flash: Vec<u8>,
}

pub fn version(minor: u16) -> UpdaterVersion {
    UpdaterVersion { major: 1, minor, patch: 0 }
}

/// Version 1.`minor`.0, with its trailer, which states floors.
pub fn signed(minor: u16, length: usize, floors: Floors) -> (Vec<u8>, Vec<u8>) {
    let image: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8 ^ minor as u8).collect();
    let updater = SigningKey::from_seed(&[2; 32]);
    let certificate = KeyCertificate::issue(&vendor(), 1, updater.public());
    let statement = Statement { product: PRODUCT, platform: PLATFORM, version: version(minor), floors };
    let mut trailer = [0; MAX_TRAILER_BYTES];
    let trailer = make_trailer(&image, &statement, &certificate, &updater, &mut trailer).unwrap().to_vec();
    (image, trailer)
}

/// Version 1.`minor`.0 as a vendor signs it who wants no older one to come back: its floor is itself.
pub fn image(minor: u16, length: usize) -> Vec<u8> {
    let (image, trailer) = signed(minor, length, Floors { version: version(minor), key_serial: 1 });
    [image, trailer].concat()
}

/// `device.cfg`, for slots on boundaries of `align_bytes`.
pub fn config(align_bytes: u32) -> Vec<u8> {
    let config = DeviceConfig {
        product: PRODUCT,
        channel: "stable",
        profile: Profile::Region,
        align_bytes,
        servers: Default::default(),
        client_commands: Default::default(),
        root: &[],
        product_secret: *secret().expose(),
        content_key: WrappedContentKey::wrap(1, &Secret::new([4; 32]), &secret()),
        policies: Policies::default(),
    };
    let mut signed = vec![0; MAX_CONFIG_BYTES];
    config.sign(&vendor(), &mut signed).unwrap().to_vec()
}

pub fn identity() -> Identity {
    let mut blocks = [const { Block::new() }; 16];
    Identity::mint(&std::array::from_fn(|i| i as u8), UNLOCK_COST, &secret(), &mut blocks).unwrap()
}

/// Writes a device onto `flash`.
pub fn make(flash: &mut [u8], config: &[u8], application: &[u8], identity: &Identity) -> Result<(), SlotError> {
    let mut blocks = [const { Block::new() }; 16];
    let mut segment = [0; segment_buffer_bytes(SEGMENT_LOG2)];
    let driver = RefCell::new(SimFlash::new(flash, None));
    let factory =
        Factory { layout: LAYOUT, config, platform: PLATFORM, application, identity, segment_log2: SEGMENT_LOG2 };
    let mut memory = Memory { blocks: &mut blocks, segment: &mut segment };
    factory.write(&mut FlashZone::new(&driver), &mut memory, &mut [0; RECORD_BYTES])
}

/// A device as the factory writes it, on flash itself.
pub fn world(application: &[u8]) -> World {
    let identity = identity();
    let mut flash = vec![0; FLASH_BYTES as usize];
    make(&mut flash, &config(LAYOUT.align_bytes), application, &identity).unwrap();
    World { identity, flash }
}

impl World {
    /// A start; with it, whether it was cut.
    pub fn start(&self, flash: &mut [u8], cut: Option<Cut>) -> (Result<Settled, StartError>, bool) {
        self.run(flash, cut, false)
    }

    /// A start after the application asked for the newest.
    pub fn start_newest(&self, flash: &mut [u8], cut: Option<Cut>) -> (Result<Settled, StartError>, bool) {
        self.run(flash, cut, true)
    }

    fn run(&self, flash: &mut [u8], cut: Option<Cut>, wants_newer: bool) -> (Result<Settled, StartError>, bool) {
        let mut blocks: Blocks = [const { Block::new() }; 16];
        let driver = RefCell::new(SimFlash::new(flash, cut));
        let settled = start(&driver, vendor().public(), &mut Buffers::new(), &mut blocks, wants_newer, &mut |_, _| {});
        let is_cut = driver.borrow().is_cut();
        (settled, is_cut)
    }

    pub fn heals(&self, flash: &mut [u8]) -> bool {
        self.start(flash, None).0.is_ok() && flash[application()] == self.flash[application()]
    }

    /// Seals `image` into a backup slot; whether it was cut.
    pub fn seal_backup(
        &self,
        flash: &mut [u8],
        slot: SlotName,
        generation: u64,
        image: &[u8],
        cut: Option<Cut>,
    ) -> bool {
        let index = Index::layout([(PLATFORM, image.len() as u64)].into_iter()).unwrap();
        let mut images = [image];
        self.seal(flash, slot, generation, &mut BackupBody::new(index, &mut images).unwrap(), cut)
    }

    /// Seals a record that states the floors of `trailer`.
    pub fn raise_floors(&self, flash: &mut [u8], generation: u64, trailer: &[u8]) {
        let mut record = VersionRecord::new(self.identity.device_id);
        record.backup_generation = generation;
        record.statement = trailer;
        let mut bytes = [0; RECORD_BYTES];
        let mut encoded = record.encode(&mut bytes).unwrap();
        assert!(!self.seal(flash, SlotName::RecordA, generation, &mut encoded, None));
    }

    fn seal(&self, flash: &mut [u8], slot: SlotName, generation: u64, body: &mut dyn Body, cut: Option<Cut>) -> bool {
        let driver = RefCell::new(SimFlash::new(flash, cut));
        let mut segment = [0; segment_buffer_bytes(SEGMENT_LOG2)];
        let write = slot::Write { kind: slot.kind(), generation, identity: &self.identity, segment_log2: SEGMENT_LOG2 };
        let zone = LAYOUT.hidden.of(FlashZone::new(&driver)).unwrap();
        let mut hidden = HiddenZone::new(zone, LAYOUT.align_bytes.into()).unwrap();
        let written = write.write(&mut hidden.slot(slot).unwrap(), body, &mut segment);
        let is_cut = driver.borrow().is_cut();
        assert_eq!(written.is_err(), is_cut);
        is_cut
    }
}

pub fn application() -> std::ops::Range<usize> {
    let start = LAYOUT.application.start as usize;
    start..start + LAYOUT.application.length as usize
}

/// Where a backup slot's bytes are on the flash.
pub fn backup(slot: SlotName) -> std::ops::Range<usize> {
    let records = 2 * LAYOUT.align_bytes as usize;
    let length = (LAYOUT.hidden.length as usize - records) / 2;
    let start = LAYOUT.hidden.start as usize + records + if slot == SlotName::BackupB { length } else { 0 };
    start..start + length
}
