//! One device, one machine that starts what is plugged in, and the rounds: plug, pull at a moment, look, heal, look.

use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use firmware_image::RawZone as _;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::{Device, VirtualZone as _};
use firmware_image::journal::State;
use firmware_image::paths::{self, THIS_PLATFORM};
use firmware_image::stamp;
use firmware_image::storage::{Window, read_exact_at};
use firmware_image::updater_image::MAX_IMAGE_BYTES;
use qemu_tests::guest::USER_ID;
use qemu_tests::host::{ENDED, HOLD, UNIT};
use qemu_tests::machine::{LONG, Machine};
use qemu_tests::stick::{Cable, Profile, Stick};
use qemu_tests::verdict::{fsck, tree_files};
use qemu_tests::world::{NEW, OLD, PRODUCT, UPDATERS, World, copy_tree, noise};
use xtask::run;

use super::follow::{Follow, Progress};
use super::gate::{Gate, Opening};
use super::seen::{Files, Seen, part};
use crate::ward::copy_with_holes;

/// Writes in a second, so that a pull between two of them hits.
const WRITES_PER_SECOND: u64 = 150;
/// What the newest release brings beside the world's: so much that a download of it is flushed in its middle.
const ATLAS_WORDS: usize = 230_000;

/// A device and its machine.
pub struct Scene {
    pub machine: Machine,
    pub stick: Stick,
    pub gate: Gate,
    /// The old release and the new one.
    pub releases: Vec<(&'static str, Files)>,
    users: Files,
    launcher: PathBuf,
    alone: PathBuf,
    hidden: Range<u64>,
}

/// Who starts the launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// The unit, which asks it to end when the device is pulled.
    Unit,
    /// Somebody, who does not.
    Hand,
}

/// What a pull left.
pub struct Pulled {
    /// The launcher's status: how the process ended, and its number or signal.
    pub ended: String,
    /// What it and its children said.
    pub said: String,
    /// How far the writing came.
    pub progress: Progress,
    /// From the pull until nothing of it ran any more.
    pub took: Duration,
}

impl Scene {
    /// A factory's device, somebody's files on it, a server that has the newest release behind a gate that is closed.
    pub fn new(profile: Profile) -> Option<Self> {
        let mut machine = Machine::start()?;
        let (world, stick) = (World::get(), Stick::new(profile));
        let new = stick.dir().join("tree");
        copy_tree(&world.tree(NEW), &new).unwrap();
        let atlas: Vec<u8> = noise(99, ATLAS_WORDS).into_iter().flat_map(u64::to_le_bytes).collect();
        fs::write(new.join("atlas.bin"), atlas).unwrap();
        let updater = format!("{THIS_PLATFORM}={}", world.programs.updater.display());
        let mut publish = world.command(&world.programs.release_store);
        publish.arg("publish").arg(stick.dir().join("store")).arg(&new).arg("--keys").arg(world.keys());
        publish.args([
            "--release-version",
            NEW,
            "--updater",
            &updater,
            "--updater-version",
            UPDATERS[1],
            "--level",
            "3",
        ]);
        run::text(&mut publish).unwrap();

        let mut users = Files::new();
        for (path, bytes) in [("photos/Summer 2026/beach.jpg", 70_000usize), ("letter.txt", 900)] {
            let content: Vec<u8> = (0..bytes).map(|at| (at * 31 % 251) as u8).collect();
            let source = stick.dir().join("source");
            fs::write(&source, &content).unwrap();
            world.partition_tools(&["free", "put", text(&stick.disk), text(&source), path]);
            users.insert(path.into(), content);
        }
        let releases = vec![(OLD, tree_files(&world.tree(OLD)).unwrap()), (NEW, tree_files(&new).unwrap())];

        let address = stick.server.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let gate = Gate::before(address);
        machine.install_host(&stick);
        // Servers are asked through the gate.
        machine.sh(&format!(
            "d=/etc/systemd/system/{UNIT}@.service.d; mkdir -p $d; printf '[Service]\\nEnvironment=http_proxy={}\\n' > $d/gate.conf; \
             systemctl daemon-reload",
            gate.guest_url()
        ));
        let launcher = launcher(&stick);
        let alone = alone(&stick);
        let hidden = Seen::of(&stick).hidden;
        Some(Self { machine, stick, gate, releases, users, launcher, alone, hidden })
    }

