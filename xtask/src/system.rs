//! What the tests want from the system: found, installed where that is allowed, or named as missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run;

/// A program from the system's packages, and what goes untested without it.
struct Tool {
    program: &'static str,
    package: &'static str,
    shows: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool { program: "cc", package: "gcc", shows: "nothing builds without a C compiler (ring, zstd)" },
    Tool { program: "fsck.vfat", package: "dosfstools", shows: "that our FAT is sound" },
    Tool { program: "mcopy", package: "mtools", shows: "that others read and write our FAT" },
    Tool { program: "xorriso", package: "xorriso", shows: "that others read our ISO 9660" },
    Tool { program: "bsdtar", package: "libarchive-tools", shows: "that others read our Joliet and Rock Ridge" },
    Tool { program: "sfdisk", package: "fdisk", shows: "that others read our partition table" },
    Tool { program: "nginx", package: "nginx-light", shows: "downloads from nginx, with ranges" },
    Tool { program: "python3", package: "python3", shows: "the independent reader; a server without ranges" },
];

/// Where a program is, on the path or where Debian puts what only root runs.
pub fn find(program: &str) -> Option<PathBuf> {
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
    let packages: Vec<_> = missing().map(|tool| tool.package).collect();
    if may_install() {
        eprintln!("installing {} with apt", packages.join(", "));
        let quiet = |args: &[&str]| {
            let mut apt = Command::new("apt-get");
            apt.env("DEBIAN_FRONTEND", "noninteractive").args(args);
            run::capture(&mut apt).is_ok_and(|output| output.status.success())
        };
        // What could not be installed is named below; one package that fails must not take the others with it.
        quiet(&["update", "-q"]);
        let mut install = vec!["install", "-qy", "--no-install-recommends"];
        install.extend(&packages);
        if !quiet(&install) {
            for package in &packages {
                quiet(&["install", "-qy", "--no-install-recommends", package]);
            }
        }
    }
    for tool in missing() {
        eprintln!("missing: {} (Debian package {}); not shown here: {}", tool.program, tool.package, tool.shows);
    }
}

fn may_install() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/etc/debian_version").exists() && find("apt-get").is_some()
}
