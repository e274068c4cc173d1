//! `withdraw`: takes a release back, or lets it stand again.

use std::path::PathBuf;
use std::process::ExitCode;

use lines::errln;
use release_store::keys::KeyDir;
use release_store::publish::DEFAULT_CHANNEL;
use release_store::repository::Repository;

use super::{KeysArgument, terminal};

/// Withdraw a release, or let it stand again
///
/// Devices that run it go to the newest release that stands; no device installs it any more. Its content stays in the
/// store.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  release-store withdraw store --keys keys --release-version 1.1.0 --reason 'loses settings'
  release-store withdraw store --keys keys --release-version 1.1.0 --restore")]
pub(super) struct Withdraw {
    /// The store
    store: PathBuf,
    #[command(flatten)]
    keys: KeysArgument,
    /// The release's version
    #[arg(long, value_name = "VERSION")]
    release_version: String,
    /// The channel
    #[arg(long, default_value = DEFAULT_CHANNEL)]
    channel: String,
    /// Why, in one line; devices show it
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Let a withdrawn release stand again
    #[arg(long, conflicts_with = "reason")]
    restore: bool,
}

impl Withdraw {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let now = terminal::now()?;
        let keys = KeyDir::open(&self.keys.dir)?;
        let mut repository = Repository::open(&self.store, &keys)?;
        let reason = (!self.restore).then_some(self.reason.as_str());
        let passphrase = terminal::passphrase()?;
        let release = repository.withdraw(&self.channel, &self.release_version, reason, &passphrase, now)?;
        let done = if self.restore { "stands again" } else { "is withdrawn" };
        errln!("Release {} (serial {}) {done}.", release.version, release.serial);
        match repository.releases().newest(&self.channel) {
            Some(newest) => errln!("Newest in {}: {} (serial {}).", self.channel, newest.version, newest.serial),
            None => errln!("No release stands in {}: devices stay at what they have.", self.channel),
        }
        errln!("The store is fresh until {}.", repository.fresh_until());
        terminal::say_after_signing(&repository, now);
        Ok(ExitCode::SUCCESS)
    }
}
