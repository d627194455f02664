//! Operations on single values: every output byte depends on one input byte.
//!
//! Where the operation is plain arithmetic it is written as such; where Pillow
//! builds a table from the image (`ImageOps.py`), so do we.

#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::cpu::for_each_cpu;
use crate::image::Image;

/// What each of the 256 values of a channel becomes.
pub(super) type Table = [u8; 256];

/// Every value as it is.
pub(super) const IDENTITY: Table = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = i as u8;
        i += 1;
    }
    table
};

/// Values to be changed.
pub(super) enum Bytes<'a> {
    /// Where they are.
    InPlace(&'a mut [u8]),
    /// From there, into as many here.
    Copied(&'a [u8], &'a mut [u8]),
}

impl<'a> Bytes<'a> {
    /// Leaves the values as they are.
    fn keep(self) {
        if let Bytes::Copied(from, to) = self {
            to.copy_from_slice(from);
        }
    }

    /// The values, where they are now.
    pub(super) fn copied(self) -> &'a mut [u8] {
        match self {
            Bytes::InPlace(values) => values,
            Bytes::Copied(from, to) => {
                to.copy_from_slice(from);
                to
            }
        }
    }

    /// Sets each value to `change` of it.
    #[inline(always)]
    fn map(self, change: impl Fn(u8) -> u8) {
        match self {
            Bytes::InPlace(values) => {
                let (head, body) = values.split_at_mut(unaligned(values));
                head.iter_mut().for_each(|value| *value = change(*value));
                body.iter_mut().for_each(|value| *value = change(*value));
            }
            Bytes::Copied(from, to) => {
                let (head, body) = to.split_at_mut(unaligned(to));
                let (from_head, from_body) = from.split_at(head.len().min(from.len()));
                for (to, from) in head.iter_mut().zip(from_head) {
                    *to = change(*from);
                }
                for (to, from) in body.iter_mut().zip(from_body) {
                    *to = change(*from);
                }
            }
        }
    }
}

/// How many of the first values come before a line of the cache begins: wide
/// stores across two lines take twice as long. 0 where there are few values.
#[inline(always)]
fn unaligned(values: &[u8]) -> usize {
    match values.len() {
        ..8192 => 0,
        length => values.as_ptr().align_offset(64).min(length),
    }
}

/// 255 - v.
pub(super) fn invert(values: Bytes<'_>) {
    invert_bytes(values);
}

for_each_cpu! {
    avx512
    fn invert_bytes(values: Bytes<'_>) {
        values.map(|value| !value);
    }
}

for_each_cpu! {
    avx512
    fn mask_bytes(values: Bytes<'_>, mask: u8) {
        values.map(|value| value & mask);
    }
}

for_each_cpu! {
    avx512
    fn invert_from(values: Bytes<'_>, limit: u8) {
        values.map(|value| if value < limit { value } else { !value });
    }
}

for_each_cpu! {
    avx512
    /// Adds `up` and subtracts `down`, each clipped, from the values below the
    /// limit, or from all.
    fn shift_below(values: Bytes<'_>, limit: Option<u8>, up: u8, down: u8) {
        let shifted = |value: u8| value.saturating_add(up).saturating_sub(down);
        match limit {
            None => values.map(shifted),
            Some(limit) => {
                values.map(|value| if value < limit { shifted(value) } else { value });
            }
        }
    }
}

/// Keeps the `bits` highest bits: 8 or more is the identity, 0 is black.
///
/// Pillow before 13.0 answers 0 bits with black as well; later versions
/// refuse it.
pub(super) fn posterize(values: Bytes<'_>, bits: u8) {
    match bits {
        0 => mask_bytes(values, 0),
        1..8 => mask_bytes(values, !(0xff >> bits)),
        _ => values.keep(),
    }
}

/// Inverts the values that are not below `threshold`, any number.
pub(super) fn solarize(values: Bytes<'_>, threshold: f64) {
    match below(threshold) {
        0 => invert(values),
        256.. => values.keep(),
        limit => invert_from(values, limit as u8),
    }
}

