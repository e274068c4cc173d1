//! A product with keys, a store with a release, and the built program.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use firmware_image::signature::PublicKey;
use firmware_image::sim::figures;
use partition_tools::random::Random;
use partition_tools::write::Request;
use partition_tools::write::target::Checks;
use release_store::keys::{KeyDir, Passphrase};
use release_store::publish::{PublishRequest, publish};
use release_store::repository::{NoObserver, Repository};

pub const PRODUCT: &str = "Acme Notes";
pub const PASSPHRASE: &str = "correct horse";
pub const EPOCH: i64 = 1_750_000_000;

/// Runs a tool that users have, or says once that it is missing.
pub fn tool(name: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(name).args(arguments).env("MTOOLS_SKIP_CHECK", "1").env("LC_ALL", "C.UTF-8").output() {
        Ok(output) => Some(output),
        Err(_) => {
            figures::skipped(&format!("{name} is not installed"));
            None
        }
    }
}

/// Everything that a factory and a release machine have.
pub struct Product {
    pub dir: tempfile::TempDir,
}

impl Product {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let product = Self { dir };
        let passphrase = Passphrase::new(PASSPHRASE.to_owned()).unwrap();
        let keys = KeyDir::create(&product.path("keys"), PRODUCT, &passphrase, EPOCH).unwrap();
        for (ending, platform) in [("", "linux-x86_64"), ("-arm", "linux-aarch64"), (".exe", "windows-x86_64")] {
            let write =
                |name: &str, bytes: Vec<u8>| std::fs::write(product.path(&(name.to_owned() + ending)), bytes).unwrap();
            write("bootstrap", program(platform, b"Usage: bootstrap [options]", 40_000));
            write("updater", program(platform, b"updater", 900_000));
        }
        let tree = product.path("tree");
        std::fs::create_dir_all(tree.join("data/deep")).unwrap();
        std::fs::write(tree.join("run.sh"), b"#!/bin/sh\necho hello\n").unwrap();
        std::fs::write(tree.join("data/large.bin"), noise(11, 3_000_000)).unwrap();
        std::fs::write(tree.join("data/deep/Größe.txt"), "grün\n").unwrap();
        std::fs::write(tree.join("data/empty"), b"").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(tree.join("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut repository = Repository::init(&product.path("store"), &keys, &passphrase, EPOCH).unwrap();
        let mut request = PublishRequest::new(tree, "1.0.0".to_owned(), EPOCH);
        request.updaters = vec![("linux-x86_64".to_owned(), product.path("updater"))];
        publish(&mut repository, &passphrase, &request, &mut NoObserver).unwrap();
        product
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn vendor(&self) -> PublicKey {
        *KeyDir::open(&self.path("keys")).unwrap().vendor_key()
    }

    /// Runs the program in the product's directory.
    pub fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_partition-tools"))
            .args(arguments)
            .current_dir(self.dir.path())
            .env("HOLDFAST_PASSPHRASE", PASSPHRASE)
            .env_remove("SOURCE_DATE_EPOCH")
            .output()
            .unwrap()
    }

    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}\n{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program, which must end with `status`; what it said.
    pub fn fail(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{said}");
        said
    }

    /// `create` of a stick with the release in it.
    pub fn create(&self, out: &str, more: &[&str]) {
        let arguments = self.create_arguments(out, more);
        self.succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// What `write` makes of `device.img` at `stick`, with the same numbers each time.
    pub fn request(&self) -> Request {
        Request {
            image: self.path("device.img"),
            target: self.path("stick"),
            cd: None,
            clone_identity: false,
            zeros_too: false,
            checks: Checks::default(),
            random: Random::seeded("its own"),
            vendor: None,
        }
    }

    /// What [`Self::create`] runs the program with.
    pub fn create_arguments(&self, out: &str, more: &[&str]) -> Vec<String> {
        let mut arguments = vec!["create", "--profile", "stick", "--out", out, "--size", "200MiB", "--keys", "keys"];
        arguments.extend(["--product", PRODUCT, "--server", "http://127.0.0.1:1/store"]);
        arguments.extend(["--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"]);
        arguments.extend(["--client-command", "client/run.sh", "--store", "store", "--release-version", "1.0.0"]);
        arguments.extend(more);
        arguments.into_iter().map(str::to_owned).collect()
    }

    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.succeed(arguments)).unwrap()
    }
}

/// A program with room for a stamp, as a built launcher or updater has, and with the header of its platform.
fn program(platform: &str, words: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = match platform {
        "windows-x86_64" => [&b"MZ"[..], &[0; 58], &64u32.to_le_bytes(), b"PE\0\0\x64\x86"].concat(),
        "linux-aarch64" => [&b"\x7fELF\x02\x01"[..], &[0; 12], &[183, 0]].concat(),
        _ => [&b"\x7fELF\x02\x01"[..], &[0; 12], &[62, 0]].concat(),
    };
    bytes.extend_from_slice(words);
    bytes.extend_from_slice(&noise(length as u64, length));
    bytes.extend_from_slice(b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a");
    bytes.extend_from_slice(&[0; 32]);
    bytes.extend_from_slice(&noise(3, 1001));
    bytes
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

/// Cuts a partition out of a disk image.
pub fn cut(image: &Path, start: u64, length: u64, to: &Path) {
    use std::io::{Read as _, Seek as _};
    let mut file = std::fs::File::open(image).unwrap();
    file.seek(std::io::SeekFrom::Start(start)).unwrap();
    std::io::copy(&mut file.take(length), &mut std::fs::File::create(to).unwrap()).unwrap();
}

/// Overwrites bytes of an image.
pub fn poke(image: &Path, at: u64, bytes: &[u8]) {
    use std::io::{Seek as _, Write as _};
    let mut file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    file.seek(std::io::SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}
