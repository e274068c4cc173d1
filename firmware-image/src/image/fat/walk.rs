//! Reading the tables and directories of a volume, bounded on any input.
//!
//! `fatfs` follows whatever a table says: a loop never ends, a number out of range overflows. So every path is walked
//! here first, by the same rules for names as `fatfs` has, and only a path whose directories are sound is handed on.

use std::iter::once;
use std::ops::{ControlFlow, Range};

use crate::boot_sector::{DIRECTORY_ENTRY_BYTES, FIRST_CLUSTER, Geometry, Root};
use crate::free_zone::{Kind, Metadata};
use crate::image::block_cache::BlockCache;
use crate::{RawZone, ZoneError};

/// The largest directory: 65,536 entries (FAT specification, section 6).
pub(crate) const MAX_DIRECTORY_BYTES: u64 = 65_536 * DIRECTORY_ENTRY_BYTES;
/// UTF-16 units in one long-name entry, and the most entries of a name.
pub(crate) const UNITS_PER_ENTRY: usize = 13;
const MAX_NAME_ENTRIES: usize = 31;

/// A stretch of table in which every cluster is free.
const EMPTY: [u8; 1024] = [0; 1024];

/// The bits of a FAT32 table's entry that are ours.
const LINK_BITS: u32 = 0x0FFF_FFFF;

/// The first byte of an entry that was removed.
pub(crate) const DELETED: u8 = 0xE5;
/// Of the number of a long name's part: the last, which stands first.
const LAST_PART: u8 = 0x40;

const ATTR_VOLUME: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
const ATTR_LONG_NAME: u8 = 0x0F;

/// What the table says follows a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Free,
    /// A number, which need not be a cluster's.
    Next(u32),
    Bad,
    End,
}

impl Link {
    /// Reads an entry of two bytes (FAT16) or four (section 4).
    pub fn parse(entry: &[u8]) -> Self {
        let (value, bad) = match *entry {
            [a, b, c, d] => (u32::from_le_bytes([a, b, c, d]) & LINK_BITS, 0x0FFF_FFF7),
            [a, b] => (u32::from(u16::from_le_bytes([a, b])), 0xFFF7),
            _ => return Self::Bad,
        };
        match value {
            0 => Self::Free,
            value if value == bad => Self::Bad,
            value if value > bad => Self::End,
            next => Self::Next(next),
        }
    }

    /// Makes an entry the end of its chain. The bits of a FAT32 entry that are nobody's stay.
    pub fn end(entry: &mut [u8]) {
        if let Some((last, link)) = entry.split_last_mut() {
            link.fill(0xFF);
            *last |= if link.len() == 1 { 0xFF } else { 0x0F };
        }
    }
}

