//! `gadget`: files for a board that shows a dual device. That a kernel takes them is shown in `qemu-tests`.
#![cfg(unix)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use support::{PRODUCT, Product, tool};

const SCRIPT: &str = "usr/local/lib/holdfast/acme-notes/gadget";
const UNIT: &str = "etc/systemd/system/holdfast-gadget-acme-notes.service";
const SERIAL: &str = "HF0000000001";

fn create(product: &Product, disk: &str, cd: &str) {
    let what = ["create", "--profile", "dual", "--out", disk, "--cd-out", cd, "--size", "200MiB", "--keys", "keys"];
    let more = ["--product", PRODUCT, "--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"];
    product.succeed(&[&what[..], &more].concat());
}

fn dual() -> Product {
    let product = Product::new();
    create(&product, "disk.img", "cd.iso");
    fs::create_dir_all(product.path("root/etc/systemd/system")).unwrap();
    fs::create_dir_all(product.path("root/usr/local/lib")).unwrap();
    product
}

fn gadget<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["gadget", "disk.img", "--virtual", "cd.iso"], more].concat()
}

fn text(product: &Product, more: &[&str], index: usize) -> String {
    let found = product.json(&[&gadget(more)[..], &["--json"]].concat());
    found["files"][index]["text"].as_str().unwrap().to_owned()
}

#[test]
fn the_script_names_both_halves_and_the_devices_own_number() {
    let product = dual();
    let script = text(&product, &[], 0);
    let id = product.json(&["inspect", "disk.img", "--virtual", "cd.iso", "--json"])["record"]["device_id"].clone();
    let id = id.as_str().unwrap().to_uppercase();
    let at = |name: &str| product.path(name).canonicalize().unwrap().display().to_string();
    for line in [
        "name='holdfast-gadget-acme-notes'".to_owned(),
        format!("cd_image='{}'", at("cd.iso")),
        format!("disk_image='{}'", at("disk.img")),
        "udc=''".into(),
        "vendor_id=0x1d6b".into(),
        "product_id=0x0104".into(),
        "product='Acme Notes'".into(),
        format!("serial='{id}'"),
        "cd_inquiry='HoldfastAcme Notes CD   0001'".into(),
        "disk_inquiry='HoldfastAcme Notes DISK 0001'".into(),
        "stall=1".into(),
    ] {
        assert!(script.lines().any(|found| found == line), "{line}\nin\n{script}");
    }
    assert!(script.starts_with("#!/bin/sh\n# Holdfast: ") && !script.contains("{{"), "{script}");
    let unit = text(&product, &[], 1);
    assert!(unit.contains("ExecStart=/usr/local/lib/holdfast/acme-notes/gadget start\n"), "{unit}");
    assert!(unit.contains(&format!("RequiresMountsFor=\"{}\" \"{}\"\n", at("cd.iso"), at("disk.img"))), "{unit}");
    assert!(unit.contains("WantedBy=usb-gadget.target\n"), "{unit}");
}

#[test]
fn what_is_asked_for_stands_in_the_script_and_no_word_breaks_out_of_it() {
    let product = dual();
    let evil = "Bob's $(touch pwned) \"`id`\" {{CD}}";
    let more =
        ["--udc", "20980000.usb", "--usb-id", "1209:AbCd", "--serial", SERIAL, "--no-stall", "--manufacturer", evil];
    let places = ["--board-disk", "/dev/mmcblk0p3", "--board-cd", "/srv/my cd's/a.iso"];
    let script = text(&product, &[&more[..], &places].concat(), 0);
    for line in
        ["udc='20980000.usb'", "vendor_id=0x1209", "product_id=0xabcd", "stall=0", "disk_image='/dev/mmcblk0p3'"]
    {
        assert!(script.lines().any(|found| found == line), "{line}\nin\n{script}");
    }
    // A shell reads back what was said.
    let settings = script.split("\nconfigfs=").next().unwrap();
    let shown = format!("{settings}\nprintf '%s|' \"$manufacturer\" \"$cd_image\" \"$serial\" \"$cd_inquiry\"");
    fs::write(product.path("show.sh"), shown).unwrap();
    let output = std::process::Command::new("sh").arg("show.sh").current_dir(product.dir.path()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("{evil}|/srv/my cd's/a.iso|{SERIAL}|Bob's $(Acme Notes CD   0001|"));
    assert!(!product.path("pwned").exists());
}

#[test]
fn every_shell_of_a_small_board_understands_the_script() {
    let product = dual();
    fs::write(product.path("gadget.sh"), text(&product, &[], 0)).unwrap();
    let script = product.text("gadget.sh");
    let mut understood = 0;
    for shell in [&["sh"][..], &["dash"], &["busybox", "sh"], &["bash", "--posix"]] {
        let run = |more: &[&str]| tool(shell[0], &[&shell[1..], more].concat());
        let Some(output) = run(&["-n", &script]) else { continue };
        assert!(output.status.success(), "{output:?}");
        let usage = run(&[&script, "dance"]).unwrap();
        assert_eq!(usage.status.code(), Some(2), "{usage:?}");
        // Nothing of that name is shown here.
        let status = run(&[&script, "status"]).unwrap();
        assert_eq!(status.status.code(), Some(3), "{status:?}");
        assert!(run(&[&script, "stop"]).unwrap().status.success());
        understood += 1;
    }
    assert!(understood > 0);
}

