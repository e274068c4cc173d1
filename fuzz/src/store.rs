//! What comes from a server.

use std::ops::Range;
use std::sync::LazyLock;

use firmware_image::Digest;
use release_store::frame::{FrameId, FrameKind, FrameReader, FrameWriter};
use release_store::ignore::IgnorePatterns;
use release_store::manifest::{FileEntry, ModuleEntry, Policy};
use release_store::transport::{GetOutcome, Sink};
use release_store::trust::{MemoryCache, Trust};
use release_store::tuf::{self, TufKey};
use release_store::{ChunkList, ContentKey, ContentKeys, Manifest, Step, Transport, TransportError};

const NOW: i64 = 1_790_000_000;

/// A manifest that can be read can be written, and says the same.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::decode(data) {
        let encoded = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&encoded).unwrap().encode().unwrap(), encoded);
    }
}

/// Where chunks are.
pub fn chunk_list(data: &[u8]) {
    if let Ok(list) = ChunkList::decode(data) {
        for content in &list.contents {
            for (_, chunk) in list.chunks_of(content) {
                let pack = list.pack_of(chunk).unwrap();
                assert!(chunk.range().end <= pack.bytes);
            }
        }
        let encoded = list.encode().unwrap();
        assert_eq!(ChunkList::decode(&encoded).unwrap(), list);
    }
}

/// A step from a small release.
pub fn step(data: &[u8]) {
    static OLD: LazyLock<Manifest> = LazyLock::new(|| {
        let file = |path: &str, size: u64| FileEntry {
            path: path.into(),
            mode: 0o644,
            size,
            stored_bytes: size / 2,
            sha256: if size == 0 { Digest::of(&[]) } else { Digest::of(path.as_bytes()) },
            policy: Policy::Managed,
            module: 0,
        };
        Manifest {
            product: "Acme Notes".into(),
            channel: "stable".into(),
            serial: 1,
            version: "1.0".into(),
            published: NOW,
            modules: vec![ModuleEntry { id: "client".into(), version: "1.0".into() }],
            files: vec![file("a/one", 1000), file("a/two", 0), file("b/three.txt", 50), file("run.sh", 70)],
            updaters: Vec::new(),
            ignore: Vec::new(),
            blind: [0; 16],
        }
    });
    let Ok(step) = Step::decode(data) else { return };
    let _ = step.encode().unwrap();
    if let Ok(new) = step.manifest(&OLD) {
        let _ = new.encode();
        if let Ok(patches) = step.patches(&OLD, &new) {
            for patch in patches {
                let pack = patch.pack;
                assert!(patch.offset + patch.stored_bytes() <= pack.bytes);
            }
        }
    }
}

/// A patch: the first bytes say how long old and new are, then comes the patch, then the old bytes.
pub fn patch(data: &[u8]) {
    let Some((head, rest)) = data.split_at_checked(6) else { return };
    let word = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let (patch, old) = rest.split_at(word(0).min(rest.len()));
    let old = &old[..old.len().min(word(2))];
    let stated = word(4) as u64;
    for new_len in [stated, new_len_of(patch).unwrap_or(stated)] {
        let mut given = 0;
        let done = release_store::patch::apply(&mut &*patch, &mut &*old, old.len() as u64, new_len, &mut |bytes| {
            given += bytes.len() as u64;
            assert!(given <= new_len);
            if given > 8 << 20 { Err(std::io::Error::other("enough")) } else { Ok(()) }
        });
        assert!(done.is_err() || given == new_len);
    }
}

/// The length of the new bytes that a patch's own head states.
fn new_len_of(patch: &[u8]) -> Option<u64> {
    let numbers = patch.get(4..)?;
    let (_, rest) = postcard::take_from_bytes::<u64>(numbers).ok()?;
    postcard::take_from_bytes::<u64>(rest).ok().map(|(length, _)| length)
}

/// A sealed frame that is not what it should be, and one that holds what it should not.
pub fn frame(data: &[u8]) {
    static KEYS: LazyLock<ContentKeys> = LazyLock::new(|| {
        let mut keys = ContentKeys::new();
        assert!(keys.insert(ContentKey::new(1, [7; 32])));
        keys
    });
    let key = KEYS.newest().unwrap();
    let mut reader = FrameReader::new().unwrap();
    for kind in [FrameKind::Chunk, FrameKind::Patch, FrameKind::Step, FrameKind::Manifest, FrameKind::ChunkList] {
        let _ = release_store::sealed::open(kind, data, &KEYS);
    }
    let id = FrameId {
        kind: FrameKind::Chunk,
        digest: Digest::of(data),
        raw_len: data.len() as u32,
        stored_len: data.len() as u32,
    };
    let _ = reader.open(key, &id, data);
    let mut writer = FrameWriter::new(key, 1).unwrap();
    if !data.is_empty()
        && let Ok((id, sealed)) = writer.seal(FrameKind::Chunk, data)
    {
        assert_eq!(reader.open(key, &id, &sealed).unwrap().bytes(), data);
        for at in [0, sealed.len() / 2, sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(reader.open(key, &id, &damaged).is_err());
        }
    }
}

