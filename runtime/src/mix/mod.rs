//! MixUp and CutMix: two finished samples become two mixtures of both.
//!
//! Partners are neighbours in the order of the epoch, positions 2k and 2k + 1. That order is a random permutation, so
//! this is a uniform pairing, and one worker makes both samples of a pair and mixes them while they are in its cache.

mod beta;
mod blend;

use crate::error::{Error, Result};
use crate::rng::{SampleRng, Stream};

pub use blend::Blend;

/// Sums of two samples, `weight * a + (1 - weight) * b`, the weight drawn from Beta(alpha, alpha) (Zhang et al.,
/// "mixup: Beyond empirical risk minimization", 2018).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixUp {
    /// Both parameters of the Beta distribution, above 0 and at most [`Mix::MAX_ALPHA`]: small values leave most
    /// pairs nearly as they are, 1 is uniform.
    pub alpha: f64,
}

/// A rectangle of each sample replaced by its partner's (Yun et al., "CutMix", 2019), as torchvision draws it: the
/// share that stays comes from Beta(alpha, alpha), the centre is uniform over the pixels, and what lies outside the
/// image is cut off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CutMix {
    /// As [`MixUp::alpha`].
    pub alpha: f64,
}

/// What one draw holds for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MixPer {
    /// All pairs of a global batch get the same kind, weight and rectangle, as in torchvision and by default in timm.
    #[default]
    Batch,
    /// Each pair has a draw of its own.
    Pair,
}

impl MixPer {
    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            MixPer::Batch => "batch",
            MixPer::Pair => "pair",
        }
    }
}

/// How the samples of a batch are mixed.
///
/// ```
/// use ddas_runtime::{Mix, MixPer, MixUp};
///
/// let mix = Mix { mixup: Some(MixUp { alpha: 0.2 }), ..Mix::default() };
/// mix.check()?;
/// assert_eq!((mix.probability, mix.per), (1.0, MixPer::Batch));
/// assert!(Mix::default().check().is_err(), "neither MixUp nor CutMix");
/// # Ok::<(), ddas_runtime::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// MixUp, if it is used.
    pub mixup: Option<MixUp>,
    /// CutMix, if it is used.
    pub cutmix: Option<CutMix>,
    /// Chance that a batch (or pair) is mixed at all, 0 to 1.
    pub probability: f64,
    /// Chance of CutMix where both are used, 0 to 1; without meaning otherwise.
    pub switch_probability: f64,
    /// What one draw holds for.
    pub per: MixPer,
}

impl Default for Mix {
    /// Neither MixUp nor CutMix, to be completed: always, either of both equally often, one draw a batch.
    fn default() -> Self {
        Self {
            mixup: None,
            cutmix: None,
            probability: 1.0,
            switch_probability: 0.5,
            per: MixPer::Batch,
        }
    }
}

impl Mix {
    /// Largest alpha; the weight is then within 0.5 +- 0.05 nearly always.
    pub const MAX_ALPHA: f64 = 1000.0;

    /// Checks every number.
    ///
    /// # Errors
    /// [`Error::Mix`] naming the field that is missing or out of range.
    pub fn check(&self) -> Result<()> {
        let refuse = |field: &'static str, reason: String| Err(Error::Mix { field, reason });
        if self.mixup.is_none() && self.cutmix.is_none() {
            return refuse(
                "mixup",
                "neither mixup nor cutmix is given: give one, or leave mixing out".to_owned(),
            );
        }
        let alphas = [
            ("mixup.alpha", self.mixup.map(|mixup| mixup.alpha)),
            ("cutmix.alpha", self.cutmix.map(|cutmix| cutmix.alpha)),
        ];
        for (field, alpha) in alphas {
            if let Some(alpha) = alpha
                && !(alpha > 0.0 && alpha <= Self::MAX_ALPHA)
            {
                return refuse(
                    field,
                    format!(
                        "{alpha}: expected a number above 0, at most {}",
                        Self::MAX_ALPHA
                    ),
                );
            }
        }
        for (field, probability) in [
            ("probability", self.probability),
            ("switch_probability", self.switch_probability),
        ] {
            if !(0.0..=1.0).contains(&probability) {
                return refuse(field, format!("{probability}: expected 0 to 1"));
            }
        }
        Ok(())
    }

