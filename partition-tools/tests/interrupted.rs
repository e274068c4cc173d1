//! Making and writing an image, killed at any moment and done again.
#![cfg(unix)]

mod support;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use firmware_image::image::gpt::{Table, TableError};
use firmware_image::sim::{Effort, Medium, SimDisk, figures};
use partition_tools::progress::Silent;
use partition_tools::write::Plan;
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
fn a_device_whose_writing_is_killed_at_any_moment_is_refused_or_whole_and_written_again_byte_for_byte() {
    let product = Product::new();
    product.create("device.img", &[]);
    let write = |to| command(&product, &["write", "device.img", "--to", to, "--force-fixed", "--seed", "its own"]);
    let (wanted, stick) = (product.path("wanted"), product.path("stick"));
    let blank = |stick: &Path| File::create(stick).unwrap().set_len(208 << 20).unwrap();
    blank(&wanted);
    assert!(write("wanted").status().unwrap().success());
    blank(&stick);
    let begun_to_write = || stick.metadata().unwrap().blocks() > 0;
    let whole = time_of(&mut write("stick"), begun_to_write);
    let moments = moments();
    let (mut begun, mut ended) = (0, 0);
    for moment in 0..moments {
        blank(&stick);
        ended += u32::from(killed_after(whole * moment / moments, &mut write("stick"), begun_to_write));
        if !same(&wanted, &stick) {
            begun += 1;
            refused(&product, &format!("moment {moment}"));
        }
        assert!(write("stick").status().unwrap().success(), "moment {moment}");
        assert!(same(&wanted, &stick), "moment {moment}");
    }
    println!("write: killed at {moments} moments ({begun} left a part, {ended} came too late), 0 not written again");
    figures::count(figures::MOMENTS, "write, killed", moments as usize, 0);
    assert!(begun > 0, "no moment was within the writing");
}

/// `verify` must refuse the stick and say why; what it said.
fn refused(product: &Product, when: &str) -> String {
    let output = product.run(&["verify", "stick", "--keys", "keys"]);
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    let told = match output.status.code() {
        Some(4) => said.contains("not finished: write it anew") || said.contains("no GUID partition table"),
        Some(1) => said.contains("the partition table is damaged") || said.contains("MBR"),
        _ => false,
    };
    assert!(told, "{when}: {:?}: {said}", output.status);
    said
}

/// A medium as a file.
fn put(medium: &Medium, path: &Path) {
    use std::os::unix::fs::FileExt as _;
    let file = File::create(path).unwrap();
    file.set_len(medium.length()).unwrap();
    let mut piece = vec![0; 1 << 20];
    for at in (0..medium.length()).step_by(piece.len()) {
        let length = piece.len().min((medium.length() - at) as usize);
        medium.read(at, &mut piece[..length]);
        if piece[..length].iter().any(|byte| *byte != 0) {
            file.write_all_at(&piece[..length], at).unwrap();
        }
    }
}

#[test]
fn a_device_whose_writing_is_cut_at_any_write_says_so_until_all_is_there() {
    let product = Product::new();
    product.create("device.img", &[]);
    product.create("another.img", &["--seed", "another"]);
    let request = product.request();
    let full = std::env::var_os("HOLDFAST_FULL").is_some();
    let (mut tried, mut shown, mut unfinished) = (0, 0, 0);
    for over in ["an empty device", "another device"] {
        let before = match over {
            "an empty device" => Medium::zeros(208 << 20),
            _ => Medium::of_file(&product.path("another.img")).unwrap(),
        };
        let disk = SimDisk::new(before.clone());
        Plan::make(&request).unwrap().carry_out(disk.clone(), &mut Silent).unwrap();
        let (finished, recording) = (disk.medium().digest(), disk.recording());
        for (number, state) in recording.states(&Effort { tears: 2, ..Effort::ALL }).into_iter().enumerate() {
            let medium = recording.medium(&state);
            let table = Table::read(SimDisk::new(medium.clone()));
            tried += 1;
            let told = match &table {
                Err(TableError::Unfinished) => true,
                // Its mark is not there yet: nothing of the image is either.
                Err(_) => over == "an empty device" && medium.digest() == before.digest(),
                Ok(_) => medium.digest() == before.digest() || medium.digest() == finished,
            };
            unfinished += u32::from(table == Err(TableError::Unfinished));
            // What is told by the mark alone is looked at by the program now and then, and all else always.
            if told && !(full || number % 100 == 50) || medium.digest() == before.digest() {
                continue;
            }
            shown += 1;
            put(&medium, &product.path("stick"));
            if medium.digest() == finished {
                product.succeed(&["verify", "stick", "--keys", "keys"]);
            } else {
                refused(&product, &format!("over {over}, {state}"));
            }
        }
        put(&disk.medium(), &product.path("stick"));
        product.succeed(&["verify", "stick", "--keys", "keys"]);
    }
    println!("write: cut in {tried} states, {unfinished} of them marked as not finished, {shown} shown to `verify`");
    figures::count(figures::CUT_STATES, "write, cut", tried, 0);
    assert!(tried > 200 && unfinished > tried as u32 / 2 && shown > 10);
}
