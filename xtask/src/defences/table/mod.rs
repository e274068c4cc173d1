//! Each defence against an attack of `docs/testing.md`, by the package that it stands in, so that little is built anew from one to
//! the next.

mod content;
mod device;
mod metadata;
mod updater;

use super::{Defence, Test};

/// All of them.
pub fn defences() -> impl Iterator<Item = &'static Defence> {
    [metadata::DEFENCES, content::DEFENCES, device::DEFENCES, updater::DEFENCES].into_iter().flatten()
}

/// Tests of attacks for which there is nothing to take out, and why.
pub const WITHOUT: &[(Test, &str)] = &[
    (
        Test("updater/tests/attacks.rs", "only_what_signed_metadata_names_is_asked_for"),
        "no check keeps a device from asking for more: there is nothing that asks",
    ),
    (
        Test("bootstrap/tests/names.rs", "names_that_are_two_in_a_release_are_two_files_on_a_raw_volume"),
        "nothing is refused there: it compares two rules for names",
    ),
    (
        Test("bootstrap/tests/program.rs", "a_replaced_file_between_check_and_use_does_not_run"),
        "what runs is the memory that was verified: the program has no name by which it could be opened again",
    ),
    (
        Test(
            "bootstrap/tests/whole_device.rs",
            "clones_and_a_device_that_was_put_back_bring_themselves_up_to_date_each",
        ),
        "nothing tells a clone: it shows that one comes forward as any device does",
    ),
];
