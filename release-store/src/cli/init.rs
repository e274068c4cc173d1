//! `init`: a product's keys and an empty store.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use lines::errln;
use release_store::keys::KeyDir;
use release_store::manifest::check_product;
use release_store::repository::{Repository, check_new};

use super::{KeysArgument, checked, terminal};

/// Make a product's keys and an empty store
///
/// KEYS gets a file for each key, encrypted under a passphrase. Keep root.key and vendor.key offline afterwards: publishing
/// needs neither. Where KEYS holds the keys of this product already and STORE is not there, only the store is made.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  release-store init store --product 'Acme Notes' --keys keys")]
pub(super) struct Init {
    /// The directory to become a store
    store: PathBuf,
    /// The product's name
    #[arg(long, value_parser = checked(check_product))]
    product: String,
    #[command(flatten)]
    keys: KeysArgument,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let now = terminal::now()?;
        // Before there are keys for nothing.
        check_new(&self.store, &self.keys.dir)?;
        let existing = self.keys.dir.join("product.json").is_file();
        let (keys, passphrase) = if existing {
            let keys = KeyDir::open(&self.keys.dir)?;
            if keys.product() != self.product {
                bail!(
                    "{} holds the keys of product {:?}; name another directory",
                    self.keys.dir.display(),
                    keys.product()
                );
            }
            (keys, terminal::passphrase()?)
        } else {
            let passphrase = terminal::new_passphrase()?;
            (KeyDir::create(&self.keys.dir, &self.product, &passphrase, now)?, passphrase)
        };
        let repository = Repository::init(&self.store, &keys, &passphrase, now)?;
        let keys_made = if existing { "used" } else { "made" };
        errln!("Keys of {:?} {keys_made}: {}", self.product, self.keys.dir.display());
        errln!("Empty store made: {} (fresh until {})", self.store.display(), repository.fresh_until());
        terminal::say_after_signing(&repository, now);
        if repository.signed_last().timestamp > 1 {
            errln!(
                "There was a store here before: its numbers are gone on with, so that devices which knew it take this one."
            );
        }
        if !existing {
            errln!(
                "Keep root.key and vendor.key offline, and a copy of all keys elsewhere: nobody can make them again."
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
