//! Crops and flips that are noted, and carried out while reading.

use std::ops::Range;

use crate::image::Image;

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

    /// Rows and columns of the output, for vector code.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Whether columns come in descending order.
    pub(super) fn is_mirrored(&self) -> bool {
        self.mirrored
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
    pub(super) fn columns(&self, width: u32) -> (Range<usize>, Range<usize>) {
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
    pub(super) fn source_row<'a>(&self, source: &'a Image, y: u32) -> &'a [u8] {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::output) fn picture(width: u32, height: u32) -> Image {
        let pixels = (0..width * height * 3).map(|v| (v * 37 % 251) as u8 + 1);
        Image::from_rgb(width, height, pixels.collect()).unwrap()
    }

    /// The view as its words define it, pixel by pixel.
    pub(in crate::output) fn shown(source: &Image, view: &View, x: u32, y: u32) -> [u8; 3] {
        let x = i64::from(x);
        let column = view.column + if view.mirrored { -x } else { x };
        let row = view.row + i64::from(y);
        match (u32::try_from(column), u32::try_from(row)) {
            (Ok(column), Ok(row)) => source.pixel(column, row).unwrap_or_default(),
            _ => [0; 3],
        }
    }

    pub(in crate::output) fn views(size: u32) -> Vec<View> {
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
}
