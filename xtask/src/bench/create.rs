//! The factory: making an image.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use firmware_image::paths::THIS_PLATFORM;

use super::figures::{Table, ms, time};
use super::updater::Bench;
use crate::programs::Programs;

/// What is allowed beyond the ratio, for starting and for keys.
const ALLOWANCE: Duration = Duration::from_millis(300);

/// Adds the factory's figures, for an image of 1 GiB with and without a client of 200 MB.
pub fn measure(programs: &Programs, dir: &Path, bench: &Bench, table: &mut Table) -> Result<()> {
    for client in [false, true] {
        let (image, copy) = (dir.join("created.img"), dir.join("copied.img"));
        let mut create = Command::new(&programs.partition_tools);
        create.env("HOLDFAST_PASSPHRASE", "bench").args(["create", "--profile", "stick", "--size", "1GiB", "--force"]);
        create.args(["--product", "Bench", "--server", "http://127.0.0.1/", "--client-command", "client/run.sh"]);
        create.arg("--keys").arg(bench.keys()).arg("--out").arg(&image);
        create.arg("--bootstrap").arg(format!("{THIS_PLATFORM}={}", programs.bootstrap.display()));
        create.arg("--updater").arg(format!("{THIS_PLATFORM}={}", programs.updater.display()));
        if client {
            create.arg("--store").arg(bench.store()).args(["--release-version", "1.0.0"]);
        }
        let mut cp = Command::new("cp");
        cp.args(["--reflink=never", "--sparse=auto"]).arg(&image).arg(&copy);
        let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
        for _ in 0..5 {
            ours = ours.min(time(&mut create)?);
            let _ = fs::remove_file(&copy);
            theirs = theirs.min(time(&mut cp)?);
        }
        let written = fs::metadata(&image)?.blocks() as f64 * 512.0 / 1e6;
        let what = if client { "with a client of 200 MB" } else { "without a client" };
        table.add(
            format!("create a 1 GiB image {what}, less 0.3 s ÷ cp of what it really writes"),
            ours.saturating_sub(ALLOWANCE).as_secs_f64() / theirs.as_secs_f64(),
            1.5,
            format!("{} against {}, {written:.0} MB written, best of 5", ms(ours), ms(theirs)),
        );
    }
    Ok(())
}
