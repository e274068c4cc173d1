//! `cargo xtask mutants`: mutation testing of what verifies, decides and commits, by cargo-mutants, which whoever runs it has installed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// Memory that a compiler or a test may have, in KiB.
const MAX_KIB: u32 = 6 << 20;

/// What to mutate.
#[derive(clap::Args, Default)]
#[command(after_help = "\
Examples:
  cargo install --locked cargo-mutants
  cargo xtask mutants --list                # how many there are, by subject
  cargo xtask mutants decisions commit      # two subjects
  cargo xtask mutants --shard 0/4           # a quarter of all of them
  cargo xtask mutants places -- --in-place  # what follows -- is for cargo-mutants: here, no copy of the sources

Each subject is tried with the tests that are there for it, the quick ones first. What survives is listed in target/mutants/SUBJECT/mutants.out.")]
pub struct Args {
    /// The subjects; all, unless named
    pub subjects: Vec<String>,
    /// Only say how many mutants each has
    #[arg(long)]
    pub list: bool,
    /// One part of them: K/N, K from 0
    #[arg(long, value_name = "K/N")]
    pub shard: Option<String>,
    /// Passed on to cargo-mutants
    #[arg(last = true, value_name = "OPTION")]
    pub passed_on: Vec<String>,
}

/// Files with one purpose, and the tests that know it.
struct Subject {
    name: &'static str,
    package: &'static str,
    files: &'static [&'static str],
    /// The package whose tests these are.
    tested_in: &'static str,
    /// Quick ones, and what is asked about the mutants that those did not notice, and so on.
    tests: &'static [&'static [&'static str]],
}

const SUBJECTS: &[Subject] = &[
    Subject {
        name: "decisions",
        package: "bootstrap",
        files: &["decide.rs", "copies.rs", "verified.rs", "restore.rs", "trial.rs"],
        tested_in: "bootstrap",
        tests: &[
            &["--lib", "--test=decisions", "--test=places"],
            &["--test=damage", "--test=power_cut", "--test=program"],
        ],
    },
    Subject {
        name: "sealing",
        package: "firmware-image",
        files: &["seal.rs", "key_slot.rs", "signature.rs", "record.rs", "backup.rs", "slot.rs"],
        tested_in: "firmware-image",
        tests: &[&["--lib", "--test=hidden_zone", "--test=updater_image"]],
    },
    Subject {
        name: "places",
        package: "firmware-image",
        files: &["places.rs"],
        tested_in: "firmware-image",
        tests: &[&["--lib", "--test=places"]],
    },
    Subject {
        name: "images",
        package: "firmware-image",
        files: &["updater_image.rs", "device_config.rs", "journal.rs"],
        tested_in: "firmware-image",
        tests: &[&["--lib", "--test=updater_image", "--test=device_config", "--test=journal"]],
    },
    Subject {
        name: "trust",
        package: "release-store",
        files: &["trust/mod.rs", "trust/releases.rs", "trust/search.rs", "frame.rs"],
        tested_in: "release-store",
        tests: &[&["--lib", "--test=trust", "--test=vectors"], &["--test=attacks", "--test=archive"]],
    },
    Subject {
        name: "commit",
        package: "updater",
        files: &["commit/mod.rs", "commit/apply.rs", "commit/undo.rs", "quarantine.rs", "trust_cache.rs"],
        tested_in: "updater",
        tests: &[&["--lib", "--test=main_road"], &["--test=client_dir", "--test=attacks"], &["--test=power_cuts"]],
    },
    Subject {
        name: "operations",
        package: "updater",
        files: &["operations.rs", "check.rs"],
        tested_in: "updater",
        tests: &[&["--lib", "--test=main_road"], &["--test=client_dir", "--test=servers", "--test=attacks"]],
    },
    Subject {
        name: "renewal",
        package: "updater",
        files: &["renewal.rs", "record_store.rs"],
        tested_in: "updater",
        tests: &[&["--lib", "--test=backups", "--test=self_update"], &["--test=main_road", "--test=attacks"]],
    },
];

