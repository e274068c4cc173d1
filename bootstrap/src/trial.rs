//! What the launcher notes of a new release: whether the client ran well through its probation, or how often it failed.
//! The updater reads the note and acts on it (X8); the launcher only watches.

use firmware_image::launcher_note::{LauncherNote, Trial};
use firmware_image::record::{Health, VersionRecord};

/// How a start of the client went, as far as the release's health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientRun {
    /// It ran through the probation, or ended well before.
    Well,
    /// It ended in a fault or with a failing exit before the probation was over, or could not be started at all.
    Failed,
    /// It was ended from outside, or refused by this computer: says nothing.
    Unclear,
}

/// The serial of the release that must be watched; `None`: it has proven itself, or there is none.
pub fn on_probation(record: &VersionRecord<'_>, note: &LauncherNote) -> Option<u64> {
    let serial = record.release?.serial;
    let noted = note.trial.is_some_and(|trial| trial.serial == serial && trial.proven);
    (matches!(record.health, Health::Unproven { .. }) && !noted).then_some(serial)
}

/// Enters a run of release `serial` into the note; `false`: there is nothing new to write.
pub fn enter(note: &mut LauncherNote, serial: u64, run: ClientRun) -> bool {
    let fresh = Trial { serial, failed_starts: 0, proven: false };
    let trial = note.trial.filter(|trial| trial.serial == serial).unwrap_or(fresh);
    let next = match run {
        ClientRun::Unclear => return false,
        ClientRun::Well => Trial { failed_starts: 0, proven: true, ..trial },
        ClientRun::Failed if trial.proven => return false,
        ClientRun::Failed => Trial { failed_starts: trial.failed_starts.saturating_add(1), ..trial },
    };
    let changed = note.trial != Some(next);
    note.trial = Some(next);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_proven_itself_is_not_noted_again_for_one_bad_run() {
        let mut note = LauncherNote::default();
        assert!(enter(&mut note, 5, ClientRun::Well));
        let proven = note.trial;
        assert!(!enter(&mut note, 5, ClientRun::Failed));
        assert!(!enter(&mut note, 5, ClientRun::Unclear));
        assert_eq!(note.trial, proven);
        assert!(enter(&mut note, 6, ClientRun::Failed), "another release");
        assert_eq!(note.trial, Some(Trial { serial: 6, failed_starts: 1, proven: false }));
    }
}
