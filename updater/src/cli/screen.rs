//! What people see while the engine works: notes on stderr, and a bar on a terminal. Data never goes here.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lines::errln;
use updater::Watch;

/// The screen.
pub struct Screen {
    bars: bool,
    verbose: bool,
    quiet: bool,
    bar: Mutex<Option<ProgressBar>>,
}

impl Screen {
    /// A screen; `verbose` also shows details, `quiet` nothing but the bar.
    pub fn new(verbose: bool, quiet: bool) -> Self {
        Self { bars: std::io::stderr().is_terminal(), verbose, quiet, bar: Mutex::new(None) }
    }

    fn with_bar(&self, f: impl FnOnce(&mut Option<ProgressBar>)) {
        // A bar is no state that a panic elsewhere could spoil.
        f(&mut self.bar.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn print(&self, text: &str) {
        self.with_bar(|bar| match bar {
            Some(bar) => bar.suspend(|| errln!("{text}")),
            None => errln!("{text}"),
        });
    }
}

impl Watch for Screen {
    fn begin(&self, what: &str, total: u64) {
        if !self.bars || total == 0 {
            return;
        }
        let template =
            "{msg:<16} {wide_bar} {binary_bytes:>10}/{binary_total_bytes:<10} {binary_bytes_per_sec:>12} {eta:>4}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total).with_style(style).with_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.with_bar(|slot| *slot = Some(bar));
    }

    fn advance(&self, bytes: u64) {
        if self.bars {
            self.with_bar(|bar| {
                if let Some(bar) = bar {
                    bar.inc(bytes);
                }
            });
        }
    }

    fn end(&self) {
        self.with_bar(|bar| {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
        });
    }

    fn note(&self, text: &str) {
        if !self.quiet {
            self.print(text);
        }
    }

    fn detail(&self, text: &str) {
        if self.verbose {
            self.print(text);
        }
    }
}
