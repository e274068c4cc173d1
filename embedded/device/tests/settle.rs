//! Which copy is written into the application's region, and when what stands there is left alone.

mod common;

use std::cell::RefCell;

use argon2::Block;
use bootstrap_core::device::{CopyFault, Product, Source};
use bootstrap_core::region::{NoCopy, Regions, Settled, settle};
use common::*;
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash};
use firmware_image::flash::FlashZone;
use firmware_image::hidden::{HiddenZone, SlotName};
use firmware_image::launcher_note::LauncherNote;
use firmware_image::places::{Memory, Place};
use firmware_image::region;
use firmware_image::slot::{SlotError, segment_buffer_bytes};
use firmware_image::storage::SliceReader;
use firmware_image::updater_image::Floors;
use firmware_image::{Digest, ZoneError};
use holdfast_device::flash::SimFlash;
use holdfast_device::start::Blocks;
use holdfast_device::table::{FLASH_BYTES, LAYOUT, PLATFORM, RECORD_BYTES, SEGMENT_LOG2};

const BACKUP_A: Source = Source::Backup(Place::Hidden(SlotName::BackupA));
const BACKUP_B: Source = Source::Backup(Place::Hidden(SlotName::BackupB));

/// Flash whose erases and writes fail now and then, and do nothing then.
struct Flaky<'m> {
    flash: SimFlash<'m>,
    operations: u32,
    fails: fn(u32, u32) -> bool,
    at: u32,
}

impl Flaky<'_> {
    fn operate(&mut self) -> Result<(), NorFlashErrorKind> {
        self.operations += 1;
        if (self.fails)(self.operations - 1, self.at) { Err(NorFlashErrorKind::Other) } else { Ok(()) }
    }
}

impl ErrorType for Flaky<'_> {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Flaky<'_> {
    const READ_SIZE: usize = 1;
    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        self.flash.read(offset, bytes).map_err(|_| NorFlashErrorKind::Other)
    }
    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl NorFlash for Flaky<'_> {
    const WRITE_SIZE: usize = SimFlash::WRITE_SIZE;
    const ERASE_SIZE: usize = SimFlash::ERASE_SIZE;
    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        self.operate()?;
        self.flash.erase(from, to).map_err(|_| NorFlashErrorKind::Other)
    }
    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        self.operate()?;
        self.flash.write(offset, bytes).map_err(|_| NorFlashErrorKind::Other)
    }
}

/// What a decision was, what it was told on the way, and how often the flash was erased or written to.
struct Decision {
    settled: Result<Settled, NoCopy>,
    faults: Vec<(Source, CopyFault)>,
    operations: u32,
}

fn decide(flash: &mut [u8], failed: &[Digest], fails: fn(u32, u32) -> bool, at: u32) -> Decision {
    let driver = RefCell::new(Flaky { flash: SimFlash::new(flash, None), operations: 0, fails, at });
    let mut blocks: Blocks = [const { Block::new() }; 16];
    let mut segment = [0; segment_buffer_bytes(SEGMENT_LOG2)];
    let zone = || FlashZone::new(&driver);
    let regions = Regions {
        hidden: HiddenZone::new(LAYOUT.hidden.of(zone()).unwrap(), LAYOUT.align_bytes.into()).ok(),
        factory: LAYOUT.factory.of(zone()).unwrap(),
        application: LAYOUT.application.of(zone()).unwrap(),
        memory: Memory { blocks: &mut blocks, segment: &mut segment },
    };
    let product = Product { vendor: vendor().public(), name: PRODUCT, platform: PLATFORM, secret: secret() };
    let mut note = LauncherNote::default();
    failed.iter().for_each(|digest| note.add_failed(*digest));
    let mut faults = Vec::new();
    let on_fault = &mut |source, fault| faults.push((source, fault));
    let settled = settle(&product, regions, &note, &mut [0; RECORD_BYTES], false, on_fault);
    Decision { settled, faults, operations: driver.into_inner().operations }
}

