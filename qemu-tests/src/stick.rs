//! A stick: images made by `partition-tools`, plugged into a machine and pulled out again.

use std::fs;
use std::path::{Path, PathBuf};

use firmware_image::paths::THIS_PLATFORM;
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::run;
use xtask::server::Server;

use crate::machine::Machine;
use crate::world::{OLD, PRODUCT, World, copy_tree};

/// How a device shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// One disk with three partitions.
    Stick,
    /// A CD-ROM and a disk.
    Dual,
}

impl Profile {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stick, Self::Dual];

    fn word(self) -> &'static str {
        match self {
            Self::Stick => "stick",
            Self::Dual => "dual",
        }
    }

    /// The virtual zone's node in a guest with one device.
    pub fn virtual_node(self) -> &'static str {
        match self {
            Self::Stick => "/dev/sda2",
            Self::Dual => "/dev/sr0",
        }
    }

    /// The hidden zone's node in a guest with one device.
    pub fn hidden_node(self) -> &'static str {
        match self {
            Self::Stick => "/dev/sda3",
            Self::Dual => "/dev/sda2",
        }
    }
}

/// A device with a release on it, and the server that it asks.
pub struct Stick {
    /// How it shows itself.
    pub profile: Profile,
    /// The disk.
    pub disk: PathBuf,
    /// The CD of a dual device.
    pub cd: Option<PathBuf>,
    /// The server.
    pub server: Server,
    dir: TempDir,
}

/// Bytes of the disk: small, since a test copies it.
const DISK_SIZE: &str = "128MiB";

