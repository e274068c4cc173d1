//! `cargo xtask defences`: takes each defence against an attack out, one after the other, and sees whether the attack's test fails.
//!
//! What stands between an attack and its success is a few lines of text in [`table`]. They are taken out of a copy of the
//! workspace under the target directory, which must still compile, and the tests that the table names for them must fail. The
//! copy and what was built of it stay for the next run; what a run that was broken off left changed there is put right then.
//! The copy has the sources of some crates of others as well, as defences of ours stand in them.

mod scratch;
pub mod table;

use anyhow::{Result, bail};

use crate::run;
pub use scratch::sources;
use scratch::{Ended, Scratch};

/// What to take out.
#[derive(clap::Args, Default)]
#[command(after_help = "\
Examples:
  cargo xtask defences                    # all: each is built and tried; half an hour and more
  cargo xtask defences --list             # their names, where they stand, who misses them
  cargo xtask defences threshold          # what has that in its name, or in the file or name of a test

Every test must pass as the code is, and fail with its defence taken out. Works in target/defences.")]
pub struct Args {
    /// Only defences with one of these in their name, or in a test's file or name
    pub names: Vec<String>,
    /// Only say which there are
    #[arg(long)]
    pub list: bool,
}

/// What an attack has against it, and the tests that show that.
pub struct Defence {
    /// What it does, in words: its name on the command line.
    pub name: &'static str,
    /// The texts that it is made of. Where one stands behind another so that neither alone is missed, both.
    pub cuts: &'static [Cut],
    /// The tests that fail without it.
    pub missed_by: &'static [Test],
}

/// A file, a text that stands in it once, and what is put in its place so that the defence is gone. The file is named from the
/// workspace's folder on; that of another's crate begins with its name, which is in [`CRATES`].
pub struct Cut(pub &'static str, pub &'static str, pub &'static str);

/// A test: its file, and its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Test(pub &'static str, pub &'static str);

/// Crates of others in which defences are taken out.
pub const CRATES: &[&str] = &["sigstore-tuf"];

impl Defence {
    const fn new(name: &'static str, cuts: &'static [Cut], missed_by: &'static [Test]) -> Self {
        Self { name, cuts, missed_by }
    }

    fn is_meant(&self, names: &[String]) -> bool {
        let has = |name: &String| {
            let tests = self.missed_by.iter().any(|Test(file, test)| file.contains(&**name) || test.contains(&**name));
            self.name.contains(&**name) || tests
        };
        names.is_empty() || names.iter().any(has)
    }
}

impl Test {
    /// The options of `cargo test` that build the program it is in.
    ///
    /// # Errors
    /// It is in no file that has tests.
    fn program(&self) -> Result<Vec<String>> {
        let parts: Vec<&str> = self.0.trim_end_matches(".rs").split('/').collect();
        let (package, program) = match parts[..] {
            [package, "tests", program] => (package, format!("--test={program}")),
            [package, "src", ..] => (package, "--lib".into()),
            _ => bail!("{} is no file with tests", self.0),
        };
        let mut options = vec![format!("--package={package}"), program];
        if package == "firmware-image" {
            // Alone it has none of the features that its tests want.
            options.push("--features=image,sim".into());
        }
        Ok(options)
    }

    /// Its name within the program.
    fn path(&self) -> String {
        match self.0.trim_end_matches(".rs").split_once("/src/") {
            Some((_, module)) => format!("{}::tests::{}", module.replace('/', "::"), self.1),
            None => self.1.to_owned(),
        }
    }
}

/// Takes out what `args` means, and tells how many of them there were.
///
/// # Errors
/// One of them is not missed by its test, or does not compile without; a test fails as the code is.
pub fn run(args: &Args) -> Result<u64> {
    let meant: Vec<&Defence> = table::defences().filter(|defence| defence.is_meant(&args.names)).collect();
    if meant.is_empty() {
        bail!("no defence has such a name or test: --list shows all");
    }
    if args.list {
        for defence in &meant {
            println!("{}", defence.name);
            defence.cuts.iter().for_each(|Cut(file, ..)| println!("    taken out of {file}"));
            defence.missed_by.iter().for_each(|Test(file, name)| println!("    missed by {file} {name}"));
        }
        println!("{} defences", meant.len());
        return Ok(meant.len() as u64);
    }
    let scratch = Scratch::open(&run::target_dir()?.join("defences"))?;
    let mut tests: Vec<&Test> = meant.iter().flat_map(|defence| defence.missed_by).collect();
    tests.sort();
    tests.dedup();
    eprintln!("as the code is, {} tests are built and run", tests.len());
    for test in &tests {
        match scratch.try_test(test)? {
            Ended::Passed => {}
            other => bail!("{} {}: as the code is, {other}", test.0, test.1),
        }
    }
    println!("{} tests pass as the code is", tests.len());
    let mut not_missed = 0;
    for defence in &meant {
        let taken_out = scratch.take_out(defence.cuts)?;
        let (mut is_missed, mut told) = (true, Vec::new());
        for test in defence.missed_by {
            match scratch.try_test(test)? {
                ended @ Ended::Failed(_) => told.push(format!("{}: {ended}", test.1)),
                other => {
                    is_missed = false;
                    told.push(format!("{}: WRONG: {other}", test.1));
                }
            }
        }
        taken_out.put_back()?;
        println!("{:<10} {}", if is_missed { "missed" } else { "NOT MISSED" }, defence.name);
        told.iter().for_each(|told| println!("           {told}"));
        not_missed += usize::from(!is_missed);
    }
    println!("{} defences taken out, {not_missed} not missed by their test", meant.len());
    if not_missed > 0 {
        bail!("{not_missed} defences were not missed");
    }
    Ok(meant.len() as u64)
}
