//! Which paths a release may hold.

use release_store::paths::{MAX_DEPTH, MAX_PATH_UNITS, PathProblem, PathSet, check, fold};

#[test]
fn paths_that_every_system_holds_are_taken() {
    let fits = format!("{}/{}", "x".repeat(119), "y".repeat(120));
    assert_eq!(fits.len(), MAX_PATH_UNITS);
    let deep = ["d"; MAX_DEPTH].join("/");
    let good = [
        "a",
        "bin/run.sh",
        ".hidden",
        "a.b.c",
        "a b",
        "com",
        "com10",
        "console",
        "nul-file",
        "auxiliary.txt",
        "lpt",
        "~",
        "a~",
        "backup~",
        "~1",
        "very-long-name~1",
        "a~1.text",
        "x=y&z",
        "100%",
        "it's",
        "#1",
        "日本語.txt",
        "e\u{301}",
        "👨\u{200d}👩",
        &fits,
        &deep,
    ];
    for path in good {
        assert_eq!(check(path), Ok(()), "{path:?}");
    }
}

#[test]
fn each_path_that_some_system_cannot_hold_is_refused_for_its_reason() {
    use PathProblem as P;
    let long = "x/".repeat(121);
    let cases = [
        ("", P::Empty),
        ("/a", P::Empty),
        ("a//b", P::Empty),
        ("a/", P::Empty),
        (".", P::Traversal),
        ("a/../b", P::Traversal),
        ("a\\b", P::Character('\\')),
        ("C:a", P::Character(':')),
        ("a<b", P::Character('<')),
        ("a|b", P::Character('|')),
        ("a\"b", P::Character('"')),
        ("a\tb", P::Character('\t')),
        ("a\u{7f}b", P::Character('\u{7f}')),
        ("a\u{85}b", P::Character('\u{85}')),
        ("a\u{202e}b", P::Character('\u{202e}')),
        ("\u{feff}a", P::Character('\u{feff}')),
        ("a.", P::TrailingDotOrSpace),
        ("a /b", P::TrailingDotOrSpace),
        ("...", P::TrailingDotOrSpace),
        ("con", P::Reserved("con".into())),
        ("a/Aux.h", P::Reserved("Aux.h".into())),
        ("NUL.tar.gz", P::Reserved("NUL.tar.gz".into())),
        ("nul .txt", P::Reserved("nul .txt".into())),
        ("COM0", P::Reserved("COM0".into())),
        ("com³.x", P::Reserved("com³.x".into())),
        ("CONOUT$", P::Reserved("CONOUT$".into())),
        ("a~1", P::ShortAlias("a~1".into())),
        ("LONGNA~2.TXT", P::ShortAlias("LONGNA~2.TXT".into())),
        ("ÄÖÜÄÖÜ~1.ÄÖÜ", P::ShortAlias("ÄÖÜÄÖÜ~1.ÄÖÜ".into())),
        ("a\u{61c}b", P::Character('\u{61c}')),
        (&long, P::TooLong),
    ];
    for (path, problem) in cases {
        assert_eq!(check(path), Err(problem), "{path:?}");
    }
    assert_eq!(check(&"é".repeat(121)), Err(P::ComponentTooLong));
    assert_eq!(check(&"日".repeat(81)), Err(P::ComponentTooLong), "243 bytes of UTF-8");
    assert_eq!(check(&["d"; MAX_DEPTH + 1].join("/")), Err(P::TooDeep));
}

#[test]
fn every_problem_says_what_to_do() {
    for path in ["", "..", "a:b", "nul", "a.", "a~1", &"x".repeat(300), &"x".repeat(130), &["d"; 40].join("/")] {
        let problem = check(path).unwrap_err().to_string();
        let advice = ["rename", "shorten", "move", "write"].iter().any(|verb| problem.contains(verb));
        assert!(advice, "{path:?}: {problem}");
    }
}

#[test]
fn paths_that_meet_on_a_case_insensitive_system_are_refused() {
    let pairs = [
        ("README", "readme"),
        ("straße/a", "STRAßE/b"),
        ("Ω", "ω"),
        ("ς", "σ"),
        ("ß", "ss"),
        ("ẞ", "SS"),
        ("ﬁne", "FINE"),
        ("\u{212a}", "k"),
        ("dir/a", "DIR"),
        ("a", "a/b"),
        ("a/b/c", "a/b"),
    ];
    for (one, other) in pairs {
        for (first, second) in [(one, other), (other, one)] {
            let mut set = PathSet::new();
            set.insert(first).unwrap();
            let error = set.insert(second).unwrap_err().to_string();
            assert!(error.contains("case") || error.contains("directory"), "{first} {second}: {error}");
        }
    }
    let mut set = PathSet::new();
    for path in ["a/b", "a/c", "ab", "a-b", "ß", "s", "é", "e\u{301}"] {
        set.insert(path).unwrap();
    }
    assert_eq!(fold("ÄÖÜ/ß"), "äöü/ß");
}
