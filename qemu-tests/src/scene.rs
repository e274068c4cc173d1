//! What the tests of power cuts share: somebody's own files on a device, what is demanded of it, and the sweep over a
//! recording.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use firmware_image::paths::THIS_PLATFORM;

use crate::replay::{Kind, Recording};
use crate::sweep::{ONE_STATE, RECORDING, Sweep};
use crate::verdict::{Release, Verdict, tree_files};
use crate::world::{NEW, OLD, PRODUCT, World};

/// The user's files: path in the free zone, and bytes.
const USERS: [(&str, usize); 3] =
    [("photos/Summer 2026/beach.jpg", 70_000), ("letter.txt", 900), ("client/notes of mine.txt", 5_000)];
/// The smallest disk that takes the free zone's two updaters, a commit and a hidden zone.
const DISK_SIZE: &str = "112MiB";

/// Puts the user's files onto a device.
///
/// # Errors
/// There is no room for a temporary file.
///
/// # Panics
/// `partition-tools` fails.
pub fn put_users_files(disk: &Path, dir: &Path) -> Result<()> {
    let source = dir.join("source");
    for (path, bytes) in USERS {
        fs::write(&source, (0..bytes).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>())?;
        World::get().partition_tools(&["free", "put", &text(disk), &text(&source), path]);
    }
    Ok(())
}

/// Makes a device of the old release; `more` arguments of `partition-tools create`.
///
/// # Panics
/// `partition-tools` fails.
pub fn create(disk: &Path, more: &[&str]) {
    let world = World::get();
    let bootstrap = format!("{THIS_PLATFORM}={}", world.programs.bootstrap.display());
    let (disk, keys, store) = (text(disk), text(&world.keys()), text(&world.store(OLD)));
    let mut create = vec!["create", "--profile", "stick", "--size", DISK_SIZE, "--product", PRODUCT];
    create.extend(["--out", &disk, "--keys", &keys, "--bootstrap", &bootstrap]);
    create.extend(["--client-command", "client/run.sh", "--store", &store, "--release-version", OLD]);
    create.extend(more);
    world.partition_tools(&create);
}

/// What is demanded of states of the device in `disk`, which is whole now; the server at `url` has both releases when it is
/// asked.
///
/// # Errors
/// As [`Verdict::new`].
///
/// # Panics
/// `partition-tools` fails.
pub fn verdict(disk: &Path, url: &str, dir: &Path) -> Result<Verdict> {
    let world = World::get();
    let release = |version: &str| -> Result<Release> {
        Ok(Release { version: version.into(), files: tree_files(&world.tree(version))? })
    };
    let alone = dir.join("alone.img");
    create(&alone, &[]);
    let verdict = Verdict::new(disk, vec![release(OLD)?, release(NEW)?], &world.programs.bootstrap_image, dir)?;
    let verdict = verdict.with_alone(&alone, dir)?;
    fs::remove_file(alone)?;
    let address = url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    verdict.with_server(address)
}

/// Judges the states of a recording, at most `most` unless the environment says otherwise, and says what came of it.
///
/// # Errors
/// States that did not heal; too few states to mean anything.
pub fn sweep(what: &str, most: usize, recording: &Recording, verdict: &Verdict, dir: &Path) -> Result<()> {
    let kept = std::env::var_os(RECORDING).map(|dir| Recording::open(Path::new(&dir))).transpose()?;
    let recording = kept.as_ref().unwrap_or(recording);
    let tally = Sweep::sized(most).run(recording, verdict, dir)?;
    tally.tell(what, recording)?;
    ensure!(tally.defects.is_empty(), "{what}: {} of {} states did not heal", tally.defects.len(), tally.total());
    if std::env::var_os(ONE_STATE).is_none() {
        for kind in [Kind::Prefix, Kind::Torn, Kind::Lost] {
            let count = tally.tried.get(&kind).copied().unwrap_or(0);
            // Where all were tried, there are no more of them.
            let enough = count > tally.total() / 20 || tally.total() == tally.states.1;
            ensure!(enough, "{what}: only {count} {kind} states");
        }
    }
    Ok(())
}

/// Says how much a recording holds.
pub fn tell(what: &str, recording: &Recording) {
    let (entries, log) = (recording.log().entries(), recording.log());
    let flushes = entries.iter().filter(|entry| entry.flush).count();
    let bytes: usize = entries.iter().map(|entry| log.data(entry).len()).sum();
    let longest = (0..=entries.len()).map(|cut| recording.pending(cut).len()).max().unwrap_or(0);
    println!(
        "{what}: recorded {} writes of {bytes} bytes, {flushes} flushes; at most {longest} writes between two flushes",
        entries.iter().filter(|entry| !log.data(entry).is_empty()).count()
    );
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
