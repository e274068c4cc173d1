//! Reading the tables and directories of a FAT32 volume, bounded on any input.
//!
//! `fatfs` follows whatever a table says: a loop never ends, a number out of range overflows. So every path is walked
//! here first, by the same rules for names as `fatfs` has, and only a path whose directories are sound is handed on.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};

use crate::boot_sector::{FIRST_CLUSTER, Geometry};
use crate::free_zone::{Kind, Metadata};
use crate::image::block_cache::BlockCache;
use crate::{RawZone, ZoneError};

/// The largest directory: 65,536 entries (FAT specification, section 6).
const MAX_DIRECTORY_BYTES: u64 = 65_536 * 32;
/// UTF-16 units in one long-name entry, and the most entries of a name.
const UNITS_PER_ENTRY: usize = 13;
const MAX_NAME_ENTRIES: usize = 31;

/// A stretch of table in which every cluster is free.
const EMPTY: [u8; 1024] = [0; 1024];

/// The mark of a chain's last cluster.
const END_OF_CHAIN: u32 = 0x0FFF_FFFF;

const ATTR_VOLUME: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG_NAME: u8 = 0x0F;

/// What the table says follows a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Free,
    Next(u32),
    Bad,
    End,
}

/// A chain that was followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Its clusters.
    pub clusters: u64,
    /// Its last cluster, where that points to a free one.
    pub loose_end: Option<u32>,
}

/// A directory entry.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub attributes: u8,
    /// As it stands in the entry: not checked.
    pub first_cluster: u32,
    pub size: u32,
    /// Where the short entry stands, in bytes from the volume's start.
    pub position: u64,
}

impl Entry {
    pub fn is_directory(&self) -> bool {
        self.attributes & ATTR_DIRECTORY != 0
    }

    pub fn metadata(&self) -> Metadata {
        match self.is_directory() {
            true => Metadata { length: 0, kind: Kind::Directory },
            false => Metadata { length: u64::from(self.size), kind: Kind::File },
        }
    }
}

/// Where a path leads.
pub(crate) enum Found {
    Entry(Entry),
    /// The parent is a sound directory, the name is not in it.
    Free,
    /// A component before the last is missing.
    NoParent,
    /// A component before the last is a file.
    NotADirectory,
}

/// Reads one volume.
pub(crate) struct Walk<'v, Z: RawZone> {
    pub cache: &'v mut BlockCache<Z>,
    pub geometry: &'v Geometry,
    /// Chains of directories on the way that come to free clusters.
    loose: Vec<Chain>,
    /// Places of entries behind the end of a directory on the way.
    behind: Vec<u64>,
}

impl<'v, Z: RawZone> Walk<'v, Z> {
    pub fn new(cache: &'v mut BlockCache<Z>, geometry: &'v Geometry) -> Self {
        Self { cache, geometry, loose: Vec::new(), behind: Vec::new() }
    }

    fn link(&mut self, cluster: u32) -> Result<Link, ZoneError> {
        if !self.geometry.holds(cluster) {
            return Err(ZoneError::Corrupt);
        }
        let mut raw = [0; 4];
        self.cache.read_at(self.geometry.fat_start + u64::from(cluster) * 4, &mut raw)?;
        match u32::from_le_bytes(raw) & 0x0FFF_FFFF {
            0 => Ok(Link::Free),
            0x0FFF_FFF7 => Ok(Link::Bad),
            0x0FFF_FFF8.. => Ok(Link::End),
            next if self.geometry.holds(next) => Ok(Link::Next(next)),
            _ => Err(ZoneError::Corrupt),
        }
    }

