//! A board's own storage: a card or eMMC that carries the zones and never goes, started at boot.
//!
//! The integrator names the partition; it is never looked for by a label, which any stick could bear, nor by a name of the
//! kernel's that goes by the order in which disks were found. What starts is a unit without a template, and where the
//! application has a unit of its own, the mount that it needs.

use std::path::PathBuf;

use super::subject::ZoneNumbers;
use super::unit::escaped;
use crate::error::ToolError;
use crate::system_files::unit_text;

/// What starts at boot, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// The virtual zone's node.
    pub virtual_zone: String,
    /// The free zone's.
    pub free: String,
    /// The hidden zone's.
    pub hidden: String,
    /// Whether the launcher starts no client: the application's own unit does, behind it.
    pub no_client: bool,
}

impl Board {
    /// A board whose virtual zone is the partition `node`, numbered as on the card that was looked at.
    ///
    /// # Errors
    /// `Refused` for what is no fixed name of a partition, or of another one.
    pub fn new(node: &str, numbers: ZoneNumbers, no_client: bool) -> Result<Self, ToolError> {
        let refuse = |text: String| Err(ToolError::Refused(text));
        let stem = node.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = &node[stem.len()..];
        if number.is_empty() || !is_fixed(stem) {
            let why = match moves(stem) {
                true => "goes by the order in which disks are found, and may be another disk's at the next boot",
                false => "is no fixed name of a partition",
            };
            return refuse(format!(
                "'{node}' {why}: give one below /dev/disk/by-path/ or /dev/disk/by-id/ that ends in -part{0}, or of a card or \
                 eMMC the kernel's, such as /dev/mmcblk0p{0}; labels and UUIDs are what any stick could bear",
                numbers.virtual_zone
            ));
        }
        if number != numbers.virtual_zone.to_string() {
            return refuse(format!(
                "the virtual zone is partition {} of the device that was named, and '{node}' does not end with that number",
                numbers.virtual_zone
            ));
        }
        Ok(Self {
            virtual_zone: node.to_owned(),
            free: format!("{stem}{}", numbers.free),
            hidden: format!("{stem}{}", numbers.hidden),
            no_client,
        })
    }
}

/// Whether a number behind `stem` names a partition by where it is, and no whole disk. Nothing in it means anything to a unit or
/// a rule.
fn is_fixed(stem: &str) -> bool {
    let Some(below) = stem.strip_prefix("/dev/") else { return false };
    if let Some(name) = below.strip_prefix("disk/by-path/").or(below.strip_prefix("disk/by-id/")) {
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '+' | '@');
        return name.strip_suffix("-part").is_some_and(|disk| !disk.is_empty() && disk.chars().all(sound));
    }
    // Only these are numbered by their host controllers, whose numbers a device tree fixes (Linux, drivers/mmc/core/host.c). A
    // disk whose name ends in a digit has a p before the number (block/genhd.c).
    let card = below.strip_prefix("mmcblk").and_then(|rest| rest.strip_suffix('p'));
    card.is_some_and(|disk| {
        let digit = |c: char| c.is_ascii_digit();
        disk.starts_with(digit) && disk.ends_with(digit) && disk.chars().all(|c| c.is_ascii_alphanumeric())
    })
}

/// Whether this is a kernel's name of a disk that stands for whatever was found in that place of the order: a SCSI or USB disk, a
/// virtual one, one on NVMe, whose controllers are numbered as they answer.
fn moves(stem: &str) -> bool {
    let below = stem.strip_prefix("/dev/").unwrap_or_default();
    ["sd", "hd", "vd", "xvd", "nvme", "nbd", "loop", "sr", "md", "dm-"].iter().any(|kind| {
        below.strip_prefix(kind).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))
    })
}

/// Where the application finds the free zone, from `/`.
pub fn mount_point(slug: &str) -> PathBuf {
    format!("/run/holdfast/{slug}").into()
}

/// The unit's text that mounts the free zone, behind the launcher's: whoever needs the mount needs a launcher that ended well.
pub fn mount_text(mark: &str, slug: &str, product: &str, board: &Board, user: Option<&str>) -> String {
    let (at, free, product) = (mount_point(slug), &board.free, unit_text(product));
    let at = at.display();
    let owner = user.map(|user| format!(",uid={user}")).unwrap_or_default();
    format!(
        "{mark}
[Unit]
Description=Free zone of {product}
# Healed first, and not mounted where that failed.
Requires=holdfast-{slug}.service
After=holdfast-{slug}.service

[Mount]
What={free}
Where={at}
Type=vfat
# As the launcher mounts it (docs/launcher.md). nofail: it comes behind the launcher, and so not before local-fs.target.
Options=nosuid,nodev,noatime,utf8=1,shortname=mixed,errors=continue,nofail{owner}
"
    )
}

