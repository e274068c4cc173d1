//! `mirror`: a copy of a store elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use release_store::mirror::mirror;

use super::streams::say;
use super::terminal;

/// Bring a copy of a store in step
///
/// Copies what is missing, checks it by its name, and the timestamp last: the copy is a sound store at every moment. Needs
/// no keys.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  release-store mirror store /mnt/www/store")]
pub(super) struct Mirror {
    /// The store
    store: PathBuf,
    /// The copy; made where it is not there
    destination: PathBuf,
    /// Read what is there already, too, and put right what is damaged
    #[arg(long)]
    check: bool,
}

impl Mirror {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mirrored = mirror(&self.store, &self.destination, self.check, &mut terminal::Bar::new("copying"))?;
        let (files, bytes) = (mirrored.files, terminal::bytes(mirrored.bytes));
        say!("{}: {files} files copied ({bytes}), {} were there", self.destination.display(), mirrored.kept);
        Ok(ExitCode::SUCCESS)
    }
}
