//! Every available model goes through a whole run (measured, quantized, pruned, deployed), whatever its inputs are, with an open
//! batch, with a batch declared as 1, and with one that cannot be opened. The deployed file computes what the simulation
//! computed.
use graph::{Dim, Model, Node, ValueType};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tensor::{SignalToNoise, Tensor};
use test_support::folders::{data, fixtures, shared_files};
use test_support::recipe::DEPLOY;
use test_support::runs::run_in;
use train::{Executor, Mode, Named};

/// A recipe on arrays of inputs beside the model.
fn recipe() -> String {
    let quantize = "kind = \"quantize\"\ncalibration = { observer = \"min_max\", images = 2 }";
    test_support::recipe::recipe("train = \"runs\"", "file = \"model.onnx\"", &[quantize, "kind = \"prune\"\nsparsity = 0.1", DEPLOY])
}

/// The form of a model's batch.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Open,
    One,
    /// A batch of one that a Reshape to a constant shape fixes.
    Tied,
}

fn runtime() -> Option<Box<dyn deploy::runtime::Runtime>> {
    match deploy::runtime::OnnxRuntime::find() {
        Ok(runtime) => Some(Box::new(runtime)),
        Err(e) => {
            println!("skipped: {e}");
            None
        }
    }
}

/// The arrays `in__NAME` of a file, by input.
fn inputs(path: &Path) -> Named {
    let arrays = data::npz::read(path).unwrap();
    arrays.into_iter().filter_map(|(name, t)| Some((name.strip_prefix("in__")?.to_string(), t))).collect()
}

/// The model and its inputs with a batch of 1.
fn one(model: &mut Model, inputs: &mut Named) {
    let sampled = |v: &graph::ValueId| model.values[*v].shape().is_some_and(|s| !s.is_empty());
    let first = model.free_inputs().into_iter().find(sampled).unwrap();
    let batch = model.values[first].shape().unwrap()[0].clone();
    let ports: Vec<_> = model.free_inputs().into_iter().chain(model.graph.outputs.clone()).collect();
    for id in ports {
        let name = model.values[id].name.clone();
        let ValueType::Tensor { shape: Some(dims), .. } = &mut model.values[id].ty else { continue };
        for (axis, dim) in dims.iter_mut().enumerate().filter(|(axis, d)| **d == batch && (batch != Dim::Unknown || *axis == 0)) {
            *dim = Dim::Known(1);
            if let Some(t) = inputs.get_mut(&name) {
                *t = t.narrow(axis, 0, 1).unwrap();
            }
        }
    }
}

/// Puts a Reshape to the sizes of a run behind the first input.
fn tie(model: &mut Model, inputs: &Named) {
    let first = model.free_inputs()[0];
    let sizes: Vec<i64> = inputs[&model.values[first].name].shape().iter().map(|n| *n as i64).collect();
    let to = model.values.add_constant("tied to", Tensor::vector(sizes));
    model.graph.constants.push(to);
    let tied = model.values.add_named("tied");
    for node in &mut model.graph.nodes {
        node.inputs.iter_mut().filter(|v| **v == Some(first)).for_each(|v| *v = Some(tied));
    }
    model.graph.nodes.insert(0, Node::new("Reshape", "tie", &[first, to], &[tied]));
}

/// Runs the recipe on the model; the outputs of the simulation, and of the deployed file in ONNX Runtime.
fn whole(path: &Path, arrays: &Path, form: Form) -> Result<Vec<f64>, String> {
    let runtime = runtime().ok_or("no runtime")?;
    let mut model = onnx::load(path).map_err(|e| e.to_string())?;
    let mut inputs = inputs(arrays);
    if form != Form::Open {
        one(&mut model, &mut inputs);
    }
    if form == Form::Tied {
        tie(&mut model, &inputs);
        assert!(matches!(train::open_batch(&mut model.clone()), train::Batching::Fixed { .. }), "{}", path.display());
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("runs")).unwrap();
    onnx::save(&model, &at("model.onnx")).map_err(|e| e.to_string())?;
    for name in ["a", "b"] {
        data::npz::write(&at("runs").join(format!("{name}.npz")), &inputs).unwrap();
    }
    let record = run_in(folder.path(), &at("out"), &recipe(), &[]).map_err(|e| e.to_string())?;
    assert!(record.deployed().is_some());
    if form == Form::Tied {
        let notes = record.start.iter().flat_map(|s| &s.notes).map(|n| n.text.as_str()).collect::<String>();
        assert!(notes.contains("batch is fixed at 1 and stays so"), "{notes}");
    }
    let pruned = onnx::load(&at("out").join("prune.onnx")).map_err(|e| e.to_string())?;
    let simulated = Executor::new(&pruned).unwrap().run(&inputs, Mode::SIMULATED).map_err(|e| e.to_string())?;
    let file = at("out").join("deploy.deployed.onnx");
    let options = deploy::runtime::SessionOptions::literal(1);
    let mut session = runtime.load(deploy::runtime::Source::File(&file), options).map_err(|e| e.to_string())?;
    let deployed: BTreeMap<String, Tensor> = session.run(&inputs).map_err(|e| e.to_string())?;
    let floats = simulated.iter().filter(|(_, t)| t.dtype().is_float());
    Ok(floats.map(|(name, t)| SignalToNoise::of(t, &deployed[name]).unwrap().db()).collect())
}

fn all(list: &[(PathBuf, PathBuf)], forms: &[Form]) {
    let mut faults = vec![];
    for (model, arrays) in list {
        for form in forms {
            let name = model.file_name().unwrap().to_string_lossy().into_owned();
            match whole(model, arrays, *form) {
                Ok(agreement) if agreement.iter().all(|db| *db > 60.0) => println!("{name} {form:?}: {agreement:.0?} dB"),
                Ok(agreement) => faults.push(format!("{name} {form:?}: the file is {agreement:.1?} dB from the simulation")),
                Err(e) => faults.push(format!("{name} {form:?}: {e}")),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_real_models() {
    let models = shared_files("models", "onnx");
    if runtime().is_none() {
        return;
    }
    let golden = |m: &PathBuf| data().join("golden").join(m.with_extension("npz").file_name().unwrap());
    let list: Vec<_> = models.into_iter().map(|m| (m.clone(), golden(&m))).collect();
    all(&list, &[Form::Open, Form::One, Form::Tied]);
}

#[test]
fn the_fixtures_that_have_weights() {
    if runtime().is_none() {
        return;
    }
    let pair = |n: &&str| (fixtures().join(format!("{n}.onnx")), fixtures().join(format!("{n}.npz")));
    // Models that take another number of samples than in their stored inputs.
    let names = [
        "attention_block",
        "batch_norm_network",
        "constant_nodes",
        "conv_transpose",
        "dynamic_batch",
        "external_data",
        "if_true",
        "qdq_convolution",
        "sparse_initializer",
        "tied_embedding",
    ];
    all(&names.iter().map(pair).collect::<Vec<_>>(), &[Form::Open, Form::One]);
    // Its body declares so many samples.
    all(&[pair(&"scan")], &[Form::Open]);
}
