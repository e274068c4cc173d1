//! `publish`: a directory as a release.

use std::path::PathBuf;
use std::process::ExitCode;

use firmware_image::updater_image::{Floors, UpdaterVersion};
use lines::errln;
use release_store::keys::KeyDir;
use release_store::manifest::{PLATFORMS, check_channel, check_module, check_platform, check_version};
use release_store::publish::{
    DEFAULT_CHANNEL, DEFAULT_LEVEL, DEFAULT_MODULE, DeltaFrom, PublishRequest, Published, publish,
};
use release_store::repository::Repository;
use serde_json::json;

use super::stats::update_json;
use super::terminal::counted;
use super::{KeysArgument, checked, terminal};

/// Publish a directory as a release
///
/// TREE becomes client/ on devices. Plain files only; whether a file may be executed is kept. Only chunks that no release
/// had before are added. Until the last step, devices see the store as it was; an interrupted run is simply repeated.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  release-store publish store --keys keys --release-version 1.1.0 \\
      --updater linux-x86_64=target/updater build/client")]
pub(super) struct Publish {
    /// The store
    store: PathBuf,
    #[command(flatten)]
    keys: KeysArgument,
    /// The release's version, for people
    #[arg(long, value_name = "VERSION", value_parser = checked(check_version))]
    release_version: String,
    /// The channel
    #[arg(long, default_value = DEFAULT_CHANNEL, value_parser = checked(check_channel))]
    channel: String,
    /// The module that the files belong to
    #[arg(long, value_name = "ID", default_value = DEFAULT_MODULE, value_parser = checked(check_module))]
    module: String,
    /// Files that are the user's own, relative to TREE: installed where missing, then never touched. Repeatable; `**` for
    /// any directories
    #[arg(long, value_name = "GLOB")]
    ignore: Vec<String>,
    /// An updater to travel with the release; stamped and signed unless it is. Repeatable. Platforms not named keep theirs
    #[arg(long, value_name = "PLATFORM=FILE", value_parser = platform_file)]
    updater: Vec<(String, PathBuf)>,
    /// Take the updater for this platform over no longer; devices keep theirs. Repeatable
    #[arg(long, value_name = "PLATFORM")]
    drop_updater: Vec<String>,
    /// The version of updaters signed now [default: one after the newest, or the same where nothing changed]
    #[arg(long, value_name = "X.Y.Z", value_parser = updater_version)]
    updater_version: Option<UpdaterVersion>,
    /// The lowest updater version that devices with an updater signed now still let run
    #[arg(long, value_name = "X.Y.Z", value_parser = updater_version)]
    updater_floor: Option<UpdaterVersion>,
    /// Devices with an updater signed now let none run that an earlier updater key signed (see `keys rotate`)
    #[arg(long, requires = "updater")]
    retire_updater_keys: bool,
    /// zstd's level, 1 (fast) to 22 (small)
    #[arg(long, default_value_t = DEFAULT_LEVEL, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,
    /// Compressing threads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Make patches from this version of the channel only; `none` for none. Repeatable [default: the last four releases and
    /// the last keyframe]
    #[arg(long, value_name = "VERSION")]
    delta_from: Vec<String>,
    /// Threads that make patches; each takes up to ten times the largest file in memory
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Publish although the newest release is more than 400 days old by this clock, which is right
    #[arg(long)]
    after_long: bool,
    /// Print what was published as JSON
    #[arg(long)]
    json: bool,
    /// The directory
    tree: PathBuf,
}

