//! The operations on pixels, bit-exact with Pillow for RGB images of 8 bits.
//!
//! Kernels are filed by access pattern, as Pillow's C files are: single values
//! ([`point`]), blends with a degenerate image ([`blend`]), neighbourhoods
//! ([`filter`]), moves of whole pixels ([`geometry`]), affine maps ([`affine`]
//! and [`interpolate`]), box blurs ([`gaussian`]), and [`cutout`].
//! [`Kernels::apply`] is the one place that knows them all. `x86` holds faster
//! versions of some, bit for bit the same.

mod affine;
mod blend;
mod cutout;
mod filter;
mod gaussian;
mod geometry;
pub(crate) mod hue;
mod interpolate;
mod point;
#[cfg(test)]
pub(crate) mod test_images;
#[cfg(test)]
mod versions;
#[cfg(target_arch = "x86_64")]
mod x86;

use ddas_formats::{CutoutShape, Operation, SolarizeScope, Warp};

use self::point::Bytes;
use crate::image::Image;
use crate::resize::{PassOrder, Rect, ResizeFilter, Resizer};

/// Applies operations to images; holds the scratch memory of one thread.
///
/// Every operation gives the bytes Pillow gives (9.5 to 13.0 on x86-64), for
/// any size from 1x1 up and any arguments. After the first images of a size
/// nothing is allocated: an operation that cannot work in place writes into
/// the scratch image and swaps the two.
///
/// ```
/// use ddas_formats::{Operation, SignRule, Warp};
/// use ddas_runtime::{Image, Kernels};
///
/// let mut image = Image::from_rgb(2, 1, vec![255, 0, 0, 0, 0, 255])?;
/// let mut kernels = Kernels::default();
/// kernels.apply(&Operation::FlipLR, None, &mut image);
/// assert_eq!(image.pixels(), [0, 0, 255, 255, 0, 0]);
///
/// let half_turn = Operation::Rotate { degrees: 180.0, sign: SignRule::Fixed, warp: Warp::default() };
/// kernels.apply(&half_turn, None, &mut image);
/// assert_eq!(image.pixels(), [255, 0, 0, 0, 0, 255]);
/// # Ok::<(), ddas_runtime::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Kernels {
    target: Image,
    filter: filter::FilterScratch,
    warp: affine::WarpScratch,
    blur: gaussian::BlurScratch,
    resizer: Resizer,
}

impl Kernels {
    /// Applies `operation` to `image`, with its arguments as they stand: the
    /// sign rule is for whoever draws, and ignored here.
    ///
    /// `cutout_center` is the point (x, y) Cutout's square is centred on, which
    /// for [`CutoutShape::Centered`] means the pixel that holds it; the middle of
    /// the image when there is none. Other kinds do not look at it.
    ///
    /// The size of the image never changes.
    pub fn apply(
        &mut self,
        operation: &Operation,
        cutout_center: Option<(f64, f64)>,
        image: &mut Image,
    ) {
        let mut target = std::mem::take(&mut self.target);
        let written = self.write(operation, image, &mut target);
        if written {
            std::mem::swap(image, &mut target);
        }
        self.target = target;
        if !written {
            self.change(operation, cutout_center, image);
        }
    }

    /// Makes `target` what [`Kernels::apply`] would make of `source`, in fewer
    /// passes over memory than copying and applying.
    ///
    /// ```
    /// use ddas_formats::Operation;
    /// use ddas_runtime::{Image, Kernels};
    ///
    /// let source = Image::from_rgb(2, 1, vec![255, 0, 0, 0, 0, 255])?;
    /// let mut target = Image::default();
    /// Kernels::default().apply_to(&Operation::Invert, None, &source, &mut target);
    /// assert_eq!(target.pixels(), [0, 255, 255, 255, 255, 0]);
    /// # Ok::<(), ddas_runtime::Error>(())
    /// ```
    pub fn apply_to(
        &mut self,
        operation: &Operation,
        cutout_center: Option<(f64, f64)>,
        source: &Image,
        target: &mut Image,
    ) {
        if self.write(operation, source, target) || write_changed(operation, source, target) {
            return;
        }
        target.copy_from(source);
        self.change(operation, cutout_center, target);
    }

