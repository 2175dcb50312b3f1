//! Networks of every kind, cut by a third of their channels: the smaller graph computes what the graph with zeros computes, and the layers
//! that keep all are told with the operator that forbids it.
use super::*;
use crate::ImportanceContext;
use graph::{AttributeValue, Dim, Model, Node, Value, ValueId, ValueType};
use std::collections::BTreeMap;
use tensor::{DType, Tensor, random};
use train::{Executor, Mode};

mod empty;

/// A small graph, built node by node.
struct Net {
    model: Model,
    seed: u64,
    input: Vec<usize>,
}

impl Net {
    /// With one input of this shape, whose first axis is an open batch.
    fn new(shape: &[usize]) -> (Net, ValueId) {
        let mut model = Model::new(17);
        let dims = shape.iter().enumerate().map(|(i, d)| if i == 0 { Dim::Symbol("n".into()) } else { Dim::Known(*d) }).collect();
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(dims) };
        let x = model.values.add(Value { name: "x".into(), ty, ..Value::default() });
        model.graph.inputs.push(x);
        (Net { model, seed: 1, input: shape.to_vec() }, x)
    }

    fn weight(&mut self, shape: &[usize]) -> ValueId {
        self.seed += 1;
        let tensor = random::uniform(self.seed, shape, -0.7, 0.7).unwrap();
        self.constant(tensor)
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = self.model.fresh_name("w");
        let id = self.model.values.add_constant(name, tensor);
        self.model.graph.constants.push(id);
        id
    }

    fn ints(&mut self, list: &[i64]) -> ValueId {
        self.constant(Tensor::vector(list.to_vec()))
    }

    fn nodes(&mut self, op: &str, inputs: &[ValueId], outputs: usize, attributes: &[(&str, &[i64])]) -> Vec<ValueId> {
        let outs: Vec<ValueId> = (0..outputs)
            .map(|_| {
                let name = self.model.fresh_name(&op.to_lowercase());
                self.model.values.add_named(name)
            })
            .collect();
        let mut node = Node::new(op, self.model.values[outs[0]].name.clone(), inputs, &outs);
        for (name, list) in attributes {
            let scalar = ["axis", "group", "blocksize", "transB", "hidden_size", "keepdims"].contains(name);
            node.attributes.set(name, if scalar { AttributeValue::Int(list[0]) } else { AttributeValue::Ints(list.to_vec()) });
        }
        self.model.graph.nodes.push(node);
        outs
    }

    fn op(&mut self, op: &str, inputs: &[ValueId], attributes: &[(&str, &[i64])]) -> ValueId {
        self.nodes(op, inputs, 1, attributes)[0]
    }

    fn conv(&mut self, x: ValueId, filters: usize, planes: usize, kernel: usize, groups: usize) -> ValueId {
        let w = self.weight(&[filters, planes, kernel, kernel]);
        let b = self.weight(&[filters]);
        let p = (kernel / 2) as i64;
        self.op("Conv", &[x, w, b], &[("group", &[groups as i64]), ("pads", &[p, p, p, p])])
    }

    /// Convolution, normalization, activation.
    fn block(&mut self, x: ValueId, filters: usize, planes: usize, kernel: usize, groups: usize) -> ValueId {
        let y = self.conv(x, filters, planes, kernel, groups);
        let (scale, shift, mean) = (self.weight(&[filters]), self.weight(&[filters]), self.weight(&[filters]));
        let variance = self.constant(random::uniform(self.seed, &[filters], 0.5, 1.5).unwrap());
        let y = self.op("BatchNormalization", &[y, scale, shift, mean, variance], &[]);
        self.op("Relu", &[y], &[])
    }

    fn dense(&mut self, x: ValueId, inputs: usize, outputs: usize) -> ValueId {
        let (w, b) = (self.weight(&[inputs, outputs]), self.weight(&[outputs]));
        let y = self.op("MatMul", &[x, w], &[]);
        self.op("Add", &[y, b], &[])
    }

    /// Mean over the image, and a linear layer.
    fn head(mut self, x: ValueId, channels: usize) -> Net {
        let y = self.op("GlobalAveragePool", &[x], &[]);
        let y = self.op("Flatten", &[y], &[]);
        let (w, b) = (self.weight(&[5, channels]), self.weight(&[5]));
        let y = self.op("Gemm", &[y, w, b], &[("transB", &[1])]);
        self.end(y)
    }

    fn end(mut self, y: ValueId) -> Net {
        self.model.graph.outputs.push(y);
        self.model.verify().unwrap();
        self
    }

    fn run(&self, model: &Model) -> Vec<f32> {
        let x = random::uniform(9, &self.input, -1.0, 1.0).unwrap();
        let out = Executor::new(model).unwrap().run(&BTreeMap::from([("x".into(), x)]), Mode::FLOAT).unwrap();
        let y = model.graph.outputs.iter().map(|o| &out[&model.values[*o].name]);
        y.flat_map(|t| t.to_f32_vec().unwrap()).collect()
    }

    fn groups(&self) -> Groups {
        groups(&self.model, &BTreeMap::new()).unwrap()
    }

    fn name(&self, id: ValueId) -> &str {
        &self.model.values[id].name
    }

    /// Removes this share of the channels and compares; returns the sizes of the groups before and after.
    fn proved(&self, share: f64) -> Vec<(usize, usize)> {
        let found = self.groups();
        let remove = Remove { channels: Some(share), ..Remove::default() };
        let settings = ChannelSettings::new(remove);
        let chosen = choose(&ImportanceContext::new(&self.model), &found, &settings).unwrap();
        assert!(!chosen.removed.is_empty());
        let zeros = zeroed(&self.model, &chosen.removed).unwrap();
        let mut smaller = self.model.clone();
        cut(&mut smaller, &found, &chosen.removed).unwrap();
        smaller.verify().unwrap();
        let (wanted, got) = (self.run(&zeros), self.run(&smaller));
        let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest > 1e-3 && wanted.len() == got.len());
        assert_ne!(wanted, self.run(&self.model), "nothing was removed");
        let worst = wanted.iter().zip(&got).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 2e-5 * largest, "{worst} of {largest}");
        // What was counted is what the smaller graph has.
        let count = |m: &Model| -> u64 { m.values.iter().filter_map(|(_, v)| v.constant.as_ref()).map(|c| c.tensor.len() as u64).sum() };
        assert!(count(&smaller) < count(&self.model));
        chosen.groups
    }

    fn held(&self) -> Vec<String> {
        self.groups().held.into_iter().map(|h| format!("{}: {}", h.layer, h.reason)).collect()
    }
}

