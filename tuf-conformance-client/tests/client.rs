//! The program as the conformance suite runs it, and what the suite leaves out, against a repository of its own.

#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use release_store::tuf::{TufKey, TufPublicKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PSS_SHA256, RsaKeyPair};
use serde_json::{Value, json};

const LATER: &str = "2999-01-01T00:00:00Z";
const EARLIER: &str = "2001-01-01T00:00:00Z";

type Served = Arc<Mutex<(BTreeMap<String, Vec<u8>>, Vec<String>)>>;

/// A key of another kind than Ed25519, from `tests/keys`.
enum OtherKey {
    EcdsaP256,
    RsaPss,
}

impl OtherKey {
    const ID: &str = "the other key";

    fn public(&self) -> Value {
        let (kind, scheme, pem) = match self {
            Self::EcdsaP256 => ("ecdsa", "ecdsa-sha2-nistp256", include_str!("keys/ecdsa-p256.pem")),
            Self::RsaPss => ("rsa", "rsassa-pss-sha256", include_str!("keys/rsa-2048.pem")),
        };
        json!({"keytype": kind, "scheme": scheme, "keyval": {"public": pem}})
    }

    fn sign(&self, signed: &Value) -> Vec<u8> {
        // Nothing in these files is written in another way in canonical JSON.
        let (message, random) = (signed.to_string(), SystemRandom::new());
        match self {
            Self::EcdsaP256 => {
                let key = include_bytes!("keys/ecdsa-p256.pk8");
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key, &random).unwrap();
                key.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec()
            }
            Self::RsaPss => {
                let key = RsaKeyPair::from_pkcs8(include_bytes!("keys/rsa-2048.pk8")).unwrap();
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PSS_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A repository whose every role has a key of its own, made from its name, and a server of it.
struct Repository {
    served: Served,
    address: SocketAddr,
    versions: BTreeMap<String, u64>,
    dir: tempfile::TempDir,
    consistent: bool,
}

fn key(seed: u8) -> TufKey {
    TufKey::from_seed(&[seed; 32])
}

fn of(role: &str) -> TufKey {
    key(role.bytes().fold(7, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(byte)))
}

fn public(key: &TufPublicKey) -> Value {
    json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": hex(&key.0)}})
}

impl Repository {
    fn new(consistent: bool) -> Self {
        let served: Served = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let files = served.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut lines = String::new();
                while !lines.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut lines).unwrap_or(0) == 0 {
                        break;
                    }
                }
                let Some(path) = lines.split(' ').nth(1).map(|path| path[1..].to_owned()) else { continue };
                let mut files = files.lock().unwrap();
                let (status, body) = match files.0.get(&path) {
                    Some(body) => ("200 OK", body.clone()),
                    None => ("404 Not Found", Vec::new()),
                };
                files.1.push(path);
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.get_mut().write_all(&[head.as_bytes(), &body].concat());
            }
        });
        let dir = tempfile::tempdir().unwrap();
        for name in ["metadata", "targets"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut new = Self { served, address, versions: BTreeMap::new(), dir, consistent };
        new.root(&[]);
        new.targets("targets", &[], &[], LATER);
        new.publish(LATER);
        fs::write(new.path("root.json"), new.get("metadata/1.root.json")).unwrap();
        assert_eq!(new.run(&["init", new.path("root.json").to_str().unwrap()]), 0);
        new
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn get(&self, path: &str) -> Vec<u8> {
        self.served.lock().unwrap().0[path].clone()
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        self.served.lock().unwrap().0.insert(path.to_owned(), bytes.to_vec());
    }

    /// What was asked for since it was last asked for.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.served.lock().unwrap().1)
    }

    fn next(&mut self, role: &str) -> u64 {
        let version = self.versions.entry(role.to_owned()).or_default();
        *version += 1;
        *version
    }

    fn sign(&mut self, role: &str, signers: &[TufKey], mut signed: Value) -> Vec<u8> {
        signed["version"] = json!(self.next(role));
        signed["spec_version"] = json!("1.0.31");
        let mut file: Value = serde_json::from_slice(&signers[0].sign(&signed)).unwrap();
        for signer in &signers[1..] {
            let other: Value = serde_json::from_slice(&signer.sign(&signed)).unwrap();
            file["signatures"].as_array_mut().unwrap().push(other["signatures"][0].clone());
        }
        // Spelled as nobody would write it again.
        format!(" {file} \n").into_bytes()
    }

    /// A new root; `other` roles have keys named so instead of their own.
    fn root(&mut self, other: &[(&str, &str)]) {
        let owner = |role: &'static str| other.iter().find(|(name, _)| *name == role).map_or(role, |(_, key)| *key);
        let roles = ["root", "timestamp", "snapshot", "targets"].map(|role| (role, of(owner(role)).public()));
        let keys: serde_json::Map<_, _> = roles.iter().map(|(_, key)| (key.id(), public(key))).collect();
        let roles: serde_json::Map<_, _> =
            roles.iter().map(|(role, key)| (role.to_string(), json!({"keyids": [key.id()], "threshold": 1}))).collect();
        let signed = json!({"_type": "root", "expires": LATER, "consistent_snapshot": self.consistent, "keys": keys, "roles": roles});
        let bytes = self.sign("root", &[of("root")], signed);
        self.put(&format!("metadata/{}.root.json", self.versions["root"]), &bytes);
    }

    /// A targets role with targets (each holds its own name, and is served) and delegations (name, paths, terminating).
    fn targets(&mut self, role: &str, targets: &[&str], delegations: &[(&str, &str, bool)], expires: &str) {
        self.targets_signed_by(role, &[role], targets, delegations, expires);
    }

    fn targets_signed_by(
        &mut self,
        role: &str,
        signers: &[&str],
        targets: &[&str],
        delegations: &[(&str, &str, bool)],
        expires: &str,
    ) {
        let mut list = serde_json::Map::new();
        for name in targets {
            let digest = ring::digest::digest(&ring::digest::SHA512, name.as_bytes());
            let digest = hex(digest.as_ref());
            let (directory, file) = name.rsplit_once('/').map_or((String::new(), *name), |(d, f)| (format!("{d}/"), f));
            let prefix = if self.consistent { format!("{digest}.") } else { String::new() };
            self.put(&format!("targets/{directory}{prefix}{file}"), name.as_bytes());
            list.insert(name.to_string(), json!({"length": name.len(), "hashes": {"sha512": digest}}));
        }
        let mut signed = json!({"_type": "targets", "expires": expires, "targets": list});
        // `name@key` is delegated to another key than its own.
        let parts = |name: &str| {
            let (name, key) = name.split_once('@').unwrap_or((name, name));
            (name.to_owned(), of(key).public())
        };
        let keys: serde_json::Map<_, _> =
            delegations.iter().map(|(name, ..)| parts(name).1).map(|key| (key.id(), public(&key))).collect();
        let roles: Vec<Value> = delegations
            .iter()
            .map(|(name, paths, terminating)| {
                let (name, key) = parts(name);
                json!({"name": name, "keyids": [key.id()], "threshold": 1, "paths": [paths], "terminating": terminating})
            })
            .collect();
        signed["delegations"] = json!({"keys": keys, "roles": roles});
        let signers: Vec<TufKey> = signers.iter().map(|name| of(name)).collect();
        let bytes = self.sign(role, &signers, signed);
        let name: String = role.bytes().fold(String::new(), |name, byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' => name + &char::from(byte).to_string(),
            _ => format!("{name}%{byte:02X}"),
        });
        self.put(&self.place(&name, self.versions[role]), &bytes);
    }

    fn place(&self, role: &str, version: u64) -> String {
        if self.consistent { format!("metadata/{version}.{role}.json") } else { format!("metadata/{role}.json") }
    }

    /// A snapshot of all targets roles as they are, and its timestamp.
    fn publish(&mut self, expires: &str) {
        let meta: serde_json::Map<_, _> = self
            .versions
            .iter()
            .filter(|(role, _)| !["root", "timestamp", "snapshot"].contains(&role.as_str()))
            .map(|(role, version)| (format!("{role}.json"), json!({"version": version})))
            .collect();
        let bytes =
            self.sign("snapshot", &[of("snapshot")], json!({"_type": "snapshot", "expires": LATER, "meta": meta}));
        self.put(&self.place("snapshot", self.versions["snapshot"]), &bytes);
        self.stamp(expires, self.versions["snapshot"]);
    }

    fn stamp(&mut self, expires: &str, snapshot: u64) {
        let signed =
            json!({"_type": "timestamp", "expires": expires, "meta": {"snapshot.json": {"version": snapshot}}});
        let bytes = self.sign("timestamp", &[of("timestamp")], signed);
        self.put("metadata/timestamp.json", &bytes);
    }

    /// The program's exit status.
    fn run(&self, command: &[&str]) -> i32 {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tuf-conformance-client"));
        program.arg("--metadata-dir").arg(self.path("metadata"));
        program.args(["--metadata-url", &format!("http://{}/metadata/", self.address)]).args(command);
        let ended = program.output().unwrap();
        print!("{}", String::from_utf8_lossy(&ended.stderr));
        ended.status.code().unwrap()
    }

    fn refresh(&self) -> i32 {
        self.run(&["refresh"])
    }

    fn download(&self, names: &[&str]) -> i32 {
        let (base, dir) = (format!("http://{}/targets", self.address), self.path("targets"));
        let mut args: Vec<&str> = names.iter().flat_map(|name| ["--target-name", name]).collect();
        args.extend(["--target-base-url", &base, "--target-dir", dir.to_str().unwrap(), "download"]);
        self.run(&args)
    }

    fn kept(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path("metadata").join(name)).ok()
    }

    /// Names and versions of what is trusted.
    fn trusted(&self) -> Vec<(String, u64)> {
        let files = fs::read_dir(self.path("metadata")).unwrap().map(|entry| entry.unwrap());
        let mut trusted: Vec<(String, u64)> = files
            .filter_map(|file| {
                let name = file.file_name().into_string().unwrap();
                let role = name.strip_suffix(".json")?.to_owned();
                let value: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
                Some((role, value["signed"]["version"].as_u64().unwrap()))
            })
            .collect();
        trusted.sort();
        trusted
    }

    /// What was downloaded.
    fn downloaded(&self) -> Vec<Vec<u8>> {
        let files = fs::read_dir(self.path("targets")).unwrap();
        let mut files: Vec<Vec<u8>> = files.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        files.sort();
        files
    }
}

