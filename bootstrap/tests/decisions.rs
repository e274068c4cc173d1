//! The launcher's table, row by row, over real directories and real hidden zones.

mod support;

use bootstrap::Source;
use bootstrap::device::{CopyFault, Product, Stored};
use bootstrap::report::Event;
use bootstrap::restore::RestoreError;
use bootstrap::verified::{LoadError, RunPlace, VerifiedCopy};
use firmware_image::ZoneError;
use firmware_image::hidden::SlotName;
use firmware_image::places::Place;
use firmware_image::signature::SigningKey;
use firmware_image::storage::SliceReader;
use firmware_image::updater_image::{Floors, ImageError, MAX_IMAGE_BYTES};
use support::{Device, Fate, Launched, Maker, Mounted, body, digest_of, image, version};

const A: Source = Source::Backup(Place::Hidden(SlotName::BackupA));
const B: Source = Source::Backup(Place::Hidden(SlotName::BackupB));
const MIRROR: Source = Source::Backup(Place::BackupMirror);

fn ready(device: &Device) -> Launched {
    device.launch(|_| Fate::Ready)
}

fn floor(text: &str, key_serial: u32) -> Floors {
    Floors { version: version(text), key_serial }
}

fn fault(launched: &Launched, wanted: Source) -> Option<CopyFault> {
    launched.events.iter().find_map(|event| match event {
        Event::Unusable { source, fault } if *source == wanted => Some(*fault),
        _ => None,
    })
}

#[test]
fn a_sound_updater_runs_and_not_one_byte_or_time_changes() {
    let device = Device::from_factory(&image("1.0.0"));
    let before = device.everything();
    let launched = ready(&device);
    assert_eq!(launched.runs.len(), 1);
    assert_eq!(launched.last().source, Source::Installed);
    assert!(!launched.last().recover);
    assert!(launched.events.is_empty(), "{:?}", launched.events);
    assert_eq!(device.everything(), before);
}

#[test]
fn a_sound_updater_older_than_its_backups_still_runs_if_the_floors_allow_it() {
    let device = Device::from_factory(&image("1.1.0"));
    device.install(&image("1.0.0"));
    let before = device.everything();
    assert_eq!(ready(&device).last().bytes, image("1.0.0"));
    assert_eq!(device.everything(), before);
}

#[test]
fn a_missing_updater_is_restored_from_the_newest_backup() {
    let device = Device::from_factory(&image("1.0.0"));
    device.backup(SlotName::BackupB, 3, &image("1.2.0"));
    std::fs::remove_file(device.installed_path()).unwrap();
    let launched = ready(&device);
    assert_eq!(launched.restored_from(), Some(B));
    assert_eq!(fault(&launched, Source::Installed), Some(CopyFault::Missing));
    assert_eq!(device.installed().unwrap(), image("1.2.0"));
    assert_eq!(launched.last().bytes, image("1.2.0"));
    assert!(!launched.events.iter().any(|event| matches!(event, Event::Recovery { .. })), "{:?}", launched.events);
    assert!(!device.free.join("updater-linux-x86_64.new").exists());
    let before = device.everything();
    assert!(ready(&device).events.is_empty());
    assert_eq!(device.everything(), before, "a healed device is a sound one");
}

#[test]
fn versions_are_compared_as_numbers_and_equal_ones_are_taken_in_the_order_of_places() {
    let device = Device::from_factory(&image("1.9.0"));
    device.mirror_backup(9, &image("1.10.0"));
    device.plain(&image("1.10.0"));
    std::fs::remove_file(device.installed_path()).unwrap();
    assert_eq!(ready(&device).restored_from(), Some(MIRROR));
    device.backup(SlotName::BackupB, 1, &image("1.10.0"));
    std::fs::remove_file(device.installed_path()).unwrap();
    assert_eq!(ready(&device).restored_from(), Some(B));
}

#[test]
fn a_damaged_backup_is_passed_over_wherever_it_is_damaged() {
    for offset in [0, 4092, 4096, 9000, 15_000] {
        let device = Device::from_factory(&image("1.0.0"));
        device.backup(SlotName::BackupA, 5, &image("1.2.0"));
        device.scribble(SlotName::BackupA, offset, 16);
        std::fs::remove_file(device.installed_path()).unwrap();
        let launched = ready(&device);
        assert_eq!(launched.restored_from(), Some(B), "at {offset}: {:?}", launched.events);
        assert!(matches!(fault(&launched, A), Some(CopyFault::Slot(_))), "{:?}", launched.events);
        assert_eq!(device.installed().unwrap(), image("1.0.0"));
    }
}

