//! The passes that read images and transform their tiles.

#![expect(
    clippy::needless_range_loop,
    reason = "rows of columns are columns of rows"
)]

use std::marker::PhantomData;
use std::ops::Range;

use super::format::{Format, Rounding, Single};
use super::lanes::{LANES, Lanes, Narrow, NarrowPass, Pass};
use super::points::{self, POINTS, TILE};
use super::tiling::{Layout, Tiling};

/// Tiles side by side of which the transformed columns wait in `strip`.
const LONGEST: usize = 8;
/// Columns of pixels of so many tiles, with those around them.
const STRIP: usize = LONGEST * TILE + 2;

/// Images, read as they are or through an affine map.
pub(super) trait Source: Copy {
    type Reader<L: Lanes>: Reader<L>;

    /// For 16 channels from `channel` on.
    ///
    /// # Safety
    ///
    /// The machine has the instructions of `L`, and there are these channels.
    unsafe fn reader<L: Lanes>(&self, channel: usize) -> Self::Reader<L>;
}

/// Reads 16 channels of pixels.
pub(super) trait Reader<L: Lanes>: Copy {
    /// Those of the pixel whose first channel is at `offset`.
    ///
    /// # Safety
    ///
    /// As for [`Source::reader`]; there is this pixel.
    unsafe fn read(&self, offset: usize) -> L;
}

/// `x`.
#[derive(Clone, Copy)]
pub(super) struct Plain(pub(super) *const f32);

/// relu(`scale` x + `shift`).
#[derive(Clone, Copy)]
pub(super) struct Activated {
    pub(super) x: *const f32,
    pub(super) scale: *const f32,
    pub(super) shift: *const f32,
}

/// `a` da + `b` y + `c`.
#[derive(Clone, Copy)]
pub(super) struct Combined {
    pub(super) da: *const f32,
    pub(super) y: *const f32,
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    pub(super) c: *const f32,
}

impl Source for Plain {
    type Reader<L: Lanes> = Plain;

    #[inline(always)]
    unsafe fn reader<L: Lanes>(&self, channel: usize) -> Plain {
        // SAFETY: as the caller promised, here and below.
        unsafe { Plain(self.0.add(channel)) }
    }
}

