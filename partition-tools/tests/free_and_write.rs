//! `free` and `write` on real images.

mod support;

use firmware_image::sim::LoopDevice;
use support::{Product, cut, noise, tool};

#[test]
fn files_are_listed_read_put_and_removed_without_mounting() {
    let product = Product::new();
    product.create("device.img", &[]);
    let listed = product.succeed(&["free", "ls", "device.img"]);
    for name in ["client/", ".holdfast/", "updater-linux-x86_64"] {
        assert!(listed.contains(name), "{listed}");
    }
    assert_eq!(product.succeed(&["free", "cat", "device.img", "/client/run.sh"]), "#!/bin/sh\necho hello\n");
    std::fs::write(product.path("mine"), noise(5, 100_000)).unwrap();
    product.succeed(&["free", "put", "device.img", "mine", "my documents/Mine.bin"]);
    let entries = product.json(&["free", "ls", "device.img", "my documents", "--json"]);
    assert_eq!(entries[0]["name"], "Mine.bin");
    assert_eq!(entries[0]["bytes"], 100_000);
    let read = product.run(&["free", "cat", "device.img", "MY DOCUMENTS/mine.bin"]);
    assert!(read.stdout == noise(5, 100_000));
    assert!(product.fail(1, &["free", "rm", "device.img", "my documents"]).contains("--recursive"));
    product.succeed(&["free", "rm", "device.img", "my documents", "-r"]);
    assert!(product.fail(1, &["free", "cat", "device.img", "my documents/mine.bin"]).contains("there is no file"));
    assert!(product.fail(1, &["free", "rm", "device.img", "nothing"]).contains("there is no nothing"));
    assert!(product.fail(1, &["free", "put", "device.img", "mine", "a?b"]).contains("not a path"));
    product.succeed(&["verify", "device.img"]);
    let free = firmware_image::image::gpt::Table::read(
        firmware_image::host::FileZone::open(&product.path("device.img"), firmware_image::host::Access::ReadOnly)
            .unwrap(),
    )
    .unwrap()
    .free()
    .unwrap();
    cut(&product.path("device.img"), free.start, free.length, &product.path("free.img"));
    if let Some(output) = tool("fsck.vfat", &["-n", &product.text("free.img")]) {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.lines().count() == 2, "{said}");
    }
}

#[test]
fn a_file_that_does_not_fit_leaves_the_old_one() {
    let product = Product::new();
    product.create("device.img", &[]);
    std::fs::write(product.path("small"), b"old").unwrap();
    product.succeed(&["free", "put", "device.img", "small", "f"]);
    let big = std::fs::File::create(product.path("big")).unwrap();
    big.set_len(400 << 20).unwrap();
    let said = product.fail(6, &["free", "put", "device.img", "big", "f"]);
    assert!(said.contains("bytes free"), "{said}");
    assert_eq!(product.succeed(&["free", "cat", "device.img", "f"]), "old");
    product.succeed(&["verify", "device.img"]);
}

#[test]
fn two_writers_in_one_image_take_turns() {
    let product = Product::new();
    product.create("device.img", &[]);
    product.create("other.img", &["--force"]);
    let image = product.path("device.img");
    std::fs::write(product.path("f"), b"f").unwrap();
    product.succeed(&["free", "put", "device.img", "f", "f"]);
    let before = std::fs::read(&image).unwrap();
    // As the updater opens it.
    let held = firmware_image::image::Device::open(&image, None, firmware_image::host::Access::ReadWrite).unwrap();
    let create = product.create_arguments("device.img", &["--force"]);
    for writes in [
        &["free", "put", "device.img", "f", "g"][..],
        &["free", "rm", "device.img", "f"],
        &["repair", "device.img"],
        &["write", "other.img", "--to", "device.img", "--force-fixed"],
        &["write", "other.img", "--to", "device.img", "--force-fixed", "--force-mounted", "--clone"],
        &create.iter().map(String::as_str).collect::<Vec<_>>(),
    ] {
        let said = product.fail(7, writes);
        assert!(said.contains("device.img") && said.contains("in use by another program"), "{writes:?}: {said}");
    }
    product.succeed(&["free", "ls", "device.img"]);
    assert!(std::fs::read(&image).unwrap() == before);
    drop(held);
    product.succeed(&["free", "rm", "device.img", "f"]);
    product.succeed(&["repair", "device.img"]);
    product.succeed(&["write", "other.img", "--to", "device.img", "--force-fixed"]);
    product.create("device.img", &["--force"]);
    product.succeed(&["verify", "device.img"]);
}

