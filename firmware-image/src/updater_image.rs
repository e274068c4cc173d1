//! The updater image: an executable with a signed trailer, one file a platform (`docs/formats/updater-image.md`).
//!
//! ```text
//! executable, zeros to a multiple of 8 │ trailer
//! trailer: magic 8 │ format u16 │ body length u16 │ body (postcard) │ zeros to 8 │ signature 64 │ trailer length u32 │ 0 u32
//! ```
//! A PE executable may be signed by Authenticode afterwards: its certificate table then stands behind the trailer, and
//! the digest passes over what that signing changes (checksum, certificate table entry).
//!
//! Trust is carried by types: [`Trailer`] can only be had from [`authenticate`], and [`Trailer::verify_image`] is the
//! only thing that says yes to an image.

use core::fmt;

use embedded_io::{ErrorType, Read, Seek};
use serde::{Deserialize, Serialize};

use crate::digest::Hasher;
use crate::signature::{Domain, PublicKey, SIGNATURE_BYTES};
use crate::storage::read_exact_at;
use crate::{Digest, ZoneError, paths};

/// The first bytes of a trailer.
pub const TRAILER_MAGIC: [u8; 8] = *b"HOLDFUPD";
/// The format's number.
pub const TRAILER_FORMAT: u16 = 1;
/// The longest trailer a reader accepts, in bytes.
pub const MAX_TRAILER_BYTES: usize = 1024;
/// The longest image a reader accepts, in bytes.
pub const MAX_IMAGE_BYTES: u64 = 64 << 20;
/// The longest product name, in bytes.
pub const MAX_PRODUCT_BYTES: usize = 64;
/// Images and trailers end on this boundary, as Authenticode wants.
pub const IMAGE_ALIGN: usize = 8;

const HEAD_BYTES: usize = 12;
const TAIL_BYTES: usize = SIGNATURE_BYTES + 8;
/// Which of a PE's data directories is the certificate table's.
const CERTIFICATE_DIRECTORY: u32 = 4;

/// An updater's version, compared field by field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UpdaterVersion {
    /// Incompatible changes.
    pub major: u16,
    /// New features.
    pub minor: u16,
    /// Corrections.
    pub patch: u16,
}

impl UpdaterVersion {
    /// Reads `1.2.3`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        let version = Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }
}

impl fmt::Display for UpdaterVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What an updater must at least be to run on a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floors {
    /// The lowest updater version.
    pub version: UpdaterVersion,
    /// The lowest serial of the key that signed it.
    pub key_serial: u32,
}

impl Floors {
    /// The higher of both, field by field.
    pub fn max(self, other: Self) -> Self {
        Self { version: self.version.max(other.version), key_serial: self.key_serial.max(other.key_serial) }
    }

    /// Whether an image with this version and key serial may run.
    pub fn admits(&self, version: UpdaterVersion, key_serial: u32) -> bool {
        version >= self.version && key_serial >= self.key_serial
    }
}

/// The vendor key's statement that a key may sign updaters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCertificate {
    /// Grows by one with each new updater key.
    pub serial: u32,
    /// The updater key.
    pub key: PublicKey,
    #[serde(with = "crate::byte_array")]
    signature: [u8; SIGNATURE_BYTES],
}

impl KeyCertificate {
    /// The bytes that the vendor signs: serial, key.
    fn message(serial: u32, key: &PublicKey) -> [u8; 36] {
        let mut message = [0; 36];
        message[..4].copy_from_slice(&serial.to_le_bytes());
        message[4..].copy_from_slice(&key.0);
        message
    }

    /// Certifies `key` under `serial`.
    #[cfg(feature = "sign")]
    pub fn issue(vendor: &crate::signature::SigningKey, serial: u32, key: PublicKey) -> Self {
        let signature = vendor.sign(Domain::KeyCertificate, &Self::message(serial, &key));
        Self { serial, key, signature }
    }

    /// Whether the vendor signed this.
    pub fn is_from(&self, vendor: &PublicKey) -> bool {
        vendor.verifies(Domain::KeyCertificate, &Self::message(self.serial, &self.key), &self.signature)
    }
}

