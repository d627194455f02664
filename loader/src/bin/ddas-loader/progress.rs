//! How far a long job is: a bar on a terminal, else a line about every ten seconds.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report;

/// Time between the lines of a job without a terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Shows on standard error how far a job is. Callable from any thread.
pub(crate) struct Meter {
    what: &'static str,
    started: Instant,
    bar: Option<ProgressBar>,
    last_line: Mutex<Instant>,
}

impl Meter {
    /// A meter for a job called `what` ("packing").
    pub(crate) fn new(what: &'static str) -> Meter {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            bar.set_style(
                ProgressStyle::with_template("{prefix} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.set_prefix(what);
            bar
        });
        let now = Instant::now();
        Meter {
            what,
            started: now,
            bar,
            last_line: Mutex::new(now),
        }
    }

    /// Shows that `done` of `total` samples (unknown: `None`) are done; `detail` is added at the end.
    pub(crate) fn set(&self, done: u64, total: Option<u64>, detail: &str) {
        if let Some(bar) = &self.bar {
            if let (Some(total), None) = (total, bar.length()) {
                let template = "{prefix} [{bar:30}] {pos}/{len} {per_sec} {eta} left {msg}";
                bar.set_length(total);
                bar.set_style(
                    ProgressStyle::with_template(template)
                        .unwrap_or_else(|_| ProgressStyle::default_bar()),
                );
            }
            bar.set_position(done);
            bar.set_message(if total.is_some() {
                detail.to_owned()
            } else {
                format!("{done} {detail}")
            });
            return;
        }
        let mut last_line = self
            .last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last_line.elapsed() < BETWEEN_LINES {
            return;
        }
        *last_line = Instant::now();
        report::tell(&format!(
            "{}: {}",
            self.what,
            self.line(done, total, detail)
        ));
    }

    fn line(&self, done: u64, total: Option<u64>, detail: &str) -> String {
        let elapsed = self.started.elapsed().as_secs_f64();
        let rate = done as f64 / elapsed.max(1e-9);
        let mut line = match total {
            Some(total) => {
                let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
                format!("{done} of {total}, {rate:.0}/s, about {left:.0} s left")
            }
            None => format!("{done}, {rate:.0}/s"),
        };
        if !detail.is_empty() {
            line = format!("{line}, {detail}");
        }
        line
    }

    /// Prints a line that stays, above the bar if there is one.
    pub(crate) fn tell(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| report::tell(text)),
            None => report::tell(text),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
