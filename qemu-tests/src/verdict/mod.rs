//! What is demanded of a device whose power was cut: the launcher heals it with what is on it, without a network.
//!
//! A device is given as the image that the cut left. The real launcher runs over it with the real updater of the device and
//! no server in reach, and must end with status 0; then
//!
//! - the updater in the free zone is the vendor's and sound;
//! - `client/` is one release, whole, byte for byte, with nothing beside it but the user's own files;
//! - the newest record names that release;
//! - the user's files are what they were, byte for byte;
//! - `fsck.vfat` finds nothing but clusters that belong to nobody, and notes that a driver renews (see [`fsck`]);
//! - a second start may renew one backup (F8: the other slot follows when the new updater has run by itself), and after
//!   that a start changes nothing but the log.

pub mod fsck;
mod look;
pub mod proxy;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use firmware_image::host::Access;
use firmware_image::stamp;
use xtask::run;

pub use self::look::{Device, Files, tree_files};

/// How long one start of the launcher may take, in seconds.
const START_SECS: &str = "60";
/// How many starts may pass until one writes nothing.
const MAX_STARTS: usize = 4;

/// A release as it is on a device.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// Its files, by path below `client/`.
    pub files: Files,
}

/// What was demanded and is not so.
#[derive(Debug)]
pub struct Defect {
    /// What.
    pub what: String,
    /// What the programs said.
    pub said: String,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.what, self.said.trim_end())
    }
}

/// A state that healed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healed {
    /// The version that is installed now.
    pub version: String,
    /// Harmless things that `fsck.vfat` found.
    pub harmless: Vec<fsck::Harmless>,
    /// Starts that wrote something.
    pub starts: usize,
}

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrutiny {
    /// Start the launcher again until it writes nothing.
    pub again: bool,
    /// Then with a server in reach, until the newest release is installed.
    pub update: bool,
    /// With the servers that the device knows, none of which is in reach, instead of with none at all: where a newer release
    /// is known of, they are asked for it again and again, which takes its time (D4).
    pub patient: bool,
}

impl Scrutiny {
    /// Only that it heals.
    pub const BRIEF: Self = Self { again: false, update: false, patient: false };
    /// From all sides, but for the waiting.
    pub const WHOLE: Self = Self { again: true, update: true, patient: false };
}

/// What a start finds beyond the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// No server is known.
    Alone,
    /// None answers.
    Nobody,
    /// One answers.
    Server,
}

impl Reach {
    fn of(scrutiny: Scrutiny) -> Self {
        if scrutiny.patient { Self::Nobody } else { Self::Alone }
    }
}

/// What a device must be after any cut.
pub struct Verdict {
    launcher: PathBuf,
    device: Device,
    releases: Vec<Release>,
    /// The user's files: outside of `client/`, and those in it that no release has.
    users: Files,
    /// A virtual zone of the same product that knows no server.
    alone: Option<PathBuf>,
    /// Where an address of the device's configuration leads on this machine; `None`: nowhere.
    proxy: Option<proxy::Proxy>,
}

impl Verdict {
    /// Judges states of the device that is in `image` before anything happens to it, whose client may be one of `releases`,
    /// the last of which is the newest. `launcher` is the one that opens images, as built; a copy that trusts the device's
    /// vendor is put into `dir`.
    ///
    /// # Errors
    /// The image is not that of a whole device.
    pub fn new(image: &Path, releases: Vec<Release>, launcher: &Path, dir: &Path) -> Result<Self> {
        let device = Device::open(image)?;
        let mut program = fs::read(launcher).with_context(|| format!("cannot read {}", launcher.display()))?;
        stamp::stamp(&mut program, &device.vendor)?;
        let stamped = dir.join("launcher");
        fs::write(&stamped, program)?;
        fs::set_permissions(&stamped, fs::Permissions::from_mode(0o755))?;
        let users = device.look(image)?.users(&releases);
        Ok(Self { launcher: stamped, device, releases, users, alone: None, proxy: None })
    }

    /// `image` is that of a device of the same product, made without any server: its virtual zone takes the place of the
    /// device's own unless [`Scrutiny::patient`] is asked for. A copy is put into `dir`.
    ///
    /// # Errors
    /// The image is not that of a whole device.
    pub fn with_alone(mut self, image: &Path, dir: &Path) -> Result<Self> {
        let iso = dir.join("alone.iso");
        look::copy_zone(&mut firmware_image::image::Device::open(image, None, Access::ReadOnly)?.virtual_raw()?, &iso)?;
        self.alone = Some(iso);
        Ok(self)
    }

