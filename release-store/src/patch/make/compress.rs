//! Streams by the codec that makes them smallest.

use std::io::Write as _;

use lzma_rust2::{EncodeMode, LzmaOptions, LzmaWriter, MfType};
use zstd::zstd_safe::CParameter;

use super::super::PatchError;
use super::super::head::{Codec, Stream};

/// zstd's level: the highest.
const ZSTD_LEVEL: i32 = 22;
/// Longer streams are not tried with zstd: LZMA is always smaller there, and both take long.
const MAX_ZSTD_BYTES: usize = 256 << 10;
/// Longer streams get those of LZMA's literal bits that suit three pieces of them best: from the beginning, middle, end.
const MAX_TRIED_BYTES: usize = 64 << 10;
const SAMPLE_BYTES: usize = 20 << 10;
/// Long are the literals of what has little in common with anything old: looking further for matches takes half as long again
/// for one byte in forty.
const LONG_BYTES: usize = 4 << 20;
const LONG_SEARCH_DEPTH: i32 = 24;
/// How LZMA tells literals: literal context bits, literal position bits, position bits.
type LiteralBits = (u32, u32, u32);
/// What suits a kind of stream, to be tried.
pub(super) const LITERALS: &[LiteralBits] = &[(4, 0, 2), (3, 0, 0), (0, 0, 0), (0, 2, 2)];
pub(super) const NUMBERS: &[LiteralBits] = &[(3, 0, 0), (1, 0, 0), (0, 0, 0)];
pub(super) const PAIRS: &[LiteralBits] = &[(3, 1, 1)];
/// LZMA's own limits.
const MIN_WINDOW_LOG: u8 = 12;
const NICE_LENGTH: u32 = 273;

fn failed(_: impl std::fmt::Display) -> PatchError {
    PatchError::Refused("a stream does not compress")
}

/// Compresses `raw` with a window of at most `1 << max_window_log` bytes, and one of `bits`.
pub(super) fn smallest(raw: &[u8], max_window_log: u8, bits: &[LiteralBits]) -> Result<(Stream, Vec<u8>), PatchError> {
    let mut best: Option<(Codec, Vec<u8>)> = None;
    let window_log = window_log(raw.len(), max_window_log);
    let mut offer = |codec, packed: Vec<u8>| {
        if packed.len() < best.as_ref().map_or(raw.len(), |(_, packed)| packed.len()) {
            best = Some((codec, packed));
        }
    };
    if !raw.is_empty() {
        if raw.len() <= MAX_TRIED_BYTES {
            for bits in bits {
                let (props, packed) = lzma(raw, window_log, *bits)?;
                offer(Codec::Lzma { window_log, props }, packed);
            }
        } else {
            let (props, packed) = lzma(raw, window_log, best_bits(raw, window_log, bits)?)?;
            offer(Codec::Lzma { window_log, props }, packed);
        }
        if raw.len() <= MAX_ZSTD_BYTES {
            let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(failed)?;
            zstd.set_parameter(CParameter::WindowLog(window_log.into())).map_err(failed)?;
            zstd.set_parameter(CParameter::ContentSizeFlag(false)).map_err(failed)?;
            offer(Codec::Zstd { window_log }, zstd.compress(raw).map_err(failed)?);
        }
    }
    let (codec, packed) = best.unwrap_or_else(|| (Codec::Stored, raw.to_vec()));
    Ok((Stream { codec, packed: packed.len() as u64, raw: raw.len() as u64 }, packed))
}

/// Which of `all` suit `raw`, as pieces of it tell.
fn best_bits(raw: &[u8], window_log: u8, all: &[LiteralBits]) -> Result<LiteralBits, PatchError> {
    if let [bits] = all {
        return Ok(*bits);
    }
    let last = raw.len() - SAMPLE_BYTES;
    let sample: Vec<u8> = [0, last / 2, last].iter().flat_map(|from| &raw[*from..][..SAMPLE_BYTES]).copied().collect();
    let mut best = (usize::MAX, LiteralBits::default());
    for bits in all {
        best = best.min((lzma(&sample, window_log, *bits)?.1.len(), *bits));
    }
    Ok(best.1)
}

/// The properties byte and the stream.
fn lzma(raw: &[u8], window_log: u8, (lc, lp, pb): LiteralBits) -> Result<(u8, Vec<u8>), PatchError> {
    // 0: as the length that is good enough suggests.
    let depth = if raw.len() > LONG_BYTES { LONG_SEARCH_DEPTH } else { 0 };
    // Searching takes eight bytes of memory for each of its window, and a table for the next power of two. What stands so
    // far back in a long stream is hardly ever found again.
    let window = if raw.len() > LONG_BYTES { 1 << raw.len().ilog2() } else { raw.len() };
    let window = window.clamp(1 << MIN_WINDOW_LOG, 1 << window_log) as u32;
    let options = LzmaOptions::new(window, lc, lp, pb, EncodeMode::Normal, NICE_LENGTH, MfType::Bt4, depth);
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false).map_err(failed)?;
    writer.write_all(raw).map_err(failed)?;
    let props = writer.props();
    Ok((props, writer.finish().map_err(failed)?))
}

fn window_log(bytes: usize, max: u8) -> u8 {
    (usize::BITS - bytes.saturating_sub(1).leading_zeros()).clamp(MIN_WINDOW_LOG.into(), max.into()) as u8
}
