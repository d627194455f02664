//! `RandAugment` of ildoonet/pytorch-randaugment (`RandAugment/augmentations.py`).
//!
//! Every operation has a range and stands at `magnitude / 30` of it. Pillow
//! with nearest neighbours and black outside; Solarize and Posterize get
//! weaker as the magnitude grows, the enhancers go one way.

use super::operations::{
    BLACK, ENHANCERS, added_everywhere, cutout_rectangle, rotate, shear_x, shear_y, translate_x,
    translate_y,
};
use super::{Definition, equal};
use crate::operation::Operation;
use crate::operation_arguments::{Extent, SignRule};

pub(super) fn randaugment(draws: u32, magnitude: u32) -> Definition {
    let at = |low: f64, high: f64| f64::from(magnitude) / 30.0 * (high - low) + low;
    let mut operations = vec![
        Operation::AutoContrast,
        Operation::Equalize,
        Operation::Invert,
        rotate(at(0.0, 30.0), BLACK),
        // At least one bit is kept, in later versions of that code; the first ones blacken.
        Operation::Posterize {
            bits: (at(0.0, 4.0) as u8).max(1),
        },
        Operation::Solarize {
            threshold: at(0.0, 256.0),
        },
        // A fraction is cut off by the conversion to bytes.
        added_everywhere(at(0.0, 110.0) as i32),
    ];
    operations.extend(ENHANCERS.map(|enhancer| enhancer.by(at(0.1, 1.9), SignRule::Fixed)));
    operations.extend([
        shear_x(at(0.0, 0.3), BLACK),
        shear_y(at(0.0, 0.3), BLACK),
        cutout_rectangle(at(0.0, 40.0), [125, 123, 114]),
        translate_x(Extent::Pixels(at(0.0, 100.0)), BLACK),
        translate_y(Extent::Pixels(at(0.0, 100.0)), BLACK),
    ]);
    Definition {
        draws,
        entries: equal(operations.into_iter().map(Into::into).collect()),
        source: ("pytorch-randaugment", "48b8f50"),
    }
}
