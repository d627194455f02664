//! Wide residual networks (Zagoruyko and Komodakis, 2016), as in their reference implementation.

use tch::{Kind, Tensor};

use super::Layers;
use super::parameters::{BatchNorm, Builder, Conv, ConvShape, Linear, Parameters};
use crate::error::Result;

/// Two 3x3 convolutions, each after normalisation and rectification, around a shortcut.
struct Block {
    norm1: BatchNorm,
    conv1: Conv,
    norm2: BatchNorm,
    conv2: Conv,
    /// Where the number of channels changes.
    shortcut: Option<Conv>,
}

impl Block {
    fn new(builder: &mut Builder, name: &str, inputs: i64, outputs: i64, stride: i64) -> Self {
        let shape = |inputs, kernel, stride| ConvShape {
            inputs,
            outputs,
            kernel,
            stride,
        };
        Self {
            norm1: builder.batch_norm(&format!("{name}.bn1"), inputs),
            conv1: builder.conv(&format!("{name}.conv1"), shape(inputs, 3, stride)),
            norm2: builder.batch_norm(&format!("{name}.bn2"), outputs),
            conv2: builder.conv(&format!("{name}.conv2"), shape(outputs, 3, 1)),
            shortcut: (inputs != outputs)
                .then(|| builder.conv(&format!("{name}.shortcut"), shape(inputs, 1, stride))),
        }
    }

    fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor> {
        let activated = self.norm1.forward_relu(p, x)?;
        let inner = self.conv1.forward(p, &activated)?;
        let inner = self.norm2.forward_relu(p, &inner)?;
        let mut out = self.conv2.forward(p, &inner)?;
        match &self.shortcut {
            Some(conv) => Ok(out.f_add_(&conv.forward(p, &activated)?)?),
            None => Ok(out.f_add_(x)?),
        }
    }
}

pub(super) struct WideResNet {
    conv: Conv,
    blocks: Vec<Block>,
    norm: BatchNorm,
    linear: Linear,
}

impl WideResNet {
    pub(super) fn new(builder: &mut Builder, depth: u32, width: u32, classes: i64) -> Self {
        let conv = builder.conv(
            "conv1",
            ConvShape {
                inputs: 3,
                outputs: 16,
                kernel: 3,
                stride: 1,
            },
        );
        let mut blocks = Vec::new();
        let mut inputs = 16;
        for (group, channels) in [16, 32, 64].into_iter().enumerate() {
            let outputs = channels * i64::from(width);
            for number in 0..(depth - 4) / 6 {
                let stride = if group > 0 && number == 0 { 2 } else { 1 };
                let name = format!("block{}.{number}", group + 1);
                blocks.push(Block::new(builder, &name, inputs, outputs, stride));
                inputs = outputs;
            }
        }
        let norm = builder.batch_norm("bn", inputs);
        let linear = builder.linear("linear", inputs, classes);
        Self {
            conv,
            blocks,
            norm,
            linear,
        }
    }
}

impl Layers for WideResNet {
    fn forward(&self, p: &Parameters, images: &Tensor) -> Result<Tensor> {
        let mut x = self.conv.forward(p, images)?;
        for block in &self.blocks {
            x = block.forward(p, &x)?;
        }
        let x = self.norm.forward_relu(p, &x)?;
        self.linear
            .forward(p, &x.f_mean_dim([2i64, 3].as_slice(), false, None::<Kind>)?)
    }
}