fn trusted(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter().map(|(role, version)| (role.to_string(), *version)).collect()
}

#[test]
fn a_refresh_keeps_what_was_served_byte_for_byte_and_asks_no_more_than_it_must() {
    let repository = Repository::new(true);
    repository.requests();
    assert_eq!(repository.refresh(), 0);
    let asked = ["2.root", "timestamp", "1.snapshot", "1.targets"].map(|name| format!("metadata/{name}.json"));
    assert_eq!(repository.requests(), asked);
    for (name, served) in
        [("root", "1.root"), ("timestamp", "timestamp"), ("snapshot", "1.snapshot"), ("targets", "1.targets")]
    {
        assert_eq!(repository.kept(&format!("{name}.json")), Some(repository.get(&format!("metadata/{served}.json"))));
    }
    assert_eq!(repository.refresh(), 0);
    assert_eq!(repository.requests(), asked[..2], "nothing new");
}

#[test]
fn every_failure_ends_with_status_1() {
    let repository = Repository::new(true);
    for command in
        [&["download"][..], &["refresh", "more"], &["nothing"], &["--no-such", "refresh"], &[], &["init", "/"]]
    {
        assert_eq!(repository.run(command), 1, "{command:?}");
    }
    fs::write(repository.path("bad.json"), "{}").unwrap();
    assert_eq!(repository.run(&["init", repository.path("bad.json").to_str().unwrap()]), 1);
    assert_eq!(repository.run(&["--help"]), 0);
    fs::remove_file(repository.path("metadata/root.json")).unwrap();
    assert_eq!(repository.refresh(), 1);
}

