//! Look-up of bytes in tables of 256, held in registers.

use std::arch::x86_64::*;

use super::memory::{
    load_128, load_256, load_512, load_some_512, store_256, store_512, store_some_512,
};

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

/// As [`apply_one`], from one slice into another of the same length.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
pub(super) fn apply_one_to(from: &[u8], table: &[u8; 256], to: &mut [u8]) {
    let table = registers(table);
    let (blocks, rest) = to.as_chunks_mut::<64>();
    let (from_blocks, from_rest) = from.as_chunks::<64>();
    for (to, from) in blocks.iter_mut().zip(from_blocks) {
        store_512(to, look_up(load_512(from), &table));
    }
    if !rest.is_empty() {
        store_some_512(rest, look_up(load_some_512(from_rest), &table));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi")]
fn look_up(values: __m512i, table: &Registers) -> __m512i {
    let below_128 = _mm512_permutex2var_epi8(table[0], values, table[1]);
    let others = _mm512_permutex2var_epi8(table[2], values, table[3]);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(values), below_128, others)
}

/// Every value through one table, 16 of its entries at a time.
#[target_feature(enable = "avx2")]
pub(super) fn apply_one_avx2(values: &mut [u8], table: &[u8; 256]) {
    let mut parts = [_mm256_setzero_si256(); 16];
    for (register, part) in parts.iter_mut().zip(table.as_chunks::<16>().0) {
        *register = _mm256_broadcastsi128_si256(load_128(part));
    }
    let sixteen = _mm256_set1_epi8(16);
    let (blocks, rest) = values.as_chunks_mut::<32>();
    for block in blocks {
        let mut indices = load_256(block);
        let mut found = _mm256_setzero_si256();
        for part in parts {
            // Indices from 16 on get their highest bit set, and look up 0.
            let within = _mm256_adds_epu8(indices, _mm256_set1_epi8(0x70));
            found = _mm256_or_si256(found, _mm256_shuffle_epi8(part, within));
            indices = _mm256_sub_epi8(indices, sixteen);
        }
        store_256(block, found);
    }
    for value in rest {
        *value = table[usize::from(*value)];
    }
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
