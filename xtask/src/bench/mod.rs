//! `cargo xtask bench`: our program and its peers alternate in one run; raw figures go to benches/runs, tables to BENCHMARKS.md.
mod machine;
mod plot;
mod process;
mod render;
mod summary;
mod workloads;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use workloads::{Clock, MODELS, SCALING, Variant, WORKLOADS, Workload};

/// Number of threads of all measurements.
const THREADS: &str = "2";

/// Number of measurements of each point of the scaling.
const SCALING_PASSES: usize = 5;

/// The command line.
struct Options {
    rounds: usize,
    /// Names of workloads; empty for all.
    only: Vec<String>,
    keep: bool,
    render: bool,
}

impl Options {
    /// The names joined, `None` for all workloads.
    fn only(&self) -> Option<String> {
        (!self.only.is_empty()).then(|| self.only.join("+"))
    }
}

/// Measures and renders, or with `--render` only renders the newest run.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let options = parse(args)?;
    if !options.render {
        let record = Bench::prepare()?.measure(&options)?;
        save(&record, &options)?;
    }
    if options.only.is_empty() || options.keep || options.render {
        render::render()?;
    }
    Ok(())
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options { rounds: 7, only: vec![], keep: false, render: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().cloned().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rounds" => options.rounds = value()?.parse().ok().filter(|n| *n > 0).ok_or("--rounds needs a number above 0")?,
            "--only" => options.only = value()?.split(',').map(String::from).collect(),
            "--keep" => options.keep = true,
            "--render" => options.render = true,
            other => return Err(format!("bench: unknown argument '{other}'; there are --rounds N, --only NAME,NAME [--keep], --render")),
        }
    }
    let known: Vec<&str> = WORKLOADS.iter().map(|w| w.name).chain(["scaling"]).collect();
    match options.only.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("bench: no workload '{name}'; there are {}", known.join(", "))),
        None => Ok(options),
    }
}

/// The folder for models, runs and outputs: below the target folder.
fn scratch() -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let folder = target.join("bench");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// Programs and folders.
struct Bench {
    espalier: PathBuf,
    python: PathBuf,
    scratch: PathBuf,
    data: PathBuf,
}

impl Bench {
    /// Builds the program, makes the peers' environment and the models.
    fn prepare() -> Result<Bench, String> {
        super::cargo("release build", &["build", "--release", "--locked", "--package", "espalier-cli"], &[])?;
        let setup = Command::new("benches/peers/setup.sh").output().map_err(|e| format!("benches/peers/setup.sh: {e}"))?;
        if !setup.status.success() {
            return Err(format!("benches/peers/setup.sh: {}", String::from_utf8_lossy(&setup.stderr)));
        }
        let environment = PathBuf::from(String::from_utf8_lossy(&setup.stdout).trim());
        let scratch = scratch()?;
        let release = scratch.parent().unwrap_or(Path::new("target")).join("release");
        let bench = Bench {
            espalier: release.join(format!("espalier{}", std::env::consts::EXE_SUFFIX)),
            python: environment.join("bin/python"),
            data: std::env::var_os("ESPALIER_DATA").map_or_else(|| PathBuf::from("../shared/data"), PathBuf::from),
            scratch,
        };
        for (file, arguments) in MODELS {
            bench.call(&format!("espalier new {arguments} --output {{models}}/{file}.onnx"), "model")?;
        }
        let script = bench.scratch.join("transformer.onnx");
        let written = Command::new(&bench.python).arg("benches/peers/transformer_onnx.py").arg(script).status();
        if !written.is_ok_and(|s| s.success()) {
            return Err("benches/peers/transformer_onnx.py failed".into());
        }
        let written = Command::new(&bench.python).arg("benches/peers/weight_axes.py").arg(&bench.scratch).status();
        if !written.is_ok_and(|s| s.success()) {
            return Err("benches/peers/weight_axes.py failed".into());
        }
        Ok(bench)
    }

    /// Runs a peer's script, or with `espalier` in front our program, with the names of folders filled in.
    fn call(&self, command: &str, what: &str) -> Result<Value, String> {
        let out = self.scratch.join("run");
        if command.contains("{out}") && out.exists() {
            std::fs::remove_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
        }
        let fill = |word: &str| {
            word.replace("{models}", &self.scratch.to_string_lossy())
                .replace("{data}", &self.data.to_string_lossy())
                .replace("{recipes}", "benches/recipes")
                .replace("{out}", &out.to_string_lossy())
        };
        let mut words = command.split(' ').map(fill);
        let first = words.next().unwrap_or_default();
        let mut process = if first == "espalier" {
            let mut own = Command::new(&self.espalier);
            own.args(["--json", "--quiet"]);
            own
        } else {
            let mut peer = Command::new(&self.python);
            peer.args(["-W", "ignore"]).arg(Path::new("benches/peers").join(first));
            peer
        };
        process.args(words).envs([("RAYON_NUM_THREADS", THREADS), ("OMP_NUM_THREADS", THREADS)]);
        if std::env::var_os("ORT_DYLIB_PATH").is_none()
            && let Some(library) = self.onnxruntime()
        {
            process.env("ORT_DYLIB_PATH", library);
        }
        process::run(&mut process, what)
    }

    /// The peers' ONNX Runtime, which our program loads: both sides then run the same build.
    fn onnxruntime(&self) -> Option<PathBuf> {
        let libraries = std::fs::read_dir(self.python.parent()?.parent()?.join("lib")).ok()?;
        let mut folders = libraries.filter_map(|e| Some(e.ok()?.path().join("site-packages/onnxruntime/capi")));
        folders.find(|f| f.is_dir())
    }

