//! Pixels to the numbers a trainer reads: normalised, in their final type and
//! layout, written once, straight into their place in the batch.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::image::Image;

/// Type of a delivered value, in the machine's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Pixels as they are, 0 to 255, not normalised.
    U8,
    /// Normalised, single precision.
    F32,
    /// Normalised, IEEE half precision, rounded from single precision.
    F16,
    /// Normalised, bfloat16, rounded from single precision.
    Bf16,
}

impl Dtype {
    /// Every type.
    pub const ALL: [Dtype; 4] = [Dtype::U8, Dtype::F32, Dtype::F16, Dtype::Bf16];

    /// Bytes a value.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Dtype::U8 => 1,
            Dtype::F16 | Dtype::Bf16 => 2,
            Dtype::F32 => 4,
        }
    }

    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::U8 => "u8",
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }
}

/// Order of a sample's axes, the last one contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Channel, row, column (PyTorch's default).
    Nchw,
    /// Row, column, channel.
    Nhwc,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Layout; 2] = [Layout::Nchw, Layout::Nhwc];

    /// Lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Layout::Nchw => "nchw",
            Layout::Nhwc => "nhwc",
        }
    }
}

/// `Display` and `FromStr` by the names of `ALL`.
macro_rules! text_by_name {
    ($type:ty, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(name: &str) -> Result<Self> {
                Self::ALL
                    .into_iter()
                    .find(|value| value.name() == name)
                    .ok_or_else(|| Error::unknown_name($what, name, Self::ALL.map(Self::name)))
            }
        }
    };
}

text_by_name!(Dtype, "dtype");
text_by_name!(Layout, "layout");

/// What a trainer is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutputFormat {
    /// Type of a value.
    pub dtype: Dtype,
    /// Order of the axes.
    pub layout: Layout,
}

/// Mean and standard deviation per channel (red, green, blue) on the 0 to 1
/// scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Subtracted first.
    pub mean: [f32; 3],
    /// Divided by then; positive.
    pub std: [f32; 3],
}

impl Normalization {
    /// `(value / 255 - mean) / std`, each step rounded to single precision:
    /// the very number torchvision's `ToTensor` and `Normalize` give.
    ///
    /// ```
    /// use ddas_runtime::Normalization;
    ///
    /// let half = Normalization { mean: [0.5; 3], std: [0.5; 3] };
    /// assert_eq!(half.apply(0, 255), 1.0);
    /// assert_eq!(half.apply(2, 0), -1.0);
    /// ```
    #[must_use]
    pub fn apply(&self, channel: usize, value: u8) -> f32 {
        (f32::from(value) / 255.0 - self.mean[channel]) / self.std[channel]
    }

    /// The pixel nearest to the mean, what 0 is before normalising.
    #[must_use]
    pub fn mean_pixel(&self) -> [u8; 3] {
        // Saturates: a mean outside 0..1 has no pixel of its own.
        self.mean.map(|mean| (mean * 255.0).round() as u8)
    }
}

/// Where the pixels of the output come from: output column `x` reads source
/// column `offset + x`, or `offset - x` when mirrored, and row `y` row
/// `row + y`; what lies outside the source is black.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    column: i64,
    row: i64,
    mirrored: bool,
    size: u32,
}

impl View {
    /// The upper left `size` x `size` pixels of the source.
    pub(crate) fn new(size: u32) -> Self {
        Self {
            column: 0,
            row: 0,
            mirrored: false,
            size,
        }
    }

