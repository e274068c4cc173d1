//! The public conformance suite for TUF clients, over the device's own trust code.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::figures::Figures;
use crate::{run, system};

/// The suite. It is in no package registry; what is named so there is not it.
const SOURCE: &str = "git+https://github.com/theupdateframework/tuf-conformance@v2.4.0";
const CLIENT: &str = "tuf-conformance-client";
/// Under which it is told that it was skipped.
const SUBJECT: &str = "the public conformance suite for TUF clients";

/// Builds the client, and runs the suite where it is installed for `python3`, or can be: every test must pass.
pub fn run(figures: &Figures) -> Result<()> {
    run::show(run::cargo().args(["build", "--quiet", "--package", CLIENT]))?;
    let client = run::target_dir()?.join("debug").join(CLIENT);
    let Some(python) = system::find("python3") else {
        return figures.skip(SUBJECT, "python3 is missing");
    };
    if system::find("faketime").is_none() && system::may_install() {
        system::install(&["faketime"]);
    }
    if system::find("faketime").is_none() {
        return figures.skip(SUBJECT, "faketime is missing (Debian package faketime)");
    }
    let Some((python, suite)) = installed(&python).or_else(|| install(&python)) else {
        return figures
            .skip(SUBJECT, &format!("it is not installed, and cannot be fetched here (pip install {SOURCE})"));
    };
    if !client.is_file() {
        bail!("{} is missing", client.display());
    }
    run::show(Command::new(python).args(["-m", "pytest", "-q"]).arg(suite).arg("--entrypoint").arg(client))
        .context("not every test of the suite passed; none is expected to fail")
}

/// The directory of the suite, as this Python has it.
fn installed(python: &Path) -> Option<(PathBuf, PathBuf)> {
    const WHERE: &str = "import os, pytest, tuf_conformance; print(os.path.dirname(tuf_conformance.__file__))";
    let output = run::capture(Command::new(python).args(["-c", WHERE])).ok()?;
    let directory = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| (python.to_owned(), PathBuf::from(directory.trim())))
}

/// Puts the suite into an environment of its own beside what was built, if it is not there yet.
fn install(python: &Path) -> Option<(PathBuf, PathBuf)> {
    let environment = run::target_dir().ok()?.join("tuf-conformance");
    let own = environment.join("bin/python3");
    if !own.is_file() {
        run::capture(Command::new(python).args(["-m", "venv"]).arg(&environment)).ok()?;
    }
    installed(&own).or_else(|| {
        let pip = ["-m", "pip", "install", "-q", "--retries", "0", "--timeout", "20", SOURCE];
        run::capture(Command::new(&own).args(pip)).ok()?;
        installed(&own)
    })
}
