//! Drawn operations on pixels.

use ddas_formats::{CutoutShape, Operation};

use crate::image::Image;
use crate::kernels::Kernels;
use crate::rng::SampleRng;
use crate::sampler::{PolicySampler, resolve_sign};

/// Draws operations and applies them; holds the scratch memory of one thread.
///
/// ```
/// use ddas_formats::Operation;
/// use ddas_runtime::{Augmenter, Image, SampleRng, Stream};
///
/// let mut augmenter = Augmenter::default();
/// let mut rng = SampleRng::new(0, 0, 0, Stream::Policy);
/// let mut image = Image::from_rgb(1, 1, vec![0, 10, 255])?;
/// augmenter.apply(&[Operation::Invert], &mut rng, &mut image);
/// assert_eq!(image.pixels(), [255, 245, 0]);
/// # Ok::<(), ddas_runtime::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Augmenter {
    kernels: Kernels,
    drawn: Vec<Operation>,
}

impl Augmenter {
    /// Draws the operations of one sample and applies them to `image`, in
    /// order. Returns them, with the sign they were applied with; empty when
    /// the sample is not augmented.
    pub fn augment(
        &mut self,
        sampler: &PolicySampler,
        rng: &mut SampleRng,
        image: &mut Image,
    ) -> &[Operation] {
        if self.draw(sampler, rng) {
            self.apply_last_draw(rng, image);
        }
        &self.drawn
    }

    /// First half of [`Augmenter::augment`]: whether there is anything to apply.
    pub(crate) fn draw(&mut self, sampler: &PolicySampler, rng: &mut SampleRng) -> bool {
        sampler.draw(rng, &mut self.drawn);
        !self.drawn.is_empty()
    }

    /// Second half of [`Augmenter::augment`].
    pub(crate) fn apply_last_draw(&mut self, rng: &mut SampleRng, image: &mut Image) {
        for operation in &self.drawn {
            apply_one(&mut self.kernels, operation, rng, image);
        }
    }

    /// What [`Augmenter::augment`] drew last.
    pub(crate) fn last_draw(&self) -> &[Operation] {
        &self.drawn
    }

    /// Applies operations whose sign is resolved, in order. Cutout's centre is
    /// drawn, uniform over the pixels.
    pub fn apply(&mut self, operations: &[Operation], rng: &mut SampleRng, image: &mut Image) {
        for operation in operations {
            apply_one(&mut self.kernels, operation, rng, image);
        }
    }

    /// Applies operations in order, mirroring each of random sign with
    /// probability 1/2.
    pub fn apply_drawn(
        &mut self,
        operations: &[Operation],
        rng: &mut SampleRng,
        image: &mut Image,
    ) {
        for operation in operations {
            let resolved = resolve_sign(operation, rng);
            apply_one(&mut self.kernels, &resolved, rng, image);
        }
    }
}

fn apply_one(kernels: &mut Kernels, operation: &Operation, rng: &mut SampleRng, image: &mut Image) {
    let (width, height) = (image.width(), image.height());
    let center = match operation {
        Operation::Cutout { shape, .. } => Some(match shape {
            CutoutShape::Centered => (f64::from(rng.below(width)), f64::from(rng.below(height))),
            CutoutShape::Rectangle => (
                rng.between(f64::from(width), 1.0),
                rng.between(f64::from(height), 1.0),
            ),
        }),
        _ => None,
    };
    kernels.apply(operation, center, image);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;
    use ddas_formats::{Extent, Rounding, SearchSpace, SignRule, Snapshot, Warp};

    fn rng(index: u64) -> SampleRng {
        SampleRng::new(5, 1, index, Stream::Policy)
    }

    fn ramp() -> Image {
        Image::from_rgb(6, 4, (0..72).map(|v| v * 3).collect()).unwrap()
    }

    #[test]
    fn augmenting_is_drawing_then_applying() {
        let space = SearchSpace::named("paper68").unwrap();
        let uniform = vec![1.0 / space.len() as f64; space.len()];
        let snapshot = Snapshot::new(0.7, uniform).unwrap();
        let sampler = PolicySampler::new(&space, &snapshot, 0.7).unwrap();
        let mut augmenter = Augmenter::default();
        let mut drawn = Vec::new();
        for index in 0..200 {
            let mut image = ramp();
            let applied = augmenter
                .augment(&sampler, &mut rng(index), &mut image)
                .to_vec();

            let mut expected = ramp();
            let mut expected_rng = rng(index);
            sampler.draw(&mut expected_rng, &mut drawn);
            assert_eq!(applied, drawn);
            Augmenter::default().apply(&drawn, &mut expected_rng, &mut expected);
            assert_eq!(image, expected);
        }
    }

    #[test]
    fn apply_keeps_signs_and_apply_drawn_draws_them() {
        let left = Operation::TranslateX {
            offset: Extent::Pixels(1.0),
            rounding: Rounding::None,
            sign: SignRule::Random,
            warp: Warp::default(),
        };
        let moved = |operation: &Operation| {
            let mut image = ramp();
            Kernels::default().apply(operation, None, &mut image);
            image
        };
        let (to_left, to_right) = (moved(&left), moved(&left.mirrored()));
        assert_ne!(to_left, to_right);
        let mut augmenter = Augmenter::default();
        let mut seen = [0; 2];
        for index in 0..100 {
            let mut image = ramp();
            augmenter.apply(&[left], &mut rng(index), &mut image);
            assert_eq!(image, to_left);

            let mut image = ramp();
            augmenter.apply_drawn(&[left], &mut rng(index), &mut image);
            assert!(image == to_left || image == to_right);
            seen[usize::from(image == to_left)] += 1;
        }
        assert!(seen[0] > 25 && seen[1] > 25);
    }

    #[test]
    fn cutout_reaches_every_pixel() {
        let cutout = Operation::Cutout {
            size: Extent::Pixels(2.0),
            shape: CutoutShape::Centered,
            fill: [9, 9, 9],
        };
        let mut augmenter = Augmenter::default();
        let mut hits = [0u32; 24];
        for index in 0..400 {
            let mut image = Image::new(6, 4);
            augmenter.apply(&[cutout], &mut rng(index), &mut image);
            for (hit, pixel) in hits.iter_mut().zip(image.pixels().chunks(3)) {
                *hit += u32::from(pixel == [9, 9, 9]);
            }
        }
        assert!(hits.iter().all(|&hit| hit > 0), "{hits:?}");
    }
}
