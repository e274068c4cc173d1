//! The vendor's public key inside the launcher and the updater.
//!
//! Each program carries one *stamp*: a 32-byte marker and 32 bytes for the key, zeros as compiled. The factory (or the
//! release machine) writes the key there, once, before the program is signed. The marker stands in a program exactly
//! once: the code that looks for it holds it masked.

use crate::signature::{PUBLIC_KEY_BYTES, PublicKey};

/// Bytes of the marker in front of the key.
pub const MARKER_BYTES: usize = 32;

#[repr(C)]
struct Stamp {
    marker: [u8; MARKER_BYTES],
    key: [u8; PUBLIC_KEY_BYTES],
}

#[used]
static STAMP: Stamp = Stamp { marker: *b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a", key: [0; PUBLIC_KEY_BYTES] };

/// The vendor key stamped into this program; `None` in one that was never stamped.
pub fn vendor_key() -> Option<PublicKey> {
    // SAFETY: `STAMP` is a valid, initialised, immutable static; a volatile read of it is a plain read that the compiler
    // may not replace by the value it saw when compiling, because the factory changes it in the file.
    let stamp = unsafe { core::ptr::read_volatile(&raw const STAMP) };
    let stamped = stamp.marker[0] == 0x89 && stamp.key != [0; PUBLIC_KEY_BYTES];
    stamped.then_some(PublicKey(stamp.key))
}

/// Why a program could not be stamped.
#[cfg(feature = "sign")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StampError {
    /// The marker is not there: not one of Holdfast's programs, or one built without it.
    NoMarker,
    /// The marker stands there more than once.
    ManyMarkers,
    /// The program was stamped with another vendor's key.
    OtherVendor,
}

#[cfg(feature = "sign")]
impl core::fmt::Display for StampError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoMarker => "the program has no place for a vendor key: is it a Holdfast launcher or updater?",
            Self::ManyMarkers => "the program has more than one place for a vendor key",
            Self::OtherVendor => "the program carries another vendor's key: take a freshly built one",
        })
    }
}

#[cfg(feature = "sign")]
impl core::error::Error for StampError {}

/// Writes `key` into `program`, or finds that it is there already. `true`: `program` changed.
///
/// # Errors
/// See [`StampError`]; `program` is then as it was.
#[cfg(feature = "sign")]
pub fn stamp(program: &mut [u8], key: &PublicKey) -> Result<bool, StampError> {
    let at = find(program)?;
    let place = program.get_mut(at + MARKER_BYTES..at + MARKER_BYTES + PUBLIC_KEY_BYTES).ok_or(StampError::NoMarker)?;
    if *place == key.0 {
        return Ok(false);
    }
    if place.iter().any(|byte| *byte != 0) {
        return Err(StampError::OtherVendor);
    }
    place.copy_from_slice(&key.0);
    Ok(true)
}

/// The key stamped into a program's bytes; `None` where it is unstamped.
///
/// # Errors
/// `NoMarker`, `ManyMarkers`.
#[cfg(feature = "sign")]
pub fn stamped_key(program: &[u8]) -> Result<Option<PublicKey>, StampError> {
    let at = find(program)? + MARKER_BYTES;
    let key = program.get(at..at + PUBLIC_KEY_BYTES).and_then(|key| <[u8; PUBLIC_KEY_BYTES]>::try_from(key).ok());
    let key = key.ok_or(StampError::NoMarker)?;
    Ok((key != [0; PUBLIC_KEY_BYTES]).then_some(PublicKey(key)))
}

#[cfg(feature = "sign")]
fn find(program: &[u8]) -> Result<usize, StampError> {
    const MASK: u8 = 0x55;
    const MASKED: [u8; MARKER_BYTES] = {
        let plain = *b"\x89HOLDFAST-VENDOR-KEY-STAMP-v1\r\n\x1a";
        let mut masked = [0; MARKER_BYTES];
        let mut i = 0;
        while i < MARKER_BYTES {
            masked[i] = plain[i] ^ MASK;
            i += 1;
        }
        masked
    };
    let mut marker = core::hint::black_box(MASKED);
    marker.iter_mut().for_each(|byte| *byte ^= MASK);
    let mut found = program
        .windows(MARKER_BYTES)
        .enumerate()
        .filter(|(_, window)| window[0] == marker[0] && *window == marker)
        .map(|(at, _)| at);
    let first = found.next().ok_or(StampError::NoMarker)?;
    if found.next().is_some() { Err(StampError::ManyMarkers) } else { Ok(first) }
}
