//! ResNet-18 (He et al., 2015), as in torchvision.

use tch::{Kind, Tensor};

use super::Layers;
use super::parameters::{BatchNorm, Builder, Conv, ConvShape, Linear, Parameters};
use crate::error::Result;

/// Two 3x3 convolutions around a shortcut, rectified after the sum.
struct BasicBlock {
    conv1: Conv,
    norm1: BatchNorm,
    conv2: Conv,
    norm2: BatchNorm,
    /// Where size or number of channels change.
    downsample: Option<(Conv, BatchNorm)>,
}

impl BasicBlock {
    fn new(builder: &mut Builder, name: &str, inputs: i64, outputs: i64, stride: i64) -> Self {
        let shape = |inputs, kernel, stride| ConvShape {
            inputs,
            outputs,
            kernel,
            stride,
        };
        Self {
            conv1: builder.conv(&format!("{name}.conv1"), shape(inputs, 3, stride)),
            norm1: builder.batch_norm(&format!("{name}.bn1"), outputs),
            conv2: builder.conv(&format!("{name}.conv2"), shape(outputs, 3, 1)),
            norm2: builder.batch_norm(&format!("{name}.bn2"), outputs),
            downsample: (inputs != outputs || stride != 1).then(|| {
                let conv = builder.conv(&format!("{name}.downsample.0"), shape(inputs, 1, stride));
                (
                    conv,
                    builder.batch_norm(&format!("{name}.downsample.1"), outputs),
                )
            }),
        }
    }

    fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor> {
        let inner = self.norm1.forward_relu(p, &self.conv1.forward(p, x)?)?;
        let mut out = self.norm2.forward(p, &self.conv2.forward(p, &inner)?)?;
        let mut sum = match &self.downsample {
            Some((conv, norm)) => out.f_add_(&norm.forward(p, &conv.forward(p, x)?)?)?,
            None => out.f_add_(x)?,
        };
        Ok(sum.f_relu_()?)
    }
}

pub(super) struct ResNet {
    conv: Conv,
    norm: BatchNorm,
    blocks: Vec<BasicBlock>,
    linear: Linear,
}

impl ResNet {
    pub(super) fn resnet18(builder: &mut Builder, classes: i64) -> Self {
        let conv = builder.conv(
            "conv1",
            ConvShape {
                inputs: 3,
                outputs: 64,
                kernel: 7,
                stride: 2,
            },
        );
        let norm = builder.batch_norm("bn1", 64);
        let mut blocks = Vec::new();
        let mut inputs = 64;
        for (group, outputs) in [64, 128, 256, 512].into_iter().enumerate() {
            for number in 0..2 {
                let stride = if group > 0 && number == 0 { 2 } else { 1 };
                let name = format!("layer{}.{number}", group + 1);
                blocks.push(BasicBlock::new(builder, &name, inputs, outputs, stride));
                inputs = outputs;
            }
        }
        Self {
            conv,
            norm,
            blocks,
            linear: builder.linear("fc", inputs, classes),
        }
    }
}

impl Layers for ResNet {
    fn forward(&self, p: &Parameters, images: &Tensor) -> Result<Tensor> {
        let x = self.norm.forward_relu(p, &self.conv.forward(p, images)?)?;
        let mut x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        for block in &self.blocks {
            x = block.forward(p, &x)?;
        }
        self.linear
            .forward(p, &x.f_mean_dim([2i64, 3].as_slice(), false, None::<Kind>)?)
    }
}