    /// The operations that read one image and write another; false, and
    /// `target` unspecified, for those that work in place.
    fn write(&mut self, operation: &Operation, source: &Image, target: &mut Image) -> bool {
        let (width, height) = (source.width(), source.height());
        match *operation {
            Operation::FlipUD => geometry::flip_top_bottom(source, target),
            Operation::Rotate90 => return self.rotate(source, 90.0, Warp::default(), target),
            Operation::Rotate270 => return self.rotate(source, 270.0, Warp::default(), target),
            Operation::Rotate { degrees, warp, .. } => {
                return self.rotate(source, degrees, warp, target);
            }
            Operation::ShearX { shear, warp, .. } => {
                let matrix = [1.0, shear, 0.0, 0.0, 1.0, 0.0];
                return self.affine(source, &matrix, warp, target);
            }
            Operation::ShearY { shear, warp, .. } => {
                let matrix = [1.0, 0.0, 0.0, shear, 1.0, 0.0];
                return self.affine(source, &matrix, warp, target);
            }
            Operation::TranslateX {
                offset,
                rounding,
                warp,
                ..
            } => {
                let offset = rounding.apply(offset.pixels(width));
                let matrix = [1.0, 0.0, offset, 0.0, 1.0, 0.0];
                return self.affine(source, &matrix, warp, target);
            }
            Operation::TranslateY {
                offset,
                rounding,
                warp,
                ..
            } => {
                let offset = rounding.apply(offset.pixels(height));
                let matrix = [1.0, 0.0, 0.0, 0.0, 1.0, offset];
                return self.affine(source, &matrix, warp, target);
            }
            Operation::Blur => filter::blur(source, &mut self.filter, target),
            Operation::Smooth => filter::smooth(source, &mut self.filter, target),
            Operation::CropBilinear { pixels } => {
                return self.crop_bilinear(source, pixels, target);
            }
            _ => return false,
        }
        true
    }

    /// The operations that work in place.
    fn change(
        &mut self,
        operation: &Operation,
        cutout_center: Option<(f64, f64)>,
        image: &mut Image,
    ) {
        if change_values(operation, Bytes::InPlace(image.pixels_mut())) {
            return;
        }
        let (width, height) = (image.width(), image.height());
        match *operation {
            Operation::FlipLR => geometry::flip_left_right(image),
            Operation::Rotate { degrees, .. } if affine::wrap_degrees(degrees) == 180.0 => {
                geometry::turn_180(image);
            }
            Operation::Rotate180 => geometry::turn_180(image),
            Operation::AutoContrast => point::auto_contrast(image),
            Operation::Equalize => point::equalize(image),
            Operation::GaussianBlur { radius } => {
                gaussian::gaussian_blur(image, radius, &mut self.blur);
            }
            Operation::Color { factor, .. } => blend::color(image, factor),
            Operation::Desaturate { amount } => blend::color(image, 1.0 - amount),
            Operation::Contrast { factor, .. } => blend::contrast(image, factor),
            Operation::Sharpness { factor, .. } => {
                blend::sharpness(image, factor, &mut self.filter, &mut self.target);
            }
            Operation::Cutout { size, shape, fill } => {
                let middle = || (f64::from(width) / 2.0, f64::from(height) / 2.0);
                let (x, y) = cutout_center.unwrap_or_else(middle);
                match shape {
                    CutoutShape::Centered => {
                        // Truncates; a side no image has is as good as the largest.
                        let side = size.pixels(width) as u32;
                        cutout::cutout(image, (x as u32, y as u32), side, fill);
                    }
                    CutoutShape::Rectangle => cutout::rectangle(image, (x, y), size, fill),
                }
            }
            // Those of `change_values`, and what `write` found to be nothing
            // to do.
            Operation::Identity
            | Operation::Invert
            | Operation::Posterize { .. }
            | Operation::Solarize { .. }
            | Operation::SolarizeAdd { .. }
            | Operation::Brightness { .. }
            | Operation::FlipUD
            | Operation::Rotate90
            | Operation::Rotate270
            | Operation::Rotate { .. }
            | Operation::ShearX { .. }
            | Operation::ShearY { .. }
            | Operation::TranslateX { .. }
            | Operation::TranslateY { .. }
            | Operation::Blur
            | Operation::Smooth
            | Operation::CropBilinear { .. } => {}
        }
    }

