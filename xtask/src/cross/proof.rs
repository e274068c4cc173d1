//! What is tried with the programs as `cargo xtask cross` builds them.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use firmware_image::paths::{self, THIS_PLATFORM};
use serde_json::Value;

use super::emulator::{self, Registered};
use super::{Program, build_all};
use crate::figures::Figures;
use crate::programs::Programs;
use crate::run;
use crate::server::Server;

const ARM: &str = "linux-aarch64";
const PASSPHRASE: &str = "a passphrase of tests";

/// Builds for every platform into `dist`, and says what cannot be built here.
pub fn build(dist: &Path, figures: &Figures) -> Result<()> {
    let built = build_all(dist)?;
    eprint!("{built}");
    for skipped in &built.skipped {
        figures.skip("a platform's programs", skipped)?;
    }
    Ok(())
}

/// The launcher's own tests, with the static launchers for this platform and, in an emulator, for ARM64.
pub fn test_launchers(dist: &Path, figures: &Figures) -> Result<()> {
    for platform in [THIS_PLATFORM, ARM] {
        let launcher = dist.join(Program::Launcher.file(platform));
        let subject = format!("the launcher for {platform}");
        let mut cargo = run::cargo();
        cargo.args(["test", "--quiet", "--package", "bootstrap", "--test", "program", "--test", "resources"]);
        cargo.env("HOLDFAST_LAUNCHER", &launcher);
        if !launcher.exists() {
            figures.skip(&subject, "it was not built")?;
            continue;
        }
        if platform != THIS_PLATFORM {
            if let Err(error) = emulator::find() {
                figures.skip(&subject, &format!("{error:#}"))?;
                continue;
            }
            // The emulator's memory is not the launcher's.
            cargo.args(["--", "--skip", "peak_memory", "--skip", "without_memory"]);
        }
        eprintln!("{}", launcher.display());
        run::show(&mut cargo)?;
    }
    Ok(())
}

/// Launcher and updater for ARM64 heal a device whose free zone is empty, then one whose updater is infected.
pub fn heal_on_arm(programs: &Programs, dist: &Path, dir: &Path, figures: &Figures) -> Result<()> {
    const SUBJECT: &str = "launcher and updater for ARM64 heal a device";
    let [launcher, updater] = [Program::Launcher, Program::Updater].map(|program| dist.join(program.file(ARM)));
    if !launcher.exists() || !updater.exists() {
        return figures.skip(SUBJECT, "they were not built");
    }
    let mut registered = None;
    if THIS_PLATFORM != ARM {
        match emulator::find().and_then(|emulator| Registered::new(&emulator)) {
            Ok(done) => registered = Some(done),
            Err(error) => {
                return figures.skip(SUBJECT, &format!("this kernel starts no programs for {ARM}: {error:#}"));
            }
        }
    }
    let device = Device::make(programs, &launcher, &updater, &dir.join("arm"))?;
    let installed = device.free.join(paths::updater_name(ARM).as_str());
    let said = device.plug_in()?;
    ensure!(said.contains("was missing; restored version"), "the updater was not restored: {said}");
    ensure!(said.contains("the client speaks"), "the client did not run: {said}");
    let good = fs::read(&installed)?;
    let mut infected = good.clone();
    let middle = infected.len() / 2;
    infected[middle..middle + 4096].fill(0x90);
    fs::write(&installed, infected)?;
    let said = device.plug_in()?;
    ensure!(said.contains("restored version") && said.contains("the client speaks"), "{said}");
    ensure!(fs::read(&installed)? == good, "the updater is not what it was");
    let start = Instant::now();
    let said = device.plug_in()?;
    let took = start.elapsed().as_secs_f64();
    let quiet = !said.contains("restored") && said.contains("is installed and whole");
    ensure!(quiet && said.contains("the client speaks"), "nothing was amiss, and this was said: {said}");
    drop(registered);
    eprintln!("an empty free zone was filled, an infected updater replaced; launcher and updater were those for {ARM}");
    eprintln!("a start of the sound device, the check for news and the client included: {took:.2} s");
    Ok(())
}

/// A device whose zones are directories and a file.
struct Device {
    virtual_zone: PathBuf,
    free: PathBuf,
    hidden: PathBuf,
    _server: Server,
}

impl Device {
    fn make(programs: &Programs, launcher: &Path, updater: &Path, dir: &Path) -> Result<Self> {
        let at = |name: &str| dir.join(name);
        for name in ["tree", "virtual", "free"] {
            fs::create_dir_all(at(name))?;
        }
        fs::write(at("tree/run.sh"), "#!/bin/sh\necho the client speaks\n")?;
        fs::set_permissions(at("tree/run.sh"), fs::Permissions::from_mode(0o755))?;
        let tool = |program: &Path, words: &[&str]| {
            let mut tool = Command::new(program);
            tool.env("HOLDFAST_PASSPHRASE", PASSPHRASE).current_dir(dir).args(words);
            run::capture(&mut tool).and_then(|output| {
                let said = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "{} failed: {said}", run::line(&tool));
                Ok(output.stdout)
            })
        };
        let bootstrap = format!("{ARM}={}", launcher.display());
        let updater = format!("{ARM}={}", updater.display());
        tool(&programs.release_store, &["init", "store", "--product", "ARM", "--keys", "keys"])?;
        let publish = ["publish", "store", "tree", "--keys", "keys", "--release-version", "1.0.0"];
        tool(&programs.release_store, &[&publish[..], &["--updater", &updater]].concat())?;
        let server = Server::start(programs, &at("store"), at("server.log"))?;
        let create = ["create", "--profile", "stick", "--size", "200MiB", "--out", "device.img", "--keys", "keys"];
        let more = ["--product", "ARM", "--client-command", "client/run.sh", "--server", &server.url];
        let both = ["--bootstrap", &bootstrap, "--updater", &updater];
        tool(&programs.partition_tools, &[&create[..], &more, &both].concat())?;
        for name in [paths::DEVICE_CONFIG, &paths::bootstrap_name(ARM), &paths::updater_name(ARM)] {
            let bytes = tool(&programs.partition_tools, &["virtual", "cat", "device.img", name])?;
            let file = at("virtual").join(name);
            fs::write(&file, bytes)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        let inspected: Value =
            serde_json::from_slice(&tool(&programs.partition_tools, &["inspect", "device.img", "--json"])?)?;
        let zones = inspected["zones"].as_array().context("inspect names no zones")?;
        let zone = zones.iter().find(|zone| zone["zone"] == "hidden").context("inspect names no hidden zone")?;
        let (start, length) = zone["start"].as_u64().zip(zone["bytes"].as_u64()).context("nor where it is")?;
        let mut image = fs::File::open(at("device.img"))?;
        image.seek(SeekFrom::Start(start))?;
        std::io::copy(&mut image.take(length), &mut fs::File::create(at("hidden"))?)?;
        Ok(Self { virtual_zone: at("virtual"), free: at("free"), hidden: at("hidden"), _server: server })
    }

    /// Runs the launcher; what it, the updater and the client said.
    fn plug_in(&self) -> Result<String> {
        let mut launcher = Command::new(self.virtual_zone.join(paths::bootstrap_name(ARM).as_str()));
        launcher.arg("--virtual").arg(&self.virtual_zone).arg("--free").arg(&self.free);
        launcher.arg("--hidden").arg(&self.hidden);
        let output = run::capture(&mut launcher)?;
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.success(), "the launcher ended with {}: {said}", output.status);
        Ok(said)
    }
}