/// Adds `add` to the values below `threshold` and clips to 0..=255; the others
/// keep their value (the reading of TensorFlow's and timm's sets; Pillow has
/// no such operation).
pub(super) fn solarize_add(values: Bytes<'_>, add: i32, threshold: i32) {
    if threshold <= 0 || add == 0 {
        return values.keep();
    }
    let up = add.clamp(0, 255) as u8;
    let down = add.saturating_neg().clamp(0, 255) as u8;
    // At most one of the two is not zero.
    shift_below(values, u8::try_from(threshold).ok(), up, down);
}

/// Stretches each channel to 0..=255 (`ImageOps.autocontrast`, cutoff 0).
pub(super) fn auto_contrast(image: &mut Image) {
    let extremes = extremes(image.pixels());
    if extremes
        .iter()
        .all(|&(low, high)| high <= low || (low, high) == (0, 255))
    {
        return; // a channel of one value stays, a full one maps to itself
    }
    let tables = extremes.map(|(low, high)| stretch(low, high));
    apply_tables(image, &tables);
}

/// Spreads the histogram of each channel evenly (`ImageOps.equalize`).
pub(super) fn equalize(image: &mut Image) {
    let histograms = histograms(image.pixels());
    let tables = [0, 1, 2].map(|channel| flatten(&histograms[channel]));
    if tables.iter().any(Option::is_some) {
        let tables = tables.map(|table| table.unwrap_or(IDENTITY));
        apply_tables(image, &tables);
    }
}

/// Sets every value through the same table.
pub(super) fn apply_table(values: Bytes<'_>, table: &Table) {
    let values = match values {
        #[cfg(target_arch = "x86_64")]
        Bytes::Copied(from, to) => {
            if x86::apply_table_to(from, table, to) {
                return;
            }
            to.copy_from_slice(from);
            to
        }
        values => values.copied(),
    };
    #[cfg(target_arch = "x86_64")]
    if x86::apply_table(values, table) {
        return;
    }
    for value in values {
        *value = table[usize::from(*value)];
    }
}

fn apply_tables(image: &mut Image, tables: &[Table; 3]) {
    #[cfg(target_arch = "x86_64")]
    if x86::apply_tables(image.pixels_mut(), tables) {
        return;
    }
    let [red, green, blue] = tables;
    for pixel in image.pixels_mut().as_chunks_mut::<3>().0 {
        pixel[0] = red[usize::from(pixel[0])];
        pixel[1] = green[usize::from(pixel[1])];
        pixel[2] = blue[usize::from(pixel[2])];
    }
}

/// How many of the values 0..=255 are below `threshold`.
fn below(threshold: f64) -> u16 {
    threshold.ceil().clamp(0.0, 256.0) as u16 // not a number: none
}

for_each_cpu! {
    avx512
    /// Smallest and largest value of each channel.
    fn extremes(pixels: &[u8]) -> [(u8, u8); 3] {
    // Whole vectors of bytes at a time: 192 holds 64 pixels, so byte `i` of
    // every block is of channel `i % 3`.
    const BLOCK: usize = 192;
    let (blocks, rest) = pixels.as_chunks::<BLOCK>();
    let mut low = [u8::MAX; BLOCK];
    let mut high = [u8::MIN; BLOCK];
    for block in blocks {
        for i in 0..BLOCK {
            low[i] = low[i].min(block[i]);
            high[i] = high[i].max(block[i]);
        }
    }
    let mut extremes = [(u8::MAX, u8::MIN); 3];
    let mut widen = |i: usize, low: u8, high: u8| {
        let (lowest, highest) = &mut extremes[i % 3];
        *lowest = (*lowest).min(low);
        *highest = (*highest).max(high);
    };
    for i in 0..BLOCK {
        widen(i, low[i], high[i]);
    }
    for (i, &value) in rest.iter().enumerate() {
        widen(i, value, value);
    }
    extremes
    }
}

/// Pillow's table: `int(i * scale + offset)` in double precision, clipped.
fn stretch(low: u8, high: u8) -> Table {
    if high <= low {
        return IDENTITY;
    }
    let scale = 255.0 / f64::from(high - low);
    let offset = -f64::from(low) * scale;
    let mut table = [0; 256];
    for (i, entry) in table.iter_mut().enumerate() {
        *entry = (i as f64 * scale + offset) as u8; // truncates and clips
    }
    table
}

