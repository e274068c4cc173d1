//! Attacks on a device by the servers it asks, or by whoever writes to its free zone. Which attack is shown where, also in
//! other files: `docs/testing.md`.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use firmware_image::host::DirZone;
use firmware_image::journal::{Journal, State};
use firmware_image::{Digest, paths};
use release_store::keys::KeyDir;
use release_store::transport::{GetOutcome, Sink};
use release_store::{Directory, Transport, TransportError};
use updater::commit::{COMMIT_PLAN, Intent};
use updater::http::{Http, agent};
use updater::meter::Meter;
use updater::state::KnownRelease;
use updater::{EngineError, FailureKind, Outcome, Wish};

/// A device with the first release, and a store with the second.
fn behind() -> World {
    let world = World::new();
    world.publish("1.0.0", &first());
    update(&world, Directory::new(world.store())).unwrap();
    world.publish("2.0.0", &second());
    world
}

/// One round with this server alone.
fn update(world: &World, server: impl Transport + 'static) -> Result<(), EngineError> {
    let mut setup = world.setup(&[]);
    setup.limits.rounds = 1;
    setup.transports.push(Box::new(server));
    setup.run(|engine| engine.update(&Wish::Newest).map(drop))
}

/// A store whose packs are changed by `change` before they are sent; `None`: it says that it has no such pack.
struct Packs<F> {
    store: Directory,
    change: F,
    asked: Arc<Mutex<Vec<String>>>,
}

impl<F: Fn(&str, Vec<u8>) -> Option<Vec<u8>> + Send + Sync> Packs<F> {
    fn new(world: &World, change: F) -> Self {
        Self { store: Directory::new(world.store()), change, asked: Arc::default() }
    }
}

impl<F: Fn(&str, Vec<u8>) -> Option<Vec<u8>> + Send + Sync> Transport for Packs<F> {
    fn describe(&self) -> String {
        "attacker".into()
    }
    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        self.asked.lock().unwrap().push(path.to_owned());
        if !path.starts_with("packs/") {
            return self.store.get(path, range, max_bytes, sink);
        }
        let bytes = fs::read(self.store.root().join(path)).unwrap();
        let whole = bytes.len() as u64;
        let bytes = (self.change)(path, bytes).ok_or(TransportError::NotFound { path: path.into() })?;
        let range = range.unwrap_or(0..whole);
        let at = |place: u64| usize::try_from(place).unwrap().min(bytes.len());
        let (from, to) = (at(range.start), at(range.end));
        sink(range.start, &bytes[from..to])?;
        Ok(GetOutcome::new(range.start, (to - from) as u64).with_whole(Some(whole)))
    }
}

/// All packs of a store.
fn packs(store: &Path) -> Vec<Vec<u8>> {
    read_tree(&store.join("packs")).into_values().collect()
}

#[test]
fn packs_that_are_swapped_replayed_reordered_cut_or_withheld_leave_the_installed_release() {
    let world = behind();
    let all = packs(&world.store());
    assert!(all.len() > 1, "there is something to swap");
    let another = move |bytes: &[u8]| all.iter().find(|other| *other != bytes).unwrap().clone();
    type Change = Box<dyn Fn(&str, Vec<u8>) -> Option<Vec<u8>> + Send + Sync>;
    let attacks: [(&str, Change); 6] = [
        ("another pack in its place", Box::new(move |_, bytes| Some(another(&bytes)))),
        (
            "its halves exchanged",
            Box::new(|_, bytes| Some([&bytes[bytes.len() / 2..], &bytes[..bytes.len() / 2]].concat())),
        ),
        (
            "moved by a byte",
            Box::new(|_, mut bytes| {
                bytes.rotate_left(1);
                Some(bytes)
            }),
        ),
        ("cut in the middle", Box::new(|_, bytes| Some(bytes[..bytes.len() / 2].to_vec()))),
        ("zeros", Box::new(|_, bytes| Some(vec![0; bytes.len()]))),
        ("withheld", Box::new(|_, _| None)),
    ];
    for (what, change) in attacks {
        let error = update(&world, Packs::new(&world, change)).unwrap_err();
        let kinds = [FailureKind::NotAuthentic, FailureKind::Offline, FailureKind::Other];
        assert!(kinds.contains(&error.kind()), "{what}: {error}");
        world.assert_client(&first());
    }
    update(&world, Directory::new(world.store())).unwrap();
    world.assert_client(&second());
}

