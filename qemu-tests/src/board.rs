//! A board: a machine with a card of its own, on which the zones are partitions beside the board's; it heals the client at each
//! boot before the application runs, as docs/board.md arranges it. No agent is in it, and nothing is plugged in.
//!
//! Its kernel boots once, up to a gate before the card's driver is loaded; that state is kept for as long as the board, and a
//! boot goes on from there with whatever card is given. [`Board::boot_from_power_on`] takes the whole way.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use firmware_image::host::{Access, FileZone};
use firmware_image::image::gpt::Table;
use firmware_image::paths::{THIS_PLATFORM, bootstrap_name};
use serde_json::json;
use tempfile::TempDir;
use xtask::{run, system};

use crate::agent::Agent;
use crate::guest::{Root, USER, USER_ID, modules, newest_kernel, systemd_root};
use crate::machine::{KEEPER, LONG, Slot, computer, connect, end, missing, qemu_version};
use crate::qmp::Qmp;
use crate::scene::text;
use crate::stick::{Profile, Stick};
use crate::world::World;

/// The script of docs/board.md, as it stands there.
const INIT: &str = include_str!("../../docs/board/init.sh");
/// What of a board's own that script wants: here for a controller and a network card on PCI.
const BOARD: &str = include_str!("board/etc-board.sh");
/// Waits for a word from outside, then goes on as the first process that it is.
const GATE: &str = include_str!("board/gate.sh");
/// The application's own unit, and what comes in its place if it cannot start.
const APPLICATION: &str = include_str!("board/application.service");
const NOT_HEALED: &str = include_str!("board/not-healed.service");
/// Behind a client that the launcher started.
const OFF: &str = include_str!("board/off.conf");

/// Drivers of the card and its controller, and of what is on it.
const CARD_DRIVERS: &[&str] = &["sdhci_pci", "mmc_block"];
const INIT_DRIVERS: &[&str] = &["vfat", "isofs", "nls_cp437", "nls_ascii", "nls_utf8", "virtio_net", "virtio_pci"];
/// What stops a machine with systemd in order.
const STOPPING: &[&str] = &["poweroff.target", "systemd-poweroff.service"];
/// What waits for the network, and the drop-in of the page by which the launcher's unit waits for that.
const NETWORK_UP: &str = include_str!("board/network-up.service");
const ONLINE: &str = include_str!("board/online.conf");
/// What the first of the board's own partitions is full of.
const PATTERN: u8 = 0xB0;
/// How long a boot may take until the gate.
const BOOT: Duration = Duration::from_secs(180);

/// The record of what a card was told to write, in the machine's directory.
const LOG: &str = "writes.log";

/// What stands on the console when the application runs, with the seconds since the kernel began.
pub const UP: &str = "@up ";
/// What stands there when it was not started, with the launcher's status.
pub const HELD: &str = "@not-healed ";

/// How the launcher comes to run before the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A oneshot unit, behind which the application's own unit stands.
    Oneshot,
    /// A unit that starts the client itself, which is all of the application.
    Client,
    /// `/init` of an initramfs without systemd.
    Init,
}

/// A board that is switched off.
pub struct Board {
    dir: TempDir,
    kernel: PathBuf,
    state: PathBuf,
}

/// A board that runs. Dropped, its power is cut.
pub struct Running {
    keeper: Child,
    qmp: Qmp,
    agent: Agent,
    dir: TempDir,
    _slot: Slot,
}

/// What came of a boot.
#[derive(Debug, Clone)]
pub struct Boot {
    /// What the console showed.
    pub said: String,
    /// Seconds from the kernel's begin to the application; `None`: it did not run.
    pub up: Option<f64>,
}

impl Boot {
    /// The version that the application said it is.
    pub fn version(&self) -> Option<&str> {
        self.said.split_once("CLIENT ")?.1.split_once(" says hello").map(|(version, _)| version)
    }

    /// # Panics
    /// Nobody said this.
    pub fn expect(&self, text: &str) -> &Self {
        assert!(self.said.contains(text), "nobody said {text:?}:\n{}", self.said);
        self
    }
}

