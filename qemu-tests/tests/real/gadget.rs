//! The device's other side: a Linux board that shows the *dual* profile, here with the kernel's own loop-back controller
//! (`dummy_hcd`), so that one guest is both the board and the computer it is plugged into.

use std::fs;
use std::path::PathBuf;

use qemu_tests::host::Session;
use qemu_tests::machine::Machine;
use qemu_tests::stick::{Profile, Stick};
use qemu_tests::world::{OLD, World};

const GADGET: &str = "/usr/local/lib/holdfast/field-handbook/gadget";
const UPDATER: &str = "updater-linux-x86_64";

/// Plugs the board into itself and waits for the end of what that started.
fn plugged_in(machine: &mut Machine) -> Session {
    machine.mark();
    machine.long(&format!("{GADGET} start"));
    machine.session()
}

fn pulled_out(machine: &mut Machine) {
    machine.long(&format!("{GADGET} stop"));
    machine.wait_until("[ ! -e /sys/block/sda ] && [ ! -e /sys/block/sr0 ]", qemu_tests::machine::SHORT);
}

#[test]
fn a_board_shows_a_dual_device_that_starts_by_itself_and_heals() {
    let Some(mut machine) = Machine::start() else { return };
    let mut stick = Stick::new(Profile::Dual);
    machine.install_host(&stick);
    // The board keeps the device's two halves as files.
    let share: PathBuf = machine.share();
    let cd = stick.cd.clone().unwrap();
    fs::copy(&cd, share.join("cd.iso")).unwrap();
    fs::copy(&stick.disk, share.join("disk.img")).unwrap();
    stick.disk = share.join("disk.img");
    let install = "modprobe dummy_hcd && /host/partition-tools gadget /host/disk.img --virtual /host/cd.iso --udc dummy_udc.0 --install";
    machine.long(install);
    assert_eq!(
        machine.run_for(&format!("{GADGET} status"), qemu_tests::machine::SHORT).status,
        3,
        "nothing is shown yet"
    );

    let session = plugged_in(&mut machine);
    session.expect(&format!("CLIENT {OLD} says hello"));
    let units = machine.sh("cat /sys/block/sr0/device/type /sys/block/sda/device/type /sys/block/sr0/ro /sys/block/sda/removable; udevadm info -q property /dev/sr0");
    assert!(units.starts_with("5\n0\n"), "a CD-ROM and a disk: {units}");
    assert!(units.contains("ID_FS_LABEL=FIELD_HANDBOOK"), "{units}");
    // Twice is once.
    machine.long(&format!("{GADGET} start && {GADGET} status"));
    pulled_out(&mut machine);
    machine.long(&format!("{GADGET} stop"));

    // Broken, plugged in again, healed: by the hidden zone, then by the factory's backup behind the CD's file system.
    let disk = stick.disk.to_string_lossy().into_owned();
    World::get().partition_tools(&["free", "rm", &disk, UPDATER]);
    plugged_in(&mut machine).expect("restored version 0.1.0 from hidden backup").expect("says hello");
    pulled_out(&mut machine);

    World::get().partition_tools(&["free", "rm", &disk, UPDATER]);
    World::get().partition_tools(&["free", "rm", &disk, ".holdfast/mirror/backup"]);
    let told = stick.inspect();
    let zones = told["zones"].as_array().unwrap();
    let hidden = zones.iter().find(|zone| zone["zone"] == "hidden").unwrap();
    let (start, bytes) = (hidden["start"].as_u64().unwrap() >> 20, hidden["bytes"].as_u64().unwrap() >> 20);
    machine.long(&format!("dd if=/dev/zero of=/host/disk.img bs=1M seek={start} count={bytes} conv=notrunc"));
    plugged_in(&mut machine).expect("restored version 0.1.0 from the factory backup on the CD").expect("says hello");
    pulled_out(&mut machine);
    stick.tool(&["verify"], &[]);

    machine.long("/host/partition-tools gadget --uninstall --product 'Field Handbook'");
    assert_eq!(machine.sh(&format!("ls {GADGET} 2>/dev/null; true")), "");
}