#[test]
fn what_expired_is_not_accepted_and_what_was_before_it_is_kept() {
    let mut repository = Repository::new(true);
    assert_eq!(repository.refresh(), 0);
    repository.targets("targets", &["x"], &[], EARLIER);
    repository.publish(LATER);
    assert_eq!(repository.refresh(), 1);
    let half = trusted(&[("root", 1), ("snapshot", 2), ("targets", 1), ("timestamp", 2)]);
    assert_eq!(repository.trusted(), half);
    repository.targets("targets", &["x"], &[], LATER);
    repository.publish(EARLIER);
    assert_eq!(repository.refresh(), 1);
    assert_eq!(repository.trusted(), half);
    repository.stamp(LATER, 3);
    assert_eq!(repository.download(&["x"]), 0);
    assert_eq!(repository.trusted(), trusted(&[("root", 1), ("snapshot", 3), ("targets", 3), ("timestamp", 4)]));
}

#[test]
fn a_rollback_is_refused_however_often_it_is_tried() {
    let mut repository = Repository::new(true);
    repository.targets("targets", &[], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.refresh(), 0);
    let before = repository.trusted();
    // A newer timestamp is accepted and kept; the snapshot behind it names older targets.
    repository.versions.insert("targets".into(), 1);
    repository.publish(LATER);
    for _ in 0..3 {
        assert_eq!(repository.refresh(), 1);
        let now = repository.trusted();
        assert_eq!((&now[..3], now[3].1), (&before[..3], before[3].1 + 1));
    }
    // Its key replaced, the snapshot may begin again.
    repository.root(&[("snapshot", "snapshot")]);
    assert_eq!(repository.refresh(), 1, "a root with the same keys forgives nothing");
}

