//! `create`, `inspect` and `verify` on real images, with the tools that users have.

mod support;

use firmware_image::host::{Access, FileZone};
use firmware_image::image::gpt::Table;
use release_store::keys::{KeyDir, Passphrase};
use support::{EPOCH, PASSPHRASE, PRODUCT, Product, cut, poke, tool};

fn table(product: &Product, image: &str) -> Table {
    Table::read(FileZone::open(&product.path(image), Access::ReadOnly).unwrap()).unwrap()
}

#[test]
fn a_stick_is_whole_and_the_tools_that_people_have_agree() {
    let product = Product::new();
    product.create("device.img", &["--offline-source"]);
    let found = table(&product, "device.img");
    let (free, disc) = (found.free().unwrap(), found.virtual_zone().unwrap());
    cut(&product.path("device.img"), free.start, free.length, &product.path("free.img"));
    cut(&product.path("device.img"), disc.start, disc.length, &product.path("virtual.iso"));
    if let Some(output) = tool("fsck.vfat", &["-n", &product.text("free.img")]) {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.lines().count() == 2, "{said}");
    }
    if let Some(output) = tool("mtype", &["-i", &product.text("free.img"), "::client/run.sh"]) {
        assert_eq!(output.stdout, b"#!/bin/sh\necho hello\n");
    }
    if let Some(output) =
        tool("mcopy", &["-i", &product.text("free.img"), "::client/data/large.bin", &product.text("back")])
    {
        assert!(output.status.success());
        assert!(std::fs::read(product.path("back")).unwrap() == support::noise(11, 3_000_000));
    }
    if let Some(output) = tool("sfdisk", &["--verify", &product.text("device.img")]) {
        assert!(output.status.success(), "{output:?}");
    }
    if let Some(output) = tool("bsdtar", &["-tvf", &product.text("virtual.iso")]) {
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        for name in ["READ ME FIRST.html", "autorun.inf", "autorun.sh", "device.cfg", "bootstrap-linux-x86_64"] {
            assert!(listed.contains(name), "{name} in {listed}");
        }
        assert!(listed.contains("store/metadata/timestamp.json") && listed.contains(".pack"), "{listed}");
        let program = listed.lines().find(|line| line.ends_with("bootstrap-linux-x86_64")).unwrap();
        assert!(program.starts_with("-r-xr-xr-x"), "{program}");
    }
    if let Some(output) = tool("bsdtar", &["-xOf", &product.text("virtual.iso"), "READ ME FIRST.html"]) {
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(page.contains(PRODUCT) && page.contains("updater-linux-x86_64") && !page.contains("{{"), "{page}");
    }
    let said = product.succeed(&["inspect", "device.img"]);
    assert!(said.contains("release   1.0.0 (serial 1), proven") && !said.contains("DAMAGED"), "{said}");
    product.succeed(&["verify", "device.img", "--keys", "keys"]);
}

#[test]
fn a_stick_and_no_dual_device_has_the_launcher_for_windows_in_its_free_zone_and_the_configuration_beside_it() {
    let product = Product::new();
    let windows = ["--bootstrap", "windows-x86_64=bootstrap.exe", "--updater", "windows-x86_64=updater.exe"];
    product.create("stick.img", &windows);
    let free = |image: &str, path: &str| product.run(&["free", "cat", image, path]);
    let config = product.run(&["virtual", "cat", "stick.img", "device.cfg"]).stdout;
    assert_eq!(free("stick.img", "bootstrap.cfg").stdout, config);
    let launcher = product.run(&["virtual", "cat", "stick.img", "bootstrap-windows-x86_64.exe"]).stdout;
    assert!(!launcher.is_empty() && free("stick.img", "bootstrap-windows-x86_64.exe").stdout == launcher);
    let dual = ["create", "--profile", "dual", "--out", "dual.img", "--cd-out", "dual.iso", "--size", "200MiB"];
    let more = ["--keys", "keys", "--product", PRODUCT, "--client-command", "client/run.sh"];
    product.succeed(&[&dual[..], &more, &windows].concat());
    for name in ["bootstrap.cfg", "bootstrap-windows-x86_64.exe"] {
        assert_eq!(free("dual.img", name).status.code(), Some(1), "{name}");
    }
}

