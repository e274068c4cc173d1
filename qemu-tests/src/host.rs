//! A guest whose administrator has run `partition-tools host`: devices start when they are plugged in.

use std::fs;

use crate::guest::USER;
use crate::machine::{LONG, Machine};
use crate::stick::{Cable, Stick};
use crate::world::World;

/// The unit that the rule starts, without its instance: from the product's name.
pub const UNIT: &str = "holdfast-field-handbook";

/// What happened from plug to the end of the unit.
#[derive(Debug, Clone)]
pub struct Session {
    /// What launcher, updater and client said, in order, with seconds since boot in front.
    pub said: String,
    /// The unit's exit status.
    pub status: i32,
}

impl Session {
    /// Whether some line contains this.
    pub fn says(&self, text: &str) -> bool {
        self.said.contains(text)
    }

    /// # Panics
    /// No line contains this.
    pub fn expect(&self, text: &str) -> &Self {
        assert!(self.says(text), "nobody said {text:?}:\n{}", self.said);
        self
    }
}

impl Machine {
    /// Installs rule, unit and launcher in the guest with the real program, as an administrator would; what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn install_host(&mut self, stick: &Stick) -> String {
        let share = self.share();
        fs::copy(&World::get().programs.partition_tools, share.join("partition-tools"))
            .unwrap_or_else(|e| panic!("{e}"));
        // The CD of a dual device carries all that is needed; of a stick the disk does.
        let image = stick.cd.as_ref().unwrap_or(&stick.disk);
        fs::copy(image, share.join("device")).unwrap_or_else(|e| panic!("{e}"));
        let said = self.long(&format!("/host/partition-tools host /host/device --autorun-as {USER} --install"));
        fs::remove_file(share.join("device")).unwrap_or_else(|e| panic!("{e}"));
        said
    }

    /// Forgets what units said before.
    ///
    /// # Panics
    /// The guest does not answer.
    pub fn mark(&mut self) {
        self.sh("journalctl --show-cursor -n 0 | sed -n 's/^-- cursor: //p' > /run/mark");
    }

    /// Plugs the stick in and waits until what the rule started has ended.
    ///
    /// # Panics
    /// Nothing starts, or it does not end.
    pub fn plug_session(&mut self, stick: &Stick) -> Session {
        self.plug_session_with(stick, &Cable::default())
    }

    /// The same through what the cable does to it.
    ///
    /// # Panics
    /// As [`Self::plug_session`].
    pub fn plug_session_with(&mut self, stick: &Stick, cable: &Cable) -> Session {
        self.mark();
        self.plug_with(stick, cable);
        self.session(stick)
    }

    /// Waits until what the rule started since [`Self::mark`] has ended.
    ///
    /// # Panics
    /// Nothing started, or it does not end.
    pub fn session(&mut self, stick: &Stick) -> Session {
        let unit = unit_of(stick);
        let ended = format!(
            "journalctl --after-cursor \"$(cat /run/mark)\" -u {unit} -o cat --no-pager | \
             grep -qE 'Deactivated successfully|Failed with result' && ! systemctl is-active -q {unit}"
        );
        self.wait_until(&ended, LONG);
        self.said_since_mark(stick)
    }

    /// What the unit said since [`Self::mark`].
    ///
    /// # Panics
    /// The guest does not answer.
    pub fn said_since_mark(&mut self, stick: &Stick) -> Session {
        let unit = unit_of(stick);
        let said = self.sh(&format!(
            "journalctl --after-cursor \"$(cat /run/mark)\" -u {unit} -o short-monotonic --no-hostname --no-pager"
        ));
        let status = self.sh(&format!("systemctl show -P ExecMainStatus {unit}"));
        Session { said, status: status.trim().parse().unwrap_or(-1) }
    }

    /// Pulls the stick out and waits until the guest has noticed and nothing of it runs.
    ///
    /// # Panics
    /// Something of it goes on.
    pub fn pull_and_settle(&mut self, stick: &Stick) {
        self.pull();
        let unit = unit_of(stick);
        self.wait_until(
            &format!("[ ! -e /sys/block/sda ] && [ ! -e /sys/block/sr0 ] && ! systemctl is-active -q {unit}"),
            LONG,
        );
        self.sh("udevadm settle");
    }
}

/// The unit of the device in a guest with one device.
pub fn unit_of(stick: &Stick) -> String {
    let node = stick.profile.virtual_node().trim_start_matches("/dev/");
    format!("{UNIT}@{node}.service")
}
