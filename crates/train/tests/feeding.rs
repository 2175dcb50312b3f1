//! Runs of a model on data whose samples need rearranging: a fixed batch, other axes, held and carried inputs.
use data::{ArraysDataset, Dataset, LoaderOptions};
use espalier_train as train;
use graph::{Dim, Model, Node, Value, ValueId, ValueType};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use technique::Settings;
use tensor::{DType, Tensor, random};
use train::{
    Batch, Batches, Batching, CrossEntropy, Executor, Feeding, InputRule, InputRules, LoaderBatches, Mode, Sgd, TrainContext,
    TrainSettings, evaluate, open_batch,
};

fn symbol(name: &str) -> Dim {
    Dim::Symbol(name.into())
}

fn input(m: &mut Model, name: &str, dtype: DType, dims: &[Dim]) -> ValueId {
    let ty = ValueType::Tensor { dtype, shape: Some(dims.to_vec()) };
    let id = m.values.add(Value { name: name.into(), ty, ..Value::default() });
    m.graph.inputs.push(id);
    id
}

fn constant(m: &mut Model, name: &str, t: Tensor) -> ValueId {
    let id = m.values.add_constant(name, t);
    m.graph.constants.push(id);
    id
}

fn node(m: &mut Model, op: &str, reads: &[ValueId], name: &str) -> ValueId {
    let out = m.values.add_named(name);
    m.graph.nodes.push(Node::new(op, format!("{name}_node"), reads, &[out]));
    out
}

/// `x [batch, 2, 3]` → 3 classes. With a batch, a Reshape holds it.
fn classifier(batch: Option<usize>) -> Model {
    let mut m = Model::new(17);
    let first = batch.map_or(symbol("N"), Dim::Known);
    let x = input(&mut m, "x", DType::F32, &[first, Dim::Known(2), Dim::Known(3)]);
    let to = constant(&mut m, "to", Tensor::vector(vec![batch.map_or(-1, |n| n as i64), 6]));
    let flat = node(&mut m, "Reshape", &[x, to], "flat");
    let w = constant(&mut m, "w", random::normal(1, &[6, 8], 0.0, 0.4).unwrap());
    let b = constant(&mut m, "b", Tensor::full(0f32, [8]).unwrap());
    let h = node(&mut m, "Gemm", &[flat, w, b], "h");
    let h = node(&mut m, "Relu", &[h], "r");
    let v = constant(&mut m, "v", random::normal(2, &[8, 3], 0.0, 0.4).unwrap());
    let y = node(&mut m, "MatMul", &[h, v], "y");
    m.graph.outputs.push(y);
    m.verify().unwrap();
    m
}

fn dataset(arrays: &[(&str, Tensor)]) -> Arc<dyn Dataset> {
    let arrays = arrays.iter().map(|(name, t)| (name.to_string(), t.clone())).collect();
    Arc::new(ArraysDataset::new(Path::new("a.npz"), arrays).unwrap())
}

fn labelled(rows: usize) -> Arc<dyn Dataset> {
    let y: Vec<i64> = (0..rows as i64).map(|i| i % 3).collect();
    dataset(&[("x", random::normal(5, &[rows, 2, 3], 0.0, 1.0).unwrap()), ("y", Tensor::vector(y))])
}

fn batches(m: &Model, data: &Arc<dyn Dataset>, batch: usize, rules: &InputRules) -> LoaderBatches {
    let feeding = Feeding::of(m, rules).unwrap();
    LoaderBatches::for_model(data.clone(), LoaderOptions { batch, ..LoaderOptions::default() }, m, &feeding).unwrap()
}

