//! Line charts as SVG, for a page that must stand alone.

use std::fmt::Write;

use super::html::escape;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;
/// Of names at the lines' right ends.
const LINE_HEIGHT: f64 = 13.0;

/// One line of a chart.
pub(super) struct Series {
    pub(super) name: String,
    /// One value per epoch.
    pub(super) values: Vec<f64>,
    /// CSS colour of an emphasised line, which is named at its right end; others are thin and
    /// grey and named by pointing at them.
    pub(super) colour: Option<&'static str>,
}

/// A chart of values over epochs, counted from 1; `extra` are values the vertical axis must
/// reach besides, `unit` follows its numbers.
pub(super) fn line_chart(label: &str, series: &[Series], extra: &[f64], unit: &str) -> String {
    let values = series.iter().flat_map(|series| &series.values).chain(extra);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
        (low.min(value), high.max(value))
    });
    let ticks = ticks(low, high);
    let (bottom, top) = (ticks[0], ticks[ticks.len() - 1]);
    let count = series
        .iter()
        .map(|series| series.values.len())
        .max()
        .unwrap_or(0);
    let x = |epoch: usize| {
        let span = (count.max(2) - 1) as f64;
        LEFT + epoch as f64 / span * (WIDTH - LEFT - RIGHT)
    };
    let y =
        |value: f64| HEIGHT - BOTTOM - (value - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(label)
    );
    // Writing to a string cannot fail.
    for &tick in &ticks {
        let height = y(tick);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{height:.1}\" y2=\"{height:.1}\"/>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}{unit}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            height + 4.0,
            number(tick),
        );
    }
    let every = count.div_ceil(10).max(1);
    for epoch in (0..count).filter(|epoch| (epoch + 1).is_multiple_of(every) || *epoch == 0) {
        let _ = write!(
            svg,
            "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(epoch),
            HEIGHT - BOTTOM + 18.0,
            epoch + 1,
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">search epoch</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 4.0,
    );

    // Emphasised lines last, on top.
    let mut ordered: Vec<&Series> = series.iter().collect();
    ordered.sort_by_key(|series| series.colour.is_some());
    for series in &ordered {
        let points: Vec<String> = series
            .values
            .iter()
            .enumerate()
            .map(|(epoch, &value)| format!("{:.1},{:.1}", x(epoch), y(value)))
            .collect();
        let style = match series.colour {
            Some(colour) => format!("class=\"strong\" stroke=\"{colour}\""),
            None => "class=\"faint\"".to_owned(),
        };
        let name = escape(&series.name);
        let shape = match &points[..] {
            [only] => {
                let (x, y) = only.split_once(',').unwrap_or_default();
                let fill = series.colour.unwrap_or("#bbb");
                format!("<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{fill}\">")
            }
            _ => format!("<polyline {style} points=\"{}\">", points.join(" ")),
        };
        let end = if points.len() == 1 {
            "</circle>"
        } else {
            "</polyline>"
        };
        let _ = write!(svg, "{shape}<title>{name}</title>{end}");
    }
    let mut names: Vec<(f64, &Series, &str)> = series
        .iter()
        .filter_map(|series| Some((y(*series.values.last()?), series, series.colour?)))
        .collect();
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = TOP;
    for (height, series, colour) in names {
        // Names of lines that end close together are pushed apart.
        let height = height.max(free);
        free = height + LINE_HEIGHT;
        let _ = write!(
            svg,
            "<text class=\"name\" fill=\"{colour}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT + 8.0,
            height + 4.0,
            escape(&series.name),
        );
    }
    svg + "</svg>"
}

/// Round values from at or below `low` to at or above `high`, at least two.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let span = if high - low > 1e-12 {
        high - low
    } else {
        low.abs().max(1e-3) * 0.2
    };
    let rough = span / 5.0;
    let magnitude = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * magnitude)
        .find(|step| *step >= rough)
        .unwrap_or(10.0 * magnitude);
    let first = (low / step).floor();
    let last = (high / step).ceil().max(first + 1.0);
    (0..=(last - first) as usize)
        .map(|index| (first + index as f64) * step)
        .collect()
}

/// Four significant digits, without trailing zeros.
pub(super) fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        let close = |found: Vec<f64>, wanted: &[f64]| {
            assert_eq!(found.len(), wanted.len(), "{found:?}");
            assert!(
                found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12),
                "{found:?}"
            );
        };
        close(ticks(0.2, 0.36), &[0.2, 0.25, 0.3, 0.35, 0.4]);
        close(ticks(0.0, 1.0), &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        for (low, high) in [(0.35, 0.35), (0.0, 0.0), (f64::INFINITY, f64::NEG_INFINITY)] {
            let found = ticks(low, high);
            assert!(
                found.len() >= 2 && found.iter().all(|tick| tick.is_finite()),
                "{found:?}"
            );
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(0.35), "0.35");
        assert_eq!(number(1.0 / 68.0), "0.01471");
        assert_eq!(number(1240.0), "1240");
        assert_eq!(number(0.0), "0");
    }

    #[test]
    fn lines_run_from_the_first_value_to_the_last() {
        let series = |name: &str, values: &[f64], colour| Series {
            name: name.to_owned(),
            values: values.to_vec(),
            colour,
        };
        let chart = line_chart(
            "a <chart>",
            &[
                series("up & away", &[0.0, 1.0], Some("#c00")),
                series("down", &[1.0, 0.0], None),
            ],
            &[],
            "%",
        );
        assert!(
            chart.contains("points=\"56.0,260.0 590.0,14.0\""),
            "{chart}"
        );
        assert!(chart.contains("points=\"56.0,14.0 590.0,260.0\""));
        assert!(chart.contains(">0.2%</text>"), "{chart}");
        assert!(chart.contains("a &lt;chart&gt;") && chart.contains("up &amp; away"));
        assert!(line_chart("one", &[series("dot", &[0.5], None)], &[], "").contains("<circle"));
        assert!(line_chart("none", &[], &[], "").ends_with("</svg>"));
    }
}
