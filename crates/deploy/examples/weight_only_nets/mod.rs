//! Networks whose weights are those of recurrent layers and embeddings, with seeded noise in place of trained weights.
use graph::{AttributeValue, Dim, Model, Node, Value, ValueId, ValueType};
use std::collections::BTreeMap;
use std::error::Error;
use tensor::{DType, Tensor, random};
use train::Batch;

const STEPS: usize = 20;
const SEQUENCES: usize = 8;
const WORDS: usize = 10_000;

type Network = (&'static str, Model, Vec<Batch>);

pub(crate) fn all() -> Result<Vec<Network>, Box<dyn Error>> {
    Ok(vec![recurrent("lstm", "LSTM", 4)?, recurrent("gru", "GRU", 3)?, words()?])
}

struct Builder {
    model: Model,
    seed: u64,
}

impl Builder {
    fn new() -> Self {
        let mut model = Model::new(17);
        model.graph.name = "network".into();
        Builder { model, seed: 0 }
    }

    fn typed(&mut self, name: &str, dtype: DType, shape: &[Option<usize>]) -> ValueId {
        let dims = shape.iter().map(|d| d.map_or(Dim::Symbol("n".into()), Dim::Known)).collect();
        self.model.values.add(Value { name: name.into(), ty: ValueType::Tensor { dtype, shape: Some(dims) }, ..Value::default() })
    }

    /// Noise with the standard deviation that keeps the size of what is multiplied with it.
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<ValueId, Box<dyn Error>> {
        self.seed += 1;
        let spread = 1.0 / (shape[shape.len() - 1] as f32).sqrt();
        Ok(self.constant(name, random::normal(self.seed, shape, 0.0, spread)?))
    }

    fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.model.values.add_constant(name, tensor);
        self.model.graph.constants.push(id);
        id
    }

    fn node(&mut self, op: &str, name: &str, inputs: &[ValueId]) -> ValueId {
        let output = self.model.values.add_named(format!("{name}_output"));
        self.model.graph.nodes.push(Node::new(op, name, inputs, &[output]));
        output
    }

    fn with(&mut self, name: &str, value: AttributeValue) {
        if let Some(node) = self.model.graph.nodes.last_mut() {
            node.attributes.set(name, value);
        }
    }

    /// A layer on the mean over `axis`, and the output.
    fn head(&mut self, from: ValueId, axis: i64, width: usize, classes: usize) -> Result<(), Box<dyn Error>> {
        let mean = self.node("ReduceMean", "mean", &[from]);
        self.with("axes", AttributeValue::Ints(vec![axis]));
        self.with("keepdims", AttributeValue::Int(0));
        let weight = self.weight("head.weight", &[classes, width])?;
        let y = self.typed("y", DType::F32, &[None, Some(classes)]);
        let gemm = Node::new("Gemm", "head", &[mean, weight], &[y]).with("transB", AttributeValue::Int(1));
        self.model.graph.nodes.push(gemm);
        self.model.graph.outputs.push(y);
        Ok(())
    }
}

/// Two recurrent layers of 256 cells over sequences of 64 numbers.
fn recurrent(name: &'static str, op: &str, gates: usize) -> Result<Network, Box<dyn Error>> {
    let (width, hidden) = (64, 256);
    let mut b = Builder::new();
    let x = b.typed("x", DType::F32, &[Some(STEPS), None, Some(width)]);
    b.model.graph.inputs.push(x);
    let mut at = x;
    for (i, width) in [width, hidden].into_iter().enumerate() {
        let w = b.weight(&format!("rnn{i}.weight_ih"), &[1, gates * hidden, width])?;
        let r = b.weight(&format!("rnn{i}.weight_hh"), &[1, gates * hidden, hidden])?;
        let bias = b.constant(&format!("rnn{i}.bias"), random::normal(90 + i as u64, &[1, 2 * gates * hidden], 0.0, 0.05)?);
        let y = b.node(op, &format!("rnn{i}"), &[at, w, r, bias]);
        b.with("hidden_size", AttributeValue::Int(hidden as i64));
        let axis = b.constant(&format!("axis{i}"), Tensor::vector(vec![1i64]));
        at = b.node("Squeeze", &format!("squeeze{i}"), &[y, axis]);
    }
    b.head(at, 0, hidden, 10)?;
    let mut rows = vec![];
    for seed in 0..8 {
        let x = random::normal(1000 + seed, &[STEPS, SEQUENCES, width], 0.0, 1.0)?;
        rows.push(Batch { inputs: BTreeMap::from([("x".to_string(), x)]), ..Batch::default() });
    }
    Ok((name, b.model, rows))
}

/// Words looked up in a table of 10,000 rows of 128 numbers, a layer on each word, and one on their mean.
fn words() -> Result<Network, Box<dyn Error>> {
    let width = 128;
    let mut b = Builder::new();
    let ids = b.typed("ids", DType::I64, &[None, Some(STEPS)]);
    b.model.graph.inputs.push(ids);
    let table = b.weight("embedding.weight", &[WORDS, width])?;
    let looked_up = b.node("Gather", "embedding", &[table, ids]);
    let layer = b.weight("layer.weight", &[width, width])?;
    let product = b.node("MatMul", "layer", &[looked_up, layer]);
    let active = b.node("Tanh", "tanh", &[product]);
    b.head(active, 1, width, 10)?;
    let mut rows = vec![];
    for seed in 0..8u64 {
        let pick = |i: usize| ((i as u64 + 1 + seed * 1000).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as i64 % WORDS as i64;
        let ids = Tensor::new((0..SEQUENCES * STEPS).map(pick).collect::<Vec<i64>>(), [SEQUENCES, STEPS])?;
        rows.push(Batch { inputs: BTreeMap::from([("ids".to_string(), ids)]), ..Batch::default() });
    }
    Ok(("embedding", b.model, rows))
}
