//! What an image shows after a pull, and after what came then.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use embedded_io::Read as _;
use firmware_image::FreeZone as _;
use firmware_image::free_zone::ZoneFile as _;
use firmware_image::host::Access;
use firmware_image::image::Device;
use firmware_image::image::any_zone::{AnyFreeZone, walk};
use firmware_image::journal::{Journal, State};
use firmware_image::paths::{self, THIS_PLATFORM};
use qemu_tests::stick::Stick;
use serde_json::Value;

/// Files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Where the temporary copy of the updater stands.
const BESIDE: &str = ".new";
const SPOOL: &str = ".holdfast/staging/spool";

/// A device, looked at from outside.
#[derive(Debug)]
pub struct Seen {
    /// The journal.
    pub journal: State,
    /// Whether the updater in the free zone is sound.
    pub updater: bool,
    /// Bytes of the copy beside it.
    pub beside: Option<u64>,
    /// Bytes of the spool.
    pub spool: u64,
    /// Slots of the hidden zone: name, whether it is sound, generation.
    pub slots: Vec<(String, bool, u64)>,
    /// The hidden zone's place on the disk, in bytes.
    pub hidden: Range<u64>,
    /// Files outside `.holdfast/` but the updater and its copy.
    pub files: Files,
}

impl Seen {
    /// Looks at a stick that is not plugged in.
    pub fn of(stick: &Stick) -> Self {
        let told = stick.inspect();
        let device = Device::open(&stick.disk, stick.cd.as_deref(), Access::ReadOnly).unwrap();
        let free = device.free_zone().unwrap();
        let updater = paths::updater_name(THIS_PLATFORM);
        let mut seen = Self {
            journal: Journal::read(&free).unwrap().state(),
            updater: list(&told["updaters"]).any(|found| found["place"] == "free zone" && found["state"] == "sound"),
            beside: length(&free, &format!("{updater}{BESIDE}")),
            spool: length(&free, SPOOL).unwrap_or(0),
            slots: list(&told["slots"])
                .filter_map(|slot| Some((slot["place"].as_str()?.strip_prefix("hidden ")?, slot)))
                .map(|(name, slot)| {
                    (name.to_owned(), slot["state"] == "sound", slot["generation"].as_u64().unwrap_or(0))
                })
                .collect(),
            hidden: list(&told["zones"])
                .find(|zone| zone["zone"] == "hidden")
                .and_then(|zone| Some((zone["start"].as_u64()?, zone["bytes"].as_u64()?)))
                .map(|(start, bytes)| start..start + bytes)
                .unwrap(),
            files: Files::new(),
        };
        assert_eq!(seen.slots.len(), 4, "{told}");
        let mut listed = Vec::new();
        if let Err(error) = walk(&free, "", &mut |path, _| listed.push(path.to_owned())) {
            // A directory that the pull left unwritten.
            seen.files.insert("/".into(), error.to_string().into_bytes());
        }
        for path in listed {
            if !path.starts_with(paths::STATE_DIR) && !path.starts_with(updater.as_str()) {
                seen.files.insert(path.clone(), read(&free, &path));
            }
        }
        seen
    }

    /// Which of the releases is installed, whole, with a sound updater, and the user's files as they were.
    pub fn whole(&self, releases: &[(&str, Files)], users: &Files) -> Result<String, String> {
        if !self.updater {
            return Err("the updater in the free zone is not sound".into());
        }
        if self.beside.is_some() {
            return Err("a copy stands beside the updater".into());
        }
        if let Some((slot, _, _)) = self.slots.iter().find(|(_, sound, _)| !sound) {
            return Err(format!("the hidden zone's {slot} is not sound"));
        }
        if self.journal != State::Idle {
            return Err(format!("the journal says {:?}", self.journal));
        }
        for (version, files) in releases {
            let mut wanted = users.clone();
            wanted.extend(files.iter().map(|(path, bytes)| (format!("client/{path}"), bytes.clone())));
            if wanted == self.files {
                return Ok((*version).to_owned());
            }
        }
        let differs = |path: &&String, files: &Files| {
            let below = path.strip_prefix("client/").and_then(|below| files.get(below));
            below.or_else(|| users.get(*path)) != self.files.get(*path)
        };
        let told = releases.iter().map(|(version, files)| {
            let odd: Vec<_> = self.files.keys().filter(|path| differs(path, files)).collect();
            format!("against {version}: {odd:?}")
        });
        Err(format!("no whole release with the user's files: {}", told.collect::<Vec<_>>().join("; ")))
    }
}

impl Seen {
    /// The release that the client is of, whole.
    pub fn client(&self, releases: &[(&'static str, Files)]) -> Option<&'static str> {
        let client: Vec<_> =
            self.files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix("client/")?, bytes))).collect();
        let is = |files: &Files| files.iter().map(|(path, bytes)| (path.as_str(), bytes)).eq(client.iter().copied());
        releases.iter().find(|(_, files)| is(files)).map(|(version, _)| *version)
    }
}

/// The bytes of a part of a disk's image.
pub fn part(disk: &Path, range: &Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    std::fs::File::open(disk).unwrap().read_exact_at(&mut bytes, range.start).unwrap();
    bytes
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn length(free: &AnyFreeZone, path: &str) -> Option<u64> {
    free.open(path).ok().flatten().and_then(|mut file| file.len().ok())
}

/// A file's bytes. One that a cut has broken is no file of any release.
fn read(free: &AnyFreeZone, path: &str) -> Vec<u8> {
    let bytes = || -> Result<Vec<u8>, String> {
        let mut file = free.open(path).map_err(|error| error.to_string())?.ok_or("it is gone")?;
        let length = file.len().map_err(|error| error.to_string())?;
        assert!(length < 64 << 20, "{path} has {length} bytes");
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        file.read_exact(&mut bytes).map_err(|error| format!("{error:?}"))?;
        Ok(bytes)
    };
    bytes().unwrap_or_else(|error| format!("unreadable: {error}").into_bytes())
}
