//! The updater on a mounted device: installing, verifying, finding nothing new.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::device::{Device, Vendor};
use super::figures::{Table, ms, time};
use crate::programs::Programs;
use crate::server::Server;
use crate::{run, usage};

const FILES: usize = 1000;
const FILE_BYTES: usize = 200_000;

/// A device in folders, and the store that it asks.
pub struct Bench<'a> {
    vendor: Vendor<'a>,
    device: Device,
    server: Server,
}

/// Adds the updater's figures. Returns the store, with a release of 1,000 files and 200 MB.
pub fn measure<'a>(programs: &'a Programs, dir: &Path, table: &mut Table) -> Result<Bench<'a>> {
    let bench = Bench::set_up(programs, &dir.join("updater"))?;
    let install = usage::measure(&mut bench.device.updater(&["update"]))?.0.peak_bytes;
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

impl<'a> Bench<'a> {
    fn set_up(programs: &'a Programs, dir: &Path) -> Result<Self> {
        let tree = dir.join("tree");
        for n in 0..FILES {
            let folder = tree.join(format!("d{}", n % 40));
            fs::create_dir_all(&folder)?;
            fs::write(folder.join(format!("f{n}.bin")), noise(n as u64 + 1))?;
        }
        let vendor = Vendor::set_up(programs, dir)?;
        run::text(&mut vendor.publish(&vendor.store, "1.0.0", &["--level", "1"], &tree))?;
        let server = Server::start(programs, &vendor.store, dir.join("server.log"))?;
        let device = Device::make(&vendor, &server.url, &dir.join("device"))?;
        Ok(Self { vendor, device, server })
    }

    /// Where the store is.
    pub fn store(&self) -> &Path {
        &self.vendor.store
    }

    /// Where its keys are.
    pub fn keys(&self) -> &Path {
        &self.vendor.keys
    }

    fn verify(&self, table: &mut Table) -> Result<()> {
        let jobs = std::thread::available_parallelism()?.to_string();
        let mut tool = Command::new("sh");
        tool.args(["-c", &format!("find . -type f -print0 | xargs -0 -n 100 -P {jobs} sha256sum > /dev/null")]);
        tool.current_dir(self.device.client());
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        for _ in 0..5 {
            ours = ours.min(time(&mut self.device.updater(&["verify"]))?);
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
        run::text(&mut self.device.updater(&["run"]))?;
        let before = self.server.total()?;
        run::text(&mut self.device.updater(&["run"]))?;
        let after = self.server.total()?;
        let (requests, bytes) = (after.0 - before.0, after.1 - before.1);
        ensure!(requests > 0, "the updater asked nobody");
        table.add("nothing new: requests", requests as f64, 2.0, "the next root, the timestamp");
        table.add("nothing new: bytes served", bytes as f64, 2000.0, "without HTTP's own headers");
        Ok(())
    }
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