#[test]
fn install_writes_script_and_unit_and_uninstall_leaves_nothing_but_the_images() {
    let product = dual();
    fs::create_dir_all(product.path("root/srv")).unwrap();
    for image in ["disk.img", "cd.iso"] {
        fs::rename(product.path(image), product.path("root/srv").join(image)).unwrap();
    }
    let files = || {
        let mut found = Vec::new();
        let mut left = vec![product.path("root")];
        while let Some(path) = left.pop() {
            if !path.is_symlink() && path.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                found.push(path.strip_prefix(product.path("root")).unwrap().to_path_buf());
            }
        }
        found.sort();
        found
    };
    let before = files();
    let device = ["gadget", "root/srv/disk.img", "--virtual", "root/srv/cd.iso", "--root", "root"];
    product.succeed(&[&device[..], &["--install", "--dry-run"]].concat());
    assert_eq!(files(), before);
    product.succeed(&[&device[..], &["--install"]].concat());
    let after = files();
    assert!(after.contains(&PathBuf::from(SCRIPT)) && after.contains(&PathBuf::from(UNIT)), "{after:?}");
    let script = product.path("root").join(SCRIPT);
    assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(fs::read_to_string(&script).unwrap().contains("disk_image='/srv/disk.img'\n"));
    // Where there is a systemctl, it starts with the board.
    let wanted = product.path("root/etc/systemd/system/usb-gadget.target.wants/holdfast-gadget-acme-notes.service");
    if tool("systemctl", &["--version"]).is_some() {
        assert!(wanted.is_symlink(), "{after:?}");
    }
    product.succeed(&["gadget", "--uninstall", "--product", PRODUCT, "--root", "root"]);
    assert_eq!(files(), before);
    product.succeed(&["gadget", "--uninstall", "--product", PRODUCT, "--root", "root"]);
}

#[test]
fn halves_that_do_not_belong_together_are_refused() {
    let product = dual();
    // Two units of a product share the CD.
    create(&product, "disk2.img", "cd2.iso");
    product.succeed(&["gadget", "disk2.img", "--virtual", "cd.iso"]);
    // Another product's disk.
    let other = Product::new();
    create(&other, "disk.img", "cd.iso");
    let said = product.fail(1, &["gadget", &other.text("disk.img"), "--virtual", "cd.iso"]);
    assert!(said.contains("not halves of one device"), "{said}");
    // Its CD under our keys.
    let said = product.fail(3, &["gadget", "disk.img", "--virtual", &other.text("cd.iso"), "--keys", "keys"]);
    assert!(said.contains("is not to be trusted"), "{said}");
    // A stick has no CD, and a stick's virtual zone is none.
    product.create("stick.img", &[]);
    let said = product.fail(1, &["gadget", "stick.img", "--virtual", "cd.iso"]);
    assert!(said.contains("a virtual zone of its own"), "{said}");
    product.fail(2, &["gadget", "stick.img"]);
    product.fail(4, &["gadget", "cd.iso", "--virtual", "cd.iso"]);
}

#[test]
fn a_cd_that_a_drive_would_not_read_or_not_whole_is_refused() {
    let product = dual();
    assert!(fs::metadata(product.path("cd.iso")).unwrap().len() >= 300 * 2048, "create makes it long enough");
    for (bytes, word) in [(299 * 2048, "less than 300"), (256 * 60 * 75 * 2048, "would be lost")] {
        let cd = fs::File::create(product.path("other.iso")).unwrap();
        cd.set_len(bytes).unwrap();
        let said = product.fail(1, &["gadget", "disk.img", "--virtual", "other.iso"]);
        assert!(said.contains(word), "{said}");
    }
    fs::create_dir(product.path("mounted")).unwrap();
    product.fail(1, &["gadget", "disk.img", "--virtual", "mounted"]);
}

#[test]
fn what_usb_or_a_unit_cannot_hold_is_refused() {
    let product = dual();
    let long = "X".repeat(127);
    for more in [
        &["--serial", "SHORT"][..],
        &["--serial", "hf0000000001"],
        &["--serial", &long],
        &["--manufacturer", ""],
        &["--manufacturer", "a\nb"],
        &["--board-disk", "relative"],
        &["--board-disk", "/a\"b"],
        &["--board-cd", "/a\nb"],
    ] {
        product.fail(1, &gadget(more));
    }
    for more in [&["--usb-id", "1d6b"][..], &["--usb-id", "1d6b:01040"], &["--usb-id", "xxxx:0104"], &["--udc", "../x"]]
    {
        product.fail(2, &gadget(more));
    }
}

#[test]
fn an_image_with_holes_is_told_of() {
    let product = dual();
    let notes = product.json(&gadget(&["--json"]))["notes"].to_string();
    assert!(notes.contains("has holes") && notes.contains("fallocate"), "{notes}");
}

#[test]
fn systemd_finds_nothing_to_complain_about() {
    let product = dual();
    let unit = text(&product, &[], 1).replace("/usr/local/lib/holdfast/acme-notes/gadget", "/bin/true");
    let at = product.text("holdfast-gadget-acme-notes.service");
    for (broken, expected) in [("", true), ("\n[Service]\nType=onesot\n", false)] {
        fs::write(&at, format!("{unit}{broken}")).unwrap();
        let Some(output) = tool("systemd-analyze", &["verify", &at]) else { return };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(!said.lines().any(|line| line.contains("holdfast-gadget")), expected, "{said}");
    }
}
