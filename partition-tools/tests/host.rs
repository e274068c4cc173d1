//! `host`: files for a Linux host, in a root of our own.
#![cfg(unix)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use firmware_image::sim::figures;
use support::{PRODUCT, Product, poke, tool};

const RULE: &str = "etc/udev/rules.d/70-holdfast-acme-notes.rules";
const UNIT: &str = "etc/systemd/system/holdfast-acme-notes@.service";
const LAUNCHER: &str = "usr/local/lib/holdfast/acme-notes/bootstrap";

/// Everything below a directory: mode and bytes of files, mode of directories.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Option<Vec<u8>>)> {
    let mut out = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let bytes = if found.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            None
        } else {
            Some(fs::read(&path).unwrap())
        };
        out.insert(path.strip_prefix(root).unwrap().to_path_buf(), (found.permissions().mode() & 0o7777, bytes));
    }
    out
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A product with a stick's image, and a root of a host with a user.
fn product() -> Product {
    let product = Product::new();
    product.create("device.img", &[]);
    for directory in ["etc/udev/rules.d", "etc/systemd/system", "usr/local/lib"] {
        fs::create_dir_all(product.path("root").join(directory)).unwrap();
    }
    put(
        &product.path("root/etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nkiosk:x:998:998::/:/bin/false\nann:x:1000:1000::/:\n",
    );
    product
}

/// `host` with `more`, on the root.
fn host<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["host", "device.img", "--root", "root"], more].concat()
}

#[test]
fn by_default_the_rule_is_printed_and_nothing_is_written() {
    let product = product();
    let before = tree(&product.path("root"));
    let said = product.succeed(&host(&[]));
    assert!(said.starts_with("#### /etc/udev/rules.d/70-holdfast-acme-notes.rules (mode 0644)\n"), "{said}");
    assert!(said.contains("ENV{PARTNAME}==\"HOLDFAST-HIDDEN\", TAG+=\"uaccess\"\n"), "{said}");
    assert!(!said.contains("OWNER") && !said.contains("SYSTEMD_WANTS") && !said.contains(".service"), "{said}");
    product.succeed(&host(&["--autorun-as", "kiosk", "--install", "--dry-run"]));
    assert_eq!(tree(&product.path("root")), before);
}

#[test]
fn autorun_installs_rule_unit_and_the_devices_launcher_and_uninstall_leaves_nothing() {
    let product = product();
    let before = tree(&product.path("root"));
    product.succeed(&host(&["--autorun-as", "kiosk", "--install", "--keys", "keys"]));
    let after = tree(&product.path("root"));
    let new: Vec<&PathBuf> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    let expected = [UNIT, RULE, "usr/local/lib/holdfast", "usr/local/lib/holdfast/acme-notes", LAUNCHER];
    assert_eq!(new, expected.map(PathBuf::from).iter().collect::<Vec<_>>());
    let modes = [RULE, UNIT, LAUNCHER].map(|path| after[Path::new(path)].0);
    assert_eq!(modes, [0o644, 0o644, 0o755]);
    let launcher = product.run(&["virtual", "cat", "device.img", "bootstrap-linux-x86_64"]).stdout;
    assert!(after[Path::new(LAUNCHER)].1.as_ref().unwrap() == &launcher);

    let text = |path: &str| String::from_utf8(after[Path::new(path)].1.clone().unwrap()).unwrap();
    let (rule, unit) = (text(RULE), text(UNIT));
    for line in [
        "ENV{PARTNAME}==\"HOLDFAST-HIDDEN\", TAG+=\"uaccess\"",
        "ENV{PARTNAME}==\"HOLDFAST-HIDDEN\", OWNER=\"kiosk\", MODE=\"0600\"",
        "KERNEL==\"sr*\", ENV{ID_FS_LABEL}==\"ACME_NOTES\", OWNER=\"kiosk\"",
        "ENV{PARTNAME}==\"HOLDFAST-VIRTUAL\", ENV{ID_FS_LABEL}==\"ACME_NOTES\", TAG+=\"systemd\", \
         ENV{SYSTEMD_WANTS}+=\"holdfast-acme-notes@%k.service\"",
        "KERNEL==\"sr*\", ENV{ID_FS_LABEL}==\"ACME_NOTES\", TAG+=\"systemd\", \
         ENV{SYSTEMD_WANTS}+=\"holdfast-acme-notes@%k.service\"",
    ] {
        assert!(rule.lines().any(|found| found == line), "{line}\nin\n{rule}");
    }
    for line in [
        "BindsTo=dev-%i.device",
        "Type=exec",
        "User=kiosk",
        "ExecStart=/usr/local/lib/holdfast/acme-notes/bootstrap --plugged /dev/%i",
        "AmbientCapabilities=CAP_SYS_ADMIN",
        "CapabilityBoundingSet=CAP_SYS_ADMIN",
        "NoNewPrivileges=yes",
        "RuntimeDirectory=holdfast-acme-notes-%i",
        "RuntimeDirectoryMode=0700",
        "KillMode=mixed",
        "Restart=no",
        "StandardOutput=journal+console",
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}\nin\n{unit}");
    }

    let said = product.run(&host(&["--autorun-as", "kiosk", "--install"])).stderr;
    assert_eq!(String::from_utf8(said).unwrap().matches("unchanged").count(), 3);
    product.succeed(&["host", "--uninstall", "--product", PRODUCT, "--root", "root"]);
    assert_eq!(tree(&product.path("root")), before);
    product.succeed(&host(&["--uninstall"]));
}