#[test]
fn a_plain_network_and_what_it_keeps() {
    let (mut net, x) = Net::new(&[2, 3, 8, 8]);
    let y = net.block(x, 6, 3, 3, 1);
    let y = net.op("MaxPool", &[y], &[("kernel_shape", &[2, 2]), ("strides", &[2, 2])]);
    let y = net.block(y, 9, 6, 3, 1);
    let y = net.op("Flatten", &[y], &[]);
    let y = net.dense(y, 9 * 16, 4);
    let net = net.end(y);
    assert_eq!(net.proved(0.4).iter().map(|g| g.0).collect::<Vec<_>>(), [6, 9]);
    assert_eq!(net.held(), [format!("matmul: '{}' is an output of the network", net.name(y))]);
}

#[test]
fn residual_sums_join_what_they_add() {
    let (mut net, x) = Net::new(&[2, 3, 8, 8]);
    let stem = net.block(x, 6, 3, 3, 1);
    let inner = net.block(stem, 7, 6, 3, 1);
    let branch = net.conv(inner, 6, 7, 3, 1);
    let sum = net.op("Add", &[stem, branch], &[]);
    // A projection.
    let inner = net.block(sum, 8, 6, 3, 1);
    let branch = net.conv(inner, 10, 8, 1, 1);
    let shortcut = net.conv(sum, 10, 6, 1, 1);
    let sum = net.op("Add", &[branch, shortcut], &[]);
    let net = net.head(sum, 10);
    assert_eq!(net.groups().groups.iter().map(|g| g.channels.len()).collect::<Vec<_>>(), [6, 7, 8, 10]);
    net.proved(0.35);
}