/// Counts of each value, per channel.
fn histograms(pixels: &[u8]) -> [[u32; 256]; 3] {
    // Four sets of counters, for every fourth pixel: runs of equal pixels
    // would otherwise wait for their own counter at every step.
    let mut counters = [[[0u32; 256]; 3]; 4];
    let (fours, rest) = pixels.as_chunks::<12>();
    for four in fours {
        for (pixel, counters) in four.as_chunks::<3>().0.iter().zip(&mut counters) {
            for (channel, counter) in counters.iter_mut().enumerate() {
                counter[usize::from(pixel[channel])] += 1;
            }
        }
    }
    let [mut sums, second, third, fourth] = counters;
    for pixel in rest.as_chunks::<3>().0 {
        for (channel, counter) in sums.iter_mut().enumerate() {
            counter[usize::from(pixel[channel])] += 1;
        }
    }
    for channel in 0..3 {
        for value in 0..256 {
            sums[channel][value] +=
                second[channel][value] + third[channel][value] + fourth[channel][value];
        }
    }
    sums
}

/// Pillow's equalising table, or `None` where it leaves the channel alone: one
/// value only, or too few pixels for a step.
fn flatten(histogram: &[u32; 256]) -> Option<Table> {
    let last = *histogram.iter().rev().find(|&&count| count > 0)?;
    let pixels: u64 = histogram.iter().map(|&count| u64::from(count)).sum();
    // One value only: nothing below the last bin, so the step is 0 as well.
    let step = (pixels - u64::from(last)) / 255;
    if step == 0 {
        return None;
    }
    let mut table = [0; 256];
    let mut sum = step / 2;
    if pixels <= QUICK_PIXELS {
        let reciprocal = reciprocal(step);
        for (entry, &count) in table.iter_mut().zip(histogram) {
            *entry = ((sum * reciprocal) >> RECIPROCAL_BITS).min(255) as u8;
            sum += u64::from(count);
        }
    } else {
        for (entry, &count) in table.iter_mut().zip(histogram) {
            *entry = (sum / step).min(255) as u8;
            sum += u64::from(count);
        }
    }
    Some(table)
}

/// Up to this many pixels a product with [`reciprocal`] divides exactly.
const QUICK_PIXELS: u64 = 1 << 22;
const RECIPROCAL_BITS: u32 = 40;

