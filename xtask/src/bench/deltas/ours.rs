//! Our own side, end to end: releases published one by one, devices that installed an old one, the update over HTTP.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::outcome::{Base, OURS, Publishing, Row, Update};
use super::peers::{RUNS, Release};
use crate::bench::device::{Device, Vendor};
use crate::bench::trees;
use crate::programs::Programs;
use crate::run;
use crate::server::Server;
use crate::usage::{self, Usage};

/// What was measured of us.
pub struct Ours {
    /// Beside the peers'.
    pub row: Row,
    /// What publishing took.
    pub publishing: Publishing,
    /// What the updater takes once there is nothing new.
    pub idle: Option<Usage>,
}

/// Publishes `releases` and updates to the last of them. `steps` says from which.
pub fn measure(programs: &Programs, dir: &Path, releases: &[Release], steps: &[Base]) -> Result<Ours> {
    eprintln!("  {OURS}");
    let dir = trees::empty(&dir.join("ours"))?;
    let vendor = Vendor::set_up(programs, &dir)?;
    let server = Server::start(programs, &vendor.store, dir.join("server.log"))?;
    let (new, old) = releases.split_last().context("there are no releases")?;
    let mut devices = Vec::new();
    for (at, release) in old.iter().enumerate() {
        run::text(&mut vendor.publish(&vendor.store, &release.version, &[], &release.tree))?;
        let back = releases.len() - 1 - at;
        for base in steps.iter().filter(|base| base.back() == back) {
            // Installed when it was the newest, as on a device in the field.
            let device = Device::make(&vendor, &server.url, &dir.join(base.describe()))?;
            run::text(&mut device.updater(&["update"]))?;
            trees::ensure_same(&device.client(), &release.tree)?;
            // A device in the field has both copies of its updater in the hidden zone; a start writes one of them.
            run::text(&mut device.updater(&["update"]))?;
            devices.push((*base, device, release.version.as_str()));
        }
    }
    let bare = edge(&vendor, &dir, "none", new)?;
    let edges: Vec<Usage> =
        devices.iter().map(|(_, _, version)| edge(&vendor, &dir, version, new)).collect::<Result<_>>()?;
    let usual = usage::measure(&mut vendor.publish(&vendor.store, &new.version, &[], &new.tree))?.0;

    let mut row = Row { program: OURS.to_owned(), ..Row::default() };
    let mut idle = None;
    for ((base, device, _), made) in devices.into_iter().zip(edges) {
        let twin = |n: usize| device.copied(&dir.join(format!("{}-{n}", base.describe())));
        let twins = (1..RUNS).map(twin).collect::<Result<Vec<_>>>()?;
        let mut update = update(&device, &twins, &server, new)?;
        update.maker = Some(made.without(bare));
        for device in std::iter::once(&device).chain(&twins) {
            let took = usage::measure(&mut device.updater(&["update"]))?.0;
            idle = Some(idle.map_or(took, |idle: Usage| idle.least(took)));
        }
        match base {
            Base::Near => row.near = Some(update),
            Base::Far => row.far = Some(update),
        }
    }
    // Every version stays installable.
    run::text(&mut vendor.collect())?;
    row.store_bytes = Some(trees::stored_bytes(&vendor.store)?);
    std::fs::remove_dir_all(&dir)?;
    Ok(Ours { row, publishing: Publishing { bare, usual }, idle })
}

/// What publishing `new` takes with patches from `old` only, one at a time, in a copy of the store as it is.
fn edge(vendor: &Vendor, dir: &Path, old: &str, new: &Release) -> Result<Usage> {
    // Each in a place of its own: where a newer store was signed, an older one is refused.
    let store = dir.join(format!("copy-{old}"));
    trees::copy(&vendor.store, &store)?;
    let took =
        usage::measure(&mut vendor.publish(&store, &new.version, &["--jobs", "1", "--delta-from", old], &new.tree))?.0;
    std::fs::remove_dir_all(&store)?;
    Ok(took)
}

/// The update of a device; of the times that it and its `twins` take, the least.
fn update(device: &Device, twins: &[Device], server: &Server, new: &Release) -> Result<Update> {
    let planned: Value = serde_json::from_str(&run::text(&mut device.updater(&["update", "--dry-run", "--json"]))?)?;
    let bytes = planned["plan"]["fetch_bytes"].as_u64().context("the updater does not say what it would download")?;
    let before = server.total()?;
    let (mut client, said) = usage::measure(&mut device.updater(&["update", "--json"]))?;
    let after = server.total()?;
    for twin in twins {
        client = client.least(usage::measure(&mut twin.updater(&["update"]))?.0);
        trees::ensure_same(&twin.client(), &new.tree)?;
    }
    let said: Value = serde_json::from_str(&said)?;
    ensure!(said["version"] == new.version.as_str(), "the updater installed {} instead", said["version"]);
    trees::ensure_same(&device.client(), &new.tree)?;
    let total = after.1 - before.1;
    ensure!(bytes > 0 && bytes <= total, "the updater planned for {bytes} bytes, and {total} were sent");
    let requests = Some(after.0 - before.0);
    Ok(Update { bytes: Some(bytes), total_bytes: Some(total), requests, client, maker: None })
}
