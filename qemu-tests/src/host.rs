//! A guest whose administrator has run `partition-tools host`: devices start when they are plugged in.
//!
//! The unit's output goes to the console, and so does its end, so that waiting for it costs the emulated machine nothing.

use std::fs;
use std::time::{Duration, Instant};

use crate::guest::USER;
use crate::machine::{LONG, Machine};
use crate::stick::{Cable, Stick};
use crate::world::World;

/// The unit that the rule starts, without its instance: from the product's name.
pub const UNIT: &str = "holdfast-field-handbook";
/// Devices do not start while this file is in the guest.
pub const HOLD: &str = "/run/hold";
/// What the console shows when what was started has ended; how, and with which status or signal, stands behind it.
pub const ENDED: &str = "@ended ";

/// What happened from plug to the end of the unit.
#[derive(Debug, Clone)]
pub struct Session {
    /// What launcher, updater and client said, in order.
    pub said: String,
    /// How the launcher ended: `exited 0`, `killed TERM`.
    pub ended: String,
    /// The unit's exit status; -1 where a signal ended it.
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
        let drop_in = format!("/etc/systemd/system/{UNIT}@.service.d");
        self.sh(&format!(
            "mkdir -p {drop_in}; cat > {drop_in}/ended.conf <<'END'\n[Unit]\nConditionPathExists=!{HOLD}\n\
             [Service]\nExecStopPost=/bin/sh -c 'echo {ENDED}$EXIT_CODE $EXIT_STATUS@'\nEND"
        ));
        let said = self.long(&format!("/host/partition-tools host /host/device --autorun-as {USER} --install"));
        fs::remove_file(share.join("device")).unwrap_or_else(|e| panic!("{e}"));
        said
    }

    /// Forgets what the console showed before.
    pub fn mark(&mut self) {
        self.marked = self.console().len();
    }

    /// What the console showed since [`Self::mark`].
    pub fn said_since_mark(&self) -> String {
        self.console().get(self.marked..).unwrap_or_default().replace('\r', "")
    }

    /// How what was started since [`Self::mark`] has ended; `None`: it has not.
    pub fn ended_since_mark(&self) -> Option<String> {
        let said = self.said_since_mark();
        let (_, ended) = said.split_once(ENDED)?;
        Some(ended.split_once('@')?.0.to_owned())
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
        self.session()
    }

    /// Waits until what the rule started since [`Self::mark`] has ended.
    ///
    /// # Panics
    /// Nothing started, or it does not end.
    pub fn session(&mut self) -> Session {
        let deadline = Instant::now() + LONG;
        let ended = loop {
            if let Some(ended) = self.ended_since_mark() {
                break ended;
            }
            if Instant::now() > deadline {
                panic!("it does not end: {}\n{}", self.said_since_mark(), self.journal());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = self.said_since_mark().split(ENDED).next().unwrap_or_default().to_owned();
        let status = ended.strip_prefix("exited ").and_then(|status| status.parse().ok()).unwrap_or(-1);
        Session { said, ended, status }
    }

    /// Pulls the stick out and waits until the guest has noticed and nothing of it runs.
    ///
    /// # Panics
    /// Something of it goes on.
    pub fn pull_and_settle(&mut self, stick: &Stick) {
        self.pull();
        self.settle(stick);
    }

    /// Waits until the guest has noticed that the stick is gone and nothing of it runs.
    ///
    /// # Panics
    /// Something of it goes on.
    pub fn settle(&mut self, stick: &Stick) {
        let unit = unit_of(stick);
        self.wait_until(
            &format!(
                "while [ -e /sys/block/sda ] || [ -e /sys/block/sr0 ]; do usleep 20000; done; udevadm settle; ! systemctl is-active -q {unit}"
            ),
            LONG,
        );
    }
}

/// The unit of the device in a guest with one device.
pub fn unit_of(stick: &Stick) -> String {
    let node = stick.profile.virtual_node().trim_start_matches("/dev/");
    format!("{UNIT}@{node}.service")
}
