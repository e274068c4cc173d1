//! A machine: a QEMU process with a booted guest, restored from the state in which the first one was ready.
//!
//! Nothing outlives a test: the process is the child of a shell that ends it as soon as the pipe from this process closes.

use std::fs::{self, File, TryLockError};
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use firmware_image::sim::figures;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::agent::{Agent, Output};
use crate::guest::Guest;
use crate::qmp::Qmp;

/// Software emulation boots slowly, slower still beside other tests.
const BOOT: Duration = Duration::from_secs(180);
/// What a short command in the guest may take on a busy machine.
pub const SHORT: Duration = Duration::from_secs(60);
/// What a longer one may take: an update, a restore.
pub const LONG: Duration = Duration::from_secs(180);

/// Memory of the guest, in MiB.
const MEMORY_MIB: u32 = 384;

/// An old processor with what the programs use: emulation is a fifth faster than with all the words of a new one.
const CPU: &str = "Nehalem,+aes,+pclmulqdq,+rdrand,+ssse3";

/// Ends QEMU when the test's end of the pipe closes, however the test ends.
pub(crate) const KEEPER: &str = r#""$@" & pid=$!; read -r _; kill -9 "$pid" 2>/dev/null; wait "$pid" 2>/dev/null"#;

/// A running machine. A test has one at a time.
pub struct Machine {
    keeper: Child,
    qmp: Qmp,
    agent: Agent,
    dir: TempDir,
    /// Bytes that the console had shown at the last [`Self::mark`].
    pub(crate) marked: usize,
    /// From nothing to the first command in the guest.
    pub ready: Duration,
    _slot: Slot,
}

