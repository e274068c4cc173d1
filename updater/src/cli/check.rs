//! `check`: what is newest.

use anyhow::Result;
use firmware_image::host::Access;
use lines::outln;

use super::{Session, exit};

pub fn run(session: &Session<'_>) -> Result<u8> {
    let report = session.with_engine(Access::ReadWrite, |engine| Ok(engine.check()?))?;
    if session.globals.json {
        outln!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(exit::FINE);
    }
    match &report.installed {
        Some(version) => outln!("Installed: {version}{}", if report.held { " (held)" } else { "" }),
        None => outln!("Installed: nothing yet"),
    }
    if let Some(reason) = &report.withdrawn {
        outln!("The installed release was withdrawn: {}", if reason.is_empty() { "no reason given" } else { reason });
    }
    match &report.newest {
        Some(version) if report.update => outln!("Newest:    {version}: `update` installs it"),
        Some(version) => outln!("Newest:    {version}: nothing to do"),
        None => outln!("Newest:    the store has no release for this channel"),
    }
    Ok(exit::FINE)
}
