//! The server to try things with: what clients rely on, and what nobody may get.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use common::Http;
use release_store::serve::{ServeOptions, Server, serve};
use release_store::transport::{Transport as _, TransportError, get_all, get_range};

fn start(options: ServeOptions) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(root.join("sub/file"), (0..=255).collect::<Vec<u8>>()).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("a b"), "space").unwrap();
    fs::write(root.join(".lock"), "hidden").unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
    let server = serve(TcpListener::bind("127.0.0.1:0").unwrap(), &root, options).unwrap();
    (dir, server)
}

/// One request on a connection of its own.
fn ask(server: &Server, request: &str) -> (String, Vec<u8>) {
    let mut connection = TcpStream::connect(server.address()).unwrap();
    connection.write_all(request.replace('\n', "\r\n").as_bytes()).unwrap();
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
}

#[test]
fn files_ranges_and_heads_are_served() {
    let (_dir, server) = start(ServeOptions::default());
    let (head, body) = ask(&server, "GET /sub/file HTTP/1.1\n\n");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("Content-Length: 256"), "{head}");
    assert!(head.contains("Accept-Ranges: bytes") && head.contains("\r\nDate: "), "{head}");
    assert_eq!(body.len(), 256);
    for (range, expected, from, length) in [
        ("bytes=10-19", "206", 10, 10),
        ("bytes=250-", "206", 250, 6),
        ("bytes=-5", "206", 251, 5),
        ("bytes=0-9999", "206", 0, 256),
        ("bytes=0-1,4-5", "200", 0, 256),
        ("lines=0-1", "200", 0, 256),
    ] {
        let (head, body) = ask(&server, &format!("GET /sub/file HTTP/1.1\nRange: {range}\n\n"));
        assert!(head.starts_with(&format!("HTTP/1.1 {expected}")), "{range}: {head}");
        assert_eq!((body[0], body.len()), (from, length), "{range}");
    }
    for range in ["bytes=256-", "bytes=9-3", "bytes=-0"] {
        let (head, _) = ask(&server, &format!("GET /sub/file HTTP/1.1\nRange: {range}\n\n"));
        assert!(head.starts_with("HTTP/1.1 416") && head.contains("bytes */256"), "{range}: {head}");
    }
    let (head, body) = ask(&server, "HEAD /sub/file HTTP/1.1\n\n");
    assert!(head.contains("Content-Length: 256") && body.is_empty());
    assert_eq!(ask(&server, "GET /empty HTTP/1.0\n\n").1, b"");
    assert_eq!(ask(&server, "GET /a%20b?x=1 HTTP/1.1\n\n").1, b"space");
}

#[test]
fn an_unchanged_file_is_told_by_its_tag() {
    let (dir, server) = start(ServeOptions::default());
    let (head, _) = ask(&server, "GET /sub/file HTTP/1.1\n\n");
    let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap().to_owned();
    assert!(ask(&server, &format!("GET /sub/file HTTP/1.1\nIf-None-Match: {tag}\n\n")).0.contains("304"));
    let ranged = format!("GET /sub/file HTTP/1.1\nRange: bytes=0-1\nIf-Range: {tag}\n\n");
    assert!(ask(&server, &ranged).0.contains("206"));
    fs::write(dir.path().join("root/sub/file"), "changed").unwrap();
    assert_eq!(ask(&server, &ranged).1, b"changed", "another file is sent whole");
}

#[test]
fn nothing_outside_of_the_root_is_served() {
    let (_dir, server) = start(ServeOptions::default());
    for path in [
        "/../secret",
        "/sub/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "//secret",
        "/sub",
        "/sub/",
        "/",
        "/none",
        "/.lock",
        "/link",
        "/sub/file/",
        "/sub\\file",
        "/%00",
        "/%zz",
        "secret",
    ] {
        let (head, body) = ask(&server, &format!("GET {path} HTTP/1.1\n\n"));
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
        assert!(!body.windows(6).any(|window| window == b"secret"), "{path}");
    }
    assert!(ask(&server, "POST /sub/file HTTP/1.1\n\n").0.contains("405"));
    assert!(ask(&server, "GET\n\n").0.contains("400"));
    let endless = format!("GET / HTTP/1.1\nX: {}\n\n", "x".repeat(20_000));
    let mut connection = TcpStream::connect(server.address()).unwrap();
    // The server may answer and hang up before it has read all of it.
    let _ = connection.write_all(endless.as_bytes());
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"));
}

#[test]
fn one_connection_serves_many_requests_and_all_are_counted() {
    let (_dir, server) = start(ServeOptions::default());
    let http = Http::new(server.address());
    for _ in 0..5 {
        assert_eq!(get_all(&http, "sub/file", 1000).unwrap().len(), 256);
    }
    let error = get_all(&http, "none", 1000).unwrap_err();
    assert!(matches!(error, TransportError::NotFound { .. }), "{error}");
    assert_eq!(server.counters().requests(), 6);
    assert!(server.counters().bytes() >= 5 * 256);
}

#[test]
fn a_range_comes_exactly_from_servers_with_and_without_ranges() {
    for ranges in [true, false] {
        let (_dir, server) = start(ServeOptions { ranges, verbose: false });
        let http = Http::new(server.address());
        for range in [0..256, 0..1, 10..20, 255..256] {
            let mut bytes = Vec::new();
            get_range(&http, "sub/file", range.clone(), 256, &mut |offset, piece| {
                assert_eq!(offset, range.start + bytes.len() as u64);
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
            let expected: Vec<u8> = (0..=255).collect();
            assert_eq!(bytes, expected[range.start as usize..range.end as usize]);
        }
        let mut nowhere = |_: u64, _: &[u8]| Ok(());
        let error = get_range(&http, "sub/file", 250..300, 400, &mut nowhere).unwrap_err();
        assert!(matches!(error, TransportError::Bad { .. }), "{error}");
        let outcome = http.get("sub/file", Some(0..10), 10, &mut nowhere);
        assert_eq!(outcome.is_ok(), ranges, "a ceiling of the range's length refuses whole files");
    }
}
