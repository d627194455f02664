//! Proxy networks: what a search trains to judge policies by.

mod engine;
mod module;
mod native;
mod parameters;
mod proxy;
mod resnet;
mod wide_resnet;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

pub use engine::Engine;
pub use parameters::Parameters;

use crate::error::{Error, Result};

/// A network under training.
///
/// Batch normalisation uses the statistics of the batch at hand, always: a search never
/// evaluates with running statistics.
pub struct Network {
    parameters: Parameters,
    precision: Precision,
    body: Body,
    /// Instead of the body, for [`Network::differentiate`]; it works in buffers of its own.
    native: Option<Mutex<native::Native>>,
}

enum Body {
    Layers(Box<dyn Layers + Send>),
    Module(module::Module),
}

/// What a network's convolutions compute in. Parameters, statistics, logits, losses and the
/// policy's arithmetic are the same in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The kind of the parameters.
    #[default]
    F32,
    /// bfloat16 between the layers: faster on processors and GPUs that have it.
    Bf16,
}

/// The structure of a network, apart from its parameters.
trait Layers {
    /// Logits (batch x classes) of images (batch x 3 x height x width).
    fn forward(&self, parameters: &Parameters, images: &Tensor) -> Result<Tensor>;
}

impl Network {
    /// The network's parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// For [`Parameters::assign`].
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Logits (batch x classes) of normalised images (batch x 3 x height x width).
    ///
    /// # Errors
    /// [`Error::Torch`] when the images have another shape, kind or device than the network
    /// takes, or memory runs out; [`Error::File`] when a TorchScript module fails or gives no
    /// logits.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        match &self.body {
            Body::Layers(layers) => match self.precision {
                Precision::F32 => layers.forward(&self.parameters, images),
                Precision::Bf16 => {
                    let images = images.f_to_kind(Kind::BFloat16)?;
                    layers.forward(&self.parameters, &images)
                }
            },
            Body::Module(module) => match module.forward(images, None)? {
                module::Output::Logits(output) | module::Output::Losses(output) => Ok(output),
            },
        }
    }

    /// Loss of a batch, as `reduction` puts the samples' losses together, and the number of
    /// correct predictions where the network gives logits.
    pub(crate) fn loss(
        &self,
        images: &Tensor,
        labels: &Tensor,
        reduction: Reduction,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let logits = match &self.body {
            Body::Layers(_) => self.forward(images)?,
            Body::Module(module) => match module.forward(images, Some(labels))? {
                module::Output::Logits(logits) => logits,
                module::Output::Losses(losses) => {
                    let kind = losses.f_kind()?;
                    let loss = match reduction {
                        Reduction::Sum => losses.f_sum(kind)?,
                        _ => losses.f_mean(kind)?,
                    };
                    return Ok((loss, None));
                }
            },
        };
        let no_class_ignored = -100;
        let loss = logits.f_cross_entropy_loss(
            labels,
            None::<&Tensor>,
            reduction,
            no_class_ignored,
            0.0,
        )?;
        let correct = tch::no_grad(|| -> Result<Tensor> {
            let predictions = logits.f_detach()?.f_argmax(-1, false)?;
            Ok(predictions.f_eq_tensor(labels)?.f_sum(Kind::Int64)?)
        })?;
        Ok((loss, Some(correct)))
    }

    /// Losses, numbers of correct predictions and gradients of batches with the same labels, by the
    /// engine chosen. Each batch is normalised for itself.
    pub(crate) fn differentiate(
        &self,
        batches: &[&Tensor],
        labels: &Tensor,
        reduction: Reduction,
    ) -> Result<Differentiated> {
        let Some(native) = &self.native else {
            let mut losses = Vec::with_capacity(batches.len());
            let mut correct = Vec::with_capacity(batches.len());
            let mut gradients = Vec::with_capacity(batches.len());
            for images in batches {
                let (loss, right) = self.loss(images, labels, reduction)?;
                gradients.push(self.parameters.gradient(&loss)?);
                losses.push(loss.f_detach()?);
                correct.extend(right);
            }
            return Ok(Differentiated {
                losses: Tensor::f_stack(&losses, 0)?,
                correct: match correct.is_empty() {
                    true => None,
                    false => Some(Tensor::f_stack(&correct, 0)?),
                },
                gradients: Tensor::f_stack(&gradients, 0)?,
            });
        };
        let reduce = match reduction {
            Reduction::Sum => native::Reduce::Sum,
            _ => native::Reduce::Mean,
        };
        // After a panic the buffers hold numbers as good as any: all are written before use.
        let mut native = native.lock().unwrap_or_else(PoisonError::into_inner);
        let found = native.differentiate(&self.parameters, batches, labels, reduce)?;
        let (losses, correct): (Vec<f64>, Vec<i64>) = found
            .outcomes
            .iter()
            .map(|&(loss, correct)| (loss, correct as i64))
            .unzip();
        Ok(Differentiated {
            losses: Tensor::f_from_slice(&losses)?,
            correct: Some(Tensor::f_from_slice(&correct)?),
            gradients: found.gradients,
        })
    }

    /// Makes what a module draws at random (dropout) depend on `key` alone.
    pub(crate) fn begin_step(&self, key: i64) {
        if let Body::Module(_) = self.body {
            tch::manual_seed(key);
        }
    }

    /// A TorchScript module as it stands, with its buffers; none for the networks built in,
    /// which have nothing but parameters.
    pub(crate) fn save_module(&self) -> Result<Option<Vec<u8>>> {
        match &self.body {
            Body::Layers(_) => Ok(None),
            Body::Module(module) => module.save(&self.parameters).map(Some),
        }
    }

    /// Goes back to what [`Network::save_module`] gave; nothing for a network built in.
    pub(crate) fn restore_module(&mut self, bytes: &[u8]) -> Result<()> {
        if let Body::Module(module) = &mut self.body {
            self.parameters = module.restore(bytes)?;
        }
        Ok(())
    }

    /// Loads a TorchScript module: `forward(images)` gives logits (batch x `classes`), or
    /// `forward(images, labels)` one loss per sample. It is tried on images of `size` pixels and
    /// put into training mode.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::File`] when it is no TorchScript
    /// module, has no trainable float32 parameters, fails, or gives something else.
    pub fn from_module(path: &Path, classes: u32, size: u32, device: Device) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        let (module, parameters) = module::Module::load(path, &bytes, classes, size, device)?;
        Ok(Self {
            parameters,
            precision: Precision::default(),
            body: Body::Module(module),
            native: None,
        })
    }

    /// Computes in `precision` from now on; a new network computes in [`Precision::F32`].
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }
}

