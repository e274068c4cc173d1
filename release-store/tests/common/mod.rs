//! A vendor with keys and a store, trees to publish, and transports that misbehave.
#![allow(dead_code, missing_docs)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use release_store::keys::{KeyDir, Passphrase};
use release_store::publish::{DeltaFrom, PublishRequest, Published, publish};
use release_store::repository::{NoObserver, Repository};
use release_store::transport::{Directory, GetOutcome, Sink, Transport, TransportError};
use release_store::trust::{MemoryCache, Release, Releases, Trust, TrustCache, VerifiedManifest};
use release_store::{ContentKeys, Manifest, StoreError};

/// 2026-09-21.
pub const NOW: i64 = 1_790_000_000;
pub const DAY: i64 = 86_400;

pub fn passphrase() -> Passphrase {
    Passphrase::new("correct horse".into()).unwrap()
}

pub struct Vendor {
    pub dir: tempfile::TempDir,
    pub keys: KeyDir,
}

impl Vendor {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyDir::create(&dir.path().join("keys"), "Acme Notes", &passphrase(), NOW).unwrap();
        let vendor = Self { dir, keys };
        drop(Repository::init(&vendor.store(), &vendor.keys, &passphrase(), NOW).unwrap());
        vendor
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Lets an older copy of a store be worked on again.
    pub fn forget_signed(&self) {
        let _ = std::fs::remove_file(self.keys.path().join("signed.json"));
    }
    pub fn transport(&self) -> Directory {
        Directory::new(self.store())
    }

    pub fn root(&self) -> Vec<u8> {
        self.keys.root_json().unwrap()
    }

    pub fn content_keys(&self) -> ContentKeys {
        self.keys.secrets(&passphrase()).unwrap().content_keys
    }

    pub fn open(&self) -> Repository<'_> {
        Repository::open(&self.store(), &self.keys).unwrap()
    }

    pub fn request(&self, tree: &Path, version: &str) -> PublishRequest {
        let mut request = PublishRequest::new(tree, version, NOW);
        request.level = 3;
        // What patches do has tests of its own.
        request.deltas = DeltaFrom::Versions(Vec::new());
        request
    }

    pub fn try_publish(&self, tree: &Path, version: &str) -> Result<Published, StoreError> {
        publish(&mut self.open(), &passphrase(), &self.request(tree, version), &mut NoObserver)
    }

    pub fn publish(&self, tree: &Path, version: &str) -> Published {
        self.try_publish(tree, version).unwrap()
    }

    /// All releases, also those that are not current.
    pub fn releases(&self) -> Releases {
        let trust = Trust::new(&self.root(), MemoryCache::new()).unwrap();
        trust.refresh(&self.transport(), NOW).unwrap();
        trust.archive(&self.transport()).unwrap()
    }

    /// A release of the channel `stable`.
    pub fn release(&self, version: &str) -> Release {
        self.releases().by_version("stable", version).unwrap().clone()
    }

    pub fn verified(&self, release: &Release) -> VerifiedManifest {
        VerifiedManifest::fetch(release, &self.transport(), &self.content_keys()).unwrap()
    }

    pub fn manifest(&self, version: &str) -> Manifest {
        self.verified(&self.release(version)).open("Acme Notes").unwrap()
    }

    /// A small tree, published as 1.0.0.
    pub fn with_release() -> (Self, PathBuf) {
        let vendor = Self::new();
        let tree = vendor.path("tree");
        grow(&tree, 5, 40_000, 1);
        vendor.publish(&tree, "1.0.0");
        (vendor, tree)
    }
}

/// Reproducible numbers (xorshift64*).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }
}

/// Bytes that compress about as programs do: words of a small vocabulary between incompressible runs.
pub fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let vocabulary: Vec<Vec<u8>> = (0..256).map(|_| numbers.bytes(12)).collect();
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        match numbers.next() % 4 {
            0 => bytes.extend(numbers.bytes(8)),
            _ => bytes.extend_from_slice(&vocabulary[(numbers.next() % 256) as usize]),
        }
    }
    bytes.truncate(length);
    bytes
}

