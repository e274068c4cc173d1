//! What tests tried, counted for whoever runs many of them: `cargo xtask test` adds it up.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// The environment names the file here that takes the counts.
pub const FILE: &str = "HOLDFAST_FIGURES";

/// States that a cut or a failing write left; bad: not healed.
pub const CUT_STATES: &str = "cut states";
/// Kills and pulls at moments; bad: not healed.
pub const MOMENTS: &str = "kills and pulls";
/// Damage to a whole device; bad: neither healed nor clearly reported.
pub const DAMAGE: &str = "damage cases";
/// Attacks; bad: those that succeeded.
pub const ATTACKS: &str = "attacks";
/// Defences that were taken out; bad: no test missed them.
pub const DEFENCES: &str = "defences taken out";
/// Inputs of fuzzing; bad: those that failed.
pub const INPUTS: &str = "fuzzed inputs";

/// Says on standard output how many were tried, and adds them to the file that the environment names.
///
/// # Panics
/// That file cannot be written.
pub fn count(what: &str, subject: &str, tried: usize, bad: usize) {
    println!("{subject}: {tried} {what} tried, {bad} bad");
    if let Some(path) = std::env::var_os(FILE) {
        let added = add(path.as_ref(), what, tried as u64, bad as u64);
        assert!(added.is_ok(), "cannot add to {}: {added:?}", path.display());
    }
}

/// Adds a line to the file: what, tried, bad, with tabs between them.
///
/// # Errors
/// It cannot be written.
pub fn add(file: &Path, what: &str, tried: u64, bad: u64) -> io::Result<()> {
    let line = format!("{what}\t{tried}\t{bad}\n");
    OpenOptions::new().append(true).create(true).open(file)?.write_all(line.as_bytes())
}
