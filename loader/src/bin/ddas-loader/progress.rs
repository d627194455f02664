//! How far a long job is: a bar on a terminal, else a line about every ten seconds.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::log::{self, LogForm};

/// Time between the lines of a job without a terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Shows on standard error how far a job is. Callable from any thread.
pub(crate) struct Meter {
    what: &'static str,
    unit: &'static str,
    started: Instant,
    bar: Option<ProgressBar>,
    last_line: Mutex<Instant>,
}

impl Meter {
    /// A meter for a job called `what` ("packing") that is measured in `unit` ("images").
    pub(crate) fn new(what: &'static str, unit: &'static str) -> Meter {
        let wanted = std::io::stderr().is_terminal() && log::form() != LogForm::Json;
        let bar = wanted.then(|| {
            let bar =
                ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
            let template = format!(
                "{{prefix}} [{{bar:30}}] {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left {{msg}}"
            );
            bar.set_style(
                ProgressStyle::with_template(&template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_prefix(what);
            log::set_bar(Some(bar.clone()));
            bar
        });
        let now = Instant::now();
        Meter {
            what,
            unit,
            started: now,
            bar,
            last_line: Mutex::new(now),
        }
    }

    /// Shows that `done` of `total` are done; `detail` is added at the end.
    pub(crate) fn set(&self, done: u64, total: u64, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(detail.to_owned());
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
        let line = self.line(done, total, detail);
        let (what, unit) = (self.what, self.unit);
        tracing::info!(
            event = "progress",
            what,
            unit,
            done,
            total,
            "{what}: {line}"
        );
    }

    fn line(&self, done: u64, total: u64, detail: &str) -> String {
        let mut line = format!("{done} of {total} {}", self.unit);
        if done > 0 {
            let rate = done as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
            let left = total.saturating_sub(done) as f64 / rate;
            line = format!("{line}, {rate:.0}/s, about {left:.0} s left");
        }
        if !detail.is_empty() {
            line = format!("{line}, {detail}");
        }
        line
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            log::set_bar(None);
            bar.finish_and_clear();
        }
    }
}