#[test]
fn a_sound_updater_that_this_computer_does_not_take_stays_while_an_older_one_runs() {
    let device = Device::from_factory(&image("1.1.0"));
    device.backup(SlotName::BackupB, 3, &image("1.0.0"));
    let launched = device.launch_only(&image("1.0.0"));
    assert_eq!((launched.last().source, launched.last().bytes.as_slice()), (B, image("1.0.0").as_slice()));
    assert_eq!(launched.restored_from(), None);
    assert_eq!(fault(&launched, Source::Installed), Some(CopyFault::NoRoomToRun(ZoneError::Denied)));
    assert_eq!(device.installed().unwrap(), image("1.1.0"));

    // One that is damaged as well is healed from what runs here.
    let mut infected = image("1.1.0");
    infected[100] ^= 1;
    device.install(&infected);
    assert_eq!(device.launch_only(&image("1.0.0")).restored_from(), Some(B));
    assert_eq!(device.installed().unwrap(), image("1.0.0"));
}

#[test]
fn with_both_backups_damaged_the_mirror_heals_and_then_the_virtual_zone() {
    let device = Device::from_factory(&image("1.0.0"));
    device.scribble(SlotName::BackupA, 0, 4096);
    device.scribble(SlotName::BackupB, 0, 4096);
    std::fs::remove_file(device.installed_path()).unwrap();
    assert_eq!(ready(&device).restored_from(), Some(MIRROR));
    std::fs::remove_dir_all(&device.free).unwrap();
    std::fs::create_dir(&device.free).unwrap();
    assert_eq!(ready(&device).restored_from(), Some(Source::Plain));
    assert_eq!(device.installed().unwrap(), image("1.0.0"));
}

#[test]
fn a_device_whose_hidden_zone_is_wiped_or_missing_heals_from_what_is_left() {
    let device = Device::from_factory(&image("1.0.0"));
    std::fs::remove_file(device.installed_path()).unwrap();
    device.make_hidden(64 << 10);
    assert_eq!(ready(&device).restored_from(), Some(MIRROR));
    std::fs::remove_file(device.installed_path()).unwrap();
    std::fs::remove_file(&device.hidden).unwrap();
    let launched = ready(&device);
    assert_eq!(launched.restored_from(), Some(MIRROR));
    assert_eq!(fault(&launched, A), Some(CopyFault::OutOfReach));
}

#[test]
fn foreign_updaters_never_run_and_are_replaced() {
    let other_product = Maker { product: "other", ..Maker::new("9.0.0") }.make(&body("x"));
    let other_vendor = Maker { vendor_seed: 9, ..Maker::new("9.0.0") }.make(&body("x"));
    let other_platform = Maker { platform: "windows-x86_64", ..Maker::new("9.0.0") }.make(&body("x"));
    for (foreign, why) in [
        (other_product, ImageError::WrongProduct),
        (other_vendor, ImageError::ForeignKey),
        (other_platform, ImageError::WrongPlatform),
        (b"#!/bin/sh\nexit 0\n".to_vec(), ImageError::NoTrailer),
        (Vec::new(), ImageError::NoTrailer),
    ] {
        let device = Device::from_factory(&image("1.0.0"));
        device.install(&foreign);
        // Not even as a backup or in the virtual zone.
        device.backup(SlotName::BackupA, 7, &foreign);
        device.plain(&foreign);
        let launched = ready(&device);
        assert_eq!(fault(&launched, Source::Installed), Some(CopyFault::Image(why)));
        assert_eq!(launched.restored_from(), Some(B));
        assert_eq!(launched.runs.len(), 1);
        assert_eq!(device.installed().unwrap(), image("1.0.0"));
    }
}

#[test]
fn an_updater_below_the_floor_is_replaced_by_one_above_it() {
    let floored = Maker { floors: floor("1.1.0", 0), ..Maker::new("1.1.0") }.make(&body("1.1.0"));
    let device = Device::from_factory(&image("1.0.0"));
    device.backup(SlotName::BackupB, 3, &floored);
    device.record(SlotName::RecordB, 2, &floored);
    let launched = ready(&device);
    let below = CopyFault::Image(ImageError::BelowFloor(version("1.0.0")));
    assert_eq!(fault(&launched, Source::Installed), Some(below));
    assert_eq!(fault(&launched, A), Some(below));
    assert_eq!(launched.restored_from(), Some(B));
    assert_eq!(device.installed().unwrap(), floored);
}

