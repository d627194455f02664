//! How images are cut into tiles, and where the products of a tile lie.

use std::ops::Range;

use super::lanes::LANES;
use super::points::TILE;

/// Channels of a panel: the width of the block of a product that the widest
/// registers hold.
pub(super) const PANEL: usize = 2 * LANES;

/// The images of a call, cut into tiles of 4 x 4 pixels, the last of a row or a
/// column cut short; tiles count through rows, columns of tiles and images.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    pub(super) height: usize,
    pub(super) width: usize,
    rows: usize,
    columns: usize,
}

/// Tiles side by side.
#[derive(Clone, Copy)]
pub(super) struct Run {
    /// Pixel at the upper left of the image, counted through all images.
    pub(super) image: usize,
    /// Place of the upper left of the first tile in the image.
    pub(super) y: usize,
    pub(super) x: usize,
    /// How many.
    pub(super) tiles: usize,
}

impl Tiling {
    pub(super) fn new(height: usize, width: usize) -> Tiling {
        Tiling {
            height,
            width,
            rows: height.div_ceil(TILE),
            columns: width.div_ceil(TILE),
        }
    }

    /// Tiles of an image.
    pub(super) fn per_image(&self) -> usize {
        self.rows * self.columns
    }

    /// About the pixels of the tiles.
    pub(super) fn pixels(&self, tiles: Range<usize>) -> Range<usize> {
        let pixel = |tile: usize| {
            let (image, tile) = (tile / self.per_image(), tile % self.per_image());
            let row = (tile / self.columns * TILE).min(self.height);
            (image * self.height + row) * self.width
        };
        pixel(tiles.start)..pixel(tiles.end)
    }

    /// The tiles in runs of at most `longest`.
    #[inline(always)]
    pub(super) fn runs(&self, tiles: Range<usize>, longest: usize) -> impl Iterator<Item = Run> {
        let Tiling {
            height,
            width,
            columns,
            ..
        } = *self;
        let per_image = self.per_image();
        let mut next = tiles.start;
        std::iter::from_fn(move || {
            (next < tiles.end).then(|| {
                let (image, tile) = (next / per_image, next % per_image);
                let (row, column) = (tile / columns, tile % columns);
                let run = Run {
                    image: image * height * width,
                    y: row * TILE,
                    x: column * TILE,
                    tiles: longest.min(columns - column).min(tiles.end - next),
                };
                next += run.tiles;
                run
            })
        })
    }
}

/// Where vectors of channels lie in the scratch memory of a block of tiles:
/// all distances in numbers.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// From a product of a tile to the next of the same tile.
    pub(super) product: usize,
    /// From a panel of channels to the next.
    pub(super) panel: usize,
    /// From a tile to the next.
    pub(super) tile: usize,
}

/// The distance of products is no multiple of 4 KiB: the 36 of a tile are
/// written at once and would all compete for the same lines of the cache.
const APART: usize = LANES;

impl Layout {
    /// The channels of a tile side by side: a tile is a row of a matrix.
    pub(super) fn rows(tiles: usize, channels: usize) -> Layout {
        Layout {
            product: tiles * channels + APART,
            panel: PANEL,
            tile: channels,
        }
    }

    /// The tiles of a panel side by side: a panel is read through all tiles.
    pub(super) fn panels(tiles: usize, channels: usize) -> Layout {
        let panel = tiles * PANEL;
        Layout {
            product: channels.div_ceil(PANEL) * panel + APART,
            panel,
            tile: PANEL,
        }
    }

    /// Matrices of so many rows of a panel one after another.
    pub(super) fn filters(rows: usize) -> Layout {
        Layout {
            product: rows * PANEL,
            panel: 0,
            tile: PANEL,
        }
    }
}
