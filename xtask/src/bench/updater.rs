//! The updater on a mounted device: installing, verifying, finding nothing new.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use firmware_image::paths::{self, THIS_PLATFORM};

use super::figures::{Table, ms, peak_memory, time};
use crate::programs::Programs;
use crate::run;
use crate::server::Server;

const FILES: usize = 1000;
const FILE_BYTES: usize = 200_000;

/// A device in folders, and the store that it asks.
pub struct Bench {
    dir: PathBuf,
    updater: PathBuf,
    server: Server,
}

/// Adds the updater's figures. Returns the store, with a release of 1,000 files and 200 MB.
pub fn measure(programs: &Programs, dir: &Path, table: &mut Table) -> Result<Bench> {
    let bench = Bench::set_up(programs, &dir.join("updater"))?;
    let install = peak_memory(&mut bench.update(&["update"]))?;
    table.add(
        "updater, peak memory while it installs 200 MB (MiB)",
        install as f64 / 1048576.0,
        64.0,
        format!("{FILES} files of {FILE_BYTES} bytes, over HTTP"),
    );
    bench.verify(table)?;
    bench.nothing_new(table)?;
    Ok(bench)
}

impl Bench {
    fn set_up(programs: &Programs, dir: &Path) -> Result<Self> {
        let (store, keys, factory) = (dir.join("store"), dir.join("keys"), dir.join("factory"));
        for zone in ["virtual", "free"] {
            fs::create_dir_all(dir.join(zone))?;
        }
        let tree = dir.join("tree");
        for n in 0..FILES {
            let folder = tree.join(format!("d{}", n % 40));
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(format!("f{n}.bin")), noise(n as u64 + 1))?;
        }
        let tool = |command: &mut Command| run::text(command.env("HOLDFAST_PASSPHRASE", "bench")).map(drop);
        let release_store = || Command::new(&programs.release_store);
        tool(release_store().arg("init").arg(&store).args(["--product", "Bench", "--keys"]).arg(&keys))?;
        let publish = ["--release-version", "1.0.0", "--level", "1"];
        tool(release_store().arg("publish").arg(&store).arg("--keys").arg(&keys).args(publish).arg(&tree))?;
        let server = Server::start(programs, &store, dir.join("server.log"))?;
        let updater = format!("{THIS_PLATFORM}={}", programs.updater.display());
        let export = ["--client-command", "client/run.sh", "--server", &server.url, "--updater", &updater];
        tool(release_store().args(["keys", "export"]).arg(&keys).arg("--factory").arg(&factory).args(export))?;
        fs::copy(factory.join("device-stick.cfg"), dir.join("virtual").join(paths::DEVICE_CONFIG))?;
        let signed = walk(&factory)?
            .into_iter()
            .find(|path| path.to_string_lossy().contains("updater-"))
            .context("the factory export holds no updater")?;
        let updater = dir.join("free").join(paths::updater_name(THIS_PLATFORM).as_str());
        fs::copy(&signed, &updater)?;
        fs::set_permissions(&updater, fs::metadata(&programs.updater)?.permissions())?;
        fs::File::create(dir.join("hidden"))?.set_len(64 << 20)?;
        Ok(Self { dir: dir.to_path_buf(), updater, server })
    }

    /// Where the store is.
    pub fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Where its keys are.
    pub fn keys(&self) -> PathBuf {
        self.dir.join("keys")
    }

    fn update(&self, arguments: &[&str]) -> Command {
        let mut updater = Command::new(&self.updater);
        updater.arg("--virtual").arg(self.dir.join("virtual")).arg("--free").arg(self.dir.join("free"));
        updater.arg("--hidden").arg(self.dir.join("hidden")).args(arguments);
        updater
    }

    fn verify(&self, table: &mut Table) -> Result<()> {
        let jobs = std::thread::available_parallelism()?.to_string();
        let mut tool = Command::new("sh");
        tool.args(["-c", &format!("find . -type f -print0 | xargs -0 -n 100 -P {jobs} sha256sum > /dev/null")]);
        tool.current_dir(self.dir.join("free/client"));
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        for _ in 0..5 {
            ours = ours.min(time(&mut self.update(&["verify"]))?);
            theirs = theirs.min(time(&mut tool)?);
        }
        table.add(
            "verify a client of 1,000 files and 200 MB ÷ sha256sum over them on as many processes",
            ours.as_secs_f64() / theirs.as_secs_f64(),
            0.5,
            format!("{} against {} on {jobs} processes, best of 5", ms(ours), ms(theirs)),
        );
        Ok(())
    }

    fn nothing_new(&self, table: &mut Table) -> Result<()> {
        run::text(&mut self.update(&["run"]))?;
        let before = self.server.total()?;
        run::text(&mut self.update(&["run"]))?;
        let after = self.server.total()?;
        let (requests, bytes) = (after.0 - before.0, after.1 - before.1);
        ensure!(requests > 0, "the updater asked nobody");
        table.add("nothing new: requests", requests as f64, 2.0, "the next root, the timestamp");
        table.add("nothing new: bytes served", bytes as f64, 2000.0, "without HTTP's own headers");
        Ok(())
    }
}

fn walk(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(walk(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

/// Bytes that no compressor makes smaller (xorshift64*).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(FILE_BYTES + 8);
    while bytes.len() < FILE_BYTES {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(FILE_BYTES);
    bytes
}
