//! How a store's bytes come: a trait for any plain file server, and a directory as one.
//!
//! A transport is not trusted. It promises three things only: it never delivers more than the caller's ceiling, it says
//! at which offset the bytes stand, and it tells what may be tried again from what may not.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Takes the bytes as they come: the offset of the first one in the object, and the bytes. An error ends the transfer
/// and is returned by it.
pub type Sink<'a> = dyn FnMut(u64, &[u8]) -> Result<(), TransportError> + 'a;

/// Why bytes did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The server is there and has no such object.
    #[error("{path} is not there")]
    NotFound {
        /// The object.
        path: String,
    },
    /// No connection, a time-out, a stall, a server that is overloaded: trying again may help.
    #[error("{path} cannot be reached")]
    Unreachable {
        /// The object.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server says no, and will say so again.
    #[error("{path} is refused: {reason}")]
    Refused {
        /// The object.
        path: String,
        /// What the server said.
        reason: String,
    },
    /// More bytes than the caller's ceiling.
    #[error("{path} is longer than {limit} bytes")]
    TooLarge {
        /// The object.
        path: String,
        /// The ceiling.
        limit: u64,
    },
    /// The server contradicts itself: another range than asked for, fewer bytes than it announced.
    #[error("the server's answer for {path} makes no sense: {reason}")]
    Bad {
        /// The object.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The sink wanted no more. Carries whatever made it stop.
    #[error("the transfer was stopped")]
    Stopped(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TransportError {
    /// Whether the same request may succeed later. Another server may always do better.
    pub fn retry_may_help(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Bad { .. })
    }

    /// The error of a sink that wants no more.
    pub fn stop(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Stopped(reason.into())
    }
}

/// What came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetOutcome {
    /// The offset of the first byte that the sink was given. 0 although a range was asked for: the server knows no
    /// ranges and sent everything.
    pub start: u64,
    /// How many bytes the sink was given.
    pub bytes: u64,
    /// The length of the whole object, where the server told.
    pub whole: Option<u64>,
    /// The server's own time (HTTP `Date`), as seconds since 1970.
    pub date: Option<i64>,
}

impl GetOutcome {
    /// An outcome without what only some servers tell.
    pub fn new(start: u64, bytes: u64) -> Self {
        Self { start, bytes, whole: None, date: None }
    }

    /// With the length of the whole object.
    pub fn with_whole(mut self, whole: Option<u64>) -> Self {
        self.whole = whole;
        self
    }

    /// With the server's time.
    pub fn with_date(mut self, date: Option<i64>) -> Self {
        self.date = date;
        self
    }
}

/// A place that a store is read from.
pub trait Transport: Send + Sync {
    /// The place, for people: an address without credentials, a directory.
    fn describe(&self) -> String;

    /// Gets the object at `path` (relative to the store, `/` between components), or `range` of it, into `sink`.
    ///
    /// A server that knows no ranges may send the whole object: the sink then sees offsets outside of `range`. At most
    /// `max_bytes` are delivered, whatever the server sends. A transport may take a server's 403 and 410 as `NotFound`,
    /// as object stores without the right to list answer so.
    ///
    /// # Errors
    /// See [`TransportError`].
    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError>;
}

impl<T: Transport + ?Sized> Transport for &T {
    fn describe(&self) -> String {
        (**self).describe()
    }
    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        (**self).get(path, range, max_bytes, sink)
    }
}

