//! Two at once, the program killed at any moment, and no room, no memory, no network: what a device lacks delays it, and
//! damages nothing.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::programs::*;
use common::*;
use firmware_image::free_zone::FreeZone as _;
use firmware_image::host::{Access, DirZone, FileZone};
use firmware_image::image::build::{Layout, stick};
use firmware_image::image::device::Device;
use firmware_image::image::gpt::Guids;
use firmware_image::image::iso::{IsoFile, Source};
use firmware_image::journal::Journal;
use firmware_image::sim::{FullZone, Room, figures, limits};
use release_store::Directory;
use updater::{Action, EngineError, FailureKind, Outcome, hash};

/// Whether every case is asked for, and not some.
fn full() -> bool {
    std::env::var_os("HOLDFAST_FULL").is_some()
}

/// Release 1.0.0 and a user's files on a device of directories, release 2.0.0 at its server.
struct Behind {
    world: World,
    program: PathBuf,
    saved: tempfile::TempDir,
    server: release_store::serve::Server,
}

impl Behind {
    /// `updater`: the releases bring the updater too.
    fn new(updater: bool) -> Self {
        let (listener, url) = reserved_port();
        let (world, program) = device(&[(url, 1)]);
        small_hidden(&world, &program);
        let server = serve_at(&world, listener);
        let program_of = |request: &mut release_store::publish::PublishRequest| {
            if updater {
                request.updaters.push((PLATFORM.into(), program.clone()));
            }
        };
        world.publish_with("1.0.0", &first(), program_of);
        assert_status(&run(&world, &program, &["run"]), 0);
        write(&world.free().join("mine/letter.txt"), b"mine");
        write(&world.client().join("notes.txt"), b"mine too");
        world.publish_with("2.0.0", &second(), program_of);
        let behind = Self { world, program, saved: temporary(), server };
        behind.save();
        behind
    }

    fn save(&self) {
        copy_tree(&self.world.free(), &self.saved.path().join("free"));
        fs::copy(self.world.path("hidden.img"), self.saved.path().join("hidden.img")).unwrap();
    }

    fn restore(&self) {
        copy_tree(&self.saved.path().join("free"), &self.world.free());
        fs::copy(self.saved.path().join("hidden.img"), self.world.path("hidden.img")).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        run(&self.world, &self.program, args)
    }

    fn is_open(&self) -> bool {
        // What is just being written may not be readable.
        Journal::read(&DirZone::open(&self.world.free()).unwrap()).is_ok_and(|journal| journal.state().is_open())
    }

    /// `true`: it is the new one.
    fn assert_one_whole_release(&self, at: &str) -> bool {
        one_whole_release(&self.world, at)
    }

    /// The new release stands, and two more plug-ins later nothing is written any more.
    fn assert_ends_well(&self, at: &str) {
        let output = self.run(&["run"]);
        assert_eq!(output.status.code(), Some(0), "{at}: {}", said(&output));
        assert!(self.assert_one_whole_release(at), "{at}: still the old release");
        assert_users_files(&self.world, at);
        // A backup slot may follow once.
        assert_status(&self.run(&["run"]), 0);
        let settled = self.world.fingerprint();
        assert_status(&self.run(&["run"]), 0);
        assert_same(&settled, &self.world.fingerprint());
    }
}

fn one_whole_release(world: &World, at: &str) -> bool {
    let mut found = world.client_files();
    found.remove("notes.txt");
    let (old, new) = (expected(&first()), expected(&second()));
    assert!(found == old || found == new, "{at}: a mixture: {:?}", found.keys());
    found == new
}

fn assert_users_files(world: &World, at: &str) {
    assert_eq!(fs::read(world.free().join("mine/letter.txt")).unwrap(), b"mine", "{at}");
    assert_eq!(fs::read(world.client().join("notes.txt")).unwrap(), b"mine too", "{at}");
}

