//! The pass that transforms products back and writes images.

#![expect(
    clippy::needless_range_loop,
    reason = "rows of columns are columns of rows"
)]

use std::ops::Range;

use super::format::{Format, Full};
use super::lanes::{LANES, Lanes, Pass};
use super::points::{self, POINTS, TILE};
use super::tiling::{Layout, Tiling};

/// What becomes of each output before it is stored, and what is summed.
pub(super) trait Finish: Copy {
    type Finisher<L: Lanes>: Finisher<L>;

    /// For 16 channels from `channel` on.
    ///
    /// # Safety
    ///
    /// The machine has the instructions of `L`, and there are these channels.
    unsafe fn finisher<L: Lanes>(&self, channel: usize) -> Self::Finisher<L>;
}

/// Finishes 16 channels of pixels.
pub(super) trait Finisher<L: Lanes>: Copy {
    /// The value to store, and what it adds to the second sum.
    ///
    /// # Safety
    ///
    /// As for [`Finish::finisher`]; there is a pixel at `offset`.
    unsafe fn finish(&self, value: L, offset: usize) -> (L, L);
}

/// The value itself; sums of it and its square.
#[derive(Clone, Copy)]
pub(super) struct Squared;

impl Finish for Squared {
    type Finisher<L: Lanes> = Squared;

    #[inline(always)]
    unsafe fn finisher<L: Lanes>(&self, _: usize) -> Squared {
        Squared
    }
}

impl<L: Lanes> Finisher<L> for Squared {
    #[inline(always)]
    unsafe fn finish(&self, value: L, _: usize) -> (L, L) {
        // SAFETY: as the caller promised, here and below.
        (value, unsafe { value.mul(value) })
    }
}

/// With what lies at the same place of another image added; sums of it and its
/// square.
#[derive(Clone, Copy)]
pub(super) struct Added(pub(super) *const f32);

impl Finish for Added {
    type Finisher<L: Lanes> = Added;

    #[inline(always)]
    unsafe fn finisher<L: Lanes>(&self, channel: usize) -> Added {
        // SAFETY: as the caller promised.
        unsafe { Added(self.0.add(channel)) }
    }
}

impl<L: Lanes> Finisher<L> for Added {
    #[inline(always)]
    unsafe fn finish(&self, value: L, offset: usize) -> (L, L) {
        // SAFETY: as the caller promised.
        unsafe {
            let value = value.add(L::load(self.0.add(offset)));
            (value, value.mul(value))
        }
    }
}

/// Where `scale` x + `shift` is above 0, else 0; sums of it and of it times
/// (x - `mean`) `rstd`.
#[derive(Clone, Copy)]
pub(super) struct Masked {
    pub(super) x: *const f32,
    pub(super) scale: *const f32,
    pub(super) shift: *const f32,
    pub(super) mean: *const f32,
    pub(super) rstd: *const f32,
}

#[derive(Clone, Copy)]
pub(super) struct MaskedFinisher<L> {
    x: *const f32,
    scale: L,
    shift: L,
    mean: L,
    rstd: L,
}

impl Finish for Masked {
    type Finisher<L: Lanes> = MaskedFinisher<L>;

    #[inline(always)]
    unsafe fn finisher<L: Lanes>(&self, channel: usize) -> MaskedFinisher<L> {
        // SAFETY: as the caller promised.
        unsafe {
            MaskedFinisher {
                x: self.x.add(channel),
                scale: L::load(self.scale.add(channel)),
                shift: L::load(self.shift.add(channel)),
                mean: L::load(self.mean.add(channel)),
                rstd: L::load(self.rstd.add(channel)),
            }
        }
    }
}

impl<L: Lanes> Finisher<L> for MaskedFinisher<L> {
    #[inline(always)]
    unsafe fn finish(&self, value: L, offset: usize) -> (L, L) {
        // SAFETY: as the caller promised.
        unsafe {
            let x = L::load(self.x.add(offset));
            let value = value.where_positive(x.mul_add(self.scale, self.shift));
            (value, value.mul(x.sub(self.mean).mul(self.rstd)))
        }
    }
}

/// Transforms the products of tiles to their 4 x 4 outputs.
pub(super) struct Outputs<F> {
    pub(super) finish: F,
    pub(super) channels: usize,
    pub(super) tiling: Tiling,
    pub(super) tiles: Range<usize>,
    /// The products.
    pub(super) from: *const f32,
    pub(super) layout: Layout,
    /// All images; the pixels of the tiles are written.
    pub(super) to: *mut f32,
    /// Store past the caches; `to` is at a multiple of 64 bytes.
    pub(super) stream: bool,
    /// Takes the first and then the second sums of the channels.
    pub(super) sums: *mut f32,
}

impl<F: Finish> Pass for Outputs<F> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Outputs {
            finish,
            channels,
            tiling,
            tiles,
            from,
            layout,
            to,
            stream,
            sums,
        } = self;
        // SAFETY: the caller's promises; pixels are written only inside images.
        unsafe {
            let zero = L::splat(0.0);
            for channel in (0..channels).step_by(LANES) {
                let finisher = finish.finisher::<L>(channel);
                let mut from = from.add(<Full as Format<L>>::place(&layout, 0, channel));
                let mut totals = [zero; 2];
                for run in tiling.runs(tiles.clone(), 1) {
                    let mut transformed = [[zero; TILE]; POINTS];
                    for (column, transformed) in transformed.iter_mut().enumerate() {
                        *transformed = points::output(std::array::from_fn(|row| {
                            L::load(from.add((row * POINTS + column) * layout.product))
                        }));
                    }
                    let rows = TILE.min(tiling.height - run.y);
                    let columns = TILE.min(tiling.width - run.x);
                    let first = (run.image + run.y * tiling.width + run.x) * channels;
                    for row in 0..TILE {
                        let values = points::output(std::array::from_fn(|i| transformed[i][row]));
                        if row >= rows {
                            break;
                        }
                        for (column, value) in values.into_iter().enumerate() {
                            if column >= columns {
                                break;
                            }
                            let offset = first + (row * tiling.width + column) * channels;
                            let (value, second) = finisher.finish(value, offset);
                            totals = [totals[0].add(value), totals[1].add(second)];
                            let to = to.add(offset + channel);
                            if stream {
                                value.stream(to);
                            } else {
                                value.store(to);
                            }
                        }
                    }
                    from = from.add(layout.tile);
                }
                totals[0].store(sums.add(channel));
                totals[1].store(sums.add(channels + channel));
            }
        }
    }
}
