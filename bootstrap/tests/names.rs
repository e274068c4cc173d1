//! Names of a release's files on a raw FAT volume: what `release-store` takes for two files are two files there.
#![cfg(feature = "image")]

use std::path::Path;

use embedded_io::Write as _;
use firmware_image::FreeZone as _;
use firmware_image::host::FileZone;
use firmware_image::image::fat::{FormatOptions, RawFat, format};
use release_store::paths::PathSet;

/// Names that some system or other takes for one.
const NAMES: [&str; 20] = [
    "\u{e9}", "e\u{301}", "\u{c5}", "A\u{30a}", "\u{df}", "ss", "\u{1e9e}", "\u{131}", "i", "I", "\u{130}", "\u{212a}",
    "k", "\u{3c2}", "\u{3c3}", "\u{3a3}", "\u{fb01}", "fi", "\u{17f}", "s",
];

fn volume(path: &Path) -> RawFat<FileZone> {
    let mut zone = FileZone::create_new(path, 8 << 20).unwrap();
    let options = FormatOptions { label: FormatOptions::label_of("names"), volume_id: 1, hidden_sectors: 0 };
    format(&mut zone, &options).unwrap();
    RawFat::open(zone, false).unwrap()
}

#[test]
fn names_that_are_two_in_a_release_are_two_files_on_a_raw_volume() {
    let dir = tempfile::tempdir().unwrap();
    let fat = volume(&dir.path().join("fat.img"));
    let (mut apart, mut met) = (0, 0);
    for (n, one) in NAMES.iter().enumerate() {
        for other in &NAMES[n + 1..] {
            let mut release = PathSet::new();
            release.insert(one).unwrap();
            if release.insert(other).is_err() {
                met += 1;
                continue;
            }
            apart += 1;
            for name in [one, other] {
                fat.create(name).unwrap().write_all(name.as_bytes()).unwrap();
            }
            for name in [one, other] {
                let mut file = fat.open(name).unwrap().unwrap();
                let mut bytes = vec![0; name.len()];
                let found = firmware_image::storage::read_exact_at(&mut file, 0, &mut bytes);
                assert_eq!((found, &bytes[..]), (Ok(()), name.as_bytes()), "{one:?} and {other:?}");
            }
            for name in [one, other] {
                assert!(fat.remove(name).unwrap(), "{one:?} and {other:?}");
            }
        }
    }
    assert!(apart > 100 && met > 10, "{apart} {met}");
}
