//! The samples of one component.

/// Some rows of the samples of a component, over the minimum coded units that a
/// region needs. Rows are numbered from the first one decoded, and take the
/// place of those [`Plane::height`] before: the last rows alone are kept, in
/// the first-level cache.
#[derive(Debug, Default)]
pub(super) struct Plane {
    samples: Vec<u8>,
    stride: usize,
    height: usize,
}

impl Plane {
    /// Changes the size: a multiple of 8, and a power of two of at least 8
    /// rows. Keeps the memory.
    pub(super) fn reshape(&mut self, width: usize, height: usize) {
        self.stride = width;
        self.height = height;
        self.samples.resize(width * height, 0);
    }

    /// Where row `row` begins.
    pub(super) fn place(&self, row: usize) -> usize {
        (row & (self.height - 1)) * self.stride
    }

    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.samples[self.place(row)..][..self.stride]
    }

    /// Puts a block of 8 rows at `place`.
    #[inline(always)]
    pub(super) fn put(&mut self, place: usize, rows: &[[u8; 8]; 8]) {
        let stride = self.stride;
        let samples = &mut self.samples[place..][..7 * stride + 8];
        let mut at = 0;
        for row in rows {
            samples[at..][..8].copy_from_slice(row);
            at += stride;
        }
    }

    /// Fills the block at `place` with one sample.
    #[inline(always)]
    pub(super) fn fill(&mut self, place: usize, sample: u8) {
        self.put(place, &[[sample; 8]; 8]);
    }
}
