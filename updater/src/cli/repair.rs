//! `repair`: mend the files of the installed release.

use anyhow::Result;
use firmware_image::host::Access;

use super::{Session, exit, judged};

pub fn run(session: &Session<'_>) -> Result<u8> {
    session.with_engine(Access::ReadWrite, |engine| {
        let outcome = engine.repair().map_err(|error| {
            let is_damaged = engine.state().release.is_some() && !engine.is_whole();
            judged(error, is_damaged)
        })?;
        session.print_outcome(&outcome)?;
        Ok(exit::FINE)
    })
}