#[test]
fn the_offline_source_is_a_store_that_a_device_can_install_from() {
    use release_store::transport::Directory;
    use release_store::trust::{MemoryCache, Trust};
    let product = Product::new();
    product.create("device.img", &["--offline-source"]);
    let disc = table(&product, "device.img").virtual_zone().unwrap();
    cut(&product.path("device.img"), disc.start, disc.length, &product.path("virtual.iso"));
    std::fs::create_dir(product.path("out")).unwrap();
    let Some(output) = tool("bsdtar", &["-xf", &product.text("virtual.iso"), "-C", &product.text("out")]) else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let root = std::fs::read(product.path("keys/root.json")).unwrap();
    let store = Directory::new(product.path("out/store"));
    let releases = Trust::new(&root, MemoryCache::new()).unwrap().offline(&store).unwrap();
    let release = releases.newest("stable").unwrap();
    release.sealed.fetch(&release.manifest_name(), &store).unwrap();
}

#[test]
fn the_first_start_finds_the_configurations_copy_already_in_the_free_zone() {
    let product = Product::new();
    product.create("device.img", &[]);
    let signed = product.run(&["virtual", "cat", "device.img", "device.cfg"]).stdout;
    let copy = product.run(&["free", "cat", "device.img", ".holdfast/trust/device.cfg"]).stdout;
    assert!(!signed.is_empty() && copy == signed);
}

#[test]
fn equal_inputs_and_an_equal_seed_make_equal_bytes() {
    let product = Product::new();
    product.create("1.img", &["--seed", "x", "--offline-source"]);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    product.create("2.img", &["--seed", "x", "--offline-source"]);
    product.create("3.img", &["--seed", "y", "--offline-source"]);
    let read = |name: &str| std::fs::read(product.path(name)).unwrap();
    let first = read("1.img");
    assert!(first == read("2.img"));
    assert!(first != read("3.img"));
}

#[test]
fn holes_stay_holes() {
    let product = Product::new();
    product.create("device.img", &[]);
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::fs::MetadataExt as _;
        let held = std::fs::metadata(product.path("device.img")).unwrap().st_blocks() * 512;
        assert!(held < 24 << 20, "{held} bytes are held");
    }
}

#[test]
fn a_device_for_several_platforms_has_every_launcher_and_every_updater_in_each_place() {
    let product = Product::new();
    let platforms = ["linux-aarch64", "linux-x86_64", "windows-x86_64"];
    let arm = ["--bootstrap", "linux-aarch64=bootstrap-arm", "--updater", "linux-aarch64=updater-arm"];
    let windows = ["--bootstrap", "windows-x86_64=bootstrap.exe", "--updater", "windows-x86_64=updater.exe"];
    product.create("device.img", &[arm, windows].concat());
    product.succeed(&["verify", "device.img", "--keys", "keys"]);
    let found = product.json(&["inspect", "device.img", "--json"]);
    let mut places = std::collections::BTreeMap::<&str, Vec<&str>>::new();
    for updater in found["updaters"].as_array().unwrap() {
        assert_eq!(updater["state"], "sound", "{updater}");
        places.entry(updater["place"].as_str().unwrap()).or_default().push(updater["platform"].as_str().unwrap());
    }
    // Two backups in the hidden zone and their mirror; the free and the virtual zone.
    assert_eq!(places.len(), 5, "{found}");
    assert!(places.values().all(|held| *held == platforms), "{places:?}");
    for platform in platforms {
        let ending = if platform.starts_with("windows") { ".exe" } else { "" };
        let (updater, launcher) = (format!("updater-{platform}{ending}"), format!("bootstrap-{platform}{ending}"));
        let plain = product.run(&["virtual", "cat", "device.img", &updater]).stdout;
        assert!(plain.len() > 1000 && product.run(&["free", "cat", "device.img", &updater]).stdout == plain);
        assert!(product.run(&["virtual", "cat", "device.img", &launcher]).stdout.len() > 1000);
    }
}