    /// `Image.rotate`: whole turns and, for square images, quarter turns move
    /// pixels; everything else is a warp about the centre. False for turns
    /// that work in place.
    fn rotate(&mut self, source: &Image, degrees: f64, warp: Warp, target: &mut Image) -> bool {
        let (width, height) = (source.width(), source.height());
        let degrees = affine::wrap_degrees(degrees);
        if degrees == 0.0 || degrees == 180.0 {
            return false;
        } else if degrees == 90.0 && width == height {
            geometry::turn_90(source, target);
        } else if degrees == 270.0 && width == height {
            geometry::turn_270(source, target);
        } else {
            let matrix = affine::rotation(width, height, degrees);
            return self.affine(source, &matrix, warp, target);
        }
        true
    }

    /// Cuts `border` pixels off each side and resizes the rest to the old size.
    /// False, the image being left alone, where nothing would be left of it.
    fn crop_bilinear(&mut self, source: &Image, border: u32, target: &mut Image) -> bool {
        let (width, height) = (source.width(), source.height());
        let rest = |side: u32| side.checked_sub(border)?.checked_sub(border);
        let (Some(columns @ 1..), Some(rows @ 1..)) = (rest(width), rest(height)) else {
            return false;
        };
        let crop = Rect {
            x: border,
            y: border,
            width: columns,
            height: rows,
        };
        // Neither side shrinks, so both orders are the same one.
        let (filter, order) = (ResizeFilter::Bilinear, PassOrder::HorizontalFirst);
        let size = (width, height);
        let mut resize = || {
            self.resizer
                .resize_crop(source, crop, size, filter, order, target)
        };
        border > 0 && resize().is_ok()
    }

    /// False where the map is the identity.
    fn affine(
        &mut self,
        source: &Image,
        matrix: &affine::Matrix,
        warp: Warp,
        target: &mut Image,
    ) -> bool {
        const IDENTITY: affine::Matrix = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        // Every interpolation then reads the pixel itself.
        let changes = *matrix != IDENTITY;
        if changes {
            affine::warp(source, matrix, warp, &mut self.warp, target);
        }
        changes
    }
}

/// Those operations that work in place, but can as well write another image in
/// the same pass; false, and `target` unspecified, for others.
fn write_changed(operation: &Operation, source: &Image, target: &mut Image) -> bool {
    match *operation {
        Operation::FlipLR => geometry::flip_left_right_to(source, target),
        Operation::Rotate180 => geometry::turn_180_to(source, target),
        Operation::Rotate { degrees, .. } if affine::wrap_degrees(degrees) == 180.0 => {
            geometry::turn_180_to(source, target);
        }
        _ => {
            target.reshape(source.width(), source.height());
            let bytes = Bytes::Copied(source.pixels(), target.pixels_mut());
            return change_values(operation, bytes);
        }
    }
    true
}

