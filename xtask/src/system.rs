//! What the tests want from the system: found, installed where that is allowed, or named as missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{run, windows};

/// A program from the system's packages, and what goes untested without it.
struct Tool {
    program: &'static str,
    package: &'static str,
    shows: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { program: "cc", package: "gcc", shows: "nothing builds without a C compiler (ring, zstd)" },
    Tool { program: "c++", package: "g++", shows: "fuzzing: libFuzzer is built with it" },
    Tool { program: "fsck.vfat", package: "dosfstools", shows: "that our FAT is sound" },
    Tool { program: "mcopy", package: "mtools", shows: "that others read and write our FAT" },
    Tool { program: "xorriso", package: "xorriso", shows: "that others read our ISO 9660" },
    Tool { program: "bsdtar", package: "libarchive-tools", shows: "that others read our Joliet and Rock Ridge" },
    Tool { program: "sfdisk", package: "fdisk", shows: "that others read our partition table" },
    Tool { program: "nginx", package: "nginx-light", shows: "downloads from nginx, with ranges" },
    Tool { program: "strip", package: "binutils", shows: "programs as small as they ship" },
    Tool {
        program: QEMU,
        package: "qemu-system-x86",
        shows: "anything on a real kernel: plug, pull, heal (qemu-tests)",
    },
    Tool { program: "qemu-system-arm", package: "qemu-system-arm", shows: "restoring on a microcontroller" },
    Tool { program: windows::WINE, package: "wine64", shows: "launcher and updater for Windows" },
    Tool { program: "/boot/vmlinuz", package: "linux-image-amd64", shows: "likewise: there is no kernel to boot" },
    Tool { program: "/lib/systemd/systemd", package: "systemd", shows: "likewise: the guest's first process" },
    Tool { program: "udevadm", package: "udev", shows: "likewise: the guest's udev" },
    Tool { program: "modprobe", package: "kmod", shows: "likewise: the guest's drivers" },
    Tool { program: "/bin/busybox", package: "busybox-static", shows: "likewise: the guest's small tools" },
    Tool { program: "python3", package: "python3", shows: "the independent reader; a server without ranges" },
];

/// How the lines on a machine's other parts begin.
const LIKEWISE: &str = "likewise";
const QEMU: &str = "qemu-system-x86_64";

/// Where a program is, on the path or where Debian puts what only root runs. A name with a directory is looked for there; a
/// kernel by the beginning of its name.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        let path = Path::new(program);
        let entries = std::fs::read_dir(path.parent()?).ok()?;
        let name = path.file_name()?.to_string_lossy().into_owned();
        let is_it = |file: &str| file == name || file.strip_prefix(&*name).is_some_and(|rest| rest.starts_with('-'));
        return entries.flatten().find(|entry| is_it(&entry.file_name().to_string_lossy())).map(|entry| entry.path());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Installs what is missing, where this is Debian and root; names what stays missing. Says nothing when all is there.
pub fn prepare() {
    let missing = || TOOLS.iter().filter(|tool| find(tool.program).is_none());
    if missing().next().is_none() {
        return;
    }
    if may_install() {
        install(&missing().map(|tool| tool.package).collect::<Vec<_>>());
        if find(QEMU).is_none()
            && let Some(version) = candidate("qemu-system-x86")
        {
            // A newer qemu-utils from elsewhere stands in its way: the one of the same version takes its place.
            let utils = format!("qemu-utils={version}");
            apt(&["install", "-qy", "--no-install-recommends", "--allow-downgrades", "qemu-system-x86", &utils]);
        }
    }
    for tool in missing() {
        eprintln!("missing: {} (Debian package {}); not shown here: {}", tool.program, tool.package, tool.shows);
    }
}

/// Has apt install packages; what could not be installed is still not there.
pub fn install(packages: &[&str]) {
    eprintln!("installing {} with apt", packages.join(", "));
    apt(&["update", "-q"]);
    let mut install = vec!["install", "-qy", "--no-install-recommends"];
    install.extend(packages);
    if !apt(&install) {
        // One package that fails must not take the others with it.
        for package in packages {
            apt(&["install", "-qy", "--no-install-recommends", package]);
        }
    }
}

fn apt(args: &[&str]) -> bool {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(args);
    run::capture(&mut apt).is_ok_and(|output| output.status.success())
}

/// Whether everything that a machine in QEMU is made of is here.
pub fn can_run_machines() -> bool {
    TOOLS
        .iter()
        .filter(|tool| tool.program == QEMU || tool.shows.starts_with(LIKEWISE))
        .all(|tool| find(tool.program).is_some())
}

/// The version of a package that apt would install.
fn candidate(package: &str) -> Option<String> {
    let policy = run::text(Command::new("apt-cache").args(["policy", package])).ok()?;
    policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")).map(str::to_owned)
}

/// Whether this is Debian, and root.
pub fn may_install() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/etc/debian_version").exists() && find("apt-get").is_some()
}
