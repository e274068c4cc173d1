//! The systemd unit (systemd.service(5), systemd.exec(5)): the installed launcher, as an ordinary user who may mount.

use std::fmt::Write as _;
use std::path::Path;

use super::Autorun;
use super::board::Board;
use crate::system_files::unit_text;

/// Where the launcher's, the updater's and the client's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// The journal, and the console, for whoever looks at the screen.
    #[default]
    JournalAndConsole,
    /// The journal.
    Journal,
}

impl Output {
    fn word(self) -> &'static str {
        match self {
            Self::JournalAndConsole => "journal+console",
            Self::Journal => "journal",
        }
    }
}

/// The text of the unit that starts when a device is plugged in; its instance is the virtual zone's node.
pub fn text(mark: &str, slug: &str, product: &str, launcher: &Path, autorun: &Autorun) -> String {
    let product = unit_text(product);
    let service = service(autorun, &format!("holdfast-{slug}-%i"));
    format!(
        "{mark}
[Unit]
Description={product} on %i
# Ends when the device is pulled.
BindsTo=dev-%i.device
After=dev-%i.device network.target
# A device may be pulled and plugged in as often as somebody likes.
StartLimitIntervalSec=0

[Service]
Type=exec
# Installed here, owned by root: not the one on the device.
ExecStart={} --plugged /dev/%i
{service}Restart=no
# The device was pulled; the client was ended with it.
SuccessExitStatus=74 143
",
        launcher.display()
    )
}

/// The text of the unit that starts at boot, from the node of `board`.
pub fn board_text(mark: &str, slug: &str, product: &str, launcher: &Path, autorun: &Autorun, board: &Board) -> String {
    let product = unit_text(product);
    let service = service(autorun, &format!("holdfast-{slug}"));
    let (node, device) = (&board.virtual_zone, escaped(&board.virtual_zone));
    let root = if autorun.user.is_none() { " --allow-root" } else { "" };
    let (kind, client, end) = match board.no_client {
        true => (
            "# Ends when all is well; who comes behind it starts only then. No time limit: a download takes what it takes.\n\
             Type=oneshot\nRemainAfterExit=yes\n",
            " --no-client",
            "Restart=no\n",
        ),
        false => (
            "Type=exec\n",
            "",
            // No status is left out: it may be the client's own.
            "# The client failed, or could not be healed yet: again.\n\
             Restart=on-failure\nRestartSec=10\nSuccessExitStatus=143\n",
        ),
    };
    format!(
        "{mark}
[Unit]
Description={product} on {node}
Requires={device}.device
After={device}.device network.target
StartLimitIntervalSec=0

[Service]
{kind}# Installed here, owned by root: not the one on the device.
ExecStart={} --plugged {node}{root}{client}
{service}{end}",
        launcher.display()
    )
}

/// What both have: who runs it with which rights, and where its output goes.
fn service(autorun: &Autorun, runtime_directory: &str) -> String {
    let output = autorun.output.word();
    let user = autorun.user.as_ref().map(|user| format!("User={user}\nAmbientCapabilities=CAP_SYS_ADMIN\n"));
    format!(
        "# To mount the device's zones where only the launcher sees them; it gives this up before it reads them.
{}CapabilityBoundingSet=CAP_SYS_ADMIN
NoNewPrivileges=yes
RuntimeDirectory={runtime_directory}
RuntimeDirectoryMode=0700
# The launcher is asked to end, and asks updater and client; what is left after that is killed.
KillMode=mixed
TimeoutStopSec=20
StandardOutput={output}
StandardError={output}
",
        user.unwrap_or_default()
    )
}

/// A path as the name of a unit, without its ending (systemd.unit(5), *String escaping*).
pub(super) fn escaped(path: &str) -> String {
    let mut name = String::new();
    for (at, byte) in path.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(byte.into()),
            other => {
                // Into a string nothing fails.
                let _ = write!(name, "\\x{other:02x}");
            }
        }
    }
    name
}
