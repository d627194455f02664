//! The blocks of a scan.

#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

use super::bits::{BUFFER, Bits, Cursor};
use super::header::{BLOCK, Component, Header, Tables, ZIGZAG};
use super::huffman::{AcTable, DcTable, Other};
use super::idct::{EMPTY, Factors, Pair, Pixels, flat, transform};
use super::index::Index;
use super::plane::Plane;
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Cpu, cpu};

/// Where coefficient `k` of the stored order lies in a [`Pair`], for either
/// block of it; from 64 on, where it does not matter.
const PLACES: [[u8; 128]; 2] = {
    let mut places = [[u8::MAX; 128]; 2];
    let mut k = 0;
    while k < BLOCK {
        places[0][k] = ZIGZAG[k] / 8 * 16 + ZIGZAG[k] % 8;
        places[1][k] = places[0][k] + 8;
        k += 1;
    }
    places
};

/// What is kept from picture to picture.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Per component, in the order of the rows.
    factors: [Factors; 3],
    pair: Pair,
    pixels: Pixels,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            factors: [[0; BLOCK]; 3],
            pair: EMPTY,
            pixels: [[[0; 8]; 8]; 2],
        }
    }
}

/// Whether the machine shifts by any register: the loops below do little else.
#[cfg(target_arch = "x86_64")]
fn has_bmi2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    let has = *HAS.get_or_init(|| {
        std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("lzcnt")
            && std::arch::is_x86_feature_detected!("movbe")
    });
    has && cpu() >= Cpu::Avx2
}

/// Most blocks of a minimum coded unit: four of luma and two of chroma.
const MOST_BLOCKS: usize = 6;

/// Where a block goes: the component, the byte of its plane.
type Place = (usize, usize);

