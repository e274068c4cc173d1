//! `create`: a new device image.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use firmware_image::device_config::Profile;
use firmware_image::free_zone::check_path;
use firmware_image::updater_image::UpdaterVersion;
use lines::errln;
use partition_tools::create::{Created, Request, check_platform, create};
use partition_tools::random::Random;
use partition_tools::size;
use release_store::keys::KeySource;
use serde_json::json;

use super::terminal;

/// Make a new device image
///
/// The image appears under its name when it is complete. Programs are stamped with the vendor's key and updaters signed,
/// unless they are already.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  partition-tools create --profile stick --out device.img --size 4GiB \\
      --keys keys --product 'Acme Notes' \\
      --server https://updates.example.com/store \\
      --client-command client/run.sh \\
      --bootstrap linux-x86_64=dist/bootstrap-linux-x86_64 \\
      --updater linux-x86_64=dist/updater-linux-x86_64 \\
      --store store --release-version 1.0.0
  partition-tools create --profile dual --out disk.img --cd-out cd.iso \\
      --size 8GiB --keys factory-export --product 'Acme Notes' \\
      --bootstrap linux-x86_64=dist/bootstrap-linux-x86_64

With a factory export, --server, --client-command and --channel are those that it was signed with; leave them out. A board's card
also wants --leave, for partitions of the board's own (docs/board.md).")]
pub(super) struct Create {
    /// How the zones are arranged
    #[arg(long)]
    profile: ProfileArgument,
    /// The disk image to make
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The CD image to make (dual)
    #[arg(long, value_name = "FILE")]
    cd_out: Option<PathBuf>,
    /// The size of the disk
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    size: u64,
    /// The product's keys, or a factory export
    #[arg(long, value_name = "KEYS")]
    keys: PathBuf,
    /// The product
    #[arg(long, value_name = "NAME")]
    product: String,
    /// The channel whose releases the device takes [default: stable]
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Where the device finds the store, with how often it is tried first. Repeatable
    #[arg(long, value_name = "URL[=WEIGHT]", value_parser = server)]
    server: Vec<(String, u16)>,
    /// A launcher. Repeatable, by platform: linux-x86_64, linux-aarch64, windows-x86_64
    #[arg(long, value_name = "PLATFORM=FILE", value_parser = platform_file)]
    bootstrap: Vec<(String, PathBuf)>,
    /// An updater. Repeatable, by platform [default: those of the factory export and of the release]
    #[arg(long, value_name = "PLATFORM=FILE", value_parser = platform_file)]
    updater: Vec<(String, PathBuf)>,
    /// The version of updaters that are signed now
    #[arg(long, value_name = "X.Y.Z", value_parser = updater_version, default_value = env!("CARGO_PKG_VERSION"))]
    updater_version: UpdaterVersion,
    /// How the client is started: a path in the free zone, and arguments. Repeatable, by platform
    #[arg(long, value_name = "[PLATFORM=]COMMAND", value_parser = client_command)]
    client_command: Vec<(String, String)>,
    /// Leave so much of the disk's end to no zone: a board's own partitions go there
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "0")]
    leave: u64,
    /// The size of the hidden zone [default: twice what the updaters need, at least 40MiB]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    hidden_size: Option<u64>,
    /// The store of the release to preinstall
    #[arg(long, value_name = "STORE", requires = "release_version")]
    store: Option<PathBuf>,
    /// The release to preinstall
    #[arg(long, value_name = "VERSION", requires = "store")]
    release_version: Option<String>,
    /// Put the release's store files onto the virtual zone too, as a source without network
    #[arg(long)]
    offline_source: bool,
    /// Make the same image each time: keys and numbers come from this text. For tests and comparisons
    #[arg(long, value_name = "TEXT")]
    seed: Option<String>,
    /// Replace images that exist
    #[arg(long)]
    force: bool,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileArgument {
    /// One disk with three partitions: any USB stick, SD card, eMMC
    Stick,
    /// A CD-ROM and a disk, for firmware or gadget drivers that show two units
    Dual,
}

