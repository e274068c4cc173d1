//! What the updater reads of the free zone, where anybody can write, and of what HTTP servers say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use firmware_image::device_config::{DeviceConfig, MAX_CONFIG_BYTES, Policies, Profile, WrappedContentKey};
use firmware_image::hidden::HiddenZone;
use firmware_image::host::{DirZone, FileZone};
use firmware_image::journal::{Journal, State as JournalState};
use firmware_image::places::Places;
use firmware_image::seal::Secret;
use firmware_image::signature::SigningKey;
use firmware_image::updater_image::UpdaterVersion;
use firmware_image::{Digest, paths};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use release_store::frame::{FrameId, FrameKind, MAX_CHUNK_BYTES, max_stored_len};
use updater::answer::{Head, redirect};
use updater::commit::{COMMIT_PLAN, Recovery};
use updater::host::{Guard, Host, Probe, Silent};
use updater::http::MAX_REDIRECTS;
use updater::meter::Meter;
use updater::servers::Servers;
use updater::spool::{ENTRY_BYTES, SPOOL, Spool};
use updater::{Config, Engine, Parts, hash};

/// A directory in memory, where there is such a thing.
fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn put(root: &Path, name: &str, bytes: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A spool as it is, and with its checks right: what is read of it is what stands there, and another frame finds its place.
pub fn spool(data: &[u8]) {
    thread_local! {
        static ZONE: (tempfile::TempDir, DirZone) = {
            let dir = directory();
            let zone = DirZone::open(dir.path()).unwrap();
            (dir, zone)
        };
    }
    ZONE.with(|(dir, zone)| {
        let mut bytes = data.to_vec();
        for mended in [false, true] {
            let expected = mended.then(|| mend_spool(&mut bytes));
            put(dir.path(), SPOOL, &bytes);
            let mut spool = Spool::open(zone).unwrap();
            let digests: BTreeSet<Digest> = spool.digests().copied().collect();
            assert_eq!(digests.len(), spool.len());
            assert!(spool.bytes() <= bytes.len() as u64);
            if let Some(expected) = expected {
                assert_eq!(digests, expected);
            }
            let mut frame = Vec::new();
            for digest in &digests {
                let (id, _) = spool.read(FrameKind::Chunk, digest, &mut frame).unwrap().unwrap();
                assert_eq!((id.digest, id.stored_len as usize), (*digest, frame.len()));
                assert!(id.raw_len <= MAX_CHUNK_BYTES && id.stored_len <= max_stored_len(id.raw_len));
            }
            let id = FrameId { kind: FrameKind::Chunk, digest: Digest::of(data), raw_len: 3, stored_len: 3 };
            spool.append(&id, 1, b"new").unwrap();
            spool.settle().unwrap();
            drop(spool);
            let mut spool = Spool::open(zone).unwrap();
            assert!(digests.iter().all(|digest| spool.contains(digest)));
            assert_eq!(spool.len(), digests.len() + usize::from(!digests.contains(&id.digest)));
            spool.read(FrameKind::Chunk, &id.digest, &mut frame).unwrap().unwrap();
            assert!(frame == b"new" || digests.contains(&id.digest));
        }
    });
}

/// Makes the magic and the checks of a spool right, as far as its lengths make sense; the digests of what is in it.
fn mend_spool(bytes: &mut [u8]) -> BTreeSet<Digest> {
    const CHECK: usize = 16;
    let mut digests = BTreeSet::new();
    let Some(magic) = bytes.get_mut(..8) else { return digests };
    magic.copy_from_slice(b"HOLDSPL1");
    let mut rest = &mut bytes[8..];
    while rest.len() >= ENTRY_BYTES {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let (raw, stored) = (word(32), word(36));
        let end = ENTRY_BYTES + stored as usize;
        if raw > MAX_CHUNK_BYTES || stored == 0 || stored > max_stored_len(raw) || end > rest.len() {
            break;
        }
        let (entry, after) = std::mem::take(&mut rest).split_at_mut(end);
        let check = Digest::of(&[&entry[..ENTRY_BYTES - CHECK], &entry[ENTRY_BYTES..]].concat());
        entry[ENTRY_BYTES - CHECK..ENTRY_BYTES].copy_from_slice(&check.0[..CHECK]);
        digests.insert(Digest(entry[..32].try_into().unwrap()));
        rest = after;
    }
    digests
}

type DirEngine<'z> = Engine<'z, DirZone, FileZone, FileZone>;

struct Machine;

impl Host for Machine {
    fn now(&self) -> i64 {
        1_790_000_000
    }
    fn sleep(&self, _: std::time::Duration) {}
    fn random(&self, bytes: &mut [u8]) -> Result<(), String> {
        bytes.fill(9);
        Ok(())
    }
    fn own_version(&self) -> Option<UpdaterVersion> {
        None
    }
    fn probe(&self, _: &mut dyn std::io::Read) -> Probe {
        Probe::NotTried("nothing runs here".into())
    }
    fn lock_client(&self) -> Result<Option<Guard>, String> {
        Ok(Some(Box::new(())))
    }
    fn wait_for_client(&self) -> bool {
        true
    }
}

/// The plan of an open commit, to which the journal's tag fits. The seeds' plans are for what stands in this free zone:
/// contents that are staged, and copies to go back with.
pub fn commit_plan(data: &[u8]) {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = directory();
    }
    DIRECTORY.with(|dir| {
        let root = dir.path().join("zone");
        let _ = fs::remove_dir_all(&root);
        for (name, bytes) in [("mine.txt", "mine"), ("client/a", "old a"), ("client/d/b", "old b"), ("client/gone", "")]
        {
            put(&root, name, bytes.as_bytes());
        }
        for (place, contents) in [
            (paths::STAGING_DIR, &["new a", "new b", "manifest", "list", "statement", "before", "updater"][..]),
            (paths::UNDO_DIR, &["old a", "old b", ""]),
        ] {
            for content in contents {
                put(&root, &format!("{place}/{}", Digest::of(content.as_bytes())), content.as_bytes());
            }
        }
        let zone = DirZone::open(&root).unwrap();
        // Twice: the record then knows the release already, and what was staged is gone.
        for _ in 0..2 {
            put(&root, COMMIT_PLAN, data);
            let tag = with_engine(&zone, |engine| engine.plan_tag(data));
            let open = JournalState::Committing { plan: tag, serial: 2 };
            Journal::read(&zone).unwrap().advance(&zone, open).unwrap();
            // No plan may keep a device from starting for ever: what cannot be done is stuck, and a repair follows.
            let done = recover(&zone);
            let idle = Journal::read(&zone).unwrap().state() == JournalState::Idle;
            assert_eq!(idle, matches!(done, Recovery::Finished | Recovery::Undone), "{done:?}");
            assert_eq!(recover(&zone), if idle { Recovery::Nothing } else { Recovery::Stuck });
            assert_eq!(fs::read(root.join("mine.txt")).unwrap(), b"mine");
            assert_eq!(siblings(dir.path()), [root.clone()]);
        }
    });
}

