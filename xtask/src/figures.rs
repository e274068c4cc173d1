//! What a run of the tests tried, added up from what each test counted; and what it did not try, from what each test said.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use firmware_image::sim::figures;

/// The order in which they are told, and what is bad of each.
const ORDER: [(&str, &str); 6] = [
    (figures::CUT_STATES, "not healed"),
    (figures::MOMENTS, "not healed"),
    (figures::DAMAGE, "neither healed nor clearly reported"),
    (figures::ATTACKS, "succeeded"),
    (figures::DEFENCES, "not missed by their test"),
    (figures::INPUTS, "failed"),
];

/// The file that takes the counts of a run.
pub struct Figures {
    file: PathBuf,
}

impl Figures {
    /// In a directory of this run.
    pub fn in_dir(dir: &Path) -> Self {
        Self { file: dir.join("figures") }
    }

    /// Has the tests that this command runs count into it.
    pub fn counting<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env(figures::FILE, &self.file)
    }

    /// Adds what was counted by others.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&self, what: &str, tried: u64, bad: u64) -> Result<()> {
        let added = figures::add(&self.file, what, tried, bad);
        added.with_context(|| format!("cannot add to {}", self.file.display()))
    }

    /// Says that this is not tried, and why; once more at the end.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn skip(&self, subject: &str, why: &str) -> Result<()> {
        eprintln!("skipped, because {why}");
        let added = figures::add_skipped(&self.file, subject, why);
        added.with_context(|| format!("cannot add to {}", self.file.display()))
    }

    /// All of it.
    ///
    /// # Errors
    /// The file cannot be read, or holds a line that no test writes.
    pub fn total(&self) -> Result<Total> {
        let mut total = Total::default();
        let text = match std::fs::read_to_string(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(total),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.file.display())),
        };
        for line in text.lines() {
            let mut fields = line.split('\t');
            let mut field = || fields.next().with_context(|| format!("no count: {line}"));
            let what = field()?;
            if what == figures::SKIPPED {
                total.skipped.insert((field()?.to_owned(), field()?.to_owned()));
                continue;
            }
            let (tried, bad) = (field()?.parse::<u64>()?, field()?.parse::<u64>()?);
            let sum = total.tried.entry(what.to_owned()).or_default();
            *sum = (sum.0 + tried, sum.1 + bad);
        }
        Ok(total)
    }
}

/// What was tried, and what not.
#[derive(Default)]
pub struct Total {
    /// How many of what were tried, and how many of them were bad.
    tried: BTreeMap<String, (u64, u64)>,
    /// Which tests were skipped, and why.
    skipped: BTreeSet<(String, String)>,
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, fault) in ORDER {
            if let Some((tried, bad)) = self.tried.get(what) {
                writeln!(f, "{tried:>12} {what}: {bad} {fault}")?;
            }
        }
        for (subject, why) in &self.skipped {
            writeln!(f, "skipped: {subject}, because {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_one_kind_are_added_up_and_told_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let figures = Figures::in_dir(dir.path());
        assert_eq!(figures.total().unwrap().to_string(), "");
        for (what, tried, bad) in [(figures::DAMAGE, 7, 1), (figures::CUT_STATES, 40, 0), (figures::DAMAGE, 5, 0)] {
            figures.add(what, tried, bad).unwrap();
        }
        let told = figures.total().unwrap().to_string();
        assert_eq!(
            told.lines().map(str::trim).collect::<Vec<_>>(),
            ["40 cut states: 0 not healed", "12 damage cases: 1 neither healed nor clearly reported"]
        );
        std::fs::write(dir.path().join("figures"), "nonsense\n").unwrap();
        assert!(figures.total().is_err());
        std::fs::write(dir.path().join("figures"), "skipped\ta test\n").unwrap();
        assert!(figures.total().is_err());
    }
    #[test]
    fn what_was_skipped_is_told_once_behind_the_counts_and_on_a_line_each() {
        let dir = tempfile::tempdir().unwrap();
        let figures = Figures::in_dir(dir.path());
        for _ in 0..2 {
            figures.skip("the suite", "python3 is missing").unwrap();
        }
        figures.skip("a test of\tmounts", "the system said:\nno\n").unwrap();
        figures.add(figures::ATTACKS, 1, 0).unwrap();
        let told = figures.total().unwrap().to_string();
        assert_eq!(
            told.lines().map(str::trim).collect::<Vec<_>>(),
            [
                "1 attacks: 0 succeeded",
                "skipped: a test of mounts, because the system said: no",
                "skipped: the suite, because python3 is missing",
            ]
        );
    }
}
