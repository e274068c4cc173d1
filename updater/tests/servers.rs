//! Servers that are dead, slow, simple or lying, and what a device makes of them.

mod common;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use common::*;
use firmware_image::sim::figures;
use release_store::serve::ServeOptions;
use release_store::transport::{GetOutcome, Sink};
use release_store::{Directory, Transport, TransportError};
use updater::{Action, EngineError, FailureKind, Wish};

/// A store that remembers which bytes of which pack it was asked for, and spoils what it says as a test wants it.
struct Crooked {
    store: Directory,
    trick: Trick,
    /// Pack and offset of every piece sent.
    sent: Arc<Mutex<Sent>>,
    left: AtomicU64,
}

type Sent = Vec<(String, Range<u64>)>;

#[derive(Clone, Copy, PartialEq)]
enum Trick {
    None,
    /// Flips a bit of every pack.
    Flip,
    /// Never stops sending.
    Endless,
    /// Ends every pack after so many bytes, once.
    CutAfter(u64),
    /// Sends small pieces and breaks off after so many bytes in all.
    DieAfter(u64),
}

impl Crooked {
    fn new(world: &World, trick: Trick) -> Self {
        let left = match trick {
            Trick::DieAfter(bytes) => bytes,
            _ => u64::MAX,
        };
        Self { store: Directory::new(world.store()), trick, sent: Arc::default(), left: AtomicU64::new(left) }
    }
}

impl Transport for Crooked {
    fn describe(&self) -> String {
        "crooked".into()
    }
    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        if !path.starts_with("packs/") {
            return self.store.get(path, range, max_bytes, sink);
        }
        if self.trick == Trick::Endless {
            let mut offset = range.map_or(0, |range| range.start);
            loop {
                sink(offset, &noise(offset, 4096))?;
                offset += 4096;
            }
        }
        self.store.get(path, range, max_bytes, &mut |offset, piece| {
            let mut offset = offset;
            for piece in piece.chunks(1000) {
                let mut piece = piece.to_vec();
                match self.trick {
                    Trick::Flip => piece[0] ^= 1,
                    Trick::CutAfter(bytes) if offset > bytes => {
                        return Err(TransportError::Bad { path: path.into(), reason: "it ends early".into() });
                    }
                    _ => {}
                }
                if self.left.fetch_sub(piece.len() as u64, Ordering::Relaxed) < piece.len() as u64 {
                    self.left.store(0, Ordering::Relaxed);
                    return Err(TransportError::Unreachable { path: path.into(), source: "unplugged".into() });
                }
                sink(offset, &piece)?;
                self.sent.lock().unwrap().push((path.to_owned(), offset..offset + piece.len() as u64));
                offset += piece.len() as u64;
            }
            Ok(())
        })
    }
}

#[test]
fn a_dead_server_is_passed_over() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for _ in 0..3 {
        let mut setup = world.setup(&[&dead, &server.url()]);
        setup.limits.rounds = 1;
        setup.run(|engine| engine.update(&Wish::Newest).unwrap());
    }
    world.assert_client(&first());
}

#[test]
fn a_server_without_ranges_is_read_through_once() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve_with(ServeOptions { ranges: false, verbose: false });
    world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap());
    // A gap in the middle of the pack: two ranges are wanted, and one pass gives both.
    for path in ["app/big.bin", "same.bin"] {
        std::fs::remove_file(world.client().join(path)).unwrap();
    }
    server.counters().reset();
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    world.assert_client(&first());
    let pack = 860_000;
    assert!(server.counters().bytes() < pack + 20_000, "{}", server.counters().bytes());
    // What is wanted does not begin where the pack does.
    std::fs::remove_file(world.client().join("same.bin")).unwrap();
    world.engine(&[&server.url()], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    world.assert_client(&first());
}

#[test]
fn pythons_file_server_serves_a_device() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let spawned = std::process::Command::new("python3")
        .args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string(), "--directory"])
        .arg(world.store())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
    let Ok(mut python) = spawned else {
        figures::skipped("python3 is not installed");
        return;
    };
    let url = format!("http://127.0.0.1:{port}");
    wait_for(port);
    let outcome = world.engine(&[&url], |engine| engine.update(&Wish::Newest));
    python.kill().unwrap();
    python.wait().unwrap();
    assert_eq!(outcome.unwrap().action, Action::Installed);
    world.assert_client(&first());
}

