//! `repair`: mend the files of the installed release.

use anyhow::Result;
use firmware_image::host::Access;

use super::{Session, exit, judged};

pub fn run(session: &Session<'_>) -> Result<u8> {
    session.with_engine(Access::ReadWrite, |engine| {
        let outcome = engine.repair().map_err(|error| judged(engine, error))?;
        session.print_outcome(&outcome)?;
        Ok(exit::FINE)
    })
}