/// `2^40 / step`, rounded up.
///
/// `n * reciprocal >> 40` is `n / step` as long as `n` times what was rounded
/// up, less than `step`, stays below 2^40. Here `n` is below 2^23 and `step`
/// at most 2^22 / 255, so that it stays below 2^38; and the product stays
/// below 2^63.
fn reciprocal(step: u64) -> u64 {
    (1u64 << RECIPROCAL_BITS).div_ceil(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gray(values: &[u8]) -> Image {
        let pixels = values.iter().flat_map(|&v| [v; 3]).collect();
        Image::from_rgb(values.len() as u32, 1, pixels).unwrap()
    }

    fn first_channel(image: &Image) -> Vec<u8> {
        image.pixels().iter().step_by(3).copied().collect()
    }

    #[test]
    fn posterize_keeps_the_highest_bits() {
        for (bits, expected) in [
            (0, [0, 0, 0]),
            (1, [0, 128, 128]),
            (4, [96, 176, 240]),
            (7, [102, 182, 254]),
            (8, [103, 183, 255]),
            (9, [103, 183, 255]),
        ] {
            let mut image = gray(&[103, 183, 255]);
            posterize(Bytes::InPlace(image.pixels_mut()), bits);
            assert_eq!(first_channel(&image), expected, "{bits} bits");
        }
    }

    #[test]
    fn solarize_takes_any_threshold() {
        for (threshold, expected) in [
            (-102.0, [255, 128, 127, 0]),
            (0.0, [255, 128, 127, 0]),
            (127.0, [0, 128, 127, 0]),
            (127.5, [0, 127, 127, 0]),
            (128.0, [0, 127, 127, 0]),
            (255.0, [0, 127, 128, 0]),
            (255.1, [0, 127, 128, 255]),
            (1e300, [0, 127, 128, 255]),
            (f64::NEG_INFINITY, [255, 128, 127, 0]),
        ] {
            let mut image = gray(&[0, 127, 128, 255]);
            solarize(Bytes::InPlace(image.pixels_mut()), threshold);
            assert_eq!(first_channel(&image), expected, "threshold {threshold}");
        }
    }

    #[test]
    fn solarize_add_shifts_only_what_is_below_the_threshold() {
        for (add, threshold, expected) in [
            (110, 128, [110, 237, 128, 255]),
            (200, 128, [200, 255, 128, 255]),
            (-50, 128, [0, 77, 128, 255]),
            (10, 256, [10, 137, 138, 255]),
            (10, 0, [0, 127, 128, 255]),
            (i32::MIN, i32::MAX, [0, 0, 0, 0]),
        ] {
            let mut image = gray(&[0, 127, 128, 255]);
            solarize_add(Bytes::InPlace(image.pixels_mut()), add, threshold);
            assert_eq!(first_channel(&image), expected, "{add} below {threshold}");
        }
    }

    #[test]
    fn auto_contrast_stretches_each_channel_alone() {
        let mut image = Image::from_rgb(3, 1, vec![10, 7, 0, 20, 7, 255, 30, 7, 100]).unwrap();
        auto_contrast(&mut image);
        // 10..30 becomes 0..255 (20 -> trunc(127.5)); one value and the full
        // range stay.
        assert_eq!(image.pixels(), [0, 7, 0, 127, 7, 255, 255, 7, 100]);
    }

    #[test]
    fn extremes_see_every_byte() {
        for position in 0..150 {
            let mut pixels = vec![100; 150];
            pixels[position] = 3;
            let mut expected = [(100, 100); 3];
            expected[position % 3].0 = 3;
            assert_eq!(extremes(&pixels), expected);
            pixels[position] = 240;
            expected[position % 3] = (100, 240);
            assert_eq!(extremes(&pixels), expected);
        }
    }

    #[test]
    fn equalize_clips_and_leaves_small_images_alone() {
        // 512 pixels: 256 of value 10, 255 of 20, one of 30. The step is
        // (512 - 1) / 255 = 2, the table (1 + pixels below) / 2 clipped.
        let mut values = vec![10; 256];
        values.extend([20; 255]);
        values.push(30);
        let mut image = gray(&values);
        equalize(&mut image);
        let out = first_channel(&image);
        assert_eq!((out[0], out[256], out[511]), (0, 128, 255));

        let mut small = gray(&[5, 6, 7, 8]);
        equalize(&mut small);
        assert_eq!(first_channel(&small), [5, 6, 7, 8]);
    }

    #[test]
    fn products_with_the_reciprocal_divide_exactly() {
        for step in (1..2000).chain([16_000, 16_383, 16_447, QUICK_PIXELS / 255]) {
            let quotients = (0..=255).chain([QUICK_PIXELS * 2 / step]);
            for edge in quotients.map(|quotient| quotient * step) {
                for n in [edge.saturating_sub(1), edge, edge + step / 2] {
                    let n = n.min(QUICK_PIXELS * 2);
                    assert_eq!((n * reciprocal(step)) >> RECIPROCAL_BITS, n / step);
                }
            }
        }
    }

    #[test]
    fn histograms_count_every_pixel_of_odd_and_even_images() {
        for count in 1..10u8 {
            let pixels: Vec<u8> = (0..count).flat_map(|i| [i, 100 + i, 200]).collect();
            let histograms = histograms(&pixels);
            for i in 0..usize::from(count) {
                assert_eq!(histograms[0][i], 1);
                assert_eq!(histograms[1][100 + i], 1);
            }
            assert_eq!(histograms[2][200], u32::from(count));
            assert_eq!(
                histograms.iter().flatten().sum::<u32>(),
                3 * u32::from(count)
            );
        }
    }
}
