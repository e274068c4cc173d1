//! What a store holds already: every chunk that any release's chunk list names, and the updaters that travel.
//!
//! It is read from manifests and chunk lists alone, so that a release machine needs no old packs.

use std::collections::{BTreeMap, HashMap};

use firmware_image::Digest;

use crate::chunk_list::{ChunkEntry, ChunkList, ContentEntry, PackEntry};
use crate::content_key::ContentKeys;
use crate::error::StoreError;
use crate::manifest::{Manifest, UpdaterEntry};
use crate::transport::{Transport, TransportError};
use crate::trust::{Releases, VerifiedManifest};

/// An updater of an earlier release, and what its content is made of.
#[derive(Debug, Clone)]
pub(super) struct KnownUpdater {
    pub entry: UpdaterEntry,
    pub chunks: Vec<Digest>,
}

/// The chunks of all releases.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Packs, in the order in which they were met.
    pub packs: Vec<PackEntry>,
    /// By the content's digest; the pack is a place in `packs`.
    pub chunks: HashMap<Digest, ChunkEntry>,
    /// The updaters of the channel's newest release.
    pub carried: BTreeMap<String, KnownUpdater>,
    /// The highest updater of each platform over all releases: versions are one sequence over all channels.
    pub newest_updaters: BTreeMap<String, UpdaterEntry>,
}

impl Index {
    /// Reads the chunk lists of all `releases`, oldest first.
    pub(super) fn read<T: Transport>(
        releases: &Releases,
        transport: &T,
        product: &str,
        channel: &str,
        keys: &ContentKeys,
    ) -> Result<Self, StoreError> {
        let mut index = Self::default();
        let mut places = HashMap::new();
        for release in releases.iter() {
            let missing = |error| explain_missing(error, release.serial);
            let manifest = VerifiedManifest::fetch(release, transport, keys).map_err(missing)?.open(product)?;
            let list = ChunkList::fetch(release, &manifest, transport, keys).map_err(missing)?;
            index.add(&list, &mut places)?;
            // What was withdrawn passes on nothing.
            if release.channel == channel && release.withdrawn.is_none() {
                index.carried = known_updaters(&manifest, &list);
            }
            for updater in &manifest.updaters {
                let newest = index.newest_updaters.entry(updater.platform.clone()).or_insert_with(|| updater.clone());
                if updater.version >= newest.version {
                    *newest = updater.clone();
                }
            }
        }
        Ok(index)
    }

    fn add(&mut self, list: &ChunkList, places: &mut HashMap<Digest, u32>) -> Result<(), StoreError> {
        for chunk in &list.chunks {
            let pack = list.pack_of(chunk)?;
            let place = *places.entry(pack.digest).or_insert_with(|| {
                self.packs.push(*pack);
                // A list has at most MAX_PACKS packs, and a store at most as many releases as TUF targets fit.
                (self.packs.len() - 1) as u32
            });
            self.chunks.entry(chunk.digest).or_insert(ChunkEntry { pack: place, ..*chunk });
        }
        Ok(())
    }

    /// The chunk list of contents that are given as sequences of chunk digests.
    pub(super) fn chunk_list(&self, contents: &BTreeMap<Digest, (u64, Vec<Digest>)>) -> Result<ChunkList, StoreError> {
        let mut list = ChunkList::default();
        let mut packs: HashMap<u32, u32> = HashMap::new();
        let mut places: HashMap<Digest, u32> = HashMap::new();
        for (digest, (size, chunks)) in contents {
            let mut content = ContentEntry { digest: *digest, size: *size, chunks: Vec::with_capacity(chunks.len()) };
            for chunk in chunks {
                if let Some(place) = places.get(chunk) {
                    content.chunks.push(*place);
                    continue;
                }
                let missing = || StoreError::MissingContent { digest: *chunk, wanted: "the chunk list".into() };
                let known = self.chunks.get(chunk).ok_or_else(missing)?;
                let pack = *packs.entry(known.pack).or_insert_with(|| {
                    list.packs.push(self.packs[known.pack as usize]);
                    (list.packs.len() - 1) as u32
                });
                let place = list.chunks.len() as u32;
                list.chunks.push(ChunkEntry { pack, ..*known });
                places.insert(*chunk, place);
                content.chunks.push(place);
            }
            list.contents.push(content);
        }
        Ok(list)
    }

    /// What it costs to fetch these chunks.
    pub(super) fn stored_bytes(&self, chunks: &[Digest]) -> u64 {
        chunks.iter().filter_map(|chunk| self.chunks.get(chunk)).map(|chunk| u64::from(chunk.stored_len)).sum()
    }
}

fn known_updaters(manifest: &Manifest, list: &ChunkList) -> BTreeMap<String, KnownUpdater> {
    let updaters = manifest.updaters.iter().filter_map(|entry| {
        let content = list.content(&entry.sha256)?;
        let chunks = list.chunks_of(content).map(|(_, chunk)| chunk.digest).collect();
        Some((entry.platform.clone(), KnownUpdater { entry: entry.clone(), chunks }))
    });
    updaters.collect()
}

fn explain_missing(error: StoreError, serial: u64) -> StoreError {
    match error {
        StoreError::Transport(TransportError::NotFound { path }) => StoreError::Refused(format!(
            "{path} (of release {serial}) is not here: what was published before must be known so that nothing is stored \
             twice; copy it from the store"
        )),
        other => other,
    }
}