#[test]
fn packs_that_change_in_mid_download_are_noticed_and_what_was_right_is_kept() {
    let world = behind();
    let run = |server: Box<dyn Transport>, dry_run: bool| {
        let mut setup = world.setup(&[]);
        (setup.limits.rounds, setup.limits.dry_run) = (1, dry_run);
        setup.transports.push(server);
        setup.run(|engine| (engine.update(&Wish::Newest), engine.frames_fetched()))
    };
    let honest = || Box::new(Directory::new(world.store()));
    let wanted = run(honest(), true).0.unwrap().plan.unwrap().frames as u64;
    let other = |bytes: Vec<u8>| bytes.iter().map(|byte| !byte).collect::<Vec<u8>>();
    // A part of the first answer is true; then the server dies, and what it serves after that is something else.
    let answers = AtomicUsize::new(0);
    let changing = Packs::new(&world, move |_, bytes| match answers.fetch_add(1, Ordering::SeqCst) {
        0 => Some(bytes[..bytes.len() * 3 / 4].to_vec()),
        _ => Some(other(bytes)),
    });
    let (result, first_frames) = run(Box::new(changing), false);
    result.unwrap_err();
    world.assert_client(&first());
    let (result, no_frames) = run(Box::new(Packs::new(&world, move |_, bytes| Some(other(bytes)))), false);
    result.unwrap_err();
    world.assert_client(&first());
    let (result, last_frames) = run(honest(), false);
    result.unwrap();
    world.assert_client(&second());
    assert!(first_frames > 0 && no_frames == 0, "{first_frames}, {no_frames}");
    assert_eq!(first_frames + last_frames, wanted, "what was right came once");
}

#[test]
fn only_what_signed_metadata_names_is_asked_for() {
    let world = behind();
    // What a mirror puts beside the store's files is nothing to a device.
    for name in ["metadata/extra.json", "targets/extra", "packs/extra", "extra", "client/extra.sh"] {
        write(&world.store().join(name), b"#!/bin/sh\nextra\n");
    }
    let server = Packs::new(&world, |_, bytes| Some(bytes));
    let asked = server.asked.clone();
    update(&world, server).unwrap();
    world.assert_client(&second());
    for path in asked.lock().unwrap().iter() {
        assert!(!path.contains("extra"), "{path}");
        let file = path.rsplit('/').next().unwrap();
        let named =
            path.starts_with("metadata/") || file.len() >= 64 && file.bytes().take(64).all(|b| b.is_ascii_hexdigit());
        assert!(named, "{path} has no name that anything signed");
    }
}

/// A server of one connection after the other: what it sends for a request's path and range.
fn answering(answer: impl Fn(&str, Option<Range<u64>>, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).unwrap_or(0) == 0 {
                        return;
                    }
                }
                let path = head.split(' ').nth(1).unwrap()[1..].to_owned();
                let range = head.lines().find_map(|line| {
                    let (from, to) = line
                        .to_ascii_lowercase()
                        .strip_prefix("range: bytes=")?
                        .split_once('-')
                        .map(|(a, b)| (a.parse::<u64>().unwrap(), b.parse::<u64>().unwrap()))?;
                    Some(from..to + 1)
                });
                answer(&path, range, stream.get_mut());
            });
        }
    });
    url
}

