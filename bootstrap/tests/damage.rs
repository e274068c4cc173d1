//! Damage at every place of the installed updater: it never runs, and is always replaced.

mod support;

use bootstrap::Source;
use firmware_image::updater_image::MAX_TRAILER_BYTES;
use support::{Device, Fate, image};

/// Launches with `damaged` installed and checks that only the sound image ran, and stands there now.
fn heals(device: &Device, sound: &[u8], damaged: &[u8], what: &str) {
    device.install(damaged);
    let launched = device.launch(|start| {
        assert_eq!(start.copy.bytes(), sound, "{what}: something else than the signed bytes ran");
        Fate::Ready
    });
    assert_eq!(launched.runs.len(), 1, "{what}");
    assert_ne!(launched.last().source, Source::Installed, "{what}");
    assert_eq!(device.installed().unwrap(), sound, "{what}");
}

#[test]
fn each_byte_of_the_trailer_flipped_never_runs_and_is_restored() {
    let sound = image("1.0.0");
    let device = Device::from_factory(&sound);
    let trailer_bytes = u32::from_le_bytes(sound[sound.len() - 8..sound.len() - 4].try_into().unwrap()) as usize;
    assert!(trailer_bytes < MAX_TRAILER_BYTES);
    for at in sound.len() - trailer_bytes..sound.len() {
        for bit in [0x01, 0x80] {
            let mut damaged = sound.clone();
            damaged[at] ^= bit;
            heals(&device, &sound, &damaged, &format!("byte {at} ^ {bit:#x}"));
        }
    }
}

#[test]
fn a_byte_in_every_page_of_the_executable_flipped_never_runs_and_is_restored() {
    let sound = image("1.0.0");
    let device = Device::from_factory(&sound);
    let ends = [0, 1, 19_999];
    for at in (0..20_000).step_by(512).map(|page| page + page % 509).chain(ends) {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        heals(&device, &sound, &damaged, &format!("byte {at}"));
    }
}

#[test]
fn truncated_at_any_length_it_never_runs_and_is_restored() {
    let sound = image("1.0.0");
    let device = Device::from_factory(&sound);
    let tail = sound.len() - 600..sound.len();
    for length in (0..sound.len()).step_by(611).chain(tail) {
        heals(&device, &sound, &sound[..length], &format!("{length} bytes left"));
    }
}

#[test]
fn lengthened_zeroed_or_random_it_never_runs_and_is_restored() {
    let sound = image("1.0.0");
    let device = Device::from_factory(&sound);
    let longer = |by: &[u8]| [&sound[..], by].concat();
    heals(&device, &sound, &longer(b"\0"), "a zero behind");
    heals(&device, &sound, &longer(&sound), "twice");
    heals(&device, &sound, &[b"x", &sound[..]].concat(), "a byte in front");
    heals(&device, &sound, &vec![0; sound.len()], "zeros");
    heals(&device, &sound, &support::body("random"), "random");
    let other = image("1.0.1");
    let trailer_of_other = [&sound[..20_000], &other[20_000..]].concat();
    heals(&device, &sound, &trailer_of_other, "another updater's trailer");
    let huge = std::fs::OpenOptions::new().write(true).open(device.installed_path()).unwrap();
    huge.set_len(3 << 40).unwrap();
    assert_eq!(device.launch(|_| Fate::Ready).runs.len(), 1);
    assert_eq!(device.installed().unwrap(), sound);
}

#[test]
fn damage_in_all_backups_but_one_still_heals_whichever_is_left() {
    use firmware_image::hidden::SlotName;
    let sound = image("1.0.0");
    let places = ["A", "B", "mirror", "plain"];
    for left in places {
        for offset in [0u64, 40, 4092, 4100, 12_345] {
            let device = Device::from_factory(&sound);
            for place in places.into_iter().filter(|place| *place != left) {
                match place {
                    "A" => device.scribble(SlotName::BackupA, offset, 7),
                    "B" => device.scribble(SlotName::BackupB, offset, 7),
                    "mirror" => damage(&device.free.join(firmware_image::paths::BACKUP_MIRROR), offset),
                    _ => damage(&device.plain_path(), offset),
                }
            }
            heals(&device, &sound, b"gone", &format!("only {left} is left, the others damaged at {offset}"));
        }
    }
}

fn damage(path: &std::path::Path, offset: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset as usize] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}