#[test]
fn an_updater_signed_by_a_key_left_behind_is_replaced() {
    let floored = Maker { floors: floor("1.0.0", 2), key_serial: 2, ..Maker::new("1.0.0") }.make(&body("1.0.0"));
    let device = Device::from_factory(&image("1.5.0"));
    device.backup(SlotName::BackupA, 3, &floored);
    device.record(SlotName::RecordB, 2, &floored);
    assert_eq!(ready(&device).restored_from(), Some(A));
    assert_eq!(device.installed().unwrap(), floored);
}

#[test]
fn with_only_copies_below_the_floor_the_factory_copy_runs_to_recover_and_nothing_is_installed() {
    let floored = Maker { floors: floor("2.0.0", 0), ..Maker::new("2.0.0") }.make(&body("2.0.0"));
    let device = Device::from_factory(&image("1.0.0"));
    device.record(SlotName::RecordB, 2, &floored);
    device.install(&image("1.1.0"));
    let before = device.everything();
    let launched = ready(&device);
    assert_eq!(launched.runs.len(), 1);
    assert_eq!((launched.last().source, launched.last().recover), (Source::Plain, true));
    assert!(launched.events.contains(&Event::Recovery { version: version("1.0.0"), from: Source::Plain }));
    assert_eq!(device.everything(), before);
}

#[test]
fn below_the_floor_and_without_a_factory_copy_nothing_runs() {
    let floored = Maker { floors: floor("2.0.0", 0), ..Maker::new("2.0.0") }.make(&body("2.0.0"));
    let device = Device::from_factory(&image("1.0.0"));
    device.record(SlotName::RecordB, 2, &floored);
    std::fs::remove_file(device.plain_path()).unwrap();
    assert!(ready(&device).runs.is_empty());
}

#[test]
fn floors_come_from_the_mirror_when_both_records_are_damaged() {
    let floored = Maker { floors: floor("1.1.0", 0), ..Maker::new("1.1.0") }.make(&body("1.1.0"));
    let device = Device::from_factory(&image("1.0.0"));
    device.backup(SlotName::BackupA, 3, &floored);
    device.mirror_record(4, &floored);
    device.scribble(SlotName::RecordA, 0, 4096);
    device.scribble(SlotName::RecordB, 0, 4096);
    let launched = ready(&device);
    assert_eq!(launched.last().bytes, floored);
    assert!(!launched.events.contains(&Event::NoRecord));
}

#[test]
fn a_forged_statement_raises_no_floor() {
    let forged =
        Maker { vendor_seed: 9, key_serial: 9, floors: floor("9.0.0", 9), ..Maker::new("9.0.0") }.make(&body("x"));
    let device = Device::from_factory(&image("1.0.0"));
    device.record(SlotName::RecordB, 2, &forged);
    assert_eq!(ready(&device).last().source, Source::Installed);
}

#[test]
fn records_that_cannot_be_read_set_no_floors_and_are_reported() {
    let device = Device::from_factory(&image("1.0.0"));
    for damage in [0, 4096] {
        device.record(SlotName::RecordA, 5, &[]);
        device.scribble(SlotName::RecordA, damage, 64);
        device.scribble(SlotName::RecordB, 0, 64);
        let launched = ready(&device);
        assert_eq!(launched.last().source, Source::Installed);
        assert_eq!(launched.events, [Event::NoRecord], "damage at {damage}");
    }
}

#[test]
fn an_updater_that_will_not_start_gives_way_to_each_other_digest_once_newest_first() {
    let device = Device::from_factory(&image("1.0.0"));
    device.install(&image("1.3.0"));
    device.backup(SlotName::BackupA, 3, &image("1.2.0"));
    device.mirror_backup(4, &image("1.2.0"));
    let launched = device.launch(|_| Fate::Crash);
    let ran: Vec<_> = launched.runs.iter().map(|run| (run.source, run.bytes.clone())).collect();
    let wanted = [(Source::Installed, image("1.3.0")), (A, image("1.2.0")), (B, image("1.0.0"))];
    assert_eq!(ran, wanted);
    assert_eq!(device.installed().unwrap(), image("1.3.0"), "nothing is installed that did not start");
    for failed in ["1.3.0", "1.2.0", "1.0.0"] {
        assert!(device.note().has_failed(&digest_of(&image(failed))));
    }
}

