//! Applying a patch: from its sources and the spool into staging, as a stream.

use std::collections::VecDeque;
use std::io;

use embedded_io::{Seek as _, SeekFrom, Write as _};
use firmware_image::digest::Hasher;
use firmware_image::free_zone::FreeZone;
use firmware_image::{RawZone, paths};
use release_store::ContentKeys;
use release_store::frame::{FrameKind, FrameReader};
use release_store::patch::{PatchError, ReadAt, apply};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::patches::{PlannedPatch, Source, Target};
use crate::spool::Spool;
use crate::stage::Staged;
use crate::zone_io;

/// Parts of a patch that are held at once: its streams are read beside each other.
const HELD_PARTS: usize = 8;
/// Files that a patch starts from that are open at once.
const OPEN_SOURCES: usize = 8;

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Applies a patch: what is wanted of what it gives is staged.
    pub(crate) fn apply_patch(&self, patch: &PlannedPatch, spool: &mut Spool<'_, F>) -> Result<Staged, EngineError> {
        let advance = |bytes| self.watch.advance(bytes);
        let mut output = Output::new(self.free, &patch.targets);
        let new_len = patch.targets.iter().map(|target| target.size).sum();
        let old_len = patch.sources.iter().map(|source| source.size).sum();
        let mut parts = Parts {
            patch,
            ends: Ends::of(patch.parts.iter().map(|part| part.raw_len.into())),
            keys: &self.content_keys(),
            reader: FrameReader::new()?,
            spool,
            held: Vec::new(),
            bad: false,
        };
        let mut old = Sources::new(self.free, &patch.sources);
        let applied = apply(&mut parts, &mut old, old_len, new_len, &mut |bytes| output.write(bytes, &advance));
        let applied = applied.and_then(|()| output.finish().map_err(PatchError::Output));
        let bad_frame = parts.bad;
        drop(old);
        let Err(error) = applied else { return Ok(Staged::All) };
        if let Some(error) = output.abandon()? {
            return Err(error);
        }
        self.watch.detail(&format!("a patch did not hold: {error}"));
        if bad_frame {
            // It would be found again at the next start.
            spool.clear()?;
            return Ok(Staged::Distrust(vec![patch.key()]));
        }
        for source in &patch.sources {
            if !zone_io::file_is(self.free, &source.path, source.size, &source.digest)? {
                return Ok(Staged::Distrust(vec![source.path.to_string()]));
            }
        }
        Ok(Staged::Distrust(vec![patch.key()]))
    }
}

/// Where each of some pieces ends that stand one behind the other.
struct Ends(Vec<u64>);

impl Ends {
    fn of(lengths: impl Iterator<Item = u64>) -> Self {
        let mut end = 0_u64;
        Self(
            lengths
                .map(|length| {
                    end = end.saturating_add(length);
                    end
                })
                .collect(),
        )
    }

    /// The piece that holds the byte at `at`, where that is in it, and how many bytes follow in it.
    fn find(&self, at: u64) -> Option<(usize, u64, u64)> {
        let number = self.0.partition_point(|end| *end <= at);
        let start = number.checked_sub(1).map_or(0, |before| self.0[before]);
        self.0.get(number).map(|end| (number, at - start, end - at))
    }
}

/// The sources of a patch, one behind the other.
struct Sources<'a, F: FreeZone> {
    zone: &'a F,
    sources: &'a [Source],
    ends: Ends,
    /// The files that were read last, the very last one behind.
    open: Vec<(usize, F::File<'a>)>,
}

impl<'a, F: FreeZone> Sources<'a, F> {
    fn new(zone: &'a F, sources: &'a [Source]) -> Self {
        Self { zone, sources, ends: Ends::of(sources.iter().map(|source| source.size)), open: Vec::new() }
    }

