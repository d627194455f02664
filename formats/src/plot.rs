//! A policy as a picture: total probability and operation probabilities over its snapshots, as in the paper's
//! figures 5 and 4.

use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Error, Policy, Result};

const WIDTH: u32 = 1100;
const TITLE_HEIGHT: u32 = 44;
const TOTAL_HEIGHT: u32 = 330;
const OPERATIONS_HEIGHT: u32 = 560;
const HEIGHT: u32 = TITLE_HEIGHT + TOTAL_HEIGHT + OPERATIONS_HEIGHT;
/// Room for the names of operations, right of the lines.
const LABELS_WIDTH: u32 = 250;
/// Least distance of two names, in pixels.
const LABEL_STEP: i32 = 19;
/// Longest name that fits beside the lines.
const LABEL_LETTERS: usize = 28;
const FONT: &str = "sans-serif";

/// Okabe and Ito's colours, told apart by most eyes and in print.
const COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(117, 76, 41),
    RGBColor(60, 60, 60),
];
const FAINT: RGBColor = RGBColor(205, 205, 205);

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn<T> = std::result::Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// Draws a policy as one SVG picture.
///
/// Above, the total probability of each snapshot, as it is in the file and, where the policy smooths it, as it is
/// replayed. Below, the probability of each operation, with the eight that end highest coloured and named.
///
/// # Errors
/// [`Error::Field`] when the drawing library refuses, which no policy is known to cause.
///
/// ```
/// use ddas_formats::{Policy, SearchSpace, Snapshot, policy_svg};
///
/// let space = SearchSpace::named("sanity")?;
/// let uniform = vec![1.0 / space.len() as f64; space.len()];
/// let snapshots = (0..10).map(|epoch| Snapshot::new(0.3 + 0.02 * f64::from(epoch), uniform.clone()));
/// let policy = Policy::new(space, snapshots.collect::<Result<_, _>>()?)?;
/// let svg = policy_svg(&policy)?;
/// assert!(svg.starts_with("<svg") && svg.contains("total probability"));
/// # Ok::<(), ddas_formats::Error>(())
/// ```
pub fn policy_svg(policy: &Policy) -> Result<String> {
    let mut svg = String::new();
    draw(policy, &mut svg).map_err(|error| Error::field("plot", error.to_string()))?;
    Ok(svg)
}

