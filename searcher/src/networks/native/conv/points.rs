//! The one-dimensional transforms of Winograd's F(4, 3), each on vectors of
//! channels; two of them in turn make the transforms of a square.
//!
//! Four outputs of a filter of three taps come from six products: both are
//! polynomials, evaluated at 0, ±[`P`], ±[`Q`] and infinity, multiplied, and
//! interpolated (S. Winograd, Arithmetic Complexity of Computations, 1980;
//! A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks,
//! 2015). With m(x) = x (x² - P²) (x² - Q²) and f(a) the derivative of m at a:
//!
//! - a filter's row of point a is [1, a, a²] / f(a), of infinity [0, 0, 1];
//! - an input's row of point a holds the coefficients of m(x) / (x - a), that
//!   of infinity those of m(x);
//! - an output's column of point a is [1, a, a², a³], of infinity [0, 0, 0, 1].

use super::lanes::Lanes;

/// Outputs of a tile in one direction.
pub(super) const TILE: usize = 4;
/// Points, and so inputs of a tile in one direction.
pub(super) const POINTS: usize = 6;
/// Products of a square tile.
pub(super) const PRODUCTS: usize = POINTS * POINTS;

/// The points beside 0 and infinity, with both signs: of those with few digits,
/// the ones at which rounded operands disturb outputs and gradients least, half
/// as much as at 1 and 2.
const P: f32 = 0.625;
const Q: f32 = 1.5;
const P2: f32 = P * P;
const Q2: f32 = Q * Q;

/// 1 / f(0), 1 / f(±P), 1 / f(±Q).
const F0: f32 = 1.0 / (P2 * Q2);
const FP: f32 = 1.0 / (2.0 * P2 * (P2 - Q2));
const FQ: f32 = 1.0 / (2.0 * Q2 * (Q2 - P2));

/// Six inputs at the points.
///
/// # Safety
///
/// Here and below: the machine has the instructions of `L`.
#[inline(always)]
pub(super) unsafe fn input<L: Lanes>(d: [L; 6]) -> [L; 6] {
    // SAFETY: as the caller promised.
    unsafe {
        let p2q2 = L::splat(P2 * Q2);
        let minus_sum = L::splat(-(P2 + Q2));
        let minus_q2 = L::splat(-Q2);
        let minus_p2 = L::splat(-P2);
        let even_p = d[2].mul_add(minus_q2, d[4]);
        let odd_p = scale(d[1].mul_add(minus_q2, d[3]), P);
        let even_q = d[2].mul_add(minus_p2, d[4]);
        let odd_q = scale(d[1].mul_add(minus_p2, d[3]), Q);
        [
            d[0].mul_add(p2q2, d[2].mul_add(minus_sum, d[4])),
            even_p.add(odd_p),
            even_p.sub(odd_p),
            even_q.add(odd_q),
            even_q.sub(odd_q),
            d[1].mul_add(p2q2, d[3].mul_add(minus_sum, d[5])),
        ]
    }
}

/// Four outputs from their products at the points.
#[inline(always)]
pub(super) unsafe fn output<L: Lanes>(m: [L; 6]) -> [L; 4] {
    // SAFETY: as the caller promised.
    unsafe {
        let even_p = m[1].add(m[2]);
        let odd_p = m[1].sub(m[2]);
        let even_q = m[3].add(m[4]);
        let odd_q = m[3].sub(m[4]);
        [
            m[0].add(even_p).add(even_q),
            odd_q.mul_add(L::splat(Q), scale(odd_p, P)),
            even_q.mul_add(L::splat(Q2), scale(even_p, P2)),
            odd_q.mul_add(L::splat(Q2 * Q), scale(odd_p, P2 * P).add(m[5])),
        ]
    }
}

/// The adjoint of [`output`]: gradients of four outputs at the points.
#[inline(always)]
pub(super) unsafe fn output_adjoint<L: Lanes>(y: [L; 4]) -> [L; 6] {
    // SAFETY: as the caller promised.
    unsafe {
        let even_p = y[2].mul_add(L::splat(P2), y[0]);
        let odd_p = scale(y[3].mul_add(L::splat(P2), y[1]), P);
        let even_q = y[2].mul_add(L::splat(Q2), y[0]);
        let odd_q = scale(y[3].mul_add(L::splat(Q2), y[1]), Q);
        [
            y[0],
            even_p.add(odd_p),
            even_p.sub(odd_p),
            even_q.add(odd_q),
            even_q.sub(odd_q),
            y[3],
        ]
    }
}

/// The three taps of a filter at the points.
#[inline(always)]
pub(super) unsafe fn filter<L: Lanes>(g: [L; 3]) -> [L; 6] {
    // SAFETY: as the caller promised.
    unsafe {
        let even_p = scale(g[2].mul_add(L::splat(P2), g[0]), FP);
        let odd_p = scale(g[1], P * FP);
        let even_q = scale(g[2].mul_add(L::splat(Q2), g[0]), FQ);
        let odd_q = scale(g[1], Q * FQ);
        [
            scale(g[0], F0),
            even_p.add(odd_p),
            even_p.sub(odd_p),
            even_q.add(odd_q),
            even_q.sub(odd_q),
            g[2],
        ]
    }
}

/// The adjoint of [`filter`]: gradients at the points to those of the taps.
#[inline(always)]
pub(super) unsafe fn filter_adjoint<L: Lanes>(u: [L; 6]) -> [L; 3] {
    // SAFETY: as the caller promised.
    unsafe {
        let even_p = scale(u[1].add(u[2]), FP);
        let odd_p = scale(u[1].sub(u[2]), P * FP);
        let even_q = scale(u[3].add(u[4]), FQ);
        let odd_q = scale(u[3].sub(u[4]), Q * FQ);
        [
            u[0].mul_add(L::splat(F0), even_p.add(even_q)),
            odd_p.add(odd_q),
            even_p.mul_add(L::splat(P2), even_q.mul_add(L::splat(Q2), u[5])),
        ]
    }
}

/// `value * factor`, which costs nothing for 1.
#[inline(always)]
unsafe fn scale<L: Lanes>(value: L, factor: f32) -> L {
    if factor == 1.0 {
        value
    } else {
        // SAFETY: as the caller promised.
        unsafe { value.mul(L::splat(factor)) }
    }
}
