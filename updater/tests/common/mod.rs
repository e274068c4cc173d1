//! A vendor, a store and a device in a temporary directory: real keys, real files, real HTTP on loopback.
#![allow(dead_code, reason = "each test binary uses its part")]

#[cfg(target_os = "linux")]
pub mod programs;
#[cfg(target_os = "linux")]
pub mod wine;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use firmware_image::RawZone;
use firmware_image::device_config::{Policies, Profile};
use firmware_image::free_zone::FreeZone;
use firmware_image::hidden::HiddenZone;
use firmware_image::host::{Access, DirZone, FileZone};
use firmware_image::places::Places;
use firmware_image::updater_image::{Floors, UpdaterVersion};
use release_store::keys::{ConfigRequest, KeyDir, KeySource, Passphrase};
use release_store::publish::{DeltaFrom, PublishRequest, Published, publish};
use release_store::repository::{NoObserver, Repository};
use release_store::serve::{ServeOptions, Server, serve};
use release_store::{Directory, Transport};
use updater::hash::{self, HashFiles};
use updater::host::{Guard, Probe, Silent};
use updater::meter::{Meter, Metered};
use updater::servers::Servers;
use updater::{Config, Engine, Host, Limits, Parts, Watch};

/// The time of the tests: the clock stands unless a test moves it.
pub const NOW: i64 = 1_800_000_000;
/// The boundary of the hidden zone's slots.
pub const ALIGN: u32 = 64 << 10;
/// The platform of the tests' updaters.
pub const PLATFORM: &str = firmware_image::paths::THIS_PLATFORM;

/// What stands on a device, with times.
pub type Fingerprint = BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)>;

/// A vendor with a store, and a device of its product.
pub struct World {
    pub dir: tempfile::TempDir,
    pub keys: KeyDir,
    pub host: TestHost,
}

/// A machine that does what a test says.
pub struct TestHost {
    pub now: AtomicI64,
    pub own_version: Mutex<Option<UpdaterVersion>>,
    pub launched_trailer: Mutex<Option<Vec<u8>>>,
    pub probe: Mutex<Probe>,
    pub client_runs: AtomicBool,
    pub waited: AtomicBool,
    pub slept: Mutex<Duration>,
}

impl Default for TestHost {
    fn default() -> Self {
        Self {
            now: AtomicI64::new(NOW),
            own_version: Mutex::new(None),
            launched_trailer: Mutex::new(None),
            probe: Mutex::new(Probe::Ready),
            client_runs: AtomicBool::new(false),
            waited: AtomicBool::new(false),
            slept: Mutex::new(Duration::ZERO),
        }
    }
}

impl Host for TestHost {
    fn now(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }
    fn sleep(&self, time: Duration) {
        *self.slept.lock().unwrap() += time;
    }
    fn random(&self, bytes: &mut [u8]) -> Result<(), String> {
        getrandom::fill(bytes).map_err(|error| error.to_string())
    }
    fn own_version(&self) -> Option<UpdaterVersion> {
        *self.own_version.lock().unwrap()
    }
    fn launched_trailer(&self) -> Option<Vec<u8>> {
        self.launched_trailer.lock().unwrap().clone()
    }
    fn probe(&self, image: &mut dyn std::io::Read) -> Probe {
        std::io::copy(image, &mut std::io::sink()).unwrap();
        self.probe.lock().unwrap().clone()
    }
    fn lock_client(&self) -> Result<Option<Guard>, String> {
        Ok((!self.client_runs.load(Ordering::SeqCst)).then(|| Box::new(()) as Guard))
    }
    fn wait_for_client(&self) -> bool {
        self.waited.store(true, Ordering::SeqCst);
        false
    }
}

/// A directory in memory where there is one: the tests flush a lot.
pub fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub fn passphrase() -> Passphrase {
    Passphrase::new("correct horse".into()).unwrap()
}

