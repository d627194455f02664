//! Proxy networks: what a search trains to judge policies by.

mod parameters;
mod proxy;
mod resnet;
mod wide_resnet;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

pub use parameters::Parameters;

use crate::error::{Error, Result};

/// A network under training.
///
/// Batch normalisation uses the statistics of the batch at hand, always: a search never
/// evaluates with running statistics.
pub struct Network {
    parameters: Parameters,
    precision: Precision,
    layers: Box<dyn Layers + Send>,
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
    /// takes, or memory runs out.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        match self.precision {
            Precision::F32 => self.layers.forward(&self.parameters, images),
            Precision::Bf16 => {
                let images = images.f_to_kind(Kind::BFloat16)?;
                self.layers.forward(&self.parameters, &images)
            }
        }
    }

    /// Computes in `precision` from now on; a new network computes in [`Precision::F32`].
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("parameters", &self.parameters.count())
            .finish()
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
    /// Two convolutions and a linear layer, for quick checks.
    Proxy,
}

/// What [`Architecture`] accepts, for messages.
const KNOWN: &str = "wrn-DEPTH-WIDTH (DEPTH = 6n + 4 up to 1000, WIDTH up to 100; the paper uses \
                     wrn-40-2), resnet-18, proxy";

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
            Self::Proxy => Box::new(proxy::Proxy::new(&mut builder, classes)),
        };
        Ok(Network {
            parameters: builder.finish(seed, kind, device)?,
            precision: Precision::default(),
            layers,
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
        // conv 216 + bn 16 + conv 1152 + bn 32 + linear 170.
        assert_eq!(count("proxy", 10), 1_586);
    }

    #[test]
    fn every_network_gives_logits_and_gradients_of_the_right_shape() {
        for (name, side) in [
            ("wrn-10-1", 32),
            ("wrn-16-2", 33),
            ("resnet-18", 64),
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
        for name in ["wrn-40-2", "wrn-10-1", "wrn-28-10", "resnet-18", "proxy"] {
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