    /// Keeps the device as it is now under a name.
    pub fn keep(&self, name: &str) -> PathBuf {
        let kept = self.stick.dir().join(format!("{name}.img"));
        copy_with_holes(&self.stick.disk, &kept);
        kept
    }

    /// The log of the last plug.
    pub fn log(&self) -> PathBuf {
        self.stick.dir().join("writes.log")
    }

    /// Plugs the device in as `start` has it, and pulls it at the moment that `moment` waits for; `None` where the launcher
    /// ended before that.
    pub fn plug_and_pull(
        &mut self,
        start: &Path,
        journal: State,
        starter: Starter,
        slow: bool,
        mut moment: impl FnMut(&mut Follow, &Gate) -> bool,
    ) -> Option<Pulled> {
        copy_with_holes(start, &self.stick.disk);
        self.prepare(starter);
        let cable =
            Cable { log: Some(self.log()), writes_per_second: slow.then_some(WRITES_PER_SECOND), ..Cable::default() };
        self.machine.plug_with(&self.stick, &cable);
        let mut follow = Follow::new(&self.log(), self.hidden.clone(), journal);
        let deadline = Instant::now() + LONG;
        let mut look = Instant::now();
        let hit = loop {
            if moment(&mut follow, &self.gate) {
                break true;
            }
            if Instant::now() > look {
                if self.machine.ended_since_mark().is_some() {
                    break false;
                }
                look = Instant::now() + Duration::from_millis(50);
            }
            assert!(Instant::now() < deadline, "nothing happens:\n{}", self.machine.journal());
            std::thread::sleep(Duration::from_micros(200));
        };
        let begun = Instant::now();
        self.machine.pull();
        let ended = self.wait_nothing_left();
        let took = begun.elapsed();
        let said = self.said();
        follow.until(|_| false);
        hit.then_some(Pulled { ended, said, progress: follow.progress, took })
    }

    /// Plugs the device in as it is and lets the launcher come to its end.
    pub fn plug_to_the_end(&mut self) -> Pulled {
        self.prepare(Starter::Unit);
        let cable = Cable { log: Some(self.log()), ..Cable::default() };
        self.machine.plug_with(&self.stick, &cable);
        let begun = Instant::now();
        self.machine.session();
        let took = begun.elapsed();
        let mut follow = Follow::new(&self.log(), self.hidden.clone(), State::Idle);
        follow.until(|_| false);
        self.machine.pull();
        let ended = self.wait_nothing_left();
        Pulled { ended, said: self.said(), progress: follow.progress, took }
    }

    /// Makes the guest ready for a plug.
    fn prepare(&mut self, starter: Starter) {
        let (node, hidden) = (self.stick.profile.virtual_node(), self.stick.profile.hidden_node());
        let by_hand = format!(
            "touch {HOLD}; (until [ -b {node} ] && [ -b {hidden} ]; do usleep 50000; done; udevadm settle; cd /; \
             http_proxy={} setpriv --reuid {USER_ID} --regid {USER_ID} --clear-groups --inh-caps +sys_admin --ambient-caps +sys_admin \
             /usr/local/lib/holdfast/field-handbook/bootstrap --plugged {node} --verbose; \
             echo {ENDED}exited $?@) </dev/null >/dev/console 2>&1 &",
            self.gate.guest_url()
        );
        match starter {
            Starter::Unit => self.machine.sh(&format!("rm -f {HOLD}")),
            Starter::Hand => self.machine.sh(&by_hand),
        };
        self.machine.mark();
    }

    /// What was said since the last plug.
    pub fn said(&self) -> String {
        self.machine.said_since_mark()
    }

    /// Waits until the device is gone and with it every process and mount that it brought; how the launcher ended.
    fn wait_nothing_left(&mut self) -> String {
        let ended = self.machine.session().ended;
        self.machine.settle(&self.stick);
        let left = "ps -o user,pid,args | grep '^anna'; grep -l -e ' /dev/sd' -e ' /dev/sr' /proc/[0-9]*/mountinfo 2>/dev/null; \
                    ls -d /run/holdfast-* 2>/dev/null; true";
        let found = self.machine.sh(left);
        assert!(found.is_empty(), "left behind:\n{found}\n{}", self.machine.journal());
        ended
    }

