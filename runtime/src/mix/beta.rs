//! The Beta distribution.

use crate::normal;
use crate::rng::SampleRng;

/// A draw from Beta(alpha, alpha), in [0, 1]; `alpha` is positive.
///
/// The share of one of two gamma variates in their sum, taken by their logarithms: for small `alpha` both are often
/// too small for a number of their own.
pub(super) fn symmetric(rng: &mut SampleRng, alpha: f64) -> f64 {
    let first = ln_gamma_variate(rng, alpha);
    let second = ln_gamma_variate(rng, alpha);
    1.0 / (1.0 + (second - first).exp())
}

/// Logarithm of a gamma variate of `shape` and scale 1: Marsaglia and Tsang, "A simple method for generating gamma
/// variables" (2000), with their transformation for shapes below 1.
fn ln_gamma_variate(rng: &mut SampleRng, shape: f64) -> f64 {
    let (shape, shift) = if shape < 1.0 {
        (shape + 1.0, above_zero(rng).ln() / shape)
    } else {
        (shape, 0.0)
    };
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let (x, _) = normal::pair(rng);
        let cube_root = 1.0 + c * x;
        if cube_root <= 0.0 {
            continue;
        }
        let v = cube_root * cube_root * cube_root;
        if above_zero(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d.ln() + v.ln() + shift;
        }
    }
}

/// Uniform in (0, 1].
fn above_zero(rng: &mut SampleRng) -> f64 {
    1.0 - rng.uniform()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// `scipy.stats.beta.ppf(i / 20, alpha, alpha)`, i = 1..=9; the rest by symmetry.
    const QUANTILES: [(f64, [f64; 9]); 6] = [
        (
            0.1,
            [
                8.661406889571973e-11,
                8.869280011934583e-08,
                5.114452752796233e-06,
                9.081468558549648e-05,
                0.0008452555328471295,
                0.005214870253734283,
                0.02398563301419642,
                0.08639856067057773,
                0.24153230796164168,
            ],
        ),
        (
            0.2,
            [
                7.743885786452429e-06,
                0.00024776469190814675,
                0.00187941580057322,
                0.007888049626594623,
                0.023814718768253692,
                0.05788057531549367,
                0.11964991726483691,
                0.21634185887579316,
                0.347286735143157,
            ],
        ),
        (
            0.4,
            [
                0.002075179366076051,
                0.011690457976912729,
                0.03193215907389056,
                0.06460414974737362,
                0.11050334183422297,
                0.1694441088256725,
                0.24027487883847976,
                0.3209451616727708,
                0.4086426196317101,
            ],
        ),
        (
            0.8,
            [
                0.030014474789132512,
                0.07105044309060285,
                0.11729892716207042,
                0.16703406818191566,
                0.2192947630151703,
                0.27343033416362883,
                0.3289479715246684,
                0.38544428427329713,
                0.44256856084401597,
            ],
        ),
        (1.0, [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45]),
        (
            2.0,
            [
                0.13535036217158378,
                0.19580010565909173,
                0.24440235445092232,
                0.2871407254167405,
                0.3263518223330697,
                0.36325749109056765,
                0.3986103026924349,
                0.43293107714773177,
                0.4666170631623678,
            ],
        ),
    ];

    /// Draws fall between scipy's quantiles equally often, and have the moments of the distribution.
    #[test]
    fn draws_follow_the_distribution() {
        const DRAWS: u32 = 100_000;
        for (alpha, lower) in QUANTILES {
            let mut counts = [0u32; 20];
            let (mut sum, mut sum_of_squares, mut largest_gap) = (0.0, 0.0, 0.0f64);
            for index in 0..DRAWS {
                let value = symmetric(&mut SampleRng::new(5, 0, index.into(), Stream::Mix), alpha);
                assert!((0.0..=1.0).contains(&value));
                // The upper half is compared from its own end, where numbers are as fine.
                let (tail, upper) = if value <= 0.5 {
                    (value, false)
                } else {
                    (1.0 - value, true)
                };
                let bin = lower.partition_point(|&quantile| quantile < tail);
                counts[if upper { 19 - bin } else { bin }] += 1;
                sum += value;
                sum_of_squares += (value - 0.5).powi(2);
            }
            let n = f64::from(DRAWS);
            let chi_square: f64 = counts
                .iter()
                .map(|&count| (f64::from(count) - n / 20.0).powi(2) / (n / 20.0))
                .sum();
            // 99.99 % quantile with 19 degrees of freedom.
            assert!(
                chi_square < 50.8,
                "alpha {alpha}: chi square {chi_square}, {counts:?}"
            );
            let mut below = 0.0;
            for (bin, &count) in counts.iter().enumerate() {
                below += f64::from(count) / n;
                largest_gap = largest_gap.max((below - (bin + 1) as f64 / 20.0).abs());
            }
            // Kolmogorov's 99.99 % quantile is 2.23 / sqrt(n).
            assert!(
                largest_gap < 2.23 / n.sqrt(),
                "alpha {alpha}: {largest_gap}"
            );
            let variance = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!(
                (sum / n - 0.5).abs() < 4.0 * (variance / n).sqrt(),
                "alpha {alpha}"
            );
            assert!(
                (sum_of_squares / n / variance - 1.0).abs() < 0.03,
                "alpha {alpha}"
            );
        }
    }

    #[test]
    fn extreme_parameters_stay_within_bounds() {
        for alpha in [1e-300, 1e-6, 0.001, 1000.0] {
            for index in 0..1000 {
                let value = symmetric(&mut SampleRng::new(5, 0, index, Stream::Mix), alpha);
                assert!((0.0..=1.0).contains(&value), "alpha {alpha}: {value}");
                assert!(alpha < 1.0 || (0.3..0.7).contains(&value));
            }
        }
    }
}
