//! Whether the clock of who signs can be right.
//!
//! Devices have no clock that they could trust: they take the newest publication for the least that the time can be. One release from
//! the far future would make all metadata look expired to them, for ever; what a clock far behind signs has run out already.

use crate::error::StoreError;

/// How far behind the newest release's time of publication the clock may be, in seconds: a day.
pub const MAX_BEHIND_SECS: i64 = 24 * 60 * 60;
/// A pause between two publications, in seconds, that needs a word: a year and a month.
pub const MAX_PAUSE_SECS: i64 = 400 * 24 * 60 * 60;
/// The latest time at which anything is signed, in seconds since 1970: the end of the year 2100.
pub const MAX_TIME: i64 = 4_133_980_799;

/// Refuses a clock that cannot be right, by the time of the newest publication, where there is one.
///
/// # Errors
/// `Refused`.
pub(crate) fn check(now: i64, newest: Option<i64>) -> Result<(), StoreError> {
    let advice = "set the clock (or SOURCE_DATE_EPOCH) right";
    if now > MAX_TIME {
        let (now, last) = (shown(now), shown(MAX_TIME));
        return Err(StoreError::Refused(format!("it is {now} here, later than {last}: {advice}")));
    }
    match newest {
        Some(newest) if now < newest.saturating_sub(MAX_BEHIND_SECS) => {
            let (now, newest) = (shown(now), shown(newest));
            Err(StoreError::Refused(format!(
                "it is {now} here, more than a day before the newest release was published ({newest}): {advice}"
            )))
        }
        _ => Ok(()),
    }
}

/// Refuses a publication so long after the newest one that the clock is more likely to be wrong: there is no way back from it.
///
/// # Errors
/// `Refused`.
pub(crate) fn check_pause(now: i64, newest: Option<i64>) -> Result<(), StoreError> {
    match newest {
        Some(newest) if now > newest.saturating_add(MAX_PAUSE_SECS) => {
            let (now, newest) = (shown(now), shown(newest));
            Err(StoreError::Refused(format!(
                "it is {now} here, and the newest release was published {newest}: devices would take this clock's word for \
                 ever; if it is right, say so with --after-long, else set it right"
            )))
        }
        _ => Ok(()),
    }
}

fn shown(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