/// What [`Network::differentiate`] gives, a row for each batch.
#[derive(Debug)]
pub(crate) struct Differentiated {
    pub(crate) losses: Tensor,
    /// None for a network that gives losses instead of logits.
    pub(crate) correct: Option<Tensor>,
    /// In the order of [`Parameters::flat`].
    pub(crate) gradients: Tensor,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("parameters", &self.parameters.count())
            .finish()
    }
}

/// The proxy network of a search as its settings name it.
///
/// ```
/// use ddas_search::{Architecture, NetworkChoice};
///
/// let built_in: NetworkChoice = "resnet-50".parse()?;
/// assert_eq!(built_in, NetworkChoice::BuiltIn(Architecture::ResNet50));
/// let own: NetworkChoice = "models/vit.pt".parse()?;
/// assert_eq!(own, NetworkChoice::Module("models/vit.pt".into()));
/// # Ok::<(), ddas_search::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkChoice {
    /// One of those in this crate.
    BuiltIn(Architecture),
    /// A TorchScript module of the user's, by its file (`.pt`, `.pth` or `.ts`).
    Module(PathBuf),
}

impl FromStr for NetworkChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let is_module = [".pt", ".pth", ".ts"]
            .iter()
            .any(|extension| name.len() > extension.len() && name.ends_with(extension));
        match is_module {
            true => Ok(Self::Module(name.into())),
            false => name.parse().map(Self::BuiltIn),
        }
    }
}

impl NetworkChoice {
    /// The file of a module; none for a network built in.
    pub fn module(&self) -> Option<&Path> {
        match self {
            Self::BuiltIn(_) => None,
            Self::Module(path) => Some(path),
        }
    }

    /// Has `network`, which this choice has made for `classes` classes, computed natively, by
    /// `threads` threads.
    ///
    /// # Errors
    /// [`Error::Setting`] when it is no wide residual network; [`Error::Invalid`] when the threads
    /// cannot be started.
    pub(crate) fn compute_natively(
        &self,
        network: &mut Network,
        classes: u32,
        threads: usize,
    ) -> Result<()> {
        let &Self::BuiltIn(Architecture::WideResNet { depth, width }) = self else {
            let kind = Kind::Float;
            let device = network.parameters.flat().device();
            Engine::Native.resolve(self, network.precision, kind, device)?;
            return Ok(());
        };
        let sizes = (depth, width, classes);
        let native = native::Native::new(sizes, network.precision, threads)?;
        network.native = Some(Mutex::new(native));
        Ok(())
    }

    /// Makes or loads the network, in f32.
    ///
    /// # Errors
    /// Those of [`Architecture::build`] and [`Network::from_module`].
    pub fn build(&self, classes: u32, seed: u64, size: u32, device: Device) -> Result<Network> {
        match self {
            Self::BuiltIn(architecture) => architecture.build(classes, seed, Kind::Float, device),
            Self::Module(path) => Network::from_module(path, classes, size, device),
        }
    }
}

