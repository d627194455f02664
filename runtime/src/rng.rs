//! Counter-based random numbers: every draw is a pure function of
//! (seed, epoch, sample index, stream, position in the stream).

/// Multipliers and key increments of Philox4x32 (Salmon et al., "Parallel
/// random numbers: as easy as 1, 2, 3", SC 2011; Random123 `philox.h`).
const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_INCREMENT: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Bits of counter word 0 that number the blocks of one stream; the rest
/// names the stream.
const BLOCK_BITS: u32 = 24;

/// The Philox4x32-10 block function: four random words for one counter value.
///
/// A keyed bijection of the counter that passes BigCrush; no state, so any
/// position can be computed at once.
///
/// ```
/// use ddas_runtime::philox4x32;
///
/// assert_eq!(
///     philox4x32([0; 4], [0; 2]),
///     [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
/// );
/// ```
#[must_use]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut counter = counter;
    let mut key = key;
    for round in 0..ROUNDS {
        if round > 0 {
            key[0] = key[0].wrapping_add(KEY_INCREMENT[0]);
            key[1] = key[1].wrapping_add(KEY_INCREMENT[1]);
        }
        let product0 = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let product1 = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (product1 >> 32) as u32 ^ counter[1] ^ key[0],
            product1 as u32,
            (product0 >> 32) as u32 ^ counter[3] ^ key[1],
            product0 as u32,
        ];
    }
    counter
}

/// Independent sub-streams of one sample.
///
/// A stream can draw more or fewer numbers without moving the others: a new
/// crop rule leaves the operations drawn from the policy as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Whether and how the policy augments the sample.
    Policy,
    /// Crops, horizontal flips and the recipe's own cutout.
    Crop,
    /// The order of an epoch.
    Order,
    /// Draws of the policy search.
    Search,
    /// Mixing the samples of a batch.
    Mix,
    /// Whether a sample is turned upside down.
    VerticalFlip,
    /// Factors and order of a recipe's colour jitter.
    ColorJitter,
    /// Whether a recipe makes a sample grey.
    Grayscale,
    /// A recipe's blur.
    GaussianBlur,
    /// A recipe's lighting noise.
    Lighting,
    /// The rectangles of random erasing.
    Erasing,
    /// What random erasing puts there.
    ErasingNoise,
}

impl Stream {
    /// Part of the format of random numbers: never renumber.
    const fn number(self) -> u32 {
        match self {
            Stream::Policy => 0,
            Stream::Crop => 1,
            Stream::Order => 2,
            Stream::Search => 3,
            Stream::Mix => 4,
            Stream::VerticalFlip => 16,
            Stream::ColorJitter => 17,
            Stream::Grayscale => 18,
            Stream::GaussianBlur => 19,
            Stream::Lighting => 20,
            Stream::Erasing => 21,
            Stream::ErasingNoise => 22,
        }
    }
}

/// The random numbers of one sample in one epoch (Philox4x32-10).
///
/// The seed is the key; stream and block number, epoch and index are the
/// counter, so that no two (seed, epoch, index, stream) share a block. One
/// stream holds 2^26 words and then repeats.
///
/// ```
/// use ddas_runtime::{SampleRng, Stream};
///
/// let mut first = SampleRng::new(7, 3, 41, Stream::Policy);
/// let mut again = SampleRng::new(7, 3, 41, Stream::Policy);
/// assert_eq!(first.next_u64(), again.next_u64());
///
/// let mut other_epoch = SampleRng::new(7, 4, 41, Stream::Policy);
/// assert_ne!(first.next_u64(), other_epoch.next_u64());
/// ```
#[derive(Clone, Debug)]
pub struct SampleRng {
    key: [u32; 2],
    counter: [u32; 4],
    words: [u32; 4],
    /// Words of `words` already handed out.
    used: usize,
}

