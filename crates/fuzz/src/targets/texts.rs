//! Recipes, plans of widths, run records, stage manifests, checkpoints.
use super::{Target, read, with_ending};
use crate::case::Case;
use crate::mutate;
use crate::random::Random;
use pipeline::recipe::Loaded;
use pipeline::run_dir::{KeyBuilder, RunDir};
use report::RunRecord;
use report::record::{
    Arithmetic, DeployRecord, EpochPoint, FloatPart, GoalRecord, GroupRecord, Latency, LayerRecord, MetricRecord, Metrics, Note,
    PruneSensitivityRecord, PrunedLayer, RuntimeRecord, SCHEMA_VERSION, SensitivityRecord, SparsityEffect, StageRecord, WidthRecord,
};
use std::collections::BTreeMap;
use std::path::Path;
use tensor::Tensor;
use train::Checkpoint;

pub(super) const RECIPE: Target = Target { name: "recipe", what: "recipes", seeds: recipes, mutate: text, run: recipe };
pub(super) const WIDTHS: Target =
    Target { name: "widths", what: "plans of widths and tables of sensitivities", seeds: plans, mutate: text, run: plan };
pub(super) const RECORD: Target = Target { name: "record", what: "run.json and its views", seeds: records, mutate: text, run: record };
pub(super) const STAGE: Target = Target { name: "stage", what: "stage.json in a run's folder", seeds: stages, mutate: text, run: stage };
pub(super) const CHECKPOINT: Target =
    Target { name: "checkpoint", what: "checkpoints", seeds: checkpoints, mutate: checkpoint_bytes, run: checkpoint };

fn text(r: &mut Random, (_, file): &mut (String, Vec<u8>), other: &[u8]) {
    mutate::text(r, file, other);
}

/// The header is text after its length; the rest is numbers.
fn checkpoint_bytes(r: &mut Random, (_, file): &mut (String, Vec<u8>), other: &[u8]) {
    let length = file.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b) as usize);
    match file.get(8..8 + length).map(<[u8]>::to_vec) {
        Some(mut header) if r.chance(60) => {
            // The text is one line; cut into several, it gives the changes by lines something to choose from.
            header = String::from_utf8_lossy(&header).replace(',', ",\n").into_bytes();
            mutate::text(r, &mut header, other);
            let rest = file.split_off(8 + length);
            *file = [(header.len() as u64).to_le_bytes().to_vec(), header, rest].concat();
        }
        _ => mutate::bytes(r, file, other),
    }
}

fn recipes() -> Result<Vec<Case>, String> {
    with_ending("recipes", ".toml")?.into_iter().map(|(name, path)| Ok(Case::one(name, "r.toml", read(&path)?))).collect()
}

fn recipe(case: &Case, folder: &Path) -> Result<(), String> {
    let path = case.write(folder).map_err(|e| e.to_string())?;
    match pipeline::recipe::load(&path, &["seed=3".into()]) {
        // An error's place must be inside the text.
        Err(e) => drop((e.to_string(), e.snippet())),
        Ok(loaded) => drop(loaded.inputs(None)),
    }
    Ok(())
}

/// A recipe that reads a plan from beside it.
const PLANNED: &str =
    "name = \"t\"\n[data]\ntrain = \"d\"\n[model]\narch = \"mlp\"\n[[stages]]\nkind = \"quantize\"\nplan = \"plan.toml\"\n";

fn plans() -> Result<Vec<Case>, String> {
    let plan = "# A plan.\n[[stages.rules]]\nmatch = \"/conv1\"\nweights = { bits = 4 }\nactivations = { bits = 4 }\n\n\
                [[stages.rules]]\nop = \"Gemm\"\nweights = { kind = \"codebook\", bits = 3 }\nactivations = false\n";
    let width = |bits| WidthRecord { bits, noise: 0.01, loss: Some(0.5), metric: Some(0.9) };
    let group = |name: &str| GroupRecord {
        layers: vec![name.into()],
        activations: vec![],
        elements: 10,
        macs: 100,
        widths: [2, 4, 8].map(width).to_vec(),
    };
    let table = SensitivityRecord {
        schema_version: SCHEMA_VERSION,
        name: "t".into(),
        samples: 8,
        taken_from: "validation samples".into(),
        measured: Some(MetricRecord::accuracy()),
        float_loss: Some(0.4),
        float_metric: Some(0.95),
        groups: vec![group("a"), group("b")],
    };
    let table = serde_json::to_vec_pretty(&table).map_err(|e| e.to_string())?;
    let effect = |sparsity| SparsityEffect { sparsity, noise: 0.01, loss: Some(0.5), metric: Some(0.9) };
    let shares = PruneSensitivityRecord {
        schema_version: SCHEMA_VERSION,
        name: "t".into(),
        by: "magnitude".into(),
        samples: 8,
        taken_from: "validation samples".into(),
        measured: Some(MetricRecord::accuracy()),
        whole_loss: Some(0.4),
        whole_metric: Some(0.95),
        layers: vec![PrunedLayer { weight: "a".into(), elements: 10, sparsities: [0.3, 0.9].map(effect).to_vec() }],
        dense: vec![("b".into(), "why".into())],
    };
    let shares = serde_json::to_vec_pretty(&shares).map_err(|e| e.to_string())?;
    Ok(vec![
        Case::one("plan.toml", "plan.toml", plan.as_bytes().to_vec()),
        Case::one("table.json", "table.json", table),
        Case::one("shares.json", "shares.json", shares),
    ])
}

