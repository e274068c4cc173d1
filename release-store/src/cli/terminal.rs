//! What a person sees and types: errors, progress, passphrases; and the time.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use lines::{errln, outln};
use release_store::keys::Passphrase;
use release_store::repository::{Observer, Repository};

const PASSPHRASE_VARIABLE: &str = "HOLDFAST_PASSPHRASE";

/// Why there is nothing to open the keys with.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoPassphrase(&'static str);

/// Prints an error and what led to it, one line each.
pub(super) fn report(error: &anyhow::Error) {
    errln!("error: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if text != last {
            errln!("  because: {text}");
        }
        last = text;
    }
}

/// Prints `value` to stdout as JSON.
pub(super) fn print_json(value: &serde_json::Value) {
    outln!("{value:#}");
}

/// The passphrase of existing keys.
pub(super) fn passphrase() -> anyhow::Result<Passphrase> {
    match from_environment()? {
        Some(passphrase) => Ok(passphrase),
        None => prompt("Passphrase of the keys: "),
    }
}

/// The passphrase of new keys: asked for twice.
pub(super) fn new_passphrase() -> anyhow::Result<Passphrase> {
    if let Some(passphrase) = from_environment()? {
        return Ok(passphrase);
    }
    let first = prompt("New passphrase for the keys: ")?;
    let second = prompt("Once more: ")?;
    if !first.is(&second) {
        bail!(NoPassphrase("the two passphrases differ; nothing was made"));
    }
    Ok(first)
}

fn from_environment() -> anyhow::Result<Option<Passphrase>> {
    match std::env::var(PASSPHRASE_VARIABLE) {
        Ok(text) => match Passphrase::new(text) {
            Some(passphrase) => Ok(Some(passphrase)),
            None => bail!(NoPassphrase("HOLDFAST_PASSPHRASE is set but empty; an empty passphrase protects nothing")),
        },
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => bail!(NoPassphrase("HOLDFAST_PASSPHRASE is no Unicode text")),
    }
}

fn prompt(text: &str) -> anyhow::Result<Passphrase> {
    if !std::io::stdin().is_terminal() {
        bail!(NoPassphrase("the keys need a passphrase: set HOLDFAST_PASSPHRASE, or run in a terminal"));
    }
    let typed = rpassword::prompt_password(text).context(NoPassphrase("the passphrase could not be read"))?;
    Passphrase::new(typed).ok_or_else(|| NoPassphrase("an empty passphrase protects nothing").into())
}

/// Seconds since 1970: `SOURCE_DATE_EPOCH` where that is set.
pub(super) fn now() -> anyhow::Result<i64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.trim().parse().context("SOURCE_DATE_EPOCH is no number of seconds since 1970"),
        Err(_) => Ok(jiff::Timestamp::now().as_second()),
    }
}

/// Says where the root has to be signed again (once it is over, devices take nothing new), and where the keys do not remember what was
/// signed.
pub(super) fn say_after_signing(repository: &Repository<'_>, now: i64) {
    if let Some(reason) = repository.not_remembered() {
        errln!("What was signed is not remembered beside the keys: {reason}");
    }
    if repository.signed_with_new_keys() {
        let releases = repository.releases();
        let newest: Vec<_> = releases.iter().rev().take(5).map(|release| release.version.as_str()).collect();
        let all = releases.iter().count();
        errln!("Signed with new keys: all that stood here, {all} releases, the newest {}.", newest.join(", "));
        errln!("If a key was stolen, compare `list` with what you published, and withdraw what is not yours.");
    }
    if repository.root_is_due(now) {
        let keys = repository.keys().path().display();
        errln!("The root is more than half over: run `renew` once with root.key in {keys}.");
    }
}

/// A time, ISO 8601.
pub(super) fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// So many of a thing, for people.
pub(super) fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// A progress bar on stderr; nothing where that is no terminal.
pub(super) struct Bar(ProgressBar);

impl Bar {
    pub(super) fn new(what: &'static str) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let template = "{msg:>10} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }
}

impl Observer for Bar {
    fn progress(&mut self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    fn note(&mut self, text: &str) {
        self.0.suspend(|| errln!("{text}"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
