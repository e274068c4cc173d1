//! A small HTTP/1.1 file server, to try a store with: keep-alive, HEAD, single ranges, ETag, nothing else.
//!
//! It serves plain files below its root and nothing outside of it, one thread a connection. It is for loopback, tests and
//! demonstrations; any other file server does as well.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::StoreError;

/// The most connections at a time; further ones are closed at once.
pub const MAX_CONNECTIONS: usize = 64;
/// The longest head of a request, in bytes.
pub const MAX_HEAD_BYTES: u64 = 16 << 10;
/// How long a connection may be silent.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How to serve.
#[derive(Debug, Clone, Copy)]
pub struct ServeOptions {
    /// Whether ranges are honoured; without, every answer is the whole file.
    pub ranges: bool,
    /// Prints each request to stderr.
    pub verbose: bool,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self { ranges: true, verbose: false }
    }
}

/// What was served so far.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    /// Requests answered, whatever the answer.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes of bodies sent.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Starts counting anew.
    pub fn reset(&self) {
        self.requests.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }
}

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    counters: Arc<Counters>,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it served.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Waits until the server ends, which it does not by itself.
    pub fn wait(mut self) {
        if let Some(accepting) = self.accepting.take() {
            // A panic there was printed there; there is nothing to add.
            let _ = accepting.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(accepting) = self.accepting.take() {
            // Wakes the thread that waits for a connection.
            let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
            let _ = accepting.join();
        }
    }
}