fn spawn(world: &World, program: &Path, args: &[&str]) -> std::process::Child {
    command(world, program).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn of_two_updaters_at_once_one_is_refused_and_nothing_is_damaged() {
    let behind = Behind::new(true);
    let mut refused = 0;
    for round in 0..4 {
        behind.restore();
        let both = [0, 1].map(|_| spawn(&behind.world, &behind.program, &["run"]));
        let both = both.map(|child| child.wait_with_output().unwrap());
        for output in &both {
            match output.status.code() {
                Some(0) => {}
                Some(4) => {
                    refused += 1;
                    assert!(said(output).contains("another updater is at work on this device"), "{}", said(output));
                }
                _ => panic!("round {round}: {output:?}"),
            }
        }
        assert!(both.iter().any(|output| output.status.success()));
        behind.assert_ends_well(&format!("two at once, round {round}"));
    }
    eprintln!("two updaters at once: 4 rounds, {refused} refused");
    assert!(refused > 0);
}

/// A device as one image, with release 1.0.0; its free zone's size is what the layout leaves.
struct Whole {
    world: World,
    program: PathBuf,
    image: PathBuf,
    _server: release_store::serve::Server,
}

impl Whole {
    fn new() -> Self {
        let (listener, url) = reserved_port();
        let (world, program) = device(&[(url, 1)]);
        let server = serve_at(&world, listener);
        world.publish("1.0.0", &first());
        let image = world.path("device.img");
        let config = fs::read(world.path("virtual/device.cfg")).unwrap();
        let layout = Layout {
            disk_bytes: 64 << 20,
            leave_bytes: 0,
            hidden_bytes: 8 << 20,
            product: "Testbird".into(),
            volume_id: 0x1234_5678,
            guids: Guids { disk: [1; 16], partitions: [[2; 16], [3; 16], [4; 16]] },
            timestamp: NOW,
        };
        stick(&image, &layout, &[IsoFile::new("device.cfg", Source::Bytes(config.into()))]).unwrap();
        let whole = Self { world, program, image, _server: server };
        assert_status(&whole.run(&["run"]), 0);
        whole.put("mine/letter.txt", b"mine");
        whole.world.publish("2.0.0", &second());
        whole
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.program).arg("--device").arg(&self.image).args(args).output().unwrap()
    }

    fn free<R>(&self, access: Access, f: impl FnOnce(&firmware_image::image::any_zone::AnyFreeZone) -> R) -> R {
        let device = Device::open(&self.image, None, access).unwrap();
        let free = device.free_zone().unwrap();
        let result = f(&free);
        free.close().unwrap();
        result
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        self.free(Access::ReadWrite, |free| updater::zone_io::write_durable(free, path, bytes).unwrap());
    }

    /// Leaves so many bytes free, or a cluster less.
    fn leave(&self, room: u64) {
        self.put("mine/films.bin", &[]);
        let free = self.free(Access::ReadOnly, |free| free.free_bytes().unwrap());
        self.put("mine/films.bin", &vec![7; usize::try_from(free.saturating_sub(room)).unwrap()]);
    }

    fn version(&self) -> String {
        let output = self.run(&["verify", "--json"]);
        assert_status(&output, 0);
        json(&output)["version"].as_str().unwrap().to_owned()
    }
}

/// The two numbers of "… bytes are needed in the free zone and … are free".
fn needed_and_free(said: &str) -> (u64, u64) {
    let before = |mark: &str| {
        let end = said.find(mark).unwrap_or_else(|| panic!("no room is named: {said}"));
        let digits: String = said[..end].chars().rev().take_while(char::is_ascii_digit).collect();
        digits.chars().rev().collect::<String>().parse().unwrap_or_else(|_| panic!("no number: {said}"))
    };
    (before(" bytes are needed in the free zone"), before(" are free"))
}

#[test]
fn with_too_little_room_an_update_says_how_much_it_needs_and_with_that_it_is_done() {
    let whole = Whole::new();
    let saved = fs::read(&whole.image).unwrap();
    let step = if full() { 64 << 10 } else { 448 << 10 };
    let (mut refused, mut room) = (0, 0);
    loop {
        fs::write(&whole.image, &saved).unwrap();
        whole.leave(room);
        let output = whole.run(&["run"]);
        if output.status.success() {
            assert_eq!(whole.version(), "2.0.0", "{room}");
            break;
        }
        assert_status(&output, 1);
        refused += 1;
        assert_eq!(whole.version(), "1.0.0", "{room}");
        let (needed, free) = needed_and_free(&said(&output));
        assert!(needed > free, "{}", said(&output));
        let log = json(&whole.run(&["status", "--json"]))["log"].to_string();
        let note = "release 2.0.0 could not be installed yet: there is no room for it";
        assert!(log.contains(note), "{log}");
        // So much of one's own files is removed, and not a cluster more than that.
        whole.leave(needed + 4096);
        assert_status(&whole.run(&["run"]), 0);
        assert_eq!(whole.version(), "2.0.0", "{room}");
        room += step;
    }
    eprintln!("too little room: {refused} rooms refused, from {room} bytes on it sufficed");
    assert!(refused > 2);
    let output = whole.run(&["run"]);
    assert_status(&output, 0);
    let settled = fs::read(&whole.image).unwrap();
    assert_status(&whole.run(&["run"]), 0);
    assert!(settled == fs::read(&whole.image).unwrap(), "a sound device was written to");
}

