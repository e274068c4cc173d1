//! The script that shows the device, from the template in `assets/gadget.sh`: settings in front, each one a quoted word.

use super::Wishes;
use crate::error::ToolError;

const TEMPLATE: &str = include_str!("../../assets/gadget.sh");
/// The longest string of a USB device (USB 2.0, 9.6.7: 255 bytes of UTF-16), in characters.
const MAX_STRING_CHARS: usize = 126;

/// The script's text.
///
/// # Errors
/// `Refused` for a text that USB cannot hold.
pub fn text(mark: &str, name: &str, product: &str, wishes: &Wishes) -> Result<String, ToolError> {
    for (what, string) in [("product", product), ("manufacturer", &wishes.manufacturer), ("serial", &wishes.serial)] {
        let sound = !string.trim().is_empty()
            && string.encode_utf16().count() <= MAX_STRING_CHARS
            && string.len() <= MAX_STRING_CHARS
            && !string.contains(char::is_control);
        if !sound {
            return Err(ToolError::Refused(format!(
                "the {what} '{string}' is no string for a USB device: 1 to {MAX_STRING_CHARS} bytes, none of them a control \
                 character"
            )));
        }
    }
    // USB mass storage, bulk-only transport, 4.1.1: at least twelve digits or capital letters.
    let enough =
        wishes.serial.len() >= 12 && wishes.serial.chars().all(|c| c.is_ascii_digit() || c.is_ascii_uppercase());
    if !enough {
        return Err(ToolError::Refused(format!(
            "the serial number '{}' is not what mass storage wants: twelve or more digits and capital letters",
            wishes.serial
        )));
    }
    let path = |path: &std::path::Path| match path.to_str() {
        Some(text) if path.is_absolute() && !text.contains(char::is_control) => Ok(quoted(text)),
        _ => Err(ToolError::Refused(format!("{} is no absolute path on the board", path.display()))),
    };
    let (cd, disk) = (path(&wishes.cd)?, path(&wishes.disk)?);
    let settings = [
        ("{{NAME}}", quoted(name)),
        ("{{CD}}", cd),
        ("{{DISK}}", disk),
        ("{{UDC}}", quoted(wishes.udc.as_deref().unwrap_or_default())),
        ("{{VENDOR_ID}}", format!("0x{:04x}", wishes.usb_id.vendor)),
        ("{{PRODUCT_ID}}", format!("0x{:04x}", wishes.usb_id.product)),
        ("{{MANUFACTURER}}", quoted(&wishes.manufacturer)),
        ("{{PRODUCT}}", quoted(product)),
        ("{{SERIAL}}", quoted(&wishes.serial)),
        ("{{CD_INQUIRY}}", quoted(&inquiry(&wishes.manufacturer, product, "CD"))),
        ("{{DISK_INQUIRY}}", quoted(&inquiry(&wishes.manufacturer, product, "DISK"))),
        ("{{STALL}}", if wishes.stall { "1" } else { "0" }.to_owned()),
    ];
    // Each line has one setting: what one of them holds is never taken for another.
    let mut text = String::new();
    for line in TEMPLATE.lines() {
        let setting = settings.iter().find_map(|(key, value)| Some((line.strip_suffix(key)?, value)));
        match setting {
            Some((variable, value)) => text += &format!("{variable}{value}\n"),
            None if line == "{{MARK}}" => text += &format!("{mark}\n"),
            None => text += &format!("{line}\n"),
        }
    }
    Ok(text)
}

/// A word of the shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What a unit says of itself to SCSI's INQUIRY (SPC-4, 6.4.2): vendor (8), product (16), revision (4), in ASCII.
fn inquiry(manufacturer: &str, product: &str, unit: &str) -> String {
    let ascii = |text: &str, length: usize| -> String {
        text.chars().take(length).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '_' }).collect()
    };
    let product = format!("{} {unit}", ascii(product, 15 - unit.len()).trim_end());
    format!("{:<8}{product:<16}0001", ascii(manufacturer, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inquiry_has_its_fields_in_their_places() {
        assert_eq!(inquiry("Acme", "Notes", "CD"), "Acme    Notes CD        0001");
        assert_eq!(inquiry("Acme Corporation", "Field Handbook of Größe", "DISK"), "Acme CorField Handb DISK0001");
        assert_eq!(inquiry("Acme", "Größe", "DISK").len(), 28);
    }
}
