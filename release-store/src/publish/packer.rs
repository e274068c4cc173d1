//! New chunks into one pack: compressed and sealed on several threads, written in order.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use firmware_image::Digest;
use firmware_image::digest::Hasher;

use super::index::Index;
use crate::chunk_list::{ChunkEntry, PackEntry};
use crate::content_key::ContentKey;
use crate::error::StoreError;
use crate::frame::{FrameId, FrameKind, FrameWriter};
use crate::manifest::pack_path;
use crate::store_files::{StoreWriter, digest_of};

/// How much content is held before it is sealed, in bytes.
const BATCH_BYTES: usize = 4 << 20;

/// Collects the chunks that the index lacks.
pub(super) struct Packer<'a> {
    store: &'a StoreWriter,
    key_number: u32,
    writers: Vec<FrameWriter>,
    place: u32,
    batch: Vec<(Digest, Vec<u8>)>,
    batch_bytes: usize,
    pack: Option<OpenPack>,
    /// New chunks, and their content's bytes.
    pub new_chunks: u64,
    /// Bytes of content of new chunks.
    pub new_bytes: u64,
}

struct OpenPack {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    bytes: u64,
}

impl<'a> Packer<'a> {
    pub(super) fn new(
        store: &'a StoreWriter,
        key: &ContentKey,
        level: i32,
        threads: usize,
        index: &Index,
    ) -> Result<Self, StoreError> {
        let writers = (0..threads.max(1)).map(|_| FrameWriter::new(key, level)).collect::<Result<_, _>>()?;
        Ok(Self {
            store,
            key_number: key.number,
            writers,
            place: index.packs.len() as u32,
            batch: Vec::new(),
            batch_bytes: 0,
            pack: None,
            new_chunks: 0,
            new_bytes: 0,
        })
    }

    /// Takes a chunk; one that is known already is dropped.
    pub(super) fn add(&mut self, index: &mut Index, digest: Digest, content: Vec<u8>) -> Result<(), StoreError> {
        if index.chunks.contains_key(&digest) {
            return Ok(());
        }
        // Where it will lie is told when its batch is written.
        let raw_len = content.len() as u32;
        index.chunks.insert(digest, ChunkEntry { digest, raw_len, pack: self.place, offset: 0, stored_len: 0 });
        self.new_chunks += 1;
        self.new_bytes += u64::from(raw_len);
        self.batch_bytes += content.len();
        self.batch.push((digest, content));
        if self.batch_bytes >= BATCH_BYTES { self.write_batch(index) } else { Ok(()) }
    }

    fn write_batch(&mut self, index: &mut Index) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        let next = AtomicUsize::new(0);
        let work = |writer: &mut FrameWriter| {
            let mut sealed = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((_, content)) = batch.get(at) else { return Ok(sealed) };
                sealed.push((at, writer.seal(FrameKind::Chunk, content)?));
            }
        };
        type Sealed = Result<Vec<(usize, (FrameId, Vec<u8>))>, StoreError>;
        let parts: Vec<Sealed> = std::thread::scope(|scope| {
            let handles: Vec<_> = self.writers.iter_mut().map(|writer| scope.spawn(|| work(writer))).collect();
            let panicked = || Err(StoreError::Refused("a compressing thread failed".into()));
            handles.into_iter().map(|handle| handle.join().unwrap_or_else(|_| panicked())).collect()
        });
        let mut frames = Vec::with_capacity(batch.len());
        for part in parts {
            frames.extend(part?);
        }
        frames.sort_by_key(|(at, _)| *at);
        for (_, (id, frame)) in frames {
            let offset = self.append(&frame)?;
            let entry = ChunkEntry {
                digest: id.digest,
                raw_len: id.raw_len,
                pack: self.place,
                offset,
                stored_len: id.stored_len,
            };
            index.chunks.insert(id.digest, entry);
        }
        Ok(())
    }

    fn append(&mut self, frame: &[u8]) -> Result<u64, StoreError> {
        let pack = match &mut self.pack {
            Some(pack) => pack,
            None => {
                let (file, path) = self.store.temporary("chunks.pack")?;
                self.pack.insert(OpenPack { file, path, hasher: Hasher::new(), bytes: 0 })
            }
        };
        let offset = pack.bytes;
        pack.file.write_all(frame).map_err(StoreError::io("write", &pack.path))?;
        pack.hasher.update(frame);
        pack.bytes += frame.len() as u64;
        Ok(offset)
    }

    /// Seals what is left. The pack lies in a temporary file.
    pub(super) fn finish_chunks(&mut self, index: &mut Index) -> Result<(), StoreError> {
        self.write_batch(index)
    }

    /// Gives the pack its name and adds it to the index; `None` where there was no new chunk.
    pub(super) fn finish(mut self, index: &mut Index) -> Result<Option<PackEntry>, StoreError> {
        let Some(pack) = self.pack.take() else { return Ok(None) };
        let digest = pack.hasher.finish();
        let entry = PackEntry { digest, bytes: pack.bytes, key: self.key_number };
        let path = pack_path(&digest);
        let place = self.store.at(&path);
        if place.is_file() && digest_of(&place)? == digest {
            // An interrupted run left it, complete.
            std::fs::remove_file(&pack.path).map_err(StoreError::io("remove", &pack.path))?;
        } else {
            self.store.place(pack.file, &pack.path, &path)?;
        }
        index.packs.push(entry);
        Ok(Some(entry))
    }
}