/// Waits until something listens on a port of this machine.
fn wait_for(port: u16) {
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("nothing listens on port {port}");
}

#[test]
fn nginx_serves_an_install_and_the_ranges_of_a_repair() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let home = tempfile::tempdir().unwrap();
    let (at, log) = (home.path().display(), home.path().join("access.log"));
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = format!(
        "daemon off; master_process off; {user} pid {at}/pid; error_log {at}/error.log; events {{}}\n\
         http {{ access_log {at}/access.log; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n\
         uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; server {{ listen 127.0.0.1:{port}; root {}; }} }}\n",
        world.store().display()
    );
    std::fs::write(home.path().join("nginx.conf"), config).unwrap();
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let spawned = std::process::Command::new("nginx")
        .env("PATH", path)
        .arg("-c")
        .arg(home.path().join("nginx.conf"))
        .args(["-p", &home.path().to_string_lossy()])
        .spawn();
    let Ok(mut nginx) = spawned else {
        figures::skipped("nginx is not installed");
        return;
    };
    wait_for(port);
    let url = format!("http://127.0.0.1:{port}");
    let installed = world.engine(&[&url], |engine| engine.update(&Wish::Newest));
    std::fs::write(world.client().join("same.bin"), b"infected").unwrap();
    let repaired = world.engine(&[&url], |engine| engine.run(&mut TestLauncher::default()));
    nginx.kill().unwrap();
    nginx.wait().unwrap();
    assert_eq!(installed.unwrap().action, Action::Installed);
    assert_eq!(repaired.unwrap().action, Action::Repaired);
    world.assert_client(&first());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains(" 206 "), "ranges were asked for and given: {log}");
}

#[test]
fn wrong_bytes_are_never_installed_and_another_server_is_asked() {
    let world = World::new();
    world.publish("1.0.0", &first());
    for trick in [Trick::Flip, Trick::Endless] {
        let mut setup = world.setup(&[]);
        setup.transports.push(Box::new(Crooked::new(&world, trick)));
        let error = setup.run(|engine| engine.update(&Wish::Newest).unwrap_err());
        assert_eq!(error.kind(), FailureKind::NotAuthentic, "{error}");
        assert!(world.client_files().is_empty());
    }
    let mut setup = world.setup(&[]);
    setup.transports.push(Box::new(Crooked::new(&world, Trick::Flip)));
    setup.transports.push(Box::new(Crooked::new(&world, Trick::None)));
    setup.run(|engine| engine.update(&Wish::Newest).unwrap());
    world.assert_client(&first());
}

#[test]
fn an_answer_that_ends_early_costs_no_frame_twice() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let crooked = Crooked::new(&world, Trick::CutAfter(400_000));
    let honest = Crooked::new(&world, Trick::None);
    let mut setup = world.setup(&[]);
    setup.limits.rounds = 3;
    setup.transports.push(Box::new(crooked));
    setup.transports.push(Box::new(honest));
    let outcome = setup.run(|engine| engine.update(&Wish::Newest).unwrap());
    world.assert_client(&first());
    assert_eq!(outcome.frames_fetched, distinct_frames(&world), "each frame once");
}

/// The frames that a first install needs: as many as a fresh device's plan has.
fn distinct_frames(world: &World) -> u64 {
    let fresh = temporary();
    let mut setup = world.setup(&[]);
    setup.limits.dry_run = true;
    setup.hidden = false;
    setup.transports.push(Box::new(Directory::new(world.store())));
    let free = firmware_image::host::DirZone::open(fresh.path()).unwrap();
    let hash = updater::hash::sequential::<firmware_image::host::DirZone>;
    let summary = setup.run_on(&free, hash, |engine| engine.update(&Wish::Newest).unwrap().plan.unwrap());
    summary.frames as u64
}

#[test]
fn a_download_that_is_killed_again_and_again_fetches_no_frame_twice() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let wanted = distinct_frames(&world);
    let mut frames = 0;
    let mut runs = 0;
    let mut sent = Sent::new();
    loop {
        runs += 1;
        assert!(runs < 200);
        let crooked = Crooked::new(&world, Trick::DieAfter(280_000));
        let log = crooked.sent.clone();
        let mut setup = world.setup(&[]);
        setup.limits.rounds = 1;
        setup.transports.push(Box::new(crooked));
        let (result, fetched) = setup.run(|engine| (engine.update(&Wish::Newest), engine.frames_fetched()));
        frames += fetched;
        sent.extend(log.lock().unwrap().drain(..));
        match result {
            Ok(_) => break,
            Err(EngineError::Offline { .. }) => {}
            // The chunk list alone is more than one life of this server.
            Err(error) => panic!("{error}"),
        }
        // A frame longer than one life would never come; none is.
    }
    assert!(runs > 3, "{runs}");
    assert_eq!(frames, wanted);
    world.assert_client(&first());
}

