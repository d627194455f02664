//! The scan's data without the zeros stuffed into them, and the bits of them.

use crate::cpu::for_each_cpu;

/// Bytes held at once: they stay in the first-level cache.
pub(super) const BUFFER: usize = 8192;
/// More than a minimum coded unit can take: six blocks of 64 coefficients of
/// at most 31 bits.
const RESERVE: usize = 2048;
/// Bytes looked at together.
const CHUNK: usize = 32;

/// A part of the scan's data.
#[derive(Debug)]
pub(super) struct Window {
    bytes: Box<[u8; BUFFER]>,
    filled: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            bytes: Box::new([0; BUFFER]),
            filled: 0,
        }
    }
}

/// The bits of a scan.
#[derive(Debug)]
pub(super) struct Bits<'a> {
    file: &'a [u8],
    /// Next byte of `file` to be brought into the window.
    next: usize,
    window: &'a mut Window,
    /// Bytes that were in the window before those that are.
    before: u64,
    /// The marker at which the data end, once it has been met.
    marker: Option<u8>,
    cursor: Cursor,
}

/// Where decoding stands in a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// The next bits, left-justified; below `count` there may be more of them.
    pub(super) bits: u64,
    count: u32,
    position: usize,
}

impl Cursor {
    /// Brings the bits to at least 56.
    #[inline(always)]
    pub(super) fn refill(&mut self, bytes: &[u8; BUFFER]) -> Option<()> {
        let next = bytes.get(self.position..self.position.wrapping_add(8))?;
        let next = u64::from_be_bytes(*next.first_chunk()?);
        self.bits |= next >> self.count;
        self.position += ((63 - self.count) >> 3) as usize;
        self.count |= 56;
        Some(())
    }

    /// Passes over `count` bits, of those that are there.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.bits <<= count & 63;
        self.count -= count;
    }
}

impl<'a> Bits<'a> {
    /// The bits of the data that begin at `start`.
    pub(super) fn new(file: &'a [u8], start: usize, window: &'a mut Window) -> Self {
        window.filled = 0;
        Self {
            file,
            next: start,
            window,
            before: 0,
            marker: None,
            cursor: Cursor::default(),
        }
    }

    /// Makes sure that a minimum coded unit can be read without looking at how
    /// much is left, and that the ones before did not read beyond the end.
    /// `None` when they did, or the file ends without a marker.
    #[inline(always)]
    pub(super) fn prepare(&mut self) -> Option<()> {
        if self.cursor.position + RESERVE > self.window.filled {
            self.advance()?;
        }
        Some(())
    }

    /// The window, and where decoding stands in it.
    #[inline(always)]
    pub(super) fn parts(&mut self) -> (&[u8; BUFFER], &mut Cursor) {
        (&self.window.bytes, &mut self.cursor)
    }

    /// Bits read so far, from the start of the scan.
    pub(super) fn read(&self) -> u64 {
        (self.before + self.cursor.position as u64) * 8 - u64::from(self.cursor.count)
    }

    /// Goes on at another place: bit `bit` of byte `byte` of the file, from the
    /// highest on. `None` when it is not in the file.
    pub(super) fn go_to(&mut self, byte: usize, bit: u32) -> Option<()> {
        self.next = byte;
        self.window.filled = 0;
        self.marker = None;
        self.cursor = Cursor::default();
        self.prepare()?;
        self.cursor.refill(&self.window.bytes)?;
        self.cursor.skip(bit);
        Some(())
    }

    /// Bits up to the end of what is in the window; negative beyond it.
    fn left(&self) -> i64 {
        (self.window.filled as i64 - self.cursor.position as i64) * 8 + i64::from(self.cursor.count)
    }

    fn advance(&mut self) -> Option<()> {
        if self.marker.is_none() {
            let window = &mut *self.window;
            window
                .bytes
                .copy_within(self.cursor.position..window.filled, 0);
            window.filled -= self.cursor.position;
            self.before += self.cursor.position as u64;
            self.cursor.position = 0;
            self.marker = fill(window, self.file, &mut self.next)?;
            if self.marker.is_some() {
                window.bytes[window.filled..].fill(0);
            }
        }
        (self.left() >= 0).then_some(())
    }

    /// Whether the data end here, but for bits that fill up a byte, and `marker`
    /// follows; goes on behind it.
    pub(super) fn end(&mut self, marker: u8) -> Option<()> {
        self.prepare()?;
        if self.left() >= 8 || self.marker != Some(marker) {
            return None;
        }
        self.window.filled = 0;
        self.marker = None;
        self.cursor = Cursor::default();
        Some(())
    }
}

for_each_cpu! {
    /// Brings data into the window up to a marker, which it returns, or until
    /// there is room for no more but zeros. `None` where the file ends, or
    /// something stands that only libjpeg understands.
    fn fill(window: &mut Window, file: &[u8], next: &mut usize) -> Option<Option<u8>> {
        while window.filled + RESERVE + CHUNK <= BUFFER {
            let room = &mut window.bytes[window.filled..];
            if let (Some(from), Some(to)) = (
                file.get(*next..).and_then(|rest| rest.first_chunk::<CHUNK>()),
                room.first_chunk_mut::<CHUNK>(),
            ) {
                *to = *from;
                let mut any = false;
                for &byte in from {
                    any |= byte == 0xff;
                }
                if !any {
                    window.filled += CHUNK;
                    *next += CHUNK;
                    continue;
                }
                let before = from.iter().position(|&byte| byte == 0xff).unwrap_or(0);
                window.filled += before;
                *next += before;
            }
            let byte = *file.get(*next)?;
            if byte == 0xff {
                match *file.get(*next + 1)? {
                    0 => *next += 1,
                    0xff => return None,
                    marker => {
                        *next += 2;
                        return Some(Some(marker));
                    }
                }
            }
            window.bytes[window.filled] = byte;
            window.filled += 1;
            *next += 1;
        }
        Some(None)
    }
}
