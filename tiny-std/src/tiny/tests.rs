//! The same questions to the standard library and to what stands in its place.

use real::path as theirs;
use real::string::ToString as _;

use super::io::{Error, Kind, Read as _, Write as _};
use super::path as ours;
use super::prelude::v1::*;
use super::{env, fs};

const PATHS: [&str; 15] =
    ["", "/", "//", "..", "a", "a/", "/a", "/a/", "/a//b", "a/./b", "./a", "/a/b/..", "/a/b/.", "a/..", "/ü/b c"];

fn text(path: &theirs::Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn paths_are_taken_apart_and_put_together_as_by_std() {
    for one in PATHS {
        let (our, their) = (ours::Path::new(one), theirs::Path::new(one));
        assert_eq!(our.is_absolute(), their.is_absolute(), "{one:?}");
        let name = |name: &super::ffi::OsStr| name.to_string_lossy().into_owned();
        assert_eq!(
            our.file_name().map(name),
            their.file_name().map(|name| name.to_string_lossy().into_owned()),
            "{one:?}"
        );
        let parent = our.parent().map(|path| theirs::PathBuf::from(path.display().to_string()));
        assert_eq!(parent.as_deref(), their.parent(), "{one:?}");
        assert_eq!(ours::absolute(one).is_ok(), theirs::absolute(one).is_ok(), "{one:?}");
        for other in PATHS {
            assert_eq!(our.join(other).display().to_string(), text(&their.join(other)), "{one:?} {other:?}");
            let (our_other, their_other) = (ours::Path::new(other), theirs::Path::new(other));
            // A dot at the begin counts for nothing here: whoever compares has absolute paths.
            if !one.starts_with('.') && !other.starts_with('.') {
                assert_eq!(our == our_other, their == their_other, "{one:?} {other:?}");
                assert_eq!(our.starts_with(our_other), their.starts_with(their_other), "{one:?} {other:?}");
            }
        }
    }
}

#[test]
fn errors_have_the_kind_that_std_gives_them() {
    for number in 1..134 {
        let their = real::format!("{:?}", real::io::Error::from_raw_os_error(number).kind());
        let our = Error::from_raw_os_error(number).kind();
        // What no launcher asks for has no name here.
        assert!(our == Kind::Other || their == format!("{our:?}"), "{number}: {our:?} {their}");
    }
}

#[test]
fn files_and_directories_are_made_read_listed_and_removed() {
    let place = real::env::temp_dir().join(format!("tiny-std-{}", real::process::id()));
    let place = ours::PathBuf::from(place.to_str().unwrap());
    fs::create_dir(&place).unwrap();
    assert_eq!(fs::create_dir(&place).unwrap_err().kind(), Kind::AlreadyExists);
    let path = place.join("file");
    fs::OpenOptions::new().write(true).create_new(true).open(&path).unwrap().write_all(&[7; 10_000]).unwrap();
    let mut bytes = Vec::new();
    fs::File::open(&path).unwrap().take(9_999).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, [7; 9_999]);
    assert!(path.is_file() && place.is_dir() && !place.join("other").exists());
    assert_eq!(fs::metadata(&path).unwrap().len(), 10_000);
    assert_eq!(
        fs::canonicalize(place.join("../").join(place.file_name().unwrap())).unwrap(),
        fs::canonicalize(&place).unwrap()
    );
    let listed: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(listed, core::slice::from_ref(&path));
    fs::remove_file(&path).unwrap();
    fs::remove_dir(&place).unwrap();
    assert_eq!(fs::remove_dir(&place).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(env::current_dir().unwrap().display().to_string(), text(&real::env::current_dir().unwrap()));
}
