//! The factory's tool beside an updater at work on the same image: whatever would write is refused, and the update ends well.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use firmware_image::paths::{THIS_PLATFORM, updater_name};
use qemu_tests::scene::{self, text};
use qemu_tests::sweep;
use qemu_tests::world::{NEW, OLD, PRODUCT, World};
use xtask::run;
use xtask::server::Server;

/// "Another program has it."
const BUSY: i32 = 7;
/// So slow that the update lasts until all commands were tried.
const RATE: &str = "2k";

#[test]
fn a_tool_that_would_write_beside_an_updater_at_work_is_refused_and_the_update_ends_well() {
    let world = World::get();
    let dir = sweep::directory().unwrap();
    let [disk, other, updater] = ["disk.img", "other.img", "updater"].map(|name| dir.path().join(name));
    let server = Server::start(&world.programs, &world.store(NEW), dir.path().join("server.log")).unwrap();
    scene::create(&disk, &["--server", &server.url]);
    scene::create(&other, &[]);
    scene::put_users_files(&disk, dir.path()).unwrap();
    let tool = |arguments: &[&str]| {
        run::capture(world.command(&world.programs.partition_tools).args(arguments).current_dir(dir.path())).unwrap()
    };
    let updaters_name = updater_name(THIS_PLATFORM);
    fs::write(&updater, tool(&["free", "cat", "disk.img", &updaters_name]).stdout).unwrap();
    fs::set_permissions(&updater, fs::Permissions::from_mode(0o755)).unwrap();
    let with_disk = || {
        let mut command = world.command(&updater);
        command.arg("--device").arg(&disk);
        command
    };

    let mut update = with_disk();
    update.args(["--limit-rate", RATE, "update"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut update = update.spawn().unwrap();
    // It has the device when it asks the server.
    let began = Instant::now();
    while server.total().unwrap().0 == 0 {
        assert!(began.elapsed() < Duration::from_secs(120), "the updater never asked");
        std::thread::sleep(Duration::from_millis(10));
    }
    let bootstrap = format!("{THIS_PLATFORM}={}", world.programs.bootstrap.display());
    let (keys, store) = (text(&world.keys()), text(&world.store(OLD)));
    let mut create = vec!["create", "--profile", "stick", "--out", "disk.img", "--force", "--size", "112MiB"];
    create.extend(["--product", PRODUCT, "--keys", &keys, "--bootstrap", &bootstrap]);
    create.extend(["--client-command", "client/run.sh", "--store", &store, "--release-version", OLD]);
    for writes in [
        &["free", "put", "disk.img", "updater", "letter.txt"][..],
        &["free", "rm", "disk.img", "letter.txt"],
        &["repair", "disk.img"],
        &["write", "other.img", "--to", "disk.img", "--force-fixed"],
        &["write", "other.img", "--to", "disk.img", "--force-fixed", "--force-mounted", "--clone"],
        &create,
    ] {
        let output = tool(writes);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(update.try_wait().unwrap().is_none(), "{writes:?}: the updater had ended");
        assert!(output.status.code() == Some(BUSY) && said.contains("in use by another program"), "{writes:?}: {said}");
    }
    let update = update.wait_with_output().unwrap();
    assert!(update.status.success(), "{}", String::from_utf8_lossy(&update.stderr));

    let verified = run::text(with_disk().args(["verify", "--json"])).unwrap();
    let verified: serde_json::Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(verified["version"], NEW, "{verified}");
    world.partition_tools(&["verify", &text(&disk)]);
    let letter = tool(&["free", "cat", "disk.img", "letter.txt"]).stdout;
    assert_eq!(letter, (0..900).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>());
}
