//! Keys, publishing, and reading of a static, encrypted, deduplicated release store.
//!
//! A store is a tree of plain files (`docs/formats/store.md`): TUF metadata, sealed manifests, and packs of encrypted
//! frames. Nothing in it is trusted for where it lies; every byte that is used hangs from the trusted root.
//!
//! Feature `read`, for whoever installs a release:
//!
//! | module | subject |
//! |---|---|
//! | [`transport`] | how bytes come: the [`Transport`] trait, a directory as one, helpers that check what a server sends |
//! | [`trust`] | from the trusted root to verified releases: [`trust::Trust`], [`trust::Releases`], [`trust::VerifiedManifest`] |
//! | [`manifest`] | what a release consists of: [`Manifest`] |
//! | [`chunk_list`] | where each content's chunks lie: [`ChunkList`] |
//! | [`sealed`] | what is fetched whole and named in signed metadata: manifests, chunk lists, steps |
//! | [`step`], [`manifest_delta`], [`patch`] | what leads from one release to another; applying a patch |
//! | [`frame`] | the encrypted, compressed unit: [`frame::FrameReader`] yields [`frame::VerifiedFrame`]s |
//! | [`content_key`] | the numbered keys that frames are encrypted under |
//! | [`paths`] | which paths a release may hold, for the reader who refuses and the publisher who explains |
//! | [`ignore`] | patterns of files that are the user's own |
//!
//! In the order of use:
//! ```text
//! Trust::new(root, cache)?.refresh(transport, now)?   → Releases        (or .cached() / .offline(transport))
//! releases.newest(channel)                            → Release
//! VerifiedManifest::fetch(release, transport, keys)?  → VerifiedManifest  .open(product)? → Manifest
//! ChunkList::fetch(release, &manifest, …)?            → ChunkList       .content(digest) → chunks → pack, offset, length
//! transport::get_range(transport, pack.path(), …)     → frame bytes
//! FrameReader::open(key, &chunk.frame_id(), bytes)?   → VerifiedFrame
//! ```
//!
//! Feature `publish`, for the vendor's release machine and the factory:
//!
//! | module | subject |
//! |---|---|
//! | `keys` | a product's keys; what a factory gets of them |
//! | `tuf` | making TUF metadata |
//! | `repository` | the signed state of a store: `init`, `renew`, `withdraw` |
//! | `publish` | from a directory to a release |
//! | `contents` | contents of any release, also of one that is held as patches |
//! | `gc` | older releases as patches, and what nothing needs any more away |
//! | `clock` | whether the time of who signs can be right |
//! | `stats` | what is in a store, and what devices download |
//! | `mirror`, `verify`, `serve` | what their names say |
//! | `store_files` | writing so that a cut leaves the old file or the new one |
#![forbid(unsafe_code)]

pub mod chunk_list;
#[cfg(feature = "publish")]
pub mod clock;
pub mod content_key;
#[cfg(feature = "publish")]
pub mod contents;
pub mod error;
pub mod frame;
#[cfg(feature = "publish")]
pub mod gc;
pub mod ignore;
#[cfg(feature = "publish")]
pub mod keys;
mod limited;
pub mod manifest;
pub mod manifest_delta;
#[cfg(feature = "publish")]
pub mod mirror;
pub mod patch;
pub mod paths;
#[cfg(feature = "publish")]
pub mod publish;
#[cfg(feature = "publish")]
pub mod repository;
pub mod sealed;
#[cfg(feature = "publish")]
pub mod serve;
#[cfg(feature = "publish")]
pub mod stats;
pub mod step;
#[cfg(feature = "publish")]
pub mod store_files;
pub mod transport;
pub mod trust;
#[cfg(feature = "publish")]
pub mod tuf;
#[cfg(feature = "publish")]
mod update_cost;
#[cfg(feature = "publish")]
pub mod verify;

pub use chunk_list::ChunkList;
pub use content_key::{ContentKey, ContentKeys};
pub use error::StoreError;
pub use firmware_image::Digest;
pub use manifest::Manifest;
pub use step::Step;
pub use transport::{Directory, Transport, TransportError};