#[test]
fn an_updater_and_a_factory_tool_on_one_image_are_never_both_at_work() {
    let whole = Whole::new();
    // `partition-tools free put` opens the device so.
    let tool = Device::open(&whole.image, None, Access::ReadWrite).unwrap();
    let output = whole.run(&["run"]);
    assert_status(&output, 4);
    assert!(said(&output).contains("another updater is at work"), "{}", said(&output));
    drop(tool);
    let mut updater = Command::new(&whole.program);
    updater.args(["--limit-rate", "100k", "--device"]).arg(&whole.image).arg("run");
    let mut updater = updater.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let files = format!("/proc/{}/fd", updater.id());
    let has = |path: &Path| {
        fs::read_dir(&files).unwrap().any(|file| fs::read_link(file.unwrap().path()).is_ok_and(|of| of == path))
    };
    while !has(&whole.image) {
        assert_eq!(updater.try_wait().unwrap(), None);
    }
    std::thread::sleep(Duration::from_millis(100));
    let (mut opened, mut busy) = (0, 0);
    while updater.try_wait().unwrap().is_none() {
        match Device::open(&whole.image, None, Access::ReadWrite) {
            Ok(_) => opened += 1,
            Err(error) => {
                busy += 1;
                let text = format!("{:#}", anyhow::Error::from(error));
                assert!(text.contains("another program"), "{text}");
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(updater.wait().unwrap().success());
    // Between the last look and the end of the updater, one may have got it.
    assert!(busy > 1 && opened <= 1, "{busy} {opened}");
    whole.put("mine/more.txt", b"more");
    assert_status(&whole.run(&["run"]), 0);
    let settled = fs::read(&whole.image).unwrap();
    assert_status(&whole.run(&["run"]), 0);
    assert!(settled == fs::read(&whole.image).unwrap(), "a sound device was written to");
    assert_eq!(whole.version(), "2.0.0");
}

#[test]
fn an_updater_killed_at_any_moment_of_an_update_leaves_one_whole_release() {
    let behind = Behind::new(true);
    let mut whole = {
        let began = Instant::now();
        assert_status(&behind.run(&["run"]), 0);
        began.elapsed()
    };
    let kills = if full() { 1000 } else { 40 };
    let delays = noise(0x5eed, kills * 4 * 8);
    let (mut killed, mut open, mut ended) = (0, 0, 0);
    for (number, delay) in delays.chunks_exact(8).enumerate() {
        if killed == kills {
            break;
        }
        let share = u64::from_le_bytes(delay.try_into().unwrap()) as f64 / u64::MAX as f64;
        let delay = whole.mul_f64(share);
        let at = format!("kill {number}, after {delay:?}");
        behind.restore();
        let mut child = spawn(&behind.world, &behind.program, &["run"]);
        if number % 2 == 0 {
            std::thread::sleep(delay);
        } else {
            // The commit is the shortest part: every other one is killed in it.
            while !behind.is_open() && child.try_wait().unwrap().is_none() {}
            std::thread::sleep(delay / 128);
        }
        child.kill().unwrap();
        match child.wait().unwrap().code() {
            None => killed += 1,
            // Measured at a slow moment: how long it takes is learned again.
            Some(status) => {
                assert_eq!(status, 0, "{at}");
                ended += 1;
                whole = whole.mul_f64(0.9);
            }
        }
        match behind.is_open() {
            true => open += 1,
            false => _ = behind.assert_one_whole_release(&at),
        }
        assert_users_files(&behind.world, &at);
        behind.assert_ends_well(&at);
    }
    eprintln!("killed at random moments of {whole:?}: {killed} killed ({open} in an open commit), {ended} had ended");
    figures::count(figures::MOMENTS, "update, killed", killed, 0);
    assert_eq!(killed, kills, "too many had ended before");
}

/// As [`Behind`], for an engine on a zone that becomes full.
struct Filling {
    world: World,
    saved: tempfile::TempDir,
}

impl Filling {
    fn new() -> Self {
        let world = World::new();
        let one = world.updater_program("u1", &noise(11, 30_000));
        world.publish_with("1.0.0", &first(), |request| request.updaters.push((PLATFORM.into(), one)));
        let filling = Self { world, saved: temporary() };
        filling.attempt(&Room::endless()).unwrap();
        write(&filling.world.free().join("mine/letter.txt"), b"mine");
        write(&filling.world.client().join("notes.txt"), b"mine too");
        let two = filling.world.updater_program("u2", &noise(12, 40_000));
        filling.world.publish_with("2.0.0", &second(), |request| request.updaters.push((PLATFORM.into(), two)));
        copy_tree(&filling.world.free(), &filling.saved.path().join("free"));
        fs::copy(filling.world.path("hidden.img"), filling.saved.path().join("hidden.img")).unwrap();
        filling
    }

    fn restore(&self) {
        copy_tree(&self.saved.path().join("free"), &self.world.free());
        fs::copy(self.saved.path().join("hidden.img"), self.world.path("hidden.img")).unwrap();
    }

    /// A plug-in; and whether the client may be started after it.
    fn attempt(&self, room: &std::rc::Rc<Room>) -> Result<Outcome, (EngineError, bool)> {
        let free = DirZone::open(&self.world.free()).unwrap();
        let hidden = FileZone::open(&self.world.path("hidden.img"), Access::ReadWrite).unwrap();
        let mut setup = self.world.setup(&[]);
        setup.limits.rounds = 1;
        setup.transports.push(Box::new(Directory::new(self.world.store())));
        let free = FullZone(&free, room.clone());
        setup.run_zones(&free, Some(hidden), hash::sequential::<FullZone<'_, DirZone>>, |engine| {
            engine.run(&mut TestLauncher::default()).map_err(|error| (error, engine.is_whole()))
        })
    }
}

/// Fills the zone at every change of an update; how often it failed, and how often the client could not be started then.
fn fill_at_every_change(greedy: bool) -> (u64, u64, u64) {
    let filling = Filling::new();
    let room = Room::endless();
    assert_eq!(filling.attempt(&room).unwrap().action, Action::Updated);
    let total = room.used();
    assert!(total > 50, "{total}");
    let (mut failed, mut not_whole) = (0, 0);
    for changes in 0..total {
        let at = format!("full at change {changes} of {total}");
        filling.restore();
        let room = Room::for_changes(changes, greedy);
        // The first start may find the old release whole and only not be able to go on.
        for start in 0..2 {
            let at = format!("{at}, start {start}");
            match filling.attempt(&room) {
                Ok(outcome) => assert!(outcome.whole || greedy, "{at}: {outcome:?}"),
                Err((error, whole)) => {
                    failed += 1;
                    let open = Journal::read(&DirZone::open(&filling.world.free()).unwrap()).unwrap().state().is_open();
                    assert_eq!(error.kind(), FailureKind::NoSpace, "{at}: {error}");
                    if !whole {
                        not_whole += 1;
                        assert!(open && greedy, "{at}: {error}");
                        // Nothing but room is missing, and how much is said.
                        let (needed, free) = needed_and_free(&error.to_string());
                        assert!(needed > free, "{at}: {error}");
                    }
                    if !open {
                        one_whole_release(&filling.world, &at);
                    }
                }
            }
            assert_users_files(&filling.world, &at);
        }
        let outcome = filling.attempt(&Room::endless()).unwrap_or_else(|error| panic!("{at}: {error:?}"));
        assert!(outcome.whole, "{at}");
        assert!(one_whole_release(&filling.world, &at), "{at}: still the old release");
        assert_users_files(&filling.world, &at);
        filling.attempt(&Room::endless()).unwrap();
        let settled = filling.world.fingerprint();
        filling.attempt(&Room::endless()).unwrap();
        assert_same(&settled, &filling.world.fingerprint());
    }
    eprintln!("full at each of {total} changes (greedy: {greedy}): {failed} starts failed, {not_whole} not whole");
    (total, failed, not_whole)
}

#[test]
fn a_zone_that_fills_at_any_change_of_an_update_keeps_a_whole_release_and_ends_with_the_new_one() {
    let (_, failed, not_whole) = fill_at_every_change(false);
    assert!(failed > 0 && not_whole == 0, "{failed} {not_whole}");
}

#[test]
fn where_somebody_takes_all_room_that_is_given_back_what_is_missing_is_said_and_the_next_start_finishes() {
    let (_, failed, _) = fill_at_every_change(true);
    assert!(failed > 0);
}

#[test]
fn a_bad_place_for_one_new_file_keeps_the_old_release_running() {
    for path in ["client/app/new.bin", "client/app/new-name.dat"] {
        let filling = Filling::new();
        let room = Room::without_a_place_for(path);
        for start in 0..3 {
            let at = format!("no place for {path}, start {start}");
            let (error, whole) = filling.attempt(&room).unwrap_err();
            assert!(whole, "{at}: {error}");
            assert!(!one_whole_release(&filling.world, &at), "{at}: the new release cannot be there");
            assert_users_files(&filling.world, &at);
        }
        // A commit that a cut left open ends the same way.
        filling.restore();
        filling.attempt(&Room::endless()).unwrap();
        assert!(one_whole_release(&filling.world, path));
    }
}

#[test]
fn without_memory_an_updater_ends_with_an_error_and_damages_nothing() {
    let behind = Behind::new(false);
    let (mut fine, mut failed, mut aborted) = (0, 0, 0);
    // With less than this, the system cannot even load the program.
    let least = fs::metadata(&behind.program).unwrap().len() / 1024 + (4 << 10);
    let (cases, step) = if full() { (256, 128) } else { (24, 1024) };
    let sizes: Vec<u64> = (0..cases).map(|n| least + n * step).collect();
    for kibibytes in &sizes {
        behind.restore();
        let at = format!("with {kibibytes} KiB");
        let mut plain = command(&behind.world, &behind.program);
        let output = limits::address_space(plain.arg("run"), *kibibytes).output().unwrap();
        assert!(!said(&output).contains("panicked"), "{at}: {}", said(&output));
        match output.status.code() {
            Some(0) => fine += 1,
            Some(_) => {
                failed += 1;
                assert!(!said(&output).trim().is_empty(), "{at}: {output:?}");
            }
            None => {
                aborted += 1;
                assert!(!said(&output).trim().is_empty(), "{at}: {output:?}");
            }
        }
        if !behind.is_open() {
            behind.assert_one_whole_release(&at);
        }
        assert_users_files(&behind.world, &at);
        behind.assert_ends_well(&at);
    }
    eprintln!("{} sizes of memory: {fine} fine, {failed} failed, {aborted} aborted", sizes.len());
    assert!(fine > 0 && failed + aborted > 0);
}

/// A start that no server answers: within the check window, whole, and saying why.
fn assert_starts_offline(behind: &Behind, change: impl FnOnce(&mut Command), why: &[&str]) {
    let mut command = command(&behind.world, &behind.program);
    command.args(["run", "--verbose"]);
    change(&mut command);
    let began = Instant::now();
    let output = command.output().unwrap();
    let took = began.elapsed();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("No server could be reached"), "{}", said(&output));
    for why in why {
        assert!(said(&output).contains(why), "{why}: {}", said(&output));
    }
    // The window of the tests is two seconds.
    assert!(took < Duration::from_secs(25), "{took:?}");
    behind.world.assert_client(&{
        let mut files = first();
        files.push(("notes.txt", b"mine too".to_vec()));
        files
    });
    assert_users_files(&behind.world, "offline");
}

#[test]
fn without_a_network_a_device_starts_within_the_check_window_and_says_what_is_wrong() {
    let behind = Behind::new(false);
    // Nobody listens.
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    behind.world.write_config(&[(refusing, 1)]);
    assert_starts_offline(&behind, |_| (), &["refused"]);

    // Somebody listens, takes no connection, and its queue is full: another one never comes about.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let queued: Vec<_> = std::iter::repeat_with(connect).take(16).map_while(Result::ok).collect();
    assert!(queued.len() < 16);
    behind.world.write_config(&[(format!("http://{address}"), 1)]);
    assert_starts_offline(&behind, |_| (), &["timeout"]);

    // A name that is none.
    behind.world.write_config(&[("http://store.invalid".into(), 1)]);
    assert_starts_offline(&behind, |_| (), &["store.invalid"]);
}

/// A proxy that takes requests for any name to the server at `to`, and counts them.
fn proxy(to: std::net::SocketAddr) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
            let client = client.unwrap();
            std::thread::spawn(move || tunnel(client, to));
        }
    });
    (url, asked)
}

