//! Batches waiting for workers, and batches waiting for their turn to be published.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::job::Job;

/// Batches whose samples are not all claimed yet. Bounded by the slots of the rings: a batch needs a slot to get here.
pub(super) struct JobQueue<S> {
    state: Mutex<QueueState<S>>,
    changed: Condvar,
}

struct QueueState<S> {
    jobs: VecDeque<Arc<Job<S>>>,
    feeders: usize,
}

/// What a worker finds in the queue.
pub(super) enum Next<S> {
    /// A batch with unclaimed samples.
    Job(Arc<Job<S>>),
    /// Nothing came in time.
    Nothing,
    /// Nothing will come any more.
    Closed,
}

impl<S> JobQueue<S> {
    /// A queue that closes when `feeders` feeders have left.
    pub(super) fn new(feeders: usize) -> JobQueue<S> {
        JobQueue {
            state: Mutex::new(QueueState {
                jobs: VecDeque::new(),
                feeders,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, job: Arc<Job<S>>) {
        self.lock().jobs.push_back(job);
        self.changed.notify_all();
    }

    pub(super) fn feeder_left(&self) {
        let mut state = self.lock();
        state.feeders = state.feeders.saturating_sub(1);
        drop(state);
        self.changed.notify_all();
    }

    /// The earliest batch (in epoch, step, rank order) that still has unclaimed samples.
    pub(super) fn next(&self, timeout: Duration) -> Next<S> {
        let state = self.lock();
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, timeout, |state| {
                state.jobs.retain(|job| !job.is_claimed());
                state.jobs.is_empty() && state.feeders > 0
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.jobs.retain(|job| !job.is_claimed());
        let earliest = state
            .jobs
            .iter()
            .min_by_key(|job| (job.part().epoch, job.part().step, job.part().rank));
        match earliest {
            Some(job) => Next::Job(Arc::clone(job)),
            None if state.feeders == 0 => Next::Closed,
            None => Next::Nothing,
        }
    }
}

/// The batches of one rank in the order of their slots; they are published in this order, whoever finishes first.
pub(super) struct Lane<S> {
    pending: Mutex<VecDeque<Arc<Job<S>>>>,
}

impl<S> Lane<S> {
    pub(super) fn new() -> Lane<S> {
        Lane {
            pending: Mutex::new(VecDeque::new()),
        }
    }

    pub(super) fn push(&self, job: Arc<Job<S>>) {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(job);
    }

    /// Hands every complete batch at the front of the lane to `publish`, in order, one thread at a time.
    ///
    /// # Errors
    /// The first error of `publish`.
    pub(super) fn publish_complete<E>(
        &self,
        mut publish: impl FnMut(&Job<S>, S) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(slot) = pending.front().and_then(|job| job.take_slot()) {
            if let Some(job) = pending.pop_front() {
                publish(&job, slot)?;
            }
        }
        Ok(())
    }
}
