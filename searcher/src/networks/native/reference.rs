//! The convolutions by their definition, in f64: what the others are tested against.

use super::convolve::{Activation, Convolve, Geometry, Gradient, Mask, Sums};

/// One loop per index, every sum in f64.
#[derive(Debug)]
pub(super) struct Reference;

impl Reference {
    fn activated(x: &[f32], act: Option<Activation<'_>>, channels: usize) -> Vec<f64> {
        let value = |(index, &x): (usize, &f32)| match act {
            None => f64::from(x),
            Some(Activation { scale, shift }) => {
                let channel = index % channels;
                // In f32 up to the comparison, as everywhere: the mask must be the same.
                f64::from((scale[channel] * x + shift[channel]).max(0.0))
            }
        };
        x.iter().enumerate().map(value).collect()
    }

    fn gradient(dy: Gradient<'_>, channels: usize) -> Vec<f64> {
        match dy {
            Gradient::Plain(dy) => dy.iter().map(|&dy| f64::from(dy)).collect(),
            Gradient::Normalised { da, y, a, b, c } => (0..da.len())
                .map(|index| {
                    let channel = index % channels;
                    f64::from(a[channel]) * f64::from(da[index])
                        + f64::from(b[channel]) * f64::from(y[index])
                        + f64::from(c[channel])
                })
                .collect(),
        }
    }

    /// Calls `f(output pixel, tap, input pixel)` for each pair that the convolution connects.
    fn each(g: Geometry, mut f: impl FnMut(usize, usize, usize)) {
        for n in 0..g.batch {
            for y in 0..g.height {
                for x in 0..g.width {
                    for tap in 0..9 {
                        let (from_y, from_x) = (y + tap / 3, x + tap % 3);
                        let inside =
                            (1..=g.height).contains(&from_y) && (1..=g.width).contains(&from_x);
                        if inside {
                            let pixel = |y: usize, x: usize| (n * g.height + y) * g.width + x;
                            f(pixel(y, x), tap, pixel(from_y - 1, from_x - 1));
                        }
                    }
                }
            }
        }
    }

    fn sum(sums: Option<&mut Sums>, channels: usize, values: impl Iterator<Item = (f64, f64)>) {
        let Some(sums) = sums else { return };
        sums.first.fill(0.0);
        sums.second.fill(0.0);
        for (index, (value, factor)) in values.enumerate() {
            sums.first[index % channels] += value;
            sums.second[index % channels] += value * factor;
        }
    }
}

impl Convolve for Reference {
    fn forward(
        &mut self,
        g: Geometry,
        x: &[f32],
        act: Option<Activation<'_>>,
        weights: &[f32],
        residual: Option<&[f32]>,
        out: &mut [f32],
        sums: Option<&mut Sums>,
    ) {
        let x = Self::activated(x, act, g.inputs);
        let mut total = vec![0.0f64; out.len()];
        Self::each(g, |to, tap, from| {
            let x = &x[from * g.inputs..][..g.inputs];
            for (output, total) in total[to * g.outputs..][..g.outputs].iter_mut().enumerate() {
                let weights = &weights[(output * 9 + tap) * g.inputs..][..g.inputs];
                let products = x.iter().zip(weights).map(|(&x, &w)| x * f64::from(w));
                *total += products.sum::<f64>();
            }
        });
        for (index, (out, total)) in out.iter_mut().zip(total).enumerate() {
            *out = (total + residual.map_or(0.0, |residual| f64::from(residual[index]))) as f32;
        }
        let values = out.iter().map(|&out| (f64::from(out), f64::from(out)));
        Self::sum(sums, g.outputs, values);
    }

    fn backward_data(
        &mut self,
        g: Geometry,
        dy: Gradient<'_>,
        weights: &[f32],
        mask: Option<Mask<'_>>,
        da: &mut [f32],
        sums: Option<&mut Sums>,
    ) {
        let dy = Self::gradient(dy, g.outputs);
        let mut total = vec![0.0f64; da.len()];
        Self::each(g, |to, tap, from| {
            let total = &mut total[from * g.inputs..][..g.inputs];
            for (output, dy) in dy[to * g.outputs..][..g.outputs].iter().enumerate() {
                let weights = &weights[(output * 9 + tap) * g.inputs..][..g.inputs];
                for (total, &w) in total.iter_mut().zip(weights) {
                    *total += dy * f64::from(w);
                }
            }
        });
        for (index, (da, total)) in da.iter_mut().zip(total).enumerate() {
            let channel = index % g.inputs;
            let passes = mask
                .is_none_or(|mask| mask.scale[channel] * mask.x[index] + mask.shift[channel] > 0.0);
            *da = if passes { total as f32 } else { 0.0 };
        }
        if let Some(Mask { x, mean, rstd, .. }) = mask {
            let values = da.iter().enumerate().map(|(index, &da)| {
                let channel = index % g.inputs;
                let normalised =
                    (f64::from(x[index]) - f64::from(mean[channel])) * f64::from(rstd[channel]);
                (f64::from(da), normalised)
            });
            Self::sum(sums, g.inputs, values);
        }
    }

    fn backward_weights(
        &mut self,
        g: Geometry,
        x: &[f32],
        act: Option<Activation<'_>>,
        dy: Gradient<'_>,
        dw: &mut [f32],
    ) {
        let x = Self::activated(x, act, g.inputs);
        let dy = Self::gradient(dy, g.outputs);
        let mut total = vec![0.0f64; dw.len()];
        Self::each(g, |to, tap, from| {
            let x = &x[from * g.inputs..][..g.inputs];
            for (output, dy) in dy[to * g.outputs..][..g.outputs].iter().enumerate() {
                let total = &mut total[(output * 9 + tap) * g.inputs..][..g.inputs];
                for (total, x) in total.iter_mut().zip(x) {
                    *total += dy * x;
                }
            }
        });
        for (dw, total) in dw.iter_mut().zip(total) {
            *dw = total as f32;
        }
    }
}