#[test]
fn the_copy_that_starts_takes_the_place_of_the_one_that_would_not_which_is_noted() {
    let device = Device::from_factory(&image("1.0.0"));
    device.install(&image("1.3.0"));
    let bad = digest_of(&image("1.3.0"));
    let fate = |start: &bootstrap::decide::Start<support::Bytes>| {
        if start.copy.claim().digest == bad { Fate::Crash } else { Fate::Ready }
    };
    let launched = device.launch(fate);
    assert_eq!(launched.runs.len(), 2);
    assert_eq!(launched.restored_from(), Some(A));
    assert_eq!(device.installed().unwrap(), image("1.0.0"));
    assert!(device.note().has_failed(&bad));
    let before = device.everything();
    assert_eq!(ready(&device).runs.len(), 1);
    assert_eq!(device.everything(), before);
}

#[test]
fn a_digest_noted_as_failing_is_not_tried_first_nor_installed_again() {
    let device = Device::from_factory(&image("1.0.0"));
    device.install(&image("1.3.0"));
    device.backup(SlotName::BackupA, 3, &image("1.3.0"));
    device.launch(|_| Fate::Crash);
    // 1.0.0 failed as well, and both are noted; a new copy arrives.
    device.backup(SlotName::BackupB, 4, &image("1.1.0"));
    let launched = ready(&device);
    assert_eq!(launched.runs.len(), 1);
    assert_eq!(launched.restored_from(), Some(B));
    assert_eq!(device.installed().unwrap(), image("1.1.0"));
    assert_eq!(fault(&launched, Source::Installed), Some(CopyFault::FailedBefore(version("1.3.0"))));
}

#[test]
fn when_only_noted_copies_are_left_they_get_another_chance_and_are_taken_off_the_note() {
    let device = Device::from_factory(&image("1.0.0"));
    device.launch(|_| Fate::Crash);
    assert!(device.note().has_failed(&digest_of(&image("1.0.0"))));
    let launched = ready(&device);
    assert_eq!(launched.runs.len(), 1);
    assert!(!device.note().has_failed(&digest_of(&image("1.0.0"))));
    assert!(ready(&device).events.is_empty());
}

#[test]
fn nothing_left_says_of_every_place_why() {
    let device = Device::new();
    let launched = ready(&device);
    assert!(launched.runs.is_empty());
    for source in Source::ALL {
        assert!(fault(&launched, source).is_some(), "{source} is not accounted for: {:?}", launched.events);
    }
}

#[test]
fn without_a_free_zone_the_verified_copy_runs_all_the_same() {
    let device = Device::from_factory(&image("1.0.0"));
    std::fs::remove_dir_all(&device.free).unwrap();
    let launched = ready(&device);
    assert_eq!(launched.last().source, A);
    let why = RestoreError::NoFreeZone;
    assert!(launched.events.contains(&Event::NotRestored { version: version("1.0.0"), from: A, why }));
}

#[test]
fn something_else_under_the_updaters_name_does_not_stop_the_verified_copy() {
    let device = Device::from_factory(&image("1.0.0"));
    std::fs::remove_file(device.installed_path()).unwrap();
    std::fs::create_dir_all(device.installed_path().join("a user's folder")).unwrap();
    let launched = ready(&device);
    assert_eq!(launched.last().bytes, image("1.0.0"));
    assert!(launched.events.iter().any(|event| matches!(event, Event::NotRestored { .. })));
    assert!(device.installed_path().join("a user's folder").exists());
}

#[test]
fn a_link_under_the_updaters_name_is_never_followed() {
    let device = Device::from_factory(&image("1.0.0"));
    let target = device.free.join("user.txt");
    std::fs::write(&target, "mine").unwrap();
    std::fs::remove_file(device.installed_path()).unwrap();
    std::os::unix::fs::symlink(&target, device.installed_path()).unwrap();
    ready(&device);
    assert_eq!(std::fs::read(&target).unwrap(), b"mine");
    assert_eq!(device.installed().unwrap(), image("1.0.0"));
    assert!(!device.installed_path().is_symlink());
}

