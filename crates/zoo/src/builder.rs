//! Builds a graph layer by layer, keeping track of shapes, with parameters named as PyTorch names them.
use crate::init::Init;
use crate::{Result, ZooError, ZooOptions};
use graph::{AttributeValue, Dim, Model, Node, Value, ValueId, ValueType};
use tensor::{DType, Tensor, TensorError};

/// The opset of the zoo's graphs.
const OPSET: i64 = 17;
/// A weight with more elements than this is a mistake in the options, not a network for this tool.
const LARGEST_WEIGHT: usize = 1 << 28;

/// A value under construction with its shape, the batch left out.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) id: ValueId,
    pub(crate) shape: Vec<usize>,
}

/// Settings of a 2-D convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvSpec {
    out: usize,
    kernel: [usize; 2],
    stride: usize,
    /// Top, left, bottom, right.
    pads: [usize; 4],
    groups: usize,
    bias: bool,
}

impl ConvSpec {
    /// A square kernel with padding that keeps the size at stride 1; no bias, since a normalization follows.
    pub(crate) fn square(out: usize, kernel: usize, stride: usize) -> Self {
        ConvSpec { out, kernel: [kernel; 2], stride, pads: [kernel / 2; 4], groups: 1, bias: false }
    }

    /// One 3x3 filter for each channel.
    pub(crate) fn depthwise(channels: usize, stride: usize) -> Self {
        ConvSpec { groups: channels, ..Self::square(channels, 3, stride) }
    }

    /// Any kernel, with the padding that makes the output `ceil(input / stride)` (TensorFlow's SAME).
    pub(crate) fn same(out: usize, kernel: [usize; 2], stride: usize, input: &[usize]) -> Self {
        let total = |axis: usize| {
            let size = input.get(axis + 1).copied().unwrap_or(1);
            ((size.div_ceil(stride).max(1) - 1) * stride + kernel[axis]).saturating_sub(size)
        };
        let (h, w) = (total(0), total(1));
        ConvSpec { out, kernel, stride, pads: [h / 2, w / 2, h - h / 2, w - w / 2], groups: 1, bias: false }
    }

    /// The same convolution without padding.
    pub(crate) fn unpadded(self) -> Self {
        ConvSpec { pads: [0; 4], ..self }
    }

    /// The same convolution with a bias.
    pub(crate) fn with_bias(self) -> Self {
        ConvSpec { bias: true, ..self }
    }
}

/// A graph under construction.
pub(crate) struct Builder {
    architecture: &'static str,
    seed: u64,
    model: Model,
}

impl Builder {
    /// A graph with one input `input` of shape `[N, ...]`.
    pub(crate) fn new(architecture: &'static str, options: &ZooOptions) -> (Self, Flow) {
        let mut model = Model::new(OPSET);
        model.graph.name = architecture.to_string();
        model.producer_name = "espalier".to_string();
        model.producer_version = env!("CARGO_PKG_VERSION").to_string();
        let id = model.values.add(Value { name: "input".into(), ty: batched(&options.input), ..Value::default() });
        model.graph.inputs.push(id);
        (Builder { architecture, seed: options.seed, model }, Flow { id, shape: options.input.clone() })
    }

    /// Makes `output` the graph's output under the name `logits`, and checks the graph.
    pub(crate) fn finish(mut self, output: Flow) -> Result<Model> {
        self.model.values[output.id].name = "logits".to_string();
        self.model.graph.outputs.push(output.id);
        self.model.graph.value_info.retain(|v| *v != output.id);
        self.model.verify()?;
        Ok(self.model)
    }

    /// Convolution `x * w (+ b)`: parameters `name.weight` `[out, in / groups, kh, kw]` and `name.bias` `[out]`.
    pub(crate) fn conv(&mut self, x: &Flow, name: &str, spec: ConvSpec) -> Result<Flow> {
        let [c, h, w] = self.image(x, name)?;
        let out = |size: usize, axis: usize| {
            (size + spec.pads[axis] + spec.pads[axis + 2]).checked_sub(spec.kernel[axis]).map(|room| room / spec.stride + 1)
        };
        let (Some(oh), Some(ow)) = (out(h, 0), out(w, 1)) else {
            return Err(self.misfit(x, name, format!("its {}x{} kernel is larger", spec.kernel[0], spec.kernel[1])));
        };
        let [kh, kw] = spec.kernel;
        let shape = [spec.out, c / spec.groups, kh, kw];
        let fan_in = shape[1] * kh * kw;
        let init = if spec.bias { Init::FanInUniform } else { Init::HeNormal };
        let mut inputs = vec![x.id, self.parameter(&format!("{name}.weight"), &shape, fan_in, init)?];
        if spec.bias {
            inputs.push(self.parameter(&format!("{name}.bias"), &[spec.out], fan_in, Init::FanInUniform)?);
        }
        let ints = |list: &[usize]| AttributeValue::Ints(list.iter().map(|v| *v as i64).collect());
        let node = self
            .node("Conv", name, &inputs)
            .with("dilations", ints(&[1, 1]))
            .with("group", AttributeValue::Int(spec.groups as i64))
            .with("kernel_shape", ints(&spec.kernel))
            .with("pads", ints(&spec.pads))
            .with("strides", ints(&[spec.stride; 2]));
        Ok(self.push(node, name, vec![spec.out, oh, ow]))
    }