/// A scan being decoded, row of minimum coded units by row.
pub(super) struct Scan<'a> {
    bits: Bits<'a>,
    blocks: &'a mut Blocks,
    codes: [(&'a DcTable, &'a AcTable); 3],
    components: &'a [Component],
    /// Minimum coded units of a row.
    units: usize,
    /// The next unit, counted from the first of the picture.
    next: usize,
    predictors: [i32; 3],
    restart_interval: u32,
    until_restart: u32,
    next_restart: u8,
    /// The block in the first half of the pair.
    waiting: Option<Place>,
    #[cfg(target_arch = "x86_64")]
    bmi2: bool,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        header: &'a Header,
        tables: &'a Tables,
        blocks: &'a mut Blocks,
        bits: Bits<'a>,
        units: usize,
    ) -> Option<Self> {
        let components = header.components();
        let mut codes = [(&tables.dc[0], &tables.ac[0]); 3];
        for (i, component) in components.iter().enumerate() {
            codes[i] = (&tables.dc[component.dc], &tables.ac[component.ac]);
            let factors = tables.quantization[component.quantization].as_ref()?;
            for (&place, &factor) in ZIGZAG.iter().zip(factors) {
                // Products wrap at 16 bits: the sign makes no difference.
                blocks.factors[i][usize::from(place)] = factor.cast_signed();
            }
        }
        blocks.pair = EMPTY;
        Some(Self {
            bits,
            blocks,
            codes,
            components,
            units,
            next: 0,
            predictors: [0; 3],
            restart_interval: header.restart_interval,
            until_restart: header.restart_interval,
            next_restart: 0,
            waiting: None,
            #[cfg(target_arch = "x86_64")]
            bmi2: has_bmi2(),
        })
    }

    /// Goes to unit `unit` of row `row`, by the index where there is one, and
    /// else by reading over what is before it: then it must not lie behind.
    pub(super) fn seek(
        &mut self,
        row: usize,
        unit: usize,
        index: Option<&Index<'_>>,
    ) -> Option<()> {
        let wanted = row * self.units + unit;
        if let Some(index) = index
            && wanted != self.next
        {
            let (place, first) = index.before(row, unit)?;
            self.bits.go_to(place.byte, place.bit)?;
            self.predictors = place.predictors;
            self.next = row * self.units + first;
        }
        self.skip_units(wanted - self.next)
    }

    /// Where the next unit begins: how many bits of the scan are before it, and
    /// the predictors.
    pub(super) fn place(&self) -> (u64, [i32; 3]) {
        (self.bits.read(), self.predictors)
    }

    /// Decodes the next `units` minimum coded units of a row, as row `row` of
    /// the planes.
    pub(super) fn decode(
        &mut self,
        planes: &mut [Plane; 3],
        row: usize,
        units: usize,
    ) -> Option<()> {
        self.decode_units(planes, row, units)?;
        if let Some(place) = self.waiting.take() {
            self.transform(place.0, place.0)?;
            planes[place.0].put(place.1, &self.blocks.pixels[0]);
        }
        Some(())
    }

    /// Decodes `units` minimum coded units into the planes' row of them.
    fn decode_units(&mut self, planes: &mut [Plane; 3], row: usize, units: usize) -> Option<()> {
        // The blocks of a unit: component, place, and how far it is to that of
        // the next unit.
        let mut blocks = [(0, 0, 0); MOST_BLOCKS];
        let mut count = 0;
        for (i, component) in self.components.iter().enumerate() {
            for y in 0..component.down {
                for x in 0..component.across {
                    let place = planes[i].place((row * component.down + y) * 8) + x * 8;
                    *blocks.get_mut(count)? = (i, place, component.across * 8);
                    count += 1;
                }
            }
        }
        self.next += units;
        for _ in 0..units {
            self.begin_unit()?;
            for (component, place, step) in &mut blocks[..count] {
                self.block(planes, (*component, *place))?;
                *place += *step;
            }
        }
        Some(())
    }

    /// Whether all units above row `row` are behind.
    pub(super) fn is_past(&self, row: usize) -> bool {
        self.next >= row * self.units
    }

    /// Whether the picture ends here, as its data do.
    pub(super) fn end(mut self) -> Option<()> {
        self.bits.end(0xd9)
    }

    /// Whether the last unit was whole.
    pub(super) fn check(&mut self) -> Option<()> {
        self.bits.prepare()
    }

    #[inline(always)]
    fn begin_unit(&mut self) -> Option<()> {
        if self.restart_interval > 0 {
            if self.until_restart == 0 {
                self.bits.end(0xd0 + self.next_restart)?;
                self.next_restart = (self.next_restart + 1) & 7;
                self.until_restart = self.restart_interval;
                self.predictors = [0; 3];
            }
            self.until_restart -= 1;
        }
        self.bits.prepare()
    }

    /// Reads over `units` minimum coded units.
    fn skip_units(&mut self, units: usize) -> Option<()> {
        self.next += units;
        for _ in 0..units {
            self.begin_unit()?;
            for (i, component) in self.components.iter().enumerate() {
                for _ in 0..component.across * component.down {
                    let change = self.skip(i)?;
                    self.predictors[i] = self.predictors[i].wrapping_add(change);
                }
            }
        }
        Some(())
    }

    #[inline(always)]
    fn skip(&mut self, component: usize) -> Option<i32> {
        let codes = self.codes[component];
        let pair = &mut self.blocks.pair;
        let (bytes, cursor) = self.bits.parts();
        #[cfg(target_arch = "x86_64")]
        if self.bmi2 {
            // SAFETY: the one condition, what the machine has, has been checked.
            let read = unsafe { read_block_bmi2::<false>(cursor, bytes, codes, pair, 0) };
            return read.map(|(change, _)| change);
        }
        read_block::<false>(cursor, bytes, codes, pair, 0).map(|(change, _)| change)
    }

    #[inline(always)]
    fn block(&mut self, planes: &mut [Plane; 3], (component, place): Place) -> Option<()> {
        let lane = usize::from(self.waiting.is_some());
        let (change, others) = self.read(component, lane)?;
        let predictor = &mut self.predictors[component];
        *predictor = predictor.wrapping_add(change);
        // As libjpeg: both the sum and its product wrap at 16 bits.
        let first = *predictor as i16;
        if !others {
            let factor = self.blocks.factors[component][0];
            planes[component].fill(place, flat(first.wrapping_mul(factor)));
            return Some(());
        }
        self.blocks.pair[8 * lane] = first;
        match self.waiting.take() {
            None => self.waiting = Some((component, place)),
            Some(other) => {
                self.transform(other.0, component)?;
                let [a, b] = &self.blocks.pixels;
                planes[other.0].put(other.1, a);
                planes[component].put(place, b);
            }
        }
        Some(())
    }

    /// [`read_block`], a function of its own so that the loop has all
    /// registers.
    #[inline(always)]
    fn read(&mut self, component: usize, lane: usize) -> Option<(i32, bool)> {
        let codes = self.codes[component];
        let pair = &mut self.blocks.pair;
        let (bytes, cursor) = self.bits.parts();
        #[cfg(target_arch = "x86_64")]
        if self.bmi2 {
            // SAFETY: the one condition, what the machine has, has been checked.
            return unsafe { read_block_bmi2::<true>(cursor, bytes, codes, pair, lane) };
        }
        read_block::<true>(cursor, bytes, codes, pair, lane)
    }

    /// Transforms the pair, of blocks of the two components. `None` when a
    /// coefficient is larger than any picture's.
    #[inline(always)]
    fn transform(&mut self, first: usize, second: usize) -> Option<()> {
        let Blocks {
            factors,
            pair,
            pixels,
        } = &mut *self.blocks;
        transform(pair, [&factors[first], &factors[second]], pixels).then_some(())
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,movbe")]
fn read_block_bmi2<const PUT: bool>(
    cursor: &mut Cursor,
    bytes: &[u8; BUFFER],
    codes: (&DcTable, &AcTable),
    pair: &mut Pair,
    lane: usize,
) -> Option<(i32, bool)> {
    let mut local = *cursor;
    let result = read_block::<PUT>(&mut local, bytes, codes, pair, lane);
    *cursor = local;
    result
}

/// Reads a block's coefficients into half of `pair`, but for the first, whose
/// difference it returns, and whether there were others. Without `PUT` it reads
/// over them.
#[inline(always)]
fn read_block<const PUT: bool>(
    cursor: &mut Cursor,
    bytes: &[u8; BUFFER],
    (dc, ac): (&DcTable, &AcTable),
    pair: &mut Pair,
    lane: usize,
) -> Option<(i32, bool)> {
    let places = &PLACES[lane];
    let change = first_value(cursor, bytes, dc)?;
    // The next coefficient.
    let mut next = 1;
    macro_rules! look_up {
        ($after_a_rarity:expr) => {
            let entry = ac.look_up(cursor.bits);
            let (first, last) = (next + entry.run(), next + entry.last());
            if PUT {
                // What is not a coefficient is 0, put right below, or has no
                // place; the second is the first if there is one.
                pair[usize::from(places[first & 0x7f])] = entry.first().into();
                pair[usize::from(places[last & 0x7f])] = entry.second().into();
            }
            if last >= BLOCK - 1 {
                // Before the last coefficient: after it, there is no end.
                if entry.is_an_end() && first < BLOCK - 1 {
                    cursor.skip(entry.bits());
                    return Some((change, next > 1 || entry.second() != Other::End as i8));
                }
                cursor.refill(bytes)?;
                let symbol = if entry.other() == Some(Other::Wide) {
                    entry.wide()
                } else {
                    ac.search(cursor.bits)?
                };
                let value = symbol.value(cursor.bits);
                cursor.skip(symbol.bits());
                if symbol.is_end() {
                    return Some((change, next > 1));
                }
                let place = next + symbol.run;
                if place >= BLOCK {
                    return None;
                }
                if PUT {
                    pair[usize::from(places[place & 0x7f])] = value as i16;
                }
                if place == BLOCK - 1 {
                    return Some((change, true));
                }
                next = place + 1;
                $after_a_rarity;
            }
            cursor.skip(entry.bits());
            next = last + 1;
        };
    }
    // The first value leaves bits for two look-ups.
    'first: {
        look_up!(break 'first);
        look_up!(break 'first);
    }
    loop {
        cursor.refill(bytes)?;
        look_up!(continue);
        look_up!(continue);
        look_up!(continue);
        look_up!(continue);
    }
}

/// The difference of the first coefficient; leaves bits for two look-ups.
#[inline(always)]
fn first_value(cursor: &mut Cursor, bytes: &[u8; BUFFER], dc: &DcTable) -> Option<i32> {
    cursor.refill(bytes)?;
    let symbol = dc.next(cursor.bits)?;
    let change = symbol.value(cursor.bits);
    cursor.skip(symbol.bits());
    Some(change)
}
