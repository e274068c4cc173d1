//! AES for processors of which some have instructions for it: the mode's own code is compiled once over this, and not once for
//! each kind of instructions. Which one a processor has is asked for every [`ParBlocks`], a kilobyte.

use aes_gcm::aead::consts::{U16, U32, U64};
use aes_gcm::aead::{Key, KeyInit, KeySizeUser};
use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::{
    Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, InOut, ParBlocks,
    ParBlocksSizeUser,
};

/// AES-256 without its decryption, which the mode does not use.
pub struct Aes(Aes256Enc);

impl KeySizeUser for Aes {
    type KeySize = U32;
}

impl KeyInit for Aes {
    fn new(key: &Key<Self>) -> Self {
        Self(Aes256Enc::new(key))
    }
}

impl BlockSizeUser for Aes {
    type BlockSize = U16;
}

impl ParBlocksSizeUser for Aes {
    type ParBlocksSize = U64;
}

impl BlockCipherEncrypt for Aes {
    fn encrypt_with_backend(&self, mode: impl BlockCipherEncClosure<BlockSize = U16>) {
        mode.call(self);
    }
}

impl BlockCipherEncBackend for Aes {
    fn encrypt_block(&self, block: InOut<'_, '_, Block<Self>>) {
        self.0.encrypt_block_inout(block);
    }

    fn encrypt_par_blocks(&self, blocks: InOut<'_, '_, ParBlocks<Self>>) {
        self.0.encrypt_blocks_inout(blocks.into_buf());
    }
}