    /// All measurements: the peers' variants once, then the rounds, then our own scaling.
    fn measure(&self, options: &Options) -> Result<Value, String> {
        let mut notes = machine::notes(&self.python);
        notes["threads"] = json!(THREADS.parse::<u32>().unwrap_or_default());
        let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
        let available = |w: &&Workload| {
            let there = !w.ours.contains("{data}") || self.data.is_dir();
            if !there {
                println!("== {}: skipped, there is no folder {}", w.name, self.data.display());
            }
            there
        };
        let rows: Vec<&Workload> = WORKLOADS.iter().filter(|w| wanted(w.name)).filter(available).collect();
        let mut measured = vec![];
        // Failures are recorded by name, and the run goes on, since it takes long.
        let mut failures: Vec<String> = vec![];
        let mut keep = |entry: Result<Value, String>, measured: &mut Vec<Value>| match entry {
            Ok(entry) => {
                let time = entry["best"].as_f64().unwrap_or(f64::INFINITY);
                measured.push(entry);
                Some(time)
            }
            Err(e) => {
                println!("failed: {e}");
                failures.push(e);
                None
            }
        };
        let mut chosen: Vec<Option<&Variant>> = vec![];
        for row in &rows {
            let mut best: Option<(f64, &Variant)> = None;
            for variant in row.peers {
                // With one variant there is nothing to choose.
                if row.peers.len() == 1 {
                    best = Some((0.0, variant));
                    continue;
                }
                if let Some(time) = keep(self.peer(row, variant, 0), &mut measured)
                    && best.is_none_or(|(t, _)| time < t)
                {
                    best = Some((time, variant));
                }
            }
            chosen.push(best.map(|(_, v)| v));
        }
        let most = rows.iter().map(|r| r.rounds).max().unwrap_or(0).min(options.rounds);
        for round in 1..=most {
            for (row, variant) in rows.iter().zip(&chosen).filter(|(row, _)| round <= row.rounds) {
                keep(self.ours(row, round), &mut measured);
                if let Some(variant) = variant {
                    keep(self.peer(row, variant, round), &mut measured);
                }
            }
        }
        let mut record = json!({ "schema_version": 1, "machine": notes, "only": options.only(), "rounds": options.rounds, "measurements": measured, "failures": failures });
        if wanted("scaling") {
            record["ceilings"] = self.call("espalier bench machine", "ceilings")?;
            record["scaling"] = Value::Array(self.scaling()?);
            let graph = self.call("espalier inspect {models}/resnet20.onnx", "inspect")?;
            record["resnet20_layers"] = graph["layers"].clone();
        }
        Ok(record)
    }

    fn ours(&self, row: &Workload, round: usize) -> Result<Value, String> {
        let command = format!("espalier {}", row.ours);
        self.entry(row, "ours", "espalier", &command, round)
    }

    fn peer(&self, row: &Workload, variant: &Variant, round: usize) -> Result<Value, String> {
        self.entry(row, "peer", variant.name, variant.command, round)
    }

    fn entry(&self, row: &Workload, side: &str, variant: &str, command: &str, round: usize) -> Result<Value, String> {
        let figures = self.call(command, &format!("{} {side} {variant}", row.name))?;
        let number = |key: &str| figures[key].as_f64();
        let (best, median) = match row.clock {
            Clock::Step => (number("step_ms_best"), number("step_ms_median")),
            Clock::Seconds => {
                let seconds = number("seconds").or(number("wall_seconds"));
                (seconds, seconds)
            }
        };
        let best = best.ok_or_else(|| format!("{}: {side} {variant} gave no time", row.name))?;
        println!("{:18} round {round} {side} {variant}: {best:.2}", row.name);
        Ok(json!({
            "workload": row.name, "round": round, "side": side, "variant": variant, "command": command,
            "best": best, "median": median, "figures": figures,
        }))
    }

    /// Each point's fastest pass. The passes go over all points in turn, so that a slow period of the machine does not affect one
    /// point only.
    fn scaling(&self) -> Result<Vec<Value>, String> {
        let time = |figures: &Value| figures["step_ms_best"].as_f64().unwrap_or(f64::INFINITY);
        let mut points: Vec<Value> = vec![];
        for pass in 0..SCALING_PASSES {
            for (at, (model, batch)) in SCALING.iter().enumerate() {
                let command = format!("espalier bench train {{models}}/{model}.onnx --batch {batch} --steps 7");
                let figures = self.call(&command, "scaling")?;
                println!("scaling {model} batch {batch} pass {}: {:.2} ms", pass + 1, time(&figures));
                if pass == 0 {
                    let macs = self.call(&format!("espalier inspect {{models}}/{model}.onnx"), "inspect")?["macs"].clone();
                    points.push(json!({ "model": model, "batch": batch, "macs": macs, "passes_ms": [], "figures": null }));
                }
                let point = &mut points[at];
                if let Some(passes) = point["passes_ms"].as_array_mut() {
                    passes.push(json!(time(&figures)));
                }
                if time(&figures) < time(&point["figures"]) {
                    point["figures"] = figures;
                }
            }
        }
        Ok(points)
    }
}

/// Writes the raw figures. A run of some workloads goes to the scratch folder unless it is to be kept: the table uses whole runs,
/// and kept partial runs are listed below it.
fn save(record: &Value, options: &Options) -> Result<(), String> {
    let only = options.only().map_or(String::new(), |names| format!("-{names}"));
    let name = format!("{}-{}{only}.json", record["machine"]["date"].as_str().unwrap_or("run"), machine::label(&record["machine"]));
    let folder = if !options.only.is_empty() && !options.keep { scratch()? } else { PathBuf::from("benches/runs") };
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let path = folder.join(name);
    std::fs::write(&path, format!("{record:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("raw figures: {}", path.display());
    Ok(())
}
