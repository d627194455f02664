//! ResNet-18 and ResNet-50 (He et al., 2015), as in torchvision.

use tch::{Kind, Tensor};

use super::Layers;
use super::parameters::{BatchNorm, Builder, Conv, ConvShape, Linear, Parameters};
use crate::error::Result;

/// A convolution and the normalisation after it.
struct Normed {
    conv: Conv,
    norm: BatchNorm,
}

impl Normed {
    fn new(builder: &mut Builder, conv: &str, norm: &str, shape: ConvShape) -> Self {
        let outputs = shape.outputs;
        Self {
            conv: builder.conv(conv, shape),
            norm: builder.batch_norm(norm, outputs),
        }
    }

    fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor> {
        self.norm.forward(p, &self.conv.forward(p, x)?)
    }

    fn forward_relu(&self, p: &Parameters, x: &Tensor) -> Result<Tensor> {
        self.norm.forward_relu(p, &self.conv.forward(p, x)?)
    }
}

/// What the blocks of a network are made of.
#[derive(Clone, Copy)]
enum BlockKind {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3 and 1x1 convolutions; the last has four times the channels.
    Bottleneck,
}

/// Convolutions around a shortcut, rectified after the sum.
struct Block {
    /// All but the last are rectified.
    convolutions: Vec<Normed>,
    /// Where size or number of channels change.
    downsample: Option<Normed>,
}

impl Block {
    fn new(
        builder: &mut Builder,
        name: &str,
        kind: BlockKind,
        (inputs, channels): (i64, i64),
        stride: i64,
    ) -> Self {
        // Inputs, outputs, kernel and stride of each convolution.
        let shapes: &[(i64, i64, i64, i64)] = match kind {
            BlockKind::Basic => &[(inputs, channels, 3, stride), (channels, channels, 3, 1)],
            BlockKind::Bottleneck => &[
                (inputs, channels, 1, 1),
                (channels, channels, 3, stride),
                (channels, channels * 4, 1, 1),
            ],
        };
        let mut outputs = inputs;
        let mut convolutions = Vec::with_capacity(shapes.len());
        for (number, &(inputs, of_layer, kernel, stride)) in (1..).zip(shapes) {
            let (conv, norm) = (format!("{name}.conv{number}"), format!("{name}.bn{number}"));
            let shape = ConvShape {
                inputs,
                outputs: of_layer,
                kernel,
                stride,
            };
            convolutions.push(Normed::new(builder, &conv, &norm, shape));
            outputs = of_layer;
        }
        let downsample = (inputs != outputs || stride != 1).then(|| {
            let (conv, norm) = (
                format!("{name}.downsample.0"),
                format!("{name}.downsample.1"),
            );
            let shape = ConvShape {
                inputs,
                outputs,
                kernel: 1,
                stride,
            };
            Normed::new(builder, &conv, &norm, shape)
        });
        Self {
            convolutions,
            downsample,
        }
    }

    fn forward(&self, p: &Parameters, x: &Tensor) -> Result<Tensor> {
        let mut inner = x.shallow_clone();
        let last = self.convolutions.len() - 1;
        for layer in &self.convolutions[..last] {
            inner = layer.forward_relu(p, &inner)?;
        }
        let mut out = self.convolutions[last].forward(p, &inner)?;
        let mut sum = match &self.downsample {
            Some(layer) => out.f_add_(&layer.forward(p, x)?)?,
            None => out.f_add_(x)?,
        };
        Ok(sum.f_relu_()?)
    }
}

pub(super) struct ResNet {
    stem: Normed,
    blocks: Vec<Block>,
    linear: Linear,
}

impl ResNet {
    pub(super) fn resnet18(builder: &mut Builder, classes: i64) -> Self {
        Self::new(builder, BlockKind::Basic, [2, 2, 2, 2], classes)
    }

    pub(super) fn resnet50(builder: &mut Builder, classes: i64) -> Self {
        Self::new(builder, BlockKind::Bottleneck, [3, 4, 6, 3], classes)
    }

    fn new(builder: &mut Builder, kind: BlockKind, depths: [usize; 4], classes: i64) -> Self {
        let shape = ConvShape {
            inputs: 3,
            outputs: 64,
            kernel: 7,
            stride: 2,
        };
        let stem = Normed::new(builder, "conv1", "bn1", shape);
        let mut blocks = Vec::new();
        let mut inputs = 64;
        for ((group, channels), depth) in (1..).zip([64, 128, 256, 512]).zip(depths) {
            for number in 0..depth {
                let stride = if group > 1 && number == 0 { 2 } else { 1 };
                let name = format!("layer{group}.{number}");
                let sizes = (inputs, channels);
                blocks.push(Block::new(builder, &name, kind, sizes, stride));
                inputs = match kind {
                    BlockKind::Basic => channels,
                    BlockKind::Bottleneck => channels * 4,
                };
            }
        }
        Self {
            stem,
            blocks,
            linear: builder.linear("fc", inputs, classes),
        }
    }
}

impl Layers for ResNet {
    fn forward(&self, p: &Parameters, images: &Tensor) -> Result<Tensor> {
        let x = self.stem.forward_relu(p, images)?;
        let mut x = x.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        for block in &self.blocks {
            x = block.forward(p, &x)?;
        }
        self.linear
            .forward(p, &x.f_mean_dim([2i64, 3].as_slice(), false, None::<Kind>)?)
    }
}
