//! Against Pillow, by checksums of `tests/images/make.py`, and against libjpeg,
//! which has the last word on whatever is out of the ordinary.

use super::*;
use crate::cpu::on_every_cpu;
use crate::decode::jpeg;
use crate::encode::{ChromaSubsampling, encode_jpeg};
use crate::rng::philox4x32;

const PLAIN: &[u8] = include_bytes!("../../../tests/images/plain.bin");

struct File {
    number: usize,
    width: u32,
    height: u32,
    hash: u64,
    data: &'static [u8],
}

fn files() -> Vec<File> {
    let mut files = Vec::new();
    let mut rest = PLAIN;
    while let Some((head, after)) = rest.split_first_chunk::<16>() {
        let number = |range: std::ops::Range<usize>| {
            head[range]
                .iter()
                .rev()
                .fold(0u64, |n, &b| n << 8 | u64::from(b))
        };
        let (data, after) = after.split_at(number(0..4) as usize);
        files.push(File {
            number: files.len(),
            width: number(4..6) as u32,
            height: number(6..8) as u32,
            hash: number(8..16),
            data,
        });
        rest = after;
    }
    assert_eq!(files.len(), 120);
    files
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Numbers below a bound, one after another.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: usize) -> usize {
        self.0 += 1;
        let [draw, ..] = philox4x32([self.0 as u32, 7, 0, 0], [1, 2]);
        draw as usize % bound
    }

    fn region(&mut self, width: u32, height: u32) -> Rect {
        let (x, y) = (self.below(width as usize), self.below(height as usize));
        let (x, y) = (x as u32, y as u32);
        Rect {
            x,
            y,
            width: 1 + self.below((width - x) as usize) as u32,
            height: 1 + self.below((height - y) as usize) as u32,
        }
    }
}

fn whole(width: u32, height: u32) -> Rect {
    Rect {
        x: 0,
        y: 0,
        width,
        height,
    }
}

fn rows(image: &Image, place: Rect) -> Vec<&[u8]> {
    let columns = place.x as usize * 3..(place.x + place.width) as usize * 3;
    (place.y..place.y + place.height)
        .map(|y| &image.row(y)[columns.clone()])
        .collect()
}

/// Both decoders and what they made of the files so far.
#[derive(Default)]
struct Both {
    baseline: Baseline,
    scratch: Vec<u8>,
    ours: Image,
    theirs: Image,
    taken: usize,
    left: usize,
    refused: usize,
}

impl Both {
    /// What the baseline decoder takes, libjpeg must take too, and give the
    /// same pixels.
    fn compare(&mut self, what: &str, payload: &[u8], file: &File, region: Rect) {
        let request = Request {
            width: file.width,
            height: file.height,
            payload,
            index: &[],
            max_scans: 100,
        };
        let ours = self.baseline.decode(&request, region, &mut self.ours);
        let theirs = jpeg::decode(&request, region, &mut self.scratch, &mut self.theirs);
        self.refused += usize::from(theirs.is_err());
        let Some(ours) = ours else {
            self.left += 1;
            return;
        };
        self.taken += 1;
        let case = format!("file {} {region:?}, {what}", file.number);
        let theirs = theirs.unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(
            rows(&self.ours, ours) == rows(&self.theirs, theirs),
            "{case}: other pixels"
        );
    }
}

#[test]
fn whole_pictures_equal_pillows() {
    on_every_cpu(|_| whole_pictures_equal_pillows_here());
}

fn whole_pictures_equal_pillows_here() {
    let mut baseline = Baseline::default();
    let mut image = Image::default();
    let mut left = 0;
    for file in files() {
        let request = Request {
            width: file.width,
            height: file.height,
            payload: file.data,
            index: &[],
            max_scans: 100,
        };
        let region = whole(file.width, file.height);
        if baseline.decode(&request, region, &mut image).is_none() {
            // Up to two samples of chroma: not smoothed.
            assert!(file.width <= 4, "file {}", file.number);
            left += 1;
            continue;
        }
        assert_eq!(fnv1a(image.pixels()), file.hash, "file {}", file.number);
    }
    assert!(left < 15, "{left}");
}

#[test]
fn regions_equal_libjpegs() {
    let mut both = Both::default();
    let mut draws = Draws(0);
    for file in files() {
        for _ in 0..60 {
            let region = draws.region(file.width, file.height);
            both.compare("intact", file.data, &file, region);
        }
    }
    assert_eq!(both.refused, 0);
    assert!(both.taken > 10 * both.left, "{} {}", both.taken, both.left);
}

/// A picture of `width` x `height` pixels with something in every block, as we
/// encode it.
fn encoded(width: u32, height: u32, subsampling: ChromaSubsampling) -> Vec<u8> {
    let mut draws = Draws(5 << 32);
    let pixels = (0..width * height * 3)
        .map(|i| (i / 7 % 200) as u8 + draws.below(56) as u8)
        .collect();
    let image = Image::from_rgb(width, height, pixels).unwrap();
    encode_jpeg(&image, 75, subsampling).unwrap()
}

