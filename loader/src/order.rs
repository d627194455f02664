//! The order of an epoch: a seekable permutation in constant memory.

/// The order in which one epoch visits the samples of a dataset.
///
/// A permutation of `0..len` that is a pure function of (seed, epoch, len). It keeps no table: any position of any
/// epoch is computed on its own, so that a run can be entered in the middle at once.
///
/// ```
/// use ddas_loader::EpochOrder;
///
/// let order = EpochOrder::new(7, 3, 10);
/// let mut visited: Vec<u64> = (0..10).map(|position| order.at(position)).collect();
/// visited.sort();
/// assert_eq!(visited, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
///
/// // Far positions of long datasets cost as much as the first.
/// let long = EpochOrder::new(7, 3, 1 << 40);
/// assert!(long.at(1_000_000_000_000) < 1 << 40);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochOrder {
    len: u64,
    rows: u64,
    columns: u64,
    keys: [u64; ROUNDS],
}

/// Eight Feistel rounds: four would already be a strong permutation of a long epoch; the rest serves datasets of a
/// handful of samples, whose halves are only a few values wide.
const ROUNDS: usize = 8;

impl EpochOrder {
    /// Longest epoch, in samples.
    pub const MAX_LEN: u64 = 1 << 40;

    /// The order of `epoch` (from 0) of a dataset of `len` samples.
    ///
    /// # Panics
    /// When `len` is beyond [`EpochOrder::MAX_LEN`]; [`RunPlan`](crate::RunPlan) refuses such datasets with an error.
    pub fn new(seed: u64, epoch: u32, len: u64) -> EpochOrder {
        assert!(
            len <= Self::MAX_LEN,
            "an epoch has at most {} samples, not {len}",
            Self::MAX_LEN
        );
        // The permutation acts on a grid that is as square as possible and at most one row larger than the epoch:
        // the walk in `at` then almost never needs a second step.
        let rows = len.isqrt() + u64::from(len.isqrt().pow(2) < len);
        let columns = if rows == 0 { 0 } else { len.div_ceil(rows) };
        let mut state = mix(seed ^ 0x6f72_6465_7200_0000).wrapping_add(u64::from(epoch));
        let keys = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            mix(state)
        });
        EpochOrder {
            len,
            rows,
            columns,
            keys,
        }
    }

    /// Number of samples in the epoch.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the epoch has no sample at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The index of the sample at `position` of the epoch, both in `0..len`.
    ///
    /// # Panics
    /// When `position` is not in `0..len`.
    pub fn at(&self, position: u64) -> u64 {
        assert!(
            position < self.len,
            "position {position} is outside the epoch of {} samples",
            self.len
        );
        // Cycle walking: the grid holds a few cells that are no sample. Following the permutation from a sample
        // meets a sample again at the latest where it started, so the walk ends.
        let mut cell = position;
        loop {
            cell = self.permute(cell);
            if cell < self.len {
                return cell;
            }
        }
    }

    /// A Feistel network over row and column with modular addition (Black and Rogaway's generalised cipher).
    fn permute(&self, cell: u64) -> u64 {
        let (mut row, mut column) = (cell / self.columns, cell % self.columns);
        for (round, &key) in self.keys.iter().enumerate() {
            if round % 2 == 0 {
                row = add_modulo(row, scale(mix(column ^ key), self.rows), self.rows);
            } else {
                column = add_modulo(column, scale(mix(row ^ key), self.columns), self.columns);
            }
        }
        row * self.columns + column
    }
}

/// Maps 64 random bits to `0..range`; the bias is below `range / 2^64`.
fn scale(bits: u64, range: u64) -> u64 {
    ((u128::from(bits) * u128::from(range)) >> 64) as u64
}

fn add_modulo(a: u64, b: u64, modulus: u64) -> u64 {
    let sum = a + b;
    if sum >= modulus { sum - modulus } else { sum }
}

