//! Everything a search needs to go on as if it had never stopped.
//!
//! One safetensors file, replaced as a whole after each epoch. Numbers keep their exact bits:
//! the policy's in f64, the network's in the kind it computes in.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use ddas_formats::Snapshot;
use tch::{Device, Kind, Tensor};

use crate::adam::{Adam, AdamState};
use crate::dead_gradient::DeadSteps;
use crate::epoch::EpochProgress;
use crate::error::{Error, Result};
use crate::policy_parameters::PolicyParameters;
use crate::search::Search;

/// Raised when the meaning of a tensor changes.
const VERSION: i64 = 4;
/// Read, too, but for TorchScript modules.
const WITHOUT_MODULES: i64 = 3;

impl Search {
    /// Writes the state between two steps; the file is the old one or the new one, never a part.
    ///
    /// Valid in an observer's `epoch` and when [`Search::run`] has returned without an error.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Torch`] when the file cannot be written.
    pub fn save_checkpoint(&self, path: &Path) -> Result<()> {
        let vector = |values: &[f64]| Tensor::f_from_slice(values);
        let totals: Vec<f64> = self
            .snapshots()
            .iter()
            .map(Snapshot::total_probability)
            .collect();
        let operations: Vec<f64> = self
            .snapshots()
            .iter()
            .flat_map(|snapshot| snapshot.operation_probabilities().iter().copied())
            .collect();
        let (total, operation) = (self.total_adam.state(), self.operation_adam.state());
        let current = &self.current;
        let numbers = [
            VERSION,
            total.steps as i64,
            operation.steps as i64,
            i64::from(current.steps),
            current.correct as i64,
            i64::from(current.uncounted_steps),
            i64::from(current.dead.idle_steps),
            i64::from(current.dead.dead_training_steps),
            i64::from(current.dead.dead_validation_steps),
            i64::from(current.dead.flat_operation_steps),
        ];
        let sums = [
            current.train_loss,
            current.validation_loss,
            current.initial_total,
        ];
        let mut tensors = vec![
            ("numbers", Tensor::f_from_slice(&numbers)?),
            (
                "network",
                self.network.parameters().flat().f_to_device(Device::Cpu)?,
            ),
            ("total_logit", vector(&[self.parameters.total_logit()])?),
            (
                "operation_logits",
                vector(self.parameters.operation_logits())?,
            ),
            ("total_adam.first", vector(&total.first)?),
            ("total_adam.second", vector(&total.second)?),
            ("operation_adam.first", vector(&operation.first)?),
            ("operation_adam.second", vector(&operation.second)?),
            ("snapshots.total_probability", vector(&totals)?),
            ("snapshots.operation_probabilities", vector(&operations)?),
        ];
        tensors.push(("epoch.sums", vector(&sums)?));
        if current.steps > 0 {
            let operations = vector(&current.initial_operations)?;
            tensors.push(("epoch.initial_operations", operations));
        }
        if let Some(module) = self.network.save_module()? {
            tensors.push(("module", Tensor::f_from_slice(&module)?));
        }
        if let Some(velocity) = self.sgd.velocity() {
            tensors.push(("velocity", velocity.f_to_device(Device::Cpu)?));
        }
        let temporary = path.with_extension("tmp");
        Tensor::write_safetensors(&tensors, &temporary)?;
        File::open(&temporary)
            .and_then(|file| file.sync_all())
            .map_err(Error::io(&temporary, "write"))?;
        std::fs::rename(&temporary, path).map_err(Error::io(path, "write"))
    }

