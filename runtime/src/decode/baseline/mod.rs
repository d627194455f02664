//! A decoder of our own for plain JPEGs: one scan of Huffman codes, 8 bits,
//! grey or YCbCr with the usual sampling. That is nearly every photograph, and
//! it takes three quarters of libjpeg's time, of small pictures a third.
//!
//! It gives libjpeg-turbo's very pixels, and gives up on whatever it does not
//! know or finds odd: [`Baseline::decode`] then returns `None`, and libjpeg
//! decodes the picture or says what is wrong with it. So no damage passes here
//! that libjpeg would have refused.

mod bits;
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "vector code"))]
mod colour;
mod header;
mod huffman;
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "vector code"))]
mod idct;
mod index;
mod plane;
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "dispatch"))]
mod scan;
#[cfg(test)]
mod tests;

use bits::{Bits, Window};
use header::{Component, Header, Tables};
use index::{Index, Writer};
use plane::Plane;
use scan::{Blocks, Scan};

use super::Request;
use crate::image::Image;
use crate::resize::Rect;

/// The memory of the decoder, kept from picture to picture.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    tables: Tables,
    window: Window,
    blocks: Blocks,
    planes: [Plane; 3],
    rows: Rows,
}

/// Rows between the planes and the picture.
#[derive(Debug, Default)]
struct Rows {
    sums: Vec<u16>,
    chroma: [Vec<[u8; 2]>; 2],
}

impl Baseline {
    /// Decodes `region` into `image`, which then holds nothing else. `None`
    /// when this is a case for libjpeg; the contents of `image` are then
    /// unspecified.
    ///
    /// Without an index, what libjpeg would read is read and checked: all rows
    /// of minimum coded units down to the last one the region needs, and the end
    /// marker if the region reaches to the bottom.
    pub(super) fn decode(
        &mut self,
        request: &Request<'_>,
        region: Rect,
        image: &mut Image,
    ) -> Option<Rect> {
        let Self {
            tables,
            window,
            blocks,
            planes,
            rows,
        } = self;
        let header = Header::read(request.payload, tables)?;
        let size = (header.width as u64, header.height as u64);
        if size != (request.width.into(), request.height.into()) || request.max_scans == 0 {
            return None;
        }
        let layout = Layout::new(&header, region)?;
        for (component, plane) in header.components().iter().zip(&mut *planes) {
            plane.reshape(
                (layout.unit_end - layout.unit_first) * component.across * 8,
                layout.rows_kept() * component.down * 8,
            );
        }
        image.reshape(region.width, region.height);

        let bits = Bits::new(request.payload, header.data, window);
        let mut scan = Scan::new(&header, tables, blocks, bits, layout.units)?;
        // Bits after a restart count from there.
        let index = match header.restart_interval {
            0 => Index::read(
                request.index,
                header.components().len(),
                layout.units,
                layout.unit_rows,
            ),
            _ => None,
        };
        let mut written = 0;
        for row in 0..layout.row_end - layout.row_first {
            scan.seek(layout.row_first + row, layout.unit_first, index.as_ref())?;
            scan.decode(planes, row, layout.unit_end - layout.unit_first)?;
            let ready = layout.rows_ready(row);
            while written < ready {
                layout.write_row(planes, rows, written, image);
                written += 1;
            }
        }
        if index.is_none() {
            scan.seek(layout.row_end, 0, None)?;
        }
        if layout.to_the_end && scan.is_past(layout.row_end) {
            scan.end()?;
        } else {
            scan.check()?;
        }
        Some(Rect {
            x: 0,
            y: 0,
            ..region
        })
    }

    /// The index of a picture that [`Baseline::decode`] takes as a whole; `None`
    /// for others, and for those that restart.
    pub(super) fn index(&mut self, request: &Request<'_>) -> Option<Vec<u8>> {
        let header = Header::read(request.payload, &mut self.tables)?;
        let whole = Rect {
            x: 0,
            y: 0,
            width: request.width,
            height: request.height,
        };
        let size = (header.width as u64, header.height as u64);
        if size != (request.width.into(), request.height.into()) || header.restart_interval > 0 {
            return None;
        }
        let layout = Layout::new(&header, whole)?;
        let components = header.components().len();
        let bits = Bits::new(request.payload, header.data, &mut self.window);
        let mut scan = Scan::new(&header, &self.tables, &mut self.blocks, bits, layout.units)?;
        let mut index = Writer::new(request.payload, header.data, components, layout.across);
        for row in 0..layout.unit_rows {
            for unit in (0..layout.units).step_by(index.interval()) {
                scan.seek(row, unit, None)?;
                let (bit, predictors) = scan.place();
                index.add(bit, predictors)?;
            }
        }
        scan.seek(layout.unit_rows, 0, None)?;
        scan.end()?;
        Some(index.finish())
    }
}

/// Which minimum coded units a region needs, and how its rows come about.
#[derive(Debug)]
struct Layout {
    /// Minimum coded units of a row of the picture.
    units: usize,
    /// Rows of them.
    unit_rows: usize,
    unit_first: usize,
    unit_end: usize,
    row_first: usize,
    row_end: usize,
    to_the_end: bool,
    /// Sampling of luma against chroma; 1 for grey.
    across: usize,
    down: usize,
    grey: bool,
    region: Rect,
    /// Samples of the chroma components in the whole picture.
    chroma_width: usize,
    chroma_height: usize,
}

