//! The updater of Windows itself, run by Wine, over HTTP from a server on loopback: what the launcher and a person call.
//! What is missing here for that is said, and nothing is tested then.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use common::programs::{assert_status, json, reserved_port, said, serve_at};
use common::wine::{LAUNCHER, UPDATER, WINDOWS, Wine, there};
use common::*;
use firmware_image::host::DirZone;
use firmware_image::launcher_note::LauncherNote;
use firmware_image::paths;
use firmware_image::updater_image::{Floors, UpdaterVersion};
use release_store::keys::KeySource;

/// Wine, or the end of the test.
macro_rules! wine_or_skip {
    () => {
        match common::wine::wine(env!("CARGO_TARGET_TMPDIR")) {
            Some(wine) => wine,
            None => return,
        }
    };
}

/// Holds a file without sharing it if one is named, says that it runs, and ends when its input does.
const HOLDER: &str = r#"
#include <stdio.h>
#include <windows.h>
int main(int argc, char **argv) {
    if (argc > 1 && CreateFileA(argv[1], GENERIC_READ, 0, NULL, OPEN_EXISTING, 0, NULL) == INVALID_HANDLE_VALUE) return 1;
    printf("up\n");
    fflush(stdout);
    while (getchar() != EOF) {}
    return 0;
}
"#;

