//! Media that fail: sectors that cannot be read or written, a device that stops taking writes, one that lies about its size.

use std::fs;
use std::path::Path;
use std::process::Command;

use qemu_tests::machine::{LONG, Machine};
use qemu_tests::stick::{Cable, Profile, Stick};
use qemu_tests::unruly::{Temper, Unruly};
use qemu_tests::world::{NEW, OLD, World};
use serde_json::{Value, json};

const SECTOR: usize = 512;
const UPDATER: &str = "updater-linux-x86_64";

/// A prepared guest, and a stick that has run once there.
fn prepared() -> Option<(Machine, Stick)> {
    let mut machine = Machine::start()?;
    let stick = Stick::new(Profile::Stick);
    machine.install_host(&stick);
    machine.plug_session(&stick).expect(&format!("CLIENT {OLD} says hello"));
    machine.pull_and_settle(&stick);
    Some((machine, stick))
}

/// A file of the free zone.
fn free_file(stick: &Stick, path: &str) -> Vec<u8> {
    let world = World::get();
    let mut tool: Command = world.command(&world.programs.partition_tools);
    let output = tool.args(["free", "cat"]).arg(&stick.disk).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Where the disk holds the sector in the middle of a file of the free zone.
fn sector_of(stick: &Stick, path: &str) -> usize {
    let file = free_file(stick, path);
    let middle = file.len() / 2 / SECTOR * SECTOR;
    let wanted = &file[middle..middle + SECTOR];
    let disk = fs::read(&stick.disk).unwrap();
    disk.chunks(SECTOR).position(|sector| sector == wanted).unwrap()
}

/// Where a zone of the disk begins, and its length, in bytes.
fn zone(stick: &Stick, name: &str) -> (u64, u64) {
    let told = stick.inspect();
    let zones = told["zones"].as_array().unwrap_or_else(|| panic!("{told}"));
    let zone = zones.iter().find(|zone| zone["zone"] == name).unwrap_or_else(|| panic!("{told}"));
    (zone["start"].as_u64().unwrap(), zone["bytes"].as_u64().unwrap())
}

fn fault(kind: &str, sector: usize) -> Value {
    json!({ "event": "none", "iotype": kind, "sector": sector, "errno": 5, "once": false, "immediately": false })
}

fn client_is(stick: &Stick, version: &str) {
    let told = free_file(stick, "client/VERSION");
    assert_eq!(String::from_utf8_lossy(&told).trim(), version);
    let table = fs::read(World::get().tree(version).join("tables.bin")).unwrap();
    assert!(free_file(stick, "client/tables.bin") == table, "client/tables.bin is not that of {version}");
}

#[test]
fn sectors_that_cannot_be_read_in_each_zone_cost_nothing_that_another_copy_has() {
    let Some((mut machine, stick)) = prepared() else { return };
    let good = free_file(&stick, UPDATER);
    let (hidden, hidden_bytes) = zone(&stick, "hidden");
    let (virtual_zone, _) = zone(&stick, "virtual");

    // The updater in the free zone.
    let cable = Cable { faults: vec![fault("read", sector_of(&stick, UPDATER))], ..Cable::default() };
    let session = machine.plug_session_with(&stick, &cable);
    session.expect("could not be read").expect("restored").expect(&format!("CLIENT {OLD} says hello"));
    machine.pull_and_settle(&stick);
    assert!(free_file(&stick, UPDATER) == good);

    // A file of the client.
    let cable = Cable { faults: vec![fault("read", sector_of(&stick, "client/tables.bin"))], ..Cable::default() };
    let session = machine.plug_session_with(&stick, &cable);
    session.expect(&format!("CLIENT {OLD} says hello"));
    machine.pull_and_settle(&stick);
    client_is(&stick, OLD);

    // The first record and the first backup in the hidden zone: their twins serve. The updater is to be restored from there.
    let sectors = [hidden, hidden + 4096, hidden + hidden_bytes / 8, hidden + hidden_bytes / 4];
    let faults = sectors.map(|byte| fault("read", usize::try_from(byte).unwrap() / SECTOR)).to_vec();
    stick.tool(&["free", "rm"], &[UPDATER]);
    let session = machine.plug_session_with(&stick, &Cable { faults, ..Cable::default() });
    session.expect("restored").expect(&format!("CLIENT {OLD} says hello"));
    machine.pull_and_settle(&stick);
    assert!(free_file(&stick, UPDATER) == good);

    // The virtual zone's descriptor: nobody can tell what it is, so nothing starts, and nothing is changed.
    let before = stick.bytes();
    let faults = vec![fault("read", usize::try_from(virtual_zone).unwrap() / SECTOR + 16 * 4)];
    machine.plug_with(&stick, &Cable { faults, ..Cable::default() });
    machine.wait_until("[ -b /dev/sda3 ] && udevadm settle", LONG);
    machine.pull_and_settle(&stick);
    assert!(stick.bytes() == before);

    // And without faults all is well.
    let session = machine.plug_session(&stick);
    session.expect(&format!("CLIENT {OLD} says hello"));
    machine.pull_and_settle(&stick);
    stick.tool(&["verify"], &[]);
}

#[test]
fn a_hidden_zone_that_cannot_be_written_does_not_keep_the_client_from_its_update() {
    let Some((mut machine, stick)) = prepared() else { return };
    let (hidden, hidden_bytes) = zone(&stick, "hidden");
    let bytes = fs::metadata(&stick.disk).unwrap().len();
    let temper = Temper { worn_out: hidden..hidden + hidden_bytes, ..Temper::honest(bytes) };
    let unruly = Unruly::serve(&stick.disk, stick.dir(), temper).unwrap();
    let cable = Cable { unruly: Some(unruly.socket().to_owned()), ..Cable::default() };
    stick.publish(NEW);
    let session = machine.plug_session_with(&stick, &cable);
    // Where failing writes take the updater longer than the launcher waits, the release that is there starts first.
    assert!(session.says(&format!("CLIENT {NEW} says hello")) || session.says(&format!("CLIENT {OLD} says hello")));
    session.expect("cannot write the hidden");
    machine.pull_and_settle(&stick);
    client_is(&stick, NEW);
    let session = machine.plug_session_with(&stick, &cable);
    session.expect(&format!("CLIENT {NEW} says hello"));
    machine.pull_and_settle(&stick);
    // On a sound stick the hidden zone catches up.
    drop(unruly);
    let session = machine.plug_session(&stick);
    session.expect(&format!("CLIENT {NEW} says hello"));
    machine.pull_and_settle(&stick);
    machine.plug_session(&stick);
    machine.pull_and_settle(&stick);
    stick.tool(&["verify"], &[]);
}

#[test]
fn a_device_that_turns_read_only_in_the_middle_of_an_update_keeps_one_whole_client() {
    let Some((mut machine, stick)) = prepared() else { return };
    stick.publish(NEW);
    let bytes = fs::metadata(&stick.disk).unwrap().len();
    let start = stick.dir().join("start.img");
    fs::copy(&stick.disk, &start).unwrap();
    // From the first write to far into the commit.
    for writes in [0, 200, 500] {
        copy_over(&start, &stick.disk);
        let temper = Temper { writes_left: Some(writes), ..Temper::honest(bytes) };
        let unruly = Unruly::serve(&stick.disk, stick.dir(), temper).unwrap();
        let cable = Cable { unruly: Some(unruly.socket().to_owned()), ..Cable::default() };
        let session = machine.plug_session_with(&stick, &cable);
        // Either the client started, or it is said that it is in the middle of a change.
        assert!(session.says(" says hello") || session.status == 73, "{}", session.said);
        machine.pull_and_settle(&stick);
        drop(unruly);
        let session = machine.plug_session(&stick);
        session.expect(" says hello");
        machine.pull_and_settle(&stick);
        let session = machine.plug_session(&stick);
        session.expect(&format!("CLIENT {NEW} says hello"));
        machine.pull_and_settle(&stick);
        client_is(&stick, NEW);
    }
}

#[test]
fn a_write_protected_device_runs_what_is_verified_and_changes_nothing() {
    let Some((mut machine, stick)) = prepared() else { return };
    stick.tool(&["free", "rm"], &[UPDATER]);
    let before = stick.bytes();
    let session = machine.plug_session_with(&stick, &Cable { read_only: true, ..Cable::default() });
    session.expect("write-protected").expect(&format!("CLIENT {OLD} says hello"));
    machine.pull_and_settle(&stick);
    assert!(stick.bytes() == before);
}

#[test]
fn a_device_that_lies_about_its_size_is_found_out_in_the_factory_and_serves_its_owner_as_far_as_it_goes() {
    let Some((mut machine, stick)) = prepared() else { return };
    let (hidden, _) = zone(&stick, "hidden");
    let bytes = fs::metadata(&stick.disk).unwrap().len();
    // In the field: the hidden zone is beyond the real end. Its mirrors serve, and it is tried once a start.
    let temper = Temper { real_bytes: hidden, ..Temper::honest(bytes) };
    let unruly = Unruly::serve(&stick.disk, stick.dir(), temper).unwrap();
    let cable = Cable { unruly: Some(unruly.socket().to_owned()), ..Cable::default() };
    for _ in 0..2 {
        let session = machine.plug_session_with(&stick, &cable);
        session.expect(&format!("CLIENT {OLD} says hello"));
        machine.pull_and_settle(&stick);
    }
    drop(unruly);

    // In the factory: a blank stick that says it has 256 MiB and has 64.
    let blank = stick.dir().join("blank.img");
    fs::File::create(&blank).unwrap().set_len(256 << 20).unwrap();
    let image = stick.disk.clone();
    let mut fake = stick;
    fake.disk.clone_from(&blank);
    let temper = Temper { real_bytes: 64 << 20, ..Temper::honest(256 << 20) };
    let unruly = Unruly::serve(&blank, fake.dir(), temper).unwrap();
    machine.plug_with(&fake, &Cable { unruly: Some(unruly.socket().to_owned()), ..Cable::default() });
    machine.wait_until("[ -b /dev/sda ]", LONG);
    fs::copy(image, machine.share().join("image")).unwrap();
    let output = machine.run_for("udevadm settle; /host/partition-tools write /host/image --to /dev/sda", LONG);
    assert_ne!(output.status, 0, "{}", output.text);
    assert!(output.text.contains("does not keep what is written to it"), "{}", output.text);
}

fn copy_over(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap();
}
