//! The same start on a computer, cut deeper than the emulated processor has time for; and what the application itself
//! writes into the hidden zone on flash.

use std::cell::RefCell;

use argon2::Block;
use bootstrap_core::region::Settled;
use firmware_image::backup::{BackupBody, Index};
use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES, Policies, Profile, WrappedContentKey};
use firmware_image::flash::FlashZone;
use firmware_image::hidden::{HiddenZone, SlotName};
use firmware_image::key_slot::Identity;
use firmware_image::places::Memory;
use firmware_image::region;
use firmware_image::region::factory::Factory;
use firmware_image::seal::Secret;
use firmware_image::signature::SigningKey;
use firmware_image::slot::{self, Kind, segment_buffer_bytes};
use firmware_image::updater_image::{
    Floors, KeyCertificate, MAX_TRAILER_BYTES, Statement, UpdaterVersion, make_trailer,
};
use holdfast_device::flash::{Cut, SimFlash, Tear};
use holdfast_device::start::{Blocks, Buffers, StartError, start};
use holdfast_device::table::{FLASH_BYTES, LAYOUT, PLATFORM, RECORD_BYTES, SEGMENT_LOG2, UNLOCK_COST};

const PRODUCT: &str = "Pump Controller";

struct World {
    vendor: SigningKey,
    identity: Identity,
    flash: Vec<u8>,
}

fn image(minor: u16, length: usize) -> Vec<u8> {
    let mut image: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8 ^ minor as u8).collect();
    let vendor = SigningKey::from_seed(&[1; 32]);
    let updater = SigningKey::from_seed(&[2; 32]);
    let certificate = KeyCertificate::issue(&vendor, 1, updater.public());
    let version = UpdaterVersion { major: 1, minor, patch: 0 };
    let statement = Statement { product: PRODUCT, platform: PLATFORM, version, floors: Floors::default() };
    let mut trailer = [0; MAX_TRAILER_BYTES];
    let trailer = make_trailer(&image, &statement, &certificate, &updater, &mut trailer).unwrap().to_vec();
    image.extend(trailer);
    image
}

/// A device as the factory writes it, on flash itself.
fn world(application: &[u8]) -> World {
    let vendor = SigningKey::from_seed(&[1; 32]);
    let secret = Secret::new([3; 32]);
    let config = DeviceConfig {
        product: PRODUCT,
        channel: "stable",
        profile: Profile::Region,
        align_bytes: LAYOUT.align_bytes,
        servers: Default::default(),
        client_commands: Default::default(),
        root: &[],
        product_secret: *secret.expose(),
        content_key: WrappedContentKey::wrap(1, &Secret::new([4; 32]), &secret),
        policies: Policies::default(),
    };
    let mut signed = vec![0; MAX_CONFIG_BYTES];
    let config = config.sign(&vendor, &mut signed).unwrap();
    let mut blocks = [const { Block::new() }; 16];
    let mut segment = [0; segment_buffer_bytes(SEGMENT_LOG2)];
    let identity = Identity::mint(&std::array::from_fn(|i| i as u8), UNLOCK_COST, &secret, &mut blocks).unwrap();
    let mut flash = vec![0; FLASH_BYTES as usize];
    {
        let driver = RefCell::new(SimFlash::new(&mut flash, None));
        let factory = Factory {
            layout: LAYOUT,
            config,
            platform: PLATFORM,
            application,
            identity: &identity,
            segment_log2: SEGMENT_LOG2,
        };
        let mut memory = Memory { blocks: &mut blocks, segment: &mut segment };
        factory.write(&mut FlashZone::new(&driver), &mut memory, &mut [0; RECORD_BYTES]).unwrap();
    }
    World { vendor, identity, flash }
}

impl World {
    /// A start; with it, whether it was cut.
    fn start(&self, flash: &mut [u8], cut: Option<Cut>) -> (Result<Settled, StartError>, bool) {
        let mut blocks: Blocks = [const { Block::new() }; 16];
        let driver = RefCell::new(SimFlash::new(flash, cut));
        let settled = start(&driver, self.vendor.public(), &mut Buffers::new(), &mut blocks, &mut |_, _| {});
        let is_cut = driver.borrow().is_cut();
        (settled, is_cut)
    }

    fn heals(&self, flash: &mut [u8]) -> bool {
        self.start(flash, None).0.is_ok() && flash[application()] == self.flash[application()]
    }
}

fn application() -> std::ops::Range<usize> {
    let start = LAYOUT.application.start as usize;
    start..start + LAYOUT.application.length as usize
}

