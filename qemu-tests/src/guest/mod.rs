//! The guest: this machine's newest Debian kernel, and an initramfs made of this machine's own files, with systemd as the
//! first process, the real udevd with its rules, and a shell that does what a test asks for. A board ([`crate::board`]) has
//! one of its own, of the same parts.
//!
//! Made from files alone, so that equal files make an equal guest; its key is the digest of all that it is.

mod initramfs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

pub(crate) use initramfs::Root;

/// The user in the guest who is not root.
pub const USER: &str = "anna";
/// That user's number, and the number of the user's group.
pub const USER_ID: u32 = 1000;

/// Modules that udev does not load by itself from a device's description, or that a program asks for by another name.
const MODULES: &[&str] = &[
    "9p",
    "9pnet_virtio",
    "configfs",
    "crc32c_generic",
    "dummy_hcd",
    "fat",
    "isofs",
    "libcomposite",
    "loop",
    "nls_ascii",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_utf8",
    "sd_mod",
    "sg",
    "sr_mod",
    "uas",
    "usb_f_mass_storage",
    "usb_storage",
    "vfat",
    "virtio_net",
    "virtio_pci",
    "xhci_pci",
];

/// Programs beyond those of busybox: what the host's software is made of, and what a person would use.
const PROGRAMS: &[&str] = &[
    "/bin/dash",
    "/lib/systemd/systemd",
    "/lib/systemd/systemd-journald",
    "/bin/systemctl",
    "/bin/journalctl",
    "/bin/udevadm",
    "/usr/bin/systemd-run",
    "/lib/udev/cdrom_id",
    "/lib/udev/scsi_id",
    "/bin/kmod",
    "/bin/mount",
    "/bin/umount",
    "/usr/bin/setpriv",
    "/sbin/blkid",
    "/sbin/mkfs.vfat",
    "/sbin/fsck.vfat",
    "/bin/dd",
    "/bin/cp",
    "/bin/rm",
    "/bin/mv",
    "/bin/sync",
    "/bin/cat",
    "/usr/bin/truncate",
    "/usr/bin/sha256sum",
    "/usr/bin/stat",
    "/usr/bin/timeout",
    "/usr/bin/tail",
    "/usr/bin/base64",
];

/// What busybox stands in for.
const APPLETS: &[&str] = &[
    "ls",
    "mkdir",
    "rmdir",
    "grep",
    "sed",
    "awk",
    "head",
    "sleep",
    "usleep",
    "ps",
    "kill",
    "find",
    "stty",
    "date",
    "id",
    "ip",
    "chmod",
    "chown",
    "ln",
    "printf",
    "env",
    "od",
    "hexdump",
    "cmp",
    "wc",
    "sort",
    "touch",
    "test",
    "tr",
    "cut",
    "seq",
    "true",
    "false",
    "dmesg",
    "uname",
    "dirname",
    "basename",
    "readlink",
    "mountpoint",
    "losetup",
    "tee",
    "xargs",
    "yes",
    "hostname",
    "df",
];

/// The units of a Debian system without its services.
const UNITS: &[&str] = &[
    "basic.target",
    "sysinit.target",
    "sockets.target",
    "timers.target",
    "paths.target",
    "slices.target",
    "shutdown.target",
    "umount.target",
    "final.target",
    "local-fs.target",
    "local-fs-pre.target",
    "swap.target",
    "multi-user.target",
    "network.target",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
];

/// A kernel and an initramfs, ready to boot.
pub struct Guest {
    /// The kernel as Debian packs it.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: Vec<u8>,
    /// The digest of both, in hexadecimal.
    pub key: String,
}

impl Guest {
    /// Makes the guest of this machine.
    ///
    /// # Errors
    /// What is missing, as one line.
    pub fn make() -> Result<Self> {
        let (kernel, release) = newest_kernel()?;
        let mut root = systemd_root(&release).context("the guest's root")?;
        add_agent(&mut root);
        let initramfs = root.archive()?;
        let mut digest = Sha256::new();
        digest.update(fs::read(&kernel).with_context(|| format!("cannot read {}", kernel.display()))?);
        digest.update(&initramfs);
        Ok(Self { kernel, initramfs, key: hex::encode(digest.finalize()) })
    }
}

/// The newest kernel in `/boot` whose modules are installed, and its release.
pub(crate) fn newest_kernel() -> Result<(PathBuf, String)> {
    let mut found: Vec<(Vec<u64>, PathBuf, String)> = Vec::new();
    for entry in fs::read_dir("/boot").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(release) = name.strip_prefix("vmlinuz-") else { continue };
        if Path::new("/lib/modules").join(release).join("modules.dep").is_file() {
            let numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
            found.push((numbers, entry.path(), release.to_owned()));
        }
    }
    let newest = found.into_iter().max();
    let (_, kernel, release) = newest.context("no kernel with its modules (Debian package linux-image-amd64)")?;
    Ok((kernel, release))
}

