//! The four programs, built one by one as they ship, so that no feature of one leaks into another.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use firmware_image::paths::THIS_PLATFORM;
use serde_json::Value;

use crate::cross::Program;
use crate::run;

/// Where the built programs are.
pub struct Programs {
    /// The launcher as it ships: no raw images.
    pub bootstrap: PathBuf,
    /// The launcher for tools and tests, which opens images.
    pub bootstrap_image: PathBuf,
    /// The updater.
    pub updater: PathBuf,
    /// The factory's tool.
    pub partition_tools: PathBuf,
    /// The vendor's tool.
    pub release_store: PathBuf,
}

/// How thoroughly to optimise the vendor's and the factory's tools. What runs on devices is always built as it ships: its size
/// decides what a plug-in costs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As shipped.
    Release,
    /// Quick to build.
    Dev,
}

impl Programs {
    /// The programs that [`Self::build`] has put into `dir`.
    pub fn built_in(dir: &Path) -> Self {
        let [bootstrap, bootstrap_image, updater, partition_tools, release_store] =
            ["bootstrap", "bootstrap-image", "updater", "partition-tools", "release-store"].map(|name| dir.join(name));
        Self { bootstrap, bootstrap_image, updater, partition_tools, release_store }
    }

    /// All of them.
    pub fn all(&self) -> [&Path; 5] {
        [&self.bootstrap, &self.bootstrap_image, &self.updater, &self.partition_tools, &self.release_store]
    }

    /// Builds them all and puts a copy of each into `dir`. What runs on devices is taken from `shipped`, where
    /// `cargo xtask cross` has built it, and else built for this system.
    pub fn build(profile: Profile, dir: &Path, shipped: Option<&Path>) -> Result<Self> {
        let usual = profile.of_cargo();
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let programs = Self::built_in(dir);
        build("release-store", usual, &[], &programs.release_store)?;
        build("partition-tools", usual, &[], &programs.partition_tools)?;
        build("bootstrap", usual, &[], &programs.bootstrap_image)?;
        let small = ["--no-default-features", "--features", "small,std"];
        for (program, features, kept) in
            [(Program::Launcher, &small[..], &programs.bootstrap), (Program::Updater, &[], &programs.updater)]
        {
            let shipped = shipped.map(|dir| dir.join(program.file(THIS_PLATFORM))).filter(|file| file.exists());
            match shipped {
                Some(shipped) => keep(&shipped, kept)?,
                None => build(program.package(), "device", features, kept)?,
            }
        }
        Ok(programs)
    }

    /// Builds only the two that an update takes; the others are not there.
    pub fn build_store_and_updater(profile: Profile, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let programs = Self::built_in(dir);
        build("release-store", profile.of_cargo(), &[], &programs.release_store)?;
        build("updater", "device", &[], &programs.updater)?;
        Ok(programs)
    }
}

impl Profile {
    fn of_cargo(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "dev",
        }
    }
}

fn build(package: &str, profile: &str, features: &[&str], kept: &Path) -> Result<()> {
    eprintln!("building {}", kept.file_name().unwrap_or_default().display());
    let mut cargo = run::cargo();
    cargo.args(["build", "--quiet", "--package", package, "--bin", package, "--profile", profile]);
    cargo.args(features);
    keep(&executable(&mut cargo, package)?, kept)
}

/// Puts a copy of a built program into its place.
fn keep(built: &Path, kept: &Path) -> Result<()> {
    if kept.exists() {
        // Beside a copy that still runs, not over it.
        std::fs::remove_file(kept).with_context(|| format!("cannot replace {}", kept.display()))?;
    }
    std::fs::copy(built, kept).with_context(|| format!("cannot copy {} to {}", built.display(), kept.display()))?;
    Ok(())
}

/// Runs a `cargo build` of the program `name`, and returns where it was put.
pub fn executable(cargo: &mut Command, name: &str) -> Result<PathBuf> {
    let messages = run::text(cargo.args(["--message-format", "json-render-diagnostics"]))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .with_context(|| format!("cargo did not say where it put {name}"))
}
