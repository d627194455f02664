//! The quantile function, which comes out the same on every machine.
//!
//! The system's `ln` may differ in its last bit from one C library to the
//! next, and pixels must not. Everything here is sums, products, quotients
//! and square roots, which IEEE 754 rounds in one way only.

/// The standard normal deviate of a uniform number in [0, 1) that is a multiple of 2^-53.
///
/// The inverse of the normal distribution function by Wichura's rational
/// approximations (algorithm AS 241, "The percentage points of the normal
/// distribution", Applied Statistics 37, 1988), good to about 1e-15. The
/// number is taken at the middle of its interval of 2^-53, so that no end is infinite.
pub(crate) fn standard_normal(uniform: f64) -> f64 {
    const STEPS: u64 = 1 << 53;
    let step = (uniform * STEPS as f64) as u64;
    // Whole and half numbers of steps are exact, also near the middle.
    let centred = ((step as f64 - (STEPS / 2) as f64) + 0.5) / STEPS as f64;
    if centred.abs() <= 0.425 {
        let r = 0.180625 - centred * centred;
        return centred * (polynomial(&CENTRE_ABOVE, r) / polynomial(&CENTRE_BELOW, r));
    }
    let tail = (step.min(STEPS - 1 - step) as f64 + 0.5) / STEPS as f64;
    let r = (-natural_logarithm(tail)).sqrt();
    let deviate = if r <= 5.0 {
        polynomial(&TAIL_ABOVE, r - 1.6) / polynomial(&TAIL_BELOW, r - 1.6)
    } else {
        polynomial(&FAR_ABOVE, r - 5.0) / polynomial(&FAR_BELOW, r - 5.0)
    };
    if centred < 0.0 { -deviate } else { deviate }
}

/// Coefficients from the lowest power up.
fn polynomial(coefficients: &[f64; 8], x: f64) -> f64 {
    coefficients
        .iter()
        .rev()
        .fold(0.0, |sum, coefficient| sum * x + coefficient)
}

/// The logarithm of a positive normal number, to about 1e-16 of its size.
fn natural_logarithm(x: f64) -> f64 {
    // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i64 - 1023;
    let mut mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if mantissa >= std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)); the argument is below 0.172.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = (0..=12)
        .rev()
        .fold(0.0, |sum, n| sum * square + 1.0 / f64::from(2 * n + 1));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

const CENTRE_ABOVE: [f64; 8] = [
    3.387_132_872_796_366_5,
    1.331_416_678_917_843_8e2,
    1.971_590_950_306_551_3e3,
    1.373_169_376_550_946e4,
    4.592_195_393_154_987e4,
    6.726_577_092_700_87e4,
    3.343_057_558_358_813e4,
    2.509_080_928_730_122_7e3,
];
const CENTRE_BELOW: [f64; 8] = [
    1.0,
    4.231_333_070_160_091e1,
    6.871_870_074_920_579e2,
    5.394_196_021_424_751e3,
    2.121_379_430_158_659_7e4,
    3.930_789_580_009_271e4,
    2.872_908_573_572_194_3e4,
    5.226_495_278_852_854e3,
];
const TAIL_ABOVE: [f64; 8] = [
    1.423_437_110_749_683_5,
    4.630_337_846_156_546,
    5.769_497_221_460_691,
    3.647_848_324_763_204_5,
    1.270_458_252_452_368_4,
    2.417_807_251_774_506e-1,
    2.272_384_498_926_918_4e-2,
    7.745_450_142_783_414e-4,
];
const TAIL_BELOW: [f64; 8] = [
    1.0,
    2.053_191_626_637_759,
    1.676_384_830_183_803_8,
    6.897_673_349_851e-1,
    1.481_039_764_274_800_8e-1,
    1.519_866_656_361_645_7e-2,
    5.475_938_084_995_345e-4,
    1.050_750_071_644_416_9e-9,
];
const FAR_ABOVE: [f64; 8] = [
    6.657_904_643_501_103,
    5.463_784_911_164_114,
    1.784_826_539_917_291_3,
    2.965_605_718_285_048_7e-1,
    2.653_218_952_657_612_4e-2,
    1.242_660_947_388_078_4e-3,
    2.711_555_568_743_487_6e-5,
    2.010_334_399_292_288_1e-7,
];
const FAR_BELOW: [f64; 8] = [
    1.0,
    5.998_322_065_558_88e-1,
    1.369_298_809_227_358e-1,
    1.487_536_129_085_061_5e-2,
    7.868_691_311_456_133e-4,
    1.846_318_317_510_054_8e-5,
    1.421_511_758_316_446e-7,
    2.044_263_103_389_939_8e-15,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of SciPy's `norm.ppf` at (k + 0.5) / 2^53.
    #[test]
    fn deviates_are_the_quantiles() {
        let step = |k: u64| standard_normal(k as f64 / (1u64 << 53) as f64);
        for (k, expected) in [
            (0, -8.292361075813597),
            (1, -8.160707840858585),
            (1000, -7.3347380140439435),
            (1073741824, -5.166578119641677),
            (1099511627776, -3.6683292851212066),
            (35184372088832, -2.660067468617455),
            (562949953421312, -1.5341205443525459),
            (1125899906842624, -1.1503493803760079),
            (2251799813685248, -0.6744897501960816),
            (3377699720527872, -0.31863936396437503),
            (4503599627370495, -1.3914582123358836e-16),
            (4515945306271730, 0.003435706018007352),
            (7881299347898368, 1.1503493803760088),
            (9006099743113216, 3.6683292851214393),
            (9007199254740991, 8.292361075813597),
        ] {
            let expected: f64 = expected;
            let tolerance = 1e-14 * expected.abs().max(0.1);
            assert!((step(k) - expected).abs() < tolerance, "{k}: {}", step(k));
        }
        assert_eq!(step(1 << 52), -step((1 << 52) - 1));
    }

    #[test]
    fn the_logarithm_is_the_systems_to_a_bit_or_two() {
        let mut x = 1.1e-16;
        while x < 0.5 {
            let (ours, theirs) = (natural_logarithm(x), x.ln());
            assert!(
                (ours - theirs).abs() <= 4.0 * f64::EPSILON * theirs.abs(),
                "{x}"
            );
            x *= 1.01;
        }
    }
}
