//! The value stored under one key: a header of [`HEADER_BYTES`] bytes, then the payload, then the index if there is one.

use crate::image_header::{Encoding, ImageHeader, MAX_PAYLOAD_BYTES};

/// First bytes of every record.
pub(crate) const MAGIC: [u8; 4] = *b"DDSR";
/// The record version this build writes and reads.
pub(crate) const VERSION: u8 = 1;
/// Length of the header; the payload starts right behind it.
pub(crate) const HEADER_BYTES: usize = 32;
/// The flag of records with an index behind the payload.
const HAS_INDEX: u16 = 1;
/// Where the CRC32C stands in the header. It covers the key, the header before it, and what follows.
const CRC_AT: usize = 28;

/// One labelled image as stored: borrowed from the dataset's map, nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// Class number, `0..classes` of the manifest.
    pub label: i64,
    /// How to read `payload`.
    pub encoding: Encoding,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The image: a whole JPEG or PNG file, or `height * width * 3` bytes of pixels.
    pub payload: &'a [u8],
    /// Where parts of the image begin in `payload`, for decoders that need only some of them; empty where there is no index.
    /// Made by [`PackOptions::index`](crate::PackOptions::index), which knows what it means.
    pub index: &'a [u8],
}

impl Sample<'_> {
    /// Encoding and size together.
    pub fn header(&self) -> ImageHeader {
        ImageHeader {
            encoding: self.encoding,
            width: self.width,
            height: self.height,
        }
    }

    /// Whether a record can hold this: size limits, and for pixels the exact length.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.header()
            .check_size()
            .map_err(|error| error.to_string())?;
        if self.payload.len() > MAX_PAYLOAD_BYTES {
            return Err(format!(
                "{} bytes; at most {MAX_PAYLOAD_BYTES} are accepted",
                self.payload.len()
            ));
        }
        if self.index.len() > MAX_PAYLOAD_BYTES {
            return Err(format!(
                "an index of {} bytes; at most {MAX_PAYLOAD_BYTES} are accepted",
                self.index.len()
            ));
        }
        if self.encoding == Encoding::Raw {
            // Cannot overflow: the sides are within the limits.
            let expected = self.width as usize * self.height as usize * 3;
            if self.payload.len() != expected {
                return Err(format!(
                    "{} bytes of pixels for {} x {}; expected {expected}",
                    self.payload.len(),
                    self.width,
                    self.height
                ));
            }
        }
        Ok(())
    }

    /// Appends the record of this sample under `key` to `out`.
    pub(crate) fn encode(&self, key: [u8; 8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(MAGIC);
        out.push(VERSION);
        out.push(match self.encoding {
            Encoding::Jpeg => 0,
            Encoding::Png => 1,
            Encoding::Raw => 2,
        });
        let flags = if self.index.is_empty() { 0 } else { HAS_INDEX };
        out.extend(flags.to_le_bytes());
        out.extend(self.label.to_le_bytes());
        out.extend(self.width.to_le_bytes());
        out.extend(self.height.to_le_bytes());
        // `check` bounds the length far below u32::MAX.
        out.extend((self.payload.len() as u32).to_le_bytes());
        let crc = checksum(key, &out[start..], self.payload);
        let crc = crc32c::crc32c_append(crc, self.index);
        out.extend(crc.to_le_bytes());
        out.extend(self.payload);
        out.extend(self.index);
    }
}

/// Reads the record `value` found under `key`; every byte of it is covered by the checks.
///
/// # Errors
/// Says which field is wrong, with what was found and expected.
pub(crate) fn decode(key: [u8; 8], value: &[u8]) -> Result<Sample<'_>, String> {
    let Some((header, payload)) = value.split_first_chunk::<HEADER_BYTES>() else {
        return Err(format!(
            "record of {} bytes; its header alone takes {HEADER_BYTES}",
            value.len()
        ));
    };
    if header[..4] != MAGIC {
        return Err(format!(
            "record begins with \"{}\", not \"{}\"",
            header[..4].escape_ascii(),
            MAGIC.escape_ascii()
        ));
    }
    if header[4] != VERSION {
        return Err(format!(
            "record of version {}; this build reads version {VERSION}",
            header[4]
        ));
    }
    let found = u32_at(header, CRC_AT);
    let expected = checksum(key, &header[..CRC_AT], payload);
    if found != expected {
        return Err(format!(
            "checksum is {found:08x} in the record, {expected:08x} over its bytes"
        ));
    }
    // From here on the bytes are as written; the checks below are against a foreign writer.
    let encoding = match header[5] {
        0 => Encoding::Jpeg,
        1 => Encoding::Png,
        2 => Encoding::Raw,
        other => {
            return Err(format!(
                "unknown encoding {other}; this build reads 0 (jpeg), 1 (png) and 2 (raw)"
            ));
        }
    };
    let flags = u16::from_le_bytes([header[6], header[7]]);
    if flags & !HAS_INDEX != 0 {
        return Err(format!(
            "reserved flags {:04x} are set; this build knows 0001 (an index)",
            flags & !HAS_INDEX
        ));
    }
    let length = u32_at(header, 24);
    let (payload, index) = match payload.split_at_checked(length as usize) {
        Some((payload, index)) if index.is_empty() != (flags == HAS_INDEX) => (payload, index),
        _ => {
            return Err(format!(
                "payload and index of {} bytes; the record's header says {length} for the payload",
                payload.len()
            ));
        }
    };
    let sample = Sample {
        label: label_in(header),
        encoding,
        width: u32_at(header, 16),
        height: u32_at(header, 20),
        payload,
        index,
    };
    sample.check()?;
    Ok(sample)
}