impl Layout {
    fn new(header: &Header, region: Rect) -> Option<Self> {
        let components = header.components();
        let &Component { across, down, .. } = components.first()?;
        let (chroma_width, chroma_height) =
            (header.width.div_ceil(across), header.height.div_ceil(down));
        // libjpeg does not smooth what is that narrow.
        if across == 2 && chroma_width <= 2 {
            return None;
        }
        let units = header.width.div_ceil(across * 8);
        let unit_rows = header.height.div_ceil(down * 8);
        let (x, y) = (region.x as usize, region.y as usize);
        let (x_end, y_end) = (x + region.width as usize, y + region.height as usize);
        // Where chroma is halved, one sample more to each side.
        let context = |first: usize, end: usize, factor: usize, bound: usize| {
            if factor == 1 {
                (first / 8, end.div_ceil(8))
            } else {
                let (first, end) = ((first / 2).saturating_sub(1), end.div_ceil(2) + 1);
                (first / 8, end.min(bound).div_ceil(8))
            }
        };
        let (unit_first, unit_end) = context(x, x_end, across, chroma_width);
        let (row_first, row_end) = context(y, y_end, down, chroma_height);
        Some(Self {
            units,
            unit_rows,
            unit_first,
            unit_end,
            row_first,
            row_end,
            to_the_end: y_end == header.height && row_end == unit_rows,
            across,
            down,
            grey: components.len() == 1,
            region,
            chroma_width,
            chroma_height,
        })
    }

    /// Rows of minimum coded units that are kept: where chroma is halved across
    /// the rows, the last one must be there when the next has been decoded.
    fn rows_kept(&self) -> usize {
        self.down
    }

    /// Rows of the region that can be written once row `row` of the units has
    /// been decoded.
    fn rows_ready(&self, row: usize) -> usize {
        let last = self.row_first + row + 1 == self.row_end;
        let rows = (self.row_first + row + 1) * self.down * 8;
        // The last row needs the chroma below it.
        let rows = rows - usize::from(self.down == 2);
        let height = self.region.height as usize;
        if last {
            height
        } else {
            rows.saturating_sub(self.region.y as usize).min(height)
        }
    }

    /// Writes row `row` of the region.
    fn write_row(&self, planes: &[Plane; 3], rows: &mut Rows, row: usize, image: &mut Image) {
        let y = self.region.y as usize + row;
        let width = self.region.width as usize;
        let first = self.region.x as usize - self.unit_first * self.across * 8;
        let [luma, blue, red] = planes;
        let luma = luma.row(y - self.row_first * self.down * 8);
        let luma = &luma[first..first + width];
        let rgb = image.row_mut(row as u32);
        if self.grey {
            colour::grey(luma, rgb);
            return;
        }
        if (self.across, self.down) == (1, 1) {
            let y = y - self.row_first * 8;
            colour::convert(
                luma,
                &blue.row(y)[first..first + width],
                &red.row(y)[first..first + width],
                rgb,
            );
            return;
        }
        let Rows { sums, chroma } = rows;
        let x = self.region.x as usize;
        for (plane, out) in [blue, red].into_iter().zip(&mut *chroma) {
            self.upsample(plane, x, y, sums, out);
        }
        let skipped = if self.across == 2 { x % 2 } else { 0 };
        let [blue, red] = chroma
            .each_ref()
            .map(|row| &row.as_flattened()[skipped..][..width]);
        colour::convert(luma, blue, red, rgb);
    }

    /// Makes the region's part of row `y` at full size, from an even column on.
    fn upsample(
        &self,
        plane: &Plane,
        x: usize,
        y: usize,
        sums: &mut Vec<u16>,
        out: &mut Vec<[u8; 2]>,
    ) {
        // The plane's rows and columns within the picture's.
        let (left, top) = (self.unit_first * 8, self.row_first * 8);
        let row = |row: usize| plane.row(row.min(self.chroma_height - 1) - top);
        let near = y / self.down;
        let far = if y.is_multiple_of(2) {
            near.saturating_sub(1)
        } else {
            near + 1
        };
        let x_end = x + self.region.width as usize;
        // Samples to be made of, and those to read.
        let (first, end) = (x / self.across, x_end.div_ceil(self.across));
        let beside = self.across - 1;
        let from = first.saturating_sub(beside);
        let to = (end + beside).min(self.chroma_width);
        sums.resize(to - from + 2, 0);
        let inner = &mut sums[1..][..to - from];
        let columns = from - left..to - left;
        if self.down == 2 {
            let (near, far) = (&row(near)[columns.clone()], &row(far)[columns]);
            colour::weigh_rows(near, far, inner);
        } else {
            colour::widen(&row(near)[columns], inner);
        }
        out.resize((x_end - x).div_ceil(2) + 1, [0; 2]);
        if self.across == 1 {
            let round = if y.is_multiple_of(2) { 1 } else { 2 };
            colour::quarter(&sums[1 + first - from..], round, out.as_flattened_mut());
            return;
        }
        // Beyond the edges stands what stands at them.
        sums[0] = sums[1];
        let last = sums.len() - 1;
        sums[last] = sums[last - 1];
        let sums = &sums[first - from..];
        if self.down == 2 {
            colour::double(sums, [8, 7], 4, out);
        } else {
            colour::double(sums, [1, 2], 2, out);
        }
    }
}