#[test]
fn the_label_in_the_rule_is_the_one_that_udev_reads() {
    let product = product();
    let dual = [
        "create",
        "--profile",
        "dual",
        "--out",
        "disk.img",
        "--cd-out",
        "cd.iso",
        "--size",
        "200MiB",
        "--keys",
        "keys",
    ];
    let more = ["--product", PRODUCT, "--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"];
    product.succeed(&[&dual[..], &more].concat());
    let said = product.succeed(&["host", "cd.iso", "--autorun-as", "kiosk", "--root", "root"]);
    assert_eq!(said, product.succeed(&host(&["--autorun-as", "kiosk"])));
    assert_eq!(
        said,
        product.succeed(&["host", "disk.img", "--virtual", "cd.iso", "--autorun-as", "kiosk", "--root", "root"])
    );
    let Some(found) = tool("blkid", &["-p", "-o", "udev", &product.text("cd.iso")]) else { return };
    let found = String::from_utf8(found.stdout).unwrap();
    let label = found.lines().find_map(|line| line.strip_prefix("ID_FS_LABEL=")).unwrap();
    assert!(said.contains(&format!("ENV{{ID_FS_LABEL}}==\"{label}\"")), "{label} in {said}");
}

#[test]
fn a_serial_pattern_narrows_the_rule_and_cannot_break_out_of_it() {
    let product = product();
    let said = product.succeed(&host(&["--serial", "HF-[0-9]*"]));
    assert!(
        said.contains("ENV{ID_SERIAL_SHORT}!=\"HF-[0-9]*\", ENV{ID_SERIAL}!=\"HF-[0-9]*\", GOTO=\"holdfast_end\"\n"),
        "{said}"
    );
    for bad in ["", "a\"b", "a b", "a\nb", "%k", "$x", "a\\", "é"] {
        product.fail(1, &host(&["--serial", bad]));
    }
}

#[test]
fn only_an_ordinary_user_is_taken() {
    let product = product();
    for bad in ["root", "", "a b", "kiosk\nUser=root", "0"] {
        let said = product.fail(1, &host(&["--autorun-as", bad]));
        assert!(said.contains("no name of a user") || said.contains("is root"), "{said}");
    }
    put(&product.path("root/etc/passwd"), "toor:x:0:0::/root:/bin/sh\n");
    assert!(product.fail(1, &host(&["--autorun-as", "toor"])).contains("is root"));
    let notes = |user: &str| product.json(&host(&["--autorun-as", user, "--json"]))["notes"].to_string();
    assert!(notes("kiosk").contains("There is no user kiosk"));
    put(&product.path("root/etc/passwd"), "ann:x:1000:1000::/:\nkiosk:x:998:998::/:\n");
    assert!(notes("ann").contains("no system user") && !notes("kiosk").contains("system user"));
}

