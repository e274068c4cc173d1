//! The launcher of Windows itself, run by Wine: real processes, real directories, a real hidden zone. What is missing here
//! for that is said, and nothing is tested then.
#![cfg(target_os = "linux")]

mod support;
#[path = "../../updater/tests/common/wine.rs"]
mod wine;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use firmware_image::device_config::{DeviceConfig, Policies};
use firmware_image::hidden::SlotName;
use firmware_image::host::DirZone;
use firmware_image::journal::{Journal, State};
use firmware_image::launcher_note::Trial;
use firmware_image::record::{Health, Release};
use firmware_image::signature::SigningKey;
use firmware_image::updater_image::Floors;
use firmware_image::{Digest, paths};
use support::{Device, Ended, Maker, PRODUCT, digest_of};
use wine::{LAUNCHER, WINDOWS, Wine, there};

/// Wine, or the end of the test.
macro_rules! wine_or_skip {
    () => {
        match wine::wine(env!("CARGO_TARGET_TMPDIR")) {
            Some(wine) => wine,
            None => return,
        }
    };
}

/// A program of Windows that does this.
fn program(wine: &Wine, script: &str) -> Vec<u8> {
    static STAND_IN: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = STAND_IN.get_or_init(|| {
        let path = wine.place().join(format!("stand-in-{}.exe", std::process::id()));
        wine.compile(include_str!("support/stand_in.c"), &[], &path, &[]);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        bytes
    });
    let mut bytes = bytes.clone();
    const MARK: &[u8] = b"HOLDFAST-SCRIPT:";
    let at = bytes.windows(MARK.len()).position(|window| window == MARK).unwrap() + MARK.len();
    assert!(script.len() < 256 - MARK.len());
    bytes[at..at + script.len()].copy_from_slice(script.as_bytes());
    bytes
}

/// An updater for Windows that does this.
fn updater(wine: &Wine, version: &'static str, script: &str) -> Vec<u8> {
    maker(version).make(&program(wine, script))
}

fn maker(version: &'static str) -> Maker {
    Maker { platform: WINDOWS, ..Maker::new(version) }
}

/// One that is ready, tells its version, and ends.
fn good(wine: &Wine, version: &'static str) -> Vec<u8> {
    updater(wine, version, &format!("ready;say updater {version}"))
}

/// A device with this updater everywhere, and a client that ends with status 7.
fn sound(wine: &Wine, image: &[u8]) -> Device {
    sized(Device::of_platform(WINDOWS), image).with_client(wine, "say the client speaks;exit 7")
}

/// With a hidden zone that two backups of this image fit into.
fn sized(device: Device, image: &[u8]) -> Device {
    device.make_hidden(image.len() as u64 + (64 << 10));
    device.write_config("client/run.exe --first second");
    device.made(image)
}

trait OnWindows: Sized {
    fn with_client(self, wine: &Wine, script: &str) -> Self;
    fn client_there(&self, wine: &Wine, script: &str);
    fn command_there(&self, wine: &Wine) -> Command;
    fn start_there(&self, wine: &Wine, args: &[&str]) -> Ended;
}

impl OnWindows for Device {
    fn with_client(self, wine: &Wine, script: &str) -> Self {
        self.client_there(wine, script);
        self
    }

    fn client_there(&self, wine: &Wine, script: &str) {
        fs::create_dir_all(self.free.join("client")).unwrap();
        fs::write(self.free.join("client/run.exe"), program(wine, script)).unwrap();
    }