fn siblings(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What an engine makes of the commit that it finds open.
fn recover(zone: &DirZone) -> Recovery {
    with_engine(zone, |engine| {
        let done = engine.recover().unwrap();
        engine.write_log();
        done
    })
}

/// Calls `work` with an engine over the free zone of a device without a hidden one.
fn with_engine<R>(zone: &DirZone, work: impl FnOnce(&mut DirEngine<'_>) -> R) -> R {
    static CONFIG: LazyLock<(Vec<u8>, SigningKey)> = LazyLock::new(|| {
        let (vendor, secret) = (SigningKey::from_seed(&[1; 32]), Secret::new([3; 32]));
        let config = DeviceConfig {
            product: "Field Handbook",
            channel: "stable",
            profile: Profile::Stick,
            align_bytes: 4096,
            servers: Default::default(),
            client_commands: Default::default(),
            root: &[],
            product_secret: [3; 32],
            content_key: WrappedContentKey::wrap(1, &Secret::new([7; 32]), &secret),
            policies: Policies::default(),
        };
        let mut out = vec![0; MAX_CONFIG_BYTES];
        let bytes = config.sign(&vendor, &mut out).unwrap().to_vec();
        (bytes, vendor)
    });
    let vendor = CONFIG.1.public();
    let mut engine = Engine::load(Parts {
        free: zone,
        places: Places { hidden: None::<HiddenZone<FileZone>>, free: Some(zone), cd_tail: None::<FileZone> },
        config: Config::open(&CONFIG.0, &vendor).unwrap(),
        vendor,
        servers: Servers::new(Vec::new(), &Meter::new(None, None), &Machine),
        offline: None,
        host: &Machine,
        watch: &Silent,
        hash: hash::sequential,
    })
    .unwrap();
    work(&mut engine)
}

/// The head of an answer. The first line has its status, where the range begins and ends that was asked for, the most that is
/// wanted, and the address; each line behind it is a header.
pub fn http(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Some(first) = lines.next().and_then(|line| std::str::from_utf8(line).ok()) else { return };
    let mut words = first.splitn(5, ' ');
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (status, start, end, most) = (number(), number(), number(), number().unwrap_or(u64::MAX));
    let url = words.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines.take(32) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[at + 1..].trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..at]), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let status = status.and_then(|status| StatusCode::from_u16(status as u16).ok()).unwrap_or_default();
    let range = start.zip(end).map(|(start, end)| start..end);
    if let Ok(head) = Head::read("x", status, &headers, range.as_ref(), most) {
        match (status.as_u16(), range) {
            (200, _) => assert_eq!(head.start, 0),
            (206, Some(range)) => assert_eq!(head.start, range.start),
            _ => panic!("{status} brings nothing"),
        }
        assert!(head.bytes.is_none_or(|bytes| bytes <= most));
    }
    let Some(location) = headers.get("location").and_then(|value| value.to_str().ok()) else { return };
    let mut url = url.to_owned();
    for _ in 0..=MAX_REDIRECTS {
        let Some(next) = redirect(&url, location) else { return };
        let scheme = |url: &str| url.split_once("://").unwrap().0.to_ascii_lowercase();
        match (scheme(&url).as_str(), scheme(&next).as_str()) {
            (_, "https") | ("http", "http") => {}
            (from, to) => panic!("from {from} to {to}"),
        }
        // Whoever asks there sees the same in it.
        if let Ok(uri) = next.parse::<Uri>() {
            assert_eq!(uri.scheme_str().map(str::to_ascii_lowercase), Some(scheme(&next)));
            if let Ok(before) = url.parse::<Uri>().map(|uri| uri.authority().cloned())
                && !location.contains("//")
            {
                assert_eq!(uri.authority(), before.as_ref(), "{url} {location}");
            }
        }
        url = next;
    }
}
