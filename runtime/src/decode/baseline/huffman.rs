//! Huffman tables by which one look-up yields up to two symbols with their
//! values.

/// Bits of a look-up for coefficients. All entries are used evenly, since coded
/// bits look random: two tables take a quarter of the first-level cache.
pub(super) const BITS: usize = 11;
/// Bits of a look-up for the first coefficient's difference.
const DC_BITS: usize = 9;
/// Longest code, bits.
const LONGEST: usize = 16;

/// One symbol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// Bits of the code.
    code: u32,
    /// Bits of the value that follows; 0 for none.
    size: u32,
    /// Zeros before it.
    pub(super) run: usize,
}

impl Symbol {
    /// Bits of code and value.
    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        self.code + self.size
    }

    /// The symbol's value: `bits` are the next ones, left-justified.
    #[inline(always)]
    pub(super) fn value(self, bits: u64) -> i32 {
        extended(bits << (self.code & 63), self.size)
    }

    /// Whether the block's remaining coefficients are 0.
    pub(super) fn is_end(self) -> bool {
        (self.run, self.size) == (0, 0)
    }

    /// Whether sixteen coefficients are 0.
    pub(super) fn is_sixteen(self) -> bool {
        (self.run, self.size) == (15, 0)
    }
}

/// A value of `size` (up to 15) bits, left-justified.
#[inline(always)]
fn extended(bits: u64, size: u32) -> i32 {
    let magnitude = ((bits >> 1) >> (63 - (size & 63))) as i32;
    // A leading 0 says that 2^size - 1 is to be taken off.
    let positive = ((bits as i64) >> 63) as i32;
    magnitude - (((1 << (size & 31)) - 1) & !positive)
}

/// A prefix code.
#[derive(Debug)]
struct Codes {
    /// Per code length: one more than the last code, left-justified to 16 bits.
    ends: [u32; LONGEST + 1],
    /// Per code length: what to add to a code for the index of its symbol.
    offsets: [i32; LONGEST + 1],
    counts: [u8; LONGEST],
    symbols: [u8; 256],
    valid: bool,
}

impl Default for Codes {
    fn default() -> Self {
        Self {
            ends: [0; LONGEST + 1],
            offsets: [0; LONGEST + 1],
            counts: [0; LONGEST],
            symbols: [0; 256],
            valid: false,
        }
    }
}

impl Codes {
    fn is(&self, counts: &[u8; LONGEST], symbols: &[u8]) -> bool {
        self.valid && self.counts == *counts && self.symbols[..symbols.len()] == *symbols
    }

    /// Takes the codes of as many `symbols` as `counts` says per length, and
    /// tells `each` of them: symbol, length, code. `None` when they make no
    /// prefix code, or `each` says so.
    fn define(
        &mut self,
        counts: &[u8; LONGEST],
        symbols: &[u8],
        mut each: impl FnMut(u8, usize, usize) -> Option<()>,
    ) -> Option<()> {
        self.valid = false;
        let mut code = 0u32;
        let mut index = 0;
        for length in 1..=LONGEST {
            self.offsets[length] = index as i32 - code as i32;
            let count = usize::from(counts[length - 1]);
            // No code is all ones.
            if count > 0 && code as usize + count >= 1 << length {
                return None;
            }
            for &symbol in symbols.get(index..index + count)? {
                each(symbol, length, code as usize)?;
                code += 1;
            }
            index += count;
            self.ends[length] = if count > 0 {
                code << (LONGEST - length)
            } else {
                0
            };
            code <<= 1;
        }
        self.counts = *counts;
        self.symbols[..symbols.len()].copy_from_slice(symbols);
        self.valid = true;
        Some(())
    }

    /// The symbol and length of the next code.
    #[cold]
    fn search(&self, bits: u64) -> Option<(u8, usize)> {
        let next = (bits >> (64 - LONGEST)) as u32;
        let length = (1..=LONGEST).find(|&length| next < self.ends[length])?;
        let index = (next >> (LONGEST - length)) as i32 + self.offsets[length];
        let &symbol = self.symbols.get(usize::try_from(index).ok()?)?;
        Some((symbol, length))
    }
}

/// Codes of DC differences: the symbol is the size of the value.
#[derive(Debug)]
pub(super) struct DcTable {
    codes: Codes,
    /// Code length and size of the value (8..16); 0 for longer codes.
    entries: [u16; 1 << DC_BITS],
}

impl Default for DcTable {
    fn default() -> Self {
        Self {
            codes: Codes::default(),
            entries: [0; 1 << DC_BITS],
        }
    }
}

impl DcTable {
    /// Takes over the codes of a file.
    pub(super) fn define(&mut self, counts: &[u8; LONGEST], symbols: &[u8]) -> Option<()> {
        if self.codes.is(counts, symbols) {
            return Some(());
        }
        let entries = &mut self.entries;
        entries.fill(0);
        self.codes.define(counts, symbols, |size, length, code| {
            if size > 15 {
                return None;
            }
            if let Some(spread) = DC_BITS.checked_sub(length) {
                entries[code << spread..][..1 << spread].fill(length as u16 | u16::from(size) << 8);
            }
            Some(())
        })
    }