/// A family of networks at a size, by the name used in settings.
///
/// ```
/// use ddas_search::Architecture;
///
/// let architecture: Architecture = "wrn-40-2".parse()?;
/// assert_eq!(architecture, Architecture::WideResNet { depth: 40, width: 2 });
/// assert_eq!(architecture.to_string(), "wrn-40-2");
/// assert!("wrn-41-2".parse::<Architecture>().is_err()); // depth must be 6n + 4
/// # Ok::<(), ddas_search::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// Wide residual network with pre-activation, for images of about 32 pixels.
    WideResNet {
        /// Number of layers, `6 n + 4`.
        depth: u32,
        /// Multiple of the narrow network's channels.
        width: u32,
    },
    /// ResNet-18 as for ImageNet: images of about 224 pixels.
    ResNet18,
    /// ResNet-50 as for ImageNet.
    ResNet50,
    /// Two convolutions and a linear layer, for quick checks.
    Proxy,
}

/// What [`Architecture`] accepts, for messages.
const KNOWN: &str = "wrn-DEPTH-WIDTH (DEPTH = 6n + 4 up to 1000, WIDTH up to 100; the paper uses \
                     wrn-40-2), resnet-18, resnet-50, proxy, or the file of a TorchScript module \
                     (.pt, .pth, .ts)";

impl FromStr for Architecture {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || Error::UnknownName {
            what: "network",
            given: name.to_owned(),
            known: KNOWN.into(),
        };
        match name {
            "resnet-18" => return Ok(Self::ResNet18),
            "resnet-50" => return Ok(Self::ResNet50),
            "proxy" => return Ok(Self::Proxy),
            _ => {}
        }
        let (depth, width) = name
            .strip_prefix("wrn-")
            .and_then(|sizes| sizes.split_once('-'))
            .ok_or_else(unknown)?;
        let depth: u32 = depth.parse().map_err(|_| unknown())?;
        let width: u32 = width.parse().map_err(|_| unknown())?;
        let sound = (10..=1000).contains(&depth) && depth % 6 == 4 && (1..=100).contains(&width);
        if sound {
            Ok(Self::WideResNet { depth, width })
        } else {
            Err(unknown())
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WideResNet { depth, width } => write!(f, "wrn-{depth}-{width}"),
            Self::ResNet18 => f.write_str("resnet-18"),
            Self::ResNet50 => f.write_str("resnet-50"),
            Self::Proxy => f.write_str("proxy"),
        }
    }
}

