//! Rectangles of a finished sample set to something else.

use std::ops::Range;

use half::{bf16, f16};

use super::{Dtype, Layout, Normalization, OutputFormat};

/// Writes values into rectangles of finished samples.
#[derive(Debug)]
pub(crate) struct Eraser {
    format: OutputFormat,
    normalization: Normalization,
    size: usize,
}

impl Eraser {
    /// For samples of `size` x `size` pixels.
    pub(crate) fn new(format: OutputFormat, normalization: &Normalization, size: u32) -> Self {
        Self {
            format,
            normalization: *normalization,
            size: size as usize,
        }
    }

    /// Sets the pixels within `columns` and `rows` of the sample `out`, row by
    /// row, to what `value` gives for each (red, green, blue), in normalised
    /// units.
    pub(crate) fn erase(
        &self,
        out: &mut [u8],
        columns: [u32; 2],
        rows: [u32; 2],
        value: impl FnMut() -> [f32; 3],
    ) {
        let columns = columns[0] as usize..columns[1] as usize;
        let rows = rows[0] as usize..rows[1] as usize;
        let Normalization { mean, std } = self.normalization;
        match self.format.dtype {
            Dtype::F32 => self.fill(out, columns, rows, value, |_, v| v.to_ne_bytes()),
            Dtype::F16 => {
                self.fill(out, columns, rows, value, |_, v| {
                    f16::from_f32(v).to_ne_bytes()
                });
            }
            Dtype::Bf16 => {
                self.fill(out, columns, rows, value, |_, v| {
                    bf16::from_f32(v).to_ne_bytes()
                });
            }
            Dtype::U8 => self.fill(out, columns, rows, value, |channel, v| {
                // Saturates at black and at full brightness.
                [((v * std[channel] + mean[channel]) * 255.0).round() as u8]
            }),
        }
    }

    fn fill<const BYTES: usize>(
        &self,
        out: &mut [u8],
        columns: Range<usize>,
        rows: Range<usize>,
        mut value: impl FnMut() -> [f32; 3],
        encode: impl Fn(usize, f32) -> [u8; BYTES],
    ) {
        let out = out.as_chunks_mut::<BYTES>().0;
        let plane = self.size * self.size;
        for y in rows {
            for x in columns.clone() {
                let pixel = y * self.size + x;
                for (channel, value) in value().into_iter().enumerate() {
                    let place = match self.format.layout {
                        Layout::Nchw => channel * plane + pixel,
                        Layout::Nhwc => pixel * 3 + channel,
                    };
                    out[place] = encode(channel, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_are_set_in_every_format() {
        let normalization = Normalization {
            mean: [0.5, 0.25, 0.0],
            std: [0.25, 0.5, 1.0],
        };
        let (columns, rows) = ([1, 4], [2, 3]);
        let values = [0.5f32, -2.0, 0.125];
        let levels = [159, 0, 32]; // (v * std + mean) * 255: 159.4, -191.3, 31.9
        for layout in Layout::ALL {
            for dtype in Dtype::ALL {
                let format = OutputFormat { dtype, layout };
                let bytes = dtype.size();
                let mut out = vec![0xee; 5 * 5 * 3 * bytes];
                let mut calls = 0;
                Eraser::new(format, &normalization, 5).erase(&mut out, columns, rows, || {
                    calls += 1;
                    values
                });
                assert_eq!(calls, 3);
                for (place, found) in out.chunks_exact(bytes).enumerate() {
                    let (y, x, channel) = match layout {
                        Layout::Nchw => (place / 5 % 5, place % 5, place / 25),
                        Layout::Nhwc => (place / 15, place / 3 % 5, place % 3),
                    };
                    let inside = (1..4).contains(&x) && y == 2;
                    let expected = match dtype {
                        _ if !inside => vec![0xee; bytes],
                        Dtype::U8 => vec![levels[channel]],
                        Dtype::F32 => values[channel].to_ne_bytes().to_vec(),
                        Dtype::F16 => f16::from_f32(values[channel]).to_ne_bytes().to_vec(),
                        Dtype::Bf16 => bf16::from_f32(values[channel]).to_ne_bytes().to_vec(),
                    };
                    assert_eq!(found, expected, "{dtype} {layout} {x} {y} {channel}");
                }
            }
        }
    }
}
