//! `status`: how the device stands.

use anyhow::Result;
use firmware_image::host::Access;
use lines::outln;
use updater::status::StatusReport;

use super::{Session, exit};

pub fn run(session: &Session<'_>) -> Result<u8> {
    let report = session.with_engine(Access::ReadOnly, |engine| Ok(engine.status()?))?;
    if session.globals.json {
        outln!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(exit::FINE)
}

fn print(report: &StatusReport) {
    let field = |name: &str, text: &str| outln!("{name:<12} {text}");
    field("product", &format!("{} (channel {})", report.product, report.channel));
    field("device", report.device_id.as_deref().unwrap_or("unknown: nothing on it says who it is"));
    let mut release = match (&report.version, report.serial) {
        (Some(version), Some(serial)) => format!("{version} (serial {serial})"),
        _ => "none".to_owned(),
    };
    if report.version.is_some() && !report.proven {
        release.push_str(", not proven yet");
    }
    if report.held {
        release.push_str(", held");
    }
    field("release", &release);
    if let Some(previous) = &report.previous {
        field("before", previous);
    }
    if !report.skipped.is_empty() {
        let skipped: Vec<String> = report.skipped.iter().map(u64::to_string).collect();
        field("skipped", &format!("serials {}", skipped.join(", ")));
    }
    for record in &report.records {
        field("record", &format!("{} (generation {})", record.place, record.generation));
    }
    for backup in &report.backups {
        let updaters = backup.updaters.join(", ");
        field("backup", &format!("{} (generation {}): {updaters}", backup.place, backup.generation));
    }
    for updater in &report.updaters {
        let text = match (&updater.version, &updater.fault) {
            (Some(version), _) => version.clone(),
            (None, fault) => format!("not sound: {}", fault.as_deref().unwrap_or("unknown")),
        };
        field("updater", &format!("{} {text}", updater.file));
    }
    if report.floor != "0.0.0" {
        field("floor", &report.floor);
    }
    if report.key_floor > 0 {
        field("key floor", &report.key_floor.to_string());
    }
    match &report.files {
        Some(files) => {
            let (current, ignored) = (files.current, files.ignored);
            let damaged = files.damaged.len();
            field("files", &format!("{current} current, {ignored} the user's own, {damaged} missing or modified"));
            for file in &files.damaged {
                field("", &format!("{} {}", file.state, file.path));
            }
            if files.open_commit {
                field("", "an interrupted change waits to be finished");
            }
        }
        None => field("files", report.files_unknown.as_deref().unwrap_or("unknown")),
    }
    for name in &report.quarantined {
        field("quarantine", name);
    }
    for alarm in &report.alarms {
        field("alarm", alarm);
    }
}
