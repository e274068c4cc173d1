//! The same start on a computer, cut deeper than the emulated processor has time for; and what the application itself
//! writes into the hidden zone on flash.

mod common;

use common::*;
use firmware_image::hidden::SlotName;
use firmware_image::sim::figures;
use holdfast_device::flash::{Cut, SimFlash, Tear};

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
    figures::count(figures::CUT_STATES, "a restore on flash", once + twice, 0);
}

#[test]
fn an_update_leaves_the_old_application_or_the_new_one_at_any_cut() {
    let world = world(&image(0, 3000));
    let next = image(1, 4000);
    let (mut sealing, mut installing) = (0, 0);
    'seal: for at in 0.. {
        for tear in Tear::ALL {
            let mut flash = world.flash.clone();
            if !world.seal_backup(&mut flash, SlotName::BackupB, 2, &next, Some(Cut { at, tear })) {
                break 'seal;
            }
            sealing += 1;
            assert!(flash[application()] == world.flash[application()], "the application stands where it stood");
            let settled = world.start(&mut flash.clone(), None).0.unwrap();
            assert_eq!((settled.claim.version.minor, settled.restored_from), (0, None), "cut at {at} ({tear:?})");
            // Asked for all the same: the slot has no header, or all of it.
            assert!(world.start_newest(&mut flash, None).0.unwrap().claim.version.minor <= 1);
        }
    }
    let mut sealed = world.flash.clone();
    assert!(!world.seal_backup(&mut sealed, SlotName::BackupB, 2, &next, None));
    'install: for at in 0.. {
        for tear in Tear::ALL {
            let mut flash = sealed.clone();
            if !world.start_newest(&mut flash, Some(Cut { at, tear })).1 {
                break 'install;
            }
            installing += 1;
            let settled = world.start(&mut flash, None).0.unwrap();
            let begun = flash[application()] != sealed[application()];
            assert_eq!(settled.claim.version.minor, u16::from(begun), "cut at {at} ({tear:?}): fell back without need");
        }
    }
    let settled = world.start(&mut sealed.clone(), None).0.unwrap();
    assert_eq!((settled.claim.version.minor, settled.restored_from), (0, None), "nobody asked");
    assert_eq!(world.start_newest(&mut sealed, None).0.unwrap().claim.version.minor, 1);
    assert!(sealing > 30 && installing > 30, "{sealing} cuts while sealing, {installing} while installing");
    figures::count(figures::CUT_STATES, "an update on flash", sealing + installing, 0);
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
