//! Batches made ahead of the step, on other threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::batches::{BatchMaker, BatchScratch, TrainBatch};
use crate::error::{Error, Result};

/// Batches each worker may have ready before it waits.
const AHEAD: usize = 2;

/// Hands out the batches of all steps from a given epoch on, in order.
///
/// Worker `w` of `n` makes every `n`-th batch. A batch depends on its step alone, so the number
/// of workers does not show in the result.
pub(crate) struct Prefetch {
    receivers: Vec<Receiver<Result<Option<TrainBatch>>>>,
    workers: Vec<JoinHandle<()>>,
    next: usize,
}

impl Prefetch {
    /// Starts `workers` threads (at least one) at the first step of `first_epoch`, or at its step
    /// `first_step`.
    pub(crate) fn start(
        maker: &Arc<BatchMaker>,
        (first_epoch, first_step): (u32, u32),
        epochs: u32,
        workers: usize,
    ) -> Result<Self> {
        let workers = workers.max(1);
        let mut prefetch = Self {
            receivers: Vec::new(),
            workers: Vec::new(),
            next: 0,
        };
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(AHEAD);
            let maker = Arc::clone(maker);
            let handle = std::thread::Builder::new()
                .name(format!("batches-{worker}"))
                .spawn(move || {
                    let first = first_step as usize + worker;
                    work(&maker, first_epoch..epochs, first, workers, &sender);
                })
                .map_err(|error| Error::Invalid(format!("cannot start a thread: {error}")))?;
            prefetch.receivers.push(receiver);
            prefetch.workers.push(handle);
        }
        Ok(prefetch)
    }

    /// The next batch; waits until it is made. None for one that can only be made when the step
    /// before it is done ([`BatchMaker::needs_probabilities`]).
    ///
    /// # Errors
    /// What [`BatchMaker::make`] returns; [`Error::Invalid`] past the last batch.
    pub(crate) fn next(&mut self) -> Result<Option<TrainBatch>> {
        let worker = self.next % self.receivers.len();
        self.next += 1;
        self.receivers[worker]
            .recv()
            .map_err(|_| Error::Invalid("no further batch: its thread has ended".to_owned()))?
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // With its receiver gone, a worker's next hand-over fails and it ends.
        self.receivers.clear();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn work(
    maker: &BatchMaker,
    epochs: std::ops::Range<u32>,
    first: usize,
    workers: usize,
    sender: &SyncSender<Result<Option<TrainBatch>>>,
) {
    let mut scratch = BatchScratch::default();
    let steps = maker.steps_per_epoch();
    let all = epochs.flat_map(|epoch| (0..steps).map(move |step| (epoch, step)));
    for (epoch, step) in all.skip(first).step_by(workers) {
        let batch = match maker.needs_probabilities(epoch, step) {
            true => Ok(None),
            false => maker.make(epoch, step, &[], &mut scratch).map(Some),
        };
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}