    /// Calls `visit` with each cluster of a chain; a chain longer than `max` clusters, one that begins in a free cluster,
    /// or one that comes to a bad one, is `Corrupt`. One that comes to a free cluster later ends before it: when it was
    /// lengthened, the table's new end was cut off.
    pub fn chain(
        &mut self,
        first: u32,
        max: u64,
        visit: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Chain, ZoneError> {
        let (mut cluster, mut last, mut clusters) = (first, None, 0);
        loop {
            let link = self.link(cluster)?;
            if link == Link::Free && last.is_some() {
                return Ok(Chain { clusters, loose_end: last });
            }
            clusters += 1;
            if clusters > max || matches!(link, Link::Free | Link::Bad) {
                return Err(ZoneError::Corrupt);
            }
            if visit(cluster).is_break() {
                return Ok(Chain { clusters, loose_end: None });
            }
            last = Some(cluster);
            match link {
                Link::Next(next) => cluster = next,
                _ => return Ok(Chain { clusters, loose_end: None }),
            }
        }
    }

    /// Checks that a file's chain ends, and is long enough for its size.
    pub fn check_file(&mut self, entry: &Entry) -> Result<Chain, ZoneError> {
        let needed = u64::from(entry.size).div_ceil(u64::from(self.geometry.cluster_bytes));
        if entry.first_cluster == 0 {
            return if entry.size == 0 { Ok(Chain::default()) } else { Err(ZoneError::Corrupt) };
        }
        let longest = u64::from(self.geometry.clusters);
        let chain = self.chain(entry.first_cluster, longest, &mut |_| ControlFlow::Continue(()))?;
        if chain.clusters >= needed { Ok(chain) } else { Err(ZoneError::Corrupt) }
    }

    /// Checks that a directory's chain ends and is no longer than directories can be, and that it begins with an entry for
    /// itself, as every one but the root does: else the cluster still holds what was there before.
    pub fn check_directory(&mut self, first: u32) -> Result<(), ZoneError> {
        let longest = MAX_DIRECTORY_BYTES.div_ceil(u64::from(self.geometry.cluster_bytes));
        let chain = self.chain(first, longest, &mut |_| ControlFlow::Continue(()))?;
        if chain.loose_end.is_some() {
            self.loose.push(chain);
        }
        if first != self.geometry.root_cluster {
            let mut raw = [0; 32];
            self.cache.read_at(self.geometry.cluster_at(first)?, &mut raw)?;
            if raw[..11] != *b".          " || parse_entry(&raw, 0).first_cluster != first {
                return Err(ZoneError::Corrupt);
            }
        }
        Ok(())
    }

    /// Ends a chain where it comes to a free cluster: `fatfs` would follow it.
    pub fn tie(&mut self, chain: Chain) -> Result<(), ZoneError> {
        let Some(cluster) = chain.loose_end else { return Ok(()) };
        let mut place = self.geometry.fat_start + u64::from(cluster) * 4;
        while place < self.geometry.fats_end {
            let mut raw = [0; 4];
            self.cache.read_at(place, &mut raw)?;
            // The four high bits are not ours.
            let end = u32::from_le_bytes(raw) & 0xF000_0000 | END_OF_CHAIN;
            self.cache.write_at(place, &end.to_le_bytes())?;
            place += self.geometry.fat_bytes;
        }
        Ok(())
    }

    /// Ties the loose ends of the directories that were walked, and clears what stands behind their ends: the next entry
    /// that is added would bring it back.
    pub fn mend_directories(&mut self) -> Result<(), ZoneError> {
        while let Some(chain) = self.loose.pop() {
            self.tie(chain)?;
        }
        while let Some(place) = self.behind.pop() {
            self.cache.write_at(place, &[0; 32])?;
        }
        Ok(())
    }

    /// The same for every directory of the volume. What is damaged beyond that is left as it is.
    pub fn mend_volume(&mut self) -> Result<(), ZoneError> {
        let (mut seen, mut open) = (HashSet::new(), vec![self.geometry.root_cluster]);
        while let Some(first) = open.pop() {
            // A directory that two entries lead to, or that leads back, is looked through once.
            if !seen.insert(first) {
                continue;
            }
            let mut inner = Vec::new();
            let walked = self.directory(first, &mut |_, entry| {
                if entry.is_directory() {
                    inner.push(entry.first_cluster);
                }
                ControlFlow::Continue(())
            });
            match walked {
                Ok(()) => self.mend_directories()?,
                Err(ZoneError::Corrupt) => {
                    self.loose.clear();
                    self.behind.clear();
                }
                Err(error) => return Err(error),
            }
            open.append(&mut inner);
        }
        Ok(())
    }

    /// Calls `visit` with each entry of a directory but `.`, `..` and the label.
    pub fn directory(
        &mut self,
        first: u32,
        visit: &mut dyn FnMut(&Name, &Entry) -> ControlFlow<()>,
    ) -> Result<(), ZoneError> {
        self.check_directory(first)?;
        let longest = MAX_DIRECTORY_BYTES.div_ceil(u64::from(self.geometry.cluster_bytes));
        let mut clusters = Vec::new();
        self.chain(first, longest, &mut |cluster| {
            clusters.push(cluster);
            ControlFlow::Continue(())
        })?;
        let mut bytes = vec![0; self.geometry.cluster_bytes as usize];
        let mut name = Name::default();
        let mut ended = false;
        for cluster in clusters {
            let start = self.geometry.cluster_at(cluster)?;
            self.cache.read_at(start, &mut bytes)?;
            for (i, raw) in bytes.chunks_exact(32).enumerate() {
                let raw: &[u8; 32] = raw.try_into().unwrap_or(&[0; 32]);
                ended |= raw[0] == 0;
                if ended {
                    // A cut may have kept the sectors before from the medium. By the specification (section 6.1) nothing
                    // behind the first free entry counts.
                    if raw[0] != 0 {
                        self.behind.push(start + i as u64 * 32);
                    }
                } else if raw[0] == 0xE5 {
                    name.clear();
                } else if raw[11] & ATTR_LONG_NAME == ATTR_LONG_NAME {
                    name.add(raw);
                } else if raw[11] & ATTR_VOLUME != 0 {
                    name.clear();
                } else {
                    name.finish(raw);
                    let entry = parse_entry(raw, start + i as u64 * 32);
                    let special = raw[..11] == *b".          " || raw[..11] == *b"..         ";
                    if !special && visit(&name, &entry).is_break() {
                        return Ok(());
                    }
                    name.clear();
                }
            }
        }
        Ok(())
    }

    /// Where `path` leads; every directory on the way is checked.
    pub fn locate(&mut self, path: &str) -> Result<Found, ZoneError> {
        let mut directory = self.geometry.root_cluster;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let wanted: Vec<char> = part.chars().flat_map(char::to_uppercase).collect();
            let mut found = None;
            self.directory(directory, &mut |name, entry| {
                if name.matches(&wanted) {
                    found = Some(entry.clone());
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            let last = parts.peek().is_none();
            match found {
                None if last => return Ok(Found::Free),
                None => return Ok(Found::NoParent),
                Some(entry) if last => return Ok(Found::Entry(entry)),
                Some(entry) if entry.is_directory() => directory = entry.first_cluster,
                Some(_) => return Ok(Found::NotADirectory),
            }
        }
        Ok(Found::NoParent)
    }

    /// Clusters that no file or directory has.
    pub fn free_clusters(&mut self) -> Result<u64, ZoneError> {
        let mut free = 0;
        self.entries(&mut |_, part| {
            free += match *part == EMPTY[..part.len()] {
                true => part.len() as u64 / 4,
                false => part.chunks_exact(4).filter(|raw| is_free(raw)).count() as u64,
            };
        })?;
        Ok(free)
    }

    /// What is in front of the clusters, and the clusters that are not free.
    pub fn used(&mut self) -> Result<Vec<Range<u64>>, ZoneError> {
        let (data_start, cluster_bytes) = (self.geometry.data_start, u64::from(self.geometry.cluster_bytes));
        let (mut ranges, mut last) = (Vec::new(), 0..data_start);
        self.entries(&mut |first, part| {
            if *part == EMPTY[..part.len()] {
                return;
            }
            for (index, _) in (first..).zip(part.chunks_exact(4)).filter(|(_, raw)| !is_free(raw)) {
                let start = data_start + index * cluster_bytes;
                if start > last.end {
                    ranges.push(std::mem::replace(&mut last, start..start));
                }
                last.end = start + cluster_bytes;
            }
        })?;
        ranges.push(last);
        Ok(ranges)
    }

    /// Shows the entries of all clusters, some at a time, with how many clusters are in front of these.
    fn entries(&mut self, visit: &mut dyn FnMut(u64, &[u8])) -> Result<(), ZoneError> {
        let mut buf = vec![0; 64 * 1024];
        let begin = self.geometry.fat_start + u64::from(FIRST_CLUSTER) * 4;
        let end = begin + u64::from(self.geometry.clusters) * 4;
        let mut at = begin;
        while at < end {
            let take = (end - at).min(buf.len() as u64) as usize;
            self.cache.read_at(at, &mut buf[..take])?;
            for part in buf[..take].chunks(EMPTY.len()) {
                visit((at - begin) / 4, part);
                at += part.len() as u64;
            }
        }
        Ok(())
    }
}

/// Whether a table's entry says that its cluster is free.
fn is_free(raw: &[u8]) -> bool {
    raw[..3] == [0; 3] && raw[3] & 0x0F == 0
}

fn parse_entry(raw: &[u8; 32], position: u64) -> Entry {
    let u16_at = |at: usize| u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]));
    Entry {
        attributes: raw[11],
        first_cluster: u16_at(20) << 16 | u16_at(26),
        size: u32::from_le_bytes([raw[28], raw[29], raw[30], raw[31]]),
        position,
    }
}

