//! Real releases to publish: two consecutive versions of a package, fetched with cargo; the project's own sources where
//! the registry is out of reach.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;

const PACKAGE: &str = "mdbook";
const VERSIONS: [&str; 2] = ["0.4.51", "0.4.52"];

/// A client's tree, and what it is.
pub struct Tree {
    /// Its folder.
    pub path: PathBuf,
    /// The version to publish it under.
    pub version: String,
}

/// Two consecutive versions of a real client tree under `dir`, and one line on what they are.
pub fn client_trees(dir: &Path) -> Result<([Tree; 2], String)> {
    match VERSIONS.map(|version| fetch(dir, version)) {
        [Ok(old), Ok(new)] => {
            let trees = [tree(dir, &old, VERSIONS[0])?, tree(dir, &new, VERSIONS[1])?];
            Ok((trees, format!("{PACKAGE} {} and {}, as published on crates.io", VERSIONS[0], VERSIONS[1])))
        }
        [Err(error), _] | [_, Err(error)] => {
            eprintln!("no packages from the registry ({error:#}); taking the project's own sources instead");
            let old = tree(dir, &run::root(), "1.0.0")?;
            let new = tree(dir, &run::root(), "1.0.1")?;
            fs::write(new.path.join("CHANGES.txt"), "Version 1.0.1 says what changed.\n")?;
            Ok(([old, new], "the project's own sources, and the same with a change".into()))
        }
    }
}

/// Has cargo fetch one version; where its sources are.
fn fetch(dir: &Path, version: &str) -> Result<PathBuf> {
    let probe = dir.join(format!("fetch-{version}"));
    fs::create_dir_all(probe.join("src"))?;
    fs::write(probe.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[dependencies]\n\
         {PACKAGE} = {{ version = \"={version}\", default-features = false }}\n[workspace]\n"
    );
    fs::write(probe.join("Cargo.toml"), manifest)?;
    let mut cargo = run::cargo();
    cargo.current_dir(&probe).args(["metadata", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&run::text(&mut cargo)?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let package = packages.iter().find(|package| package["name"] == PACKAGE).context("cargo did not fetch it")?;
    let manifest = package["manifest_path"].as_str().context("cargo does not say where it is")?;
    Ok(Path::new(manifest).parent().unwrap_or(Path::new("/")).to_path_buf())
}

/// Copies sources into a client's tree with a program that shows them.
fn tree(dir: &Path, sources: &Path, version: &str) -> Result<Tree> {
    let path = dir.join(format!("client-{version}"));
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    copy(sources, &path.join("handbook"))?;
    fs::write(path.join("VERSION"), format!("{version}\n"))?;
    let script = "#!/bin/sh\n\
        # The client: says which handbook this is and how many pages it has.\n\
        here=$(dirname \"$0\")\n\
        pages=$(find \"$here/handbook\" -type f | wc -l)\n\
        read -r version < \"$here/VERSION\"\n\
        echo \"Handbook $version, $((pages)) pages, ready.\"\n";
    fs::write(path.join("run.sh"), script)?;
    set_executable(&path.join("run.sh"))?;
    Ok(Tree { path, version: version.into() })
}

#[cfg(unix)]
fn set_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[cfg(not(unix))]
fn set_executable(_path: &Path) -> Result<()> {
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        let kind = entry.file_type()?;
        if hidden || name == "target" || kind.is_symlink() {
            continue;
        }
        let target = to.join(&name);
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
        } else {
            bail!("{} is neither a file nor a folder", entry.path().display());
        }
    }
    Ok(())
}
