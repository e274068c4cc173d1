//! The table of attacks names tests that exist, and each has a defence that can be taken out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use firmware_image::sim::figures;
use xtask::defences::table::{WITHOUT, defences};
use xtask::defences::{CRATES, Cut, Test, sources};

/// The tests that the page's table names, with their files.
fn attacks() -> BTreeSet<(String, String)> {
    let page = fs::read_to_string(xtask::run::root().join("docs/testing.md")).unwrap();
    let (_, table) = page.split_once("| attack | test |").unwrap();
    let mut tests = BTreeSet::new();
    for line in table.lines().take_while(|line| line.is_empty() || line.starts_with('|')) {
        let Some(shown) = line.split('|').nth(2) else { continue };
        let mut file = None;
        for code in shown.split('`').skip(1).step_by(2) {
            if code.ends_with(".rs") {
                file = Some(code.to_owned());
                continue;
            }
            let file = file.clone().unwrap_or_else(|| panic!("{code} stands in no file"));
            tests.insert((file, code.to_owned()));
        }
    }
    tests
}

fn assert_exists(file: &str, test: &str) {
    let path = xtask::run::root().join(file);
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let begin = format!("#[test]\nfn {test}()");
    let indented = format!("#[test]\n    fn {test}()");
    assert!(text.contains(&begin) || text.contains(&indented), "{file} has no test {test}");
}

#[test]
fn each_attack_in_the_table_names_tests_that_exist() {
    let tests = attacks();
    tests.iter().for_each(|(file, test)| assert_exists(file, test));
    assert!(tests.len() > 40, "{} were found", tests.len());
    // Each of them fails where its attack succeeds.
    figures::count(figures::ATTACKS, "the table of attacks", tests.len(), 0);
}

#[test]
fn each_attack_has_a_defence_that_can_be_taken_out_or_a_reason_why_not() {
    let missed: BTreeSet<_> = defences().flat_map(|defence| defence.missed_by).collect();
    let without: BTreeSet<_> = WITHOUT.iter().map(|(test, _)| test).collect();
    assert_eq!(missed.intersection(&without).map(|Test(_, name)| name).collect::<Vec<_>>(), Vec::<&&str>::new());
    let known: BTreeSet<_> =
        missed.union(&without).map(|Test(file, name)| ((*file).to_owned(), (*name).to_owned())).collect();
    assert_eq!(known, attacks());
    assert!(WITHOUT.iter().all(|(_, why)| !why.is_empty()));
}

#[test]
fn each_defence_stands_once_where_it_is_taken_out() {
    let sources: BTreeMap<&str, PathBuf> = sources().unwrap().into_iter().collect();
    assert!(CRATES.iter().all(|name| sources.contains_key(name)));
    let mut names = BTreeSet::new();
    for defence in defences() {
        assert!(names.insert(defence.name), "{} is there twice", defence.name);
        assert!(!defence.cuts.is_empty() && !defence.missed_by.is_empty(), "{}", defence.name);
        for Cut(file, text, left) in defence.cuts {
            let (first, rest) = file.split_once('/').unwrap();
            let path = sources.get(first).map_or(xtask::run::root().join(file), |source| source.join(Path::new(rest)));
            let whole = fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(whole.matches(text).count(), 1, "{}: {file} has this once:\n{text}", defence.name);
            assert_ne!(text, left, "{}", defence.name);
        }
    }
}