impl Publish {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let now = terminal::now()?;
        let keys = KeyDir::open(&self.keys.dir)?;
        let mut repository = Repository::open(&self.store, &keys)?;
        let passphrase = terminal::passphrase()?;
        let mut request = PublishRequest::new(self.tree, self.release_version, now);
        request.channel = self.channel;
        request.module = self.module;
        request.ignore = self.ignore;
        say_foreign_platforms(&self.updater);
        request.updaters = self.updater;
        request.dropped_updaters = self.drop_updater;
        request.updater_version = self.updater_version;
        let key_serial = if self.retire_updater_keys { keys.certificate().serial } else { 0 };
        request.updater_floors = Floors { version: self.updater_floor.unwrap_or_default(), key_serial };
        request.level = self.level;
        request.threads = self.threads.into();
        request.jobs = self.jobs.into();
        request.after_long = self.after_long;
        if !self.delta_from.is_empty() {
            let versions = self.delta_from.into_iter().filter(|version| version != "none").collect();
            request.deltas = DeltaFrom::Versions(versions);
        }
        let published = publish(&mut repository, &passphrase, &request, &mut terminal::Bar::new("publishing"))?;
        if !self.json {
            explain(&published, &repository.fresh_until());
        }
        terminal::say_after_signing(&repository, now);
        if self.json {
            terminal::print_json(&as_json(&published, &repository.fresh_until()));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn explain(published: &Published, fresh_until: &str) {
    let release = &published.release;
    errln!("Published {} to {} (serial {}).", release.version, release.channel, release.serial);
    let (content, new) = (terminal::bytes(published.bytes), terminal::bytes(published.new_bytes));
    let added = terminal::bytes(published.pack_bytes + release.chunks.bytes + release.sealed.bytes);
    let (files, chunks) = (counted(published.files, "file"), counted(published.new_chunks, "new chunk"));
    errln!("  {files} of {content}; {chunks} of {new}; {added} added to the store");
    for updater in &published.updaters {
        errln!("  with updater {} {}, {}", updater.platform, updater.version, terminal::bytes(updater.size));
    }
    for update in &published.updates {
        errln!("  update from {}: {} to download", update.version, terminal::bytes(update.bytes));
    }
    errln!("  The store is fresh until {fresh_until}.");
}

fn as_json(published: &Published, fresh_until: &str) -> serde_json::Value {
    let release = &published.release;
    let updaters = published.updaters.iter().map(|updater| {
        let (version, sha256) = (updater.version.to_string(), updater.sha256.to_string());
        json!({"platform": updater.platform, "version": version, "bytes": updater.size, "sha256": sha256})
    });
    let steps = published.steps.iter().map(|step| {
        let patch_bytes = step.pack.map_or(0, |pack| pack.bytes);
        json!({"from": step.from, "bytes": step.bytes + patch_bytes, "patch_bytes": patch_bytes})
    });
    json!({
        "serial": release.serial,
        "version": release.version,
        "channel": release.channel,
        "published": terminal::time(release.published),
        "files": published.files,
        "bytes": published.bytes,
        "updater_bytes": published.updater_bytes,
        "new_chunks": published.new_chunks,
        "new_bytes": published.new_bytes,
        "pack_bytes": published.pack_bytes,
        "chunk_list_bytes": release.chunks.bytes,
        "manifest_bytes": release.sealed.bytes,
        "steps": steps.collect::<Vec<_>>(),
        "updates": published.updates.iter().map(update_json).collect::<Vec<_>>(),
        "updaters": updaters.collect::<Vec<_>>(),
        "fresh_until": fresh_until,
    })
}

pub(super) fn platform_file(text: &str) -> Result<(String, PathBuf), String> {
    let (platform, file) = text.split_once('=').ok_or("write it like linux-x86_64=path/to/updater")?;
    check_platform(platform)?;
    // What Holdfast has an updater for is named so; a board of one's own has another name.
    if !PLATFORMS.contains(&platform) && (platform.starts_with("linux") || platform.starts_with("windows")) {
        return Err(format!("no updater runs on {platform:?}; there are {}", PLATFORMS.join(", ")));
    }
    Ok((platform.to_owned(), file.into()))
}

/// Says of updaters that no computer asks for.
pub(super) fn say_foreign_platforms(updaters: &[(String, PathBuf)]) {
    for (platform, _) in updaters.iter().filter(|(platform, _)| !PLATFORMS.contains(&platform.as_str())) {
        let known = PLATFORMS.join(", ");
        errln!("Only a board of your own takes an updater for {platform}: Holdfast's run on {known}.");
    }
}

pub(super) fn updater_version(text: &str) -> Result<UpdaterVersion, String> {
    UpdaterVersion::parse(text).ok_or_else(|| "write it like 1.2.3".to_owned())
}