impl Create {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let keys = KeySource::open(&self.keys)?;
        let passphrase = terminal::passphrase(&keys)?;
        let timestamp = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => Some(text.trim().parse().context("SOURCE_DATE_EPOCH is no number of seconds since 1970")?),
            Err(_) => None,
        };
        let request = Request {
            profile: match self.profile {
                ProfileArgument::Stick => Profile::Stick,
                ProfileArgument::Dual => Profile::Dual,
            },
            out: self.out,
            cd_out: self.cd_out,
            disk_bytes: self.size,
            leave_bytes: self.leave,
            hidden_bytes: self.hidden_size,
            product: self.product,
            channel: self.channel,
            servers: self.server,
            bootstraps: self.bootstrap,
            updaters: self.updater,
            updater_version: self.updater_version,
            client_commands: self.client_command,
            release: self.store.zip(self.release_version),
            offline_source: self.offline_source,
            timestamp,
            random: self.seed.as_deref().map_or_else(Random::system, Random::seeded),
            force: self.force,
        };
        let created = create(&request, &keys, passphrase.as_ref(), &mut terminal::Bar::new())?;
        if self.json {
            terminal::print_json(&as_json(&request, &created))?;
        } else {
            explain(&request, &created);
        }
        for warning in &created.warnings {
            errln!("note: {warning}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn explain(request: &Request, created: &Created) {
    errln!("Made {} ({}), device {}.", request.out.display(), size::show(request.disk_bytes), created.device_id);
    if let Some(cd) = &request.cd_out {
        errln!("  the CD: {}", cd.display());
    }
    for (platform, version, newly_signed) in &created.updaters {
        let signed = if *newly_signed { "signed now" } else { "signed before" };
        errln!("  updater {platform} {version}, {signed}");
    }
    match &created.release {
        Some(release) => errln!(
            "  client {} (serial {}): {} file{}, {}",
            release.version,
            release.serial,
            release.files,
            if release.files == 1 { "" } else { "s" },
            size::show(release.bytes)
        ),
        None if created.has_server => errln!("  no client yet: the device fetches it at its first start"),
        None => errln!("  no client"),
    }
}

fn as_json(request: &Request, created: &Created) -> serde_json::Value {
    let updaters: Vec<_> = created
        .updaters
        .iter()
        .map(|(platform, version, signed)| {
            json!({"platform": platform, "version": version.to_string(), "newly_signed": signed})
        })
        .collect();
    let release = created.release.as_ref().map(|release| {
        json!({"version": release.version, "serial": release.serial, "files": release.files, "bytes": release.bytes})
    });
    json!({
        "image": request.out,
        "cd": request.cd_out,
        "device_id": created.device_id.to_string(),
        "updaters": updaters,
        "release": release,
        "warnings": created.warnings,
    })
}

fn server(text: &str) -> Result<(String, u16), String> {
    if let Some((url, weight)) = text.rsplit_once('=')
        && let Ok(weight) = weight.parse()
    {
        return if weight == 0 { Err("a weight is at least 1".into()) } else { Ok((url.to_owned(), weight)) };
    }
    Ok((text.to_owned(), 1))
}

fn platform_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((platform, file)) if !platform.is_empty() && !file.is_empty() => {
            check_platform(platform).map(|()| (platform.into(), file.into()))
        }
        _ => Err("write PLATFORM=FILE, for example linux-x86_64=target/release/updater".into()),
    }
}

fn client_command(text: &str) -> Result<(String, String), String> {
    let (platform, command) = match text.split_once('=') {
        // A path may hold an equals sign; a platform holds no slash.
        Some((platform, command)) if !platform.contains(['/', ' ']) && !platform.is_empty() => {
            check_platform(platform)?;
            (platform, command)
        }
        _ => ("", text),
    };
    // What the launcher takes for the program.
    match command.split_ascii_whitespace().next().map(check_path) {
        None => Err("a command names a program, for example client/run.sh".into()),
        Some(Err(_)) => {
            Err("the program is a path in the free zone, for example client/run.sh: without .. or a / at its begin"
                .into())
        }
        Some(Ok(())) => Ok((platform.into(), command.into())),
    }
}

fn updater_version(text: &str) -> Result<UpdaterVersion, String> {
    UpdaterVersion::parse(text).ok_or_else(|| "an updater's version is three numbers, for example 1.4.0".into())
}
