//! The program as people and scripts meet it.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn run(dir: &Path, passphrase: Option<&str>, arguments: &[&str]) -> Output {
    command(dir, passphrase, arguments).output().unwrap()
}

fn command(dir: &Path, passphrase: Option<&str>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_release-store"));
    command.args(arguments).current_dir(dir).env_remove("HOLDFAST_PASSPHRASE").env("SOURCE_DATE_EPOCH", "1790000000");
    if let Some(passphrase) = passphrase {
        command.env("HOLDFAST_PASSPHRASE", passphrase);
    }
    command.stdin(std::process::Stdio::null());
    command
}

fn status(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// Keys, an empty store, and a tree to publish.
fn with_store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_owned();
    let init = ["init", "store", "--product", "Acme", "--keys", "keys"];
    assert_eq!(status(&run(&at, Some("correct horse"), &init)).0, 0);
    fs::create_dir(at.join("tree")).unwrap();
    fs::write(at.join("tree/run.sh"), "#!/bin/sh\n").unwrap();
    (dir, at)
}

#[test]
fn each_failure_has_its_exit_status_and_names_its_object() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let go = |arguments: &[&str]| run(at, Some("correct horse"), arguments);
    assert_eq!(status(&go(&["init", "store", "--product", "Acme", "--keys", "keys"])).0, 0);
    fs::create_dir(at.join("tree")).unwrap();
    fs::write(at.join("tree/run.sh"), "#!/bin/sh\n").unwrap();
    let publish = |version: &str| go(&["publish", "store", "--keys", "keys", "--release-version", version, "tree"]);
    assert_eq!(status(&publish("1.0.0")).0, 0);
    let (code, text) = status(&publish("1.0.0"));
    assert!(code == 6 && text.contains("already published"), "{code} {text}");
    assert_eq!(status(&go(&["publish", "store"])).0, 2);
    let (code, text) = status(&run(at, Some("wrong"), &["renew", "store", "--keys", "keys"]));
    assert!(code == 3 && text.contains("online.key"), "{code} {text}");
    let (code, text) = status(&run(at, None, &["renew", "store", "--keys", "keys"]));
    assert!(code == 3 && text.contains("HOLDFAST_PASSPHRASE"), "{code} {text}");
    let (code, text) = status(&run(at, Some(""), &["renew", "store", "--keys", "keys"]));
    assert!(code == 3 && text.contains("empty"), "{code} {text}");
    let (code, text) = status(&go(&["renew", "store", "--keys", "nokeys"]));
    assert!(code == 3 && text.contains("nokeys"), "{code} {text}");
    fs::write(at.join("tree/aux.c"), "").unwrap();
    let (code, text) = status(&publish("1.1.0"));
    assert!(code == 4 && text.contains("aux.c") && text.contains("rename"), "{code} {text}");
    fs::remove_file(at.join("tree/aux.c")).unwrap();
    // Not one byte of it is there.
    fs::File::create(at.join("tree/disk.img")).unwrap().set_len(5 << 30).unwrap();
    let (code, text) = status(&publish("1.1.0"));
    assert!(
        code == 4 && text.contains("disk.img") && text.contains("FAT32") && text.contains("split"),
        "{code} {text}"
    );
    fs::remove_file(at.join("tree/disk.img")).unwrap();
    let wrong: [(&str, &[&str]); 4] = [
        ("1 0", &[]),
        ("1.1.0", &["--channel", "a b"]),
        ("1.1.0", &["--module", ""]),
        ("1.1.0", &["--updater-version", "abc"]),
    ];
    for (version, more) in wrong {
        let named = ["publish", "store", "--keys", "keys", "--release-version", version, "tree"];
        let (code, text) = status(&go(&[&named, more].concat()));
        assert!(code == 2 && text.contains(more.first().unwrap_or(&"--release-version")), "{code} {text}");
    }
    let (code, text) = status(&go(&["verify", "nowhere", "--keys", "keys"]));
    assert!(code == 1 && text.contains("nowhere is not a store"), "{code} {text}");

    let output = go(&["list", "store", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed["releases"][0]["version"], "1.0.0");
    let (code, text) = status(&go(&["verify", "store", "--keys", "keys"]));
    assert!(code == 0 && text.contains("1 release, 1 pack, 1 frame, "), "{code} {text}");
    let pack = walk(&at.join("store/packs"));
    fs::write(&pack, "damage").unwrap();
    let output = go(&["verify", "store", "--keys", "keys", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["whole"], false);
    for text in [output.stderr, go(&["keys", "show", "keys"]).stdout] {
        assert!(!String::from_utf8_lossy(&text).contains("correct horse"));
    }
    let (_, text) = status(&go(&["keys", "export", "keys", "--factory", "factory", "--server", "file:store"]));
    assert!(text.contains("no client command") && !text.contains("no server"), "{text}");
    let example = String::from_utf8(go(&["publish", "--help"]).stdout).unwrap();
    assert!(example.contains("--release-version 1.1.0 \\\n      --updater"), "{example}");
    let help = go(&["--help"]).stdout;
    assert!(String::from_utf8(help).unwrap().contains("Exit status"));
}

#[test]
fn a_platform_that_no_updater_runs_on_is_told_from_a_board_of_ones_own() {
    let (_dir, at) = with_store();
    let go = |arguments: &[&str]| run(&at, Some("correct horse"), arguments);
    fs::write(at.join("program"), common::program(1)).unwrap();
    let publish = |version: &str, more: &[&str]| {
        let named = ["publish", "store", "--keys", "keys", "--level", "3", "--release-version", version, "tree"];
        status(&go(&[&named, more].concat()))
    };
    for platform in ["linux", "linux-x86-64", "windows-x64"] {
        let updater = format!("{platform}=program");
        let (code, text) = publish("1.0.0", &["--updater", &updater]);
        assert!(code == 2 && text.contains("linux-x86_64, linux-aarch64, windows-x86_64"), "{code} {text}");
        let export = ["keys", "export", "keys", "--factory", "factory", "--updater", &updater];
        assert_eq!(status(&go(&export)).0, 2);
    }
    let (code, text) = publish("1.0.0", &["--updater", "mps2-an386=program"]);
    assert!(code == 0 && text.contains("Only a board of your own takes an updater for mps2-an386"), "{code} {text}");
    let (code, text) = publish("1.1.0", &[]);
    assert!(code == 0 && text.contains("with updater mps2-an386"), "{code} {text}");
    let (code, text) = publish("1.2.0", &["--drop-updater", "mps2-an386"]);
    assert!(code == 0 && !text.contains("mps2-an386"), "{code} {text}");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    let (_dir, at) = with_store();
    let go = |arguments: &[&str]| run(&at, Some("correct horse"), arguments);
    let fails = |arguments: &[&str], said: &str| {
        let (status, text) = status(&go(arguments));
        assert!(status == 1 && text.contains(said), "{arguments:?}: {status} {text}");
    };
    let before = common::files(&at.join("store"));
    let publish = ["publish", "store", "--keys", "keys", "--release-version", "1.0.0", "tree"];
    fails(&[&publish[..], &["--delta-from", "0.9"]].concat(), "no release 0.9");
    assert_eq!(common::files(&at.join("store")), before);
    for command in ["list", "verify", "stats", "gc", "renew", "mirror"] {
        for place in ["keys", "nothere"] {
            let more: &[&str] = match command {
                "list" => &[],
                "mirror" => &["copy"],
                _ => &["--keys", "keys"],
            };
            fails(&[&[command, place], more].concat(), &format!("{place} is not a store"));
        }
    }
    assert!(!at.join("copy").exists());

    fs::write(at.join("afile"), "").unwrap();
    for store in ["afile", "store", "new-keys/store"] {
        let (code, text) = status(&go(&["init", store, "--product", "Other", "--keys", "new-keys"]));
        assert!(code == 1 && !at.join("new-keys").exists(), "{store}: {code} {text}");
    }
    let (code, _) = status(&run(&at, Some("wrong"), &["init", "second", "--product", "Acme", "--keys", "keys"]));
    assert!(code == 3 && !at.join("second").exists());

    assert_eq!(status(&go(&publish)).0, 0);
    let withdraw = ["withdraw", "store", "--keys", "keys", "--release-version", "1.0.0", "--reason"];
    fails(&[&withdraw[..], &["a\nb"]].concat(), "control characters");
    fails(&[&withdraw[..], &[&"long".repeat(126)]].concat(), "this one has 504");

    let export = ["keys", "export", "keys", "--factory", "factory"];
    fails(&[&export[..], &["--align-bytes", "7"]].concat(), "7 bytes: name a power of two from 4096");
    fails(&[&export[..], &["--server", &format!("https://{}", "x".repeat(600))]].concat(), "server's address");
}

#[test]
fn json_has_one_form_for_times_and_for_what_is_withdrawn() {
    let (_dir, at) = with_store();
    let json = |arguments: &[&str]| {
        let output = run(&at, Some("correct horse"), arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default()
    };
    for version in ["1", "2", "3"] {
        let said = json(&["publish", "store", "--keys", "keys", "--json", "--release-version", version, "tree"]);
        assert_eq!(said["published"], "2026-09-21T14:13:20Z", "{said}");
        assert!(said["fresh_until"].as_str().unwrap().ends_with("T14:13:20Z"), "{said}");
    }
    json(&["withdraw", "store", "--keys", "keys", "--release-version", "2"]);
    json(&["withdraw", "store", "--keys", "keys", "--release-version", "3", "--reason", "loses settings"]);
    let listed = json(&["list", "store", "--json"]);
    let stats = json(&["stats", "store", "--keys", "keys", "--json"]);
    for (at, reason) in [None, Some(""), Some("loses settings")].into_iter().enumerate() {
        let (listed, stats) = (&listed["releases"][at], &stats["releases"][at]);
        assert_eq!(listed["published"], "2026-09-21T14:13:20Z", "{listed}");
        assert!(listed["withdrawn"] == reason.is_some() && stats["withdrawn"] == reason.is_some(), "{listed} {stats}");
        assert_eq!(listed["reason"].as_str(), reason, "{listed}");
    }
}

#[test]
fn keys_get_successors_and_retire_what_the_old_ones_signed() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let go = |arguments: &[&str]| run(at, Some("correct horse"), arguments);
    let fails = |arguments: &[&str], code: i32, said: &str| {
        let (status, text) = status(&go(arguments));
        assert!(status == code && text.contains(said), "{arguments:?}: {status} {text}");
    };
    assert_eq!(status(&go(&["init", "store", "--product", "Acme", "--keys", "keys"])).0, 0);
    fs::create_dir(at.join("tree")).unwrap();
    fs::write(at.join("tree/run.sh"), "#!/bin/sh\n").unwrap();
    fs::write(at.join("program"), [&[7; 32][..], b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a", &[0; 32]].concat())
        .unwrap();
    let publish = |version: &str, more: &[&str]| {
        let named = ["publish", "store", "--keys", "keys", "--json", "--release-version", version, "tree"];
        let output = go(&[&named, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let updater = ["--updater", "linux-x86_64=program"];
    publish("1.0.0", &updater);

    fails(&["keys", "rotate", "keys"], 1, "nothing was interrupted");
    fails(&["keys", "rotate", "keys", "vendor"], 2, "possible values");
    fails(
        &["publish", "store", "--keys", "keys", "--release-version", "9", "tree", "--retire-updater-keys"],
        2,
        "--updater",
    );
    let output = go(&["keys", "rotate", "keys", "updater", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["updater_key_serial"], &said["root_version"]), (&2.into(), &serde_json::Value::Null), "{said}");
    let (code, text) = status(&go(&["keys", "rotate", "keys", "online", "targets"]));
    assert!(
        code == 0 && text.contains("Root 2") && text.contains("renew ") && text.contains("/store --keys"),
        "{code} {text}"
    );
    assert!(!text.contains("correct horse"));
    let reading: [&[&str]; 3] = [
        &["verify", "store", "--keys", "keys"],
        &["stats", "store", "--keys", "keys"],
        &["gc", "store", "--keys", "keys", "--dry-run"],
    ];
    for arguments in reading {
        fails(
            arguments,
            1,
            "store is not signed yet with the new keys in keys: `release-store renew store --keys keys`",
        );
    }
    let (code, text) = status(&go(&["renew", "store", "--keys", "keys"]));
    assert!(code == 0 && text.contains("new keys") && text.contains("1.0.0"), "{code} {text}");
    for arguments in reading {
        assert_eq!(status(&go(arguments)).0, 0);
    }

    // The same program, signed by the new key, is another updater.
    let before = firmware_image::updater_image::UpdaterVersion::parse(env!("CARGO_PKG_VERSION")).unwrap();
    let published = publish("1.1.0", &[&updater[..], &["--retire-updater-keys"]].concat());
    let version = published["updaters"][0]["version"].as_str().unwrap();
    assert!(firmware_image::updater_image::UpdaterVersion::parse(version) > Some(before), "{published}");
    assert_eq!(status(&go(&["verify", "store", "--keys", "keys"])).0, 0);
    let shown = String::from_utf8(go(&["keys", "show", "keys"]).stdout).unwrap();
    assert!(shown.contains("updater key serial  2"), "{shown}");
}

#[test]
fn a_clock_that_cannot_be_right_publishes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let go = |time: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_release-store"));
        command.args(arguments).current_dir(at).env("HOLDFAST_PASSPHRASE", "correct horse");
        status(&command.env("SOURCE_DATE_EPOCH", time).stdin(std::process::Stdio::null()).output().unwrap())
    };
    assert_eq!(go("1790000000", &["init", "store", "--product", "Acme", "--keys", "keys"]).0, 0);
    fs::create_dir(at.join("tree")).unwrap();
    fs::write(at.join("tree/run.sh"), "#!/bin/sh\n").unwrap();
    let publish = |time: &str, version: &str| {
        go(time, &["publish", "store", "--keys", "keys", "--release-version", version, "tree"])
    };
    assert_eq!(publish("1790000000", "1.0.0").0, 0);
    for (time, why) in [("1789913599", "newest release"), ("0", "newest release"), ("4133980800", "2100-12-31")] {
        let (code, text) = publish(time, "1.1.0");
        assert!(code == 1 && text.contains(why) && text.contains("SOURCE_DATE_EPOCH"), "{time}: {code} {text}");
    }
    // A day is allowed: machines that publish in turn need not agree to the second.
    assert_eq!(publish("1789913600", "1.1.0").0, 0);
}

#[test]
fn what_a_client_asks_for_cannot_steer_the_terminal() {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("store")).unwrap();
    let mut server = Command::new(env!("CARGO_BIN_EXE_release-store"))
        .args(["serve", "store", "--listen", "127.0.0.1:0", "--verbose"])
        .current_dir(dir.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let mut connection = std::net::TcpStream::connect(url.trim().trim_start_matches("http://")).unwrap();
    connection
        .write_all("GET /\u{1b}[2J\u{9b}1m\u{202e} HTTP/1.0\r\nRange: \u{1b}]0;x\u{7}\r\n\r\n".as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 404"));
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("404"))).unwrap().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(!line.chars().any(char::is_control) && !line.contains('\u{202e}'), "{line:?}");
    assert!(line.contains("GET /\\u{1b}[2J") && line.contains("\\u{1b}]0;x"), "{line:?}");
}

#[test]
fn whoever_reads_may_go_and_what_cannot_be_written_is_said_once() {
    let (_dir, at) = with_store();
    let go = |arguments: &[&str]| run(&at, Some("correct horse"), arguments);
    let publish = |version| {
        ["publish", "store", "--keys", "keys", "--json", "--release-version", version, "--level", "3", "tree"]
    };
    // Nobody reads either stream any more.
    let alone = |arguments: &[&str]| {
        let [out, err] = [0, 1].map(|_| std::io::pipe().unwrap().1);
        command(&at, Some("correct horse"), arguments).stdout(out).stderr(err).status().unwrap().code()
    };
    assert_eq!(alone(&publish("1.0.0")), Some(0));
    assert_eq!(alone(&publish("1.0.0")), Some(6));
    let reading: [&[&str]; 6] = [
        &["list", "store"],
        &["list", "store", "--json"],
        &["stats", "store", "--keys", "keys"],
        &["gc", "store", "--keys", "keys", "--dry-run"],
        &["verify", "store", "--keys", "keys"],
        &["keys", "show", "keys"],
    ];
    for arguments in reading {
        assert_eq!(alone(arguments), Some(0), "{arguments:?}");
    }
    assert_eq!(alone(&["gc", "store", "--keys", "keys"]), Some(0));

    if cfg!(target_os = "linux") {
        let full = |arguments: &[&str]| {
            let full = fs::File::options().write(true).open("/dev/full").unwrap();
            status(&command(&at, Some("correct horse"), arguments).stdout(full).output().unwrap())
        };
        for arguments in reading.iter().filter(|arguments| arguments[0] != "verify") {
            let (code, text) = full(arguments);
            let told = text.matches("error: standard output cannot be written").count();
            assert!(code == 1 && told == 1, "{code} {text}");
        }
        assert_eq!(full(&publish("1.1.0")).0, 1);
        assert!(String::from_utf8(go(&["list", "store"]).stdout).unwrap().contains("1.1.0"), "the work is done");
    }
    fs::write(walk(&at.join("store/packs")), "damage").unwrap();
    assert_eq!(alone(&["verify", "store", "--keys", "keys"]), Some(1));
}

/// Some file below `directory`.
fn walk(directory: &Path) -> std::path::PathBuf {
    let path = fs::read_dir(directory).unwrap().next().unwrap().unwrap().path();
    if path.is_dir() { walk(&path) } else { path }
}
