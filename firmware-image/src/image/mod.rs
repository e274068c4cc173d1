//! Whole images: partition table, raw FAT, ISO 9660, finding the zones of a device, building one from parts.
//!
//! | module | subject |
//! |---|---|
//! | [`block_cache`] | write-back cache between libraries and raw storage |
//! | [`fat`] | the free zone inside an image |
//! | [`gpt`] | the partition table |
//! | [`iso`] | the virtual zone inside an image |

pub mod block_cache;
pub mod fat;
pub mod gpt;
pub mod iso;
mod iso_times;
