//! A network of the user's: a TorchScript module from a file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io, process};

use tch::{CModule, Device, Kind, Tensor};

use super::parameters::Parameters;
use crate::error::{Error, Result};

/// Samples of the batch that a module is tried with: two, for batch normalisation's sake.
const TRIAL: i64 = 2;

/// What a module's `forward` takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signature {
    /// Images to logits.
    Logits,
    /// Images and labels to one loss per sample.
    Losses,
}

/// A loaded module whose parameters are views into a [`Parameters`].
#[derive(Debug)]
pub(super) struct Module {
    path: PathBuf,
    module: CModule,
    signature: Signature,
    device: Device,
}

/// What a module makes of a batch.
pub(super) enum Output {
    Logits(Tensor),
    Losses(Tensor),
}

impl Module {
    /// Loads the module in `bytes`, the content of the file at `path`, and tries it on images of
    /// `size` pixels.
    pub(super) fn load(
        path: &Path,
        bytes: &[u8],
        classes: u32,
        size: u32,
        device: Device,
    ) -> Result<(Self, Parameters)> {
        // A profiling executor runs its first calls by other code than the later ones, so that a
        // resumed search would differ in the last digits from one that was never stopped.
        tch::jit::f_set_profiling_mode(false)?;
        tch::jit::f_set_graph_executor_optimize(false)?;
        let signature = {
            // Of its own: the trial moves running statistics.
            let (module, parameters) = open(path, bytes, device)?;
            let mut trial = Self {
                path: path.to_owned(),
                module,
                signature: Signature::Logits,
                device,
            };
            trial.try_out(&parameters, classes, size)?
        };
        let (module, parameters) = open(path, bytes, device)?;
        let module = Self {
            path: path.to_owned(),
            module,
            signature,
            device,
        };
        Ok((module, parameters))
    }

    pub(super) fn forward(&self, images: &Tensor, labels: Option<&Tensor>) -> Result<Output> {
        match (self.signature, labels) {
            (Signature::Logits, _) => {
                let output = self.call(&[images])?;
                Ok(Output::Logits(output))
            }
            (Signature::Losses, Some(labels)) => Ok(Output::Losses(self.call(&[images, labels])?)),
            (Signature::Losses, None) => Err(self.fail(
                "its forward(images, labels) gives losses, so there are no logits to be had",
            )),
        }
    }

    fn call(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.module
            .forward_ts(inputs)
            .map_err(|error| self.fail(&format!("its forward failed: {}", cause(&error))))
    }

    /// Finds the signature, and checks what the module gives.
    fn try_out(&mut self, parameters: &Parameters, classes: u32, size: u32) -> Result<Signature> {
        let side = i64::from(size);
        let images = Tensor::f_zeros([TRIAL, 3, side, side], (Kind::Float, self.device))?;
        let labels = Tensor::f_zeros([TRIAL], (Kind::Int64, self.device))?;
        let takes = format!("images of [{TRIAL}, 3, {size}, {size}]");
        self.signature = match self.module.forward_ts(&[&images]) {
            Ok(_) => Signature::Logits,
            Err(error) if error.to_string().contains("missing value for argument") => {
                Signature::Losses
            }
            Err(error) => {
                let cause = cause(&error);
                return Err(self.fail(&format!("its forward failed for {takes}: {cause}")));
            }
        };
        let (output, wanted, what) = match self.forward(&images, Some(&labels))? {
            Output::Logits(output) => (
                output,
                vec![TRIAL, i64::from(classes)],
                "one logit per sample and class of the dataset",
            ),
            Output::Losses(output) => (
                output,
                vec![TRIAL],
                "one loss per sample (no mean over the batch)",
            ),
        };
        if output.size() != wanted || !output.is_floating_point() {
            return Err(self.fail(&format!(
                "its forward gives {:?} of {:?} for {takes}; expected floats of {wanted:?}, {what}",
                output.size(),
                output.kind(),
            )));
        }
        if !output.requires_grad() {
            return Err(self.fail(
                "what its forward gives does not depend on its parameters in a way that can be \
                 differentiated; export it in training mode, without no_grad and detach",
            ));
        }
        let gradient = parameters.gradient(&output.f_sum(Kind::Float)?)?;
        if gradient.size() != parameters.flat().size() {
            return Err(self.fail("its gradient is not of the size of its parameters"));
        }
        Ok(self.signature)
    }

