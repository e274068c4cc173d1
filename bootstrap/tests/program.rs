//! The launcher itself: real processes, real directories, a real hidden zone.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use firmware_image::device_config::Policies;
use firmware_image::hidden::SlotName;
use firmware_image::host::DirZone;
use firmware_image::journal::{Journal, State};
use firmware_image::launcher_note::{LauncherNote, Trial};
use firmware_image::record::{Health, Release};
use firmware_image::sim::figures;
use firmware_image::{Digest, paths};
use support::{Device, Ended, Maker, PRODUCT, TESTED, digest_of, good_script, script, set_mode};

fn trace(device: &Device) -> Vec<String> {
    let text = fs::read_to_string(device.free.parent().unwrap().join("trace")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn sound(updater: &[u8]) -> Device {
    let device = Device::from_factory(updater);
    device.client("echo the client speaks; exit 7");
    device
}

#[test]
fn updater_and_client_run_silently_the_clients_status_is_returned_and_nothing_is_written() {
    let device = sound(&script("1.0.0", "printf R >&$HOLDFAST_READY_FD"));
    device.launcher();
    let before = device.everything();
    let ended = device.start(&[]);
    assert_eq!((ended.status, &*ended.out, &*ended.said), (7, "the client speaks\n", ""));
    assert_eq!(device.everything(), before);
}

#[test]
fn the_updater_is_told_which_device() {
    let device = sound(&good_script("1.0.0"));
    device.start(&["--no-client"]);
    let [virtual_zone, free, hidden] =
        [&device.virtual_zone, &device.free, &device.hidden].map(|path| path.display().to_string());
    assert_eq!(trace(&device), [format!("1.0.0 run --virtual {virtual_zone} --free {free} --hidden {hidden}")]);
}

#[test]
fn an_updater_knows_whether_a_client_can_be_let_go_beside_it() {
    let ends = |more: &str| format!("printf R >&$HOLDFAST_READY_FD; [ {more} \"$HOLDFAST_CLIENT_FD\" ] && exit 3");
    for (arguments, more, status) in [(&["--no-client"][..], "-n", 0), (&["--no-client"], "-z", 73), (&[], "-n", 73)] {
        let device = sound(&script("1.0.0", &ends(more)));
        device.launcher();
        assert_eq!(device.start(arguments).status, status, "{arguments:?} {more}");
    }
}

#[test]
fn a_missing_updater_is_restored_and_people_are_told() {
    let device = sound(&good_script("1.0.0"));
    fs::remove_file(device.installed_path()).unwrap();
    let ended = device.start(&[]);
    assert_eq!(ended.status, 7);
    assert_eq!(ended.said, "The updater in the free zone was missing; restored version 1.0.0 from hidden backup A.\n");
    assert_eq!(device.installed().unwrap(), good_script("1.0.0"));
    assert_eq!(trace(&device).len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn an_updater_that_this_user_may_not_read_stays_while_a_copy_runs() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    use std::os::unix::process::CommandExt as _;
    const NOBODY: u32 = 65534;

    let device = sound(&good_script("1.0.0"));
    device.launcher();
    let mut command = device.command();
    let root = device.free.parent().unwrap();
    // Root may read everything.
    if root.metadata().unwrap().uid() == 0 {
        let mut left = vec![root.to_path_buf()];
        while let Some(path) = left.pop() {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            if path.is_dir() {
                left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    set_mode(&device.installed_path(), 0);
    let ended = Ended::of(support::patiently(|| command.output()));
    assert_eq!((ended.status, &*ended.out), (7, "the client speaks\n"), "{}", ended.said);
    assert_eq!(trace(&device).len(), 1);
    let kept = device.installed_path().metadata().unwrap();
    assert_eq!((kept.mode() & 0o777, kept.len()), (0, good_script("1.0.0").len() as u64), "{}", ended.said);
}

#[test]
fn an_infected_updater_never_runs_and_is_replaced() {
    let device = sound(&good_script("1.0.0"));
    let mut infected = good_script("1.0.0");
    let at = infected.windows(7).position(|window| window == b"printf ").unwrap();
    infected[at..at + 7].copy_from_slice(b"exit 9;");
    device.install(&infected);
    let ended = device.start(&[]);
    assert_eq!(ended.status, 7);
    assert!(ended.said.contains("was damaged"), "{}", ended.said);
    assert_eq!(device.installed().unwrap(), good_script("1.0.0"));
}

#[test]
fn an_updater_that_crashes_by_signal_status_or_silence_gives_way_to_the_next() {
    for (bad, why) in [
        ("kill -SEGV $$", "signal 11"),
        ("kill -ABRT $$", "signal 6"),
        ("exit 5", "status 5"),
        ("exec sleep 60", "not ready within 1 seconds"),
    ] {
        let mut device = sound(&good_script("1.0.0"));
        device.policies = Policies { ready_timeout_secs: 1, ..Policies::default() };
        device.write_config("client/run.sh");
        let bad = script("1.1.0", bad);
        device.install(&bad);
        let ended = device.start(&[]);
        assert_eq!(ended.status, 7, "{}", ended.said);
        assert!(
            ended.said.contains("Updater 1.1.0 from the free zone is sound, but would not start"),
            "{}",
            ended.said
        );
        assert!(ended.said.contains(why), "{}", ended.said);
        assert!(ended.said.contains("estored updater 1.0.0 from hidden backup A"), "{}", ended.said);
        assert_eq!(trace(&device).len(), 1);
        assert!(device.note().has_failed(&digest_of(&bad)));
        assert_eq!(device.installed().unwrap(), good_script("1.0.0"));
    }
}

#[test]
fn a_file_that_is_no_program_of_this_system_gives_way_to_the_next() {
    let device = sound(&good_script("1.0.0"));
    device.install(&Maker::new("1.1.0").make(&[0x7f; 400]));
    let ended = device.start(&[]);
    assert_eq!(ended.status, 7);
    assert!(ended.said.contains("this system cannot run it"), "{}", ended.said);
    assert_eq!(device.installed().unwrap(), good_script("1.0.0"));
}

#[test]
fn a_kill_is_no_crash_nothing_is_restored_and_the_client_starts() {
    let device = sound(&script("1.0.0", "kill -KILL $$"));
    device.launcher();
    let before = device.everything();
    let ended = device.start(&[]);
    assert_eq!(ended.status, 7);
    assert!(ended.said.contains("was ended from outside"), "{}", ended.said);
    assert_eq!(device.everything(), before);
}

#[test]
fn a_signal_to_the_launcher_ends_the_updater_and_starts_nothing() {
    let device = sound(&script("1.0.0", "sleep 60 & child=$!; trap 'kill $child; exit 1' TERM; wait"));
    let before = Instant::now();
    let mut command = device.command();
    command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let child = support::patiently(|| command.spawn());
    std::thread::sleep(Duration::from_millis(800));
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128 + 15), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty(), "no client");
    assert!(before.elapsed() < Duration::from_secs(9));
    assert!(device.note().failed_updaters.is_empty());
}

#[test]
fn a_signal_to_the_launcher_is_passed_on_to_the_client() {
    let device = Device::from_factory(&script("1.0.0", "printf R >&$HOLDFAST_READY_FD"));
    device.client("trap 'exit 23' TERM; echo up; while :; do sleep 0.05; done");
    let mut command = device.command();
    command.stdout(std::process::Stdio::piped());
    let mut child = support::patiently(|| command.spawn());
    let mut up = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(23));
}

#[test]
fn the_client_starts_while_a_download_goes_on_and_its_end_is_told() {
    let updater = script(
        "1.0.0",
        "printf RG >&$HOLDFAST_READY_FD; read -r nothing <&$HOLDFAST_CLIENT_FD; echo the client has ended",
    );
    let device = Device::from_factory(&updater);
    device.client("sleep 0.3; echo the client speaks");
    let ended = device.start(&[]);
    assert_eq!((ended.status, &*ended.out), (0, "the client speaks\n"));
    assert_eq!(ended.said, "the client has ended\n");
}

#[test]
fn a_client_that_is_not_whole_is_not_started() {
    let device = sound(&script("1.0.0", "printf R >&$HOLDFAST_READY_FD; exit 3"));
    let ended = device.start(&[]);
    assert_eq!((ended.status, &*ended.out), (73, ""), "{}", ended.said);
    for (state, status) in [
        (State::Committing { plan: Digest::of(b"plan"), serial: 2 }, 73),
        (State::Cleaning { serial: 2 }, 7),
        (State::Idle, 7),
    ] {
        let device = sound(&good_script("1.0.0"));
        Journal::default().advance(&DirZone::open(&device.free).unwrap(), state).unwrap();
        assert_eq!(device.start(&[]).status, status, "{state:?}");
        // Whoever starts the client after this launcher goes by its status.
        let alone = if status == 7 { 0 } else { status };
        assert_eq!(device.start(&["--no-client"]).status, alone, "{state:?}");
    }
}

#[test]
fn a_failed_or_busy_updater_does_not_keep_the_client_from_starting() {
    let ready = |end: &str| format!("printf R >&$HOLDFAST_READY_FD; {end}");
    for end in [ready("exit 1"), ready("exit 4"), ready("kill -SEGV $$")] {
        let device = sound(&script("1.0.0", &end));
        device.launcher();
        let before = device.everything();
        assert_eq!(device.start(&[]).status, 7, "{end}");
        assert_eq!(device.everything(), before, "{end}");
    }
}

#[test]
fn whoever_starts_the_client_themselves_is_told_only_what_an_updater_has_seen() {
    let ready = |end: &str| format!("printf R >&$HOLDFAST_READY_FD; {end}");
    for (end, alone) in [
        (ready("exit 0"), 0),
        (ready("exit 1"), 0),
        (ready("exit 4"), 0),
        (ready("exit 5"), 73),
        (ready("exit 2"), 73),
        (ready("kill -SEGV $$"), 73),
        (ready("kill -KILL $$"), 73),
        ("kill -KILL $$".into(), 73),
        ("exit 0".into(), 73),
    ] {
        let device = sound(&script("1.0.0", &end));
        device.launcher();
        assert_eq!(device.start(&["--no-client"]).status, alone, "{end}");
        assert_eq!(device.start(&[]).status, 7, "{end}");
    }
}

#[test]
fn where_another_updater_has_the_device_and_this_one_can_tell_nothing_no_client_starts() {
    let device = sound(&script("1.0.0", "exit 4"));
    device.launcher();
    let before = device.everything();
    for arguments in [&[][..], &["--no-client"]] {
        let ended = device.start(arguments);
        assert_eq!((ended.status, &*ended.out), (73, ""), "{}", ended.said);
        assert!(
            ended.said.contains("is at work") && ended.said.contains("Wait until it has finished"),
            "{}",
            ended.said
        );
    }
    assert_eq!(device.everything(), before);
}

#[test]
fn with_no_good_copy_anywhere_every_place_is_named_and_the_way_by_hand_told() {
    let device = Device::new();
    device.install(b"#!/bin/sh\necho infected\n");
    let ended = device.start(&["--no-client"]);
    assert_eq!((ended.status, &*ended.out), (69, ""));
    for place in [
        "free zone: not an updater image",
        "hidden backup A:",
        "hidden backup B:",
        "backup mirror:",
        "factory backup on the CD: not in reach",
        "copy in the virtual zone: no updater there",
        "To recover by hand:",
        "Copy it into the free zone",
        PRODUCT,
    ] {
        assert!(ended.said.contains(place), "{place} is missing from:\n{}", ended.said);
    }
    // A client that is there starts all the same; its failure is the more telling status.
    device.client("exit 7");
    assert_eq!(device.start(&[]).status, 7);
    device.client("exit 0");
    assert_eq!(device.start(&[]).status, 69);
}

#[test]
fn recovery_by_hand_is_one_copy() {
    let device = Device::new();
    device.client("exit 7");
    let image = good_script("1.0.0");
    device.plain(&image);
    fs::copy(device.plain_path(), device.installed_path()).unwrap();
    assert_eq!(device.start(&[]).status, 7);
    assert_eq!(trace(&device).len(), 1);
}

#[test]
fn good_copies_of_which_none_starts_have_a_status_of_their_own() {
    let device = Device::from_factory(&script("1.0.0", "exit 5"));
    let ended = device.start(&["--no-client"]);
    assert_eq!(ended.status, 70);
    assert!(ended.said.contains("No copy of the updater on this device starts."), "{}", ended.said);
}

#[test]
fn below_the_floor_the_factory_copy_is_asked_to_recover() {
    use firmware_image::updater_image::Floors;
    let floors = Floors { version: support::version("2.0.0"), key_serial: 0 };
    let device = sound(&good_script("1.0.0"));
    let floored = Maker { floors, ..Maker::new("2.0.0") }.make(b"");
    device.record(SlotName::RecordB, 2, &floored);
    let ended = device.start(&[]);
    assert_eq!(ended.status, 7);
    assert_eq!(trace(&device).len(), 1);
    assert!(trace(&device)[0].ends_with(" --recover"), "{:?}", trace(&device));
}

#[test]
fn the_configuration_must_be_this_vendors() {
    let device = sound(&good_script("1.0.0"));
    let path = device.virtual_zone.join(paths::DEVICE_CONFIG);
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        if at % 16 == 0 {
            let ended = device.start(&[]);
            assert_eq!((ended.status, &*ended.out), (78, ""), "byte {at}: {}", ended.said);
        }
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(device.start(&[]).status, 78);
    assert!(trace(&device).is_empty());
}

#[test]
fn a_launcher_without_a_vendors_key_trusts_nobody() {
    let device = sound(&good_script("1.0.0"));
    fs::copy(&TESTED.file, device.launcher()).unwrap();
    let ended = device.start(&[]);
    assert_eq!((ended.status, &*ended.out), (78, ""));
    assert!(ended.said.contains("carries no vendor's key"), "{}", ended.said);
}

#[test]
fn a_new_release_is_watched_and_what_is_seen_is_noted() {
    let installed = |client: &str, probation_secs, health| {
        let mut device = Device::from_factory(&good_script("1.0.0"));
        device.policies = Policies { probation_secs, ..Policies::default() };
        device.write_config("client/run.sh");
        device.record_with(SlotName::RecordB, 2, &[], |record| {
            record.release =
                Some(Release { serial: 5, version: "2.0", manifest: Digest::of(b"manifest"), published: 1 });
            record.health = health;
        });
        device.client(client);
        device
    };
    let watch = |client: &str, probation_secs| installed(client, probation_secs, Health::Unproven { failed_starts: 0 });
    let trial = |failed_starts, proven| Some(Trial { serial: 5, failed_starts, proven });
    let device = watch("exit 1", 30);
    device.start(&[]);
    assert_eq!(device.note().trial, trial(1, false));
    device.start(&[]);
    assert_eq!(device.note().trial, trial(2, false));
    device.client("exit 0");
    device.start(&[]);
    assert_eq!(device.note().trial, trial(0, true));
    let before = device.everything();
    device.client("exit 1");
    device.start(&[]);
    assert_eq!(device.note().trial, trial(0, true), "proven is proven");
    assert_eq!(device.everything().keys().count(), before.keys().count());

    let device = watch("sleep 1.5; exit 1", 1);
    device.start(&[]);
    assert_eq!(device.note().trial, trial(0, true), "it ran through the probation");
    let device = watch("kill -KILL $$", 30);
    device.start(&[]);
    assert_eq!(device.note().trial, None, "a kill says nothing");
    let device = watch("kill -SEGV $$", 30);
    assert_eq!(device.start(&[]).status, 128 + 11);
    assert_eq!(device.note().trial, trial(1, false));
    let device = watch("", 30);
    fs::remove_file(device.free.join("client/run.sh")).unwrap();
    assert_eq!(device.start(&[]).status, 72);
    assert_eq!(device.note().trial, trial(1, false));

    let device = installed("exit 1", 30, Health::Proven);
    device.start(&[]);
    assert_eq!(device.note().trial, None, "nobody watches what has proven itself");
    let device = watch("exit 1", 30);
    let before = Trial { serial: 4, failed_starts: 0, proven: true };
    let note = LauncherNote { trial: Some(before), ..LauncherNote::default() };
    note.write(&DirZone::open(&device.free).unwrap()).unwrap();
    device.start(&[]);
    assert_eq!(device.note().trial, trial(1, false), "the release before proves nothing");
}

#[test]
fn a_client_runs_from_a_mount_without_the_right_to_execute() {
    let device = sound(&good_script("1.0.0"));
    set_mode(&device.free.join("client/run.sh"), 0o644);
    assert_eq!(device.start(&[]).status, 7, "a script, by its interpreter");
    fs::copy("/bin/true", device.free.join("client/program")).unwrap();
    set_mode(&device.free.join("client/program"), 0o644);
    device.write_config("client/program --some argument");
    assert_eq!(device.start(&[]).status, 0, "a program, from memory");
    fs::write(device.free.join("client/text"), "exit 9\n").unwrap();
    set_mode(&device.free.join("client/text"), 0o755);
    device.write_config("client/text");
    assert_eq!(device.start(&[]).status, 9, "text, by the shell");
}

#[test]
fn the_client_gets_its_arguments_and_the_free_zone_as_its_directory_and_a_lock() {
    let device = sound(&good_script("1.0.0"));
    device.client("echo \"$@\"; pwd; flock -n client true || echo locked; env | grep -c HOLDFAST_");
    device.write_config("client/run.sh --first second");
    let ended = device.start(&[]);
    let free = device.free.canonicalize().unwrap();
    let lock = if Path::new("/usr/bin/flock").exists() { "locked\n" } else { "" };
    assert_eq!(ended.out, format!("--first second\n{}\n{lock}0\n", free.display()), "{}", ended.said);
}

#[test]
fn a_client_outside_the_free_zone_is_refused() {
    let device = sound(&good_script("1.0.0"));
    for command in ["../../bin/true", "/bin/true", "client/../../x", ""] {
        device.write_config(command);
        let ended = device.start(&[]);
        assert_eq!(ended.status, 72, "{command}: {}", ended.said);
    }
}

#[test]
fn a_replaced_file_between_check_and_use_does_not_run() {
    // The updater replaces its own file before it speaks: what runs is what was verified.
    let replace = "while [ $# -gt 0 ]; do [ \"$1\" = --free ] && echo 'echo evil' > \"$2\"/updater-*; shift; done\n\
                   sleep 0.2; echo verified; printf R >&$HOLDFAST_READY_FD";
    let device = Device::from_factory(&script("1.0.0", replace));
    let ended = device.start(&["--no-client"]);
    assert_eq!(ended.said, "verified\n");
}

#[test]
fn peak_memory_grows_by_the_updaters_own_bytes_and_no_more() {
    /// What opening a key slot takes besides (`docs/formats/hidden-zone.md`).
    const ARGON2_KIB: usize = 256;
    let peak_kib = |length: usize, restored: bool| {
        let mut program =
            b"#!/bin/sh\nsed -n 's/VmHWM:\\s*\\([0-9]*\\) kB/\\1/p' /proc/$PPID/status\nexit 0\n".to_vec();
        program.resize(length, b'\n');
        let image = Maker::new("1.0.0").make(&program);
        let device = Device::new();
        if restored {
            device.make_hidden(image.len() as u64 + (64 << 10));
            device.backup(SlotName::BackupA, 1, &image);
        } else {
            device.install(&image);
        }
        let ended = device.start(&["--no-client"]);
        assert_eq!(device.installed(), Some(image), "{}", ended.said);
        ended.said.lines().find_map(|line| line.trim().parse::<usize>().ok()).unwrap()
    };
    let [small, large] = [64 << 10, 8 << 20].map(|length| peak_kib(length, false));
    let restored = peak_kib(8 << 20, true);
    println!("peak: {small} KiB with an updater of 64 KiB, {large} KiB with one of 8 MiB, {restored} KiB if restored");
    assert!(large - small <= (8 << 10) + 512, "{small} KiB, {large} KiB");
    // As it ships, static, there is nothing else in its memory.
    if TESTED.is_shipped {
        assert!(large <= (8 << 10) + (2 << 10), "{large} KiB");
        assert!(restored <= (8 << 10) + (2 << 10) + ARGON2_KIB, "{restored} KiB");
    }
}

#[test]
fn usage_errors_and_missing_devices_have_their_statuses() {
    let device = Device::from_factory(&good_script("1.0.0"));
    let run = |args: &[&str]| {
        let output = support::output(device.bare_command().args(args));
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in [&["--nonsense"][..], &["--free", "/tmp"], &["--virtual"], &["--device=x", "--free", "y"], &["extra"]] {
        let (status, said) = run(args);
        assert_eq!(status, 64, "{args:?}: {said}");
        assert!(said.contains("--help"), "{said}");
    }
    assert_eq!(run(&["--virtual", "/nonexistent/zone", "--free", "/tmp"]).0, 66);
    let (status, said) = run(&[]);
    assert_eq!(status, 66, "the test's directory is on no device: {said}");
    let output = support::output(device.bare_command().arg("--help"));
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && help.contains("--plugged NODE") && help.contains("128+N"), "{help}");
    // Options and examples begin two columns in, what they continue with further in.
    let listed = |line: &&str| line.starts_with("--") || line.starts_with("bootstrap");
    assert_eq!(help.lines().filter(listed).collect::<Vec<_>>(), [""; 0], "{help}");
    // By this `partition-tools create` tells a launcher from an updater.
    assert!(help.contains("Usage: bootstrap [options]"), "{help}");
    // What ships opens no images.
    assert_eq!(help.contains("--device"), !support::TESTED.is_shipped, "{help}");
}

#[test]
fn the_report_for_scripts_is_json() {
    let device = sound(&good_script("1.0.0"));
    fs::remove_file(device.installed_path()).unwrap();
    let Ended { out, status, .. } = device.start(&["--json"]);
    assert_eq!(status, 7);
    let report = out.lines().last().unwrap();
    assert!(report.starts_with("{\"status\":7,\"outcome\":\"client\",\"messages\":[\"The updater"), "{report}");
}

#[test]
fn on_a_desktop_what_went_wrong_comes_in_a_window() {
    if TESTED.emulator.is_some() {
        figures::skipped("autorun.sh takes the launcher of the computer that it runs on");
        return;
    }
    let device = sound(&good_script("1.0.0"));
    device.client("exit 7");
    let autorun = device.virtual_zone.join("autorun.sh");
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/../partition-tools/assets/autorun.sh"), &autorun).unwrap();
    let launcher = device.launcher();
    // A window that keeps what it shows.
    let programs = tempfile::tempdir().unwrap();
    let (window, shown) = (programs.path().join("zenity"), programs.path().join("shown"));
    fs::write(
        &window,
        format!("#!/bin/sh\nfor text; do :; done; printf %s \"${{text#--text=}}\" >> '{}'\n", shown.display()),
    )
    .unwrap();
    support::set_mode(&window, 0o755);
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let start = |display: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.arg(&autorun).args(arguments).env("PATH", &path).env("DISPLAY", display).env_remove("WAYLAND_DISPLAY");
        command.env("TMPDIR", programs.path());
        let ended = Ended::of(support::output(&mut command));
        let text = fs::read_to_string(&shown).unwrap_or_default();
        let _ = fs::remove_file(&shown);
        let left = fs::read_dir(programs.path()).unwrap().count();
        assert_eq!(left, 1, "something stayed behind");
        (ended.status, ended.said, text)
    };
    let zones = ["--virtual", device.virtual_zone.to_str().unwrap(), "--free", device.free.to_str().unwrap()];
    assert_eq!(start(":0", &zones), (7, String::new(), String::new()));
    // Healed: nobody has to read that in a window.
    fs::remove_file(device.installed_path()).unwrap();
    let (status, said, text) = start(":0", &zones);
    assert!(status == 7 && said.contains("was missing") && text.is_empty(), "{status} {said} {text}");
    fs::remove_file(device.virtual_zone.join("device.cfg")).unwrap();
    let (status, said, text) = start(":0", &zones);
    assert!(status == 78 && text.contains("device.cfg") && said.contains(&text), "{status}\n{said}\n{text}");
    let (status, said, text) = start("", &zones);
    assert!(status == 78 && said.contains("device.cfg") && text.is_empty(), "{status}\n{said}\n{text}");
    fs::remove_file(launcher).unwrap();
    let (status, _, text) = start(":0", &zones);
    assert!(status == 64 && text.contains("READ ME FIRST.html"), "{status}\n{text}");
}

#[test]
fn output_that_nobody_reads_keeps_no_device_from_being_healed() {
    let device = sound(&good_script("1.0.0"));
    device.client("exit 7");
    fs::remove_file(device.installed_path()).unwrap();
    let (read, write) = std::io::pipe().unwrap();
    drop(read);
    let mut command = device.command();
    command.args(["--verbose", "--json"]).stderr(write.try_clone().unwrap()).stdout(write);
    assert_eq!(support::output(&mut command).status.code(), Some(7));
    assert_eq!(device.installed().unwrap(), good_script("1.0.0"));
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

#[test]
fn a_client_whose_journal_cannot_be_read_is_not_started() {
    let device = sound(&good_script("1.0.0"));
    Journal::default().advance(&DirZone::open(&device.free).unwrap(), State::Idle).unwrap();
    assert_eq!(device.start(&[]).status, 7);
    // As a later program writes it: the checksums hold, the format is unknown.
    let mut bytes = fs::read(device.free.join(paths::JOURNAL)).unwrap();
    for slot in bytes.chunks_mut(4096).filter(|slot| slot.starts_with(b"HOLDFJNL")) {
        slot[8] += 1;
        let sum = crc32(&slot[..4092]);
        slot[4092..].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(device.free.join(paths::JOURNAL), bytes).unwrap();
    let ended = device.start(&[]);
    assert_eq!((ended.status, &*ended.out), (73, ""), "{}", ended.said);
    assert!(ended.said.contains("cannot be told"), "{}", ended.said);
}

/// A launcher that waits for another updater, which holds the lock that is returned.
fn waiting(device: &Device) -> (std::process::Child, fs::File) {
    use std::io::{BufRead as _, BufReader};
    let other = fs::File::open(device.free.join("client")).unwrap();
    other.lock().unwrap();
    let mut command = device.command();
    command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut launcher = support::patiently(|| command.spawn());
    let mut said = String::new();
    let mut stderr = BufReader::new(launcher.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains("Waiting for another updater"), "{said}");
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    (launcher, other)
}

#[test]
fn a_client_is_not_started_from_the_mixture_that_an_ended_updater_left_while_it_was_waited_for() {
    let device = sound(&good_script("1.0.0"));
    let (mut launcher, other) = waiting(&device);
    let state = State::Committing { plan: Digest::of(b"plan"), serial: 2 };
    Journal::default().advance(&DirZone::open(&device.free).unwrap(), state).unwrap();
    drop(other);
    assert_eq!(launcher.wait().unwrap().code(), Some(73));
}

#[test]
fn a_launcher_that_waits_for_another_updater_can_be_ended() {
    let device = sound(&good_script("1.0.0"));
    let (mut launcher, other) = waiting(&device);
    let pid = rustix::process::Pid::from_child(&launcher);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(launcher.wait().unwrap().code(), Some(128 + 15));
    drop(other);
}

#[test]
fn without_a_free_zone_in_reach_nothing_is_started_and_that_is_said() {
    let device = sound(&good_script("1.0.0"));
    let mut command = device.bare_command();
    command.arg("--virtual").arg(&device.virtual_zone).arg("--hidden").arg(&device.hidden);
    let ended = Ended::of(support::output(&mut command));
    assert_eq!(ended.status, 72);
    assert_eq!(ended.said, "Without the free zone there is nothing to check, and no client to start.\n");
    assert_eq!(trace(&device), [""; 0]);
}
