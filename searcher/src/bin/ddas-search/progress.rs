//! What a user sees while a search runs.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use ddas_search::{Config, EpochReport, StepReport};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output::say;

/// Steps left out of the measurement: the first one warms caches and code up.
const WARM_UP: usize = 1;
/// Steps after which the first estimate is given.
const FIRST_ESTIMATE: usize = 5;
/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar on a terminal, a line every ten seconds elsewhere.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    epochs: u32,
    steps_per_epoch: u32,
    done: u64,
    total: u64,
    seconds: Vec<f64>,
    last_line: Instant,
    estimate: Estimate,
    estimated: bool,
}

/// What is needed to tell how long the full preset would take.
pub(crate) struct Estimate {
    pub(crate) preset: String,
    pub(crate) settings: Config,
    pub(crate) machine: String,
}

impl Progress {
    pub(crate) fn start(estimate: Estimate, steps_per_epoch: u32, done: u64) -> Self {
        let epochs = estimate.settings.epochs;
        let total = u64::from(epochs) * u64::from(steps_per_epoch);
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(done);
            if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            epochs,
            steps_per_epoch,
            done,
            total,
            seconds: Vec::new(),
            last_line: Instant::now(),
            estimate,
            estimated: false,
        }
    }

    pub(crate) fn step(&mut self, report: &StepReport) {
        self.done += 1;
        self.seconds.push(report.seconds + report.waited);
        let left = self.per_step() * (self.total - self.done) as f64;
        let text = format!(
            "epoch {}/{} step {}/{}  loss {:.3}  validation {:.3}  total probability {:.3}  \
             {:.2} s/step  {} left",
            report.epoch + 1,
            self.epochs,
            report.step + 1,
            self.steps_per_epoch,
            report.outcome.plain_loss,
            report.outcome.validation_loss,
            report.total_probability,
            self.per_step(),
            span(left),
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done);
                bar.set_message(text);
            }
            None if self.seconds.len() == 1 || self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                say(text);
            }
            None => {}
        }
        if self.seconds.len() == FIRST_ESTIMATE {
            self.print_estimate();
        }
    }

    pub(crate) fn epoch(&self, report: &EpochReport, total_probability: f64, strongest: &str) {
        let accuracy = report.validation_accuracy.map_or(String::new(), |share| {
            format!("accuracy {:.1}%, ", 100.0 * share)
        });
        self.print(&format!(
            "epoch {}/{} done in {}: train loss {:.3}, validation loss {:.3}, {accuracy}\
             total probability {total_probability:.3}, most probable {strongest}",
            report.epoch + 1,
            self.epochs,
            span(report.seconds),
            report.train_loss,
            report.validation_loss,
        ));
        for warning in report.dead.warnings(self.steps_per_epoch) {
            self.print(&format!("warning: {warning}"));
        }
    }

    /// The last word: seconds per step over the whole run, and what that means.
    pub(crate) fn finish(mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.seconds.is_empty() {
            self.estimated = false;
            self.print_estimate();
        }
    }

    fn print_estimate(&mut self) {
        if self.estimated {
            return;
        }
        self.estimated = true;
        let per_step = self.per_step();
        let Estimate {
            preset,
            settings,
            machine,
        } = &self.estimate;
        let mut lines = format!(
            "{per_step:.3} s a step on {machine} (median of {}); this search: {} steps, {}",
            self.seconds.len().saturating_sub(WARM_UP).max(1),
            self.total,
            span(per_step * self.total as f64),
        );
        if let Ok(full) = Config::preset(preset)
            && full.steps() != settings.steps()
        {
            lines += &match settings.steps_cost_the_same(&full) {
                true => format!(
                    "; the full preset {preset}: {} steps, about {}",
                    full.steps(),
                    span(per_step * full.steps() as f64)
                ),
                false => format!(
                    "; no estimate for the full preset {preset}, whose steps are of another size"
                ),
            };
        }
        self.print(&lines);
    }

    /// Median seconds of a step, its wait for the batch included, without the first.
    fn per_step(&self) -> f64 {
        let mut seconds = match self.seconds.len() {
            0 => return 0.0,
            count if count > WARM_UP => self.seconds[WARM_UP..].to_vec(),
            _ => self.seconds.clone(),
        };
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    }

    fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }
}

/// A length of time for people.
pub(crate) fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0 if seconds > 0.0 => format!("{seconds:.2} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        for (seconds, text) in [
            (0.0, "0 s"),
            (0.25, "0.25 s"),
            (59.4, "59 s"),
            (60.0, "1 min 00 s"),
            (3599.0, "59 min 59 s"),
            (7384.0, "2 h 03 min"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