/// A trailer's fields. Frozen: new ones are appended, and readers skip what they don't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailerBody<'a> {
    /// The product the updater is for.
    pub product: &'a str,
    /// The platform it runs on.
    pub platform: &'a str,
    /// Its version.
    pub version: UpdaterVersion,
    /// Bytes of the executable with its padding: where the trailer begins.
    pub image_bytes: u64,
    /// SHA-256 of those bytes (of a PE, with the fields that Authenticode changes as zeros).
    pub sha256: Digest,
    /// What certifies the signing key.
    pub certificate: KeyCertificate,
    /// What this updater's vendor no longer lets run, once both backups satisfy it.
    pub floors: Floors,
}

/// Why an image is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// There is no trailer: truncated, or not an updater image.
    NoTrailer,
    /// A trailer of a format this program does not know.
    UnknownFormat(u16),
    /// The trailer's bytes contradict themselves.
    Malformed,
    /// The signing key is not certified by this device's vendor.
    ForeignKey,
    /// The signature does not hold.
    BadSignature,
    /// For another product.
    WrongProduct,
    /// For another platform.
    WrongPlatform,
    /// The image's bytes are not those that were signed.
    Damaged,
    /// Longer than [`MAX_IMAGE_BYTES`].
    TooLong,
    /// Older than the floors allow.
    BelowFloor(UpdaterVersion),
    /// Its own floors would not let it run: nothing is signed.
    FloorAboveItself,
    /// It could not be read.
    Zone(ZoneError),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTrailer => f.write_str("not an updater image, or cut off"),
            Self::UnknownFormat(format) => write!(f, "an updater image of the unknown format {format}"),
            Self::Malformed => f.write_str("the trailer is damaged"),
            Self::ForeignKey => f.write_str("signed by a key that this vendor did not certify"),
            Self::BadSignature => f.write_str("the signature does not hold"),
            Self::WrongProduct => f.write_str("an updater of another product"),
            Self::WrongPlatform => f.write_str("an updater for another platform"),
            Self::Damaged => f.write_str("the bytes are not those that were signed"),
            Self::TooLong => f.write_str("longer than an updater may be"),
            Self::BelowFloor(version) => write!(f, "version {version} is too old to be allowed"),
            Self::FloorAboveItself => f.write_str("its floors are above its own version or key serial"),
            Self::Zone(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for ImageError {}

impl From<ZoneError> for ImageError {
    fn from(error: ZoneError) -> Self {
        Self::Zone(error)
    }
}

/// A trailer whose signatures hold: what it says, this vendor said.
#[derive(Debug, Clone, Copy)]
pub struct Trailer<'a> {
    body: TrailerBody<'a>,
    bytes: &'a [u8],
}

/// Reads the trailer of the image in `file` (`length` bytes) into `buffer` and returns its bytes, unauthenticated.
///
/// # Errors
/// `NoTrailer`, `TooLong`, or what reading reports.
pub fn read_trailer<'a, F>(
    file: &mut F,
    length: u64,
    buffer: &'a mut [u8; MAX_TRAILER_BYTES],
) -> Result<&'a [u8], ImageError>
where
    F: Read + Seek + ErrorType<Error = ZoneError> + ?Sized,
{
    if length > MAX_IMAGE_BYTES {
        return Err(ImageError::TooLong);
    }
    let end = signed_end(file, length)?;
    let least = (HEAD_BYTES + TAIL_BYTES) as u64;
    if end < least {
        return Err(ImageError::NoTrailer);
    }
    let mut tail = [0; 8];
    read_exact_at(file, end - 8, &mut tail)?;
    let trailer_bytes = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]) as usize;
    let plausible = (HEAD_BYTES + TAIL_BYTES..=MAX_TRAILER_BYTES).contains(&trailer_bytes) && tail[4..] == [0; 4];
    if !plausible || trailer_bytes as u64 > end {
        return Err(ImageError::NoTrailer);
    }
    let bytes = &mut buffer[..trailer_bytes];
    read_exact_at(file, end - trailer_bytes as u64, bytes)?;
    if bytes[..8] != TRAILER_MAGIC { Err(ImageError::NoTrailer) } else { Ok(bytes) }
}

