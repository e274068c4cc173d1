//! The four programs, built one by one as they ship, so that no feature of one leaks into another.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

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

    /// Builds them all and puts a copy of each into `dir`.
    pub fn build(profile: Profile, dir: &Path) -> Result<Self> {
        let usual = profile.of_cargo();
        let programs = Self::build_store_and_updater(profile, dir)?;
        build("partition-tools", usual, &[], &programs.partition_tools)?;
        build("bootstrap", usual, &[], &programs.bootstrap_image)?;
        build("bootstrap", "device", &["--no-default-features", "--features", "launcher"], &programs.bootstrap)?;
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
    cargo.args(features).args(["--message-format", "json-render-diagnostics"]);
    let messages = run::text(&mut cargo)?;
    let built = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == package)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .with_context(|| format!("cargo did not say where it put {package}"))?;
    if kept.exists() {
        // Beside a copy that still runs, not over it.
        std::fs::remove_file(kept).with_context(|| format!("cannot replace {}", kept.display()))?;
    }
    std::fs::copy(&built, kept).with_context(|| format!("cannot copy {} to {}", built.display(), kept.display()))?;
    Ok(())
}
