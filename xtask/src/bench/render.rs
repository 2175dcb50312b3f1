//! Writes the tables of BENCHMARKS.md, between its markers, from the newest run.
use super::summary::{Side, last_figures, rounds, side};
use super::workloads::{Clock, WORKLOADS, Workload};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

const FILE: &str = "BENCHMARKS.md";
const PLOT: &str = "benches/scaling.svg";

/// Replaces each `<!-- NAME -->` ... `<!-- end -->` section.
pub(super) fn render() -> Result<(), String> {
    let (whole, mut single): (Vec<_>, Vec<_>) = runs()?.into_iter().partition(|(_, run)| run["only"].is_null());
    let (path, run) = whole.into_iter().next_back().ok_or("benches/runs holds no whole run: cargo xtask bench makes one")?;
    single.retain(|(_, alone)| is_since(alone, &run));
    // A scaling that was measured alone may be newer than the whole run's.
    let (scaling_path, scaled) = single.iter().rev().find(|(_, r)| r["scaling"].is_array()).unwrap_or(&(path.clone(), run.clone())).clone();
    let mut text = std::fs::read_to_string(FILE).map_err(|e| format!("{FILE}: {e}"))?;
    for (name, section) in [
        ("machine", machine(&run, &path)),
        ("peers", peers(&run) + &again(&single)),
        ("scaling", scaling(&scaled, &scaling_path)),
        ("roofline", roofline(&run)),
    ] {
        text = replace(&text, name, &section)?;
    }
    std::fs::write(FILE, text).map_err(|e| format!("{FILE}: {e}"))?;
    if let Some(svg) = super::plot::svg(&scaled) {
        std::fs::write(PLOT, svg).map_err(|e| format!("{PLOT}: {e}"))?;
    }
    println!("{FILE}: rendered from {}", path.display());
    Ok(())
}

/// True unless a run is older than the day of the whole run, which has measured its rows again.
fn is_since(run: &Value, whole: &Value) -> bool {
    run["machine"]["date"].as_str() >= whole["machine"]["date"].as_str()
}

/// All runs by name: names begin with the date.
fn runs() -> Result<Vec<(PathBuf, Value)>, String> {
    let files = std::fs::read_dir("benches/runs").map_err(|e| format!("benches/runs: {e}"))?;
    let mut paths: Vec<PathBuf> =
        files.filter_map(|f| f.ok().map(|f| f.path())).filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let run = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok((path, run))
    };
    paths.into_iter().map(read).collect()
}

fn replace(text: &str, name: &str, section: &str) -> Result<String, String> {
    let missing = || format!("{FILE} has no section between <!-- {name} --> and <!-- end -->");
    let begin = format!("<!-- {name} -->\n");
    let (before, rest) = text.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once("<!-- end -->").ok_or_else(missing)?;
    Ok(format!("{before}{begin}{section}<!-- end -->{after}"))
}

fn machine(run: &Value, path: &std::path::Path) -> String {
    let m = &run["machine"];
    let text = |key: &str| m[key].as_str().unwrap_or("unknown").to_string();
    let sets: Vec<&str> = m["instruction_sets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "{}: {} ({}), {} cores, {} threads, {}; {}, commit {}; torch {}, ONNX Runtime {}, Python {}. Raw figures: {}.\n",
        text("date"),
        text("cpu"),
        sets.join(", "),
        m["cores"],
        m["threads"],
        text("system"),
        text("rustc"),
        text("commit"),
        text("torch"),
        text("onnxruntime"),
        text("python"),
        link(path),
    )
}

const HEAD: &str = "| workload | ours, best / median | peer, best / median | speed, best / median | wanted | memory, ours / peer | rounds |\n|---|---|---|---|---|---|---|\n";

/// A link to raw figures.
fn link(path: &std::path::Path) -> String {
    format!("[{}]({})", path.file_name().unwrap_or_default().to_string_lossy(), path.display())
}

