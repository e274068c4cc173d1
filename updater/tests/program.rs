//! The program itself: a signed updater on directories and on a whole image, as the launcher and a person call it.
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::programs::*;
use common::*;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::any_zone::AnyFreeZone;
use firmware_image::image::build::{Layout, stick};
use firmware_image::image::device::Device;
use firmware_image::image::gpt::Guids;
use firmware_image::image::iso::{IsoFile, Source};
use firmware_image::paths;
use firmware_image::updater_image::Floors;
use release_store::serve::Server;

/// A device whose server has its first release.
fn published() -> (World, PathBuf, Server) {
    let (listener, url) = reserved_port();
    let (world, program) = device(&[(url, 1)]);
    world.publish_with("1.0.0", &first(), with_updater(&program));
    let server = serve_at(&world, listener);
    (world, program, server)
}

#[test]
fn a_device_is_installed_verified_repaired_and_rolled_back_from_the_command_line() {
    let (world, program, server) = published();

    let output = run(&world, &program, &["check", "--json"]);
    assert_status(&output, 0);
    assert_eq!(json(&output)["newest"], "1.0.0");
    assert_status(&run(&world, &program, &["update", "--dry-run"]), 0);
    assert!(world.client_files().is_empty());
    let output = run(&world, &program, &["update"]);
    assert_status(&output, 0);
    world.assert_client(&first());
    assert_status(&run(&world, &program, &["verify"]), 0);
    fs::write(world.client().join("run.sh"), "virus").unwrap();
    let output = run(&world, &program, &["verify", "--json"]);
    assert_status(&output, 3);
    assert_eq!(json(&output)["damaged"][0]["path"], "run.sh");
    assert_status(&run(&world, &program, &["repair"]), 0);
    world.assert_client(&first());
    world.publish("2.0.0", &second());
    assert_status(&run(&world, &program, &["update"]), 0);
    world.assert_client(&second());
    drop(server);
    assert_status(&run(&world, &program, &["rollback"]), 0);
    world.assert_client(&first());
    let output = run(&world, &program, &["status", "--json"]);
    assert_status(&output, 0);
    let status = json(&output);
    assert_eq!((&status["version"], &status["held"]), (&"1.0.0".into(), &true.into()));
    assert_eq!(status["files"]["whole"], true);
    assert_status(&run(&world, &program, &["check"]), 10);
    assert_status(&run(&world, &program, &["update", "--to", "7.7"]), 10);
    // What was rolled back is still on the device, so even this needs no server.
    let output = run(&world, &program, &["update", "--json"]);
    assert_status(&output, 0);
    assert_eq!((&json(&output)["offline"], &json(&output)["bytes_fetched"]), (&true.into(), &0.into()));
    world.assert_client(&second());
    assert_status(&run(&world, &program, &["update"]), 10);
}

#[test]
fn the_updater_that_stands_on_the_device_needs_no_options() {
    let (world, program, _server) = published();
    assert_status(&run(&world, &program, &["run"]), 0);
    let name = firmware_image::paths::updater_name(PLATFORM);
    let output = Command::new(world.free().join(name.as_str())).args(["verify", "--json"]).output().unwrap();
    assert_status(&output, 0);
    assert_eq!(json(&output)["whole"], true);
    // A copy anywhere else asks which device is meant.
    let output = Command::new(&program).arg("verify").output().unwrap();
    assert_status(&output, 16);
}

#[test]
fn without_the_list_of_its_files_nobody_says_that_the_client_is_whole() {
    let (world, program, server) = published();
    assert_status(&run(&world, &program, &["run"]), 0);
    drop(server);
    assert_status(&run(&world, &program, &["run"]), 0);
    let holdfast = world.free().join(".holdfast");
    for path in [&holdfast.join("trust"), &holdfast] {
        let aside = world.path("aside");
        fs::rename(path, &aside).unwrap();
        if *path == holdfast {
            fs::write(path, "a flipped attribute makes a file of a directory").unwrap();
        }
        assert_status(&run(&world, &program, &["run"]), 5);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
        fs::rename(&aside, path).unwrap();
        assert_status(&run(&world, &program, &["run"]), 0);
    }
}

