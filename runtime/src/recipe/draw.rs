//! The random choices of the steps for one sample.
//!
//! Crops, horizontal flips and cutouts draw from [`Stream::Crop`], one after
//! the other in the order of the steps; every other kind has a stream of its
//! own, so that adding such a step leaves what the others draw as it was.

use super::Recipe;
use super::action::Action;
use super::step::{Border, ColorJitter, Lighting, RandomErasing, ResizeTo, Step};
use crate::normal;
use crate::output::Hole;
use crate::resize::Rect;
use crate::rng::{SampleRng, Stream};

impl Recipe {
    /// What the steps do to sample `index` in `epoch` (both from 0), an image
    /// of `width` x `height` pixels, in order; replaces what `actions` held.
    ///
    /// The same numbers give the same actions, whatever was drawn before. What
    /// the policy does and the noise of [`Erase::Noise`](super::Erase::Noise)
    /// are drawn when they are carried out.
    ///
    /// ```
    /// use ddas_runtime::{Action, Recipe};
    ///
    /// let recipe = Recipe::named("imagenet-eval")?;
    /// let mut actions = Vec::new();
    /// recipe.draw(0, 0, 0, (500, 375), &mut actions);
    /// let Action::Resize { width, height, .. } = actions[0] else { panic!() };
    /// assert_eq!((width, height), (341, 256));
    /// # Ok::<(), ddas_runtime::Error>(())
    /// ```
    pub fn draw(
        &self,
        seed: u64,
        epoch: u32,
        index: u64,
        (mut width, mut height): (u32, u32),
        actions: &mut Vec<Action>,
    ) {
        // No image has less, and crops divide by it.
        (width, height) = (width.max(1), height.max(1));
        let size = self.size();
        let stream = |stream| SampleRng::new(seed, epoch, index, stream);
        let mut crop_rng = stream(Stream::Crop);
        actions.clear();
        for step in self.steps() {
            match *step {
                Step::RandomResizedCrop {
                    scale,
                    ratio,
                    filter,
                    order,
                } => {
                    actions.push(Action::ResizeCrop {
                        crop: random_resized_crop(&mut crop_rng, width, height, scale, ratio),
                        filter,
                        order,
                    });
                    (width, height) = (size, size);
                }
                Step::Resize { to, filter, order } => {
                    (width, height) = resized(width, height, to);
                    actions.push(Action::Resize {
                        width,
                        height,
                        filter,
                        order,
                    });
                }
                Step::CenterCrop => {
                    actions.push(Action::Crop {
                        x: central(width, size),
                        y: central(height, size),
                        border: Border::BLACK,
                    });
                    (width, height) = (size, size);
                }
                Step::RandomCrop { padding, border } => {
                    let mut offset = |side: u32| {
                        let places = side.saturating_add(2 * padding).saturating_sub(size) + 1;
                        i64::from(crop_rng.below(places)) - i64::from(padding)
                    };
                    let (x, y) = (offset(width), offset(height));
                    actions.push(Action::Crop { x, y, border });
                    (width, height) = (size, size);
                }
                Step::Policy => actions.push(Action::Policy),
                Step::RandomFlip { probability } => {
                    if crop_rng.uniform() < probability {
                        actions.push(Action::FlipLeftRight);
                    }
                }
                Step::RandomVerticalFlip { probability } => {
                    if stream(Stream::VerticalFlip).uniform() < probability {
                        actions.push(Action::FlipTopBottom);
                    }
                }
                Step::ColorJitter(jitter) => {
                    color_jitter(&mut stream(Stream::ColorJitter), &jitter, actions);
                }
                Step::RandomGrayscale { probability } => {
                    if stream(Stream::Grayscale).uniform() < probability {
                        actions.push(Action::Grayscale);
                    }
                }
                Step::GaussianBlur { probability, sigma } => {
                    let mut rng = stream(Stream::GaussianBlur);
                    if rng.uniform() < probability {
                        actions.push(Action::Blur(rng.between(sigma[0], sigma[1])));
                    }
                }
                Step::Lighting(lighting) => {
                    let shift = lighting_shift(&mut stream(Stream::Lighting), &lighting);
                    actions.push(Action::Light(shift));
                }
                Step::Normalize(_) => {} // done while writing
                Step::Cutout { size: side, count } => {
                    for _ in 0..count {
                        let center = (crop_rng.below(size), crop_rng.below(size));
                        let hole = Hole::around(center, side, size);
                        actions.push(Action::Cut {
                            columns: [hole.columns.start, hole.columns.end],
                            rows: [hole.rows.start, hole.rows.end],
                        });
                    }
                }
                Step::RandomErasing(erasing) => {
                    let mut rng = stream(Stream::Erasing);
                    if rng.uniform() < erasing.probability {
                        for _ in 0..erasing.count {
                            if let Some((columns, rows)) = erased(&mut rng, &erasing, size) {
                                let value = erasing.value;
                                actions.push(Action::Erase {
                                    columns,
                                    rows,
                                    value,
                                });
                            }
                        }
                    }
                }
            }
        }
    }
}

