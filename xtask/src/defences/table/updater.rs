//! Defences of the updater: against servers, and against whoever writes to the free zone.

use super::super::{Cut, Defence, Test};

const TRUST: &str = "release-store/src/trust/mod.rs";
const TRUSTED: &str = "sigstore-tuf/src/trusted.rs";
const HTTP: &str = "updater/src/http.rs";
const ANSWER: &str = "updater/src/answer.rs";
const ROAD: &str = "updater/src/road.rs";
const REACH: &str = "updater/src/reach.rs";
const SPOOL: &str = "updater/src/spool.rs";
const COMMIT: &str = "updater/src/commit/mod.rs";
const QUARANTINE: &str = "updater/src/quarantine.rs";
const BACKUPS: &str = "updater/src/backups.rs";

const ATTACKS: &str = "updater/tests/attacks.rs";
const SERVERS: &str = "updater/tests/servers.rs";
const PLANTED: &str = "updater/tests/planted.rs";

pub const DEFENCES: &[Defence] = &[
    Defence::new(
        "updater: as many signatures as the threshold",
        &[Cut("sigstore-tuf/src/metadata/mod.rs", "if good.len() >= role_keys.threshold {", "if true {")],
        &[Test(ATTACKS, "a_redirect_leads_to_bytes_that_are_verified_like_any_and_never_out_of_http")],
    ),
    Defence::new(
        "updater: what the record remembers is the floor",
        &[Cut(TRUST, "        self.remembered = accepted;\n", "        drop(accepted);\n")],
        &[Test(SERVERS, "old_metadata_is_refused_also_after_the_free_zone_was_formatted")],
    ),
    Defence::new(
        "updater: what expired says nothing new",
        &[Cut(TRUSTED, "if role.is_expired(now) {", "if false && role.is_expired(now) {")],
        &[Test(ATTACKS, "a_clock_of_any_time_keeps_no_device_from_its_update_or_repair")],
    ),
    Defence::new(
        "updater: the server is believed where the clock is ahead",
        &[Cut(
            TRUST,
            "self.server.filter(|server| self.disputed",
            "self.server.filter(|server| false && self.disputed",
        )],
        &[Test(ATTACKS, "a_clock_of_any_time_keeps_no_device_from_its_update_or_repair")],
    ),
    Defence::new(
        "servers: an answer without ranges begins at the beginning",
        &[Cut(ANSWER, "(200, _) => (0, bytes),", "(200, range) => (range.map_or(0, |range| range.start), bytes),")],
        &[Test(SERVERS, "a_server_without_ranges_is_read_through_once")],
    ),
    Defence::new(
        "servers: no redirect out of encryption or of HTTP",
        &[Cut(ANSWER, "upgrade.then_some(target)", "(upgrade || true).then_some(target)")],
        &[Test("updater/src/answer.rs", "a_redirect_never_gives_up_encryption_or_http")],
    ),
    Defence::new(
        "servers: an end of redirects",
        &[Cut(HTTP, "for _ in 0..=MAX_REDIRECTS {", "loop {")],
        &[Test(SERVERS, "a_server_that_speaks_nonsense_or_redirects_forever_is_an_error_and_no_hang")],
    ),
    Defence::new(
        "servers: one that only drips is left",
        &[Cut(HTTP, "if came - since < DRIP_BYTES {", "if false && came - since < DRIP_BYTES {")],
        &[Test(ATTACKS, "a_server_that_only_drips_is_left_for_another")],
    ),
    Defence::new(
        "servers: none delays a start for longer than the check window",
        &[Cut(ROAD, "        self.servers.meter().set_deadline(deadline);\n", "        let _ = deadline;\n")],
        &[Test(ATTACKS, "a_server_that_takes_requests_and_answers_none_delays_a_start_by_the_check_window_only")],
    ),
    Defence::new(
        "carried copies: nothing older",
        &[Cut(
            REACH,
            "release.serial != serial && (withdrawn || (release.serial > serial && !held))",
            "release.serial != serial && (withdrawn || (release.serial != serial && !held))",
        )],
        &[Test("updater/tests/carried.rs", "what_is_carried_never_takes_a_device_back")],
    ),
    Defence::new(
        "spool: no more frames than a release can have",
        &[Cut(SPOOL, " && self.frames.len() < MAX_FRAMES", "")],
        &[Test("updater/tests/damaged_files.rs", "a_planted_spool_takes_no_more_memory_than_a_release_needs")],
    ),
    Defence::new(
        "plans: they keep to what holds for every release",
        &[Cut(COMMIT, "plan.is_sound().then_some(plan)", "(plan.is_sound() || true).then_some(plan)")],
        &[Test(ATTACKS, "a_forged_plan_of_a_commit_keeps_no_device_from_its_release")],
    ),
    Defence::new(
        "plans: they need the device's key",
        &[Cut(COMMIT, "if self.plan_tag(&bytes) != *tag {", "if false && self.plan_tag(&bytes) != *tag {")],
        &[Test(PLANTED, "a_plan_that_this_device_did_not_make_installs_nothing")],
    ),
    Defence::new(
        "plans: they lead on from the record",
        &[Cut(COMMIT, "if !self.leads_on(&plan) {", "if false && !self.leads_on(&plan) {")],
        &[Test(PLANTED, "a_commit_that_is_put_back_from_another_time_decides_nothing")],
    ),
    Defence::new(
        "commits: the journal says that one is open",
        &[Cut(
            COMMIT,
            "        journal.advance(self.free, open).map_err(EngineError::zone(\"write\", paths::JOURNAL))?;\n",
            "        let _ = open;\n",
        )],
        &[Test(
            "updater/tests/power_cuts.rs",
            "a_cut_at_any_change_of_an_update_leaves_one_whole_release_after_the_next_start",
        )],
    ),
    Defence::new(
        "client: programs that no manifest lists are set aside",
        &[Cut(
            QUARANTINE,
            "    if let Some(ending) = program_ending(path) {\n        return Some(ending);",
            "    if let Some(_) | None = program_ending(path) {\n        return None;",
        )],
        &[Test("updater/tests/client_dir.rs", "unlisted_programs_are_set_aside_and_other_files_are_left_alone")],
    ),
    // Another unit's opens with no key of this one's, either: it is taken for good unread.
    Defence::new(
        "backups: another unit's is none",
        &[Cut(
            BACKUPS,
            "return Err(SlotError::WrongKind);",
            "return Ok(FoundBackup { place, generation: header.generation(), images: Vec::new() });",
        )],
        &[Test("updater/tests/backups.rs", "a_torn_backup_and_one_of_another_device_are_seen_at_a_glance")],
    ),
];
