//! Wide residual networks on the CPU without libtorch: loss and gradient in one call.
//!
//! libtorch's convolutions multiply as often as their definition says, and what stands between
//! them goes through memory on its own. Here the 3x3 convolutions go through Winograd's transform
//! (`conv/`), which needs a quarter of the products, and take normalisation, rectification,
//! residuals and their backward passes along (`network.rs` says which). The other convolutions are
//! matrix products (`lowered.rs`, `gemm.rs`). Work is cut by the sizes alone and partial sums are
//! added in order: results do not depend on the number of threads.

mod conv;
mod convolve;
mod gemm;
mod head;
mod isa;
mod layout;
mod lowered;
mod network;
mod norm;
mod passes;
#[cfg(test)]
mod reference;
mod scratch;
mod tensor;
#[cfg(test)]
mod tests;

use std::fmt;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tch::Tensor;

use self::isa::Isa;
use self::layout::Layout;
use self::network::{Batch, WideNetwork};
use crate::error::{Error, Result};
use crate::networks::Precision;
use crate::networks::parameters::Parameters;

pub(super) use self::head::Reduce;

/// A wide residual network with its threads and buffers.
pub(super) struct Native {
    pool: ThreadPool,
    /// Buffers for as many batches at a time as there are threads.
    networks: Vec<WideNetwork>,
    classes: usize,
    parameters: usize,
}

/// What was found of some batches.
pub(super) struct Differentiated {
    /// Loss and number of correct predictions of each.
    pub(super) outcomes: Vec<(f64, usize)>,
    /// A row for each, in the order of `Parameters::flat`.
    pub(super) gradients: Tensor,
}

impl Native {
    /// What this machine lacks for it; none where it can run.
    pub(super) fn obstacle() -> Option<&'static str> {
        let wanted = "a processor with AVX2 and FMA";
        Isa::detect().is_none().then_some(wanted)
    }

    /// Whether libtorch is faster all the same: its bf16 products use tiles (AMX) where there are
    /// any.
    pub(super) fn is_slower(precision: Precision) -> bool {
        precision == Precision::Bf16 && isa::has_bf16_tiles()
    }

    /// # Errors
    /// [`Error::Invalid`] when the processor cannot run it ([`Native::obstacle`]) or no threads
    /// can be started.
    pub(super) fn new(
        (depth, width, classes): (u32, u32, u32),
        precision: Precision,
        threads: usize,
    ) -> Result<Self> {
        let Some(isa) = Isa::detect() else {
            let wanted = Self::obstacle().unwrap_or_default();
            return Err(Error::Invalid(format!("the native engine needs {wanted}")));
        };
        let sizes = (depth as usize, width as usize, classes as usize);
        let convolver = || convolve::convolver(isa, precision);
        Self::with_convolvers(isa, sizes, threads, convolver)
    }

    fn with_convolvers(
        isa: Isa,
        (depth, width, classes): (usize, usize, usize),
        threads: usize,
        convolver: impl Fn() -> Box<dyn convolve::Convolve + Send>,
    ) -> Result<Self> {
        let threads = threads.max(1);
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|number| format!("network-{number}"))
            .build()
            .map_err(|error| {
                Error::Invalid(format!("the network's threads cannot be started: {error}"))
            })?;
        let layout = Layout::new(depth, width, classes);
        let network = || WideNetwork::new(isa, layout.clone(), classes, threads, convolver());
        Ok(Self {
            pool,
            classes,
            parameters: layout.count(),
            networks: (0..threads).map(|_| network()).collect(),
        })
    }

    /// Of batches with the same labels, each normalised for itself: what is found does not depend
    /// on which others there are.
    ///
    /// # Errors
    /// [`Error::Invalid`] when images, labels and parameters do not fit the network or each other.
    pub(super) fn differentiate(
        &mut self,
        parameters: &Parameters,
        batches: &[&Tensor],
        labels: &Tensor,
        reduce: Reduce,
    ) -> Result<Differentiated> {
        if parameters.count() != self.parameters {
            return Err(Error::Invalid(format!(
                "{} parameters for a network of {}",
                parameters.count(),
                self.parameters
            )));
        }
        let mut labels_of = Vec::with_capacity(batches.len());
        let mut images_of = Vec::with_capacity(batches.len());
        for images in batches {
            labels_of.push(self.check(images, labels)?);
            // Images made for a search lie like this already.
            images_of.push(images.f_permute([0, 2, 3, 1])?.f_contiguous()?);
        }
        let batches: Vec<Batch<'_>> = images_of
            .iter()
            .zip(&labels_of)
            .map(|(images, (height, width, labels))| {
                Ok(Batch {
                    images: tensor::values(images)?,
                    height: *height,
                    width: *width,
                    labels,
                })
            })
            .collect::<Result<_>>()?;
        let values = tensor::values(parameters.flat())?;

        // A batch to each thread: they wait for each other once, not after every pass. A thread
        // that is done helps the others with theirs.
        let each = batches.len().div_ceil(self.networks.len()).max(1);
        let (pool, networks) = (&self.pool, &mut self.networks);
        let mut outcomes = vec![(f64::NAN, 0); batches.len()];
        let gradients = tensor::matrix(batches.len(), values.len(), |gradients| {
            pool.install(|| {
                networks
                    .par_iter_mut()
                    .zip(batches.par_chunks(each))
                    .zip(gradients.par_chunks_mut(each * values.len()))
                    .zip(outcomes.par_chunks_mut(each))
                    .for_each(|(((network, batches), gradients), outcomes)| {
                        let gradients = gradients.chunks_exact_mut(values.len());
                        for ((batch, gradient), outcome) in
                            batches.iter().zip(gradients).zip(outcomes)
                        {
                            *outcome = network.differentiate(values, *batch, reduce, gradient);
                        }
                    });
            });
        })?;
        Ok(Differentiated {
            outcomes,
            gradients,
        })
    }

    /// Height, width and labels of a batch.
    fn check(&self, images: &Tensor, labels: &Tensor) -> Result<(usize, usize, Vec<usize>)> {
        let size = images.size();
        let &[batch, 3, height, width] = &size[..] else {
            return Err(Error::Invalid(format!(
                "images of shape {size:?}; expected batch x 3 x height x width"
            )));
        };
        let labels = Vec::<i64>::try_from(labels)?;
        if batch < 1 || height < 1 || width < 1 || labels.len() as i64 != batch {
            return Err(Error::Invalid(format!(
                "{} labels for images of shape {size:?}",
                labels.len()
            )));
        }
        let class = |&label: &i64| {
            usize::try_from(label)
                .ok()
                .filter(|&label| label < self.classes)
                .ok_or_else(|| Error::Invalid(format!("label {label} of {} classes", self.classes)))
        };
        let labels = labels.iter().map(class).collect::<Result<_>>()?;
        Ok((height as usize, width as usize, labels))
    }
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native")
            .field("threads", &self.pool.current_num_threads())
            .finish_non_exhaustive()
    }
}
