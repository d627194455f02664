//! Values in their final type, put into their place in the batch.

use std::ops::Range;

use half::{bf16, f16};

use super::wide::{self, Scale};
use super::{Dtype, Layout, Normalization, OutputFormat, View};
use crate::image::Image;

/// Rows and columns of the output that are set to zero (the mean) after
/// normalising.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) columns: Range<u32>,
    pub(crate) rows: Range<u32>,
}

impl Hole {
    /// Rows and columns [c - side/2, c + side/2) (integer halves) about the
    /// centre (x, y), clipped to `size`.
    pub(crate) fn around((x, y): (u32, u32), side: u32, size: u32) -> Self {
        let half = side / 2;
        let span = |center: u32| center.saturating_sub(half)..center.saturating_add(half).min(size);
        Self {
            columns: span(x),
            rows: span(y),
        }
    }
}

/// Writes images in one [`OutputFormat`].
#[derive(Debug)]
pub(crate) struct Writer {
    layout: Layout,
    size: u32,
    table: Table,
    straight: Option<Straight>,
}

/// What does without the table.
#[derive(Debug)]
enum Straight {
    /// Pixels stay as they are.
    Copy,
    /// Single precision.
    Scale(Scale),
}

impl Straight {
    /// Puts the values of `pixels`, mirrored or not, into `columns` of `row`.
    /// `false`, and nothing done, where it takes the table after all.
    fn put<const BYTES: usize>(
        &self,
        row: &mut Row<'_, BYTES>,
        columns: Range<usize>,
        pixels: &[[u8; 3]],
        mirrored: bool,
    ) -> bool {
        match (self, row) {
            (Straight::Copy, Row::Interleaved(row)) => {
                let out = row[columns].as_flattened_mut().as_flattened_mut();
                if mirrored {
                    return wide::mirror(pixels, out);
                }
                out.copy_from_slice(pixels.as_flattened());
                true
            }
            (Straight::Scale(scale), Row::Planes(planes)) => {
                let mut out = planes
                    .each_mut()
                    .map(|plane| plane[columns.clone()].as_flattened_mut());
                let out = out.each_mut().map(|plane| plane.as_chunks_mut::<4>().0);
                wide::planes(pixels, mirrored, scale, out)
            }
            _ => false,
        }
    }
}

/// The output bytes of each value of each channel.
#[derive(Debug)]
enum Table {
    One(Box<Values<1>>),
    Two(Box<Values<2>>),
    Four(Box<Values<4>>),
}

#[derive(Debug)]
struct Values<const BYTES: usize> {
    channels: [[[u8; BYTES]; 256]; 3],
    hole: [[u8; BYTES]; 3],
}

impl<const BYTES: usize> Values<BYTES> {
    fn new(value: impl Fn(usize, u8) -> [u8; BYTES], hole: [[u8; BYTES]; 3]) -> Box<Self> {
        let channels = [[[0; BYTES]; 256]; 3];
        let mut values = Box::new(Self { channels, hole });
        values.set(value);
        values
    }

    /// Replaces the value of every pixel.
    fn set(&mut self, value: impl Fn(usize, u8) -> [u8; BYTES]) {
        for (channel, table) in self.channels.iter_mut().enumerate() {
            for (entry, pixel) in table.iter_mut().zip(0..=u8::MAX) {
                *entry = value(channel, pixel);
            }
        }
    }

    #[inline(always)]
    fn pixel(&self, pixel: &[u8; 3]) -> [[u8; BYTES]; 3] {
        [
            self.channels[0][usize::from(pixel[0])],
            self.channels[1][usize::from(pixel[1])],
            self.channels[2][usize::from(pixel[2])],
        ]
    }
}

impl Writer {
    pub(crate) fn new(format: OutputFormat, normalization: &Normalization, size: u32) -> Self {
        let value = |channel: usize, pixel| normalization.apply([pixel; 3])[channel];
        let zero = [[0; 2]; 3]; // +0.0 in both half-width types
        let table = match format.dtype {
            Dtype::U8 => Table::One(Values::new(
                |_, pixel| [pixel],
                normalization.mean_pixel().map(|pixel| [pixel]),
            )),
            Dtype::F16 => Table::Two(Values::new(
                |channel, pixel| f16::from_f32(value(channel, pixel)).to_ne_bytes(),
                zero,
            )),
            Dtype::Bf16 => Table::Two(Values::new(
                |channel, pixel| bf16::from_f32(value(channel, pixel)).to_ne_bytes(),
                zero,
            )),
            Dtype::F32 => Table::Four(Values::new(
                |channel, pixel| value(channel, pixel).to_ne_bytes(),
                [[0; 4]; 3],
            )),
        };
        let straight = match format.dtype {
            Dtype::U8 => Some(Straight::Copy),
            Dtype::F32 => Scale::new(normalization).map(Straight::Scale),
            _ => None,
        };
        Self {
            layout: format.layout,
            size,
            table,
            straight,
        }
    }

