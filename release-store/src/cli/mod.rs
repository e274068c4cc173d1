//! The command line: one module a subcommand, and what they share.
//!
//! Data goes to stdout, people read stderr, an exit status tells scripts what happened.

mod chart;
mod gc;
mod init;
mod keys;
mod list;
mod mirror;
mod publish;
mod renew;
mod serve;
mod stats;
mod terminal;
mod verify;
mod withdraw;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use release_store::ContentKeys;
use release_store::keys::{KeyDir, KeySource};
use release_store::repository::awaits_new_keys;

use anyhow::bail;
use clap::{Parser, Subcommand};
use release_store::StoreError;

const AFTER_HELP: &str = "\
Exit status:
  0  done
  1  failed; `verify`: damage was found
  2  wrong usage
  3  a key is missing or damaged, or the passphrase is missing or wrong
  4  the tree holds something that no release can hold
  5  another program works on the store
  6  the version was published before

The passphrase of the keys comes from HOLDFAST_PASSPHRASE, or from the terminal.
SOURCE_DATE_EPOCH (seconds since 1970) stands for the present where it is set, so that the same input gives the same
bytes. Nothing is signed at a time more than a day before the newest release's, or after the year 2100; `publish` wants
--after-long where the newest release is more than 400 days old.

Examples:
  release-store init store --product 'Acme Notes' --keys keys
  release-store publish store --keys keys --release-version 1.0.0 build/client
  release-store serve store --listen 127.0.0.1:8080";

/// Makes and tends a release store: signed, encrypted, deduplicated releases as plain files, for any file server.
#[derive(Parser)]
#[command(name = "release-store", version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Init),
    Publish(publish::Publish),
    Renew(renew::Renew),
    Withdraw(withdraw::Withdraw),
    List(list::List),
    Verify(verify::Verify),
    Stats(stats::Stats),
    Gc(gc::Gc),
    Mirror(mirror::Mirror),
    Serve(serve::Serve),
    Keys(keys::Keys),
}

/// Where a product's keys are.
#[derive(clap::Args)]
struct KeysArgument {
    /// The directory of the product's keys
    #[arg(long = "keys", value_name = "KEYS")]
    dir: PathBuf,
}

impl KeysArgument {
    /// What it takes to read a store: of a factory export without a passphrase.
    fn to_read(&self) -> anyhow::Result<(KeySource, ContentKeys)> {
        let source = KeySource::open(&self.dir)?;
        let passphrase = if source.needs_passphrase() {
            // What is wrong with the directory shows before anything is asked.
            KeyDir::open(&self.dir)?;
            Some(terminal::passphrase()?)
        } else {
            None
        };
        let keys = source.secrets(passphrase.as_ref())?.content_keys;
        Ok((source, keys))
    }

    /// What `read` finds in a store, given the trusted root, the product and its content keys.
    fn read<T>(
        &self,
        store: &Path,
        read: impl FnOnce(&[u8], &str, &ContentKeys) -> Result<T, StoreError>,
    ) -> anyhow::Result<T> {
        let (source, content_keys) = self.to_read()?;
        let found = read(&source.root_json()?, source.product(), &content_keys);
        if let (Err(StoreError::Tuf { .. }), KeySource::Keys(keys)) = (&found, &source)
            && awaits_new_keys(store, keys)
        {
            let (store, keys) = (store.display(), self.dir.display());
            bail!("{store} is not signed yet with the new keys in {keys}: `release-store renew {store} --keys {keys}`");
        }
        Ok(found?)
    }
}

/// An argument that `check` has nothing against.
fn checked(check: fn(&str) -> Result<(), String>) -> impl Fn(&str) -> Result<String, String> + Clone {
    move |text| check(text).map(|()| text.to_owned())
}

pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Init(command) => command.run(),
        Command::Publish(command) => command.run(),
        Command::Renew(command) => command.run(),
        Command::Withdraw(command) => command.run(),
        Command::List(command) => command.run(),
        Command::Verify(command) => command.run(),
        Command::Stats(command) => command.run(),
        Command::Gc(command) => command.run(),
        Command::Mirror(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Keys(command) => command.run(),
    };
    match result {
        Ok(_) if lines::were_lost() => ExitCode::from(1),
        Ok(status) => status,
        Err(error) => {
            terminal::report(&error);
            ExitCode::from(status(&error))
        }
    }
}

fn status(error: &anyhow::Error) -> u8 {
    if error.is::<terminal::NoPassphrase>() {
        return 3;
    }
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::Key { .. } | StoreError::WrongPassphrase { .. }) => 3,
        Some(StoreError::Path { .. } | StoreError::NotAFile { .. } | StoreError::Tree { .. }) => 4,
        Some(StoreError::Locked { .. }) => 5,
        Some(StoreError::AlreadyPublished { .. }) => 6,
        _ => 1,
    }
}
