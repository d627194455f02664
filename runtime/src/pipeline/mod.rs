//! A recipe, a policy and an output format, ready to process samples.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use ddas_formats::{MAX_PIXELS, MAX_SIDE, Operation, Policy, Sample};

use crate::augmenter::Augmenter;
use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::kernels::Kernels;
use crate::mix::Mix;
use crate::normal::Ziggurat;
use crate::output::{Eraser, Layout, Normalization, OutputFormat, Writer};
use crate::recipe::{Action, Recipe};
use crate::resize::{Rect, Resizer};
use crate::rng::{SampleRng, Stream};
use crate::schedule::EpochSchedule;

mod finish;
mod pixels;

use pixels::Shown;

/// Turns stored samples into delivered ones.
///
/// What comes out depends on the sample, the policy, the recipe, the seed, the
/// epoch and the index, and on nothing else: threads share a pipeline, and
/// each brings its own [`PipelineScratch`].
///
/// ```
/// use ddas_formats::{Encoding, Sample};
/// use ddas_runtime::{Dtype, Layout, OutputFormat, Pipeline, PipelineScratch, Recipe};
///
/// let output = OutputFormat { dtype: Dtype::F32, layout: Layout::Nchw };
/// let pipeline = Pipeline::new(Recipe::named("cifar")?, None, 200, 0, output)?;
/// assert_eq!(pipeline.sample_shape(), [3, 32, 32]);
///
/// let pixels = vec![128; 32 * 32 * 3];
/// let sample = Sample { label: 3, encoding: Encoding::Raw, width: 32, height: 32, payload: &pixels, index: &[] };
/// let mut scratch = PipelineScratch::default(); // one per thread, reused
/// let mut place = vec![0; pipeline.sample_bytes()];
/// pipeline.process(&mut scratch, &sample, 0, 41, &mut place)?;
/// # Ok::<(), ddas_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct Pipeline {
    recipe: Recipe,
    schedule: Option<EpochSchedule>,
    epochs: u32,
    seed: u64,
    output: OutputFormat,
    writer: Writer,
    eraser: Eraser,
    normal: Ziggurat,
    mix: Option<Mix>,
}

/// The memory one thread works in; nothing is allocated once it has grown to
/// the size of the samples (PNG apart, whose decoder allocates for itself).
#[derive(Debug, Default)]
pub struct PipelineScratch {
    decoder: Decoder,
    resizer: Resizer,
    augmenter: Augmenter,
    kernels: Kernels,
    image: Image,
    target: Image,
    actions: Vec<Action>,
    lit: Option<finish::LitWriter>,
}

impl PipelineScratch {
    /// What the policy applied to the last sample, with resolved signs; empty
    /// when it was not augmented.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        self.augmenter.last_draw()
    }

    /// What the recipe's steps came to for the last sample.
    #[must_use]
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }
}

/// How long the stages of one sample took, or of many, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// From the stored payload to pixels.
    pub decode: Duration,
    /// Resizing crops.
    pub crop: Duration,
    /// Drawing and applying the policy's operations; the recipe's own colour
    /// jitter, grey and blur.
    pub policy: Duration,
    /// Plain crops, flips, normalising, writing, erasing.
    pub write: Duration,
}

impl StageTimes {
    /// All stages together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.decode + self.crop + self.policy + self.write
    }
}

impl AddAssign for StageTimes {
    fn add_assign(&mut self, other: Self) {
        self.decode += other.decode;
        self.crop += other.crop;
        self.policy += other.policy;
        self.write += other.write;
    }
}

