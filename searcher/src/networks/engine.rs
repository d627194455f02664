//! Who computes a network's gradients.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use super::native::Native;
use super::{Architecture, NetworkChoice, Precision};
use crate::error::{Error, Result};

/// What computes a network's loss and gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The native engine where there is one for network, precision, device and processor, and no
    /// faster one in libtorch.
    #[default]
    Auto,
    /// This crate's own code for wide residual networks on the CPU, with AVX2 or AVX-512; without
    /// AVX512-BF16 bf16 takes as long as f32.
    Native,
    /// libtorch: every network, precision and device.
    Libtorch,
}

impl Engine {
    /// What runs of earlier versions computed with.
    pub(crate) fn of_earlier_versions() -> Self {
        Self::Libtorch
    }

    /// What there is for these settings on this device: native or libtorch, never auto.
    ///
    /// # Errors
    /// [`Error::Setting`] when native is asked for where there is none, with the reason.
    pub(crate) fn resolve(
        self,
        network: &NetworkChoice,
        precision: Precision,
        kind: Kind,
        device: Device,
    ) -> Result<Self> {
        let wide = matches!(
            network,
            NetworkChoice::BuiltIn(Architecture::WideResNet { .. })
        );
        let obstacle = if !wide {
            Some("a wide residual network (wrn-DEPTH-WIDTH)")
        } else if device != Device::Cpu {
            Some("the CPU (`--device cpu`)")
        } else if kind != Kind::Float {
            Some("parameters of f32")
        } else {
            Native::obstacle()
        };
        match (self, obstacle) {
            (Self::Libtorch, _) | (Self::Auto, Some(_)) => Ok(Self::Libtorch),
            (Self::Auto, None) if Native::is_slower(precision) => Ok(Self::Libtorch),
            (Self::Native | Self::Auto, None) => Ok(Self::Native),
            (Self::Native, Some(wanted)) => Err(Error::Setting {
                key: "engine".to_owned(),
                problem: format!("native needs {wanted}; use auto or libtorch"),
            }),
        }
    }
}
