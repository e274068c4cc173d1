//! The head of an HTTP answer: what it says, checked against what was asked for.

use std::ops::Range;

use release_store::TransportError;
use ureq::http::{HeaderMap, StatusCode, header};

/// What the head of an answer says of the bytes that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where in the whole object they begin: where the range does that was asked for, or at 0.
    pub start: u64,
    /// How many there are, where the server says it.
    pub bytes: Option<u64>,
    /// The length of the whole object, where the server says it.
    pub whole: Option<u64>,
    /// The server's own time, as seconds since 1970.
    pub date: Option<i64>,
}

impl Head {
    /// Reads the head of the answer to a request for `range` of the object at `path`, or for all of it.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable` where the server says that it is at fault; `TooLarge` where more than `max_bytes` are
    /// announced; `Bad` for another part than was asked for; `Refused` for any other answer.
    pub fn read(
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
        range: Option<&Range<u64>>,
        max_bytes: u64,
    ) -> Result<Self, TransportError> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let date = text(header::DATE)
            .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
            .map(|date| date.timestamp().as_second());
        let bytes = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let (start, whole) = match (status.as_u16(), range) {
            (200, _) => (0, bytes),
            (206, Some(range)) => {
                let found = text(header::CONTENT_RANGE).and_then(content_range);
                let (start, whole) = found.ok_or_else(|| bad(path, "a part without its place"))?;
                if start != range.start {
                    return Err(bad(path, format!("the part begins at {start}, not at {}", range.start)));
                }
                (start, whole)
            }
            (403 | 404 | 410, _) => return Err(TransportError::NotFound { path: path.to_owned() }),
            (408 | 425 | 429 | 500..=599, _) => {
                let source = format!("the server answers {status}").into();
                return Err(TransportError::Unreachable { path: path.to_owned(), source });
            }
            (416, _) => return Err(bad(path, "the server has less than was asked for")),
            _ => return Err(refused(path, &format!("the server answers {status}"))),
        };
        if bytes.is_some_and(|length| length > max_bytes) {
            return Err(TransportError::TooLarge { path: path.to_owned(), limit: max_bytes });
        }
        Ok(Self { start, bytes, whole, date })
    }
}

/// The start and the whole length in `bytes 0-99/1234`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (span, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = span.split_once('-')?.0.trim().parse().ok()?;
    Some((start, whole.trim().parse().ok()))
}

/// Where a redirect from `url` leads; `None` where it leaves HTTP, or gives up encryption.
pub fn redirect(url: &str, location: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?;
    // An address in a query makes no absolute one of it.
    let absolute = location.split_once("://").is_some_and(|(scheme, _)| !scheme.contains(['/', '?', '#']));
    let target = if absolute {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        let path = &rest[host.len()..];
        let directory = path.split(['?', '#']).next()?.rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{host}{directory}/{location}")
    };
    let (to, _) = target.split_once("://")?;
    let upgrade =
        to.eq_ignore_ascii_case("https") || (to.eq_ignore_ascii_case("http") && scheme.eq_ignore_ascii_case("http"));
    upgrade.then_some(target)
}

pub(crate) fn refused(path: &str, reason: &str) -> TransportError {
    TransportError::Refused { path: path.to_owned(), reason: reason.to_owned() }
}

pub(crate) fn bad(path: &str, reason: impl Into<String>) -> TransportError {
    TransportError::Bad { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_gives_up_encryption_or_http() {
        let from = "https://a.example/store/metadata/1.root.json";
        assert_eq!(redirect(from, "http://a.example/x"), None);
        assert_eq!(redirect(from, "file:///etc/passwd"), None);
        assert_eq!(redirect(from, "https://b.example/x").as_deref(), Some("https://b.example/x"));
        assert_eq!(redirect(from, "/x").as_deref(), Some("https://a.example/x"));
        assert_eq!(redirect(from, "x").as_deref(), Some("https://a.example/store/metadata/x"));
        assert_eq!(redirect(from, "//b.example/x").as_deref(), Some("https://b.example/x"));
        assert_eq!(
            redirect(from, "/x?of=http://b.example").as_deref(),
            Some("https://a.example/x?of=http://b.example")
        );
        assert_eq!(redirect("HTTP://a.example/x", "y").as_deref(), Some("HTTP://a.example/y"));
        assert_eq!(redirect("http://a.example/x", "https://a.example/x").as_deref(), Some("https://a.example/x"));
    }
}