impl Pipeline {
    /// A pipeline for a training run of `epochs` epochs; without a policy no
    /// sample is augmented beyond the recipe's own steps.
    ///
    /// # Errors
    /// [`Error::NoEpochs`] when `epochs` is 0, [`Error::NoPolicyStep`] for a
    /// policy with a recipe that has no place for it.
    pub fn new(
        recipe: Recipe,
        policy: Option<&Policy>,
        epochs: u32,
        seed: u64,
        output: OutputFormat,
    ) -> Result<Self> {
        if epochs == 0 {
            return Err(Error::NoEpochs);
        }
        if policy.is_some() && !recipe.takes_policy() {
            return Err(Error::NoPolicyStep {
                recipe: recipe.name().to_owned(),
            });
        }
        let schedule = policy
            .map(|policy| EpochSchedule::new(policy, epochs))
            .transpose()?;
        let (normalization, size) = (recipe.normalization(), recipe.size());
        Ok(Self {
            schedule,
            epochs,
            seed,
            output,
            writer: Writer::new(output, &normalization, size),
            eraser: Eraser::new(output, &normalization, size),
            normal: Ziggurat::new(),
            mix: recipe.mix().copied(),
            recipe,
        })
    }

    /// The same pipeline for batches that are mixed by `mix`, whatever the recipe says. Mixing is up to whoever puts
    /// samples together to batches: [`Mix::draw`] and [`Blend::apply`](crate::Blend::apply) on finished neighbours.
    ///
    /// # Errors
    /// As [`Mix::check`].
    pub fn mixing(self, mix: Mix) -> Result<Self> {
        mix.check()?;
        Ok(Self {
            mix: Some(mix),
            ..self
        })
    }

    /// How batches are to be mixed, if they are.
    #[must_use]
    pub fn mix(&self) -> Option<&Mix> {
        self.mix.as_ref()
    }

    /// Sizes of a delivered sample's axes, in the order of the layout.
    #[must_use]
    pub fn sample_shape(&self) -> [usize; 3] {
        let size = self.recipe.size() as usize;
        match self.output.layout {
            Layout::Nchw => [Image::CHANNELS, size, size],
            Layout::Nhwc => [size, size, Image::CHANNELS],
        }
    }

    /// Bytes of a delivered sample.
    #[must_use]
    pub fn sample_bytes(&self) -> usize {
        self.sample_shape().iter().product::<usize>() * self.output.dtype.size()
    }

    /// What the values were normalised with (for `u8`, what to normalise with).
    #[must_use]
    pub fn normalization(&self) -> Normalization {
        self.recipe.normalization()
    }

    /// The steps samples go through.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The schedule of the policy, if there is one.
    #[must_use]
    pub fn schedule(&self) -> Option<&EpochSchedule> {
        self.schedule.as_ref()
    }

    /// Length of the training run.
    #[must_use]
    pub fn epochs(&self) -> u32 {
        self.epochs
    }

    /// The seed of every random choice.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Type and layout of a delivered sample.
    #[must_use]
    pub fn output(&self) -> OutputFormat {
        self.output
    }

    /// Processes sample `index` for `epoch` (both from 0) into `out`, which
    /// holds [`Pipeline::sample_bytes`] bytes; values lie there in the
    /// machine's byte order.
    ///
    /// # Errors
    /// [`Error::Sample`] naming the index, around [`Error::SampleSize`],
    /// [`Error::Decode`], [`Error::DecodedSize`], [`Error::DecodeLimit`] or
    /// [`Error::OutputBytes`]. The contents of `out` are then unspecified.
    pub fn process(
        &self,
        scratch: &mut PipelineScratch,
        sample: &Sample<'_>,
        epoch: u32,
        index: u64,
        out: &mut [u8],
    ) -> Result<StageTimes> {
        self.run(scratch, sample, epoch, index, out)
            .map_err(|error| Error::Sample {
                index,
                cause: Box::new(error),
            })
    }

