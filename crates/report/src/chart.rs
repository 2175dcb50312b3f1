//! Charts as inline SVG. Colours are CSS classes, so that they follow the page's light or dark scheme.
use crate::html::escape;
use std::fmt::Write as _;

// Narrow enough to be read on a phone, with room for labels in larger text.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// Width of a letter of a point's name, on a phone.
const LETTER: (f64, f64) = (8.0, 15.0);

/// Named points, joined by lines.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Labels of the axes.
#[derive(Clone, Copy)]
pub(crate) struct Axes<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    /// Writes a value at each axis, given the distance between ticks; 0: a value outside an axis.
    pub(crate) write_x: fn(f64, f64) -> String,
    pub(crate) write_y: fn(f64, f64) -> String,
    /// Least distance between ticks of the first axis: 1 for counts.
    pub(crate) least_step: f64,
    /// Writes each series' name beside its points instead of a legend.
    pub(crate) named: bool,
    /// Uses a logarithmic value axis if the values, all positive, span more than [`DECADES`] powers of ten.
    pub(crate) may_be_logarithmic: bool,
}

/// Powers of ten beyond which a linear axis hides the small values.
const DECADES: f64 = 1.5;

/// Lines over a common pair of axes, with a legend; points carry their value as a tooltip. Empty without a finite point.
pub(crate) fn lines(axes: &Axes, series: &[Series]) -> String {
    let finite = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
    let all: Vec<(f64, f64)> = series.iter().flat_map(|s| s.points.iter().filter(finite).copied()).collect();
    if all.is_empty() {
        return String::new();
    }
    // Lines reach both sides; named points keep a distance from them.
    let (x0, x1) = range(all.iter().map(|p| p.0), if axes.named { 0.06 } else { 0.0 });
    let (low, high) = range(all.iter().map(|p| p.1), 0.0);
    let logarithmic = axes.may_be_logarithmic && all.iter().all(|p| p.1 > 0.0) && (high / low).log10() > DECADES;
    let measure = |v: f64| if logarithmic { v.log10() } else { v };
    // The value axis ends at round values; the other axis keeps to the data, so that lines reach both sides.
    let step = if logarithmic { 1.0 } else { round_step(high - low) };
    let (y0, y1) = ((measure(low) / step).floor() * step, (measure(high) / step).ceil() * step);
    let y_ticks: Vec<f64> = if logarithmic { decades(y0, y1) } else { round_values(y0, y1, 0.0).collect() };
    let x_step = round_step(x1 - x0).max(axes.least_step);
    let place_x = |v: f64| LEFT + (v - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT);
    let place_y = |v: f64| HEIGHT - BOTTOM - (measure(v) - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<figure><figcaption>{0}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">",
        escape(axes.title)
    );
    for y in y_ticks {
        let py = place_y(y);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{py:.1}\" y2=\"{py:.1}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            py + 4.0,
            escape(&(axes.write_y)(y, if logarithmic { y } else { step }))
        );
    }
    for x in round_values(x0, x1, axes.least_step) {
        let px = place_x(x);
        // The middle of a label at the last tick would leave the picture.
        let anchor = if px > WIDTH - 2.0 * RIGHT { "end" } else { "middle" };
        let at = if anchor == "end" { px.max(WIDTH - RIGHT) } else { px };
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - BOTTOM + 17.0,
            escape(&(axes.write_x)(x, x_step))
        );
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        (WIDTH + LEFT) / 2.0,
        HEIGHT - 4.0,
        escape(axes.x)
    );
    let mut taken: Vec<Box> = vec![];
    for (i, s) in series.iter().enumerate() {
        let points: Vec<(f64, f64)> = s.points.iter().filter(finite).map(|p| (place_x(p.0), place_y(p.1))).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(svg, "<polyline class=\"line c{}\" points=\"{}\"/>", i % 6, path.join(" "));
        for ((px, py), (x, y)) in points.iter().zip(s.points.iter().filter(finite)) {
            let told = format!("{}: {} {}, {} {}", s.name, axes.x, (axes.write_x)(*x, 0.0), axes.y, (axes.write_y)(*y, 0.0));
            let _ = write!(
                svg,
                "<circle class=\"dot c{}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\"><title>{}</title></circle>",
                i % 6,
                escape(&told)
            );
            if axes.named {
                svg.push_str(&name(&s.name, *px, *py, &mut taken));
            }
        }
    }
    svg.push_str("</svg>");
    if axes.named {
        return svg + "</figure>";
    }
    svg.push_str("<div class=\"legend\">");
    for (i, s) in series.iter().enumerate() {
        let _ = write!(svg, "<span><i class=\"c{}\"></i>{}</span>", i % 6, escape(&s.name));
    }
    svg.push_str("</div></figure>");
    svg
}

