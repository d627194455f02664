//! UniformAugment (LingChen et al., 2020) as the TrivialAugment authors compare with it
//! (automl/trivialaugment, `aug_lib.py`: class `UniAugment`, space `uniaug`, 31 strengths).
//!
//! Two operations, each applied with probability 1/2, each at a strength of 0
//! to 30 of 30. Pillow with nearest neighbours, black outside.

use super::operations::{
    BLACK, ENHANCERS, cutout_rectangle, rotate, shear_x, shear_y, tidy, translate_x, translate_y,
};
use super::{Definition, Weighted, merged};
use crate::operation::Operation;
use crate::operation_arguments::{Extent, SignRule};

const STRENGTHS: u32 = 31;

pub(super) fn definition(image_size: u32) -> Definition {
    let scaled = |strength: u32, full: f64| f64::from(strength) * full / 30.0;
    type AtStrength<'a> = Box<dyn Fn(u32) -> Operation + 'a>;
    let mut kinds: Vec<AtStrength<'_>> = vec![
        Box::new(|_| Operation::Identity),
        Box::new(|s| shear_x(tidy(scaled(s, 0.3)), BLACK)),
        Box::new(|s| shear_y(tidy(scaled(s, 0.3)), BLACK)),
        Box::new(|s| translate_x(Extent::Pixels(scaled(s, 14.4).trunc()), BLACK)),
        Box::new(|s| translate_y(Extent::Pixels(scaled(s, 14.4).trunc()), BLACK)),
        Box::new(|s| rotate(scaled(s, 30.0).trunc(), BLACK)),
        Box::new(|_| Operation::AutoContrast),
        Box::new(|_| Operation::Invert),
        Box::new(|_| Operation::Equalize),
        Box::new(|s| Operation::Solarize {
            threshold: 256.0 - scaled(s, 256.0).trunc(),
        }),
        Box::new(|s| Operation::Posterize {
            bits: 8 - scaled(s, 4.0) as u8,
        }),
        Box::new(|s| match scaled(s, f64::from(image_size) * 0.2).trunc() {
            // Nothing is drawn there; a rectangle of no side would still be a pixel.
            0.0 => Operation::Identity,
            size => cutout_rectangle(size, [0; 3]),
        }),
    ];
    for enhancer in ENHANCERS {
        kinds.push(Box::new(move |s| {
            enhancer.by(tidy(scaled(s, 1.8) + 0.1), SignRule::Fixed)
        }));
    }
    let share = 0.5 / kinds.len() as f64 / f64::from(STRENGTHS);
    let mut entries: Weighted = kinds
        .iter()
        .flat_map(|kind| merged((0..STRENGTHS).map(|strength| (share, kind(strength)))))
        .collect();
    // The half of the draws that are not applied.
    entries[0].0 += 0.5;
    Definition {
        draws: 2,
        entries,
        source: ("trivialaugment", "e6545d8"),
    }
}