#[test]
fn a_block_device_that_somebody_else_has_is_not_written_to() {
    let product = Product::new();
    product.create("device.img", &[]);
    std::fs::write(product.path("f"), b"f").unwrap();
    let Some(device) = LoopDevice::over(&product.path("device.img"), &[]) else { return };
    let node = device.node().to_str().unwrap();
    // As the operating system has a disk of which something is mounted.
    let mut options = std::fs::OpenOptions::new();
    firmware_image::image::device::exclusively(options.read(true));
    let mounted = options.open(node).unwrap();
    for writes in [&["free", "put", node, "f", "f"][..], &["free", "rm", node, "client/run.sh"]] {
        let said = product.fail(7, writes);
        assert!(said.contains(node) && said.contains("is mounted, or another program has it"), "{writes:?}: {said}");
    }
    product.create("other.img", &[]);
    let said = product.fail(5, &["write", "other.img", "--to", node, "--force-fixed"]);
    assert!(said.contains(node) && said.contains("--force-mounted"), "{said}");
    product.succeed(&["free", "ls", node]);
    drop(mounted);
    product.succeed(&["free", "put", node, "f", "f"]);
    assert_eq!(product.succeed(&["free", "cat", node, "f"]), "f");
}

#[test]
fn a_write_protected_device_is_read_and_no_write_to_it_is_begun() {
    let product = Product::new();
    product.create("device.img", &[]);
    std::fs::write(product.path("f"), b"f").unwrap();
    let before = std::fs::read(product.path("device.img")).unwrap();
    let Some(device) = LoopDevice::over(&product.path("device.img"), &["--read-only"]) else { return };
    let node = device.node().to_str().unwrap();
    product.succeed(&["verify", node]);
    assert_eq!(product.succeed(&["free", "cat", node, "client/run.sh"]), "#!/bin/sh\necho hello\n");
    product.succeed(&["repair", node]);
    product.create("other.img", &[]);
    for (status, writes) in [
        (1, &["free", "put", node, "f", "f"][..]),
        (1, &["free", "rm", node, "client/run.sh"]),
        (5, &["write", "other.img", "--to", node, "--force-fixed"]),
    ] {
        let said = product.fail(status, writes);
        assert!(said.contains(node) && said.contains("write-protected"), "{writes:?}: {said}");
    }
    drop(device);
    assert!(std::fs::read(product.path("device.img")).unwrap() == before);
}