impl Board {
    /// A board for cards like that of `stick`, prepared as the page says; `None` where QEMU or a kernel can't be had, which is
    /// said in one line.
    ///
    /// # Panics
    /// What is there does not work; nothing is there, and `HOLDFAST_MACHINES` is `required`.
    pub fn new(way: Way, stick: &Stick) -> Option<Self> {
        qemu_version()?;
        let (kernel, release) = match newest_kernel() {
            Ok(found) => found,
            Err(error) => return missing(&format!("{error:#}")),
        };
        Some(
            Self::prepare(way, stick, kernel, &release).unwrap_or_else(|error| panic!("a board for a test: {error:#}")),
        )
    }

    fn prepare(way: Way, stick: &Stick, kernel: PathBuf, release: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("holdfast-board-").tempdir()?;
        let mut root = match way {
            Way::Init => init_root(stick, release)?,
            Way::Oneshot | Way::Client => unit_root(way, stick, release, dir.path())?,
        };
        root.file("gate", 0o755, GATE);
        root.character("dev/ttyS1", 4, 65);
        fs::write(dir.path().join("initramfs"), root.archive()?)?;
        let state = dir.path().join("state");
        let board = Self { dir, kernel, state };
        // A card that nobody has seen yet when the state is taken.
        let blank = board.dir.path().join("blank");
        File::create(&blank)?.set_len(fs::metadata(&stick.disk)?.len())?;
        let mut running = board.launch(&blank, None, false)?;
        running.run_to_gate()?;
        running.qmp.run("stop", json!({}))?;
        running.qmp.run("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 40 }))?;
        running.qmp.run("migrate", json!({ "uri": format!("exec:cat > '{}'", board.state.display()) }))?;
        running.qmp.wait_migration()?;
        drop(running);
        Ok(board)
    }

    /// Boots with the card in `card`, which is that card from now on.
    ///
    /// # Panics
    /// It does not.
    pub fn boot(&self, card: &Path) -> Running {
        self.resume(card, false)
    }

    /// The same; what the card is told to write is counted.
    ///
    /// # Panics
    /// It does not.
    pub fn boot_counted(&self, card: &Path) -> Running {
        self.resume(card, true)
    }

    fn resume(&self, card: &Path, recorded: bool) -> Running {
        let booted = self.launch(card, Some(&self.state), recorded).and_then(|mut running| {
            running.qmp.wait_migration()?;
            running.qmp.run("cont", json!({}))?;
            running.go()?;
            Ok(running)
        });
        booted.unwrap_or_else(|error| panic!("a board does not boot: {error:#}"))
    }

    /// The same with a kernel that boots from the beginning.
    ///
    /// # Panics
    /// It does not.
    pub fn boot_from_power_on(&self, card: &Path) -> Running {
        let booted = self.launch(card, None, false).and_then(|mut running| {
            running.run_to_gate()?;
            running.go()?;
            Ok(running)
        });
        booted.unwrap_or_else(|error| panic!("a board does not boot: {error:#}"))
    }

    /// Starts QEMU, stopped; `from` is a saved state.
    fn launch(&self, card: &Path, from: Option<&Path>, recorded: bool) -> Result<Running> {
        let slot = Slot::take()?;
        let dir = tempfile::Builder::new().prefix("holdfast-vm-").tempdir()?;
        std::os::unix::fs::symlink(self.dir.path().join("initramfs"), dir.path().join("initramfs"))?;
        let file = |path: &Path| json!({ "driver": "file", "filename": path, "cache": { "no-flush": true } });
        let mut node = json!({ "driver": "raw", "file": file(&std::path::absolute(card)?) });
        // QEMU counts no writes of SD cards; the length of a record of them does.
        let log = dir.path().join(LOG);
        if recorded {
            fs::write(&log, b"")?;
            node = json!({ "driver": "blklogwrites", "file": node, "log": file(&log), "log-sector-size": 512 });
        }
        node["node-name"] = "card".into();
        let mut qemu = Command::new("sh");
        qemu.args(["-c", KEEPER, "sh", "qemu-system-x86_64"]).args(computer(&self.kernel, "/gate"));
        qemu.arg("-blockdev").arg(node.to_string());
        qemu.args(["-device", "sdhci-pci", "-device", "sd-card,drive=card"]);
        if let Some(state) = from {
            qemu.arg("-incoming").arg(format!("exec:cat '{}'", state.display()));
        }
        qemu.current_dir(dir.path()).stdin(Stdio::piped()).stdout(Stdio::null());
        qemu.stderr(File::create(dir.path().join("errors"))?);
        let mut keeper = qemu.spawn().context("cannot start QEMU")?;
        let connected = connect(dir.path(), &mut keeper)
            .and_then(|(qmp, agent): (UnixStream, UnixStream)| Ok((Qmp::new(qmp)?, Agent::new(agent))));
        match connected {
            Ok((qmp, agent)) => Ok(Running { keeper, qmp, agent, dir, _slot: slot }),
            Err(error) => {
                end(&mut keeper);
                let said = fs::read_to_string(dir.path().join("errors")).unwrap_or_default();
                Err(error.context(said))
            }
        }
    }
}

/// A device on a card whose last mebibytes are a board's own: two partitions, each full of a pattern.
pub struct Card {
    /// The device.
    pub stick: Stick,
    /// Where the board's partitions are, in bytes.
    others: Vec<Range<usize>>,
}

impl Card {
    /// Makes one with `partition-tools create --leave` and `sfdisk`; `None` where there is no sfdisk, which is said.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn new() -> Option<Self> {
        let Some(sfdisk) = system::find("sfdisk") else {
            return missing("sfdisk is not installed (Debian package fdisk)");
        };
        let stick = Stick::with(Profile::Stick, &["--leave", "12MiB"]);
        Some(Self::with_partitions(stick, &sfdisk).unwrap_or_else(|error| panic!("a card for a test: {error:#}")))
    }

