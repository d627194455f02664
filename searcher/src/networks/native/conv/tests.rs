//! Against the definition, summed in f64.

use super::*;

/// Numbers between -1 and 1 that look random.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn aligned(values: &[f32]) -> Aligned {
    let mut to = Aligned::zeros(values.len());
    to.copy_from_slice(values);
    to
}

/// Calls `visit` with the places in the output, the input and the weights of
/// all products of the definition.
fn products(geometry: Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    let Geometry {
        batch,
        height,
        width,
        inputs,
        outputs,
    } = geometry;
    for image in 0..batch {
        for y in 0..height {
            for x in 0..width {
                for tap in 0..9 {
                    let (from_y, from_x) = (y + tap / 3, x + tap % 3);
                    if !(1..=height).contains(&from_y) || !(1..=width).contains(&from_x) {
                        continue;
                    }
                    let from = (image * height + from_y - 1) * width + from_x - 1;
                    let to = (image * height + y) * width + x;
                    for output in 0..outputs {
                        for input in 0..inputs {
                            let weight = (output * 9 + tap) * inputs + input;
                            visit(to * outputs + output, from * inputs + input, weight);
                        }
                    }
                }
            }
        }
    }
}

/// The largest difference, relative to the largest value.
fn difference(values: &[f32], truth: &[f64]) -> f64 {
    assert_eq!(values.len(), truth.len());
    let largest = truth
        .iter()
        .fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let differences = values
        .iter()
        .zip(truth)
        .map(|(&value, truth)| f64::from(value) - truth);
    differences.fold(0.0, |largest: f64, value| largest.max(value.abs())) / largest
}

/// The largest difference of sums, relative to the sums of absolute values.
fn sum_difference(sums: &[f64], channels: usize, terms: impl Iterator<Item = f64>) -> f64 {
    let (mut truth, mut absolute) = (vec![0.0; channels], vec![0.0; channels]);
    for (index, term) in terms.enumerate() {
        truth[index % channels] += term;
        absolute[index % channels] += term.abs();
    }
    let differences = (0..channels).map(|c| (sums[c] - truth[c]).abs() / absolute[c]);
    assert_eq!(sums.len(), channels);
    differences.fold(0.0, f64::max)
}

const SHAPES: [Geometry; 5] = [
    Geometry {
        batch: 2,
        height: 8,
        width: 8,
        inputs: 32,
        outputs: 32,
    },
    Geometry {
        batch: 1,
        height: 5,
        width: 11,
        inputs: 16,
        outputs: 48,
    },
    Geometry {
        batch: 3,
        height: 7,
        width: 6,
        inputs: 64,
        outputs: 16,
    },
    Geometry {
        batch: 9,
        height: 1,
        width: 3,
        inputs: 48,
        outputs: 32,
    },
    // More than a block of tiles, and more than one chunk of them.
    Geometry {
        batch: 2,
        height: 4,
        width: 610,
        inputs: 16,
        outputs: 16,
    },
];

/// What a call of a kind may read and write.
struct Case {
    geometry: Geometry,
    x: Aligned,
    dy: Aligned,
    y: Aligned,
    weights: Aligned,
    residual: Aligned,
    /// Per channel of the input.
    of_x: [Aligned; 4],
    /// Per channel of the output.
    of_y: [Aligned; 3],
}

impl Case {
    fn new(geometry: Geometry) -> Case {
        let Geometry {
            batch,
            height,
            width,
            inputs,
            outputs,
        } = geometry;
        let pixels = batch * height * width;
        let of = |count: usize, seed| aligned(&numbers(count, seed));
        Case {
            geometry,
            x: of(pixels * inputs, 1),
            dy: of(pixels * outputs, 2),
            y: of(pixels * outputs, 3),
            weights: of(outputs * 9 * inputs, 4),
            residual: of(pixels * outputs, 5),
            of_x: std::array::from_fn(|index| of(inputs, 6 + index as u64)),
            of_y: std::array::from_fn(|index| of(outputs, 10 + index as u64)),
        }
    }

    fn activation(&self) -> Activation<'_> {
        Activation {
            scale: &self.of_x[0],
            shift: &self.of_x[1],
        }
    }

    fn gradient(&self) -> Gradient<'_> {
        let [a, b, c] = &self.of_y;
        Gradient::Normalised {
            da: &self.dy,
            y: &self.y,
            a,
            b,
            c,
        }
    }

    fn mask(&self) -> Mask<'_> {
        let [scale, shift, mean, rstd] = &self.of_x;
        Mask {
            x: &self.x,
            scale,
            shift,
            mean,
            rstd,
        }
    }

    fn normalised(&self, index: usize) -> f64 {
        let channel = index % self.geometry.inputs;
        let [scale, shift, ..] = &self.of_x;
        f64::from(scale[channel]) * f64::from(self.x[index]) + f64::from(shift[channel])
    }

    fn input(&self, index: usize, activated: bool) -> f64 {
        if activated {
            self.normalised(index).max(0.0)
        } else {
            f64::from(self.x[index])
        }
    }

    fn output_gradient(&self, index: usize, combined: bool) -> f64 {
        let dy = f64::from(self.dy[index]);
        if !combined {
            return dy;
        }
        let [a, b, c] = self
            .of_y
            .each_ref()
            .map(|v| f64::from(v[index % self.geometry.outputs]));
        a * dy + b * f64::from(self.y[index]) + c
    }
}