#[test]
fn write_copies_reads_back_and_gives_the_device_an_identity_of_its_own() {
    let product = Product::new();
    product.create("device.img", &[]);
    // A larger device that holds something else.
    std::fs::write(product.path("stick"), noise(1, 1 << 20)).unwrap();
    std::fs::OpenOptions::new().write(true).open(product.path("stick")).unwrap().set_len(256 << 20).unwrap();
    assert!(product.fail(5, &["write", "device.img", "--to", "stick"]).contains("--force-fixed"));
    let done = product.json(&["write", "device.img", "--to", "stick", "--force-fixed", "--json"]);
    product.succeed(&["verify", "stick", "--keys", "keys"]);
    let (image, stick) =
        (product.json(&["inspect", "device.img", "--json"]), product.json(&["inspect", "stick", "--json"]));
    let (old, new) = (&image["record"]["device_id"], &stick["record"]["device_id"]);
    assert_ne!(old, new);
    assert_eq!(*new, done["device_id"]);
    for slot in stick["slots"].as_array().unwrap() {
        assert_eq!(slot["device_id"], *new, "{slot}");
        assert_eq!(slot["generation"], 1);
    }
    assert_eq!(stick["record"]["release_version"], "1.0.0");
    if let Some(output) = tool("sgdisk", &["-v", &product.text("stick")]) {
        assert!(String::from_utf8_lossy(&output.stdout).contains("No problems found"), "{output:?}");
    }
    // Two devices from one image differ in what computers tell disks apart by.
    std::fs::File::create(product.path("stick2")).unwrap().set_len(200 << 20).unwrap();
    product.succeed(&["write", "device.img", "--to", "stick2", "--force-fixed"]);
    let guid = |name: &str| {
        let zone = firmware_image::host::FileZone::open(&product.path(name), firmware_image::host::Access::ReadOnly);
        firmware_image::image::gpt::Table::read(zone.unwrap()).unwrap().disk_guid
    };
    assert_ne!(guid("stick"), guid("stick2"));
    assert_ne!(guid("stick"), guid("device.img"));
}

#[test]
fn a_clone_is_the_image_byte_for_byte() {
    let product = Product::new();
    product.create("device.img", &[]);
    std::fs::File::create(product.path("stick")).unwrap().set_len(200 << 20).unwrap();
    product.succeed(&["write", "device.img", "--to", "stick", "--force-fixed", "--clone"]);
    assert!(std::fs::read(product.path("device.img")).unwrap() == std::fs::read(product.path("stick")).unwrap());
}

#[test]
fn write_refuses_small_targets_directories_and_damaged_images() {
    let product = Product::new();
    product.create("device.img", &[]);
    std::fs::File::create(product.path("small")).unwrap().set_len(100 << 20).unwrap();
    let said = product.fail(5, &["write", "device.img", "--to", "small", "--force-fixed"]);
    assert!(said.contains("100 MiB") && said.contains("200 MiB"), "{said}");
    product.fail(5, &["write", "device.img", "--to", ".", "--force-fixed"]);
    std::fs::write(product.path("noise"), noise(2, 1 << 20)).unwrap();
    assert!(product.fail(4, &["write", "noise", "--to", "small", "--force-fixed"]).contains("not a Holdfast"));
    product.fail(1, &["write", "device.img", "--to", "gone", "--force-fixed"]);
}

#[test]
#[cfg(unix)]
fn an_image_is_not_written_onto_itself_by_any_of_its_names() {
    let product = Product::new();
    product.create("device.img", &[]);
    let image = product.path("device.img");
    std::fs::hard_link(&image, product.path("linked.img")).unwrap();
    std::os::unix::fs::symlink(&image, product.path("symbolic.img")).unwrap();
    let before = std::fs::read(&image).unwrap();
    let device = LoopDevice::over(&image, &[]);
    let node = device.as_ref().map(|device| device.node().to_str().unwrap());
    for (from, to) in [("device.img", "device.img"), ("device.img", "linked.img"), ("symbolic.img", "linked.img")]
        .into_iter()
        .chain(node.into_iter().flat_map(|node| [("linked.img", node), (node, "device.img"), (node, node)]))
    {
        let write = ["write", from, "--to", to, "--force-fixed", "--force-mounted"];
        for more in [&[][..], &["--clone"], &["--dry-run"]] {
            let said = product.fail(5, &[&write[..], more].concat());
            assert!(said.contains("name another target"), "{said}");
        }
    }
    assert!(std::fs::read(&image).unwrap() == before);
}

/// A card that holds something else already.
fn used_card(product: &Product, name: &str, bytes: usize) {
    std::fs::write(product.path(name), vec![0xAA; bytes]).unwrap();
}

/// The table as `sfdisk -d` shows it: a line for each partition, by number.
fn partitions(disk: &str) -> Option<Vec<String>> {
    let output = tool("sfdisk", &["-d", disk])?;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = said.lines().filter(|line| line.starts_with(disk));
    Some(lines.map(|line| line[disk.len()..].split_whitespace().collect::<Vec<_>>().join(" ")).collect())
}