#[test]
fn a_budget_stops_the_download_and_keeps_what_came() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let server = world.serve();
    let mut kinds = BTreeSet::new();
    let mut total = 0;
    for _ in 0..40 {
        let mut setup = world.setup(&[&server.url()]);
        setup.max_bytes = Some(300_000);
        let (result, bytes) = setup.run(|engine| {
            let result = engine.update(&Wish::Newest);
            (result, engine.servers().meter().bytes())
        });
        assert!(bytes <= 300_000 + 70_000, "{bytes}");
        total += bytes;
        match result {
            Ok(_) => {
                world.assert_client(&first());
                assert!(kinds.contains("limit"));
                // Frames that the budget cut in the middle, and metadata again each time; never all of it again.
                assert!(total < 2 * 970_000, "{total}");
                return;
            }
            Err(error) => {
                assert_eq!(error.kind(), FailureKind::Limit, "{error}");
                assert!(world.client_files().is_empty());
                kinds.insert("limit");
            }
        }
    }
    panic!("it never came to an end");
}

#[test]
fn a_rate_limit_is_kept() {
    let world = World::new();
    world.publish("1.0.0", &[("a.bin", noise(7, 300_000))]);
    let server = world.serve();
    let began = std::time::Instant::now();
    let mut setup = world.setup(&[&server.url()]);
    setup.rate = Some(300_000);
    setup.run(|engine| engine.update(&Wish::Newest).unwrap());
    let took = began.elapsed().as_secs_f64();
    assert!(took > 0.6, "{took}");
}

#[test]
fn a_server_that_speaks_nonsense_or_redirects_forever_is_an_error_and_no_hang() {
    let world = World::new();
    world.publish("1.0.0", &first());
    for answer in [
        "HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}",
        "HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\n\r\n{}",
        "hello\r\n\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicU64::new(0));
        let counted = asked.clone();
        std::thread::spawn(move || {
            // An end, so that who follows redirects for ever fails this test and not the patience of whoever runs it.
            for mut connection in listener.incoming().flatten().take(100) {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut request = [0; 4096];
                let _ = connection.read(&mut request);
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        let mut setup = world.setup(&[&url]);
        setup.limits.rounds = 1;
        let error = setup.run(|engine| engine.check().unwrap_err());
        assert!(matches!(error.kind(), FailureKind::Offline | FailureKind::NotAuthentic), "{answer}: {error}");
        let asked = asked.load(Ordering::SeqCst);
        assert!(asked <= 10, "{answer}: asked {asked} times");
    }
}

#[test]
fn a_store_of_another_vendor_is_refused() {
    let world = World::new();
    let other = World::new();
    world.publish("1.0.0", &first());
    other.publish("1.0.0", &second());
    let server = other.serve();
    let error = world.engine(&[&server.url()], |engine| engine.update(&Wish::Newest).unwrap_err());
    assert_eq!(error.kind(), FailureKind::NotAuthentic, "{error}");
    assert!(world.client_files().is_empty());
}

#[test]
fn old_metadata_is_refused_also_after_the_free_zone_was_formatted() {
    let world = World::new();
    world.publish("1.0.0", &first());
    let old = temporary();
    copy_tree(&world.store(), old.path());
    world.publish("2.0.0", &second());
    let run = |store: &std::path::Path| {
        let mut setup = world.setup(&[]);
        setup.transports.push(Box::new(Directory::new(store)));
        setup.run(|engine| engine.update(&Wish::Newest))
    };
    run(&world.store()).unwrap();
    let error = run(old.path()).unwrap_err();
    assert_eq!(error.kind(), FailureKind::OutOfDate, "{error}");
    world.wipe_free();
    let error = run(old.path()).unwrap_err();
    assert_eq!(error.kind(), FailureKind::OutOfDate, "{error}");
    run(&world.store()).unwrap();
    world.assert_client(&second());
}
