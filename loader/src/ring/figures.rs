//! What a ring has handed over and how long that took: figures for people, nothing that the ring decides by.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How long a recent rate looks back.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
/// Figures are remembered at most this often.
const BETWEEN_MARKS: Duration = Duration::from_millis(250);

/// Earlier values of running totals, for rates of the recent past: at most some forty of them.
///
/// The window begins at the newest value that is at least [`WINDOW`] old, or with the first one.
#[derive(Clone, Debug)]
pub(crate) struct Window<T> {
    marks: VecDeque<(Instant, T)>,
}

impl<T: Clone> Window<T> {
    pub(crate) fn new(now: Instant, value: T) -> Window<T> {
        Window {
            marks: VecDeque::from([(now, value)]),
        }
    }

    /// Remembers `value`, unless the last one is of a moment ago.
    pub(crate) fn mark(&mut self, now: Instant, value: impl FnOnce() -> T) {
        let last = self.marks.back().map(|mark| mark.0);
        if last.is_none_or(|last| now.saturating_duration_since(last) >= BETWEEN_MARKS) {
            self.forget(now);
            self.marks.push_back((now, value()));
        }
    }

    /// Forgets what lies before the window.
    fn forget(&mut self, now: Instant) {
        let old = |mark: &(Instant, T)| now.saturating_duration_since(mark.0) >= WINDOW;
        while self.marks.len() > 1 && self.marks.get(1).is_some_and(old) {
            self.marks.pop_front();
        }
    }

    /// Where the window begins, and the value there.
    pub(crate) fn begin(&self, now: Instant) -> Option<(Instant, T)> {
        let old = |mark: &&(Instant, T)| now.saturating_duration_since(mark.0) >= WINDOW;
        let begin = self.marks.iter().rev().find(old);
        begin.or_else(|| self.marks.front()).cloned()
    }
}

/// How often something took how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Durations {
    /// How often it took no longer than [`Durations::BOUNDS`] of the same place, and longer than the bound before; the
    /// last entry: longer than all.
    pub counts: Vec<u64>,
    /// All times together, in seconds.
    pub sum_seconds: f64,
}

impl Durations {
    /// Upper ends of the classes, in seconds.
    pub const BOUNDS: [f64; 13] = [
        0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
    ];

    /// Counts one.
    pub(crate) fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        let class = Self::BOUNDS.iter().position(|&bound| seconds <= bound);
        self.counts[class.unwrap_or(Self::BOUNDS.len())] += 1;
        self.sum_seconds += seconds;
    }

    /// How often, all in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Default for Durations {
    fn default() -> Durations {
        Durations {
            counts: vec![0; Self::BOUNDS.len() + 1],
            sum_seconds: 0.0,
        }
    }
}

/// The figures of one ring.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) started: Instant,
    /// Samples published.
    pub(super) samples: u64,
    /// Consumers admitted, and those that left of their own accord or died.
    pub(super) joined: u64,
    pub(super) left: u64,
    pub(super) evicted: u64,
    /// From a slot's hand-out to its publication.
    pub(super) filling: Durations,
    /// Waiting for a free slot.
    pub(super) slot_waits: Durations,
    /// Since when the writer waits for a slot.
    pub(super) waiting: Option<Instant>,
    window: Window<(u64, u64)>,
}

impl Figures {
    pub(super) fn new() -> Figures {
        let now = Instant::now();
        Figures {
            started: now,
            samples: 0,
            joined: 0,
            left: 0,
            evicted: 0,
            filling: Durations::default(),
            slot_waits: Durations::default(),
            waiting: None,
            window: Window::new(now, (0, 0)),
        }
    }

    /// Counts a batch of `samples` that was published as the `batches`-th, `filled` after it was begun.
    pub(super) fn published(&mut self, batches: u64, samples: usize, filled: Duration) {
        self.samples += samples as u64;
        self.filling.add(filled);
        let total = (batches, self.samples);
        self.window.mark(Instant::now(), || total);
    }

    /// The writer has got its slot, for which it began to ask at `since`.
    pub(super) fn got_slot(&mut self, since: Instant) {
        self.waiting = None;
        self.slot_waits.add(since.elapsed());
    }

    /// Seconds that the writer has waited for slots, the present wait included.
    pub(super) fn slot_wait_seconds(&self) -> f64 {
        let now = self.waiting.map_or(Duration::ZERO, |since| since.elapsed());
        self.slot_waits.sum_seconds + now.as_secs_f64()
    }

    /// Rates over the recent past and over everything.
    pub(super) fn rates(&self, batches: u64) -> [Rates; 2] {
        let now = Instant::now();
        let (begin, before) = self.window.begin(now).unwrap_or((self.started, (0, 0)));
        let rates = |since: Instant, before: (u64, u64)| {
            let seconds = now.saturating_duration_since(since).as_secs_f64();
            let a_second = |count: u64| count as f64 / seconds.max(1e-3);
            Rates {
                seconds,
                batches_per_second: a_second(batches.saturating_sub(before.0)),
                images_per_second: a_second(self.samples.saturating_sub(before.1)),
            }
        };
        [rates(begin, before), rates(self.started, (0, 0))]
    }
}

/// How fast batches were handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Over how long.
    pub seconds: f64,
    /// Batches of this rank.
    pub batches_per_second: f64,
    /// Images of this rank.
    pub images_per_second: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_at_the_newest_value_that_is_old_enough() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut window = Window::new(start, 0);
        for second in 1..=30 {
            window.mark(at(f64::from(second)), || second);
        }
        // A moment later nothing is remembered.
        window.mark(at(30.1), || panic!("too early"));
        assert_eq!(window.begin(at(30.0)), Some((at(20.0), 20)));
        assert_eq!(window.begin(at(30.9)), Some((at(20.0), 20)));
        // Nothing was marked for long: the last value is the beginning.
        assert_eq!(window.begin(at(500.0)), Some((at(30.0), 30)));
        assert!(window.marks.len() <= 12, "{}", window.marks.len());
    }

    #[test]
    fn times_are_counted_in_their_classes() {
        let mut times = Durations::default();
        for milliseconds in [0, 1, 2, 10, 1000, 60_000] {
            times.add(Duration::from_millis(milliseconds));
        }
        assert_eq!(times.counts, [1, 0, 1, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1]);
        assert_eq!(times.count(), 6);
        assert!((times.sum_seconds - 61.013).abs() < 1e-9);
    }
}
