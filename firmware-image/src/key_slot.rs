//! Key slots: how a device key is unlocked by the product secret, a passphrase or a recovery code.
//!
//! A slot is 96 bytes, little-endian, and stands up to four times in the header of every record and backup:
//!
//! ```text
//! kind u8 │ 0 × 3 │ Argon2 memory KiB u32 │ passes u32 │ lanes u32 │ device id 16 │ salt 16 │ wrapped key 32 │ tag 16
//! ```
//! The wrapping key is Argon2id (RFC 9106) over the secret, with `salt ‖ device id` as its salt; the key is wrapped by
//! AES-256-GCM with the first 48 bytes as associated data. A reader refuses a cost over the ceiling before it allocates.

use argon2::{Algorithm, Argon2, Block, Params, Version};

use crate::seal::{self, KEY_BYTES, Secret, TAG_BYTES};

/// Bytes of a slot.
pub const KEY_SLOT_BYTES: usize = 96;
/// Slots in a header.
pub const KEY_SLOTS: usize = 4;
/// The most memory that a slot may ask for, in KiB.
pub const MAX_MEMORY_KIB: u32 = 64 << 10;
/// The most passes that a slot may ask for.
pub const MAX_PASSES: u32 = 16;
/// Bytes of a device id.
pub const DEVICE_ID_BYTES: usize = 16;

const ASSOCIATED_BYTES: usize = 48;

/// A device's random name; printed as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct DeviceId(#[serde(with = "crate::byte_array")] pub [u8; DEVICE_ID_BYTES]);

impl core::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl core::fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// Who can open a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotKind {
    /// The product secret, which the device itself carries.
    Unattended,
    /// A passphrase that a person types.
    Passphrase,
    /// A printed code.
    Recovery,
}

impl SlotKind {
    fn code(self) -> u8 {
        match self {
            Self::Unattended => 1,
            Self::Passphrase => 2,
            Self::Recovery => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Unattended),
            2 => Some(Self::Passphrase),
            3 => Some(Self::Recovery),
            _ => None,
        }
    }
}

/// What a slot costs to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB: as many [`Block`]s.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// For a secret of 256 random bits, where stretching adds nothing.
    pub const UNATTENDED: Self = Self { memory_kib: 256, passes: 1, lanes: 1 };
    /// For what a person types (OWASP's recommendation for Argon2id).
    pub const TYPED: Self = Self { memory_kib: 19 << 10, passes: 2, lanes: 1 };

    fn params(&self) -> Option<Params> {
        let within = self.memory_kib <= MAX_MEMORY_KIB && self.passes <= MAX_PASSES && self.lanes <= 4;
        if !within {
            return None;
        }
        Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_BYTES)).ok()
    }
}

/// Why a slot does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnlockError {
    /// The slot is empty or of an unknown kind.
    Empty,
    /// It asks for more than the ceiling, or for nonsense.
    Cost,
    /// The caller gave fewer blocks than this many.
    Memory(u32),
    /// Another secret, or damage.
    Unauthentic,
}

/// One slot, as it stands in a header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeySlot(pub [u8; KEY_SLOT_BYTES]);

impl KeySlot {
    /// An empty slot.
    pub const EMPTY: Self = Self([0; KEY_SLOT_BYTES]);

    /// Who can open it; `None` where it is empty.
    pub fn kind(&self) -> Option<SlotKind> {
        SlotKind::from_code(self.0[0])
    }

    /// Which device's key it wraps.
    pub fn device_id(&self) -> DeviceId {
        let mut id = [0; DEVICE_ID_BYTES];
        id.copy_from_slice(&self.0[16..32]);
        DeviceId(id)
    }