#[test]
fn what_only_looks_leaves_a_device_that_knows_nothing_as_it_is() {
    let (world, program, server) = published();
    world.wipe_free();
    world.wipe_hidden();
    let before = (read_tree(&world.free()), fs::read(world.path("hidden.img")).unwrap());
    for args in [&["status", "--json"][..], &["verify"], &["probe"], &["update", "--dry-run"]] {
        let output = run(&world, &program, args);
        if args[0] == "status" {
            assert_eq!(json(&output)["device_id"], serde_json::Value::Null, "{output:?}");
        }
        let after = (read_tree(&world.free()), fs::read(world.path("hidden.img")).unwrap());
        assert!(before == after, "{args:?}: {output:?}");
    }
    drop(server);
}

#[test]
fn an_updater_without_a_vendor_key_or_with_another_vendors_does_nothing() {
    let (world, _) = device(&[]);
    let output = run(&world, Path::new(env!("CARGO_BIN_EXE_updater")), &["update"]);
    assert_status(&output, 12);
    let other = World::new();
    let foreign = signed(&other, "1.0.0");
    assert_status(&run(&world, &foreign, &["update"]), 12);
    let version = |program: &Path| {
        let output = Command::new(program).arg("--version").output().unwrap();
        assert_status(&output, 0);
        String::from_utf8(output.stdout).unwrap()
    };
    let product = other.config().product;
    assert!(version(&foreign).starts_with(&format!("updater 1.0.0 of {product} for {PLATFORM}, ")));
    assert!(version(Path::new(env!("CARGO_BIN_EXE_updater"))).starts_with("updater of no vendor: "));
    assert_eq!(
        fs::read_dir(world.free()).unwrap().filter(|e| e.as_ref().unwrap().file_name() != ".holdfast").count(),
        0
    );
}