#[test]
fn only_the_vendors_launcher_is_installed() {
    let product = product();
    let autorun = |more: &[&str]| [&host(&["--autorun-as", "kiosk", "--install"])[..], more].concat().join("\u{1}");
    let refused = |more: &[&str]| {
        let line = autorun(more);
        let said = product.fail(3, &line.split('\u{1}').collect::<Vec<_>>());
        assert!(said.contains("is not to be trusted"), "{said}");
        assert!(!product.path("root").join(RULE).exists() && !product.path("root").join(LAUNCHER).exists());
        said
    };
    // Somebody else's keys.
    let other = Product::new();
    refused(&["--keys", &other.text("keys")]);
    // A launcher as it was built, and another vendor's.
    assert!(refused(&["--bootstrap", "bootstrap"]).contains("no vendor's key"));
    other.create("device.img", &[]);
    let foreign = other.run(&["virtual", "cat", "device.img", "bootstrap-linux-x86_64"]).stdout;
    fs::write(product.path("foreign"), &foreign).unwrap();
    assert!(refused(&["--bootstrap", "foreign"]).contains("another vendor's key"));
    // A device whose launcher was stamped anew: given the keys it is refused; without them its configuration does not fit.
    let image = fs::read(product.path("device.img")).unwrap();
    let key = product.vendor().0;
    for at in (0..image.len() - 32).filter(|at| image[*at] == key[0] && image[*at..*at + 32] == key) {
        poke(&product.path("device.img"), at as u64, &other.vendor().0);
    }
    refused(&[]);
    refused(&["--keys", "keys"]);
}

#[test]
fn trust_on_first_use_is_said_plainly() {
    let product = product();
    let json = product.json(&host(&["--json"]));
    assert_eq!(json["vendor_key_given"], false);
    assert!(json["notes"][0].as_str().unwrap().contains("not that it is genuine"));
    let json = product.json(&host(&["--json", "--keys", "keys", "--autorun-as", "kiosk"]));
    assert_eq!(json["vendor_key_given"], true);
    assert_eq!(json["files"].as_array().unwrap().len(), 3);
    let launcher = &json["files"][2];
    assert!(launcher["text"].is_null() && launcher["mode"] == "0755");
    assert!(json["notes"][0].as_str().unwrap().contains(launcher["sha256"].as_str().unwrap()));
}

#[test]
fn files_of_others_are_neither_replaced_nor_removed() {
    let product = product();
    let rule = product.path("root").join(RULE);
    put(&rule, "# made by hand\n");
    let said = product.fail(1, &host(&["--install"]));
    assert!(said.contains("was not written by this program"), "{said}");
    product.fail(1, &host(&["--uninstall"]));
    assert_eq!(fs::read_to_string(&rule).unwrap(), "# made by hand\n");
    // Another vendor's product of the same name.
    fs::remove_file(&rule).unwrap();
    product.succeed(&host(&["--install"]));
    let other = Product::new();
    other.create("device.img", &[]);
    let root = product.text("root");
    let said = other.fail(1, &["host", "device.img", "--install", "--root", &root]);
    assert!(said.contains("another installation"), "{said}");
}

#[test]
fn an_installation_with_other_wishes_takes_back_what_it_no_longer_wants() {
    let product = product();
    product.succeed(&host(&["--install"]));
    let plain = tree(&product.path("root"));
    product.succeed(&host(&["--autorun-as", "kiosk", "--install"]));
    assert_ne!(tree(&product.path("root")), plain);
    product.succeed(&host(&["--install"]));
    assert_eq!(tree(&product.path("root")), plain);
}