fn plan(case: &Case, folder: &Path) -> Result<(), String> {
    let path = case.write(folder).map_err(|e| e.to_string())?;
    if path.extension().is_some_and(|e| e == "toml") {
        let recipe = pipeline::recipe::parse(PLANNED, &[]).map_err(|e| e.to_string())?;
        let loaded = Loaded { recipe, text: PLANNED.into(), folder: folder.to_path_buf(), overrides: vec![] };
        drop(loaded.with_files(None).map_err(|e| e.to_string()));
        return Ok(());
    }
    if let Ok(r) = PruneSensitivityRecord::load(&path) {
        return views_are_plain(&[report::prune_sensitivity_page(&r), report::prune_sensitivity_text(&r), r.to_csv()]);
    }
    let Ok(r) = SensitivityRecord::load(&path) else { return Ok(()) };
    views_are_plain(&[report::sensitivity_page(&r), report::sensitivity_text(&r), r.to_csv()])
}

/// No name is an element of the page, which comes first, and no control character is in a view.
fn views_are_plain(views: &[String]) -> Result<(), String> {
    if views.first().is_some_and(|page| page.contains("<script")) {
        return Err("a name became an element of the page".into());
    }
    match views.iter().any(|t| t.chars().any(|c| c.is_control() && c != '\n' && c != '\t')) {
        true => Err("a control character is in a view".into()),
        false => Ok(()),
    }
}

fn stage_record() -> StageRecord {
    StageRecord {
        name: "deploy".into(),
        kind: "deploy".into(),
        metrics: Metrics { accuracy: Some(0.9), file_bytes: Some(1000), parameters: Some(10), ..Metrics::default() },
        layers: vec![LayerRecord { name: "w".into(), elements: 4, sparsity: 0.5, encoding: Some("int8".into()), sqnr_db: Some(40.0) }],
        float_parts: vec![FloatPart { node: "n".into(), op_type: "Softmax".into(), reason: "why".into() }],
        epochs: (1..4)
            .map(|e| EpochPoint { epoch: e, loss: 1.0, validation_accuracy: Some(0.5), lr: 0.1, ..EpochPoint::default() })
            .collect(),
        deploy: Some(DeployRecord {
            file: "deploy.deployed.onnx".into(),
            runtimes: vec![RuntimeRecord {
                runtime: "onnxruntime".into(),
                arithmetic: Arithmetic::Literal,
                accuracy: Some(0.9),
                latency: Some(Latency { p50_ms: 0.4, p95_ms: 0.5, runs: 100, threads: 2 }),
                ..RuntimeRecord::default()
            }],
            ..DeployRecord::default()
        }),
        notes: vec![Note { warning: true, text: "a note".into() }],
        ..StageRecord::default()
    }
}

fn records() -> Result<Vec<Case>, String> {
    let goal = GoalRecord { goal: "min_accuracy".into(), wanted: 0.5, measured: Some(0.6), met: true, sentence: "accuracy".into() };
    let record = RunRecord {
        schema_version: SCHEMA_VERSION,
        name: "r".into(),
        stages: vec![stage_record(); 2],
        goals: vec![goal],
        ..RunRecord::default()
    };
    Ok(vec![Case::one("run.json", "run.json", record.to_json().into_bytes())])
}

fn record(case: &Case, folder: &Path) -> Result<(), String> {
    let path = case.write(folder).map_err(|e| e.to_string())?;
    let Ok(r) = RunRecord::load(&path) else { return Ok(()) };
    views_are_plain(&[report::html(&r), report::terminal(&r), report::markdown(&r)])
}

fn stages() -> Result<Vec<Case>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let run = RunDir::open(folder.path(), 0).map_err(|e| e.to_string())?;
    let key = KeyBuilder::default().part("t", "x").finish();
    let files = BTreeMap::from([("deploy.deployed.onnx".to_string(), b"file".to_vec())]);
    run.stage(&key).commit(b"model", &files, &stage_record()).map_err(|e| e.to_string())?;
    let place = folder.path().join("store").join(key.to_string());
    Ok(vec![Case::one("stage.json", "stage.json", read(&place.join("stage.json"))?)])
}

/// No file is read or published outside the result's folder.
fn stage(case: &Case, folder: &Path) -> Result<(), String> {
    let run = RunDir::open(&folder.join("run"), 0).map_err(|e| e.to_string())?;
    let key = KeyBuilder::default().part("t", "x").finish();
    let place = folder.join("run/store").join(key.to_string());
    let wrote = std::fs::create_dir_all(&place)
        .and_then(|()| std::fs::write(place.join("model.onnx"), b"model"))
        .and_then(|()| std::fs::write(place.join("deploy.deployed.onnx"), b"file"))
        .and_then(|()| std::fs::write(place.join("stage.json"), case.bytes()));
    wrote.map_err(|e| e.to_string())?;
    let Some(result) = run.stage(&key).result() else { return Ok(()) };
    let files = result.files.values().chain([&result.model]);
    match files.into_iter().find(|f| f.parent() != Some(place.as_path())) {
        Some(outside) => Err(format!("{} lies outside the result's folder", outside.display())),
        None => Ok(()),
    }
}

fn checkpoints() -> Result<Vec<Case>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("checkpoint");
    let t = || Tensor::vector(vec![1f32, 2.0, 3.0]);
    let values = BTreeMap::from([("a".to_string(), t()), ("b".to_string(), t())]);
    let checkpoint = Checkpoint {
        epochs_done: 1,
        steps_done: 9,
        values,
        optimizer: BTreeMap::from([("a#0".to_string(), t())]),
        ..Checkpoint::default()
    };
    checkpoint.save(&path).map_err(|e| e.to_string())?;
    Ok(vec![Case::one("checkpoint", "checkpoint", read(&path)?)])
}

fn checkpoint(case: &Case, folder: &Path) -> Result<(), String> {
    let path = case.write(folder).map_err(|e| e.to_string())?;
    Checkpoint::load(&path).ok();
    Ok(())
}
