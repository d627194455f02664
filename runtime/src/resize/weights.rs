//! The weights of one axis.

use std::ops::Range;

use super::ResizeFilter;
#[cfg(target_arch = "x86_64")]
use super::vnni;

/// Fraction bits of the weights: 8 bits of a pixel and 2 for overshoot fit
/// beside them in 32.
pub(super) const PRECISION: u32 = 22;
/// One half, for rounding.
pub(super) const HALF: i32 = 1 << (PRECISION - 1);

/// The weights of one axis, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Axis {
    made_for: Option<(u32, u32, ResizeFilter)>,
    pub(super) spans: Vec<Span>,
    weights: Vec<i32>,
    exact: Vec<f64>,
    #[cfg(target_arch = "x86_64")]
    pub(super) digits: vnni::Digits,
}

/// What one output position reads: input positions from `first` on, weighed
/// by a range of the axis' weights.
#[derive(Clone, Debug)]
pub(super) struct Span {
    first: u32,
    weights: Range<usize>,
}

impl Axis {
    /// Makes the weights from `size` input to `count` output positions.
    pub(super) fn prepare(&mut self, size: u32, count: u32, filter: ResizeFilter) {
        if self.made_for == Some((size, count, filter)) {
            return;
        }
        self.made_for = Some((size, count, filter));
        self.spans.clear();
        self.weights.clear();
        let (support, weigh): (f64, fn(f64) -> f64) = match filter {
            ResizeFilter::Bilinear | ResizeFilter::PlainBilinear => (1.0, triangle),
            ResizeFilter::Bicubic | ResizeFilter::PlainBicubic => (2.0, cubic),
        };
        // Pillow passes the interval in single precision.
        let scale = f64::from(size as f32) / f64::from(count);
        let stretch = if filter.antialiases() {
            scale.max(1.0)
        } else {
            1.0
        };
        let support = support * stretch;
        let shrink = 1.0 / stretch;
        for position in 0..count {
            let center = (f64::from(position) + 0.5) * scale;
            let first = (center - support + 0.5) as u32; // truncates, from 0 on
            let end = ((center + support + 0.5) as u32).min(size);
            self.exact.clear();
            self.exact
                .extend((first..end).map(|i| weigh((f64::from(i) - center + 0.5) * shrink)));
            let sum: f64 = self.exact.iter().fold(0.0, |sum, weight| sum + weight);
            let start = self.weights.len();
            self.weights.extend(self.exact.iter().map(|&weight| {
                let weight = if sum != 0.0 { weight / sum } else { weight };
                let half = if weight < 0.0 { -0.5 } else { 0.5 };
                (half + weight * f64::from(1 << PRECISION)) as i32
            }));
            self.spans.push(Span {
                first,
                weights: start..self.weights.len(),
            });
        }
        #[cfg(target_arch = "x86_64")]
        if vnni::available() {
            let mut digits = std::mem::take(&mut self.digits);
            digits.prepare(self);
            self.digits = digits;
        }
    }

    /// Where each output position begins to read, with its weights.
    pub(super) fn positions(&self) -> impl Iterator<Item = (u32, &[i32])> {
        self.spans
            .iter()
            .map(|span| (span.first, &self.weights[span.weights.clone()]))
    }
}

fn triangle(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 { 1.0 - x } else { 0.0 }
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