/// Checks a trailer's certificate and signature against the vendor's key. Says nothing of the image's bytes.
///
/// # Errors
/// `UnknownFormat`, `Malformed`, `ForeignKey`, `BadSignature`.
pub fn authenticate<'a>(bytes: &'a [u8], vendor: &PublicKey) -> Result<Trailer<'a>, ImageError> {
    if bytes.len() < HEAD_BYTES + TAIL_BYTES || bytes.len() > MAX_TRAILER_BYTES || bytes[..8] != TRAILER_MAGIC {
        return Err(ImageError::NoTrailer);
    }
    let format = u16::from_le_bytes([bytes[8], bytes[9]]);
    if format != TRAILER_FORMAT {
        return Err(ImageError::UnknownFormat(format));
    }
    let body_bytes = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    let signed_bytes = bytes.len() - TAIL_BYTES;
    let body = bytes[HEAD_BYTES..signed_bytes].get(..body_bytes).ok_or(ImageError::Malformed)?;
    let stated = u32::from_le_bytes(quad(&bytes[bytes.len() - 8..])) as usize;
    let (body, _appended) = postcard::take_from_bytes::<TrailerBody>(body).map_err(|_| ImageError::Malformed)?;
    let sound = stated == bytes.len()
        && body.product.len() <= MAX_PRODUCT_BYTES
        && body.platform.len() <= paths::MAX_PLATFORM_BYTES
        && body.image_bytes <= MAX_IMAGE_BYTES;
    if !sound {
        return Err(ImageError::Malformed);
    }
    if !body.certificate.is_from(vendor) {
        return Err(ImageError::ForeignKey);
    }
    let mut signature = [0; SIGNATURE_BYTES];
    signature.copy_from_slice(&bytes[signed_bytes..signed_bytes + SIGNATURE_BYTES]);
    if !body.certificate.key.verifies(Domain::UpdaterTrailer, &bytes[..signed_bytes], &signature) {
        return Err(ImageError::BadSignature);
    }
    Ok(Trailer { body, bytes })
}

impl<'a> Trailer<'a> {
    /// What the trailer says.
    pub fn body(&self) -> &TrailerBody<'a> {
        &self.body
    }

    /// The trailer as it stands in the file: the signed statement that a record keeps.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it is for this product and platform.
    ///
    /// # Errors
    /// `WrongProduct`, `WrongPlatform`.
    pub fn is_for(&self, product: &str, platform: &str) -> Result<(), ImageError> {
        if self.body.product != product {
            return Err(ImageError::WrongProduct);
        }
        if self.body.platform != platform {
            return Err(ImageError::WrongPlatform);
        }
        Ok(())
    }

    /// Whether the floors let it run.
    ///
    /// # Errors
    /// `BelowFloor`.
    pub fn is_above(&self, floors: &Floors) -> Result<(), ImageError> {
        if floors.admits(self.body.version, self.body.certificate.serial) {
            Ok(())
        } else {
            Err(ImageError::BelowFloor(self.body.version))
        }
    }

    /// Checks that the bytes of `file` (`length` bytes) are those that were signed, reading through `buffer`.
    ///
    /// # Errors
    /// `Damaged`, or what reading reports.
    pub fn verify_image<F>(&self, file: &mut F, length: u64, buffer: &mut [u8]) -> Result<(), ImageError>
    where
        F: Read + Seek + ErrorType<Error = ZoneError> + ?Sized,
    {
        let end = signed_end(file, length)?;
        if end != self.body.image_bytes + self.bytes.len() as u64 {
            return Err(ImageError::Damaged);
        }
        if image_digest(file, self.body.image_bytes, buffer)? == self.body.sha256 {
            Ok(())
        } else {
            Err(ImageError::Damaged)
        }
    }
}

/// Where the signed part of `file` ends: at its end, or where a PE's certificate table begins.
fn signed_end<F>(file: &mut F, length: u64) -> Result<u64, ImageError>
where
    F: Read + Seek + ErrorType<Error = ZoneError> + ?Sized,
{
    let Some(pe) = PeFields::read(file, length)? else { return Ok(length) };
    let mut entry = [0; 8];
    read_exact_at(file, pe.certificate_entry, &mut entry)?;
    let start = u64::from(u32::from_le_bytes(quad(&entry)));
    let size = u64::from(u32::from_le_bytes(quad(&entry[4..])));
    if size == 0 {
        return Ok(length);
    }
    if start + size == length { Ok(start) } else { Err(ImageError::Malformed) }
}

