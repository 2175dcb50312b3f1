//! Models whose parameters are hidden behind nodes: a run makes them visible and notes it.
use crate::program::run;
use espalier::data::npz;
use espalier::graph::{AttributeValue, Dim, Model, Node, Value, ValueId, ValueType};
use espalier::onnx;
use espalier::tensor::{DType, Tensor, random};
use serde_json::Value as Json;

const RECIPE: &str = r#"
name = "parameters"
seed = 1
[data]
train = "data.npz"
test = "data.npz"
[model]
file = "model.onnx"
[[stages]]
kind = "quantize"
calibration = { observer = "min_max", images = 12, batch = 4 }
[[stages]]
kind = "deploy"
target = "reference"
latency_runs = 1
"#;

struct Case(tempfile::TempDir);

impl Case {
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a UTF-8 path").to_string()
    }

    /// A model and twelve rows of its input in a folder with a recipe.
    fn new(model: &Model, dtype: DType) -> Case {
        let case = Case(tempfile::tempdir().expect("a folder"));
        onnx::save(model, case.path("model.onnx").as_ref()).expect("a model");
        let x = random::normal(3, &[12, 8], 0.0, 1.0).and_then(|t| t.cast(dtype)).expect("rows");
        let labels = Tensor::vector((0..12i64).map(|i| i % 4).collect::<Vec<_>>());
        npz::write(case.path("data.npz").as_ref(), &[("x".to_string(), x), ("y".to_string(), labels)].into()).expect("data");
        std::fs::write(case.path("recipe.toml"), RECIPE).expect("a recipe");
        case
    }

    fn run(&self) -> (i32, Json, String) {
        let (code, stdout, stderr) = run(&["run", &self.path("recipe.toml"), "--out", &self.path("out"), "--json"]);
        (code, serde_json::from_str(&stdout).unwrap_or_default(), stderr)
    }
}

/// `y = x · Transpose(w)`, all in one type.
fn behind_a_transpose(dtype: DType) -> Model {
    let mut m = Model::new(17);
    let ty = |n| ValueType::Tensor { dtype, shape: Some(vec![Dim::Symbol("N".into()), Dim::Known(n)]) };
    let x = m.values.add(Value { name: "x".into(), ty: ty(8), ..Value::default() });
    let y = m.values.add(Value { name: "y".into(), ty: ty(4), ..Value::default() });
    let w = m.values.add_constant("layer.weight", random::normal(1, &[4, 8], 0.0, 0.4).and_then(|t| t.cast(dtype)).expect("a weight"));
    let turned = m.values.add_named("turned");
    m.graph.inputs.push(x);
    m.graph.outputs.push(y);
    m.graph.constants.push(w);
    m.graph.nodes.push(Node::new("Transpose", "turn", &[w], &[turned]).with("perm", AttributeValue::Ints(vec![1, 0])));
    m.graph.nodes.push(Node::new("MatMul", "layer", &[x, turned], &[y]));
    m
}

fn notes(stage: &Json) -> Vec<&str> {
    stage["notes"].as_array().into_iter().flatten().filter_map(|n| n["text"].as_str()).collect()
}

#[test]
fn a_weight_behind_a_node_is_counted_and_quantized_under_its_name() {
    let case = Case::new(&behind_a_transpose(DType::F32), DType::F32);
    let (code, result, error) = case.run();
    assert_eq!(code, 0, "{error}");
    let record = &result["result"];
    let told = notes(&record["start"]);
    assert_eq!(
        told,
        ["a node that computes with constants alone was folded; 1 parameter was hidden that way: layer.weight"],
        "once, by the record of what the run began with"
    );
    assert_eq!(record["start"]["metrics"]["parameters"].as_u64(), Some(32));
    let layer = &record["stages"][0]["layers"][0];
    assert_eq!((layer["name"].as_str(), layer["encoding"].as_str()), (Some("layer.weight"), Some("int8 per channel")));
}

#[test]
fn a_half_precision_model_is_made_float32_whatever_type_its_data_has() {
    for dtype in [DType::F32, DType::F16] {
        let case = Case::new(&behind_a_transpose(DType::F16), dtype);
        let (code, result, error) = case.run();
        assert_eq!(code, 0, "{error}");
        let told = notes(&result["result"]["start"]);
        assert_eq!(told[0], "the model was converted from half precision to float32, its inputs too");
        let quantized = notes(&result["result"]["stages"][0]);
        assert!(quantized.iter().any(|n| n.starts_with("1 weights, 0 biases and 2 activations")), "{quantized:?}");
    }
    let case = Case::new(&behind_a_transpose(DType::F16), DType::F16);
    let converted = case.path("converted.onnx");
    assert_eq!(run(&["convert", &case.path("model.onnx"), "-o", &converted, "--float32"]).0, 0);
    let model = onnx::load(converted.as_ref()).expect("a model");
    assert!(model.values.iter().all(|(_, v)| v.dtype() != Some(DType::F16)));
}

#[test]
fn a_stage_that_quantizes_nothing_fails_and_says_why() {
    let mut m = Model::new(17);
    let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Symbol("N".into()), Dim::Known(8)]) };
    let ends: Vec<ValueId> = ["x", "y"].map(|n| m.values.add(Value { name: n.into(), ty: ty.clone(), ..Value::default() })).to_vec();
    m.graph.inputs.push(ends[0]);
    m.graph.outputs.push(ends[1]);
    m.graph.nodes.push(Node::new("Exp", "grow", &ends[..1], &ends[1..]));
    let (code, result, error) = Case::new(&m, DType::F32).run();
    assert_eq!(code, 1, "{error}");
    let message = result["error"]["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("stage 'quantize': ") && message.contains("the model has no operator that computes on integers"),
        "{message}"
    );
    // A model that another tool converted to integers.
    let [quantized, scale, zero, sums, real, product] = ["q", "s", "z", "sums", "real", "product"].map(|n| m.values.add_named(n));
    let w = m.values.add_constant("w", Tensor::full(3u8, [8, 8]).unwrap());
    m.graph.constants.push(w);
    m.graph.nodes = vec![
        Node::new("DynamicQuantizeLinear", "quantize", &ends[..1], &[quantized, scale, zero]),
        Node::new("MatMulInteger", "layer", &[quantized, w, zero], &[sums]),
        Node::new("Cast", "cast", &[sums], &[real]).with("to", AttributeValue::Int(1)),
        Node::new("Mul", "rescale", &[real, scale], &[product]),
        Node::new("Relu", "act", &[product], &ends[1..]),
    ];
    let (code, result, error) = Case::new(&m, DType::F32).run();
    assert_eq!(code, 1, "{error}");
    let message = result["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("nothing in the graph was quantized") && message.contains("'rescale' (Mul): it scales what"), "{message}");
}