/// Gets a whole object of at most `max_bytes`, and what the server told.
///
/// # Errors
/// As [`Transport::get`]; `Bad` where the pieces do not follow one another.
pub fn get_all_with_outcome<T: Transport + ?Sized>(
    transport: &T,
    path: &str,
    max_bytes: u64,
) -> Result<(Vec<u8>, GetOutcome), TransportError> {
    let mut bytes = Vec::new();
    let outcome = transport.get(path, None, max_bytes, &mut |offset, piece| {
        if offset != bytes.len() as u64 {
            return Err(TransportError::Bad { path: path.to_owned(), reason: "a piece out of order".into() });
        }
        if (bytes.len() + piece.len()) as u64 > max_bytes {
            return Err(TransportError::TooLarge { path: path.to_owned(), limit: max_bytes });
        }
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok((bytes, outcome))
}

/// Gets a whole object of at most `max_bytes`.
///
/// # Errors
/// As [`get_all_with_outcome`].
pub fn get_all<T: Transport + ?Sized>(transport: &T, path: &str, max_bytes: u64) -> Result<Vec<u8>, TransportError> {
    get_all_with_outcome(transport, path, max_bytes).map(|(bytes, _)| bytes)
}

/// Gets exactly `range` of an object into `sink`, also from a server that sends the whole object. The sink sees each
/// byte of the range once, in order. `max_bytes` bounds what may come over the wire: give the object's length to allow
/// servers without ranges, the range's length to refuse them.
///
/// # Errors
/// As [`Transport::get`]; `Bad` where the range does not come whole.
pub fn get_range<T: Transport + ?Sized>(
    transport: &T,
    path: &str,
    range: Range<u64>,
    max_bytes: u64,
    sink: &mut Sink<'_>,
) -> Result<GetOutcome, TransportError> {
    let mut next = range.start;
    let mut finished = false;
    let result = transport.get(path, Some(range.clone()), max_bytes, &mut |offset, piece| {
        let end = offset.saturating_add(piece.len() as u64);
        if offset > next {
            return Err(TransportError::Bad { path: path.to_owned(), reason: "a gap in the bytes".into() });
        }
        if end > next && next < range.end {
            // Both differences are within `piece`.
            let from = (next - offset) as usize;
            let to = (end.min(range.end) - offset) as usize;
            sink(next, &piece[from..to])?;
            next = end.min(range.end);
        }
        if next >= range.end && end > range.end {
            // A whole object is coming: what follows is not wanted.
            finished = true;
            return Err(TransportError::stop("all wanted bytes are here"));
        }
        Ok(())
    });
    let outcome = match result {
        Err(TransportError::Stopped(_)) if finished => GetOutcome::new(0, range.end),
        other => other?,
    };
    if next < range.end {
        let reason = format!("it ends at {next}, before the range {}..{} does", range.start, range.end);
        return Err(TransportError::Bad { path: path.to_owned(), reason });
    }
    Ok(outcome)
}

/// A store in a directory: on the virtual zone, on a network drive, on the release machine.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

const READ_BYTES: usize = 128 << 10;

impl Directory {
    /// The store at `root`. Nothing is read yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Transport for Directory {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        if crate::paths::check(path).is_err() {
            return Err(TransportError::Refused { path: path.to_owned(), reason: "not a path of a store".into() });
        }
        let unreachable =
            |error: std::io::Error| TransportError::Unreachable { path: path.to_owned(), source: error.into() };
        let not_found = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory if self.root.is_dir() => {
                TransportError::NotFound { path: path.to_owned() }
            }
            _ => unreachable(error),
        };
        let mut file = File::open(self.root.join(path)).map_err(not_found)?;
        let metadata = file.metadata().map_err(unreachable)?;
        if !metadata.is_file() {
            return Err(TransportError::NotFound { path: path.to_owned() });
        }
        let whole = metadata.len();
        let wanted = range.unwrap_or(0..whole);
        let (start, end) = (wanted.start.min(whole), wanted.end.min(whole));
        if end.saturating_sub(start) > max_bytes {
            return Err(TransportError::TooLarge { path: path.to_owned(), limit: max_bytes });
        }
        file.seek(SeekFrom::Start(start)).map_err(unreachable)?;
        let mut buffer =
            vec![0; READ_BYTES.min(usize::try_from(end.saturating_sub(start)).unwrap_or(READ_BYTES)).max(1)];
        let mut at = start;
        while at < end {
            let take = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let n = file.read(&mut buffer[..take]).map_err(unreachable)?;
            if n == 0 {
                return Err(TransportError::Bad { path: path.to_owned(), reason: "it became shorter".into() });
            }
            sink(at, &buffer[..n])?;
            at += n as u64;
        }
        Ok(GetOutcome::new(start, at - start).with_whole(Some(whole)))
    }
}

/// A transport that counts.
#[derive(Debug, Default)]
pub struct Counted<T> {
    inner: T,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl<T> Counted<T> {
    /// Counts what goes through `inner`.
    pub fn new(inner: T) -> Self {
        Self { inner, requests: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Requests so far, failed ones included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes of content so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The transport that is counted.
    pub fn inner(&self) -> &T {
        &self.inner
    }
}

impl<T: Transport> Transport for Counted<T> {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inner.get(path, range, max_bytes, &mut |offset, piece| {
            self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            sink(offset, piece)
        })
    }
}