/// A root with systemd and udevd, and nothing that is started beside them.
pub(crate) fn systemd_root(release: &str) -> Result<Root> {
    let mut root = Root::new();
    root.file("init", 0o755, include_bytes!("files/init.sh"));
    for program in PROGRAMS {
        root.program(Path::new(program)).with_context(|| format!("{program} is needed in the guest"))?;
    }
    root.link("usr/lib/systemd/systemd-udevd", "/usr/bin/udevadm");
    root.link("usr/sbin/modprobe", "/usr/bin/kmod");
    // Not busybox as the shell: it would prefer its own applets to the programs that a person has.
    root.link("usr/bin/sh", "dash");
    root.program(Path::new("/bin/busybox")).context("busybox is needed in the guest")?;
    for applet in APPLETS {
        root.link(&format!("usr/bin/{applet}"), "busybox");
    }
    // C libraries load these by name, not by need: users and host names.
    for library in ["libnss_files.so.2", "libgcc_s.so.1"] {
        let path = Path::new("/lib/x86_64-linux-gnu").join(library);
        if path.exists() {
            root.copy(&path)?;
        }
    }
    for rules in sorted("/lib/udev/rules.d")? {
        root.copy(&rules)?;
    }
    for unit in UNITS {
        root.copy(&Path::new("/lib/systemd/system").join(unit))?;
    }
    modules(&mut root, release, MODULES)?;
    settings(&mut root);
    Ok(root)
}

/// The shell that does what a test asks for.
fn add_agent(root: &mut Root) {
    root.file("usr/lib/holdfast-tests/agent.sh", 0o755, include_bytes!("files/agent.sh"));
    root.file("etc/systemd/system/agent.service", 0o644, include_bytes!("files/agent.service"));
    root.link("etc/systemd/system/multi-user.target.wants/agent.service", "../agent.service");
}

fn sorted(directory: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {directory}"))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    Ok(paths)
}

/// The modules with all that they need, and their index.
pub(crate) fn modules(root: &mut Root, release: &str, names: &[&str]) -> Result<()> {
    let directory = Path::new("/lib/modules").join(release);
    for module in names {
        let mut modprobe =
            Command::new(if Path::new("/sbin/modprobe").exists() { "/sbin/modprobe" } else { "modprobe" });
        let output = modprobe
            .args(["--set-version", release, "--show-depends", module])
            .output()
            .context("modprobe (Debian package kmod)")?;
        if !output.status.success() {
            bail!("the kernel {release} has no module {module}");
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some(path) = line.strip_prefix("insmod ") {
                root.copy(Path::new(path.trim()))?;
            }
        }
    }
    for entry in sorted(&directory.to_string_lossy())? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The whole index: what is named there and is not here is not found, which is what udev expects of rare devices.
        if name.starts_with("modules.")
            && (name.ends_with(".bin") || matches!(&*name, "modules.order" | "modules.builtin"))
        {
            root.copy(&entry)?;
        }
    }
    Ok(())
}

/// The configuration of the guest: users, the units that start, how modules behave.
fn settings(root: &mut Root) {
    const WANTS: &[(&str, &str)] = &[
        ("sysinit.target.wants", "systemd-udevd.service"),
        ("sysinit.target.wants", "systemd-udev-trigger.service"),
        ("sysinit.target.wants", "systemd-journald.service"),
        ("sockets.target.wants", "systemd-udevd-control.socket"),
        ("sockets.target.wants", "systemd-udevd-kernel.socket"),
        ("sockets.target.wants", "systemd-journald.socket"),
        ("sockets.target.wants", "systemd-journald-dev-log.socket"),
    ];
    for (target, unit) in WANTS {
        root.link(&format!("etc/systemd/system/{target}/{unit}"), &format!("/lib/systemd/system/{unit}"));
    }
    root.link("etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target");
    root.file(
        "etc/passwd",
        0o644,
        format!("root:x:0:0:root:/root:/bin/sh\n{USER}:x:{USER_ID}:{USER_ID}:Anna:/home/{USER}:/bin/sh\n"),
    );
    root.file("etc/group", 0o644, format!("root:x:0:\ntty:x:5:\ndisk:x:6:\ncdrom:x:24:\nkmem:x:15:\ndialout:x:20:\naudio:x:29:\nvideo:x:44:\ntape:x:26:\nfloppy:x:25:\ninput:x:104:\nkvm:x:105:\nrender:x:106:\nsgx:x:107:\nlp:x:7:\n{USER}:x:{USER_ID}:\n"));
    root.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files\n");
    root.file("etc/hostname", 0o644, "guest\n");
    root.file("etc/os-release", 0o644, "ID=holdfast-tests\nNAME=\"Holdfast tests\"\n");
    root.file("etc/machine-id", 0o444, "5b1d0f5a3c9e4d2f8a7b6c5d4e3f2a1b\n");
    root.directory("home", 0o755);
    root.directory(&format!("home/{USER}"), 0o777);
    // The wait is for hubs and slow disks; a test does not need it.
    root.file("etc/modprobe.d/usb-storage.conf", 0o644, "options usb_storage delay_use=0\n");
    root.file(
        "etc/systemd/journald.conf.d/tests.conf",
        0o644,
        "[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\nRateLimitBurst=0\n",
    );
}