/// Runs cargo-mutants on each subject. Survivors are no error: it prints them.
///
/// # Errors
/// cargo-mutants is not installed, a subject's tests fail without any mutation, or a name is none.
pub fn run(args: &Args) -> Result<()> {
    let names = || SUBJECTS.iter().map(|subject| subject.name).collect::<Vec<_>>().join(", ");
    if let Some(wrong) = args.subjects.iter().find(|name| SUBJECTS.iter().all(|subject| subject.name != **name)) {
        bail!("there is no subject {wrong}: there are {}", names());
    }
    if !is_installed() {
        bail!("cargo-mutants is not installed: cargo install --locked cargo-mutants");
    }
    for subject in SUBJECTS {
        if !args.subjects.is_empty() && !args.subjects.iter().any(|name| name == subject.name) {
            continue;
        }
        let cargo = || command(subject, args);
        if args.list {
            let listed = run::text(cargo().arg("--list"))?;
            println!(
                "{:<10} {:>4}  {}: {}",
                subject.name,
                listed.lines().count(),
                subject.package,
                subject.files.join(", ")
            );
            continue;
        }
        println!("\n== {}", subject.name);
        let out: PathBuf = run::target_dir()?.join("mutants").join(subject.name);
        std::fs::create_dir_all(&out)?;
        let lists = out.join("mutants.out");
        let lines = |list: &str| std::fs::read_to_string(lists.join(list)).unwrap_or_default();
        let (mut noticed, mut too_long, mut not_compiled, mut survived) = (0, 0, 0, 0);
        for (stage, tests) in subject.tests.iter().enumerate() {
            let mut cargo = cargo();
            // What cargo-mutants copies is the whole workspace, but for what git ignores. No other test is built.
            cargo.arg("--output").arg(&out).args(["--no-shuffle", "--minimum-test-timeout=60"]);
            // It builds the mutated package's tests, and runs the others'.
            cargo.arg(format!("--cargo-arg=--package={}", subject.tested_in));
            if subject.tested_in == "firmware-image" {
                // Alone it has none of the features that its tests want.
                cargo.arg("--cargo-arg=--features=image,sim");
            }
            cargo.args(tests.iter().map(|tests| format!("--cargo-arg={tests}"))).args(&args.passed_on);
            if stage > 0 && !args.passed_on.iter().any(|option| option == "--iterate") {
                cargo.arg("--iterate");
            }
            let status = cargo.status()?;
            // 2: some survived; 3: some took too long. Both are results.
            if !matches!(status.code(), Some(0 | 2 | 3)) {
                bail!("{} failed: {status}", run::line(&cargo));
            }
            let caught = lines("caught.txt");
            let late = lines("timeout.txt");
            noticed += caught.lines().count();
            too_long += late.lines().count();
            not_compiled += lines("unviable.txt").lines().count();
            survived = lines("missed.txt").lines().count();
            if survived == 0 {
                break;
            }
            // What took too long has been noticed, and would take as long again.
            std::fs::write(lists.join("caught.txt"), caught + &late)?;
        }
        println!(
            "{}: {} mutants tried, {survived} survived ({too_long} took too long, {not_compiled} do not compile)",
            subject.name,
            noticed + too_long + survived + not_compiled
        );
    }
    Ok(())
}

/// cargo-mutants for the files of `subject`.
fn command(subject: &Subject, args: &Args) -> Command {
    let mut cargo = Command::new("sh");
    // A loop that no longer ends would take all memory before its time is over.
    cargo.args(["-c", &format!("ulimit -v {MAX_KIB} && exec \"$@\""), "sh"]).arg(run::cargo().get_program());
    cargo.current_dir(run::root()).args(["mutants", "--package", subject.package]);
    cargo.args(["--test-package", subject.tested_in]);
    for file in subject.files {
        cargo.arg("--file").arg(format!("{}/src/{file}", subject.package));
    }
    if let Some(shard) = &args.shard {
        cargo.args(["--shard", shard]);
    }
    cargo
}

/// Whether this machine has cargo-mutants.
pub fn is_installed() -> bool {
    run::text(run::cargo().args(["mutants", "--version"])).is_ok()
}
