//! The numbers that `stats` gives are those of the files.

mod common;

use std::fs;
use std::process::Command;

use common::{NOW, Vendor, content, files, passphrase};
use release_store::gc::{Policy, collect};
use release_store::publish::{DeltaFrom, publish};
use release_store::repository::NoObserver;
use release_store::stats::{StoreStats, Way, stats};

/// Seven releases of a tree of which a little changes each time.
fn vendor() -> Vendor {
    let vendor = Vendor::new();
    let tree = vendor.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("fixed"), content(80_000, 1)).unwrap();
    let mut program = content(100_000, 2);
    for at in 0..7 {
        program[500 * at..500 * at + 9].fill(at as u8);
        fs::write(tree.join("program"), &program).unwrap();
        let mut request = vendor.request(&tree, &format!("1.{at}"));
        request.deltas = DeltaFrom::Recent;
        publish(&mut vendor.open(), &passphrase(), &request, &mut NoObserver).unwrap();
    }
    vendor
}

fn numbers(vendor: &Vendor) -> StoreStats {
    let keys = vendor.content_keys();
    stats(&vendor.store(), &vendor.root(), "Acme Notes", &keys, &mut NoObserver).unwrap()
}

fn bytes_of(vendor: &Vendor, of: impl Fn(&str) -> bool) -> u64 {
    files(&vendor.store()).iter().filter(|(name, _)| of(name)).map(|(_, bytes)| bytes.len() as u64).sum()
}

#[test]
fn numbers_add_up_to_the_files_and_updates_take_the_shortest_way() {
    let vendor = vendor();
    let stats = numbers(&vendor);
    assert_eq!(stats.releases.len(), 7);
    assert_eq!(stats.store_bytes, bytes_of(&vendor, |_| true));
    let held = |kind: &str| bytes_of(&vendor, |name| name.contains(kind));
    assert_eq!(stats.releases.iter().map(|release| release.manifest_bytes).sum::<u64>(), held(".manifest-"));
    assert_eq!(stats.releases.iter().map(|release| release.chunk_list_bytes).sum::<u64>(), held(".chunks-"));
    assert_eq!(stats.chunk_bytes + stats.step_bytes, held("packs/") + held(".step-"));
    assert_eq!(stats.content_bytes, 7 * 180_000);
    assert!(stats.dedup_ratio().unwrap() > 3.0 && stats.delta_ratio().unwrap() < 0.2, "{stats:?}");

    let ways: Vec<(&str, Way)> = stats.updates.iter().map(|update| (update.version.as_str(), update.way)).collect();
    let expected = [("1.0", 1), ("1.1", 2), ("1.2", 1), ("1.3", 1), ("1.4", 1), ("1.5", 1)];
    assert_eq!(ways, expected.map(|(version, steps)| (version, Way::Steps(steps))));
    for update in &stats.updates {
        assert!(update.bytes < update.whole_bytes / 4 && update.to == "1.6", "{update:?}");
    }
    // By hand: metadata, the step, and the pack of its patches.
    let metadata = bytes_of(&vendor, |name| {
        ["metadata/timestamp.json", "metadata/8.snapshot.json", "metadata/8.targets.json"].contains(&name)
    });
    let step = bytes_of(&vendor, |name| name.ends_with(".step-7-6"));
    let sealed = files(&vendor.store()).into_iter().find(|(name, _)| name.ends_with(".step-7-6")).unwrap().1;
    let pack = release_store::Step::open(&sealed, &vendor.content_keys()).unwrap().pack.unwrap().bytes;
    assert_eq!(stats.updates[5].bytes, metadata + step + pack);

    // A device with a withdrawn release that is newer goes back by chunks.
    vendor.open().withdraw("stable", "1.6", Some("worse"), &passphrase(), NOW).unwrap();
    let back = numbers(&vendor);
    let update = back.updates.iter().find(|update| update.version == "1.6").unwrap();
    assert!(update.way == Way::Chunks && update.to == "1.5" && update.bytes < update.whole_bytes, "{update:?}");
}