    fn with_partitions(stick: Stick, sfdisk: &Path) -> Result<Self> {
        let script = stick.dir().join("partitions");
        fs::write(&script, "size=4MiB, type=uefi, name=boot\ntype=linux, name=root\n")?;
        let mut sfdisk = Command::new(sfdisk);
        sfdisk.args(["--quiet", "--append", "--no-reread", "--no-tell-kernel"]).arg(&stick.disk);
        let output = sfdisk.stdin(File::open(&script)?).output().context("sfdisk")?;
        ensure!(output.status.success(), "sfdisk: {}", String::from_utf8_lossy(&output.stderr));
        let mut others = Vec::new();
        for (number, other) in stick.inspect()["others"].as_array().into_iter().flatten().enumerate() {
            let at = |name: &str| other[name].as_u64().and_then(|bytes| usize::try_from(bytes).ok());
            let (start, length) = at("start").zip(at("bytes")).context("a partition without a place")?;
            let bytes = vec![PATTERN + number as u8; length];
            File::options().write(true).open(&stick.disk)?.write_all_at(&bytes, start as u64)?;
            others.push(start..start + length);
        }
        ensure!(others.len() == 2, "the board's partitions are not on the card");
        Ok(Self { stick, others })
    }

    /// Whether the board's own partitions are in the table of the card in `image` and hold what they did.
    ///
    /// # Errors
    /// They are not, or do not.
    pub fn check_others(&self, image: &Path) -> Result<()> {
        let table = Table::read(FileZone::open(image, Access::ReadOnly)?)?;
        let names: Vec<&str> = table.others().map(|other| other.name.as_str()).collect();
        ensure!(names == ["boot", "root"], "the board's partitions are {names:?}");
        let bytes = fs::read(image)?;
        for (number, place) in self.others.iter().enumerate() {
            let is_whole = bytes[place.clone()].iter().all(|byte| *byte == PATTERN + number as u8);
            ensure!(is_whole, "the board's partition {} was written to", names[number]);
        }
        Ok(())
    }
}

/// A root without systemd: busybox, the launcher, the page's script.
fn init_root(stick: &Stick, release: &str) -> Result<Root> {
    let mut root = Root::new();
    root.file("init", 0o755, INIT);
    root.file("etc/board", 0o644, BOARD);
    root.program(Path::new("/bin/busybox")).context("busybox is needed on the board")?;
    for applet in run::text(Command::new("/bin/busybox").arg("--list"))?.lines().filter(|applet| *applet != "busybox") {
        root.link(&format!("usr/bin/{applet}"), "busybox");
    }
    let launcher = stick.tool_bytes(&["virtual", "cat"], &[bootstrap_name(THIS_PLATFORM).as_str()]);
    root.file("usr/sbin/holdfast", 0o755, launcher);
    // Where the programs were not linked statically.
    for program in [&World::get().programs.bootstrap, &World::get().programs.updater] {
        root.libraries_of(program)?;
    }
    modules(&mut root, release, &[CARD_DRIVERS, INIT_DRIVERS].concat())?;
    root.copy(&Path::new("/lib/modules").join(release).join("modules.dep"))?;
    Ok(root)
}

