//! What follows the last block: pooling, the linear layer, cross entropy. All sums in f64.

use rayon::prelude::*;

use super::convolve::{Activation, Sums};
use super::isa::Isa;
use super::norm::Norm;
use super::passes::{Affine, pool, unpool};

/// How the samples' losses become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Reduce {
    Sum,
    Mean,
}

/// The head of a network, with its memory.
#[derive(Debug)]
pub(super) struct Head {
    isa: Isa,
    channels: usize,
    classes: usize,
    /// Per image: [`pool`]'s sums.
    pooled: Vec<f64>,
    /// Per image: the gradient with respect to the logits.
    logits: Vec<f64>,
    /// Per image: loss and whether the prediction is right.
    outcomes: Vec<(f64, bool)>,
    /// Per image: the gradient of each pixel's rectified value.
    gradients: Vec<f32>,
}

impl Head {
    pub(super) fn new(isa: Isa, channels: usize, classes: usize) -> Self {
        Self {
            isa,
            channels,
            classes,
            pooled: Vec::new(),
            logits: Vec::new(),
            outcomes: Vec::new(),
            gradients: Vec::new(),
        }
    }

    /// Loss and number of correct predictions of the activations `x` (of `labels.len()` images).
    /// Afterwards the gradients of both parameters stand in `gradient`, weight first, and the sums
    /// for the backward pass of `norm` in `sums`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn forward(
        &mut self,
        norm: &Norm,
        x: &[f32],
        labels: &[usize],
        reduce: Reduce,
        parameters: &[f32],
        gradient: &mut [f32],
        sums: &mut Sums,
    ) -> (f64, usize) {
        let (isa, channels, classes, batch) = (self.isa, self.channels, self.classes, labels.len());
        let image = x.len() / batch;
        let pixels = (image / channels) as f64;
        let (weight, bias) = parameters.split_at(channels * classes);
        let act = norm.activation();
        let share = match reduce {
            Reduce::Sum => 1.0,
            Reduce::Mean => 1.0 / batch as f64,
        };
        self.pooled.resize(batch * 3 * channels, 0.0);
        self.logits.resize(batch * classes, 0.0);
        self.outcomes.resize(batch, (0.0, false));
        self.gradients.resize(batch * channels, 0.0);
        let outcomes = self.outcomes.par_iter_mut().zip(labels);
        self.pooled
            .par_chunks_exact_mut(3 * channels)
            .zip(self.logits.par_chunks_exact_mut(classes))
            .zip(self.gradients.par_chunks_exact_mut(channels))
            .zip(x.par_chunks_exact(image))
            .zip(outcomes)
            .for_each(|((((pooled, logits), gradient), x), (outcome, &label))| {
                pool(isa, act, x, pooled);
                let mean = &mut pooled[..channels];
                mean.iter_mut().for_each(|mean| *mean /= pixels);
                for ((logit, weight), &bias) in logits
                    .iter_mut()
                    .zip(weight.chunks_exact(channels))
                    .zip(bias)
                {
                    let products = mean.iter().zip(weight).map(|(x, &w)| x * f64::from(w));
                    *logit = f64::from(bias) + products.sum::<f64>();
                }
                *outcome = cross_entropy(logits, label);
                logits.iter_mut().for_each(|logit| *logit *= share);
                for (channel, gradient) in gradient.iter_mut().enumerate() {
                    let weights = weight[channel..].iter().step_by(channels);
                    let products = logits.iter().zip(weights);
                    let sum: f64 = products.map(|(logit, &w)| logit * f64::from(w)).sum();
                    *gradient = (sum / pixels) as f32;
                }
            });
        self.parameter_gradients(gradient);
        self.sums(norm, sums);
        let loss: f64 = self.outcomes.iter().map(|(loss, _)| loss).sum();
        let correct = self.outcomes.iter().filter(|(_, correct)| *correct).count();
        (loss * share, correct)
    }

    /// Of the linear layer: images one after the other.
    fn parameter_gradients(&self, gradient: &mut [f32]) {
        let (channels, classes) = (self.channels, self.classes);
        let (weight, bias) = gradient.split_at_mut(channels * classes);
        weight
            .par_chunks_exact_mut(channels)
            .zip(bias)
            .enumerate()
            .for_each(|(class, (weight, bias))| {
                let mut row = vec![0.0f64; channels];
                let mut total = 0.0;
                let images = self.pooled.chunks_exact(3 * channels);
                for (pooled, logits) in images.zip(self.logits.chunks_exact(classes)) {
                    for (sum, mean) in row.iter_mut().zip(pooled) {
                        *sum += logits[class] * mean;
                    }
                    total += logits[class];
                }
                for (weight, sum) in weight.iter_mut().zip(row) {
                    *weight = sum as f32;
                }
                *bias = total as f32;
            });
    }

    /// The sums over what passes the rectification, from how many pixels do and their inputs.
    fn sums(&self, norm: &Norm, sums: &mut Sums) {
        let channels = self.channels;
        sums.first.fill(0.0);
        sums.second.fill(0.0);
        let images = self.pooled.chunks_exact(3 * channels);
        for (pooled, gradient) in images.zip(self.gradients.chunks_exact(channels)) {
            for (channel, &gradient) in gradient.iter().enumerate() {
                let (mean, rstd) = norm.exact(channel);
                let (count, inputs) = (pooled[channels + channel], pooled[2 * channels + channel]);
                let gradient = f64::from(gradient);
                sums.first[channel] += gradient * count;
                sums.second[channel] += gradient * (inputs - mean * count) * rstd;
            }
        }
    }

    /// The gradient with respect to the activations `x` of the last [`Head::forward`].
    pub(super) fn backward(
        &self,
        act: Activation<'_>,
        affine: Affine<'_>,
        x: &[f32],
        out: &mut [f32],
    ) {
        let isa = self.isa;
        let image = x.len() / self.outcomes.len();
        out.par_chunks_exact_mut(image)
            .zip(x.par_chunks_exact(image))
            .zip(self.gradients.par_chunks_exact(self.channels))
            .for_each(|((out, x), gradient)| unpool(isa, act, affine, gradient, x, out));
    }
}