    /// Goes back to the state of a checkpoint written by a search with the same settings.
    ///
    /// # Errors
    /// [`Error::File`] when the file is no checkpoint of such a search; [`Error::Torch`] when it
    /// cannot be read.
    pub fn restore_checkpoint(&mut self, path: &Path) -> Result<()> {
        let fail = |problem: String| Error::File {
            path: path.to_owned(),
            problem,
        };
        let read = tch::no_grad(|| Tensor::read_safetensors(path))
            .map_err(|error| fail(format!("no readable checkpoint ({error})")))?;
        let tensors: HashMap<String, Tensor> = read.into_iter().collect();
        let tensor = |name: &str, kind: Kind| {
            let tensor = tensors
                .get(name)
                .ok_or_else(|| fail(format!("holds no `{name}`")))?;
            if tensor.kind() != kind || tensor.dim() != 1 {
                return Err(fail(format!("`{name}` is not a vector of {kind:?}")));
            }
            Ok(tensor)
        };
        let vector =
            |name: &str| -> Result<Vec<f64>> { Ok(Vec::try_from(tensor(name, Kind::Double)?)?) };
        let numbers: Vec<i64> = Vec::try_from(tensor("numbers", Kind::Int64)?)?;
        let [
            ref version @ (WITHOUT_MODULES | VERSION),
            total_steps,
            operation_steps,
            steps,
            correct,
            uncounted,
            idle,
            dead_training,
            dead_validation,
            flat,
        ] = numbers[..]
        else {
            return Err(fail(format!("is of another version: {numbers:?}")));
        };
        let adam = |adam: &mut Adam, steps: i64, name: &str| -> Result<()> {
            let state = AdamState {
                steps: steps.unsigned_abs(),
                first: vector(&format!("{name}.first"))?,
                second: vector(&format!("{name}.second"))?,
            };
            if adam.restore(state) {
                return Ok(());
            }
            Err(fail(format!("`{name}` is for another search space")))
        };
        adam(&mut self.total_adam, total_steps, "total_adam")?;
        adam(&mut self.operation_adam, operation_steps, "operation_adam")?;

        let operations = self.space.len();
        let total_logit = vector("total_logit")?;
        let operation_logits = vector("operation_logits")?;
        if total_logit.len() != 1 || operation_logits.len() != operations {
            return Err(fail("its policy is for another search space".to_owned()));
        }
        self.parameters = PolicyParameters::new(total_logit[0], operation_logits)?;

        let totals = vector("snapshots.total_probability")?;
        let probabilities = vector("snapshots.operation_probabilities")?;
        if probabilities.len() != totals.len() * operations {
            return Err(fail(
                "its snapshots are for another search space".to_owned(),
            ));
        }
        self.snapshots = totals
            .iter()
            .zip(probabilities.chunks_exact(operations))
            .map(|(&total, operations)| Ok(Snapshot::new(total, operations.to_vec())?))
            .collect::<Result<_>>()?;

        let sums = vector("epoch.sums")?;
        let [train_loss, validation_loss, initial_total] = sums[..] else {
            return Err(fail("`epoch.sums` does not hold three numbers".to_owned()));
        };
        let count = |number: i64| {
            u32::try_from(number).map_err(|_| fail(format!("is damaged: {numbers:?}")))
        };
        self.current = EpochProgress {
            steps: count(steps)?,
            train_loss,
            validation_loss,
            correct: correct.unsigned_abs(),
            uncounted_steps: count(uncounted)?,
            dead: DeadSteps {
                idle_steps: count(idle)?,
                dead_training_steps: count(dead_training)?,
                dead_validation_steps: count(dead_validation)?,
                flat_operation_steps: count(flat)?,
            },
            initial_total,
            initial_operations: match steps {
                0 => Vec::new(),
                _ => vector("epoch.initial_operations")?,
            },
        };
        if self.current.steps > 0 && self.current.initial_operations.len() != operations {
            return Err(fail("its epoch is for another search space".to_owned()));
        }

        // Builds before kept the weights of a module's convolutions in another order.
        if tensors.contains_key("module") && *version < VERSION {
            return Err(fail(
                "was written by an older build, for a TorchScript module; start a new run"
                    .to_owned(),
            ));
        }
        if tensors.contains_key("module") {
            let module: Vec<u8> = Vec::try_from(tensor("module", Kind::Uint8)?)?;
            self.network.restore_module(&module)?;
        }
        let mut flat = self.network.parameters().flat().shallow_clone();
        let network = tensor("network", flat.kind())?;
        if network.size() != flat.size() {
            return Err(fail(format!(
                "its network has {} parameters, `{}` has {}",
                network.numel(),
                self.config.network,
                flat.numel()
            )));
        }
        tch::no_grad(|| flat.f_copy_(network))?;
        self.sgd.restore(match tensors.get("velocity") {
            Some(velocity) if velocity.size() == flat.size() => {
                Some(velocity.f_to_device(self.device)?)
            }
            Some(_) => return Err(fail("`velocity` does not fit the network".to_owned())),
            None => None,
        });
        Ok(())
    }
}