/// A root with systemd, as `partition-tools host` prepares one.
fn unit_root(way: Way, stick: &Stick, release: &str, dir: &Path) -> Result<Root> {
    let mut root = systemd_root(release)?;
    modules(&mut root, release, CARD_DRIVERS)?;
    for unit in STOPPING.iter().chain(&["network-online.target"]) {
        root.copy(&Path::new("/lib/systemd/system").join(unit))?;
    }
    root.program(Path::new("/lib/systemd/systemd-shutdown"))?;
    let installed = dir.join("root");
    fs::create_dir_all(installed.join("etc"))?;
    fs::write(installed.join("etc/passwd"), format!("root:x:0:0::/root:/bin/sh\n{USER}:x:{USER_ID}:{USER_ID}::/:\n"))?;
    let mut arguments = vec!["--board", "/dev/mmcblk0p2", "--autorun-as", USER, "--install"];
    let at = text(&installed);
    arguments.extend(["--root", &at]);
    root.file("etc/systemd/system/network-up.service", 0o644, NETWORK_UP);
    root.link("etc/systemd/system/network-online.target.wants/network-up.service", "../network-up.service");
    root.file("etc/systemd/system/holdfast-field-handbook.service.d/online.conf", 0o644, ONLINE);
    let unit = "etc/systemd/system/application.service";
    match way {
        Way::Oneshot => {
            arguments.push("--no-client");
            root.file(unit, 0o644, APPLICATION);
            root.link("etc/systemd/system/multi-user.target.wants/application.service", "../application.service");
            root.file("etc/systemd/system/not-healed.service", 0o644, NOT_HEALED);
        }
        Way::Client => {
            root.file("etc/systemd/system/holdfast-field-handbook.service.d/off.conf", 0o644, OFF);
        }
        Way::Init => {}
    }
    stick.tool(&["host"], &arguments);
    fs::remove_file(installed.join("etc/passwd"))?;
    root.tree(&installed)?;
    Ok(root)
}

impl Running {
    fn run_to_gate(&mut self) -> Result<()> {
        self.qmp.run("cont", json!({}))?;
        let came = self.agent.wait_hello(BOOT);
        came.with_context(|| format!("console:\n{}", self.console()))
    }

    fn go(&mut self) -> Result<()> {
        self.agent.start("")
    }

    /// What the console showed so far.
    pub fn console(&self) -> String {
        let text = fs::read(self.dir.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&text).replace('\r', "")
    }

    /// Waits until the board has switched itself off, as it does behind the application.
    ///
    /// # Panics
    /// It does not.
    pub fn until_off(mut self) -> Boot {
        let off = self.qmp.wait_event("SHUTDOWN", LONG, |_| true);
        let said = self.console();
        if let Err(error) = off {
            panic!("the board goes on: {error:#}\n{said}");
        }
        let up = said.split_once(UP).and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        Boot { said, up }
    }

    /// Waits until the console shows this.
    ///
    /// # Errors
    /// It does not, or the machine has ended.
    pub fn until(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + LONG;
        while !self.console().contains(text) {
            self.is_on()?;
            ensure!(Instant::now() < deadline, "nobody says {text:?}:\n{}", self.console());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Bytes of the record of what the card was told to write so far.
    ///
    /// # Errors
    /// Nothing is counted here ([`Board::boot_counted`]).
    pub fn written_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(self.dir.path().join(LOG)).context("the card's writes are not counted")?.len())
    }

    /// # Errors
    /// The machine has ended.
    fn is_on(&mut self) -> Result<()> {
        self.qmp.run("query-status", json!({})).map(drop)
    }

    /// Cuts the power as soon as the card was told to write so much; what it was told to write is on it, and nothing
    /// else. Returns how many bytes that were.
    ///
    /// # Errors
    /// So many do not come.
    pub fn cut_after(mut self, bytes: u64) -> Result<u64> {
        let deadline = Instant::now() + LONG;
        loop {
            let written = self.written_bytes()?;
            if written >= bytes {
                return Ok(written);
            }
            self.is_on()?;
            ensure!(Instant::now() < deadline, "only {written} bytes were written:\n{}", self.console());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.keeper);
    }
}
