use tch::Device;

use super::*;
use crate::networks::Architecture;

const CLASSES: u32 = 5;

fn network(seed: u64) -> Network {
    Architecture::Proxy
        .build(CLASSES, seed, Kind::Double, Device::Cpu)
        .unwrap()
}

fn batch(seed: i64, policies: Vec<Vec<usize>>) -> StepBatch {
    tch::manual_seed(seed);
    let options = (Kind::Double, Device::Cpu);
    let labels = |count| Tensor::randint(i64::from(CLASSES), [count], (Kind::Int64, Device::Cpu));
    let plain = Tensor::randn([6, 3, 9, 9], options);
    let branches = policies
        .iter()
        .map(|_| &plain + 0.7 * Tensor::randn([6, 3, 9, 9], options))
        .collect();
    StepBatch {
        plain,
        branches,
        labels: labels(6),
        policies,
        validation: Tensor::randn([10, 3, 9, 9], options),
        validation_labels: labels(10),
    }
}

fn options(reduction: LossReduction) -> StepOptions {
    StepOptions {
        learning_rate: 0.1,
        reduction,
        meta_scale: 0.1,
        subtract_plain: true,
    }
}

fn assert_close(got: f64, wanted: f64, what: &str) {
    let scale = wanted.abs().max(1e-12);
    assert!(
        (got - wanted).abs() <= 1e-9 * scale,
        "{what}: {got} instead of {wanted}"
    );
}

/// The only value of a tensor (`Tensor::double_value` goes through f32).
fn number(tensor: &Tensor) -> f64 {
    Vec::<f64>::try_from(tensor.reshape([1])).unwrap()[0]
}

/// The same step with autograd through the policy as well: the network after the update is
/// a differentiable function of the logits, and the validation loss is differentiated at it.
struct Reference {
    total_logit: f64,
    operation_logits: Vec<f64>,
    validation_loss: f64,
    updated: Tensor,
    /// Of the plain gradient, the validation gradient and the updated weights.
    norms: [f64; 3],
}

/// `network` is left at the updated weights.
fn reference(
    network: &Network,
    policy: &PolicyParameters,
    batch: &StepBatch,
    eta: f64,
) -> Reference {
    let parameters = network.parameters();
    let gradient = |images: &Tensor, labels: &Tensor| {
        let logits = network.forward(images).unwrap();
        // `cross_entropy_for_logits` goes through f32.
        let loss = logits.log_softmax(-1, Kind::Double).nll_loss(labels);
        let flat = parameters.gradient(&loss).unwrap();
        (number(&loss), flat)
    };
    let plain = gradient(&batch.plain, &batch.labels).1;
    let branches: Vec<Tensor> = batch
        .branches
        .iter()
        .map(|images| gradient(images, &batch.labels).1)
        .collect();

    let logits = Tensor::from_slice(policy.operation_logits()).set_requires_grad(true);
    let total_logit = Tensor::from_slice(&[policy.total_logit()]).set_requires_grad(true);
    let probabilities = logits.softmax(-1, Kind::Double);
    let products: Vec<Tensor> = batch
        .policies
        .iter()
        .map(|operations| {
            let indices: Vec<i64> = operations.iter().map(|&k| k as i64).collect();
            let drawn = probabilities.index_select(0, &Tensor::from_slice(&indices));
            drawn.prod(Kind::Double)
        })
        .collect();
    let products = Tensor::stack(&products, 0);
    let z = products.sum(Kind::Double).detach();
    let weights = total_logit.sigmoid() * &products / z;
    // Theta after the step, as a function of the weights (equation 6).
    let shares: Vec<f64> = Vec::try_from(weights.detach()).unwrap();
    let mut expected = &plain * (1.0 - shares.iter().sum::<f64>());
    for (share, branch) in shares.iter().zip(&branches) {
        expected += branch * *share;
    }
    let _ = tch::no_grad(|| {
        parameters
            .flat()
            .shallow_clone()
            .subtract_(&(expected * eta))
    });
    let (validation_loss, at_updated) = gradient(&batch.validation, &batch.validation_labels);
    // d L_val / d weight_l = -eta <g_val, g_l - g_0>, normalised by Z_g.
    let effects: Vec<Tensor> = branches
        .iter()
        .map(|branch| (branch - &plain).dot(&at_updated) * -eta)
        .collect();
    let effects = Tensor::stack(&effects, 0).detach();
    let z_g = effects.abs().sum(Kind::Double) / eta;
    let surrogate = (weights * effects / z_g).sum(Kind::Double);
    let found = Tensor::run_backward(&[&surrogate], &[&total_logit, &logits], false, false);
    Reference {
        total_logit: number(&found[0]),
        operation_logits: Vec::try_from(&found[1]).unwrap(),
        validation_loss,
        updated: parameters.flat().copy(),
        norms: [&plain, &at_updated, parameters.flat()].map(|vector| {
            let values: Vec<f64> = Vec::try_from(vector).unwrap();
            values.iter().map(|value| value * value).sum::<f64>().sqrt()
        }),
    }
}