#[test]
fn a_padded_shortcut_keeps_its_order() {
    let (mut net, x) = Net::new(&[2, 3, 8, 8]);
    let stem = net.block(x, 6, 3, 3, 1);
    let (starts, ends, axes, steps) = (net.ints(&[0, 0]), net.ints(&[i64::MAX, i64::MAX]), net.ints(&[2, 3]), net.ints(&[2, 2]));
    let half = net.op("Slice", &[stem, starts, ends, axes, steps], &[]);
    let pads = net.ints(&[0, 2, 0, 0, 0, 3, 0, 0]);
    let shortcut = net.op("Pad", &[half, pads], &[]);
    let w = net.weight(&[11, 6, 3, 3]);
    let branch = net.op("Conv", &[stem, w], &[("pads", &[1, 1, 1, 1]), ("strides", &[2, 2])]);
    let sum = net.op("Add", &[shortcut, branch], &[]);
    let net = net.head(sum, 11);
    // The stem's channels go with their sums; the padded ones go by themselves.
    let sizes = net.proved(0.4);
    assert_eq!(sizes.iter().map(|g| g.0).sum::<usize>(), 11);
}

#[test]
fn dense_and_inception_concats() {
    let (mut net, x) = Net::new(&[2, 3, 6, 6]);
    let a = net.block(x, 4, 3, 3, 1);
    let b = net.block(a, 5, 4, 3, 1);
    let ab = net.op("Concat", &[a, b], &[("axis", &[1])]);
    let c = net.block(ab, 6, 9, 1, 1);
    let abc = net.op("Concat", &[ab, c], &[("axis", &[1])]);
    let net = net.head(abc, 15);
    assert_eq!(net.proved(0.4).iter().map(|g| g.0).collect::<Vec<_>>(), [4, 5, 6]);
}

#[test]
fn a_shuffled_unit_keeps_its_groups_even() {
    let (mut net, x) = Net::new(&[2, 3, 6, 6]);
    let y = net.block(x, 12, 3, 1, 1);
    let y = net.block(y, 12, 4, 1, 3);
    let (wide, flat) = (net.ints(&[0, 3, 4, 6, 6]), net.ints(&[0, -1, 6, 6]));
    let y = net.op("Reshape", &[y, wide], &[]);
    let y = net.op("Transpose", &[y], &[("perm", &[0, 2, 1, 3, 4])]);
    let y = net.op("Reshape", &[y, flat], &[]);
    let y = net.block(y, 12, 1, 3, 12);
    let y = net.block(y, 12, 4, 1, 3);
    let parts = net.ints(&[5, 7]);
    let halves = net.nodes("Split", &[y, parts], 2, &[("axis", &[1])]);
    let left = net.block(halves[0], 7, 5, 3, 1);
    let y = net.op("Add", &[left, halves[1]], &[]);
    let net = net.head(y, 7);
    net.proved(0.3);
}

#[test]
fn depthwise_with_squeeze_and_excite() {
    let (mut net, x) = Net::new(&[2, 3, 6, 6]);
    let y = net.block(x, 8, 3, 1, 1);
    let y = net.block(y, 8, 1, 3, 8);
    let s = net.op("ReduceMean", &[y], &[("axes", &[2, 3]), ("keepdims", &[1])]);
    let s = net.conv(s, 4, 8, 1, 1);
    let s = net.op("Relu", &[s], &[]);
    let s = net.conv(s, 8, 4, 1, 1);
    let s = net.op("HardSigmoid", &[s], &[]);
    let y = net.op("Mul", &[y, s], &[]);
    let y = net.block(y, 6, 8, 1, 1);
    let net = net.head(y, 6);
    assert_eq!(net.proved(0.4).iter().map(|g| g.0).collect::<Vec<_>>(), [8, 4, 6]);
}

#[test]
fn a_depthwise_multiplier() {
    let (mut net, x) = Net::new(&[2, 3, 6, 6]);
    let y = net.block(x, 5, 3, 1, 1);
    let y = net.block(y, 10, 1, 3, 5);
    let net = net.head(y, 10);
    assert_eq!(net.proved(0.4), [(5, 3)]);
}