    /// What is on the device now.
    pub fn seen(&self) -> Seen {
        Seen::of(&self.stick)
    }

    /// Which release is installed, whole, and everything else as it should be.
    pub fn whole(&self) -> Result<String, String> {
        self.seen().whole(&self.releases, &self.users)
    }

    /// The hidden zone's bytes.
    pub fn hidden(&self, disk: &Path) -> Vec<u8> {
        part(disk, &self.hidden)
    }

    /// Heals the device in its image on this machine, with what is on it alone, and then, where `online`, with a server in
    /// reach; which release it healed to.
    pub fn heal_here(&self, online: bool) -> Result<String, String> {
        self.start_here(false)?;
        let healed = self.whole()?;
        let device = Device::open(&self.stick.disk, self.stick.cd.as_deref(), Access::ReadOnly).unwrap();
        let volume = self.stick.dir().join("free.fat");
        fs::write(&volume, all(&mut device.free_raw().unwrap())).unwrap();
        fsck::check(&volume).unwrap().map_err(|complaint| format!("fsck.vfat: {complaint}"))?;
        if online {
            self.start_here(true)?;
            let version = self.whole()?;
            if version != NEW {
                return Err(format!("with a server in reach it stays at {version}"));
            }
        }
        Ok(healed)
    }

    /// One start of the launcher over the image.
    fn start_here(&self, online: bool) -> Result<(), String> {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "100"]).arg(&self.launcher).args(["--no-client", "--verbose", "--device"]);
        command.arg(&self.stick.disk);
        if let Some(zone) = if online { self.stick.cd.as_ref() } else { Some(&self.alone) } {
            command.arg("--virtual").arg(zone);
        }
        command.env("http_proxy", self.gate.guest_url().replace("10.0.2.2", "127.0.0.1"));
        if online {
            self.gate.set(Opening::Open);
        }
        let output = run::capture(&mut command).unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if output.status.success() { Ok(()) } else { Err(format!("the launcher ended with {}: {said}", output.status)) }
    }
}

/// The launcher that opens images, with the device's vendor stamped into it.
fn launcher(stick: &Stick) -> PathBuf {
    let device = Device::open(&stick.disk, stick.cd.as_deref(), Access::ReadOnly).unwrap();
    let own = device
        .virtual_zone()
        .unwrap()
        .read_file(&paths::bootstrap_name(THIS_PLATFORM), MAX_IMAGE_BYTES)
        .unwrap()
        .unwrap();
    let vendor = stamp::stamped_key(&own).unwrap().unwrap();
    let mut program = fs::read(&World::get().programs.bootstrap_image).unwrap();
    stamp::stamp(&mut program, &vendor).unwrap();
    let path = stick.dir().join("launcher");
    fs::File::create(&path).unwrap().write_all(&program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The virtual zone of a device of the same product that knows no server: nobody is waited for.
fn alone(stick: &Stick) -> PathBuf {
    let world = World::get();
    let image = stick.dir().join("alone.img");
    let bootstrap = format!("{THIS_PLATFORM}={}", world.programs.bootstrap.display());
    let (keys, store) = (world.keys(), world.store(OLD));
    world.partition_tools(&[
        "create",
        "--profile",
        "stick",
        "--out",
        text(&image),
        "--size",
        "128MiB",
        "--keys",
        text(&keys),
        "--product",
        PRODUCT,
        "--bootstrap",
        &bootstrap,
        "--client-command",
        "client/run.sh",
        "--store",
        text(&store),
        "--release-version",
        OLD,
    ]);
    let mut zone = Device::open(&image, None, Access::ReadOnly).unwrap().virtual_raw().unwrap();
    let iso = stick.dir().join("alone.iso");
    fs::write(&iso, all(&mut zone)).unwrap();
    iso
}

/// The bytes of a zone.
fn all(zone: &mut Window<FileZone>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(zone.len().unwrap()).unwrap()];
    read_exact_at(zone, 0, &mut bytes).unwrap();
    bytes
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
