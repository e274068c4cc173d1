//! The checksum of headers and journals.

use crc::{CRC_32_ISO_HDLC, Crc, NoTable};

/// CRC-32 (ISO-HDLC) of `bytes`, without a table: what it is for is short, and code is to be small.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC).checksum(bytes)
}