#[test]
fn pyramids_and_u_nets() {
    let (mut net, x) = Net::new(&[2, 3, 8, 8]);
    let fine = net.block(x, 5, 3, 3, 1);
    let small = net.op("MaxPool", &[fine], &[("kernel_shape", &[2, 2]), ("strides", &[2, 2])]);
    let coarse = net.block(small, 7, 5, 3, 1);
    // Top-down with a lateral sum.
    let top = net.conv(coarse, 6, 7, 1, 1);
    let (empty, scales) = (net.constant(Tensor::vector(Vec::<f32>::new())), net.constant(Tensor::vector(vec![1f32, 1.0, 2.0, 2.0])));
    let up = net.op("Resize", &[top, empty, scales], &[]);
    let lateral = net.conv(fine, 6, 5, 1, 1);
    let sum = net.op("Add", &[up, lateral], &[]);
    // A transposed convolution and a skip.
    let (w, b) = (net.weight(&[7, 4, 2, 2]), net.weight(&[4]));
    let grown = net.op("ConvTranspose", &[coarse, w, b], &[("strides", &[2, 2])]);
    let joined = net.op("Concat", &[grown, sum], &[("axis", &[1])]);
    let shallow = net.conv(joined, 12, 10, 3, 1);
    let pixels = net.op("DepthToSpace", &[shallow], &[("blocksize", &[2])]);
    let net = net.head(pixels, 3);
    // Four planes of the shallow layer become one channel.
    let sizes = net.proved(0.4);
    assert_eq!(sizes.iter().map(|g| g.0).collect::<Vec<_>>(), [5, 7, 6, 4, 3]);
}

#[test]
fn recurrent_stacks() {
    let (mut net, x) = Net::new(&[2, 5, 3]);
    let y = net.op("Transpose", &[x], &[("perm", &[1, 0, 2])]);
    let (w, r, b) = (net.weight(&[2, 24, 3]), net.weight(&[2, 24, 6]), net.weight(&[2, 48]));
    let y = net.op("LSTM", &[y, w, r, b], &[("hidden_size", &[6])]);
    let node = net.model.graph.nodes.last_mut().unwrap();
    node.attributes.set("direction", AttributeValue::String(b"bidirectional".to_vec()));
    let y = net.op("Transpose", &[y], &[("perm", &[0, 2, 1, 3])]);
    let shape = net.ints(&[0, 0, -1]);
    let y = net.op("Reshape", &[y, shape], &[]);
    let (w, r, b) = (net.weight(&[1, 15, 12]), net.weight(&[1, 15, 5]), net.weight(&[1, 30]));
    let y = net.op("GRU", &[y, w, r, b], &[("hidden_size", &[5])]);
    let axes = net.ints(&[1]);
    let y = net.op("Squeeze", &[y, axes], &[]);
    let y = net.dense(y, 5, 4);
    let net = net.end(y);
    assert_eq!(net.proved(0.4).iter().map(|g| g.0).collect::<Vec<_>>(), [6, 5]);
}

/// Attention over 6 steps of 8 features with 4 heads of 3: projections as one matrix or as three.
fn transformer(fused: bool) -> Net {
    let (mut net, x) = Net::new(&[2, 6, 8]);
    let heads: Vec<ValueId> = if fused {
        let y = net.dense(x, 8, 36);
        let shape = net.ints(&[0, 0, 3, 4, 3]);
        let y = net.op("Reshape", &[y, shape], &[]);
        let y = net.op("Transpose", &[y], &[("perm", &[2, 0, 3, 1, 4])]);
        (0..3)
            .map(|i| {
                let index = net.constant(Tensor::scalar(i as i64));
                net.op("Gather", &[y, index], &[("axis", &[0])])
            })
            .collect()
    } else {
        (0..3)
            .map(|_| {
                let y = net.dense(x, 8, 12);
                let shape = net.ints(&[0, 0, 4, 3]);
                let y = net.op("Reshape", &[y, shape], &[]);
                net.op("Transpose", &[y], &[("perm", &[0, 2, 1, 3])])
            })
            .collect()
    };
    let keys = net.op("Transpose", &[heads[1]], &[("perm", &[0, 1, 3, 2])]);
    let scores = net.op("MatMul", &[heads[0], keys], &[]);
    let factor = net.constant(Tensor::scalar(0.57f32));
    let scores = net.op("Mul", &[scores, factor], &[]);
    let shares = net.op("Softmax", &[scores], &[("axis", &[-1])]);
    let y = net.op("MatMul", &[shares, heads[2]], &[]);
    let y = net.op("Transpose", &[y], &[("perm", &[0, 2, 1, 3])]);
    let shape = net.ints(&[0, 0, 12]);
    let y = net.op("Reshape", &[y, shape], &[]);
    let y = net.dense(y, 12, 8);
    let y = net.op("Add", &[x, y], &[]);
    let (scale, shift) = (net.weight(&[8]), net.weight(&[8]));
    let y = net.op("LayerNormalization", &[y, scale, shift], &[]);
    let hidden = net.dense(y, 8, 16);
    let hidden = net.op("Tanh", &[hidden], &[]);
    let z = net.dense(hidden, 16, 8);
    let y = net.op("Add", &[y, z], &[]);
    net.end(y)
}

