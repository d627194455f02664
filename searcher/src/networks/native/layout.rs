//! Where the parameters of a wide residual network lie in the flat vector.

use std::ops::Range;

/// A batch normalisation's parameters.
#[derive(Debug, Clone)]
pub(super) struct NormPart {
    pub(super) gamma: Range<usize>,
    pub(super) beta: Range<usize>,
}

/// A block: sizes and parts.
#[derive(Debug, Clone)]
pub(super) struct BlockPart {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) stride: usize,
    pub(super) norm1: NormPart,
    pub(super) conv1: Range<usize>,
    pub(super) norm2: NormPart,
    pub(super) conv2: Range<usize>,
    /// Where the number of channels changes.
    pub(super) shortcut: Option<Range<usize>>,
}

/// The whole network, in the order in which `WideResNet` asks for its parameters.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) conv: Range<usize>,
    pub(super) blocks: Vec<BlockPart>,
    pub(super) norm: NormPart,
    /// Weight, then bias.
    pub(super) linear: Range<usize>,
    /// Channels after the last block.
    pub(super) channels: usize,
}

/// Channels after the first convolution.
pub(super) const FIRST_CHANNELS: usize = 16;

impl Layout {
    pub(super) fn new(depth: usize, width: usize, classes: usize) -> Self {
        let mut end = 0;
        let mut take = |length: usize| {
            end += length;
            end - length..end
        };
        let conv = take(FIRST_CHANNELS * 9 * 3);
        let mut blocks = Vec::new();
        let mut inputs = FIRST_CHANNELS;
        for (group, channels) in [16, 32, 64].into_iter().enumerate() {
            let outputs = channels * width;
            for number in 0..(depth - 4) / 6 {
                let mut norm = |channels: usize| NormPart {
                    gamma: take(channels),
                    beta: take(channels),
                };
                let norm1 = norm(inputs);
                let conv1 = take(outputs * 9 * inputs);
                let mut norm = |channels: usize| NormPart {
                    gamma: take(channels),
                    beta: take(channels),
                };
                let norm2 = norm(outputs);
                let conv2 = take(outputs * 9 * outputs);
                let shortcut = (inputs != outputs).then(|| take(outputs * inputs));
                blocks.push(BlockPart {
                    inputs,
                    outputs,
                    stride: if group > 0 && number == 0 { 2 } else { 1 },
                    norm1,
                    conv1,
                    norm2,
                    conv2,
                    shortcut,
                });
                inputs = outputs;
            }
        }
        let norm = NormPart {
            gamma: take(inputs),
            beta: take(inputs),
        };
        let linear = take(inputs * classes + classes);
        Self {
            conv,
            blocks,
            norm,
            linear,
            channels: inputs,
        }
    }

    /// Number of parameters.
    pub(super) fn count(&self) -> usize {
        self.linear.end
    }
}