#[test]
fn a_fast_forward_is_recovered_from_by_new_keys() {
    let mut repository = Repository::new(true);
    repository.versions.insert("timestamp".into(), 1_000_000);
    repository.stamp(LATER, 1);
    assert_eq!(repository.refresh(), 0);
    repository.versions.insert("timestamp".into(), 1);
    repository.stamp(LATER, 1);
    assert_eq!(repository.refresh(), 1);
    repository.root(&[("timestamp", "timestamp, anew")]);
    let signed = json!({"_type": "timestamp", "expires": LATER, "meta": {"snapshot.json": {"version": 1}}});
    let bytes = repository.sign("timestamp", &[of("timestamp, anew")], signed);
    repository.put("metadata/timestamp.json", &bytes);
    assert_eq!(repository.refresh(), 0);
    assert_eq!(repository.trusted()[3], ("timestamp".to_owned(), 3));
}

#[test]
fn targets_are_done_in_order_and_the_first_failure_ends_it() {
    let mut repository = Repository::new(true);
    repository.targets("targets", &["a", "b", "d/c"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["a", "missing", "b"]), 1);
    assert_eq!(repository.downloaded(), [b"a"]);
    assert_eq!(repository.download(&["b", "d/c", "a"]), 0);
    assert_eq!(repository.downloaded(), [&b"a"[..], b"b", b"d/c"]);
    let fetched = repository.requests().iter().filter(|path| path.starts_with("targets/")).count();
    assert_eq!(fetched, 3, "what is there is not fetched again");
}

#[test]
fn a_target_that_is_another_is_not_kept() {
    let mut repository = Repository::new(true);
    repository.targets("targets", &["a"], &[], LATER);
    repository.publish(LATER);
    let place = repository.served.lock().unwrap().0.keys().find(|path| path.starts_with("targets/")).unwrap().clone();
    for other in [&b"b"[..], b"", b"aa"] {
        repository.put(&place, other);
        assert_eq!(repository.download(&["a"]), 1);
        assert!(repository.downloaded().is_empty());
    }
}

#[test]
fn delegations_are_searched_depth_first_up_to_a_terminating_one() {
    let mut repository = Repository::new(true);
    for (role, delegations) in [
        ("targets", &[("A", "*", false), ("B", "*", false), ("C", "*.py", false), ("F", "*", false)][..]),
        ("A", &[("D", "*", false), ("A", "*", false), ("B", "*.py", false)]),
        ("B", &[("E", "*", true), ("C", "*", false)]),
        ("C", &[]),
        ("D", &[]),
        ("E", &[]),
        ("F", &[]),
    ] {
        repository.targets(role, &[], delegations, LATER);
    }
    repository.targets("E", &["file"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.refresh(), 0);
    repository.requests();
    assert_eq!(repository.download(&["no file"]), 1);
    let asked: Vec<String> = repository.requests()[2..].to_vec();
    assert_eq!(asked, ["1.A", "1.D", "1.B", "2.E"].map(|name| format!("metadata/{name}.json")));
    assert_eq!(repository.download(&["file"]), 0);
    let again = repository.requests();
    assert!(again.iter().all(|path| !path.contains("A.json")), "kept roles are not fetched again: {again:?}");
}

#[test]
fn a_role_that_two_delegate_to_must_satisfy_each_of_them() {
    let mut repository = Repository::new(true);
    repository.targets("targets", &[], &[("A", "a", false), ("B", "b", false)], LATER);
    repository.targets("A", &[], &[("C@a's", "a", false)], LATER);
    repository.targets("B", &[], &[("C@b's", "b", false)], LATER);
    repository.targets_signed_by("C", &["a's"], &["a", "b"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["a", "b"]), 1);
    assert_eq!(repository.downloaded(), [b"a"]);
    repository.targets_signed_by("C", &["a's", "b's"], &["a", "b"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["a", "b"]), 0);
}

#[test]
fn an_unusual_role_name_takes_no_other_file() {
    for role in ["?", "#", "/delegated", "../delegated", "..", "2.root", "ü", "con:stream"] {
        let mut repository = Repository::new(true);
        repository.targets("targets", &[], &[(role, "*", false)], LATER);
        repository.targets(role, &[], &[], LATER);
        repository.publish(LATER);
        assert_eq!(repository.download(&["nothing"]), 1);
        assert_eq!(repository.trusted().len(), 5, "{role}");
        assert_eq!(repository.kept("root.json"), Some(repository.get("metadata/1.root.json")), "{role}");
    }
    let mut repository = Repository::new(true);
    repository.targets("targets", &[], &[("root", "*", false)], LATER);
    repository.targets_signed_by("targets", &["targets"], &[], &[("snapshot", "*", false)], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["nothing"]), 1);
    assert_eq!(repository.trusted().len(), 4, "no delegated role takes the name of another");
}