    /// Normalization over the batch: `name.weight`, `name.bias`, `name.running_mean`, `name.running_var`, all `[c]`.
    pub(crate) fn batch_norm(&mut self, x: &Flow, name: &str) -> Result<Flow> {
        let c = self.image(x, name)?[0];
        let mut inputs = vec![x.id];
        for (suffix, value) in [("weight", 1f32), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
            inputs.push(self.constant(&format!("{name}.{suffix}"), vec![value; c], vec![c])?);
        }
        let node = self
            .node("BatchNormalization", name, &inputs)
            .with("epsilon", AttributeValue::Float(1e-5))
            .with("momentum", AttributeValue::Float(0.9));
        Ok(self.push(node, name, x.shape.clone()))
    }

    /// Convolution and batch normalization, without activation.
    pub(crate) fn conv_bn(&mut self, x: &Flow, conv: &str, bn: &str, spec: ConvSpec) -> Result<Flow> {
        let y = self.conv(x, conv, spec)?;
        self.batch_norm(&y, bn)
    }

    /// Fully connected layer: `name.weight` `[out, in]`, `name.bias` `[out]`.
    pub(crate) fn linear(&mut self, x: &Flow, name: &str, out: usize) -> Result<Flow> {
        let [features] = x.shape[..] else { return Err(self.misfit(x, name, "it takes one axis of features".into())) };
        let inputs = [
            x.id,
            self.parameter(&format!("{name}.weight"), &[out, features], features, Init::FanInUniform)?,
            self.parameter(&format!("{name}.bias"), &[out], features, Init::FanInUniform)?,
        ];
        let node = self.node("Gemm", name, &inputs).with("transB", AttributeValue::Int(1));
        Ok(self.push(node, name, vec![out]))
    }

    pub(crate) fn relu(&mut self, x: &Flow, name: &str) -> Flow {
        let node = self.node("Relu", name, &[x.id]);
        self.push(node, name, x.shape.clone())
    }

    /// Clips to 0..6.
    pub(crate) fn relu6(&mut self, x: &Flow, name: &str) -> Result<Flow> {
        let limits = [self.shared_constant("relu6.min", vec![0f32], vec![])?, self.shared_constant("relu6.max", vec![6f32], vec![])?];
        let node = self.node("Clip", name, &[x.id, limits[0], limits[1]]);
        Ok(self.push(node, name, x.shape.clone()))
    }

    pub(crate) fn add(&mut self, a: &Flow, b: &Flow, name: &str) -> Flow {
        let node = self.node("Add", name, &[a.id, b.id]);
        self.push(node, name, a.shape.clone())
    }

    pub(crate) fn max_pool(&mut self, x: &Flow, name: &str, kernel: usize, stride: usize, pad: usize) -> Result<Flow> {
        let [c, h, w] = self.image(x, name)?;
        let out = |size: usize| (size + 2 * pad).checked_sub(kernel).map(|room| room / stride + 1);
        let (Some(oh), Some(ow)) = (out(h), out(w)) else {
            return Err(self.misfit(x, name, format!("its {kernel}x{kernel} window is larger")));
        };
        let ints = |v: usize, n: usize| AttributeValue::Ints(vec![v as i64; n]);
        let node = self
            .node("MaxPool", name, &[x.id])
            .with("kernel_shape", ints(kernel, 2))
            .with("pads", ints(pad, 4))
            .with("strides", ints(stride, 2));
        Ok(self.push(node, name, vec![c, oh, ow]))
    }

    /// Mean over all positions, as one vector of channels.
    pub(crate) fn global_average_pool(&mut self, x: &Flow, name: &str) -> Result<Flow> {
        let c = self.image(x, name)?[0];
        let node = self.node("GlobalAveragePool", name, &[x.id]);
        let pooled = self.push(node, name, vec![c, 1, 1]);
        Ok(self.flatten(&pooled, "flatten"))
    }

