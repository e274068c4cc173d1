//! What a person sees and types: errors, progress, passphrases.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use firmware_image::ZoneError;
use indicatif::{ProgressBar, ProgressStyle};
use lines::{errln, outln};
use partition_tools::ToolError;
use partition_tools::printable::printable;
use partition_tools::progress::Progress;
use release_store::keys::{KeySource, Passphrase};

const PASSPHRASE_VARIABLE: &str = "HOLDFAST_PASSPHRASE";

/// Prints an error and what led to it, one line each.
pub(super) fn report(error: &anyhow::Error) {
    let mut last = error.to_string();
    errln!("error: {}", printable(&last));
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if text != last {
            errln!("  because: {}", printable(&text));
        }
        last = text;
    }
}

/// Prints `value` to stdout as JSON.
pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    outln!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Copies a zone's file to stdout.
pub(super) fn print_file<F>(file: &mut F, failed: impl Fn(ZoneError) -> ToolError) -> anyhow::Result<()>
where
    F: embedded_io::Read<Error = ZoneError>,
{
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).map_err(&failed)? {
            0 => return Ok(()),
            n if lines::bytes(&buffer[..n]) => {}
            _ => return Ok(()),
        }
    }
}

/// The passphrase of the keys, where they need one.
pub(super) fn passphrase(keys: &KeySource) -> anyhow::Result<Option<Passphrase>> {
    if !keys.needs_passphrase() {
        return Ok(None);
    }
    let text = match std::env::var(PASSPHRASE_VARIABLE) {
        Ok(text) => text,
        Err(std::env::VarError::NotUnicode(_)) => bail!("{PASSPHRASE_VARIABLE} is no Unicode text"),
        Err(std::env::VarError::NotPresent) if std::io::stdin().is_terminal() => {
            rpassword::prompt_password("Passphrase of the keys: ").context("the passphrase could not be read")?
        }
        Err(std::env::VarError::NotPresent) => {
            bail!("the keys need a passphrase: set {PASSPHRASE_VARIABLE}, or run in a terminal")
        }
    };
    Passphrase::new(text).context("an empty passphrase protects nothing").map(Some)
}

/// A progress bar on stderr; nothing where that is no terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        // Until a step begins, nobody knows of how much.
        bar.set_style(ProgressStyle::default_spinner());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

impl Progress for Bar {
    fn begin(&mut self, step: &'static str, total: u64) {
        let template = match total {
            0 => "{msg:>14} {spinner}",
            _ => "{msg:>14} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style.progress_chars("=> "));
        }
        self.0.set_message(step);
        self.0.set_length(total);
        self.0.set_position(0);
        self.0.reset_eta();
    }

    fn advance(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