    /// What it costs to try.
    pub fn cost(&self) -> Cost {
        let word = |at: usize| u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]);
        Cost { memory_kib: word(4), passes: word(8), lanes: word(12) }
    }

    /// Wraps `device_key` for `secret`. `salt` must be random, or derived from something that never repeats for another
    /// key. `blocks` are Argon2's memory, at least `cost.memory_kib` of them.
    ///
    /// # Errors
    /// `Cost`, `Memory`.
    pub fn lock(
        kind: SlotKind,
        cost: Cost,
        device_id: DeviceId,
        salt: [u8; 16],
        device_key: &Secret,
        secret: &[u8],
        blocks: &mut [Block],
    ) -> Result<Self, UnlockError> {
        let mut slot = Self::EMPTY;
        slot.0[0] = kind.code();
        slot.0[4..8].copy_from_slice(&cost.memory_kib.to_le_bytes());
        slot.0[8..12].copy_from_slice(&cost.passes.to_le_bytes());
        slot.0[12..16].copy_from_slice(&cost.lanes.to_le_bytes());
        slot.0[16..32].copy_from_slice(&device_id.0);
        slot.0[32..48].copy_from_slice(&salt);
        let key = slot.wrapping_key(secret, blocks)?;
        let (associated, wrapped) = slot.0.split_at_mut(ASSOCIATED_BYTES);
        wrapped[..KEY_BYTES].copy_from_slice(device_key.expose());
        let tag = seal::wrap(&key, associated, &mut wrapped[..KEY_BYTES]);
        wrapped[KEY_BYTES..].copy_from_slice(&tag);
        Ok(slot)
    }

    /// Unwraps the device key with `secret`.
    ///
    /// # Errors
    /// See [`UnlockError`].
    pub fn unlock(&self, secret: &[u8], blocks: &mut [Block]) -> Result<Secret, UnlockError> {
        if self.kind().is_none() {
            return Err(UnlockError::Empty);
        }
        let key = self.wrapping_key(secret, blocks)?;
        let mut wrapped = [0; KEY_BYTES];
        let mut tag = [0; TAG_BYTES];
        wrapped.copy_from_slice(&self.0[ASSOCIATED_BYTES..ASSOCIATED_BYTES + KEY_BYTES]);
        tag.copy_from_slice(&self.0[ASSOCIATED_BYTES + KEY_BYTES..]);
        seal::unwrap(&key, &self.0[..ASSOCIATED_BYTES], &mut wrapped, &tag).map_err(|_| UnlockError::Unauthentic)?;
        Ok(Secret::new(wrapped))
    }

    fn wrapping_key(&self, secret: &[u8], blocks: &mut [Block]) -> Result<Secret, UnlockError> {
        let cost = self.cost();
        let params = cost.params().ok_or(UnlockError::Cost)?;
        let needed = params.block_count();
        let blocks = blocks.get_mut(..needed).ok_or(UnlockError::Memory(cost.memory_kib))?;
        let mut salt = [0; 32];
        salt[..16].copy_from_slice(&self.0[32..48]);
        salt[16..].copy_from_slice(&self.0[16..32]);
        let mut key = [0; KEY_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(secret, &salt, &mut key, blocks)
            .map_err(|_| UnlockError::Cost)?;
        Ok(Secret::new(key))
    }
}

/// Who a device is, and what locks its bodies: the same slots go into every header.
#[derive(Clone)]
pub struct Identity {
    /// The device's name.
    pub device_id: DeviceId,
    /// The device's key.
    pub device_key: Secret,
    /// Everybody who can open it.
    pub slots: [KeySlot; KEY_SLOTS],
}

impl Identity {
    /// A new identity, locked for the product secret only, at `cost`. `random` is 64 bytes that never repeat.
    ///
    /// # Errors
    /// `Cost`, `Memory`.
    pub fn mint(
        random: &[u8; 64],
        cost: Cost,
        product_secret: &Secret,
        blocks: &mut [Block],
    ) -> Result<Self, UnlockError> {
        let mut device_key = [0; KEY_BYTES];
        let mut device_id = [0; DEVICE_ID_BYTES];
        let mut salt = [0; 16];
        device_key.copy_from_slice(&random[..32]);
        device_id.copy_from_slice(&random[32..48]);
        salt.copy_from_slice(&random[48..]);
        let device_key = Secret::new(device_key);
        let device_id = DeviceId(device_id);
        let secret = product_secret.expose();
        let kind = SlotKind::Unattended;
        let slot = KeySlot::lock(kind, cost, device_id, salt, &device_key, secret, blocks)?;
        Ok(Self { device_id, device_key, slots: [slot, KeySlot::EMPTY, KeySlot::EMPTY, KeySlot::EMPTY] })
    }

    /// Unlocks the identity in `slots` with the first slot of `kind` that `secret` opens.
    ///
    /// # Errors
    /// The last slot's reason; `Empty` where there is none of that kind.
    pub fn unlock(
        slots: &[KeySlot; KEY_SLOTS],
        kind: SlotKind,
        secret: &[u8],
        blocks: &mut [Block],
    ) -> Result<Self, UnlockError> {
        let mut reason = UnlockError::Empty;
        for slot in slots.iter().filter(|slot| slot.kind() == Some(kind)) {
            match slot.unlock(secret, blocks) {
                Ok(device_key) => return Ok(Self { device_id: slot.device_id(), device_key, slots: *slots }),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }
}