#[test]
fn a_sound_device_is_not_written_to() {
    let world = world(&image(0, 5000));
    let mut flash = world.flash.clone();
    let (settled, _) = world.start(&mut flash, None);
    assert_eq!(settled.unwrap().restored_from, None);
    assert!(flash == world.flash);
}

#[test]
fn a_restore_heals_after_a_cut_at_any_write_and_a_cut_in_the_recovery() {
    // A bit of a block and a page more than one.
    let world = world(&image(0, 5000));
    let mut damaged = world.flash.clone();
    damaged[application()].fill(0xff);
    let step = if std::env::var_os("HOLDFAST_FULL").is_some() { 1 } else { 5 };
    let (mut once, mut twice) = (0, 0);
    'first: for at in 0.. {
        for tear in Tear::ALL {
            let mut cut = damaged.clone();
            if !world.start(&mut cut, Some(Cut { at, tear })).1 {
                break 'first;
            }
            once += 1;
            let mut healed = cut.clone();
            assert!(world.heals(&mut healed), "cut at {at} ({tear:?})");
            for second in (at % step..).step_by(step as usize) {
                let mut again = cut.clone();
                let tear_again = Tear::ALL[(second % 3) as usize];
                if !world.start(&mut again, Some(Cut { at: second, tear: tear_again })).1 {
                    break;
                }
                twice += 1;
                assert!(world.heals(&mut again), "cut at {at} ({tear:?}), then at {second} ({tear_again:?})");
            }
        }
    }
    assert!(once > 50 && twice > once, "{once} cuts, {twice} twice");
    eprintln!("{once} states after one cut, {twice} after two, all healed");
}

/// What an application does that has received its successor: the older backup slot, then its own region given up.
fn install(world: &World, flash: &mut [u8], next: &[u8], cut: Option<Cut>) -> bool {
    let driver = RefCell::new(SimFlash::new(flash, cut));
    let zone = || FlashZone::new(&driver);
    let mut segment = [0; segment_buffer_bytes(SEGMENT_LOG2)];
    let write =
        slot::Write { kind: Kind::Backup, generation: 2, identity: &world.identity, segment_log2: SEGMENT_LOG2 };
    let index = Index::layout([(PLATFORM, next.len() as u64)].into_iter()).unwrap();
    let mut images = [next];
    let mut body = BackupBody::new(index, &mut images).unwrap();
    let mut hidden = HiddenZone::new(LAYOUT.hidden.of(zone()).unwrap(), LAYOUT.align_bytes.into()).unwrap();
    let _ = write
        .write(&mut hidden.slot(SlotName::BackupB).unwrap(), &mut body, &mut segment)
        .map_err(|_| ())
        .and_then(|_| region::remove(&mut LAYOUT.application.of(zone()).unwrap()).map_err(|_| ()));
    driver.borrow().is_cut()
}

#[test]
fn an_update_leaves_the_old_application_or_the_new_one_at_any_cut() {
    let world = world(&image(0, 3000));
    let next = image(1, 4000);
    let mut states = 0;
    let mut newest = 0;
    'cuts: for at in 0.. {
        for tear in Tear::ALL {
            let mut flash = world.flash.clone();
            if !install(&world, &mut flash, &next, Some(Cut { at, tear })) {
                break 'cuts;
            }
            states += 1;
            let settled = world.start(&mut flash, None).0.unwrap();
            let version = settled.claim.version.minor;
            assert!(version == 1 || settled.restored_from.is_none(), "cut at {at} ({tear:?}): fell back without need");
            newest = newest.max(version);
        }
    }
    let mut flash = world.flash.clone();
    install(&world, &mut flash, &next, None);
    assert_eq!(world.start(&mut flash, None).0.unwrap().claim.version.minor, 1);
    assert!(states > 60 && newest == 1, "{states} states, version 1.{newest}.0");
}

#[test]
#[should_panic(expected = "programmed without being erased")]
fn the_simulated_flash_refuses_to_be_programmed_twice() {
    use embedded_storage::nor_flash::NorFlash as _;

    let mut bytes = vec![0xff; 4096];
    let mut flash = SimFlash::new(&mut bytes, None);
    flash.write(0, &[0; 8]).unwrap();
    let _ = flash.write(0, &[0; 8]);
}

#[test]
fn the_page_for_firmware_engineers_shows_the_code_that_is_tested() {
    let page = include_str!("../../../docs/embedding.md");
    let code = include_str!("../src/start.rs");
    let shown = page.split("```rust,ignore\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let lines: Vec<&str> = shown.lines().map(|line| line.split("  //").next().unwrap().trim()).collect();
    assert!(lines.len() > 10);
    for line in lines {
        assert!(code.contains(line), "not in start.rs: {line}");
    }
}
