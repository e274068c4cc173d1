//! A device whose zones are folders and a file, with the updater as it ships, and the store that it asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use firmware_image::paths::{self, THIS_PLATFORM};

use super::trees::walk;
use crate::programs::Programs;
use crate::run;

/// Room for every slot of the hidden zone.
const HIDDEN_BYTES: u64 = 64 << 20;

/// A vendor's store and keys.
pub struct Vendor<'a> {
    programs: &'a Programs,
    /// Where the store is.
    pub store: PathBuf,
    /// Where its keys are.
    pub keys: PathBuf,
}

impl<'a> Vendor<'a> {
    /// Makes keys and an empty store in `dir`.
    pub fn set_up(programs: &'a Programs, dir: &Path) -> Result<Self> {
        let vendor = Self { programs, store: dir.join("store"), keys: dir.join("keys") };
        let mut init = vendor.tool();
        init.arg("init").arg(&vendor.store).args(["--product", "Bench", "--keys"]).arg(&vendor.keys);
        run::text(&mut init)?;
        Ok(vendor)
    }

    /// Publishes `tree` in `store`, which may be a copy of this vendor's.
    pub fn publish(&self, store: &Path, version: &str, options: &[&str], tree: &Path) -> Command {
        let mut publish = self.tool();
        publish.arg("publish").arg(store).arg("--keys").arg(&self.keys).args(["--release-version", version]);
        publish.args(options).arg(tree);
        publish
    }

    /// Tends the store as `gc` does by default, without waiting for anybody who may still be fetching.
    pub fn collect(&self) -> Command {
        let mut collect = self.tool();
        collect.arg("gc").arg(&self.store).arg("--keys").arg(&self.keys).args(["--grace", "0"]);
        collect
    }

    /// The vendor's tool, with the passphrase.
    pub fn tool(&self) -> Command {
        let mut tool = Command::new(&self.programs.release_store);
        tool.env("HOLDFAST_PASSPHRASE", "bench");
        tool
    }
}

/// A device that is mounted.
pub struct Device {
    dir: PathBuf,
    updater: PathBuf,
}

impl Device {
    /// A new device in `dir`, which asks the server at `url`.
    pub fn make(vendor: &Vendor, url: &str, dir: &Path) -> Result<Self> {
        for zone in ["virtual", "free"] {
            fs::create_dir_all(dir.join(zone))?;
        }
        let factory = dir.join("factory");
        let updater = format!("{THIS_PLATFORM}={}", vendor.programs.updater.display());
        let mut export = vendor.tool();
        export.args(["keys", "export"]).arg(&vendor.keys).arg("--factory").arg(&factory);
        export.args(["--client-command", "client/run.sh", "--server", url, "--updater", &updater]);
        run::text(&mut export)?;
        fs::copy(factory.join("device-stick.cfg"), dir.join("virtual").join(paths::DEVICE_CONFIG))?;
        let signed = walk(&factory)?
            .into_iter()
            .find(|path| path.to_string_lossy().contains("updater-"))
            .context("the factory export holds no updater")?;
        let updater = dir.join("free").join(paths::updater_name(THIS_PLATFORM).as_str());
        fs::copy(&signed, &updater)?;
        fs::set_permissions(&updater, fs::metadata(&vendor.programs.updater)?.permissions())?;
        fs::File::create(dir.join("hidden"))?.set_len(HIDDEN_BYTES)?;
        Ok(Self { dir: dir.to_path_buf(), updater })
    }

    /// The same device once more, in `dir`.
    pub fn copied(&self, dir: &Path) -> Result<Self> {
        super::trees::copy(&self.dir, dir)?;
        Ok(Self { updater: dir.join(self.updater.strip_prefix(&self.dir)?), dir: dir.to_path_buf() })
    }

    /// The device's updater, at work on it.
    pub fn updater(&self, arguments: &[&str]) -> Command {
        let mut updater = Command::new(&self.updater);
        updater.arg("--virtual").arg(self.dir.join("virtual")).arg("--free").arg(self.dir.join("free"));
        updater.arg("--hidden").arg(self.dir.join("hidden")).args(arguments);
        updater
    }

    /// Where the client's files are.
    pub fn client(&self) -> PathBuf {
        self.dir.join("free/client")
    }
}
