//! A recipe, a policy and an output format, ready to process samples.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use ddas_formats::{Operation, Policy, Sample};

use crate::augmenter::Augmenter;
use crate::decode::Decoder;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::mix::Mix;
use crate::output::{Hole, Layout, Normalization, OutputFormat, View, Writer};
use crate::recipe::{Recipe, Step, random_resized_crop};
use crate::resize::{Rect, Resizer};
use crate::rng::{SampleRng, Stream};
use crate::schedule::EpochSchedule;

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
/// let sample = Sample { label: 3, encoding: Encoding::Raw, width: 32, height: 32, payload: &pixels };
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
    mix: Option<Mix>,
}

/// The memory one thread works in; nothing is allocated once it has grown to
/// the size of the samples (PNG apart, whose decoder allocates for itself).
#[derive(Debug, Default)]
pub struct PipelineScratch {
    decoder: Decoder,
    resizer: Resizer,
    augmenter: Augmenter,
    image: Image,
    target: Image,
}

impl PipelineScratch {
    /// What the policy applied to the last sample, with resolved signs; empty
    /// when it was not augmented.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        self.augmenter.last_draw()
    }

    /// Replaces the image by what `view` shows of it.
    fn render(&mut self, view: &View) {
        view.render(&self.image, &mut self.target);
        std::mem::swap(&mut self.image, &mut self.target);
    }
}

/// How long the stages of one sample took, or of many, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// From the stored payload to pixels.
    pub decode: Duration,
    /// Resizing crops.
    pub crop: Duration,
    /// Drawing and applying the policy's operations.
    pub policy: Duration,
    /// Plain crops, flips, normalising and writing.
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
        let writer = Writer::new(output, &recipe.normalization(), recipe.size());
        Ok(Self {
            recipe,
            schedule,
            epochs,
            seed,
            output,
            writer,
            mix: None,
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
        let mut rng = SampleRng::new(self.seed, epoch, index, Stream::Crop);
        // Where a random resized crop is coming, only its pixels are decoded.
        let region = match *self.recipe.steps() {
            [Step::RandomResizedCrop { scale, ratio, .. }, ..] => {
                random_resized_crop(&mut rng, width, height, scale, ratio)
            }
            _ => Rect {
                x: 0,
                y: 0,
                width,
                height,
            },
        };
        let crop = scratch.decoder.decode_region(
            sample.encoding,
            width,
            height,
            sample.payload,
            region,
            &mut scratch.image,
        )?;
        times.decode = clock.lap();

        let size = self.recipe.size();
        // Crops and flips are only noted; the writer reads through the view.
        let mut view = View::new(size);
        let mut hole = None;
        for step in self.recipe.steps() {
            match *step {
                Step::RandomResizedCrop { filter, order, .. } => {
                    let PipelineScratch {
                        resizer,
                        image,
                        target,
                        ..
                    } = scratch;
                    resizer.resize_crop(image, crop, (size, size), filter, order, target)?;
                    std::mem::swap(image, target);
                    times.crop = clock.lap();
                }
                Step::Policy => {
                    if let Some(schedule) = &self.schedule {
                        let mut rng = SampleRng::new(self.seed, epoch, index, Stream::Policy);
                        if scratch.augmenter.draw(schedule.sampler(epoch), &mut rng) {
                            if !view.is_plain() {
                                scratch.render(&view);
                                view = View::new(size);
                            }
                            scratch
                                .augmenter
                                .apply_last_draw(&mut rng, &mut scratch.image);
                        }
                        times.policy = clock.lap();
                    }
                }
                Step::RandomCrop { padding } => {
                    let mut offset = || i64::from(rng.below(2 * padding + 1)) - i64::from(padding);
                    let (x, y) = (offset(), offset());
                    view.shift(x, y);
                }
                Step::RandomFlip { probability } => {
                    if rng.uniform() < probability {
                        view.flip();
                    }
                }
                Step::Normalize(_) => {} // done by the writer
                Step::Cutout { size: side } => {
                    let center = (rng.below(size), rng.below(size));
                    hole = Some(Hole::around(center, side, size));
                }
            }
        }
        self.writer.write(&scratch.image, &view, hole.as_ref(), out);
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