#[test]
fn attention_loses_whole_heads() {
    for fused in [true, false] {
        let net = transformer(fused);
        let sizes = net.proved(0.4);
        assert_eq!(sizes.iter().map(|g| g.0).collect::<Vec<_>>(), [4, 16], "fused: {fused}");
    }
}

#[test]
fn shared_weights_are_cut_once() {
    let (mut net, x) = Net::new(&[2, 6, 6, 6]);
    let w = net.weight(&[6, 6, 3, 3]);
    let y = net.block(x, 6, 6, 1, 1);
    let y = net.op("Conv", &[y, w], &[("pads", &[1, 1, 1, 1])]);
    let y = net.op("Relu", &[y], &[]);
    let y = net.op("Conv", &[y, w], &[("pads", &[1, 1, 1, 1])]);
    let net = net.head(y, 6);
    assert_eq!(net.proved(0.4).len(), 1);
}

#[test]
fn heads_that_are_outputs_stay() {
    let (mut net, x) = Net::new(&[2, 3, 6, 6]);
    let y = net.block(x, 6, 3, 3, 1);
    let boxes = net.conv(y, 4, 6, 1, 1);
    let scores = net.conv(y, 3, 6, 1, 1);
    let scores = net.op("Sigmoid", &[scores], &[]);
    let y = net.op("Concat", &[boxes, scores], &[("axis", &[1])]);
    let net = net.end(y);
    assert_eq!(net.proved(0.4).iter().map(|g| g.0).collect::<Vec<_>>(), [6]);
    assert_eq!(net.held(), ["conv_1: 'concat' is an output of the network", "conv_2: 'concat' is an output of the network"]);
}

#[test]
fn masks_and_scales_are_cut_with_their_weight() {
    let (mut net, x) = Net::new(&[2, 3, 6, 6]);
    let y = net.block(x, 6, 3, 3, 1);
    let net = net.head(y, 6);
    let mut model = net.model.clone();
    let w = model.find("w").unwrap();
    let mask: Vec<bool> = (0..6 * 27).map(|i| i % 5 != 0).collect();
    let scale = Tensor::vector((1..=6).map(|i| i as f32).collect::<Vec<_>>());
    let entry = model.annotations.entry(w);
    entry.mask = Some(Tensor::new(mask.clone(), [6, 3, 3, 3]).unwrap());
    let settings = BTreeMap::from([("axis".to_string(), graph::Setting::Int(0))]);
    let parameters = BTreeMap::from([("scale".to_string(), scale)]);
    entry.encoding = Some(graph::Encoding { kind: "affine".into(), settings, parameters });
    let found = groups(&model, &BTreeMap::new()).unwrap();
    let gone: Vec<&Channel> = [1, 4].iter().map(|c| &found.groups[0].channels[*c]).collect();
    cut(&mut model, &found, &gone).unwrap();
    let annotation = model.annotations.get(w).unwrap();
    let kept: Vec<bool> = mask.chunks(27).enumerate().filter(|(i, _)| ![1, 4].contains(i)).flat_map(|(_, c)| c.to_vec()).collect();
    assert_eq!(annotation.mask.as_ref().unwrap().as_slice::<bool>().unwrap(), kept);
    let scale = &annotation.encoding.as_ref().unwrap().parameters["scale"];
    assert_eq!(scale.as_slice::<f32>().unwrap(), [1.0, 3.0, 4.0, 6.0]);
    // Tables of values are not taken for scales of channels.
    let mut model = net.model.clone();
    let parameters = BTreeMap::from([("table".to_string(), Tensor::vector(vec![0f32; 6]))]);
    let settings = BTreeMap::from([("axis".to_string(), graph::Setting::Int(0))]);
    model.annotations.entry(w).encoding = Some(graph::Encoding { kind: "codebook".into(), settings, parameters });
    let unchanged = model.clone();
    let refused = cut(&mut model, &found, &gone).unwrap_err().to_string();
    assert!(refused.contains("'w' is stored as") && refused.contains("before quantizing"), "{refused}");
    assert_eq!(model, unchanged);
}

