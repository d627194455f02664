//! Tests of the pictures.

use super::lines::{LABEL_STEP, spread};
use super::*;
use crate::{BuiltinOptions, SearchSpace, Snapshot};

/// Snapshots in which operation `k` goes from uniform to a share that grows with `k`.
fn policy(space: &str, snapshots: usize, window: u32) -> Policy {
    let space = SearchSpace::named(space).unwrap();
    let count = space.len() as f64;
    let snapshots = (0..snapshots).map(|epoch| {
        let slope = epoch as f64 / snapshots as f64 / count / count;
        let shares = (0..space.len()).map(|k| 1.0 / count + slope * (2.0 * k as f64 + 1.0 - count));
        Snapshot::new(0.35 + 0.01 * epoch as f64, shares.collect()).unwrap()
    });
    let snapshots = snapshots.collect();
    Policy::new(space.clone(), snapshots)
        .unwrap()
        .with_smoothing(window)
        .unwrap()
}

/// Position and content of each text element.
fn texts(svg: &str) -> Vec<(i32, i32, String)> {
    let number = |element: &str, name: &str| {
        let start = element.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
        element[start..].split('"').next().unwrap().parse().unwrap()
    };
    svg.split("<text")
        .skip(1)
        .map(|element| {
            let (head, rest) = element.split_once('>').unwrap();
            let content = rest.split("</text>").next().unwrap().trim();
            (number(head, "x"), number(head, "y"), content.to_owned())
        })
        .collect()
}

#[test]
fn every_operation_has_a_line_and_the_highest_a_name() {
    for space in ["sanity", "paper68", "released52"] {
        let policy = policy(space, 20, 6);
        let svg = policy_svg(&policy).unwrap();
        let operations = policy.search_space().entries();
        let lines = svg.matches("<polyline").count();
        // Two total probabilities, and a lead line for each name; the grid's lines are no polylines of 20 points.
        let long = svg.split("<polyline").filter(|element| {
            element.split("points=\"").nth(1).is_some_and(|points| {
                points.split('"').next().unwrap().split_whitespace().count() == 20
            })
        });
        assert_eq!(
            long.count(),
            operations.len() + 2,
            "{space}: of {lines} polylines"
        );
        let texts = texts(&svg);
        for operation in &operations[operations.len() - 8..] {
            let name = shortened(&operation.label()).replace('\'', "&apos;");
            assert!(
                texts.iter().any(|(_, _, text)| text.starts_with(&name)),
                "{space}: {name} in {texts:?}"
            );
        }
    }
}

#[test]
fn names_do_not_cover_each_other_and_stay_in_the_picture() {
    for snapshots in [2, 3, 40] {
        let svg = policy_svg(&policy("paper68", snapshots, 1)).unwrap();
        let column = (WIDTH - LABELS_WIDTH) as i32;
        let mut heights: Vec<i32> = texts(&svg)
            .into_iter()
            .filter(|text| text.0 > column)
            .map(|text| text.1)
            .collect();
        heights.sort_unstable();
        // Eight operations, the uniform share, and the total probability.
        assert_eq!(heights.len(), 10);
        assert!(
            heights
                .windows(2)
                .all(|pair| pair[1] - pair[0] >= LABEL_STEP),
            "{heights:?}"
        );
        assert!(heights[0] > 0 && heights[9] < HEIGHT as i32);
    }
}

#[test]
fn the_total_probability_ends_where_it_should() {
    // Drawn from 0 to 1 over the height of the panel: the end of the line tells the value.
    let svg = policy_svg(&policy("sanity", 20, 1)).unwrap();
    let first = svg
        .split("<polyline")
        .find(|element| element.contains("stroke=\"#0072B2\""))
        .unwrap();
    let points = first
        .split("points=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let heights: Vec<f64> = points
        .split_whitespace()
        .map(|point| point.split(',').nth(1).unwrap().parse().unwrap())
        .collect();
    let (top, bottom) = (
        f64::from(TITLE_HEIGHT + 10),
        f64::from(TITLE_HEIGHT + TOTAL_HEIGHT - 46),
    );
    let value = |y: f64| (bottom - y) / (bottom - top);
    assert!((value(heights[0]) - 0.35).abs() < 0.01, "{heights:?}");
    assert!((value(heights[19]) - 0.54).abs() < 0.01, "{heights:?}");
}

#[test]
fn names_from_a_file_cannot_break_the_picture() {
    let space = SearchSpace::new("</svg><b>&\u{1}\"", 2, vec![crate::Operation::FlipLR]).unwrap();
    for snapshots in [1, 2] {
        let snapshots = vec![Snapshot::new(0.5, vec![1.0]).unwrap(); snapshots];
        let policy = Policy::new(space.clone(), snapshots).unwrap();
        let svg = policy_svg(&policy).unwrap();
        assert!(svg.contains("&lt;/svg&gt;&lt;b&gt;&amp;&quot;"));
        assert!(!svg.contains('\u{1}'));
    }
}

#[test]
fn positions_are_spread() {
    assert_eq!(spread(&[10, 100, 200], 300), [10, 100, 200]);
    assert_eq!(spread(&[10, 10, 11], 300), [10, 29, 48]);
    assert_eq!(spread(&[290, 295, 299], 300), [262, 281, 300]);
    assert_eq!(spread(&[], 300), [0; 0]);
}

#[test]
fn one_snapshot_is_a_bar_for_each_operation_as_long_as_its_share() {
    let policy = Policy::builtin("autoaugment-imagenet", &BuiltinOptions::default()).unwrap();
    let svg = policy_svg(&policy).unwrap();
    let applications = policy.applications(0);
    let texts = texts(&svg);
    let number = |element: &str, name: &str| -> f64 {
        let start = element.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
        element[start..].split('"').next().unwrap().parse().unwrap()
    };
    let mut bars: Vec<f64> = svg
        .split("<rect")
        .skip(2) // what comes before the first, and the background
        .map(|element| number(element, "width"))
        .collect();
    assert_eq!(bars.len(), applications.len());
    let mut shares: Vec<f64> = applications.iter().map(|row| row.per_draw).collect();
    bars.sort_by(f64::total_cmp);
    shares.sort_by(f64::total_cmp);
    let scale = bars[bars.len() - 1] / shares[shares.len() - 1];
    for (bar, share) in bars.iter().zip(&shares) {
        assert!((bar - share * scale).abs() <= 2.0, "{bar} for {share}");
    }
    for row in &applications {
        assert!(
            texts.iter().any(|text| text.2.starts_with(&row.label)),
            "{}",
            row.label
        );
    }
}

/// Text in the PNG is there without any font of the system: dark pixels in the title.
#[test]
fn png_has_the_size_and_the_text_of_the_picture() {
    for policy in [
        policy("paper68", 20, 6),
        Policy::builtin("trivialaugment-wide", &BuiltinOptions::default()).unwrap(),
    ] {
        let png = policy_png(&policy).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&png))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(reader.info().width, WIDTH);
        assert_eq!(reader.info().height, height(&policy));
        let title = &pixels[..(TITLE_HEIGHT * WIDTH * 3) as usize];
        let dark = title.chunks(3).filter(|pixel| pixel[0] < 100).count();
        assert!((500..5000).contains(&dark), "{dark}");
    }
}
