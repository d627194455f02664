//! Probabilities over the snapshots.

use std::ops::Range;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{COLORS, Canvas, Drawn, FONT, LABELS_WIDTH, WIDTH, printable, shortened, text_style};
use crate::Policy;

/// Least distance of two names, in pixels.
pub(super) const LABEL_STEP: i32 = 19;
const FAINT: RGBColor = RGBColor(205, 205, 205);

type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

pub(super) fn draw_total<B: DrawingBackend>(policy: &Policy, canvas: &Canvas<B>) -> Drawn<(), B> {
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

pub(super) fn draw_operations<B: DrawingBackend>(
    policy: &Policy,
    canvas: &Canvas<B>,
) -> Drawn<(), B> {
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
fn chart<'a, B: DrawingBackend>(
    canvas: &'a Canvas<B>,
    snapshots: usize,
    y: Range<f64>,
    name: &str,
) -> Drawn<Chart<'a, B>, B> {
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

fn draw_line<B: DrawingBackend>(
    chart: &mut Chart<'_, B>,
    values: &[f64],
    style: ShapeStyle,
) -> Drawn<(), B> {
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

fn label<B: DrawingBackend>(
    chart: &Chart<'_, B>,
    values: &[f64],
    text: &str,
    color: RGBColor,
) -> Label {
    let last = (values.len() - 1) as f64;
    let value = values.last().copied().unwrap_or(0.0);
    Label {
        text: text.to_owned(),
        color,
        end: chart.plotting_area().map_coordinate(&(last, value)),
    }
}

/// Writes names beside the ends of their lines, moved apart so that none covers another.
fn draw_labels<B: DrawingBackend>(canvas: &Canvas<B>, mut labels: Vec<Label>) -> Drawn<(), B> {
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
pub(super) fn spread(wanted: &[i32], end: i32) -> Vec<i32> {
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
