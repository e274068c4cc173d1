//! Patches: from contents that a device has to contents that it wants (`docs/formats/patch.md`).
//!
//! ```text
//! head length u32 │ head │ streams, back to back
//! ```
//! A patch turns one run of bytes (its *sources*, one behind the other) into another (its *targets*). It says which
//! pieces of the old run are copied to where, what is added to them, and what stands between. For executables the
//! copied bytes are first corrected: fields that hold an address are moved to where the new program has that address,
//! as the copies themselves tell. The decoder knows no file format: regions, addresses and bases stand in the head.
//!
//! Nothing here is trusted. Every length is limited before it sizes anything, and [`apply`] gives either exactly as many
//! bytes as were asked for, or an error; whether they are the right ones is for the caller to say, by their SHA-256.

mod address_map;
mod apply;
mod edits;
mod fields;
mod head;
#[cfg(feature = "publish")]
mod make;
mod mixed;
mod mixer;
mod predict;
mod residual;
mod space;
mod streams;

pub use apply::apply;
#[cfg(feature = "publish")]
pub use make::{is_program, make, platform};

/// The most bytes of all sources, and of all targets, of a patch: FAT32's limit for a file.
pub const MAX_IMAGE_BYTES: u64 = u32::MAX as u64;
/// The longest head, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 << 10;
/// The most copied pieces of a patch.
pub const MAX_MATCHES: u32 = 1 << 18;
/// The largest window of a stream: 2 to this power bytes.
pub const MAX_WINDOW_LOG: u8 = 23;
/// The most bytes of the windows of streams that are open at once.
pub const MAX_WINDOW_BYTES: u64 = 20 << 20;
/// The most regions of an image.
pub const MAX_REGIONS: usize = 64;
/// The most bases of an image.
pub const MAX_BASES: usize = 4;

/// The most runs of addresses that moved otherwise than copies tell.
pub const MAX_MOVES: usize = 512;

/// Bytes that can be read at any position.
pub trait ReadAt {
    /// Fills `out` with the bytes from `at` on.
    ///
    /// # Errors
    /// What reading reports; `UnexpectedEof` where there are not as many.
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> std::io::Result<()>;
}

impl ReadAt for &[u8] {
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> std::io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..at.checked_add(out.len())?));
        out.copy_from_slice(from.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Why a patch was not applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// The patch contradicts its format, or a limit.
    #[error("the patch is malformed: {0}")]
    Malformed(&'static str),
    /// The patch could not be read, or a stream of it does not decompress.
    #[error("the patch cannot be read")]
    Patch(#[source] std::io::Error),
    /// The old bytes could not be read.
    #[error("what the patch starts from cannot be read")]
    Old(#[source] std::io::Error),
    /// The new bytes could not be written.
    #[error("what the patch gives cannot be written")]
    Output(#[source] std::io::Error),
    /// The two runs of bytes cannot be made into a patch.
    #[cfg(feature = "publish")]
    #[error("no patch can be made: {0}")]
    Refused(&'static str),
}
