//! What masks have emptied leaves the graph, and the outputs stay: branches of sums, and channels that are a constant.
use super::*;
use train::Named;

impl Net {
    fn sample(&self) -> Named {
        BTreeMap::from([("x".into(), random::uniform(9, &self.input, -1.0, 1.0).unwrap())])
    }

    /// The weight and the bias of the last node.
    fn last(&self) -> (ValueId, ValueId) {
        let node = self.model.graph.nodes.last().unwrap();
        (node.input(1).unwrap(), node.input(2).unwrap())
    }

    fn set(&mut self, id: ValueId, f: impl Fn(usize, f32) -> f32) {
        let tensor = self.model.values.tensor(id).unwrap();
        let (shape, list) = (tensor.shape().to_vec(), tensor.to_f32_vec().unwrap());
        let list: Vec<f32> = list.into_iter().enumerate().map(|(i, v)| f(i, v)).collect();
        self.model.values.set_tensor(id, Tensor::new(list, shape).unwrap());
    }

    /// Masks the elements of a weight for which `dead` holds.
    fn mask(&mut self, id: ValueId, dead: impl Fn(usize) -> bool) {
        let shape = self.model.values.tensor(id).unwrap().shape().to_vec();
        let live: Vec<bool> = (0..shape.iter().product()).map(|i| !dead(i)).collect();
        self.model.annotations.entry(id).mask = Some(Tensor::new(live, shape).unwrap());
    }

    /// The outputs with masks applied.
    fn simulated(&self, model: &Model) -> Vec<f32> {
        let out = Executor::new(model).unwrap().run(&self.sample(), Mode::SIMULATED).unwrap();
        model.graph.outputs.iter().flat_map(|o| out[&model.values[*o].name].to_f32_vec().unwrap()).collect()
    }

    /// Asserts that a smaller model computes what this one does with its masks.
    fn same(&self, model: &Model) {
        model.verify().unwrap();
        let (wanted, got) = (self.simulated(&self.model), self.simulated(model));
        let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest > 1e-3 && wanted.len() == got.len());
        let worst = wanted.iter().zip(&got).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= 1e-6 * largest, "{worst} of {largest}");
    }
}

/// A residual block behind a stem, whose second convolution has only masked weights and biases of this size.
fn residual(shift: f32) -> Net {
    let (mut net, x) = Net::new(&[3, 2, 5, 5]);
    let h = net.block(x, 4, 2, 3, 1);
    let b = net.block(h, 6, 4, 3, 1);
    let b = net.conv(b, 4, 6, 3, 1);
    let (weight, bias) = net.last();
    net.mask(weight, |_| true);
    net.set(bias, |i, _| shift * (i + 1) as f32);
    let y = net.op("Add", &[b, h], &[]);
    let y = net.op("Relu", &[y], &[]);
    net.head(y, 4)
}

#[test]
fn an_empty_branch_leaves_and_the_sum_with_it() {
    let net = residual(0.0);
    let mut smaller = net.model.clone();
    assert_eq!(drop_branches(&mut smaller, &net.sample()).unwrap(), 1);
    net.same(&smaller);
    // Two convolutions, a normalization, a rectifier and the sum.
    assert_eq!(smaller.graph.nodes.len() + 5, net.model.graph.nodes.len());
    assert_eq!(drop_branches(&mut smaller, &net.sample()).unwrap(), 0);
}

#[test]
fn a_branch_that_is_a_constant_leaves_its_constant() {
    let net = residual(0.3);
    let mut smaller = net.model.clone();
    assert_eq!(drop_branches(&mut smaller, &net.sample()).unwrap(), 1);
    net.same(&smaller);
    assert_eq!(smaller.graph.nodes.len() + 4, net.model.graph.nodes.len());
    let sum = smaller.graph.nodes.iter().find(|n| ops::summands(n).is_some()).unwrap();
    let constant = sum.inputs.iter().flatten().find_map(|v| smaller.constant(*v)).unwrap();
    assert_eq!((constant.shape(), constant.to_f32_vec().unwrap()), (&[1, 4, 1, 1][..], [1.0, 2.0, 3.0, 4.0].map(|i| 0.3 * i).to_vec()));
    assert_eq!(drop_branches(&mut smaller, &net.sample()).unwrap(), 0);
}