/// Adds a board's partitions behind the zones, with bytes in each.
fn add_a_boards_partitions(product: &Product, image: &str) {
    use std::io::Write as _;
    let mut sfdisk = std::process::Command::new("sfdisk");
    sfdisk.args(["--quiet", "--append", "--no-reread", "--no-tell-kernel"]).arg(product.path(image));
    sfdisk.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut child = sfdisk.spawn().unwrap();
    let script = b"size=16MiB, type=uefi, name=boot, attrs=\"LegacyBIOSBootable\"\ntype=linux, name=root\n";
    child.stdin.take().unwrap().write_all(script).unwrap();
    assert!(child.wait().unwrap().success());
    // At their beginning only: what comes behind that is zeros, and no less theirs.
    for (place, byte) in others(product, image).into_iter().zip([0xB0, 0xF5]) {
        support::poke(&product.path(image), place.start as u64, &[byte; 4096]);
    }
}

/// Where the partitions are that are no zone.
fn others(product: &Product, disk: &str) -> Vec<std::ops::Range<usize>> {
    let shown = product.json(&["inspect", disk, "--json"]);
    let others = shown["others"].as_array().unwrap().clone();
    let names: Vec<&str> = others.iter().map(|other| other["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["boot", "root"]);
    let number = |other: &serde_json::Value, name: &str| other[name].as_u64().unwrap() as usize;
    others.iter().map(|other| number(other, "start")..number(other, "start") + number(other, "bytes")).collect()
}

#[test]
fn a_boards_own_partitions_survive_write_to_a_larger_card_from_either_copy_of_the_table() {
    let product = Product::new();
    if tool("sfdisk", &["--version"]).is_none() {
        return;
    }
    product.create("card.img", &["--leave", "48MiB"]);
    add_a_boards_partitions(&product, "card.img");
    let before = partitions(&product.text("card.img")).unwrap();
    assert_eq!(before.len(), 5);
    for (card, damaged) in [("card", None), ("card from the backup", Some(512))] {
        if let Some(at) = damaged {
            support::poke(&product.path("card.img"), at, &[0; 512]);
        }
        used_card(&product, card, 300 << 20);
        product.succeed(&["write", "card.img", "--to", card, "--force-fixed"]);
        product.succeed(&["verify", card, "--keys", "keys"]);
        let after = partitions(&product.text(card)).unwrap();
        // The board's are what they were, with the numbers by which its boot loader and kernel know them.
        assert_eq!(after[3..], before[3..]);
        // The zones are other ones of the same size.
        for (one, other) in after.iter().zip(&before).take(3) {
            assert_ne!(one, other);
            assert_eq!(one.split(", ").take(2).collect::<Vec<_>>(), other.split(", ").take(2).collect::<Vec<_>>());
        }
        let (bytes, image) =
            (std::fs::read(product.path(card)).unwrap(), std::fs::read(product.path("card.img")).unwrap());
        for place in others(&product, card) {
            assert!(bytes[place.clone()] == image[place.clone()], "{place:?}");
        }
        if let Some(output) = tool("sgdisk", &["-v", &product.text(card)]) {
            assert!(String::from_utf8_lossy(&output.stdout).contains("No problems found"), "{output:?}");
        }
    }
}

#[test]
fn a_table_of_other_length_with_an_mbr_of_a_boards_own_and_a_loader_before_it_is_written_as_it_is() {
    let product = Product::new();
    if tool("sfdisk", &["--version"]).is_none() {
        return;
    }
    product.create("card.img", &["--leave", "48MiB"]);
    add_a_boards_partitions(&product, "card.img");
    // Fewer entries, so that a loader may stand in sector 16, as the ROM of some boards wants it; and a hybrid MBR.
    let image = product.path("card.img");
    let dump = String::from_utf8(tool("sfdisk", &["-d", &product.text("card.img")]).unwrap().stdout).unwrap();
    let script = product.path("script");
    std::fs::write(&script, dump.replace("label: gpt", "label: gpt\ntable-length: 56")).unwrap();
    let mut sfdisk = std::process::Command::new("sfdisk");
    sfdisk.args(["--quiet", "--no-reread", "--no-tell-kernel", "--wipe", "never"]).arg(&image);
    let output = sfdisk.stdin(std::fs::File::open(&script).unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let loader = [0x5A; 512];
    support::poke(&image, 16 * 512, &loader);
    let entry = [0x00, 0, 2, 0, 0x0C, 0xFF, 0xFF, 0xFF, 0, 0x20, 0, 0, 0, 0x10, 0, 0];
    support::poke(&image, 462, &entry);
    let before = partitions(&product.text("card.img")).unwrap();
    used_card(&product, "card", 300 << 20);
    product.succeed(&["write", "card.img", "--to", "card", "--force-fixed"]);
    let bytes = std::fs::read(product.path("card")).unwrap();
    // All that is between the table and the zones, also where nothing is.
    assert_eq!(bytes[16 * 512..17 * 512], loader);
    assert!(bytes[16 * 512..4 << 20] == std::fs::read(&image).unwrap()[16 * 512..4 << 20]);
    assert_eq!(bytes[462..478], entry);
    assert_eq!(bytes[512 + 80], 56);
    assert_eq!(partitions(&product.text("card")).unwrap()[3..], before[3..]);
    product.succeed(&["verify", "card", "--keys", "keys"]);
}

#[test]
fn an_image_with_a_hole_for_every_zero_is_written_as_it_reads() {
    let product = Product::new();
    std::fs::write(product.path("zeros"), [&noise(1, 5000)[..], &[0; 300_000], &noise(2, 5000)].concat()).unwrap();
    product.create("device.img", &[]);
    product.succeed(&["free", "put", "device.img", "zeros", "zeros"]);
    // As decompression leaves an image.
    let (from, to) = (product.text("device.img"), product.text("thin.img"));
    let Some(output) = tool("cp", &["--sparse=always", &from, &to]) else { return };
    assert!(output.status.success(), "{output:?}");
    used_card(&product, "card", 200 << 20);
    let done = product.json(&["write", "thin.img", "--to", "card", "--force-fixed", "--json"]);
    product.succeed(&["verify", "card", "--keys", "keys"]);
    let zeros = product.run(&["free", "cat", "card", "zeros"]).stdout;
    assert!(zeros == std::fs::read(product.path("zeros")).unwrap());
    // What nobody has is not written.
    assert!(done["bytes"].as_u64().unwrap() < 80 << 20, "{done}");
    let free = firmware_image::image::gpt::Table::read(
        firmware_image::host::FileZone::open(&product.path("card"), firmware_image::host::Access::ReadOnly).unwrap(),
    );
    let free = free.unwrap().free().unwrap();
    cut(&product.path("card"), free.start, free.length, &product.path("free.img"));
    if let Some(output) = tool("fsck.vfat", &["-n", &product.text("free.img")]) {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.lines().count() == 2, "{said}");
    }
}

#[test]
fn leave_keeps_the_end_of_the_disk_free_and_says_what_does_not_fit() {
    let product = Product::new();
    product.create("card.img", &["--leave", "48MiB"]);
    let shown = product.json(&["inspect", "card.img", "--json"]);
    let ends = shown["zones"].as_array().unwrap().iter();
    let end = ends.map(|zone| zone["start"].as_u64().unwrap() + zone["bytes"].as_u64().unwrap()).max().unwrap();
    assert!(((148 << 20)..=(152 << 20)).contains(&end), "{end}");
    assert_eq!(shown["others"].as_array().unwrap().len(), 0);
    let small = ["create", "--profile", "stick", "--out", "small.img", "--size", "200MiB", "--leave", "150MiB"];
    let more = ["--keys", "keys", "--product", support::PRODUCT, "--bootstrap", "linux-x86_64=bootstrap"];
    let said = product.fail(6, &[&small[..], &more, &["--updater", "linux-x86_64=updater"]].concat());
    assert!(said.contains("157286400 are to be left"), "{said}");
    assert!(!product.path("small.img").exists());
}

#[test]
#[cfg(unix)]
fn a_disk_of_other_sectors_than_an_images_is_refused_before_the_first_write() {
    let product = Product::new();
    product.create("device.img", &[]);
    for (sector_bytes, fits) in [(4096, false), (512, true)] {
        used_card(&product, "disk", 240 << 20);
        let Some(disk) = LoopDevice::over(&product.path("disk"), &[&format!("--sector-size={sector_bytes}")]) else {
            return;
        };
        let node = disk.node().to_str().unwrap();
        let write = ["write", "device.img", "--to", node, "--force-fixed"];
        match fits {
            true => {
                product.succeed(&write);
                product.succeed(&["verify", node, "--keys", "keys"]);
            }
            false => {
                let dry_run = [&write[..], &["--dry-run"]].concat();
                for arguments in [&write[..], &dry_run] {
                    let said = product.fail(5, arguments);
                    assert!(said.contains("sectors of 4096 bytes"), "{said}");
                }
                drop(disk);
                assert!(std::fs::read(product.path("disk")).unwrap().iter().all(|byte| *byte == 0xAA));
            }
        }
    }
}

/// Where `bytes` stand in a file.
fn places(file: &[u8], bytes: &[u8]) -> Vec<usize> {
    let first = |at: &usize| file[*at..].starts_with(bytes);
    (0..file.len() - bytes.len()).filter(|at| file[*at] == bytes[0]).filter(first).collect()
}

#[test]
fn names_on_a_hostile_medium_do_not_steer_the_terminal_and_are_exact_as_json() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let product = Product::new();
    product.create("device.img", &[]);
    std::fs::write(product.path("mine"), b"mine").unwrap();
    product.succeed(&["free", "put", "device.img", "mine", "QXQXa.txt"]);
    let image = product.path("device.img");
    let bytes = std::fs::read(&image).unwrap();
    // The name that Linux sees of a file in the virtual zone, and the long name of one in the free zone.
    for (old, new) in [
        (b"READ ME FIRST.html".to_vec(), b"A\x1b[2J\x1b]0;owned!\x07.x".to_vec()),
        (utf16("QXQXa"), utf16("\u{202e}X\u{200b}Xa")),
    ] {
        let found = places(&bytes, &old);
        assert!(old.len() == new.len() && !found.is_empty());
        found.into_iter().for_each(|at| support::poke(&image, at as u64, &new));
    }
    let listed = product.json(&["virtual", "ls", "device.img", "--json"]);
    let exact = |path: &serde_json::Value| path["path"] == "A\u{1b}[2J\u{1b}]0;owned!\u{7}.x";
    assert!(listed.as_array().unwrap().iter().any(exact), "{listed}");
    let listed = product.json(&["free", "ls", "device.img", "--json"]);
    let odd = |path: &serde_json::Value| path["name"].as_str().unwrap().starts_with('\u{202e}');
    assert!(listed.as_array().unwrap().iter().any(odd), "{listed}");
    let mut all = String::new();
    for (arguments, shown) in [
        (&["virtual", "ls", "device.img"][..], "A\\u{1b}[2J\\u{1b}]0;owned!\\u{7}.x"),
        (&["free", "ls", "device.img"], "\\u{202e}"),
        (&["verify", "device.img"], ""),
        (&["inspect", "device.img"], ""),
        (&["free", "cat", "device.img", "\u{1b}[2J"], "\\u{1b}[2J"),
        (&["virtual", "cat", "device.img", "\u{202e}x"], "\\u{202e}x"),
    ] {
        let output = product.run(arguments);
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        assert!(said.contains(shown), "{arguments:?}: {said:?}");
        all += &said;
    }
    let steers = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202e}' | '\u{200b}');
    assert!(!all.contains(steers), "{all:?}");
}
