//! Fetching: coalesced ranges, verified frame by frame, kept at once.
//!
//! The copy of a store that the device carries is asked first. A server that knows no ranges sends whole packs; each is
//! then streamed through once, and every frame that is wanted is picked out of it. A server that stalls, lies or ends
//! early is left for the next one, and what came before stays.

use std::ops::Range;

use firmware_image::RawZone;
use firmware_image::free_zone::FreeZone;
use release_store::chunk_list::{ChunkEntry, ChunkList, PackEntry};
use release_store::frame::FrameReader;
use release_store::{ContentKey, ContentKeys, StoreError, Transport, TransportError};

use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::host::Watch;
use crate::plan::Plan;
use crate::servers::{Failures, pause};
use crate::spool::Spool;

/// Bytes between two wanted frames that are fetched along rather than asked for separately.
const MAX_GAP_BYTES: u64 = 4 << 10;

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Fetches every frame of the plan that the spool lacks.
    /// `late` is told after each frame and before each pause that time goes by.
    pub(crate) fn fetch(
        &mut self,
        plan: &Plan,
        spool: &mut Spool<'_, F>,
        late: &mut dyn FnMut(),
    ) -> Result<(), EngineError> {
        let Some(list) = plan.list.as_ref().filter(|_| !plan.frames.is_empty()) else { return Ok(()) };
        if !spool.is_empty() && spool.digests().all(|digest| !list.chunks.iter().any(|chunk| chunk.digest == *digest)) {
            // Left over from a release that nobody wants any more.
            spool.clear()?;
        }
        self.watch.begin("Downloading", plan.fetch_bytes);
        let result = self.fetch_all(plan, list, spool, late);
        self.watch.end();
        // What came is kept, whatever ended it.
        spool.settle()?;
        result
    }

    fn fetch_all(
        &mut self,
        plan: &Plan,
        list: &ChunkList,
        spool: &mut Spool<'_, F>,
        late: &mut dyn FnMut(),
    ) -> Result<(), EngineError> {
        let keys = self.content_keys();
        let mut job = Job { list, keys: &keys, reader: FrameReader::new()?, watch: self.watch, frames: 0, late };
        if let Some(offline) = self.offline.as_deref() {
            // It may lack packs of newer releases; a server has what is missing then.
            if let Err(StoreError::Transport(TransportError::Stopped(reason))) = job.run(offline, &plan.frames, spool)
                && let Ok(error) = reason.downcast::<EngineError>()
            {
                return Err(*error);
            }
            job.frames = 0;
        }
        if self.on_device_only {
            let whole = missing(list, &plan.frames, spool).is_empty();
            return if whole { Ok(()) } else { Err(EngineError::OutOfReach) };
        }
        let mut round = 0;
        loop {
            let before = spool.len();
            let mut failures = Failures::default();
            for (at, server) in self.servers.in_order() {
                let missing = missing(list, &plan.frames, spool);
                if missing.is_empty() {
                    break;
                }
                let result = job.run(server, &missing, spool);
                self.frames_fetched += std::mem::take(&mut job.frames);
                if let Err(error) = result {
                    let wanted = missing_bytes(list, &plan.frames, spool);
                    if wanted == 0 {
                        break;
                    }
                    self.servers.demote(at);
                    failures.add(&server.describe(), error, wanted)?;
                }
            }
            if missing(list, &plan.frames, spool).is_empty() {
                return Ok(());
            }
            spool.sync()?;
            round = if spool.len() > before { 0 } else { round + 1 };
            let error = failures.into_error();
            let hopeful = matches!(error.kind(), FailureKind::Offline | FailureKind::NotAuthentic);
            if round >= self.limits.rounds || !hopeful || self.servers.is_empty() {
                return Err(error);
            }
            (job.late)();
            let wait = pause(round, self.host);
            self.watch.detail(&format!("{error}; trying again in {:.1} s", wait.as_secs_f64()));
            self.host.sleep(wait);
        }
    }
}

fn missing<F: FreeZone>(list: &ChunkList, frames: &[u32], spool: &Spool<'_, F>) -> Vec<u32> {
    let lacks = |place: &u32| list.chunks.get(*place as usize).is_some_and(|chunk| !spool.contains(&chunk.digest));
    frames.iter().copied().filter(lacks).collect()
}

fn missing_bytes<F: FreeZone>(list: &ChunkList, frames: &[u32], spool: &Spool<'_, F>) -> u64 {
    missing(list, frames, spool).iter().map(|place| u64::from(list.chunks[*place as usize].stored_len)).sum()
}

/// What fetching needs beside a server and the spool.
struct Job<'a> {
    list: &'a ChunkList,
    keys: &'a ContentKeys,
    reader: FrameReader,
    watch: &'a dyn Watch,
    frames: u64,
    late: &'a mut dyn FnMut(),
}

