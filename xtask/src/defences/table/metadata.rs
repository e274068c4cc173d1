//! Defences in signed metadata: those of TUF, which stand in `sigstore-tuf`, and those around it.

use super::super::{Cut, Defence, Test};

const THRESHOLD: &str = "sigstore-tuf/src/metadata/mod.rs";
const KEY: &str = "sigstore-tuf/src/key.rs";
const TRUSTED: &str = "sigstore-tuf/src/trusted.rs";
const TRUST: &str = "release-store/src/trust/mod.rs";
const RELEASES: &str = "release-store/src/trust/releases.rs";
const TRANSPORT: &str = "release-store/src/transport.rs";

const TRUST_TESTS: &str = "release-store/tests/trust.rs";
const ATTACKS: &str = "release-store/tests/attacks.rs";
const ARCHIVE: &str = "release-store/tests/archive.rs";
const CLIENT: &str = "tuf-conformance-client/tests/client.rs";

/// Takes the comparison of a digest that metadata names out.
const NAMED_DIGEST: Cut = Cut(
    TRUSTED,
    "if !actual.eq_ignore_ascii_case(expected_hex) {",
    "if false && !actual.eq_ignore_ascii_case(expected_hex) {",
);

pub const DEFENCES: &[Defence] = &[
    Defence::new(
        "metadata: as many signatures as the threshold",
        &[Cut(THRESHOLD, "if good.len() >= role_keys.threshold {", "if true {")],
        &[
            Test(TRUST_TESTS, "another_vendors_store_is_refused"),
            Test(TRUST_TESTS, "every_flipped_byte_of_the_metadata_is_refused"),
            Test(ATTACKS, "fewer_keys_than_the_threshold_sign_nothing"),
            Test(ATTACKS, "the_online_key_alone_releases_nothing"),
            Test(ATTACKS, "versions_that_ran_ahead_come_back_with_new_keys_and_only_so"),
            Test(ARCHIVE, "who_has_the_online_key_makes_no_archive"),
            Test(ARCHIVE, "a_new_root_takes_the_old_key_away_from_old_statements_too"),
            Test(CLIENT, "a_role_that_two_delegate_to_must_satisfy_each_of_them"),
        ],
    ),
    Defence::new(
        "metadata: a signature counts that verifies",
        &[Cut(
            KEY,
            "vkey.verify(data, signature).map_err(Error::from)",
            "vkey.verify(data, signature).map_err(Error::from).or(Ok(()))",
        )],
        &[
            Test(TRUST_TESTS, "every_flipped_byte_of_the_metadata_is_refused"),
            Test(ATTACKS, "fewer_keys_than_the_threshold_sign_nothing"),
        ],
    ),
    Defence::new(
        "metadata: a signature counts whose key is one of the role's",
        &[Cut(THRESHOLD, "if !authorized.contains(&sig.keyid) {", "if false && !authorized.contains(&sig.keyid) {")],
        &[Test(ATTACKS, "the_online_key_alone_releases_nothing")],
    ),
    // Two stand behind one another: a second signature of a key is refused, and keys are counted, not signatures.
    Defence::new(
        "metadata: a key counts once",
        &[
            Cut(THRESHOLD, "if !seen.insert(sig.keyid.as_str()) {", "if false && !seen.insert(sig.keyid.as_str()) {"),
            Cut(THRESHOLD, "let mut good: BTreeSet<&str> = BTreeSet::new();", "let mut good: Vec<&str> = Vec::new();"),
            Cut(THRESHOLD, "good.insert(sig.keyid.as_str());", "good.push(sig.keyid.as_str());"),
        ],
        &[Test(ATTACKS, "fewer_keys_than_the_threshold_sign_nothing")],
    ),
    Defence::new(
        "metadata: the old root vouches for the new one",
        &[Cut(TRUSTED, "verify_with_root(&new_root, &self.root.signed, \"root\")?;", "")],
        &[Test(ATTACKS, "the_online_key_alone_releases_nothing")],
    ),
    Defence::new(
        "metadata: roots follow one another by number",
        &[Cut(
            TRUSTED,
            "if trusted_version.checked_add(1) != Some(new_version) {",
            "if false && trusted_version.checked_add(1) != Some(new_version) {",
        )],
        &[Test(ATTACKS, "no_role_is_rolled_back_behind_a_newer_timestamp")],
    ),
    Defence::new(
        "metadata: no older timestamp",
        &[Cut(
            TRUSTED,
            "if new.signed.version < current.signed.version {",
            "if false && new.signed.version < current.signed.version {",
        )],
        &[
            Test(TRUST_TESTS, "an_older_timestamp_is_refused_even_when_the_cache_is_gone"),
            Test(ATTACKS, "no_role_is_rolled_back_behind_a_newer_timestamp"),
        ],
    ),
    Defence::new(
        "metadata: no older snapshot",
        &[Cut(
            TRUSTED,
            "if new_meta.version < cur_meta.version {",
            "if false && new_meta.version < cur_meta.version {",
        )],
        &[Test(ATTACKS, "no_role_is_rolled_back_behind_a_newer_timestamp")],
    ),
    Defence::new(
        "metadata: no older targets and no older archive",
        &[Cut(
            TRUSTED,
            "Some(new_meta) if new_meta.version < cur_meta.version => {",
            "Some(new_meta) if false && new_meta.version < cur_meta.version => {",
        )],
        &[
            Test(ATTACKS, "no_role_is_rolled_back_behind_a_newer_timestamp"),
            Test(ARCHIVE, "an_older_archive_is_no_newer_for_being_signed_again_in_an_older_snapshot"),
            Test(CLIENT, "a_rollback_is_refused_however_often_it_is_tried"),
        ],
    ),
    Defence::new(
        "metadata: what expired says nothing new",
        &[Cut(TRUSTED, "if role.is_expired(now) {", "if false && role.is_expired(now) {")],
        &[
            Test(TRUST_TESTS, "a_frozen_store_expires_and_its_releases_stay_known"),
            Test(TRUST_TESTS, "where_clock_and_server_differ_the_server_is_believed_and_it_is_told"),
            Test(TRUST_TESTS, "a_clock_before_the_newest_publication_does_not_prolong_freshness"),
            Test(ATTACKS, "a_clock_far_off_in_either_direction_neither_frees_nor_locks"),
        ],
    ),
    // Length, digest and version stand behind one another.
    Defence::new(
        "metadata: what is named is what comes",
        &[
            Cut(TRUSTED, "if bytes.len() as u64 != expected_len {", "if false && bytes.len() as u64 != expected_len {"),
            NAMED_DIGEST,
            Cut(
                TRUSTED,
                "        if new.signed.version != pin.version {\n            return Err(Error::IntegrityMismatch(format!(\n                \"snapshot version",
                "        if false && new.signed.version != pin.version {\n            return Err(Error::IntegrityMismatch(format!(\n                \"snapshot version",
            ),
            Cut(
                TRUSTED,
                "        if new.signed.version != pin.version {\n            return Err(Error::IntegrityMismatch(format!(\n                \"{meta_name} version",
                "        if false && new.signed.version != pin.version {\n            return Err(Error::IntegrityMismatch(format!(\n                \"{meta_name} version",
            ),
        ],
        &[Test(ATTACKS, "metadata_of_different_times_is_not_mixed")],
    ),
    Defence::new(
        "metadata: a delegation is satisfied each time that it is followed",
        &[Cut(
            TRUSTED,
            "metadata.verify_threshold(&keys, &role_keys, role_name)?;\n        ensure_not_expired(&metadata.signed",
            "ensure_not_expired(&metadata.signed",
        )],
        &[Test(CLIENT, "a_role_that_two_delegate_to_must_satisfy_each_of_them")],
    ),
    Defence::new(
        "metadata: statements of any age need today's key",
        &[Cut(TRUST, "metadata.verify_threshold(&root.keys, root.role(\"targets\")?, \"targets\").ok()?;", "")],
        &[
            Test(ARCHIVE, "who_has_the_online_key_makes_no_archive"),
            Test(ARCHIVE, "a_new_root_takes_the_old_key_away_from_old_statements_too"),
        ],
    ),
    Defence::new(
        "metadata: what the record remembers is the floor",
        &[Cut(TRUST, "        self.remembered = accepted;\n", "        drop(accepted);\n")],
        &[
            Test(TRUST_TESTS, "an_older_timestamp_is_refused_even_when_the_cache_is_gone"),
            Test(TRUST_TESTS, "a_new_root_is_followed_kept_and_never_left_again"),
        ],
    ),
    Defence::new(
        "metadata: a new root is kept at once",
        &[Cut(TRUST, "        self.keep_roots(&known, &mut kept);\n", "")],
        &[Test(TRUST_TESTS, "a_new_root_is_kept_also_where_the_rest_cannot_be_had")],
    ),
    Defence::new(
        "metadata: no more bytes than the limit",
        &[Cut(
            TRANSPORT,
            "if (bytes.len() + piece.len()) as u64 > max_bytes {",
            "if false && (bytes.len() + piece.len()) as u64 > max_bytes {",
        )],
        &[Test(ATTACKS, "no_role_takes_more_than_its_limit")],
    ),
    Defence::new(
        "metadata: a manifest is the one that its release names",
        &[Cut(RELEASES, "if found != release.manifest {", "if false && found != release.manifest {")],
        &[Test(ATTACKS, "the_manifest_of_another_release_or_product_is_not_this_ones")],
    ),
    Defence::new(
        "metadata: a manifest is for the product",
        &[Cut(RELEASES, "            (\"product\", product, manifest.product.as_str()),\n", "")],
        &[Test(ATTACKS, "the_manifest_of_another_release_or_product_is_not_this_ones")],
    ),
    Defence::new(
        "clock: the present is no earlier than the newest publication",
        &[Cut(TRUST, "clock.now = time(now.max(newest_known.unwrap_or(now)));", "clock.now = time(now);")],
        &[Test(TRUST_TESTS, "a_clock_before_the_newest_publication_does_not_prolong_freshness")],
    ),
    Defence::new(
        "clock: that the server was believed is told",
        &[Cut(TRUST, "self.disputed = Some(server.as_second());\n", "")],
        &[Test(TRUST_TESTS, "where_clock_and_server_differ_the_server_is_believed_and_it_is_told")],
    ),
    Defence::new(
        "clock: what is signed stays installable at any time",
        &[Cut(
            TRUST,
            "const NO_TIME: Timestamp = Timestamp::UNIX_EPOCH;",
            "const NO_TIME: Timestamp = Timestamp::MAX;",
        )],
        &[
            Test(TRUST_TESTS, "a_frozen_store_expires_and_its_releases_stay_known"),
            Test(ATTACKS, "a_clock_far_off_in_either_direction_neither_frees_nor_locks"),
        ],
    ),
];