#[test]
fn a_dual_device_has_its_cd_with_the_factory_backup_at_its_tail() {
    let product = Product::new();
    let arguments = ["create", "--profile", "dual", "--out", "disk.img", "--cd-out", "cd.iso", "--size", "200MiB"];
    let more = ["--keys", "keys", "--product", PRODUCT, "--bootstrap", "linux-x86_64=bootstrap", "--updater"];
    let rest = ["linux-x86_64=updater", "--client-command", "client/run.sh"];
    product.succeed(&[&arguments[..], &more, &rest].concat());
    assert_eq!(table(&product, "disk.img").virtual_zone(), None);
    let found = product.json(&["inspect", "disk.img", "--virtual", "cd.iso", "--json"]);
    let slots = found["slots"].as_array().unwrap();
    let tail = slots.iter().find(|slot| slot["place"] == "factory backup on the CD").unwrap();
    assert_eq!((tail["state"].as_str(), tail["generation"].as_u64()), (Some("sound"), Some(1)));
    assert_eq!(found["record"]["release_version"], serde_json::Value::Null);
    product.succeed(&["verify", "disk.img", "--virtual", "cd.iso"]);
    if let Some(output) = tool("bsdtar", &["-tf", &product.text("cd.iso")]) {
        assert!(String::from_utf8_lossy(&output.stdout).contains("device.cfg"));
    }
    // Without the CD the disk says what is missing, and how to name it.
    let named = "name that with --virtual cd.iso";
    let verified = product.run(&["verify", "disk.img"]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.code() == Some(1) && said.contains(named), "{said}");
    assert!(product.succeed(&["inspect", "disk.img"]).contains(named));
    std::fs::File::create(product.path("stick")).unwrap().set_len(200 << 20).unwrap();
    assert!(product.fail(1, &["write", "disk.img", "--to", "stick", "--force-fixed"]).contains(named));
    product.succeed(&["write", "disk.img", "--to", "stick", "--force-fixed", "--virtual", "cd.iso"]);
}

#[test]
fn a_factory_export_makes_devices_without_a_passphrase() {
    use release_store::keys::{ConfigRequest, FactoryExport, KeyDir, KeySource, Passphrase};
    let product = Product::new();
    let passphrase = Passphrase::new(PASSPHRASE.to_owned()).unwrap();
    let keys = KeyDir::open(&product.path("keys")).unwrap();
    let signed = KeySource::open(&product.path("keys"))
        .unwrap()
        .updater(
            Some(&passphrase),
            "linux-x86_64",
            std::fs::read(product.path("updater")).unwrap(),
            firmware_image::updater_image::UpdaterVersion { major: 2, minor: 0, patch: 1 },
            Default::default(),
        )
        .unwrap();
    let request = ConfigRequest {
        channel: "stable".into(),
        profile: firmware_image::device_config::Profile::Stick,
        align_bytes: 4 << 20,
        servers: vec![("https://example.com/store".into(), 1)],
        client_commands: vec![(String::new(), "client/run.sh".into())],
        policies: Default::default(),
    };
    FactoryExport::create(&product.path("factory"), &keys, &passphrase, &request, &[signed]).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_partition-tools"))
        .args([
            "create",
            "--profile",
            "stick",
            "--out",
            "f.img",
            "--size",
            "200MiB",
            "--keys",
            "factory",
            "--product",
            PRODUCT,
        ])
        .args(["--bootstrap", "linux-x86_64=bootstrap"])
        .current_dir(product.dir.path())
        .env_remove("HOLDFAST_PASSPHRASE")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = product.json(&["inspect", "f.img", "--json"]);
    assert_eq!(found["config"]["servers"][0][0], "https://example.com/store");
    assert!(found["updaters"].as_array().unwrap().iter().all(|one| one["version"] == "2.0.1"));
}

