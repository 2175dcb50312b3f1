//! Draws time a step against arithmetic a step, both by doubling: the dashed line is "as fast as the arithmetic grows".
use serde_json::Value;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 420.0;
const MARGIN: f64 = 60.0;

/// One measured step.
struct Point {
    label: String,
    gflop: f64,
    ms: f64,
    /// A wider network rather than another batch.
    wider: bool,
}

/// An SVG of the run's scaling; `None` where it holds none.
pub(super) fn svg(run: &Value) -> Option<String> {
    let points: Vec<Point> = run["scaling"].as_array()?.iter().filter_map(point).collect();
    let base = points.iter().find(|p| p.label == "batch 64")?;
    let range = |value: fn(&Point) -> f64| {
        let logs = || points.iter().map(move |p| value(p).log2());
        (logs().fold(f64::INFINITY, f64::min).floor(), logs().fold(f64::NEG_INFINITY, f64::max).ceil())
    };
    let (xs, ys) = (range(|p| p.gflop), range(|p| p.ms));
    let scaled = |v: f64, (low, high): (f64, f64)| (v.log2() - low) / (high - low).max(1.0);
    let x = |v: f64| MARGIN + scaled(v, xs) * (WIDTH - 2.0 * MARGIN);
    let y = |v: f64| HEIGHT - MARGIN - scaled(v, ys) * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for tick in xs.0 as i32..=xs.1 as i32 {
        let at = x(2f64.powi(tick));
        svg += &format!("<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{MARGIN}\" y2=\"{}\" stroke=\"#ddd\"/>\n", HEIGHT - MARGIN);
        svg += &text(at, HEIGHT - MARGIN + 18.0, "middle", &2f64.powi(tick).to_string());
    }
    for tick in ys.0 as i32..=ys.1 as i32 {
        let at = y(2f64.powi(tick));
        svg += &format!("<line x1=\"{MARGIN}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n", WIDTH - MARGIN);
        svg += &text(MARGIN - 8.0, at + 4.0, "end", &2f64.powi(tick).to_string());
    }
    svg += &text(WIDTH / 2.0, HEIGHT - 16.0, "middle", "arithmetic a step, GFLOP");
    svg += &text(MARGIN, MARGIN - 16.0, "middle", "ms a step");
    let ideal = |gflop: f64| y(base.ms * gflop / base.gflop);
    let ends = [2f64.powf(xs.0), 2f64.powf(xs.1)];
    svg += &format!(
        "<clipPath id=\"area\"><rect x=\"{MARGIN}\" y=\"{MARGIN}\" width=\"{}\" height=\"{}\"/></clipPath>\n",
        WIDTH - 2.0 * MARGIN,
        HEIGHT - 2.0 * MARGIN
    );
    svg += &format!(
        "<line clip-path=\"url(#area)\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#888\" stroke-dasharray=\"5 4\"/>\n",
        x(ends[0]),
        ideal(ends[0]),
        x(ends[1]),
        ideal(ends[1])
    );
    for p in &points {
        let (colour, below) = if p.wider { ("#c2410c", 16.0) } else { ("#1d4ed8", -8.0) };
        svg += &format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>\n", x(p.gflop), y(p.ms));
        svg += &text(x(p.gflop), y(p.ms) + below, "middle", &p.label);
    }
    Some(svg + "</svg>\n")
}

fn point(value: &Value) -> Option<Point> {
    let (model, batch) = (value["model"].as_str()?, value["batch"].as_f64()?);
    let width = model.split_once("-x").map(|(_, w)| w);
    Some(Point {
        label: width.map_or(format!("batch {batch}"), |w| format!("{w}x wide")),
        gflop: super::render::gflop(value)?,
        ms: value["figures"]["step_ms_best"].as_f64()?,
        wider: width.is_some(),
    })
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_point_is_drawn() {
        let point =
            |model: &str, batch: u32, ms: f64| json!({ "model": model, "batch": batch, "macs": 4e7, "figures": { "step_ms_best": ms } });
        let run = json!({ "scaling": [point("resnet20", 64, 60.0), point("resnet20", 128, 121.0), point("resnet20-x2", 64, 90.0)] });
        let svg = svg(&run).unwrap();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("2x wide") && svg.contains("batch 128") && !svg.contains("NaN"));
        assert!(super::svg(&json!({})).is_none());
    }
}