impl<L: Lanes> Reader<L> for Plain {
    #[inline(always)]
    unsafe fn read(&self, offset: usize) -> L {
        // SAFETY: as the caller promised.
        unsafe { L::load(self.0.add(offset)) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct ActivatedReader<L> {
    x: *const f32,
    scale: L,
    shift: L,
}

impl Source for Activated {
    type Reader<L: Lanes> = ActivatedReader<L>;

    #[inline(always)]
    unsafe fn reader<L: Lanes>(&self, channel: usize) -> ActivatedReader<L> {
        // SAFETY: as the caller promised.
        unsafe {
            ActivatedReader {
                x: self.x.add(channel),
                scale: L::load(self.scale.add(channel)),
                shift: L::load(self.shift.add(channel)),
            }
        }
    }
}

impl<L: Lanes> Reader<L> for ActivatedReader<L> {
    #[inline(always)]
    unsafe fn read(&self, offset: usize) -> L {
        // SAFETY: as the caller promised.
        unsafe {
            L::load(self.x.add(offset))
                .mul_add(self.scale, self.shift)
                .relu()
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct CombinedReader<L> {
    da: *const f32,
    y: *const f32,
    a: L,
    b: L,
    c: L,
}

impl Source for Combined {
    type Reader<L: Lanes> = CombinedReader<L>;

    #[inline(always)]
    unsafe fn reader<L: Lanes>(&self, channel: usize) -> CombinedReader<L> {
        // SAFETY: as the caller promised.
        unsafe {
            CombinedReader {
                da: self.da.add(channel),
                y: self.y.add(channel),
                a: L::load(self.a.add(channel)),
                b: L::load(self.b.add(channel)),
                c: L::load(self.c.add(channel)),
            }
        }
    }
}

impl<L: Lanes> Reader<L> for CombinedReader<L> {
    #[inline(always)]
    unsafe fn read(&self, offset: usize) -> L {
        // SAFETY: as the caller promised.
        unsafe {
            let y = L::load(self.y.add(offset)).mul_add(self.b, self.c);
            L::load(self.da.add(offset)).mul_add(self.a, y)
        }
    }
}

/// Transforms the 6 x 6 pixels that each tile's outputs depend on. What lies
/// outside the image counts as 0.
pub(super) struct Inputs<S, F> {
    pub(super) source: S,
    pub(super) channels: usize,
    pub(super) tiling: Tiling,
    pub(super) tiles: Range<usize>,
    /// Takes the products of the tiles.
    pub(super) to: *mut f32,
    pub(super) layout: Layout,
    pub(super) format: PhantomData<F>,
}

impl<S: Source, R: Rounding> Pass for Inputs<S, Single<R>> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller promised.
        unsafe { self.transform::<L>() }
    }
}

impl<S: Source, F: Format<Narrow>> NarrowPass for Inputs<S, F> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: as the caller promised.
        unsafe { self.transform::<Narrow>() }
    }
}

impl<S: Source, F> Inputs<S, F> {
    #[inline(always)]
    unsafe fn transform<L: Lanes>(self)
    where
        F: Format<L>,
    {
        let Inputs {
            source,
            channels,
            tiling,
            tiles,
            to,
            layout,
            ..
        } = self;
        // SAFETY: the caller's promises; pixels are read only inside images.
        unsafe {
            let zero = L::splat(0.0);
            let mut strip = [[zero; POINTS]; STRIP];
            for channel in (0..channels).step_by(LANES) {
                let reader = source.reader::<L>(channel);
                let mut done = 0;
                for run in tiling.runs(tiles.clone(), LONGEST) {
                    // Row and column `i` of a tile's pixels is `i - 1` of the tile's outputs.
                    let rows = 1usize.saturating_sub(run.y)..POINTS.min(tiling.height + 1 - run.y);
                    let from = (run.image + run.y * tiling.width + run.x) * channels;
                    let columns = run.tiles * TILE + 2;
                    for (column, strip) in strip[..columns].iter_mut().enumerate() {
                        let x = run.x + column;
                        if x == 0 || x > tiling.width {
                            *strip = [zero; POINTS];
                            continue;
                        }
                        let pixel = |row: usize| {
                            let offset = (row * tiling.width + column) * channels;
                            reader.read((from + offset).wrapping_sub((tiling.width + 1) * channels))
                        };
                        let mut pixels = [zero; POINTS];
                        if rows.len() == POINTS {
                            for (row, value) in pixels.iter_mut().enumerate() {
                                *value = pixel(row);
                            }
                        } else {
                            for (row, value) in pixels.iter_mut().enumerate() {
                                if rows.contains(&row) {
                                    *value = pixel(row);
                                }
                            }
                        }
                        *strip = points::input(pixels);
                    }
                    for tile in 0..run.tiles {
                        let strip = &strip[tile * TILE..][..POINTS];
                        let to = to.add(F::place(&layout, done, channel));
                        for row in 0..POINTS {
                            let values = points::input(std::array::from_fn(|i| strip[i][row]));
                            for (column, value) in values.into_iter().enumerate() {
                                F::keep(
                                    value,
                                    done,
                                    to.add((row * POINTS + column) * layout.product),
                                );
                            }
                        }
                        done += 1;
                    }
                }
            }
        }
    }
}

/// Transforms the gradients of the 4 x 4 outputs of each tile. Outputs that
/// the image does not have count as 0.
pub(super) struct OutputGradients<S, F> {
    pub(super) source: S,
    pub(super) channels: usize,
    pub(super) tiling: Tiling,
    pub(super) tiles: Range<usize>,
    /// Takes the products of the tiles.
    pub(super) to: *mut f32,
    pub(super) layout: Layout,
    pub(super) format: PhantomData<F>,
}

impl<S: Source, R: Rounding> Pass for OutputGradients<S, Single<R>> {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller promised.
        unsafe { self.transform::<L>() }
    }
}

impl<S: Source, F: Format<Narrow>> NarrowPass for OutputGradients<S, F> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: as the caller promised.
        unsafe { self.transform::<Narrow>() }
    }
}

impl<S: Source, F> OutputGradients<S, F> {
    #[inline(always)]
    unsafe fn transform<L: Lanes>(self)
    where
        F: Format<L>,
    {
        let OutputGradients {
            source,
            channels,
            tiling,
            tiles,
            to,
            layout,
            ..
        } = self;
        // SAFETY: the caller's promises; pixels are read only inside images.
        unsafe {
            let zero = L::splat(0.0);
            for channel in (0..channels).step_by(LANES) {
                let reader = source.reader::<L>(channel);
                for (done, run) in tiling.runs(tiles.clone(), 1).enumerate() {
                    let from = (run.image + run.y * tiling.width + run.x) * channels;
                    let rows = TILE.min(tiling.height - run.y);
                    let columns = TILE.min(tiling.width - run.x);
                    let pixel = |row: usize, column: usize| {
                        reader.read(from + (row * tiling.width + column) * channels)
                    };
                    let mut transformed = [[zero; POINTS]; TILE];
                    for (column, transformed) in transformed.iter_mut().enumerate() {
                        let pixels = if rows == TILE && columns == TILE {
                            std::array::from_fn(|row| pixel(row, column))
                        } else {
                            let inside = |row| row < rows && column < columns;
                            std::array::from_fn(|row| {
                                if inside(row) {
                                    pixel(row, column)
                                } else {
                                    zero
                                }
                            })
                        };
                        *transformed = points::output_adjoint(pixels);
                    }
                    let to = to.add(F::place(&layout, done, channel));
                    for row in 0..POINTS {
                        let values =
                            points::output_adjoint(std::array::from_fn(|i| transformed[i][row]));
                        for (column, value) in values.into_iter().enumerate() {
                            F::keep(
                                value,
                                done,
                                to.add((row * POINTS + column) * layout.product),
                            );
                        }
                    }
                }
            }
        }
    }
}