/// The digest of the first `image_bytes` of `file`; of a PE with the fields that Authenticode changes as zeros.
fn image_digest<F>(file: &mut F, image_bytes: u64, buffer: &mut [u8]) -> Result<Digest, ImageError>
where
    F: Read + Seek + ErrorType<Error = ZoneError> + ?Sized,
{
    let blank = match PeFields::read(file, image_bytes)? {
        Some(pe) => [(pe.checksum, 4), (pe.certificate_entry, 8)],
        None => [(0, 0); 2],
    };
    let mut hasher = Hasher::new();
    let mut offset = 0;
    while offset < image_bytes {
        let take = usize::try_from(image_bytes - offset).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..take];
        if piece.is_empty() {
            return Err(ImageError::Malformed);
        }
        read_exact_at(file, offset, piece)?;
        for (start, length) in blank {
            for at in start..start + length {
                if let Some(byte) = at.checked_sub(offset).and_then(|at| piece.get_mut(usize::try_from(at).ok()?)) {
                    *byte = 0;
                }
            }
        }
        hasher.update(piece);
        offset += take as u64;
    }
    Ok(hasher.finish())
}

/// Where a PE file (Microsoft PE/COFF, section 3.4) holds what Authenticode changes.
struct PeFields {
    checksum: u64,
    certificate_entry: u64,
}

impl PeFields {
    /// `None` for anything but a PE that has a certificate table's directory entry: such a file is taken as it is.
    fn read<F>(file: &mut F, length: u64) -> Result<Option<Self>, ImageError>
    where
        F: Read + Seek + ErrorType<Error = ZoneError> + ?Sized,
    {
        let mut dos = [0; 64];
        if length < dos.len() as u64 {
            return Ok(None);
        }
        read_exact_at(file, 0, &mut dos)?;
        let header = u64::from(u32::from_le_bytes(quad(&dos[60..])));
        let mut pe = [0; 26];
        if dos[..2] != *b"MZ" || header + 24 + 240 > length {
            return Ok(None);
        }
        read_exact_at(file, header, &mut pe)?;
        if pe[..4] != *b"PE\0\0" {
            return Ok(None);
        }
        let optional = header + 24;
        let directories = match u16::from_le_bytes([pe[24], pe[25]]) {
            0x10b => optional + 96,
            0x20b => optional + 112,
            _ => return Ok(None),
        };
        // NumberOfRvaAndSizes stands before the first directory. Without a fifth one there is no certificate table, what
        // stands in its place is the program's, and Authenticode has nowhere to sign.
        let mut count = [0; 4];
        read_exact_at(file, directories - 4, &mut count)?;
        if u32::from_le_bytes(count) <= CERTIFICATE_DIRECTORY {
            return Ok(None);
        }
        let certificate_entry = directories + u64::from(CERTIFICATE_DIRECTORY) * 8;
        Ok(Some(Self { checksum: optional + 64, certificate_entry }))
    }
}

fn quad(bytes: &[u8]) -> [u8; 4] {
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

/// What a signer says about an updater.
#[cfg(feature = "sign")]
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// The product it is for.
    pub product: &'a str,
    /// The platform it runs on.
    pub platform: &'a str,
    /// Its version.
    pub version: UpdaterVersion,
    /// What may no longer run beside it.
    pub floors: Floors,
}

