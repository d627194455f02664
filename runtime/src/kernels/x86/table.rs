//! Look-up of bytes in tables of 256, held in four registers.

use std::arch::x86_64::*;

use super::memory::{load_512, load_some_512, store_512, store_some_512};

type Registers = [__m512i; 4];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn registers(table: &[u8; 256]) -> Registers {
    let parts = table.as_chunks::<64>().0;
    [
        load_512(&parts[0]),
        load_512(&parts[1]),
        load_512(&parts[2]),
        load_512(&parts[3]),
    ]
}

/// Every value through one table.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(super) fn apply_one(values: &mut [u8], table: &[u8; 256]) {
    let table = registers(table);
    let (blocks, rest) = values.as_chunks_mut::<64>();
    for block in blocks {
        store_512(block, look_up(load_512(block), &table));
    }
    if !rest.is_empty() {
        store_some_512(rest, look_up(load_some_512(rest), &table));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn look_up(values: __m512i, table: &Registers) -> __m512i {
    let below_128 = _mm512_permutex2var_epi8(table[0], values, table[1]);
    let others = _mm512_permutex2var_epi8(table[2], values, table[3]);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(values), below_128, others)
}

/// Interleaved channels, each through its own table.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(super) fn apply_three(pixels: &mut [u8], [red, green, blue]: &[[u8; 256]; 3]) {
    let tables = [registers(red), registers(green), registers(blue)];
    let (blocks, rest) = pixels.as_chunks_mut::<192>();
    for block in blocks {
        for (phase, part) in block.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            store_512(part, look_up_channels(load_512(part), &tables, phase));
        }
    }
    for (phase, part) in rest.chunks_mut(64).enumerate() {
        store_some_512(part, look_up_channels(load_some_512(part), &tables, phase));
    }
}

/// `phase` is the number of the vector: byte `i` is of channel
/// `(64 phase + i) % 3`, that is `(phase + i) % 3`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn look_up_channels(values: __m512i, tables: &[Registers; 3], phase: usize) -> __m512i {
    /// Bytes 0, 3, 6, ...
    const EVERY_THIRD: u64 = 0x9249_2492_4924_9249;

    let above_127 = _mm512_movepi8_mask(values);
    let mut values = values;
    for (channel, table) in tables.iter().enumerate() {
        let of_channel = EVERY_THIRD << ((channel + 3 - phase) % 3);
        // Each look-up replaces its own bytes and leaves the others, which
        // index the look-ups to come.
        values =
            _mm512_mask2_permutex2var_epi8(table[0], values, of_channel & !above_127, table[1]);
        values = _mm512_mask2_permutex2var_epi8(table[2], values, of_channel & above_127, table[3]);
    }
    values
}
