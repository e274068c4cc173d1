//! The streams of a patch, read one beside the other with little memory.

use std::cell::RefCell;
use std::io::{self, BufReader, ErrorKind, Read};

use super::head::{Codec, Stream};
use super::{PatchError, ReadAt};

/// Bytes that are read ahead of a stream.
const BUFFER_BYTES: usize = 32 << 10;

/// A patch that several streams are read from.
pub(super) trait Shared {
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
}

impl Shared for RefCell<&mut dyn ReadAt> {
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.borrow_mut().read_at(at, out)
    }
}

/// A part of a patch.
struct Section<'a> {
    source: &'a (dyn Shared + 'a),
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.source.read_at(self.at, &mut out[..len])?;
        self.at += len as u64;
        self.left -= len as u64;
        Ok(len)
    }
}

/// The `len` bytes from `at` on.
pub(super) fn section<'a>(source: &'a (dyn Shared + 'a), at: u64, len: u64) -> BufReader<impl Read + 'a> {
    BufReader::with_capacity(BUFFER_BYTES, Section { source, at, left: len })
}

/// A stream's content, in order.
pub(super) struct StreamReader<'a> {
    inner: BufReader<Decoder<'a>>,
    left: u64,
}

enum Decoder<'a> {
    Stored(Section<'a>),
    Zstd(Box<zstd::stream::read::Decoder<'a, BufReader<Section<'a>>>>),
    Lzma(Box<lzma_rust2::LzmaReader<Section<'a>>>),
}

impl Read for Decoder<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stored(section) => section.read(out),
            Self::Zstd(decoder) => decoder.read(out),
            Self::Lzma(decoder) => decoder.read(out),
        }
    }
}

impl<'a> StreamReader<'a> {
    /// Opens the stream that begins at `at` of `source`. Its head was checked.
    pub(super) fn open(source: &'a (dyn Shared + 'a), at: u64, stream: &Stream) -> Result<Self, PatchError> {
        let section = Section { source, at, left: stream.packed };
        let decoder = match stream.codec {
            _ if stream.raw == 0 => Decoder::Stored(Section { left: 0, ..section }),
            Codec::Stored => Decoder::Stored(section),
            Codec::Zstd { window_log } => {
                let buffered = BufReader::with_capacity(BUFFER_BYTES, section);
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(buffered).map_err(PatchError::Patch)?.single_frame();
                decoder.window_log_max(u32::from(window_log).max(10)).map_err(PatchError::Patch)?;
                Decoder::Zstd(Box::new(decoder))
            }
            Codec::Lzma { window_log, props } => {
                let reader = lzma_rust2::LzmaReader::new_with_props(section, stream.raw, props, 1 << window_log, None);
                Decoder::Lzma(Box::new(reader.map_err(PatchError::Patch)?))
            }
        };
        Ok(Self { inner: BufReader::with_capacity(BUFFER_BYTES, decoder), left: stream.raw })
    }

    /// Fills `out`.
    pub(super) fn read_exact(&mut self, out: &mut [u8]) -> Result<(), PatchError> {
        let len = out.len() as u64;
        if len > self.left {
            return Err(PatchError::Malformed("a stream is too short for what it is used for"));
        }
        self.left -= len;
        self.inner.read_exact(out).map_err(PatchError::Patch)
    }

    /// Reads one number (LEB128).
    pub(super) fn read_number(&mut self) -> Result<u64, PatchError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.read_exact(&mut byte)?;
            let bits = u64::from(byte[0] & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(PatchError::Malformed("a number is longer than 64 bits"))
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

/// Reads from `source` at `at`, counting what is not there as damage of the patch.
pub(super) fn read_at(source: &mut dyn ReadAt, at: u64, out: &mut [u8]) -> Result<(), PatchError> {
    source.read_at(at, out).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => PatchError::Malformed("it ends early"),
        _ => PatchError::Patch(error),
    })
}
