//! Many numbers, fast: the ziggurat.

use crate::rng::SampleRng;

/// Layers of the ziggurat.
const LAYERS: usize = 128;
/// Where its lowest layer ends and the tail begins, and the area of a layer.
const TAIL: f64 = 3.442_619_855_899;
const AREA: f64 = 9.912_563_035_262_17e-3;
/// Bits of a draw's magnitude.
const BITS: u32 = 24;

/// Marsaglia and Tsang's ziggurat ("The ziggurat method for generating random
/// variables", 2000): a number from one random word nearly always. Layer, sign
/// and magnitude come from different bits.
#[derive(Debug)]
pub(crate) struct Ziggurat {
    layers: [Layer; LAYERS],
}

/// One layer: a box as wide as the density's curve at its lower edge.
#[derive(Clone, Copy, Debug, Default)]
struct Layer {
    /// Magnitudes below lie under the curve whatever the height.
    certain: u32,
    /// Width of one magnitude.
    unit: f32,
    /// The density at the lower and the upper edge.
    density: [f64; 2],
}

impl Ziggurat {
    /// The tables.
    pub(crate) fn new() -> Self {
        let density = |x: f64| (-0.5 * x * x).exp();
        let scale = f64::from(1u32 << BITS);
        let mut layers = [Layer::default(); LAYERS];
        // The lowest layer holds the tail as well: as if it were a wider box.
        let (mut width, mut next) = (AREA / density(TAIL), TAIL);
        for (i, layer) in layers.iter_mut().enumerate() {
            *layer = Layer {
                certain: (next / width * scale) as u32,
                unit: (width / scale) as f32,
                density: [density(width), density(next)],
            };
            width = next;
            let above = density(next) + AREA / next;
            next = if i + 2 < LAYERS {
                (-2.0 * above.ln()).sqrt()
            } else {
                0.0
            };
        }
        Self { layers }
    }

    /// The next number.
    #[inline]
    pub(crate) fn draw(&self, rng: &mut SampleRng) -> f32 {
        loop {
            let word = rng.next_u32();
            let layer = &self.layers[word as usize % LAYERS];
            let magnitude = word >> (32 - BITS);
            let sign = (word >> 7 & 1) << 31;
            let value = magnitude as f32 * layer.unit;
            let signed = |value: f32| f32::from_bits(value.to_bits() | sign);
            if magnitude < layer.certain {
                return signed(value);
            }
            if let Some(value) = self.edge(word as usize % LAYERS, value, rng) {
                return signed(value);
            }
        }
    }

    /// What becomes of a value that may lie above the curve.
    #[cold]
    fn edge(&self, layer: usize, value: f32, rng: &mut SampleRng) -> Option<f32> {
        if layer == 0 {
            loop {
                let beyond = -(1.0 - rng.uniform()).ln() / TAIL;
                let height = -(1.0 - rng.uniform()).ln();
                if 2.0 * height > beyond * beyond {
                    return Some((TAIL + beyond) as f32);
                }
            }
        }
        let [lower, upper] = self.layers[layer].density;
        let height = rng.between(lower, upper);
        let value64 = f64::from(value);
        (height < (-0.5 * value64 * value64).exp()).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pair;
    use super::*;
    use crate::rng::Stream;

    /// Shares of the normal distribution between these bounds, from tables.
    const BOUNDS: [(f64, f64); 12] = [
        (-4.0, 3.167_124e-5),
        (-3.5, 2.326_291e-4),
        (-3.0, 1.349_898e-3),
        (-2.0, 2.275_013e-2),
        (-1.0, 0.158_655_25),
        (-0.5, 0.308_537_54),
        (0.0, 0.5),
        (0.25, 0.598_706_33),
        (1.0, 0.841_344_75),
        (2.0, 0.977_249_87),
        (3.0, 0.998_650_10),
        (4.0, 0.999_968_33),
    ];

    #[test]
    fn numbers_follow_the_distribution() {
        const DRAWS: u32 = 2_000_000;
        let mut rng = SampleRng::new(3, 0, 0, Stream::ErasingNoise);
        let mut pairs = SampleRng::new(3, 0, 1, Stream::ErasingNoise);
        let mut spare = None;
        let mut boxed = || {
            spare.take().unwrap_or_else(|| {
                let (first, second) = pair(&mut pairs);
                spare = Some(second);
                first
            })
        };
        let ziggurat = Ziggurat::new();
        let mut sources: [&mut dyn FnMut() -> f64; 2] =
            [&mut || f64::from(ziggurat.draw(&mut rng)), &mut boxed];
        for source in &mut sources {
            let mut counts = [0u32; BOUNDS.len()];
            let mut moments = [0.0; 4];
            for _ in 0..DRAWS {
                let value = source();
                for (count, (bound, _)) in counts.iter_mut().zip(BOUNDS) {
                    *count += u32::from(value < bound);
                }
                for (moment, power) in moments.iter_mut().zip(1..) {
                    *moment += value.powi(power) / f64::from(DRAWS);
                }
            }
            for (count, (bound, share)) in counts.into_iter().zip(BOUNDS) {
                let expected = share * f64::from(DRAWS);
                let deviation = (expected * (1.0 - share)).sqrt();
                let off = (f64::from(count) - expected) / deviation;
                assert!(off.abs() < 4.5, "below {bound}: {off} deviations");
            }
            // Means 0, 1, 0, 3; variances of the means 1, 2, 15, 96 over n.
            let n = f64::from(DRAWS);
            for ((moment, mean), variance) in moments
                .into_iter()
                .zip([0.0, 1.0, 0.0, 3.0])
                .zip([1.0, 2.0, 15.0, 96.0])
            {
                let off = (moment - mean) / (variance / n).sqrt();
                assert!(off.abs() < 4.5, "{moment} for {mean}");
            }
        }
    }

    /// The layers have equal areas and meet at the top of the curve.
    #[test]
    fn the_layers_fill_the_curve() {
        let ziggurat = Ziggurat::new();
        let mut edges: Vec<f64> = ziggurat
            .layers
            .iter()
            .map(|layer| f64::from(layer.unit) * f64::from(1u32 << BITS))
            .collect();
        edges.push(0.0);
        for i in 1..LAYERS {
            let [lower, upper] = ziggurat.layers[i].density;
            assert!(
                (edges[i] * (upper - lower) - AREA).abs() < 1e-8,
                "layer {i}"
            );
            assert!(edges[i] > edges[i + 1]);
        }
        assert!((ziggurat.layers[LAYERS - 1].density[1] - 1.0).abs() < 1e-12);
    }
}
