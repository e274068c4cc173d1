//! A board's own storage: a card or eMMC that carries the zones and never goes, started at boot.
//!
//! The integrator names the partition; it is never looked for by a label, which any stick could bear. What starts is a unit
//! without a template, and where the application has a unit of its own, the mount that it needs.

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
            return refuse(format!(
                "'{node}' is no fixed name of a partition: give the kernel's, such as /dev/mmcblk0p{0} or /dev/sda{0}, or one \
                 below /dev/disk/by-path/ or /dev/disk/by-id/ that ends in -part{0}; labels and UUIDs are what any stick could bear",
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
    // A disk whose name ends in a digit has a p before the number (Linux, block/genhd.c); of the others, these have partitions.
    let numbered = below.strip_suffix('p').is_some_and(|disk| disk.ends_with(|c: char| c.is_ascii_digit()));
    let lettered = ["sd", "hd", "vd", "xvd"].iter().any(|kind| {
        let letters = below.strip_prefix(kind).unwrap_or_default();
        !letters.is_empty() && letters.chars().all(|c| c.is_ascii_lowercase())
    });
    let word = below.starts_with(|c: char| c.is_ascii_lowercase()) && below.chars().all(|c| c.is_ascii_alphanumeric());
    word && (numbered || lettered)
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
            ("/dev/sda2", "/dev/sda1", "/dev/sda3"),
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
            "/dev/nvme0n1p2",
            "/dev/loop7p2",
            "/dev/nbd0p2",
            "/dev/sda2",
            "/dev/sdab2",
            "/dev/hdc2",
            "/dev/vda2",
            "/dev/xvda2",
            "/dev/disk/by-path/pci-0000:00:14.0-usb-0:1:1.0-scsi-0:0:0:0-part2",
            "/dev/disk/by-id/mmc-SD16G_0x1a2b3c4d-part2",
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
        for other in ["/dev/mmcblk0p1", "/dev/mmcblk0p12", "/dev/sda02"] {
            let said = Board::new(other, NUMBERS, false).unwrap_err().to_string();
            assert!(said.contains("is partition 2"), "{other}: {said}");
        }
    }

    #[test]
    fn a_mount_is_called_after_its_place() {
        assert_eq!(mount_unit("acme-notes"), "run-holdfast-acme\\x2dnotes.mount");
    }
}
