//! A small graph through a whole run: measured, quantized, pruned, deployed, and the file run in ONNX Runtime against the float
//! graph, with an open batch, with a batch of 1, and with one of 1 that cannot be opened.
use crate::net::Net;
use deploy::runtime::{OnnxRuntime, Runtime, SessionOptions, Source};
use graph::{Dim, Model, Node, ValueType};
use report::RunRecord;
use std::collections::BTreeMap;
use std::path::Path;
use tensor::{DType, SignalToNoise, Tensor, random};
use test_support::recipe::DEPLOY;
use test_support::runs::run_in;

/// A recipe on arrays of inputs beside the model.
fn recipe() -> String {
    let quantize = "kind = \"quantize\"\ncalibration = { observer = \"min_max\", images = 24 }\nprocessor_safe = true";
    test_support::recipe::recipe("train = \"runs\"", "file = \"model.onnx\"", &[quantize, "kind = \"prune\"\nsparsity = 0.02", DEPLOY])
}

pub(crate) type Named = BTreeMap<String, Tensor>;

/// The form of a graph's batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    Open,
    One,
    /// A batch of one that a Reshape to a constant shape fixes.
    Tied,
}

/// The contents of an input: its name, its sizes and a seed.
pub(crate) type Feed = fn(&str, DType, &[usize], u64) -> Tensor;

/// Normal numbers; of another type than floats, zeros and ones.
pub(crate) fn normal(_: &str, dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    let values = random::normal(seed, shape, 0.0, 1.0).unwrap();
    match dtype.is_float() {
        true => values.cast(dtype).unwrap(),
        false => {
            Tensor::new(values.to_f32_vec().unwrap().iter().map(|v| i64::from(*v > 0.0)).collect(), shape).unwrap().cast(dtype).unwrap()
        }
    }
}

/// A graph with the requirements on its deployed file.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) net: Net,
    /// Number of int8 weights in the deployed file: tensors of two axes and more.
    pub(crate) weights: usize,
    /// Least signal to noise of each output, in decibels.
    pub(crate) floor: f64,
    /// Graphs that compute the result of a wrong handling: further from the float graph than the required signal to noise allows.
    pub(crate) wrong: Vec<(&'static str, Net)>,
    pub(crate) feed: Feed,
    pub(crate) forms: &'static [Form],
}

impl Case {
    pub(crate) fn new(name: &'static str, weights: usize, floor: f64, net: Net) -> Case {
        Case { name, net, weights, floor, wrong: vec![], feed: normal, forms: &[Form::Open, Form::One, Form::Tied] }
    }

    /// The wrong graph to compare with.
    pub(crate) fn not(mut self, what: &'static str, net: Net) -> Case {
        self.wrong.push((what, net));
        self
    }

    pub(crate) fn fed(mut self, feed: Feed) -> Case {
        self.feed = feed;
        self
    }

    /// Without the form whose Reshape would change the graph's meaning.
    pub(crate) fn forms(mut self, forms: &'static [Form]) -> Case {
        self.forms = forms;
        self
    }
}

/// ONNX Runtime, or the reason why it is missing.
pub(crate) fn runtime() -> Option<OnnxRuntime> {
    OnnxRuntime::find().map_err(|e| println!("skipped: {e}")).ok()
}

/// Signal to noise in decibels.
pub(crate) fn sqnr(reference: &Tensor, other: &Tensor) -> f64 {
    SignalToNoise::of(reference, other).unwrap().db()
}

/// The outputs of all runs, joined to one row for each output; floats only.
pub(crate) fn outputs(runtime: &OnnxRuntime, model: &Path, runs: &[Named], optimize: bool) -> Result<Named, String> {
    let options = SessionOptions { threads: 1, optimize };
    let mut session = runtime.load(Source::File(model), options).map_err(|e| e.to_string())?;
    let mut all: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let types: BTreeMap<String, DType> = session.inputs().iter().filter_map(|s| Some((s.name.clone(), s.dtype?))).collect();
    for run in runs {
        let cast = |(name, t): (&String, &Tensor)| (name.clone(), t.cast(types.get(name).copied().unwrap_or(t.dtype())).unwrap());
        for (name, t) in session.run(&run.iter().map(cast).collect()).map_err(|e| e.to_string())? {
            if t.dtype().is_float() {
                all.entry(name).or_default().extend(t.to_f32_vec().unwrap());
            }
        }
    }
    Ok(all.into_iter().map(|(name, v)| (name, Tensor::vector(v))).collect())
}

