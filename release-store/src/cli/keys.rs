//! `keys`: what a product's keys are, and what a factory gets of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use firmware_image::device_config::{Policies, Profile};
use firmware_image::updater_image::{Floors, MAX_IMAGE_BYTES, UpdaterVersion};
use lines::{errln, outln};
use release_store::keys::{ConfigRequest, FactoryExport, KeyDir, KeyKind, SignedUpdater, rotation, sign_updater};
use release_store::manifest::check_channel;
use release_store::repository::NoObserver;
use serde_json::json;

use super::publish::{platform_file, say_foreign_platforms, updater_version};
use super::{checked, terminal};

/// Show a product's keys, export what a factory needs, or put new ones in the place of lost or stolen ones
#[derive(clap::Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    Export(Export),
    Show(Show),
    Rotate(Rotate),
}

/// Export what a factory may hold
///
/// Public keys, root.json, content keys and product secret (as every device holds them), signed updaters, and signed device
/// configurations. No key that signs anything.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  release-store keys export keys --factory factory --server https://updates.example.com/store \\
      --client-command client/run.sh --updater linux-x86_64=target/updater")]
struct Export {
    /// The directory of the product's keys
    keys: PathBuf,
    /// The directory to make
    #[arg(long, value_name = "DIR")]
    factory: PathBuf,
    /// The channel whose releases the devices take
    #[arg(long, default_value = release_store::publish::DEFAULT_CHANNEL, value_parser = checked(check_channel))]
    channel: String,
    /// Where devices find the store, with how often it is tried first. Repeatable
    #[arg(long, value_name = "URL[=WEIGHT]", value_parser = server)]
    server: Vec<(String, u16)>,
    /// How devices start the client: a path in the free zone, and arguments. Repeatable, by platform
    #[arg(long, value_name = "[PLATFORM=]COMMAND", value_parser = client_command)]
    client_command: Vec<(String, String)>,
    /// An updater; stamped and signed unless it is. Repeatable
    #[arg(long, value_name = "PLATFORM=FILE", value_parser = platform_file)]
    updater: Vec<(String, PathBuf)>,
    /// The version of updaters signed now
    #[arg(long, value_name = "X.Y.Z", value_parser = updater_version, default_value = env!("CARGO_PKG_VERSION"))]
    updater_version: UpdaterVersion,
    /// The boundary on which the hidden zone's slots stand, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 20)]
    align_bytes: u32,
}

/// Show which keys there are; never a secret
#[derive(clap::Args)]
struct Show {
    /// The directory of the product's keys
    keys: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Put new keys in the place of lost or stolen ones
///
/// Makes a new key of each KIND under the same passphrase, and a new root (for `updater`: a new certificate) that says so.
/// Needs root.key in KEYS (for `updater`: vendor.key). Each store is signed with them when it is signed next, by `renew`
/// or `publish`: devices follow then. What is installed on them stays. What was interrupted is finished by `keys rotate
/// KEYS`. The vendor key and the content keys are on every device and have no successor.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  release-store keys rotate keys online targets && release-store renew store --keys keys
  release-store keys rotate keys updater    # then publish --updater P=FILE
  release-store keys rotate keys            # finishes what was interrupted")]
struct Rotate {
    /// The directory of the product's keys
    keys: PathBuf,
    /// The keys that are to be new. Repeatable
    #[arg(value_name = "KIND")]
    kinds: Vec<RotatedKind>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RotatedKind {
    /// The TUF root key: says which keys count
    Root,
    /// The TUF targets key: says what a release is
    Targets,
    /// The TUF snapshot and timestamp key: says what is newest
    Online,
    /// The key that signs updaters
    Updater,
}

impl From<RotatedKind> for KeyKind {
    fn from(kind: RotatedKind) -> Self {
        match kind {
            RotatedKind::Root => Self::Root,
            RotatedKind::Targets => Self::Targets,
            RotatedKind::Online => Self::Online,
            RotatedKind::Updater => Self::Updater,
        }
    }
}

impl Rotate {
    fn run(self) -> anyhow::Result<ExitCode> {
        let now = terminal::now()?;
        let finished = rotation::finish(&self.keys, &mut NoObserver)?;
        if finished.is_some() {
            errln!("The change that was interrupted is finished.");
        }
        let kinds: Vec<KeyKind> = self.kinds.iter().copied().map(KeyKind::from).collect();
        let rotation = match finished {
            Some(finished) if kinds.is_empty() => finished,
            _ => {
                // What is wrong with the directory shows before anything is asked.
                KeyDir::open(&self.keys)?;
                anyhow::ensure!(!kinds.is_empty(), "nothing was interrupted; name the keys that are to be new");
                rotation::rotate(&self.keys, &kinds, &terminal::passphrase()?, now, &mut NoObserver)?
            }
        };
        let keys = KeyDir::open(&self.keys)?;
        let serial = keys.certificate().serial;
        // Only those that are signed here are known here.
        let stores = if rotation.root_version.is_some() { keys.stores_signed()? } else { Vec::new() };
        if self.json {
            terminal::print_json(&json!({
                "keys": rotation.keys,
                "root_version": rotation.root_version,
                "updater_key_serial": serial,
                "stores_to_sign": stores,
            }));
            return Ok(ExitCode::SUCCESS);
        }
        let dir = self.keys.display();
        errln!("New: {}. The old ones are replaced in {dir}.", rotation.keys.join(", "));
        if let Some(version) = rotation.root_version {
            errln!(
                "Root {version} says so. Sign every store anew, then bring it to your file servers; devices follow:"
            );
            for store in &stores {
                errln!("  release-store renew {} --keys {dir}", store.display());
            }
        }
        if rotation.keys.iter().any(|name| name == KeyKind::Updater.name()) {
            errln!(
                "Updaters are signed with key {serial} from now on: publish them with `--updater PLATFORM=FILE`, and with"
            );
            errln!("`--retire-updater-keys` if devices are to run none of the older keys any more.");
        }
        errln!(
            "Every copy of {dir} is out of date now. Keep root.key and vendor.key offline; export again for factories."
        );
        Ok(ExitCode::SUCCESS)
    }
}

impl Keys {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            KeysCommand::Export(command) => command.run(),
            KeysCommand::Show(command) => command.run(),
            KeysCommand::Rotate(command) => command.run(),
        }
    }
}