#[test]
fn on_a_read_only_free_zone_the_verified_copy_runs_and_the_fault_is_reported() {
    let device = Device::from_factory(&image("1.0.0"));
    let Some(mounted) = Mounted::new(&device, 64, |device| device.install(b"damaged")) else { return };
    mounted.protect();
    let launched = ready(&device);
    assert_eq!(launched.last().bytes, image("1.0.0"));
    let why = RestoreError::Zone(ZoneError::ReadOnly);
    assert!(launched.events.contains(&Event::NotRestored { version: version("1.0.0"), from: A, why }));
    // A copy that will not start cannot be noted either; the next one runs.
    let launched = device.launch(|_| Fate::Crash);
    assert!(launched.events.contains(&Event::NotNoted(ZoneError::ReadOnly)), "{:?}", launched.events);
}

#[test]
fn on_a_full_free_zone_the_verified_copy_runs_and_nothing_is_left_half_written() {
    let device = Device::from_factory(&image("1.0.0"));
    let fill = |device: &Device| {
        let user = device.free.join("film.mkv");
        let mut file = std::fs::File::create(&user).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    };
    let Some(_mounted) = Mounted::new(&device, 64, fill) else { return };
    let launched = ready(&device);
    assert_eq!(launched.last().bytes, image("1.0.0"));
    let why = RestoreError::Zone(ZoneError::Full);
    // Once: what did not go before the start is not tried again behind it.
    let not_restored = Event::NotRestored { version: version("1.0.0"), from: A, why };
    assert_eq!(launched.events.iter().filter(|event| **event == not_restored).count(), 1, "{:?}", launched.events);
    assert!(why.to_string().contains("cannot be written"), "{why}");
    let names: Vec<_> = std::fs::read_dir(&device.free).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["film.mkv"]);
}

#[test]
fn a_free_zone_that_only_has_room_for_one_updater_is_healed_by_removing_the_damaged_one() {
    let device = Device::from_factory(&image("1.0.0"));
    let mut damaged = image("1.0.0");
    damaged[100] ^= 1;
    let fill = |device: &Device| device.install(&damaged);
    let Some(_mounted) = Mounted::new(&device, 36, fill) else { return };
    let launched = ready(&device);
    assert_eq!(launched.restored_from(), Some(A), "{:?}", launched.events);
    assert_eq!(device.installed().unwrap(), image("1.0.0"));
}

#[test]
fn what_may_run_elsewhere_is_not_removed_to_make_room() {
    let device = Device::from_factory(&image("1.0.0"));
    let foreign = Maker { product: "other-stick", ..Maker::new("1.0.0") }.make(&body("1.0.0"));
    let Some(_mounted) = Mounted::new(&device, 36, |device| device.install(&foreign)) else { return };
    let launched = ready(&device);
    assert_eq!(launched.last().bytes, image("1.0.0"));
    assert_eq!(fault(&launched, Source::Installed), Some(CopyFault::Image(ImageError::WrongProduct)));
    let why = RestoreError::Zone(ZoneError::Full);
    assert!(launched.events.contains(&Event::NotRestored { version: version("1.0.0"), from: A, why }));
    assert_eq!(device.installed().unwrap(), foreign);
}

/// A place that only notes how much it was to take.
#[derive(Default)]
struct Asked(Vec<u64>);

impl RunPlace for Asked {
    type Image = support::Bytes;

    fn load(&mut self, _: &mut dyn Stored, length: u64) -> Result<Self::Image, LoadError> {
        self.0.push(length);
        Err(LoadError::Place(ZoneError::Full))
    }
}

#[test]
fn no_place_is_asked_to_take_more_than_an_image_may_have() {
    let vendor = SigningKey::from_seed(&[1; 32]).public();
    let product = Product { vendor, name: support::PRODUCT, platform: support::PLATFORM, secret: support::secret() };
    let mut asked = Asked::default();
    for length in [MAX_IMAGE_BYTES - 1, MAX_IMAGE_BYTES, MAX_IMAGE_BYTES + 1, u64::MAX] {
        let fault = VerifiedCopy::load(&mut SliceReader::new(b""), length, &mut asked, &product).err();
        let too_long = fault == Some(ImageError::TooLong.into());
        assert_eq!(too_long, length > MAX_IMAGE_BYTES, "{length}: {fault:?}");
    }
    assert_eq!(asked.0, [MAX_IMAGE_BYTES - 1, MAX_IMAGE_BYTES]);
}
