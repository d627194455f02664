//! One step compared with the numbers of another implementation.

use std::collections::HashMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::networks::Architecture;
use crate::policy_parameters::PolicyParameters;
use crate::step::{LossReduction, Sgd, StepBatch, StepOptions, meta_step};

/// How far one result lies from the expected one.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDifference {
    /// Name of the expected tensor in the file.
    pub name: String,
    /// Largest absolute difference, divided by the largest expected absolute value (by 1 where
    /// that is 0). Infinite where shapes differ or a number is none.
    pub relative: f64,
}

/// Runs one step in f64 on the inputs of a file and compares every result with the file's.
///
/// The file is safetensors and holds, as f64 unless said otherwise: `theta.*`, the parameters of
/// [`Architecture::Proxy`]; `alpha_o` \[K\] and `alpha_tp` \[1\], the logits; `x0`, `x_aug` (one
/// more axis in front), `x_val`, `y` and `y_val` (i64); `policies` \[L, draws\] (i64); `eta` \[1\];
/// and what the step must give: `loss0`, `loss_aug`, `loss_val`, `dot0`, `dot_aug`, `z`, `z_g`,
/// `grad_p_o`, `grad_p_tp`, `grad_alpha_o`, `grad_alpha_tp`, `theta_next.*`.
///
/// # Errors
/// [`Error::File`] naming the tensor that is missing or of a wrong shape or kind.
pub fn check_step(path: &Path) -> Result<Vec<StepDifference>> {
    let file = StepFile::read(path)?;
    let parameters = file.names("theta.");
    let classes = file.tensor("theta.linear.bias", Kind::Double)?.numel() as u32;
    let mut network = Architecture::Proxy.build(classes, 0, Kind::Double, Device::Cpu)?;
    for name in &parameters {
        let value = file.tensor(&format!("theta.{name}"), Kind::Double)?;
        network
            .parameters_mut()
            .assign(name, value)
            .map_err(|error| file.fail(&error))?;
    }
    let given = network.parameters().named().count();
    if parameters.len() != given {
        return Err(file.fail(&format!("holds {} of {given} parameters", parameters.len())));
    }

    let policy = PolicyParameters::new(file.number("alpha_tp")?, file.vector("alpha_o")?)?;
    let policies: Vec<Vec<i64>> = Vec::try_from(file.tensor("policies", Kind::Int64)?)?;
    let index = |&operation: &i64| {
        usize::try_from(operation).map_err(|_| file.fail(&"`policies` holds a negative index"))
    };
    let policies = policies
        .iter()
        .map(|operations| operations.iter().map(index).collect::<Result<Vec<_>>>())
        .collect::<Result<Vec<_>>>()?;
    let batch = StepBatch {
        plain: file.tensor("x0", Kind::Double)?.shallow_clone(),
        branches: file.tensor("x_aug", Kind::Double)?.f_unbind(0)?,
        labels: file.tensor("y", Kind::Int64)?.shallow_clone(),
        policies,
        validation: file.tensor("x_val", Kind::Double)?.shallow_clone(),
        validation_labels: file.tensor("y_val", Kind::Int64)?.shallow_clone(),
    };
    let eta = file.number("eta")?;
    let options = StepOptions {
        learning_rate: eta,
        reduction: LossReduction::Mean,
        meta_scale: eta,
        subtract_plain: true,
    };
    let mut sgd = Sgd::new(0.0, false, 0.0);
    let outcome = meta_step(&network, &mut sgd, &policy, &batch, &options)?;

    let gradient = &outcome.gradient;
    let mut differences = Vec::new();
    for (name, found) in [
        ("loss0", &[outcome.plain_loss][..]),
        ("loss_aug", &outcome.branch_losses),
        ("loss_val", &[outcome.validation_loss]),
        ("dot0", &[outcome.plain_dot]),
        ("dot_aug", &outcome.branch_dots),
        ("z", &[gradient.z]),
        ("z_g", &[gradient.z_g]),
        ("grad_p_o", &gradient.operation_probabilities),
        ("grad_p_tp", &[gradient.total_probability]),
        ("grad_alpha_o", &gradient.operation_logits),
        ("grad_alpha_tp", &[gradient.total_logit]),
    ] {
        let relative = difference(found, &file.vector(name)?);
        differences.push(StepDifference {
            name: name.to_owned(),
            relative,
        });
    }
    for (name, found) in network.parameters().named() {
        let name = format!("theta_next.{name}");
        let expected = file.tensor(&name, Kind::Double)?;
        let vector = |tensor: &Tensor| -> Result<Vec<f64>> {
            Ok(Vec::try_from(tensor.f_detach()?.f_reshape([-1])?)?)
        };
        let relative = difference(&vector(found)?, &vector(expected)?);
        differences.push(StepDifference { name, relative });
    }
    Ok(differences)
}