fn holder(wine: &Wine) -> Vec<u8> {
    let path = wine.place().join(format!("holder-{}-{:?}.exe", std::process::id(), std::thread::current().id()));
    wine.compile(HOLDER, &[], &path, &[]);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

/// A program that runs, until this is dropped.
struct Held(Child);

impl Held {
    fn start(wine: &Wine, program: &Path, args: &[&str]) -> Self {
        let mut command = wine.command(program);
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut up = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
        assert_eq!(&up, b"up");
        Self(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// The updater for Windows as it ships: stamped and signed.
fn signed(wine: &Wine, world: &World, version: &str) -> PathBuf {
    signed_program(world, version, fs::read(wine.program(UPDATER)).unwrap())
}

fn signed_program(world: &World, version: &str, program: Vec<u8>) -> PathBuf {
    let source = KeySource::open(&world.path("keys")).unwrap();
    let number = UpdaterVersion::parse(version).unwrap();
    let image = source.updater(Some(&passphrase()), WINDOWS, program, number, Floors::default()).unwrap().image;
    let path = world.path(&format!("updater-{version}.exe"));
    fs::write(&path, image).unwrap();
    path
}

/// A device of directories, whose `device.cfg` names this server.
fn device(wine: &Wine, url: &str) -> (World, PathBuf) {
    let world = World::new();
    world.write_config_for(&[(url.to_owned(), 1)], "client/run.exe");
    File::create(world.path("hidden.img")).unwrap().set_len(160 << 20).unwrap();
    let program = signed(wine, &world, "1.0.0");
    (world, program)
}

fn publish(world: &World, version: &str, files: &[(&str, Vec<u8>)], program: &Path) {
    world.publish_with(version, files, |request| request.updaters.push((WINDOWS.into(), program.to_owned())));
}

fn zones(world: &World, command: &mut Command) {
    command.args(["--virtual", &there(&world.path("virtual")), "--free", &there(&world.free())]);
    command.args(["--hidden", &there(&world.path("hidden.img"))]);
}

fn run(wine: &Wine, world: &World, program: &Path, args: &[&str]) -> Output {
    let mut command = wine.command(program);
    zones(world, &mut command);
    command.args(args).output().unwrap()
}

/// The launcher, stamped, in the virtual zone.
fn launcher(wine: &Wine, world: &World) -> PathBuf {
    let mut launcher = fs::read(wine.program(LAUNCHER)).unwrap();
    firmware_image::stamp::stamp(&mut launcher, world.keys.vendor_key()).unwrap();
    let path = world.path("virtual").join(paths::bootstrap_name(WINDOWS).as_str());
    fs::write(&path, launcher).unwrap();
    path
}

fn launch(wine: &Wine, world: &World, launcher: &Path) -> Output {
    let mut command = wine.command(launcher);
    zones(world, &mut command);
    command.output().unwrap()
}

fn installed(world: &World) -> PathBuf {
    world.free().join(paths::updater_name(WINDOWS).as_str())
}

#[test]
fn a_device_is_installed_verified_repaired_updated_and_rolled_back() {
    let wine = wine_or_skip!();
    let (listener, url) = reserved_port();
    let (world, program) = device(wine, &url);
    publish(&world, "1.0.0", &first(), &program);
    let server = serve_at(&world, listener);
    let run = |args: &[&str]| run(wine, &world, &program, args);

    let output = run(&["check", "--json"]);
    assert_status(&output, 0);
    assert_eq!(json(&output)["newest"], "1.0.0");
    assert_status(&run(&["update"]), 0);
    world.assert_client(&first());
    assert_status(&run(&["verify"]), 0);
    fs::write(world.client().join("run.sh"), "virus").unwrap();
    let output = run(&["verify", "--json"]);
    assert_status(&output, 3);
    assert_eq!(json(&output)["damaged"][0]["path"], "run.sh");
    assert_status(&run(&["repair"]), 0);
    world.assert_client(&first());
    world.publish("2.0.0", &second());
    assert_status(&run(&["update"]), 0);
    world.assert_client(&second());
    drop(server);
    assert_status(&run(&["rollback"]), 0);
    world.assert_client(&first());
    let status = json(&run(&["status", "--json"]));
    assert_eq!((&status["version"], &status["held"]), (&"1.0.0".into(), &true.into()));
    assert_eq!(status["files"]["whole"], true);
    assert_status(&run(&["check"]), 10);
}

#[test]
fn files_that_are_in_use_wait_for_the_next_start_and_none_is_replaced_before() {
    let wine = wine_or_skip!();
    let (listener, url) = reserved_port();
    let (world, program) = device(wine, &url);
    let client = holder(wine);
    let other = [client.clone(), b"newer".to_vec()].concat();
    let release =
        |program: &[u8], text: &str| vec![("run.exe", program.to_vec()), ("notes.txt", text.as_bytes().to_vec())];
    let (old, new) = (release(&client, "old"), release(&other, "new"));
    publish(&world, "1.0.0", &old, &program);
    let _server = serve_at(&world, listener);
    assert_status(&run(wine, &world, &program, &["update"]), 0);
    publish(&world, "2.0.0", &new, &program);

    let running = Held::start(wine, &world.client().join("run.exe"), &[]);
    let output = run(wine, &world, &program, &["update"]);
    assert_status(&output, 4);
    assert!(said(&output).contains("The client is running: run.exe."), "{}", said(&output));
    assert_status(&run(wine, &world, &program, &["run"]), 4);
    world.assert_client(&old);
    drop(running);

    let outside = world.path("holder.exe");
    fs::write(&outside, &client).unwrap();
    let open = Held::start(wine, &outside, &[&there(&world.client().join("notes.txt"))]);
    let output = run(wine, &world, &program, &["update"]);
    assert_status(&output, 4);
    assert!(said(&output).contains("notes.txt"), "{}", said(&output));
    world.assert_client(&old);
    drop(open);

    // Whoever holds the client's lock runs it, wherever its files are.
    let lock = Held::start(wine, &outside, &[&there(&world.free().join(paths::CLIENT_LOCK))]);
    assert_status(&run(wine, &world, &program, &["update"]), 4);
    drop(lock);

    assert_status(&run(wine, &world, &program, &["run"]), 0);
    world.assert_client(&new);
}

#[test]
fn where_no_lock_can_be_had_the_clients_files_still_tell_that_it_runs() {
    let wine = wine_or_skip!();
    let (listener, url) = reserved_port();
    let (world, program) = device(wine, &url);
    let client = holder(wine);
    let old = vec![("run.exe", client.clone())];
    publish(&world, "1.0.0", &old, &program);
    let _server = serve_at(&world, listener);
    assert_status(&run(wine, &world, &program, &["update"]), 0);
    let new = vec![("run.exe", [client, b"newer".to_vec()].concat())];
    publish(&world, "2.0.0", &new, &program);
    // Nothing opens a directory as a file.
    let lock = world.free().join(paths::CLIENT_LOCK);
    if lock.exists() {
        fs::remove_file(&lock).unwrap();
    }
    fs::create_dir(&lock).unwrap();
    let running = Held::start(wine, &world.client().join("run.exe"), &[]);
    assert_status(&run(wine, &world, &program, &["update"]), 4);
    world.assert_client(&old);
    drop(running);
    assert_status(&run(wine, &world, &program, &["update"]), 0);
    world.assert_client(&new);
}

#[test]
fn a_directory_in_the_place_of_the_lock_keeps_nobody_from_mending_the_client() {
    let wine = wine_or_skip!();
    let (listener, url) = reserved_port();
    let (world, program) = device(wine, &url);
    publish(&world, "1.0.0", &[("run.exe", holder(wine))], &program);
    let _server = serve_at(&world, listener);
    let path = launcher(wine, &world);
    fs::copy(&program, installed(&world)).unwrap();
    let launch = || launch(wine, &world, &path);
    assert_status(&launch(), 0);
    fs::remove_file(world.free().join(paths::DEVICE_LOCK)).unwrap();
    fs::create_dir(world.free().join(paths::DEVICE_LOCK)).unwrap();
    let client = world.client().join("run.exe");
    let sound = fs::read(&client).unwrap();
    fs::write(&client, [&sound[..], b"infected"].concat()).unwrap();
    let output = launch();
    assert_status(&output, 0);
    assert!(!said(&output).contains("restored"), "{}", said(&output));
    assert!(fs::read(&client).unwrap() == sound, "{}", said(&output));
    assert!(world.free().join(paths::DEVICE_LOCK).is_file());
    let note = LauncherNote::read(&DirZone::open(&world.free()).unwrap()).unwrap();
    assert!(note.failed_updaters.is_empty(), "{note:?}");
}

/// Ends with 0 if its own file can be neither renamed nor written.
const HELD_FAST: &str = r#"
#include <stdio.h>
#include <windows.h>
int main(void) {
    char own[1024], other[1040];
    GetModuleFileNameA(NULL, own, sizeof own);
    sprintf(other, "%s.x", own);
    if (MoveFileA(own, other)) return 1;
    return CreateFileA(own, GENERIC_WRITE, 7, NULL, OPEN_EXISTING, 0, NULL) == INVALID_HANDLE_VALUE ? 0 : 2;
}
"#;

#[test]
fn what_a_trial_runs_nobody_can_replace_and_what_is_no_program_is_not_installed() {
    let wine = wine_or_skip!();
    let (listener, url) = reserved_port();
    let (world, program) = device(wine, &url);
    publish(&world, "1.0.0", &first(), &program);
    let _server = serve_at(&world, listener);
    fs::copy(&program, installed(&world)).unwrap();
    let path = world.path("held-fast.exe");
    wine.compile(HELD_FAST, &[], &path, &[]);
    let signed = |version: &str, content: &[u8]| {
        let program = world.updater_program("program", content);
        signed_program(&world, version, fs::read(program).unwrap())
    };
    let held_fast = signed("2.0.0", &fs::read(path).unwrap());
    publish(&world, "2.0.0", &first(), &held_fast);
    let output = run(wine, &world, &program, &["update"]);
    assert_eq!(fs::read(installed(&world)).unwrap(), fs::read(&held_fast).unwrap(), "{}", said(&output));

    publish(&world, "3.0.0", &first(), &signed("3.0.0", &[0x7f; 4000]));
    let output = run(wine, &world, &program, &["update"]);
    assert_eq!(fs::read(installed(&world)).unwrap(), fs::read(&held_fast).unwrap(), "{}", said(&output));
}

#[test]
fn one_updater_at_a_time() {
    let wine = wine_or_skip!();
    let (world, program) = device(wine, "http://127.0.0.1:9");
    let outside = world.path("holder.exe");
    fs::write(&outside, holder(wine)).unwrap();
    let lock = world.free().join(paths::DEVICE_LOCK);
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    fs::write(&lock, []).unwrap();
    let held = Held::start(wine, &outside, &[&there(&lock)]);
    assert_status(&run(wine, &world, &program, &["update"]), 4);
    // The one that a launcher calls waits, but not for ever.
    assert_status(&run(wine, &world, &program, &["run"]), 3);
    drop(held);
    assert_ne!(run(wine, &world, &program, &["update"]).status.code(), Some(4));
}

#[test]
fn an_updater_that_runs_from_the_free_zone_is_replaced_and_cleared_away_by_the_next_start() {
    let wine = wine_or_skip!();
    let (listener, url) = reserved_port();
    let (world, first_updater) = device(wine, &url);
    publish(&world, "1.0.0", &first(), &first_updater);
    let _server = serve_at(&world, listener);
    fs::copy(&first_updater, installed(&world)).unwrap();
    let run = || run(wine, &world, &installed(&world), &["run"]);
    assert_status(&run(), 0);
    assert_eq!(fs::read(installed(&world)).unwrap(), fs::read(&first_updater).unwrap());

    let second_updater = signed(wine, &world, "2.0.0");
    publish(&world, "2.0.0", &second(), &second_updater);
    let before = wine.left_behind().len();
    let output = run();
    assert_status(&output, 0);
    world.assert_client(&second());
    assert_eq!(fs::read(installed(&world)).unwrap(), fs::read(&second_updater).unwrap(), "{}", said(&output));
    // The old one was moved out of the way while it ran: it is all there is.
    let aside = || fs::read_dir(world.free().join(paths::ASIDE_DIR)).map_or(0, Iterator::count);
    assert_eq!(aside(), 1);
    assert_status(&run(), 0);
    assert_eq!(aside(), 0);
    assert_eq!(wine.left_behind().len(), before, "trials leave nothing behind");
}

#[test]
fn the_launcher_restores_the_updater_which_installs_the_client_which_runs() {
    let wine = wine_or_skip!();
    let (listener, url) = reserved_port();
    let (world, program) = device(wine, &url);
    let files = vec![("run.exe", holder(wine)), ("notes.txt", b"notes".to_vec())];
    publish(&world, "1.0.0", &files, &program);
    let _server = serve_at(&world, listener);
    let path = launcher(wine, &world);
    fs::copy(&program, world.path("virtual").join(paths::updater_name(WINDOWS).as_str())).unwrap();
    let launch = || launch(wine, &world, &path);
    // The client ends as soon as it sees that its input has ended.
    let output = launch();
    assert_status(&output, 0);
    assert!(said(&output).contains("restored version 1.0.0 from the copy in the virtual zone"), "{}", said(&output));
    world.assert_client(&files);
    assert_eq!(fs::read(installed(&world)).unwrap(), fs::read(&program).unwrap());

    // A damaged client is repaired before it is started.
    fs::write(world.client().join("notes.txt"), "virus").unwrap();
    let output = launch();
    assert_status(&output, 0);
    world.assert_client(&files);

    // The updater backed itself up: with the virtual zone's copy gone as well, the hidden zone has it.
    fs::remove_file(world.path("virtual").join(paths::updater_name(WINDOWS).as_str())).unwrap();
    fs::write(installed(&world), "infected").unwrap();
    let output = launch();
    assert_status(&output, 0);
    assert!(said(&output).contains("from hidden backup"), "{}", said(&output));
    // All is well: not one byte is written, and nothing is said.
    launch();
    let before = world.fingerprint();
    let began = Instant::now();
    let output = launch();
    println!("a sound device, to its client's end: {:.2} s", began.elapsed().as_secs_f64());
    assert_status(&output, 0);
    let after = world.fingerprint();
    let paths = before.keys().chain(after.keys());
    let written: Vec<&PathBuf> = paths.filter(|path| before.get(*path) != after.get(*path)).collect();
    assert_eq!(written, [""; 0].map(Path::new), "{}", said(&output));
}