/// Starts `run` as the launcher does; what it says comes from the first pipe, the client's end is told by the second.
fn launch(world: &World, program: &Path, args: &[&str]) -> (Child, File, OwnedFd) {
    let (ready_out, ready_in) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (client_out, client_in) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    for fd in [&ready_in, &client_out] {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
    }
    let child = command(world, program)
        .args(args)
        .env("HOLDFAST_READY_FD", ready_in.as_raw_fd().to_string())
        .env("HOLDFAST_CLIENT_FD", client_out.as_raw_fd().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop((ready_in, client_out));
    (child, File::from(ready_out), client_in)
}

#[test]
fn the_launcher_hears_ready_and_go_and_the_commit_waits_for_the_client() {
    let (world, program, _server) = published();
    assert_status(&run(&world, &program, &["run"]), 0);
    let mut files = second();
    files.push(("film.bin", noise(5, 2_000_000)));
    world.publish("2.0.0", &files);
    let (mut child, mut ready, client) = launch(&world, &program, &["--limit-rate", "600k", "run"]);
    let mut said = [0; 1];
    ready.read_exact(&mut said).unwrap();
    assert_eq!(said, *b"R");
    ready.read_exact(&mut said).unwrap();
    assert_eq!(said, *b"G");
    // The client runs now; the download ends, and nothing is replaced.
    std::thread::sleep(Duration::from_secs(8));
    world.assert_client(&first());
    assert_eq!(child.try_wait().unwrap(), None);
    drop(client);
    assert!(child.wait().unwrap().success());
    world.assert_client(&files);
}

#[test]
fn a_client_that_runs_from_the_device_keeps_its_files() {
    let (listener, url) = reserved_port();
    let (world, program) = device(&[(url, 1)]);
    world.publish("1.0.0", &first());
    let _server = serve_at(&world, listener);
    assert_status(&run(&world, &program, &["update"]), 0);
    world.publish("2.0.0", &second());
    let mut sleeper = Command::new("sleep").arg("60").current_dir(world.client()).spawn().unwrap();
    let output = run(&world, &program, &["update"]);
    assert_status(&output, 4);
    assert!(String::from_utf8_lossy(&output.stderr).contains("sleep"), "{output:?}");
    world.assert_client(&first());
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    // A lock says so too, as the launcher holds one for its client.
    let directory = File::open(world.client()).unwrap();
    directory.try_lock_shared().unwrap();
    assert_status(&run(&world, &program, &["update"]), 4);
    drop(directory);
    assert_status(&run(&world, &program, &["update"]), 0);
    world.assert_client(&second());
}

#[test]
fn one_updater_at_a_time() {
    let (world, program) = device(&[]);
    fs::create_dir(world.free().join(".holdfast")).unwrap();
    let lock = File::open(world.free().join(".holdfast")).unwrap();
    lock.lock().unwrap();
    // The one that a launcher calls waits, but not for ever.
    let output = run(&world, &program, &["run"]);
    assert_status(&output, 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("another updater is at work"), "{output:?}");
    assert_status(&run(&world, &program, &["update"]), 4);
}

#[test]
fn beside_a_launcher_in_the_free_zone_the_configuration_outlives_all_of_the_state() {
    let (world, program, _server) = published();
    let beside = world.free().join(paths::CONFIG_BESIDE);
    assert_status(&run(&world, &program, &["run"]), 0);
    assert!(!beside.exists(), "nobody looks for it there");
    fs::write(world.free().join("bootstrap-windows-x86_64.exe"), b"a launcher").unwrap();
    assert_status(&run(&world, &program, &["run"]), 0);
    let config = fs::read(world.path("virtual/device.cfg")).unwrap();
    assert_eq!(fs::read(&beside).unwrap(), config);
    // Where no virtual zone is in sight, as on Windows.
    let without = || Command::new(&program).arg("--free").arg(world.free()).arg("run").output().unwrap();
    for damage in [false, true] {
        match damage {
            true => fs::write(world.free().join(paths::CONFIG_COPY), b"damaged").unwrap(),
            false => fs::remove_dir_all(world.free().join(paths::STATE_DIR)).unwrap(),
        }
        assert_status(&without(), 0);
        assert_eq!(fs::read(world.free().join(paths::CONFIG_COPY)).unwrap(), config);
        world.assert_client(&first());
    }
    fs::write(&beside, b"damaged").unwrap();
    assert_status(&without(), 0);
    assert_eq!(fs::read(&beside).unwrap(), config);
    fs::remove_dir_all(world.free().join(paths::STATE_DIR)).unwrap();
    fs::write(&beside, b"damaged").unwrap();
    assert_eq!(without().status.code(), Some(5));
}

#[test]
fn an_updater_that_is_too_old_tells_whether_the_client_is_whole_where_it_can_fetch_no_newer_one() {
    let (world, program, server) = published();
    assert_status(&run(&world, &program, &["run"]), 0);
    drop(server);
    fs::remove_file(world.free().join(paths::updater_name(paths::THIS_PLATFORM).as_str())).unwrap();
    let recover = || run(&world, &program, &["run", "--recover"]).status.code();
    assert_eq!(recover(), Some(1));
    let (name, bytes) = &first()[0];
    write(&world.client().join(name), &[&bytes[..], b"infected"].concat());
    assert_eq!(recover(), Some(3));
}

#[test]
fn a_second_updater_tells_the_launcher_whether_the_client_is_whole_although_it_has_to_wait() {
    let (listener, url) = reserved_port();
    let (world, program) = device(&[(url, 1)]);
    world.publish("1.0.0", &first());
    let _server = serve_at(&world, listener);
    assert_status(&run(&world, &program, &["update"]), 0);
    let lock = File::open(world.free().join(".holdfast")).unwrap();
    lock.lock().unwrap();
    let before = fs::read(world.free().join(".holdfast/log")).unwrap();
    let start = || {
        let (mut child, mut ready, client) = launch(&world, &program, &["run"]);
        drop(client);
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            let mut said = String::new();
            ready.read_to_string(&mut said).unwrap();
            (status.code(), said)
        })
    };
    assert_eq!(start().join().unwrap(), (Some(4), "R".to_owned()));
    // Infected, or with a program beside it: it is waited for whoever has the device, who may be about to mend it.
    let (name, bytes) = &first()[0];
    let mut infected = bytes.clone();
    infected[0] ^= 1;
    write(&world.client().join(name), &infected);
    let waits = [start(), start()];
    assert_eq!(waits.map(|wait| wait.join().unwrap()), [(Some(3), "R".to_owned()), (Some(3), "R".to_owned())]);
    write(&world.client().join(name), bytes);
    write(&world.client().join("evil.exe"), b"evil");
    let waits = start();
    std::thread::sleep(Duration::from_secs(2));
    assert!(!waits.is_finished());
    assert_eq!(fs::read(world.free().join(".holdfast/log")).unwrap(), before, "who waits writes nothing");
    drop(lock);
    let (status, said) = waits.join().unwrap();
    assert!(status == Some(0) && said == "RG", "{status:?} {said}");
    assert!(!world.client().join("evil.exe").exists());
    world.assert_client(&first());
}