#[test]
fn a_fixed_batch_scores_as_an_open_one_the_last_run_filled_up() {
    let data = labelled(10);
    let open = classifier(None);
    let expected = evaluate(&open, batches(&open, &data, 4, &InputRules::new()).epoch(0), Mode::FLOAT).unwrap();
    assert_eq!(expected.total, 10);
    for size in [1, 3, 4] {
        let mut fixed = classifier(Some(size));
        assert!(matches!(open_batch(&mut fixed), Batching::Fixed { samples, .. } if samples == size));
        let source = batches(&fixed, &data, 4, &InputRules::new());
        let runs: Vec<Batch> = source.epoch(0).map(|b| b.unwrap()).collect();
        assert!(runs.iter().all(|b| b.inputs["x"].shape() == [size, 2, 3]));
        assert_eq!(runs.iter().map(Batch::len).sum::<usize>(), 10);
        // Batches of 4, 4 and 2 rows end a step each.
        assert_eq!(runs.iter().filter(|b| !b.portion.continues).count(), 3);
        assert_eq!(evaluate(&fixed, source.epoch(0), Mode::FLOAT).unwrap(), expected);
    }
}

#[test]
fn a_fixed_batch_trains_as_an_open_one() {
    let data = labelled(10);
    let settings = TrainSettings {
        epochs: 3,
        optimizer: Sgd { lr: 0.1, momentum: 0.9, nesterov: false, weight_decay: 0.0 }.choice().unwrap(),
        schedule: technique::Choice::default(),
        ..TrainSettings::default()
    };
    let trained = |mut m: Model, memory: Option<u64>| {
        let source = batches(&m, &data, 4, &InputRules::new());
        let loss = CrossEntropy::of(&m, 0.0).unwrap();
        let mut around = TrainContext::default();
        let report = train::train(&mut m, &source, &loss, &TrainSettings { memory, ..settings.clone() }, &mut around).unwrap();
        let weights = ["w", "b", "v"].map(|n| m.values.tensor(m.find(n).unwrap()).unwrap().to_f32_vec().unwrap()).concat();
        (report.history, weights)
    };
    let (history, weights) = trained(classifier(None), None);
    assert!(history[2].loss < history[0].loss);
    for size in [1, 3] {
        for memory in [None, Some(1 << 30)] {
            let (own, close) = trained(classifier(Some(size)), memory);
            let off = weights.iter().zip(&close).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(off < 2e-6, "batch {size}: {off}");
            for (a, b) in history.iter().zip(&own) {
                assert!((a.loss - b.loss).abs() < 1e-6 && a.train_accuracy == b.train_accuracy, "{a:?} {b:?}");
            }
        }
    }
}

#[test]
fn a_batch_that_fits_but_for_its_size_is_split() {
    let m = classifier(Some(2));
    let feeding = Feeding::of(&m, &InputRules::new()).unwrap();
    let x = random::normal(3, &[5, 2, 3], 0.0, 1.0).unwrap();
    let offsets = Tensor::vector(vec![0i64, 2, 2, 3, 3, 6]);
    let boxes = Tensor::new((0..6).map(|v| v as f32).collect(), [6, 1]).unwrap();
    let targets = BTreeMap::from([("boxes".to_string(), boxes), ("boxes.offsets".to_string(), offsets)]);
    let batch = Batch { inputs: BTreeMap::from([("x".to_string(), x.clone())]), targets, ..Batch::default() };
    let runs = feeding.split(&batch).unwrap();
    let lens: Vec<_> = runs.iter().map(|r| (r.len(), r.portion.filled, r.portion.continues)).collect();
    assert_eq!(lens, [(2, 0, true), (2, 0, true), (1, 1, false)]);
    assert_eq!(runs[2].inputs["x"], Tensor::concat(&[x.narrow(0, 4, 1).unwrap(), x.narrow(0, 4, 1).unwrap()], 0).unwrap());
    let own: Vec<Vec<f32>> = runs[2].ragged("boxes").unwrap().iter().map(|t| t.to_f32_vec().unwrap()).collect();
    assert_eq!(own, [[3.0, 4.0, 5.0]]);
    assert_eq!(runs[1].ragged("boxes").unwrap().iter().map(Tensor::len).collect::<Vec<_>>(), [1, 0]);
    let three = Tensor::full(1f32, [2, 4]).unwrap();
    assert_eq!(runs[2].counted(three).unwrap().shape(), [1, 4]);
}

