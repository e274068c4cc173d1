//! A device as a raw image or block device: its zones are read and written in place, and the client runs from a private
//! copy. Whoever writes to a raw device locks it; the launcher holds it open only between two programs.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use embedded_io::Read as _;
use firmware_image::device_config::MAX_CONFIG_BYTES;
use firmware_image::free_zone::check_path;
use firmware_image::hidden::HiddenZone;
use firmware_image::host::{Access, FileZone};
use firmware_image::image::any_zone::{AnyVirtualFile, walk};
use firmware_image::image::{AnyFreeZone, Device, DeviceError, VirtualZone as _};
use firmware_image::signature::PublicKey;
use firmware_image::storage::Window;
use firmware_image::{FreeZone as _, ZoneError, paths};

use super::zones::{ClientHome, Opened, OpenedOf, Zones};
use crate::platform::{self, Presence};

/// Files that a client may have.
const MAX_CLIENT_FILES: usize = 100_000;
/// Bytes copied at a time.
const PIECE_BYTES: usize = 256 << 10;

/// A raw device.
pub struct Image {
    device: PathBuf,
    virtual_zone: Option<PathBuf>,
}

/// Why it is of no use.
#[derive(Debug)]
pub enum ImageError {
    /// It cannot be opened as a device.
    Device(DeviceError),
    /// It has no virtual zone, and none was named.
    NoVirtualZone(PathBuf),
    /// Its virtual zone cannot be read.
    VirtualZone(PathBuf, ZoneError),
}

impl ImageError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Device(DeviceError::Open { .. }) => "Is the path right, and may this user read it?",
            Self::Device(_) => "Name a whole device or its image, not a partition of it.",
            Self::NoVirtualZone(_) => "A dual device has its virtual zone on a CD: name it with --virtual CD.iso.",
            Self::VirtualZone(..) => "Write the device anew with `partition-tools`, or take a good image.",
        }
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => match error.source() {
                Some(source) => write!(f, "{error}: {source}."),
                None => write!(f, "{error}."),
            },
            Self::NoVirtualZone(path) => write!(f, "{} has no virtual zone.", path.display()),
            Self::VirtualZone(path, error) => {
                write!(f, "The virtual zone of {} cannot be read: {error}.", path.display())
            }
        }
    }
}

impl std::error::Error for ImageError {}

impl Image {
    /// The device at `device`, with the CD of a *dual* device in `virtual_zone`.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn open(device: &Path, virtual_zone: Option<&Path>) -> Result<Self, ImageError> {
        // An empty path was refused with the command line, which is all that `absolute` refuses.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let image = Self { device: absolute(device), virtual_zone: virtual_zone.map(absolute) };
        let opened = image.reopen(Access::ReadOnly).map_err(ImageError::Device)?;
        match opened.virtual_zone() {
            Ok(_) => {}
            Err(ZoneError::NotFound) if virtual_zone.is_none() => return Err(ImageError::NoVirtualZone(image.device)),
            Err(error) => return Err(ImageError::VirtualZone(image.device, error)),
        }
        Ok(image)
    }

    fn reopen(&self, access: Access) -> Result<Device, DeviceError> {
        Device::open(&self.device, self.virtual_zone.as_deref(), access)
    }

    /// For writing where that is allowed and nobody else writes, else for reading.
    fn reopen_widest(&self) -> Option<Device> {
        self.reopen(Access::ReadWrite).or_else(|_| self.reopen(Access::ReadOnly)).ok()
    }
}

impl Zones for Image {
    type Hidden = Window<FileZone>;
    type Free = AnyFreeZone;
    type Tail = Window<FileZone>;
    type Plain = AnyVirtualFile;
    const SHARED: bool = false;

    fn config(&self, _vendor: &PublicKey) -> Result<Vec<u8>, ZoneError> {
        // The program said why it cannot be opened when it was first.
        let device = self.reopen(Access::ReadOnly).map_err(|_| ZoneError::NotFound)?;
        let bytes = device.virtual_zone()?.read_file(paths::DEVICE_CONFIG, MAX_CONFIG_BYTES as u64)?;
        bytes.ok_or(ZoneError::NotFound)
    }

