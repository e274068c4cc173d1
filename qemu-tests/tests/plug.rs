//! Plugging in, on both profiles.

use std::time::Duration;

use qemu_tests::machine::Machine;
use qemu_tests::stick::{Profile, Stick};

#[test]
fn a_plugged_stick_shows_its_zones_to_the_kernel() {
    for profile in Profile::ALL {
        let Some(mut machine) = Machine::start() else { return };
        let stick = Stick::new(profile);
        machine.plug(&stick);
        machine.wait_until(
            &format!("[ -b {} ] && [ -b {} ]", profile.virtual_node(), profile.hidden_node()),
            Duration::from_secs(60),
        );
        println!("{}", machine.sh("udevadm settle; ls -l /dev/sd* /dev/sr* /dev/sg*; udevadm info -q property /dev/sda1; udevadm info -q property /dev/sda2; udevadm info -q property /dev/sr0; true"));
        println!(
            "{}",
            machine.sh(&format!(
                "mkdir -p /mnt/v /mnt/f; mount -o ro {} /mnt/v; mount /dev/sda1 /mnt/f; ls -lR /mnt/v /mnt/f",
                profile.virtual_node()
            ))
        );
        machine.pull();
        machine.wait_until("[ ! -e /sys/block/sda ]", Duration::from_secs(60));
        println!("{}", machine.sh("umount -l /mnt/v /mnt/f"));
        machine.plug(&stick);
        machine.wait_until(
            &format!("[ -b {} ] && [ -b {} ]", profile.virtual_node(), profile.hidden_node()),
            Duration::from_secs(60),
        );
    }
}