fn on_each(mut check: impl FnMut(&mut Convolver, &Case)) {
    let isas = Isa::available();
    assert_eq!(isas[0], Isa::Portable);
    for isa in isas {
        let mut convolver = Convolver::new(isa);
        for geometry in SHAPES {
            check(&mut convolver, &Case::new(geometry));
        }
    }
}

#[test]
fn forward_is_the_definition() {
    on_each(|convolver, case| {
        let Geometry { outputs, .. } = case.geometry;
        for fused in [false, true] {
            let mut truth = vec![0.0; case.y.len()];
            products(case.geometry, |to, from, weight| {
                truth[to] += case.input(from, fused) * f64::from(case.weights[weight]);
            });
            if fused {
                truth
                    .iter_mut()
                    .zip(&*case.residual)
                    .for_each(|(to, &r)| *to += f64::from(r));
            }
            let mut out = Aligned::zeros(truth.len());
            let mut sums = Sums::default();
            let activation = fused.then(|| case.activation());
            let residual = fused.then_some(&*case.residual);
            let (x, weights) = (&case.x, &case.weights);
            convolver.forward(
                case.geometry,
                x,
                activation,
                weights,
                residual,
                &mut out,
                Some(&mut sums),
            );
            let error = difference(&out, &truth);
            assert!(
                error < 5e-6,
                "{:?} {:?}: {error:e}",
                convolver.isa,
                case.geometry
            );
            let of = |index: usize| f64::from(out[index]);
            let first = sum_difference(&sums.first, outputs, (0..out.len()).map(of));
            let squares = (0..out.len()).map(|index| of(index) * of(index));
            let second = sum_difference(&sums.second, outputs, squares);
            assert!(first.max(second) < 1e-5, "{first:e} {second:e}");
        }
    });
}

#[test]
fn backward_data_is_the_adjoint() {
    on_each(|convolver, case| {
        let Geometry { inputs, .. } = case.geometry;
        for fused in [false, true] {
            let mut truth = vec![0.0; case.x.len()];
            products(case.geometry, |to, from, weight| {
                let weight = f64::from(case.weights[weight]);
                truth[from] += case.output_gradient(to, fused) * weight;
            });
            if fused {
                for (index, to) in truth.iter_mut().enumerate() {
                    if case.normalised(index) <= 0.0 {
                        *to = 0.0;
                    }
                }
            }
            let mut da = Aligned::zeros(truth.len());
            let mut sums = Sums::default();
            let dy = if fused {
                case.gradient()
            } else {
                Gradient::Plain(&case.dy)
            };
            let mask = fused.then(|| case.mask());
            convolver.backward_data(
                case.geometry,
                dy,
                &case.weights,
                mask,
                &mut da,
                Some(&mut sums),
            );
            let error = difference(&da, &truth);
            assert!(
                error < 5e-6,
                "{:?} {:?}: {error:e}",
                convolver.isa,
                case.geometry
            );
            let of = |index: usize| f64::from(da[index]);
            let first = sum_difference(&sums.first, inputs, (0..da.len()).map(of));
            let seconds = (0..da.len()).map(|index| {
                let channel = index % inputs;
                let [_, _, mean, rstd] = case
                    .of_x
                    .each_ref()
                    .map(|values| f64::from(values[channel]));
                let factor = if fused {
                    (f64::from(case.x[index]) - mean) * rstd
                } else {
                    of(index)
                };
                of(index) * factor
            });
            let second = sum_difference(&sums.second, inputs, seconds);
            assert!(first.max(second) < 1e-5, "{first:e} {second:e}");
        }
    });
}

#[test]
fn backward_weights_is_the_adjoint() {
    on_each(|convolver, case| {
        for fused in [false, true] {
            let mut truth = vec![0.0; case.weights.len()];
            products(case.geometry, |to, from, weight| {
                truth[weight] += case.input(from, fused) * case.output_gradient(to, fused);
            });
            let mut dw = Aligned::zeros(truth.len());
            let dy = if fused {
                case.gradient()
            } else {
                Gradient::Plain(&case.dy)
            };
            let activation = fused.then(|| case.activation());
            convolver.backward_weights(case.geometry, &case.x, activation, dy, &mut dw);
            let error = difference(&dw, &truth);
            assert!(
                error < 5e-6,
                "{:?} {:?}: {error:e}",
                convolver.isa,
                case.geometry
            );
        }
    });
}

