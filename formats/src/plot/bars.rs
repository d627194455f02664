//! One snapshot: how often each operation is applied.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{COLORS, Canvas, Drawn, printable, shortened_to, text_style};
use crate::{Applications, Policy};

const ROW: u32 = 24;
const HEAD: u32 = 40;
const FOOT: u32 = 20;
/// Where the bars begin and end, in pixels from the left.
const LEFT: i32 = 350;
const RIGHT: i32 = 980;
/// Longest name that fits left of them, beside the number of entries.
const LETTERS: usize = 34;

pub(super) fn height(policy: &Policy) -> u32 {
    HEAD + rows(policy).len() as u32 * ROW + FOOT
}

fn rows(policy: &Policy) -> Vec<Applications> {
    let mut rows = policy.applications(0);
    // Equal but for rounding stays in the order of the search space.
    let rounded = |row: &Applications| (row.per_draw * 1e9).round();
    rows.sort_by(|a, b| rounded(b).total_cmp(&rounded(a)));
    rows
}

pub(super) fn draw<B: DrawingBackend>(policy: &Policy, canvas: &Canvas<B>) -> Drawn<(), B> {
    let rows = rows(policy);
    let total = policy.smoothed_total_probabilities()[0];
    let heading = format!("total probability {total:.3}; applied per draw, on average:");
    let left = Pos::new(HPos::Left, VPos::Center);
    canvas.draw_text(&heading, &text_style(15, left), (24, HEAD as i32 / 2))?;
    let longest = rows
        .iter()
        .fold(1e-12, |most: f64, row| most.max(row.per_draw));
    for (number, row) in (0..).zip(&rows) {
        let top = HEAD as i32 + number * ROW as i32;
        let middle = top + ROW as i32 / 2;
        let name = match row.entries {
            1 => shortened_to(LETTERS, &printable(&row.label)),
            many => format!(
                "{} ({many} entries)",
                shortened_to(LETTERS, &printable(&row.label))
            ),
        };
        let right = Pos::new(HPos::Right, VPos::Center);
        canvas.draw_text(&name, &text_style(14, right), (LEFT - 10, middle))?;
        let end = LEFT + (row.per_draw / longest * f64::from(RIGHT - LEFT)).round() as i32;
        canvas.draw(&Rectangle::new(
            [(LEFT, top + 4), (end.max(LEFT + 1), top + ROW as i32 - 4)],
            COLORS[0].filled(),
        ))?;
        let value = format!("{:.4}", row.per_draw);
        canvas.draw_text(
            &value,
            &text_style(14, left),
            (end.max(LEFT + 1) + 8, middle),
        )?;
    }
    Ok(())
}
