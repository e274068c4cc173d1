//! The device configuration: what the vendor signed is read, and nothing else.

mod common;

use common::*;
use firmware_image::device_config::{
    ClientCommand, ConfigError, DeviceConfig, MAX_COMMAND_BYTES, MAX_CONFIG_BYTES, MAX_URL_BYTES, Policies, Profile,
    Server, WrappedContentKey,
};
use firmware_image::paths::MAX_PLATFORM_BYTES;
use firmware_image::seal::Secret;
use firmware_image::signature::{Domain, SigningKey};
use firmware_image::updater_image::MAX_PRODUCT_BYTES;

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

/// Signs a configuration whatever is in it.
fn signed_unchecked(config: &DeviceConfig<'_>) -> Vec<u8> {
    let mut body = vec![0; MAX_CONFIG_BYTES];
    let body = postcard::to_slice(config, &mut body).unwrap();
    let mut bytes = signed()[..16].to_vec();
    bytes[12..].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(body);
    let signature = vendor().sign(Domain::DeviceConfig, &bytes);
    [bytes, signature.to_vec()].concat()
}

#[test]
fn each_field_is_taken_at_its_limit_and_not_beyond_it() {
    let long = "x".repeat(MAX_URL_BYTES + 1);
    let of = |length: usize| &long[..length];
    type Change<'a> = Box<dyn Fn(&mut DeviceConfig<'a>) + 'a>;
    fn command<'a>(change: impl Fn(&mut ClientCommand<'a>) + 'a) -> Change<'a> {
        Box::new(move |config| change(&mut config.client_commands[1]))
    }
    let cases: Vec<(&str, Change<'_>, bool)> = vec![
        ("product", Box::new(|c| c.product = of(MAX_PRODUCT_BYTES)), true),
        ("product", Box::new(|c| c.product = of(MAX_PRODUCT_BYTES + 1)), false),
        ("no product", Box::new(|c| c.product = ""), false),
        ("channel", Box::new(|c| c.channel = of(MAX_PRODUCT_BYTES)), true),
        ("channel", Box::new(|c| c.channel = of(MAX_PRODUCT_BYTES + 1)), false),
        ("alignment", Box::new(|c| c.align_bytes = 4096), true),
        ("alignment", Box::new(|c| c.align_bytes = 2048), false),
        ("alignment", Box::new(|c| c.align_bytes = 4097), false),
        ("server", Box::new(|c| c.servers[1].url = of(MAX_URL_BYTES)), true),
        ("server", Box::new(|c| c.servers[1].url = of(MAX_URL_BYTES + 1)), false),
        ("command", command(|c| c.command = of(MAX_COMMAND_BYTES)), true),
        ("command", command(|c| c.command = of(MAX_COMMAND_BYTES + 1)), false),
        ("platform", command(|c| c.platform = of(MAX_PLATFORM_BYTES)), true),
        ("platform", command(|c| c.platform = of(MAX_PLATFORM_BYTES + 1)), false),
    ];
    for (number, (what, change, taken)) in cases.iter().enumerate() {
        let mut config = config();
        change(&mut config);
        let what = format!("{number}: {what}");
        let by_hand = signed_unchecked(&config);
        let opened = DeviceConfig::open(&by_hand, &vendor().public());
        let mut out = vec![0; MAX_CONFIG_BYTES];
        match taken {
            true => {
                assert!(opened == Ok(config.clone()), "{what}");
                assert_eq!(config.sign(&vendor(), &mut out), Ok(&by_hand[..]), "{what}");
            }
            false => {
                assert_eq!(opened.err(), Some(ConfigError::Malformed), "{what}");
                assert_eq!(config.sign(&vendor(), &mut out), Err(ConfigError::Malformed), "{what}");
            }
        }
    }
}

#[test]
fn the_longest_configuration_is_one_and_a_longer_one_is_none() {
    let others = signed().len() - config().root.len();
    // Its length takes two bytes more.
    let root = vec![7; MAX_CONFIG_BYTES - others - 2];
    let longest = DeviceConfig { root: &root, ..config() };
    let mut out = vec![0; MAX_CONFIG_BYTES + 1];
    let bytes = longest.sign(&vendor(), &mut out).unwrap().to_vec();
    assert_eq!(bytes.len(), MAX_CONFIG_BYTES);
    assert!(DeviceConfig::open(&bytes, &vendor().public()) == Ok(longest.clone()));
    assert_eq!(longest.sign(&vendor(), &mut vec![0; MAX_CONFIG_BYTES - 1]), Err(ConfigError::TooLong));

    let root = vec![7; root.len() + 1];
    let longer = DeviceConfig { root: &root, ..config() };
    assert_eq!(longer.sign(&vendor(), &mut out), Err(ConfigError::TooLong));
    assert_eq!(DeviceConfig::open(&[bytes, vec![0]].concat(), &vendor().public()).err(), Some(ConfigError::TooLong));

    // Exactly the room that it takes, and less: down to none.
    let bytes = signed();
    for room in 0..=bytes.len() {
        let mut out = vec![0; room];
        let wanted = if room == bytes.len() { Ok(&bytes[..]) } else { Err(ConfigError::TooLong) };
        assert_eq!(config().sign(&vendor(), &mut out), wanted, "{room} bytes of room");
    }
}

#[test]
fn it_prints_what_it_is_and_no_secret() {
    assert_eq!(format!("{:?}", config()), format!("DeviceConfig({PRODUCT}, stable, stick)"));
    let errors = [
        ConfigError::NotAConfig,
        ConfigError::UnknownFormat(77),
        ConfigError::TooLong,
        ConfigError::Malformed,
        ConfigError::BadSignature,
    ];
    let said: std::collections::BTreeSet<String> = errors.iter().map(ToString::to_string).collect();
    assert!(said.len() == errors.len() && said.iter().all(|text| text.len() > 10), "{said:?}");
    let profiles = [Profile::Stick, Profile::Dual, Profile::Region].map(|profile| profile.to_string());
    assert_eq!(profiles, ["stick", "dual", "region"]);
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