/// The relative Euclidean distance.
fn distance(values: &[f32], truth: &[f32]) -> f64 {
    let square = |value: f64| value * value;
    let pairs = || {
        values
            .iter()
            .zip(truth)
            .map(|(&a, &b)| (f64::from(a), f64::from(b)))
    };
    let apart: f64 = pairs().map(|(a, b)| square(a - b)).sum();
    (apart / pairs().map(|(_, b)| square(b)).sum::<f64>()).sqrt()
}

#[test]
fn bf16_is_near() {
    let [mut full, mut narrow] = [Convolver::default(), Convolver::default().in_bf16()];
    let rounded = |isa| Convolver::new(isa).rounding_to_bf16();
    let mut others: Vec<Convolver> = Isa::available().into_iter().map(rounded).collect();
    for geometry in SHAPES {
        let case = Case::new(geometry);
        let run = |convolver: &mut Convolver| {
            let [mut y, mut da, mut dw] =
                [&case.y, &case.x, &case.weights].map(|like| Aligned::zeros(like.len()));
            let (x, weights, dy) = (&case.x, &case.weights, case.gradient());
            let activation = Some(case.activation());
            convolver.forward(geometry, x, activation, weights, None, &mut y, None);
            convolver.backward_data(geometry, dy, weights, None, &mut da, None);
            convolver.backward_weights(geometry, x, activation, dy, &mut dw);
            [y, da, dw]
        };
        for (narrow, full) in run(&mut narrow).iter().zip(&run(&mut full)) {
            let distance = distance(narrow, full);
            assert!(
                (1e-4..2e-2).contains(&distance),
                "{geometry:?}: {distance:e}"
            );
        }
        // The same operands in other instructions: only sums are rounded otherwise.
        let expected = run(&mut narrow);
        for other in &mut others {
            for (found, expected) in run(other).iter().zip(&expected) {
                let distance = distance(found, expected);
                assert!(
                    distance < 5e-4,
                    "{geometry:?}, {:?}: {distance:e}",
                    other.isa
                );
            }
        }
    }
}

#[test]
fn rounding_to_bf16_is_to_nearest_even() {
    let one_and = |bits: u32| f32::from_bits(1f32.to_bits() + bits);
    let cases = [
        (one_and(0x7fff), 1.0),
        (one_and(0x8000), 1.0),
        (one_and(0x8001), one_and(0x1_0000)),
        (one_and(0x1_8000), one_and(0x2_0000)),
        (-one_and(0x1_7fff), -one_and(0x1_0000)),
        (f32::MAX, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        (-0.0, -0.0),
        (f32::from_bits(0x7fff_ffff), f32::NAN),
        (f32::from_bits(0xff80_0001), f32::NAN),
    ];
    for isa in Isa::available() {
        for (value, expected) in cases {
            let mut found = [0.0f32; LANES];
            let to = found.as_mut_ptr();
            // SAFETY: the machine has `isa`, and there is room for sixteen numbers.
            unsafe { run(isa, Round { value, to }) };
            for found in found {
                let same = found.to_bits() == expected.to_bits();
                assert!(
                    same || found.is_nan() && expected.is_nan(),
                    "{isa:?} {value}: {found}"
                );
            }
        }
    }

    struct Round {
        value: f32,
        to: *mut f32,
    }

    impl lanes::Pass for Round {
        #[inline(always)]
        unsafe fn run<L: lanes::Lanes>(self) {
            // SAFETY: as the caller promised.
            unsafe { L::splat(self.value).round_to_bf16().store(self.to) }
        }
    }
}

#[test]
fn threads_change_nothing() {
    let case = Case::new(Geometry {
        batch: 7,
        height: 16,
        width: 16,
        inputs: 128,
        outputs: 64,
    });
    for mut convolver in [Convolver::default(), Convolver::default().in_bf16()] {
        let mut results = Vec::new();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let [mut y, mut da, mut dw] =
                [&case.y, &case.x, &case.weights].map(|like| Aligned::zeros(like.len()));
            let [mut of_y, mut of_da] = [Sums::default(), Sums::default()];
            pool.install(|| {
                let (geometry, x, weights) = (case.geometry, &case.x, &case.weights);
                let (activation, dy) = (Some(case.activation()), case.gradient());
                let (mask, residual) = (Some(case.mask()), Some(&*case.residual));
                convolver.forward(
                    geometry,
                    x,
                    activation,
                    weights,
                    residual,
                    &mut y,
                    Some(&mut of_y),
                );
                convolver.backward_data(geometry, dy, weights, mask, &mut da, Some(&mut of_da));
                convolver.backward_weights(geometry, x, activation, dy, &mut dw);
            });
            results.push((y.to_vec(), da.to_vec(), dw.to_vec(), of_y, of_da));
        }
        assert!(results[0] == results[1]);
    }
}
