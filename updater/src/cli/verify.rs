//! `verify`: compare the files with the installed release.

use anyhow::Result;
use firmware_image::host::Access;
use lines::outln;

use super::{Session, exit};

pub fn run(session: &Session<'_>) -> Result<u8> {
    let report = session.with_engine(Access::ReadOnly, |engine| Ok(engine.verify()?))?;
    let whole = report.whole && !report.open_commit;
    if session.globals.json {
        outln!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        for file in &report.damaged {
            outln!("{:<9} {}", file.state, file.path);
        }
        for path in &report.unlisted_programs {
            outln!("{:<9} {path} (a program that the release does not list)", "unlisted");
        }
        if report.open_commit {
            outln!("An interrupted change waits to be finished: run `repair`.");
        }
        let (current, ignored) = (report.current, report.ignored);
        outln!(
            "Release {}: {current} files current, {ignored} the user's own, {} missing or modified.",
            report.version,
            report.damaged.len()
        );
    }
    Ok(if whole { exit::FINE } else { exit::NOT_WHOLE })
}