/// The label in the header of the record `value`, without its checksum.
///
/// # Errors
/// Says what is wrong, as [`decode`] does.
pub(crate) fn label(value: &[u8]) -> Result<i64, String> {
    match value.first_chunk::<HEADER_BYTES>() {
        Some(header) if header[..4] == MAGIC && header[4] == VERSION => Ok(label_in(header)),
        _ => Err("its record has no header of this version".into()),
    }
}

fn label_in(header: &[u8; HEADER_BYTES]) -> i64 {
    (0..8).fold(0, |value, byte| {
        value | i64::from(header[8 + byte]) << (8 * byte)
    })
}

/// CRC32C over the key, the header before its checksum, and what follows the header.
///
/// The key is part of it so that a value found under the wrong key is caught too.
fn checksum(key: [u8; 8], header: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&key), header), payload)
}

fn u32_at(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(key: u64, sample: &Sample<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        sample.encode(key.to_be_bytes(), &mut out);
        out
    }

    /// The bytes of FORMAT.md, written by hand; the checksum is from a bitwise CRC32C in Python
    /// (polynomial 0x82f63b78 reflected, "123456789" gives e3069283) over key, header and payload.
    #[test]
    fn the_record_is_laid_out_as_specified() {
        let sample = Sample {
            label: -2,
            encoding: Encoding::Raw,
            width: 2,
            height: 1,
            payload: &[1, 2, 3, 4, 5, 6],
            index: &[],
        };
        let bytes = encoded(5, &sample);
        let header =
            "44445352 01 02 0000 feffffffffffffff 02000000 01000000 06000000".replace(' ', "");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex[..56], header);
        assert_eq!(hex[56..64], *"efb3e179");
        assert_eq!(hex[64..], *"010203040506");
        assert_eq!(decode(5u64.to_be_bytes(), &bytes), Ok(sample));
    }

    #[test]
    fn a_record_under_another_key_is_refused() {
        let sample = Sample {
            label: 1,
            encoding: Encoding::Png,
            width: 8,
            height: 8,
            payload: b"png",
            index: &[],
        };
        let error = decode(6u64.to_be_bytes(), &encoded(5, &sample)).unwrap_err();
        assert!(error.starts_with("checksum is "), "{error}");
    }

    #[test]
    fn foreign_records_with_good_checksums_are_still_checked() {
        let key = 0u64.to_be_bytes();
        let sample = Sample {
            label: 1,
            encoding: Encoding::Raw,
            width: 1,
            height: 1,
            payload: b"rgb",
            index: &[],
        };
        let forged = |at: usize, byte: u8| {
            let mut bytes = encoded(0, &sample);
            bytes[at] = byte;
            let crc = checksum(key, &bytes[..CRC_AT], &bytes[HEADER_BYTES..]);
            bytes[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            decode(key, &bytes).unwrap_err()
        };
        assert!(forged(4, 2).contains("version 2"));
        assert!(forged(5, 9).contains("unknown encoding 9"));
        assert!(forged(6, 2).contains("reserved flags 0002"));
        assert!(forged(6, 1).contains("header says 3 for the payload"));
        assert!(forged(24, 2).contains("header says 2 for the payload"));
        assert!(forged(16, 2).contains("expected 6"));
        assert!(forged(17, 255).contains("65281 x 1"));
        assert!(forged(24, 4).contains("header says 4"));
    }

    proptest! {
        #[test]
        fn any_sample_comes_back(
            key: u64,
            label: i64,
            (width, height) in (1..20u32, 1..20u32),
            jpeg: bool,
            index in 0..9usize,
        ) {
            let payload = vec![7; (width * height * 3) as usize];
            let encoding = if jpeg { Encoding::Jpeg } else { Encoding::Raw };
            let index = vec![5; index];
            let sample = Sample { label, encoding, width, height, payload: &payload, index: &index };
            prop_assert_eq!(sample.check(), Ok(()));
            let record = encoded(key, &sample);
            prop_assert_eq!(decode(key.to_be_bytes(), &record), Ok(sample));
        }

        #[test]
        fn one_changed_byte_anywhere_is_noticed(at in 0..HEADER_BYTES + 60, change in 1..=255u8) {
            let payload: Vec<u8> = (0..60).collect();
            let (payload, index) = payload.split_at(50);
            let sample = Sample { label: 3, encoding: Encoding::Jpeg, width: 4, height: 5, payload, index };
            let mut bytes = encoded(9, &sample);
            bytes[at] ^= change;
            prop_assert!(decode(9u64.to_be_bytes(), &bytes).is_err());
        }

        #[test]
        fn any_bytes_give_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(decode([0; 8], &bytes).is_err());
        }
    }
}