impl Architecture {
    /// Makes the network with initial weights that depend on `seed` alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `classes` is 0; [`Error::Torch`] when memory runs out.
    ///
    /// ```
    /// use ddas_search::Architecture;
    /// use tch::{Device, Kind, Tensor};
    ///
    /// let network = Architecture::Proxy.build(10, 0, Kind::Float, Device::Cpu)?;
    /// let images = Tensor::zeros([4, 3, 16, 16], (Kind::Float, Device::Cpu));
    /// assert_eq!(network.forward(&images)?.size(), [4, 10]);
    /// # Ok::<(), ddas_search::Error>(())
    /// ```
    pub fn build(self, classes: u32, seed: u64, kind: Kind, device: Device) -> Result<Network> {
        if classes == 0 {
            return Err(Error::Invalid(
                "a network needs at least one class".to_owned(),
            ));
        }
        let classes = i64::from(classes);
        let mut builder = parameters::Builder::new();
        let layers: Box<dyn Layers + Send> = match self {
            Self::WideResNet { depth, width } => Box::new(wide_resnet::WideResNet::new(
                &mut builder,
                depth,
                width,
                classes,
            )),
            Self::ResNet18 => Box::new(resnet::ResNet::resnet18(&mut builder, classes)),
            Self::ResNet50 => Box::new(resnet::ResNet::resnet50(&mut builder, classes)),
            Self::Proxy => Box::new(proxy::Proxy::new(&mut builder, classes)),
        };
        Ok(Network {
            parameters: builder.finish(seed, kind, device)?,
            precision: Precision::default(),
            body: Body::Layers(layers),
            native: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, classes: u32) -> usize {
        let architecture: Architecture = name.parse().unwrap();
        architecture
            .build(classes, 0, Kind::Float, Device::Cpu)
            .unwrap()
            .parameters()
            .count()
    }

    #[test]
    fn parameter_counts_equal_the_published_ones() {
        // Zagoruyko's reference implementation: 2.2 M, 8.7 M (WRN-16-8 has 11.0 M).
        assert_eq!(count("wrn-40-2", 10), 2_243_546);
        assert_eq!(count("wrn-16-8", 10), 10_961_370);
        // torchvision 0.26: resnet18().
        assert_eq!(count("resnet-18", 1000), 11_689_512);
        // torchvision 0.26: resnet50().
        assert_eq!(count("resnet-50", 1000), 25_557_032);
        // conv 216 + bn 16 + conv 1152 + bn 32 + linear 170.
        assert_eq!(count("proxy", 10), 1_586);
    }

    #[test]
    fn every_network_gives_logits_and_gradients_of_the_right_shape() {
        for (name, side) in [
            ("wrn-10-1", 32),
            ("wrn-16-2", 33),
            ("resnet-18", 64),
            ("resnet-50", 32),
            ("proxy", 8),
        ] {
            let architecture: Architecture = name.parse().unwrap();
            let network = architecture.build(7, 3, Kind::Float, Device::Cpu).unwrap();
            let images = Tensor::randn([4, 3, side, side], (Kind::Float, Device::Cpu));
            let logits = network.forward(&images).unwrap();
            assert_eq!(logits.size(), [4, 7], "{name}");
            let labels = Tensor::from_slice(&[0i64, 3, 6, 1]);
            let loss = logits.cross_entropy_for_logits(&labels);
            let gradient = network.parameters().gradient(&loss).unwrap();
            assert_eq!(gradient.size(), [network.parameters().count() as i64]);
            assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
        }
    }

    #[test]
    fn bfloat16_gives_nearly_the_same_gradient() {
        tch::manual_seed(1);
        // Noise instead of photographs: gradients without a common direction, the worst case.
        for (name, side) in [("wrn-16-2", 32), ("resnet-18", 64)] {
            let architecture: Architecture = name.parse().unwrap();
            let images = Tensor::randn([16, 3, side, side], (Kind::Float, Device::Cpu));
            let labels = Tensor::randint(10, [16], (Kind::Int64, Device::Cpu));
            let gradient = |precision| {
                let network = architecture.build(10, 3, Kind::Float, Device::Cpu).unwrap();
                let network = network.with_precision(precision);
                let logits = network.forward(&images).unwrap();
                assert_eq!(logits.kind(), Kind::Float);
                let loss = logits.cross_entropy_for_logits(&labels);
                network.parameters().gradient(&loss).unwrap()
            };
            let (full, half) = (gradient(Precision::F32), gradient(Precision::Bf16));
            assert_eq!(half.kind(), Kind::Float);
            assert_ne!(full, half, "{name}: computed in bfloat16");
            let cosine = full.dot(&half) / (full.norm() * half.norm());
            assert!(cosine.double_value(&[]) > 0.9, "{name}: {cosine:?}");
        }
    }

    #[test]
    fn the_flat_vector_and_the_layers_share_their_memory() {
        let mut network = Architecture::Proxy
            .build(10, 1, Kind::Double, Device::Cpu)
            .unwrap();
        let images = Tensor::randn([2, 3, 8, 8], (Kind::Double, Device::Cpu));
        let before = network.forward(&images).unwrap();
        let _ = tch::no_grad(|| network.parameters().flat().shallow_clone().fill_(0.0));
        let zero = network.forward(&images).unwrap();
        assert_eq!(zero.abs().max().double_value(&[]), 0.0);
        assert!(before.abs().max().double_value(&[]) > 0.0);

        let bias = Tensor::arange(10, (Kind::Double, Device::Cpu));
        network
            .parameters_mut()
            .assign("linear.bias", &bias)
            .unwrap();
        assert_eq!(
            network
                .parameters()
                .flat()
                .sum(Kind::Double)
                .double_value(&[]),
            45.0
        );
        assert!(
            network
                .parameters_mut()
                .assign("linear.weight", &bias)
                .is_err()
        );
        assert!(network.parameters_mut().assign("missing", &bias).is_err());
    }

    #[test]
    fn initial_weights_depend_on_the_seed_alone() {
        let flat = |seed, kind| {
            let network = Architecture::Proxy
                .build(10, seed, kind, Device::Cpu)
                .unwrap();
            network.parameters().flat().to_kind(Kind::Float)
        };
        assert_eq!(flat(5, Kind::Float), flat(5, Kind::Double));
        assert_ne!(flat(5, Kind::Float), flat(6, Kind::Float));
    }

    #[test]
    fn names_of_networks_round_trip_and_wrong_ones_are_explained() {
        for name in [
            "wrn-40-2",
            "wrn-10-1",
            "wrn-28-10",
            "resnet-18",
            "resnet-50",
            "proxy",
        ] {
            assert_eq!(name.parse::<Architecture>().unwrap().to_string(), name);
        }
        for name in [
            "wrn-4-1", "wrn-12-1", "wrn-16-0", "wrn-16", "wrn--1", "vgg", "",
        ] {
            let error = name.parse::<Architecture>().unwrap_err().to_string();
            assert!(error.contains("wrn-DEPTH-WIDTH"), "{error}");
        }
    }
}
