//! The command line: arguments, the device, and what each subcommand prints.

mod check;
pub mod exit;
mod machine;
mod repair;
mod rollback;
mod run;
mod screen;
mod size;
mod status;
mod update;
mod verify;
mod zones;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use firmware_image::hidden::HiddenZone;
use firmware_image::host::Access;
use firmware_image::image::any_zone::AnyFreeZone;
use firmware_image::places::Places;
use firmware_image::signature::PublicKey;
use firmware_image::{ZoneError, stamp};
use lines::{errln, outln};
use updater::hash::{self, Hashed};
use updater::meter::Meter;
use updater::servers::Servers;
use updater::{Engine, EngineError, Limits, Outcome, Parts, Watch as _};

use exit::Status;
use machine::{Machine, Patience};
use screen::Screen;
use zones::{Raw, Zones};

/// Checks, downloads, repairs and rolls back the client on a device.
#[derive(Debug, Parser)]
#[command(name = "updater", version, after_help = exit::HELP)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Args)]
pub struct Globals {
    #[command(flatten)]
    pub zones: ZoneArgs,
    /// Say what would be done, and do nothing.
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Download no more than this; what came is kept for the next time.
    #[arg(long, global = true, value_name = "SIZE", value_parser = size::parse)]
    pub max_bytes: Option<u64>,
    /// Download no faster than this a second.
    #[arg(long, global = true, value_name = "SIZE/s", value_parser = size::parse)]
    pub limit_rate: Option<u64>,
    /// Wait while the client is running.
    #[arg(long, global = true)]
    pub wait: bool,
    /// Print JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Show details.
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// Where the device's zones are.
#[derive(Debug, Args)]
pub struct ZoneArgs {
    /// The whole device: an image file or a block device.
    #[arg(long, global = true, value_name = "PATH", conflicts_with_all = ["free", "hidden"])]
    pub device: Option<PathBuf>,
    /// The virtual zone: a mounted directory (with --device also an ISO image).
    #[arg(long = "virtual", global = true, value_name = "PATH")]
    pub virtual_zone: Option<PathBuf>,
    /// The free zone: a mounted directory. Without it, the one this program stands in.
    #[arg(long, global = true, value_name = "DIR")]
    pub free: Option<PathBuf>,
    /// The hidden zone: a partition, or a file.
    #[arg(long, global = true, value_name = "PATH")]
    pub hidden: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What the launcher calls at each plug-in: finish, check, update or repair.
    Run(run::RunArgs),
    /// Ask the servers what is newest.
    Check,
    /// Go to the newest release, or to a named one.
    Update(update::UpdateArgs),
    /// Compare the client's files with the installed release; change nothing.
    Verify,
    /// Mend the client's files.
    Repair,
    /// Go back to the release before, or to a named one, and stay there.
    Rollback(rollback::RollbackArgs),
    /// Show the device: release, zones, backups, files, alarms.
    Status,
    /// Load the state, say that this updater is ready, and end.
    #[command(hide = true)]
    Probe,
}

/// The engine of a device as this program opens it.
pub type DeviceEngine<'z> = Engine<'z, AnyFreeZone, Raw, Raw>;

/// Everything that a subcommand works with.
pub struct Session<'s> {
    pub globals: &'s Globals,
    pub vendor: PublicKey,
    pub screen: Screen,
}

