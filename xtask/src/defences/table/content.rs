//! Defences in what a release is made of: paths, manifests, steps, frames, patches; and in copies of a store.

use super::super::{Cut, Defence, Test};

const PATHS: &str = "release-store/src/paths.rs";
const MANIFEST: &str = "release-store/src/manifest.rs";
const TREE: &str = "release-store/src/publish/tree.rs";
const FRAME: &str = "release-store/src/frame.rs";
const SEALED: &str = "release-store/src/sealed.rs";
const APPLY: &str = "release-store/src/patch/apply.rs";
const MIRROR: &str = "release-store/src/mirror.rs";
const SEARCH: &str = "release-store/src/trust/search.rs";
const TRUSTED: &str = "sigstore-tuf/src/trusted.rs";
const STAGE: &str = "updater/src/stage.rs";
const ZONE_IO: &str = "updater/src/zone_io.rs";

const PATHS_TESTS: &str = "release-store/tests/paths.rs";
const VECTORS: &str = "release-store/tests/vectors.rs";
const ATTACKS: &str = "updater/tests/attacks.rs";
const SERVERS: &str = "updater/tests/servers.rs";

const EACH_PATH: Test = Test(PATHS_TESTS, "each_path_that_some_system_cannot_hold_is_refused_for_its_reason");
const MANIFESTS: Test = Test(VECTORS, "every_manifest_vector_is_taken_or_refused_as_its_name_says");
const STEPS: Test = Test(VECTORS, "every_step_vector_gives_its_manifest_or_is_refused_as_its_name_says");
const FRAMES: Test = Test(VECTORS, "every_frame_vector_opens_or_is_refused_as_its_name_says");
const SEALEDS: Test = Test(VECTORS, "every_sealed_vector_opens_or_is_refused_as_its_name_says");

const TAG: Cut = Cut(FRAME, ".map_err(|_| undecryptable())?;", ".unwrap_or(());");
const DIGEST: Cut = Cut(FRAME, "if !unnamed && digest != id.digest {", "if false && !unnamed && digest != id.digest {");
const LENGTH: Cut = Cut(
    FRAME,
    "_ => return Err(StoreError::malformed(id.object(), \"it does not decompress to its length\")),",
    "_ => {}",
);

const CLIMBS: Cut = Cut(PATHS, "if name == \".\" || name == \"..\" {", "if false {");
const DOTS: Cut = Cut(PATHS, "if name.ends_with(['.', ' ']) {", "if false {");

