//! What a product's keys are, and what a factory gets of them.

mod common;

use std::fs;

use common::{NOW, Vendor, content, files, passphrase};
use firmware_image::device_config::{DeviceConfig, Policies, Profile};
use firmware_image::updater_image::{Floors, UpdaterVersion};
use release_store::StoreError;
use release_store::keys::{ConfigRequest, FactoryExport, KeyDir, KeyKind, KeySource, Passphrase};

fn request() -> ConfigRequest {
    ConfigRequest {
        channel: "stable".into(),
        profile: Profile::Stick,
        align_bytes: 4 << 20,
        servers: vec![("https://updates.example.com/store".into(), 3)],
        client_commands: vec![(String::new(), "client/run.sh --fast".into())],
        policies: Policies::default(),
    }
}

fn program() -> Vec<u8> {
    let mut bytes = content(5000, 1);
    bytes.extend_from_slice(b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a");
    bytes.extend_from_slice(&[0; 32]);
    bytes
}

#[test]
fn secrets_are_encrypted_private_and_opened_by_the_passphrase_alone() {
    let vendor = Vendor::new();
    let secrets = vendor.keys.secrets(&passphrase()).unwrap();
    let needles = [*secrets.product_secret.expose(), secrets.content_keys.newest().unwrap().key];
    for (name, bytes) in files(vendor.keys.path()) {
        for needle in needles {
            let text = hex::encode(needle);
            assert!(!bytes.windows(32).any(|window| window == needle), "{name}");
            assert!(!String::from_utf8_lossy(&bytes).contains(&text), "{name}");
        }
        #[cfg(unix)]
        if name.ends_with(".key") {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(vendor.keys.path().join(&name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
    }
    let wrong = Passphrase::new("correct horsf".into()).unwrap();
    for kind in [KeyKind::Root, KeyKind::Targets, KeyKind::Online] {
        vendor.keys.tuf_key(kind, &passphrase()).unwrap();
        assert!(matches!(vendor.keys.tuf_key(kind, &wrong), Err(StoreError::WrongPassphrase { .. })));
    }
    for kind in [KeyKind::Vendor, KeyKind::Updater] {
        vendor.keys.signing_key(kind, &passphrase()).unwrap();
        assert!(matches!(vendor.keys.signing_key(kind, &wrong), Err(StoreError::WrongPassphrase { .. })));
    }
    assert_eq!(format!("{:?}", passphrase()), "Passphrase(…)");
    assert!(!format!("{secrets:?}").contains(&hex::encode(needles[1])));
}

#[test]
fn keys_are_never_overwritten() {
    let vendor = Vendor::new();
    let before = files(vendor.keys.path());
    assert!(KeyDir::create(vendor.keys.path(), "Acme Notes", &passphrase(), NOW).is_err());
    assert_eq!(files(vendor.keys.path()), before);
    for product in ["", " x", "a\nb", &"x".repeat(65)] {
        assert!(KeyDir::create(&vendor.path("new"), product, &passphrase(), NOW).is_err(), "{product:?}");
        assert!(!vendor.path("new").exists());
    }
}

#[test]
fn a_damaged_swapped_or_missing_key_file_is_named() {
    let vendor = Vendor::new();
    let path = vendor.keys.path().join("online.key");
    let whole = fs::read_to_string(&path).unwrap();
    let open = || vendor.keys.tuf_key(KeyKind::Online, &passphrase()).unwrap_err();
    let dear = whole.replace("19456", "999999999");
    for damaged in ["", "{}", &whole[..whole.len() / 2], &whole.replace("\"online\"", "\"root\""), &dear] {
        fs::write(&path, damaged).unwrap();
        let error = open();
        assert!(matches!(&error, StoreError::Key { path, .. } if path.ends_with("online.key")), "{error}");
    }
    // A key of another kind under this name, and another product's key.
    let targets = fs::read_to_string(vendor.keys.path().join("targets.key")).unwrap();
    fs::write(&path, targets.replace("\"targets\"", "\"online\"")).unwrap();
    assert!(matches!(open(), StoreError::WrongPassphrase { .. }));
    let other = Vendor::new();
    fs::copy(other.keys.path().join("online.key"), &path).unwrap();
    assert!(matches!(open(), StoreError::Key { .. }));
    fs::remove_file(&path).unwrap();
    assert!(open().to_string().contains("not there"));
    assert!(!vendor.keys.has(KeyKind::Online));
}

#[test]
fn publishing_needs_neither_root_nor_vendor_key() {
    let (vendor, tree) = Vendor::with_release();
    for name in ["root.key", "vendor.key"] {
        fs::remove_file(vendor.keys.path().join(name)).unwrap();
    }
    fs::write(tree.join("new"), "new").unwrap();
    vendor.publish(&tree, "1.1.0");
    vendor.open().renew(&passphrase(), NOW).unwrap();
}

#[test]
fn a_factory_export_makes_devices_and_signs_nothing() {
    let vendor = Vendor::new();
    let keys = KeySource::open(vendor.keys.path()).unwrap();
    let version = UpdaterVersion { major: 1, minor: 2, patch: 3 };
    let signed = keys.updater(Some(&passphrase()), "linux-x86_64", program(), version, Floors::default()).unwrap();
    assert!(signed.newly_signed);
    let dir = vendor.path("factory");
    FactoryExport::create(&dir, &vendor.keys, &passphrase(), &request(), std::slice::from_ref(&signed)).unwrap();

    let factory = KeySource::open(&dir).unwrap();
    assert!(!factory.needs_passphrase());
    assert_eq!(factory.product(), "Acme Notes");
    assert_eq!(factory.vendor_key(), keys.vendor_key());
    assert_eq!(factory.root_json().unwrap(), vendor.root());
    let (ours, theirs) = (vendor.keys.secrets(&passphrase()).unwrap(), factory.secrets(None).unwrap());
    assert_eq!(ours.content_keys, theirs.content_keys);
    assert_eq!(ours.product_secret, theirs.product_secret);
    for profile in [Profile::Stick, Profile::Dual, Profile::Region] {
        let asked = ConfigRequest { profile, ..request() };
        let config = factory.device_config(None, &asked).unwrap();
        assert_eq!(config, keys.device_config(Some(&passphrase()), &asked).unwrap(), "both give the same bytes");
        let config = DeviceConfig::open(&config, keys.vendor_key()).unwrap();
        assert_eq!((config.profile, config.servers[0].weight), (profile, 3));
        assert_eq!(config.client_command("linux-x86_64"), Some("client/run.sh --fast"));
    }
    let KeySource::Factory(export) = &factory else { panic!("not an export") };
    assert_eq!(export.updater("linux-x86_64").unwrap().image, signed.image);
    assert!(export.updater("windows-x86_64").is_err());
    let taken = factory.updater(None, "linux-x86_64", signed.image, version, Floors::default()).unwrap();
    assert!(!taken.newly_signed && taken.version == version);
    let refused = factory.updater(None, "linux-x86_64", program(), version, Floors::default()).unwrap_err();
    assert!(refused.to_string().contains("cannot sign"), "{refused}");
    let other = ConfigRequest { channel: "beta".into(), ..request() };
    assert!(factory.device_config(None, &other).unwrap_err().to_string().contains("channel"));

    let exported = files(&dir);
    assert!(exported.iter().all(|(name, _)| !name.ends_with(".key")));
    for name in exported.iter().map(|(name, _)| name) {
        let broken = vendor.path("broken");
        common::copy_tree(&dir, &broken);
        let mut bytes = fs::read(broken.join(name)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(broken.join(name), bytes).unwrap();
        let opened = KeySource::open(&broken).and_then(|source| match source {
            KeySource::Factory(export) => export.updater("linux-x86_64"),
            KeySource::Keys(_) => panic!("not keys"),
        });
        assert!(opened.is_err(), "{name}");
        fs::remove_dir_all(&broken).unwrap();
    }
}

#[test]
fn a_factory_export_shows_its_secrets_to_its_owner_alone_and_prints_none() {
    let vendor = Vendor::new();
    let dir = vendor.path("factory");
    fs::create_dir(&dir).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let export = FactoryExport::create(&dir, &vendor.keys, &passphrase(), &request(), &[]).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700, "also where the directory was there");
        for name in ["factory.json", "device-stick.cfg", "device-dual.cfg", "device-region.cfg"] {
            assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        }
    }
    let secret = *export.secrets().product_secret.expose();
    let first = secret.map(|byte| byte.to_string()).join(", ");
    assert!(!format!("{export:?}").contains(&first));
    assert!(!format!("{:?}", KeySource::Factory(export)).contains(&first));
}