#[test]
fn no_link_leads_out_of_an_image_of_a_host() {
    let product = product();
    let outside = product.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir(product.path("root/usr/local/lib")).unwrap();
    std::os::unix::fs::symlink(&outside, product.path("root/usr/local/lib")).unwrap();
    let said = product.fail(1, &host(&["--autorun-as", "kiosk", "--install"]));
    assert!(said.contains("may lead out of the image"), "{said}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!product.path("root").join(RULE).exists(), "nothing is installed by half");
}

const BOARD_UNIT: &str = "etc/systemd/system/holdfast-acme-notes.service";
const BOARD_BOOT: &str = "etc/systemd/system/multi-user.target.d/holdfast-acme-notes.conf";
const BOARD_MOUNT: &str = "etc/systemd/system/run-holdfast-acme\\x2dnotes.mount";

#[test]
fn a_board_gets_a_unit_that_starts_the_client_at_boot_and_uninstall_leaves_nothing() {
    let product = product();
    let before = tree(&product.path("root"));
    let board = ["--board", "/dev/mmcblk0p2", "--autorun-as", "kiosk", "--install", "--keys", "keys"];
    product.succeed(&host(&board));
    let after = tree(&product.path("root"));
    let new: Vec<&PathBuf> = after
        .iter()
        .filter(|(path, (_, text))| text.is_some() && !before.contains_key(*path))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(new, [BOARD_UNIT, BOARD_BOOT, RULE, LAUNCHER].map(PathBuf::from).iter().collect::<Vec<_>>());
    let text = |path: &str| fs::read_to_string(product.path("root").join(path)).unwrap();
    for line in [
        "Requires=dev-mmcblk0p2.device",
        "After=dev-mmcblk0p2.device network.target",
        "Type=exec",
        "User=kiosk",
        "ExecStart=/usr/local/lib/holdfast/acme-notes/bootstrap --plugged /dev/mmcblk0p2",
        "AmbientCapabilities=CAP_SYS_ADMIN",
        "CapabilityBoundingSet=CAP_SYS_ADMIN",
        "NoNewPrivileges=yes",
        "RuntimeDirectory=holdfast-acme-notes",
        "StartLimitIntervalSec=0",
        "Restart=on-failure",
        "RestartSec=10",
    ] {
        assert!(text(BOARD_UNIT).lines().any(|found| found == line), "{line}\nin\n{}", text(BOARD_UNIT));
    }
    // The client's status may be any.
    assert!(!text(BOARD_UNIT).contains("RestartPreventExitStatus"), "{}", text(BOARD_UNIT));
    assert!(text(BOARD_BOOT).ends_with("[Unit]\nWants=holdfast-acme-notes.service\n"));
    // The rights are for this board's own storage alone, and nothing is found by a name that any stick could bear.
    let rule = text(RULE);
    assert!(rule.contains("SUBSYSTEM==\"block\", KERNEL==\"mmcblk0p3\", OWNER=\"kiosk\", MODE=\"0600\"\n"), "{rule}");
    assert!(!rule.contains("PARTNAME") && !rule.contains("SYSTEMD_WANTS") && !rule.contains("uaccess"), "{rule}");

    product.succeed(&["host", "--uninstall", "--product", PRODUCT, "--root", "root"]);
    assert_eq!(tree(&product.path("root")), before);
}

#[test]
fn a_board_whose_application_has_a_unit_of_its_own_gets_a_oneshot_and_the_mount_that_it_needs() {
    let product = product();
    let json = product.json(&host(&["--board", "/dev/disk/by-path/platform-1.mmc-part2", "--no-client", "--json"]));
    let text = |path: &str| {
        let files = json["files"].as_array().unwrap();
        let file = files.iter().find(|file| file["path"] == format!("/{path}")).unwrap();
        file["text"].as_str().unwrap().to_owned()
    };
    // Root needs no rule.
    assert_eq!(json["files"].as_array().unwrap().len(), 4);
    assert!(json["notes"].to_string().contains("RequiresMountsFor=/run/holdfast/acme-notes "));
    assert!(json["notes"].to_string().contains("run as root"));
    for line in [
        r"Requires=dev-disk-by\x2dpath-platform\x2d1.mmc\x2dpart2.device",
        "Type=oneshot",
        "RemainAfterExit=yes",
        "ExecStart=/usr/local/lib/holdfast/acme-notes/bootstrap --plugged /dev/disk/by-path/platform-1.mmc-part2 --allow-root --no-client",
        "Restart=no",
    ] {
        assert!(text(BOARD_UNIT).lines().any(|found| found == line), "{line}\nin\n{}", text(BOARD_UNIT));
    }
    // Only status 0 lets the application start.
    assert!(!text(BOARD_UNIT).contains("SuccessExitStatus") && !text(BOARD_UNIT).contains("User="));
    for line in [
        "Requires=holdfast-acme-notes.service",
        "After=holdfast-acme-notes.service",
        "What=/dev/disk/by-path/platform-1.mmc-part1",
        "Where=/run/holdfast/acme-notes",
    ] {
        assert!(text(BOARD_MOUNT).lines().any(|found| found == line), "{line}\nin\n{}", text(BOARD_MOUNT));
    }
    // With a user, that one owns the mount's files and the hidden zone.
    let said =
        product.succeed(&host(&["--board", "/dev/disk/by-path/x-part2", "--no-client", "--autorun-as", "kiosk"]));
    assert!(
        said.contains("nofail,uid=kiosk\n") && said.contains("SYMLINK==\"disk/by-path/x-part3\", OWNER=\"kiosk\""),
        "{said}"
    );
    // Other wishes take back what they do not want.
    let plain = ["--board", "/dev/mmcblk0p2", "--install"];
    product.succeed(&host(&plain));
    let one = tree(&product.path("root"));
    product.succeed(&host(&[&plain[..], &["--no-client", "--autorun-as", "kiosk"]].concat()));
    assert!(product.path("root").join(BOARD_MOUNT).exists());
    product.succeed(&host(&plain));
    assert_eq!(tree(&product.path("root")), one);
}

#[test]
fn a_board_is_started_from_the_virtual_zones_partition_and_no_other() {
    let product = product();
    for node in ["/dev/mmcblk0p1", "/dev/mmcblk0", "/dev/mmcblk2", "/dev/disk/by-label/NOTES2", "/dev/mmc\n2"] {
        let said = product.fail(1, &host(&["--board", node]));
        assert!(said.contains("partition"), "{said}");
    }
    for node in ["/dev/sda2", "/dev/nvme0n1p2"] {
        let said = product.fail(1, &host(&["--board", node]));
        assert!(said.contains("/dev/disk/by-path/") && said.contains("next boot"), "{said}");
    }
    product.fail(2, &host(&["--no-client"]));
    product.fail(2, &host(&["--board", "/dev/mmcblk0p2", "--serial", "x"]));
    product.fail(2, &["host", "--board", "/dev/mmcblk0p2", "--product", PRODUCT, "--uninstall"]);
}

#[test]
fn into_an_image_of_another_computer_goes_the_only_launcher_or_the_one_that_is_named() {
    let product = product();
    let create = |out: &str, launchers: &[&str]| {
        let mut arguments = vec!["create", "--profile", "stick", "--out", out, "--size", "200MiB", "--keys", "keys"];
        arguments.extend(["--product", PRODUCT, "--updater", "linux-x86_64=updater"]);
        arguments.extend(["--updater", "linux-aarch64=updater-arm"]);
        launchers.iter().for_each(|launcher| arguments.extend(["--bootstrap", launcher]));
        product.succeed(&arguments);
    };
    create("both.img", &["linux-x86_64=bootstrap", "linux-aarch64=bootstrap-arm"]);
    create("arm.img", &["linux-aarch64=bootstrap-arm"]);
    let arm = product.run(&["virtual", "cat", "arm.img", "bootstrap-linux-aarch64"]).stdout;
    let install = |image: &'static str| ["host", image, "--root", "root", "--board", "/dev/mmcblk0p2", "--install"];
    let said = product.fail(1, &install("both.img"));
    assert!(said.contains("--platform") && said.contains("linux-aarch64, linux-x86_64"), "{said}");
    assert!(!product.path("root").join(LAUNCHER).exists());
    let installed = || fs::read(product.path("root").join(LAUNCHER)).unwrap();
    product.succeed(&[&install("both.img")[..], &["--platform", "linux-aarch64"]].concat());
    assert!(installed() == arm);
    product.succeed(&[&install("both.img")[..], &["--platform", "linux-x86_64"]].concat());
    assert!(installed() != arm);
    product.succeed(&install("arm.img"));
    assert!(installed() == arm);
    // Who brings a launcher has said what the board is.
    fs::write(product.path("own"), &arm).unwrap();
    product.succeed(&[&install("both.img")[..], &["--bootstrap", "own"]].concat());
    assert!(installed() == arm);
}

#[test]
fn usage_errors_have_their_status() {
    let product = product();
    product.fail(2, &["host"]);
    product.fail(2, &["host", "--product", PRODUCT]);
    product.fail(2, &["host", "device.img", "--install", "--uninstall"]);
    product.fail(2, &["host", "device.img", "--platform", "linux-aarch64"]);
    product.fail(1, &["host", "device.img", "--root", "nowhere"]);
    fs::write(product.path("noise"), support::noise(1, 1 << 20)).unwrap();
    product.fail(4, &["host", "noise"]);
    let said = product.fail(1, &host(&["--autorun-as", "kiosk", "--platform", "linux-aarch64"]));
    assert!(said.contains("--platform") && said.contains("bootstrap-linux-aarch64"), "{said}");
}

#[test]
fn systemd_and_udev_find_nothing_to_complain_about() {
    let product = product();
    product.succeed(&host(&["--autorun-as", "kiosk", "--install"]));
    let unit = fs::read_to_string(product.path("root").join(UNIT)).unwrap();
    // The checker wants a user and a program that are here.
    let unit =
        unit.replace("User=kiosk", "User=daemon").replace("/usr/local/lib/holdfast/acme-notes/bootstrap", "/bin/true");
    let at = product.text("holdfast-acme-notes@sr0.service");
    for (broken, expected) in [("", true), ("\n[Service]\nKillMode=mixd\n", false)] {
        fs::write(&at, format!("{unit}{broken}")).unwrap();
        let Some(output) = tool("systemd-analyze", &["verify", &at]) else { break };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let quiet = !said.lines().any(|line| line.contains("holdfast-acme-notes"));
        assert_eq!(quiet, expected, "{said}");
    }
    product.succeed(&host(&["--board", "/dev/mmcblk0p2", "--no-client", "--autorun-as", "kiosk", "--install"]));
    for path in [BOARD_UNIT, BOARD_MOUNT] {
        let unit = fs::read_to_string(product.path("root").join(path)).unwrap();
        let unit = unit.replace("User=kiosk", "User=daemon");
        let at = product.path(Path::new(path).file_name().unwrap().to_str().unwrap());
        fs::write(&at, unit.replace("/usr/local/lib/holdfast/acme-notes/bootstrap", "/bin/true")).unwrap();
        let Some(output) = tool("systemd-analyze", &["verify", at.to_str().unwrap()]) else { break };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.lines().any(|line| line.contains("holdfast")), "{said}");
    }
    product.succeed(&host(&["--autorun-as", "kiosk", "--install"]));
    let rule = product.path("root").join(RULE);
    let text = fs::read_to_string(&rule).unwrap().replace("kiosk", "daemon");
    fs::write(&rule, text).unwrap();
    let known = tool("udevadm", &["verify", "--help"]).is_some_and(|output| output.status.success());
    if !known {
        figures::skipped("no udevadm with `verify` is installed");
        return;
    }
    let output = tool("udevadm", &["verify", rule.to_str().unwrap()]).unwrap();
    assert!(output.status.success(), "{output:?}");
}
