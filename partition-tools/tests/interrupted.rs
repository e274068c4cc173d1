//! Making and writing an image, killed at any moment and done again.
#![cfg(unix)]

mod support;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firmware_image::sim::figures;
use support::{PASSPHRASE, PRODUCT, Product};

/// How many moments are tried.
fn moments() -> u32 {
    if std::env::var_os("HOLDFAST_FULL").is_some() { 200 } else { 10 }
}

fn command(product: &Product, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partition-tools"));
    command.args(arguments).current_dir(product.dir.path()).env("HOLDFAST_PASSPHRASE", PASSPHRASE);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Starts the program and kills it so long after it has `begun` to write; whether it had ended well by itself before.
fn killed_after(time: Duration, command: &mut Command, begun: impl Fn() -> bool) -> bool {
    let mut child = command.spawn().unwrap();
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    std::thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap().success()
}

/// How long the program takes from when it has `begun` to write.
fn time_of(command: &mut Command, begun: impl Fn() -> bool) -> Duration {
    let mut child = command.spawn().unwrap();
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    let began = Instant::now();
    assert!(child.wait().unwrap().success());
    began.elapsed()
}

fn same(a: &Path, b: &Path) -> bool {
    let (mut a, mut b) = (File::open(a).unwrap(), File::open(b).unwrap());
    if a.metadata().unwrap().len() != b.metadata().unwrap().len() {
        return false;
    }
    let (mut left, mut right) = (vec![0; 4 << 20], vec![0; 4 << 20]);
    loop {
        let n = a.read(&mut left).unwrap();
        if n == 0 {
            return true;
        }
        b.read_exact(&mut right[..n]).unwrap();
        if left[..n] != right[..n] {
            return false;
        }
    }
}

#[test]
fn an_image_whose_making_is_killed_at_any_moment_is_whole_or_not_there_and_made_again_byte_for_byte() {
    let product = Product::new();
    let create = |out: &'static str| {
        let mut all = vec!["create", "--profile", "stick", "--out", out, "--size", "200MiB", "--keys", "keys"];
        all.extend(["--product", PRODUCT, "--server", "http://127.0.0.1:1/store", "--seed", "seed", "--force"]);
        all.extend(["--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"]);
        all.extend(["--client-command", "client/run.sh", "--store", "store", "--release-version", "1.0.0"]);
        command(&product, &all)
    };
    let (wanted, out, beside) = (product.path("wanted.img"), product.path("out.img"), product.path("out.img.part"));
    let whole = time_of(&mut create("wanted.img"), || product.path("wanted.img.part").exists());
    let moments = moments();
    let (mut begun, mut ended) = (0, 0);
    for moment in 0..moments {
        ended += u32::from(killed_after(whole * moment / moments, &mut create("out.img"), || beside.exists()));
        begun += u32::from(beside.exists());
        assert!(!out.exists() || same(&out, &wanted), "moment {moment}: an image that is not whole has its name");
        assert!(create("out.img").status().unwrap().success(), "moment {moment}");
        assert!(same(&out, &wanted) && !beside.exists(), "moment {moment}");
        std::fs::remove_file(&out).unwrap();
    }
    println!("create: killed at {moments} moments ({begun} left a part, {ended} came too late), 0 not made again");
    figures::count(figures::MOMENTS, "create, killed", moments as usize, 0);
    assert!(begun > 0, "no moment was within the making");
}

#[test]
fn a_device_whose_writing_is_killed_at_any_moment_is_written_again_byte_for_byte() {
    let product = Product::new();
    product.create("device.img", &[]);
    let write = || command(&product, &["write", "device.img", "--to", "stick", "--force-fixed", "--clone"]);
    let (image, stick) = (product.path("device.img"), product.path("stick"));
    let blank = || File::create(&stick).unwrap().set_len(200 << 20).unwrap();
    blank();
    let begun_to_write = || stick.metadata().unwrap().blocks() > 0;
    let whole = time_of(&mut write(), begun_to_write);
    let moments = moments();
    let (mut begun, mut ended) = (0, 0);
    for moment in 0..moments {
        blank();
        ended += u32::from(killed_after(whole * moment / moments, &mut write(), begun_to_write));
        begun += u32::from(!same(&image, &stick));
        assert!(write().status().unwrap().success(), "moment {moment}");
        assert!(same(&image, &stick), "moment {moment}");
    }
    println!("write: killed at {moments} moments ({begun} left a part, {ended} came too late), 0 not written again");
    figures::count(figures::MOMENTS, "write, killed", moments as usize, 0);
    assert!(begun > 0, "no moment was within the writing");
}