/// The drop-in's text that has the boot start the launcher's unit.
pub fn boot_text(mark: &str, slug: &str) -> String {
    format!("{mark}\n[Unit]\nWants=holdfast-{slug}.service\n")
}

/// The name of the mount's unit.
pub fn mount_unit(slug: &str) -> String {
    format!("{}.mount", escaped(&mount_point(slug).to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: ZoneNumbers = ZoneNumbers { free: 1, virtual_zone: 2, hidden: 3 };

    #[test]
    fn the_other_zones_are_found_by_their_numbers_beside_the_node() {
        for (node, free, hidden) in [
            ("/dev/mmcblk0p2", "/dev/mmcblk0p1", "/dev/mmcblk0p3"),
            ("/dev/mmcblk0gp1p2", "/dev/mmcblk0gp1p1", "/dev/mmcblk0gp1p3"),
            (
                "/dev/disk/by-path/platform-fe340000.mmc-part2",
                "/dev/disk/by-path/platform-fe340000.mmc-part1",
                "/dev/disk/by-path/platform-fe340000.mmc-part3",
            ),
        ] {
            let board = Board::new(node, NUMBERS, false).unwrap();
            assert_eq!((&*board.free, &*board.hidden), (free, hidden));
        }
    }

    #[test]
    fn only_a_fixed_name_of_a_partition_is_one() {
        for good in [
            "/dev/mmcblk0p2",
            "/dev/mmcblk0gp1p2",
            "/dev/mmcblk11p2",
            "/dev/disk/by-path/pci-0000:00:14.0-usb-0:1:1.0-scsi-0:0:0:0-part2",
            "/dev/disk/by-id/mmc-SD16G_0x1a2b3c4d-part2",
            "/dev/disk/by-id/nvme-eui.0025385b71b0a1c2-part2",
        ] {
            assert!(Board::new(good, NUMBERS, false).is_ok(), "{good}");
        }
        let whole =
            ["/dev/mmcblk2", "/dev/loop2", "/dev/sr2", "/dev/nvme0n2", "/dev/md2", "/dev/dm-2", "/dev/mmcblk0gp2"];
        let links = ["label/NOTES2", "partlabel/HOLDFAST-2", "uuid/1234-2", "partuuid/00-2", "diskseq/1-part2"];
        let links = links.map(|link| format!("/dev/disk/by-{link}"));
        let odd = [
            "",
            "2",
            "/dev/",
            "/dev/2",
            "/dev/sd2",
            "/dev/p2",
            "/dev/mmcblkp2",
            "/dev/mmcblk/0p2",
            "/dev/0p2",
            "mmcblk0p2",
            "/dev/mmcblk0",
            "/dev/mmcblk0p",
            "/dev/root2",
            "/dev/disk/by-path/-part2",
            "/dev/disk/by-path/x2",
            "/dev/disk/by-path/x-part/by-label/y-part2",
            "/dev/disk/by-path/../by-label/y-part2",
            "/dev/disk/by-id/x y-part2",
            "/dev/disk/by-id/%k-part2",
            "/dev/disk/by-id/x\\-part2",
            "/dev/disk/by-id/$x-part2",
            "/dev/disk/by-id/*-part2",
            "/dev/../sda2",
            "/dev//sda2",
            "/dev/sda2\n2",
            "/dev/sd\"2",
        ];
        for bad in whole.into_iter().chain(links.iter().map(String::as_str)).chain(odd) {
            let said = Board::new(bad, NUMBERS, false).unwrap_err().to_string();
            assert!(said.contains("/dev/mmcblk0p2") && said.contains("by-path"), "{bad}: {said}");
        }
        for moving in ["sda2", "sdab2", "hdc2", "vda2", "xvda2", "nvme0n1p2", "nbd0p2", "loop7p2"] {
            let said = Board::new(&format!("/dev/{moving}"), NUMBERS, false).unwrap_err().to_string();
            assert!(said.contains("order in which disks are found") && said.contains("-part2"), "{moving}: {said}");
        }
        for other in ["/dev/mmcblk0p1", "/dev/mmcblk0p12", "/dev/mmcblk0p02"] {
            let said = Board::new(other, NUMBERS, false).unwrap_err().to_string();
            assert!(said.contains("is partition 2"), "{other}: {said}");
        }
    }

    #[test]
    fn a_mount_is_called_after_its_place() {
        assert_eq!(mount_unit("acme-notes"), "run-holdfast-acme\\x2dnotes.mount");
    }
}
