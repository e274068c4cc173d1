//! Any target of any TUF repository: the search through delegations (TUF 5.6.7) and the target itself (5.7).
//!
//! A device has no use for it, as its store has two roles with fixed names. It stands here for whoever checks that the
//! code a device trusts is a TUF client like others.

use std::collections::{BTreeMap, BTreeSet};

use sha2::Digest as _;
use sigstore_tuf::TargetFile;

use super::{Clock, Kept, Known, MAX_TARGETS_BYTES, Trust, TrustCache, tuf};
use crate::error::StoreError;
use crate::transport::{Transport, get_all};

/// The most roles that one search visits, the top-level targets included.
pub const MAX_DELEGATIONS: usize = 32;
/// The longest target that is fetched, in bytes: it is held in memory until it is verified.
pub const MAX_TARGET_BYTES: u64 = 256 << 20;

/// A file that a targets role vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    path: String,
    length: u64,
    hashes: BTreeMap<String, String>,
}

impl Target {
    fn new(path: &str, file: &TargetFile) -> Self {
        Self { path: path.to_owned(), length: file.length, hashes: file.hashes.clone() }
    }

    /// Its length, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether `bytes` are the target: its length, and each digest that is known here, of which there must be one.
    ///
    /// # Errors
    /// `WrongLength`; `Mismatch` for another digest; `Malformed` where no digest is SHA-256 or SHA-512.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let object = || format!("the TUF target {}", self.path);
        let (expected, found) = (self.length, bytes.len() as u64);
        if expected != found {
            return Err(StoreError::WrongLength { object: object(), expected, found });
        }
        let mut verified = false;
        for (algorithm, expected) in &self.hashes {
            let (what, found) = match algorithm.as_str() {
                "sha256" => ("the SHA-256", hex::encode(sha2::Sha256::digest(bytes))),
                "sha512" => ("the SHA-512", hex::encode(sha2::Sha512::digest(bytes))),
                _ => continue,
            };
            if !expected.eq_ignore_ascii_case(&found) {
                return Err(StoreError::Mismatch { object: object(), what, expected: expected.clone(), found });
            }
            verified = true;
        }
        verified.then_some(()).ok_or_else(|| self.no_digest())
    }

    /// Where a repository has it. With consistent snapshots the file's name begins with a digest (TUF 6.2).
    fn location(&self, consistent_snapshot: bool) -> Result<String, StoreError> {
        let (directory, name) =
            self.path.rsplit_once('/').map_or(("", &*self.path), |(directory, name)| (directory, name));
        let mut location = String::from("targets");
        for component in directory.split('/').filter(|component| !component.is_empty()) {
            location = format!("{location}/{}", percent_encoded(component));
        }
        let name = percent_encoded(name);
        if !consistent_snapshot {
            return Ok(format!("{location}/{name}"));
        }
        let digest = ["sha256", "sha512"].iter().find_map(|algorithm| self.hashes.get(*algorithm));
        let digest = digest.ok_or_else(|| self.no_digest())?;
        Ok(format!("{location}/{}.{name}", percent_encoded(digest)))
    }

    fn no_digest(&self) -> StoreError {
        StoreError::malformed(format!("the TUF target {}", self.path), "it has no digest that is known here")
    }
}

/// Fresh metadata of a repository, and the search in it. Roles are fetched as the search meets them.
pub struct TargetSearch<'a, C, T: ?Sized> {
    trust: &'a Trust<C>,
    transport: &'a T,
    known: Known,
    clock: Clock,
    kept: Kept,
}

impl<C: TrustCache> Trust<C> {
    /// Refreshes the metadata as [`Trust::refresh`] does, whatever the repository's targets are, and begins a search.
    ///
    /// # Errors
    /// As [`Trust::refresh`].
    pub fn search<'a, T: Transport + ?Sized>(
        &'a self,
        transport: &'a T,
        now: i64,
    ) -> Result<TargetSearch<'a, C, T>, StoreError> {
        let mut renewed = self.renew(transport, now)?;
        self.keep(&renewed.known, &mut renewed.kept);
        Ok(TargetSearch { trust: self, transport, known: renewed.known, clock: renewed.clock, kept: renewed.kept })
    }
}

