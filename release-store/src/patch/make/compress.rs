//! Streams by the codec that makes them smallest.

use std::io::Write as _;

use lzma_rust2::{EncodeMode, LzmaOptions, LzmaWriter, MfType};
use zstd::zstd_safe::CParameter;

use super::super::head::{Codec, Stream};
use super::super::{MAX_PREFIX_WINDOW_LOG, PatchError};

/// zstd's level: the highest.
const ZSTD_LEVEL: i32 = 22;
/// Longer streams are not tried with zstd: LZMA is always smaller there, and both take long.
const MAX_ZSTD_BYTES: usize = 1 << 20;
/// Longer streams are tried with one set of LZMA's literal bits.
const MAX_TRIED_BYTES: usize = 4 << 20;
/// LZMA's own limits.
const MIN_WINDOW_LOG: u8 = 12;
const NICE_LENGTH: u32 = 273;

fn failed(_: impl std::fmt::Display) -> PatchError {
    PatchError::Refused("a stream does not compress")
}

/// Compresses `raw` with a window of at most `1 << max_window_log` bytes.
pub(super) fn smallest(raw: &[u8], max_window_log: u8) -> Result<(Stream, Vec<u8>), PatchError> {
    let mut best = (Codec::Stored, raw.to_vec());
    let window_log = window_log(raw.len(), max_window_log);
    let mut offer = |codec, packed: Vec<u8>| {
        if packed.len() < best.1.len() {
            best = (codec, packed);
        }
    };
    if !raw.is_empty() {
        let bits: &[(u32, u32, u32)] = match raw.len() <= MAX_TRIED_BYTES {
            true => &[(3, 0, 0), (0, 0, 0), (0, 2, 2)],
            false => &[(3, 0, 0)],
        };
        for (lc, lp, pb) in bits {
            let options =
                LzmaOptions::new(1 << window_log, *lc, *lp, *pb, EncodeMode::Normal, NICE_LENGTH, MfType::Bt4, 0);
            let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, false).map_err(failed)?;
            writer.write_all(raw).map_err(failed)?;
            let props = writer.props();
            offer(Codec::Lzma { window_log, props }, writer.finish().map_err(failed)?);
        }
        if raw.len() <= MAX_ZSTD_BYTES {
            let mut zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(failed)?;
            zstd.set_parameter(CParameter::WindowLog(window_log.into())).map_err(failed)?;
            zstd.set_parameter(CParameter::ContentSizeFlag(false)).map_err(failed)?;
            offer(Codec::Zstd { window_log }, zstd.compress(raw).map_err(failed)?);
        }
    }
    let (codec, packed) = best;
    Ok((Stream { codec, packed: packed.len() as u64, raw: raw.len() as u64 }, packed))
}

/// Compresses `new` with `old` as what it refers to.
pub(super) fn with_prefix(old: &[u8], new: &[u8]) -> Result<(Stream, Vec<u8>), PatchError> {
    let window_log = window_log(old.len() + new.len(), MAX_PREFIX_WINDOW_LOG);
    let mut encoder = zstd::stream::Encoder::with_ref_prefix(Vec::new(), ZSTD_LEVEL, old).map_err(failed)?;
    let log = u32::from(window_log);
    for parameter in [
        CParameter::WindowLog(log),
        CParameter::HashLog(log + 1),
        CParameter::ChainLog(log + 1),
        CParameter::ContentSizeFlag(true),
    ] {
        encoder.set_parameter(parameter).map_err(failed)?;
    }
    encoder.set_pledged_src_size(Some(new.len() as u64)).map_err(failed)?;
    encoder.write_all(new).map_err(failed)?;
    let packed = encoder.finish().map_err(failed)?;
    let codec = Codec::Zstd { window_log };
    Ok((Stream { codec, packed: packed.len() as u64, raw: new.len() as u64 }, packed))
}

fn window_log(bytes: usize, max: u8) -> u8 {
    (usize::BITS - bytes.saturating_sub(1).leading_zeros()).clamp(MIN_WINDOW_LOG.into(), max.into()) as u8
}