#[test]
fn an_updater_killed_again_and_again_ends_with_a_whole_client_and_no_frame_fetched_twice() {
    let (listener, url) = reserved_port();
    let (world, program) = device(&[(url, 1)]);
    world.publish("1.0.0", &[("a.bin", noise(1, 1_500_000)), ("b.bin", noise(2, 700_000))]);
    let server = serve_at(&world, listener);
    let output = run(&world, &program, &["update", "--dry-run", "--json"]);
    let total = json(&output)["plan"]["frames"].as_u64().unwrap();
    let free = firmware_image::host::DirZone::open(&world.free()).unwrap();
    let spooled = || updater::spool::Spool::open(&free).unwrap().len() as u64;
    let mut kills = 0;
    let mut before = 0;
    let last = loop {
        let child = command(&world, &program)
            .args(["--limit-rate", "1500k", "--json", "update"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        // Reaped below, so that the number stays the child's until then.
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(450 + 37 * kills));
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        });
        let output = child.wait_with_output();
        killer.join().unwrap();
        let output = output.unwrap();
        if output.status.success() {
            break json(&output);
        }
        let now = spooled();
        assert!(now >= before, "frames were lost: {now} after {before}");
        before = now;
        kills += 1;
        assert!(kills < 60);
    };
    assert!(kills > 1, "{kills}");
    world.assert_client(&[("a.bin", noise(1, 1_500_000)), ("b.bin", noise(2, 700_000))]);
    // What the last life fetched, and what was there before it, are all frames, each once.
    assert!(before > 0);
    assert_eq!(last["frames_fetched"].as_u64().unwrap() + before, total);
    drop(server);
}

#[test]
fn a_new_updater_is_run_once_before_it_is_installed() {
    let (world, program, _server) = published();
    assert_status(&run(&world, &program, &["run"]), 0);
    // Sound by its signature, and yet it does not run.
    let broken = world.signed_updater(b"\x7fELF this is no program", "1.5.0", Floors::default());
    fs::write(world.path("broken"), broken).unwrap();
    world.publish_with("1.5.0", &second(), with_updater(&world.path("broken")));
    let output = run(&world, &program, &["run", "--json"]);
    assert_status(&output, 0);
    assert!(String::from_utf8_lossy(&output.stdout).contains("would not start"), "{output:?}");
    let version = |world: &World| json(&run(world, &program, &["status", "--json"]))["updaters"][0]["version"].clone();
    assert_eq!(version(&world), "1.0.0");
    let new = signed(&world, "2.0.0");
    world.publish_with("2.0.0", &second(), with_updater(&new));
    assert_status(&run(&world, &program, &["update"]), 0);
    assert_eq!(version(&world), "2.0.0");
    // And from now on it is the one that runs, and proves itself.
    let installed = world.free().join(firmware_image::paths::updater_name(PLATFORM).as_str());
    assert_status(&run(&world, &installed, &["run"]), 0);
    let status = json(&run(&world, &installed, &["status", "--json"]));
    let backups: Vec<String> =
        status["backups"].as_array().unwrap().iter().map(|backup| backup["updaters"][0].to_string()).collect();
    assert_eq!(backups.len(), 3);
    assert!(backups.iter().all(|backup| backup.contains("2.0.0")), "{backups:?}");
}

