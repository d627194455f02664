//! The markers before the picture's data, and which pictures this decoder
//! takes: anything else is left to libjpeg, which knows what to make of it.

use super::huffman::{AcTable, DcTable};

/// Coefficients of a block.
pub(super) const BLOCK: usize = 64;

/// Where coefficient `k` of the stored order lies in the block: row * 8 +
/// column.
pub(super) const ZIGZAG: [u8; BLOCK] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Tables a picture defines, in up to four places of each kind. Memory is
/// kept, and Huffman tables too: most files repeat those of the one before.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) quantization: [Option<[u16; BLOCK]>; 4],
    pub(super) dc: [DcTable; 4],
    pub(super) ac: [AcTable; 4],
    dc_defined: [bool; 4],
    ac_defined: [bool; 4],
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Component {
    id: u8,
    /// Blocks of a minimum coded unit, across and down.
    pub(super) across: usize,
    pub(super) down: usize,
    pub(super) quantization: usize,
    pub(super) dc: usize,
    pub(super) ac: usize,
}

/// A picture in one scan of one (grey) or three (YCbCr) components.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) width: usize,
    pub(super) height: usize,
    components: [Component; 3],
    count: usize,
    /// Minimum coded units between restarts; 0 for none.
    pub(super) restart_interval: u32,
    /// Where the scan's data begin.
    pub(super) data: usize,
}

impl Header {
    pub(super) fn components(&self) -> &[Component] {
        &self.components[..self.count]
    }

    /// Reads up to the first scan. `None` for whatever is not plain.
    pub(super) fn read(file: &[u8], tables: &mut Tables) -> Option<Header> {
        tables.quantization = [None; 4];
        tables.dc_defined = [false; 4];
        tables.ac_defined = [false; 4];
        let mut header = Header {
            width: 0,
            height: 0,
            components: [Component::default(); 3],
            count: 0,
            restart_interval: 0,
            data: 0,
        };
        let mut jfif = false;
        let mut adobe = None;
        let mut rest = file.strip_prefix(&[0xff, 0xd8])?;
        loop {
            let &[0xff, marker, high, low, ..] = rest else {
                return None;
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length < 2 || rest.len() < 2 + length {
                return None;
            }
            let (segment, after) = rest.split_at(2 + length);
            let segment = &segment[4..];
            rest = after;
            match marker {
                0xc0 | 0xc1 if header.count == 0 => header.frame(segment)?,
                0xc4 => tables.huffman(segment)?,
                0xdb => tables.quantization(segment)?,
                0xdd => {
                    let &interval = segment.first_chunk::<2>()?;
                    if segment.len() != 2 {
                        return None;
                    }
                    header.restart_interval = u32::from(u16::from_be_bytes(interval));
                }
                0xe0 => {
                    if segment.len() >= 14 && segment.starts_with(b"JFIF\0") {
                        jfif = true;
                        if segment[5] != 1 {
                            return None;
                        }
                    }
                }
                0xee => {
                    if segment.len() >= 12 && segment.starts_with(b"Adobe") {
                        adobe = Some(segment[11]);
                    }
                }
                0xe1..=0xed | 0xef | 0xfe => {}
                0xda => {
                    header.scan(segment)?;
                    header.data = file.len() - rest.len();
                    break;
                }
                _ => return None,
            }
        }
        // As libjpeg guesses the colours; RGB is left to it.
        let ycc = match (header.count, jfif, adobe) {
            (1, ..) | (3, true, _) | (3, false, Some(1)) => true,
            (3, false, None) => header.components.map(|c| c.id) != *b"RGB",
            _ => false,
        };
        let defined = header.components().iter().all(|component| {
            tables.quantization[component.quantization].is_some()
                && tables.dc_defined[component.dc]
                && tables.ac_defined[component.ac]
        });
        (ycc && defined).then_some(header)
    }

    fn frame(&mut self, segment: &[u8]) -> Option<()> {
        let (&[8, h1, h0, w1, w0, count], components) = segment.split_first_chunk()? else {
            return None;
        };
        self.height = usize::from(u16::from_be_bytes([h1, h0]));
        self.width = usize::from(u16::from_be_bytes([w1, w0]));
        self.count = usize::from(count);
        if !matches!(count, 1 | 3) || components.len() != 3 * self.count {
            return None;
        }
        let (components, _) = components.as_chunks::<3>();
        for (i, &[id, sampling, quantization]) in components.iter().enumerate() {
            let (across, down) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            let largest = if i == 0 && count == 3 { 2 } else { 1 };
            if !(1..=largest).contains(&across)
                || !(1..=largest).contains(&down)
                || quantization > 3
                || components[..i].iter().any(|other| other[0] == id)
            {
                return None;
            }
            self.components[i] = Component {
                id,
                across,
                down,
                quantization: usize::from(quantization),
                dc: 0,
                ac: 0,
            };
        }
        Some(())
    }

    fn scan(&mut self, segment: &[u8]) -> Option<()> {
        let (&count, rest) = segment.split_first()?;
        let (selections, spectrum) = rest.split_at_checked(2 * self.count)?;
        if self.count == 0 || usize::from(count) != self.count || spectrum != [0, 63, 0] {
            return None;
        }
        let components = self.components.iter_mut();
        for (component, &[id, tables]) in components.zip(selections.as_chunks::<2>().0) {
            component.dc = usize::from(tables >> 4);
            component.ac = usize::from(tables & 15);
            if component.id != id || component.dc > 3 || component.ac > 3 {
                return None;
            }
        }
        Some(())
    }
}

impl Tables {
    fn quantization(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let place = self.quantization.get_mut(usize::from(head & 15))?;
            let values = place.insert([0; BLOCK]);
            let wide = usize::from(head >> 4 != 0);
            let (entries, after) = rest.split_at_checked(BLOCK << wide)?;
            for (k, value) in values.iter_mut().enumerate() {
                *value = if wide == 1 {
                    u16::from_be_bytes([entries[2 * k], entries[2 * k + 1]])
                } else {
                    u16::from(entries[k])
                };
            }
            segment = after;
        }
        Some(())
    }

    fn huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = segment.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let count = counts.iter().map(|&count| usize::from(count)).sum();
            if count > 256 {
                return None;
            }
            let (symbols, after) = rest.split_at_checked(count)?;
            let place = usize::from(head & 15);
            match head >> 4 {
                0 => self.dc.get_mut(place)?.define(counts, symbols)?,
                1 => self.ac.get_mut(place)?.define(counts, symbols)?,
                _ => return None,
            }
            let defined = if head >> 4 == 0 {
                &mut self.dc_defined
            } else {
                &mut self.ac_defined
            };
            defined[place] = true;
            segment = after;
        }
        Some(())
    }
}