#[test]
fn a_branch_of_equal_elements_leaves_one_for_every_length() {
    let (mut net, x) = Net::new(&[2, 3, 4]);
    let (weight, branch) = (net.weight(&[4, 4]), net.constant(Tensor::vector(vec![0.5f32; 4])));
    net.mask(weight, |_| true);
    let y = net.op("MatMul", &[x, weight], &[]);
    let y = net.op("Add", &[y, branch], &[]);
    let y = net.op("Add", &[y, x], &[]);
    let net = net.end(y);
    let mut smaller = net.model.clone();
    assert_eq!(drop_branches(&mut smaller, &net.sample()).unwrap(), 1);
    net.same(&smaller);
    let constant = smaller.graph.nodes.last().unwrap().inputs.iter().flatten().find_map(|v| smaller.constant(*v)).unwrap();
    assert_eq!((constant.shape(), constant.to_f32_vec().unwrap()), (&[1, 1, 1][..], vec![0.5]));
}

#[test]
fn a_branch_whose_first_layer_is_empty_is_no_constant_for_each_channel() {
    let (mut net, x) = Net::new(&[3, 2, 5, 5]);
    let h = net.block(x, 4, 2, 3, 1);
    let b = net.conv(h, 6, 4, 3, 1);
    let (weight, _) = net.last();
    net.mask(weight, |_| true);
    // Padded: at the edges it sums fewer constants.
    let b = net.conv(b, 4, 6, 3, 1);
    let y = net.op("Add", &[h, b], &[]);
    let net = net.head(y, 4);
    let mut same = net.model.clone();
    assert_eq!((drop_branches(&mut same, &net.sample()).unwrap(), same), (0, net.model.clone()));
}

/// Two convolutions, the second with kernels of this size; channel 1 between them has no weights and the bias `c`.
fn constant(kernel: usize, c: f32) -> (Net, ValueId, ValueId) {
    let (mut net, x) = Net::new(&[3, 2, 5, 5]);
    let h = net.conv(x, 4, 2, 3, 1);
    let (weight, bias) = net.last();
    net.mask(weight, |i| i / 18 == 1);
    net.set(bias, |i, v| if i == 1 { c } else { v });
    let h = net.op("Relu", &[h], &[]);
    let y = net.conv(h, 3, 4, kernel, 1);
    let (weight, bias) = net.last();
    (net.head(y, 3), weight, bias)
}

#[test]
fn the_constant_of_a_channel_without_weights_goes_into_the_next_bias() {
    let (net, weight, bias) = constant(1, 0.6);
    let (mut smaller, found) = (net.model.clone(), net.groups());
    assert_eq!(dead(&smaller, &found, &net.sample()).unwrap().len(), 0);
    assert_eq!(fold_constants(&mut smaller, &found, &net.sample()).unwrap(), 1);
    net.same(&smaller);
    let read = |m: &Model, id: ValueId| m.values.tensor(id).unwrap().to_f32_vec().unwrap();
    let (w, before, after) = (read(&net.model, weight), read(&net.model, bias), read(&smaller, bias));
    for o in 0..3 {
        assert!((after[o] - before[o] - 0.6 * w[4 * o + 1]).abs() < 1e-6);
    }
    let empty = dead(&smaller, &found, &net.sample()).unwrap();
    assert_eq!(empty.len(), 1);
    cut(&mut smaller, &found, &empty).unwrap();
    net.same(&smaller);
    assert_eq!(smaller.values.tensor(weight).unwrap().shape(), [3, 3, 1, 1]);
}

#[test]
fn where_zeros_stand_beyond_the_edges_a_constant_stays() {
    let (net, _, _) = constant(3, 0.6);
    let mut same = net.model.clone();
    assert_eq!((fold_constants(&mut same, &net.groups(), &net.sample()).unwrap(), same), (0, net.model.clone()));
    // What the rectifier makes zero needs no fold.
    let (net, _, _) = constant(3, -0.6);
    let found = net.groups();
    assert_eq!(fold_constants(&mut net.model.clone(), &found, &net.sample()).unwrap(), 0);
    assert_eq!(dead(&net.model, &found, &net.sample()).unwrap().len(), 1);
}