/// `y = k * x + s`, `next = y`: a state along axis 1, and a scalar.
fn stateful(batch: Dim) -> Model {
    let mut m = Model::new(17);
    let x = input(&mut m, "x", DType::F32, &[batch.clone(), Dim::Known(2)]);
    let s = input(&mut m, "s", DType::F32, &[Dim::Known(1), batch, Dim::Known(2)]);
    let k = input(&mut m, "k", DType::F32, &[]);
    let kx = node(&mut m, "Mul", &[x, k], "kx");
    let y = node(&mut m, "Add", &[kx, s], "y");
    let next = node(&mut m, "Identity", &[y], "next");
    m.graph.outputs = vec![y, next];
    m
}

fn outputs(m: &Model, source: &LoaderBatches) -> Vec<f32> {
    let executor = Executor::new(m).unwrap();
    source.epoch(0).flat_map(|b| executor.run(&b.unwrap().inputs, Mode::FLOAT).unwrap()["y"].to_f32_vec().unwrap()).collect()
}

#[test]
fn samples_go_where_the_input_has_them_and_scalars_are_one_for_all() {
    let x = Tensor::new((0..6).map(|v| v as f32).collect(), [3, 2]).unwrap();
    let s = Tensor::new((0..6).map(|v| 10.0 * v as f32).collect(), [1, 3, 2]).unwrap();
    let expected: Vec<f32> = (0..6).map(|v| 12.0 * v as f32).collect();
    for batch in [symbol("N"), Dim::Known(1)] {
        let m = stateful(batch.clone());
        // A scalar, one a row, or held by a rule; the state with the batch's axis, or with the samples' before the input's own.
        for k in [Tensor::scalar(2f32), Tensor::full(2f32, [3]).unwrap()] {
            for s in [s.clone(), s.reshape([3, 1, 1, 2]).unwrap()] {
                let data = dataset(&[("x", x.clone()), ("s", s), ("k", k.clone())]);
                assert_eq!(outputs(&m, &batches(&m, &data, 8, &InputRules::new())), expected);
            }
        }
        let rules = InputRules::from([("k".to_string(), InputRule { value: Some(2.0), ..InputRule::default() })]);
        let data = dataset(&[("x", x.clone()), ("s", s.clone())]);
        assert_eq!(outputs(&m, &batches(&m, &data, 8, &rules)), expected);
        let runs = batches(&m, &data, 8, &rules).epoch(0).count();
        assert_eq!(runs, if batch == Dim::Known(1) { 3 } else { 1 });
    }
    // Scalars that differ: row by row.
    let m = stateful(symbol("N"));
    let data = dataset(&[
        ("x", Tensor::full(1f32, [3, 2]).unwrap()),
        ("s", Tensor::zeros(DType::F32, &[1, 3, 2]).unwrap()),
        ("k", Tensor::vector(vec![1f32, 2.0, 3.0])),
    ]);
    assert_eq!(outputs(&m, &batches(&m, &data, 8, &InputRules::new())), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
}

/// Time first, as recurrent layers have it: the sum over time of `[T, N, 2]`.
#[test]
fn samples_behind_the_time_are_found_by_what_the_outputs_begin_with() {
    let values: Vec<f32> = (0..30).map(|v| v as f32).collect();
    let x = Tensor::new(values, [5, 3, 2]).unwrap();
    let sums = x.sum(&[0], false).unwrap().to_f32_vec().unwrap();
    for time in [Dim::Known(5), symbol("T")] {
        let mut m = Model::new(13);
        let input = input(&mut m, "x", DType::F32, &[time, symbol("N"), Dim::Known(2)]);
        let axes = m.values.add_constant("axes", Tensor::vector(vec![0i64]));
        m.graph.constants.push(axes);
        let y = node(&mut m, "ReduceSum", &[input, axes], "y");
        m.graph.nodes[0].attributes.set("keepdims", graph::AttributeValue::Int(0));
        m.values[y].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![symbol("N"), Dim::Known(2)]) };
        m.graph.outputs = vec![y];
        assert_eq!(train::open_batch(&mut m.clone()), train::Batching::Open);
        let data = dataset(&[("x", x.clone()), ("y", Tensor::vector(vec![0i64, 1, 0]))]);
        for size in [1, 2, 8] {
            assert_eq!(outputs(&m, &batches(&m, &data, size, &InputRules::new())), sums);
        }
    }
}

