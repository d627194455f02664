//! How operands of the products are held: in f32, or as two bf16 in the place
//! of one f32, the second the upper half.
//!
//! A product of bf16 multiplies pairs of neighbours along the inner dimension
//! and sums in f32. It halves what is multiplied and moved, at the price of 8
//! significant bits per operand. Where there are no instructions for it, operands
//! are rounded all the same and held in f32: the products are the same numbers,
//! and their sums differ by the rounding of f32.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256i, __m512, __m512bh, __m512i, _mm256_storeu_si256, _mm512_castsi512_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh, _mm512_dpbf16_ps, _mm512_loadu_si512,
    _mm512_or_si512, _mm512_slli_epi32,
};
use std::marker::PhantomData;

use super::lanes::Lanes;
#[cfg(not(target_arch = "x86_64"))]
use super::lanes::Narrow;
use super::tiling::{Layout, PANEL};

/// What operands of the products are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operands {
    /// Numbers of f32.
    Full,
    /// Rounded to bf16 and held in f32.
    Rounded,
    /// Pairs of bf16.
    Pairs,
}

impl Operands {
    /// How many lie in the place of an f32.
    pub(super) fn per_place(self) -> usize {
        match self {
            Operands::Full | Operands::Rounded => 1,
            Operands::Pairs => 2,
        }
    }
}

/// A way to hold operands.
///
/// # Safety
///
/// Every function demands that the machine has the instructions of `L`, and
/// AVX512-BF16 for the formats of bf16; there is room at the places.
pub(super) trait Format<L: Lanes> {
    /// Bytes per number.
    const BYTES: usize;
    /// Distance of 16 channels of a row or tile from the start.
    fn place(layout: &Layout, row: usize, channel: usize) -> usize;
    /// Holds the values of `row` at its place.
    unsafe fn keep(values: L, row: usize, to: *mut f32);
    /// `sum` and the products of what is held.
    unsafe fn multiply_add(left: L, right: L, sum: L) -> L;
}

/// In f32, rounded before.
#[derive(Clone, Copy)]
pub(super) struct Single<R>(PhantomData<R>);

/// In f32.
pub(super) type Full = Single<Exact>;

/// In f32 with the significant bits of bf16.
pub(super) type Rounded = Single<ToBf16>;

/// What happens to a number before it is held.
pub(super) trait Rounding {
    /// # Safety
    ///
    /// The machine has the instructions of `L`.
    unsafe fn round<L: Lanes>(values: L) -> L;
}

/// Nothing.
#[derive(Clone, Copy)]
pub(super) struct Exact;

/// Rounding to bf16.
#[derive(Clone, Copy)]
pub(super) struct ToBf16;

impl Rounding for Exact {
    #[inline(always)]
    unsafe fn round<L: Lanes>(values: L) -> L {
        values
    }
}

impl Rounding for ToBf16 {
    #[inline(always)]
    unsafe fn round<L: Lanes>(values: L) -> L {
        // SAFETY: as the caller promised.
        unsafe { values.round_to_bf16() }
    }
}

/// In bf16, neighbouring channels in pairs.
#[derive(Clone, Copy)]
pub(super) struct PairsOfChannels;

/// In bf16, neighbouring rows in pairs: an odd row is held after the even one
/// before it, and a last even row pairs with zeros.
#[derive(Clone, Copy)]
pub(super) struct PairsOfRows;

impl<L: Lanes, R: Rounding> Format<L> for Single<R> {
    const BYTES: usize = 4;

    #[inline(always)]
    fn place(layout: &Layout, row: usize, channel: usize) -> usize {
        row * layout.tile + channel / PANEL * layout.panel + channel % PANEL
    }

    #[inline(always)]
    unsafe fn keep(values: L, _: usize, to: *mut f32) {
        // SAFETY: as the caller promised.
        unsafe { R::round(values).store(to) }
    }

    #[inline(always)]
    unsafe fn multiply_add(left: L, right: L, sum: L) -> L {
        // SAFETY: as the caller promised.
        unsafe { left.mul_add(right, sum) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Format<__m512> for PairsOfChannels {
    const BYTES: usize = 2;

    #[inline(always)]
    fn place(layout: &Layout, row: usize, channel: usize) -> usize {
        row * layout.tile + channel / 2
    }

    #[inline(always)]
    unsafe fn keep(values: __m512, _: usize, to: *mut f32) {
        // SAFETY: as the caller promised; the types are of 32 bytes.
        unsafe {
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(values));
            _mm256_storeu_si256(to.cast(), rounded);
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(left: __m512, right: __m512, sum: __m512) -> __m512 {
        // SAFETY: as the caller promised; the types are of 64 bytes.
        unsafe {
            let pairs = |values| std::mem::transmute::<__m512, __m512bh>(values);
            _mm512_dpbf16_ps(sum, pairs(left), pairs(right))
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Format<__m512> for PairsOfRows {
    const BYTES: usize = 2;

    #[inline(always)]
    fn place(layout: &Layout, row: usize, channel: usize) -> usize {
        row / 2 * layout.tile + channel / PANEL * layout.panel + channel % PANEL
    }

    #[inline(always)]
    unsafe fn keep(values: __m512, row: usize, to: *mut f32) {
        // SAFETY: as the caller promised; the types are of 32 bytes.
        unsafe {
            let rounded: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(values));
            let mut pairs = _mm512_cvtepu16_epi32(rounded);
            if !row.is_multiple_of(2) {
                let even: __m512i = _mm512_loadu_si512(to.cast());
                pairs = _mm512_or_si512(even, _mm512_slli_epi32::<16>(pairs));
            }
            _mm512_castsi512_ps(pairs).store(to);
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(left: __m512, right: __m512, sum: __m512) -> __m512 {
        // SAFETY: as the caller promised.
        unsafe { PairsOfChannels::multiply_add(left, right, sum) }
    }
}

/// Elsewhere there are no instructions for bf16, and nobody asks.
#[cfg(not(target_arch = "x86_64"))]
macro_rules! nowhere {
    ($format:ty) => {
        impl Format<Narrow> for $format {
            const BYTES: usize = 2;

            fn place(_: &Layout, _: usize, _: usize) -> usize {
                unreachable!()
            }

            unsafe fn keep(_: Narrow, _: usize, _: *mut f32) {
                unreachable!()
            }

            unsafe fn multiply_add(_: Narrow, _: Narrow, _: Narrow) -> Narrow {
                unreachable!()
            }
        }
    };
}

#[cfg(not(target_arch = "x86_64"))]
nowhere!(PairsOfChannels);
#[cfg(not(target_arch = "x86_64"))]
nowhere!(PairsOfRows);