impl World {
    /// A vendor with an empty store, and a formatted device with a hidden zone of zeros.
    pub fn new() -> Self {
        let dir = temporary();
        let keys = KeyDir::create(&dir.path().join("keys"), "Testbird", &passphrase(), NOW).unwrap();
        Repository::init(&dir.path().join("store"), &keys, &passphrase(), NOW).unwrap();
        let world = Self { dir, keys, host: TestHost::default() };
        fs::create_dir(world.free()).unwrap();
        fs::create_dir(world.path("virtual")).unwrap();
        world.write_config(&[]);
        world.wipe_hidden();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    pub fn free(&self) -> PathBuf {
        self.path("free")
    }
    pub fn client(&self) -> PathBuf {
        self.free().join("client")
    }
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    pub fn wipe_hidden(&self) {
        fs::write(self.path("hidden.img"), vec![0; 2 * ALIGN as usize + (4 << 20)]).unwrap();
    }

    pub fn wipe_free(&self) {
        fs::remove_dir_all(self.free()).unwrap();
        fs::create_dir(self.free()).unwrap();
    }

    pub fn write_config(&self, servers: &[(String, u16)]) {
        self.write_config_for(servers, "client/run.sh");
    }

    /// With this client command.
    pub fn write_config_for(&self, servers: &[(String, u16)], command: &str) {
        let request = ConfigRequest {
            channel: "stable".into(),
            profile: Profile::Stick,
            align_bytes: ALIGN,
            servers: servers.to_vec(),
            client_commands: vec![(String::new(), command.into())],
            policies: Policies { check_timeout_secs: 2, ..Policies::default() },
        };
        let source = KeySource::open(&self.path("keys")).unwrap();
        let config = source.device_config(Some(&passphrase()), &request).unwrap();
        fs::write(self.path("virtual/device.cfg"), config).unwrap();
    }

    /// Writes a tree of files to publish.
    pub fn tree(&self, files: &[(&str, Vec<u8>)]) -> PathBuf {
        let tree = self.path("tree");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir(&tree).unwrap();
        for (path, bytes) in files {
            write(&tree.join(path), bytes);
        }
        tree
    }

    pub fn publish(&self, version: &str, files: &[(&str, Vec<u8>)]) -> Published {
        self.publish_with(version, files, |_| ())
    }

    pub fn publish_with(
        &self,
        version: &str,
        files: &[(&str, Vec<u8>)],
        change: impl FnOnce(&mut PublishRequest),
    ) -> Published {
        let tree = self.tree(files);
        let mut request = PublishRequest::new(tree, version, NOW);
        request.level = 3;
        // What patches do has tests of its own.
        request.deltas = DeltaFrom::Versions(Vec::new());
        change(&mut request);
        let mut repository = Repository::open(&self.store(), &self.keys).unwrap();
        publish(&mut repository, &passphrase(), &request, &mut NoObserver).unwrap()
    }

    pub fn withdraw(&self, version: &str) {
        let mut repository = Repository::open(&self.store(), &self.keys).unwrap();
        repository.withdraw("stable", version, Some("it was bad"), &passphrase(), NOW).unwrap();
    }

    /// A program that takes a stamp, for `publish --updater`.
    pub fn updater_program(&self, name: &str, content: &[u8]) -> PathBuf {
        let mut program = content.to_vec();
        program.extend_from_slice(b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a");
        program.extend_from_slice(&[0; 32]);
        let path = self.path(name);
        fs::write(&path, program).unwrap();
        path
    }

    /// A signed updater image.
    pub fn signed_updater(&self, content: &[u8], version: &str, floors: Floors) -> Vec<u8> {
        let program = fs::read(self.updater_program("program", content)).unwrap();
        let source = KeySource::open(&self.path("keys")).unwrap();
        let version = UpdaterVersion::parse(version).unwrap();
        source.updater(Some(&passphrase()), PLATFORM, program, version, floors).unwrap().image
    }

    pub fn serve(&self) -> Server {
        self.serve_with(ServeOptions::default())
    }

    pub fn serve_with(&self, options: ServeOptions) -> Server {
        serve(TcpListener::bind("127.0.0.1:0").unwrap(), &self.store(), options).unwrap()
    }

    pub fn config(&self) -> Config {
        let vendor = *self.keys.vendor_key();
        Config::open(&fs::read(self.path("virtual/device.cfg")).unwrap(), &vendor).unwrap()
    }

    /// Calls `f` with an engine that asks these servers.
    pub fn engine<R>(&self, servers: &[&str], f: impl FnOnce(&mut Engine<'_, DirZone, FileZone, FileZone>) -> R) -> R {
        self.setup(servers).run(f)
    }

    pub fn setup<'w>(&'w self, servers: &[&str]) -> Setup<'w> {
        Setup {
            world: self,
            servers: servers.iter().map(|url| ((*url).to_owned(), 1)).collect(),
            transports: Vec::new(),
            max_bytes: None,
            rate: None,
            hidden: true,
            offline: None,
            cd_tail: None,
            watch: &Silent,
            limits: Limits { rounds: 2, ..Limits::default() },
        }
    }

    /// Everything on the device, with times: what "not one byte was written" is judged by.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut all = BTreeMap::new();
        collect(&self.free(), &mut all);
        for name in ["hidden.img", "virtual/device.cfg"] {
            let path = self.path(name);
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            all.insert(path.clone(), (fs::read(&path).unwrap(), modified));
        }
        all
    }