    pub(crate) fn flatten(&mut self, x: &Flow, name: &str) -> Flow {
        let node = self.node("Flatten", name, &[x.id]).with("axis", AttributeValue::Int(1));
        self.push(node, name, vec![x.shape.iter().product()])
    }

    /// Every second position along both image axes.
    pub(crate) fn subsample(&mut self, x: &Flow, name: &str) -> Result<Flow> {
        let [c, h, w] = self.image(x, name)?;
        let inputs = [
            x.id,
            self.shared_constant("subsample.starts", vec![0i64, 0], vec![2])?,
            self.shared_constant("subsample.ends", vec![i64::MAX; 2], vec![2])?,
            self.shared_constant("subsample.axes", vec![2i64, 3], vec![2])?,
            self.shared_constant("subsample.steps", vec![2i64, 2], vec![2])?,
        ];
        let node = self.node("Slice", name, &inputs);
        Ok(self.push(node, name, vec![c, h.div_ceil(2), w.div_ceil(2)]))
    }

    /// Adds zero channels before and after, as evenly as possible, up to `channels`.
    pub(crate) fn pad_channels(&mut self, x: &Flow, name: &str, channels: usize) -> Result<Flow> {
        let [c, h, w] = self.image(x, name)?;
        let more = channels.saturating_sub(c) as i64;
        let pads = self.constant(&format!("{name}.pads"), vec![0, more / 2, 0, 0, 0, more - more / 2, 0, 0], vec![8])?;
        let node = self.node("Pad", name, &[x.id, pads]).with("mode", AttributeValue::String(b"constant".to_vec()));
        Ok(self.push(node, name, vec![channels.max(c), h, w]))
    }

    fn node(&self, op_type: &str, name: &str, inputs: &[ValueId]) -> Node {
        Node::new(op_type, format!("/{name}"), inputs, &[])
    }

    fn push(&mut self, mut node: Node, name: &str, shape: Vec<usize>) -> Flow {
        let id = self.model.values.add(Value { name: name.to_string(), ty: batched(&shape), ..Value::default() });
        node.outputs.push(Some(id));
        self.model.graph.nodes.push(node);
        self.model.graph.value_info.push(id);
        Flow { id, shape }
    }

    fn parameter(&mut self, name: &str, shape: &[usize], fan_in: usize, init: Init) -> Result<ValueId> {
        let fits = tensor::shape::count(shape).is_ok_and(|n| n <= LARGEST_WEIGHT);
        if !fits {
            let source =
                TensorError::shape("initialise", format!("shape {shape:?} has more than {LARGEST_WEIGHT} elements; use a smaller width"));
            return Err(ZooError::Parameter { name: name.to_string(), source });
        }
        let tensor = init.draw(self.seed, name, shape, fan_in).map_err(|source| ZooError::Parameter { name: name.to_string(), source })?;
        Ok(self.initializer(name, tensor))
    }

    fn constant<T: tensor::Element>(&mut self, name: &str, data: Vec<T>, shape: Vec<usize>) -> Result<ValueId> {
        let tensor = Tensor::new(data, shape).map_err(|source| ZooError::Parameter { name: name.to_string(), source })?;
        Ok(self.initializer(name, tensor))
    }

    fn shared_constant<T: tensor::Element>(&mut self, name: &str, data: Vec<T>, shape: Vec<usize>) -> Result<ValueId> {
        match self.model.graph.constants.iter().find(|v| self.model.values[**v].name == name) {
            Some(id) => Ok(*id),
            None => self.constant(name, data, shape),
        }
    }

    fn initializer(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.model.values.add_constant(name, tensor);
        self.model.graph.constants.push(id);
        id
    }

    fn image(&self, x: &Flow, layer: &str) -> Result<[usize; 3]> {
        match x.shape[..] {
            [c, h, w] => Ok([c, h, w]),
            _ => Err(self.misfit(x, layer, "it takes channels, height and width".into())),
        }
    }

    fn misfit(&self, x: &Flow, layer: &str, what: String) -> ZooError {
        ZooError::Layer { architecture: self.architecture.into(), layer: layer.into(), shape: x.shape.clone(), what }
    }
}

/// An f32 tensor type with a symbolic batch in front.
fn batched(shape: &[usize]) -> ValueType {
    let batch = std::iter::once(Dim::Symbol("N".into()));
    ValueType::Tensor { dtype: DType::F32, shape: Some(batch.chain(shape.iter().map(|d| Dim::Known(*d))).collect()) }
}
