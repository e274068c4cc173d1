//! A factory's `partition-tools write`, cut: every write to the device is recorded, and what a cut could have left is started as
//! if somebody had shipped it, and then written again.
//!
//! `HOLDFAST_CUTS=500` tries so many states, `HOLDFAST_FULL=1` all of them.

use std::fs;
use std::path::Path;

use firmware_image::sim::figures;
use qemu_tests::recorded_file::{self, RecordedFile};
use qemu_tests::replay::{Effort, Recording, State};
use qemu_tests::scene::{self, text};
use qemu_tests::sweep::{self, Sweep};
use qemu_tests::verdict::{Release, Verdict, tree_files};
use qemu_tests::world::{OLD, World};

/// States of each writing in each run.
const MOST: usize = 10;
/// The launcher's own statuses.
const STATUSES: std::ops::RangeInclusive<i32> = 64..=78;

/// `partition-tools write`, over whatever stands there.
fn write(image: &Path, target: &Path) {
    World::get().partition_tools(&["write", &text(image), "--to", &text(target), "--clone", "--force-fixed"]);
}

/// Some of the states, from the first to the last.
fn sample(states: Vec<State>, most: usize) -> Vec<State> {
    let every = states.len().div_ceil(most).max(1);
    states.into_iter().step_by(every).collect()
}

#[test]
fn a_device_whose_writing_is_cut_anywhere_runs_or_says_what_to_do_and_is_written_again() {
    if let Some(missing) = recorded_file::missing() {
        figures::skipped(&format!("{missing} is missing"));
        return;
    }
    let world = World::get();
    let dir = sweep::directory().unwrap();
    let [image, target, before, tried] =
        ["device.img", "target.img", "before.img", "tried.img"].map(|name| dir.path().join(name));
    scene::create(&image, &[]);
    let release = Release { version: OLD.into(), files: tree_files(&world.tree(OLD)).unwrap() };
    let verdict = Verdict::new(&image, vec![release], &world.programs.bootstrap_image, dir.path()).unwrap();
    let (mut tried_in_all, mut ran_in_all, mut wrong) = (0, 0, Vec::new());
    for over in ["an empty device", "another device"] {
        match over {
            "an empty device" => {
                let bytes = fs::metadata(&image).unwrap().len();
                fs::File::create(&target).unwrap().set_len(bytes).unwrap();
            }
            _ => {
                fs::remove_file(&target).unwrap();
                scene::create(&target, &[]);
                scene::put_users_files(&target, dir.path()).unwrap();
            }
        }
        fs::copy(&target, &before).unwrap();
        let recorded = RecordedFile::new(&target, dir.path()).unwrap();
        write(&image, &recorded.path);
        let recording = Recording::new(&before, recorded.finish().unwrap()).unwrap();
        scene::tell(&format!("writing over {over}"), &recording);
        assert_eq!(verdict.inspect(&target).unwrap(), OLD);

        let states = recording.states(&Effort::default());
        let (all, mut ran) = (states.len(), 0);
        let states = sample(states, Sweep::sized(MOST).most);
        for state in &states {
            recording.write_image(&recording.overlay(state).unwrap(), &tried).unwrap();
            let (status, said) = verdict.start_alone(&tried).unwrap();
            ran += usize::from(status == Some(0));
            let told = status.is_some_and(|status| STATUSES.contains(&status)) && !said.trim().is_empty();
            if status != Some(0) && !told {
                wrong.push(format!("{over}, {state}: the launcher ended with {status:?}:\n{said}"));
            }
            write(&image, &tried);
            match verdict.inspect(&tried) {
                Ok(version) if version == OLD => {
                    world.partition_tools(&["verify", &text(&tried)]);
                }
                other => wrong.push(format!("{over}, {state}, written again: {other:?}")),
            }
        }
        println!("writing over {over}: {} of {all} states tried, {ran} of them start", states.len());
        tried_in_all += states.len();
        ran_in_all += ran;
    }
    figures::count(figures::CUT_STATES, "writing of a device", tried_in_all, wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!((1..tried_in_all).contains(&ran_in_all), "{ran_in_all} of {tried_in_all} start");
}