/// Carries out an operation that changes every value by itself; false, and
/// nothing done, for other operations.
fn change_values(operation: &Operation, values: Bytes<'_>) -> bool {
    match *operation {
        Operation::Invert => point::invert(values),
        Operation::Posterize { bits } => point::posterize(values, bits),
        Operation::Solarize { threshold } => point::solarize(values, threshold),
        Operation::SolarizeAdd {
            add,
            threshold,
            scope: SolarizeScope::Below,
        } => point::solarize_add(values, add, threshold),
        Operation::SolarizeAdd {
            add,
            threshold,
            scope: SolarizeScope::All,
        } => {
            let values = values.copied();
            point::solarize_add(Bytes::InPlace(values), add, i32::MAX);
            point::solarize(Bytes::InPlace(values), f64::from(threshold));
        }
        Operation::Brightness { factor, .. } => {
            point::apply_table(values, &blend::brightness(factor));
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use ddas_formats::{Extent, Interpolation, Rounding, SignRule};

    use super::*;

    /// No size and no argument, however absurd, panics or overflows, and the
    /// size never changes.
    #[test]
    fn absurd_arguments_are_survived() {
        let sign = SignRule::Fixed;
        let numbers = [
            0.0,
            -0.0,
            1e-300,
            0.5,
            -1.0,
            32767.9,
            -40_000.0,
            1e9,
            -1e18,
            f64::MAX,
            f64::MIN,
            f64::INFINITY,
            f64::NAN,
        ];
        let interpolations = [
            Interpolation::Nearest,
            Interpolation::Bilinear,
            Interpolation::Bicubic,
        ];
        let mut kernels = Kernels::default();
        let sizes = [
            (0, 0),
            (0, 3),
            (1, 1),
            (1, 9),
            (9, 1),
            (2, 2),
            (4, 5),
            (17, 6),
        ];
        for (width, height) in sizes {
            let mut image = Image::new(width, height);
            let mut apply = |operation| {
                for center in [
                    None,
                    Some((0.0, 0.0)),
                    Some((1e300, f64::NAN)),
                    Some((-3.5, -1e9)),
                ] {
                    kernels.apply(&operation, center, &mut image);
                    assert_eq!((image.width(), image.height()), (width, height));
                }
            };
            for operation in [
                Operation::FlipLR,
                Operation::FlipUD,
                Operation::AutoContrast,
                Operation::Equalize,
                Operation::Invert,
                Operation::Blur,
                Operation::Smooth,
                Operation::Rotate90,
                Operation::Rotate180,
                Operation::Rotate270,
                Operation::Posterize { bits: 255 },
                Operation::SolarizeAdd {
                    add: i32::MIN,
                    threshold: i32::MIN,
                    scope: SolarizeScope::Below,
                },
                Operation::SolarizeAdd {
                    add: i32::MAX,
                    threshold: i32::MAX,
                    scope: SolarizeScope::All,
                },
                Operation::CropBilinear { pixels: 0 },
                Operation::CropBilinear { pixels: 1 },
                Operation::CropBilinear { pixels: 2 },
                Operation::CropBilinear { pixels: u32::MAX },
            ] {
                apply(operation);
            }
            for number in numbers {
                apply(Operation::Solarize { threshold: number });
                apply(Operation::GaussianBlur { radius: number });
                apply(Operation::Desaturate { amount: number });
                let factor = number;
                apply(Operation::Color { factor, sign });
                apply(Operation::Contrast { factor, sign });
                apply(Operation::Brightness { factor, sign });
                apply(Operation::Sharpness { factor, sign });
                for extent in [Extent::Pixels(number), Extent::Fraction(number)] {
                    let fill = [1, 2, 3];
                    for shape in [CutoutShape::Centered, CutoutShape::Rectangle] {
                        let size = extent;
                        apply(Operation::Cutout { size, shape, fill });
                    }
                    for interpolation in interpolations {
                        let warp = Warp {
                            fill,
                            interpolation,
                        };
                        let (degrees, shear, offset) = (number, number, extent);
                        apply(Operation::Rotate {
                            degrees,
                            sign,
                            warp,
                        });
                        apply(Operation::ShearX { shear, sign, warp });
                        apply(Operation::ShearY { shear, sign, warp });
                        for rounding in [Rounding::None, Rounding::Truncate] {
                            apply(Operation::TranslateX {
                                offset,
                                rounding,
                                sign,
                                warp,
                            });
                            apply(Operation::TranslateY {
                                offset,
                                rounding,
                                sign,
                                warp,
                            });
                        }
                    }
                }
            }
        }
    }

    /// Only square images turn by moving pixels; others keep their size, with
    /// the fill where nothing maps.
    #[test]
    fn a_quarter_turn_keeps_the_size() {
        let pixels = [1, 2, 3, 4].iter().flat_map(|&n| [n; 3]).collect();
        let mut square = Image::from_rgb(2, 2, pixels).unwrap();
        let mut kernels = Kernels::default();
        kernels.apply(&Operation::Rotate90, None, &mut square);
        let turned: Vec<u8> = square.pixels().iter().step_by(3).copied().collect();
        assert_eq!(turned, [2, 4, 1, 3]);

        let mut wide = Image::new(5, 1);
        wide.fill([9, 9, 9]);
        kernels.apply(&Operation::Rotate90, None, &mut wide);
        let turned: Vec<u8> = wide.pixels().iter().step_by(3).copied().collect();
        assert_eq!(turned, [0, 0, 9, 0, 0]);
    }
}
