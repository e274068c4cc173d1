//! The section of the page: goals as ratios, and what every program needs.

use std::fmt::Write as _;

use super::outcome::{Base, CPU_PEER, OURS, Outcome, Row, STORE_PEER, Update, WHOLE};
use super::series::{self, Series};
use crate::bench::figures::Table;
use crate::usage::Usage;

/// The section's first line.
pub const HEADING: &str = "## Updates of real releases";

const INTRODUCTION: &str = "What `cargo xtask bench deltas --install --out docs/benchmarks.md` measured last (`--series NAME` for one alone, `--quick` for a first look). Releases as their
registries have them are published one by one with `release-store publish`, installed by the updater from a server on loopback while they are the newest, then
updated to the last from the release before (*N-1*) and from three before (*N-3*). Every tree that comes out, ours and every peer's, is compared byte for byte
with the release. Each series is one run, and only ratios within it mean anything.

- *Bytes* are those of patches, chunks and frames alone; *in all* is everything that the server sent, lists and signatures included. bita and zchunk keep lists and chunks in
  one file, so that both are the same; OSTree's bytes are those of its static delta, whatever its client fetches beside it. Ours are encrypted; the peers' are not, borg's and restic's
  stores excepted.
- Tools for single files get all contents that changed, each once, sorted by extension and path, as one file, old and new. They know no names, no trees and no servers.
- Processor time is that of whole programs, on a file system in memory where that has room. The updater's is more than applying patches: trust, hashing
  every file of the client and the hidden zone's copies of the updater, flushing, keeping what it replaces. What it takes at every start, also where nothing is new, is left
  out of the ratio and told behind it. Of the updater, of tools for single files and of HDiffPatch's programs the least of five runs counts. HDiffPatch is a module of Python: without what Python takes to start. It gets contents that changed only; files that
  moved cost it nothing. *HDiffPatch, folders* is its own programs, from the same sources: they write a whole new tree beside the old one, hash nothing but
  a checksum and flush nothing.
- Our maker's time is what publishing takes with patches from that one release, less what it takes without any, one patch at a time (`--jobs 1`; each
  further one takes as much memory again). A peer's is what the newest release takes, its delta included.";

const WHERE_IT_LOSES: &str = "What is missed, and why:
- *The client's processor time.* A peer of the same task reads the old bytes and writes the new ones, once. The updater hashes what it starts from, makes the new files beside
  the old ones, keeps what they replace, puts them in place, each time with SHA-256 over what was read and flushed, so that a cut at any write leaves one whole release.
  Where many files only moved, that is nearly all. Where much text changed, three fifths are the model that decodes literals
  (*mixed literals* of [patches](formats/patch.md)): it is what makes these patches smaller than the peers'.
- *The publisher's memory where no file is large.* Opening a key file takes 19 MiB (Argon2), and compressing the release without any patch some more: beyond ten times a file of two
  megabytes before the first patch is made.