#[test]
fn a_whole_image_is_installed_broken_and_mended_without_mounting() {
    let (world, program, _server) = published();
    let image = world.path("device.img");
    let config = fs::read(world.path("virtual/device.cfg")).unwrap();
    let layout = Layout {
        disk_bytes: 256 << 20,
        leave_bytes: 0,
        hidden_bytes: 96 << 20,
        product: "Testbird".into(),
        volume_id: 0x1234_5678,
        guids: Guids { disk: [1; 16], partitions: [[2; 16], [3; 16], [4; 16]] },
        timestamp: NOW,
    };
    stick(&image, &layout, &[IsoFile::new("device.cfg", Source::Bytes(config.into()))]).unwrap();
    let run = |args: &[&str]| Command::new(&program).arg("--device").arg(&image).args(args).output().unwrap();
    let output = run(&["run"]);
    assert_status(&output, 0);
    assert_status(&run(&["verify"]), 0);
    {
        let device = Device::open(&image, None, Access::ReadWrite).unwrap();
        let free = device.free_zone().unwrap();
        updater::zone_io::write_durable(&free, "client/run.sh", b"virus").unwrap();
        updater::zone_io::write_durable(&free, "holiday.txt", b"mine").unwrap();
        free.close().unwrap();
    }
    assert_status(&run(&["verify"]), 3);
    // Where no write succeeds, what it saw of the client goes before what it could not close.
    let mut stuck = Command::new("sh");
    stuck.args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$@\"", "sh"]).arg(&program).arg("--device").arg(&image);
    let output = stuck.arg("run").output().unwrap();
    assert_status(&output, 3);
    let output = run(&["run", "--json"]);
    assert_status(&output, 0);
    assert_eq!(json(&output)["action"], "repaired");
    assert_status(&run(&["verify"]), 0);
    let before = fs::read(&image).unwrap();
    assert_status(&run(&["run"]), 0);
    // The signed updater runs by itself now: the other backup slot follows once.
    assert_status(&run(&["run"]), 0);
    let settled = fs::read(&image).unwrap();
    assert_status(&run(&["run"]), 0);
    assert!(settled == fs::read(&image).unwrap(), "a sound device was written to");
    assert_eq!(before.len(), settled.len());
    // Everything in the free zone is formatted away.
    {
        let device = Device::open(&image, None, Access::ReadWrite).unwrap();
        device.format_free(*b"TESTBIRD   ", 7).unwrap();
    }
    assert_status(&run(&["run"]), 0);
    assert_status(&run(&["verify"]), 0);
    let device = Device::open(&image, None, Access::ReadOnly).unwrap();
    let free = device.free_zone().unwrap();
    assert!(matches!(free, AnyFreeZone::Fat(_)));
    for (path, bytes) in first() {
        let found = updater::zone_io::read_small(&free, &format!("client/{path}"), 1 << 20).unwrap();
        assert_eq!(found.as_ref(), Some(&bytes), "{path}");
    }
    let _ = FileZone::open(&image, Access::ReadOnly).unwrap();
}

#[test]
fn with_both_zones_wiped_and_no_server_the_carried_release_is_installed_and_the_updater_backed_up() {
    let (world, program) = device(&[("http://127.0.0.1:9".into(), 1)]);
    world.publish_with("1.0.0", &first(), with_updater(&program));
    // The virtual zone carries the first release; its metadata is of a day on which there was a second.
    let carried = world.path("virtual").join(firmware_image::paths::OFFLINE_STORE_DIR);
    copy_tree(&world.store(), &carried);
    world.publish("1.1.0", &second());
    copy_tree(&world.store().join("metadata"), &carried.join("metadata"));
    let output = run(&world, &program, &["run"]);
    assert_status(&output, 0);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("cannot be reached") && !said.contains("1.1.0"), "{said}");
    world.assert_client(&first());
    let status = json(&run(&world, &program, &["status", "--json"]));
    assert_eq!((&status["version"], status["backups"].as_array().unwrap().len()), (&"1.0.0".into(), 3));
    // The free zone alone: the record says what was installed.
    world.wipe_free();
    let output = run(&world, &program, &["run"]);
    assert_status(&output, 0);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("reached ("), "{said}");
    world.assert_client(&first());
}