    fn command_there(&self, wine: &Wine) -> Command {
        let mut command = wine.command(&self.stamped_launcher(&wine.program(LAUNCHER)));
        command.args(["--virtual", &there(&self.virtual_zone), "--free", &there(&self.free)]);
        command.args(["--hidden", &there(&self.hidden)]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start_there(&self, wine: &Wine, args: &[&str]) -> Ended {
        let mut ended = Ended::of(self.command_there(wine).args(args).output().unwrap());
        ended.out = ended.out.replace('\r', "");
        ended.said = ended.said.replace('\r', "");
        ended
    }
}

/// The files of a device without the lock that the first launcher on Windows makes.
fn everything(device: &Device) -> Vec<(PathBuf, Vec<u8>)> {
    let files = device.everything().into_iter().map(|(path, (_, bytes))| (path, bytes));
    files.filter(|(path, _)| !path.ends_with(paths::CLIENT_LOCK)).collect()
}

#[test]
fn updater_and_client_run_silently_the_clients_status_is_returned_and_nothing_is_written_or_left() {
    let wine = wine_or_skip!();
    let device = sound(wine, &updater(wine, "1.0.0", "ready"));
    device.stamped_launcher(&wine.program(LAUNCHER));
    let before = everything(&device);
    let ended = device.start_there(wine, &[]);
    assert_eq!((ended.status, &*ended.out, &*ended.said), (7, "the client speaks\n", ""));
    assert_eq!(everything(&device), before);
    // Its own lock file, made by the first start, is not touched by the second.
    let before = device.everything();
    assert_eq!(device.start_there(wine, &[]).status, 7);
    assert_eq!(device.everything(), before);
}

#[test]
fn updater_and_client_are_told_what_they_are_to_know_and_no_more() {
    let wine = wine_or_skip!();
    let mut device = sound(wine, &updater(wine, "1.0.0", "ready;args;vars"));
    let free = device.free.with_file_name("free zone of an owner");
    fs::rename(&device.free, &free).unwrap();
    device.free = free;
    let [virtual_zone, free, hidden] = [&device.virtual_zone, &device.free, &device.hidden].map(|path| there(path));
    let args = format!("run|--virtual|{virtual_zone}|--free|{free}|--hidden|{hidden}");
    let ended = device.start_there(wine, &["--no-client"]);
    assert_eq!(ended.said, format!("{args}\nready - -\n"), "no client is beside it: {ended:?}");
    device.client_there(wine, "args;where;vars");
    let ended = device.start_there(wine, &[]);
    assert_eq!(ended.said, format!("{args}\nready client -\n"), "{ended:?}");
    assert_eq!(ended.out, format!("--first|second\n{free}\n- - -\n"), "{ended:?}");
}

#[test]
fn a_missing_or_infected_updater_never_runs_and_is_restored_from_the_hidden_backup() {
    let wine = wine_or_skip!();
    let image = good(wine, "1.0.0");
    let device = sound(wine, &image);
    fs::remove_file(device.installed_path()).unwrap();
    let ended = device.start_there(wine, &[]);
    assert_eq!(ended.status, 7, "{ended:?}");
    let restored = "restored version 1.0.0 from hidden backup A.\nupdater 1.0.0\n";
    assert_eq!(ended.said, format!("The updater in the free zone was missing; {restored}"));
    assert_eq!(device.installed().unwrap(), image);

    let mut infected = image.clone();
    let at = infected.windows(6).position(|window| window == b"ready;").unwrap();
    infected[at..at + 6].copy_from_slice(b"crash;");
    device.install(&infected);
    let ended = device.start_there(wine, &[]);
    assert_eq!(ended.status, 7);
    assert!(ended.said.contains("was damaged") && ended.said.ends_with(restored), "{}", ended.said);
    assert_eq!(device.installed().unwrap(), image);
}

#[test]
fn with_hidden_backups_gone_mirror_and_plain_copy_serve_in_this_order() {
    let wine = wine_or_skip!();
    let image = good(wine, "1.0.0");
    let device = sound(wine, &image);
    for slot in [SlotName::BackupA, SlotName::BackupB] {
        device.scribble(slot, 0, 4096);
    }
    fs::remove_file(device.installed_path()).unwrap();
    let ended = device.start_there(wine, &[]);
    assert!(ended.said.contains("from the backup mirror"), "{}", ended.said);
    fs::remove_file(device.free.join(paths::BACKUP_MIRROR)).unwrap();
    fs::remove_file(device.installed_path()).unwrap();
    let ended = device.start_there(wine, &[]);
    assert!(ended.said.contains("from the copy in the virtual zone"), "{}", ended.said);
    assert_eq!(device.installed().unwrap(), image);
}

#[test]
fn an_updater_that_crashes_fails_or_stays_silent_gives_way_to_the_next() {
    let wine = wine_or_skip!();
    for (bad, why) in [
        ("crash", "exception 0xc0000005"),
        ("exit 0xc0000409", "exception 0xc0000409"),
        ("exit 0xe06d7363", "exception 0xe06d7363"),
        ("exit 5", "status 5"),
        ("sleep 60000", "not ready within 2 seconds"),
    ] {
        let image = good(wine, "1.0.0");
        let mut device = sound(wine, &image);
        device.policies = Policies { ready_timeout_secs: 2, ..Policies::default() };
        device.write_config("client/run.exe");
        let bad = updater(wine, "1.1.0", bad);
        device.install(&bad);
        let ended = device.start_there(wine, &[]);
        assert_eq!(ended.status, 7, "{}", ended.said);
        assert!(
            ended.said.contains("Updater 1.1.0 from the free zone is sound, but would not start"),
            "{}",
            ended.said
        );
        assert!(ended.said.contains(why), "{}", ended.said);
        assert!(ended.said.contains("estored updater 1.0.0 from hidden backup A"), "{}", ended.said);
        assert!(device.note().has_failed(&digest_of(&bad)));
        assert_eq!(device.installed().unwrap(), image);
    }
}

#[test]
fn a_file_that_is_no_program_of_windows_gives_way_to_the_next() {
    let wine = wine_or_skip!();
    let image = good(wine, "1.0.0");
    let device = sound(wine, &image);
    device.install(&maker("1.1.0").make(&[0x7f; 400]));
    let ended = device.start_there(wine, &[]);
    assert_eq!(ended.status, 7, "{ended:?}");
    assert!(ended.said.contains("this system cannot run it"), "{}", ended.said);
    assert_eq!(device.installed().unwrap(), image);
}

#[test]
fn an_end_from_outside_is_no_crash_nothing_is_restored_and_the_client_starts() {
    let wine = wine_or_skip!();
    let device = sound(wine, &updater(wine, "1.0.0", "exit 0xc000013a"));
    device.stamped_launcher(&wine.program(LAUNCHER));
    let before = everything(&device);
    let ended = device.start_there(wine, &[]);
    assert_eq!(ended.status, 7);
    assert!(ended.said.contains("was ended from outside"), "{}", ended.said);
    assert_eq!(everything(&device), before);
}

#[test]
fn the_client_starts_while_a_download_goes_on_and_its_end_is_told() {
    let wine = wine_or_skip!();
    let device = sound(wine, &updater(wine, "1.0.0", "ready;go;wait;say the client has ended"));
    device.client_there(wine, "sleep 300;say the client speaks");
    let ended = device.start_there(wine, &[]);
    assert_eq!((ended.status, &*ended.out, &*ended.said), (0, "the client speaks\n", "the client has ended\n"));
}

#[test]
fn a_client_that_somebody_holds_for_a_moment_is_waited_for() {
    let wine = wine_or_skip!();
    let device = Device::of_platform(WINDOWS);
    let client = there(&device.free.join("client/run.exe"));
    // The updater does what a scanner does with what was just written.
    let image = |millis| updater(wine, "1.0.0", &format!("hold {client};ready;go;sleep {millis}"));
    let device = sized(device, &image(200)).with_client(wine, "say the client speaks;exit 7");
    let ended = device.start_there(wine, &[]);
    assert_eq!((ended.status, &*ended.out, &*ended.said), (7, "the client speaks\n", ""));
    device.install(&image(3000));
    let ended = device.start_there(wine, &[]);
    assert_eq!((ended.status, &*ended.out), (72, ""));
    assert!(ended.said.contains("could not be started"), "{}", ended.said);
}

#[test]
fn a_client_that_is_not_whole_is_not_started() {
    let wine = wine_or_skip!();
    let device = sound(wine, &updater(wine, "1.0.0", "ready;exit 3"));
    let ended = device.start_there(wine, &[]);
    assert_eq!((ended.status, &*ended.out), (73, ""), "{}", ended.said);
    let device = sound(wine, &good(wine, "1.0.0"));
    let state = State::Committing { plan: Digest::of(b"plan"), serial: 2 };
    Journal::default().advance(&DirZone::open(&device.free).unwrap(), state).unwrap();
    assert_eq!(device.start_there(wine, &[]).status, 73);
}

#[test]
fn a_failed_busy_or_crashed_updater_does_not_keep_the_client_from_starting() {
    let wine = wine_or_skip!();
    for end in ["ready;exit 1", "ready;exit 4", "ready;sleep 100;crash"] {
        let device = sound(wine, &updater(wine, "1.0.0", end));
        device.stamped_launcher(&wine.program(LAUNCHER));
        let before = everything(&device);
        assert_eq!(device.start_there(wine, &[]).status, 7, "{end}");
        assert_eq!(everything(&device), before, "{end}");
    }
}

#[test]
fn the_clients_status_comes_whole_and_an_exception_as_itself() {
    let wine = wine_or_skip!();
    let device = sound(wine, &updater(wine, "1.0.0", "ready"));
    // Wine hands the lowest byte of a status on to this system, so the report tells it.
    for (script, status) in [("exit 300", 300), ("exit 0xffffffff", -1), ("crash", 0xc000_0005_u32.cast_signed())] {
        device.client_there(wine, script);
        let ended = device.start_there(wine, &["--json"]);
        assert!(ended.out.starts_with(&format!("{{\"status\":{status},\"outcome\":\"client\"")), "{script}: {ended:?}");
    }
}

#[test]
fn with_no_good_copy_anywhere_every_place_is_named_and_the_way_by_hand_told() {
    let wine = wine_or_skip!();
    let device = Device::of_platform(WINDOWS);
    device.install(b"MZ infected");
    let ended = device.start_there(wine, &["--no-client"]);
    assert_eq!((ended.status, &*ended.out), (69, ""));
    for place in ["free zone: not an updater image", "hidden backup A:", "To recover by hand:", ".exe", PRODUCT] {
        assert!(ended.said.contains(place), "{place} is missing from:\n{}", ended.said);
    }
}

#[test]
fn good_copies_of_which_none_starts_have_a_status_of_their_own() {
    let wine = wine_or_skip!();
    let device = sound(wine, &updater(wine, "1.0.0", "exit 5"));
    let ended = device.start_there(wine, &["--no-client"]);
    assert_eq!(ended.status, 70);
    assert!(ended.said.contains("No copy of the updater on this device starts."), "{}", ended.said);
}

#[test]
fn below_the_floor_the_factory_copy_is_asked_to_recover() {
    let wine = wine_or_skip!();
    let floors = Floors { version: support::version("2.0.0"), key_serial: 0 };
    let device = sound(wine, &updater(wine, "1.0.0", "ready;args"));
    let floored = Maker { floors, ..maker("2.0.0") }.make(b"");
    device.record(SlotName::RecordB, 2, &floored);
    let ended = device.start_there(wine, &[]);
    assert_eq!(ended.status, 7);
    assert!(ended.said.contains("|--recover\n"), "{}", ended.said);
}

#[test]
fn a_foreign_updater_never_runs_and_gives_way_to_the_devices_own() {
    let wine = wine_or_skip!();
    let image = good(wine, "1.0.0");
    let foreign = program(wine, "say a foreign one;ready");
    for maker in [
        Maker { vendor_seed: 9, ..maker("3.0.0") },
        Maker { product: "other-stick", ..maker("3.0.0") },
        Maker { platform: "linux-x86_64", ..maker("3.0.0") },
    ] {
        let device = sound(wine, &image);
        device.install(&maker.make(&foreign));
        let ended = device.start_there(wine, &[]);
        assert_eq!(ended.status, 7, "{ended:?}");
        let restored = "restored version 1.0.0 from hidden backup A.\nupdater 1.0.0\n";
        assert!(ended.said.contains("was foreign") && ended.said.ends_with(restored), "{}", ended.said);
        assert!(!ended.said.contains("a foreign one"), "{}", ended.said);
        assert_eq!(device.installed().unwrap(), image);
    }
}

#[test]
fn an_updater_that_is_too_old_gives_way_to_a_newer_copy() {
    let wine = wine_or_skip!();
    let floors = Floors { version: support::version("2.0.0"), key_serial: 0 };
    let newer = Maker { floors, ..maker("2.0.0") }.make(&program(wine, "ready;say updater 2.0.0"));
    let device = sound(wine, &newer);
    device.install(&good(wine, "1.0.0"));
    let ended = device.start_there(wine, &[]);
    assert_eq!(ended.status, 7, "{ended:?}");
    assert_eq!(
        ended.said,
        "The updater in the free zone was version 1.0.0, which is too old to be allowed; restored version 2.0.0 from \
         hidden backup A.\nupdater 2.0.0\n"
    );
    assert_eq!(device.installed().unwrap(), newer);
}

#[test]
fn a_launcher_without_a_vendors_key_and_a_configuration_of_another_vendor_are_refused() {
    let wine = wine_or_skip!();
    let device = sound(wine, &good(wine, "1.0.0"));
    let launcher = device.stamped_launcher(&wine.program(LAUNCHER));
    let config = device.virtual_zone.join(paths::DEVICE_CONFIG);
    let mut bytes = fs::read(&config).unwrap();
    bytes[100] ^= 1;
    fs::write(&config, &bytes).unwrap();
    assert_eq!(device.start_there(wine, &[]).status, 78);
    bytes[100] ^= 1;
    let vendor = SigningKey::from_seed(&[1; 32]).public();
    let mut others = vec![0; bytes.len() + 4096];
    let signed = DeviceConfig::open(&bytes, &vendor).unwrap().sign(&SigningKey::from_seed(&[9; 32]), &mut others);
    fs::write(&config, signed.unwrap()).unwrap();
    assert_eq!(device.start_there(wine, &[]).status, 78);
    fs::write(&config, &bytes).unwrap();
    assert_eq!(device.start_there(wine, &[]).status, 7);
    fs::copy(wine.program(LAUNCHER), launcher).unwrap();
    let ended = device.start_there(wine, &[]);
    assert_eq!((ended.status, &*ended.out), (78, ""));
    assert!(ended.said.contains("carries no vendor's key"), "{}", ended.said);
}

#[test]
fn a_new_release_is_watched_and_what_is_seen_is_noted() {
    let wine = wine_or_skip!();
    let image = updater(wine, "1.0.0", "ready");
    let watch = |client: &str, probation_secs| {
        let mut device = sound(wine, &image);
        device.policies = Policies { probation_secs, ..Policies::default() };
        device.write_config("client/run.exe");
        device.record_with(SlotName::RecordB, 2, &[], |record| {
            record.release =
                Some(Release { serial: 5, version: "2.0", manifest: Digest::of(b"manifest"), published: 1 });
            record.health = Health::Unproven { failed_starts: 0 };
        });
        device.client_there(wine, client);
        device
    };
    let trial = |failed_starts, proven| Some(Trial { serial: 5, failed_starts, proven });
    let device = watch("exit 1", 30);
    device.start_there(wine, &[]);
    assert_eq!(device.note().trial, trial(1, false));
    device.client_there(wine, "crash");
    device.start_there(wine, &[]);
    assert_eq!(device.note().trial, trial(2, false));
    device.client_there(wine, "exit 0");
    device.start_there(wine, &[]);
    assert_eq!(device.note().trial, trial(0, true));
    let device = watch("sleep 2500;exit 1", 1);
    device.start_there(wine, &[]);
    assert_eq!(device.note().trial, trial(0, true), "it ran through the probation");
    let device = watch("exit 0xc000013a", 30);
    device.start_there(wine, &[]);
    assert_eq!(device.note().trial, None, "an end from outside says nothing");
    fs::remove_file(device.free.join("client/run.exe")).unwrap();
    assert_eq!(device.start_there(wine, &[]).status, 72);
    assert_eq!(device.note().trial, trial(1, false));
}

#[test]
fn what_runs_is_a_private_file_that_nobody_can_write_or_remove_and_that_is_gone_afterwards() {
    let wine = wine_or_skip!();
    let device = Device::of_platform(WINDOWS);
    let image = updater(wine, "1.0.0", &format!("over {};self;ready", there(&device.installed_path())));
    let device = sized(device, &image);
    let ended = device.start_there(wine, &["--no-client"]);
    let lines: Vec<&str> = ended.said.lines().collect();
    let [installed, own] = lines[..] else { panic!("{ended:?}") };
    // The file in the free zone does not run, so whoever may can write it; what runs is the one that was verified.
    assert_eq!(installed, "written");
    assert!(own.contains(r"\holdfast-") && own.ends_with(r"\updater.exe refused stays"), "{own}");
    let directory = own.rsplit('\\').nth(1).unwrap();
    assert!(wine.left_behind().iter().all(|path| !path.ends_with(directory)), "{directory} was left behind");
}

/// Runs the command line behind its first argument, which it takes for the temporary directory.
const ELSEWHERE: &str = r#"
#include <stdio.h>
#include <windows.h>
int main(int argc, char **argv) {
    char line[4096] = "";
    for (int i = 2; i < argc; i++) sprintf(line + strlen(line), "\"%s\" ", argv[i]);
    SetEnvironmentVariableA("TMP", argv[1]);
    SetEnvironmentVariableA("TEMP", argv[1]);
    STARTUPINFOA start = { sizeof start };
    PROCESS_INFORMATION made;
    DWORD status;
    if (!CreateProcessA(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &start, &made)) return 98;
    WaitForSingleObject(made.hProcess, INFINITE);
    GetExitCodeProcess(made.hProcess, &status);
    return status;
}
"#;

#[test]
fn where_the_temporary_directory_takes_no_program_another_place_of_the_users_does() {
    let wine = wine_or_skip!();
    let device = sound(wine, &updater(wine, "1.0.0", "self;ready"));
    let launcher = device.stamped_launcher(&wine.program(LAUNCHER));
    let elsewhere = device.virtual_zone.join("elsewhere.exe");
    wine.compile(ELSEWHERE, &[], &elsewhere, &[]);
    let mut command = wine.command(&elsewhere);
    command.args([r"Z:\nonexistent", &*there(&launcher), "--virtual", &there(&device.virtual_zone)]);
    command.args(["--free", &there(&device.free)]);
    let ended = Ended::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap());
    assert_eq!(ended.status, 7, "{ended:?}");
    let own = ended.said.trim_end();
    assert!(own.contains(r"\AppData\Local\holdfast-") && own.ends_with(" refused stays"), "{own}");
    let directory = own.rsplit('\\').nth(1).unwrap();
    assert!(wine.left_behind().iter().all(|path| !path.ends_with(directory)), "{directory} was left behind");
}

#[test]
fn a_running_client_and_an_updater_that_changes_it_keep_each_other_out() {
    let wine = wine_or_skip!();
    let device = sound(wine, &updater(wine, "1.0.0", "ready"));
    device.start_there(wine, &[]);
    let lock = there(&device.free.join(paths::CLIENT_LOCK));
    // What an updater opens it as, asked by the client itself.
    device.client_there(wine, &format!("over {lock}"));
    let ended = device.start_there(wine, &[]);
    assert_eq!(ended.out, "refused\n", "{ended:?}");
}

#[test]
fn a_copy_of_the_launcher_in_the_free_zone_needs_no_virtual_zone_and_no_options() {
    let wine = wine_or_skip!();
    let image = updater(wine, "1.0.0", "ready;args");
    let device = sound(wine, &image);
    let copy = device.free.join(paths::bootstrap_name(WINDOWS).as_str());
    fs::copy(device.stamped_launcher(&wine.program(LAUNCHER)), &copy).unwrap();
    fs::remove_file(device.installed_path()).unwrap();
    let config = device.free.join(paths::CONFIG_COPY);
    fs::create_dir_all(config.parent().unwrap()).unwrap();
    fs::copy(device.virtual_zone.join(paths::DEVICE_CONFIG), &config).unwrap();
    let mut command = wine.command(&copy);
    let ended = Ended::of(command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap());
    assert_eq!(ended.status, 7, "{ended:?}");
    let restored = "The updater in the free zone was missing; restored version 1.0.0 from the backup mirror.\n";
    assert!(ended.said.starts_with(restored), "{}", ended.said);
    assert!(ended.said.contains(&format!("\nrun|--free|{}\r\n", there(&device.free))), "{}", ended.said);
    assert_eq!(device.installed().unwrap(), image);
    // All of the state may be gone, or the configuration damaged, if there is another one beside the launcher.
    let beside = device.free.join(paths::CONFIG_BESIDE);
    fs::copy(&config, &beside).unwrap();
    fs::write(&config, b"damaged").unwrap();
    assert_eq!(wine.command(&copy).output().unwrap().status.code(), Some(7));
    fs::remove_dir_all(device.free.join(paths::STATE_DIR)).unwrap();
    assert_eq!(wine.command(&copy).output().unwrap().status.code(), Some(7));
    // Without any it is only a program in some directory.
    fs::remove_file(beside).unwrap();
    let _ = fs::remove_file(config);
    assert_eq!(wine.command(&copy).output().unwrap().status.code(), Some(66));
}

#[test]
fn usage_errors_have_their_status_and_what_belongs_to_linux_is_refused() {
    let wine = wine_or_skip!();
    let device = sound(wine, &updater(wine, "1.0.0", "ready"));
    let launcher = device.stamped_launcher(&wine.program(LAUNCHER));
    let run = |args: &[&str]| wine.command(&launcher).args(args).output().unwrap().status.code();
    assert_eq!(run(&["--nonsense"]), Some(64));
    assert_eq!(run(&["--plugged", "D:"]), Some(64));
    assert_eq!(run(&["--virtual", r"Z:\nonexistent", "--free", "Z:\\"]), Some(66));
    let output = wine.command(&launcher).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("--virtual DIR") && help.ends_with("by signal N\n"), "{help}");
    for absent in ["--device", "--plugged", "--allow-root"] {
        assert!(!help.contains(absent), "the launcher for Windows has no {absent}: {help}");
    }
}
