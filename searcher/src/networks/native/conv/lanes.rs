//! Sixteen channels at a time, in the instructions of the machine.
//!
//! The passes of the convolution are written once over [`Lanes`]. A pass is a
//! [`Pass`]; [`run`] compiles it for each instruction set and calls the one
//! asked for. As all the lanes of one pixel are neighbouring channels, no pass
//! moves values across lanes.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m512, _CMP_GT_OQ, _CMP_UNORD_Q, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps,
    _mm256_and_si256, _mm256_blendv_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_cmp_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_stream_ps,
    _mm256_sub_ps, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_mov_ps,
    _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_stream_ps, _mm512_sub_ps,
};

/// Channels per step.
pub(super) const LANES: usize = 16;

/// Added to the bits of a number with an even last bit of bf16 (else 1 more),
/// before all but [`BF16_KEPT`] are dropped.
const BF16_UP: i32 = 0x7fff;
const BF16_KEPT: i32 = !0xffff;

/// The instruction sets that there are versions for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Isa {
    /// Plain Rust.
    Portable,
    /// AVX2 with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// All that the machine has, the fastest last.
    pub(in super::super) fn available() -> Vec<Isa> {
        let mut available = vec![Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") {
                available.push(Isa::Avx2);
                if has!("avx512f") {
                    available.push(Isa::Avx512);
                }
            }
        }
        available
    }
}

/// Asks for the line of `address` to come to the second cache.
#[inline(always)]
pub(super) fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every machine has it, and it reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Work written over [`Lanes`].
pub(super) trait Pass {
    /// Does it.
    ///
    /// # Safety
    ///
    /// The machine has the instructions of `L`, and the pointers of the pass
    /// are valid for what it says it reads and writes.
    unsafe fn run<L: Lanes>(self);
}

/// Runs `pass` in the instructions of `isa`.
///
/// # Safety
///
/// The machine has `isa`, and the pointers of the pass are valid.
pub(super) unsafe fn run(isa: Isa, pass: impl Pass) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2(pass: impl Pass) {
            // SAFETY: compiled for these instructions, which the machine has.
            unsafe { pass.run::<[__m256; 2]>() }
        }
        #[target_feature(enable = "avx512f,avx2,fma")]
        unsafe fn avx512(pass: impl Pass) {
            // SAFETY: compiled for these instructions, which the machine has.
            unsafe { pass.run::<__m512>() }
        }
        match isa {
            // SAFETY: as the caller promised.
            Isa::Avx512 => return unsafe { avx512(pass) },
            // SAFETY: as the caller promised.
            Isa::Avx2 => return unsafe { avx2(pass) },
            Isa::Portable => {}
        }
    }
    let Isa::Portable = isa else { unreachable!() };
    // SAFETY: every machine has these instructions; the pointers are valid.
    unsafe { pass.run::<[f32; LANES]>() }
}

/// The type of sixteen numbers where there are instructions for bf16.
#[cfg(target_arch = "x86_64")]
pub(super) type Narrow = __m512;
#[cfg(not(target_arch = "x86_64"))]
pub(super) type Narrow = [f32; LANES];

/// Work in the instructions for bf16.
pub(super) trait NarrowPass {
    /// Does it.
    ///
    /// # Safety
    ///
    /// As for [`Pass::run`]; the machine has AVX-512 and AVX512-BF16.
    unsafe fn run(self);
}

/// Whether the machine has the instructions for bf16.
pub(super) fn has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        Isa::available().contains(&Isa::Avx512) && is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Runs `pass` in the instructions for bf16.
///
/// # Safety
///
/// The machine has them, see [`has_bf16`], and the pointers of the pass are valid.
pub(super) unsafe fn run_narrow(pass: impl NarrowPass) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bf16,avx2,fma")]
    unsafe fn avx512bf16(pass: impl NarrowPass) {
        // SAFETY: compiled for these instructions, which the machine has.
        unsafe { pass.run() }
    }
    #[cfg(not(target_arch = "x86_64"))]
    use NarrowPass::run as avx512bf16;
    // SAFETY: as the caller promised.
    unsafe { avx512bf16(pass) }
}

/// Sixteen numbers.
///
/// # Safety
///
/// Every function demands that the machine has the instructions of the type;
/// those with pointers, that sixteen numbers lie there ([`Lanes::stream`]: at a
/// multiple of 64 bytes).
pub(super) trait Lanes: Copy {
    /// Rows and vectors of the block of a product that the registers hold.
    const BLOCK: Block;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Stores past the caches.
    unsafe fn stream(self, to: *mut f32);
    unsafe fn splat(value: f32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once where the instructions can.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// The greater of it and 0; not a number stays so.
    unsafe fn relu(self) -> Self;
    /// It where `condition` is above 0, else 0.
    unsafe fn where_positive(self, condition: Self) -> Self;
    /// The nearest numbers with the 8 significant bits of bf16, of two as near
    /// the even one; not a number stays so.
    unsafe fn round_to_bf16(self) -> Self;
}

/// See [`Lanes::BLOCK`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// 8 rows of 2 vectors.
    Wide,
    /// 4 rows of 1 vector.
    Narrow,
    /// 2 rows of 1 vector.
    Least,
}

