//! `free` and `write` on real images.

mod support;

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
    let image = product.path("device.img");
    let held = firmware_image::image::Device::open(&image, None, firmware_image::host::Access::ReadWrite).unwrap();
    std::fs::write(product.path("f"), b"f").unwrap();
    assert!(product.fail(7, &["free", "put", "device.img", "f", "f"]).contains("in use"));
    product.succeed(&["free", "ls", "device.img"]);
    drop(held);
    product.succeed(&["free", "put", "device.img", "f", "f"]);
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