#[test]
fn targets_and_multiples_are_met_or_refused() {
    let (mut net, x) = Net::new(&[2, 3, 8, 8]);
    let y = net.block(x, 16, 3, 3, 1);
    let y = net.block(y, 24, 16, 3, 1);
    let net = net.head(y, 24);
    let found = net.groups();
    let context = ImportanceContext::new(&net.model);
    let with = |remove: Remove| ChannelSettings { round_to: 8, ..ChannelSettings::new(remove) };
    let chosen = choose(&context, &found, &with(Remove { macs: Some(0.5), ..Remove::default() })).unwrap();
    assert!((chosen.macs.0 - chosen.macs.1) * 2 >= chosen.macs.0, "{:?}", chosen.macs);
    assert!(chosen.groups.iter().all(|(_, after)| after % 8 == 0), "{:?}", chosen.groups);
    let all = choose(&context, &found, &with(Remove { parameters: Some(0.99), ..Remove::default() })).unwrap_err().to_string();
    assert!(all.contains("at most"), "{all}");
    let mut smaller = net.model.clone();
    cut(&mut smaller, &found, &chosen.removed).unwrap();
    let shapes = groups(&smaller, &BTreeMap::new()).unwrap();
    let again =
        choose(&ImportanceContext::new(&smaller), &shapes, &ChannelSettings::new(Remove { channels: Some(0.0), ..Remove::default() }));
    assert_eq!(again.unwrap().macs.0, chosen.macs.1);
}

#[test]
fn emptied_channels_go_without_a_change() {
    let (mut net, x) = Net::new(&[2, 3, 6, 6]);
    let y = net.block(x, 6, 3, 3, 1);
    let y = net.block(y, 6, 6, 3, 1);
    let mut net = net.head(y, 6);
    let named: Vec<ValueId> = net.model.graph.nodes.iter().filter(|n| n.op_type == "Conv").filter_map(|n| n.input(1)).collect();
    let mask = |net: &mut Net, weight: ValueId, zero: &dyn Fn(usize, usize) -> bool| {
        let shape = net.model.values.tensor(weight).unwrap().shape().to_vec();
        let list: Vec<bool> = (0..shape.iter().product()).map(|i| !zero(i / (9 * shape[1]), i / 9 % shape[1])).collect();
        net.model.annotations.entry(weight).mask = Some(Tensor::new(list, shape).unwrap());
    };
    // Nothing reads channels 1 and 4 of the first layer; nothing computes 0, 2 and 3 of the second.
    mask(&mut net, named[1], &|filter, plane| [1, 4].contains(&plane) || [0, 2, 3].contains(&filter));
    // A shift below zero ends at zero behind the activation, one above it does not.
    let norm = net.model.graph.nodes.iter().filter(|n| n.op_type == "BatchNormalization").nth(1).unwrap();
    let (scale, shift) = (norm.input(1).unwrap(), norm.input(2).unwrap());
    net.model.values.set_tensor(scale, Tensor::vector(vec![0f32, 1.0, 0.0, 0.0, 1.0, 1.0]));
    net.model.values.set_tensor(shift, Tensor::vector(vec![-0.5f32, 0.1, 0.5, -0.1, 0.2, 0.3]));
    let found = net.groups();
    let sample = BTreeMap::from([("x".to_string(), random::uniform(9, &net.input, -1.0, 1.0).unwrap())]);
    let empty = dead(&net.model, &found, &sample).unwrap();
    let mut indices: Vec<(usize, usize)> = empty.iter().map(|c| (c.places.len(), c.places[0].index)).collect();
    indices.sort_unstable();
    let gone: Vec<usize> = indices.iter().map(|(_, i)| *i).collect();
    assert_eq!(gone.len(), 4, "{indices:?}");
    let simulated = |m: &Model| Executor::new(m).unwrap().run(&sample, Mode::SIMULATED).unwrap().into_values().next().unwrap();
    let mut smaller = net.model.clone();
    cut(&mut smaller, &found, &empty).unwrap();
    let (a, b) = (simulated(&net.model).to_f32_vec().unwrap(), simulated(&smaller).to_f32_vec().unwrap());
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs().max(1.0)), "{a:?} {b:?}");
    // Whole layers without weights keep their last channel.
    mask(&mut net, named[1], &|_, _| true);
    let found = net.groups();
    let empty = dead(&net.model, &found, &sample).unwrap();
    let mut smaller = net.model.clone();
    cut(&mut smaller, &found, &empty).unwrap();
    assert_eq!(smaller.values.tensor(named[0]).unwrap().shape()[0], 1);
}