pub const DEFENCES: &[Defence] = &[
    Defence::new("paths: none that climbs", &[CLIMBS], &[EACH_PATH]),
    Defence::new(
        "paths: none that is absolute",
        &[Cut(PATHS, "if name.is_empty() {", "if false {")],
        &[EACH_PATH, MANIFESTS],
    ),
    Defence::new(
        "paths: no drive letters, alternate streams, backslashes",
        &[Cut(PATHS, "name.chars().find(|c| is_forbidden(*c))", "name.chars().find(|c| false && is_forbidden(*c))")],
        &[EACH_PATH, MANIFESTS],
    ),
    Defence::new("paths: no dots and blanks at an end", &[DOTS], &[EACH_PATH, MANIFESTS]),
    // What climbs ends in a dot, and the vectors do not ask for the reason.
    Defence::new("paths: none that climbs, and no dots at an end", &[CLIMBS, DOTS], &[MANIFESTS, STEPS]),
    Defence::new(
        "paths: no names of devices",
        &[Cut(PATHS, "if is_device_name(name) {", "if false && is_device_name(name) {")],
        &[EACH_PATH, MANIFESTS, STEPS],
    ),
    Defence::new(
        "paths: no twins in case",
        &[Cut(PATHS, "Err(PathProblem::Twin(known.clone()))", "Ok(())")],
        &[Test(PATHS_TESTS, "paths_that_meet_on_a_case_insensitive_system_are_refused"), MANIFESTS],
    ),
    Defence::new(
        "manifests: their paths are looked at",
        &[Cut(MANIFEST, "paths.insert(&file.path)?;", "drop(paths.insert(&file.path));")],
        &[MANIFESTS, STEPS],
    ),
    Defence::new(
        "publishing: links are not followed",
        &[Cut(TREE, "fs::symlink_metadata(&source)", "fs::metadata(&source)")],
        &[Test("release-store/tests/publish.rs", "links_devices_and_names_that_are_no_text_are_refused_by_name")],
    ),
    Defence::new(
        "patches: as many bytes as were asked for",
        &[Cut(
            APPLY,
            "if head.old_len != old_len || head.new_len != new_len {",
            "if false && (head.old_len != old_len || head.new_len != new_len) {",
        )],
        &[Test("release-store/tests/patch_vectors.rs", "no_flipped_byte_of_a_published_patch_gives_too_much")],
    ),
    Defence::new(
        "mirrors: never back",
        &[Cut(MIRROR, "if known > offered {", "if false {")],
        &[Test("release-store/tests/interrupted.rs", "a_mirror_never_goes_back_and_never_mixes_stores")],
    ),
    // What a copy's root says, what its metadata says under it, and what it would say afterwards stand behind one another.
    Defence::new(
        "mirrors: no other store's",
        &[
            Cut(MIRROR, "if first_root(destination)? != root {", "if false {"),
            Cut(MIRROR, "Err(_) if check => {}", "Err(_) if check || true => {}"),
            Cut(
                MIRROR,
                "let releases = Trust::new(&root, MemoryCache::new())?.offline(&promised)?;",
                "let releases = Trust::new(&root, MemoryCache::new())?.offline(&promised).unwrap_or_default();",
            ),
        ],
        &[Test("release-store/tests/interrupted.rs", "a_mirror_never_goes_back_and_never_mixes_stores")],
    ),
    Defence::new("frames: their tag", &[TAG], &[FRAMES, SEALEDS]),
    Defence::new("frames: their content's length", &[LENGTH], &[FRAMES]),
    Defence::new("frames: their content's digest", &[DIGEST], &[FRAMES]),
    Defence::new(
        "frames: no more content than a frame may have",
        &[Cut(FRAME, "if self.raw_len > limit {", "if false {")],
        &[FRAMES],
    ),
    Defence::new(
        "sealed objects: what they begin with",
        &[Cut(SEALED, "if magic(kind).is_none_or(|magic| header[..8] != magic) {", "if false {")],
        &[SEALEDS],
    ),
    Defence::new(
        "delegations: names of roles become no paths",
        &[Cut(SEARCH, "_ => encoded.push_str(&format!(\"%{byte:02X}\")),", "_ => encoded.push(char::from(byte)),")],
        &[Test("tuf-conformance-client/tests/client.rs", "an_unusual_role_name_takes_no_other_file")],
    ),
    Defence::new(
        "delegations: no role in the name of another",
        &[Cut(
            TRUSTED,
            "matches!(name, \"root\" | \"timestamp\" | \"snapshot\" | \"targets\")",
            "false && matches!(name, \"root\")",
        )],
        &[Test("tuf-conformance-client/tests/client.rs", "an_unusual_role_name_takes_no_other_file")],
    ),
    // A frame's tag, length and digest, the digest of the content that it belongs to, and that of each copy of it stand behind
    // one another: no single one is missed by whoever updates.
    Defence::new(
        "content: all that verifies it",
        &[
            TAG,
            LENGTH,
            DIGEST,
            Cut(STAGE, "if hasher.finish() != content.digest {", "if false && hasher.finish() != content.digest {"),
            Cut(ZONE_IO, "Ok(if hasher.finish() == *digest {", "Ok(if true || hasher.finish() == *digest {"),
        ],
        &[
            Test(SERVERS, "wrong_bytes_are_never_installed_and_another_server_is_asked"),
            Test(ATTACKS, "packs_that_are_swapped_replayed_reordered_cut_or_withheld_leave_the_installed_release"),
            Test(ATTACKS, "packs_that_change_in_mid_download_are_noticed_and_what_was_right_is_kept"),
            Test(ATTACKS, "ranges_that_lie_install_nothing"),
        ],
    ),
];