#[test]
#[cfg(unix)]
fn a_reader_that_has_gone_is_no_fault_and_data_that_cannot_be_written_is_one() {
    use std::process::{Command, Stdio};
    let product = Product::new();
    product.create("device.img", &[]);
    std::fs::copy(product.path("device.img"), product.path("bad.img")).unwrap();
    poke(&product.path("bad.img"), 512, &[0; 16]);
    let run = |arguments: &[&str], out: Stdio, err: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_partition-tools"));
        command.args(arguments).current_dir(product.dir.path()).env("HOLDFAST_PASSPHRASE", PASSPHRASE);
        command.stdout(out).stderr(err).spawn().unwrap().wait_with_output().unwrap()
    };
    let gone = || Stdio::from(std::io::pipe().unwrap().1);
    for (arguments, status) in [
        (&["inspect", "device.img"][..], 0),
        (&["inspect", "device.img", "--json"], 0),
        (&["verify", "device.img", "--json"], 0),
        (&["verify", "bad.img"], 1),
        (&["free", "ls", "device.img"], 0),
        (&["free", "cat", "device.img", "client/data/large.bin"], 0),
        (&["virtual", "ls", "device.img"], 0),
        (&["virtual", "cat", "device.img", "updater-linux-x86_64"], 0),
        (&["host", "device.img"], 0),
        (&["repair", "bad.img", "--dry-run"], 0),
    ] {
        let ended = run(arguments, gone(), Stdio::piped());
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(!said.contains("panicked") && !said.contains("error"), "{arguments:?}: {said}");
        assert_eq!(run(arguments, gone(), gone()).status.code(), Some(status), "{arguments:?}");
        if let Ok(full) = std::fs::File::create("/dev/full") {
            let ended = run(arguments, full.into(), Stdio::piped());
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
            assert_eq!(said.matches("error: standard output cannot be written").count(), 1, "{arguments:?}: {said}");
        }
    }
}