    /// Whether this is [`View::new`] still.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::new(self.size)
    }

    /// Takes what this view shows, moved so that its pixel (`x`, `y`) comes to
    /// the upper left.
    pub(crate) fn shift(&mut self, x: i64, y: i64) {
        self.column += if self.mirrored { -x } else { x };
        self.row += y;
    }

    /// Takes what this view shows, left and right exchanged.
    pub(crate) fn flip(&mut self) {
        let last = i64::from(self.size) - 1;
        self.column += if self.mirrored { -last } else { last };
        self.mirrored = !self.mirrored;
    }

    /// The output columns that show a source of `width` columns, and the
    /// source columns they show, in ascending order.
    fn columns(&self, width: u32) -> (Range<usize>, Range<usize>) {
        let (size, width) = (i64::from(self.size), i64::from(width));
        let clip = |value: i64, bound: i64| value.clamp(0, bound);
        let (first, end) = if self.mirrored {
            (self.column - width + 1, self.column + 1)
        } else {
            (-self.column, width - self.column)
        };
        let (first, end) = (clip(first, size), clip(end, size));
        if first >= end {
            return (0..0, 0..0);
        }
        let source = if self.mirrored {
            self.column - (end - 1)..self.column - first + 1
        } else {
            self.column + first..self.column + end
        };
        (
            first as usize..end as usize,
            source.start as usize..source.end as usize,
        )
    }

    /// The source row shown in output row `y`; empty when there is none.
    fn source_row<'a>(&self, source: &'a Image, y: u32) -> &'a [u8] {
        u32::try_from(self.row + i64::from(y)).map_or(&[], |row| source.row(row))
    }

    /// Writes what the view shows into `target`.
    pub(crate) fn render(&self, source: &Image, target: &mut Image) {
        target.reshape(self.size, self.size);
        let (columns, from) = self.columns(source.width());
        for y in 0..self.size {
            let row = target.row_mut(y).as_chunks_mut::<3>().0;
            let pixels = self.source_row(source, y).as_chunks::<3>().0;
            if pixels.is_empty() || columns.is_empty() {
                row.fill([0; 3]);
                continue;
            }
            row[..columns.start].fill([0; 3]);
            row[columns.end..].fill([0; 3]);
            let shown = &pixels[from.clone()];
            let place = &mut row[columns.clone()];
            if self.mirrored {
                for (pixel, source) in place.iter_mut().zip(shown.iter().rev()) {
                    *pixel = *source;
                }
            } else {
                place.copy_from_slice(shown);
            }
        }
    }
}

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
        let mut channels = [[[0; BYTES]; 256]; 3];
        for (channel, table) in channels.iter_mut().enumerate() {
            for (entry, pixel) in table.iter_mut().zip(0..=u8::MAX) {
                *entry = value(channel, pixel);
            }
        }
        Box::new(Self { channels, hole })
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
        let value = |channel, pixel| normalization.apply(channel, pixel);
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
        Self {
            layout: format.layout,
            size,
            table,
        }
    }

    /// Writes what `view` shows of `source`, normalised, with `hole` at zero,
    /// into `out`, which holds exactly one sample.
    pub(crate) fn write(&self, source: &Image, view: &View, hole: Option<&Hole>, out: &mut [u8]) {
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
                if view.mirrored {
                    row.put(columns.clone(), shown.iter().rev(), values);
                } else {
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
    use super::*;

    const CIFAR: Normalization = Normalization {
        mean: [0.4914, 0.4822, 0.4465],
        std: [0.2023, 0.1994, 0.2010],
    };

    fn picture(width: u32, height: u32) -> Image {
        let pixels = (0..width * height * 3).map(|v| (v * 37 % 251) as u8 + 1);
        Image::from_rgb(width, height, pixels.collect()).unwrap()
    }

    /// The view as its words define it, pixel by pixel.
    fn shown(source: &Image, view: &View, x: u32, y: u32) -> [u8; 3] {
        let x = i64::from(x);
        let column = view.column + if view.mirrored { -x } else { x };
        let row = view.row + i64::from(y);
        match (u32::try_from(column), u32::try_from(row)) {
            (Ok(column), Ok(row)) => source.pixel(column, row).unwrap_or_default(),
            _ => [0; 3],
        }
    }

    fn views(size: u32) -> Vec<View> {
        let mut views = Vec::new();
        for x in [-20, -3, 0, 2, 20] {
            for y in [-20, -1, 0, 3, 20] {
                let mut view = View::new(size);
                view.shift(x, y);
                views.push(view);
                view.flip();
                views.push(view);
                view.shift(1, 0);
                views.push(view);
            }
        }
        views
    }

    #[test]
    fn views_compose_like_the_steps_they_stand_for() {
        let source = picture(5, 5);
        let mut view = View::new(5);
        view.flip();
        assert_eq!(shown(&source, &view, 0, 2), source.pixel(4, 2).unwrap());
        view.shift(1, -1);
        // Flipped, then moved: output (0, 3) is the flipped image's (1, 2).
        assert_eq!(shown(&source, &view, 0, 3), source.pixel(3, 2).unwrap());
        assert_eq!(shown(&source, &view, 4, 3), [0; 3]);
        view.flip();
        assert_eq!(shown(&source, &view, 4, 3), source.pixel(3, 2).unwrap());
        assert!(!view.is_plain());
        let mut twice = View::new(5);
        twice.flip();
        twice.flip();
        assert!(twice.is_plain());
    }

    #[test]
    fn rendering_shows_each_pixel_of_the_view() {
        let source = picture(6, 5);
        let mut target = Image::default();
        for view in views(4).into_iter().chain(views(8)) {
            view.render(&source, &mut target);
            for y in 0..view.size {
                for x in 0..view.size {
                    assert_eq!(target.pixel(x, y), Some(shown(&source, &view, x, y)));
                }
            }
        }
    }

    #[test]
    fn every_format_places_the_normalised_value() {
        let source = picture(6, 5);
        let size = 7u32;
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
                    writer.write(&source, &view, Some(&hole), &mut out);
                    for (y, x, channel) in (0..size)
                        .flat_map(|y| (0..size).map(move |x| (y, x)))
                        .flat_map(|(y, x)| (0..3).map(move |channel| (y, x, channel)))
                    {
                        let inside = hole.rows.contains(&y) && hole.columns.contains(&x);
                        let pixel = shown(&source, &view, x, y)[channel];
                        let value = if inside {
                            0.0
                        } else {
                            CIFAR.apply(channel, pixel)
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

    /// All 768 values of each recipe against those of PyTorch 2.11, from
    /// `torch.arange(256, dtype=torch.uint8).to(torch.float32).div(255)` by
    /// `sub_(mean)` and `div_(std)`: 64-bit FNV-1a over the little-endian
    /// bytes, channel by channel.
    #[test]
    fn values_are_those_of_torch() {
        let imagenet = Normalization {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        };
        for (normalization, expected) in [
            (CIFAR, 0xed10_94eb_eeee_b170),
            (imagenet, 0xe24d_709a_66de_7cc0),
        ] {
            let mut hash = 0xcbf2_9ce4_8422_2325u64;
            for channel in 0..3 {
                for value in 0..=u8::MAX {
                    for byte in normalization.apply(channel, value).to_le_bytes() {
                        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                    }
                }
            }
            assert_eq!(hash, expected, "{normalization:?}");
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

    #[test]
    fn names_parse_and_print() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.to_string().parse::<Dtype>().unwrap(), dtype);
        }
        for layout in Layout::ALL {
            assert_eq!(layout.to_string().parse::<Layout>().unwrap(), layout);
        }
        let error = "f64".parse::<Dtype>().unwrap_err().to_string();
        assert_eq!(error, "unknown dtype `f64`; known are u8, f32, f16, bf16");
    }
}