    fn open(&self, align_bytes: u64, platform: &str) -> OpenedOf<Self> {
        let Some(device) = self.reopen_widest() else {
            return Opened { hidden: None, free: None, cd_tail: None, plain: None };
        };
        let plain = device.virtual_zone().and_then(|zone| zone.open_file(&paths::updater_name(platform)));
        Opened {
            hidden: device.hidden_zone().and_then(|zone| HiddenZone::new(zone, align_bytes)).ok(),
            free: device.free_zone().ok(),
            cd_tail: device.cd_tail().ok().flatten(),
            plain: plain.ok().flatten(),
        }
    }

    fn updater_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--device".into(), self.device.clone().into()];
        if let Some(virtual_zone) = &self.virtual_zone {
            args.extend(["--virtual".into(), virtual_zone.clone().into()]);
        }
        args
    }

    fn client_home(&self) -> io::Result<ClientHome> {
        let device = self.reopen(Access::ReadOnly).map_err(io::Error::other)?;
        let free = device.free_zone().map_err(io::Error::other)?;
        let home = ClientHome::Private(platform::private_directory()?);
        extract(&free, home.path())?;
        Ok(home)
    }

    fn managed_directory(&self) -> Option<PathBuf> {
        None
    }

    fn presence(&self) -> Presence {
        Presence::of([Some(&self.device), self.virtual_zone.as_ref()].into_iter().flatten().map(PathBuf::as_path))
    }

    fn virtual_zone(&self) -> String {
        match &self.virtual_zone {
            Some(path) => path.display().to_string(),
            None => format!("the virtual zone of {}", self.device.display()),
        }
    }

    fn out_of_reach(&self) -> Vec<String> {
        let device = match self.reopen(Access::ReadOnly) {
            Ok(device) => device,
            Err(error) => return vec![format!("{error}.")],
        };
        let zones = [("free", device.free_zone().err()), ("hidden", device.hidden_zone().err())];
        let faulty = zones.into_iter().filter_map(|(name, error)| Some((name, error?)));
        faulty.map(|(name, error)| format!("The {name} zone cannot be opened: {error}.")).collect()
    }
}

/// Copies the managed directory below `home`, which only this user may enter, with permission to execute what looks like a program.
fn extract(free: &AnyFreeZone, home: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    walk(free, paths::CLIENT_DIR, &mut |path, length| {
        if files.len() <= MAX_CLIENT_FILES {
            files.push((path.to_owned(), length));
        }
    })
    .map_err(io::Error::other)?;
    if files.len() > MAX_CLIENT_FILES {
        return Err(io::Error::other("the client has more files than a client may have"));
    }
    let mut piece = vec![0; PIECE_BYTES];
    for (path, length) in files {
        // What this file system could not hold, or would hold elsewhere, is left out.
        if check_path(&path).is_err() {
            continue;
        }
        let to = home.join(&path);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        copy(free, &path, length, &to, &mut piece).map_err(|error| {
            io::Error::new(error.kind(), format!("{path} cannot be copied from the free zone: {error}"))
        })?;
    }
    Ok(())
}

fn copy(free: &AnyFreeZone, path: &str, length: u64, to: &Path, piece: &mut [u8]) -> io::Result<()> {
    let mut file = free.open(path).map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
    let (mut left, mut out) = (length, None::<File>);
    loop {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        let n = if take == 0 { 0 } else { file.read(&mut piece[..take]).map_err(io::Error::other)? };
        let out = match &mut out {
            Some(out) => out,
            None => {
                let runs = piece[..n].starts_with(b"#!") || piece[..n].starts_with(b"\x7fELF");
                let file = File::create_new(to)?;
                if runs {
                    platform::make_executable(&file)?;
                }
                out.insert(file)
            }
        };
        out.write_all(&piece[..n])?;
        left -= n as u64;
        match (left, n) {
            (0, _) => return Ok(()),
            (_, 0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}
