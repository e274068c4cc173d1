//! The systemd unit (systemd.service(5), systemd.exec(5)): the installed launcher, as an ordinary user who may mount.

use std::path::Path;

use super::Autorun;

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

/// The unit's text.
pub fn text(mark: &str, slug: &str, product: &str, launcher: &Path, autorun: &Autorun) -> String {
    // A specifier begins with a percent sign; a value ends with its line.
    let product: String = product.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let product = product.replace('%', "%%");
    let (user, output, launcher) = (&autorun.user, autorun.output.word(), launcher.display());
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
User={user}
# Installed here, owned by root: not the one on the device.
ExecStart={launcher} --plugged /dev/%i
# To mount the device's zones where only the launcher sees them; it gives this up before it reads them.
AmbientCapabilities=CAP_SYS_ADMIN
CapabilityBoundingSet=CAP_SYS_ADMIN
NoNewPrivileges=yes
RuntimeDirectory=holdfast-{slug}-%i
RuntimeDirectoryMode=0700
# The launcher is asked to end, and asks updater and client; what is left after that is killed.
KillMode=mixed
TimeoutStopSec=20
Restart=no
# The device was pulled; the client was ended with it.
SuccessExitStatus=74 143
StandardOutput={output}
StandardError={output}
"
    )
}