fn tunnel(mut client: TcpStream, to: std::net::SocketAddr) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"CONNECT store.invalid:80 "), "{}", String::from_utf8_lossy(&head));
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let mut server = TcpStream::connect(to)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    std::io::copy(&mut server, &mut client).map(|_| ())
}

#[test]
fn a_proxy_of_the_environment_is_asked_unless_the_name_is_excepted() {
    let behind = Behind::new(false);
    let (url, asked) = proxy(behind.server.address());
    behind.world.write_config(&[("http://store.invalid".into(), 1)]);
    let excepted = |command: &mut Command| _ = command.env("http_proxy", &url).env("no_proxy", "store.invalid");
    assert_starts_offline(&behind, excepted, &["store.invalid"]);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    // One that is not there is no other fault than a server that is not there.
    assert_starts_offline(&behind, |command| _ = command.env("http_proxy", "http://127.0.0.1:9"), &["refused"]);
    let output = command(&behind.world, &behind.program).arg("run").env("http_proxy", &url).output().unwrap();
    assert_status(&output, 0);
    assert!(asked.load(Ordering::SeqCst) > 0);
    assert!(behind.assert_one_whole_release("by a proxy"));
}

/// `unshare` with a mount namespace of its own, where this user may have one.
fn own_mounts() -> Option<Command> {
    let option = ["-m", "-rm"].into_iter().find(|option| {
        Command::new("unshare").args([option, "true"]).output().is_ok_and(|output| output.status.success())
    })?;
    let mut command = Command::new("unshare");
    command.arg(option);
    Some(command)
}