    /// The module as it stands, buffers included, as the content of a file.
    pub(super) fn save(&self, parameters: &Parameters) -> Result<Vec<u8>> {
        let folder = own_folder()?;
        let path = folder.join("module.pt");
        // Saving writes a view with all of its memory, once per view: each parameter gets memory
        // of its own meanwhile.
        let saved = parameters.detach_views().and_then(|()| {
            let saved = self.module.save(&path);
            parameters.attach_views()?;
            saved?;
            fs::read(&path).map_err(Error::io(path.clone(), "read"))
        });
        let _ = fs::remove_dir_all(&folder);
        saved
    }

    /// Goes back to a state written by [`Module::save`].
    pub(super) fn restore(&mut self, bytes: &[u8]) -> Result<Parameters> {
        let (module, parameters) = open(&self.path, bytes, self.device)?;
        self.module = module;
        Ok(parameters)
    }

    fn fail(&self, problem: &str) -> Error {
        fail(&self.path, problem.to_owned())
    }
}

/// A new folder for what libtorch saves, which it does to a path alone. A killed search leaves
/// its own behind, and numbers of processes come again.
fn own_folder() -> Result<PathBuf> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("ddas-search-{}-{number}", process::id());
        let folder = std::env::temp_dir().join(name);
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io(folder, "create")(error)),
        }
    }
}

fn fail(path: &Path, problem: String) -> Error {
    Error::File {
        path: path.to_owned(),
        problem,
    }
}

/// The module in training mode, and its trainable parameters in one vector.
fn open(path: &Path, bytes: &[u8], device: Device) -> Result<(CModule, Parameters)> {
    let mut module = CModule::load_data_on_device(&mut std::io::Cursor::new(bytes), device)
        .map_err(|error| {
            let cause = cause(&error);
            fail(
                path,
                format!("no TorchScript module ({cause}); write one with torch.jit.script(model).save(path)"),
            )
        })?;
    module.f_set_train()?;
    let all = module.named_parameters()?;
    let count = all.len();
    let trainable: Vec<(String, Tensor)> = all
        .into_iter()
        .filter(|(_, tensor)| tensor.requires_grad())
        .collect();
    if trainable.is_empty() {
        let problem = match count {
            0 => "has no parameters; a frozen module (torch.jit.freeze) has none, export it unfrozen and in training mode".to_owned(),
            _ => format!("none of its {count} parameters is trainable (requires_grad is false for all)"),
        };
        return Err(fail(path, problem));
    }
    if let Some((name, tensor)) = trainable
        .iter()
        .find(|(_, tensor)| tensor.kind() != Kind::Float)
    {
        return Err(fail(
            path,
            format!(
                "parameter `{name}` is of {:?}; expected float32 (model.float())",
                tensor.kind()
            ),
        ));
    }
    let parameters = Parameters::adopt(trainable).map_err(|error| match error {
        Error::Invalid(problem) => fail(path, problem),
        other => other,
    })?;
    Ok((module, parameters))
}

/// The line of libtorch's message that says what went wrong.
fn cause(error: &tch::TchError) -> String {
    let text = error.to_string();
    let line = text
        .lines()
        .rev()
        .find(|line| line.contains("Error: "))
        .or_else(|| text.lines().next())
        .unwrap_or_default();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `tests/modules/make.py`.
    fn load(name: &str) -> (Module, Parameters) {
        let path = format!("{}/tests/modules/{name}.pt", env!("CARGO_MANIFEST_DIR"));
        let bytes = fs::read(&path).unwrap();
        Module::load(Path::new(&path), &bytes, 2, 12, Device::Cpu).unwrap()
    }

    #[test]
    fn a_parameter_with_two_names_counts_once_and_filters_keep_their_order() {
        let (module, parameters) = load("tied");
        // A 6 x 6 matrix under two names, filters of 6 x 3 x 4 x 4, a linear layer to 2.
        assert_eq!(parameters.count(), 36 + 288 + 12 + 2);
        let images = Tensor::rand([4, 3, 12, 12], (Kind::Float, Device::Cpu));
        let Output::Logits(before) = module.forward(&images, None).unwrap() else {
            panic!("gives logits");
        };
        // Moved through the vector, the module moves.
        let gradient = parameters.gradient(&before.sum(Kind::Float)).unwrap();
        let step = 1e-3;
        tch::no_grad(|| {
            let mut flat = parameters.flat().shallow_clone();
            let _ = flat.f_sub_(&(&gradient * step)).unwrap();
        });
        let Output::Logits(after) = module.forward(&images, None).unwrap() else {
            panic!("gives logits");
        };
        let moved = (before - after).sum(Kind::Float).double_value(&[]) / step;
        let wanted = gradient.square().sum(Kind::Float).double_value(&[]);
        assert!((moved / wanted - 1.0).abs() < 0.05, "{moved} {wanted}");
    }
}
