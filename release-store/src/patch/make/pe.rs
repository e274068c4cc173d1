//! What of a PE32+ file matters for its addresses (Microsoft PE/COFF specification).

use super::super::space::{AddressSpace, Region, RegionKind};
use super::bytes::Bytes;

const MACHINE_X86_64: u16 = 0x8664;
const MACHINE_ARM64: u16 = 0xaa64;
const MAGIC_PE32_PLUS: u16 = 0x20b;
const EXECUTABLE: u32 = 0x2000_0000;

/// What a PE program runs on, as platforms are named; `None` for what is no PE file.
pub(super) fn platform(file: &[u8]) -> Option<&'static str> {
    let bytes = Bytes(file);
    Some(match bytes.u16(header(file)? + 4)? {
        MACHINE_X86_64 => "windows-x86_64",
        _ => "another machine with Windows",
    })
}

/// Where a PE file's header stands.
fn header(file: &[u8]) -> Option<usize> {
    if file.get(..2)? != b"MZ" {
        return None;
    }
    let header = Bytes(file).u32(0x3c)? as usize;
    (file.get(header..header.checked_add(4)?)? == b"PE\0\0").then_some(header)
}

/// The address space of a PE32+ program for a machine that is known; `None` for anything else.
pub(super) fn space(file: &[u8]) -> Option<AddressSpace> {
    let bytes = Bytes(file);
    let header = header(file)?;
    let code = match bytes.u16(header + 4)? {
        MACHINE_X86_64 => RegionKind::X86,
        MACHINE_ARM64 => RegionKind::Arm64,
        _ => return None,
    };
    let optional = header + 24;
    if bytes.u16(optional)? != MAGIC_PE32_PLUS {
        return None;
    }
    let base = bytes.u64(optional + 24)?;
    let (count, table) = (usize::from(bytes.u16(header + 6)?), optional + usize::from(bytes.u16(header + 20)?));
    let mut regions = Vec::new();
    for entry in (0..count).map(|number| table + number * 40) {
        let (memory, rva, len, offset) =
            (bytes.u32(entry + 8)?, bytes.u32(entry + 12)?, bytes.u32(entry + 16)?, bytes.u32(entry + 20)?);
        if u64::from(offset) + u64::from(len) > file.len() as u64 {
            continue;
        }
        let executable = bytes.u32(entry + 36)? & EXECUTABLE != 0;
        regions.push(Region {
            offset,
            len,
            address: base.wrapping_add(rva.into()),
            memory: u64::from(memory.max(len)),
            kind: if executable { code } else { RegionKind::Data },
        });
    }
    regions.iter().find(|region| region.kind.is_code())?;
    Some(AddressSpace { regions: super::in_order(regions, file.len() as u32), bases: vec![base] })
}