/// Loss of a sample and whether its label has the greatest logit (the first, where several have);
/// the logits become the gradient with respect to them.
fn cross_entropy(logits: &mut [f64], label: usize) -> (f64, bool) {
    let (mut best, mut greatest) = (0, f64::NEG_INFINITY);
    for (class, &logit) in logits.iter().enumerate() {
        if logit > greatest {
            (best, greatest) = (class, logit);
        }
    }
    let given = logits[label];
    logits
        .iter_mut()
        .for_each(|logit| *logit = (*logit - greatest).exp());
    let total: f64 = logits.iter().sum();
    logits.iter_mut().for_each(|share| *share /= total);
    logits[label] -= 1.0;
    (total.ln() - (given - greatest), best == label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_equals_hand_computed_values() {
        // exp(0) = 1, exp(ln 2) = 2, exp(ln 5) = 5: shares 1/8, 2/8, 5/8.
        let logits = [0.0, 2.0f64.ln(), 5.0f64.ln()].map(|logit: f64| logit + 700.0);
        let mut gradient = logits;
        let (loss, correct) = cross_entropy(&mut gradient, 1);
        assert!((loss - 4.0f64.ln()).abs() < 1e-12 && !correct);
        for (found, wanted) in gradient.iter().zip([0.125, -0.75, 0.625]) {
            assert!((found - wanted).abs() < 1e-12, "{gradient:?}");
        }
        assert!(cross_entropy(&mut logits.clone(), 2).1);
        assert!(cross_entropy(&mut [1.0, 1.0], 0).1, "the first of equals");
        assert!(cross_entropy(&mut [f64::NAN, 1.0], 1).0.is_nan());
    }
}