impl SampleRng {
    /// The numbers of sample `index` in `epoch` (both from 0).
    #[must_use]
    pub fn new(seed: u64, epoch: u32, index: u64, stream: Stream) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            counter: [
                stream.number() << BLOCK_BITS,
                epoch,
                index as u32,
                (index >> 32) as u32,
            ],
            words: [0; 4],
            used: 4,
        }
    }

    /// Uniform over all 32-bit words.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        if self.used == self.words.len() {
            self.words = philox4x32(self.counter, self.key);
            let stream = self.counter[0] >> BLOCK_BITS << BLOCK_BITS;
            let block = self.counter[0].wrapping_add(1) & ((1 << BLOCK_BITS) - 1);
            self.counter[0] = stream | block;
            self.used = 0;
        }
        let word = self.words[self.used];
        self.used += 1;
        word
    }

    /// Uniform over all 64-bit words; the first 32-bit word is the low half.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// `low + (high - low) * uniform()`: uniform in [low, high), where
    /// rounding may yield `high` itself.
    #[inline]
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform over `0..n`, without bias; 0 when `n` is 0.
    #[inline]
    pub fn below(&mut self, n: u32) -> u32 {
        // Lemire, "Fast random integer generation in an interval" (2019):
        // the high half of word * n, rejecting the words that would make some
        // results more frequent than others.
        let mut product = u64::from(self.next_u32()) * u64::from(n);
        if (product as u32) < n {
            let rejected = n.wrapping_neg() % n;
            while (product as u32) < rejected {
                product = u64::from(self.next_u32()) * u64::from(n);
            }
        }
        (product >> 32) as u32
    }

    /// True with probability 1/2.
    #[inline]
    pub fn coin(&mut self) -> bool {
        self.next_u32() >> 31 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known-answer vectors of the Random123 distribution (`kat_vectors`).
    #[test]
    fn philox_known_answers() {
        let cases: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn words_are_the_blocks_of_the_documented_counter() {
        let seed = 0x0123_4567_89ab_cdef;
        let index = 0x1111_2222_3333_4444;
        let mut rng = SampleRng::new(seed, 5, index, Stream::Order);
        for block in 0..3 {
            let words = philox4x32(
                [2 << 24 | block, 5, 0x3333_4444, 0x1111_2222],
                [0x89ab_cdef, 0x0123_4567],
            );
            for word in words {
                assert_eq!(rng.next_u32(), word);
            }
        }
    }

    #[test]
    fn a_stream_never_runs_into_the_next() {
        let mut rng = SampleRng::new(1, 2, 3, Stream::Policy);
        rng.counter[0] = (1 << BLOCK_BITS) - 1;
        for _ in 0..4 {
            rng.next_u32();
        }
        let mut start = SampleRng::new(1, 2, 3, Stream::Policy);
        assert_eq!(rng.next_u32(), start.next_u32());
    }

    #[test]
    fn each_part_of_the_key_matters() {
        let base = (9, 1, 4, Stream::Policy);
        let variants = [
            base,
            (10, 1, 4, Stream::Policy),
            (9 | 1 << 40, 1, 4, Stream::Policy),
            (9, 2, 4, Stream::Policy),
            (9, 1, 5, Stream::Policy),
            (9, 1, 4 | 1 << 40, Stream::Policy),
            (9, 1, 4, Stream::Crop),
            (9, 1, 4, Stream::Search),
            (9, 1, 4, Stream::Order),
        ];
        let mut first_words: Vec<u64> = variants
            .iter()
            .map(|&(seed, epoch, index, stream)| {
                SampleRng::new(seed, epoch, index, stream).next_u64()
            })
            .collect();
        first_words.sort_unstable();
        first_words.dedup();
        assert_eq!(first_words.len(), variants.len());
    }

    /// Pearson's statistic of `counts` against equal shares.
    fn chi_square(counts: &[u32]) -> f64 {
        let total: u32 = counts.iter().sum();
        let expected = f64::from(total) / counts.len() as f64;
        counts
            .iter()
            .map(|&count| (f64::from(count) - expected).powi(2) / expected)
            .sum()
    }

    /// Neighbouring samples are what a loader draws from: take few numbers of
    /// each of many samples rather than many of one.
    #[test]
    fn draws_of_neighbouring_samples_are_uniform() {
        const SAMPLES: u64 = 60_000;
        let mut tenths = [0u32; 10];
        let mut sevenths = [0u32; 7];
        let mut pairs = [0u32; 64];
        let mut heads = 0u32;
        let (mut sum, mut sum_of_squares) = (0.0, 0.0);
        for index in 0..SAMPLES {
            let mut rng = SampleRng::new(0, (index % 3) as u32, index / 3, Stream::Crop);
            let value = rng.uniform();
            assert!((0.0..1.0).contains(&value));
            tenths[(value * 10.0) as usize] += 1;
            sum += value;
            sum_of_squares += value * value;
            sevenths[rng.below(7) as usize] += 1;
            heads += u32::from(rng.coin());
            // Successive draws of one sample are independent.
            let pair = rng.below(8) * 8 + rng.below(8);
            pairs[pair as usize] += 1;
        }
        // 99.99 % quantiles of chi-square with 9, 6 and 63 degrees of freedom.
        assert!(chi_square(&tenths) < 33.7);
        assert!(chi_square(&sevenths) < 27.9);
        assert!(chi_square(&pairs) < 114.0);
        let n = SAMPLES as f64;
        // Four standard deviations.
        assert!((sum / n - 0.5).abs() < 4.0 * (1.0 / 12.0 / n).sqrt());
        assert!((sum_of_squares / n - 1.0 / 3.0).abs() < 4.0 * (4.0 / 45.0 / n).sqrt());
        assert!((f64::from(heads) - n / 2.0).abs() < 4.0 * (n / 4.0).sqrt());
    }

    /// For n = 3 * 2^30 a plain multiply-and-shift would make a third of the
    /// results twice as frequent as the others.
    #[test]
    fn below_has_no_bias_for_large_ranges() {
        let n = 3u32 << 30;
        let mut rng = SampleRng::new(3, 0, 0, Stream::Search);
        let mut residues = [0u32; 3];
        for _ in 0..30_000 {
            let value = rng.below(n);
            assert!(value < n);
            residues[(value % 3) as usize] += 1;
        }
        // 99.99 % quantile with 2 degrees of freedom.
        assert!(chi_square(&residues) < 18.4);
    }

    #[test]
    fn edges_of_below_and_between() {
        let mut rng = SampleRng::new(3, 0, 0, Stream::Search);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
        for _ in 0..1000 {
            assert!((-2.0..=3.0).contains(&rng.between(-2.0, 3.0)));
        }
        assert_eq!(rng.between(4.0, 4.0), 4.0);
    }
}