/// Writes the trailer for `executable`, which is padded, into `out`; the image is the padded executable and then this.
/// Returns the trailer.
///
/// # Errors
/// `TooLong` for a name or an executable over its limit, `Malformed` for an executable whose length is not a multiple of
/// [`IMAGE_ALIGN`], `FloorAboveItself` for floors that would lock out the very updater that states them.
#[cfg(feature = "sign")]
pub fn make_trailer<'b>(
    executable: &[u8],
    statement: &Statement<'_>,
    certificate: &KeyCertificate,
    key: &crate::signature::SigningKey,
    out: &'b mut [u8; MAX_TRAILER_BYTES],
) -> Result<&'b [u8], ImageError> {
    let too_long = statement.product.len() > MAX_PRODUCT_BYTES
        || statement.platform.len() > paths::MAX_PLATFORM_BYTES
        || executable.len() as u64 + MAX_TRAILER_BYTES as u64 > MAX_IMAGE_BYTES;
    if too_long {
        return Err(ImageError::TooLong);
    }
    if !executable.len().is_multiple_of(IMAGE_ALIGN) {
        return Err(ImageError::Malformed);
    }
    if !statement.floors.admits(statement.version, certificate.serial) {
        return Err(ImageError::FloorAboveItself);
    }
    let mut buffer = [0; 4096];
    let image_bytes = executable.len() as u64;
    let sha256 = image_digest(&mut crate::storage::SliceReader::new(executable), image_bytes, &mut buffer)?;
    let body = TrailerBody {
        product: statement.product,
        platform: statement.platform,
        version: statement.version,
        image_bytes,
        sha256,
        certificate: *certificate,
        floors: statement.floors,
    };
    let body_bytes = postcard::to_slice(&body, &mut out[HEAD_BYTES..]).map_err(|_| ImageError::TooLong)?.len();
    let signed_bytes = (HEAD_BYTES + body_bytes).next_multiple_of(IMAGE_ALIGN);
    let trailer_bytes = signed_bytes + TAIL_BYTES;
    if trailer_bytes > MAX_TRAILER_BYTES {
        return Err(ImageError::TooLong);
    }
    out[..8].copy_from_slice(&TRAILER_MAGIC);
    out[8..10].copy_from_slice(&TRAILER_FORMAT.to_le_bytes());
    out[10..12].copy_from_slice(&(body_bytes as u16).to_le_bytes());
    out[HEAD_BYTES + body_bytes..signed_bytes].fill(0);
    let signature = key.sign(Domain::UpdaterTrailer, &out[..signed_bytes]);
    out[signed_bytes..signed_bytes + SIGNATURE_BYTES].copy_from_slice(&signature);
    out[trailer_bytes - 8..trailer_bytes - 4].copy_from_slice(&(trailer_bytes as u32).to_le_bytes());
    out[trailer_bytes - 4..trailer_bytes].fill(0);
    Ok(&out[..trailer_bytes])
}

/// Stamps the vendor's key into `program` and signs it: the updater image, ready to ship.
///
/// # Errors
/// [`SignError`].
#[cfg(all(feature = "sign", feature = "std"))]
pub fn sign(
    mut program: std::vec::Vec<u8>,
    statement: &Statement<'_>,
    vendor: &PublicKey,
    certificate: &KeyCertificate,
    key: &crate::signature::SigningKey,
) -> Result<std::vec::Vec<u8>, SignError> {
    crate::stamp::stamp(&mut program, vendor).map_err(SignError::Stamp)?;
    program.resize(program.len().next_multiple_of(IMAGE_ALIGN), 0);
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let trailer = make_trailer(&program, statement, certificate, key, &mut buffer).map_err(SignError::Image)?;
    program.extend_from_slice(trailer);
    Ok(program)
}

/// Why a program could not be made an updater image.
#[cfg(all(feature = "sign", feature = "std"))]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// It takes no stamp.
    #[error(transparent)]
    Stamp(crate::stamp::StampError),
    /// It makes no image.
    #[error(transparent)]
    Image(ImageError),
}

/// Authenticates and verifies a whole image in memory.
///
/// # Errors
/// As [`read_trailer`], [`authenticate`] and [`Trailer::verify_image`].
pub fn verify_bytes<'a>(
    image: &[u8],
    vendor: &PublicKey,
    trailer: &'a mut [u8; MAX_TRAILER_BYTES],
) -> Result<Trailer<'a>, ImageError> {
    let mut reader = crate::storage::SliceReader::new(image);
    let length = image.len() as u64;
    let trailer = authenticate(read_trailer(&mut reader, length, trailer)?, vendor)?;
    trailer.verify_image(&mut reader, length, &mut [0; 4096])?;
    Ok(trailer)
}
