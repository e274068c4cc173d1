//! The ISO 9660 zone against the tools that users have, and against damage.
#![cfg(all(feature = "image", feature = "sim"))]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use embedded_io::{Read as _, Seek as _, SeekFrom, Write as _};
use firmware_image::ZoneError;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::iso::{self, IsoFile, IsoOptions, IsoZone, Source};
use firmware_image::sim::figures;

const LONG: &str = "store/packs/ab/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.pack";

fn tool(name: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(name).args(arguments).output() {
        Ok(output) => Some(output),
        Err(_) => {
            figures::skipped(&format!("{name} is not installed"));
            None
        }
    }
}

fn files(dir: &Path) -> Vec<IsoFile> {
    let streamed = dir.join("streamed");
    std::fs::write(&streamed, vec![0xA5; 3_000_000]).unwrap();
    let bytes = |text: &[u8]| Source::Bytes(Arc::from(text));
    vec![
        IsoFile::new("device.cfg", bytes(b"config")),
        IsoFile::new("READ ME FIRST.html", bytes(b"<p>hello</p>")),
        IsoFile::program("bootstrap-linux-x86_64", Source::File(streamed.clone())),
        IsoFile::new("autorun.inf", bytes(b"")),
        IsoFile::new(LONG, bytes(b"pack")),
        IsoFile::new("store/metadata/1.root.json", bytes(b"{}")),
        IsoFile::new("store/metadata/timestamp.json", bytes(b"[]")),
    ]
}

fn image(dir: &Path, name: &str, files: &[IsoFile]) -> (std::path::PathBuf, u64) {
    let path = dir.join(name);
    let zone = FileZone::create_new(&path, iso::bytes_needed(files).unwrap()).unwrap();
    let options = IsoOptions { volume_name: "HOLDFAST".into(), timestamp: 1_700_000_000 };
    let length = iso::build(zone, files, &options).unwrap();
    (path, length)
}

fn get(zone: &IsoZone<FileZone>, path: &str) -> Option<Vec<u8>> {
    let mut file = zone.open_file(path).unwrap()?;
    let mut bytes = vec![0; file.len() as usize];
    file.read_exact(&mut bytes).unwrap();
    assert_eq!(file.read(&mut [0; 1]).unwrap(), 0);
    Some(bytes)
}

#[test]
fn what_was_put_in_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let (path, length) = image(dir.path(), "x.iso", &files(dir.path()));
    let mut raw = FileZone::open(&path, Access::ReadOnly).unwrap();
    assert_eq!(iso::file_system_bytes(&mut raw).unwrap(), length);
    let zone = IsoZone::open(raw).unwrap();
    assert_eq!(zone.length(), length);
    assert_eq!(get(&zone, "device.cfg").unwrap(), b"config");
    assert_eq!(get(&zone, "READ ME FIRST.html").unwrap(), b"<p>hello</p>");
    assert_eq!(get(&zone, "bootstrap-linux-x86_64").unwrap(), vec![0xA5; 3_000_000]);
    assert_eq!(get(&zone, "autorun.inf").unwrap(), b"");
    assert_eq!(get(&zone, LONG).unwrap(), b"pack");
    assert_eq!(get(&zone, "store/metadata/timestamp.json").unwrap(), b"[]");
    assert_eq!(get(&zone, "store/metadata"), None);
    assert_eq!(get(&zone, "none"), None);
    assert_eq!(zone.open_file("store/../device.cfg").err(), Some(ZoneError::BadPath));
    let mut listed = Vec::new();
    zone.walk("store", &mut |name, bytes| listed.push((name.to_owned(), bytes))).unwrap();
    listed.sort();
    let expected = [("store/metadata/1.root.json", 2), ("store/metadata/timestamp.json", 2), (LONG, 4)];
    assert_eq!(listed, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
}

#[test]
fn without_the_root_directory_joliets_names_are_listed_as_they_are_opened() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<IsoFile> = files(dir.path()).into_iter().filter(|file| file.path != LONG).collect();
    let (path, _) = image(dir.path(), "x.iso", &files);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16 * 2048 + 156..][..34].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let zone = IsoZone::open(FileZone::open(&path, Access::ReadOnly).unwrap()).unwrap();
    let mut listed = Vec::new();
    zone.walk("", &mut |name, _| listed.push(name.to_owned())).unwrap();
    listed.sort();
    let mut expected: Vec<&str> = files.iter().map(|file| &file.path[..]).collect();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    assert_eq!(get(&zone, "store/metadata/1.root.json").unwrap(), b"{}");
}