#[cfg(target_arch = "x86_64")]
impl Lanes for __m512 {
    const BLOCK: Block = Block::Wide;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller promised, here and below.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see `load`.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: see `load`.
        unsafe { _mm512_stream_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_sub_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_mul_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see `load`.
        unsafe { _mm512_fmadd_ps(self, factor, addend) }
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // Of two operands that do not compare, the second is returned.
        // SAFETY: see `load`.
        unsafe { _mm512_max_ps(_mm512_setzero_ps(), self) }
    }

    #[inline(always)]
    unsafe fn where_positive(self, condition: Self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            let mask = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(condition, _mm512_setzero_ps());
            _mm512_maskz_mov_ps(mask, self)
        }
    }

    #[inline(always)]
    unsafe fn round_to_bf16(self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            let bits = _mm512_castps_si512(self);
            let even = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(even, _mm512_set1_epi32(BF16_UP));
            let rounded =
                _mm512_and_si512(_mm512_add_epi32(bits, up), _mm512_set1_epi32(BF16_KEPT));
            let none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self, self);
            _mm512_mask_mov_ps(_mm512_castsi512_ps(rounded), none, self)
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes for [__m256; 2] {
    const BLOCK: Block = Block::Narrow;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller promised, here and below.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see `load`.
        unsafe {
            _mm256_storeu_ps(to, self[0]);
            _mm256_storeu_ps(to.add(8), self[1]);
        }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: see `load`.
        unsafe {
            _mm256_stream_ps(to, self[0]);
            _mm256_stream_ps(to.add(8), self[1]);
        }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see `load`.
        unsafe { [_mm256_set1_ps(value); 2] }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            [
                _mm256_add_ps(self[0], other[0]),
                _mm256_add_ps(self[1], other[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            [
                _mm256_sub_ps(self[0], other[0]),
                _mm256_sub_ps(self[1], other[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            [
                _mm256_mul_ps(self[0], other[0]),
                _mm256_mul_ps(self[1], other[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            [
                _mm256_fmadd_ps(self[0], factor[0], addend[0]),
                _mm256_fmadd_ps(self[1], factor[1], addend[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            let zero = _mm256_setzero_ps();
            [_mm256_max_ps(zero, self[0]), _mm256_max_ps(zero, self[1])]
        }
    }

    #[inline(always)]
    unsafe fn where_positive(self, condition: Self) -> Self {
        // SAFETY: see `load`.
        unsafe {
            let zero = _mm256_setzero_ps();
            [
                _mm256_and_ps(self[0], _mm256_cmp_ps::<_CMP_GT_OQ>(condition[0], zero)),
                _mm256_and_ps(self[1], _mm256_cmp_ps::<_CMP_GT_OQ>(condition[1], zero)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn round_to_bf16(self) -> Self {
        // SAFETY: see `load`.
        self.map(|half| unsafe {
            let bits = _mm256_castps_si256(half);
            let even = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let up = _mm256_add_epi32(even, _mm256_set1_epi32(BF16_UP));
            let rounded =
                _mm256_and_si256(_mm256_add_epi32(bits, up), _mm256_set1_epi32(BF16_KEPT));
            let none = _mm256_cmp_ps::<_CMP_UNORD_Q>(half, half);
            _mm256_blendv_ps(_mm256_castsi256_ps(rounded), half, none)
        })
    }
}

impl Lanes for [f32; LANES] {
    const BLOCK: Block = Block::Least;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as the caller promised.
        unsafe { from.cast::<Self>().read() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as the caller promised.
        unsafe { to.cast::<Self>().write(self) }
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: as the caller promised.
        unsafe { self.store(to) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] - other[lane])
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * other[lane])
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * factor[lane] + addend[lane])
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        self.map(|value| if value < 0.0 { 0.0 } else { value })
    }

    #[inline(always)]
    unsafe fn where_positive(self, condition: Self) -> Self {
        std::array::from_fn(|lane| {
            if condition[lane] > 0.0 {
                self[lane]
            } else {
                0.0
            }
        })
    }

    #[inline(always)]
    unsafe fn round_to_bf16(self) -> Self {
        self.map(|value| {
            if value.is_nan() {
                return value;
            }
            let bits = value.to_bits().cast_signed();
            let up = (bits >> 16 & 1) + BF16_UP;
            f32::from_bits((bits.wrapping_add(up) & BF16_KEPT).cast_unsigned())
        })
    }
}
