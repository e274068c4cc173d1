//! What tests tried, and what they could not, for whoever runs many of them: `cargo xtask test` adds it up and tells it.

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
/// With which a line begins that says what was not tried, and why.
pub const SKIPPED: &str = "skipped";

/// Says on standard output how many were tried, and adds them to the file that the environment names.
///
/// # Panics
/// That file cannot be written.
pub fn count(what: &str, subject: &str, tried: usize, bad: usize) {
    println!("{subject}: {tried} {what} tried, {bad} bad");
    to_the_file(|file| add(file, what, tried as u64, bad as u64));
}

/// Says on standard error that this test, or a part of it, is not tried, and why; and in the file that the environment names,
/// since nobody sees what a test says that passes.
///
/// # Panics
/// That file cannot be written.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    // The test harness names a test's thread by the test.
    let test = thread.name().unwrap_or("a test");
    eprintln!("skipped: {test}, because {why}");
    to_the_file(|file| add_skipped(file, test, why));
}

fn to_the_file(add: impl FnOnce(&Path) -> io::Result<()>) {
    if let Some(path) = std::env::var_os(FILE) {
        let added = add(path.as_ref());
        assert!(added.is_ok(), "cannot add to {}: {added:?}", path.display());
    }
}

/// Adds a line to the file: what, tried, bad, with tabs between them.
///
/// # Errors
/// It cannot be written.
pub fn add(file: &Path, what: &str, tried: u64, bad: u64) -> io::Result<()> {
    append(file, &format!("{what}\t{tried}\t{bad}\n"))
}

/// Adds a line that says what was not tried, and why.
///
/// # Errors
/// It cannot be written.
pub fn add_skipped(file: &Path, subject: &str, why: &str) -> io::Result<()> {
    // A line for each, whatever a system says.
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    append(file, &format!("{SKIPPED}\t{}\t{}\n", line(subject), line(why)))
}

fn append(file: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(file)?.write_all(line.as_bytes())
}
