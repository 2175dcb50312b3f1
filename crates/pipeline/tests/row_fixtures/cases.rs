//! Graphs with recipes beside them, in the folder `cases/graphs` beside the test data.
use crate::whole::{Named, outputs, runtime, sqnr};
use graph::{Dim, Model};
use std::path::Path;
use tensor::DType;
use test_support::folders::{files, shared};
use test_support::runs::run_in;

/// Least signal to noise of every output, in decibels. Wrong handlings of these kinds gave between -7 and 9; the attention with
/// the least float as its mask has scores of up to 50, of which 8 bits leave little.
const FLOOR: f64 = 15.0;

/// The runs in an npz file beside a model: all its rows at once, or one by one if the batch is declared as 1.
fn runs(model: &Model, arrays: &Named) -> Vec<Named> {
    let inputs: Vec<_> = model.free_inputs().into_iter().map(|id| &model.values[id]).collect();
    let array = |v: &graph::Value| match &arrays[&v.name] {
        // Pixels, as a float network gets them.
        pixels if pixels.dtype() == DType::U8 => pixels.cast(DType::F32).unwrap().mul_scalar(1.0 / 255.0).unwrap(),
        array => array.cast(v.dtype().unwrap()).unwrap(),
    };
    let single = |v: &graph::Value| v.shape().unwrap().first() == Some(&Dim::Known(1)) && array(v).shape()[0] > 1;
    let Some(alone) = inputs.iter().find(|v| single(v)) else {
        return vec![inputs.iter().map(|v| (v.name.clone(), array(v))).collect()];
    };
    let row = |i: usize| inputs.iter().map(|v| (v.name.clone(), array(v).narrow(0, i, 1).unwrap())).collect();
    (0..array(alone).shape()[0]).map(row).collect()
}

/// Runs the recipe, with prune before its deploy stage (all that is missing at the end of a recipe that only trains); the worst
/// output against the float graph.
fn whole(recipe: &Path) -> Result<f64, String> {
    let text = std::fs::read_to_string(recipe).map_err(|e| e.to_string())?;
    const PRUNE: &str = "[[stages]]\nkind = \"prune\"\nsparsity = 0.02\n";
    const DEPLOY: &str = "[[stages]]\nkind = \"deploy\"\n";
    const QUANTIZE: &str = "[[stages]]\nkind = \"quantize\"\n";
    let trains = text.contains("kind = \"train\"");
    let text = match text.split_once(DEPLOY) {
        Some((before, after)) => format!("{before}{PRUNE}{DEPLOY}{after}"),
        None => format!("{text}\n{QUANTIZE}{PRUNE}{DEPLOY}latency_runs = 2\n"),
    };
    // The file is also compared as the runtime computes by default, on processors without VNNI too.
    let text = text.replace("kind = \"quantize\"\n", "kind = \"quantize\"\nprocessor_safe = true\n");
    let out = tempfile::tempdir().unwrap();
    run_in(recipe.parent().unwrap(), out.path(), &text, &[]).map_err(|e| e.to_string())?;
    let float = if trains { out.path().join("train.onnx") } else { recipe.with_extension("onnx") };
    let model = onnx::load(&float).map_err(|e| e.to_string())?;
    let runs = runs(&model, &data::npz::read(&recipe.with_extension("npz")).unwrap());
    let runtime = runtime().ok_or("no runtime")?;
    let float = outputs(&runtime, &float, &runs, false)?;
    let mut worst = f64::INFINITY;
    for optimize in [false, true] {
        let deployed = outputs(&runtime, &out.path().join("deploy.deployed.onnx"), &runs, optimize)?;
        for (name, float) in &float {
            let db = sqnr(float, &deployed[name]);
            worst = if db < worst || db.is_nan() { db } else { worst };
        }
    }
    Ok(worst)
}

#[test]
fn graphs_beside_the_data() {
    let Some(folder) = shared("../cases/graphs") else { return };
    if runtime().is_none() {
        return;
    }
    let recipes = files(&folder, "toml");
    let mut faults = vec![];
    for recipe in &recipes {
        let name = recipe.file_stem().unwrap().to_string_lossy();
        match whole(recipe) {
            Ok(db) if db > FLOOR => println!("{name}: {db:.1} dB"),
            Ok(db) => faults.push(format!("{name}: {db:.1} dB from the float graph")),
            Err(e) => faults.push(format!("{name}: {e}")),
        }
    }
    assert!(!recipes.is_empty() && faults.is_empty(), "\n{}", faults.join("\n"));
}