/// An entry's long and short name. Rules as in `fatfs`: a long name whose parts or checksum do not fit is ignored.
pub(crate) struct Name {
    long: [u16; UNITS_PER_ENTRY * MAX_NAME_ENTRIES],
    long_length: usize,
    /// The number of the part read last; 0 where none counts.
    part: u8,
    checksum: u8,
    short: [u8; 12],
    short_length: usize,
    /// The short name with the lower case that its flags ask for.
    shown: [u8; 12],
}

impl Default for Name {
    fn default() -> Self {
        Self {
            long: [0; UNITS_PER_ENTRY * MAX_NAME_ENTRIES],
            long_length: 0,
            part: 0,
            checksum: 0,
            short: [b' '; 12],
            short_length: 0,
            shown: [b' '; 12],
        }
    }
}

impl Name {
    fn clear(&mut self) {
        self.part = 0;
        self.long_length = 0;
    }

    fn add(&mut self, raw: &[u8; 32]) {
        let (order, checksum) = (raw[0] & 0x1F, raw[13]);
        if order == 0 {
            return self.clear();
        }
        if raw[0] & 0x40 != 0 {
            self.part = order;
            self.checksum = checksum;
            self.long_length = usize::from(order) * UNITS_PER_ENTRY;
        } else if self.part == 0 || order + 1 != self.part || checksum != self.checksum {
            return self.clear();
        } else {
            self.part -= 1;
        }
        let start = usize::from(order - 1) * UNITS_PER_ENTRY;
        let units = raw[1..11].chunks_exact(2).chain(raw[14..26].chunks_exact(2)).chain(raw[28..32].chunks_exact(2));
        for (to, from) in self.long[start..].iter_mut().zip(units) {
            *to = u16::from_le_bytes([from[0], from[1]]);
        }
    }