    fn file(&mut self, number: usize) -> io::Result<&mut F::File<'a>> {
        let held = self.open.iter().position(|(open, _)| *open == number);
        let file = match held {
            Some(place) => self.open.remove(place).1,
            None => {
                let file = self.zone.open(&self.sources[number].path).map_err(other)?;
                if self.open.len() >= OPEN_SOURCES {
                    self.open.remove(0);
                }
                file.ok_or(io::ErrorKind::NotFound)?
            }
        };
        self.open.push((number, file));
        self.open.last_mut().map(|(_, file)| file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl<F: FreeZone> ReadAt for Sources<'_, F> {
    fn read_at(&mut self, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let (number, within, left) = self.ends.find(at).ok_or(io::ErrorKind::UnexpectedEof)?;
            let (piece, rest) = out.split_at_mut(left.min(out.len() as u64) as usize);
            let file = self.file(number)?;
            let read =
                file.seek(SeekFrom::Start(within)).and_then(|_| zone_io::read_full(file, piece)).map_err(other)?;
            if read < piece.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at += piece.len() as u64;
            out = rest;
        }
        Ok(())
    }
}

/// The parts of a patch, as they lie in the spool.
struct Parts<'a, 's, 'z, F: FreeZone> {
    patch: &'a PlannedPatch,
    ends: Ends,
    keys: &'a ContentKeys,
    reader: FrameReader,
    spool: &'s mut Spool<'z, F>,
    held: Vec<(usize, Vec<u8>)>,
    /// A part that is not in the spool, or does not open.
    bad: bool,
}

impl<F: FreeZone> Parts<'_, '_, '_, F> {
    fn part(&mut self, number: usize) -> io::Result<&[u8]> {
        if let Some(place) = self.held.iter().position(|(held, _)| *held == number) {
            // The last is the one that was used last.
            let part = self.held.remove(place);
            self.held.push(part);
        } else {
            let digest = self.patch.parts[number].digest;
            let mut frame = Vec::new();
            let found = self.spool.read(FrameKind::Patch, &digest, &mut frame).map_err(other)?;
            let opened = found.and_then(|(id, key)| self.reader.open(self.keys.get(key)?, &id, &frame).ok());
            let Some(opened) = opened else {
                self.bad = true;
                return Err(io::ErrorKind::InvalidData.into());
            };
            if self.held.len() >= HELD_PARTS {
                self.held.remove(0);
            }
            self.held.push((number, opened.bytes().to_vec()));
        }
        Ok(self.held.last().map(|(_, part)| part.as_slice()).unwrap_or_default())
    }
}

impl<F: FreeZone> ReadAt for Parts<'_, '_, '_, F> {
    fn read_at(&mut self, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let (number, within, left) = self.ends.find(at).ok_or(io::ErrorKind::UnexpectedEof)?;
            let length = left.min(out.len() as u64) as usize;
            let part = self.part(number)?;
            let (piece, rest) = out.split_at_mut(length);
            // Two parts of one digest and other lengths are a set that contradicts itself.
            let bytes = part.get(within as usize..).and_then(|part| part.get(..length));
            piece.copy_from_slice(bytes.ok_or(io::ErrorKind::InvalidData)?);
            at += length as u64;
            out = rest;
        }
        Ok(())
    }
}

/// What a patch gives, into staging: each content complete and verified, or not at all.
struct Output<'a, F: FreeZone> {
    zone: &'a F,
    targets: &'a [Target],
    next: usize,
    /// Places of wanted targets that are made and not complete, the next one in front.
    made: VecDeque<Made<'a, F>>,
    /// Complete, and not flushed.
    complete: Vec<Made<'a, F>>,
    open: Option<OpenTarget>,
    failed: Option<EngineError>,
}

/// A file in staging.
struct Made<'a, F: FreeZone + 'a> {
    path: String,
    size: u64,
    file: F::File<'a>,
}

/// The target that is being written.
struct OpenTarget {
    hasher: Hasher,
    left: u64,
}

impl<'a, F: FreeZone> Output<'a, F> {
    fn new(zone: &'a F, targets: &'a [Target]) -> Self {
        Self { zone, targets, next: 0, made: VecDeque::new(), complete: Vec::new(), open: None, failed: None }
    }

