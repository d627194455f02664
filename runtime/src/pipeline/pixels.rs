//! Actions on pixels. Crops and flips are only noted where they can be, and
//! carried out while writing.

use ddas_formats::{Operation, SignRule};

use super::PipelineScratch;
use crate::error::Result;
use crate::image::Image;
use crate::kernels::hue;
use crate::output::View;
use crate::recipe::{Action, Border};
use crate::resize::{PassOrder, Rect, ResizeFilter};

/// What is delivered of the image as it is.
#[derive(Debug)]
pub(super) struct Shown {
    size: u32,
    image: (u32, u32),
    /// What is noted but not carried out; plain until the image is cropped.
    view: View,
    cropped: bool,
}

impl Shown {
    /// All of an image of `image` (width, height) pixels, of which `size` x
    /// `size` are to be delivered.
    pub(super) fn new(size: u32, image: (u32, u32)) -> Self {
        Self {
            size,
            image,
            view: View::new(size),
            cropped: image == (size, size),
        }
    }

    /// Width and height to be delivered.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.size, self.size)
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The image has another size now.
    pub(super) fn resized(&mut self, image: (u32, u32)) {
        *self = Self::new(self.size, image);
    }

    /// Whether the image is not what the steps until now have made.
    fn is_pending(&self) -> bool {
        self.cropped && !(self.view.is_plain() && self.image == self.size())
    }
}

impl PipelineScratch {
    /// Resizes the part `within` of the image.
    pub(super) fn resize(
        &mut self,
        within: Rect,
        size: (u32, u32),
        filter: ResizeFilter,
        order: PassOrder,
    ) -> Result<()> {
        let (image, target) = (&self.image, &mut self.target);
        self.resizer
            .resize_crop(image, within, size, filter, order, target)?;
        self.take_target();
        Ok(())
    }

    fn take_target(&mut self) {
        std::mem::swap(&mut self.image, &mut self.target);
    }

    /// Carries out what is only noted.
    pub(super) fn settle(&mut self, shown: &mut Shown) {
        if shown.is_pending() {
            shown.view.render(&self.image, &mut self.target);
            self.take_target();
            shown.resized(shown.size());
        }
    }

    pub(super) fn crop(&mut self, shown: &mut Shown, (x, y): (i64, i64), border: Border) {
        if border == Border::BLACK {
            shown.view.shift(x, y);
            shown.cropped = true;
            return;
        }
        self.settle(shown);
        crop_with_border(&self.image, (x, y), shown.size, border, &mut self.target);
        self.take_target();
        shown.resized(shown.size());
    }

    pub(super) fn flip_left_right(&mut self, shown: &mut Shown) {
        if shown.cropped {
            shown.view.flip();
        } else {
            self.apply(&Operation::FlipLR);
        }
    }

    pub(super) fn flip_top_bottom(&mut self, shown: &mut Shown) {
        self.settle(shown);
        self.apply(&Operation::FlipUD);
    }

    /// Carries out an action on colours or a blur.
    pub(super) fn recolour(&mut self, action: &Action) {
        let sign = SignRule::Fixed;
        match *action {
            Action::Brightness(factor) => self.apply(&Operation::Brightness { factor, sign }),
            Action::Contrast(factor) => self.apply(&Operation::Contrast { factor, sign }),
            Action::Saturation(factor) => self.apply(&Operation::Color { factor, sign }),
            Action::Hue(turns) => hue::turn(&mut self.image, turns),
            Action::Grayscale => self.apply(&Operation::Color { factor: 0.0, sign }),
            Action::Blur(radius) => self.apply(&Operation::GaussianBlur { radius }),
            _ => {}
        }
    }

    fn apply(&mut self, operation: &Operation) {
        self.kernels.apply(operation, None, &mut self.image);
    }
}

impl Border {
    /// The position shown at `position` of a side of `count` pixels, `None`
    /// for the border's own colour.
    fn shown(self, position: i64, count: u32) -> Option<u32> {
        let count = i64::from(count);
        let inside = match self {
            _ if (0..count).contains(&position) => position,
            Border::Constant(_) => return None,
            Border::Edge => position.clamp(0, count - 1),
            Border::Reflect if count == 1 => 0,
            Border::Reflect => {
                let turned = position.rem_euclid(2 * (count - 1));
                turned.min(2 * (count - 1) - turned)
            }
            Border::Symmetric => {
                let turned = position.rem_euclid(2 * count);
                turned.min(2 * count - 1 - turned)
            }
        };
        Some(inside as u32)
    }
}

/// `size` x `size` pixels of `source` from pixel (x, y) on.
fn crop_with_border(
    source: &Image,
    (x, y): (i64, i64),
    size: u32,
    border: Border,
    target: &mut Image,
) {
    let colour = match border {
        Border::Constant(colour) => colour,
        _ => [0; 3],
    };
    target.reshape(size, size);
    for row in 0..size {
        let from = border.shown(y + i64::from(row), source.height());
        let from = from
            .map_or(&[][..], |row| source.row(row))
            .as_chunks::<3>()
            .0;
        let place = target.row_mut(row).as_chunks_mut::<3>().0;
        for (pixel, column) in place.iter_mut().zip(x..) {
            *pixel = border
                .shown(column, source.width())
                .and_then(|column| from.get(column as usize))
                .map_or(colour, |pixel| *pixel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.pad(numpy.arange(4), 6, mode)`.
    #[test]
    fn borders_are_numpys() {
        let padded = |border: Border| -> Vec<u32> {
            (-6..10).map(|i| border.shown(i, 4).unwrap_or(9)).collect()
        };
        assert_eq!(
            padded(Border::Edge),
            [0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3]
        );
        assert_eq!(
            padded(Border::Reflect),
            [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
        );
        assert_eq!(
            padded(Border::Symmetric),
            [2, 3, 3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0, 0, 1]
        );
        assert_eq!(Border::Reflect.shown(-3, 1), Some(0));
        assert_eq!(Border::BLACK.shown(-1, 4), None);
        assert_eq!(Border::BLACK.shown(4, 4), None);
    }
}