#[test]
fn the_examples_in_help_stand_in_it_as_they_can_be_copied() {
    let product = Product::new();
    let mut seen = 0;
    for command in ["", "create", "inspect", "verify", "repair", "free", "virtual", "write", "host", "gadget"] {
        let help = product.succeed(&[&[command][usize::from(command.is_empty())..], &["--help"]].concat());
        let mut goes_on = false;
        for line in help.lines().skip_while(|line| !line.starts_with("Example")).skip(1) {
            if line.is_empty() {
                break;
            }
            let begins = ["  partition-tools ", "  sudo partition-tools ", "  # "];
            assert!(line.len() < 80 && (goes_on || begins.iter().any(|begin| line.starts_with(begin))), "{line}");
            goes_on = line.ends_with(" \\");
            seen += 1;
        }
        assert!(!goes_on, "{command}");
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn no_secret_is_shown() {
    use release_store::keys::{KeyDir, Passphrase};
    let product = Product::new();
    product.create("device.img", &[]);
    let keys = KeyDir::open(&product.path("keys")).unwrap();
    let secrets = keys.secrets(&Passphrase::new(PASSPHRASE.to_owned()).unwrap()).unwrap();
    let shown = product.succeed(&["inspect", "device.img", "--json"]) + &product.succeed(&["inspect", "device.img"]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert!(!shown.contains(&hex(secrets.product_secret.expose())));
    for key in secrets.content_keys.iter() {
        assert!(!shown.contains(&hex(&key.key)));
    }
}

#[test]
fn wrong_wishes_are_refused_before_anything_is_written() {
    let product = Product::new();
    let create = |more: &[&str]| -> Vec<String> {
        let base = ["create", "--profile", "stick", "--out", "x.img", "--keys", "keys"];
        base.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let fail = |status: i32, more: &[&str]| {
        let arguments = create(more);
        let said = product.fail(status, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!product.path("x.img").exists() && !product.path("x.img.part").exists(), "{more:?}");
        said
    };
    let size = ["--size", "200MiB", "--updater", "linux-x86_64=updater", "--bootstrap", "linux-x86_64=bootstrap"];
    let with = |more: &[&'static str]| [&size[..], more].concat();
    let said = fail(3, &with(&["--product", "Other"]));
    assert!(said.contains("Acme Notes") && said.contains("Other"), "{said}");
    let said = fail(6, &["--size", "40MiB", "--product", PRODUCT, "--updater", "linux-x86_64=updater"]);
    assert!(said.contains("too small"), "{said}");
    let said = fail(1, &with(&["--product", PRODUCT, "--hidden-size", "8MiB"]));
    assert!(said.contains("--hidden-size"), "{said}");
    let said = fail(1, &with(&["--product", PRODUCT, "--store", "store", "--release-version", "9.9"]));
    assert!(said.contains("1.0.0"), "{said}");
    let said = fail(1, &with(&["--product", PRODUCT, "--store", "tree", "--release-version", "1.0.0"]));
    assert!(said.contains("error:"), "{said}");
    let said = fail(1, &["--size", "200MiB", "--product", PRODUCT]);
    assert!(said.contains("--updater"), "{said}");
    let said = fail(1, &["--size", "200MiB", "--product", PRODUCT, "--updater", "linux-x86_64=gone"]);
    assert!(said.contains("gone"), "{said}");
    let said = fail(
        3,
        &[
            "--size",
            "200MiB",
            "--product",
            PRODUCT,
            "--updater",
            "linux-x86_64=updater",
            "--bootstrap",
            "linux-x86_64=tree/run.sh",
        ],
    );
    assert!(said.contains("stamp"), "{said}");
    fail(2, &["--size", "lots", "--product", PRODUCT]);
}

#[test]
fn programs_of_other_platforms_swapped_ones_and_commands_that_lead_out_of_the_device_are_refused() {
    let product = Product::new();
    let create = |status: i32, programs: &[&str]| {
        let base = ["create", "--profile", "stick", "--out", "x.img", "--keys", "keys", "--size", "200MiB"];
        let said = product.fail(status, &[&base[..], &["--product", PRODUCT], programs].concat());
        assert!(!product.path("x.img").exists() && !product.path("x.img.part").exists(), "{programs:?}");
        said
    };
    let mut other = std::fs::read(product.path("updater")).unwrap();
    other[18] = 40;
    std::fs::write(product.path("other"), other).unwrap();
    for (programs, is, wanted) in [
        (["linux-aarch64=bootstrap", "linux-aarch64=updater-arm"], "for linux-x86_64", "a launcher for linux-aarch64"),
        (["linux-x86_64=bootstrap", "windows-x86_64=updater"], "for linux-x86_64", "the updater for windows-x86_64"),
        (["linux-x86_64=bootstrap.exe", "linux-x86_64=updater"], "for windows-x86_64", "a launcher for linux-x86_64"),
        (["linux-x86_64=bootstrap", "linux-x86_64=other"], "for another machine", "the updater for linux-x86_64"),
        (["linux-x86_64=updater", "linux-x86_64=updater"], "updater is no launcher", "a launcher for linux-x86_64"),
        (["linux-x86_64=bootstrap", "linux-x86_64=bootstrap"], "is a launcher", "the updater for linux-x86_64"),
    ] {
        let said = create(1, &["--bootstrap", programs[0], "--updater", programs[1]]);
        assert!(said.contains(is) && said.contains(wanted), "{programs:?}: {said}");
    }
    let known = "linux-x86_64, linux-aarch64, windows-x86_64";
    for wrong in [
        ["--bootstrap", "linux-x8664=bootstrap"],
        ["--updater", "linux=updater"],
        ["--client-command", "linux-x8664=client/run.sh"],
    ] {
        assert!(create(2, &wrong).contains(known), "{wrong:?}");
    }
    for command in ["../../bin/sh", "/bin/sh", "linux-x86_64=client/../../sh -c x", " ", "linux-x86_64="] {
        assert!(create(2, &["--client-command", command]).contains("client/run.sh"), "{command}");
    }
}

#[test]
fn the_wrong_passphrase_and_another_product_s_release_are_refused() {
    let product = Product::new();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_partition-tools"))
        .args([
            "create",
            "--profile",
            "stick",
            "--out",
            "x.img",
            "--size",
            "200MiB",
            "--keys",
            "keys",
            "--product",
            PRODUCT,
        ])
        .args(["--updater", "linux-x86_64=updater"])
        .current_dir(product.dir.path())
        .env("HOLDFAST_PASSPHRASE", "wrong")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let other = Product::new();
    let store = other.text("store");
    let said = product.fail(
        1,
        &[
            "create",
            "--profile",
            "stick",
            "--out",
            "x.img",
            "--size",
            "200MiB",
            "--keys",
            "keys",
            "--product",
            PRODUCT,
            "--updater",
            "linux-x86_64=updater",
            "--store",
            &store,
            "--release-version",
            "1.0.0",
        ],
    );
    assert!(said.contains("error:"), "{said}");
    assert!(!product.path("x.img").exists());
}

#[test]
fn what_a_device_will_lack_is_said_with_the_switch_that_gives_it() {
    let product = Product::new();
    let base = ["create", "--profile", "stick", "--out", "x.img", "--force", "--keys", "keys", "--product", PRODUCT];
    let programs = ["--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"];
    let release = ["--store", "store", "--release-version", "1.0.0"];
    let whole = ["--server", "http://127.0.0.1:1/store", "--client-command", "client/run.sh"];
    let fetches = "fetches it at its first start";
    let bare = [&base[..], &["--size", "200MiB"], &programs[2..]].concat();
    let complete = [&base[..], &["--size", "200MiB"], &programs, &whole].concat();
    for (arguments, lacks, has) in [
        (bare, &["--server", "--bootstrap linux-x86_64=FILE", "no client and gets none"][..], &[fetches][..]),
        (
            [&base[..], &["--size", "200MiB"], &programs, &release].concat(),
            &["--server", "--client-command"],
            &["gets none"],
        ),
        (complete.clone(), &[fetches], &["note:"]),
        ([&complete[..], &release].concat(), &[], &["note:", fetches]),
    ] {
        let output = product.run(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(lacks.iter().all(|lack| said.contains(lack)), "{arguments:?}: {said}");
        assert!(!has.iter().any(|had| said.contains(had)), "{arguments:?}: {said}");
        // Scripts get the same.
        let json = product.json(&[&arguments[..], &["--json"]].concat());
        let notes = json["warnings"].as_array().unwrap();
        assert_eq!(notes.len(), said.matches("note:").count(), "{json}");
        assert!(notes.iter().all(|note| said.contains(note.as_str().unwrap())), "{json}");
    }
}

#[test]
fn a_free_zone_without_room_for_the_next_release_is_told_of_and_the_size_that_is_named_is_enough() {
    use release_store::keys::{KeyDir, Passphrase};
    use release_store::publish::{PublishRequest, publish};
    use release_store::repository::{NoObserver, Repository};
    let product = Product::new();
    let keys = KeyDir::open(&product.path("keys")).unwrap();
    let passphrase = Passphrase::new(PASSPHRASE.to_owned()).unwrap();
    std::fs::write(product.path("tree/data/larger.bin"), support::noise(12, 48 << 20)).unwrap();
    let mut repository = Repository::open(&product.path("store"), &keys).unwrap();
    let request = PublishRequest::new(product.path("tree"), "2.0.0".to_owned(), EPOCH);
    publish(&mut repository, &passphrase, &request, &mut NoObserver).unwrap();
    drop(repository);
    let create = |size: &str| {
        let mut arguments = vec!["create", "--profile", "stick", "--out", "x.img", "--force", "--size", size];
        arguments.extend(["--keys", "keys", "--product", PRODUCT, "--server", "http://127.0.0.1:1/store", "--json"]);
        arguments.extend(["--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"]);
        arguments.extend(["--client-command", "client/run.sh", "--store", "store", "--release-version", "2.0.0"]);
        let made = product.json(&arguments);
        made["warnings"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let notes = create("120MiB");
    let [note] = &notes[..] else { panic!("{notes:?}") };
    let enough = note.split_once("--size ").unwrap().1.split_once(' ').unwrap().0;
    assert_eq!(create(enough), [""; 0], "{enough}");
    let less: u64 = enough.trim_end_matches("MiB").parse::<u64>().unwrap() - 4;
    assert_eq!(create(&format!("{less}MiB")).len(), 1, "{less}");
}

#[test]
fn an_image_that_exists_is_kept_unless_forced() {
    let product = Product::new();
    std::fs::write(product.path("x.img"), b"mine").unwrap();
    let arguments = [
        "create",
        "--profile",
        "stick",
        "--out",
        "x.img",
        "--size",
        "200MiB",
        "--keys",
        "keys",
        "--product",
        PRODUCT,
        "--updater",
        "linux-x86_64=updater",
    ];
    assert!(product.fail(1, &arguments).contains("--force"));
    assert_eq!(std::fs::read(product.path("x.img")).unwrap(), b"mine");
    product.succeed(&[&arguments[..], &["--force"]].concat());
}

#[test]
fn each_damage_is_reported_by_name_and_nothing_else_is() {
    let product = Product::new();
    product.create("good.img", &["--seed", "x"]);
    let found = table(&product, "good.img");
    let (free, hidden, disc) = (found.free().unwrap(), found.hidden().unwrap(), found.virtual_zone().unwrap());
    let align = 4 << 20;
    let half = (hidden.length - 2 * align) / 2 / align * align;
    let damages: [(&str, u64, &[u8], &str); 8] = [
        ("primary table", 512, &[0; 16], "partition table"),
        ("free boot sector", free.start, &[0; 512], "free zone"),
        ("virtual descriptor", disc.start + 16 * 2048, &[0; 64], "virtual zone"),
        ("record A", hidden.start, &[0xFF; 64], "record A"),
        ("record B body", hidden.start + align + 4096, &[0xFF; 64], "record B"),
        ("backup A", hidden.start + 2 * align + 70_000, &[0xFF; 64], "backup A"),
        ("backup B", hidden.start + 2 * align + half, &[0; 4096], "backup B"),
        ("last byte of the disk", (200 << 20) - 512, &[0; 16], "partition table"),
    ];
    for (name, at, bytes, expected) in damages {
        std::fs::copy(product.path("good.img"), product.path("bad.img")).unwrap();
        poke(&product.path("bad.img"), at, bytes);
        let output = product.run(&["verify", "bad.img", "--keys", "keys", "--json"]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let problems: Vec<&str> =
            report["problems"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{name}: {problems:?}");
        let most = if name.starts_with("free") {
            6
        } else if name.starts_with("virtual") {
            3
        } else {
            1
        };
        assert!(problems.len() <= most, "{name}: {problems:?}");
        product.succeed(&["inspect", "bad.img"]);
    }
}

#[test]
fn of_a_launcher_verify_tells_what_can_be_told_and_says_what_cannot() {
    let product = Product::new();
    let windows = ["--bootstrap", "windows-x86_64=bootstrap.exe", "--updater", "windows-x86_64=updater.exe"];
    product.create("good.img", &windows);
    let image = std::fs::read(product.path("good.img")).unwrap();
    let place = |image: &[u8], name: &str| {
        let program = product.run(&["virtual", "cat", "good.img", name]).stdout;
        let found = image.chunks(2048).position(|sector| sector == &program[..2048]).unwrap() * 2048;
        (found as u64, program.len() as u64)
    };
    let (linux, length) = place(&image, "bootstrap-linux-x86_64");
    let verify = |at: u64, bytes: &[u8]| {
        std::fs::copy(product.path("good.img"), product.path("bad.img")).unwrap();
        poke(&product.path("bad.img"), at, bytes);
        let output = product.run(&["verify", "bad.img", "--keys", "keys"]);
        let (out, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), out, said)
    };
    let key = length - 1001 - 32;
    for (at, bytes, why) in [
        (0, &[0; 4][..], "it is no program"),
        (18, &[183, 0], "it is a program for linux-aarch64"),
        (key, &[0; 32], "the vendor's key in it is another one, or none"),
        (key - 8, &[0; 8], "the program has no place for a vendor key"),
        (0, &vec![0; length as usize], "it is no program"),
    ] {
        let (status, out, _) = verify(linux + at, bytes);
        let wanted = format!("the launcher for linux-x86_64 in the virtual zone is damaged: {why}");
        assert!(status == Some(1) && out.lines().count() == 1 && out.contains(&wanted), "{out}");
    }
    // The other one has a copy.
    let (windows, _) = place(&image, "bootstrap-windows-x86_64.exe");
    let (status, out, _) = verify(windows + 5000, &[0; 64]);
    assert_eq!(status, Some(1));
    assert_eq!(
        out,
        "the launcher for windows-x86_64 in the free zone is damaged: it is not the one in the virtual zone\n"
    );
    // What nothing vouches for is not called sound.
    let (status, _, said) = verify(linux + 5000, &[0; 64]);
    assert!(status == Some(0) && said.contains("sound that the device can vouch for"), "{said}");
    assert!(said.contains("Not told: damage in the middle of a launcher"), "{said}");
    let report = product.json(&["verify", "good.img", "--json"]);
    assert_eq!(report["not_checked"].as_array().unwrap().len(), 1);
    assert_eq!(report["survey"]["launchers"].as_array().unwrap().len(), 3);
}

#[test]
fn foreign_and_truncated_images_are_refused_with_a_status_of_their_own() {
    let product = Product::new();
    product.create("good.img", &[]);
    std::fs::write(product.path("noise"), support::noise(1, 5 << 20)).unwrap();
    assert!(product.fail(4, &["inspect", "noise"]).contains("not a Holdfast device"));
    std::fs::copy(product.path("good.img"), product.path("cut.img")).unwrap();
    std::fs::OpenOptions::new().write(true).open(product.path("cut.img")).unwrap().set_len(100 << 20).unwrap();
    assert!(product.fail(4, &["inspect", "cut.img"]).contains("contradicts"));
    assert!(product.fail(1, &["inspect", "gone.img"]).contains("gone.img"));
    for command in ["inspect", "verify", "repair"] {
        assert!(product.fail(1, &[command, "tree"]).contains("tree is a directory"), "{command}");
    }
    assert!(product.fail(1, &["free", "ls", "tree"]).contains("tree is a directory"));
    let other = Product::new();
    let said = product.run(&["verify", "good.img", "--keys", &other.text("keys")]);
    assert_eq!(said.status.code(), Some(1));
    let problems = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(problems.contains("device.cfg") && problems.contains("not signed by this product's vendor"), "{problems}");
}

#[test]
fn a_changed_client_file_is_found_by_verify() {
    let product = Product::new();
    product.create("device.img", &[]);
    std::fs::write(product.path("virus"), b"#!/bin/sh\necho gotcha\n").unwrap();
    product.succeed(&["free", "put", "device.img", "virus", "client/run.sh"]);
    let output = product.run(&["verify", "device.img"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("client/run.sh"), "{output:?}");
    let _ = EPOCH;
}

#[test]
fn a_release_that_the_store_holds_as_patches_is_preinstalled_like_any() {
    use release_store::gc::{Policy, collect};
    use release_store::keys::{KeyDir, Passphrase};
    use release_store::publish::{PublishRequest, publish};
    use release_store::repository::{NoObserver, Repository};
    let product = Product::new();
    let keys = KeyDir::open(&product.path("keys")).unwrap();
    let passphrase = Passphrase::new(PASSPHRASE.to_owned()).unwrap();
    let mut changed = support::noise(11, 3_000_000);
    changed[1_500_000..1_500_100].fill(7);
    std::fs::write(product.path("tree/data/large.bin"), changed).unwrap();
    let mut repository = Repository::open(&product.path("store"), &keys).unwrap();
    let request = PublishRequest::new(product.path("tree"), "2.0.0".to_owned(), EPOCH);
    publish(&mut repository, &passphrase, &request, &mut NoObserver).unwrap();
    let policy = Policy { grace_secs: 0, ..Policy::default() };
    collect(&mut repository, &passphrase, &policy, EPOCH, &mut NoObserver).unwrap();
    assert_eq!(repository.releases().by_serial(1).unwrap().base, Some(2));
    drop(repository);

    product.create("device.img", &[]);
    let large = product.run(&["free", "cat", "device.img", "client/data/large.bin"]).stdout;
    assert!(large == support::noise(11, 3_000_000));
    product.succeed(&["verify", "device.img", "--keys", "keys"]);
    let mut arguments =
        vec!["create", "--profile", "stick", "--out", "other.img", "--size", "200MiB", "--keys", "keys"];
    arguments.extend(["--product", PRODUCT, "--server", "http://127.0.0.1:1/store", "--offline-source"]);
    arguments.extend(["--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"]);
    arguments.extend(["--client-command", "client/run.sh", "--store", "store", "--release-version", "1.0.0"]);
    let said = product.fail(1, &arguments);
    assert!(said.contains("as patches") && !product.path("other.img").exists(), "{said}");
}

#[test]
fn windows_gets_every_letter_of_a_products_name() {
    let product = Product::new();
    let autorun = |name: &str, keys: &str, out: &str| {
        let mut create = vec!["create", "--profile", "stick", "--out", out, "--size", "200MiB", "--keys", keys];
        create.extend(["--product", name, "--server", "http://127.0.0.1:1/store", "--client-command", "client/run.sh"]);
        create.extend(["--bootstrap", "linux-x86_64=bootstrap", "--updater", "linux-x86_64=updater"]);
        product.succeed(&create);
        product.run(&["virtual", "cat", out, "autorun.inf"]).stdout
    };
    assert_eq!(autorun(PRODUCT, "keys", "ascii.img"), b"[autorun]\r\nlabel=Acme Notes\r\n");
    let name = "Müllers Notizen €";
    KeyDir::create(&product.path("others"), name, &Passphrase::new(PASSPHRASE.to_owned()).unwrap(), EPOCH).unwrap();
    let bytes = autorun(name, "others", "letters.img");
    let units: Vec<u16> = bytes.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    assert_eq!(String::from_utf16(&units).unwrap(), format!("\u{feff}[autorun]\r\nlabel={name}\r\n"));
}