/// Rows that were measured alone.
fn again(single: &[(PathBuf, Value)]) -> String {
    let single: Vec<_> = single.iter().filter(|(_, run)| !run["measurements"].as_array().is_none_or(Vec::is_empty)).collect();
    if single.is_empty() {
        return String::new();
    }
    let mut text = format!("\nMeasured alone, after the whole run (`cargo xtask bench --only NAMES --keep`):\n\n{HEAD}");
    let mut sources = vec![];
    for (path, run) in single {
        for row in WORKLOADS {
            if let Some(ours) = side(run, row.name, "ours") {
                text += &peer_row(row, &ours, side(run, row.name, "peer").as_ref(), rounds(run, row.name));
            }
        }
        let commit = run["machine"]["commit"].as_str().unwrap_or("unknown");
        sources.push(format!("{} of commit {commit}", link(path)));
    }
    format!("{text}\nRaw figures: {}.\n", sources.join(", "))
}

fn peers(run: &Value) -> String {
    let mut table = String::from(HEAD);
    for row in WORKLOADS {
        if let Some(ours) = side(run, row.name, "ours") {
            table += &peer_row(row, &ours, side(run, row.name, "peer").as_ref(), rounds(run, row.name));
        }
    }
    table
}

fn peer_row(row: &Workload, ours: &Side, peer: Option<&Side>, rounds: usize) -> String {
    let unit = if row.clock == Clock::Step { "ms" } else { "s" };
    let time = |s: &Side| format!("{} / {} {unit}", short(s.best), short(s.median));
    let (theirs, speed) = match peer {
        Some(p) => (format!("{}: {}", p.variant, time(p)), format!("**{:.2}x** / {:.2}x", p.best / ours.best, p.median / ours.median)),
        None => ("none".into(), String::new()),
    };
    let wanted = row.target.map_or(String::new(), |t| format!("{t}x"));
    let megabytes = |s: &Side| s.memory.map_or("?".into(), |b| format!("{:.0} MB", b / 1e6));
    let memory = match peer.and_then(|p| Some((p, p.memory? / ours.memory?))) {
        Some((p, ratio)) => format!("{} / {} = {:.2}x", megabytes(ours), megabytes(p), 1.0 / ratio),
        None => megabytes(ours),
    };
    format!("| {} | {} | {theirs} | {speed} | {wanted} | {memory} | {rounds} |\n", row.title, time(ours))
}