/// A rectangle: left, top, right, bottom.
type Box = [f64; 4];

fn overlap(a: &Box, b: &Box) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// A point's name beside it: on the side with room, moved up or down until it covers no other.
fn name(text: &str, px: f64, py: f64, taken: &mut Vec<Box>) -> String {
    let width = text.chars().count() as f64 * LETTER.0;
    let left = px + 8.0 + width > WIDTH;
    let at = |shift: f64| {
        let y = (py + shift).clamp(TOP + LETTER.1 / 2.0, HEIGHT - BOTTOM);
        let from = if left { px - 8.0 - width } else { px + 8.0 };
        (y, [from, y - LETTER.1 / 2.0, from + width, y + LETTER.1 / 2.0])
    };
    let shifts = (0..24).map(|i| f64::from((i + 1) / 2) * if i % 2 == 0 { 6.0 } else { -6.0 });
    let mut places = shifts.map(at);
    let (y, place) = places.find(|(_, b)| taken.iter().all(|t| !overlap(t, b))).unwrap_or_else(|| at(0.0));
    taken.push(place);
    let (x, anchor) = if left { (px - 8.0, "end") } else { (px + 8.0, "start") };
    let lead = if (y - py).abs() > 7.0 {
        format!("<line class=\"lead\" x1=\"{px:.1}\" y1=\"{py:.1}\" x2=\"{x:.1}\" y2=\"{y:.1}\"/>")
    } else {
        String::new()
    };
    format!("{lead}<text class=\"tick name\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>", y + 4.0, escape(text))
}

/// Digits after the decimal point that distinguish ticks of this distance.
pub(crate) fn digits(step: f64) -> usize {
    if step > 0.0 { (-step.log10() - 1e-9).ceil().clamp(0.0, 6.0) as usize } else { 1 }
}

/// Smallest and largest value, widened by a part of their distance, and never equal.
fn range(values: impl Iterator<Item = f64>, margin: f64) -> (f64, f64) {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let spread = if high > low { (high - low) * margin } else { high.abs().max(1e-3) * 0.1 };
    (low - spread, high + spread)
}

/// A distance of 1, 2 or 5 times a power of ten that gives three to seven ticks.
fn round_step(distance: f64) -> f64 {
    let power = 10f64.powf((distance / 4.0).log10().floor());
    let factor = distance / 4.0 / power;
    power
        * if factor < 1.5 {
            1.0
        } else if factor < 3.5 {
            2.0
        } else if factor < 7.5 {
            5.0
        } else {
            10.0
        }
}

/// Multiples of the round step, but at least `least`, within a range, ends included up to rounding.
fn round_values(from: f64, to: f64, least: f64) -> impl Iterator<Item = f64> {
    let step = round_step(to - from).max(least);
    let (first, last) = ((from / step - 1e-6).ceil() as i64, (to / step + 1e-6).floor() as i64);
    (first..=last).map(move |i| i as f64 * step)
}

/// The powers of ten within a range of their exponents.
fn decades(from: f64, to: f64) -> Vec<f64> {
    (from.round() as i32..=to.round() as i32).map(|e| 10f64.powi(e)).collect()
}

/// A horizontal bar for a table cell; `share` is 0..1.
pub(crate) fn bar(share: f64, class: &str) -> String {
    let width = if share.is_finite() { share.clamp(0.0, 1.0) * 100.0 } else { 0.0 };
    format!("<span class=\"bar\"><span class=\"{class}\" style=\"width:{width:.1}%\"></span></span>")
}

