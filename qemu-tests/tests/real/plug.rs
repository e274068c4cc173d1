//! Plugging in, on both profiles: what happens by itself, and what an ordinary user brings about by hand.

use std::time::Duration;

use qemu_tests::machine::Machine;
use qemu_tests::stick::{Cable, Profile, Stick};
use qemu_tests::world::{NEW, OLD};

use crate::desktop;

#[test]
fn an_ordinary_user_without_any_rule_heals_from_the_mirror_updates_and_is_told_what_is_out_of_reach() {
    for profile in Profile::ALL {
        let Some(mut machine) = Machine::start() else { return };
        let stick = Stick::new(profile);
        desktop::plug(&mut machine, &stick, &Cable::default());

        let said = machine.long(desktop::DOUBLE_CLICK);
        assert!(said.contains(&format!("CLIENT {OLD} says hello")), "{said}");
        assert!(said.contains("Updater 0.1.0 runs, from free zone."), "{said}");
        let hidden = profile.hidden_node();
        assert!(said.contains(&format!("The hidden zone {hidden} is out of this user's reach")), "{said}");
        assert!(said.contains("partition-tools host"), "{said}");

        let before = machine.sh("sha256sum < /media/free/updater-linux-x86_64");
        machine.sh("rm /media/free/updater-linux-x86_64");
        let said = machine.long(desktop::DOUBLE_CLICK);
        assert!(said.contains("restored version 0.1.0 from the backup mirror"), "{said}");
        assert!(said.contains(&format!("CLIENT {OLD} says hello")), "{said}");
        assert_eq!(machine.sh("sha256sum < /media/free/updater-linux-x86_64"), before);

        // The mirror is in the free zone and goes with it: what is left is the plain copy in the virtual zone.
        machine.sh("rm -r /media/free/updater-linux-x86_64 /media/free/.holdfast");
        let said = machine.long(desktop::DOUBLE_CLICK);
        assert!(said.contains("in the virtual zone"), "{said}");
        assert!(said.contains(&format!("CLIENT {OLD} says hello")), "{said}");
        assert_eq!(machine.sh("sha256sum < /media/free/updater-linux-x86_64"), before);

        stick.publish(NEW);
        let said = machine.long(desktop::DOUBLE_CLICK);
        assert!(said.contains(&format!("Release {NEW} is installed; before, it was {OLD}.")), "{said}");
        let said = machine.long(desktop::DOUBLE_CLICK);
        assert!(said.contains(&format!("CLIENT {NEW} says hello")), "{said}");
        assert!(said.contains("Updater 0.2.0 runs, from free zone."), "{said}");
    }
}

#[test]
fn a_free_zone_that_is_not_mounted_is_named_to_the_user_with_what_to_do() {
    for profile in Profile::ALL {
        let Some(mut machine) = Machine::start() else { return };
        let stick = Stick::new(profile);
        desktop::plug(&mut machine, &stick, &Cable::default());
        machine.sh("umount /media/free");
        let before = stick.bytes();
        let output = machine.run_for(desktop::DOUBLE_CLICK, Duration::from_secs(120));
        assert_ne!(output.status, 0, "{}", output.text);
        assert!(output.text.contains("/dev/sda1"), "{}", output.text);
        assert!(output.text.to_lowercase().contains("mount"), "{}", output.text);
        assert!(stick.bytes() == before, "something was written");
    }
}

#[test]
fn a_plugged_stick_starts_by_itself_updates_and_starts_again_where_the_host_was_prepared() {
    for profile in Profile::ALL {
        let Some(mut machine) = Machine::start() else { return };
        let stick = Stick::new(profile);
        machine.install_host(&stick);

        // The first start after an install notes that the release has proven itself; from then on nothing is written.
        machine.plug_session(&stick).expect(&format!("CLIENT {OLD} says hello"));
        machine.pull_and_settle(&stick);
        let before = stick.bytes();
        let session = machine.plug_session(&stick);
        session.expect("2 requests").expect(&format!("CLIENT {OLD} says hello"));
        assert_eq!(session.status, 0, "{}", session.said);
        machine.pull_and_settle(&stick);
        assert!(stick.bytes() == before, "a sound device was written to:\n{}", session.said);

        stick.publish(NEW);
        let session = machine.plug_session(&stick);
        session.expect(&format!("Release {NEW} is installed; before, it was {OLD}."));
        machine.pull_and_settle(&stick);
        machine.plug_session(&stick).expect(&format!("CLIENT {NEW} says hello"));
        machine.pull_and_settle(&stick);

        // The client's line reached the screen, and nothing of the device is left in the guest.
        assert!(machine.console().contains(&format!("CLIENT {NEW} says hello")), "{}", machine.console());
        assert_eq!(
            machine
                .sh("grep -E 'holdfast|/dev/s[dr]' /proc/mounts; ls /run | grep holdfast; ps | grep '[b]ootstrap --plugged'; true"),
            ""
        );
        stick.tool(&["verify"], &[]);
    }
}

#[test]
fn where_the_time_from_plug_to_client_goes() {
    for profile in Profile::ALL {
        let Some(mut machine) = Machine::start() else { return };
        let stick = Stick::new(profile);
        machine.install_host(&stick);
        let unit = qemu_tests::host::UNIT;
        machine.sh(&format!(
            "d=/etc/systemd/system/{unit}@.service.d; mkdir -p $d; program=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/{unit}@.service); \
             printf '[Service]\nExecStart=\nExecStart=%s --verbose\n' \"$program\" > $d/verbose.conf; systemctl daemon-reload"
        ));
        machine.plug_session(&stick);
        machine.pull_and_settle(&stick);
        machine.mark();
        let plugged: f64 = machine.sh("cut -d ' ' -f 1 /proc/uptime").trim().parse().unwrap();
        machine.plug(&stick);
        machine.session().expect("says hello");
        let kernel = machine.sh("dmesg");
        let unit = qemu_tests::host::unit_of(&stick);
        let said = machine.sh(&format!("journalctl -u {unit} -o short-monotonic --no-hostname --no-pager"));
        let at = |text: &str, wanted: &str| -> f64 {
            let line = text.lines().rev().find(|line| line.contains(wanted));
            let line = line.unwrap_or_else(|| panic!("nobody said {wanted:?}:\n{text}"));
            let stamp = line.split(']').next().unwrap().trim_start_matches('[');
            stamp.trim().parse().unwrap()
        };
        let steps = [
            ("enumeration: the kernel has the disk", at(&kernel, "Attached SCSI removable disk")),
            ("udev, systemd: the launcher starts", at(&said, "Started ")),
            ("mount, check: the updater starts", at(&said, " runs, from free zone")),
            (
                "load state, check every file, start the client: its line",
                at(&said, &format!("CLIENT {OLD} says hello")),
            ),
        ];
        println!("plug to client line, {profile:?}, sound device, nothing new (emulated processor):");
        let mut before = plugged;
        for (step, at) in steps {
            println!("{:8.2} s  {step}", at - before);
            assert!(at >= before, "{step}: out of order\n{said}");
            before = at;
        }
        println!(
            "{:8.2} s  in all; the answer of the server {:.2} s after that",
            before - plugged,
            at(&said, "is installed and whole") - before
        );
    }
}