fn difference(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let gaps = found
        .iter()
        .zip(expected)
        .map(|(found, expected)| (found - expected).abs());
    let largest = |value: f64, next: f64| {
        if next.is_nan() {
            f64::INFINITY
        } else {
            value.max(next)
        }
    };
    let gap = gaps.fold(0.0, largest);
    let scale = expected.iter().map(|value| value.abs()).fold(0.0, largest);
    match gap.is_finite() && scale.is_finite() {
        true if scale > 0.0 => gap / scale,
        true => gap,
        false => f64::INFINITY,
    }
}

/// The named tensors of a file.
struct StepFile<'a> {
    path: &'a Path,
    tensors: HashMap<String, Tensor>,
}

impl<'a> StepFile<'a> {
    fn read(path: &'a Path) -> Result<Self> {
        // The system's own words, where the file cannot be opened at all.
        let opened = std::fs::File::open(path).map_err(Error::io(path, "open"))?;
        if !opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(Error::File {
                path: path.to_owned(),
                problem: "not a file; expected a safetensors file".to_owned(),
            });
        }
        let tensors =
            tch::no_grad(|| Tensor::read_safetensors(path)).map_err(|error| Error::File {
                path: path.to_owned(),
                problem: format!("not a whole safetensors file ({error}); write it again"),
            })?;
        Ok(Self {
            path,
            tensors: tensors.into_iter().collect(),
        })
    }

    fn fail(&self, problem: &dyn std::fmt::Display) -> Error {
        Error::File {
            path: self.path.to_owned(),
            problem: problem.to_string(),
        }
    }

    /// What follows `prefix` in the names that begin with it.
    fn names(&self, prefix: &str) -> Vec<String> {
        let names = self.tensors.keys();
        names
            .filter_map(|name| name.strip_prefix(prefix))
            .map(str::to_owned)
            .collect()
    }

    fn tensor(&self, name: &str, kind: Kind) -> Result<&Tensor> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| self.fail(&format!("holds no `{name}`")))?;
        if tensor.kind() != kind {
            let found = tensor.kind();
            return Err(self.fail(&format!("`{name}` is {found:?}; expected {kind:?}")));
        }
        Ok(tensor)
    }

    fn vector(&self, name: &str) -> Result<Vec<f64>> {
        let tensor = self.tensor(name, Kind::Double)?;
        if tensor.dim() != 1 {
            return Err(self.fail(&format!("`{name}` is no vector: {:?}", tensor.size())));
        }
        Ok(Vec::try_from(tensor)?)
    }

    fn number(&self, name: &str) -> Result<f64> {
        match self.vector(name)?[..] {
            [number] => Ok(number),
            _ => Err(self.fail(&format!("`{name}` is not one number"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_expected_value() {
        assert_eq!(difference(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert_eq!(difference(&[1.0, 4.5], &[1.5, 5.0]), 0.1);
        assert_eq!(difference(&[0.25], &[0.0]), 0.25);
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(difference(&[f64::NAN, 1.0], &[1.0, 1.0]), f64::INFINITY);
        assert_eq!(difference(&[1.0], &[f64::NAN]), f64::INFINITY);
    }

    #[test]
    fn a_file_without_what_is_needed_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step.safetensors");
        std::fs::write(&path, b"no tensors").unwrap();
        assert!(
            check_step(&path)
                .unwrap_err()
                .to_string()
                .contains("step.safetensors")
        );
        let bias = Tensor::zeros([10], (Kind::Float, Device::Cpu));
        Tensor::write_safetensors(&[("theta.linear.bias", bias)], &path).unwrap();
        let error = check_step(&path).unwrap_err().to_string();
        assert!(
            error.contains("`theta.linear.bias` is Float; expected Double"),
            "{error}"
        );
        let bias = Tensor::zeros([10], (Kind::Double, Device::Cpu));
        Tensor::write_safetensors(&[("theta.linear.bias", bias)], &path).unwrap();
        assert!(
            check_step(&path)
                .unwrap_err()
                .to_string()
                .contains("1 of 8 parameters")
        );
    }
}