/// Puts a Reshape to the sizes of a run behind the first input.
fn tie(model: &mut Model) {
    let first = model.graph.inputs[0];
    let sizes = model.values[first].shape().unwrap().iter().map(|d| d.known().unwrap() as i64).collect();
    let to = model.values.add_constant("tied to", Tensor::vector(sizes));
    model.graph.constants.push(to);
    let tied = model.values.add_named("tied");
    model.graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).filter(|v| **v == Some(first)).for_each(|v| *v = Some(tied));
    model.graph.nodes.insert(0, Node::new("Reshape", "tie", &[first, to], &[tied]));
}

/// The inputs of each run. Open sizes other than the batch differ from run to run.
fn runs(model: &Model, form: Form, feed: Feed) -> Vec<Named> {
    let (files, rows) = if form == Form::Open { (6, 4) } else { (24, 1) };
    let run = |i: usize| {
        let input = |(k, id): (usize, graph::ValueId)| {
            let value = &model.values[id];
            let size = |d: &Dim| match d {
                Dim::Known(n) => *n,
                Dim::Symbol(s) if s == "N" => rows,
                Dim::Symbol(s) => 3 + (i + s.len()) % 3,
                Dim::Unknown => panic!("an input without sizes"),
            };
            let ValueType::Tensor { dtype, shape: Some(shape) } = &value.ty else { panic!("an input without a type") };
            let shape: Vec<usize> = shape.iter().map(size).collect();
            (value.name.clone(), feed(&value.name, *dtype, &shape, (i * 10 + k) as u64))
        };
        model.free_inputs().into_iter().enumerate().map(input).collect()
    };
    (0..files).map(run).collect()
}

/// A run's record and files.
pub(crate) struct Done {
    pub(crate) record: RunRecord,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) runs: Vec<Named>,
}

impl Done {
    pub(crate) fn notes(&self) -> String {
        let stages = self.record.start.iter().chain(&self.record.stages);
        stages.flat_map(|s| &s.notes).map(|n| n.text.clone() + "\n").collect()
    }
}

/// A folder with the graph in one form as `model.onnx`, and the runs of its inputs.
fn laid(net: &Net, form: Form, feed: Feed) -> (tempfile::TempDir, Vec<Named>) {
    let mut model = net.build((form != Form::Open).then_some(1));
    if form == Form::Tied {
        tie(&mut model);
    }
    let folder = tempfile::tempdir().unwrap();
    onnx::save(&model, &folder.path().join("model.onnx")).unwrap();
    (folder, runs(&model, form, feed))
}

/// Runs the recipe, with `overrides`, on the graph.
pub(crate) fn whole(net: &Net, form: Form, feed: Feed, overrides: &[&str]) -> Result<Done, String> {
    let (folder, runs) = laid(net, form, feed);
    go(folder, runs, &recipe(), overrides)
}

/// Runs the recipe on the graph with a test set, in an npz file of these arrays.
pub(crate) fn tested(net: &Net, form: Form, feed: Feed, test: Named) -> Result<Done, String> {
    let (folder, runs) = laid(net, form, feed);
    data::npz::write(&folder.path().join("test.npz"), &test).unwrap();
    go(folder, runs, &recipe(), &["data.test=\"test.npz\""])
}

/// Trains the graph for an epoch on seeded samples, input `x` and labels 0 to 2: the run, and the constants before and after it.
pub(crate) fn trained(net: &Net, form: Form) -> Result<(Done, Named, Named), String> {
    let train = "kind = \"train\"\nepochs = 1\nbatch = 8\noptimizer = { kind = \"adamw\", lr = 0.01 }";
    let text = test_support::recipe::recipe("train = \"train.npz\"", "file = \"model.onnx\"", &[train]);
    let (folder, runs) = laid(net, form, normal);
    let shape: Vec<usize> = [32].iter().chain(&runs[0]["x"].shape()[1..]).copied().collect();
    let labels = Tensor::vector((0..32).map(|i| i % 3).collect::<Vec<i64>>());
    let arrays = [("x".to_string(), normal("x", DType::F32, &shape, 5)), ("y".to_string(), labels)];
    data::npz::write(&folder.path().join("train.npz"), &arrays.into()).unwrap();
    let done = go(folder, runs, &text, &[])?;
    let constants = |file: &str| {
        let model = onnx::load(&done.folder.path().join(file)).unwrap();
        model.values.iter().filter_map(|(_, v)| Some((v.name.clone(), v.constant.as_ref()?.tensor.clone()))).collect()
    };
    let (before, after) = (constants("model.onnx"), constants("out/train.onnx"));
    Ok((done, before, after))
}

