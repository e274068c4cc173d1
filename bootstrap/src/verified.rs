//! Trust carried by types: a [`VerifiedCopy`] can only be had by verifying bytes that nobody can change any more, in the
//! place from which they run. Nothing else can be started, and nothing else is restored.
//!
//! A [`Claim`] is less: its trailer is authentic, its bytes were not looked at. It serves to put copies into an order.

use firmware_image::storage::SliceReader;
use firmware_image::updater_image::{
    Floors, ImageError, MAX_IMAGE_BYTES, MAX_TRAILER_BYTES, Trailer, UpdaterVersion, authenticate, read_trailer,
};
use firmware_image::{Digest, ZoneError};

use crate::device::{CopyFault, Product, Stored};

/// Bytes hashed at a time.
const HASH_BUFFER_BYTES: usize = 1 << 10;

/// Bytes in the place from which they run, which nobody can change as long as this lives.
pub trait SealedBytes {
    /// All of them.
    fn bytes(&self) -> &[u8];
}

/// Why bytes did not get to where they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadError {
    /// They could not be read.
    Read(ZoneError),
    /// The place would not take them.
    Place(ZoneError),
}

/// A place from which an updater runs: sealed memory, a private directory, a region of flash.
pub trait RunPlace {
    /// Bytes that were brought there and sealed.
    type Image: SealedBytes;

    /// Copies `length` bytes of `source` there and seals them. `length` is at most [`MAX_IMAGE_BYTES`].
    ///
    /// # Errors
    /// See [`LoadError`].
    fn load(&mut self, source: &mut dyn Stored, length: u64) -> Result<Self::Image, LoadError>;
}

/// What an authentic trailer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The updater's version.
    pub version: UpdaterVersion,
    /// The serial of the key that signed it.
    pub key_serial: u32,
    /// The digest of the signed executable: what tells updaters apart.
    pub digest: Digest,
}

impl Claim {
    /// Reads the claim of the image in `file`, which must be one for this product and platform.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(file: &mut dyn Stored, length: u64, product: &Product<'_>) -> Result<Self, ImageError> {
        let mut buffer = [0; MAX_TRAILER_BYTES];
        trailer(file, length, product, &mut buffer).map(|trailer| Self::of(&trailer))
    }

    /// Whether the floors let it run.
    pub fn is_admitted(&self, floors: &Floors) -> bool {
        floors.admits(self.version, self.key_serial)
    }

    /// What makes one newer than another: the version, then the key's serial.
    pub fn age(&self) -> (UpdaterVersion, u32) {
        (self.version, self.key_serial)
    }

    fn of(trailer: &Trailer<'_>) -> Self {
        let body = trailer.body();
        Self { version: body.version, key_serial: body.certificate.serial, digest: body.sha256 }
    }
}

fn trailer<'b>(
    file: &mut dyn Stored,
    length: u64,
    product: &Product<'_>,
    buffer: &'b mut [u8; MAX_TRAILER_BYTES],
) -> Result<Trailer<'b>, ImageError> {
    let trailer = authenticate(read_trailer(file, length, buffer)?, &product.vendor)?;
    trailer.is_for(product.name, product.platform)?;
    Ok(trailer)
}

/// Checks a copy where it stands, without running it: the claim, if all of its bytes are those that were signed.
///
/// # Errors
/// Why it is no updater of this product and platform.
pub fn check(file: &mut dyn Stored, length: u64, product: &Product<'_>) -> Result<Claim, ImageError> {
    let mut buffer = [0; MAX_TRAILER_BYTES];
    let trailer = trailer(file, length, product, &mut buffer)?;
    verify_image(&trailer, file, length)?;
    Ok(Claim::of(&trailer))
}

/// A function of its own: a microcontroller's stack need not hold this buffer while signatures are verified.
#[inline(never)]
fn verify_image(trailer: &Trailer<'_>, file: &mut dyn Stored, length: u64) -> Result<(), ImageError> {
    trailer.verify_image(file, length, &mut [0; HASH_BUFFER_BYTES])
}

/// An updater for this product and platform, signed by its vendor, verified where it runs. Says nothing of floors.
pub struct VerifiedCopy<I> {
    image: I,
    claim: Claim,
}

impl<I: SealedBytes> VerifiedCopy<I> {
    /// Verifies sealed bytes.
    ///
    /// # Errors
    /// Why they are no updater of this product and platform.
    pub fn verify(image: I, product: &Product<'_>) -> Result<Self, ImageError> {
        let bytes = image.bytes();
        let claim = check(&mut SliceReader::new(bytes), bytes.len() as u64, product)?;
        Ok(Self { image, claim })
    }

    /// Brings the bytes of `source` to `place` and verifies them there.
    ///
    /// # Errors
    /// Why they do not get there, or are no updater.
    pub fn load<P>(
        source: &mut dyn Stored,
        length: u64,
        place: &mut P,
        product: &Product<'_>,
    ) -> Result<Self, CopyFault>
    where
        P: RunPlace<Image = I>,
    {
        if length > MAX_IMAGE_BYTES {
            return Err(ImageError::TooLong.into());
        }
        let image = place.load(source, length).map_err(|error| match error {
            LoadError::Read(error) => error.into(),
            LoadError::Place(error) => CopyFault::NoRoomToRun(error),
        })?;
        Ok(Self::verify(image, product)?)
    }

    /// The same updater in another place, verified again there.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn moved_to<P: RunPlace>(
        &self,
        place: &mut P,
        product: &Product<'_>,
    ) -> Result<VerifiedCopy<P::Image>, CopyFault> {
        let bytes = self.image.bytes();
        VerifiedCopy::load(&mut SliceReader::new(bytes), bytes.len() as u64, place, product)
    }

    /// The verified bytes, executable and trailer.
    pub fn bytes(&self) -> &[u8] {
        self.image.bytes()
    }

    /// What holds them.
    pub fn image(&self) -> &I {
        &self.image
    }

    /// What its trailer says.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }
}
