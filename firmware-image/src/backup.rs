//! The backup: the updater for each platform, one behind the other, sealed in a backup slot
//! (`docs/formats/hidden-zone.md`).
//!
//! ```text
//! index length u32 │ index (postcard) │ zeros to 4096 │ image │ zeros to 8 │ image …
//! ```
//! Offsets count from the start of the body. The images carry their own signatures; the index only says where they are.

use embedded_io::{ErrorType, Read, Seek, SeekFrom};
use serde::{Deserialize, Serialize};

use crate::ZoneError;
use crate::paths::MAX_PLATFORM_BYTES;
use crate::slot::Body;
use crate::storage::{read_exact_at, seek_target};
use crate::updater_image::MAX_IMAGE_BYTES;

/// Images in a backup.
pub const MAX_IMAGES: usize = 8;
/// Bytes before the first image.
pub const INDEX_BYTES: usize = 4096;

/// Bytes that hold the longest list of entries: each at most 53 with its lengths.
const ENTRIES_BYTES: usize = 512;

/// Where an image stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its platform.
    pub platform: heapless::String<MAX_PLATFORM_BYTES>,
    /// From the start of the body.
    pub offset: u64,
    /// Bytes of the image with its trailer.
    pub length: u64,
}

/// What a backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// One entry a platform.
    pub entries: heapless::Vec<Entry, MAX_IMAGES>,
}

/// The index is damaged or names what is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedIndex;

impl Index {
    /// The index of images of these platforms and lengths, in this order.
    ///
    /// # Errors
    /// [`MalformedIndex`] for too many images, or a name or image that is too long.
    pub fn layout<'a>(images: impl Iterator<Item = (&'a str, u64)>) -> Result<Self, MalformedIndex> {
        let mut index = Self::default();
        let mut offset = INDEX_BYTES as u64;
        for (platform, length) in images {
            let platform = heapless::String::try_from(platform).map_err(|_| MalformedIndex)?;
            if length > MAX_IMAGE_BYTES {
                return Err(MalformedIndex);
            }
            index.entries.push(Entry { platform, offset, length }).map_err(|_| MalformedIndex)?;
            offset = (offset + length).next_multiple_of(8);
        }
        Ok(index)
    }

    /// Bytes of the whole body.
    pub fn body_bytes(&self) -> u64 {
        self.entries.last().map_or(INDEX_BYTES as u64, |last| last.offset + last.length)
    }

    /// The image of a platform.
    pub fn find(&self, platform: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.platform == platform)
    }

    /// Reads and checks the index at the start of an opened body of `body_bytes`.
    ///
    /// # Errors
    /// What reading reports; `Corrupt` for an index that contradicts itself.
    pub fn read<R>(body: &mut R, body_bytes: u64) -> Result<Self, ZoneError>
    where
        R: Read + Seek + ErrorType<Error = ZoneError>,
    {
        let mut head = [0; 4];
        read_exact_at(body, 0, &mut head)?;
        let length = u32::from_le_bytes(head) as usize;
        if length > INDEX_BYTES - 4 {
            return Err(ZoneError::Corrupt);
        }
        // What a later format appended may lie behind these bytes.
        let mut bytes = [0; ENTRIES_BYTES];
        let text = &mut bytes[..length.min(ENTRIES_BYTES)];
        read_exact_at(body, 4, text)?;
        let (index, _appended) = postcard::take_from_bytes::<Self>(&*text).map_err(|_| ZoneError::Corrupt)?;
        let within = |entry: &Entry| {
            entry.offset >= INDEX_BYTES as u64
                && entry.length <= MAX_IMAGE_BYTES
                && entry.offset.checked_add(entry.length).is_some_and(|end| end <= body_bytes)
        };
        if index.entries.iter().all(within) { Ok(index) } else { Err(ZoneError::Corrupt) }
    }

    fn write(&self, out: &mut [u8; INDEX_BYTES]) -> Result<(), ZoneError> {
        let length = postcard::to_slice(self, &mut out[4..]).map_err(|_| ZoneError::OutOfBounds)?.len();
        out[..4].copy_from_slice(&(length as u32).to_le_bytes());
        Ok(())
    }
}

/// A backup's plaintext, made from images that are read when they are needed.
pub struct BackupBody<'i, I> {
    index: Index,
    head: [u8; INDEX_BYTES],
    images: &'i mut [I],
}

impl<'i, I: Body> BackupBody<'i, I> {
    /// The body of `images`, which stand in the order of the index.
    ///
    /// # Errors
    /// `OutOfBounds` where index and images do not agree.
    pub fn new(index: Index, images: &'i mut [I]) -> Result<Self, ZoneError> {
        let agree = index.entries.len() == images.len()
            && index.entries.iter().zip(images.iter()).all(|(entry, image)| entry.length == image.len());
        if !agree {
            return Err(ZoneError::OutOfBounds);
        }
        let mut head = [0; INDEX_BYTES];
        index.write(&mut head)?;
        Ok(Self { index, head, images })
    }
}

impl<I: Body> Body for BackupBody<'_, I> {
    fn len(&self) -> u64 {
        self.index.body_bytes()
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), ZoneError> {
        buf.fill(0);
        let end = offset.checked_add(buf.len() as u64).ok_or(ZoneError::OutOfBounds)?;
        let head = &self.head;
        copy_part(offset, end, 0, INDEX_BYTES as u64, buf, |at, part| {
            let at = at as usize;
            part.copy_from_slice(&head[at..at + part.len()]);
            Ok(())
        })?;
        for (entry, image) in self.index.entries.iter().zip(self.images.iter_mut()) {
            copy_part(offset, end, entry.offset, entry.length, buf, |at, part| image.read_at(at, part))?;
        }
        Ok(())
    }
}

/// Fills the part of `buf` (which stands for `from..to`) that overlaps `start..start + length`.
fn copy_part(
    from: u64,
    to: u64,
    start: u64,
    length: u64,
    buf: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), ZoneError>,
) -> Result<(), ZoneError> {
    let low = from.max(start);
    let high = to.min(start + length);
    if low >= high {
        return Ok(());
    }
    read(low - start, &mut buf[(low - from) as usize..(high - from) as usize])
}

/// One image inside an opened backup, as a file of its own.
pub struct ImageReader<'r, R> {
    body: &'r mut R,
    offset: u64,
    length: u64,
    position: u64,
}

impl<'r, R> ImageReader<'r, R> {
    /// The image that `entry` describes.
    pub fn new(body: &'r mut R, entry: &Entry) -> Self {
        Self { body, offset: entry.offset, length: entry.length, position: 0 }
    }

    /// Bytes of the image.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl<R> ErrorType for ImageReader<'_, R> {
    type Error = ZoneError;
}

impl<R: Read + Seek + ErrorType<Error = ZoneError>> Read for ImageReader<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ZoneError> {
        let left = self.length.saturating_sub(self.position);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if take == 0 {
            return Ok(0);
        }
        self.body.seek(SeekFrom::Start(self.offset + self.position))?;
        let n = self.body.read(&mut buf[..take])?;
        self.position += n as u64;
        Ok(n)
    }
}

impl<R: Read + Seek + ErrorType<Error = ZoneError>> Seek for ImageReader<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64, ZoneError> {
        self.position = seek_target(to, self.position, self.length)?;
        Ok(self.position)
    }
}
