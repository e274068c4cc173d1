//! What a run may take from the network, and what it took: bytes, requests, rate, time.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use release_store::transport::{GetOutcome, Sink};
use release_store::{Transport, TransportError};

/// The most that a rate limit lets through at once after a pause.
const MAX_BURST: Duration = Duration::from_millis(250);

/// Shared by all transports of a run.
#[derive(Debug, Default)]
pub struct Meter {
    max_bytes: Option<u64>,
    bytes_per_sec: Option<u64>,
    requests: AtomicU64,
    bytes: AtomicU64,
    deadline: Mutex<Option<Instant>>,
    /// When the bytes so far are paid for.
    paid: Mutex<Option<Instant>>,
}

/// Why a transfer ended: the bytes that the caller allows are spent.
#[derive(Debug, thiserror::Error)]
#[error("the limit of {0} bytes is reached")]
pub struct BudgetSpent(pub u64);

/// Why a transfer ended: the time that the caller allows is over.
#[derive(Debug, thiserror::Error)]
#[error("no time is left")]
pub struct OutOfTime;

impl Meter {
    /// A meter that lets `max_bytes` through, at `bytes_per_sec`.
    pub fn new(max_bytes: Option<u64>, bytes_per_sec: Option<u64>) -> Arc<Self> {
        Arc::new(Self { max_bytes, bytes_per_sec, ..Self::default() })
    }

    /// Bytes of content so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Requests so far, failed ones included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// What the caller allows.
    pub fn max_bytes(&self) -> Option<u64> {
        self.max_bytes
    }

    /// Lets nothing through after `deadline`.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
    }

    /// What is left until the deadline; `None`: there is none.
    pub fn time_left(&self) -> Option<Duration> {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn check(&self, path: &str) -> Result<(), TransportError> {
        if self.time_left().is_some_and(|left| left.is_zero()) {
            return Err(TransportError::Unreachable { path: path.to_owned(), source: OutOfTime.into() });
        }
        match self.max_bytes {
            Some(max) if self.bytes() >= max => Err(TransportError::stop(BudgetSpent(max))),
            _ => Ok(()),
        }
    }

    /// Counts a piece, and waits as long as the rate asks for.
    fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let Some(rate) = self.bytes_per_sec.filter(|rate| *rate > 0) else { return };
        let now = Instant::now();
        let wait = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let from = paid.unwrap_or(now).max(now.checked_sub(MAX_BURST).unwrap_or(now));
            let until = from + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *paid = Some(until);
            until.saturating_duration_since(now)
        };
        std::thread::sleep(wait);
    }
}

/// A transport whose bytes are counted and limited.
#[derive(Debug)]
pub struct Metered<T> {
    inner: T,
    meter: Arc<Meter>,
}

impl<T> Metered<T> {
    /// `inner`, under `meter`.
    pub fn new(inner: T, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<T: Transport> Transport for Metered<T> {
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
        let meter = &*self.meter;
        meter.check(path)?;
        meter.requests.fetch_add(1, Ordering::Relaxed);
        // The budget ends a transfer, it does not forbid one that is longer: what comes until then is kept.
        self.inner.get(path, range, max_bytes, &mut |offset, piece| {
            meter.count(piece.len() as u64);
            sink(offset, piece)?;
            meter.check(path)
        })
    }
}