    fn run(
        &self,
        scratch: &mut PipelineScratch,
        sample: &Sample<'_>,
        epoch: u32,
        index: u64,
        out: &mut [u8],
    ) -> Result<StageTimes> {
        self.check(scratch, sample, out)?;
        let mut times = StageTimes::default();
        let mut clock = Clock::start();
        let (width, height) = (sample.width, sample.height);
        let mut actions = std::mem::take(&mut scratch.actions);
        self.recipe
            .draw(self.seed, epoch, index, (width, height), &mut actions);
        check_resize(&actions, (width, height))?;
        // Where a random resized crop is coming, only its pixels are decoded.
        let region = match actions.first() {
            Some(Action::ResizeCrop { crop, .. }) => *crop,
            _ => Rect {
                x: 0,
                y: 0,
                width,
                height,
            },
        };
        let within = scratch
            .decoder
            .decode_sample(sample, region, &mut scratch.image)?;
        times.decode = clock.lap();

        let mut shown = Shown::new(self.recipe.size(), (width, height));
        let mut finishing = actions.len();
        for (position, action) in actions.iter().enumerate() {
            match *action {
                Action::ResizeCrop { filter, order, .. } => {
                    scratch.resize(within, shown.size(), filter, order)?;
                    shown.resized(shown.size());
                    times.crop += clock.lap();
                }
                Action::Resize {
                    width,
                    height,
                    filter,
                    order,
                } => {
                    scratch.resize(within, (width, height), filter, order)?;
                    shown.resized((width, height));
                    times.crop += clock.lap();
                }
                Action::Policy => {
                    if let Some(schedule) = &self.schedule {
                        let mut rng = SampleRng::new(self.seed, epoch, index, Stream::Policy);
                        if scratch.augmenter.draw(schedule.sampler(epoch), &mut rng) {
                            scratch.settle(&mut shown);
                            scratch
                                .augmenter
                                .apply_last_draw(&mut rng, &mut scratch.image);
                        }
                        times.policy += clock.lap();
                    }
                }
                Action::Crop { x, y, border } => scratch.crop(&mut shown, (x, y), border),
                Action::FlipLeftRight => scratch.flip_left_right(&mut shown),
                Action::FlipTopBottom => scratch.flip_top_bottom(&mut shown),
                Action::Brightness(_)
                | Action::Contrast(_)
                | Action::Saturation(_)
                | Action::Hue(_)
                | Action::Grayscale
                | Action::Blur(_) => {
                    scratch.settle(&mut shown);
                    scratch.recolour(action);
                    times.policy += clock.lap();
                }
                Action::Light(_) | Action::Cut { .. } | Action::Erase { .. } => {
                    finishing = position;
                    break;
                }
            }
        }
        let noise = SampleRng::new(self.seed, epoch, index, Stream::ErasingNoise);
        self.finish(scratch, &shown, &actions[finishing..], noise, out);
        scratch.actions = actions;
        times.write = clock.lap();
        Ok(times)
    }

    fn check(&self, scratch: &PipelineScratch, sample: &Sample<'_>, out: &[u8]) -> Result<()> {
        if out.len() != self.sample_bytes() {
            return Err(Error::OutputBytes {
                expected: self.sample_bytes(),
                found: out.len(),
            });
        }
        scratch
            .decoder
            .check(sample.width, sample.height, sample.payload)?;
        match self.recipe.sample_size() {
            Some(expected) if (sample.width, sample.height) != (expected, expected) => {
                Err(Error::SampleSize {
                    recipe: self.recipe.name().to_owned(),
                    expected,
                    found: (sample.width, sample.height),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a resize of the whole image beyond what a decoder may make.
fn check_resize(actions: &[Action], (width, height): (u32, u32)) -> Result<()> {
    match actions.first() {
        Some(&Action::Resize {
            width: to_width,
            height: to_height,
            ..
        }) if to_width.max(to_height) > MAX_SIDE
            || u64::from(to_width) * u64::from(to_height) > MAX_PIXELS =>
        {
            Err(Error::ResizedSize {
                from: (width, height),
                to: (to_width, to_height),
            })
        }
        _ => Ok(()),
    }
}

/// Time since the last look at it.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Clock(Instant::now())
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.0;
        self.0 = now;
        lap
    }
}
