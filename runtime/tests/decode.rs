//! Decoding against Pillow (`images/golden.txt`, written by `images/make.py`),
//! and against damage.

use std::path::{Path, PathBuf};

use ddas_formats::Encoding;
use ddas_runtime::{DecodeLimits, Decoder, Error, Image, Rect};

struct Golden {
    name: String,
    encoding: Encoding,
    width: u32,
    height: u32,
    hash: u64,
    payload: Vec<u8>,
}

impl Golden {
    fn decode(
        &self,
        decoder: &mut Decoder,
        payload: &[u8],
        image: &mut Image,
    ) -> Result<(), Error> {
        decoder.decode(self.encoding, self.width, self.height, payload, image)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images")
}

fn goldens() -> Vec<Golden> {
    let text = std::fs::read_to_string(folder().join("golden.txt")).unwrap();
    text.lines()
        .map(|line| {
            let [name, width, height, hash] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("golden.txt: {line}");
            };
            Golden {
                name: name.into(),
                encoding: if name.ends_with(".png") {
                    Encoding::Png
                } else {
                    Encoding::Jpeg
                },
                width: width.parse().unwrap(),
                height: height.parse().unwrap(),
                hash: u64::from_str_radix(hash, 16).unwrap(),
                payload: std::fs::read(folder().join(name)).unwrap(),
            }
        })
        .collect()
}

fn golden(name: &str) -> Golden {
    goldens()
        .into_iter()
        .find(|golden| golden.name == name)
        .unwrap()
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[test]
fn pixels_equal_pillows() {
    let mut decoder = Decoder::new();
    let mut image = Image::default();
    let goldens = goldens();
    assert!(goldens.len() > 30);
    for golden in &goldens {
        golden
            .decode(&mut decoder, &golden.payload, &mut image)
            .unwrap_or_else(|error| panic!("{}: {error}", golden.name));
        assert_eq!(
            (image.width(), image.height()),
            (golden.width, golden.height)
        );
        assert_eq!(fnv1a(image.pixels()), golden.hash, "{}", golden.name);
    }
}

fn cut(image: &Image, region: Rect) -> Vec<[u8; 3]> {
    (region.y..region.y + region.height)
        .flat_map(|y| (region.x..region.x + region.width).map(move |x| (x, y)))
        .map(|(x, y)| image.pixel(x, y).unwrap())
        .collect()
}

/// Every start and end of rows and columns, for every way of coding.
#[test]
fn regions_equal_the_whole() {
    let mut decoder = Decoder::new();
    let (mut whole, mut part) = (Image::default(), Image::default());
    let spans = |bound: u32| -> Vec<(u32, u32)> {
        (0..bound)
            .flat_map(|first| (first + 1..=bound).map(move |end| (first, end)))
            .collect()
    };
    for golden in goldens() {
        golden
            .decode(&mut decoder, &golden.payload, &mut whole)
            .unwrap();
        let (columns, rows) = (spans(golden.width), spans(golden.height));
        // All pairs would be millions: walk both lists at once, past each
        // other, until both have been passed through.
        let count = columns.len().max(rows.len());
        for i in 0..count {
            let (x, x_end) = columns[i % columns.len()];
            let (y, y_end) = rows[(i * 7919) % rows.len()];
            let region = Rect {
                x,
                y,
                width: x_end - x,
                height: y_end - y,
            };
            let place = decoder
                .decode_region(
                    golden.encoding,
                    golden.width,
                    golden.height,
                    &golden.payload,
                    region,
                    &mut part,
                )
                .unwrap();
            assert_eq!((place.width, place.height), (region.width, region.height));
            assert!(
                cut(&part, place) == cut(&whole, region),
                "{} {region:?}",
                golden.name
            );
        }
    }
}

#[test]
fn regions_must_lie_within_the_image() {
    let golden = golden("yuv420.jpg");
    for (x, y, width, height) in [
        (0, 0, 0, 1),
        (45, 0, 1, 1),
        (44, 0, 2, 1),
        (0, 36, 1, u32::MAX),
        (u32::MAX, 0, 1, 1),
    ] {
        let region = Rect {
            x,
            y,
            width,
            height,
        };
        let outcome = Decoder::new().decode_region(
            golden.encoding,
            golden.width,
            golden.height,
            &golden.payload,
            region,
            &mut Image::default(),
        );
        assert!(matches!(outcome, Err(Error::Crop { .. })), "{outcome:?}");
    }
}

/// Every proper prefix is an error, down to the last byte of the end marker;
/// and the decoder works on afterwards.
#[test]
fn no_truncated_file_decodes() {
    let mut decoder = Decoder::new();
    let mut image = Image::default();
    for golden in goldens() {
        let lengths = (0..golden.payload.len()).step_by(23);
        for length in lengths.chain([golden.payload.len() - 1]) {
            let outcome = golden.decode(&mut decoder, &golden.payload[..length], &mut image);
            assert!(
                matches!(outcome, Err(Error::Decode { .. })),
                "{} cut to {length} bytes: {outcome:?}",
                golden.name
            );
        }
        golden
            .decode(&mut decoder, &golden.payload, &mut image)
            .unwrap();
        assert_eq!(fnv1a(image.pixels()), golden.hash, "{}", golden.name);
    }
}

/// A damaged byte may by chance yield a valid JPEG, never a panic, and in a
/// PNG every byte is covered by a checksum.
#[test]
fn damaged_bytes_are_errors_or_pixels() {
    let mut decoder = Decoder::new();
    let (mut image, mut part) = (Image::default(), Image::default());
    for golden in goldens() {
        for position in 0..golden.payload.len() {
            let mut payload = golden.payload.clone();
            payload[position] ^= 0xa5;
            let outcome = golden.decode(&mut decoder, &payload, &mut image);
            let corner = Rect {
                x: golden.width / 2,
                y: golden.height / 2,
                width: golden.width - golden.width / 2,
                height: golden.height - golden.height / 2,
            };
            let in_part = decoder.decode_region(
                golden.encoding,
                golden.width,
                golden.height,
                &payload,
                corner,
                &mut part,
            );
            // A region that reaches to the end sees all damage that shows.
            assert_eq!(
                outcome.is_ok(),
                in_part.is_ok(),
                "{} at {position}",
                golden.name
            );
            match golden.encoding {
                Encoding::Png => assert!(outcome.is_err(), "{} at {position}", golden.name),
                _ if position < 2 => assert!(outcome.is_err(), "{} at {position}", golden.name),
                _ => {}
            }
        }
    }
}

#[test]
fn warnings_of_the_jpeg_library_are_errors_in_its_words() {
    let golden = golden("yuv420.jpg");
    let mut payload = golden.payload.clone();
    payload.truncate(payload.len() - 2);
    let error = golden
        .decode(&mut Decoder::new(), &payload, &mut Image::default())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot decode the JPEG image: Premature end of JPEG file"
    );
}