    /// Asserts that `client/` is exactly these files.
    pub fn assert_client(&self, files: &[(&str, Vec<u8>)]) {
        let (found, wanted) = (self.client_files(), expected(files));
        let names = found.keys().chain(wanted.keys());
        let differing: std::collections::BTreeSet<_> =
            names.filter(|name| found.get(*name) != wanted.get(*name)).collect();
        assert!(differing.is_empty(), "not as published: {differing:?}");
    }

    pub fn client_files(&self) -> BTreeMap<String, Vec<u8>> {
        read_tree(&self.client())
    }
}

pub fn expected(files: &[(&str, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect()
}

/// An engine to be made.
pub struct Setup<'w> {
    pub world: &'w World,
    pub servers: Vec<(String, u16)>,
    pub transports: Vec<Box<dyn Transport>>,
    pub max_bytes: Option<u64>,
    pub rate: Option<u64>,
    pub hidden: bool,
    pub offline: Option<PathBuf>,
    pub cd_tail: Option<PathBuf>,
    pub watch: &'w dyn Watch,
    pub limits: Limits,
}

impl Setup<'_> {
    pub fn run<R>(self, f: impl FnOnce(&mut Engine<'_, DirZone, FileZone, FileZone>) -> R) -> R {
        let free = DirZone::open(&self.world.free()).unwrap();
        self.run_on(&free, hash::parallel::<DirZone>, f)
    }

    pub fn run_on<F: FreeZone, R>(
        self,
        free: &F,
        hash: HashFiles<F>,
        f: impl FnOnce(&mut Engine<'_, F, FileZone, FileZone>) -> R,
    ) -> R {
        let hidden = self.hidden.then(|| FileZone::open(&self.world.path("hidden.img"), Access::ReadWrite).unwrap());
        self.run_zones(free, hidden, hash, f)
    }

    pub fn run_zones<F: FreeZone, H: RawZone, R>(
        self,
        free: &F,
        hidden: Option<H>,
        hash: HashFiles<F>,
        f: impl FnOnce(&mut Engine<'_, F, H, FileZone>) -> R,
    ) -> R {
        let world = self.world;
        let config = world.config();
        let meter = Meter::new(self.max_bytes, self.rate);
        let servers = if self.transports.is_empty() {
            Servers::from_addresses(&self.servers, &meter, &world.host)
        } else {
            let metered = |transport| (Box::new(Metered::new(Boxed(transport), meter.clone())) as _, 1);
            Servers::new(self.transports.into_iter().map(metered).collect(), &meter, &world.host)
        };
        let hidden = hidden.map(|zone| HiddenZone::new(zone, config.align_bytes).unwrap());
        let cd_tail = self.cd_tail.map(|path| FileZone::open(&path, Access::ReadOnly).unwrap());
        let offline = self.offline.map(|path| Box::new(Directory::new(path)) as Box<dyn Transport>);
        let mut engine = Engine::load(Parts {
            free,
            places: Places { hidden, free: Some(free), cd_tail },
            config,
            vendor: *world.keys.vendor_key(),
            servers,
            offline,
            host: &world.host,
            watch: self.watch,
            hash,
        })
        .unwrap();
        engine.set_limits(self.limits);
        f(&mut engine)
    }
}

pub struct Boxed(pub Box<dyn Transport>);

impl Transport for Boxed {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn get(
        &self,
        path: &str,
        range: Option<std::ops::Range<u64>>,
        max_bytes: u64,
        sink: &mut release_store::transport::Sink<'_>,
    ) -> Result<release_store::transport::GetOutcome, release_store::TransportError> {
        self.0.get(path, range, max_bytes, sink)
    }
}

pub fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    #[cfg(unix)]
    if bytes.starts_with(b"#!") {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Asserts that nothing differs, and names what does.
pub fn assert_same(before: &Fingerprint, after: &Fingerprint) {
    let names = before.keys().chain(after.keys());
    let differing: std::collections::BTreeSet<_> = names.filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(differing.is_empty(), "written: {differing:?}");
}

pub fn read_tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    collect(root, &mut all);
    all.into_iter()
        .filter(|(path, _)| path.is_file())
        .map(|(path, (bytes, _))| (path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"), bytes))
        .collect()
}

fn collect(dir: &Path, all: &mut BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let modified = fs::symlink_metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            all.insert(path.clone(), (Vec::new(), modified));
            collect(&path, all);
        } else {
            all.insert(path.clone(), (fs::read(&path).unwrap_or_default(), modified));
        }
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&next());
    }
    bytes.truncate(length);
    bytes
}

/// `bytes` with some in the middle replaced, as a new build of a program is.
pub fn patched(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// The first release of the tests.
pub fn first() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("app/big.bin", noise(1, 600_000)),
        ("app/empty", Vec::new()),
        ("app/old-name.dat", noise(2, 50_000)),
        ("gone/only.txt", b"this file goes away\n".to_vec()),
        ("readme.txt", b"the first release\n".to_vec()),
        ("run.sh", b"#!/bin/sh\necho one\n".to_vec()),
        ("same.bin", noise(3, 200_000)),
    ]
}

/// The second: one file patched, one renamed, one removed, one new.
pub fn second() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("app/big.bin", patched(&noise(1, 600_000), 300_000, &noise(9, 1000))),
        ("app/empty", Vec::new()),
        ("app/new-name.dat", noise(2, 50_000)),
        ("app/new.bin", noise(4, 120_000)),
        ("readme.txt", b"the second release, which is longer\n".to_vec()),
        ("run.sh", b"#!/bin/sh\necho two\n".to_vec()),
        ("same.bin", noise(3, 200_000)),
    ]
}

/// Copies a directory over another one, which then is exactly it.
pub fn copy_tree(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), &target).map(|_| ()).unwrap()
        }
    }
}

/// A launcher that remembers what it was told.
#[derive(Default)]
pub struct TestLauncher {
    pub said: String,
    pub can_go: bool,
    pub on_wait: Option<Box<dyn FnOnce()>>,
    pub on_go: Option<Box<dyn FnOnce()>>,
}

impl updater::operations::Launcher for TestLauncher {
    fn ready(&mut self) {
        self.said.push('R');
    }
    fn go(&mut self) -> bool {
        if self.can_go {
            self.said.push('G');
            if let Some(f) = self.on_go.take() {
                f();
            }
        }
        self.can_go
    }
    fn wait_for_client(&mut self) {
        self.said.push('W');
        if let Some(f) = self.on_wait.take() {
            f();
        }
    }
}
