//! Bringing releases with the ordinary clients, once; afterwards they are in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::series::{Series, Source};
use crate::bench::trees;
use crate::{run, system};

/// Where the releases of `versions` are, in their order.
pub fn releases(series: &Series, versions: &[&str], cache: &Path) -> Result<Vec<PathBuf>> {
    versions.iter().map(|version| release(series, version, cache)).collect()
}

fn release(series: &Series, version: &str, cache: &Path) -> Result<PathBuf> {
    let tree = cache.join(series.name).join(version);
    if tree.is_dir() {
        return Ok(tree);
    }
    eprintln!("fetching {} {version}", series.package);
    let dir = trees::empty(&cache.join(format!(".{}-{version}", series.name)))?;
    let (down, unpacked) = (trees::empty(&dir.join("down"))?, trees::empty(&dir.join("tree"))?);
    match series.source {
        Source::Npm => {
            let npm = system::find("npm").context("npm is not installed")?;
            let mut pack = Command::new(npm);
            pack.arg("pack").arg(format!("{}@{version}", series.package)).arg("--pack-destination").arg(&down);
            run::text(pack.current_dir(&dir))?;
            let mut tar = Command::new("tar");
            tar.arg("-xzf").arg(only_file(&down)?).arg("-C").arg(&unpacked).arg("--strip-components=1");
            run::text(&mut tar)?;
        }
        Source::Pip => {
            let python = system::find("python3").context("python3 is not installed")?;
            let mut download = Command::new(&python);
            download.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
            download.args(["--only-binary=:all:", "--python-version", "3.12"]);
            // The oldest of these names stands for what every wheel for Linux on x86-64 accepts.
            download.args(["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64"]);
            download.args(["--platform", "any", "--dest"]).arg(&down);
            run::text(download.arg(format!("{}=={version}", series.package)))?;
            let mut unzip = Command::new(&python);
            unzip.args(["-m", "zipfile", "-e"]).arg(only_file(&down)?).arg(&unpacked);
            run::text(&mut unzip)?;
        }
    }
    std::fs::create_dir_all(cache.join(series.name))?;
    std::fs::rename(&unpacked, &tree).with_context(|| format!("cannot keep {}", tree.display()))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(tree)
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    match trees::walk(dir)?.as_slice() {
        [file] => Ok(file.clone()),
        files => bail!("{} files came instead of one", files.len()),
    }
}
