//! The native engine against libtorch's autograd on the same network.

use ddas_runtime::{SampleRng, Stream};
use tch::{Device, Kind, Reduction, Tensor};

use super::convolve::Convolve;
use super::reference::Reference;
use super::*;
use crate::networks::{Architecture, Network};

/// Numbers between -1 and 1.
pub(super) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = SampleRng::new(seed, 0, 0, Stream::Search);
    (0..count).map(|_| rng.between(-1.0, 1.0) as f32).collect()
}

const CLASSES: u32 = 7;

/// A network whose normalisations are not the identity, the same in f32 and f64, and a batch.
struct Case {
    depth: u32,
    width: u32,
    single: Network,
    double: Network,
    images: Tensor,
    labels: Tensor,
}

/// Of one batch.
struct Found {
    loss: f64,
    correct: usize,
    gradient: Tensor,
}

impl Case {
    fn new(depth: u32, width: u32, batch: i64, height: i64, side: i64) -> Self {
        let architecture = Architecture::WideResNet { depth, width };
        let build = |kind| architecture.build(CLASSES, 3, kind, Device::Cpu).unwrap();
        let (single, double) = (build(Kind::Float), build(Kind::Double));
        let count = single.parameters().count();
        let noise = Tensor::from_slice(&numbers(1, count)) * 0.1;
        tch::no_grad(|| {
            let _ = single
                .parameters()
                .flat()
                .shallow_clone()
                .f_add_(&noise)
                .unwrap();
            let mut flat = double.parameters().flat().shallow_clone();
            flat.f_copy_(single.parameters().flat()).unwrap();
        });
        let length = (batch * 3 * height * side) as usize;
        let images = Tensor::from_slice(&numbers(2, length)).view([batch, 3, height, side]);
        let labels: Vec<i64> = (0..batch).map(|n| n * 5 % i64::from(CLASSES)).collect();
        Self {
            depth,
            width,
            single,
            double,
            images: images + 0.2,
            labels: Tensor::from_slice(&labels),
        }
    }

    fn native(&self, threads: usize, reference: bool) -> Native {
        let isa = Isa::detect().expect("tests of the native engine need AVX2");
        let convolver = || -> Box<dyn Convolve + Send> {
            match reference {
                true => Box::new(Reference),
                false => convolve::convolver(isa, Precision::F32),
            }
        };
        let sizes = (self.depth as usize, self.width as usize, CLASSES as usize);
        Native::with_convolvers(isa, sizes, threads, convolver).unwrap()
    }

    fn differentiate(&self, native: &mut Native, reduce: Reduce) -> Found {
        let parameters = self.single.parameters();
        let found = native
            .differentiate(parameters, &[&self.images], &self.labels, reduce)
            .unwrap();
        let (loss, correct) = found.outcomes[0];
        Found {
            loss,
            correct,
            gradient: found.gradients.view(-1),
        }
    }

    /// Loss, correct predictions and gradient by autograd.
    fn wanted(&self, network: &Network, reduce: Reduce) -> (f64, i64, Tensor) {
        let images = self.images.to_kind(network.parameters().flat().kind());
        let logits = network.forward(&images).unwrap();
        let reduction = match reduce {
            Reduce::Sum => Reduction::Sum,
            Reduce::Mean => Reduction::Mean,
        };
        let loss = logits.cross_entropy_loss(&self.labels, None::<&Tensor>, reduction, -100, 0.0);
        let correct = logits
            .argmax(-1, false)
            .eq_tensor(&self.labels)
            .sum(Kind::Int64);
        let gradient = network.parameters().gradient(&loss).unwrap();
        let number = |tensor: &Tensor| Vec::<f64>::try_from(tensor.to_kind(Kind::Double).view(1));
        let correct = Vec::<i64>::try_from(correct.view(1)).unwrap()[0];
        (number(&loss).unwrap()[0], correct, gradient)
    }
}

/// Length of the difference relative to the length of what is wanted.
fn relative(found: &Tensor, wanted: &Tensor) -> f64 {
    let difference = found.to_kind(Kind::Double) - wanted.to_kind(Kind::Double);
    (difference.norm() / wanted.to_kind(Kind::Double).norm()).double_value(&[])
}

/// Depth, width, batch, height and width of the images: odd sizes, a batch of one, sides that are
/// no multiple of a tile, shortcuts of all kinds.
const CASES: [(u32, u32, i64, i64, i64); 5] = [
    (10, 1, 1, 33, 33),
    (10, 2, 3, 15, 14),
    (16, 2, 2, 17, 13),
    (10, 1, 7, 8, 8),
    (10, 3, 5, 9, 5),
];

/// Both reductions would only differ by a factor behind the loss.
fn reduce_of(batch: i64) -> Reduce {
    match batch % 2 {
        0 => Reduce::Mean,
        _ => Reduce::Sum,
    }
}

fn compare(case: &Case, native: &mut Native, reduce: Reduce, bound: f64) {
    let found = case.differentiate(native, reduce);
    let (loss, correct, gradient) = case.wanted(&case.double, reduce);
    let name = format!(
        "wrn-{}-{}, {:?}, {reduce:?}",
        case.depth,
        case.width,
        case.images.size()
    );
    let gap = relative(&found.gradient, &gradient);
    assert!(gap < bound, "{name}: gradient off by {gap:.2e}");
    let gap = (found.loss - loss).abs() / loss;
    assert!(gap < bound, "{name}: loss off by {gap:.2e}");
    assert_eq!(found.correct as i64, correct, "{name}");
}

#[test]
fn with_the_convolutions_by_definition_the_gradient_is_that_of_f64() {
    for (depth, width, batch, height, side) in CASES {
        let case = Case::new(depth, width, batch, height, side);
        compare(&case, &mut case.native(2, true), reduce_of(batch), 3e-6);
    }
}

