//! What `fsck.vfat` says of a volume, and what of that does no harm.
//!
//! Harmless are what every driver leaves behind when its power is cut, and what the next one puts right: clusters that are
//! in use and belong to nobody, the note of how many are free, the mark that the volume was not unmounted (which also makes
//! the boot sector differ from its copy), tables of which the second was not written any more, and parts of long names whose
//! entry in the next sector of the directory is not there. Everything else is a
//! defect: two files over one cluster, a chain that ends before or after its file, a name that is none.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use xtask::{run, system};

/// A complaint that does no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Harmless {
    /// Clusters that belong to nobody.
    LostClusters,
    /// The note of how many clusters are free is wrong.
    FreeCount,
    /// The volume was not unmounted.
    Dirty,
    /// The tables differ, and the first is sound.
    SecondTable,
    /// Parts of a long name whose short one is not there: room in a directory, which drivers pass over.
    NameParts,
}

/// Lines that explain the one before, or say nothing.
const EXPLANATIONS: &[&str] = &[
    "fsck.fat ",
    "This is mostly harmless. Differences:",
    "Not automatically fixing this.",
    "Automatically removing dirty bit.",
    "Auto-correcting.",
    "Using first FAT.",
    "Auto-deleting.",
    "Not auto-correcting this.",
    "(Maybe the start bit is missing on the last fragment)",
    "Leaving filesystem unchanged.",
    "*** Filesystem was changed ***",
];

/// Has `fsck.vfat` look at a volume. `Err`: its first complaint that is not harmless.
///
/// # Errors
/// `fsck.vfat` cannot be run.
pub fn check(volume: &Path) -> Result<Result<Vec<Harmless>, String>> {
    let program = system::find("fsck.vfat").context("fsck.vfat is not installed: it comes with dosfstools")?;
    let mut command = Command::new(program);
    let output = run::capture(command.arg("-n").arg(volume).env("LC_ALL", "C.UTF-8"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok(sort(&said, &volume.to_string_lossy()))
}

fn sort(said: &str, volume: &str) -> Result<Vec<Harmless>, String> {
    let mut found = Vec::new();
    let mut rest = said.lines();
    while let Some(line) = rest.next() {
        let text = line.trim();
        if text.is_empty() || EXPLANATIONS.iter().any(|known| text.starts_with(known)) || text.starts_with(volume) {
            continue;
        }
        found.push(if text.starts_with("Reclaimed ") {
            Harmless::LostClusters
        } else if text.starts_with("Free cluster summary ") {
            Harmless::FreeCount
        } else if text.starts_with("Dirty bit is set.") {
            Harmless::Dirty
        } else if text.starts_with("FATs differ but appear to be intact.") {
            Harmless::SecondTable
        } else if text == "There are differences between boot sector and its backup." {
            Harmless::Dirty
        } else if text.starts_with("Orphaned long file name part ")
            || text.starts_with("Long filename fragment ") && text.ends_with(" found outside a LFN sequence.")
        {
            Harmless::NameParts
        } else if text == "65:01/00" && found.contains(&Harmless::Dirty) {
            // The mark itself, as the one byte in which the boot sector differs from its copy.
            continue;
        } else {
            let more: Vec<&str> = std::iter::once(line).chain(rest).take(8).collect();
            return Err(more.join("\n"));
        });
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cut_may_leave_is_told_from_what_it_must_not() {
        let harmless = "fsck.fat 4.2 (2021-01-31)\n\
            There are differences between boot sector and its backup.\n\
            This is mostly harmless. Differences: (offset:original/backup)\n  65:01/00\n  Not automatically fixing this.\n\
            Dirty bit is set. Fs was not properly unmounted and some data may be corrupt.\n Automatically removing dirty bit.\n\
            Reclaimed 3 unused clusters (12288 bytes).\nFree cluster summary wrong (10 vs. really 13)\n  Auto-correcting.\n\
            \n*** Filesystem was changed ***\nLeaving filesystem unchanged.\n/x/f: 3 files, 4/500 clusters\n";
        let found = sort(harmless, "/x/f").unwrap();
        assert_eq!(found, [Harmless::LostClusters, Harmless::FreeCount, Harmless::Dirty]);
        let shared =
            "fsck.fat 4.2 (2021-01-31)\n/client/a and\n/client/b\n  share clusters.\n  Truncating second to 0 bytes.\n";
        assert!(sort(shared, "/x/f").unwrap_err().contains("share clusters"));
    }
}
