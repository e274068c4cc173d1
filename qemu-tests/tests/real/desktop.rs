//! A computer that was not prepared: its desktop mounts the free zone with the driver's own way of meeting damage, which is to
//! turn the mount read-only. What a pull leaves must not lead there, or the device could not be healed by its owner.

use std::time::{Duration, Instant};

use qemu_tests::machine::{LONG, Machine, SHORT};
use qemu_tests::stick::{Cable, Profile, Stick};
use qemu_tests::world::{NEW, OLD};

use crate::ward::copy_with_holes;

/// Writes in a second, so that a pull between two of them hits.
const WRITES_PER_SECOND: u64 = 150;
/// What is pulled: after so many bytes written of a restore, of an update.
const RESTORES: [u64; 1] = [1_500_000];
const UPDATES: [u64; 3] = [300_000, 1_200_000, 4_000_000];

const MOUNTS: &str = "/media/virtual /media/free";

/// Plugs a stick in as the desktop of an ordinary user has it: both zones mounted, the hidden one out of reach.
pub fn plug(machine: &mut Machine, stick: &Stick, cable: &Cable) {
    let profile = stick.profile;
    machine.plug_with(stick, cable);
    machine.wait_until(
        &format!("[ -b {} ] && [ -b {} ] && udevadm settle", profile.virtual_node(), profile.hidden_node()),
        SHORT,
    );
    machine.sh(&format!(
        "mkdir -p {MOUNTS}; mount -o ro,nosuid,nodev {} /media/virtual; \
         mount -o uid=1000,gid=1000,nosuid,nodev,utf8=1,flush,showexec /dev/sda1 /media/free",
        profile.virtual_node()
    ));
}

fn unplugged(machine: &mut Machine) {
    machine.long(&format!(
        "umount -l {MOUNTS}; while [ -e /sys/block/sda ] || [ -e /sys/block/sr0 ]; do usleep 20000; done; udevadm settle"
    ));
}

/// What the user does: a double-click on `autorun.sh`.
pub const DOUBLE_CLICK: &str =
    "cd /; setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/anna sh /media/virtual/autorun.sh --verbose";

/// Starts the device by hand and pulls it after so many bytes; `false`: it had ended before.
fn pulled(machine: &mut Machine, stick: &Stick, bytes: u64, damage: &str) -> bool {
    plug(machine, stick, &Cable { writes_per_second: Some(WRITES_PER_SECOND), ..Cable::default() });
    machine.sh(&format!("{damage}; sync"));
    let before = machine.written_bytes();
    machine.begin(DOUBLE_CLICK);
    let deadline = Instant::now() + LONG;
    let in_time = loop {
        if machine.written_bytes() >= before + bytes {
            break true;
        }
        if machine.has_finished() {
            break false;
        }
        assert!(Instant::now() < deadline, "nothing is written");
        std::thread::sleep(Duration::from_millis(2));
    };
    machine.pull();
    machine.finish();
    unplugged(machine);
    in_time
}

#[test]
fn what_a_pull_leaves_does_not_turn_a_desktops_own_mount_read_only() {
    for profile in Profile::ALL {
        let Some(mut machine) = Machine::start() else { return };
        let stick = Stick::new(profile);
        let base = stick.dir().join("base.img");
        copy_with_holes(&stick.disk, &base);
        let restores = RESTORES.map(|bytes| (bytes, "rm -f /media/free/updater-linux-x86_64", OLD));
        let mut hits = 0;
        for (bytes, damage, version) in restores.into_iter().chain(UPDATES.map(|bytes| (bytes, "true", NEW))) {
            if version == NEW {
                stick.publish(NEW);
            }
            copy_with_holes(&base, &stick.disk);
            hits += usize::from(pulled(&mut machine, &stick, bytes, damage));

            plug(&mut machine, &stick, &Cable::default());
            let said = machine.long(DOUBLE_CLICK);
            let mounts = machine.sh("grep ' /media/free ' /proc/mounts; dmesg | grep -i 'fat-fs' | tail -n 5; true");
            assert!(mounts.contains(" vfat rw,"), "{profile:?}, {bytes} bytes: {mounts}\n{said}");
            assert!(said.contains(" says hello"), "{profile:?}, {bytes} bytes: {said}");
            machine.long(&format!("umount {MOUNTS}"));
            machine.pull();
            unplugged(&mut machine);
        }
        assert!(hits >= RESTORES.len() + UPDATES.len() - 1, "only {hits} pulls came in time");
        stick.tool(&["verify"], &[]);
    }
}
