//! A device in a machine that is damaged in one way after another, and what stands on it afterwards, read on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use embedded_io::Read as _;
use firmware_image::host::Access;
use firmware_image::image::Device;
use firmware_image::image::any_zone::{AnyFreeZone, walk};
use firmware_image::paths;
use firmware_image::{FreeZone as _, ZoneFile as _};
use qemu_tests::host::{HOLD, Session};
use qemu_tests::machine::{Machine, SHORT};
use qemu_tests::stick::{Cable, Profile, Stick};
use qemu_tests::verdict::{Files, tree_files};
use qemu_tests::world::{OLD, Special, World};
use xtask::run;

/// A file of the user's own.
pub const MINE: &str = "My documents/Grüße.txt";
/// What is in it.
pub const WORDS: &str = "All my own work.\n";
/// The updater's name in the zones, as the guest's platform has it.
pub const UPDATER: &str = "updater-linux-x86_64";
/// Where a script finds the zones.
pub const MOUNTS: &str = "/mnt/virtual /mnt/free";
/// After so many starts a sound device is at rest.
const STARTS_TO_REST: usize = 4;

/// A machine whose host was prepared, and a device. It stays plugged in after a start, until something else is to be done.
pub struct Ward {
    /// The machine.
    pub machine: Machine,
    /// The device.
    pub stick: Stick,
    /// The client that the device has, as the vendor has it.
    pub client: Files,
    /// The updater that belongs into the free zone.
    pub updater: Vec<u8>,
    /// What was on the disk when it was last kept.
    kept: PathBuf,
    plugged: bool,
}

impl Ward {
    /// A device of that profile with a file of the user's own, in a machine that starts it when it is plugged in. `None`:
    /// there is no machine to be had.
    pub fn admit(profile: Profile) -> Option<Self> {
        let mut ward = Self::unprepared(profile, &[])?;
        ward.prepare_host();
        Some(ward)
    }

    /// The same with more arguments for `partition-tools create`, in a machine as it comes, which starts nothing.
    pub fn unprepared(profile: Profile, more: &[&str]) -> Option<Self> {
        let machine = Machine::start()?;
        let stick = Stick::with(profile, more);
        let mine = stick.dir().join("mine");
        fs::write(&mine, WORDS).unwrap();
        World::get().partition_tools(&["free", "put", &stick.disk.to_string_lossy(), &mine.to_string_lossy(), MINE]);
        let kept = stick.dir().join("kept.img");
        let mut ward = Self { machine, stick, client: Files::new(), updater: Vec::new(), kept, plugged: false };
        ward.keep(OLD);
        Some(ward)
    }

    /// The computer's administrator runs `partition-tools host`.
    pub fn prepare_host(&mut self) {
        self.machine.install_host(&self.stick);
        self.machine.sh(&format!("mkdir -p {MOUNTS}"));
    }

    /// Puts updaters that are not what they should be where the guest finds them, in `/host`.
    pub fn bring_special_updaters(&self) {
        for special in Special::ALL {
            let from = World::get().special(special);
            fs::copy(&from, self.machine.share().join(from.file_name().unwrap())).unwrap();
        }
    }

    /// From now on this is what the device goes back to: a release, whole, with the updater that is in the free zone now.
    pub fn keep(&mut self, version: &str) {
        self.client = tree_files(&World::get().tree(version)).unwrap();
        self.updater = self.read(UPDATER).expect("an updater in the free zone");
        copy_with_holes(&self.stick.disk, &self.kept);
    }

    /// The device is again as it was kept.
    pub fn go_back(&mut self) {
        self.unplug();
        copy_with_holes(&self.kept, &self.stick.disk);
    }

    /// Plugs it in and out again until a start writes nothing; how many wrote something.
    pub fn come_to_rest(&mut self) -> usize {
        for starts in 0..STARTS_TO_REST {
            let before = self.stick.bytes();
            let session = self.start();
            assert_eq!(session.status, 0, "{}", session.said);
            if self.stick.bytes() == before {
                return starts;
            }
        }
        panic!("each of {STARTS_TO_REST} starts wrote something");
    }

    /// Plugs the device in and waits until all that starts by itself has ended.
    pub fn start(&mut self) -> Session {
        self.start_with(&Cable::default())
    }

    /// The same with a cable.
    pub fn start_with(&mut self, cable: &Cable) -> Session {
        self.unplug();
        let session = self.machine.plug_session_with(&self.stick, cable);
        self.plugged = true;
        session
    }

    /// Pulls the device out, if it is plugged in.
    pub fn unplug(&mut self) {
        if std::mem::take(&mut self.plugged) {
            self.machine.pull_and_settle(&self.stick);
        }
    }