fn draw(policy: &Policy, svg: &mut String) -> Drawn<()> {
    let root = SVGBackend::with_string(svg, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let (title, rest) = root.split_vertically(TITLE_HEIGHT);
    let (upper, lower) = rest.split_vertically(TOTAL_HEIGHT);
    let space = policy.search_space();
    let text = format!(
        "{}: {} operations, {} snapshots, {} draws per sample",
        printable(space.name()),
        space.len(),
        policy.snapshots().len(),
        space.draws_per_sample(),
    );
    title.draw_text(
        &text,
        &text_style(20, Pos::new(HPos::Left, VPos::Center)),
        (24, TITLE_HEIGHT as i32 / 2),
    )?;
    draw_total(policy, &upper)?;
    draw_operations(policy, &lower)?;
    root.present()
}

fn draw_total(policy: &Policy, canvas: &Canvas<'_>) -> Drawn<()> {
    let raw: Vec<f64> = policy
        .snapshots()
        .iter()
        .map(|snapshot| snapshot.total_probability())
        .collect();
    let smoothed = policy.smoothed_total_probabilities();
    let smooths = policy.smoothing_window() > 1;
    let mut chart = chart(canvas, raw.len(), 0.0..1.0, "total probability")?;
    let mut labels = Vec::new();
    let raw_color = if smooths {
        RGBColor(150, 150, 150)
    } else {
        COLORS[0]
    };
    draw_line(
        &mut chart,
        &raw,
        raw_color.stroke_width(if smooths { 1 } else { 3 }),
    )?;
    labels.push(label(
        &chart,
        &raw,
        if smooths {
            "in the file"
        } else {
            "as in the file"
        },
        raw_color,
    ));
    if smooths {
        draw_line(&mut chart, &smoothed, COLORS[0].stroke_width(3))?;
        let text = format!("replayed: mean of {}", policy.smoothing_window());
        labels.push(label(&chart, &smoothed, &text, COLORS[0]));
    }
    draw_labels(canvas, labels)
}

fn draw_operations(policy: &Policy, canvas: &Canvas<'_>) -> Drawn<()> {
    let operations = policy.search_space().entries();
    let lines: Vec<Vec<f64>> = (0..operations.len())
        .map(|operation| {
            policy
                .snapshots()
                .iter()
                .map(|snapshot| snapshot.operation_probabilities()[operation])
                .collect()
        })
        .collect();
    // By the last snapshot, and among equals in the order of the search space.
    let mut ranked: Vec<usize> = (0..lines.len()).collect();
    ranked.sort_by(|&a, &b| {
        lines[b]
            .last()
            .partial_cmp(&lines[a].last())
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let (named, others) = ranked.split_at(ranked.len().min(COLORS.len()));

    let all = || lines.iter().flatten().copied();
    let (lowest, highest) = (all().fold(1.0, f64::min), all().fold(0.0, f64::max));
    let margin = ((highest - lowest) * 0.08).max(0.1 * highest).max(1e-6);
    let range = (lowest - margin).max(0.0)..highest + margin;
    let mut chart = chart(
        canvas,
        policy.snapshots().len(),
        range,
        "operation probability",
    )?;
    for &operation in others {
        draw_line(&mut chart, &lines[operation], FAINT.stroke_width(1))?;
    }
    let mut labels = Vec::new();
    for (&operation, color) in named.iter().zip(COLORS).rev() {
        draw_line(&mut chart, &lines[operation], color.stroke_width(2))?;
        let last = lines[operation].last().copied().unwrap_or(0.0);
        let text = format!(
            "{} {last:.4}",
            shortened(&printable(&operations[operation].label()))
        );
        labels.push(label(&chart, &lines[operation], &text, color));
    }
    let uniform = 1.0 / operations.len() as f64;
    let x = chart.plotting_area().get_x_range();
    let dashes = DashedLineSeries::new(
        [(x.start, uniform), (x.end, uniform)],
        6,
        5,
        BLACK.mix(0.6).stroke_width(1),
    );
    chart.draw_series(dashes)?;
    labels.push(Label {
        text: format!("uniform {uniform:.4}"),
        color: BLACK,
        end: chart.plotting_area().map_coordinate(&(x.end, uniform)),
    });
    draw_labels(canvas, labels)
}

/// Axes of one panel; what is drawn right of them is left free.
fn chart<'a, 'b>(
    canvas: &'a Canvas<'b>,
    snapshots: usize,
    y: Range<f64>,
    name: &str,
) -> Drawn<Chart<'a, 'b>> {
    // A single snapshot is a point in the middle.
    let x = if snapshots > 1 {
        0.0..(snapshots - 1) as f64
    } else {
        -0.5..0.5
    };
    let mut chart = ChartBuilder::on(canvas)
        .margin_left(16)
        .margin_top(10)
        .margin_right(LABELS_WIDTH)
        .x_label_area_size(46)
        .y_label_area_size(66)
        .build_cartesian_2d(x, y.clone())?;
    let digits = if y.end - y.start < 0.2 { 3 } else { 2 };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(snapshots.clamp(2, 21))
        .x_label_formatter(&|x| {
            if x.fract().abs() < 1e-6 {
                format!("{x:.0}")
            } else {
                String::new()
            }
        })
        .y_labels(6)
        .y_label_formatter(&|y| format!("{y:.digits$}"))
        .x_desc("snapshot (search epoch)")
        .y_desc(name)
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    Ok(chart)
}

fn draw_line(chart: &mut Chart<'_, '_>, values: &[f64], style: ShapeStyle) -> Drawn<()> {
    let points = values
        .iter()
        .enumerate()
        .map(|(snapshot, &value)| (snapshot as f64, value));
    if values.len() == 1 {
        chart.draw_series(points.map(|point| Circle::new(point, 4, style.filled())))?;
    } else {
        chart.draw_series(LineSeries::new(points, style))?;
    }
    Ok(())
}

/// A name at the end of its line.
struct Label {
    text: String,
    color: RGBColor,
    /// End of the line, in pixels of the whole picture.
    end: (i32, i32),
}

fn label(chart: &Chart<'_, '_>, values: &[f64], text: &str, color: RGBColor) -> Label {
    let last = (values.len() - 1) as f64;
    let value = values.last().copied().unwrap_or(0.0);
    Label {
        text: text.to_owned(),
        color,
        end: chart.plotting_area().map_coordinate(&(last, value)),
    }
}

/// Writes names beside the ends of their lines, moved apart so that none covers another.
fn draw_labels(canvas: &Canvas<'_>, mut labels: Vec<Label>) -> Drawn<()> {
    let (left, top) = canvas.get_base_pixel();
    let column = WIDTH as i32 - LABELS_WIDTH as i32 + 22 - left;
    labels.sort_by_key(|label| label.end.1);
    let height = canvas.dim_in_pixel().1 as i32;
    let places = spread(
        &labels
            .iter()
            .map(|label| label.end.1 - top)
            .collect::<Vec<_>>(),
        height - 10,
    );
    for (label, y) in labels.iter().zip(places) {
        let end = (label.end.0 - left, label.end.1 - top);
        let lead = [(end.0 + 2, end.1), (column - 4, y)];
        canvas.draw(&PathElement::new(
            lead,
            label.color.mix(0.6).stroke_width(1),
        ))?;
        let style = text_style(14, Pos::new(HPos::Left, VPos::Center)).color(&label.color);
        canvas.draw_text(&label.text, &style, (column, y))?;
    }
    Ok(())
}

/// Moves sorted positions apart to [`LABEL_STEP`], downwards and then, from the end, upwards.
fn spread(wanted: &[i32], end: i32) -> Vec<i32> {
    let mut places = wanted.to_vec();
    for at in 1..places.len() {
        places[at] = places[at].max(places[at - 1] + LABEL_STEP);
    }
    let mut limit = end;
    for place in places.iter_mut().rev() {
        *place = (*place).min(limit);
        limit = *place - LABEL_STEP;
    }
    places
}

fn text_style(size: u32, anchor: Pos) -> TextStyle<'static> {
    TextStyle::from((FONT, size).into_font()).pos(anchor)
}

/// Without control characters, which XML does not allow even escaped.
fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= LABEL_LETTERS {
        return text.to_owned();
    }
    text.chars().take(LABEL_LETTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SearchSpace, Snapshot};

    /// Snapshots in which operation `k` goes from uniform to a share that grows with `k`.
    fn policy(space: &str, snapshots: usize, window: u32) -> Policy {
        let space = SearchSpace::named(space).unwrap();
        let count = space.len() as f64;
        let snapshots = (0..snapshots).map(|epoch| {
            let slope = epoch as f64 / snapshots as f64 / count / count;
            let shares =
                (0..space.len()).map(|k| 1.0 / count + slope * (2.0 * k as f64 + 1.0 - count));
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
        for snapshots in [1, 2, 40] {
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
        let space =
            SearchSpace::new("</svg><b>&\u{1}\"", 2, vec![crate::Operation::FlipLR]).unwrap();
        let policy = Policy::new(space, vec![Snapshot::new(0.5, vec![1.0]).unwrap()]).unwrap();
        let svg = policy_svg(&policy).unwrap();
        assert!(svg.contains("&lt;/svg&gt;&lt;b&gt;&amp;&quot;"));
        assert!(!svg.contains('\u{1}'));
    }

    #[test]
    fn positions_are_spread() {
        assert_eq!(spread(&[10, 100, 200], 300), [10, 100, 200]);
        assert_eq!(spread(&[10, 10, 11], 300), [10, 29, 48]);
        assert_eq!(spread(&[290, 295, 299], 300), [262, 281, 300]);
        assert_eq!(spread(&[], 300), [0; 0]);
    }
}
