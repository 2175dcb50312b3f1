//! A block of a transformer for tests and examples: seeded noise in place of trained weights, with outliers planted in its
//! normalizations as trained ones have them.
#![allow(unreachable_pub, reason = "an example of another crate includes this file")]
use graph::{AttributeValue, Dim, Model, Node, ValueId, ValueType};
use tensor::{DType, Tensor, random};

/// Channels of the block, its heads, and the channels between the two layers of its second half.
pub const CHANNELS: usize = 48;
const HEADS: usize = 4;
const INNER: usize = 96;

/// Channels of the normalizations that are larger than the others.
const OUTLIERS: [usize; 3] = [3, 17, 40];

struct Build {
    model: Model,
    seed: u64,
}

impl Build {
    fn constant(&mut self, name: &str, value: Tensor) -> ValueId {
        let id = self.model.values.add_constant(name, value);
        self.model.graph.constants.push(id);
        id
    }

    fn noise(&mut self, shape: &[usize], mean: f32, deviation: f32) -> tensor::Result<Tensor> {
        self.seed += 1;
        random::normal(self.seed, shape, mean, deviation)
    }

    fn node(&mut self, name: &str, op: &str, inputs: &[ValueId]) -> ValueId {
        self.with(name, Node::new(op, name, inputs, &[]))
    }

    fn with(&mut self, name: &str, mut node: Node) -> ValueId {
        let out = self.model.values.add_named(format!("{name}.out"));
        node.outputs = vec![Some(out)];
        self.model.graph.nodes.push(node);
        out
    }

    /// A normalization with outliers `times` as large as the other channels.
    fn norm(&mut self, name: &str, x: ValueId, times: f32) -> tensor::Result<ValueId> {
        let outliers = |t: Tensor| {
            let mut t = t.to_f32_vec()?;
            OUTLIERS.iter().for_each(|c| t[*c] *= times);
            Tensor::new(t, [CHANNELS])
        };
        let (scale, shift) = (outliers(self.noise(&[CHANNELS], 1.0, 0.2)?)?, outliers(self.noise(&[CHANNELS], 0.0, 0.2)?)?);
        let (scale, shift) = (self.constant(&format!("{name}.scale"), scale), self.constant(&format!("{name}.shift"), shift));
        Ok(self.node(name, "LayerNormalization", &[x, scale, shift]))
    }

    /// A matrix product and the addition of its bias. The weights of outliers are as much smaller as `of_outliers` says.
    fn linear(&mut self, name: &str, x: ValueId, shape: [usize; 2], of_outliers: f32) -> tensor::Result<ValueId> {
        let mut weight = self.noise(&shape, 0.0, 1.0 / (shape[0] as f32).sqrt())?.to_f32_vec()?;
        for c in OUTLIERS {
            weight[c * shape[1]..(c + 1) * shape[1]].iter_mut().for_each(|w| *w *= of_outliers);
        }
        let bias = self.noise(&shape[1..], 0.0, 0.1)?;
        let (weight, bias) =
            (self.constant(&format!("{name}.weight"), Tensor::new(weight, shape)?), self.constant(&format!("{name}.bias"), bias));
        let product = self.node(name, "MatMul", &[x, weight]);
        Ok(self.node(&format!("{name}.add"), "Add", &[product, bias]))
    }

    fn transposed(&mut self, name: &str, x: ValueId, perm: &[i64]) -> ValueId {
        self.with(name, Node::new("Transpose", name, &[x], &[]).with("perm", AttributeValue::Ints(perm.to_vec())))
    }

    fn reshaped(&mut self, name: &str, x: ValueId, shape: &[i64]) -> ValueId {
        let shape = self.constant(&format!("{name}.shape"), Tensor::vector(shape.to_vec()));
        self.node(name, "Reshape", &[x, shape])
    }
}

/// `input` [n, tokens, [`CHANNELS`]] -> `out`, of the same shape: attention and two layers with Gelu, each behind a normalization and in front
/// of a residual sum. Some channels of the normalizations are `outliers` as large as the others, and their weights `1 / sqrt(outliers)`.
///
/// # Errors
/// None for positive finite numbers.
pub fn block(outliers: f32) -> tensor::Result<Model> {
    let mut b = Build { model: Model::new(21), seed: 11 };
    let x = b.model.values.add_named("input");
    let shape = vec![Dim::Symbol("n".into()), Dim::Symbol("tokens".into()), Dim::Known(CHANNELS)];
    b.model.values[x].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(shape) };
    b.model.graph.inputs.push(x);
    let (square, weights, width) = ([CHANNELS, CHANNELS], 1.0 / outliers.sqrt(), CHANNELS as i64);
    let norm = b.norm("norm1", x, outliers)?;
    let mut heads = |name: &str, perm: &[i64]| {
        let y = b.linear(name, norm, square, weights)?;
        let y = b.reshaped(&format!("{name}.heads"), y, &[0, 0, HEADS as i64, width / HEADS as i64]);
        Ok::<_, tensor::TensorError>(b.transposed(&format!("{name}.turned"), y, perm))
    };
    let (q, k, v) = (heads("q", &[0, 2, 1, 3])?, heads("k", &[0, 2, 3, 1])?, heads("v", &[0, 2, 1, 3])?);
    let scores = b.node("scores", "MatMul", &[q, k]);
    let factor = b.constant("factor", Tensor::scalar(((HEADS as f32) / CHANNELS as f32).sqrt()));
    let scores = b.node("scaled", "Mul", &[scores, factor]);
    let shares = b.node("softmax", "Softmax", &[scores]);
    let mixed = b.node("mixed", "MatMul", &[shares, v]);
    let mixed = b.transposed("mixed.turned", mixed, &[0, 2, 1, 3]);
    let mixed = b.reshaped("mixed.joined", mixed, &[0, 0, width]);
    let attention = b.linear("projection", mixed, square, 1.0)?;
    let x = b.node("sum1", "Add", &[x, attention]);
    let norm = b.norm("norm2", x, outliers)?;
    let y = b.linear("up", norm, [CHANNELS, INNER], weights)?;
    let y = b.node("gelu", "Gelu", &[y]);
    let y = b.linear("down", y, [INNER, CHANNELS], 1.0)?;
    let out = b.node("sum2", "Add", &[x, y]);
    b.model.values[out].name = "out".into();
    b.model.graph.outputs.push(out);
    Ok(b.model)
}