/// torchvision's `Resize`: the longer side is truncated.
fn resized(width: u32, height: u32, to: ResizeTo) -> (u32, u32) {
    match to {
        ResizeTo::Exact { height, width } => (width, height),
        ResizeTo::Shorter(pixels) => {
            let longer = |long: u32, short: u32| {
                (f64::from(pixels) * f64::from(long) / f64::from(short.max(1))) as u32
            };
            if width <= height {
                (pixels, longer(height, width))
            } else {
                (longer(width, height), pixels)
            }
        }
    }
}

/// Where torchvision's `CenterCrop` of `size` pixels begins along a side: it
/// rounds halves to even, and pads a side that is too short, less on the left.
fn central(side: u32, size: u32) -> i64 {
    if side >= size {
        (f64::from(side - size) / 2.0).round_ties_even() as i64
    } else {
        -i64::from((size - side) / 2)
    }
}

/// torchvision's `ColorJitter.get_params`: a random order and a factor each.
fn color_jitter(rng: &mut SampleRng, jitter: &ColorJitter, actions: &mut Vec<Action>) {
    if rng.uniform() >= jitter.probability {
        return;
    }
    // Fisher and Yates' shuffle.
    let mut order = [0, 1, 2, 3];
    for last in (1..order.len()).rev() {
        order.swap(last, rng.below(last as u32 + 1) as usize);
    }
    // Drawn whether used or not: leaving a part out moves no other.
    let ranges = [
        jitter.brightness,
        jitter.contrast,
        jitter.saturation,
        jitter.hue,
    ];
    let factors = ranges.map(|[low, high]| rng.between(low, high));
    for part in order {
        let unchanged = if part == 3 { 0.0 } else { 1.0 };
        if ranges[part] == [unchanged; 2] {
            continue;
        }
        let factor = factors[part];
        actions.push(match part {
            0 => Action::Brightness(factor),
            1 => Action::Contrast(factor),
            2 => Action::Saturation(factor),
            _ => Action::Hue(factor),
        });
    }
}

/// What the usual `Lighting` adds to red, green and blue, in single precision.
fn lighting_shift(rng: &mut SampleRng, lighting: &Lighting) -> [f32; 3] {
    let (first, second) = normal::pair(rng);
    let (third, _) = normal::pair(rng);
    let weights: [f32; 3] = std::array::from_fn(|component| {
        let normal = [first, second, third][component];
        (lighting.std * normal) as f32 * lighting.eigenvalues[component] as f32
    });
    lighting.eigenvectors.map(|row| {
        row[0] as f32 * weights[0] + row[1] as f32 * weights[1] + row[2] as f32 * weights[2]
    })
}

/// The columns and rows of torchvision's `RandomErasing.get_params`; the share
/// of several rectangles is divided among them, as timm does.
fn erased(rng: &mut SampleRng, erasing: &RandomErasing, size: u32) -> Option<([u32; 2], [u32; 2])> {
    const ATTEMPTS: usize = 10;
    let area = f64::from(size) * f64::from(size);
    let [least, greatest] = erasing.ratio.map(f64::ln);
    for _ in 0..ATTEMPTS {
        let share = rng.between(erasing.scale[0], erasing.scale[1]);
        let target = area * share / f64::from(erasing.count);
        let aspect = rng.between(least, greatest).exp();
        let height = (target * aspect).sqrt().round_ties_even();
        let width = (target / aspect).sqrt().round_ties_even();
        if height < f64::from(size) && width < f64::from(size) {
            let (width, height) = (width as u32, height as u32);
            let y = rng.below(size - height + 1);
            let x = rng.below(size - width + 1);
            return Some(([x, x + width], [y, y + height]));
        }
    }
    None
}