    /// From now on the server at `address` (host and port) is in reach where [`Scrutiny::update`] asks for it.
    ///
    /// # Errors
    /// The way there cannot be made.
    pub fn with_server(mut self, address: &str) -> Result<Self> {
        self.proxy = Some(proxy::Proxy::to(address)?);
        Ok(self)
    }

    /// The launcher that opens images, with the vendor's key in it.
    pub fn launcher(&self) -> &Path {
        &self.launcher
    }

    /// The version that stands whole on the device in `image`, with all else that is demanded of what can be read.
    ///
    /// # Errors
    /// What is demanded and is not so.
    pub fn inspect(&self, image: &Path) -> Result<String> {
        self.device.look(image).and_then(|found| self.check(&found))
    }

    /// Judges the device in `image`, which is changed by that. `fsck` is a file that may be overwritten.
    ///
    /// # Errors
    /// What could not be looked at: a fault of this machine, not of the device.
    pub fn judge(&self, image: &Path, spare: &Path, scrutiny: Scrutiny) -> Result<Result<Healed, Defect>> {
        if let Some(what) = self.astray(image, spare)? {
            return Ok(Err(Defect { what, said: String::new() }));
        }
        let (status, mut said) = self.start(image, Reach::of(scrutiny))?;
        if status != Some(0) {
            return Ok(Err(Defect { what: format!("the launcher ended with {status:?}"), said }));
        }
        let found = match self.inspect(image) {
            Ok(found) => found,
            Err(error) => return Ok(Err(Defect { what: format!("{error:#}"), said })),
        };
        let mut healed = Healed { version: found, harmless: Vec::new(), starts: 1 };
        if scrutiny.again {
            while self.writes_again(image, Reach::of(scrutiny), &mut said)? {
                healed.starts += 1;
                if healed.starts == MAX_STARTS {
                    return Ok(Err(Defect { what: "every start changes something".into(), said }));
                }
            }
        }
        if scrutiny.update
            && let Some(defect) = self.update(image, &mut said)?
        {
            return Ok(Err(Defect { what: defect, said }));
        }
        if scrutiny.again || scrutiny.update {
            match self.inspect(image) {
                Ok(version) if scrutiny.update || version == healed.version => {}
                Ok(version) => {
                    let what = format!("{} was installed, and after another start it is {version}", healed.version);
                    return Ok(Err(Defect { what, said }));
                }
                Err(error) => return Ok(Err(Defect { what: format!("after more starts: {error:#}"), said })),
            }
        }
        match self.fsck(image, spare)? {
            Ok(harmless) => healed.harmless = harmless,
            Err(complaint) => return Ok(Err(Defect { what: format!("fsck.vfat: {complaint}"), said })),
        }
        Ok(Ok(healed))
    }

    /// What a cut left in the free zone of `image`, before anything heals it, that must not be: an entry over clusters that are
    /// not its own. `spare` is a file that may be overwritten.
    ///
    /// # Errors
    /// What could not be looked at.
    pub fn astray(&self, image: &Path, spare: &Path) -> Result<Option<String>> {
        self.device.copy_free_zone(image, spare)?;
        // A directory that grows gets its next cluster by writes to two places of the table, in any order.
        let astray = fsck::astray(spare)?.into_iter().find(|path| !self.device.has_directory(image, path));
        Ok(astray.map(|path| format!("the cut left {path} over clusters that are not its own")))
    }

    /// What `fsck.vfat` says of the free zone of `image`. `Err`: its first complaint that is not harmless.
    ///
    /// # Errors
    /// What could not be looked at.
    pub fn fsck(&self, image: &Path, spare: &Path) -> Result<Result<Vec<fsck::Harmless>, String>> {
        self.device.copy_free_zone(image, spare)?;
        fsck::check(spare)
    }

