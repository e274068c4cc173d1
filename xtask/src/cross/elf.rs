//! What an ELF file needs of the system that runs it.

use anyhow::{Result, bail};

/// Program header types (ELF-64, "Program Header"): what to link at run time, and who does it.
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

/// Whether a 64-bit little-endian program runs on any kernel by itself.
///
/// # Errors
/// It is no such program, or asks for a loader or for libraries.
pub fn check_static(program: &[u8]) -> Result<()> {
    let number = |at: usize, bytes: usize| {
        let field = program.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    if !program.starts_with(b"\x7fELF\x02\x01") {
        bail!("no 64-bit little-endian ELF file");
    }
    let (Some(table), Some(size), Some(count)) = (number(0x20, 8), number(0x36, 2), number(0x38, 2)) else {
        bail!("cut short");
    };
    for i in 0..count {
        let at = usize::try_from(table + i * size)?;
        match number(at, 4).map(|kind| kind as u32) {
            Some(PT_INTERP) => bail!("asks for a loader"),
            Some(PT_DYNAMIC) => bail!("asks for libraries"),
            Some(_) => {}
            None => bail!("cut short"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_static;

    /// A file header and one program header of this type.
    fn program(kind: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[0x20], bytes[0x36], bytes[0x38]) = (64, 56, 1);
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes
    }

    #[test]
    fn only_what_asks_for_nothing_is_static() {
        assert!(check_static(&program(1)).is_ok());
        assert!(check_static(&program(2)).is_err());
        assert!(check_static(&program(3)).is_err());
        assert!(check_static(&program(1)[..100]).is_ok(), "its header is whole");
        assert!(check_static(&program(1)[..66]).is_err());
        assert!(check_static(b"MZ").is_err());
    }
}