#[test]
fn a_constant_that_the_data_gates_is_none() {
    gated(0.0);
    // A gate that is 1 for every sample at hand, and not for others.
    gated(40.0);
}

fn gated(shift: f32) {
    let (mut net, x) = Net::new(&[3, 4, 5, 5]);
    let h = net.conv(x, 4, 4, 1, 1);
    let (weight, _) = net.last();
    net.mask(weight, |i| i / 4 == 1);
    // A gate of one number a sample.
    let gate = net.conv(x, 1, 4, 1, 1);
    let (_, bias) = net.last();
    net.set(bias, |_, v| v + shift);
    let mean = net.op("GlobalAveragePool", &[gate], &[]);
    let gate = net.op("Sigmoid", &[mean], &[]);
    let h = net.op("Mul", &[h, gate], &[]);
    let y = net.conv(h, 3, 4, 1, 1);
    let net = net.head(y, 3);
    let found = net.groups();
    assert!(found.groups.iter().any(|g| g.channels.len() == 4), "the gate forbids nothing");
    assert_eq!(fold_constants(&mut net.model.clone(), &found, &net.sample()).unwrap(), 0);
}

#[test]
fn the_projection_behind_heads_loses_what_it_reads_of_a_head() {
    for fused in [true, false] {
        let mut net = transformer(fused);
        let settings = crate::PruneSettings { granularity: serde_json::from_str("\"head\"").unwrap(), ..crate::PruneSettings::new(0.25) };
        let report = crate::prune(&mut net.model, &settings).unwrap();
        let masked: Vec<ValueId> = net.model.annotations.iter().filter(|(_, a)| a.mask.is_some()).map(|(id, _)| id).collect();
        let [projection] = masked.as_slice() else { panic!("{masked:?}") };
        assert_eq!(report.dense.len() + 1, report.layers.len(), "{:?}", report.dense);
        let mask = net.model.annotations.mask(*projection).unwrap();
        // `[12, 8]`: one of four heads of three inputs.
        let live: Vec<bool> = mask.as_slice::<bool>().unwrap().chunks(8).map(|row| row.iter().all(|live| *live)).collect();
        let heads: Vec<&[bool]> = live.chunks(3).collect();
        assert!(mask.shape() == [12, 8] && heads.iter().filter(|h| **h == [false; 3]).count() == 1, "{heads:?}");
        assert_eq!(heads.iter().filter(|h| **h == [true; 3]).count(), 3);
        // The head leaves the graph, and nothing changes.
        let (mut smaller, found) = (net.model.clone(), net.groups());
        let empty = dead(&smaller, &found, &net.sample()).unwrap();
        assert_eq!(empty.len(), 1);
        cut(&mut smaller, &found, &empty).unwrap();
        net.same(&smaller);
    }
}

#[test]
fn a_matrix_product_takes_constants_into_what_is_added_to_it() {
    let (mut net, x) = Net::new(&[3, 6]);
    let h = net.dense(x, 6, 4);
    let (first, shift) = (net.model.graph.nodes[0].input(1).unwrap(), net.model.graph.nodes[1].input(1).unwrap());
    net.mask(first, |i| i % 4 == 2);
    net.set(shift, |i, v| if i == 2 { 0.7 } else { v });
    let h = net.op("Tanh", &[h], &[]);
    let y = net.dense(h, 4, 3);
    let net = net.end(y);
    let (mut smaller, found) = (net.model.clone(), net.groups());
    assert_eq!(fold_constants(&mut smaller, &found, &net.sample()).unwrap(), 1);
    net.same(&smaller);
    let empty = dead(&smaller, &found, &net.sample()).unwrap();
    cut(&mut smaller, &found, &empty).unwrap();
    net.same(&smaller);
    assert_eq!(smaller.values.tensor(first).unwrap().shape(), [6, 3]);
}