impl Job<'_> {
    /// Fetches `frames` from one server, as far as it has them.
    fn run<F: FreeZone>(
        &mut self,
        server: &dyn Transport,
        frames: &[u32],
        spool: &mut Spool<'_, F>,
    ) -> Result<(), StoreError> {
        let mut wanted: Vec<ChunkEntry> =
            frames.iter().filter_map(|place| self.list.chunks.get(*place as usize)).copied().collect();
        wanted.sort_by_key(|chunk| (chunk.pack, chunk.offset));
        for of_pack in wanted.chunk_by(|a, b| a.pack == b.pack) {
            let pack = self.list.pack_of(&of_pack[0])?;
            let unknown = || StoreError::UnknownKey { object: pack.path(), number: pack.key };
            let key = self.keys.get(pack.key).ok_or_else(unknown)?;
            for range in ranges(of_pack) {
                // A server without ranges has sent all of the pack by now.
                let left: Vec<ChunkEntry> =
                    of_pack.iter().filter(|chunk| !spool.contains(&chunk.digest)).copied().collect();
                if left.iter().any(|chunk| range.contains(&chunk.offset)) {
                    self.get(server, pack, key, range, &left, spool)?;
                }
            }
        }
        Ok(())
    }

    fn get<F: FreeZone>(
        &mut self,
        server: &dyn Transport,
        pack: &PackEntry,
        key: &ContentKey,
        range: Range<u64>,
        wanted: &[ChunkEntry],
        spool: &mut Spool<'_, F>,
    ) -> Result<(), StoreError> {
        let mut picker = Picker { wanted, next: 0, frame: Vec::new() };
        let mut finished = false;
        let (reader, watch, frames, late) = (&mut self.reader, self.watch, &mut self.frames, &mut *self.late);
        let result = server.get(&pack.path(), Some(range.clone()), pack.bytes, &mut |offset, piece| {
            picker.take(offset, piece, &mut |chunk, frame| {
                let id = chunk.frame_id();
                reader.open(key, &id, frame).map_err(TransportError::stop)?;
                spool.append(&id, key.number, frame).map_err(TransportError::stop)?;
                *frames += 1;
                watch.advance(frame.len() as u64);
                watch.step("frame");
                late();
                Ok(())
            })?;
            if picker.next == wanted.len() && offset + piece.len() as u64 > range.end {
                finished = true;
                return Err(TransportError::stop("all wanted bytes are here"));
            }
            Ok(())
        });
        match result {
            Err(TransportError::Stopped(_)) if finished => Ok(()),
            Err(TransportError::Stopped(reason)) => match reason.downcast::<StoreError>() {
                Ok(error) => Err(*error),
                Err(reason) => Err(TransportError::Stopped(reason).into()),
            },
            Err(error) => Err(error.into()),
            Ok(_) if wanted.iter().any(|chunk| range.contains(&chunk.offset) && !spool.contains(&chunk.digest)) => {
                Err(TransportError::Bad { path: pack.path(), reason: "it ends early".into() }.into())
            }
            Ok(_) => Ok(()),
        }
    }
}

/// The ranges of a pack that cover `chunks`, which are in order.
fn ranges(chunks: &[ChunkEntry]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for chunk in chunks.iter().map(ChunkEntry::range) {
        match ranges.last_mut() {
            Some(last) if chunk.start <= last.end.saturating_add(MAX_GAP_BYTES) => last.end = last.end.max(chunk.end),
            _ => ranges.push(chunk),
        }
    }
    ranges
}

/// Picks frames out of a stream of bytes that may begin anywhere.
struct Picker<'a> {
    wanted: &'a [ChunkEntry],
    next: usize,
    frame: Vec<u8>,
}

type Deliver<'a> = dyn FnMut(&ChunkEntry, &[u8]) -> Result<(), TransportError> + 'a;

impl Picker<'_> {
    fn take(&mut self, offset: u64, piece: &[u8], deliver: &mut Deliver<'_>) -> Result<(), TransportError> {
        let end = offset + piece.len() as u64;
        while let Some(chunk) = self.wanted.get(self.next) {
            let start = chunk.offset + self.frame.len() as u64;
            if start < offset {
                // The stream began behind this frame's start: it comes with another request.
                self.frame.clear();
                self.next += 1;
                continue;
            }
            if start >= end {
                return Ok(());
            }
            // Both bounds are within `piece`.
            let from = (start - offset) as usize;
            let to = (chunk.range().end.min(end) - offset) as usize;
            if self.frame.is_empty() && to - from == chunk.stored_len as usize {
                deliver(chunk, &piece[from..to])?;
            } else {
                self.frame.extend_from_slice(&piece[from..to]);
                if self.frame.len() < chunk.stored_len as usize {
                    return Ok(());
                }
                deliver(chunk, &self.frame)?;
                self.frame.clear();
            }
            self.next += 1;
        }
        Ok(())
    }
}