impl Export {
    fn run(self) -> anyhow::Result<ExitCode> {
        let keys = KeyDir::open(&self.keys)?;
        say_foreign_platforms(&self.updater);
        let passphrase = terminal::passphrase()?;
        let mut updaters = Vec::new();
        if !self.updater.is_empty() {
            let key = keys.signing_key(KeyKind::Updater, &passphrase)?;
            for (platform, path) in &self.updater {
                let program = read_program(path)?;
                updaters.push(sign_updater(&keys, &key, platform, program, self.updater_version, Floors::default())?);
            }
        }
        let request = ConfigRequest {
            channel: self.channel,
            profile: Profile::Stick,
            align_bytes: self.align_bytes,
            servers: self.server,
            client_commands: self.client_command,
            policies: Policies::default(),
        };
        FactoryExport::create(&self.factory, &keys, &passphrase, &request, &updaters)?;
        errln!("Exported for the factory: {}", self.factory.display());
        for SignedUpdater { platform, version, newly_signed, .. } in &updaters {
            let signed = if *newly_signed { "signed now" } else { "signed before" };
            errln!("  updater {platform} {version}, {signed}");
        }
        if request.servers.is_empty() {
            errln!("  The devices will have no server: give --server.");
        }
        if request.client_commands.is_empty() {
            errln!("  The devices will have no client command: give --client-command.");
        }
        errln!("  Who holds it can read releases, as every device can; it signs nothing.");
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    fn run(self) -> anyhow::Result<ExitCode> {
        let keys = KeyDir::open(&self.keys)?;
        let present = |kind: KeyKind| keys.has(kind);
        if self.json {
            let secrets = KeyKind::ALL.map(|kind| (kind.name().to_owned(), present(kind).into()));
            terminal::print_json(&json!({
                "product": keys.product(),
                "vendor_key": hex::encode(keys.vendor_key().0),
                "updater_key_serial": keys.certificate().serial,
                "secrets": serde_json::Map::from_iter(secrets),
            }));
            return Ok(ExitCode::SUCCESS);
        }
        outln!("product             {}", keys.product());
        outln!("vendor key          {}", hex::encode(keys.vendor_key().0));
        outln!("updater key serial  {}", keys.certificate().serial);
        for kind in KeyKind::ALL {
            let state = if present(kind) { "here, encrypted" } else { "elsewhere" };
            outln!("{:<20}{state}", kind.file_name());
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn read_program(path: &Path) -> anyhow::Result<Vec<u8>> {
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read the updater {}", path.display()))?;
    anyhow::ensure!(metadata.len() <= MAX_IMAGE_BYTES, "{} is longer than an updater may be", path.display());
    std::fs::read(path).with_context(|| format!("cannot read the updater {}", path.display()))
}

fn server(text: &str) -> Result<(String, u16), String> {
    // An address may hold `=` itself: only a number behind the last one is a weight.
    let weighted = text.rsplit_once('=').and_then(|(url, weight)| Some((url, weight.parse().ok()?)));
    let (url, weight) = weighted.unwrap_or((text, 1));
    let known = ["http://", "https://", "file:"].iter().any(|scheme| url.starts_with(scheme));
    if !known {
        return Err("write it like https://updates.example.com/store or file:PATH".into());
    }
    Ok((url.to_owned(), weight))
}

fn client_command(text: &str) -> Result<(String, String), String> {
    let platform = text.split_once('=').filter(|(name, _)| release_store::manifest::check_platform(name).is_ok());
    match platform {
        Some((platform, command)) if !platform.contains('.') => Ok((platform.to_owned(), command.to_owned())),
        _ => Ok((String::new(), text.to_owned())),
    }
}
