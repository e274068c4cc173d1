//! What `fsck.vfat` says of a volume, and what of that does no harm.
//!
//! Harmless are what every driver leaves behind when its power is cut, and what the next one puts right: clusters that are
//! in use and belong to nobody, the note of how many are free, the mark that the volume was not unmounted (which also makes
//! the boot sector differ from its copy), tables of which the second was not written any more, and parts of long names whose
//! entry in the next sector of the directory is not there; and files of Holdfast's own that are made anew when they cannot
//! be read. Everything else is a
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
    /// A file below `.holdfast/` whose chain of clusters ends too early: a cache, a note, a copy that is made anew.
    OwnFile,
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
    Ok(sort(&said_of(volume)?, &volume.to_string_lossy()))
}

/// The entries of a volume, as a cut left it, that lead to clusters which are free or another's: nobody who reads such a
/// file through a driver sees that, until another file is written over it.
///
/// # Errors
/// `fsck.vfat` cannot be run.
pub fn astray(volume: &Path) -> Result<Vec<String>> {
    let said = said_of(volume)?;
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|pair| {
        pair[0].starts_with('/') && (pair[1].starts_with("Contains a free cluster (") || pair[1] == "share clusters.")
    });
    Ok(pairs.map(|pair| pair[0].trim_start_matches('/').to_owned()).collect())
}

fn said_of(volume: &Path) -> Result<String> {
    let program = system::find("fsck.vfat").context("fsck.vfat is not installed: it comes with dosfstools")?;
    let mut command = Command::new(program);
    let output = run::capture(command.arg("-n").arg(volume).env("LC_ALL", "C.UTF-8"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

fn sort(said: &str, volume: &str) -> Result<Vec<Harmless>, String> {
    let mut found = Vec::new();
    let mut rest = said.lines();
    while let Some(line) = rest.next() {
        let text = line.trim();
        if text.is_empty() || EXPLANATIONS.iter().any(|known| text.starts_with(known)) || text.starts_with(volume) {
            continue;
        }
        let known = if text.starts_with("/.holdfast/") {
            // What is wrong with it stands in the lines below.
            own_file(&mut rest)
        } else {
            complaint(text, found.contains(&Harmless::Dirty))
        };
        let Some(known) = known else {
            let more: Vec<&str> = std::iter::once(line).chain(rest).take(8).collect();
            return Err(more.join("\n"));
        };
        found.push(known);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What a line of one complaint means; `None`: harm.
fn complaint(text: &str, dirty: bool) -> Option<Harmless> {
    Some(if text.starts_with("Reclaimed ") {
        Harmless::LostClusters
    } else if text.starts_with("Free cluster summary ") {
        Harmless::FreeCount
    } else if text.starts_with("Dirty bit is set.")
        || text == "There are differences between boot sector and its backup."
        // The mark itself, as the one byte in which the boot sector differs from its copy.
        || text == "65:01/00" && dirty
    {
        Harmless::Dirty
    } else if text.starts_with("FATs differ but appear to be intact.") {
        Harmless::SecondTable
    } else if text.starts_with("Orphaned long file name part ")
        || text == "A new long file name starts within an old one."
        || text.starts_with("Long filename fragment ") && text.ends_with(" found outside a LFN sequence.")
    {
        Harmless::NameParts
    } else {
        return None;
    })
}

/// The line below the name of a file of Holdfast's own.
fn own_file(rest: &mut std::str::Lines<'_>) -> Option<Harmless> {
    let text = rest.next()?.trim();
    if text.starts_with("Contains a free cluster (") {
        return Some(Harmless::OwnFile);
    }
    let short = text.strip_prefix("File size is ")?;
    let (size, chain) = short.split_once(" bytes, cluster chain length is ")?;
    let number = |text: &str| text.trim_start_matches(['<', '>', ' ']).split(' ').next()?.parse::<u64>().ok();
    // The line after it says what would be done.
    rest.next()?;
    // More clusters than bytes are lost clusters, only nearer.
    (number(size)? > 0 && number(chain).is_some()).then_some(Harmless::OwnFile)
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
        let own = "fsck.fat 4.2 (2021-01-31)\n/.holdfast/trust/timestamp.json\n  Contains a free cluster (1412). Assuming EOF.\n\
            /.holdfast/trust/timestamp.json\n  File size is 469 bytes, cluster chain length is 0 bytes.\n  Truncating file to 0 bytes.\n";
        assert_eq!(sort(own, "/x/f").unwrap(), [Harmless::OwnFile]);
        assert!(sort(&own.replace(".holdfast", "client"), "/x/f").unwrap_err().contains("free cluster"));
        let shared =
            "fsck.fat 4.2 (2021-01-31)\n/client/a and\n/client/b\n  share clusters.\n  Truncating second to 0 bytes.\n";
        assert!(sort(shared, "/x/f").unwrap_err().contains("share clusters"));
    }
}