/// Serves the files below `root` to whoever connects to `listener`.
///
/// # Errors
/// `Io` where `root` is no directory, or the listener tells no address.
pub fn serve(listener: TcpListener, root: &Path, options: ServeOptions) -> Result<Server, StoreError> {
    let root = fs::canonicalize(root).map_err(StoreError::io("open", root))?;
    let address = listener.local_addr().map_err(StoreError::io("listen for", &root))?;
    let counters = Arc::new(Counters::default());
    let stopping = Arc::new(AtomicBool::new(false));
    let site = Arc::new(Site { root, options, counters: Arc::clone(&counters), open: AtomicUsize::new(0) });
    let stop = Arc::clone(&stopping);
    let accepting = std::thread::spawn(move || {
        for connection in listener.incoming() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            // A connection that failed before it was taken concerns its client only.
            let Ok(connection) = connection else { continue };
            if site.open.fetch_add(1, Ordering::SeqCst) >= MAX_CONNECTIONS {
                site.open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let site = Arc::clone(&site);
            std::thread::spawn(move || {
                // A client that goes away in mid-answer is no fault of the server.
                let _ = site.talk(&connection);
                site.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    Ok(Server { address, counters, stopping, accepting: Some(accepting) })
}

struct Site {
    root: PathBuf,
    options: ServeOptions,
    counters: Arc<Counters>,
    open: AtomicUsize,
}

struct Request {
    method: String,
    target: String,
    close: bool,
    range: Option<String>,
    if_range: Option<String>,
    if_none_match: Option<String>,
}

/// An answer without a body of its own, or the part of a file.
enum Answer {
    Short { status: &'static str, headers: String, text: &'static str },
    File { file: File, range: Range<u64>, whole: u64, partial: bool, etag: String },
}

impl Site {
    fn talk(&self, connection: &TcpStream) -> io::Result<()> {
        connection.set_read_timeout(Some(IDLE_TIMEOUT))?;
        connection.set_write_timeout(Some(IDLE_TIMEOUT))?;
        connection.set_nodelay(true)?;
        let mut reader = BufReader::new(connection);
        let mut writer = connection;
        loop {
            let request = match read_request(&mut reader)? {
                Some(Ok(request)) => request,
                Some(Err(status)) => {
                    self.counters.requests.fetch_add(1, Ordering::Relaxed);
                    let body = "the request makes no sense\n";
                    return send(&mut writer, status, &content_length(body.len() as u64), true, body.as_bytes());
                }
                None => return Ok(()),
            };
            self.counters.requests.fetch_add(1, Ordering::Relaxed);
            let close = request.close;
            self.answer(&mut writer, &request)?;
            if close {
                return Ok(());
            }
        }
    }

    fn answer(&self, writer: &mut impl Write, request: &Request) -> io::Result<()> {
        let head_only = request.method == "HEAD";
        let answer = self.find(request);
        let (status, sent) = match answer {
            Answer::Short { status, headers, text } => {
                let headers = format!("{headers}{}", content_length(text.len() as u64));
                let body = if head_only { &[][..] } else { text.as_bytes() };
                send(writer, status, &headers, request.close, body)?;
                (status, body.len() as u64)
            }
            Answer::File { mut file, range, whole, partial, etag } => {
                let length = range.end - range.start;
                let mut headers = format!("Content-Type: application/octet-stream\r\nETag: {etag}\r\n");
                if self.options.ranges {
                    headers.push_str("Accept-Ranges: bytes\r\n");
                }
                if partial {
                    let (first, last) = (range.start, range.end - 1);
                    headers.push_str(&format!("Content-Range: bytes {first}-{last}/{whole}\r\n"));
                }
                headers.push_str(&content_length(length));
                let status = if partial { "206 Partial Content" } else { "200 OK" };
                send(writer, status, &headers, request.close, &[])?;
                let sent = if head_only {
                    0
                } else {
                    file.seek(SeekFrom::Start(range.start))?;
                    let sent = io::copy(&mut file.take(length), writer)?;
                    if sent < length {
                        // The file became shorter: the client must see a broken answer, not a short one.
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    sent
                };
                (status, sent)
            }
        };
        self.counters.bytes.fetch_add(sent, Ordering::Relaxed);
        if self.options.verbose {
            let range = request.range.as_deref().unwrap_or("-");
            let line = log_line(&request.method, &request.target, range, status, sent);
            // Who looked on may have gone; the server goes on.
            let _ = writeln!(io::stderr(), "{line}");
        }
        Ok(())
    }

    fn find(&self, request: &Request) -> Answer {
        let short = |status, text| Answer::Short { status, headers: String::new(), text };
        if request.method != "GET" && request.method != "HEAD" {
            let headers = "Allow: GET, HEAD\r\n".to_owned();
            return Answer::Short { status: "405 Method Not Allowed", headers, text: "only GET and HEAD\n" };
        }
        let Some((file, whole, etag)) = self.open(&request.target) else {
            return short("404 Not Found", "not here\n");
        };
        if request.if_none_match.as_deref().is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag)) {
            return Answer::Short { status: "304 Not Modified", headers: format!("ETag: {etag}\r\n"), text: "" };
        }
        let fits = request.if_range.as_deref().is_none_or(|tag| tag == etag);
        let range = request.range.as_deref().filter(|_| self.options.ranges && fits);
        match range.and_then(|text| parse_range(text, whole)) {
            None => Answer::File { file, range: 0..whole, whole, partial: false, etag },
            Some(Some(range)) => Answer::File { file, range, whole, partial: true, etag },
            Some(None) => Answer::Short {
                status: "416 Range Not Satisfiable",
                headers: format!("Content-Range: bytes */{whole}\r\n"),
                text: "the file has no such range\n",
            },
        }
    }

    /// The plain file that a request's target names; nothing outside of the root, nothing hidden.
    fn open(&self, target: &str) -> Option<(File, u64, String)> {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let path = percent_decode(path.strip_prefix('/')?)?;
        crate::paths::check(&path).ok()?;
        if path.split('/').any(|name| name.starts_with('.')) {
            return None;
        }
        // Follows links, and refuses those that lead out.
        let place = fs::canonicalize(self.root.join(path)).ok().filter(|place| place.starts_with(&self.root))?;
        let file = File::open(place).ok()?;
        let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
        let modified = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let etag = format!("\"{:x}-{:x}\"", metadata.len(), modified.unwrap_or_default().as_nanos());
        Some((file, metadata.len(), etag))
    }
}

/// What is printed of a request. What the client wrote is escaped: it must not steer a terminal, nor look like a line of
/// its own.
fn log_line(method: &str, target: &str, range: &str, status: &str, sent: u64) -> String {
    let [method, target, range] = [method, target, range].map(escaped);
    format!("{method} {target} {range} → {status}, {sent} bytes")
}

/// `text` with everything but printable ASCII as `\n` or `\u{1b}`.
fn escaped(text: &str) -> String {
    text.chars().flat_map(char::escape_default).collect()
}

/// Reads one request; `None` at the end of the connection, an inner error for what makes no sense.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Result<Request, &'static str>>> {
    let mut head = reader.take(MAX_HEAD_BYTES);
    let mut line = String::new();
    let next = |head: &mut io::Take<_>, line: &mut String| -> io::Result<bool> {
        line.clear();
        let n = BufRead::read_line(head, line)?;
        Ok(n > 0 && line.ends_with('\n'))
    };
    if !next(&mut head, &mut line)? {
        return Ok(if line.is_empty() { None } else { Some(Err("400 Bad Request")) });
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next()) else {
        return Ok(Some(Err("400 Bad Request")));
    };
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        close: version != "HTTP/1.1",
        range: None,
        if_range: None,
        if_none_match: None,
    };
    loop {
        if !next(&mut head, &mut line)? {
            return Ok(Some(Err("431 Request Header Fields Too Large")));
        }
        let text = line.trim_end();
        if text.is_empty() {
            return Ok(Some(Ok(request)));
        }
        let Some((name, value)) = text.split_once(':') else { return Ok(Some(Err("400 Bad Request"))) };
        let value = value.trim().to_owned();
        match name.to_ascii_lowercase().as_str() {
            "connection" => request.close = value.eq_ignore_ascii_case("close"),
            "range" => request.range = Some(value),
            "if-range" => request.if_range = Some(value),
            "if-none-match" => request.if_none_match = Some(value),
            // A body would be taken for the next request.
            "content-length" if value != "0" => return Ok(Some(Err("400 Bad Request"))),
            "transfer-encoding" => return Ok(Some(Err("400 Bad Request"))),
            _ => {}
        }
    }
}

/// A `Range` header for a file of `whole` bytes: `None` for one to be passed over (RFC 9110, 14.2), an inner `None` for one
/// that the file does not have.
fn parse_range(text: &str, whole: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = if first.is_empty() {
        let length: u64 = last.parse().ok()?;
        whole.saturating_sub(length)..whole
    } else {
        let start: u64 = first.parse().ok()?;
        let end = if last.is_empty() { whole } else { last.parse::<u64>().ok()?.saturating_add(1).min(whole) };
        start..end
    };
    Some((range.start < range.end).then_some(range))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8
        } else {
            byte
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).ok()
}

fn content_length(bytes: u64) -> String {
    format!("Content-Length: {bytes}\r\n")
}

fn send(writer: &mut impl Write, status: &str, headers: &str, close: bool, body: &[u8]) -> io::Result<()> {
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let connection = if close { "close" } else { "keep-alive" };
    let mut answer =
        format!("HTTP/1.1 {status}\r\nDate: {date}\r\nConnection: {connection}\r\n{headers}\r\n").into_bytes();
    answer.extend_from_slice(body);
    writer.write_all(&answer)?;
    writer.flush()
}