/// The 64-bit finaliser of SplitMix64 (Steele, Lea and Flood 2014, variant 13 of Stafford).
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn visited(seed: u64, epoch: u32, len: u64) -> Vec<u64> {
        let order = EpochOrder::new(seed, epoch, len);
        (0..len).map(|position| order.at(position)).collect()
    }

    proptest! {
        #[test]
        fn every_index_comes_exactly_once(seed: u64, epoch: u32, len in 0u64..3000) {
            let mut indices = visited(seed, epoch, len);
            indices.sort_unstable();
            prop_assert_eq!(indices, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn far_positions_stay_inside_and_do_not_collide(seed: u64, len in (1u64 << 30)..=EpochOrder::MAX_LEN, at in any::<prop::sample::Index>()) {
            let order = EpochOrder::new(seed, 0, len);
            let first = at.index((len - 500) as usize) as u64;
            let mut indices: Vec<u64> = (first..first + 500).map(|position| order.at(position)).collect();
            prop_assert!(indices.iter().all(|&index| index < len));
            indices.sort_unstable();
            indices.dedup();
            prop_assert_eq!(indices.len(), 500);
        }
    }

    #[test]
    fn short_epochs_are_permuted_too() {
        for len in 0..200 {
            let mut indices = visited(1, 2, len);
            indices.sort_unstable();
            assert_eq!(indices, (0..len).collect::<Vec<_>>());
        }
    }

    /// Every one of the 24 orders of four samples comes about equally often over the epochs.
    #[test]
    fn all_orders_of_a_tiny_epoch_are_equally_likely() {
        let mut counts = std::collections::BTreeMap::new();
        let epochs = 24_000;
        for epoch in 0..epochs {
            *counts.entry(visited(5, epoch, 4)).or_insert(0u32) += 1;
        }
        let expected = f64::from(epochs) / 24.0;
        let chi_square: f64 = counts
            .values()
            .map(|&count| (f64::from(count) - expected).powi(2) / expected)
            .sum();
        // 23 degrees of freedom: 49.7 is exceeded by a uniform source once in a thousand.
        assert!(
            counts.len() == 24 && chi_square < 49.7,
            "chi square {chi_square} over {} orders",
            counts.len()
        );
    }

    /// A sample's neighbours in the dataset are not its neighbours in the epoch, and the place of a sample is uniform.
    #[test]
    fn the_place_of_a_sample_is_uniform_and_steps_are_not_kept() {
        let (len, epochs) = (1000u64, 400u32);
        let mut counts = [0u32; 20];
        let mut kept = 0;
        for epoch in 0..epochs {
            let indices = visited(11, epoch, len);
            counts[(indices[17] * 20 / len) as usize] += 1;
            kept += indices
                .windows(2)
                .filter(|pair| pair[1] == pair[0] + 1)
                .count();
        }
        let expected = f64::from(epochs) / 20.0;
        let chi_square: f64 = counts
            .iter()
            .map(|&count| (f64::from(count) - expected).powi(2) / expected)
            .sum();
        assert!(
            chi_square < 43.8,
            "chi square {chi_square} of 19 degrees of freedom"
        );
        // A random permutation keeps about one such pair; 400 epochs keep 400 +- 20.
        assert!((300..500).contains(&kept), "{kept} kept steps");
    }

    /// Computed by an independent implementation (25 lines of Python over unbounded integers).
    #[test]
    fn golden_orders() {
        assert_eq!(visited(0, 0, 10), GOLDEN_10);
        assert_eq!(visited(0, 1, 7), GOLDEN_7);
        let order = EpochOrder::new(42, 9, 60_000);
        assert_eq!(
            [0, 1, 2, 29_999, 59_999].map(|position| order.at(position)),
            GOLDEN_60_000
        );
        let order = EpochOrder::new(u64::MAX, u32::MAX, EpochOrder::MAX_LEN);
        assert_eq!(
            [0, 1, 1_000_000_000, EpochOrder::MAX_LEN - 1].map(|position| order.at(position)),
            GOLDEN_LONG
        );
    }

    const GOLDEN_10: [u64; 10] = [5, 6, 7, 1, 2, 8, 0, 4, 3, 9];
    const GOLDEN_7: [u64; 7] = [3, 4, 6, 5, 2, 1, 0];
    const GOLDEN_60_000: [u64; 5] = [37_263, 1403, 13_620, 34_379, 22_785];
    const GOLDEN_LONG: [u64; 4] = [
        81_029_779_121,
        40_440_866_108,
        35_137_629_332,
        915_845_633_128,
    ];
}
