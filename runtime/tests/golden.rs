//! Every operation and the resize against Pillow, by committed checksums.
//!
//! `golden/pillow.txt` holds what Pillow made of the test images, written by
//! `golden/pillow.py`; here the same images go through the kernels.

#[path = "../src/kernels/test_images.rs"]
mod test_images;

use std::sync::atomic::{AtomicUsize, Ordering};

use ddas_formats::Operation;
use ddas_runtime::{Image, Kernels, PassOrder, Rect, ResizeFilter, Resizer};
use test_images::Kind;

const TABLE: &str = include_str!("golden/pillow.txt");

/// The lines of one sort, split into fields; the last field is the checksums,
/// one a size.
fn lines(sort: &str) -> Vec<Vec<&'static str>> {
    TABLE
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|fields| fields[0] == sort)
        .collect()
}

fn side_by_side(text: &str, separator: char) -> (u32, u32) {
    let (first, second) = text.split_once(separator).unwrap();
    (first.parse().unwrap(), second.parse().unwrap())
}

/// For each size, the images of every kind.
fn groups() -> Vec<Vec<Image>> {
    let sizes = lines("sizes")[0][1]
        .split(' ')
        .map(|text| side_by_side(text, 'x'));
    sizes
        .map(|(width, height)| {
            let image =
                |kind: Kind| Image::from_rgb(width, height, kind.pixels(width, height)).unwrap();
            Kind::ALL.map(image).into()
        })
        .collect()
}

/// CRC-32 as zlib computes it.
struct Crc32(u32);

impl Crc32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 {
                    crc >> 1 ^ 0xedb8_8320
                } else {
                    crc >> 1
                };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };

    fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0 >> 8 ^ Crc32::TABLE[usize::from(self.0 as u8 ^ byte)];
        }
    }
}

/// Runs `change` over all images and compares the checksums of each size;
/// returns a line for every size that differs, and counts the images.
fn differing(
    groups: &[Vec<Image>],
    fields: &[&str],
    cases: &AtomicUsize,
    mut change: impl FnMut(&Image, &mut Image),
) -> Vec<String> {
    let (sums, name) = fields.split_last().unwrap();
    let sums: Vec<&str> = sums.split(' ').collect();
    // Some lines leave out the largest size.
    assert!(sums.len() + 1 >= groups.len(), "{name:?}");
    let mut out = Image::default();
    let mut differing = Vec::new();
    for (images, expected) in groups.iter().zip(sums) {
        let mut crc = Crc32(!0);
        for image in images {
            change(image, &mut out);
            crc.update(out.pixels());
        }
        cases.fetch_add(images.len(), Ordering::Relaxed);
        if format!("{:08x}", !crc.0) != expected {
            let (width, height) = (images[0].width(), images[0].height());
            differing.push(format!("{} at {width}x{height}", name.join(" ")));
        }
    }
    differing
}

/// Checks all lines of a sort on two threads.
fn check(sort: &str, at_least: usize, one: impl Fn(&[&str], &AtomicUsize) -> Vec<String> + Sync) {
    let lines = lines(sort);
    let cases = AtomicUsize::new(0);
    let differing: Vec<String> = std::thread::scope(|scope| {
        let halves = lines.chunks(lines.len().div_ceil(2).max(1));
        let workers: Vec<_> = halves
            .map(|half| {
                let (one, cases) = (&one, &cases);
                scope.spawn(move || half.iter().flat_map(|fields| one(fields, cases)).collect())
            })
            .collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<String>>| worker.join().unwrap();
        workers.into_iter().flat_map(join).collect()
    });
    let cases = cases.into_inner();
    println!("{cases} cases, {} differing groups", differing.len());
    assert!(
        differing.is_empty(),
        "{} of {} groups of images differ from Pillow, among them:\n{}",
        differing.len(),
        cases / Kind::ALL.len(),
        differing[..differing.len().min(20)].join("\n")
    );
    assert!(cases >= at_least, "the table has shrunk: {cases} cases");
}

#[test]
fn the_test_images_are_those_of_the_script() {
    let names: Vec<String> = Kind::ALL
        .map(|kind| format!("{kind:?}").to_lowercase())
        .into();
    assert_eq!(names.join(" "), lines("kinds")[0][1].replace('-', ""));
    let groups = groups();
    check("source", groups.len(), |fields, cases| {
        differing(&groups, fields, cases, |image, out| out.copy_from(image))
    });
}

#[test]
fn every_operation_equals_pillow() {
    let groups = groups();
    check("operation", 75_000, |fields, cases| {
        let operation: Operation = serde_json::from_str(fields[1]).unwrap();
        let center = match fields[2] {
            "-" => None,
            place => {
                let (x, y) = place.split_once(',').unwrap();
                Some((x.parse().unwrap(), y.parse().unwrap()))
            }
        };
        let mut kernels = Kernels::default();
        differing(&groups, fields, cases, |image, out| {
            out.copy_from(image);
            kernels.apply(&operation, center, out);
        })
    });
}

#[test]
fn crop_and_resize_equal_pillow_in_both_pass_orders() {
    let groups = groups();
    check("resize", 2_000, |fields, cases| {
        let filter = match fields[1] {
            "bilinear" => ResizeFilter::Bilinear,
            "bicubic" => ResizeFilter::Bicubic,
            other => panic!("{other}"),
        };
        let order = match fields[2] {
            "horizontal-first" => PassOrder::HorizontalFirst,
            "pillow13" => PassOrder::Pillow13,
            other => panic!("{other}"),
        };
        let size = side_by_side(fields[3], 'x');
        let mut resizer = Resizer::default();
        differing(&groups, fields, cases, |image, out| {
            let (width, height) = (image.width(), image.height());
            let crop = match fields[4] {
                "whole" => Rect {
                    x: 0,
                    y: 0,
                    width,
                    height,
                },
                _ => Rect {
                    x: width / 4,
                    y: height / 4,
                    width: (width / 2).max(1),
                    height: (height / 2).max(1),
                },
            };
            resizer
                .resize_crop(image, crop, size, filter, order, out)
                .unwrap();
        })
    });
}

/// The kernels exist for several instruction sets, of which a process runs
/// one: above, the best the machine has. What it lacks falls back.
#[test]
fn other_instruction_sets_give_the_same_bytes() {
    if std::env::var_os("DDAS_CPU").is_some() {
        return; // we are the child below
    }
    for cpu in ["baseline", "avx2"] {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .env("DDAS_CPU", cpu)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{cpu}: {text}");
        assert!(text.contains("4 passed"), "{cpu}: {text}");
    }
}