/// The right to run a machine. There is one more than processors, for all test processes of this computer: an emulated
/// processor wants a whole one, and each waits a fifth of its time.
pub(crate) struct Slot(#[expect(dead_code, reason = "held for its lock")] File);

impl Slot {
    /// Waits for a free one. Whoever holds one while waiting for another may wait for ever: a test has one machine at a time.
    pub(crate) fn take() -> Result<Self> {
        let directory = std::env::temp_dir().join("holdfast-machines");
        fs::create_dir_all(&directory)?;
        let count = std::thread::available_parallelism().map_or(1, usize::from) + 1;
        loop {
            for number in 0..count {
                let file = File::create(directory.join(number.to_string()))?;
                match file.try_lock() {
                    Ok(()) => return Ok(Self(file)),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error.into()),
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Machine {
    /// A machine with a booted guest and nothing plugged in; `None` where QEMU or a kernel can't be had, which is said in
    /// one line.
    ///
    /// # Panics
    /// What is there does not work; nothing is there, and `HOLDFAST_MACHINES` is `required`.
    pub fn start() -> Option<Self> {
        let qemu = qemu_version()?;
        let guest = match Guest::make() {
            Ok(guest) => guest,
            Err(error) => return missing(&format!("{error:#}")),
        };
        let machine = Saved::of(&guest, &qemu).and_then(|saved| saved.machine());
        Some(machine.unwrap_or_else(|error| panic!("a machine for a test: {error:#}")))
    }

    /// Runs a shell script in the guest, as root.
    ///
    /// # Panics
    /// The guest does not answer.
    pub fn run_for(&mut self, script: &str, patience: Duration) -> Output {
        match self.agent.run(script, patience) {
            Ok(output) => output,
            Err(error) => panic!("{error:#}\nconsole:\n{}", self.console()),
        }
    }

    /// Runs a short script in the guest, which must succeed; what it printed.
    pub fn sh(&mut self, script: &str) -> String {
        let output = self.run_for(script, SHORT);
        assert_eq!(output.status, 0, "in the guest: {script}\n{}", output.text);
        output.text
    }

    /// Runs a script in the guest that may take long and must succeed; what it printed.
    pub fn long(&mut self, script: &str) -> String {
        let output = self.run_for(script, LONG);
        assert_eq!(output.status, 0, "in the guest: {script}\n{}", output.text);
        output.text
    }

    /// Sends a script to the guest and goes on; [`Self::finish`] waits for its end.
    pub fn begin(&mut self, script: &str) {
        self.agent.start(script).unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// Whether what was begun has ended: then [`Self::finish`] does not wait.
    pub fn has_finished(&mut self) -> bool {
        self.agent.has_answered()
    }

    /// Waits for the end of what was begun.
    pub fn finish(&mut self) -> Output {
        match self.agent.finish(LONG) {
            Ok(output) => output,
            Err(error) => panic!("{error:#}\nconsole:\n{}", self.console()),
        }
    }

    /// Runs a condition in the guest again and again until it holds.
    ///
    /// # Panics
    /// It does not hold in time; with what the last try printed.
    pub fn wait_until(&mut self, condition: &str, patience: Duration) {
        let seconds = patience.as_secs();
        let script = format!(
            "end=$(($(date +%s) + {seconds})); while ! {{ {condition}\n}}; do [ $(date +%s) -lt $end ] || exit 1; usleep 20000; done"
        );
        let output = self.run_for(&script, patience + SHORT);
        assert_eq!(
            output.status,
            0,
            "not within {seconds} s in the guest: {condition}\n{}\n{}",
            output.text,
            self.journal()
        );
    }

    /// One command of the machine protocol.
    ///
    /// # Panics
    /// It fails.
    pub fn qmp(&mut self, command: &str, arguments: Value) -> Value {
        self.qmp.run(command, arguments).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Waits for an event of the machine.
    ///
    /// # Panics
    /// It does not come.
    pub fn wait_event(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.qmp.wait_event(name, SHORT, wanted).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// What the guest's console showed so far.
    pub fn console(&self) -> String {
        fs::read(self.dir.path().join("console"))
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// The end of the guest's log, for the message of a failed test.
    pub fn journal(&mut self) -> String {
        self.agent
            .run("journalctl --no-pager --no-hostname -o short-monotonic -n 80; dmesg | tail -n 20", SHORT)
            .map_or_else(|error| format!("{error:#}"), |output| output.text)
    }

    /// A directory that the guest sees as `/host`.
    pub fn share(&self) -> PathBuf {
        self.dir.path().join("share")
    }

    /// Starts QEMU, stopped; `from` is a saved state.
    fn launch(guest: &Guest, from: Option<&Path>) -> Result<Self> {
        let slot = Slot::take()?;
        let start = Instant::now();
        let dir = tempfile::Builder::new().prefix("holdfast-vm-").tempdir()?;
        fs::create_dir(dir.path().join("share"))?;
        fs::write(dir.path().join("initramfs"), &guest.initramfs)?;
        let mut qemu = Command::new("sh");
        qemu.args(["-c", KEEPER, "sh", "qemu-system-x86_64"]).args(arguments(&guest.kernel));
        if let Some(state) = from {
            qemu.arg("-incoming").arg(format!("exec:cat '{}'", state.display()));
        }
        qemu.current_dir(dir.path()).stdin(Stdio::piped()).stdout(Stdio::null());
        qemu.stderr(File::create(dir.path().join("errors"))?);
        let mut keeper = qemu.spawn().context("cannot start QEMU")?;
        let connected =
            connect(dir.path(), &mut keeper).and_then(|(qmp, agent)| Ok((Qmp::new(qmp)?, Agent::new(agent))));
        match connected {
            Ok((qmp, agent)) => Ok(Self { keeper, qmp, agent, dir, marked: 0, ready: start.elapsed(), _slot: slot }),
            Err(error) => {
                end(&mut keeper);
                let said = fs::read_to_string(dir.path().join("errors")).unwrap_or_default();
                Err(error.context(said))
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end(&mut self.keeper);
    }
}

pub(crate) fn end(keeper: &mut Child) {
    drop(keeper.stdin.take());
    // It ends because its pipe has closed; there is nobody to tell if it does not.
    let _ = keeper.wait();
}

/// Says that there is nothing to test with.
///
/// # Panics
/// `HOLDFAST_MACHINES` is `required`.
pub(crate) fn missing<T>(what: &str) -> Option<T> {
    assert!(
        std::env::var_os("HOLDFAST_MACHINES").is_none_or(|word| word != "required"),
        "no machine to test with: {what}"
    );
    figures::skipped(&format!("there is no machine to test with: {what}"));
    None
}

/// What QEMU says of itself; where there is none, that is said.
pub(crate) fn qemu_version() -> Option<String> {
    match Command::new("qemu-system-x86_64").arg("--version").output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(_) => missing("qemu-system-x86_64 is not installed (Debian package qemu-system-x86)"),
    }
}

/// The machine: everything but what is plugged in later.
fn arguments(kernel: &Path) -> Vec<String> {
    // No journal on the console: the launcher's unit writes there itself.
    let mut words = computer(kernel, "/init");
    let more = ["-device", "nec-usb-xhci,id=xhci,p2=8,p3=8"];
    let share = ["-virtfs", "local,id=share,path=share,mount_tag=host,security_model=none"];
    words.extend(more.into_iter().chain(share).map(str::to_owned));
    words
}

/// A computer with a console, a second serial line, and a network, stopped; its first program is `init`.
pub(crate) fn computer(kernel: &Path, init: &str) -> Vec<String> {
    let memory = MEMORY_MIB.to_string();
    let kernel = kernel.to_string_lossy();
    let command_line = format!(
        "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests net.ifnames=0 rdinit={init} \
         systemd.show_status=false systemd.unified_cgroup_hierarchy=1 audit=0 random.trust_cpu=on"
    );
    let words = [
        "-accel",
        "tcg",
        "-M",
        "q35",
        "-cpu",
        CPU,
        "-m",
        &memory,
        "-display",
        "none",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-S",
        "-kernel",
        &kernel,
        "-initrd",
        "initramfs",
        "-append",
        &command_line,
        "-chardev",
        "file,id=console,path=console",
        "-serial",
        "chardev:console",
        "-chardev",
        "socket,id=agent,path=agent,server=on,wait=off",
        "-serial",
        "chardev:agent",
        "-qmp",
        "unix:qmp,server=on,wait=off",
        "-netdev",
        "user,id=net",
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
    ];
    words.map(str::to_owned).to_vec()
}

pub(crate) fn connect(dir: &Path, keeper: &mut Child) -> Result<(UnixStream, UnixStream)> {
    let deadline = Instant::now() + SHORT;
    let mut open = |name: &str| loop {
        match UnixStream::connect(dir.join(name)) {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                ensure!(keeper.try_wait()?.is_none(), "QEMU has ended");
                ensure!(Instant::now() < deadline, "QEMU does not answer: {error}");
                // QEMU makes its sockets in order; a keeper whose QEMU failed waits for the pipe, so look at what it said.
                let failed =
                    fs::read_to_string(dir.join("errors")).is_ok_and(|said| said.contains("qemu-system-x86_64: -"));
                ensure!(!failed, "QEMU does not start");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    };
    Ok((open("qmp")?, open("agent")?))
}

/// A machine's state on disk, made once for a guest and a QEMU.
struct Saved<'g> {
    guest: &'g Guest,
    state: PathBuf,
}

impl<'g> Saved<'g> {
    /// The state for this guest, made now if it is not there. Test runners start a process per test: one makes it, the
    /// others wait.
    fn of(guest: &'g Guest, qemu: &str) -> Result<Self> {
        let mut digest = Sha256::new();
        digest.update(qemu);
        digest.update(&guest.key);
        digest.update(arguments(&guest.kernel).join(" "));
        let key = hex::encode(&digest.finalize()[..16]);
        let directory = crate::cache_directory()?;
        let state = directory.join(format!("{key}.state"));
        if !state.exists() {
            let lock = File::create(directory.join("state.lock"))?;
            lock.lock().context("the lock on the saved states")?;
            if !state.exists() {
                eprintln!("booting the guest for the first time; its state is kept in {}", directory.display());
                make(guest, &state).context("the first boot of the guest")?;
                remove_others(&directory, &state);
            }
        }
        Ok(Self { guest, state })
    }

    fn machine(&self) -> Result<Machine> {
        let mut machine = Machine::launch(self.guest, Some(&self.state))?;
        let start = Instant::now() - machine.ready;
        machine.qmp.wait_migration()?;
        machine.qmp.run("cont", json!({}))?;
        // The saved clock stood still meanwhile.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let set_up = format!(
            "date -s @{now} >/dev/null && mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 host /host"
        );
        let output = machine.agent.run(&set_up, SHORT)?;
        ensure!(output.status == 0, "the guest's set-up: {}", output.text);
        machine.ready = start.elapsed();
        Ok(machine)
    }
}

/// Boots the guest and saves its state, under its name only when it is whole.
fn make(guest: &Guest, state: &Path) -> Result<()> {
    let mut machine = Machine::launch(guest, None)?;
    machine.qmp.run("cont", json!({}))?;
    if let Err(error) = machine.agent.wait_hello(BOOT) {
        bail!("{error:#}\nconsole:\n{}", machine.console());
    }
    // Quiet before the picture is taken: every device announced, the network's address set.
    let settle = "udevadm settle --timeout=60 && i=0; while ! ip addr show eth0 | grep -q 10.0.2.15; do \
                  i=$((i+1)); [ $i -lt 300 ] || exit 1; usleep 100000; done; \
                  modprobe -a usb_storage uas sd_mod sr_mod sg vfat isofs nls_cp437 nls_ascii nls_iso8859_1 nls_utf8 9pnet_virtio 9p; \
                  systemctl is-active systemd-udevd systemd-journald";
    let output = machine.agent.run(settle, BOOT)?;
    ensure!(output.status == 0, "the guest is not well:\n{}\nconsole:\n{}", output.text, machine.console());
    machine.qmp.run("stop", json!({}))?;
    let beside = state.with_extension("new");
    machine.qmp.run("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 40 }))?;
    machine.qmp.run("migrate", json!({ "uri": format!("exec:cat > '{}'", beside.display()) }))?;
    machine.qmp.wait_migration()?;
    drop(machine);
    let mut first = [0; 4];
    File::open(&beside)?.read_exact(&mut first).context("the saved state is empty")?;
    fs::rename(&beside, state)?;
    Ok(())
}

/// States of other guests take a hundred megabytes each.
fn remove_others(directory: &Path, keep: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "state") && path != keep {
            // Another one that is in use keeps its bytes until it is closed; what cannot be removed only takes room.
            let _ = fs::remove_file(path);
        }
    }
}