#[test]
fn two_runs_at_different_times_are_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let (first, _) = image(dir.path(), "1.iso", &files);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (second, _) = image(dir.path(), "2.iso", &files);
    assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap());
}

#[test]
fn xorriso_and_bsdtar_read_names_modes_times_and_contents() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = image(dir.path(), "x.iso", &files(dir.path()));
    let path = path.to_str().unwrap();
    if let Some(output) = tool("bsdtar", &["-tvf", path]) {
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{listed}");
        assert!(listed.contains("-r-xr-xr-x"), "{listed}");
        assert!(listed.contains("READ ME FIRST.html") && listed.contains(LONG) && listed.contains("2023"), "{listed}");
    }
    if let Some(output) = tool("bsdtar", &["-xOf", path, LONG]) {
        assert_eq!(output.stdout, b"pack");
    }
    if let Some(output) = tool("xorriso", &["-indev", path, "-lsl", "/", "-toc"]) {
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("-r--r--r--") && said.contains("'READ ME FIRST.html'"), "{said}");
        assert!(said.contains("HOLDFAST"), "{said}");
    }
    if let Some(output) = tool("xorriso", &["-read_fs", "norock", "-indev", path, "-lsl", "/"]) {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("READ ME FIRST.html"), "{said}");
    }
}

#[test]
fn a_zone_that_is_too_small_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path());
    let zone = FileZone::create_new(&dir.path().join("x"), 1_000_000).unwrap();
    let options = IsoOptions { volume_name: "HOLDFAST".into(), timestamp: 0 };
    assert_eq!(iso::build(zone, &files, &options), Err(ZoneError::OutOfBounds));
}

#[test]
fn paths_given_twice_or_through_a_file_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = || Source::Bytes(Arc::from(&b"x"[..]));
    for paths in [["a", "a"], ["a", "a/b"], ["a/b", "a"], ["a", "../b"]] {
        let zone = FileZone::create_new(&dir.path().join(paths.join("-").replace('/', "_")), 1 << 20).unwrap();
        let files = paths.map(|path| IsoFile::new(path, bytes()));
        let options = IsoOptions { volume_name: "HOLDFAST".into(), timestamp: 0 };
        assert_eq!(iso::build(zone, &files, &options), Err(ZoneError::BadPath), "{paths:?}");
    }
}

#[test]
fn no_damage_or_truncation_makes_it_panic_or_hang() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let (path, _) = image(dir.path(), "x.iso", &files(dir.path()));
    let raw = std::fs::read(&path).unwrap();
    let used = |zone: &IsoZone<FileZone>| {
        let mut count = 0;
        let _ = zone.walk("", &mut |_, _| count += 1);
        for name in ["device.cfg", LONG, "store/metadata/1.root.json"] {
            if let Ok(Some(mut file)) = zone.open_file(name) {
                let mut buf = vec![0; (file.len() as usize).min(1 << 16)];
                let _ = file.read(&mut buf);
            }
        }
    };
    // Descriptors, and every sector with directories, tables or their continuations: all that stands before contents.
    let metadata_end = raw.windows(6).position(|bytes| bytes == b"config").unwrap();
    let interesting = (16 * 2048..metadata_end).filter(|&at| raw[at] != 0);
    for at in interesting {
        for flip in [0x01, 0x80, 0xFF] {
            let mut file = FileZone::open(&path, Access::ReadWrite).unwrap();
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&[raw[at] ^ flip]).unwrap();
            if let Ok(zone) = IsoZone::open(file) {
                used(&zone);
            }
            let mut file = FileZone::open(&path, Access::ReadWrite).unwrap();
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&raw[at..at + 1]).unwrap();
        }
    }
    for length in (0..raw.len()).step_by(1024).take(400) {
        std::fs::write(&path, &raw[..length]).unwrap();
        if let Ok(zone) = IsoZone::open(FileZone::open(&path, Access::ReadOnly).unwrap()) {
            used(&zone);
        }
    }
}
