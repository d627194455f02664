//! A network small enough to follow by hand.

use tch::{Kind, Tensor};

use super::Layers;
use super::parameters::{BatchNorm, Builder, Conv, ConvShape, Linear, Parameters};
use crate::error::Result;

/// conv3x3(3, 8) - BN - ReLU - conv3x3(8, 16, stride 2) - BN - ReLU - global mean - linear.
pub(super) struct Proxy {
    conv1: Conv,
    norm1: BatchNorm,
    conv2: Conv,
    norm2: BatchNorm,
    linear: Linear,
}

impl Proxy {
    pub(super) fn new(builder: &mut Builder, classes: i64) -> Self {
        Self {
            conv1: builder.conv(
                "conv1",
                ConvShape {
                    inputs: 3,
                    outputs: 8,
                    kernel: 3,
                    stride: 1,
                },
            ),
            norm1: builder.batch_norm("bn1", 8),
            conv2: builder.conv(
                "conv2",
                ConvShape {
                    inputs: 8,
                    outputs: 16,
                    kernel: 3,
                    stride: 2,
                },
            ),
            norm2: builder.batch_norm("bn2", 16),
            linear: builder.linear("linear", 16, classes),
        }
    }
}

impl Layers for Proxy {
    fn forward(&self, p: &Parameters, images: &Tensor) -> Result<Tensor> {
        let x = self
            .norm1
            .forward_relu(p, &self.conv1.forward(p, images)?)?;
        let x = self.norm2.forward_relu(p, &self.conv2.forward(p, &x)?)?;
        self.linear
            .forward(p, &x.f_mean_dim([2i64, 3].as_slice(), false, None::<Kind>)?)
    }
}
