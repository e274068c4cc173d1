//! Where an executable's bytes stand in memory: what is needed to know the address of a byte, and whether a number can be
//! an address. It is made from section tables when a patch is made; whoever applies it reads it from the head.

use serde::{Deserialize, Serialize};

use super::{MAX_BASES, MAX_REGIONS, PatchError};

/// What a region holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum RegionKind {
    /// Data with an address.
    Data,
    /// x86-64 instructions.
    X86,
    /// ARM64 instructions.
    Arm64,
    /// What is in the file only: symbol tables, debug data.
    FileOnly,
}

impl RegionKind {
    pub(super) fn is_code(self) -> bool {
        matches!(self, Self::X86 | Self::Arm64)
    }
}

/// A run of bytes of an image that stand together in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Region {
    /// Where it begins in the file.
    pub offset: u32,
    /// Its bytes in the file.
    pub len: u32,
    /// The address of its first byte.
    pub address: u64,
    /// Its bytes in memory.
    pub memory: u64,
    pub kind: RegionKind,
}

impl Region {
    /// The address of the byte at `offset` of the file.
    pub(super) fn address_of(&self, offset: u32) -> u64 {
        self.address.wrapping_add(u64::from(offset.wrapping_sub(self.offset)))
    }

    fn holds(&self, address: u64) -> bool {
        self.kind != RegionKind::FileOnly && address.wrapping_sub(self.address) < self.memory
    }
}

/// An image in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AddressSpace {
    /// By offset, not overlapping.
    pub regions: Vec<Region>,
    /// Addresses that tables count from: of the code, of the image. The same place means the same thing in old and new.
    pub bases: Vec<u64>,
}

/// Where the old and the new image of a program stand in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spaces {
    pub old: AddressSpace,
    pub new: AddressSpace,
    /// What moved otherwise than copies tell: memory that is not in the file, above all.
    pub moves: Vec<Move>,
}

/// A run of old addresses that moved together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Move {
    pub address: u64,
    pub len: u32,
    pub distance: i64,
}

impl AddressSpace {
    /// The region of the byte at `offset` of the file.
    pub(super) fn region_at(&self, offset: u32) -> Option<&Region> {
        let after = self.regions.partition_point(|region| region.offset <= offset);
        self.regions[..after].last().filter(|region| offset - region.offset < region.len)
    }

    /// Where the first region behind `offset` begins.
    pub(super) fn next_region(&self, offset: u32) -> u32 {
        let after = self.regions.partition_point(|region| region.offset <= offset);
        self.regions.get(after).map_or(u32::MAX, |region| region.offset)
    }

    /// Whether something stands at `address`.
    pub(super) fn holds(&self, address: u64) -> bool {
        self.regions.iter().any(|region| region.holds(address))
    }

    /// Whether code stands at `address`.
    pub(super) fn holds_code(&self, address: u64) -> bool {
        self.regions.iter().any(|region| region.kind.is_code() && region.holds(address))
    }

    /// Whether what stands at `address` is not in the file.
    #[cfg(feature = "publish")]
    pub(super) fn holds_beyond_file(&self, address: u64) -> bool {
        let beyond =
            |region: &Region| region.holds(address) && address.wrapping_sub(region.address) >= u64::from(region.len);
        self.holds(address) && !self.regions.iter().any(|region| region.holds(address) && !beyond(region))
    }

    pub(super) fn check(&self, image_len: u64) -> Result<(), PatchError> {
        if self.regions.len() > MAX_REGIONS || self.bases.len() > MAX_BASES {
            return Err(PatchError::Malformed("it has more regions or bases than a reader takes"));
        }
        let mut end = 0;
        for region in &self.regions {
            if u64::from(region.offset) < end {
                return Err(PatchError::Malformed("its regions are out of order"));
            }
            end = u64::from(region.offset) + u64::from(region.len);
        }
        if end > image_len { Err(PatchError::Malformed("a region reaches past its image")) } else { Ok(()) }
    }
}
