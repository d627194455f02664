//! Strict checks of stored images: at packing, and of a whole dataset.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use ddas_formats::{DamagedSample, Dataset, Encoding, ImageHeader, VerifyReport};
use ddas_runtime::{Decoder, Image};

use crate::error::{Error, Result};

thread_local! {
    static SCRATCH: RefCell<(Decoder, Image)> = RefCell::new((Decoder::new(), Image::new(1, 1)));
}

/// Decodes an image as strictly as the workers will, and throws the pixels away.
///
/// Packers call it on every file, so that a file no trainer could be served is refused when it is packed.
///
/// # Errors
/// What is wrong with the image, in words.
pub fn check_image(header: &ImageHeader, payload: &[u8]) -> std::result::Result<(), String> {
    decodes(header.encoding, header.width, header.height, payload)
}

/// The index to store with an image that [`check_image`] has passed, see [`Decoder::index`].
pub fn index_image(header: &ImageHeader, payload: &[u8]) -> Vec<u8> {
    SCRATCH.with_borrow_mut(|(decoder, _)| decoder.index(header, payload))
}

fn decodes(
    encoding: Encoding,
    width: u32,
    height: u32,
    payload: &[u8],
) -> std::result::Result<(), String> {
    SCRATCH.with_borrow_mut(|(decoder, image)| {
        // A defect of a decoder must not end a run over a million other files; what it leaves behind is replaced.
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            decoder.decode(encoding, width, height, payload, image)
        }));
        match decoded {
            Ok(decoded) => decoded.map_err(|error| error.to_string()),
            Err(panic) => {
                (*decoder, *image) = (Decoder::new(), Image::new(1, 1));
                Err(format!("the decoder panicked: {}", panic_message(&*panic)))
            }
        }
    })
}

/// The text of a caught panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "no message".to_owned()
    }
}

/// Most samples described in a [`Verdict`]; further ones are counted.
const MOST_DESCRIBED: usize = 100;

/// What [`verify`] found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Checksums, keys, labels and content hash.
    pub stored: VerifyReport,
    /// Number of samples with sound checksums that do not decode.
    pub undecodable: u64,
    /// The first of them, by index.
    pub undecodable_samples: Vec<DamagedSample>,
}

impl Verdict {
    /// Whether every sample can be served and the dataset is what was packed.
    pub fn is_sound(&self) -> bool {
        self.stored.is_sound() && self.undecodable == 0
    }
}

/// Reads a whole dataset against its checksums, then decodes every sample on `threads` threads.
///
/// `progress` is told how many samples of `2 * dataset.len()` (checksums, then decoding) are done.
///
/// # Errors
/// When the dataset cannot be read at all; damage is not an error but part of the verdict.
pub fn verify(
    dataset: &Dataset,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Verdict> {
    let len = dataset.len();
    let stored = ddas_formats::verify(dataset, progress)?;
    let (next, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let found = Mutex::new((0u64, Vec::new()));
    let failure = Mutex::new(None);
    let work = || -> Result<()> {
        let reader = dataset.reader()?;
        while !stop.load(Ordering::Relaxed) {
            let start = next.fetch_add(64, Ordering::Relaxed);
            if start >= len {
                break;
            }
            let end = (start + 64).min(len);
            for index in start..end {
                // What cannot be read is in `stored` already.
                let Ok(sample) = reader.get(index) else {
                    continue;
                };
                if let Err(reason) =
                    decodes(sample.encoding, sample.width, sample.height, sample.payload)
                {
                    let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                    found.0 += 1;
                    found.1.push(DamagedSample { index, reason });
                    if found.1.len() > 2 * MOST_DESCRIBED {
                        keep_first(&mut found.1);
                    }
                }
            }
            progress(len + done.fetch_add(end - start, Ordering::Relaxed) + (end - start));
        }
        Ok(())
    };
    thread::scope(|scope| {
        for worker in 0..threads.max(1) {
            let outcome = thread::Builder::new()
                .name(format!("verify {worker}"))
                .spawn_scoped(scope, || {
                    if let Err(error) = work() {
                        stop.store(true, Ordering::Relaxed);
                        failure
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(error);
                    }
                });
            if let Err(source) = outcome {
                stop.store(true, Ordering::Relaxed);
                let error = Error::Io {
                    action: "starting a thread".to_owned(),
                    source,
                };
                failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
            }
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let (undecodable, mut undecodable_samples) =
        found.into_inner().unwrap_or_else(PoisonError::into_inner);
    keep_first(&mut undecodable_samples);
    Ok(Verdict {
        stored,
        undecodable,
        undecodable_samples,
    })
}

fn keep_first(samples: &mut Vec<DamagedSample>) {
    samples.sort_by_key(|sample| sample.index);
    samples.truncate(MOST_DESCRIBED);
}
