//! What of an ELF64 file matters for its addresses (System V gABI, chapters 4 and 5).

use super::super::space::{AddressSpace, Region, RegionKind};
use super::bytes::Bytes;

const MACHINE_X86_64: u16 = 62;
const MACHINE_ARM64: u16 = 183;
const LOAD: u32 = 1;
const EH_FRAME_HEADER: u32 = 0x6474_e550;
const SYMBOL_TABLE: u32 = 2;
const EXECUTABLE: u32 = 1;

/// What an ELF program runs on, as platforms are named; `None` for what is no ELF file.
pub(super) fn platform(file: &[u8]) -> Option<&'static str> {
    let [b'\x7f', b'E', b'L', b'F', class @ 1..=2, order @ 1..=2] = *file.get(..6)? else { return None };
    Some(match (class, order, Bytes(file).u16(18)?) {
        (2, 1, MACHINE_X86_64) => "linux-x86_64",
        (2, 1, MACHINE_ARM64) => "linux-aarch64",
        _ => "another machine",
    })
}

/// The address space of a little-endian ELF64 program for a machine that is known; `None` for anything else.
pub(super) fn space(file: &[u8]) -> Option<AddressSpace> {
    let bytes = Bytes(file);
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let code = match bytes.u16(18)? {
        MACHINE_X86_64 => RegionKind::X86,
        MACHINE_ARM64 => RegionKind::Arm64,
        _ => return None,
    };
    let (table, count) = (usize::try_from(bytes.u64(32)?).ok()?, usize::from(bytes.u16(56)?));
    let mut regions = Vec::new();
    let mut header_base = None;
    for entry in (0..count).map(|number| table.saturating_add(number * 56)) {
        let kind = bytes.u32(entry)?;
        let address = bytes.u64(entry.checked_add(16)?)?;
        if kind == EH_FRAME_HEADER {
            header_base = Some(address);
        }
        let (offset, len) = (bytes.u64(entry + 8)?, bytes.u64(entry + 32)?);
        if kind != LOAD || offset.checked_add(len)? > file.len() as u64 {
            continue;
        }
        let executable = bytes.u32(entry + 4)? & EXECUTABLE != 0;
        regions.push(Region {
            offset: u32::try_from(offset).ok()?,
            len: u32::try_from(len).ok()?,
            address,
            memory: bytes.u64(entry + 40)?,
            kind: if executable { code } else { RegionKind::Data },
        });
    }
    let code_base = regions.iter().find(|region| region.kind.is_code())?.address;
    regions.extend(symbols(bytes));
    let data_base = regions.iter().find(|region| region.kind == RegionKind::Data).map(|region| region.address);
    let mut bases = vec![code_base, data_base.unwrap_or(code_base)];
    bases.extend(header_base);
    Some(AddressSpace { regions: super::in_order(regions, file.len() as u32), bases })
}

/// The symbol table, which is in no segment.
fn symbols(bytes: Bytes<'_>) -> Option<Region> {
    let (table, count) = (usize::try_from(bytes.u64(40)?).ok()?, usize::from(bytes.u16(60)?));
    let entry = (0..count)
        .map(|number| table.saturating_add(number * 64))
        .find(|entry| bytes.u32(entry.saturating_add(4)) == Some(SYMBOL_TABLE))?;
    let (offset, len) = (bytes.u64(entry + 24)?, bytes.u64(entry + 32)?);
    Some(Region {
        offset: u32::try_from(offset).ok()?,
        len: u32::try_from(len).ok()?,
        address: 0,
        memory: 0,
        kind: RegionKind::FileOnly,
    })
}
