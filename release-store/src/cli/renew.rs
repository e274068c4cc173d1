//! `renew`: signs anew that the store is what it is.

use std::path::PathBuf;
use std::process::ExitCode;

use lines::errln;
use release_store::keys::KeyDir;
use release_store::repository::Repository;

use super::{KeysArgument, terminal};

/// Sign again that the store is fresh
///
/// The timestamp holds for 90 days; run this more often. Targets and snapshot (a year) and root (ten years) are signed
/// again too once less than half of their time is left. Devices with a stale store go on working; they learn of nothing
/// newer.
#[derive(clap::Args)]
#[command(after_help = "Example (weekly, from a scheduler):\n  release-store renew store --keys keys")]
pub(super) struct Renew {
    /// The store
    store: PathBuf,
    #[command(flatten)]
    keys: KeysArgument,
    /// The store was put back from an older copy, and the newer one is lost: go on from here, with numbers that devices take
    #[arg(long)]
    restored: bool,
}

impl Renew {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let now = terminal::now()?;
        let keys = KeyDir::open(&self.keys.dir)?;
        let mut repository = match self.restored {
            true => Repository::open_restored(&self.store, &keys)?,
            false => Repository::open(&self.store, &keys)?,
        };
        let renewed = repository.renew(&terminal::passphrase()?, now)?;
        let also = [(renewed.root, "root"), (renewed.targets, "targets"), (renewed.snapshot, "snapshot")];
        let also: Vec<_> = also.iter().filter(|(was, _)| *was).map(|(_, name)| *name).collect();
        errln!("Signed the timestamp again. The store is fresh until {}.", renewed.fresh_until);
        if !also.is_empty() {
            errln!("Signed again as well: {}.", also.join(", "));
        }
        terminal::say_after_signing(&repository, now);
        Ok(ExitCode::SUCCESS)
    }
}
