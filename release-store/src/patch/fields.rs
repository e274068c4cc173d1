//! Fields of instructions that hold an address, relative to where they stand.
//!
//! x86-64 instructions are not decoded: a field is recognised by the opcode bytes in front of it (Intel SDM, volume 2,
//! appendix A). What looks like a field and is none points nowhere, mostly; where it does not, a residual says so. ARM64:
//! Arm ARM, C4.1 (A64 encodings).

/// Bytes in front of a position that [`x86_operand`] looks at.
pub(super) const X86_BEFORE: usize = 6;
/// Bytes of a field of x86-64 code.
pub(super) const X86_FIELD: usize = 4;

/// Opcodes with a ModRM byte that address memory often enough to count.
const MEMORY_OPCODES: [u8; 31] = [
    0x01, 0x03, 0x09, 0x0b, 0x21, 0x23, 0x29, 0x2b, 0x31, 0x33, 0x38, 0x39, 0x3a, 0x3b, 0x63, 0x80, 0x81, 0x83, 0x84,
    0x85, 0x87, 0x88, 0x89, 0x8b, 0x8d, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff,
];
const X87_OPCODES: [u8; 4] = [0xd9, 0xdb, 0xdd, 0xdf];

const OTHER: u8 = 0;
const CALL: u8 = 1;
const CONDITION: u8 = 2;
const RIP_RELATIVE: u8 = 3;

/// What the last byte in front of a field tells.
const LAST: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        if byte == 0xe8 || byte == 0xe9 {
            table[byte] = CALL;
        } else if byte & 0xf0 == 0x80 {
            table[byte] = CONDITION;
        } else if byte & 0xc7 == 0x05 {
            table[byte] = RIP_RELATIVE;
        }
        byte += 1;
    }
    table
};

const MEMORY: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < MEMORY_OPCODES.len() {
        table[MEMORY_OPCODES[at] as usize] = true;
        at += 1;
    }
    let mut at = 0;
    while at < X87_OPCODES.len() {
        table[X87_OPCODES[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether a 32-bit operand relative to the next instruction begins at `at`, as far as the bytes in front of it tell.
/// `at` must be at least [`X86_BEFORE`].
#[inline(always)] // It is asked of every byte of code, and of most the first line tells.
pub(super) fn x86_operand(bytes: &[u8], at: usize) -> bool {
    match LAST[usize::from(bytes[at - 1])] {
        OTHER => false,
        CALL => true,
        CONDITION => bytes[at - 2] == 0x0f,
        _ => {
            let [sixth, fifth, fourth, third, second, _] = *bytes[..at].last_chunk::<X86_BEFORE>().unwrap_or(&[0; _]);
            MEMORY[usize::from(second)]
                | (third == 0x0f)
                | (fourth == 0xc5)
                | (fifth == 0xc4)
                | (sixth == 0x62)
                | ((fourth == 0x0f) & matches!(third, 0x38 | 0x3a))
        }
    }
}

/// Whether the field behind `before`, which are at least [`X86_BEFORE`] new bytes, is written as an absolute address among
/// literals. (Not conditional jumps: they stay near.)
#[inline]
pub(super) fn x86_literal(before: &[u8]) -> bool {
    let at = before.len();
    LAST[usize::from(before[at - 1])] != CONDITION && x86_operand(before, at)
}

/// Whether a 32-bit absolute address may begin at `at`: an immediate, or a displacement without a base.
#[inline]
pub(super) fn x86_absolute(bytes: &[u8], at: usize) -> bool {
    bytes[at - 1] & 0xf8 == 0xb8 || matches!(bytes[at - 1], 0x24 | 0x25) || bytes[at - 2] & 0xc7 != 5
}

/// The instruction before and behind which the other half of an address is looked for.
pub(super) const ARM64_PAIR_WORDS: usize = 4;

/// A field of an ARM64 instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arm64 {
    /// `B`, `BL`: bytes from this instruction.
    Branch(i64),
    /// `ADR`: bytes from this instruction.
    Near(i64),
    /// `ADRP`: 4 KiB pages from this instruction's.
    Page(i64),
    /// The low 12 bits of an address whose page a register holds: `ADD`, loads, stores. Shifted right by `scale`.
    Low { bits: u32, scale: u32 },
}

/// The field of the instruction `word`.
#[inline]
pub(super) fn arm64(word: u32) -> Option<Arm64> {
    if word & 0x7c00_0000 == 0x1400_0000 {
        return Some(Arm64::Branch(i64::from((word << 6) as i32 >> 6) << 2));
    }
    if word & 0x1f00_0000 == 0x1000_0000 {
        let pages = i64::from(((((word >> 5) << 2) | (word >> 29 & 3)) << 11) as i32 >> 11);
        return Some(if word >> 31 == 1 { Arm64::Page(pages) } else { Arm64::Near(pages) });
    }
    let bits = word >> 10 & 0xfff;
    if word & 0xffc0_0000 == 0x9100_0000 {
        return Some(Arm64::Low { bits, scale: 0 });
    }
    if word & 0x3b00_0000 == 0x3900_0000 {
        let wide = word >> 26 & 1 == 1 && word >> 23 & 1 == 1;
        return Some(Arm64::Low { bits, scale: if wide { 4 } else { word >> 30 } });
    }
    None
}

/// `word` with another value in its field.
#[inline]
pub(super) fn with_arm64(word: u32, field: Arm64) -> u32 {
    match field {
        Arm64::Branch(bytes) => word & 0xfc00_0000 | (bytes >> 2) as u32 & 0x03ff_ffff,
        Arm64::Near(value) | Arm64::Page(value) => {
            let value = value as u32;
            word & 0x9f00_001f | (value & 3) << 29 | (value >> 2 & 0x7_ffff) << 5
        }
        Arm64::Low { bits, .. } => word & 0xffc0_03ff | (bits & 0xfff) << 10,
    }
}

fn register(word: u32) -> u32 {
    word & 31
}

fn base_register(word: u32) -> u32 {
    word >> 5 & 31
}

/// The address that the instruction at `at` (which stands at `address`) takes part in naming, and its field. Looks a few
/// instructions around. `None` where it names none.
pub(super) fn arm64_target(bytes: &[u8], at: usize, address: u64) -> Option<(Arm64, u64)> {
    let word_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let word = word_at(at)?;
    let field = arm64(word)?;
    let page_of = |address: u64, pages: i64| (address & !0xfff).wrapping_add((pages << 12) as u64);
    let target = match field {
        Arm64::Branch(bytes) | Arm64::Near(bytes) => address.wrapping_add(bytes as u64),
        Arm64::Page(pages) => {
            let low = (1..=ARM64_PAIR_WORDS).find_map(|ahead| {
                let other = word_at(at + 4 * ahead)?;
                match arm64(other) {
                    Some(Arm64::Low { bits, scale }) if base_register(other) == register(word) => Some(bits << scale),
                    _ => None,
                }
            });
            page_of(address, pages).wrapping_add(low.unwrap_or(0).into())
        }
        Arm64::Low { bits, scale } => (1..=ARM64_PAIR_WORDS).find_map(|back| {
            let other = word_at(at.checked_sub(4 * back)?)?;
            match arm64(other) {
                Some(Arm64::Page(pages)) if register(other) == base_register(word) => {
                    let page = page_of(address.wrapping_sub(4 * back as u64), pages);
                    Some(page.wrapping_add(u64::from(bits << scale)))
                }
                _ => None,
            }
        })?,
    };
    Some((field, target))
}