    /// Becomes a writer of pixels to which `light` is added on the 0 to 1
    /// scale, before normalising; `format` and `normalization` are those it
    /// was made with.
    pub(crate) fn relight(
        &mut self,
        format: OutputFormat,
        normalization: &Normalization,
        light: [f32; 3],
    ) {
        let value = |channel: usize, pixel| {
            let lit = f32::from(pixel) / 255.0 + light[channel];
            (lit - normalization.mean[channel]) / normalization.std[channel]
        };
        self.straight = None;
        match &mut self.table {
            // Saturates at black and at full brightness.
            Table::One(values) => values
                .set(|channel, pixel| [(f32::from(pixel) + 255.0 * light[channel]).round() as u8]),
            Table::Two(values) if format.dtype == Dtype::F16 => {
                values.set(|channel, pixel| f16::from_f32(value(channel, pixel)).to_ne_bytes())
            }
            Table::Two(values) => {
                values.set(|channel, pixel| bf16::from_f32(value(channel, pixel)).to_ne_bytes())
            }
            Table::Four(values) => values.set(|channel, pixel| value(channel, pixel).to_ne_bytes()),
        }
    }

    /// Writes what `view` shows of `source`, normalised, with `hole` at zero,
    /// into `out`, which holds exactly one sample. `read_soon`: whether it is
    /// looked at again while it may still be in a cache.
    pub(crate) fn write(
        &self,
        source: &Image,
        view: &View,
        hole: Option<&Hole>,
        read_soon: bool,
        out: &mut [u8],
    ) {
        if let Some(Straight::Scale(scale)) = &self.straight
            && self.layout == Layout::Nchw
        {
            // Batches of smaller ones may stay in a cache until the trainer reads them.
            const LARGE: usize = 256 << 10;
            let streamed = out.len() >= LARGE && !read_soon;
            let numbers = out.as_chunks_mut().0;
            if wide::image(source, view, hole, scale, streamed, numbers) {
                return;
            }
        }
        match &self.table {
            Table::One(values) => self.write_as(values, source, view, hole, out),
            Table::Two(values) => self.write_as(values, source, view, hole, out),
            Table::Four(values) => self.write_as(values, source, view, hole, out),
        }
    }

    fn write_as<const BYTES: usize>(
        &self,
        values: &Values<BYTES>,
        source: &Image,
        view: &View,
        hole: Option<&Hole>,
        out: &mut [u8],
    ) {
        let out = out.as_chunks_mut::<BYTES>().0;
        let size = self.size as usize;
        let (columns, from) = view.columns(source.width());
        let mut rows = Rows::new(self.layout, out, size);
        for y in 0..self.size {
            let Some(mut row) = rows.next() else { return };
            let pixels = view.source_row(source, y).as_chunks::<3>().0;
            let black = values.pixel(&[0; 3]);
            if pixels.is_empty() || columns.is_empty() {
                row.fill(0..size, black);
            } else {
                row.fill(0..columns.start, black);
                row.fill(columns.end..size, black);
                let shown = &pixels[from.clone()];
                let mirrored = view.is_mirrored();
                let done = self.straight.as_ref().is_some_and(|straight| {
                    straight.put(&mut row, columns.clone(), shown, mirrored)
                });
                if !done && mirrored {
                    row.put(columns.clone(), shown.iter().rev(), values);
                } else if !done {
                    row.put(columns.clone(), shown.iter(), values);
                }
            }
            if let Some(hole) = hole
                && hole.rows.contains(&y)
            {
                let columns = hole.columns.start as usize..hole.columns.end as usize;
                row.fill(columns, values.hole);
            }
        }
    }
}

