//! Any plain HTTP server as a transport, through `ureq`: connection reuse, proxies and certificates as the system has
//! them.
//!
//! Nothing a server sends is trusted here or bounds anything: lengths, ranges and redirects are checked against what was
//! asked for ([`crate::answer`]), a stalled connection ends after [`STALL`], one that only drips after [`PATIENCE`], an
//! endless answer at the caller's ceiling.

use std::io::Read as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use release_store::transport::{GetOutcome, Sink};
use release_store::{Transport, TransportError};
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use crate::answer::{Head, bad, redirect, refused};
use crate::meter::Meter;
use crate::resolver::SystemResolver;

/// How long a connection may take to come about.
pub const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may be silent.
pub const STALL: Duration = Duration::from_secs(20);
/// How long a server may send less than [`DRIP_BYTES`]. Slower than that, another server does better; and where there is
/// none, the frames that came whole are kept.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What a server must send within [`PATIENCE`], in bytes, or its answer to the end.
pub const DRIP_BYTES: u64 = 8 << 10;
/// The most redirects that are followed.
pub const MAX_REDIRECTS: usize = 3;

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// An error's text up to this length is read to its end, so that the connection can be used again.
const MAX_DRAIN_BYTES: u64 = 16 << 10;
/// How long that may take.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// A store on an HTTP server.
#[derive(Debug)]
pub struct Http {
    agent: Agent,
    base: String,
    meter: Arc<Meter>,
    patience: Duration,
}

/// An agent for all servers of a run.
pub fn agent() -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_per_read(Some(STALL))
        .timeout_recv_response(Some(STALL))
        .max_response_header_size(16 << 10)
        .user_agent("holdfast")
        .build();
    Agent::with_parts(config, DefaultConnector::default(), SystemResolver)
}

impl Http {
    /// The store at `base` (`http:` or `https:`).
    pub fn new(agent: Agent, base: &str, meter: Arc<Meter>) -> Self {
        Self { agent, base: base.trim_end_matches('/').to_owned(), meter, patience: PATIENCE }
    }

    /// With another patience than [`PATIENCE`].
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn send(&self, path: &str, range: Option<&Range<u64>>) -> Result<Response<Body>, TransportError> {
        let mut url = format!("{}/{path}", self.base);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&url);
            if let Some(range) = range {
                let last = range.end.saturating_sub(1);
                request = request.header(header::RANGE, format!("bytes={}-{last}", range.start));
            }
            let response = request
                .config()
                .timeout_global(self.meter.time_left())
                .build()
                .call()
                .map_err(|error| failed(path, error))?;
            if !response.status().is_redirection() || response.status() == StatusCode::NOT_MODIFIED {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| redirect(&url, location));
            url = next.ok_or_else(|| refused(path, "a redirect that leads nowhere safe"))?;
        }
        Err(refused(path, "too many redirects"))
    }
}

fn failed(path: &str, error: ureq::Error) -> TransportError {
    match error {
        ureq::Error::Protocol(error) => bad(path, error.to_string()),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
            refused(path, "its address is malformed")
        }
        other => TransportError::Unreachable { path: path.to_owned(), source: other.into() },
    }
}

impl Transport for Http {
    fn describe(&self) -> String {
        // Without what a person may have put before an `@`.
        match self.base.split_once("://") {
            Some((scheme, rest)) => {
                let host = rest.split('/').next().unwrap_or(rest);
                let plain = host.rsplit_once('@').map_or(rest, |(secret, _)| &rest[secret.len() + 1..]);
                format!("{scheme}://{plain}")
            }
            None => self.base.clone(),
        }
    }

    fn get(
        &self,
        path: &str,
        range: Option<Range<u64>>,
        max_bytes: u64,
        sink: &mut Sink<'_>,
    ) -> Result<GetOutcome, TransportError> {
        if range.as_ref().is_some_and(|range| range.is_empty()) {
            return Ok(GetOutcome::default());
        }
        let response = self.send(path, range.as_ref())?;
        let head = match Head::read(path, response.status(), response.headers(), range.as_ref(), max_bytes) {
            Ok(head) => head,
            Err(error) => {
                if matches!(error, TransportError::NotFound { .. } | TransportError::Unreachable { .. }) {
                    drain(response);
                }
                return Err(error);
            }
        };
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; READ_BYTES];
        let mut came = 0_u64;
        // Only the waiting counts: a rate that the caller limits is no server's fault.
        let (mut waited, mut since) = (Duration::ZERO, 0_u64);
        loop {
            let began = Instant::now();
            let read = reader.read(&mut buffer);
            waited += began.elapsed();
            let n = match read {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(TransportError::Unreachable { path: path.to_owned(), source: error.into() });
                }
            };
            if came + n as u64 > max_bytes {
                return Err(TransportError::TooLarge { path: path.to_owned(), limit: max_bytes });
            }
            sink(head.start + came, &buffer[..n])?;
            came += n as u64;
            if waited >= self.patience {
                if came - since < DRIP_BYTES {
                    let source = "the server sends next to nothing".into();
                    return Err(TransportError::Unreachable { path: path.to_owned(), source });
                }
                (waited, since) = (Duration::ZERO, came);
            }
        }
        if head.bytes.is_some_and(|length| length != came) {
            return Err(bad(path, "it ends early"));
        }
        Ok(GetOutcome::new(head.start, came).with_whole(head.whole).with_date(head.date))
    }
}

/// Reads what a server says beside its status, to keep the connection; where that is much, or comes slowly, the connection is given up.
fn drain(response: Response<Body>) {
    let body = response.into_body();
    if body.content_length().is_none_or(|length| length > MAX_DRAIN_BYTES) {
        return;
    }
    let (mut reader, mut buffer) = (body.into_reader(), [0; 4096]);
    let began = Instant::now();
    while began.elapsed() < DRAIN_PATIENCE && matches!(reader.read(&mut buffer), Ok(1..)) {}
}
