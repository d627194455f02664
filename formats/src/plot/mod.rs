//! A policy as a picture.
//!
//! Several snapshots are lines: total probability and operation probabilities
//! over time, as in the paper's figures 5 and 4. A single one is bars.

mod bars;
mod lines;

use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::{Error, Policy, Result};

const WIDTH: u32 = 1100;
const TITLE_HEIGHT: u32 = 44;
const TOTAL_HEIGHT: u32 = 330;
const OPERATIONS_HEIGHT: u32 = 560;
const HEIGHT: u32 = TITLE_HEIGHT + TOTAL_HEIGHT + OPERATIONS_HEIGHT;
/// Room for the names of operations, right of the lines.
const LABELS_WIDTH: u32 = 250;
/// Longest name that fits beside the lines.
const LABEL_LETTERS: usize = 28;
const FONT: &str = "sans-serif";
/// A part of DejaVu Sans; see `fonts/README.md`.
const FONT_BYTES: &[u8] = include_bytes!("../../fonts/DejaVuSans-subset.ttf");

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

type Canvas<B> = DrawingArea<B, Shift>;
type Drawn<T, B> = std::result::Result<T, DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Draws a policy as one SVG picture.
///
/// Of several snapshots: above, the total probability of each, as it is in the
/// file and, where the policy smooths it, as it is replayed; below, the
/// probability of each operation, with the eight that end highest coloured and
/// named. Of a single snapshot: how often a draw applies each operation, or,
/// when there are many or sequences, each kind of operation.
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
    use_own_font()?;
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, (WIDTH, height(policy)));
    draw(policy, root.into_drawing_area()).map_err(failed)?;
    Ok(svg)
}

/// Draws the picture of [`policy_svg`] as a PNG file, with a font of its own.
///
/// # Errors
/// [`Error::Field`] when the drawing library refuses, which no policy is known to cause.
///
/// ```
/// use ddas_formats::{BuiltinOptions, Policy, policy_png};
///
/// let policy = Policy::builtin("randaugment", &BuiltinOptions::default())?;
/// let png = policy_png(&policy)?;
/// assert!(png.starts_with(b"\x89PNG"));
/// # Ok::<(), ddas_formats::Error>(())
/// ```
pub fn policy_png(policy: &Policy) -> Result<Vec<u8>> {
    use_own_font()?;
    let height = height(policy);
    let mut pixels = vec![0; WIDTH as usize * height as usize * 3];
    let root = BitMapBackend::with_buffer(&mut pixels, (WIDTH, height));
    draw(policy, root.into_drawing_area()).map_err(failed)?;
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, WIDTH, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(png)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::field("plot", error.to_string())
}

/// Text is measured, and in PNG drawn, in this font, whatever the machine has.
fn use_own_font() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    if *REGISTERED.get_or_init(|| register_font(FONT, FontStyle::Normal, FONT_BYTES).is_ok()) {
        Ok(())
    } else {
        Err(failed("the font built into this program is damaged"))
    }
}

fn height(policy: &Policy) -> u32 {
    match policy.snapshots() {
        [_] => TITLE_HEIGHT + bars::height(policy),
        _ => HEIGHT,
    }
}

fn draw<B: DrawingBackend>(policy: &Policy, root: Canvas<B>) -> Drawn<(), B> {
    root.fill(&WHITE)?;
    let (title, rest) = root.split_vertically(TITLE_HEIGHT);
    let space = policy.search_space();
    let count = |number: usize, one: &str| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    };
    let text = format!(
        "{}: {}, {}, {} per sample",
        printable(space.name()),
        count(space.len(), "operation"),
        count(policy.snapshots().len(), "snapshot"),
        count(space.draws_per_sample() as usize, "draw"),
    );
    title.draw_text(
        &text,
        &text_style(20, Pos::new(HPos::Left, VPos::Center)),
        (24, TITLE_HEIGHT as i32 / 2),
    )?;
    match policy.snapshots() {
        [_] => bars::draw(policy, &rest)?,
        _ => {
            let (upper, lower) = rest.split_vertically(TOTAL_HEIGHT);
            lines::draw_total(policy, &upper)?;
            lines::draw_operations(policy, &lower)?;
        }
    }
    root.present()
}

fn text_style(size: u32, anchor: Pos) -> TextStyle<'static> {
    TextStyle::from((FONT, size).into_font()).pos(anchor)
}

/// Without control characters, which XML does not allow even escaped.
fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

fn shortened(text: &str) -> String {
    shortened_to(LABEL_LETTERS, text)
}

fn shortened_to(letters: usize, text: &str) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