    fn write(&mut self, mut bytes: &[u8], advance: &dyn Fn(u64)) -> io::Result<()> {
        while !bytes.is_empty() {
            self.begin()?;
            let Some(open) = &mut self.open else { return Err(io::ErrorKind::InvalidData.into()) };
            let (piece, rest) = bytes.split_at(open.left.min(bytes.len() as u64) as usize);
            if self.targets[self.next].wanted.is_some()
                && let Some(Made { path, file, .. }) = self.made.front_mut()
            {
                let written = zone_io::write_all(file, piece);
                written.map_err(|error| fail(&mut self.failed, EngineError::zone("write", path)(error)))?;
                open.hasher.update(piece);
                advance(piece.len() as u64);
            }
            open.left -= piece.len() as u64;
            bytes = rest;
            self.end()?;
        }
        Ok(())
    }

    /// Opens the next target, unless one is open.
    fn begin(&mut self) -> io::Result<()> {
        while self.open.is_none() {
            let Some(target) = self.targets.get(self.next) else { return Ok(()) };
            if target.wanted.is_some() && self.made.is_empty() {
                let made = self.flush().and_then(|()| self.make());
                made.map_err(|error| fail(&mut self.failed, error))?;
            }
            self.open = Some(OpenTarget { hasher: Hasher::new(), left: target.size });
            self.end()?;
        }
        Ok(())
    }

    /// Makes the places of the next wanted targets, and takes room for all of them at once.
    fn make(&mut self) -> Result<(), EngineError> {
        let wanted = self.targets[self.next..].iter().filter_map(|target| Some((target.wanted?, target.size)));
        let together = zone_io::batch_of(wanted.clone().map(|(_, size)| size));
        for (digest, size) in wanted.take(together) {
            let path = format!("{}/{digest}", paths::STAGING_DIR);
            if self.made.iter().any(|made| made.path == path) {
                break;
            }
            let file = self.zone.create(&path).map_err(EngineError::zone("write", &path))?;
            self.made.push_back(Made { path, size, file });
        }
        let rooms = &mut self.made.iter_mut().map(|made| (&mut made.file, made.size));
        self.zone.reserve_all(rooms).map_err(EngineError::zone("write", paths::STAGING_DIR))
    }

    /// Flushes what is complete: one behind the other, the later ones have little left to write.
    fn flush(&mut self) -> Result<(), EngineError> {
        for Made { path, mut file, .. } in self.complete.drain(..) {
            file.flush().map_err(EngineError::zone("write", &path))?;
        }
        Ok(())
    }

    /// Closes the open target if it is complete.
    fn end(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take_if(|open| open.left == 0) else { return Ok(()) };
        if let Some(wanted) = self.targets[self.next].wanted {
            if wanted != open.hasher.finish() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the result has another digest"));
            }
            self.complete.extend(self.made.pop_front());
        }
        self.next += 1;
        Ok(())
    }

    /// Closes what is left: contents without bytes.
    fn finish(&mut self) -> io::Result<()> {
        self.begin()?;
        self.flush().map_err(|error| fail(&mut self.failed, error))?;
        if self.next == self.targets.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Removes the targets that are not complete. What kept them from being written, if that was it.
    fn abandon(&mut self) -> Result<Option<EngineError>, EngineError> {
        self.open = None;
        // Part of them would keep room that others need.
        let made = std::mem::take(&mut self.made);
        let paths: Vec<String> = made.into_iter().map(|made| made.path).collect();
        for path in paths {
            zone_io::remove(self.zone, &path)?;
        }
        let flushed = self.flush();
        Ok(self.failed.take().or(flushed.err()))
    }
}

/// Keeps the reason for later; what goes through the decoder is a sign only.
fn fail(slot: &mut Option<EngineError>, error: EngineError) -> io::Error {
    *slot = Some(error);
    io::ErrorKind::Other.into()
}

fn other(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{error:?}"))
}