fn never(_: u32, _: u32) -> bool {
    false
}

/// Version 1.0.0 everywhere but in the application's region, where 1.1.0 stands.
fn newer_application() -> (World, Vec<u8>) {
    let world = world(&image(0, 9000));
    let mut flash = world.flash.clone();
    put_application(&mut flash, &image(1, 9000));
    (world, flash)
}

fn put_application(flash: &mut [u8], image: &[u8]) {
    let driver = RefCell::new(SimFlash::new(flash, None));
    let mut zone = LAYOUT.application.of(FlashZone::new(&driver)).unwrap();
    region::write(&mut zone, &mut SliceReader::new(image), image.len() as u64).unwrap();
}

/// The digest by which version 1.`minor`.0 of 9,000 bytes is noted.
fn digest(minor: u16) -> Digest {
    Digest::of(&signed(minor, 9000, Floors::default()).0)
}

/// Damages every copy in the middle, where no trailer tells it.
fn damage_copies(flash: &mut [u8]) {
    for slot in [SlotName::BackupA, SlotName::BackupB] {
        flash[backup(slot).start + 4096 + 4200] ^= 1;
    }
    flash[LAYOUT.factory.start as usize + 4000] ^= 1;
}

#[test]
fn a_failing_application_is_replaced_by_a_copy_that_does_not_fail() {
    let (_, mut flash) = newer_application();
    let decision = decide(&mut flash, &[digest(1)], never, 0);
    let settled = decision.settled.unwrap();
    assert_eq!((settled.claim.version, settled.restored_from), (version(0), Some(BACKUP_A)));
}

#[test]
fn a_failing_application_is_not_given_up_for_copies_that_are_damaged() {
    let (_, mut flash) = newer_application();
    damage_copies(&mut flash);
    let before = flash.clone();
    let decision = decide(&mut flash, &[digest(1)], never, 0);
    let settled = decision.settled.unwrap();
    assert_eq!((settled.claim.version, settled.restored_from, settled.recover), (version(1), None, false));
    assert!(flash == before && decision.operations == 0, "nothing is erased for a copy that is not whole");
    for source in [BACKUP_A, BACKUP_B, Source::Plain] {
        assert!(decision.faults.iter().any(|(at, _)| *at == source), "{source}: {:?}", decision.faults);
    }
}

#[test]
fn a_failing_application_is_not_given_up_for_an_older_one_that_fails_too() {
    let (_, mut flash) = newer_application();
    let decision = decide(&mut flash, &[digest(0), digest(1)], never, 0);
    let settled = decision.settled.unwrap();
    assert_eq!((settled.claim.version, settled.restored_from), (version(1), None));
    assert_eq!(decision.operations, 0);
}

#[test]
fn a_failing_application_runs_before_a_factory_copy_that_may_only_recover() {
    let (world, mut flash) = newer_application();
    world.raise_floors(&mut flash, 2, &signed(1, 9000, Floors { version: version(1), key_serial: 1 }).1);
    let decision = decide(&mut flash, &[digest(1)], never, 0);
    let settled = decision.settled.unwrap();
    assert_eq!((settled.claim.version, settled.restored_from, settled.recover), (version(1), None, false));
    // Without it, the factory's copy is all there is.
    flash[application()].fill(0xff);
    let settled = decide(&mut flash, &[digest(1)], never, 0).settled.unwrap();
    assert_eq!(
        (settled.claim.version, settled.restored_from, settled.recover),
        (version(0), Some(Source::Plain), true)
    );
}