/// A directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Directory {
    Root,
    /// One that an entry leads to, by its first cluster: not checked.
    At(u32),
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

    /// The directory that this is the entry of.
    pub fn directory(&self) -> Directory {
        Directory::At(self.first_cluster)
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

/// Clusters that were met: a bit for each, at most 8 MiB.
struct Known(Vec<u64>);

impl Known {
    fn new(geometry: &Geometry) -> Self {
        Self(vec![0; (geometry.clusters + FIRST_CLUSTER) as usize / 64 + 1])
    }

    /// Whether it was not met before.
    fn insert(&mut self, cluster: u32) -> bool {
        let (word, bit) = (&mut self.0[cluster as usize / 64], 1 << (cluster % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
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
        let (mut raw, width) = ([0; 4], self.geometry.entry_bytes());
        let entry = &mut raw[..width as usize];
        self.cache.read_at(self.geometry.fat_start + u64::from(cluster) * width, entry)?;
        match Link::parse(entry) {
            Link::Next(next) if !self.geometry.holds(next) => Err(ZoneError::Corrupt),
            link => Ok(link),
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

    /// Where a directory's entries stand, in pieces of at most a cluster; FAT16's root is one piece. A directory's chain must end and be no
    /// longer than directories can be, and every one but the root begins with an entry for itself: else the cluster still
    /// holds what was there before.
    fn pieces(&mut self, directory: Directory) -> Result<Vec<Range<u64>>, ZoneError> {
        let first = match (directory, self.geometry.root) {
            (Directory::Root, Root::Fixed { start, bytes }) => return Ok(once(start..start + bytes).collect()),
            (Directory::Root, Root::Cluster(first)) | (Directory::At(first), _) => first,
        };
        let (geometry, cluster_bytes) = (self.geometry, u64::from(self.geometry.cluster_bytes));
        let mut pieces = Vec::new();
        let chain = self.chain(first, MAX_DIRECTORY_BYTES.div_ceil(cluster_bytes), &mut |cluster| {
            // The chain follows clusters of the volume alone: each has a place.
            pieces.extend(geometry.cluster_at(cluster).map(|start| start..start + cluster_bytes));
            ControlFlow::Continue(())
        })?;
        if chain.loose_end.is_some() {
            self.loose.push(chain);
        }
        if self.geometry.root != Root::Cluster(first) {
            let mut raw = [0; 32];
            self.cache.read_at(self.geometry.cluster_at(first)?, &mut raw)?;
            if raw[..11] != *b".          " || self.parse_entry(&raw, 0).first_cluster != first {
                return Err(ZoneError::Corrupt);
            }
        }
        Ok(pieces)
    }

    /// Ends a chain where it comes to a free cluster: `fatfs` would follow it.
    pub fn tie(&mut self, chain: Chain) -> Result<(), ZoneError> {
        let Some(cluster) = chain.loose_end else { return Ok(()) };
        let width = self.geometry.entry_bytes();
        let mut place = self.geometry.fat_start + u64::from(cluster) * width;
        while place < self.geometry.fats_end {
            let mut raw = [0; 4];
            let entry = &mut raw[..width as usize];
            self.cache.read_at(place, entry)?;
            Link::end(entry);
            self.cache.write_at(place, entry)?;
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

    /// The same for every directory of the volume, and for files whose chains lead to free clusters: before these are given to
    /// others. What is damaged beyond that is left as it is. Each cluster is looked at once, however many chains lead there.
    pub fn mend_volume(&mut self) -> Result<(), ZoneError> {
        let mut known = Known::new(self.geometry);
        let mut open = vec![Directory::Root];
        if let Root::Cluster(first) = self.geometry.root {
            self.follow(first, &mut known)?;
        }
        while let Some(directory) = open.pop() {
            let (mut inner, mut files) = (Vec::new(), Vec::new());
            let walked = self.directory(directory, &mut |_, entry| {
                match entry.is_directory() {
                    true => inner.push(entry.first_cluster),
                    false => files.push(entry.first_cluster),
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
            for first in files {
                if let Some(chain) = self.follow(first, &mut known)? {
                    self.tie(chain)?;
                }
            }
            for first in inner {
                // One that another leads to as well, or that leads back, is looked through once.
                if self.follow(first, &mut known)?.is_some() {
                    open.push(Directory::At(first));
                }
            }
        }
        Ok(())
    }

    /// Follows a chain over clusters that no other has; `None`: it is damaged, or comes to one that is known.
    fn follow(&mut self, first: u32, known: &mut Known) -> Result<Option<Chain>, ZoneError> {
        let mut is_new = true;
        let followed = self.chain(first, u64::MAX, &mut |cluster| {
            is_new = known.insert(cluster);
            if is_new { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match followed {
            Ok(chain) => Ok(is_new.then_some(chain)),
            Err(ZoneError::Corrupt) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Calls `visit` with each entry of a directory but `.`, `..` and the label.
    pub fn directory(
        &mut self,
        directory: Directory,
        visit: &mut dyn FnMut(&Name, &Entry) -> ControlFlow<()>,
    ) -> Result<(), ZoneError> {
        let mut bytes = Vec::new();
        let mut name = Name::default();
        let mut ended = false;
        for Range { start, end } in self.pieces(directory)? {
            bytes.resize((end - start) as usize, 0);
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
                } else if raw[0] == DELETED {
                    name.clear();
                } else if raw[11] & ATTR_LONG_NAME == ATTR_LONG_NAME {
                    name.add(raw);
                } else if raw[11] & ATTR_VOLUME != 0 {
                    name.clear();
                } else {
                    name.finish(raw);
                    let entry = self.parse_entry(raw, start + i as u64 * 32);
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

    /// Where the root directory stands: in clusters, or at the one place that it has in FAT16.
    pub fn root_pieces(&mut self) -> Result<Vec<Range<u64>>, ZoneError> {
        self.pieces(Directory::Root)
    }

    /// Whether the root directory takes so many more entries in a row as it is.
    pub fn root_has_room(&mut self, entries: usize) -> Result<bool, ZoneError> {
        let (mut run, mut ended, mut bytes) = (0, false, Vec::new());
        for Range { start, end } in self.pieces(Directory::Root)? {
            bytes.resize((end - start) as usize, 0);
            self.cache.read_at(start, &mut bytes)?;
            for entry in bytes.chunks_exact(DIRECTORY_ENTRY_BYTES as usize) {
                ended |= entry[0] == 0;
                run = if ended || entry[0] == DELETED { run + 1 } else { 0 };
                if run >= entries {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Clears these pieces of a directory from `place` on, which stands in one of them or at its end.
    pub fn clear(&mut self, pieces: &[Range<u64>], place: u64) -> Result<(), ZoneError> {
        let first = pieces.iter().position(|piece| (piece.start..=piece.end).contains(&place)).unwrap_or(0);
        for (number, piece) in pieces.iter().enumerate().skip(first) {
            let start = if number == first { place.max(piece.start) } else { piece.start };
            self.cache.write_at(start, &vec![0; piece.end.saturating_sub(start) as usize])?;
        }
        Ok(())
    }

    /// Gives a name that was removed from `directory` its entries again, which were not used since: the short one at `position`,
    /// whose first byte was `first`, and those of its long name in front of it.
    pub fn put_back(&mut self, directory: Directory, position: u64, first: u8) -> Result<(), ZoneError> {
        let pieces = self.pieces(directory)?;
        let entries = |piece: &Range<u64>| {
            let (start, count) = (piece.start, (piece.end - piece.start) / DIRECTORY_ENTRY_BYTES);
            (0..count).rev().map(move |number| start + number * DIRECTORY_ENTRY_BYTES)
        };
        let mut places = pieces.iter().rev().flat_map(entries).skip_while(|place| *place != position);
        let mut short = [0; 32];
        self.cache.read_at(position, &mut short)?;
        if places.next().is_none() || short[0] != DELETED {
            return Ok(());
        }
        short[0] = first;
        self.cache.write_at(position, &short)?;
        let checksum = short_checksum(&short);
        let (mut part, mut last) = (0, None);
        for place in places.take(MAX_NAME_ENTRIES) {
            let mut long = [0; 32];
            self.cache.read_at(place, &mut long)?;
            if long[0] != DELETED || long[11] != ATTR_LONG_NAME || long[13] != checksum {
                break;
            }
            part += 1;
            self.cache.write_at(place, &[part])?;
            last = Some(place);
            // The part that ends the name: its last unit is an end, or filled up behind one.
            if long[30..] == [0xFF, 0xFF] || long[30..] == [0, 0] {
                break;
            }
        }
        if let Some(place) = last {
            self.cache.write_at(place, &[part | LAST_PART])?;
        }
        Ok(())
    }

    fn parse_entry(&self, raw: &[u8; 32], position: u64) -> Entry {
        let u16_at = |at: usize| u32::from(u16::from_le_bytes([raw[at], raw[at + 1]]));
        // In FAT16 the other half holds what some system wanted there.
        let high = if self.geometry.entry_bytes() == 4 { u16_at(20) } else { 0 };
        Entry {
            attributes: raw[11],
            first_cluster: high << 16 | u16_at(26),
            size: u32::from_le_bytes([raw[28], raw[29], raw[30], raw[31]]),
            position,
        }
    }

    /// Where `path` leads; every directory on the way is checked.
    pub fn locate(&mut self, path: &str) -> Result<Found, ZoneError> {
        let mut directory = Directory::Root;
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
                Some(entry) if entry.is_directory() => directory = entry.directory(),
                Some(_) => return Ok(Found::NotADirectory),
            }
        }
        Ok(Found::NoParent)
    }

    /// Clusters that no file or directory has.
    pub fn free_clusters(&mut self) -> Result<u64, ZoneError> {
        let (mut free, width) = (0, self.geometry.entry_bytes() as usize);
        self.entries(&mut |_, part| {
            free += match *part == EMPTY[..part.len()] {
                true => part.len() / width,
                false => part.chunks_exact(width).filter(|entry| is_free(entry)).count(),
            };
        })?;
        Ok(free as u64)
    }

    /// What is in front of the clusters, and the clusters that are not free.
    pub fn used(&mut self) -> Result<Vec<Range<u64>>, ZoneError> {
        let (data_start, cluster_bytes) = (self.geometry.data_start, u64::from(self.geometry.cluster_bytes));
        let width = self.geometry.entry_bytes() as usize;
        let (mut ranges, mut last) = (Vec::new(), 0..data_start);
        self.entries(&mut |first, part| {
            if *part == EMPTY[..part.len()] {
                return;
            }
            for (index, _) in (first..).zip(part.chunks_exact(width)).filter(|(_, entry)| !is_free(entry)) {
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
        let width = self.geometry.entry_bytes();
        let begin = self.geometry.fat_start + u64::from(FIRST_CLUSTER) * width;
        let end = begin + u64::from(self.geometry.clusters) * width;
        let mut at = begin;
        while at < end {
            let take = (end - at).min(buf.len() as u64) as usize;
            self.cache.read_at(at, &mut buf[..take])?;
            for part in buf[..take].chunks(EMPTY.len()) {
                visit((at - begin) / width, part);
                at += part.len() as u64;
            }
        }
        Ok(())
    }
}

/// Whether a table's entry says that its cluster is free.
fn is_free(entry: &[u8]) -> bool {
    Link::parse(entry) == Link::Free
}

/// What the parts of a long name say of the short one (section 7.2).
fn short_checksum(raw: &[u8; 32]) -> u8 {
    raw[..11].iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
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
        if raw[0] & LAST_PART != 0 {
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
        let checksum = short_checksum(raw);
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