impl Session<'_> {
    /// Opens the device and calls `f` with its engine.
    pub fn with_engine<R>(&self, access: Access, f: impl FnOnce(&mut DeviceEngine<'_>) -> Result<R>) -> Result<R> {
        let globals = self.globals;
        // A dry run writes nothing, not even by accident.
        let access = if globals.dry_run { Access::ReadOnly } else { access };
        let zones = Zones::open(globals, &self.vendor, access)?;
        for note in &zones.notes {
            self.screen.detail(note);
        }
        let interactive = std::io::stderr().is_terminal() && std::io::stdin().is_terminal();
        let machine = Machine {
            client: zones.client.clone(),
            patience: if globals.wait || interactive { Patience::Wait } else { Patience::None },
            zone_args: zones.args.clone(),
            ready_timeout: Duration::from_secs(zones.config.policies.ready_timeout_secs.max(1).into()),
        };
        let meter = Meter::new(globals.max_bytes, globals.limit_rate);
        let servers = Servers::from_addresses(&zones.config.servers, &meter, &machine);
        let align = zones.config.align_bytes;
        let hidden = zones.hidden.map(|zone| HiddenZone::new(zone, align)).transpose();
        let hidden = hidden.or_else(|error| match error {
            ZoneError::OutOfBounds => {
                self.screen.note("the hidden zone is too small to be one; its mirrors serve");
                Ok(None)
            }
            error => Err(error),
        });
        let free = zones.free;
        let result = {
            let places = Places {
                hidden: hidden.context("the hidden zone cannot be read")?,
                free: Some(&free),
                cd_tail: zones.cd_tail,
            };
            let mut engine = Engine::load(Parts {
                free: &free,
                places,
                config: zones.config,
                vendor: self.vendor,
                servers,
                offline: zones.offline,
                host: &machine,
                watch: &self.screen,
                hash: hash_any,
            })?;
            engine.set_limits(Limits { dry_run: globals.dry_run, ..Limits::default() });
            let result = f(&mut engine);
            // What was found is worth keeping, whatever came of it.
            if access == Access::ReadWrite {
                engine.write_log();
            }
            result
        };
        let closed = if access == Access::ReadWrite { free.close() } else { Ok(()) };
        // Where both failed, what failed first says why.
        let found = result?;
        closed.context("the free zone could not be closed cleanly")?;
        Ok(found)
    }

    /// Prints an outcome: for people on stderr, for scripts on stdout.
    pub fn print_outcome(&self, outcome: &Outcome) -> Result<()> {
        if self.globals.json {
            outln!("{}", serde_json::to_string_pretty(outcome)?);
            return Ok(());
        }
        if let Some(plan) = &outcome.plan {
            update::print_plan(plan);
            return Ok(());
        }
        use updater::Action;
        let version = outcome.version.as_deref().unwrap_or("none");
        let text = match outcome.action {
            Action::None => format!("Release {version} is installed and whole."),
            Action::Planned => "Nothing was changed.".to_owned(),
            Action::Installed => format!("Release {version} is installed."),
            Action::Updated => match &outcome.previous {
                Some(previous) => format!("Release {version} is installed; before, it was {previous}."),
                None => format!("Release {version} is installed."),
            },
            Action::Repaired => {
                let files = if outcome.files_written == 1 { "file was" } else { "files were" };
                format!("Release {version} is whole again: {} {files} mended.", outcome.files_written)
            }
        };
        outln!("{text}");
        if outcome.bytes_fetched > 0 {
            outln!(
                "Downloaded {} in {} requests, {} frames.",
                size::show(outcome.bytes_fetched),
                outcome.requests,
                outcome.frames_fetched
            );
        }
        Ok(())
    }
}

/// Hashes on several threads where the zone is a mounted directory.
fn hash_any(zone: &AnyFreeZone, paths: &[String], watch: &dyn updater::Watch) -> Vec<Hashed> {
    match zone {
        AnyFreeZone::Directory(directory) => hash::parallel(directory, paths, watch),
        fat => hash::sequential(fat, paths, watch),
    }
}

/// Runs the program; its exit status.
pub fn main() -> u8 {
    crate::platform::prepare();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            outln!("{}", machine::version());
            return if lines::were_lost() { exit::FAILED } else { exit::FINE };
        }
        Err(error) => error.exit(),
    };
    let Some(vendor) = stamp::vendor_key() else {
        errln!("error: this updater carries no vendor key, so there is nobody it could trust");
        errln!("       publish it with `release-store publish --updater`, or sign it with `partition-tools create`;");
        errln!("       a device has a signed one: `partition-tools virtual cat DEVICE updater-PLATFORM > updater`");
        return exit::NOT_AUTHENTIC;
    };
    let session = Session { globals: &cli.globals, vendor, screen: Screen::new(cli.globals.verbose, cli.globals.json) };
    let result = match &cli.command {
        Command::Run(args) => return run::main(&session, args),
        Command::Check => check::run(&session),
        Command::Update(args) => update::run(&session, args),
        Command::Verify => verify::run(&session),
        Command::Repair => repair::run(&session),
        Command::Rollback(args) => rollback::run(&session, args),
        Command::Status => status::run(&session),
        Command::Probe => run::probe(&session),
    };
    match result {
        Ok(exit::FINE) if lines::were_lost() => exit::FAILED,
        Ok(status) => status,
        Err(error) => {
            print_error(&error);
            exit::of(&error)
        }
    }
}

/// Prints a failure and its causes.
pub fn print_error(error: &anyhow::Error) {
    let mut causes = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
    }
    errln!("error: {}", causes.join(": "));
}

/// A failure; where the client `is_damaged`, status 3 goes before all others.
fn judged(error: EngineError, is_damaged: bool) -> anyhow::Error {
    let error = anyhow::Error::from(error);
    if is_damaged { error.context(Status(exit::NOT_WHOLE, "the client is not whole".into())) } else { error }
}