    /// Runs a script in the guest while the device is plugged in and nothing of it runs, then unplugs it. The zones are
    /// mounted where the script finds `$virtual` and `$free`; their nodes are `$virtual_node`, `$free_node`, `$hidden_node`.
    pub fn damage(&mut self, script: &str) -> String {
        let held = !self.plugged;
        if held {
            self.plug_held();
        }
        let script = format!(
            "{}\nset -e\n{script}\ncd /; umount {MOUNTS} 2>/dev/null || true; sync; ! grep -E '^/dev/s[dr]' /proc/mounts",
            self.mount()
        );
        let said = self.machine.long(&script);
        if held {
            self.unplug_held();
        }
        self.unplug();
        said
    }

    /// Unplugs what [`Self::plug_held`] plugged in; from now on devices start again.
    pub fn unplug_held(&mut self) {
        self.machine.sh(&format!("! grep -E '^/dev/s[dr]' /proc/mounts && rm {HOLD}"));
        self.unplug();
    }

    /// Plugs the device in, and nothing starts by itself.
    pub fn plug_held(&mut self) {
        self.unplug();
        self.machine.sh(&format!("touch {HOLD}"));
        self.machine.plug(&self.stick);
        self.plugged = true;
        let profile = self.stick.profile;
        let there = format!("[ -b {} ] && [ -b {} ] && udevadm settle", profile.virtual_node(), profile.hidden_node());
        self.machine.wait_until(&there, SHORT);
    }

    fn mount(&self) -> String {
        let (virtual_node, hidden_node) = (self.stick.profile.virtual_node(), self.stick.profile.hidden_node());
        format!(
            "virtual=/mnt/virtual; free=/mnt/free; virtual_node={virtual_node}; free_node=/dev/sda1; hidden_node={hidden_node}; \
             mount -o ro $virtual_node $virtual; mount -o uid=1000,gid=1000,utf8=1 $free_node $free"
        )
    }

    fn opened(&self) -> Device {
        Device::open(&self.stick.disk, self.stick.cd.as_deref(), Access::ReadOnly).unwrap()
    }

    /// The bytes of a file in the free zone.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        read(&self.opened().free_zone().unwrap(), path)
    }

    /// All paths in the free zone.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        walk(&self.opened().free_zone().unwrap(), "", &mut |path, _| paths.push(path.to_owned())).unwrap();
        paths
    }

    /// Demands that updater and client are whole, byte for byte, with nothing beside them, that nothing of a restore is left
    /// over, and that `partition-tools verify` finds everything sound.
    pub fn is_whole(&self) -> Result<()> {
        self.has_its_updater()?;
        self.has_its_client()?;
        for path in self.paths() {
            let known = [paths::STATE_DIR, paths::CLIENT_DIR, MINE, UPDATER];
            ensure!(known.iter().any(|known| path.starts_with(known)), "{path} is left behind");
            ensure!(!path.ends_with(".new"), "{path} is left behind");
        }
        self.is_sound()
    }

    /// Demands that the updater in the free zone is the one that belongs there.
    pub fn has_its_updater(&self) -> Result<()> {
        ensure!(self.read(UPDATER).as_ref() == Some(&self.updater), "the updater in the free zone is not what it was");
        Ok(())
    }

    /// Demands that `client/` is the release, whole, with nothing beside it.
    pub fn has_its_client(&self) -> Result<()> {
        let free = self.opened().free_zone()?;
        let mut found = Files::new();
        walk(&free, paths::CLIENT_DIR, &mut |path, _| {
            let below = path.strip_prefix("client/").unwrap_or(path).to_owned();
            found.insert(below, read(&free, path).unwrap_or_default());
        })?;
        for path in found.keys().chain(self.client.keys()) {
            ensure!(found.get(path) == self.client.get(path), "client/{path} is not as it was");
        }
        Ok(())
    }

    /// Demands that the user's own file is what it was.
    pub fn has_mine(&self) -> Result<()> {
        ensure!(self.read(MINE).as_deref() == Some(WORDS.as_bytes()), "the user's own file is not what it was");
        Ok(())
    }

    /// Demands that `partition-tools verify` finds everything sound.
    pub fn is_sound(&self) -> Result<()> {
        let world = World::get();
        let mut verify = world.command(&world.programs.partition_tools);
        verify.arg("verify").arg(&self.stick.disk);
        if let Some(cd) = &self.stick.cd {
            verify.arg("--virtual").arg(cd);
        }
        let output = run::capture(&mut verify)?;
        let told = [output.stdout, output.stderr].concat();
        ensure!(output.status.success(), "partition-tools verify: {}", String::from_utf8_lossy(&told));
        Ok(())
    }
}

fn read(free: &AnyFreeZone, path: &str) -> Option<Vec<u8>> {
    let mut file = free.open(path).unwrap()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact(&mut bytes).unwrap();
    Some(bytes)
}

/// Copies an image; what is nothing but zeros takes no room.
pub fn copy_with_holes(from: &Path, to: &Path) {
    run::text(Command::new("cp").arg("--sparse=always").arg(from).arg(to)).unwrap();
}