- *A store of few releases.* The newest is there whole, whatever it takes; each further release adds a step back and a step forward. borg adds all that changed,
  once: where nearly everything did, that is no more. (With jupyterlab 4.5.11 in front of its series the store is 0.95 of borg's.)";

/// All of it but the heading.
pub fn section(outcomes: &[Outcome], chart: &str) -> String {
    let mut text = format!("{INTRODUCTION}\n\n![Bytes of an update, by program]({chart})\n\n");
    let mut table = Table::default();
    for outcome in outcomes {
        if let Some(series) = series::ALL.iter().find(|series| series.name == outcome.series) {
            goals(outcome, series, &mut table);
        }
    }
    text += &format!("{table}\n{WHERE_IT_LOSES}\n");
    for outcome in outcomes {
        text += "\n";
        text += &needs(outcome);
    }
    text
}

/// Adds what is claimed about a series.
fn goals(outcome: &Outcome, series: &Series, table: &mut Table) {
    let name = series.name;
    let Some(ours) = outcome.row(OURS) else { return };
    for (base, goal) in [(Base::Near, series.near_goal), (Base::Far, series::FAR_GOAL)] {
        if let (Some(bytes), Some((peer, least))) = (ours.bytes(base), outcome.best_peer(base)) {
            table.add(
                format!("{name}, {} → N: bytes ÷ the best peer's", base.describe()),
                ratio(bytes, least),
                goal,
                format!("{} against {} ({})", size(bytes), size(least), peer.program),
            );
        }
    }
    for base in [Base::Near, Base::Far] {
        if let (Some(bytes), Some(whole)) = (ours.bytes(base), outcome.row(WHOLE).and_then(|row| row.bytes(base))) {
            table.add(
                format!("{name}, {} → N: bytes ÷ the whole release compressed", base.describe()),
                ratio(bytes, whole),
                1.0,
                format!("{} against {}", size(bytes), size(whole)),
            );
        }
    }
    if let (Some(bytes), Some(borg)) = (ours.store_bytes, outcome.row(STORE_PEER).and_then(|row| row.store_bytes)) {
        table.add(
            format!("{name}, store of {} releases ÷ {STORE_PEER}'s, zstd -19", outcome.versions.len()),
            ratio(bytes, borg),
            series.kind.store_goal(),
            format!("{} against {}", size(bytes), size(borg)),
        );
    }
    let peer = outcome.row(CPU_PEER);
    let idle = outcome.idle.unwrap_or_default();
    for base in [Base::Near, Base::Far] {
        let (Some(update), Some(theirs)) = (ours.update(base), peer.and_then(|row| row.update(base))) else { continue };
        table.add(
            format!("{name}, {} → N: client's processor time for the update ÷ {CPU_PEER}'s", base.describe()),
            update.client.without(idle).cpu_secs / theirs.client.cpu_secs,
            1.5,
            format!(
                "{} less {} at every start, against {}",
                seconds(update.client),
                seconds(idle),
                seconds(theirs.client)
            ),
        );
        let Some(maker) = update.maker else { continue };
        table.add(
            format!("{name}, {} → N: publisher's memory for one edge ÷ the largest file", base.describe()),
            ratio(maker.peak_bytes, outcome.largest_bytes),
            10.0,
            format!("{} MiB against {} MiB", mebibytes(maker.peak_bytes), mebibytes(outcome.largest_bytes)),
        );
        if let Some(theirs) = theirs.maker {
            table.add(
                format!("{name}, {} → N: publisher's processor time ÷ {CPU_PEER}'s", base.describe()),
                maker.cpu_secs / theirs.cpu_secs,
                3.0,
                format!("{} against {}", seconds(maker), seconds(theirs)),
            );
        }
    }
}

/// What every program needs for a series.
fn needs(outcome: &Outcome) -> String {
    let kind =
        series::ALL.iter().find(|series| series.name == outcome.series).map_or("", |series| series.kind.describe());
    let mut text = format!(
        "### {}\n\n{}: {} files, {}, the largest {}. Releases {}.\n\n",
        outcome.series,
        capital(kind),
        outcome.files,
        size(outcome.bytes),
        size(outcome.largest_bytes),
        outcome.versions.join(", "),
    );
    let far = outcome.step(Base::Far);
    for (base, step) in [(Base::Near, outcome.step(Base::Near)), (Base::Far, far)] {
        let Some((old, new)) = step else { continue };
        let store = if base == Base::Near { " store |" } else { "" };
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "| {} → N: {old} → {new} | bytes | in all | requests | client: CPU | memory | maker: CPU | memory |{store}",
            base.describe()
        );
        let _ =
            writeln!(text, "|---|---:|---:|---:|---:|---:|---:|---:|{}", if store.is_empty() { "" } else { "---:|" });
        for row in sorted(outcome, base) {
            text += &line(row, base);
        }
        text += "\n";
    }
    let publishing = &outcome.publishing;
    let _ = writeln!(
        text,
        "Publishing {} took {} and {} MiB without patches, {} and {} MiB with all of them.",
        outcome.versions.last().map_or("it", String::as_str),
        seconds(publishing.bare),
        mebibytes(publishing.bare.peak_bytes),
        seconds(publishing.usual),
        mebibytes(publishing.usual.peak_bytes),
    );
    for row in outcome.rows.iter().filter(|row| !row.failures.is_empty()) {
        // What each said names paths of this machine: it is kept beside the figures, not on a page.
        let what: Vec<&str> = row.failures.iter().filter_map(|failure| failure.split(':').next()).collect();
        let _ = writeln!(text, "{} failed: {}.", row.program, what.join(", "));
    }
    if !outcome.absent.is_empty() {
        let _ = writeln!(text, "Not installed, so not measured: {}.", outcome.absent.join(", "));
    }
    text
}

/// Who needs least comes first; who knows no updates comes last.
fn sorted(outcome: &Outcome, base: Base) -> Vec<&Row> {
    let mut rows: Vec<&Row> = outcome.rows.iter().filter(|row| row.update(base).is_some()).collect();
    rows.sort_by_key(|row| row.bytes(base).unwrap_or(u64::MAX));
    rows
}

fn line(row: &Row, base: Base) -> String {
    let Some(update) = row.update(base) else { return String::new() };
    let Update { bytes, total_bytes, requests, client, maker } = update;
    let program = if row.program == OURS { format!("**{OURS}**") } else { row.program.clone() };
    let some = |bytes: &Option<u64>| bytes.map_or("–".into(), size);
    let requests = requests.map_or("–".into(), |requests| requests.to_string());
    let cost = |usage: &Usage| format!("{} | {} MiB", seconds(*usage), mebibytes(usage.peak_bytes));
    let maker = maker.as_ref().map_or("– | –".into(), cost);
    let store = if base == Base::Near { format!(" {} |", some(&row.store_bytes)) } else { String::new() };
    format!(
        "| {program} | {} | {} | {requests} | {} | {maker} |{store}\n",
        some(bytes),
        some(total_bytes),
        cost(client)
    )
}

fn ratio(ours: u64, theirs: u64) -> f64 {
    ours as f64 / theirs as f64
}

/// Bytes, for people: three figures that count.
pub fn size(bytes: u64) -> String {
    let (number, unit) = match bytes {
        0..1000 => return format!("{bytes} B"),
        1000..1_000_000 => (bytes as f64 / 1e3, "kB"),
        _ => (bytes as f64 / 1e6, "MB"),
    };
    let decimals = if number < 9.995 { 2 } else { usize::from(number < 99.95) };
    format!("{number:.decimals$} {unit}")
}

fn seconds(usage: Usage) -> String {
    let digits = if usage.cpu_secs < 1.0 { 3 } else { 2 };
    format!("{:.digits$} s", usage.cpu_secs)
}

fn mebibytes(bytes: u64) -> String {
    let number = bytes as f64 / 1_048_576.0;
    if number < 10.0 { format!("{number:.1}") } else { format!("{number:.0}") }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_show_three_figures() {
        for (bytes, text) in
            [(999, "999 B"), (1160, "1.16 kB"), (48_400, "48.4 kB"), (241_300, "241 kB"), (37_622_000, "37.6 MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
