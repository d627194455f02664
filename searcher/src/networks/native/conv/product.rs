//! Products of small matrices: most of the work.

use super::format::{Format, Full, PairsOfRows};
use super::lanes::{Block, LANES, Lanes, Narrow, NarrowPass, Pass, prefetch};
use super::tiling::PANEL;

/// Rows of the left matrix come in multiples of this.
pub(super) const ROWS: usize = 8;

/// `products` products of matrices: `c = a b`, or `c += a b`.
///
/// The right matrices and the results are cut into panels of 32 columns, the
/// last perhaps of 16; rows of a panel are [`PANEL`] numbers apart.
pub(super) struct Products {
    pub(super) products: usize,
    /// Rows of `a` and `c`, columns of `a` and rows of `b` (pairs of them in
    /// bf16), columns of `b`.
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
    pub(super) a: Left,
    pub(super) b: *const f32,
    pub(super) b_product: usize,
    pub(super) b_panel: usize,
    pub(super) c: *mut f32,
    pub(super) c_product: usize,
    pub(super) c_panel: usize,
    /// Add to `c`.
    pub(super) accumulate: bool,
    /// What the passes after this one read from memory or write to it: it is
    /// fetched while the products are computed.
    pub(super) ahead: [Ahead; AHEAD],
}

/// Most images that the next passes read or write.
pub(super) const AHEAD: usize = 4;

/// Numbers to fetch.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) from: *const f32,
    pub(super) length: usize,
}

impl Ahead {
    /// Nothing.
    pub(super) const NONE: Ahead = Ahead {
        from: std::ptr::null(),
        length: 0,
    };
}

/// The left matrices: distances are those from a number to that of the next
/// product, of the 32nd next row, of the next row and of the next column.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub(super) from: *const f32,
    pub(super) product: usize,
    pub(super) panel: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl Pass for Products {
    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        // SAFETY: as the caller promised.
        unsafe { self.compute::<L, Full>() }
    }
}

/// Of pairs of bf16.
impl NarrowPass for Products {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: as the caller promised.
        unsafe { self.compute::<Narrow, PairsOfRows>() }
    }
}

impl Products {
    #[inline(always)]
    unsafe fn compute<L: Lanes, F: Format<L>>(self) {
        debug_assert!(self.rows.is_multiple_of(ROWS) && self.columns.is_multiple_of(LANES));
        // SAFETY: the caller's promises.
        unsafe {
            let panels = self.columns.div_ceil(PANEL);
            let blocks = self.products * panels * (self.rows / ROWS);
            let shares = self.ahead.map(|ahead| ahead.length.div_ceil(blocks));
            let mut done = 0;
            for product in 0..self.products {
                for panel in 0..panels {
                    let b = self.b.add(product * self.b_product + panel * self.b_panel);
                    let c = self.c.add(product * self.c_product + panel * self.c_panel);
                    let vectors = (self.columns - panel * PANEL).min(PANEL) / LANES;
                    let next = if panel + 1 < panels {
                        b.wrapping_add(self.b_panel)
                    } else {
                        self.b.wrapping_add((product + 1) * self.b_product)
                    };
                    for row in (0..self.rows).step_by(ROWS) {
                        // A block fetches one half of it, the next block the other.
                        let half = row / ROWS % 2 * self.inner * LANES;
                        let next = next.wrapping_add(half);
                        for (ahead, share) in self.ahead.iter().zip(shares) {
                            let from = ahead.from.wrapping_add(done * share);
                            for line in (0..share).step_by(LANES) {
                                prefetch(from.wrapping_add(line));
                            }
                        }
                        done += 1;
                        let offset = row / PANEL * self.a.panel + row % PANEL * self.a.row;
                        let a = self.a.from.add(product * self.a.product + offset);
                        let c = c.add(row * PANEL);
                        match (L::BLOCK, vectors) {
                            (Block::Wide, 2) => self.block::<L, F, 8, 2>(a, b, c, next),
                            (Block::Wide, _) => self.block::<L, F, 8, 1>(a, b, c, next),
                            (Block::Narrow, _) => self.blocks::<L, F, 4>(vectors, a, b, c),
                            (Block::Least, _) => self.blocks::<L, F, 2>(vectors, a, b, c),
                        }
                    }
                }
            }
        }
    }

    /// [`ROWS`] rows, as many at a time as the registers hold.
    #[inline(always)]
    unsafe fn blocks<L: Lanes, F: Format<L>, const R: usize>(
        &self,
        vectors: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
    ) {
        for row in (0..ROWS).step_by(R) {
            for vector in 0..vectors {
                // SAFETY: the caller's promises.
                unsafe {
                    let a = a.add(row * self.a.row);
                    let b = b.add(vector * LANES);
                    let c = c.add(row * PANEL + vector * LANES);
                    self.block::<L, F, R, 1>(a, b, c, b);
                }
            }
        }
    }

    /// `R` rows of `N` vectors of `c`. The widest block fetches what lies at
    /// `next`, a line for each row of `b`: the right matrices of many channels
    /// come from the third cache otherwise.
    #[inline(always)]
    unsafe fn block<L: Lanes, F: Format<L>, const R: usize, const N: usize>(
        &self,
        mut a: *const f32,
        mut b: *const f32,
        c: *mut f32,
        mut next: *const f32,
    ) {
        // SAFETY: the caller's promises.
        unsafe {
            let mut sums = [[L::splat(0.0); N]; R];
            if self.accumulate {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        *sum = L::load(c.add(row * PANEL + vector * LANES));
                    }
                }
            }
            for _ in 0..self.inner {
                let right: [L; N] = std::array::from_fn(|vector| L::load(b.add(vector * LANES)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let left = L::splat(*a.add(row * self.a.row));
                    for (sum, right) in sums.iter_mut().zip(right) {
                        *sum = F::multiply_add(left, right, *sum);
                    }
                }
                if R == ROWS && N == 2 {
                    prefetch(next);
                    next = next.wrapping_add(LANES);
                }
                a = a.add(self.a.column);
                b = b.add(PANEL);
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    sum.store(c.add(row * PANEL + vector * LANES));
                }
            }
        }
    }
}