    #[inline(always)]
    pub(super) fn next(&self, bits: u64) -> Option<Symbol> {
        let entry = self.entries[(bits >> (64 - DC_BITS)) as usize];
        let (mut code, mut size) = (u32::from(entry & 0xff), u32::from(entry >> 8));
        if code == 0 {
            let (symbol, length) = self.codes.search(bits)?;
            (code, size) = (length as u32, u32::from(symbol));
        }
        Some(Symbol { code, size, run: 0 })
    }
}

/// Codes of the other coefficients: the symbol is a run of zeros and the size
/// of the value after them.
#[derive(Debug)]
pub(super) struct AcTable {
    codes: Codes,
    entries: Box<[Entry; 1 << BITS]>,
}

/// One or two symbols with their values, or what else there is.
///
/// From the lowest bit on: 8, how many bits are read; 4, the zeros before the
/// first coefficient; 6, how far the last coefficient is from the one that
/// comes next, or [`Entry::OTHER`]; 7, the value of the first coefficient; 7,
/// the value of the second, the same if there is one, or [`Other`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry(u32);

/// What an entry may be but one or two coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// The block's remaining coefficients are 0.
    End = 0,
    /// They are, after the first.
    OneAndEnd = 1,
    /// A coefficient whose value does not fit; its size is in its place.
    Wide = 2,
    /// The code is longer than a look-up, or something rare.
    Long = 3,
}

impl Entry {
    /// Reaches beyond any block.
    const OTHER: u32 = 63;
    const LONG: Entry = Entry::new(0, 0, Entry::OTHER, 0, Other::Long as i8);

    const fn new(bits: u32, run: u32, last: u32, first: i8, second: i8) -> Self {
        let first = (first.cast_unsigned() as u32 & 0x7f) << 18;
        let second = (second.cast_unsigned() as u32) << 25;
        Entry(bits | run << 8 | last << 12 | first | second)
    }

    fn of(symbol: Symbol, value: i32) -> Self {
        let (bits, run) = (symbol.bits(), symbol.run as u32);
        if symbol.is_end() {
            return Entry::new(bits, 0, Entry::OTHER, 0, Other::End as i8);
        }
        if symbol.is_sixteen() {
            return Entry::LONG;
        }
        match i8::try_from(value) {
            Ok(value @ -64..=63) if bits <= BITS as u32 => Entry::new(bits, run, run, value, value),
            _ => Entry::new(
                bits,
                run,
                Entry::OTHER,
                symbol.size as i8,
                Other::Wide as i8,
            ),
        }
    }

    /// Of this symbol and the next, where both fit.
    fn and(self, next: Entry) -> Option<Self> {
        let bits = self.bits() + next.bits();
        if bits > BITS as u32 || self.last() == Entry::OTHER as usize {
            return None;
        }
        let run = self.run() as u32;
        let (last, second) = match next.other() {
            None => (run + 1 + next.run() as u32, next.second()),
            Some(Other::End) => (Entry::OTHER, Other::OneAndEnd as i8),
            Some(_) => return None,
        };
        Some(Entry::new(bits, run, last, self.first(), second))
    }

    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        self.0 & 0xff
    }

    #[inline(always)]
    pub(super) fn run(self) -> usize {
        (self.0 >> 8 & 15) as usize
    }

    #[inline(always)]
    pub(super) fn last(self) -> usize {
        (self.0 >> 12 & 63) as usize
    }

    #[inline(always)]
    pub(super) fn first(self) -> i8 {
        ((self.0 << 7) as i32 >> 25) as i8
    }

    #[inline(always)]
    pub(super) fn second(self) -> i8 {
        (self.0 as i32 >> 25) as i8
    }

    #[inline(always)]
    pub(super) fn other(self) -> Option<Other> {
        if self.last() != Entry::OTHER as usize {
            return None;
        }
        Some(match self.second() {
            0 => Other::End,
            1 => Other::OneAndEnd,
            2 => Other::Wide,
            _ => Other::Long,
        })
    }

    /// Whether it is [`Other::End`] or [`Other::OneAndEnd`], of those that are
    /// something else.
    #[inline(always)]
    pub(super) fn is_an_end(self) -> bool {
        self.0 >> 26 == 0 && self.last() == Entry::OTHER as usize
    }

    /// The symbol of [`Other::Wide`].
    #[inline(always)]
    pub(super) fn wide(self) -> Symbol {
        let size = self.first() as u32;
        Symbol {
            code: self.bits() - size,
            size,
            run: self.run(),
        }
    }
}

impl Default for AcTable {
    fn default() -> Self {
        Self {
            codes: Codes::default(),
            entries: Box::new([Entry::LONG; 1 << BITS]),
        }
    }
}