#[test]
fn a_full_free_zone_is_an_error_with_numbers_and_changes_nothing() {
    let (listener, url) = reserved_port();
    let (world, program) = device(&[(url, 1)]);
    world.publish("1.0.0", &first());
    let _server = serve_at(&world, listener);
    let image = world.path("device.img");
    let config = fs::read(world.path("virtual/device.cfg")).unwrap();
    let layout = Layout {
        disk_bytes: 96 << 20,
        leave_bytes: 0,
        hidden_bytes: 16 << 20,
        product: "Testbird".into(),
        volume_id: 7,
        guids: Guids { disk: [1; 16], partitions: [[2; 16], [3; 16], [4; 16]] },
        timestamp: NOW,
    };
    stick(&image, &layout, &[IsoFile::new("device.cfg", Source::Bytes(config.into()))]).unwrap();
    {
        use firmware_image::free_zone::FreeZone as _;
        let device = Device::open(&image, None, Access::ReadWrite).unwrap();
        let free = device.free_zone().unwrap();
        let room = free.free_bytes().unwrap() - (1 << 20);
        let mut file = free.create("films.bin").unwrap();
        firmware_image::free_zone::ZoneFile::set_len(&mut file, room).unwrap();
        drop(file);
        free.close().unwrap();
    }
    let output = Command::new(&program).arg("--device").arg(&image).arg("update").output().unwrap();
    assert_status(&output, 11);
    assert!(String::from_utf8_lossy(&output.stderr).contains("bytes are needed"), "{output:?}");
    let device = Device::open(&image, None, Access::ReadOnly).unwrap();
    assert!(updater::zone_io::walk(&device.free_zone().unwrap(), "client").unwrap().entries.is_empty());
}

#[test]
fn output_that_nobody_reads_stops_nothing() {
    let (world, program, _server) = published();
    let closed = || {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        write
    };
    let deaf = |args: &[&str]| {
        let status = command(&world, &program).args(args).stdout(closed()).stderr(closed()).status().unwrap();
        status.code()
    };
    assert_eq!(deaf(&["update"]), Some(0));
    world.assert_client(&first());
    fs::write(world.client().join("run.sh"), "virus").unwrap();
    assert_eq!(deaf(&["verify"]), Some(3));
    assert_eq!(deaf(&["run"]), Some(0));
    world.assert_client(&first());
    for args in [&["status"][..], &["status", "--json"], &["check"], &["repair"]] {
        assert_eq!(deaf(args), Some(0), "{args:?}");
    }
    // What cannot be written where it was to go is said once, and is no success.
    for args in [&["status"][..], &["status", "--json"], &["check"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command(&world, &program).args(args).stdout(full).output().unwrap();
        assert_status(&output, 1);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.matches("standard output cannot be written").count(), 1, "{said}");
    }
}

#[test]
fn who_asks_for_what_is_not_there_hears_what_is() {
    let (world, program, server) = published();
    let failed = |args: &[&str], status: i32, words: &[&str]| {
        let output = run(&world, &program, args);
        assert_status(&output, status);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    };
    world.publish("2.0.0", &second());
    failed(&["update", "--to", "9.9"], 15, &["there is no release 9.9", "there are 2.0.0, 1.0.0"]);
    world.write_config(&[(format!("{}/elsewhere", server.url()), 1)]);
    failed(&["check"], 10, &["no server has it", "/elsewhere: metadata/", "is not there"]);
    failed(&["run"], 3, &["no server has it", "/elsewhere"]);
    // Of all reasons, that the client is not whole goes first.
    world.write_config(&[(server.url(), 1)]);
    assert_status(&run(&world, &program, &["update"]), 0);
    drop(server);
    fs::write(world.client().join("run.sh"), "virus").unwrap();
    failed(&["repair"], 3, &["the client is not whole", "no server could be reached"]);
}