/// The crop of torchvision's `RandomResizedCrop.get_params` in an image of
/// `width` x `height` pixels.
fn random_resized_crop(
    rng: &mut SampleRng,
    width: u32,
    height: u32,
    scale: [f64; 2],
    ratio: [f64; 2],
) -> Rect {
    const ATTEMPTS: usize = 10;
    let area = f64::from(width) * f64::from(height);
    for _ in 0..ATTEMPTS {
        let target_area = area * rng.between(scale[0], scale[1]);
        let aspect = rng.between(ratio[0].ln(), ratio[1].ln()).exp();
        // Python's round: halves go to the even neighbour.
        let crop_width = (target_area * aspect).sqrt().round_ties_even();
        let crop_height = (target_area / aspect).sqrt().round_ties_even();
        let fits = |side: f64, bound: u32| side > 0.0 && side <= f64::from(bound);
        if fits(crop_width, width) && fits(crop_height, height) {
            let (crop_width, crop_height) = (crop_width as u32, crop_height as u32);
            let y = rng.below(height - crop_height + 1);
            let x = rng.below(width - crop_width + 1);
            return Rect {
                x,
                y,
                width: crop_width,
                height: crop_height,
            };
        }
    }
    // A central crop, as near to the allowed ratios as the image permits.
    let image_ratio = f64::from(width) / f64::from(height);
    let side = |exact: f64, bound: u32| (exact.round_ties_even() as u32).clamp(1, bound);
    let (crop_width, crop_height) = if image_ratio < ratio[0] {
        (width, side(f64::from(width) / ratio[0], height))
    } else if image_ratio > ratio[1] {
        (side(f64::from(height) * ratio[1], width), height)
    } else {
        (width, height)
    };
    Rect {
        x: (width - crop_width) / 2,
        y: (height - crop_height) / 2,
        width: crop_width,
        height: crop_height,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn resized_crops_cover_the_allowed_areas_and_ratios() {
        let (width, height) = (500u32, 375u32);
        let (mut smallest, mut largest) = (f64::MAX, 0.0f64);
        let (mut narrowest, mut widest) = (f64::MAX, 0.0f64);
        let mut sum = 0.0;
        const SAMPLES: u64 = 60_000;
        for index in 0..SAMPLES {
            let mut rng = SampleRng::new(1, 0, index, Stream::Crop);
            let crop = random_resized_crop(&mut rng, width, height, [0.08, 1.0], [0.75, 4.0 / 3.0]);
            assert!(crop.x + crop.width <= width && crop.y + crop.height <= height);
            let area = f64::from(crop.width) * f64::from(crop.height)
                / (f64::from(width) * f64::from(height));
            let ratio = f64::from(crop.width) / f64::from(crop.height);
            (smallest, largest) = (smallest.min(area), largest.max(area));
            (narrowest, widest) = (narrowest.min(ratio), widest.max(ratio));
            sum += area;
        }
        assert!(smallest > 0.079 && smallest < 0.09, "{smallest}");
        assert!(largest > 0.9 && largest <= 1.0, "{largest}");
        assert!(narrowest > 0.74 && narrowest < 0.76, "{narrowest}");
        assert!(widest > 1.32 && widest < 1.345, "{widest}");
        // torchvision's own rule gave a mean of 0.4341 over 60,000 draws; both
        // means have a standard deviation of about 0.0009.
        let mean = sum / SAMPLES as f64;
        assert!((mean - 0.4341).abs() < 0.005, "{mean}");
    }

    /// Images no attempt fits: torchvision's fallback, computed by hand.
    #[test]
    fn extreme_images_get_the_central_crop() {
        let whole = [1.0, 1.0];
        let ratio = [0.75, 4.0 / 3.0];
        let mut rng = SampleRng::new(1, 0, 0, Stream::Crop);
        let mut crop = |width, height| random_resized_crop(&mut rng, width, height, whole, ratio);
        let rect = |x, y, width, height| Rect {
            x,
            y,
            width,
            height,
        };
        assert_eq!(crop(1000, 30), rect(480, 0, 40, 30));
        assert_eq!(crop(30, 1000), rect(0, 480, 30, 40));
        assert_eq!(crop(1, 1), rect(0, 0, 1, 1));
    }
}
