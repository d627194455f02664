//! Places in a scan from which decoding can go on.
//!
//! Huffman codes can only be read from the start: to decode a part of a
//! picture, one has to read over everything before it. An index, made once when
//! a picture is packed, says for every few minimum coded units where their bits
//! begin in the file and what the first coefficients are relative to, so that
//! only the part itself is read.
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 1 | 1, the version |
//! | 1 | 1 | components of the scan, 1 or 3 |
//! | 2 | 1 | minimum coded units from a place to the next in a row |
//! | 3 | 1 | 0 |
//! | 4 | | places: rows of minimum coded units from the top, each from the left |
//!
//! A place is the number of the bit in the file, the first of a byte being the
//! highest (4 bytes), and the predictor of each component (2 bytes, signed).
//! All numbers are little-endian.

const VERSION: u8 = 1;
const HEADER: usize = 4;

/// Units from a place to the next, for units `across` blocks wide: 64 pixels.
fn interval(across: usize) -> usize {
    8 / across
}

/// The index of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Index<'a> {
    places: &'a [u8],
    components: usize,
    interval: usize,
    /// Places of a row.
    per_row: usize,
}

/// Where decoding can go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Byte of the file, and bit of it from the highest on.
    pub(super) byte: usize,
    pub(super) bit: u32,
    pub(super) predictors: [i32; 3],
}

impl<'a> Index<'a> {
    /// Of a picture of so many rows of `units` minimum coded units. `None` when
    /// these are not the bytes of such an index.
    pub(super) fn read(
        bytes: &'a [u8],
        components: usize,
        units: usize,
        rows: usize,
    ) -> Option<Self> {
        let (&[version, count, interval, 0], places) = bytes.split_first_chunk::<HEADER>()? else {
            return None;
        };
        let interval = usize::from(interval);
        if version != VERSION || usize::from(count) != components || interval == 0 {
            return None;
        }
        let per_row = units.div_ceil(interval);
        let whole = places.len() == rows * per_row * place_bytes(components);
        whole.then_some(Self {
            places,
            components,
            interval,
            per_row,
        })
    }

    /// The last place at or before unit `unit` of row `row`, and the unit that
    /// begins there.
    pub(super) fn before(&self, row: usize, unit: usize) -> Option<(Place, usize)> {
        let number = row * self.per_row + unit / self.interval;
        let length = place_bytes(self.components);
        let (bit, predictors) = self
            .places
            .get(number * length..)?
            .get(..length)?
            .split_first_chunk()?;
        let bit = u32::from_le_bytes(*bit);
        let mut place = Place {
            byte: bit as usize / 8,
            bit: bit % 8,
            ..Place::default()
        };
        for (to, from) in place.predictors.iter_mut().zip(predictors.as_chunks().0) {
            *to = i16::from_le_bytes(*from).into();
        }
        Some((place, unit / self.interval * self.interval))
    }
}

fn place_bytes(components: usize) -> usize {
    4 + 2 * components
}

/// Writes an index.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    file: &'a [u8],
    /// Byte of the file, and how many of the scan's come before it when the
    /// zeros stuffed into them are not counted.
    at: usize,
    count: u64,
    components: usize,
    bytes: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// For a scan of so many components that begins at byte `data` of `file`,
    /// with units `across` blocks wide.
    pub(super) fn new(file: &'a [u8], data: usize, components: usize, across: usize) -> Self {
        let bytes = vec![VERSION, components as u8, interval(across) as u8, 0];
        Self {
            file,
            at: data,
            count: 0,
            components,
            bytes,
        }
    }

    /// Units from a place to the next.
    pub(super) fn interval(&self) -> usize {
        usize::from(self.bytes[2])
    }

    /// Adds the place of bit `bit` of the scan, not before the last one; zeros
    /// stuffed into the scan do not count.
    pub(super) fn add(&mut self, bit: u64, predictors: [i32; 3]) -> Option<()> {
        while self.count < bit / 8 {
            let stuffed = self.file.get(self.at..)?.starts_with(&[0xff, 0]);
            self.at += if stuffed { 2 } else { 1 };
            self.count += 1;
        }
        let place = u32::try_from(self.at as u64 * 8 + bit % 8).ok()?;
        self.bytes.extend(place.to_le_bytes());
        for predictor in &predictors[..self.components] {
            // What is above 16 bits does not matter, see `Scan::block`.
            self.bytes.extend((*predictor as i16).to_le_bytes());
        }
        Some(())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }
}
