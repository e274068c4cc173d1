//! `cargo xtask bench sizes`: how large the programs of a device are, beside what else starts things, from Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::page;
use crate::{cross, run};

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    /// Where `cargo xtask cross` has put the programs
    #[arg(long, value_name = "DIR", default_value = "dist")]
    dist: PathBuf,
    /// Write the table to this page too, as its section on sizes; its other sections stay.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A program of others: Debian's package, the file in it, and what it does.
struct Peer {
    package: &'static str,
    file: &'static str,
    does: &'static str,
}

const PEERS: &[Peer] = &[
    Peer {
        package: "grub-pc-bin",
        file: "usr/lib/grub/i386-pc/kernel.img",
        does: "GRUB's kernel without any module: no file system, no check of signatures",
    },
    Peer {
        package: "isolinux",
        file: "usr/lib/ISOLINUX/isolinux.bin",
        does: "ISOLINUX' core: loads a file from a CD, checks nothing",
    },
    Peer {
        package: "systemd-boot-efi",
        file: "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
        does: "systemd-boot: a menu; the firmware brings file systems and checks",
    },
    Peer {
        package: "u-boot-qemu",
        file: "usr/lib/u-boot/qemu_arm64/u-boot.bin",
        does: "U-Boot for a virtual ARM64 board: drivers, file systems, scripts",
    },
    Peer {
        package: "busybox-static",
        file: "bin/busybox",
        does: "BusyBox, static: what a launcher made of shell scripts would need",
    },
    Peer {
        package: "grub-efi-amd64-bin",
        file: "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi",
        does: "GRUB as Debian signs it: with file systems, and checks by a shim",
    },
];

const HEADING: &str = "## Sizes";

/// Prints the table.
pub fn run(args: &Args) -> Result<()> {
    let dist = run::root().join(&args.dist);
    let mut ours: Vec<(u64, String)> = Vec::new();
    for entry in fs::read_dir(&dist).with_context(|| format!("{}: run cargo xtask cross", dist.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("bootstrap-") || name.starts_with("updater-") {
            ours.push((entry.metadata()?.len(), format!("`{name}`")));
        }
    }
    ensure!(!ours.is_empty(), "{} holds no programs: run cargo xtask cross", dist.display());
    ours.sort_by(|a, b| a.1.cmp(&b.1));
    let dir = tempfile::tempdir()?;
    let mut peers = Vec::new();
    for peer in PEERS {
        match measure(peer, dir.path()) {
            Ok(bytes) => peers.push((bytes, format!("{} ({})", peer.does, peer.package))),
            Err(error) => eprintln!("{}: left out: {error:#}", peer.package),
        }
    }
    let mut table = String::from("| bytes | what |\n|---:|---|\n");
    for (bytes, what) in ours.iter().chain(&peers) {
        table += &format!("| {} | {what} |\n", grouped(*bytes));
    }
    print!("{table}");
    if let Some(path) = &args.out {
        let said = format!(
            "As `cargo xtask cross` and `cargo xtask bench sizes --out docs/platforms.md` measured them last; a launcher for \
             Linux may have {} bytes, one for Windows {}, else the build fails. None of the others does what the launcher does: they are here for \
             scale.\n\n{table}",
            grouped(cross::MAX_LAUNCHER_BYTES),
            grouped(cross::MAX_WINDOWS_LAUNCHER_BYTES)
        );
        page::write_section(path, HEADING, &said)?;
    }
    Ok(())
}

/// Fetches a package and measures its file.
fn measure(peer: &Peer, dir: &Path) -> Result<u64> {
    let place = dir.join(peer.package);
    fs::create_dir_all(&place)?;
    run::text(Command::new("apt-get").current_dir(&place).args(["-q", "download", peer.package]))?;
    let package = fs::read_dir(&place)?.flatten().next().context("apt-get fetched nothing")?.path();
    run::text(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&place))?;
    Ok(fs::metadata(place.join(peer.file)).with_context(|| format!("no {} in it", peer.file))?.len())
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_stand_apart() {
        assert_eq!([7, 1000, 260_696, 1_000_000].map(super::grouped), ["7", "1,000", "260,696", "1,000,000"]);
    }
}