    /// One more start; whether it changed anything but the log, which says at each one that a known release was not to be had.
    fn writes_again(&self, image: &Path, reach: Reach, said: &mut String) -> Result<bool> {
        let stamp = || fs::metadata(image).map(|metadata| (metadata.mtime(), metadata.mtime_nsec()));
        let (before, content) = (stamp()?, self.device.fingerprint(image)?);
        let (status, more) = self.start(image, reach)?;
        said.push_str(&more);
        ensure!(status == Some(0), "a healed device ended with {status:?}: {more}");
        Ok(stamp()? != before && self.device.fingerprint(image)? != content)
    }

    /// The update with a server in reach; what went wrong.
    fn update(&self, image: &Path, said: &mut String) -> Result<Option<String>> {
        let newest = self.releases.last().context("there is no release")?;
        let (status, more) = self.start(image, Reach::Server)?;
        said.push_str(&more);
        let found = self.inspect(image);
        Ok(match found {
            _ if status != Some(0) => Some(format!("with a server in reach the launcher ended with {status:?}")),
            Ok(version) if version == newest.version => None,
            Ok(version) => Some(format!("with a server in reach the device stays at {version}")),
            Err(error) => Some(format!("with a server in reach: {error:#}")),
        })
    }

    /// One start of the launcher without any server in reach: its status (`None`: it was ended by a signal), and what it said.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_alone(&self, image: &Path) -> Result<(Option<i32>, String)> {
        self.start(image, Reach::Alone)
    }

    /// One start of the launcher: its status, and what it said.
    fn start(&self, image: &Path, reach: Reach) -> Result<(Option<i32>, String)> {
        let proxy = self.proxy.as_ref().filter(|_| reach == Reach::Server);
        let proxy = proxy.map_or_else(proxy::nowhere, proxy::Proxy::url);
        // `timeout` ends the whole group: no updater outlives its launcher.
        let mut command = Command::new("timeout");
        command.args(["-k", "5", START_SECS]).arg(&self.launcher);
        command.args([OsString::from("--device"), image.into(), "--no-client".into(), "--verbose".into()]);
        if let (Some(alone), Reach::Alone) = (&self.alone, reach) {
            command.arg("--virtual").arg(alone);
        }
        for name in ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"] {
            command.env_remove(name);
        }
        command.env("http_proxy", proxy);
        let output = run::capture(&mut command)?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// The version that is installed, whole.
    fn check(&self, found: &look::Found) -> Result<String> {
        let (client, others) = found.split();
        let release = self.releases.iter().find(|release| {
            release.files.iter().all(|(path, bytes)| client.get(path.as_str()).is_some_and(|found| *found == bytes))
        });
        let Some(release) = release else { return Err(self.mixture(&client)) };
        for (path, bytes) in &client {
            let full = format!("client/{path}");
            let known = release.files.get(*path).or_else(|| self.users.get(&full));
            ensure!(known == Some(*bytes), "client/ is {}, but for {path}, which is not of it", release.version);
        }
        for (path, bytes) in &self.users {
            let now = found.files.get(path).with_context(|| format!("the user's {path} is gone"))?;
            ensure!(now == bytes, "the user's {path} changed");
        }
        if let Some((path, _)) = others.iter().find(|(path, _)| !self.users.contains_key(**path)) {
            anyhow::bail!("{path} is left behind");
        }
        found.updater.as_ref().map_err(|error| anyhow::anyhow!("the updater in the free zone: {error}"))?;
        let recorded = found.recorded.as_deref().context("no record opens")?;
        ensure!(recorded == release.version, "the record says {recorded}, and {} is installed", release.version);
        Ok(release.version.clone())
    }

    fn mixture(&self, client: &BTreeMap<&str, &Vec<u8>>) -> anyhow::Error {
        let mut text = String::from("client/ is no whole release:");
        for release in &self.releases {
            let of = |test: &dyn Fn(&str, &Vec<u8>) -> bool| {
                let hits: Vec<&str> = release
                    .files
                    .iter()
                    .filter(|(path, bytes)| test(path, bytes))
                    .map(|(path, _)| path.as_str())
                    .collect();
                format!("{} {:?}", hits.len(), &hits[..hits.len().min(3)])
            };
            let missing = of(&|path, _| !client.contains_key(path));
            let other = of(&|path, bytes| client.get(path).is_some_and(|found| *found != bytes));
            text += &format!(" of {} are missing {missing}, other {other};", release.version);
        }
        anyhow::anyhow!(text)
    }
}