#[test]
fn equals_autograd_through_the_surrogate() {
    for seed in 0..4 {
        let policies = vec![vec![0, 3], vec![2, 2], vec![3, 1]];
        let batch = batch(seed, policies);
        let policy = PolicyParameters::new(-0.6, vec![0.1, -0.4, 0.3, 0.2]).unwrap();
        let wanted = reference(&network(7), &policy, &batch, 0.1);

        let network = network(7);
        let options = options(LossReduction::Mean);
        let mut sgd = Sgd::new(0.0, false, 0.0);
        let outcome = meta_step(&network, &mut sgd, &policy, &batch, &options).unwrap();
        assert_close(
            outcome.validation_loss,
            wanted.validation_loss,
            "validation loss",
        );
        assert_close(
            outcome.gradient.total_logit,
            wanted.total_logit,
            "total logit",
        );
        for (k, wanted) in wanted.operation_logits.iter().enumerate() {
            assert_close(
                outcome.gradient.operation_logits[k],
                *wanted,
                "operation logit",
            );
        }
        let norms = &outcome.norms;
        for (got, wanted) in [norms.training, norms.validation, norms.weights]
            .into_iter()
            .zip(wanted.norms)
        {
            assert_close(got, wanted, "norm");
        }
        let gap = (network.parameters().flat() - &wanted.updated).abs().max();
        assert!(gap.double_value(&[]) < 1e-12, "updated weights");
    }
}

#[test]
fn following_the_gradient_lowers_the_validation_loss_after_the_update() {
    // The definition itself, without autograd: move the policy a little against its
    // gradient, repeat the same update from the same weights, compare the losses.
    let batch = batch(11, vec![vec![0, 1], vec![2, 2], vec![3, 0]]);
    let policy = PolicyParameters::new(-0.6, vec![0.0; 4]).unwrap();
    let run = |policy: &PolicyParameters| {
        let mut sgd = Sgd::new(0.0, false, 0.0);
        meta_step(
            &network(3),
            &mut sgd,
            policy,
            &batch,
            &options(LossReduction::Mean),
        )
        .unwrap()
    };
    let outcome = run(&policy);
    let length = 0.05;
    // Along p_tp alone: Z is held constant in the gradient, and does not depend on it.
    let moved = |sign: f64| {
        let logit = policy.total_logit() - sign * length * outcome.gradient.total_logit.signum();
        run(&PolicyParameters::new(logit, vec![0.0; 4]).unwrap()).validation_loss
    };
    assert!(moved(1.0) < outcome.validation_loss);
    assert!(outcome.validation_loss < moved(-1.0));
}

#[test]
fn a_summed_loss_is_a_longer_step_in_the_same_direction() {
    let batch = batch(2, vec![vec![0, 1], vec![1, 1]]);
    let policy = PolicyParameters::uniform(2, 0.35).unwrap();
    let (summed, mean) = (network(5), network(5));
    let mut sgd = Sgd::new(0.0, false, 0.0);
    let short = StepOptions {
        learning_rate: 0.01,
        ..options(LossReduction::Sum)
    };
    let long = StepOptions {
        learning_rate: 0.06,
        ..options(LossReduction::Mean)
    };
    let a = meta_step(&summed, &mut sgd, &policy, &batch, &short).unwrap();
    let b = meta_step(&mean, &mut sgd, &policy, &batch, &long).unwrap();
    let gap = (summed.parameters().flat() - mean.parameters().flat())
        .abs()
        .max();
    assert!(gap.double_value(&[]) < 1e-12);
    assert_close(a.plain_loss, b.plain_loss, "plain loss");
    assert_close(a.validation_loss, b.validation_loss, "validation loss");
    assert_close(a.gradient.total_logit, b.gradient.total_logit, "gradient");
}