impl<C: TrustCache, T: Transport + ?Sized> TargetSearch<'_, C, T> {
    /// What the cache could not keep so far.
    pub fn cache_error(&self) -> Option<&std::io::Error> {
        self.kept.failure.as_ref()
    }

    /// The target at `path`, from the first role that has it: depth first, in the order of the delegations, none beyond
    /// a terminating one that matches, each role once.
    ///
    /// # Errors
    /// `Transport`, `Tuf`, `Rollback`, `Expired` for a role on the way that cannot be had or is not accepted: whoever
    /// comes later in the order must not speak in its place.
    pub fn find(&mut self, path: &str) -> Result<Option<Target>, StoreError> {
        let mut visited = BTreeSet::new();
        let mut next = vec![("targets".to_owned(), None::<String>)];
        while let Some((role, delegator)) = next.pop() {
            if visited.contains(&role) {
                continue;
            }
            if visited.len() == MAX_DELEGATIONS {
                return Err(StoreError::TooLarge {
                    object: format!("the search for the TUF target {path}"),
                    what: "the number of delegated roles",
                    limit: MAX_DELEGATIONS as u64,
                    found: MAX_DELEGATIONS as u64 + 1,
                });
            }
            visited.insert(role.clone());
            if let Some(delegator) = &delegator
                && !self.take_delegated(&role, delegator)?
            {
                continue;
            }
            let Some(targets) = self.known.set.targets_role(&role) else { continue };
            if let Some(file) = targets.targets.get(path) {
                return Ok(Some(Target::new(path, file)));
            }
            let mut children = Vec::new();
            for child in targets.delegations.iter().flat_map(|delegations| &delegations.roles) {
                if child.matches_path(path).map_err(tuf(&role))? {
                    children.push((child.name.clone(), Some(role.clone())));
                    if child.terminating {
                        next.clear();
                        break;
                    }
                }
            }
            next.extend(children.into_iter().rev());
        }
        Ok(None)
    }

    /// Fetches `target` and verifies it.
    ///
    /// # Errors
    /// `Transport`, `TooLarge`, and as [`Target::verify`].
    pub fn fetch(&self, target: &Target) -> Result<Vec<u8>, StoreError> {
        if target.length > MAX_TARGET_BYTES {
            let (limit, found) = (MAX_TARGET_BYTES, target.length);
            return Err(StoreError::TooLarge { object: target.path.clone(), what: "its length", limit, found });
        }
        let location = target.location(self.known.set.root().consistent_snapshot)?;
        let bytes = get_all(self.transport, &location, target.length)?;
        target.verify(&bytes)?;
        Ok(bytes)
    }

    /// Brings in `role` as `delegator` delegates it; whether there is such a role.
    fn take_delegated(&mut self, role: &str, delegator: &str) -> Result<bool, StoreError> {
        if self.known.set.targets_role(role).is_some() {
            // Met on another way: who delegates here must vouch for it too.
            let set = &self.known.set;
            self.clock.check(role, |now| set.verify_delegated_targets(role, delegator, now).map(|_| ()))?;
            return Ok(true);
        }
        let pin = self.known.set.snapshot().and_then(|snapshot| snapshot.meta.get(&format!("{role}.json")));
        let Some(pin) = pin else { return Ok(false) };
        let (version, limit) = (pin.version, pin.length.unwrap_or(MAX_TARGETS_BYTES).min(MAX_TARGETS_BYTES));
        let name = kept_name(role);
        if let Some(kept) = self.trust.cache.load(&name)
            && self.accept_delegated(&kept, role, delegator).is_ok()
        {
            return Ok(true);
        }
        let bytes = get_all(self.transport, &self.known.path(role, version), limit)?;
        self.accept_delegated(&bytes, role, delegator)?;
        self.trust.keep_one(&name, &bytes, &mut self.kept);
        Ok(true)
    }

    fn accept_delegated(&mut self, bytes: &[u8], role: &str, delegator: &str) -> Result<(), StoreError> {
        let set = &mut self.known.set;
        self.clock.check(role, |now| set.update_delegated_targets(bytes, role, delegator, now).map(|_| ()))
    }
}

/// Under which name a cache keeps a delegated role. No role's own name can make it that of a versioned root, or leave a
/// directory.
fn kept_name(role: &str) -> String {
    format!("{}.json", percent_encoded(role).replace('.', "%2E"))
}

/// `text` as one component of a URL: all but unreserved characters (RFC 3986, 2.3) as the percent signs of their UTF-8.
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