#[test]
fn the_search_ends_after_so_many_roles() {
    let mut repository = Repository::new(true);
    let names: Vec<String> = (0..40).map(|at| format!("role{at}")).collect();
    let delegations: Vec<(&str, &str, bool)> = names.iter().map(|name| (&**name, "*", false)).collect();
    repository.targets("targets", &[], &delegations, LATER);
    for name in &names {
        repository.targets(name, &[], &[], LATER);
    }
    repository.targets("role39", &["file"], &[], LATER);
    repository.publish(LATER);
    assert_eq!(repository.download(&["file"]), 1);
    assert!(repository.requests().len() <= 4 + release_store::trust::MAX_DELEGATIONS);
}

#[test]
fn a_repository_without_consistent_snapshots_will_do() {
    let mut repository = Repository::new(false);
    repository.targets("targets", &["d/a"], &[("A", "b", false)], LATER);
    repository.targets("A", &["b"], &[], LATER);
    repository.publish(LATER);
    repository.requests();
    assert_eq!(repository.download(&["d/a", "b"]), 0);
    let asked = ["metadata/2.root.json", "metadata/timestamp.json", "metadata/snapshot.json", "metadata/targets.json"];
    let rest = ["targets/d/a", "metadata/A.json", "targets/b"];
    assert_eq!(repository.requests(), [&asked[..], &rest].concat());
}

#[test]
fn a_role_may_have_keys_of_every_kind_and_each_of_them_has_to_sign() {
    for other in [OtherKey::EcdsaP256, OtherKey::RsaPss] {
        let mut repository = Repository::new(true);
        // A root by which two keys sign the timestamp: its own, and the other.
        let mut root: Value = serde_json::from_slice(&repository.get("metadata/1.root.json")).unwrap();
        let root = &mut root["signed"];
        root["keys"][OtherKey::ID] = other.public();
        root["roles"]["timestamp"]["keyids"].as_array_mut().unwrap().push(json!(OtherKey::ID));
        root["roles"]["timestamp"]["threshold"] = json!(2);
        let root = repository.sign("root", &[of("root")], root.clone());
        repository.put("metadata/2.root.json", &root);
        assert_eq!(repository.refresh(), 1, "one signature of two");

        repository.stamp(LATER, 1);
        let mut timestamp: Value = serde_json::from_slice(&repository.get("metadata/timestamp.json")).unwrap();
        let sound = other.sign(&timestamp["signed"]);
        let mut publish = |signature: &[u8]| {
            let signatures = timestamp["signatures"].as_array_mut().unwrap();
            signatures.truncate(1);
            signatures.push(json!({"keyid": OtherKey::ID, "sig": hex(signature)}));
            repository.put("metadata/timestamp.json", timestamp.to_string().as_bytes());
            repository.refresh()
        };
        for at in 0..sound.len() {
            let mut wrong = sound.clone();
            wrong[at] ^= 1;
            assert_eq!(publish(&wrong), 1, "{at}");
        }
        assert_eq!(publish(&[]), 1);
        assert_eq!(publish(&sound), 0);
        assert_eq!(repository.trusted(), trusted(&[("root", 2), ("snapshot", 1), ("targets", 1), ("timestamp", 2)]));
    }
}