/// Runs a recipe on `model.onnx` of a folder, each run's inputs in a file of `runs`.
fn go(folder: tempfile::TempDir, runs: Vec<Named>, text: &str, overrides: &[&str]) -> Result<Done, String> {
    std::fs::create_dir(folder.path().join("runs")).unwrap();
    for (i, inputs) in runs.iter().enumerate() {
        data::npz::write(&folder.path().join(format!("runs/{i:02}.npz")), inputs).unwrap();
    }
    let record = run_in(folder.path(), &folder.path().join("out"), text, overrides).map_err(|e| e.to_string())?;
    Ok(Done { record, folder, runs })
}

/// What is wrong with a case in one form, if anything.
fn fault(case: &Case, form: Form, runtime: &OnnxRuntime) -> Result<String, String> {
    let done = whole(&case.net, form, case.feed, &[])?;
    let at = |name: &str| done.folder.path().join(name);
    let float = outputs(runtime, &at("model.onnx"), &done.runs, false).map_err(|e| format!("the float graph: {e}"))?;
    let mut said = vec![];
    for optimize in [false, true] {
        let deployed = outputs(runtime, &at("out/deploy.deployed.onnx"), &done.runs, optimize)?;
        for (name, float) in &float {
            let db = sqnr(float, &deployed[name]);
            said.push(format!("{db:.1}"));
            if db.is_nan() || db <= case.floor {
                return Err(format!("{name} is {db:.1} dB from the float graph, the least is {} (optimized: {optimize})", case.floor));
            }
        }
    }
    let file = onnx::load(&at("out/deploy.deployed.onnx")).map_err(|e| e.to_string())?;
    let eight = |t: &Tensor| t.dtype() == DType::I8 && t.rank() > 1;
    let small = |v: &&graph::Value| v.constant.as_ref().is_some_and(|c| eight(&c.tensor));
    let weights: Vec<&str> = file.values.iter().map(|(_, v)| v).filter(small).map(|v| v.name.as_str()).collect();
    if weights.len() != case.weights {
        let parts: Vec<String> = done.record.stages[0].float_parts.iter().map(|p| format!("{}: {}", p.node, p.reason)).collect();
        let held = file.values.iter().filter_map(|(_, v)| Some((&v.name, v.constant.as_ref()?.tensor.dtype())));
        let held: Vec<String> = held.map(|(name, dtype)| format!("{name} {}", dtype.name())).collect();
        return Err(format!("{} weights are of int8, not {}; it holds {held:?}; float: {parts:?}", weights.len(), case.weights));
    }
    if form == Form::Tied && !done.notes().contains("batch is fixed at 1 and stays so") {
        return Err(format!("nothing says that the batch stays 1: {}", done.notes()));
    }
    for (what, net) in &case.wrong {
        if form == Form::Tied {
            continue;
        }
        onnx::save(&net.build((form != Form::Open).then_some(1)), &at("wrong.onnx")).map_err(|e| e.to_string())?;
        let wrong = outputs(runtime, &at("wrong.onnx"), &done.runs, false).map_err(|e| format!("{what}: {e}"))?;
        let db = float.iter().map(|(name, float)| sqnr(float, &wrong[name])).fold(f64::INFINITY, f64::min);
        said.push(format!("{what}: {db:.1}"));
        if db >= case.floor {
            return Err(format!("{what}: that is {db:.1} dB from the float graph, which the floor of {} does not tell", case.floor));
        }
    }
    Ok(said.join(", "))
}

/// Runs all cases in all their forms.
pub(crate) fn all(cases: &[Case]) {
    let Some(runtime) = runtime() else { return };
    let mut faults = vec![];
    for case in cases {
        for form in case.forms {
            match fault(case, *form, &runtime) {
                Ok(said) => println!("{} {form:?}: {said} dB", case.name),
                Err(e) => faults.push(format!("{} {form:?}: {e}", case.name)),
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Runs the recipe again on the file that a run deployed, with its inputs.
pub(crate) fn again(first: &Done) -> Result<Done, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(first.folder.path().join("out/deploy.deployed.onnx"), folder.path().join("model.onnx")).unwrap();
    go(folder, first.runs.clone(), &recipe(), &[])
}