#[cfg(test)]
mod tests {
    use super::{Axes, Series, digits, lines, round_values};

    #[test]
    fn a_loss_over_powers_of_ten_gets_an_axis_by_them_and_others_do_not() {
        let axes = |may_be_logarithmic| Axes {
            title: "t",
            x: "x",
            y: "y",
            write_x: |v, _| v.to_string(),
            write_y: |v, _| format!("<{v}>"),
            least_step: 0.0,
            named: false,
            may_be_logarithmic,
        };
        let series =
            |points: &[f64]| vec![Series { name: "s".into(), points: points.iter().enumerate().map(|(i, y)| (i as f64, *y)).collect() }];
        let ticks = |may, points: &[f64]| lines(&axes(may), &series(points)).matches("text-anchor=\"end\">&lt;").count();
        let svg = lines(&axes(true), &series(&[20.0, 0.5, 0.03]));
        for tick in ["&lt;0.01&gt;", "&lt;0.1&gt;", "&lt;1&gt;", "&lt;10&gt;", "&lt;100&gt;"] {
            assert!(svg.contains(tick), "{tick}: {svg}");
        }
        assert_eq!(ticks(true, &[20.0, 0.5, 0.03]), 5);
        assert!(!lines(&axes(false), &series(&[20.0, 0.5, 0.03])).contains("&lt;0.1&gt;"));
        assert!(!lines(&axes(true), &series(&[20.0, 0.5, 0.0])).contains("&lt;0.1&gt;"));
        assert!(lines(&axes(true), &series(&[2.0, 1.0])).contains("&lt;2&gt;"));
    }

    #[test]
    fn an_axis_that_counts_has_each_number_once() {
        let whole = |from, to| round_values(from, to, 1.0).map(|v| format!("{v:.0}")).collect::<Vec<_>>();
        assert_eq!(whole(1.0, 3.0), ["1", "2", "3"]);
        assert_eq!(whole(1.0, 2.0), ["1", "2"]);
        assert_eq!(whole(0.9, 1.1), ["1"]);
    }

    #[test]
    fn digits_tell_ticks_apart() {
        for (step, n) in [(1.0, 0), (0.5, 1), (0.2, 1), (0.1, 1), (0.05, 2), (0.002, 3), (20.0, 0)] {
            assert_eq!(digits(step), n, "{step}");
        }
    }

    #[test]
    fn points_have_their_names_beside_them_and_none_covers_another() {
        let axes = Axes {
            title: "t",
            x: "x",
            y: "y",
            write_x: |v, _| v.to_string(),
            write_y: |v, _| v.to_string(),
            least_step: 0.0,
            named: true,
            may_be_logarithmic: false,
        };
        let series: Vec<Series> =
            ["train", "quantize", "prune"].iter().map(|n| Series { name: n.to_string(), points: vec![(1.0, 2.0)] }).collect();
        let svg = lines(&axes, &series);
        assert!(svg.contains(">train</text>") && svg.contains(">prune</text>") && !svg.contains("legend"), "{svg}");
        let heights: std::collections::BTreeSet<&str> =
            svg.split("class=\"tick name\"").skip(1).map(|t| t.split("y=\"").nth(1).unwrap().split('"').next().unwrap()).collect();
        assert_eq!(heights.len(), 3, "{svg}");
    }

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let written = |from, to| round_values(from, to, 0.0).map(|v| format!("{v:.3}")).collect::<Vec<_>>();
        assert_eq!(written(0.9, 1.0), ["0.900", "0.920", "0.940", "0.960", "0.980", "1.000"]);
        assert_eq!(written(1.0, 20.0), ["5.000", "10.000", "15.000", "20.000"]);
        for (from, to) in [(0.0, 1e-9), (-3.0, 7.0), (1e6, 1.3e6)] {
            let ticks: Vec<f64> = round_values(from, to, 0.0).collect();
            assert!((3..=7).contains(&ticks.len()), "{ticks:?}");
        }
    }
}