#[test]
fn a_region_that_fails_once_gets_the_newest_copy_all_the_same() {
    let world = world(&image(0, 9000));
    let mut flash = world.flash.clone();
    world.seal_backup(&mut flash, SlotName::BackupB, 2, &image(1, 9000), None);
    flash[application()].fill(0xff);
    let mut failed = 0;
    for at in 0.. {
        let mut flash = flash.clone();
        let decision = decide(&mut flash, &[], |operation, at| operation == at, at);
        let settled = decision.settled.unwrap();
        assert_eq!((settled.claim.version, settled.restored_from), (version(1), Some(BACKUP_B)), "operation {at}");
        if decision.operations <= at {
            break;
        }
        failed += 1;
        let io = CopyFault::from(ZoneError::Io(0));
        assert_eq!(decision.faults.last(), Some(&(Source::Installed, io)), "operation {at}");
        assert!(decision.faults.iter().all(|(at, _)| *at != BACKUP_B), "{:?}", decision.faults);
    }
    assert!(failed > 30, "{failed} operations failed");
}

#[test]
fn a_region_that_cannot_be_written_is_told_as_such_and_no_copy_is_blamed() {
    let mut flash = world(&image(0, 9000)).flash;
    flash[application()].fill(0xff);
    let decision = decide(&mut flash, &[], |_, _| true, 0);
    assert_eq!(decision.settled, Err(NoCopy));
    let io = CopyFault::from(ZoneError::Io(0));
    assert_eq!(decision.faults.iter().filter(|fault| **fault == (Source::Installed, io)).count(), 6, "twice a copy");
    for source in [BACKUP_A, BACKUP_B, Source::Plain] {
        assert!(decision.faults.iter().all(|(at, _)| *at != source), "{source}: {:?}", decision.faults);
    }
}

#[test]
fn a_newer_copy_that_is_damaged_does_not_cost_the_sound_application() {
    let world = world(&image(0, 9000));
    let mut flash = world.flash.clone();
    world.seal_backup(&mut flash, SlotName::BackupB, 2, &image(1, 9000), None);
    flash[backup(SlotName::BackupB).start + 4096 + 4200] ^= 1;
    let settled = world.start_newest(&mut flash, None).0.unwrap();
    assert_eq!((settled.claim.version, settled.restored_from), (version(0), None));
    assert!(flash[application()] == world.flash[application()]);
}

/// A device that has updated itself to 1.1.0, which states `floors`; its application and backup B are lost then.
fn updated_and_damaged(floors: Floors, renews_other_backup: bool) -> Settled {
    let world = world(&image(0, 9000));
    let mut flash = world.flash.clone();
    let (next, trailer) = signed(1, 9000, floors);
    let next = [next, trailer.clone()].concat();
    world.seal_backup(&mut flash, SlotName::BackupB, 2, &next, None);
    assert_eq!(world.start_newest(&mut flash, None).0.unwrap().claim.version, version(1));
    if renews_other_backup {
        world.seal_backup(&mut flash, SlotName::BackupA, 3, &next, None);
    }
    world.raise_floors(&mut flash, 3, &trailer);
    flash[application()].fill(0xff);
    flash[backup(SlotName::BackupB)].fill(0xff);
    world.start(&mut flash, None).0.unwrap()
}

#[test]
fn older_ones_are_below_the_floor_if_the_image_says_so() {
    let floors = Floors { version: version(1), key_serial: 1 };
    let settled = updated_and_damaged(floors, false);
    assert_eq!((settled.restored_from, settled.recover), (Some(Source::Plain), true), "backup A is too old");
    let settled = updated_and_damaged(floors, true);
    assert_eq!((settled.claim.version, settled.restored_from), (version(1), Some(BACKUP_A)));
    let settled = updated_and_damaged(Floors::default(), false);
    assert_eq!((settled.claim.version, settled.restored_from, settled.recover), (version(0), Some(BACKUP_A), false));
}

#[test]
fn the_factory_refuses_a_configuration_that_says_another_boundary_than_the_table() {
    let mut flash = vec![0; FLASH_BYTES as usize];
    let refused = make(&mut flash, &config(2 * LAYOUT.align_bytes), &image(0, 3000), &identity());
    assert_eq!(refused, Err(SlotError::Malformed));
    assert!(flash.iter().all(|byte| *byte == 0), "nothing is written");
}
