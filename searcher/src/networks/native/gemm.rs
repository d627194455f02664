//! Matrix products of f32 in one thread, for the convolutions that are not worth a transform.
//!
//! Both factors are read where they lie: what is multiplied here fits the caches. The result
//! depends on the operands alone, so that threads may share the work in any way.
#![allow(unsafe_code)]

use super::isa::Isa;

/// `m x k` times `k x n` gives `m x n`; `n` is a multiple of [`COLUMNS`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// What the number of columns must be a multiple of.
pub(super) const COLUMNS: usize = 16;

/// The left factor: element `(i, p)` lies at `i * row + p * column`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) values: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

/// `c = a b`, or `c += a b`; the rows of `b` and `c` follow each other by `n`.
///
/// # Panics
/// When a slice is too short for the sizes, or `n` no multiple of [`COLUMNS`]: a mistake of the
/// network, not of its input.
pub(super) fn multiply(
    isa: Isa,
    product: Product,
    a: Left<'_>,
    b: &[f32],
    c: &mut [f32],
    accumulate: bool,
) {
    let Product { m, n, k } = product;
    assert!(n.is_multiple_of(COLUMNS) && k > 0);
    if m == 0 {
        return;
    }
    assert!(a.values.len() > (m - 1) * a.row + (k - 1) * a.column);
    assert!(b.len() >= k * n && c.len() >= m * n);
    #[cfg(target_arch = "x86_64")]
    match isa {
        // SAFETY: an `Isa` is only made where the machine has it, and the slices are as long as
        // the kernels read and write, as has just been checked.
        Isa::Avx512 => unsafe {
            avx512::multiply(product, a, b.as_ptr(), c.as_mut_ptr(), accumulate)
        },
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2::multiply(product, a, b.as_ptr(), c.as_mut_ptr(), accumulate) },
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("{isa:?} is of x86-64");
}

/// The kernels of one instruction set: tiles of rows x vectors of the result stay in registers
/// while the inner index runs.
#[cfg(target_arch = "x86_64")]
macro_rules! kernels {
    (
        $module:ident, $features:literal, rows $rows:literal, lanes $lanes:literal,
        $vector:ident, $zero:ident, $load:ident, $store:ident, $splat:ident, $fma:ident, $add:ident
    ) => {
        mod $module {
            use std::arch::x86_64::{$add, $fma, $load, $splat, $store, $vector, $zero};

            use super::{Left, Product};

            const LANES: usize = $lanes;

            /// # Safety
            /// The machine has the instructions; `b` holds `k * n` values and `c` `m * n`, and
            /// all elements of `a` lie in its slice.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn multiply(
                product: Product,
                a: Left<'_>,
                b: *const f32,
                c: *mut f32,
                accumulate: bool,
            ) {
                let mut j = 0;
                while j + 2 * LANES <= product.n {
                    // SAFETY: columns j to j + 2 LANES lie within n; the rest is the caller's.
                    unsafe { strip::<2>(product, a, b.add(j), c.add(j), accumulate) };
                    j += 2 * LANES;
                }
                while j < product.n {
                    // SAFETY: n is a multiple of 16 and LANES 8 or 16.
                    unsafe { strip::<1>(product, a, b.add(j), c.add(j), accumulate) };
                    j += LANES;
                }
            }

            /// All rows of `VECTORS` vectors of columns.
            ///
            /// # Safety
            /// As [`multiply`], with `b` and `c` at the first of the columns.
            #[target_feature(enable = $features)]
            unsafe fn strip<const VECTORS: usize>(
                product: Product,
                a: Left<'_>,
                b: *const f32,
                c: *mut f32,
                accumulate: bool,
            ) {
                let mut i = 0;
                macro_rules! tiles {
                    ($count:literal) => {
                        while product.m - i >= $count {
                            // SAFETY: rows i to i + count lie within m.
                            unsafe {
                                tile::<$count, VECTORS>(
                                    product,
                                    a,
                                    a.values.as_ptr().add(i * a.row),
                                    b,
                                    c.add(i * product.n),
                                    accumulate,
                                );
                            }
                            i += $count;
                        }
                    };
                }
                tiles!($rows);
                tiles!(4);
                tiles!(2);
                tiles!(1);
            }

            /// # Safety
            /// As [`strip`], with `first` and `c` at the first of the rows.
            #[target_feature(enable = $features)]
            unsafe fn tile<const ROWS: usize, const VECTORS: usize>(
                Product { n, k, .. }: Product,
                a: Left<'_>,
                first: *const f32,
                b: *const f32,
                c: *mut f32,
                accumulate: bool,
            ) {
                let mut sums = [[$zero(); VECTORS]; ROWS];
                for p in 0..k {
                    let mut row = [$zero(); VECTORS];
                    for (vector, row) in row.iter_mut().enumerate() {
                        // SAFETY: within row p of `b`.
                        *row = unsafe { $load(b.add(p * n + vector * LANES)) };
                    }
                    for (i, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: an element of `a`.
                        let factor = unsafe { *first.add(i * a.row + p * a.column) };
                        let factor: $vector = $splat(factor);
                        for (sum, &row) in sums.iter_mut().zip(&row) {
                            *sum = $fma(factor, row, *sum);
                        }
                    }
                }
                for (i, sums) in sums.iter().enumerate() {
                    for (vector, &sum) in sums.iter().enumerate() {
                        // SAFETY: within row i of `c`.
                        unsafe {
                            let to = c.add(i * n + vector * LANES);
                            let sum = if accumulate {
                                $add($load(to), sum)
                            } else {
                                sum
                            };
                            $store(to, sum);
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
kernels!(
    avx512, "avx512f", rows 8, lanes 16, __m512, _mm512_setzero_ps, _mm512_loadu_ps,
    _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps
);
#[cfg(target_arch = "x86_64")]
kernels!(
    avx2, "avx2,fma", rows 6, lanes 8, __m256, _mm256_setzero_ps, _mm256_loadu_ps,
    _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps
);

#[cfg(test)]
mod tests {
    use super::super::tests::numbers;
    use super::*;

    #[test]
    fn products_equal_their_definition() {
        for isa in Isa::available() {
            for (m, n, k) in [
                (1, 16, 1),
                (7, 48, 5),
                (8, 32, 33),
                (15, 64, 27),
                (29, 16, 9),
            ] {
                for transposed in [false, true] {
                    let a = numbers(1, m * k);
                    let (b, mut c) = (numbers(2, k * n), numbers(3, m * n));
                    let (row, column) = if transposed { (1, m) } else { (k, 1) };
                    let before = c.clone();
                    let left = Left {
                        values: &a,
                        row,
                        column,
                    };
                    let product = Product { m, n, k };
                    for accumulate in [true, false] {
                        c.copy_from_slice(&before);
                        multiply(isa, product, left, &b, &mut c, accumulate);
                        for i in 0..m {
                            for j in 0..n {
                                let start = if accumulate { before[i * n + j] } else { 0.0 };
                                let wanted: f64 = (0..k)
                                    .map(|p| {
                                        f64::from(a[i * row + p * column]) * f64::from(b[p * n + j])
                                    })
                                    .sum::<f64>()
                                    + f64::from(start);
                                let gap = (f64::from(c[i * n + j]) - wanted).abs();
                                assert!(gap < 1e-5, "{isa:?} {product:?} {transposed}: {gap}");
                            }
                        }
                    }
                }
            }
        }
    }
}