    /// Takes the short entry that ends a name.
    fn finish(&mut self, raw: &[u8; 32]) {
        let checksum = raw[..11].iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.part != 1 || checksum != self.checksum {
            self.clear();
        }
        while self.long_length > 0 && matches!(self.long[self.long_length - 1], 0 | 0xFFFF) {
            self.long_length -= 1;
        }
        let mut lower = [0; 11];
        lower.copy_from_slice(&raw[..11]);
        if raw[12] & 0x08 != 0 {
            lower[..8].make_ascii_lowercase();
        }
        if raw[12] & 0x10 != 0 {
            lower[8..].make_ascii_lowercase();
        }
        let mut upper = [0; 11];
        upper.copy_from_slice(&raw[..11]);
        (self.short, self.short_length) = dotted(&upper);
        (self.shown, _) = dotted(&lower);
    }

    fn long_chars(&self) -> impl Iterator<Item = char> + '_ {
        char::decode_utf16(self.long[..self.long_length].iter().copied())
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    /// Whether this is the name `wanted`, given in upper case.
    pub fn matches(&self, wanted: &[char]) -> bool {
        let is = |chars: &mut dyn Iterator<Item = char>| chars.flat_map(char::to_uppercase).eq(wanted.iter().copied());
        is(&mut self.long_chars()) && self.long_length > 0
            || is(&mut self.short[..self.short_length].iter().map(|&byte| decode(byte)))
    }

    /// The name to show.
    pub fn text(&self) -> String {
        if self.long_length > 0 {
            self.long_chars().collect()
        } else {
            self.shown[..self.short_length].iter().map(|&byte| decode(byte)).collect()
        }
    }
}

/// `NAME    EXT` as `NAME.EXT`, and its length.
fn dotted(raw: &[u8; 11]) -> ([u8; 12], usize) {
    let length = |part: &[u8]| part.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last + 1);
    let (name, extension) = (length(&raw[..8]), length(&raw[8..]));
    let mut out = [b' '; 12];
    out[..name].copy_from_slice(&raw[..name]);
    let mut total = name;
    if extension > 0 {
        out[name] = b'.';
        out[name + 1..name + 1 + extension].copy_from_slice(&raw[8..8 + extension]);
        total = name + 1 + extension;
    }
    if out[0] == 0x05 {
        out[0] = 0xE5;
    }
    (out, total)
}

fn decode(byte: u8) -> char {
    if byte <= 0x7F { char::from(byte) } else { char::REPLACEMENT_CHARACTER }
}
