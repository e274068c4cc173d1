//! What somebody has to decide, in words.

use firmware_image::image::gpt::{Copy, Mbr, Table};

use super::place;
use crate::size;

/// Asks somebody: which of the question's options; `None`: none of them.
pub type Ask<'a> = dyn FnMut(&Question) -> Option<usize> + 'a;

/// A question.
#[derive(Debug)]
pub struct Question {
    /// What was found.
    pub about: String,
    /// What can be done, each a sentence.
    pub options: Vec<String>,
    /// The option that is taken where somebody said yes to everything; `None` where nothing speaks for one of them.
    pub yes: Option<usize>,
    /// How to answer without a terminal.
    hint: &'static str,
}

const YES: &str = "run this in a terminal to be asked, or give --yes";
const FROM: &str = "run this in a terminal to be asked, or name the right copy with --from";

impl Question {
    /// Whether a table may be used that nothing shows to be the device's; `why` not.
    pub(super) fn unproven(table: &Table, copy: Option<Copy>, why: &str) -> Self {
        let option = match copy {
            Some(copy) => format!("Write the copy {} from it.", place(copy)),
            None => "Mend the rest by it.".into(),
        };
        let about = format!(
            "The partition table {} is sound, and nothing shows that it is this device's: {why}. It says: {}.",
            match copy {
                Some(_) => place(table.copy),
                None => "(both copies)",
            },
            said(table)
        );
        Self { about, options: vec![option], yes: Some(0), hint: YES }
    }

    /// Which of the tables is right; `bears` the device's disk GUID.
    pub(super) fn between(tables: &[Table], bears: Option<Copy>) -> Self {
        let shown = |table: &Table| format!("Use the copy {}: {}.", place(table.copy), said(table));
        let yes = tables.iter().position(|table| Some(table.copy) == bears);
        let (about, hint) = match (tables, yes) {
            ([_, _], _) => {
                ("The two copies of the partition table are sound and differ, and nothing shows which is right.", FROM)
            }
            (_, Some(_)) => ("The other copy of the partition table is sound, and somebody else's.", YES),
            (_, None) => (
                "The other copy of the partition table is sound, and somebody else's; nothing shows that this is this device's.",
                FROM,
            ),
        };
        Self { about: about.into(), options: tables.iter().map(shown).collect(), yes, hint }
    }

    /// Whether this may be written over; `None` where it may.
    pub(super) fn mbr(mbr: Mbr) -> Option<Self> {
        let about = match mbr {
            Mbr::Partitions => {
                "The first sector has a partition table of another kind: somebody partitioned the disk anew."
            }
            Mbr::FileSystem => "A file system begins at the start of the disk: somebody formatted it as a whole.",
            Mbr::Sound | Mbr::OtherLength | Mbr::Damaged => return None,
        };
        let option =
            "Write table and protective MBR over it; what was stored that way can then be found by file recovery only.";
        Some(Self { about: about.into(), options: vec![option.into()], yes: Some(0), hint: YES })
    }

    /// Which boot sector is right, of those that are sound, and how much of the volume speaks for each.
    pub(super) fn boot_sector(first: Option<u32>, backup: u32) -> Self {
        let of = |score: u32| format!("{score} of 3 signs on the volume fit it");
        let mut options: Vec<String> =
            first.map(|first| format!("Use the boot sector: {}.", of(first))).into_iter().collect();
        options.push(format!("Use its copy: {}.", of(backup)));
        let (about, yes) = match first {
            None => ("The free zone's boot sector is damaged, and little on the volume fits its copy.", Some(0)),
            Some(first) => (
                "The free zone's boot sector and its copy name different places for its files.",
                (first != backup).then_some(usize::from(backup > first)),
            ),
        };
        let hint = match yes {
            Some(_) => YES,
            None => "run this in a terminal to be asked; `fsck.vfat` shows what either makes of the volume",
        };
        Self { about: about.into(), options, yes, hint }
    }

    /// Why nothing was done, and what to do.
    pub(super) fn refusal(&self) -> String {
        format!("{} {} Nothing was written; {}", self.about, self.options.join(" "), self.hint)
    }
}

/// What a table says: its GUID and its partitions.
fn said(table: &Table) -> String {
    let partitions = table
        .partitions
        .iter()
        .map(|one| format!(", {} of {} at {}", one.name, size::show(one.extent.length), size::show(one.extent.start)));
    format!("disk {}{}", guid(&table.disk_guid), partitions.collect::<String>())
}

/// A GUID as people write it; its first three fields stand on the disk in reverse.
fn guid(bytes: &[u8; 16]) -> String {
    let field = |places: &[usize]| places.iter().map(|at| format!("{:02X}", bytes[*at])).collect::<String>();
    let fields = [field(&[3, 2, 1, 0]), field(&[5, 4]), field(&[7, 6]), field(&[8, 9])];
    format!("{}-{}", fields.join("-"), field(&[10, 11, 12, 13, 14, 15]))
}