#[test]
fn regions_by_an_index_equal_those_without() {
    let larger = [ChromaSubsampling::Full, ChromaSubsampling::Quarter]
        .map(|subsampling| ((301, 215), encoded(301, 215, subsampling)));
    let files = files();
    let files = files
        .iter()
        .map(|file| ((file.width, file.height), file.data));
    let larger = larger.iter().map(|(size, data)| (*size, &data[..]));
    let mut baseline = Baseline::default();
    let (mut with, mut without) = (Image::default(), Image::default());
    let mut draws = Draws(6 << 32);
    let mut indexed = 0;
    for (number, ((width, height), payload)) in files.chain(larger).enumerate() {
        let request = Request {
            width,
            height,
            payload,
            index: &[],
            max_scans: 100,
        };
        let Some(index) = baseline.index(&request) else {
            continue;
        };
        indexed += 1;
        for turn in 0..if width > 300 { 400 } else { 30 } {
            let region = match turn {
                0 => whole(width, height),
                _ => draws.region(width, height),
            };
            let expected = baseline.decode(&request, region, &mut without).unwrap();
            let request = Request {
                index: &index,
                ..request
            };
            let found = baseline.decode(&request, region, &mut with).unwrap();
            assert!(
                rows(&with, found) == rows(&without, expected),
                "file {number} {region:?}"
            );
        }
    }
    // The others restart, or are too narrow.
    assert!(indexed > 80, "{indexed}");
}

/// No index makes the decoder fail otherwise than by giving up, and one of
/// another picture's form is not looked at.
#[test]
fn a_wrong_index_does_no_harm() {
    let (width, height) = (301, 215);
    let payload = encoded(width, height, ChromaSubsampling::Quarter);
    let request = Request {
        width,
        height,
        payload: &payload,
        index: &[],
        max_scans: 100,
    };
    let mut baseline = Baseline::default();
    let mut image = Image::default();
    let index = baseline.index(&request).unwrap();
    let mut draws = Draws(7 << 32);
    let (mut taken, mut given_up) = (0, 0);
    for _ in 0..2000 {
        let mut index = index.clone();
        for _ in 0..20 {
            let place = 4 + draws.below(index.len() - 4);
            index[place] = draws.below(256) as u8;
        }
        let request = Request {
            index: &index,
            ..request
        };
        match baseline.decode(&request, draws.region(width, height), &mut image) {
            Some(_) => taken += 1,
            None => given_up += 1,
        }
    }
    assert!(taken > 50 && given_up > 50, "{taken} {given_up}");

    let region = Rect {
        x: 200,
        y: 100,
        width: 50,
        height: 60,
    };
    let place = baseline.decode(&request, region, &mut image).unwrap();
    let expected: Vec<Vec<u8>> = rows(&image, place).iter().map(|row| row.to_vec()).collect();
    let mut longer = index.clone();
    longer.push(0);
    let mut versioned = index.clone();
    versioned[0] = 2;
    for index in [&index[..index.len() - 1], &longer, &versioned, &[0; 4]] {
        let request = Request { index, ..request };
        let place = baseline.decode(&request, region, &mut image).unwrap();
        assert!(rows(&image, place) == expected);
    }
}

/// Bits turned over, bytes replaced by markers and others, put in and taken
/// out, ends cut off.
#[test]
fn damage_is_judged_by_libjpeg() {
    let mut both = Both::default();
    let mut draws = Draws(1 << 32);
    for file in files() {
        let scan = file
            .data
            .windows(2)
            .position(|two| two == [0xff, 0xda])
            .unwrap();
        for turn in 0..120 {
            let mut payload = file.data.to_vec();
            let from = if turn % 4 == 0 { 0 } else { scan };
            let place = from + draws.below(payload.len() - from);
            let what = draws.below(7);
            match what {
                0 | 1 => payload[place] ^= 1 << draws.below(8),
                2 => payload[place] = draws.below(256) as u8,
                3 => payload[place] = [0, 0xff, 0xd9, 0xd0 + draws.below(8) as u8][draws.below(4)],
                4 => payload.truncate(place),
                5 => payload.insert(place, draws.below(256) as u8),
                _ => {
                    payload.remove(place);
                }
            }
            let region = match turn % 2 {
                0 => whole(file.width, file.height),
                _ => draws.region(file.width, file.height),
            };
            let what = format!("damage {what} at {place}, scan from {scan}");
            both.compare(&what, &payload, &file, region);
        }
    }
    // Neither all of it shows nor none.
    assert!(
        both.taken > 2_000 && both.refused > 2_000,
        "{} {}",
        both.taken,
        both.refused
    );
}

/// What only libjpeg knows is left to it.
#[test]
fn other_kinds_are_left() {
    let mut baseline = Baseline::default();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    let mut decode = |name: &str, (width, height)| {
        let payload = std::fs::read(folder.join(name)).unwrap();
        let request = Request {
            width,
            height,
            payload: &payload,
            index: &[],
            max_scans: 100,
        };
        let region = whole(width, height);
        baseline
            .decode(&request, region, &mut Image::default())
            .is_some()
    };
    assert!(decode("yuv420.jpg", (45, 37)));
    assert!(!decode("yuv420.jpg", (45, 38)), "another size");
    for (name, size) in [
        ("yuv420-progressive.jpg", (50, 31)),
        ("grey-progressive.jpg", (41, 30)),
        ("cmyk.jpg", (35, 26)),
        ("ycck.jpg", (35, 26)),
        ("rgb.jpg", (33, 21)),
        ("rgb.png", (37, 23)),
    ] {
        assert!(!decode(name, size), "{name}");
    }
}
