//! `update`: to the newest release, or to a named one.

use anyhow::Result;
use clap::Args;
use firmware_image::host::Access;
use lines::outln;
use updater::Wish;
use updater::summary::Summary;

use super::{Session, exit, judged, size};

#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The release's version; it is then kept until `update` is asked for without this.
    #[arg(long, value_name = "VERSION")]
    to: Option<String>,
}

pub fn run(session: &Session<'_>, args: &UpdateArgs) -> Result<u8> {
    let wish = args.to.clone().map_or(Wish::Newest, Wish::Version);
    go(session, &wish)
}

/// Goes to the release that is wished for.
pub fn go(session: &Session<'_>, wish: &Wish) -> Result<u8> {
    session.with_engine(Access::ReadWrite, |engine| {
        let outcome = engine.update(wish).map_err(|error| judged(error, engine.has_open_commit()))?;
        session.print_outcome(&outcome)?;
        Ok(exit::FINE)
    })
}

/// Prints a plan as a table.
pub fn print_plan(plan: &Summary) {
    outln!("Release {} (serial {})", plan.version, plan.serial);
    if plan.files.is_empty() {
        outln!("Nothing to do: {} files are as they should be.", plan.kept);
        return;
    }
    outln!("{:<12} {:<24} {:>11} {:>11} {:>11}  file", "state", "way", "size", "download", "instead of");
    for line in &plan.files {
        let fetch = if line.fetch_bytes == 0 { "-".to_owned() } else { size::show(line.fetch_bytes) };
        let instead = if line.way == "patch" { size::show(line.instead_of_bytes) } else { "-".to_owned() };
        let (state, way, bytes) = (&line.state, line.way, size::show(line.bytes));
        let path = if line.path.is_empty() { "(of a release between, for a patch)" } else { &line.path };
        outln!("{state:<12} {way:<24} {bytes:>11} {fetch:>11} {instead:>11}  {path}");
    }
    outln!(
        "{} files are kept, {} change; {} are written, {} downloaded in {} frames.",
        plan.kept,
        plan.files.iter().filter(|line| !line.path.is_empty()).count(),
        size::show(plan.write_bytes),
        size::show(plan.fetch_bytes),
        plan.frames
    );
}