#[test]
fn a_free_zone_that_may_only_be_read_is_started_from_and_that_is_said() {
    let behind = Behind::new(false);
    let Some(mut protected) = own_mounts() else {
        figures::skipped("no mount namespace is to be had");
        return;
    };
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" && exec \"$@\"";
    protected.args(["sh", "-c", script]).arg(behind.world.free());
    let plain = command(&behind.world, &behind.program);
    protected.arg(plain.get_program()).args(plain.get_args()).arg("run").stdin(Stdio::null());
    let before = read_tree(&behind.world.free());
    let output = protected.output().unwrap();
    // The client may be started.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    assert!(said(&output).contains("write-protected"), "{}", said(&output));
    assert!(before == read_tree(&behind.world.free()));
    // One that is damaged may not.
    let (path, content) = first().swap_remove(0);
    let file = behind.world.client().join(path);
    fs::write(&file, [&content[..], b"virus"].concat()).unwrap();
    let output = protected.output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    fs::write(&file, content).unwrap();
    behind.assert_ends_well("write-protected");
}

#[test]
fn a_name_server_that_never_answers_delays_a_start_by_the_check_window_only() {
    let behind = Behind::new(false);
    let (Some(mut here), Ok(silent)) = (own_mounts(), UdpSocket::bind("127.0.0.77:53")) else {
        figures::skipped("no mount namespace, or no port 53, is to be had");
        return;
    };
    behind.world.write_config(&[("http://store.example".into(), 1)]);
    let names = behind.world.path("resolv.conf");
    fs::write(&names, "nameserver 127.0.0.77\n").unwrap();
    here.args(["sh", "-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""]).arg(names);
    let plain = |command: &mut Command| {
        here.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
        *command = here;
    };
    assert_starts_offline(&behind, plain, &["timeout"]);
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut [0; 512]).is_ok(), "nobody asked");
}