#[test]
fn what_is_no_image_is_refused() {
    let mut decoder = Decoder::new();
    let mut image = Image::default();
    for payload in [&b""[..], b"hello, I am a text file", &[0xff; 64]] {
        for encoding in [Encoding::Jpeg, Encoding::Png, Encoding::Raw] {
            let outcome = decoder.decode(encoding, 8, 8, payload, &mut image);
            assert!(matches!(outcome, Err(Error::Decode { .. })), "{outcome:?}");
        }
    }
    let jpeg = golden("yuv444.jpg");
    let as_png = decoder.decode(
        Encoding::Png,
        jpeg.width,
        jpeg.height,
        &jpeg.payload,
        &mut image,
    );
    assert!(matches!(as_png, Err(Error::Decode { format: "PNG", .. })));
}

/// Files that lean on the tables of an earlier image would make pixels depend
/// on the order of reading.
#[test]
fn tables_do_not_leak_from_one_jpeg_to_the_next() {
    let golden = golden("yuv444.jpg");
    let mut bare = Vec::new();
    let mut rest = &golden.payload[2..];
    bare.extend_from_slice(&golden.payload[..2]);
    let mut removed = 0;
    while rest[1] != 0xda {
        let (segment, tail) = rest.split_at(2 + usize::from(rest[2]) * 256 + usize::from(rest[3]));
        if segment[1] == 0xdb {
            removed += 1;
        } else {
            bare.extend_from_slice(segment);
        }
        rest = tail;
    }
    assert!(removed > 0);
    bare.extend_from_slice(rest);

    let mut decoder = Decoder::new();
    let mut image = Image::default();
    golden
        .decode(&mut decoder, &golden.payload, &mut image)
        .unwrap();
    let error = golden.decode(&mut decoder, &bare, &mut image).unwrap_err();
    assert!(error.to_string().contains("Quantization table"), "{error}");
}

#[test]
fn size_must_be_the_records() {
    for name in ["yuv420.jpg", "rgb.png"] {
        let golden = golden(name);
        let outcome = Decoder::new().decode(
            golden.encoding,
            golden.width + 1,
            golden.height,
            &golden.payload,
            &mut Image::default(),
        );
        let Err(Error::DecodedSize { expected, found }) = outcome else {
            panic!("{name}: {outcome:?}");
        };
        assert_eq!(expected, (golden.width + 1, golden.height));
        assert_eq!(found, (golden.width, golden.height));
    }
}

#[test]
fn limits_hold_before_anything_is_decoded() {
    let golden = golden("yuv420-progressive.jpg");
    let defaults = DecodeLimits::default();
    let decode = |limits: DecodeLimits| {
        golden.decode(
            &mut Decoder::with_limits(limits),
            &golden.payload,
            &mut Image::default(),
        )
    };
    decode(defaults).unwrap();
    for (limits, word) in [
        (
            DecodeLimits {
                max_side: golden.width - 1,
                ..defaults
            },
            "side 50, limit 49",
        ),
        (
            DecodeLimits {
                max_pixels: 100,
                ..defaults
            },
            "pixels 1550, limit 100",
        ),
        (
            DecodeLimits {
                max_bytes: 9,
                ..defaults
            },
            "encoded bytes",
        ),
        (
            DecodeLimits {
                max_scans: 3,
                ..defaults
            },
            "more than 3 scans",
        ),
    ] {
        let error = decode(limits).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
    // Nothing is allocated for a size that no limit allows.
    let huge = Decoder::new().decode(
        Encoding::Jpeg,
        65_500,
        65_500,
        &golden.payload,
        &mut Image::default(),
    );
    assert!(matches!(huge, Err(Error::DecodeLimit { .. })));
    let empty = Decoder::new().decode(Encoding::Raw, 0, 5, &[], &mut Image::default());
    assert!(matches!(empty, Err(Error::DecodeLimit { .. })));
}
