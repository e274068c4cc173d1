//! `rollback`: back to the release before, or to a named one, and stay there.

use anyhow::Result;
use clap::Args;
use updater::Wish;

use super::{Session, update};

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The release's version; without it, the one before the installed one.
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
}

pub fn run(session: &Session<'_>, args: &RollbackArgs) -> Result<u8> {
    let wish = args.to.clone().map_or(Wish::Previous, Wish::Version);
    update::go(session, &wish)
}
