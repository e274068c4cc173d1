//! Checks, downloads, stages, commits, repairs and rolls back the client on a device.
//!
//! The engine ([`Engine`]) decides; free zone, hidden zone, servers and machine come in as traits, so that a test can be
//! any of them. In the order of an update:
//!
//! | module | subject |
//! |---|---|
//! | [`config`], [`state`], [`record_store`], [`trust_cache`] | what the device is told, knows, and keeps |
//! | [`meter`], [`http`], [`answer`], [`servers`] | how bytes come, and what they may cost |
//! | [`check`] | which release is wished for |
//! | [`reach`] | what can be had without a server |
//! | [`inventory`], [`hash`] | what stands in `client/` |
//! | [`plan`], [`summary`] | the cheapest way to what is missing; told to people |
//! | [`steps`] | what leads from one release to another |
//! | [`patches`], [`patch_apply`] | which patches are worth it; applying them |
//! | [`fetch`], [`spool`] | frames from servers, each once |
//! | [`stage`] | new contents, complete and verified |
//! | [`commit`] | from one whole release to another |
//! | [`own_places`] | its own names in the free zone, made usable |
//! | [`quarantine`] | programs that nobody listed |
//! | [`renewal`], [`backups`] | the updater itself, and its backups |
//! | [`operations`] | check, update, verify, repair, roll back, run |
//! | [`road`] | the one way to a release that they share |
//! | [`status`], [`log`] | what is told to people |
#![forbid(unsafe_code)]

pub mod answer;
pub mod backups;
pub mod check;
pub mod commit;
pub mod config;
pub mod engine;
pub mod error;
pub mod fetch;
pub mod hash;
pub mod host;
pub mod http;
pub mod inventory;
pub mod log;
pub mod meter;
pub mod misnamed;
pub mod operations;
pub mod own_places;
pub mod patch_apply;
pub mod patches;
pub mod plan;
pub mod quarantine;
pub mod reach;
pub mod record_store;
pub mod renewal;
mod resolver;
pub mod road;
mod room;
pub mod servers;
pub mod spool;
pub mod stage;
pub mod state;
pub mod status;
pub mod steps;
pub mod summary;
pub mod trust_cache;
pub mod zone_io;

pub use check::Wish;
pub use config::Config;
pub use engine::{Engine, Limits, Parts};
pub use error::{EngineError, FailureKind};
pub use host::{Host, Watch};
pub use operations::{Action, Outcome};