/// Paths of files, and patterns.
pub fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for path in text.lines() {
        if release_store::paths::check(path).is_ok() {
            assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".." || part.is_empty()));
            assert!(firmware_image::free_zone::check_path(path).is_ok(), "{path:?}");
        }
        let _ = release_store::paths::fold(path);
    }
    let patterns: Vec<&str> = text.lines().take(8).collect();
    if let Ok(patterns) = IgnorePatterns::new(&patterns) {
        let _ = patterns.matches("client/settings.ini");
    }
}

/// A server whose every answer comes from the input.
struct Answers<'a> {
    timestamp: &'a [u8],
    snapshot: &'a [u8],
    targets: &'a [u8],
    root: &'a [u8],
}

impl Transport for Answers<'_> {
    fn describe(&self) -> String {
        "the input".into()
    }

    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        limit: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        let bytes = match path {
            _ if path.ends_with("timestamp.json") => self.timestamp,
            _ if path.ends_with("snapshot.json") => self.snapshot,
            _ if path.ends_with("targets.json") || path.ends_with("archive.json") => self.targets,
            "metadata/2.root.json" => self.root,
            _ => return Err(TransportError::NotFound { path: path.to_owned() }),
        };
        if bytes.len() as u64 > limit {
            return Err(TransportError::TooLarge { path: path.to_owned(), limit });
        }
        let _ = range;
        sink(0, bytes)?;
        let length = bytes.len() as u64;
        let mut outcome = GetOutcome::default();
        (outcome.bytes, outcome.whole) = (length, Some(length));
        Ok(outcome)
    }
}

/// Metadata of all four roles: as they come, and signed by the keys that count.
pub fn tuf(data: &[u8]) {
    static KEY: LazyLock<TufKey> = LazyLock::new(|| TufKey::from_seed(&[5; 32]));
    static ROOT: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let public = KEY.public();
        KEY.sign(&tuf::root(1, NOW, &public, &public, &public))
    });
    if let Ok(trust) = Trust::new(data, MemoryCache::new()) {
        let _ = trust.cached();
    }
    // Four parts, one after the other, each as long as the two bytes in front of it say.
    let mut rest = data;
    let mut part = || -> &[u8] {
        let Some((length, after)) = rest.split_at_checked(2) else { return &[] };
        let length = usize::from(u16::from_le_bytes([length[0], length[1]])).min(after.len());
        let (part, after) = after.split_at(length);
        rest = after;
        part
    };
    let parts = [part(), part(), part(), part()];
    let signed: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| match serde_json::from_slice(part) {
            Ok(value) => KEY.sign(&value),
            Err(_) => part.to_vec(),
        })
        .collect();
    for [timestamp, snapshot, targets, root] in [parts, [&signed[0], &signed[1], &signed[2], &signed[3]]] {
        let trust = Trust::new(&ROOT, MemoryCache::new()).unwrap();
        let answers = Answers { timestamp, snapshot, targets, root };
        let _ = trust.refresh(&answers, NOW);
        let _ = trust.archive(&answers);
        let _ = trust.cached();
    }
    // A consistent set around the third part: snapshot and timestamp that name it as it is.
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(parts[2]) {
        let targets = KEY.sign(&value);
        let archive = KEY.sign(&tuf::archive(1, NOW, &serde_json::Map::new()));
        let version = value.get("version").and_then(serde_json::Value::as_u64).unwrap_or(1);
        let snapshot = KEY.sign(&tuf::snapshot(1, NOW, (version, &targets), (1, &archive)));
        let timestamp = KEY.sign(&tuf::timestamp(1, NOW, 1, &snapshot));
        let trust = Trust::new(&ROOT, MemoryCache::new()).unwrap();
        let answers = Answers { timestamp: &timestamp, snapshot: &snapshot, targets: &targets, root: &[] };
        if trust.refresh(&answers, NOW).is_ok() {
            let _ = trust.cached().map(|releases| releases.iter().count());
        }
    }
}
