//! The device configuration: what the vendor signed is read, and nothing else.

mod common;

use common::*;
use firmware_image::device_config::{
    ClientCommand, ConfigError, DeviceConfig, MAX_CONFIG_BYTES, Policies, Profile, Server, WrappedContentKey,
};
use firmware_image::seal::Secret;
use firmware_image::signature::{Domain, SigningKey};

fn config() -> DeviceConfig<'static> {
    let mut servers = heapless::Vec::new();
    servers.push(Server { url: "https://updates.example.org/handbook/", weight: 3 }).unwrap();
    servers.push(Server { url: "http://198.51.100.7/", weight: 1 }).unwrap();
    let mut client_commands = heapless::Vec::new();
    client_commands.push(ClientCommand { platform: "", command: "client/run.sh" }).unwrap();
    client_commands.push(ClientCommand { platform: "windows-x86_64", command: "client/run.exe --full" }).unwrap();
    DeviceConfig {
        product: PRODUCT,
        channel: "stable",
        profile: Profile::Stick,
        align_bytes: 4 << 20,
        servers,
        client_commands,
        root: b"{\"signed\":{}}",
        product_secret: *product_secret().expose(),
        content_key: WrappedContentKey::wrap(1, &Secret::new([5; 32]), &product_secret()),
        policies: Policies::default(),
    }
}

fn signed() -> Vec<u8> {
    let mut out = vec![0; MAX_CONFIG_BYTES];
    config().sign(&vendor(), &mut out).unwrap().to_vec()
}

#[test]
fn a_signed_configuration_reads_as_it_was_written() {
    let bytes = signed();
    let read = DeviceConfig::open(&bytes, &vendor().public()).unwrap();
    assert!(read == config());
    assert_eq!(read.client_command("linux-x86_64"), Some("client/run.sh"));
    assert_eq!(read.client_command("windows-x86_64"), Some("client/run.exe --full"));
    assert!(read.content_key.unwrap(&read.secret()).unwrap() == Secret::new([5; 32]));
    assert!(read.content_key.unwrap(&Secret::new([6; 32])).is_err());
}

#[test]
fn no_flipped_byte_and_no_truncation_is_accepted() {
    let good = signed();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 4;
        assert!(DeviceConfig::open(&bad, &vendor().public()).is_err(), "byte {at}");
        assert!(DeviceConfig::open(&good[..at], &vendor().public()).is_err(), "cut to {at}");
    }
    let other = SigningKey::from_seed(&[9; 32]).public();
    assert_eq!(DeviceConfig::open(&good, &other).err(), Some(ConfigError::BadSignature));
}

#[test]
fn it_prints_no_secret() {
    let shown = format!("{:?}", config());
    assert!(!shown.contains("3, 3, 3"), "{shown}");
}

#[test]
fn the_vectors_read_as_their_names_say() {
    let dir = testdata().join("device-config/v1");
    let good = signed();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut unlimited = config();
    unlimited.align_bytes = 12_288;
    let body = postcard::to_slice(&unlimited, &mut [0; 4096]).unwrap().to_vec();
    let mut over = good[..16].to_vec();
    over[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    over.extend_from_slice(&body);
    let signature = vendor().sign(Domain::DeviceConfig, &over);
    over.extend_from_slice(&signature);
    let vectors: [(&str, Vec<u8>, Option<ConfigError>); 6] = [
        ("stick-two-servers.cfg", good.clone(), None),
        ("unknown-format.cfg", changed(8, 77), Some(ConfigError::UnknownFormat(77))),
        ("server-changed-by-hand.cfg", changed(40, b'X'), Some(ConfigError::BadSignature)),
        ("body-length-past-the-end.cfg", changed(14, 1), Some(ConfigError::NotAConfig)),
        ("cut-in-the-signature.cfg", good[..good.len() - 1].to_vec(), Some(ConfigError::NotAConfig)),
        ("signed-but-align-is-no-power-of-two.cfg", over, Some(ConfigError::Malformed)),
    ];
    for (name, bytes, reason) in vectors {
        if std::env::var_os("HOLDFAST_WRITE_VECTORS").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(name), &bytes).unwrap();
        }
        let stored = std::fs::read(dir.join(name)).unwrap();
        assert!(stored == bytes, "{name} is not what today's writer makes");
        assert_eq!(DeviceConfig::open(&stored, &vendor().public()).err(), reason, "{name}");
    }
}
