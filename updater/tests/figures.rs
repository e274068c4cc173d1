//! Figures, in ratios to the machine's own tools. Run by hand, with a release build of the program:
//! `HOLDFAST_UPDATER=target/release/updater cargo test -p updater --test figures -- --ignored --nocapture`
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::*;
use firmware_image::updater_image::{Floors, UpdaterVersion};
use release_store::keys::KeySource;

fn best_of(runs: usize, mut f: impl FnMut()) -> Duration {
    let time = |f: &mut dyn FnMut()| {
        let began = Instant::now();
        f();
        began.elapsed()
    };
    (0..runs).map(|_| time(&mut f)).min().unwrap()
}

#[test]
#[ignore = "a measurement"]
fn verifying_takes_at_most_half_of_sha256sum_and_memory_is_bounded() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.write_config(&[(format!("http://{}", listener.local_addr().unwrap()), 1)]);
    fs::File::create(world.path("hidden.img")).unwrap().set_len(64 << 20).unwrap();
    let built = std::env::var("HOLDFAST_UPDATER").unwrap_or_else(|_| env!("CARGO_BIN_EXE_updater").into());
    let source = KeySource::open(&world.path("keys")).unwrap();
    let version = UpdaterVersion::parse("1.0.0").unwrap();
    let image = source.updater(Some(&passphrase()), PLATFORM, fs::read(built).unwrap(), version, Floors::default());
    let program = world.path("updater");
    fs::write(&program, image.unwrap().image).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();

    let names: Vec<String> = (0..1000).map(|n| format!("d{}/f{n}.bin", n % 40)).collect();
    let files: Vec<(&str, Vec<u8>)> =
        names.iter().enumerate().map(|(n, name)| (name.as_str(), noise(n as u64 + 1, 200_000))).collect();
    world.publish("1.0.0", &files);
    let server = release_store::serve::serve(listener, &world.store(), Default::default()).unwrap();
    let call = |args: &[&str]| {
        let mut command = Command::new("/usr/bin/time");
        command.arg("-f").arg("%M KiB, %e s").arg(&program);
        command.arg("--virtual").arg(world.path("virtual")).arg("--free").arg(world.free());
        command.arg("--hidden").arg(world.path("hidden.img")).args(args);
        let output = command.stdout(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
    };
    println!("install: {}", call(&["update"]));
    println!("run:     {}", call(&["run"]));
    println!("verify:  {}", call(&["verify"]));
    let verify = best_of(5, || drop(call(&["verify"])));
    let jobs = std::thread::available_parallelism().unwrap().to_string();
    let tool = best_of(5, || {
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("find . -type f -print0 | xargs -0 -n 100 -P {jobs} sha256sum > /dev/null"))
            .current_dir(world.client())
            .status()
            .unwrap();
        assert!(status.success());
    });
    let ratio = verify.as_secs_f64() / tool.as_secs_f64();
    println!("verify {verify:?}, sha256sum on {jobs} processes {tool:?}: {ratio:.2}");
    assert!(ratio <= 0.5, "{ratio}");
    drop(server);
}
