//! The head of a patch: what follows, and how it is read.

use serde::{Deserialize, Serialize};

use super::mixed::MAX_MIXED_BYTES;
use super::space::Spaces;
use super::{MAX_IMAGE_BYTES, MAX_MATCHES, MAX_MOVES, MAX_WINDOW_BYTES, MAX_WINDOW_LOG, PatchError};

/// What a patch begins with, behind its length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Bytes of all sources.
    pub old_len: u64,
    /// Bytes of all targets.
    pub new_len: u64,
    pub method: Method,
}

/// How the new bytes are come by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Method {
    /// Exact copies, and literals that are told from what stood there.
    Edits(Box<Edits>),
    /// Copies to which something is added, and literals.
    Matches(Box<Matches>),
}

/// Which pieces of the old bytes are copied where, each kind of number in a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copies {
    /// How many copies there are.
    pub count: u32,
    /// Per copy: literal bytes in front of it (LEB128).
    pub gaps: Stream,
    /// Per copy: where it begins in the old bytes (zigzag, LEB128), from where the last one ended; in edits so many bytes
    /// behind that as there are literals in front of it.
    pub steps: Stream,
    /// Per copy: its length (LEB128).
    pub lengths: Stream,
}

/// Exact copies and literals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Edits {
    pub copies: Copies,
    /// Compressed bytes of all literals.
    pub packed: u64,
    /// All literal bytes.
    pub raw: u64,
}

/// Copies, what is added to them, and literals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Matches {
    pub copies: Copies,
    /// Per block of a copy: how the old bytes are corrected, and whether anything is added.
    pub modes: Stream,
    /// What is added to the blocks to which anything is: per byte that is not zero, or behind 255 zeros, how many zeros are in
    /// front of it, and the byte.
    pub residual: Stream,
    /// All literal bytes.
    pub literals: Stream,
    /// Where the old and the new image stand in memory, if both are executables.
    pub spaces: Option<Spaces>,
}

impl Copies {
    pub(super) fn streams(&self) -> [&Stream; 3] {
        [&self.gaps, &self.steps, &self.lengths]
    }

    /// Bytes of all streams.
    pub(super) fn packed(&self) -> u64 {
        packed(&self.streams())
    }

    fn check(&self) -> Result<(), PatchError> {
        if self.count > MAX_MATCHES {
            return Err(PatchError::Malformed("it has more copies than a reader takes"));
        }
        check(&self.streams())
    }
}

impl Matches {
    /// All but those of the copies.
    pub(super) fn streams(&self) -> [&Stream; 3] {
        [&self.modes, &self.residual, &self.literals]
    }
}

fn packed(streams: &[&Stream]) -> u64 {
    streams.iter().fold(0, |sum, stream| sum.saturating_add(stream.packed))
}

/// Checks streams that are open at the same time.
fn check(streams: &[&Stream]) -> Result<(), PatchError> {
    for stream in streams {
        stream.check()?;
    }
    if streams.iter().map(|stream| stream.codec.window_bytes()).sum::<u64>() > MAX_WINDOW_BYTES {
        return Err(PatchError::Malformed("its windows take more memory than a reader gives"));
    }
    Ok(())
}

/// A run of compressed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stream {
    pub codec: Codec,
    /// Compressed bytes.
    pub packed: u64,
    /// Bytes of content.
    pub raw: u64,
}

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Codec {
    /// Not at all.
    Stored,
    /// One zstd frame.
    Zstd { window_log: u8 },
    /// Raw LZMA without an end marker.
    Lzma { window_log: u8, props: u8 },
}

impl Codec {
    fn window_bytes(self) -> u64 {
        match self {
            Self::Stored => 0,
            Self::Zstd { window_log } | Self::Lzma { window_log, .. } => 1 << window_log.min(63),
        }
    }
}

impl Stream {
    fn check(&self) -> Result<(), PatchError> {
        let sound = match self.codec {
            Codec::Stored => self.packed == self.raw,
            Codec::Zstd { window_log } => window_log <= MAX_WINDOW_LOG,
            // Literal context and position bits size the decoder's tables.
            Codec::Lzma { window_log, props } => {
                window_log <= MAX_WINDOW_LOG && props < 225 && props % 9 + props / 9 % 5 <= 4
            }
        };
        if sound { Ok(()) } else { Err(PatchError::Malformed("a stream's codec is over its limits")) }
    }
}

impl Head {
    /// Reads an encoded head and checks it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, PatchError> {
        let head: Self = postcard::from_bytes(bytes).map_err(|_| PatchError::Malformed("its head does not decode"))?;
        head.check()?;
        Ok(head)
    }

    /// The head with its length in front.
    #[cfg(feature = "publish")]
    pub(super) fn encode(&self) -> Result<Vec<u8>, PatchError> {
        self.check()?;
        let encoded = postcard::to_allocvec(self).map_err(|_| PatchError::Refused("its head does not encode"))?;
        if encoded.len() > super::MAX_HEAD_BYTES {
            return Err(PatchError::Refused("its head is longer than a reader takes"));
        }
        let mut head = (encoded.len() as u32).to_le_bytes().to_vec();
        head.extend_from_slice(&encoded);
        Ok(head)
    }

    fn check(&self) -> Result<(), PatchError> {
        let malformed = |reason| Err(PatchError::Malformed(reason));
        if self.old_len > MAX_IMAGE_BYTES || self.new_len > MAX_IMAGE_BYTES {
            return malformed("it is for more bytes than a patch can be");
        }
        match &self.method {
            Method::Edits(edits) => {
                edits.copies.check()?;
                if edits.raw > MAX_MIXED_BYTES {
                    return malformed("it has more literals than a reader takes");
                }
                let packed = edits.copies.packed().saturating_add(edits.packed);
                if edits.raw > self.new_len || packed > MAX_IMAGE_BYTES {
                    return malformed("its streams do not add up to what it makes");
                }
            }
            Method::Matches(matches) => {
                // The streams of the copies are read before the others are opened.
                matches.copies.check()?;
                check(&matches.streams())?;
                let packed = matches.copies.packed().saturating_add(packed(&matches.streams()));
                let bytes = (matches.residual.raw / 2).saturating_add(matches.literals.raw);
                if bytes > self.new_len || packed > MAX_IMAGE_BYTES {
                    return malformed("its streams do not add up to what it makes");
                }
                if matches.modes.raw > self.new_len - matches.literals.raw {
                    return malformed("it has more blocks than bytes");
                }
                if let Some(spaces) = &matches.spaces {
                    spaces.old.check(self.old_len)?;
                    spaces.new.check(self.new_len)?;
                    if spaces.moves.len() > MAX_MOVES {
                        return malformed("it has more moves than a reader takes");
                    }
                }
            }
        }
        Ok(())
    }
}
