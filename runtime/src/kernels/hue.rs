//! The hue turned, through Pillow's HSV (`Convert.c`, `rgb2hsv_row` and
//! `hsv2rgb`): torchvision's `adjust_hue` on PIL images.

use crate::image::Image;

/// Turns the hue of every pixel by `turns`, -0.5 to 0.5: `turns * 255`,
/// truncated, is added to Pillow's hue byte, which wraps. The way through HSV
/// alone changes pixels a little, even when nothing is added.
pub(crate) fn turn(image: &mut Image, turns: f64) {
    let added = (turns * 255.0) as i32 as u8;
    let sectors = sectors();
    for pixel in image.pixels_mut().as_chunks_mut::<3>().0 {
        let [hue, saturation, value] = to_hsv(*pixel);
        *pixel = to_rgb([hue.wrapping_add(added), saturation, value], &sectors);
    }
}

/// In single precision but where C promotes to double.
#[inline(always)]
fn to_hsv([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let most = red.max(green).max(blue);
    let least = red.min(green).min(blue);
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let below = |channel: u8| f32::from(most - channel) / range;
    let hue = if red == most {
        below(blue) - below(green)
    } else if green == most {
        (2.0 + f64::from(below(red)) - f64::from(below(blue))) as f32
    } else {
        (4.0 + f64::from(below(green)) - f64::from(below(red))) as f32
    };
    // fmod(x, 1) of a number from 0.8 to 2.
    let turns = f64::from(hue) / 6.0 + 1.0;
    let turns = if turns >= 1.0 { turns - 1.0 } else { turns };
    let hue = f64::from(turns as f32) * 255.0;
    let saturation = f64::from(range / f32::from(most)) * 255.0;
    [hue as u8, saturation as u8, most]
}

/// Sixth of the circle and position in it, of each hue.
fn sectors() -> [(u8, f32); 256] {
    std::array::from_fn(|hue| {
        let sixths = hue as f64 * 6.0 / 255.0;
        let whole = sixths.floor();
        ((whole as u8) % 6, (sixths - whole) as f32)
    })
}

#[inline(always)]
fn to_rgb([hue, saturation, value]: [u8; 3], sectors: &[(u8, f32); 256]) -> [u8; 3] {
    if saturation == 0 {
        return [value; 3];
    }
    let (sector, position) = sectors[usize::from(hue)];
    let saturation = (f64::from(saturation) / 255.0) as f32;
    let scaled = |factor: f64| (f64::from(value) * factor + 0.5) as u8;
    let low = scaled(1.0 - f64::from(saturation));
    let falling = scaled(1.0 - f64::from(saturation * position));
    let rising = scaled(1.0 - f64::from(saturation) * (1.0 - f64::from(position)));
    match sector {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sum over all bytes of `byte * ((position * 2654435761) mod 2^32)`.
    fn checksum(convert: impl Fn([u8; 3]) -> [u8; 3]) -> u64 {
        let mut sum = 0u64;
        let mut position = 0u32;
        for first in 0..=255 {
            for second in 0..=255 {
                for third in 0..=255 {
                    for byte in convert([first, second, third]) {
                        let weight = position.wrapping_mul(2_654_435_761);
                        sum = sum.wrapping_add(u64::from(byte) * u64::from(weight));
                        position = position.wrapping_add(1);
                    }
                }
            }
        }
        sum
    }

    const HSV: u64 = 17_591_720_324_152_144_305;
    const RGB: u64 = 10_331_283_739_850_820_698;

    /// Every colour, by `numpy.asarray(image.convert("HSV"))` and back, with
    /// Pillow 13.0 (`hue.py` beside the goldens says how).
    #[test]
    fn conversions_are_pillows() {
        let sectors = sectors();
        assert_eq!(checksum(to_hsv), HSV);
        assert_eq!(checksum(|hsv| to_rgb(hsv, &sectors)), RGB);
    }

    #[test]
    fn a_turn_wraps_and_truncates() {
        let turned = |turns| {
            let mut image = Image::from_rgb(1, 1, vec![200, 40, 40]).unwrap();
            turn(&mut image, turns);
            image.pixels().to_vec()
        };
        assert_eq!(turned(0.0), [200, 40, 40]);
        assert_eq!(turned(0.0039), [200, 40, 40]); // 0.99: truncated
        assert_eq!(turned(1.0 / 3.0), [40, 200, 40]);
        assert_eq!(turned(-1.0 / 3.0), [44, 40, 200]); // hue 256 - 85 of 255
    }
}