#[test]
fn a_copy_is_judged_relative_to_the_plain_one_or_alone() {
    let batch = batch(13, vec![vec![0, 1], vec![2, 2], vec![3, 0]]);
    let policy = PolicyParameters::uniform(4, 0.35).unwrap();
    let outcome = |subtract_plain| {
        let options = StepOptions {
            subtract_plain,
            ..options(LossReduction::Mean)
        };
        let mut sgd = Sgd::new(0.0, false, 0.0);
        meta_step(&network(3), &mut sgd, &policy, &batch, &options).unwrap()
    };
    let (relative, alone) = (outcome(true), outcome(false));
    assert_eq!(relative.branch_dots, alone.branch_dots);
    let dots = &alone.branch_dots;
    let plain = relative.plain_dot;
    assert_close(
        relative.gradient.z_g,
        dots.iter().map(|dot| (dot - plain).abs()).sum(),
        "Z_g of the differences",
    );
    let z_g: f64 = dots.iter().map(|dot| dot.abs()).sum();
    assert_close(alone.gradient.z_g, z_g, "Z_g of the inner products");
    // Uniform probabilities: every branch weighs a third (equation 17).
    assert_close(
        alone.gradient.total_probability,
        -0.1 * dots.iter().sum::<f64>() / z_g / 3.0,
        "gradient of p_tp",
    );
}

#[test]
fn copies_equal_to_the_plain_batch_give_a_zero_gradient() {
    let mut batch = batch(4, vec![vec![0, 1], vec![2, 0]]);
    batch.branches = batch.branches.iter().map(|_| batch.plain.copy()).collect();
    let policy = PolicyParameters::uniform(3, 0.35).unwrap();
    let mut sgd = Sgd::new(0.0, false, 0.0);
    let outcome = meta_step(
        &network(1),
        &mut sgd,
        &policy,
        &batch,
        &options(LossReduction::Mean),
    )
    .unwrap();
    assert_eq!(outcome.gradient.z_g, 0.0);
    assert_eq!(outcome.gradient.total_logit, 0.0);
    assert_eq!(outcome.gradient.operation_logits, [0.0; 3]);
}

#[test]
fn momentum_and_weight_decay_follow_pytorchs_definition() {
    for nesterov in [false, true] {
        let network = network(9);
        let mut sgd = Sgd::new(0.9, nesterov, 0.01);
        let mut value: Vec<f64> = Vec::try_from(network.parameters().flat()).unwrap();
        let mut velocity = vec![0.0; value.len()];
        for step in 0..3 {
            let gradient: Vec<f64> = (0..value.len())
                .map(|i| ((i + step) % 7) as f64 - 3.0)
                .collect();
            sgd.update(&network, Tensor::from_slice(&gradient), 0.1)
                .unwrap();
            for ((value, velocity), gradient) in value.iter_mut().zip(&mut velocity).zip(gradient) {
                let decayed = gradient + 0.01 * *value;
                *velocity = 0.9 * *velocity + decayed;
                let direction = if nesterov {
                    decayed + 0.9 * *velocity
                } else {
                    *velocity
                };
                *value -= 0.1 * direction;
            }
        }
        let gap = (network.parameters().flat() - Tensor::from_slice(&value))
            .abs()
            .max();
        assert!(gap.double_value(&[]) < 1e-12, "nesterov {nesterov}");
    }
}

#[test]
fn a_diverged_network_is_reported() {
    let batch = batch(6, vec![vec![0, 1]]);
    let policy = PolicyParameters::uniform(2, 0.35).unwrap();
    let mut sgd = Sgd::new(0.0, false, 0.0);
    let huge = StepOptions {
        learning_rate: 1e300,
        ..options(LossReduction::Mean)
    };
    let error = meta_step(&network(1), &mut sgd, &policy, &batch, &huge).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
}
