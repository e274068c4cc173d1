//! The udev rule (udev(7)).
//!
//! Partitions are matched by the name that the kernel reports, which needs nothing of their content: a hidden zone that is
//! damaged is the one that must be reached. The virtual zone is matched by its label as well, so that each product's unit
//! starts for its own devices.

use crate::error::ToolError;

/// The hidden zone's partition.
pub const HIDDEN: &str = "HOLDFAST-HIDDEN";
/// The virtual zone's partition.
pub const VIRTUAL: &str = "HOLDFAST-VIRTUAL";

/// The rule's text.
///
/// # Errors
/// `Refused` for a serial pattern that cannot stand in a rule.
pub fn text(
    mark: &str,
    slug: &str,
    label: &str,
    serial: Option<&str>,
    user: Option<&str>,
) -> Result<String, ToolError> {
    let mut rule =
        format!("{mark}\nACTION==\"remove\", GOTO=\"holdfast_end\"\nSUBSYSTEM!=\"block\", GOTO=\"holdfast_end\"\n");
    if let Some(serial) = serial {
        let sound = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '$' | '%' | '|');
        if serial.is_empty() || !serial.chars().all(sound) {
            return Err(ToolError::Refused(format!(
                "'{serial}' is no pattern for a serial number: letters, digits, -, _, and * ? [] as in a shell"
            )));
        }
        rule += "# Only these devices.\n";
        rule +=
            &format!("ENV{{ID_SERIAL_SHORT}}!=\"{serial}\", ENV{{ID_SERIAL}}!=\"{serial}\", GOTO=\"holdfast_end\"\n");
    }
    rule += "\n# The hidden zone: whoever sits at this computer may read and write it.\n";
    rule += &format!("ENV{{PARTNAME}}==\"{HIDDEN}\", TAG+=\"uaccess\"\n");
    if let Some(user) = user {
        let virtual_zones = [format!("ENV{{PARTNAME}}==\"{VIRTUAL}\""), "KERNEL==\"sr*\"".to_owned()]
            .map(|unit| format!("{unit}, ENV{{ID_FS_LABEL}}==\"{label}\""));
        rule += "\n# The unit's user owns it, and the CD, behind whose files the factory's backup stands. Lines of their own: a udev\n";
        rule += "# that does not give nodes to this user passes over the whole line.\n";
        rule += &format!("ENV{{PARTNAME}}==\"{HIDDEN}\", OWNER=\"{user}\", MODE=\"0600\"\n");
        rule += &format!("{}, OWNER=\"{user}\"\n", virtual_zones[1]);
        rule += "\n# The virtual zone starts the launcher.\n";
        for virtual_zone in virtual_zones {
            rule +=
                &format!("{virtual_zone}, TAG+=\"systemd\", ENV{{SYSTEMD_WANTS}}+=\"holdfast-{slug}@%k.service\"\n");
        }
    }
    rule += "\nLABEL=\"holdfast_end\"\n";
    Ok(rule)
}

/// The rule's text for a board: the hidden zone at `node` is `user`'s.
pub fn board_text(mark: &str, node: &str, user: &str) -> String {
    let below = node.trim_start_matches("/dev/");
    let key = if below.contains('/') { "SYMLINK" } else { "KERNEL" };
    format!(
        "{mark}\n# The hidden zone of this board's own storage, and of no other device.\n\
         ACTION!=\"remove\", SUBSYSTEM==\"block\", {key}==\"{below}\", OWNER=\"{user}\", MODE=\"0600\"\n"
    )
}