fn send(stream: &mut TcpStream, head: &str, body: &[u8]) {
    let head = format!("{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // Whoever asked may have gone.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
}

/// Answers like any server.
fn serve_honestly(store: &Path, path: &str, range: Option<Range<u64>>, stream: &mut TcpStream) {
    match (fs::read(store.join(path)), range) {
        (Ok(bytes), Some(range)) => {
            let head =
                format!("HTTP/1.1 206 Part\r\nContent-Range: bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
            send(stream, &head, &bytes[range.start as usize..range.end as usize]);
        }
        (Ok(bytes), None) => send(stream, "HTTP/1.1 200 OK", &bytes),
        (Err(_), _) => send(stream, "HTTP/1.1 404 Not Found", b""),
    }
}

fn update_over(world: &World, url: &str) -> Result<(), EngineError> {
    update(world, Http::new(agent(), url, Meter::new(None, None)))
}

#[test]
fn ranges_that_lie_install_nothing() {
    let world = behind();
    type Lie = fn(&[u8], Range<u64>) -> (String, Vec<u8>);
    let lies: [(&str, Lie); 6] = [
        ("another place", |bytes, range| {
            (
                format!("{}-{}/{}", range.start + 1, range.end, bytes.len()),
                bytes[range.start as usize..range.end as usize].to_vec(),
            )
        }),
        ("the right place, other bytes", |bytes, range| {
            let other = bytes.iter().rev().copied().cycle().take((range.end - range.start) as usize).collect();
            (format!("{}-{}/{}", range.start, range.end - 1, bytes.len()), other)
        }),
        ("less than asked for", |bytes, range| {
            let end = range.start + (range.end - range.start) / 2;
            (
                format!("{}-{}/{}", range.start, end.max(1) - 1, bytes.len()),
                bytes[range.start as usize..end as usize].to_vec(),
            )
        }),
        ("no place", |bytes, range| ("*/1".into(), bytes[range.start as usize..range.end as usize].to_vec())),
        ("a place beyond all numbers", |bytes, _| (format!("{0}-{0}/{0}", u128::MAX), bytes.to_vec())),
        ("a longer part than asked for, of other bytes", |bytes, range| {
            (format!("{}-{}/{}", range.start, u64::MAX, u64::MAX), vec![7; bytes.len()])
        }),
    ];
    for (what, lie) in lies {
        let store = world.store();
        let url = answering(move |path, range, stream| match range {
            Some(range) if path.starts_with("packs/") => {
                let (place, body) = lie(&fs::read(store.join(path)).unwrap(), range);
                send(stream, &format!("HTTP/1.1 206 Part\r\nContent-Range: bytes {place}"), &body);
            }
            range => serve_honestly(&store, path, range, stream),
        });
        let error = update_over(&world, &url).unwrap_err();
        assert!(matches!(error.kind(), FailureKind::NotAuthentic | FailureKind::Offline), "{what}: {error}");
        world.assert_client(&first());
    }
    let store = world.store();
    let honest = answering(move |path, range, stream| serve_honestly(&store, path, range, stream));
    update_over(&world, &honest).unwrap();
    world.assert_client(&second());
}

#[test]
fn a_redirect_leads_to_bytes_that_are_verified_like_any_and_never_out_of_http() {
    let world = behind();
    // Another vendor's store, under the content key that each device of the product has.
    let mut other = World::new();
    fs::copy(world.path("keys/content.key"), other.path("keys/content.key")).unwrap();
    other.keys = KeyDir::open(&other.path("keys")).unwrap();
    for version in ["7.0.0", "8.0.0", "9.0.0"] {
        other.publish(version, &second());
    }
    let redirect = |to: String| {
        answering(move |path, _, stream| send(stream, &format!("HTTP/1.1 302 Found\r\nLocation: {to}/{path}"), b""))
    };
    let secret = world.store().join("metadata");
    for wrong in [other.serve().url(), format!("file://{}", secret.display()), "ftp://127.0.0.1".into()] {
        let error = update_over(&world, &redirect(wrong.clone())).unwrap_err();
        assert!(
            matches!(error.kind(), FailureKind::NotAuthentic | FailureKind::Offline | FailureKind::Other),
            "{wrong}: {error}"
        );
        world.assert_client(&first());
    }
    let server = world.serve();
    update_over(&world, &redirect(server.url())).unwrap();
    world.assert_client(&second());
}

/// A server that gives its packs byte by byte, and all else at once.
fn dripping(world: &World) -> String {
    let store = world.store();
    answering(move |path, range, stream| {
        let Some(range) = range.filter(|_| path.starts_with("packs/")) else {
            return serve_honestly(&store, path, None, stream);
        };
        let bytes = &fs::read(store.join(path)).unwrap()[range.start as usize..range.end as usize];
        let head = format!(
            "HTTP/1.1 206 Part\r\nContent-Range: bytes {}-{}/*\r\nContent-Length: {}\r\n\r\n",
            range.start,
            range.end - 1,
            bytes.len()
        );
        let _ = stream.write_all(head.as_bytes());
        // An end, so that a device which waits for it fails this test and not the patience of whoever runs it.
        for byte in bytes.iter().take(5000) {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn a_server_that_only_drips_is_left_for_another() {
    let world = behind();
    let drip = dripping(&world);
    let http = |patience| Http::new(agent(), &drip, Meter::new(None, None)).with_patience(patience);
    let began = Instant::now();
    let error = update(&world, http(Duration::from_millis(300))).unwrap_err();
    assert_eq!(error.kind(), FailureKind::Offline, "{error}");
    world.assert_client(&first());
    let mut setup = world.setup(&[]);
    setup.limits.rounds = 1;
    setup.transports.push(Box::new(http(Duration::from_millis(300))));
    setup.transports.push(Box::new(Directory::new(world.store())));
    setup.run(|engine| engine.update(&Wish::Newest).unwrap());
    world.assert_client(&second());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn an_error_page_that_drips_is_not_waited_for() {
    for length in ["Content-Length: 16000", "Transfer-Encoding: chunked"] {
        let world = behind();
        let page = answering(move |_, _, stream| {
            let _ = stream.write_all(format!("HTTP/1.1 503 No\r\n{length}\r\n\r\n").as_bytes());
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let began = Instant::now();
        let mut setup = world.setup(&[]);
        setup.limits.rounds = 1;
        setup.transports.push(Box::new(Http::new(agent(), &page, Meter::new(None, None))));
        setup.transports.push(Box::new(Directory::new(world.store())));
        setup.run(|engine| engine.update(&Wish::Newest).unwrap());
        world.assert_client(&second());
        // Some requests, of two seconds each at the most; a page alone would take 26 minutes.
        assert!(began.elapsed() < Duration::from_secs(180), "{length}: {:?}", began.elapsed());
    }
}

#[test]
fn a_server_that_only_drips_does_not_hold_up_who_waits_for_the_end_of_a_run() {
    let world = behind();
    let mut setup = world.setup(&[&dripping(&world)]);
    setup.limits.patience = Duration::from_secs(1);
    let began = Instant::now();
    let mut launcher = TestLauncher::default();
    let outcome = setup.run(|engine| engine.run(&mut launcher).unwrap());
    assert_eq!((outcome.action, outcome.offline, outcome.whole), (updater::operations::Action::None, true, true));
    assert_eq!(launcher.said, "R");
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    world.assert_client(&first());
}

#[test]
fn a_server_that_takes_requests_and_answers_none_delays_a_start_by_the_check_window_only() {
    let world = behind();
    let silent = answering(|_, _, _| std::thread::sleep(Duration::from_secs(120)));
    // So many that the longest that each may be silent comes to more than the limit below.
    let mirrors: Vec<String> = (0..5).map(|n| format!("{silent}/mirror-{n}")).collect();
    let mirrors: Vec<&str> = mirrors.iter().map(String::as_str).collect();
    let began = Instant::now();
    let mut launcher = TestLauncher::default();
    world.engine(&mirrors, |engine| engine.run(&mut launcher).unwrap());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    world.assert_client(&first());
    let status = world.engine(&[], |engine| engine.status().unwrap());
    assert_eq!(status.version.as_deref(), Some("1.0.0"));
}

#[test]
fn what_another_device_of_the_product_keeps_is_not_this_ones() {
    let world = behind();
    // The other one is ahead, and its record says so with more generations.
    let mut other = World::new();
    copy_tree(&world.path("keys"), &other.path("keys"));
    copy_tree(&world.store(), &other.store());
    other.keys = KeyDir::open(&other.path("keys")).unwrap();
    other.write_config(&[]);
    for _ in 0..3 {
        for version in ["1.0.0", "2.0.0"] {
            let mut setup = other.setup(&[]);
            setup.transports.push(Box::new(Directory::new(other.store())));
            setup.run(|engine| engine.update(&Wish::Version(version.into())).unwrap());
        }
    }
    let status = |world: &World| world.engine(&[], |engine| engine.status().unwrap());
    let own = status(&world);
    assert_ne!(own.device_id, status(&other).device_id);
    assert_eq!(status(&other).version.as_deref(), Some("2.0.0"));
    for name in [paths::RECORD_MIRROR, paths::JOURNAL, paths::MANIFEST, paths::STATEMENT] {
        let theirs = fs::read(other.free().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_ne!(fs::read(world.free().join(name)).ok().as_ref(), Some(&theirs), "{name}");
    }
    copy_tree(&other.free().join(paths::STATE_DIR), &world.free().join(paths::STATE_DIR));
    world.engine(&[], |engine| engine.run(&mut TestLauncher::default()).unwrap());
    let after = status(&world);
    assert_eq!((&after.device_id, &after.version), (&own.device_id, &own.version));
    world.assert_client(&first());
    update(&world, Directory::new(world.store())).unwrap();
    world.assert_client(&second());
}

type Put = (&'static str, Digest, u64, bool, Option<(Digest, u64)>);

/// Leaves a commit open, whose plan puts, removes and marks these, and brings an updater for a platform; what the next start does.
fn run_forged(
    world: &World,
    (intent, release): (Intent, &KnownRelease),
    puts: &[Put],
    [removed, marked, platform]: [&str; 3],
) -> Outcome {
    // It leads on from the installed release, as nothing else is looked at.
    let from = world.engine(&[], |engine| engine.state().release.clone());
    let (modules, no_lists) = (vec![("client", "2.0.0")], [None::<(Digest, u64)>; 3]);
    let (removes, marks) = (vec![(removed, None::<(Digest, u64)>)], vec![(marked, true)]);
    let updaters = vec![(platform, Digest::of(b"forged"), 6_u64)];
    let plan = (1_u16, intent, release, from, modules, puts, removes, marks, 6_u64, no_lists, updaters, false);
    let bytes = postcard::to_allocvec(&plan).unwrap();
    write(&world.free().join(COMMIT_PLAN), &bytes);
    let zone = DirZone::open(&world.free()).unwrap();
    // By somebody who has the device's key.
    let tag = world.engine(&[], |engine| engine.plan_tag(&bytes));
    let open = State::Committing { plan: tag, serial: release.serial };
    Journal::read(&zone).unwrap().advance(&zone, open).unwrap();
    let mut setup = world.setup(&[]);
    setup.transports.push(Box::new(Directory::new(world.store())));
    let outcome = setup.run(|engine| engine.run(&mut TestLauncher::default()).unwrap());
    assert_eq!(Journal::read(&zone).unwrap().state(), State::Idle, "{plan:?}");
    outcome
}

#[test]
fn a_forged_plan_of_a_commit_keeps_no_device_from_its_release() {
    let world = behind();
    let release = |version: &str| KnownRelease {
        serial: 9,
        version: version.into(),
        manifest: Digest::of(b"forged"),
        published: 0,
    };
    let put = |path, bytes, old| -> Put { (path, Digest::of(b"forged"), bytes, false, old) };
    let (sound, long, lines) = (release("9.9.9"), release(&"9".repeat(20_000)), release("9\nalarm forged"));
    let (any, here) = (Some((Digest::of(b"forged"), u64::MAX)), "linux-x86_64");
    let forged: [(&KnownRelease, &[Put], [&str; 3]); 8] = [
        (&sound, &[put("../x", 6, None)], ["none", "none", here]),
        (&sound, &[put("x", u64::MAX, None), put("y", u64::MAX, None)], ["none", "none", here]),
        (&sound, &[put("x", 6, any), put("y", 6, any)], ["none", "none", here]),
        (&sound, &[], ["", "none", here]),
        (&sound, &[], ["none", "/none", here]),
        (&sound, &[], ["none", "none", "../x"]),
        (&long, &[], ["none", "none", here]),
        (&lines, &[], ["none", "none", here]),
    ];
    for (release, puts, names) in forged {
        for intent in [Intent::Update, Intent::Repair] {
            let outcome = run_forged(&world, (intent, release), puts, names);
            assert_eq!((outcome.whole, outcome.version.as_deref()), (true, Some("2.0.0")), "{puts:?} {names:?}");
            world.assert_client(&second());
        }
    }
}

#[test]
fn an_open_repair_ends_where_its_files_are_gone_or_directories_stand_in_their_places() {
    let world = behind();
    update(&world, Directory::new(world.store())).unwrap();
    let installed = world.engine(&[], |engine| engine.state().release.clone().unwrap());
    fs::remove_file(world.client().join("run.sh")).unwrap();
    let outcome = run_forged(&world, (Intent::Repair, &installed), &[], ["app", "run.sh", "linux-x86_64"]);
    assert!(outcome.whole);
    world.assert_client(&second());
}

/// A store whose server says what time it is.
struct Dated(Directory, i64);

impl Transport for Dated {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        Ok(self.0.get(path, range, max_bytes, sink)?.with_date(Some(self.1)))
    }
}

#[test]
fn a_clock_of_any_time_keeps_no_device_from_its_update_or_repair() {
    let far = 40 * 365 * 86_400;
    // A clock that runs ahead is set against what the server says; without that nothing new is believed, and repair goes on.
    for (now, date, wanted) in [
        (0, None, second()),
        (NOW - far, None, second()),
        (0, Some(NOW), second()),
        (NOW - far, Some(NOW), second()),
        (NOW + far, Some(NOW), second()),
        (NOW + far, None, first()),
    ] {
        let world = behind();
        world.host.now.store(now, Ordering::SeqCst);
        let run = || {
            let mut setup = world.setup(&[]);
            let store = Directory::new(world.store());
            setup.transports.push(match date {
                Some(date) => Box::new(Dated(store, date)),
                None => Box::new(store),
            });
            setup.run(|engine| engine.run(&mut TestLauncher::default()).unwrap());
            world.assert_client(&wanted);
        };
        run();
        fs::write(world.client().join("readme.txt"), b"infected").unwrap();
        run();
    }
}
