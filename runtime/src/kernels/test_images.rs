//! Test images, made alike here and in `tests/golden/pillow.py`.
//!
//! Word `i` is splitmix64's output number `i` from the seed
//! `kind << 48 | width << 24 | height`; the words' little-endian bytes, in
//! order, are the byte stream of the image.

/// What an image of the tests looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The byte stream itself.
    Random,
    /// 90 + byte mod 30.
    LowContrast,
    /// Every pixel is the stream's first three bytes.
    Constant,
    /// (7 x, 9 y, 3 (x + y)) mod 256.
    Gradient,
    /// 37 for even bytes, 200 for odd ones.
    TwoValued,
    /// Soft patches of 16 x 16 pixels, a hard edge, a little noise.
    Photographic,
}

impl Kind {
    /// All kinds, in the order of the golden table.
    pub(crate) const ALL: [Kind; 6] = [
        Kind::Random,
        Kind::LowContrast,
        Kind::Constant,
        Kind::Gradient,
        Kind::TwoValued,
        Kind::Photographic,
    ];

    /// Height x width x 3 bytes.
    pub(crate) fn pixels(self, width: u32, height: u32) -> Vec<u8> {
        let seed = (self as u64) << 48 | u64::from(width) << 24 | u64::from(height);
        let length = width as usize * height as usize * 3;
        let mut bytes = Vec::with_capacity(length.next_multiple_of(8));
        let mut state = seed;
        while bytes.len() < length {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend((word ^ word >> 31).to_le_bytes());
        }
        bytes.truncate(length);
        match self {
            Kind::Random => {}
            Kind::LowContrast => bytes.iter_mut().for_each(|byte| *byte = 90 + *byte % 30),
            Kind::Constant => {
                let colour = [bytes[0], bytes[1], bytes[2]];
                bytes.as_chunks_mut::<3>().0.fill(colour);
            }
            Kind::Gradient => {
                for (i, pixel) in bytes.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                    let (x, y) = (i % width as usize, i / width as usize);
                    *pixel = [7 * x, 9 * y, 3 * (x + y)].map(|value| value as u8);
                }
            }
            Kind::TwoValued => {
                for byte in &mut bytes {
                    *byte = if *byte % 2 == 0 { 37 } else { 200 };
                }
            }
            Kind::Photographic => {
                let stream = bytes.clone();
                for (i, value) in bytes.iter_mut().enumerate() {
                    *value = photographic(&stream, i / 3, i % 3, width as usize);
                }
            }
        }
        bytes
    }
}

/// Channel `channel` of pixel number `pixel`: between the values at the corners
/// of its patch, darker beyond the edge, and noise.
fn photographic(stream: &[u8], pixel: usize, channel: usize, width: usize) -> u8 {
    let (x, y) = (pixel % width, pixel / width);
    let corner = |i: usize, j: usize| {
        let place = ((y / 16 + j) * 97 + x / 16 + i) * 3 % stream.len();
        i32::from(stream[place + channel])
    };
    let (right, below) = ((x % 16) as i32, (y % 16) as i32);
    let upper = corner(0, 0) * (16 - right) + corner(1, 0) * right;
    let lower = corner(0, 1) * (16 - right) + corner(1, 1) * right;
    let patch = (upper * (16 - below) + lower * below) / 256;
    let noise = i32::from(stream[pixel * 3 + channel] % 9) - 4;
    let edge = if x + 2 * y > width { 60 } else { 0 };
    (patch + noise - edge).clamp(0, 255) as u8
}