/// A number with three significant digits.
fn short(v: f64) -> String {
    match v {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Operations of a step: a multiply-accumulate is two, and backward does two products for each of the forward pass.
pub(super) fn gflop(point: &Value) -> Option<f64> {
    Some(point["macs"].as_f64()? * 2.0 * 3.0 * point["batch"].as_f64()? / 1e9)
}

fn scaling(run: &Value, path: &std::path::Path) -> String {
    let mut table = String::from(
        "| network | batch | direct sums, GFLOP a step | best step | time an image | GFLOP/s | peak memory |\n|---|---|---|---|---|---|---|\n",
    );
    for point in run["scaling"].as_array().into_iter().flatten() {
        let batch = point["batch"].as_f64().unwrap_or(1.0);
        let figures = &point["figures"];
        let ms = figures["step_ms_best"].as_f64().unwrap_or(f64::NAN);
        let gflop = gflop(point).unwrap_or(0.0);
        table += &format!(
            "| {} | {batch} | {} | {} ms | {:.3} ms | {:.0} | {:.0} MB |\n",
            point["model"].as_str().unwrap_or_default(),
            short(gflop),
            short(ms),
            ms / batch,
            gflop / ms * 1e3,
            figures["peak_memory_bytes"].as_f64().unwrap_or(0.0) / 1e6,
        );
    }
    let commit = run["machine"]["commit"].as_str().unwrap_or("unknown");
    format!("![Time a step against arithmetic a step]({PLOT})\n\n{table}\nRaw figures: {} of commit {commit}.\n", link(path))
}

/// Arithmetic and least memory traffic of a kernel in one step.
#[derive(Default)]
struct Work {
    flop: f64,
    bytes: f64,
}

/// Multiplications of a 3x3 convolution at stride 1 through Winograd's minimal filtering, of those of a direct sum.
const WINOGRAD: f64 = 0.5;

/// Least work of ResNet-20's kernels for a batch, from the graph's layers: each array read or written once, and a
/// convolution that keeps the size of images counted by the multiplications that its kernel does.
fn work(layers: &Value, batch: f64) -> BTreeMap<&'static str, Work> {
    let mut kernels: BTreeMap<&str, Work> = BTreeMap::new();
    let mut before = vec![];
    for layer in layers.as_array().into_iter().flatten() {
        let output: Vec<f64> = layer["output"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let (bytes, mut flop) = (4.0 * batch * output.iter().product::<f64>(), 2.0 * batch * layer["macs"].as_f64().unwrap_or(0.0));
        if before == output && layer["op_type"] == "Conv" {
            flop *= WINOGRAD;
        }
        before = output;
        let mut add = |kernel, flop, bytes| {
            let work = kernels.entry(kernel).or_default();
            work.flop += flop;
            work.bytes += bytes;
        };
        match layer["op_type"].as_str() {
            // Forward reads about as much as it writes. Backward reads the input and the gradient twice and writes one.
            Some("Conv") => {
                add("Conv forward", flop, 2.0 * bytes);
                add("conv backward", 2.0 * flop, 5.0 * bytes);
            }
            // The statistics need a pass of their own: read, read, write; backward the same with the gradient beside.
            Some("BatchNormalization") => {
                add("BatchNormalization forward", 0.0, 3.0 * bytes);
                add("batch_norm backward", 0.0, 5.0 * bytes);
            }
            _ => {}
        }
    }
    kernels
}

fn roofline(run: &Value) -> String {
    let (Some(gflops), Some(bandwidth), Some(figures)) =
        (run["ceilings"]["gflop_per_s"].as_f64(), run["ceilings"]["gbyte_per_s"].as_f64(), last_figures(run, "resnet20"))
    else {
        return "No run holds the ceilings and ResNet-20's step.\n".into();
    };
    let work = work(&run["resnet20_layers"], figures["batch"].as_f64().unwrap_or(64.0));
    let times: Vec<(&str, f64)> =
        figures["ms_by_operator"].as_array().into_iter().flatten().filter_map(|e| Some((e[0].as_str()?, e[1].as_f64()?))).collect();
    let step: f64 = times.iter().map(|(_, ms)| ms).sum();
    let mut table = format!(
        "Measured ceilings: {gflops:.0} GFLOP/s (f32 matrix product of 1024x1024), {bandwidth:.0} GB/s (an optimizer's update over 400 MB).\n\n\
         | kernel | share of the step | time | GFLOP/s | of the peak | GB/s at least | of the bandwidth | what holds it back |\n|---|---|---|---|---|---|---|---|\n"
    );
    for (name, ms) in times.iter().filter(|(_, ms)| *ms >= 0.01 * step) {
        let share = 100.0 * ms / step;
        let Some(w) = work.get(name) else {
            table += &format!("| {name} | {share:.1} % | {} ms | | | | | |\n", short(*ms));
            continue;
        };
        let (of_peak, of_bandwidth) = (w.flop / ms / 1e6 / gflops, w.bytes / ms / 1e6 / bandwidth);
        table += &format!(
            "| {name} | {share:.1} % | {} ms | {:.0} | {:.0} % | {:.1} | {:.0} % | {} |\n",
            short(*ms),
            w.flop / ms / 1e6,
            100.0 * of_peak,
            w.bytes / ms / 1e6,
            100.0 * of_bandwidth,
            held_back(of_peak, of_bandwidth),
        );
    }
    table
}

/// The nearer of the two ceilings, if one is near.
fn held_back(of_peak: f64, of_bandwidth: f64) -> &'static str {
    match (of_peak, of_bandwidth) {
        (a, m) if a >= 0.6 && a >= m => "arithmetic: it runs near the peak of a large matrix product",
        (_, m) if m >= 0.6 => "memory: it moves what it must at nearly the bandwidth of a plain pass",
        (a, m) if a >= m => "neither ceiling is near; arithmetic is the nearer",
        _ => "neither ceiling is near; memory is the nearer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_measured_alone_count_until_the_next_whole_run() {
        let of = |date: &str| serde_json::json!({ "machine": { "date": date } });
        assert!(is_since(&of("2026-11-26"), &of("2026-11-26")) && is_since(&of("2026-12-01"), &of("2026-11-26")));
        assert!(!is_since(&of("2026-11-25"), &of("2026-11-26")));
    }

    #[test]
    fn a_section_is_replaced_and_its_surroundings_stay() {
        let text = "a\n<!-- peers -->\nold\n<!-- end -->\nb\n";
        assert_eq!(replace(text, "peers", "new\n").unwrap(), "a\n<!-- peers -->\nnew\n<!-- end -->\nb\n");
        assert!(replace(text, "roofline", "").unwrap_err().contains("roofline"));
    }
}
