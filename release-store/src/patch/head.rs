//! The head of a patch: what follows, and how it is read.

use serde::{Deserialize, Serialize};

use super::space::Spaces;
use super::{
    MAX_IMAGE_BYTES, MAX_MATCHES, MAX_MOVES, MAX_PREFIX_BYTES, MAX_PREFIX_WINDOW_LOG, MAX_WINDOW_BYTES, MAX_WINDOW_LOG,
    PatchError,
};

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
    /// One zstd stream that refers to the old bytes as its prefix.
    Prefix(Stream),
    /// Copies and literals.
    Matches(Box<Matches>),
}

/// Copies and literals, each kind of number in a stream of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Matches {
    /// How many copies there are.
    pub count: u32,
    /// Per copy: literal bytes in front of it (LEB128).
    pub gaps: Stream,
    /// Per copy: where it begins in the old bytes, from where the last one ended (zigzag, LEB128).
    pub steps: Stream,
    /// Per copy: its length (LEB128).
    pub lengths: Stream,
    /// Per block of a copy: how the old bytes are corrected. Empty without `spaces`.
    pub modes: Stream,
    /// Per byte of all copies: what is added.
    pub residual: Stream,
    /// All literal bytes.
    pub literals: Stream,
    /// Where the old and the new image stand in memory, if both are executables.
    pub spaces: Option<Spaces>,
}

impl Matches {
    pub(super) fn streams(&self) -> [&Stream; 6] {
        [&self.gaps, &self.steps, &self.lengths, &self.modes, &self.residual, &self.literals]
    }
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
    fn check(&self, max_window_log: u8) -> Result<(), PatchError> {
        let sound = match self.codec {
            Codec::Stored => self.packed == self.raw,
            Codec::Zstd { window_log } => window_log <= max_window_log,
            // Literal context and position bits size the decoder's tables.
            Codec::Lzma { window_log, props } => {
                window_log <= max_window_log && props < 225 && props % 9 + props / 9 % 5 <= 4
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
            Method::Prefix(stream) => {
                stream.check(MAX_PREFIX_WINDOW_LOG)?;
                if self.old_len > MAX_PREFIX_BYTES {
                    return malformed("it needs too many old bytes in memory");
                }
                if stream.raw != self.new_len || !matches!(stream.codec, Codec::Zstd { .. }) {
                    return malformed("its stream is not what its method needs");
                }
            }
            Method::Matches(matches) => {
                let mut packed = 0_u64;
                for stream in matches.streams() {
                    stream.check(MAX_WINDOW_LOG)?;
                    packed = packed.saturating_add(stream.packed);
                }
                let window = |stream: &Stream| stream.codec.window_bytes();
                // The three streams of the copies are read before the others are opened.
                let control = window(&matches.gaps) + window(&matches.steps) + window(&matches.lengths);
                let content = window(&matches.modes) + window(&matches.residual) + window(&matches.literals);
                if control.max(content) > MAX_WINDOW_BYTES {
                    return malformed("its windows take more memory than a reader gives");
                }
                if matches.count > MAX_MATCHES {
                    return malformed("it has more copies than a reader takes");
                }
                let bytes = matches.residual.raw.checked_add(matches.literals.raw);
                if bytes != Some(self.new_len) || packed > MAX_IMAGE_BYTES {
                    return malformed("its streams do not add up to what it makes");
                }
                if matches.modes.raw > matches.residual.raw {
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
