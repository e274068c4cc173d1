//! Defences in what a device holds: updaters, records, backups, and how the launcher takes them.

use super::super::{Cut, Defence, Test};

const IMAGE: &str = "firmware-image/src/updater_image.rs";
const SLOT: &str = "firmware-image/src/slot.rs";
const KEY_SLOT: &str = "firmware-image/src/key_slot.rs";
const PLACES: &str = "firmware-image/src/places.rs";
const DECIDE: &str = "bootstrap/src/decide.rs";
const MEMORY: &str = "bootstrap/src/platform/linux/image.rs";
const DIR_ZONE: &str = "firmware-image/src/host/dir_zone_unix.rs";

const DECISIONS: &str = "bootstrap/tests/decisions.rs";
const DAMAGE: &str = "bootstrap/tests/damage.rs";
const PROGRAM: &str = "bootstrap/tests/program.rs";
const HIDDEN: &str = "firmware-image/tests/hidden_zone.rs";
const ATTACKS: &str = "updater/tests/attacks.rs";

const FOREIGN: Test = Test(DECISIONS, "foreign_updaters_never_run_and_are_replaced");
const BELOW: Test = Test(DECISIONS, "an_updater_below_the_floor_is_replaced_by_one_above_it");
const LEFT_BEHIND: Test = Test(DECISIONS, "an_updater_signed_by_a_key_left_behind_is_replaced");
const RECOVERS: Test =
    Test(DECISIONS, "with_only_copies_below_the_floor_the_factory_copy_runs_to_recover_and_nothing_is_installed");
const TRUNCATED: Test = Test(DAMAGE, "truncated_at_any_length_it_never_runs_and_is_restored");
const LENGTHENED: Test = Test(DAMAGE, "lengthened_zeroed_or_random_it_never_runs_and_is_restored");
const TRAILER: Test = Test(DAMAGE, "each_byte_of_the_trailer_flipped_never_runs_and_is_restored");
const INFECTED: Test = Test(PROGRAM, "an_infected_updater_never_runs_and_is_replaced");

pub const DEFENCES: &[Defence] = &[
    Defence::new(
        "key slots: a ceiling for what they ask for",
        &[Cut(KEY_SLOT, "if !within {", "if false && !within {")],
        &[Test(HIDDEN, "a_key_slot_that_asks_for_the_machines_memory_is_refused_before_it_is_given")],
    ),
    Defence::new(
        "key slots: their tag",
        &[Cut(
            KEY_SLOT,
            "&mut wrapped, &tag).map_err(|_| UnlockError::Unauthentic)?;",
            "&mut wrapped, &tag).unwrap_or(());",
        )],
        &[Test(HIDDEN, "a_record_is_no_backup_and_another_products_slot_stays_locked")],
    ),
    Defence::new(
        "slots: a record is no backup",
        &[Cut(SLOT, "if bytes[10] != kind.code() {", "if false && bytes[10] != kind.code() {")],
        &[Test(HIDDEN, "a_record_is_no_backup_and_another_products_slot_stays_locked")],
    ),
    Defence::new(
        "slots: the tag of each segment",
        &[Cut(
            SLOT,
            "self.cipher.open_segment(segment, last, text, &tag).map_err(|_| SlotError::Damaged { segment })?;",
            "self.cipher.open_segment(segment, last, text, &tag).unwrap_or(());",
        )],
        &[
            Test(HIDDEN, "segments_cannot_be_swapped_repeated_or_left_out"),
            Test(DECISIONS, "a_damaged_backup_is_passed_over_wherever_it_is_damaged"),
        ],
    ),
    Defence::new(
        "records: another unit's mirror is not this one's",
        &[Cut(
            PLACES,
            "Some((best, of, _)) if of == device_id => generation > best,",
            "Some((best, ..)) if true => generation > best,",
        )],
        &[Test(ATTACKS, "what_another_device_of_the_product_keeps_is_not_this_ones")],
    ),
    Defence::new(
        "updaters: a key that the vendor certified",
        &[Cut(IMAGE, "if !body.certificate.is_from(vendor) {", "if false && !body.certificate.is_from(vendor) {")],
        &[FOREIGN, Test(DECISIONS, "a_forged_statement_raises_no_floor")],
    ),
    Defence::new(
        "updaters: the signature of their trailer",
        &[Cut(
            IMAGE,
            "if !body.certificate.key.verifies(Domain::UpdaterTrailer, &bytes[..signed_bytes], &signature) {",
            "if false && !body.certificate.key.verifies(Domain::UpdaterTrailer, &bytes[..signed_bytes], &signature) {",
        )],
        &[TRAILER],
    ),
    Defence::new(
        "updaters: their bytes are those that were signed",
        &[Cut(
            IMAGE,
            "if image_digest(file, self.body.image_bytes, buffer)? == self.body.sha256 {",
            "if image_digest(file, self.body.image_bytes, buffer)? == self.body.sha256 || true {",
        )],
        &[LENGTHENED, INFECTED],
    ),
    Defence::new(
        "updaters: for the product",
        &[Cut(IMAGE, "if self.body.product != product {", "if false && self.body.product != product {")],
        &[FOREIGN],
    ),
    Defence::new(
        "updaters: for the platform",
        &[Cut(IMAGE, "if self.body.platform != platform {", "if false && self.body.platform != platform {")],
        &[FOREIGN],
    ),
    Defence::new(
        "updaters: no version below the floor",
        &[Cut(IMAGE, "version >= self.version && key_serial >= self.key_serial", "key_serial >= self.key_serial")],
        &[BELOW, RECOVERS],
    ),
    Defence::new(
        "updaters: no key that was left behind",
        &[Cut(IMAGE, "version >= self.version && key_serial >= self.key_serial", "version >= self.version")],
        &[LEFT_BEHIND],
    ),
    // What is cut off has no trailer, and nothing else can be had of it: what can be taken out is that it is replaced.
    Defence::new(
        "launcher: what is no good is replaced",
        &[Cut(DECIDE, "self.install_before_start(device.free(), &copy, source);", "")],
        &[TRUNCATED, LENGTHENED, TRAILER, INFECTED, FOREIGN, BELOW, LEFT_BEHIND],
    ),
    Defence::new(
        "launcher: what runs to recover is not installed",
        &[Cut(DECIDE, "if rank == Rank::Fresh {", "if rank != Rank::FailedBefore {")],
        &[RECOVERS],
    ),
    Defence::new(
        "launcher: what was verified is sealed",
        &[Cut(MEMORY, "rustix::fs::fcntl_add_seals(&file, seals).map_err(place)?;", "let _ = seals;")],
        &[Test("bootstrap/tests/places.rs", "sealed_memory_cannot_be_written_cut_or_lengthened_even_by_its_owner")],
    ),
    // Whether something is a link is asked before it is opened, and it is opened as none.
    Defence::new(
        "files: links are not followed",
        &[
            Cut(DIR_ZONE, "AtFlags::SYMLINK_NOFOLLOW", "AtFlags::empty()"),
            Cut(DIR_ZONE, "ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS", "ResolveFlags::empty()"),
            Cut(
                DIR_ZONE,
                "OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK)",
                "OFlags::CLOEXEC.union(OFlags::NONBLOCK)",
            ),
            Cut(
                DIR_ZONE,
                "OFlags::NOFOLLOW | OFlags::CLOEXEC;\n            here = match",
                "OFlags::CLOEXEC;\n            here = match",
            ),
        ],
        &[Test("updater/tests/client_dir.rs", "a_link_in_the_client_directory_leads_nowhere")],
    ),
];