/// A tree of `files` files of about `length` bytes each.
pub fn grow(tree: &Path, files: usize, length: usize, seed: u64) {
    for at in 0..files {
        let directory = tree.join(format!("part-{}", at % 7));
        fs::create_dir_all(&directory).unwrap();
        let length = length / 2 + (at * 7919) % length;
        fs::write(directory.join(format!("file-{at}.bin")), content(length, seed + at as u64)).unwrap();
    }
}

/// Every file below `root` with its bytes, but those that a writer keeps for itself.
pub fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    fn walk(root: &Path, at: &Path, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if name != ".tmp" {
                    walk(root, &path, found);
                }
            } else if name != ".lock" {
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

pub fn copy_tree(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        let place = to.join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, bytes).unwrap();
    }
}

/// A cache that counts what it is told to keep.
#[derive(Default)]
pub struct CountingCache {
    pub inner: MemoryCache,
    pub stores: AtomicU64,
}

impl CountingCache {
    pub fn stores(&self) -> u64 {
        self.stores.load(Ordering::SeqCst)
    }
}

impl TrustCache for CountingCache {
    fn load(&self, name: &str) -> Option<Vec<u8>> {
        self.inner.load(name)
    }
    fn store(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        self.stores.fetch_add(1, Ordering::SeqCst);
        self.inner.store(name, bytes)
    }
}

type Change = Box<dyn Fn(&str, Vec<u8>) -> Option<Vec<u8>> + Send + Sync>;

/// A server that changes what it sends; `None`: it hides it.
pub struct Tampering<T> {
    pub inner: T,
    pub change: Change,
    pub date: Option<i64>,
}

impl<T: Transport> Tampering<T> {
    pub fn new(inner: T, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self { inner, change: Box::new(change), date: None }
    }
}

impl<T: Transport> Transport for Tampering<T> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn get(
        &self,
        path: &str,
        _: Option<Range<u64>>,
        _: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        let bytes = release_store::transport::get_all(&self.inner, path, u64::MAX)?;
        let bytes = (self.change)(path, bytes).ok_or(TransportError::NotFound { path: path.into() })?;
        sink(0, &bytes)?;
        Ok(GetOutcome::new(0, bytes.len() as u64).with_date(self.date))
    }
}

/// The least HTTP client there can be: one connection, GET, ranges.
pub struct Http {
    address: SocketAddr,
    connection: Mutex<Option<BufReader<TcpStream>>>,
}

impl Http {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connection: Mutex::new(None) }
    }
}

impl Transport for Http {
    fn describe(&self) -> String {
        format!("http://{}", self.address)
    }
    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        let unreachable =
            |error: std::io::Error| TransportError::Unreachable { path: path.into(), source: error.into() };
        let mut slot = self.connection.lock().unwrap();
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(self.address).map_err(unreachable)?),
        };
        let range_header = range.map(|range| format!("Range: bytes={}-{}\r\n", range.start, range.end - 1));
        let request = format!("GET /{path} HTTP/1.1\r\nHost: test\r\n{}\r\n", range_header.unwrap_or_default());
        connection.get_mut().write_all(request.as_bytes()).map_err(unreachable)?;
        let (mut status, mut length, mut start) = (String::new(), 0_u64, 0_u64);
        connection.read_line(&mut status).map_err(unreachable)?;
        loop {
            let mut line = String::new();
            connection.read_line(&mut line).map_err(unreachable)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.parse().unwrap();
            }
            if let Some(value) = line.strip_prefix("Content-Range: bytes ") {
                start = value.split('-').next().unwrap().parse().unwrap();
            }
        }
        if length > max_bytes {
            return Err(TransportError::TooLarge { path: path.into(), limit: max_bytes });
        }
        let mut body = vec![0; length as usize];
        connection.read_exact(&mut body).map_err(unreachable)?;
        *slot = Some(connection);
        if status.contains(" 404 ") {
            return Err(TransportError::NotFound { path: path.into() });
        }
        assert!(status.contains(" 200 ") || status.contains(" 206 "), "{status}");
        sink(start, &body)?;
        Ok(GetOutcome::new(start, length))
    }
}

/// A program with a place for the vendor's key.
pub fn program(seed: u64) -> Vec<u8> {
    let mut bytes = content(90_001, seed);
    bytes.extend_from_slice(b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a");
    bytes.extend_from_slice(&[0; 32]);
    bytes.extend(content(1000, seed + 1));
    bytes
}
