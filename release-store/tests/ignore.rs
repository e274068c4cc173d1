//! Patterns of files that are the user's own, against names that anybody may have made.

use std::time::{Duration, Instant};

use release_store::ignore::{IgnorePatterns, MAX_WILDCARDS};

fn matches(pattern: &str, path: &str) -> bool {
    IgnorePatterns::new(&[pattern]).unwrap().matches(path)
}

#[test]
fn a_pattern_matches_whole_paths_component_by_component() {
    let cases = [
        ("settings.ini", "settings.ini", true),
        ("settings.ini", "sub/settings.ini", false),
        ("*", "a", true),
        ("*", "a/b", false),
        ("a?b", "a/b", false),
        ("a?b", "axb", true),
        ("[!x]b", "/b", false),
        ("[a-c]/*.log", "b/x.log", true),
        ("logs/**", "logs", false),
        ("logs/**", "logs/a", true),
        ("logs/**", "logs/a/b", true),
        ("**/x", "x", true),
        ("**/x", "a/b/x", true),
        ("**/x", "ax", false),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/c/d/b", true),
        ("a/**/b", "a/b/c", false),
        ("a/**/**/b", "a/b", true),
        ("a/**/b/**", "a/b", false),
        ("a/**/b/**", "a/b/b", true),
        ("a/**/b/*/**/c", "a/b/x/b/y/z/c", true),
        ("a/**/b/*/**/c", "a/b/c", false),
        ("**", "a/b", true),
        ("**/**", "a", true),
        ("./a", "a", false),
    ];
    for (pattern, path, expected) in cases {
        assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
    }
}

#[test]
fn case_does_not_count_beyond_ascii_either() {
    assert!(matches("EINSTÄLLUNG-[A-Z].ini", "einställung-x.INI"));
    assert!(matches("ω/**", "Ω/a"));
    assert!(!matches("ä", "a"));
}

#[test]
fn no_name_makes_matching_slow() {
    let star = format!("{}b", "*a".repeat(MAX_WILDCARDS));
    let deep = format!("{}b", "**/a/".repeat(MAX_WILDCARDS));
    let path = format!("{}/x", "a".repeat(255));
    let many = ["a"; 128].join("/");
    let start = Instant::now();
    for (pattern, path) in [(&star, &path), (&deep, &many), (&star, &many), (&deep, &path)] {
        assert!(!matches(pattern, path));
    }
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}
