//! Applying a patch: from its sources and the spool into staging, as a stream.

use std::io;

use embedded_io::{Seek as _, SeekFrom, Write as _};
use firmware_image::digest::Hasher;
use firmware_image::free_zone::{FreeZone, ZoneFile as _};
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

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Applies a patch: what is wanted of what it gives is staged.
    pub(crate) fn apply_patch(&self, patch: &PlannedPatch, spool: &mut Spool<'_, F>) -> Result<Staged, EngineError> {
        let advance = |bytes| self.watch.advance(bytes);
        let mut output = Output { zone: self.free, targets: &patch.targets, next: 0, open: None, failed: None };
        let new_len = patch.targets.iter().map(|target| target.size).sum();
        let old_len = patch.sources.iter().map(|source| source.size).sum();
        let mut parts = Parts {
            patch,
            keys: &self.content_keys(),
            reader: FrameReader::new()?,
            spool,
            held: Vec::new(),
            bad: false,
        };
        let mut old = Sources { zone: self.free, sources: &patch.sources, open: None };
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
            return Ok(Staged::Distrust(patch.key()));
        }
        for source in &patch.sources {
            if !zone_io::file_is(self.free, &source.path, source.size, &source.digest)? {
                return Ok(Staged::Distrust(source.path.to_string()));
            }
        }
        Ok(Staged::Distrust(patch.key()))
    }
}

/// The sources of a patch, one behind the other.
struct Sources<'a, F: FreeZone> {
    zone: &'a F,
    sources: &'a [Source],
    open: Option<(usize, F::File<'a>)>,
}

impl<F: FreeZone> ReadAt for Sources<'_, F> {
    fn read_at(&mut self, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
        for (number, source) in self.sources.iter().enumerate() {
            if at >= source.size {
                at -= source.size;
                continue;
            }
            let len = (source.size - at).min(out.len() as u64) as usize;
            if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
                let file = self.zone.open(&source.path).map_err(other)?;
                self.open = Some((number, file.ok_or(io::ErrorKind::NotFound)?));
            }
            let Some((_, file)) = &mut self.open else { return Err(io::ErrorKind::NotFound.into()) };
            let (piece, rest) = out.split_at_mut(len);
            let read = file.seek(SeekFrom::Start(at)).and_then(|_| zone_io::read_full(file, piece)).map_err(other)?;
            if read < len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (at, out) = (0, rest);
            if out.is_empty() {
                return Ok(());
            }
        }
        if out.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// The parts of a patch, as they lie in the spool.
struct Parts<'a, 's, 'z, F: FreeZone> {
    patch: &'a PlannedPatch,
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
        for number in 0..self.patch.parts.len() {
            let size = u64::from(self.patch.parts[number].raw_len);
            if at >= size {
                at -= size;
                continue;
            }
            let len = (size - at).min(out.len() as u64) as usize;
            let part = self.part(number)?;
            let (piece, rest) = out.split_at_mut(len);
            // Two parts of one digest and other lengths are a set that contradicts itself.
            let bytes = part.get(at as usize..).and_then(|part| part.get(..len)).ok_or(io::ErrorKind::InvalidData)?;
            piece.copy_from_slice(bytes);
            (at, out) = (0, rest);
            if out.is_empty() {
                return Ok(());
            }
        }
        if out.is_empty() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// What a patch gives, into staging: each content complete and verified, or not at all.
struct Output<'a, F: FreeZone> {
    zone: &'a F,
    targets: &'a [Target],
    next: usize,
    open: Option<OpenTarget<'a, F>>,
    failed: Option<EngineError>,
}

struct OpenTarget<'a, F: FreeZone + 'a> {
    path: String,
    file: Option<F::File<'a>>,
    hasher: Hasher,
    left: u64,
}

impl<F: FreeZone> Output<'_, F> {
    fn write(&mut self, mut bytes: &[u8], advance: &dyn Fn(u64)) -> io::Result<()> {
        while !bytes.is_empty() {
            self.begin()?;
            let Some(open) = &mut self.open else { return Err(io::ErrorKind::InvalidData.into()) };
            let (piece, rest) = bytes.split_at(open.left.min(bytes.len() as u64) as usize);
            if let Some(file) = &mut open.file {
                let path = &open.path;
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
            let path = target.wanted.map_or_else(String::new, |digest| format!("{}/{digest}", paths::STAGING_DIR));
            let file = match target.wanted {
                Some(_) => {
                    let created = self.zone.create(&path);
                    let created = created.and_then(|mut file| file.reserve(target.size).map(|()| file));
                    Some(created.map_err(|error| fail(&mut self.failed, EngineError::zone("write", &path)(error)))?)
                }
                None => None,
            };
            self.open = Some(OpenTarget { path, file, hasher: Hasher::new(), left: target.size });
            self.end()?;
        }
        Ok(())
    }

    /// Closes the open target if it is complete.
    fn end(&mut self) -> io::Result<()> {
        let Some(open) = self.open.take_if(|open| open.left == 0) else { return Ok(()) };
        let wanted = self.targets.get(self.next).and_then(|target| target.wanted);
        let found = open.hasher.finish();
        if wanted.is_some_and(|wanted| wanted != found) {
            let hasher = Hasher::new();
            self.open = Some(OpenTarget { path: open.path, file: None, hasher, left: 0 });
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the result has another digest"));
        }
        if let Some(mut file) = open.file {
            let path = &open.path;
            file.flush().map_err(|error| fail(&mut self.failed, EngineError::zone("write", path)(error)))?;
        }
        self.next += 1;
        Ok(())
    }

    /// Closes what is left: contents without bytes.
    fn finish(&mut self) -> io::Result<()> {
        self.begin()?;
        if self.next == self.targets.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Removes a target that is not complete. What kept it from being written, if that was it.
    fn abandon(&mut self) -> Result<Option<EngineError>, EngineError> {
        if let Some(OpenTarget { path, file, .. }) = self.open.take() {
            drop(file);
            if !path.is_empty() {
                zone_io::remove(self.zone, &path)?;
            }
        }
        Ok(self.failed.take())
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