/// The rows of one sample, in order.
enum Rows<'a, const BYTES: usize> {
    Planes([std::slice::ChunksExactMut<'a, [u8; BYTES]>; 3]),
    Interleaved(std::slice::ChunksExactMut<'a, [[u8; BYTES]; 3]>),
}

impl<'a, const BYTES: usize> Rows<'a, BYTES> {
    fn new(layout: Layout, out: &'a mut [[u8; BYTES]], size: usize) -> Self {
        match layout {
            Layout::Nchw => {
                let (red, rest) = out.split_at_mut(size * size);
                let (green, blue) = rest.split_at_mut(size * size);
                Rows::Planes([red, green, blue].map(|plane| plane.chunks_exact_mut(size)))
            }
            Layout::Nhwc => Rows::Interleaved(out.as_chunks_mut::<3>().0.chunks_exact_mut(size)),
        }
    }

    fn next(&mut self) -> Option<Row<'a, BYTES>> {
        match self {
            Rows::Planes([red, green, blue]) => {
                Some(Row::Planes([red.next()?, green.next()?, blue.next()?]))
            }
            Rows::Interleaved(rows) => Some(Row::Interleaved(rows.next()?)),
        }
    }
}

/// One row of one sample.
enum Row<'a, const BYTES: usize> {
    Planes([&'a mut [[u8; BYTES]]; 3]),
    Interleaved(&'a mut [[[u8; BYTES]; 3]]),
}

impl<const BYTES: usize> Row<'_, BYTES> {
    fn fill(&mut self, columns: Range<usize>, value: [[u8; BYTES]; 3]) {
        match self {
            Row::Planes(planes) => {
                for (plane, value) in planes.iter_mut().zip(value) {
                    plane[columns.clone()].fill(value);
                }
            }
            Row::Interleaved(row) => row[columns].fill(value),
        }
    }

    #[inline(always)]
    fn put<'p>(
        &mut self,
        columns: Range<usize>,
        pixels: impl Iterator<Item = &'p [u8; 3]>,
        values: &Values<BYTES>,
    ) {
        match self {
            Row::Planes([red, green, blue]) => {
                let places = red[columns.clone()]
                    .iter_mut()
                    .zip(&mut green[columns.clone()])
                    .zip(&mut blue[columns]);
                for (((red, green), blue), pixel) in places.zip(pixels) {
                    [*red, *green, *blue] = values.pixel(pixel);
                }
            }
            Row::Interleaved(row) => {
                for (place, pixel) in row[columns].iter_mut().zip(pixels) {
                    *place = values.pixel(pixel);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{picture, shown, views};
    use super::*;
    use crate::cpu::on_every_cpu;

    const CIFAR: Normalization = Normalization {
        mean: [0.4914, 0.4822, 0.4465],
        std: [0.2023, 0.1994, 0.2010],
    };

    #[test]
    fn every_format_places_the_normalised_value() {
        on_every_cpu(|_| {
            formats_place_the_normalised_value(6, 5, 7);
            // More than a step of the vector code.
            formats_place_the_normalised_value(37, 3, 35);
            // Whole steps.
            formats_place_the_normalised_value(32, 32, 32);
            formats_place_the_normalised_value(51, 20, 48);
        });
    }

    fn formats_place_the_normalised_value(width: u32, height: u32, size: u32) {
        let source = picture(width, height);
        let hole = Hole {
            columns: 2..4,
            rows: 1..5,
        };
        for layout in Layout::ALL {
            for dtype in Dtype::ALL {
                let writer = Writer::new(OutputFormat { dtype, layout }, &CIFAR, size);
                let bytes = dtype.size();
                let mut out = vec![0xee; (size * size) as usize * 3 * bytes];
                for view in views(size) {
                    writer.write(&source, &view, Some(&hole), false, &mut out);
                    for (y, x, channel) in (0..size)
                        .flat_map(|y| (0..size).map(move |x| (y, x)))
                        .flat_map(|(y, x)| (0..3).map(move |channel| (y, x, channel)))
                    {
                        let inside = hole.rows.contains(&y) && hole.columns.contains(&x);
                        let pixel = shown(&source, &view, x, y)[channel];
                        let value = if inside {
                            0.0
                        } else {
                            CIFAR.apply([pixel; 3])[channel]
                        };
                        let position = match layout {
                            Layout::Nchw => (channel as u32 * size + y) * size + x,
                            Layout::Nhwc => (y * size + x) * 3 + channel as u32,
                        } as usize;
                        let found = &out[position * bytes..][..bytes];
                        let expected: &[u8] = match dtype {
                            Dtype::U8 if inside => &[[125, 123, 114][channel]],
                            Dtype::U8 => &[pixel],
                            Dtype::F32 => &value.to_ne_bytes(),
                            Dtype::F16 => &f16::from_f32(value).to_ne_bytes(),
                            Dtype::Bf16 => &bf16::from_f32(value).to_ne_bytes(),
                        };
                        assert_eq!(found, expected, "{dtype} {layout} {x} {y} {channel}");
                    }
                }
            }
        }
    }

    /// Past the caches or not, at any address: the same numbers, and none beside
    /// them.
    #[test]
    fn large_samples_are_written_alike() {
        let size = 160;
        let source = picture(151, 170);
        let mut view = View::new(size);
        view.shift(-7, 5);
        view.flip();
        let format = OutputFormat {
            dtype: Dtype::F32,
            layout: Layout::Nchw,
        };
        let writer = Writer::new(format, &CIFAR, size);
        let length = (size * size * 3 * 4) as usize;
        let mut plain = vec![0; length];
        writer.write(&source, &view, None, true, &mut plain);
        let mut memory = vec![0xee; length + 192];
        let aligned = memory.as_ptr().align_offset(64);
        for first in [aligned, aligned + 4] {
            memory.fill(0xee);
            let (before, out) = memory.split_at_mut(first);
            let (out, behind) = out.split_at_mut(length);
            writer.write(&source, &view, None, false, out);
            assert_eq!(out, plain);
            assert!(before.iter().chain(behind.iter()).all(|&byte| byte == 0xee));
        }
    }

    #[test]
    fn holes_are_clipped() {
        let hole = |x, y, side| {
            let hole = Hole::around((x, y), side, 32);
            (hole.columns, hole.rows)
        };
        assert_eq!(hole(16, 10, 16), (8..24, 2..18));
        assert_eq!(hole(0, 31, 16), (0..8, 23..32));
        assert_eq!(hole(5, 5, 0), (5..5, 5..5));
        assert_eq!(hole(5, 5, u32::MAX), (0..32, 0..32));
    }
}