#[test]
fn a_store_that_was_tended_shows_what_is_thinned_and_still_leads_everyone_to_the_newest() {
    let vendor = vendor();
    let before = numbers(&vendor);
    let policy = Policy { grace_secs: 0, ..Policy::default() };
    collect(&mut vendor.open(), &passphrase(), &policy, NOW, &mut NoObserver).unwrap();
    let after = numbers(&vendor);
    assert!(after.store_bytes < before.store_bytes / 2);
    assert!(after.releases.iter().rev().skip(1).all(|release| release.base.is_some()));
    for (before, after) in before.updates.iter().zip(&after.updates) {
        assert!(matches!(after.way, Way::Steps(_)), "{after:?}");
        assert!(after.bytes <= before.bytes + 4000, "{before:?} {after:?}");
    }
    assert!(after.updates.iter().all(|update| update.whole_bytes > 40_000));
}

#[test]
fn the_program_prints_a_table_json_and_a_chart() {
    let vendor = vendor();
    let chart = vendor.path("chart.svg");
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_release-store"));
        command.arg("stats").arg(vendor.store()).arg("--keys").arg(vendor.keys.path()).args(more);
        let output = command.env("HOLDFAST_PASSPHRASE", "correct horse").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run(&["--chart", chart.to_str().unwrap()]);
    assert!(table.contains("2 steps") && table.contains("chunks  ") && table.contains("whole"), "{table}");
    let svg = fs::read_to_string(&chart).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("1.0 → 1.6") && svg.contains("by 2 steps"), "{svg}");
    assert_eq!(svg.matches("→").count(), 6);
    let json: serde_json::Value = serde_json::from_str(&run(&["--json"])).unwrap();
    assert_eq!(json["updates"][1]["steps"], 2);
    assert_eq!(json["releases"].as_array().unwrap().len(), 7);
    assert!(json["delta_ratio"].as_f64().unwrap() < 0.2);
}

/// What `publish` says of updates is what `stats` says then: also of what no patch gives, as most of a release that is new.
#[test]
fn publish_says_what_devices_really_download() {
    let vendor = vendor();
    let tree = vendor.path("tree");
    fs::write(tree.join("another"), content(300_000, 9)).unwrap();
    fs::write(vendor.path("updater"), common::program(1)).unwrap();
    let publish = |version: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_release-store"));
        command.arg("publish").arg(vendor.store()).arg("--keys").arg(vendor.keys.path()).args(more);
        command.args(["--updater", &format!("linux-x86_64={}", vendor.path("updater").display())]);
        command
            .args(["--level", "3", "--release-version", version])
            .arg(&tree)
            .env("SOURCE_DATE_EPOCH", NOW.to_string());
        let output = command.env("HOLDFAST_PASSPHRASE", "correct horse").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let said: serde_json::Value = serde_json::from_str(&publish("2.0", &["--json"])[0]).unwrap();
    let updates: Vec<_> = numbers(&vendor)
        .updates
        .into_iter()
        .filter(|update| said["updates"].as_array().unwrap().iter().any(|said| said["version"] == update.version))
        .collect();
    assert_eq!(said["updates"].as_array().unwrap().len(), 5, "the last four and the keyframe: {said}");
    for (update, said) in updates.iter().zip(said["updates"].as_array().unwrap()) {
        assert!(update.bytes > 100_000 && said["bytes"] == update.bytes && said["to"] == "2.0", "{update:?} {said}");
    }
    assert_eq!((&said["files"], &said["bytes"]), (&3.into(), &480_000.into()), "{said}");
    assert_eq!(said["updater_bytes"], said["updaters"][0]["bytes"], "{said}");

    fs::write(tree.join("one more"), content(200_000, 10)).unwrap();
    let [_, text] = publish("2.1", &[]);
    let bytes = numbers(&vendor).updates.iter().find(|update| update.version == "2.0").unwrap().bytes;
    assert!(
        bytes > 50_000 && text.contains(&format!("update from 2.0: {} to download", indicatif::HumanBytes(bytes))),
        "{text}"
    );
    assert!(text.contains("4 files of ") && text.contains("with updater linux-x86_64 0.1.0, "), "{text}");
}