/// Winograd's transform loses about a digit against the definition; the bound is that of
/// `docs/search.md`.
#[test]
fn the_gradient_is_that_of_f64_to_within_the_stated_bound() {
    for (depth, width, batch, height, side) in CASES {
        let case = Case::new(depth, width, batch, height, side);
        compare(&case, &mut case.native(2, false), reduce_of(batch), 1e-4);
    }
    let case = Case::new(16, 2, 4, 30, 28);
    compare(&case, &mut case.native(2, false), Reduce::Sum, 1e-4);
}

#[test]
fn in_bf16_the_gradient_is_nearly_as_good_as_libtorchs() {
    for (depth, width, batch, height, side) in [(10, 1, 7, 32, 32), (16, 2, 8, 17, 30)] {
        let case = Case::new(depth, width, batch, height, side);
        let sizes = (depth, width, CLASSES);
        let mut native = Native::new(sizes, Precision::Bf16, 2).unwrap();
        let found = case.differentiate(&mut native, Reduce::Sum).gradient;
        let (_, _, exact) = case.wanted(&case.double, Reduce::Sum);
        let single = case.wanted(&case.single, Reduce::Sum).2;
        assert_ne!(found, single, "computed in bf16");
        let case = Case {
            single: case.single.with_precision(Precision::Bf16),
            ..case
        };
        let libtorch = case.wanted(&case.single, Reduce::Sum).2;
        let (mine, theirs) = (relative(&found, &exact), relative(&libtorch, &exact));
        // Noise instead of photographs, the worst case: theirs is about a quarter of the gradient.
        assert!(mine < 2.0 * theirs, "{mine:.3} beside {theirs:.3}");
    }
}

#[test]
fn neither_threads_nor_earlier_batches_change_a_bit() {
    let case = Case::new(16, 2, 7, 18, 22);
    let wanted = case.differentiate(&mut case.native(1, false), Reduce::Sum);
    for threads in [2, 3] {
        let mut native = case.native(threads, false);
        // Larger, then smaller than what follows: buffers hold other numbers.
        for other in [Case::new(16, 2, 9, 19, 23), Case::new(16, 2, 2, 8, 8)] {
            other.differentiate(&mut native, Reduce::Mean);
        }
        let found = case.differentiate(&mut native, Reduce::Sum);
        assert_eq!(found.gradient, wanted.gradient, "{threads} threads");
        assert_eq!((found.loss, found.correct), (wanted.loss, wanted.correct));
    }
}

#[test]
fn batches_together_are_as_each_alone() {
    let case = Case::new(10, 2, 3, 15, 14);
    let parameters = case.single.parameters();
    let copies: Vec<Tensor> = (0..5)
        .map(|n| &case.images * (1.0 + 0.1 * f64::from(n)))
        .collect();
    let copies: Vec<&Tensor> = copies.iter().collect();
    let alone: Vec<Differentiated> = copies
        .iter()
        .map(|images| {
            let mut native = case.native(2, false);
            native
                .differentiate(parameters, &[images], &case.labels, Reduce::Mean)
                .unwrap()
        })
        .collect();
    for threads in [1, 2, 4, 7] {
        let mut native = case.native(threads, false);
        let together = native
            .differentiate(parameters, &copies, &case.labels, Reduce::Mean)
            .unwrap();
        assert_eq!(together.gradients.size()[0], 5);
        for (number, alone) in alone.iter().enumerate() {
            assert_eq!(together.outcomes[number], alone.outcomes[0]);
            let gradient = together.gradients.get(number as i64);
            assert_eq!(gradient, alone.gradients.get(0), "{threads} threads");
        }
    }
    let none = case
        .native(2, false)
        .differentiate(parameters, &[], &case.labels, Reduce::Mean)
        .unwrap();
    assert!(none.outcomes.is_empty() && none.gradients.numel() == 0);
}

#[test]
fn a_network_that_has_diverged_gives_a_loss_that_is_not_finite() {
    let case = Case::new(10, 1, 2, 8, 8);
    let mut native = case.native(1, false);
    let wide = tch::no_grad(|| {
        case.single
            .parameters()
            .flat()
            .shallow_clone()
            .fill_(f64::NAN)
    });
    drop(wide);
    assert!(case.differentiate(&mut native, Reduce::Sum).loss.is_nan());
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new(10, 1, 2, 8, 8);
    let mut native = case.native(1, false);
    let mut refuse = |images: &Tensor, labels: &[i64], wanted: &str| {
        let labels = Tensor::from_slice(labels);
        let parameters = case.single.parameters();
        let error = native
            .differentiate(parameters, &[images], &labels, Reduce::Sum)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains(wanted), "{error}");
    };
    refuse(
        &case.images,
        &[0],
        "1 labels for images of shape [2, 3, 8, 8]",
    );
    refuse(&case.images, &[0, 7], "label 7 of 7 classes");
    refuse(&case.images, &[-1, 0], "label -1 of 7 classes");
    refuse(
        &case.images.narrow(1, 0, 1),
        &[0, 0],
        "batch x 3 x height x width",
    );
    refuse(&case.images.to_kind(Kind::Double), &[0, 0], "f32 tensors");
}

#[test]
fn the_layout_is_that_of_the_network() {
    for (depth, width) in [(10, 1), (16, 3), (40, 2)] {
        let architecture = Architecture::WideResNet { depth, width };
        let network = architecture
            .build(CLASSES, 0, Kind::Float, Device::Cpu)
            .unwrap();
        let layout = Layout::new(depth as usize, width as usize, CLASSES as usize);
        assert_eq!(layout.count(), network.parameters().count());
    }
}
