//! JPEGs are written byte for byte as Pillow writes them.

use ddas_runtime::{ChromaSubsampling, Image, encode_jpeg};

/// CRC32 (of zlib), for comparing with Python.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Length and `zlib.crc32` of what Pillow 13.0 (libjpeg-turbo) gives for `save(quality=.., subsampling=..)`.
#[test]
fn the_bytes_are_pillows() {
    let pixels = (0..37u32)
        .flat_map(|y| {
            (0..53u32).flat_map(move |x| {
                (0..3u32).map(move |c| (x * 7 + y * 13 + c * 50 + ((x * y) >> 3)) as u8)
            })
        })
        .collect();
    let image = Image::from_rgb(53, 37, pixels).unwrap();
    for (quality, subsampling, length, crc) in [
        (50, ChromaSubsampling::Quarter, 1399, 1_803_839_645),
        (50, ChromaSubsampling::Full, 1780, 1_882_063_798),
        (90, ChromaSubsampling::Quarter, 2451, 875_272_507),
        (90, ChromaSubsampling::Full, 3679, 3_462_144_326),
        (100, ChromaSubsampling::Quarter, 4736, 3_929_427_932),
        (100, ChromaSubsampling::Full, 7893, 2_896_882_895),
    ] {
        let jpeg = encode_jpeg(&image, quality, subsampling).unwrap();
        assert_eq!(
            (jpeg.len(), crc32(&jpeg)),
            (length, crc),
            "quality {quality}, {subsampling:?}"
        );
    }
}

#[test]
fn what_is_no_image_is_refused() {
    let error = |image: &Image| {
        encode_jpeg(image, 90, ChromaSubsampling::Full)
            .unwrap_err()
            .to_string()
    };
    assert!(error(&Image::default()).contains("0x0"));
    assert!(error(&Image::new(65_501, 1)).contains("at most 65500"));
}