impl Stick {
    /// A device fresh from the factory with the old release, and a server that has no newer one.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn new(profile: Profile) -> Self {
        Self::with(profile, &[])
    }

    /// The same with more arguments for `partition-tools create`.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn with(profile: Profile, more: &[&str]) -> Self {
        let world = World::get();
        let dir =
            tempfile::Builder::new().prefix("holdfast-stick-").tempdir().unwrap_or_else(|error| panic!("{error}"));
        let store = dir.path().join("store");
        copy_tree(&world.store(OLD), &store).unwrap_or_else(|error| panic!("{error:#}"));
        let server = Server::start(&world.programs, &store, dir.path().join("server.log"));
        let server = server.unwrap_or_else(|error| panic!("{error:#}"));
        let url = guest_url(&server.url);
        let (disk, cd) = (dir.path().join("disk.img"), dir.path().join("cd.iso"));
        let bootstrap = format!("{THIS_PLATFORM}={}", world.programs.bootstrap.display());
        let (keys, store) = (world.keys(), world.store(OLD));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (disk_text, cd_text, keys, store) = (text(&disk), text(&cd), text(&keys), text(&store));
        let mut arguments =
            vec!["create", "--profile", profile.word(), "--out", &disk_text, "--size", DISK_SIZE, "--keys", &keys];
        arguments.extend([
            "--product",
            PRODUCT,
            "--server",
            &url,
            "--bootstrap",
            &bootstrap,
            "--client-command",
            "client/run.sh",
        ]);
        arguments.extend(["--store", &store, "--release-version", OLD]);
        if profile == Profile::Dual {
            arguments.extend(["--cd-out", &cd_text]);
        }
        arguments.extend(more);
        world.partition_tools(&arguments);
        let cd = (profile == Profile::Dual).then_some(cd);
        Self { profile, disk, cd, server, dir }
    }

    /// Publishes: from now on the server has this release too.
    ///
    /// # Panics
    /// The store cannot be copied.
    pub fn publish(&self, version: &str) {
        // Metadata last, as `release-store mirror` does: the device sees the old store or the new one.
        let (from, to) = (World::get().store(version), self.dir.path().join("store"));
        for part in ["packs", "targets", "metadata"] {
            copy_tree(&from.join(part), &to.join(part)).unwrap_or_else(|error| panic!("{error:#}"));
        }
    }

    /// A place of this stick's own for other files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The disk's bytes.
    ///
    /// # Panics
    /// They cannot be read.
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.disk).unwrap_or_else(|error| panic!("{error}"))
    }

    /// `partition-tools COMMAND DISK …`: what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn tool(&self, command: &[&str], more: &[&str]) -> String {
        let disk = self.disk.to_string_lossy();
        let mut arguments = command.to_vec();
        arguments.push(&disk);
        let cd = self.cd.as_ref().map(|cd| cd.to_string_lossy().into_owned());
        if let Some(cd) = &cd {
            arguments.extend(["--virtual", cd]);
        }
        arguments.extend(more);
        World::get().partition_tools(&arguments)
    }

    /// The same, with what it printed as it is.
    ///
    /// # Panics
    /// It fails.
    pub fn tool_bytes(&self, command: &[&str], more: &[&str]) -> Vec<u8> {
        let world = World::get();
        let mut tool = world.command(&world.programs.partition_tools);
        let output = run::capture(tool.args(command).arg(&self.disk).args(more)).unwrap_or_else(|e| panic!("{e:#}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// What `partition-tools inspect --json` tells.
    ///
    /// # Panics
    /// It fails.
    pub fn inspect(&self) -> Value {
        serde_json::from_str(&self.tool(&["inspect"], &["--json"])).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A server on this machine's loopback as the guest reaches it.
pub fn guest_url(url: &str) -> String {
    url.replace("127.0.0.1", "10.0.2.2")
}

/// What stands between the disk's image and its USB plug.
#[derive(Debug, Default, Clone)]
pub struct Cable {
    /// Record every write and flush here.
    pub log: Option<PathBuf>,
    /// Faults, as `blkdebug` takes them (`inject-error` entries).
    pub faults: Vec<Value>,
    /// Bytes that pass in a second, written.
    pub write_bytes_per_second: Option<u64>,
    /// Writes that pass in a second.
    pub writes_per_second: Option<u64>,
    /// The disk says that it is write-protected.
    pub read_only: bool,
    /// Not the image itself, but what serves it on this socket ([`crate::unruly`]).
    pub unruly: Option<PathBuf>,
}

impl Machine {
    /// Plugs a stick in.
    ///
    /// # Panics
    /// The machine refuses.
    pub fn plug(&mut self, stick: &Stick) {
        self.plug_with(stick, &Cable::default());
    }

    /// Plugs a stick in, through what the cable does to it.
    ///
    /// # Panics
    /// The machine refuses.
    pub fn plug_with(&mut self, stick: &Stick, cable: &Cable) {
        let file = |path: &Path, read_only: bool| json!({ "driver": "file", "filename": path, "read-only": read_only, "cache": { "no-flush": true } });
        // One node upon the other, the image at the bottom.
        let mut node =
            json!({ "driver": "raw", "file": file(&stick.disk, cable.read_only), "read-only": cable.read_only });
        if let Some(socket) = &cable.unruly {
            node = json!({ "driver": "nbd", "server": { "type": "unix", "path": socket } });
        }
        if !cable.faults.is_empty() {
            node = json!({ "driver": "blkdebug", "image": node, "inject-error": cable.faults });
        }
        if let Some(log) = &cable.log {
            fs::write(log, b"").unwrap_or_else(|error| panic!("{error}"));
            node = json!({ "driver": "blklogwrites", "file": node, "log": file(log, false), "log-sector-size": 512, "log-super-update-interval": 1 });
        }
        let limits = [("x-bps-write", cable.write_bytes_per_second), ("x-iops-write", cable.writes_per_second)];
        if limits.iter().any(|(_, limit)| limit.is_some()) {
            let mut group = json!({ "qom-type": "throttle-group", "id": "slow" });
            for (name, limit) in limits {
                if let Some(limit) = limit {
                    group[name] = limit.into();
                }
            }
            self.qmp("object-add", group);
            node = json!({ "driver": "throttle", "throttle-group": "slow", "file": node });
        }
        node["node-name"] = "disk".into();
        self.qmp("blockdev-add", node);
        self.qmp(
            "device_add",
            json!({ "driver": "usb-bot", "id": "stick", "bus": "xhci.0", "serial": "HF0001", "attached": false }),
        );
        let mut unit = 0;
        if let Some(cd) = &stick.cd {
            let mut node = json!({ "driver": "raw", "read-only": true, "file": file(cd, true) });
            node["node-name"] = "cd".into();
            self.qmp("blockdev-add", node);
            self.qmp(
                "device_add",
                json!({ "driver": "scsi-cd", "id": "unit0", "bus": "stick.0", "scsi-id": 0, "lun": 0, "drive": "cd" }),
            );
            unit = 1;
        }
        self.qmp(
            "device_add",
            json!({
                "driver": "scsi-hd", "id": format!("unit{unit}"), "bus": "stick.0", "scsi-id": 0, "lun": unit, "drive": "disk",
                "removable": true, "rerror": "report", "werror": "report",
            }),
        );
        self.qmp("qom-set", json!({ "path": "/machine/peripheral/stick", "property": "attached", "value": true }));
    }

    /// Pulls the stick out, whatever is going on. What it was told to write before is on its image.
    ///
    /// # Panics
    /// The machine refuses.
    pub fn pull(&mut self) {
        self.qmp("device_del", json!({ "id": "stick" }));
        self.wait_event("DEVICE_DELETED", |data| data["device"] == "stick");
        let nodes = self.qmp("query-named-block-nodes", json!({ "flat": true }));
        let has = |name: &str| nodes.as_array().is_some_and(|nodes| nodes.iter().any(|node| node["node-name"] == name));
        for name in ["disk", "cd"] {
            if has(name) {
                self.qmp("blockdev-del", json!({ "node-name": name }));
            }
        }
        let objects = self.qmp("qom-list", json!({ "path": "/objects" }));
        if objects.as_array().is_some_and(|objects| objects.iter().any(|object| object["name"] == "slow")) {
            self.qmp("object-del", json!({ "id": "slow" }));
        }
    }

    /// Bytes that the plugged disk was told to write so far.
    ///
    /// # Panics
    /// Nothing is plugged in.
    pub fn written_bytes(&mut self) -> u64 {
        let stats = self.qmp("query-blockstats", json!({}));
        let disk = stats.as_array().and_then(|stats| stats.iter().find(|stat| stat["node-name"] == "disk").cloned());
        let disk = disk.unwrap_or_else(|| panic!("no disk is plugged in: {stats}"));
        disk["stats"]["wr_bytes"].as_u64().unwrap_or(0)
    }
}
