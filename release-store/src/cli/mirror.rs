//! `mirror`: a copy of a store elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use lines::errln;
use release_store::mirror::mirror;

use super::{KeysArgument, terminal};

/// Bring a copy of a store in step
///
/// Copies what is missing, checks it by its name, and the timestamp last: the copy is at every moment as sound as the store.
/// Needs no keys; but only they tell which packs there have to be, and that one is missing.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  release-store mirror store /mnt/www/store --keys keys")]
pub(super) struct Mirror {
    /// The store
    store: PathBuf,
    /// The copy; made where it is not there
    destination: PathBuf,
    /// The directory of the product's keys: a copy that lacks a pack stays as it was
    #[arg(long, value_name = "KEYS")]
    keys: Option<PathBuf>,
    /// Read what is there already, too, and put right what is damaged
    #[arg(long)]
    check: bool,
}

impl Mirror {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let opened = self.keys.map(|dir| KeysArgument { dir }.to_read()).transpose()?;
        let keys = opened.as_ref().map(|(source, keys)| (source.product(), keys));
        let mut bar = terminal::Bar::new("copying");
        let mirrored = mirror(&self.store, &self.destination, self.check, keys, &mut bar)?;
        drop(bar);
        let (files, bytes) = (terminal::counted(mirrored.files, "file"), terminal::bytes(mirrored.bytes));
        errln!("{}: {files} copied ({bytes}), {} there before", self.destination.display(), mirrored.kept);
        Ok(ExitCode::SUCCESS)
    }
}