#[test]
fn an_output_is_fed_back_from_row_to_row() {
    let m = stateful(symbol("N"));
    let carried = |reset| {
        let state = InputRule { carried: Some("next".into()), reset, ..InputRule::default() };
        InputRules::from([("s".to_string(), state), ("k".to_string(), InputRule { value: Some(1.0), ..InputRule::default() })])
    };
    let data = dataset(&[("x", Tensor::full(1f32, [5, 2]).unwrap())]);
    let firsts = |reset| outputs(&m, &batches(&m, &data, 8, &carried(reset))).into_iter().step_by(2).collect::<Vec<_>>();
    assert_eq!(firsts(None), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(firsts(Some(2)), [1.0, 2.0, 1.0, 2.0, 1.0]);
}

#[test]
fn what_is_missing_or_misspelt_is_named_with_its_remedy() {
    let m = stateful(symbol("N"));
    let data = dataset(&[("x", Tensor::full(1f32, [5, 2]).unwrap())]);
    let error = batches(&m, &data, 8, &InputRules::new()).epoch(0).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("input 's': is not given (given: x)") && error.contains("[data.inputs] s = { value = 0 }"), "{error}");
    let of = |name: &str, rule: InputRule| Feeding::of(&m, &InputRules::from([(name.to_string(), rule)])).err().unwrap().to_string();
    assert!(of("t", InputRule::default()).contains("'t': has a rule, but is not an input of the model; its inputs: x, s, k"));
    assert!(of("s", InputRule { carried: Some("z".into()), ..InputRule::default() }).contains("its outputs: y, next"));
    assert!(of("s", InputRule { value: Some(1.0), held: true, ..InputRule::default() }).contains("give one"));
    assert!(of("s", InputRule { axis: Some(3), ..InputRule::default() }).contains("its rank is 3"));
    let told: Vec<String> = Feeding::of(&m, &InputRules::new()).unwrap().describe().into_iter().map(|(n, t)| format!("{n}: {t}")).collect();
    let x = "x: any number of samples, along axis 0; images, sounds and lone arrays go here";
    assert_eq!(told, [x, "s: any number of samples, along axis 1", "k: one for all samples of a run"]);
}

/// Grey images of an input without channels, in either layout.
#[test]
fn a_grey_image_fits_an_input_without_channels() {
    let mut m = Model::new(17);
    let x = input(&mut m, "x", DType::F32, &[symbol("N"), Dim::Known(4), Dim::Known(5)]);
    let y = node(&mut m, "Neg", &[x], "y");
    m.graph.outputs.push(y);
    let pixels = Tensor::new((0..40u8).collect(), [2, 4, 5]).unwrap();
    for layout in [data::Layout::Nchw, data::Layout::Nhwc] {
        let preprocess = data::Preprocess { scale: 1.0, layout, ..data::Preprocess::default() };
        let options = LoaderOptions { preprocess, ..LoaderOptions::default() };
        let feeding = Feeding::of(&m, &InputRules::new()).unwrap();
        let source = LoaderBatches::for_model(dataset(&[("p", pixels.clone())]), options, &m, &feeding).unwrap();
        assert_eq!(outputs(&m, &source), (0..40).map(|v| -(v as f32)).collect::<Vec<_>>());
    }
}
