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

/// How thoroughly to optimise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// As shipped.
    Release,
    /// Quick to build.
    Dev,
}

impl Programs {
    /// Builds them all and puts a copy of each into `dir`.
    pub fn build(profile: Profile, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (usual, launcher) = match profile {
            Profile::Release => ("release", "launcher"),
            Profile::Dev => ("dev", "dev"),
        };
        Ok(Self {
            release_store: build("release-store", usual, &[], dir, "release-store")?,
            partition_tools: build("partition-tools", usual, &[], dir, "partition-tools")?,
            updater: build("updater", usual, &[], dir, "updater")?,
            bootstrap_image: build("bootstrap", usual, &[], dir, "bootstrap-image")?,
            bootstrap: build(
                "bootstrap",
                launcher,
                &["--no-default-features", "--features", "launcher"],
                dir,
                "bootstrap",
            )?,
        })
    }
}

fn build(package: &str, profile: &str, features: &[&str], dir: &Path, name: &str) -> Result<PathBuf> {
    eprintln!("building {name}");
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
    let kept = dir.join(name);
    if kept.exists() {
        // Beside a copy that still runs, not over it.
        std::fs::remove_file(&kept).with_context(|| format!("cannot replace {}", kept.display()))?;
    }
    std::fs::copy(&built, &kept).with_context(|| format!("cannot copy {} to {}", built.display(), kept.display()))?;
    Ok(kept)
}
