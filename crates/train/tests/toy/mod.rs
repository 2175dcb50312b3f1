//! A small network and a data set that it can learn, for the tests of the training loop.
use espalier_train::{Batch, Batches, Cosine, Sgd, TrainError, TrainSettings};
use graph::{AttributeValue, Model, Node, Value, ValueId, ValueType};
use std::collections::BTreeMap;
use technique::Settings;
use tensor::{DType, Tensor, random};

pub(crate) fn input(model: &mut Model, name: &str, shape: &[usize]) -> ValueId {
    let dims = std::iter::once(graph::Dim::Symbol("N".into())).chain(shape.iter().map(|d| graph::Dim::Known(*d))).collect();
    let id =
        model.values.add(Value { name: name.into(), ty: ValueType::Tensor { dtype: DType::F32, shape: Some(dims) }, ..Value::default() });
    model.graph.inputs.push(id);
    id
}

pub(crate) fn constant(model: &mut Model, name: &str, tensor: Tensor) -> ValueId {
    let id = model.values.add_constant(name, tensor);
    model.graph.constants.push(id);
    id
}

pub(crate) fn node(model: &mut Model, op: &str, inputs: &[ValueId], name: &str) -> ValueId {
    let out = model.values.add_named(name);
    let node = Node::new(op, format!("{name}_node"), inputs, &[out]);
    let node = if op == "Gemm" { node.with("transB", AttributeValue::Int(1)) } else { node };
    model.graph.nodes.push(node);
    out
}

/// 8 → 16 → relu → 3, with a batch normalization between.
pub(crate) fn network() -> Model {
    let mut m = Model::new(17);
    let x = input(&mut m, "x", &[8]);
    let w1 = constant(&mut m, "fc1.weight", random::normal(1, &[16, 8], 0.0, 0.4).unwrap());
    let b1 = constant(&mut m, "fc1.bias", Tensor::full(0f32, [16]).unwrap());
    let h = node(&mut m, "Gemm", &[x, w1, b1], "h");
    let one = |v: f32| Tensor::full(v, [16]).unwrap();
    let (s, b, mean, var) = (one(1.0), one(0.0), one(0.0), one(1.0));
    let bn: Vec<ValueId> =
        [("bn.scale", s), ("bn.bias", b), ("bn.mean", mean), ("bn.var", var)].into_iter().map(|(n, t)| constant(&mut m, n, t)).collect();
    let h = node(&mut m, "BatchNormalization", &[h, bn[0], bn[1], bn[2], bn[3]], "n");
    let h = node(&mut m, "Relu", &[h], "r");
    let w2 = constant(&mut m, "fc2.weight", random::normal(2, &[3, 16], 0.0, 0.3).unwrap());
    let b2 = constant(&mut m, "fc2.bias", Tensor::full(0f32, [3]).unwrap());
    let y = node(&mut m, "Gemm", &[h, w2, b2], "y");
    m.graph.outputs.push(y);
    m.verify().unwrap();
    m
}

/// Three classes: which of three fixed directions is strongest.
pub(crate) struct Toy {
    pub(crate) batches: u64,
}

impl Batches for Toy {
    fn batches(&self) -> u64 {
        self.batches
    }
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..self.batches).map(move |i| {
            let x = random::normal(random::derive(epoch, i), &[32, 8], 0.0, 1.0).unwrap();
            let labels: Vec<i64> = x
                .as_slice::<f32>()
                .unwrap()
                .chunks(8)
                .map(|r| [r[0] + r[1], r[2] + r[3], r[4] + r[5]])
                .map(|s| (0..3).max_by(|a, b| s[*a].total_cmp(&s[*b])).unwrap() as i64)
                .collect();
            Ok(Batch {
                inputs: BTreeMap::from([("x".into(), x)]),
                targets: BTreeMap::from([("label".into(), Tensor::vector(labels))]),
                ..Batch::default()
            })
        }))
    }
}

pub(crate) fn settings(epochs: u64) -> TrainSettings {
    TrainSettings {
        epochs,
        optimizer: Sgd { lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 1e-4 }.choice().unwrap(),
        schedule: Cosine { warm_up: 0.05, floor: 0.0 }.choice().unwrap(),
        ..TrainSettings::default()
    }
}
