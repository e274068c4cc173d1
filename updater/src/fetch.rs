//! Fetching: coalesced ranges, verified frame by frame, kept at once.
//!
//! The copy of a store that the device carries is asked first. A server that knows no ranges sends whole packs; each is
//! then streamed through once, and every frame that is wanted is picked out of it. A server that stalls, lies or ends
//! early is left for the next one, and what came before stays.

use std::ops::Range;

use firmware_image::RawZone;
use firmware_image::free_zone::FreeZone;
use release_store::chunk_list::PackEntry;
use release_store::frame::{FrameId, FrameReader};
use release_store::{ContentKey, ContentKeys, StoreError, Transport, TransportError};

use crate::engine::Engine;
use crate::error::{EngineError, FailureKind};
use crate::host::Watch;
use crate::plan::Plan;
use crate::servers::{Failures, pause};
use crate::spool::Spool;

/// Bytes between two wanted frames that are fetched along rather than asked for separately.
const MAX_GAP_BYTES: u64 = 4 << 10;

/// A frame to be fetched: of a chunk, or of a patch.
#[derive(Debug, Clone, Copy)]
pub struct WantedFrame {
    /// What it must be.
    pub id: FrameId,
    /// The pack that it lies in.
    pub pack: PackEntry,
    /// Where in it.
    pub offset: u64,
}

impl WantedFrame {
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.id.stored_len.into())
    }
}

impl<F: FreeZone, H: RawZone, C: RawZone> Engine<'_, F, H, C> {
    /// Fetches every frame of the plan that the spool lacks.
    /// `late` is told after each frame and before each pause that time goes by.
    pub(crate) fn fetch(
        &mut self,
        plan: &Plan,
        spool: &mut Spool<'_, F>,
        late: &mut dyn FnMut(),
    ) -> Result<(), EngineError> {
        if plan.frames.is_empty() {
            return Ok(());
        }
        self.watch.begin("Downloading", plan.fetch_bytes);
        let result = self.fetch_all(plan, spool, late);
        self.watch.end();
        // What came is kept, whatever ended it.
        spool.settle()?;
        result
    }

    fn fetch_all(&mut self, plan: &Plan, spool: &mut Spool<'_, F>, late: &mut dyn FnMut()) -> Result<(), EngineError> {
        let keys = self.content_keys();
        let mut job = Job { keys: &keys, reader: FrameReader::new()?, watch: self.watch, frames: 0, late };
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
            let whole = missing(&plan.frames, spool).is_empty();
            return if whole { Ok(()) } else { Err(EngineError::OutOfReach) };
        }
        let mut round = 0;
        loop {
            let before = spool.len();
            let mut failures = Failures::default();
            for (at, server) in self.servers.in_order() {
                let missing = missing(&plan.frames, spool);
                if missing.is_empty() {
                    break;
                }
                let result = job.run(server, &missing, spool);
                self.frames_fetched += std::mem::take(&mut job.frames);
                if let Err(error) = result {
                    let wanted = missing_bytes(&plan.frames, spool);
                    if wanted == 0 {
                        break;
                    }
                    self.servers.demote(at);
                    failures.add(&server.describe(), error, wanted)?;
                }
            }
            if missing(&plan.frames, spool).is_empty() {
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

fn missing<F: FreeZone>(frames: &[WantedFrame], spool: &Spool<'_, F>) -> Vec<WantedFrame> {
    frames.iter().filter(|frame| !spool.contains(&frame.id.digest)).copied().collect()
}

fn missing_bytes<F: FreeZone>(frames: &[WantedFrame], spool: &Spool<'_, F>) -> u64 {
    missing(frames, spool).iter().map(|frame| u64::from(frame.id.stored_len)).sum()
}

/// What fetching needs beside a server and the spool.
struct Job<'a> {
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
        frames: &[WantedFrame],
        spool: &mut Spool<'_, F>,
    ) -> Result<(), StoreError> {
        let mut wanted = frames.to_vec();
        wanted.sort_by_key(|frame| (frame.pack.digest, frame.offset));
        for of_pack in wanted.chunk_by(|a, b| a.pack.digest == b.pack.digest) {
            let pack = &of_pack[0].pack;
            let unknown = || StoreError::UnknownKey { object: pack.path(), number: pack.key };
            let key = self.keys.get(pack.key).ok_or_else(unknown)?;
            for range in ranges(of_pack) {
                // A server without ranges has sent all of the pack by now.
                let left = missing(of_pack, spool);
                if left.iter().any(|frame| range.contains(&frame.offset)) {
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
        wanted: &[WantedFrame],
        spool: &mut Spool<'_, F>,
    ) -> Result<(), StoreError> {
        let mut picker = Picker { wanted, next: 0, frame: Vec::new() };
        let mut finished = false;
        let (reader, watch, frames, late) = (&mut self.reader, self.watch, &mut self.frames, &mut *self.late);
        let result = server.get(&pack.path(), Some(range.clone()), pack.bytes, &mut |offset, piece| {
            picker.take(offset, piece, &mut |wanted, frame| {
                reader.open(key, &wanted.id, frame).map_err(TransportError::stop)?;
                spool.append(&wanted.id, key.number, frame).map_err(TransportError::stop)?;
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
            Ok(_) if wanted.iter().any(|frame| range.contains(&frame.offset) && !spool.contains(&frame.id.digest)) => {
                Err(TransportError::Bad { path: pack.path(), reason: "it ends early".into() }.into())
            }
            Ok(_) => Ok(()),
        }
    }
}

/// The ranges of a pack that cover `frames`, which are in order.
fn ranges(frames: &[WantedFrame]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for frame in frames.iter().map(WantedFrame::range) {
        match ranges.last_mut() {
            Some(last) if frame.start <= last.end.saturating_add(MAX_GAP_BYTES) => last.end = last.end.max(frame.end),
            _ => ranges.push(frame),
        }
    }
    ranges
}

/// Picks frames out of a stream of bytes that may begin anywhere.
struct Picker<'a> {
    wanted: &'a [WantedFrame],
    next: usize,
    frame: Vec<u8>,
}

type Deliver<'a> = dyn FnMut(&WantedFrame, &[u8]) -> Result<(), TransportError> + 'a;

impl Picker<'_> {
    fn take(&mut self, offset: u64, piece: &[u8], deliver: &mut Deliver<'_>) -> Result<(), TransportError> {
        let end = offset + piece.len() as u64;
        while let Some(wanted) = self.wanted.get(self.next) {
            let start = wanted.offset + self.frame.len() as u64;
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
            let to = (wanted.range().end.min(end) - offset) as usize;
            if self.frame.is_empty() && to - from == wanted.id.stored_len as usize {
                deliver(wanted, &piece[from..to])?;
            } else {
                self.frame.extend_from_slice(&piece[from..to]);
                if self.frame.len() < wanted.id.stored_len as usize {
                    return Ok(());
                }
                deliver(wanted, &self.frame)?;
                self.frame.clear();
            }
            self.next += 1;
        }
        Ok(())
    }
}