impl AcTable {
    /// Takes over the codes of a file.
    pub(super) fn define(&mut self, counts: &[u8; LONGEST], symbols: &[u8]) -> Option<()> {
        if self.codes.is(counts, symbols) {
            return Some(());
        }
        let entries = &mut *self.entries;
        entries.fill(Entry::LONG);
        self.codes.define(counts, symbols, |symbol, length, code| {
            let symbol = Self::symbol(symbol, length)?;
            let Some(spread) = BITS.checked_sub(length) else {
                return Some(());
            };
            let places = &mut entries[code << spread..][..1 << spread];
            let Some(spread) = spread.checked_sub(symbol.size as usize) else {
                // Whatever the value.
                places.fill(Entry::of(symbol, 0));
                return Some(());
            };
            for (value, places) in places.chunks_exact_mut(1 << spread).enumerate() {
                let bits = (value as u64) << 1 << (63 - symbol.size);
                places.fill(Entry::of(symbol, extended(bits, symbol.size)));
            }
            Some(())
        })?;
        let single = *entries;
        for (i, entry) in entries.iter_mut().enumerate() {
            let next = single[i << entry.bits() & ((1 << BITS) - 1)];
            *entry = entry.and(next).unwrap_or(*entry);
        }
        Some(())
    }

    fn symbol(symbol: u8, length: usize) -> Option<Symbol> {
        let (run, size) = (symbol >> 4, symbol & 15);
        // Other runs without a value libjpeg takes for the end of the block.
        (size > 0 || matches!(run, 0 | 15)).then_some(Symbol {
            code: length as u32,
            size: size.into(),
            run: run.into(),
        })
    }

    /// What the next bits hold.
    #[inline(always)]
    pub(super) fn look_up(&self, bits: u64) -> Entry {
        self.entries[(bits >> (64 - BITS)) as usize]
    }

    /// The next symbol, whatever it is. `None` when there is no such code.
    pub(super) fn search(&self, bits: u64) -> Option<Symbol> {
        let (symbol, length) = self.codes.search(bits)?;
        Self::symbol(symbol, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_prefix_code_is_refused() {
        let define = |lengths: &[(usize, u8)], symbols: &[u8]| {
            let mut counts = [0; LONGEST];
            for &(length, count) in lengths {
                counts[length - 1] = count;
            }
            let ac = AcTable::default().define(&counts, symbols);
            let dc = DcTable::default().define(&counts, symbols);
            (ac.is_some(), dc.is_some())
        };
        assert_eq!(define(&[(1, 1), (2, 1)], &[1, 2]), (true, true));
        // All ones, more than there are, too few symbols.
        assert_eq!(define(&[(1, 2)], &[1, 2]), (false, false));
        assert_eq!(define(&[(1, 1), (2, 3)], &[1, 2, 3, 4]), (false, false));
        assert_eq!(define(&[(1, 1), (2, 1)], &[1]), (false, false));
        // A size above 15; a run without a value.
        assert_eq!(define(&[(1, 1)], &[0x21]), (true, false));
        assert_eq!(define(&[(1, 1)], &[0x20]), (false, false));
    }

    /// The codes 0, 10, 110, 1110 and 1111 0000 0000 0.
    fn table() -> AcTable {
        let mut counts = [0; LONGEST];
        (counts[0], counts[1], counts[2], counts[3], counts[12]) = (1, 1, 1, 1, 1);
        let mut table = AcTable::default();
        // The third's value does not fit beside its code.
        table
            .define(&counts, &[0x01, 0x00, 0x0b, 0xf0, 0x32])
            .unwrap();
        table
    }

    #[test]
    fn a_look_up_holds_two_symbols_where_they_fit() {
        let table = table();
        let look_up = |bits: u64, count: u32| table.look_up(bits << (64 - count));
        // 0 1, then 0 0: values 1 and -1 without zeros before them.
        let two = look_up(0b0100, 4);
        assert_eq!(
            (two.bits(), two.run(), two.last(), two.other()),
            (4, 0, 1, None)
        );
        assert_eq!((two.first(), two.second()), (1, -1));
        let one = look_up(0b0010, 4);
        assert_eq!(
            (one.bits(), one.first(), one.other()),
            (4, -1, Some(Other::OneAndEnd))
        );
        let end = look_up(0b10, 2);
        assert_eq!((end.bits(), end.other()), (2, Some(Other::End)));
        let wide = look_up(0b11_0100_0000_0011, 14);
        assert_eq!(wide.other(), Some(Other::Wide));
        let symbol = wide.wide();
        assert_eq!((symbol.run, symbol.bits()), (0, 14));
        assert_eq!(symbol.value(0b11_0100_0000_0011 << 50), 0x403);
        let sixteen = look_up(0b1110, 4);
        assert_eq!(sixteen.other(), Some(Other::Long));
        assert!(table.search(0b1110 << 60).unwrap().is_sixteen());
        let long = table.search(0b111_1000_0000_0001 << 49).unwrap();
        assert_eq!((long.run, long.bits()), (3, 15));
        assert_eq!(long.value(0b111_1000_0000_0001 << 49), -2);
        assert!(table.search(u64::MAX).is_none());
    }
}