    /// What becomes of one pair: that of positions `2 * pair` and `2 * pair + 1` of the epoch, in batch `step`, of
    /// images of `size` x `size` pixels. Depends on nothing else.
    #[must_use]
    pub fn draw(&self, seed: u64, epoch: u32, step: u64, pair: u64, size: u32) -> Blend {
        let number = match self.per {
            MixPer::Batch => step,
            MixPer::Pair => pair,
        };
        let mut rng = SampleRng::new(seed, epoch, number, Stream::Mix);
        if rng.uniform() >= self.probability {
            return Blend::None;
        }
        let cutmix = match (self.mixup, self.cutmix) {
            (Some(_), Some(cutmix)) if rng.uniform() < self.switch_probability => Some(cutmix),
            (Some(_), _) => None,
            (None, cutmix) => cutmix,
        };
        match (cutmix, self.mixup) {
            (Some(CutMix { alpha }), _) => {
                let weight = beta::symmetric(&mut rng, alpha);
                let center = (rng.below(size), rng.below(size));
                Blend::rectangle(weight, center, size)
            }
            (None, Some(MixUp { alpha })) => Blend::sum(beta::symmetric(&mut rng, alpha)),
            (None, None) => Blend::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Mix = Mix {
        mixup: Some(MixUp { alpha: 0.8 }),
        cutmix: Some(CutMix { alpha: 1.0 }),
        probability: 0.9,
        switch_probability: 0.25,
        per: MixPer::Pair,
    };

    #[test]
    fn wrong_numbers_are_named() {
        BOTH.check().unwrap();
        let cases = [
            (
                Mix {
                    mixup: Some(MixUp { alpha: 0.0 }),
                    ..BOTH
                },
                "mixup.alpha",
            ),
            (
                Mix {
                    cutmix: Some(CutMix { alpha: f64::NAN }),
                    ..BOTH
                },
                "cutmix.alpha",
            ),
            (
                Mix {
                    cutmix: Some(CutMix {
                        alpha: f64::INFINITY,
                    }),
                    ..BOTH
                },
                "cutmix.alpha",
            ),
            (
                Mix {
                    probability: 1.5,
                    ..BOTH
                },
                "probability",
            ),
            (
                Mix {
                    switch_probability: -0.1,
                    ..BOTH
                },
                "switch_probability",
            ),
            (Mix::default(), "mixup"),
        ];
        for (mix, expected) in cases {
            match mix.check() {
                Err(Error::Mix { field, .. }) => assert_eq!(field, expected),
                other => panic!("{mix:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn kinds_come_as_often_as_asked_for() {
        const PAIRS: u64 = 100_000;
        let mut counts = [0u32; 3];
        for pair in 0..PAIRS {
            let kind = match BOTH.draw(3, 1, pair / 64, pair, 224) {
                Blend::None => 0,
                Blend::Sum { .. } => 1,
                Blend::Rectangle { .. } => 2,
            };
            counts[kind] += 1;
        }
        let expected = [0.1, 0.9 * 0.75, 0.9 * 0.25].map(|share| share * PAIRS as f64);
        let chi_square: f64 = counts
            .iter()
            .zip(expected)
            .map(|(&count, expected)| (f64::from(count) - expected).powi(2) / expected)
            .sum();
        // 99.99 % quantile with 2 degrees of freedom.
        assert!(chi_square < 18.4, "{counts:?}, {chi_square}");
    }

    #[test]
    fn a_batch_has_one_draw_and_each_pair_its_own_when_asked() {
        let draws = |mix: Mix, seed, epoch, step| -> Vec<Blend> {
            (0..4)
                .map(|pair| mix.draw(seed, epoch, step, pair, 32))
                .collect()
        };
        let whole = Mix {
            per: MixPer::Batch,
            probability: 1.0,
            ..BOTH
        };
        let first = draws(whole, 1, 2, 3);
        assert!(first.iter().all(|blend| *blend == first[0]));
        let pairs = draws(
            Mix {
                per: MixPer::Pair,
                ..whole
            },
            1,
            2,
            3,
        );
        assert!((1..4).all(|pair| pairs[pair] != pairs[0]));
        // A pair's draw does not depend on the step it falls in: neither on the size of a batch.
        assert_eq!(
            draws(
                Mix {
                    per: MixPer::Pair,
                    ..whole
                },
                1,
                2,
                9
            ),
            pairs
        );
        for other in [
            draws(whole, 9, 2, 3),
            draws(whole, 1, 9, 3),
            draws(whole, 1, 2, 9),
        ] {
            assert_ne!(other[0], first[0]);
        }
    }
}
