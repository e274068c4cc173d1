//! `docs/board/init.sh` with the `/etc/board` of `docs/board.md`, as they stand there, where everything that they call is
//! somebody else's: each thing that can fail leads to the board's answer, and to no first process that waits for ever.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

const INIT: &str = include_str!("../../docs/board/init.sh");
const PAGE: &str = include_str!("../../docs/board.md");

/// The page's block that is `/etc/board`.
fn sample() -> &'static str {
    let (_, rest) = PAGE.split_once("```sh\nVIRTUAL=").expect("the page has an /etc/board");
    let end = rest.find("```").unwrap();
    &PAGE[PAGE.len() - rest.len() - "VIRTUAL=".len()..PAGE.len() - rest.len() + end]
}

fn replaced(text: &str, from: &str, to: &Path) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to.to_str().unwrap())
}

/// Boots with a launcher that ends with `status`, on a board where a call that contains `broken` fails. Returns what was called
/// and said, a line each.
fn boot(status: i32, broken: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let log = at("log");
    fs::create_dir(at("bin")).unwrap();
    let program = |name: &str, text: &str| {
        let path = at("bin").join(name);
        let head = format!("#!/bin/sh\necho \"{name} $*\" >> '{}'\n", log.display());
        fs::write(&path, head + text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    for name in ["mount", "modprobe", "ifconfig", "udhcpc"] {
        program(name, &format!("case \"{name} $*\" in *'{broken}'*) exit 1 ;; esac\n"));
    }
    program("holdfast", &format!("exit {status}\n"));
    for name in ["usleep", "switch_root"] {
        program(name, "");
    }
    // Where it waits for ever it is ended, and after a reboot there is nothing.
    program("sleep", "[ \"$1\" = 3600 ] && kill $PPID\nexit 0\n");
    program("reboot", "kill $PPID\n");
    fs::write(at("board"), sample()).unwrap();
    let init = replaced(INIT, ". /etc/board", Path::new(&format!(". {}", at("board").display())));
    let init = replaced(&init, "/sbin/holdfast", &at("bin/holdfast"));
    let init =
        replaced(&init, "/usr/sbin:/usr/bin:/sbin:/bin", Path::new(&format!("{}:/usr/bin:/bin", at("bin").display())));
    fs::write(at("init"), init).unwrap();
    let output = Command::new("sh").arg(at("init")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let called = fs::read_to_string(&log).unwrap();
    let called = called.lines().filter(|line| !line.starts_with("usleep"));
    called.chain(said.lines()).map(str::to_owned).collect()
}

/// Whether it came to `not_healed` with this number, and then to a reboot.
fn is_not_healed(boot: &[String], number: i32) -> bool {
    let said = format!("not healed: status {number}");
    boot.contains(&said) && boot.contains(&"reboot -f".to_owned()) && !boot.contains(&"sleep 3600".to_owned())
}

#[test]
fn a_healed_application_is_started_from_the_mounted_free_zone() {
    let boot = boot(0, "nothing");
    assert!(boot.contains(&"holdfast --plugged /dev/mmcblk0p2 --allow-root --no-client".to_owned()), "{boot:?}");
    assert!(boot.contains(&"mount --move /mnt /newroot/srv/app".to_owned()), "{boot:?}");
    assert_eq!(boot.last().unwrap(), "switch_root /newroot /sbin/init");
}

#[test]
fn whatever_fails_on_the_way_is_answered_with_a_number_of_its_own() {
    for (status, broken, number) in [
        (73, "nothing", 73),
        (127, "nothing", 127),
        (0, "/dev/mmcblk0p1 /mnt", 1),
        (0, "/dev/mmcblk0p5", 2),
        (0, "--move", 2),
        // A network that does not come is no failure.
        (73, "udhcpc", 73),
    ] {
        let boot = boot(status, broken);
        assert!(is_not_healed(&boot, number), "{status} {broken}: {boot:?}");
        assert!(!boot.iter().any(|line| line.starts_with("switch_root")), "{boot:?}");
        assert_eq!(status == 0, boot.iter().any(|line| line.ends_with("/dev/mmcblk0p1 /mnt")), "{boot:?}");
    }
}
