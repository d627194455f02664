//! The hue turned, through Pillow's HSV (`Convert.c`, `rgb2hsv_row` and
//! `hsv2rgb`): torchvision's `adjust_hue` on PIL images.

use crate::cpu::for_each_cpu;
use crate::image::Image;

/// Turns the hue of every pixel by `turns`, -0.5 to 0.5: `turns * 255`,
/// truncated, is added to Pillow's hue byte, which wraps. The way through HSV
/// alone changes pixels a little, even when nothing is added.
pub(crate) fn turn(image: &mut Image, turns: f64) {
    turn_pixels(image.pixels_mut(), (turns * 255.0) as i32 as u8);
}

/// Pixels worked on together, channel by channel, without branches, so that
/// the steps become vector instructions.
const BLOCK: usize = 64;

/// One channel of a block.
type Plane = [u8; BLOCK];

for_each_cpu! {
    avx512
    fn turn_pixels(pixels: &mut [u8], added: u8) {
        let sectors = sectors();
        let mut planes = [[0; BLOCK]; 3];
        for block in pixels.as_chunks_mut::<3>().0.chunks_mut(BLOCK) {
            let [first, second, third] = &mut planes;
            for (i, pixel) in block.iter().enumerate() {
                [first[i], second[i], third[i]] = *pixel;
            }
            let [mut hue, saturation, value] = to_hsv(&planes);
            for hue in &mut hue {
                *hue = hue.wrapping_add(added);
            }
            planes = to_rgb(&[hue, saturation, value], &sectors);
            let [first, second, third] = &planes;
            for (i, pixel) in block.iter_mut().enumerate() {
                *pixel = [first[i], second[i], third[i]];
            }
        }
    }
}

/// In single precision but where C promotes to double. Grey needs no case of
/// its own: it comes out with hue and saturation 0.
#[inline(always)]
fn to_hsv([reds, greens, blues]: &[Plane; 3]) -> [Plane; 3] {
    let [mut hues, mut saturations, mut values] = [[0; BLOCK]; 3];
    for i in 0..BLOCK {
        let (red, green, blue) = (reds[i], greens[i], blues[i]);
        let most = red.max(green).max(blue);
        let range = f32::from(most - red.min(green).min(blue));
        let (positive_range, positive_most) = (range.max(1.0), f32::from(most).max(1.0));
        let below = |channel: u8| f64::from(f32::from(most - channel) / positive_range);
        let (red_below, green_below, blue_below) = (below(red), below(green), below(blue));
        // Sums and differences are exact before they are rounded.
        let of_green = 2.0 + red_below - blue_below;
        let of_blue = 4.0 + green_below - red_below;
        let hue = if green == most { of_green } else { of_blue };
        let hue = if red == most {
            blue_below - green_below
        } else {
            hue
        };
        // fmod(x, 1) of a number from 5/6 to 2.
        let turns = f64::from(hue as f32) / 6.0 + 1.0;
        let turns = if turns >= 1.0 { turns - 1.0 } else { turns };
        hues[i] = truncate(f64::from(turns as f32) * 255.0);
        saturations[i] = truncate(f64::from(range / positive_most) * 255.0);
        values[i] = most;
    }
    [hues, saturations, values]
}

/// Sixth of the circle and position in it, of each hue.
fn sectors() -> ([u8; 256], [f32; 256]) {
    let sixths = |hue: usize| hue as f64 * 6.0 / 255.0;
    (
        std::array::from_fn(|hue| sixths(hue) as u8 % 6),
        std::array::from_fn(|hue| (sixths(hue) - sixths(hue).floor()) as f32),
    )
}

#[inline(always)]
fn to_rgb(
    [hues, saturations, values]: &[Plane; 3],
    (sector, position): &([u8; 256], [f32; 256]),
) -> [Plane; 3] {
    let mut positions = [0.0; BLOCK];
    let mut sectors = [0; BLOCK];
    for i in 0..BLOCK {
        positions[i] = position[usize::from(hues[i])];
        sectors[i] = sector[usize::from(hues[i])];
    }
    let [mut low, mut falling, mut rising] = [[0; BLOCK]; 3];
    for i in 0..BLOCK {
        let value = f64::from(values[i]);
        let saturation = f32::from(saturations[i]) / 255.0;
        let rounded = |factor: f64| truncate(value * factor + 0.5);
        low[i] = rounded(1.0 - f64::from(saturation));
        falling[i] = rounded(1.0 - f64::from(saturation * positions[i]));
        rising[i] = rounded(1.0 - f64::from(saturation) * (1.0 - f64::from(positions[i])));
    }
    let [mut reds, mut greens, mut blues] = [[0; BLOCK]; 3];
    for i in 0..BLOCK {
        let (value, low, falling, rising) = (values[i], low[i], falling[i], rising[i]);
        let sector = |number| 0u8.wrapping_sub(u8::from(sectors[i] == number));
        let [zero, one, two, three, four, five] = [0, 1, 2, 3, 4, 5].map(sector);
        reds[i] = value & (zero | five) | falling & one | low & (two | three) | rising & four;
        greens[i] = value & (one | two) | falling & three | low & (four | five) | rising & zero;
        blues[i] = value & (three | four) | falling & five | low & (zero | one) | rising & two;
    }
    [reds, greens, blues]
}

/// `value as u8` for 0 to 255, in a form that becomes vector instructions.
#[inline(always)]
fn truncate(value: f64) -> u8 {
    const SHIFT: f64 = (1u64 << 52) as f64; // doubles from here on have no fraction
    let shifted = value + SHIFT; // rounds to nearest; the low bits hold the integer
    let rounded_up = shifted - SHIFT > value;
    (shifted.to_bits() as u8).wrapping_sub(u8::from(rounded_up))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::on_every_cpu;

    /// Sum over all bytes of `byte * ((position * 2654435761) mod 2^32)`, of
    /// every colour in order.
    fn checksum(convert: impl Fn(&[Plane; 3]) -> [Plane; 3]) -> u64 {
        let mut sum = 0u64;
        let mut position = 0u32;
        for block in 0..(1u32 << 24) / BLOCK as u32 {
            let code = |i: usize| block * BLOCK as u32 + i as u32;
            let plane = |shift: u32| std::array::from_fn(|i| (code(i) >> shift) as u8);
            let planes = convert(&[plane(16), plane(8), plane(0)]);
            for i in 0..BLOCK {
                for plane in &planes {
                    let weight = position.wrapping_mul(2_654_435_761);
                    sum = sum.wrapping_add(u64::from(plane[i]) * u64::from(weight));
                    position = position.wrapping_add(1);
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
    fn every_version_and_every_rest_gives_the_same() {
        let colours: Vec<u8> = (0..3 * 1000u32)
            .map(|i| ((i * i * 31) >> 5) as u8)
            .collect();
        let mut plain = Vec::new();
        on_every_cpu(|cpu| {
            let mut pixels = colours.clone();
            turn_pixels(&mut pixels, 77);
            if plain.is_empty() {
                plain.clone_from(&pixels);
            }
            assert_eq!(pixels, plain, "{cpu:?}");
        });
        for count in [0, 1, 63, 64, 65, 200] {
            let mut pixels = colours[..3 * count].to_vec();
            turn_pixels(&mut pixels, 77);
            assert_eq!(pixels, plain[..3 * count]);
        }
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
