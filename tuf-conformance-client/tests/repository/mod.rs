//! A repository on a server of its own, and the program run against it.

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

pub const LATER: &str = "2999-01-01T00:00:00Z";
pub const EARLIER: &str = "2001-01-01T00:00:00Z";

type Served = Arc<Mutex<(BTreeMap<String, Vec<u8>>, Vec<String>)>>;

/// A key of another kind than Ed25519, from `tests/keys`.
pub enum OtherKey {
    EcdsaP256,
    RsaPss,
}

impl OtherKey {
    pub const ID: &str = "the other key";

    pub fn public(&self) -> Value {
        let (kind, scheme, pem) = match self {
            Self::EcdsaP256 => ("ecdsa", "ecdsa-sha2-nistp256", include_str!("../keys/ecdsa-p256.pem")),
            Self::RsaPss => ("rsa", "rsassa-pss-sha256", include_str!("../keys/rsa-2048.pem")),
        };
        json!({"keytype": kind, "scheme": scheme, "keyval": {"public": pem}})
    }

    pub fn sign(&self, signed: &Value) -> Vec<u8> {
        // Nothing in these files is written in another way in canonical JSON.
        let (message, random) = (signed.to_string(), SystemRandom::new());
        match self {
            Self::EcdsaP256 => {
                let key = include_bytes!("../keys/ecdsa-p256.pk8");
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key, &random).unwrap();
                key.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec()
            }
            Self::RsaPss => {
                let key = RsaKeyPair::from_pkcs8(include_bytes!("../keys/rsa-2048.pk8")).unwrap();
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PSS_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
                signature
            }
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digests of `bytes`, as metadata has them.
pub fn hashes(bytes: &[u8]) -> Value {
    let digest = |algorithm| hex(ring::digest::digest(algorithm, bytes).as_ref());
    json!({"sha256": digest(&ring::digest::SHA256), "sha512": digest(&ring::digest::SHA512)})
}

/// A repository whose every role has a key of its own, made from its name, and a server of it.
pub struct Repository {
    served: Served,
    address: SocketAddr,
    pub versions: BTreeMap<String, u64>,
    dir: tempfile::TempDir,
    consistent: bool,
}

fn key(seed: u8) -> TufKey {
    TufKey::from_seed(&[seed; 32])
}

pub fn of(role: &str) -> TufKey {
    key(role.bytes().fold(7, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(byte)))
}

fn public(key: &TufPublicKey) -> Value {
    json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": hex(&key.0)}})
}

impl Repository {
    pub fn new(consistent: bool) -> Self {
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

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        self.served.lock().unwrap().0[path].clone()
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        self.served.lock().unwrap().0.insert(path.to_owned(), bytes.to_vec());
    }

    /// What was asked for since it was last asked for.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.served.lock().unwrap().1)
    }

    pub fn next(&mut self, role: &str) -> u64 {
        let version = self.versions.entry(role.to_owned()).or_default();
        *version += 1;
        *version
    }

    pub fn sign(&mut self, role: &str, signers: &[TufKey], mut signed: Value) -> Vec<u8> {
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
    pub fn root(&mut self, other: &[(&str, &str)]) {
        let owner = |role: &'static str| other.iter().find(|(name, _)| *name == role).map_or(role, |(_, key)| *key);
        let roles = ["root", "timestamp", "snapshot", "targets"].map(|role| (role, of(owner(role)).public()));
        let keys: serde_json::Map<_, _> = roles.iter().map(|(_, key)| (key.id(), public(key))).collect();
        let roles: serde_json::Map<_, _> =
            roles.iter().map(|(role, key)| (role.to_string(), json!({"keyids": [key.id()], "threshold": 1}))).collect();
        let signed = json!({"_type": "root", "expires": LATER, "consistent_snapshot": self.consistent, "keys": keys, "roles": roles});
        let bytes = self.sign("root", &[of("root")], signed);
        self.put(&self.place("root"), &bytes);
    }

    /// A targets role with targets (each holds its own name, and is served) and delegations (name, paths, terminating).
    pub fn targets(&mut self, role: &str, targets: &[&str], delegations: &[(&str, &str, bool)], expires: &str) {
        self.targets_signed_by(role, &[role], targets, delegations, expires);
    }

    pub fn targets_signed_by(
        &mut self,
        role: &str,
        signers: &[&str],
        targets: &[&str],
        delegations: &[(&str, &str, bool)],
        expires: &str,
    ) {
        let mut list = serde_json::Map::new();
        for name in targets {
            let digest = &hashes(name.as_bytes())["sha512"];
            self.put_target(name, digest.as_str().unwrap());
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
        self.put(&self.place(role), &bytes);
    }

    /// Serves the target `name`, which holds its own name, where one with this digest is looked for.
    pub fn put_target(&self, name: &str, digest: &str) {
        let (directory, file) = name.rsplit_once('/').map_or((String::new(), name), |(d, f)| (format!("{d}/"), f));
        let prefix = if self.consistent { format!("{digest}.") } else { String::new() };
        self.put(&format!("targets/{directory}{prefix}{file}"), name.as_bytes());
    }

    /// Where the newest file of a role is served.
    pub fn place(&self, role: &str) -> String {
        let name: String = role.bytes().fold(String::new(), |name, byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' => name + &char::from(byte).to_string(),
            _ => format!("{name}%{byte:02X}"),
        });
        if role == "root" || (self.consistent && role != "timestamp") {
            format!("metadata/{}.{name}.json", self.versions[role])
        } else {
            format!("metadata/{name}.json")
        }
    }

    /// The newest file of a role.
    pub fn newest(&self, role: &str) -> Vec<u8> {
        self.get(&self.place(role))
    }

    /// A next version of a role's file, with a change to what is signed.
    pub fn change(&mut self, role: &str, change: impl FnOnce(&mut Value)) {
        let mut file: Value = serde_json::from_slice(&self.newest(role)).unwrap();
        change(&mut file["signed"]);
        let bytes = self.sign(role, &[of(role)], file["signed"].take());
        self.put(&self.place(role), &bytes);
    }

    /// What the other key signs of a role's newest file.
    pub fn signature_by(&self, other: &OtherKey, role: &str) -> Vec<u8> {
        let file: Value = serde_json::from_slice(&self.newest(role)).unwrap();
        other.sign(&file["signed"])
    }

    /// Puts `signature`, as the other key's, beside the one of the role's own key.
    pub fn sign_beside(&self, role: &str, signature: &[u8]) {
        let mut file: Value = serde_json::from_slice(&self.newest(role)).unwrap();
        let signatures = file["signatures"].as_array_mut().unwrap();
        signatures.truncate(1);
        signatures.push(json!({"keyid": OtherKey::ID, "sig": hex(signature)}));
        self.put(&self.place(role), file.to_string().as_bytes());
    }

    /// A snapshot of all targets roles as they are, and its timestamp.
    pub fn publish(&mut self, expires: &str) {
        let meta: serde_json::Map<_, _> = self
            .versions
            .iter()
            .filter(|(role, _)| !["root", "timestamp", "snapshot"].contains(&role.as_str()))
            .map(|(role, version)| (format!("{role}.json"), json!({"version": version})))
            .collect();
        let bytes =
            self.sign("snapshot", &[of("snapshot")], json!({"_type": "snapshot", "expires": LATER, "meta": meta}));
        self.put(&self.place("snapshot"), &bytes);
        self.stamp(expires, self.versions["snapshot"]);
    }

    pub fn stamp(&mut self, expires: &str, snapshot: u64) {
        let signed =
            json!({"_type": "timestamp", "expires": expires, "meta": {"snapshot.json": {"version": snapshot}}});
        let bytes = self.sign("timestamp", &[of("timestamp")], signed);
        self.put(&self.place("timestamp"), &bytes);
    }

    /// The program's exit status.
    pub fn run(&self, command: &[&str]) -> i32 {
        self.run_without_url(&[&["--metadata-url", &format!("http://{}/metadata/", self.address)], command].concat())
    }

    /// As [`Self::run`], where the metadata are is not said.
    pub fn run_without_url(&self, command: &[&str]) -> i32 {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tuf-conformance-client"));
        program.arg("--metadata-dir").arg(self.path("metadata")).args(command);
        let ended = program.output().unwrap();
        print!("{}", String::from_utf8_lossy(&ended.stderr));
        ended.status.code().unwrap()
    }

    pub fn refresh(&self) -> i32 {
        self.run(&["refresh"])
    }

    pub fn download(&self, names: &[&str]) -> i32 {
        let (base, dir) = (format!("http://{}/targets", self.address), self.path("targets"));
        let mut args: Vec<&str> = names.iter().flat_map(|name| ["--target-name", name]).collect();
        args.extend(["--target-base-url", &base, "--target-dir", dir.to_str().unwrap(), "download"]);
        self.run(&args)
    }

    pub fn kept(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path("metadata").join(name)).ok()
    }

    /// Names and versions of what is trusted.
    pub fn trusted(&self) -> Vec<(String, u64)> {
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
    pub fn downloaded(&self) -> Vec<Vec<u8>> {
        let files = fs::read_dir(self.path("targets")).unwrap();
        let mut files: Vec<Vec<u8>> = files.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
        files.sort();
        files
    }
}

pub fn trusted(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter().map(|(role, version)| (role.to_string(), *version)).collect()
}
