//! Folded graphs compute the same; normalizations that are not folded have a reason.
use super::*;
use tensor::{Activation, ConvOptions, random};

const EPSILON: f32 = 1e-3;

/// `x -> layer -> BatchNormalization -> y`, with parameters of `channels`.
fn model(op_type: &str, weight: Tensor, bias: Option<Tensor>, channels: usize) -> Model {
    let mut m = Model::new(17);
    let (x, h, y) = (m.values.add_named("x"), m.values.add_named("h"), m.values.add_named("y"));
    let constant = |m: &mut Model, name: &str, t: Tensor| {
        let id = m.values.add_constant(name, t);
        m.graph.constants.push(id);
        id
    };
    let mut inputs = vec![x, constant(&mut m, "l.weight", weight)];
    if let Some(b) = bias {
        inputs.push(constant(&mut m, "l.bias", b));
    }
    let mut norm = vec![h];
    for (i, (name, lo, hi)) in [("g", -2.0, 2.0), ("b", -1.0, 1.0), ("mean", -1.0, 1.0), ("var", 0.1, 3.0)].into_iter().enumerate() {
        norm.push(constant(&mut m, name, random::uniform(i as u64, &[channels], lo, hi).unwrap()));
    }
    m.graph.inputs.push(x);
    m.graph.nodes.push(Node::new(op_type, "l", &inputs, &[h]));
    m.graph.nodes.push(Node::new("BatchNormalization", "n", &norm, &[y]).with("epsilon", AttributeValue::Float(EPSILON)));
    m.graph.outputs.push(y);
    m.verify().unwrap();
    m
}

fn get(m: &Model, name: &str) -> Tensor {
    m.values.tensor(m.find(name).unwrap()).unwrap().clone()
}

fn normalized(m: &Model, h: &Tensor) -> Tensor {
    let [g, b, mean, var] = ["g", "b", "mean", "var"].map(|n| get(m, n));
    h.batch_norm(&g, &b, &mean, &var, EPSILON, None, Activation::None).unwrap()
}

fn close(a: &Tensor, b: &Tensor) {
    assert_eq!(a.shape(), b.shape());
    for (a, b) in a.as_slice::<f32>().unwrap().iter().zip(b.as_slice::<f32>().unwrap()) {
        assert!((a - b).abs() < 2e-5 * b.abs().max(1.0), "{a} {b}");
    }
}

#[test]
fn conv_computes_the_same_with_and_without_a_bias() {
    let options = ConvOptions { strides: vec![1, 1], pads: vec![(1, 1), (1, 1)], dilations: vec![1, 1], groups: 2 };
    let x = random::normal(9, &[2, 4, 5, 5], 0.0, 1.0).unwrap();
    let weight = random::normal(8, &[6, 2, 3, 3], 0.0, 0.5).unwrap();
    for bias in [None, Some(random::normal(7, &[6], 0.0, 1.0).unwrap())] {
        let mut m = model("Conv", weight.clone(), bias.clone(), 6);
        let expected = normalized(&m, &x.conv(&weight, bias.as_ref(), &options).unwrap());
        let mask = Tensor::full(true, weight.shape()).unwrap();
        let id = m.find("l.weight").unwrap();
        m.annotations.entry(id).mask = Some(mask.clone());
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
        m.verify().unwrap();
        assert_eq!((m.graph.nodes.len(), m.graph.constants.len()), (1, 2));
        assert_eq!(m.annotations.mask(id), Some(&mask));
        close(&x.conv(&get(&m, "l.weight"), Some(&get(&m, "l.bias")), &options).unwrap(), &expected);
    }
}

#[test]
fn transposed_convolution_in_groups_computes_the_same() {
    let options = ConvOptions { strides: vec![2], pads: vec![(0, 0)], dilations: vec![1], groups: 2 };
    let x = random::normal(9, &[2, 4, 5], 0.0, 1.0).unwrap();
    let weight = random::normal(8, &[4, 3, 3], 0.0, 0.5).unwrap();
    let mut m = model("ConvTranspose", weight.clone(), None, 6);
    m.graph.nodes[0].attributes.set("group", AttributeValue::Int(2));
    let expected = normalized(&m, &x.conv_transpose(&weight, None, &options, &[0]).unwrap());
    assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
    close(&x.conv_transpose(&get(&m, "l.weight"), Some(&get(&m, "l.bias")), &options, &[0]).unwrap(), &expected);
}

#[test]
fn gemm_computes_the_same_either_way_round() {
    let x = random::normal(9, &[3, 4], 0.0, 1.0).unwrap();
    for transposed in [false, true] {
        let weight = random::normal(8, if transposed { &[5, 4] } else { &[4, 5] }, 0.0, 0.5).unwrap();
        let bias = random::normal(7, &[5], 0.0, 1.0).unwrap();
        let mut m = model("Gemm", weight.clone(), Some(bias.clone()), 5);
        m.graph.nodes[0].attributes.set("transB", AttributeValue::Int(i64::from(transposed)));
        m.graph.nodes[0].attributes.set("beta", AttributeValue::Float(0.5));
        let turned = |w: &Tensor| if transposed { w.transpose(&[1, 0]).unwrap() } else { w.clone() };
        let h = x.matmul(&turned(&weight)).unwrap().add(&bias.mul_scalar(0.5).unwrap()).unwrap();
        let expected = normalized(&m, &h);
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
        close(&x.matmul(&turned(&get(&m, "l.weight"))).unwrap().add(&get(&m, "l.bias")).unwrap(), &expected);
        assert_eq!(m.graph.nodes[0].float_or("beta", 1.0).unwrap(), 1.0);
    }
}

#[test]
fn what_must_not_be_folded_stays() {
    let weight = random::normal(8, &[6, 4, 1, 1], 0.0, 0.5).unwrap();
    let mut read_twice = model("Conv", weight.clone(), None, 6);
    let h = read_twice.find("h").unwrap();
    read_twice.graph.outputs.push(h);
    assert_eq!(fold_batch_norm(&mut read_twice).unwrap(), 0);
    let mut training = model("Conv", weight.clone(), None, 6);
    training.graph.nodes[1].attributes.set("training_mode", AttributeValue::Int(1));
    assert_eq!(fold_batch_norm(&mut training).unwrap(), 0);
    let mut encoded = model("Conv", weight, None, 6);
    let id = encoded.find("l.weight").unwrap();
    encoded.annotations.entry(id).encoding = Some(graph::Encoding { kind: "affine".into(), ..Default::default() });
    assert!(fold_batch_norm(&mut encoded).unwrap_err().to_string().contains("l.weight"));
    encoded.verify().unwrap();
}

#[test]
fn a_shared_weight_is_copied() {
    let weight = random::normal(8, &[4, 4, 1, 1], 0.0, 0.5).unwrap();
    let mut m = model("Conv", weight.clone(), None, 4);
    let (w, y, z) = (m.find("l.weight").unwrap(), m.find("y").unwrap(), m.values.add_named("z"));
    m.graph.nodes.push(Node::new("Conv", "second", &[y, w], &[z]));
    m.graph.outputs.push(z);
    assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
    m.verify().unwrap();
    assert_eq!(get(&m, "l.weight"), weight);
    assert_ne!(get(&m, "l.weight_folded"), weight);
}

/// Two branches read one weight of the outer graph: each folds a copy of its own.
#[test]
fn a_weight_that_branches_share_is_copied() {
    let weight = random::normal(8, &[4, 4, 1, 1], 0.0, 0.5).unwrap();
    let mut m = model("Conv", weight.clone(), Some(random::normal(7, &[4], 0.0, 1.0).unwrap()), 4);
    let nodes = std::mem::take(&mut m.graph.nodes);
    let mut branch = |name: &str| {
        let ends = ["h", "y"].map(|v| m.values.add_named(format!("{name}.{v}")));
        let mut nodes = nodes.clone();
        (nodes[0].outputs[0], nodes[1].inputs[0], nodes[1].outputs[0]) = (Some(ends[0]), Some(ends[0]), Some(ends[1]));
        AttributeValue::Graph(Box::new(Graph { name: name.into(), nodes, outputs: vec![ends[1]], ..Graph::default() }))
    };
    let (then, other) = (branch("then"), branch("else"));
    let (condition, y) = (m.values.add_named("condition"), m.find("y").unwrap_or(m.graph.outputs[0]));
    m.graph.inputs.push(condition);
    let either = Node::new("If", "either", &[condition], &[y]).with("then_branch", then).with("else_branch", other);
    m.graph.nodes.push(either);
    m.verify().unwrap();
    let once = {
        let mut alone = model("Conv", weight, Some(random::normal(7, &[4], 0.0, 1.0).unwrap()), 4);
        fold_batch_norm(&mut alone).unwrap();
        (get(&alone, "l.weight"), get(&alone, "l.bias"))
    };
    assert_eq!(fold_batch_norm(&mut m).unwrap(), 2);
    m.verify().unwrap();
    for branch in m.graph.nodes[0].subgraphs() {
        let read = |i: usize| m.values.tensor(branch.nodes[0].input(i).unwrap()).unwrap().clone();
        assert_eq!((read(1), read(2)), once);
    }
}

#[test]
fn what_could_be_fed_before_it_was_folded_is_refused_afterwards() {
    let mut m = model("Conv", random::normal(8, &[4, 4, 1, 1], 0.0, 0.5).unwrap(), None, 4);
    let defaults = m.graph.constants.clone();
    m.graph.inputs.extend(defaults);
    assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
    m.verify().unwrap();
    let names: Vec<&str> = m.graph.inputs.iter().map(|v| m.values[*v].name.as_str()).collect();
    assert_eq!(names, ["x"]);
    assert_eq!(m.graph.constants.len(), 2);
}

/// As in files of old exporters, which list a counter without readers.
#[test]
fn a_default_that_nobody_reads_stays_one() {
    let mut m = model("Conv", random::normal(9, &[4, 4, 1, 1], 0.0, 0.5).unwrap(), None, 4);
    let counter = m.values.add_constant("n.num_batches_tracked", Tensor::scalar(7i64));
    m.graph.constants.push(counter);
    m.graph.inputs.push(counter);
    assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
    m.verify().unwrap();
    assert!(m.graph.inputs.contains(&counter) && m.graph.constants.contains(&counter));
    assert_eq!(m.free_inputs().len(), 1);
}

fn shaped(m: &mut Model, name: &str, dims: &[usize]) {
    let id = m.find(name).unwrap();
    let dims = dims.iter().enumerate().map(|(i, d)| if i == 0 { Dim::Unknown } else { Dim::Known(*d) }).collect();
    m.values[id].ty = graph::ValueType::Tensor { dtype: DType::F32, shape: Some(dims) };
}

/// Puts `op` with a constant right behind the layer.
fn between(m: &mut Model, op: &str, constant: Tensor) {
    let id = m.values.add_constant(format!("{op}_constant"), constant);
    let raw = m.values.add_named(format!("before {op}"));
    m.graph.constants.push(id);
    let made = m.graph.nodes[0].outputs[0].replace(raw).unwrap();
    m.graph.nodes.insert(1, Node::new(op, op, &[raw, id], &[made]));
    m.verify().unwrap();
}

#[test]
fn a_product_becomes_the_layer_that_has_a_bias() {
    let x = random::normal(9, &[3, 4], 0.0, 1.0).unwrap();
    let weight = random::normal(8, &[4, 5], 0.0, 0.5).unwrap();
    let offset = random::normal(7, &[1, 5], 0.0, 1.0).unwrap();
    for added in [false, true] {
        let mut m = model("MatMul", weight.clone(), None, 5);
        shaped(&mut m, "x", &[0, 4]);
        let mut h = x.matmul(&weight).unwrap();
        if added {
            between(&mut m, "Add", offset.clone());
            h = h.add(&offset).unwrap();
        }
        let expected = normalized(&m, &h);
        let mask = Tensor::full(true, weight.shape()).unwrap();
        let id = m.find("l.weight").unwrap();
        m.annotations.entry(id).mask = Some(mask.clone());
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
        m.verify().unwrap();
        assert_eq!((m.graph.nodes.len(), m.graph.nodes[0].op_type.as_str()), (1, "Gemm"));
        assert_eq!(m.annotations.mask(id), Some(&mask));
        close(&x.matmul(&get(&m, "l.weight")).unwrap().add(&get(&m, "l.bias")).unwrap(), &expected);
    }
}

/// There the channels of the normalization are not the columns of the weight, though there may be as many.
#[test]
fn a_product_of_more_axes_is_not_folded() {
    for dims in [Some([0, 5, 4]), None] {
        let mut m = model("MatMul", random::normal(8, &[4, 5], 0.0, 0.5).unwrap(), None, 5);
        if let Some(dims) = dims {
            shaped(&mut m, "x", &dims);
        }
        let before = m.clone();
        assert_eq!(fold_batch_norm(&mut m).unwrap(), 0);
        assert_eq!(m, before);
    }
}

#[test]
fn what_is_added_to_and_multiplied_with_each_channel_is_folded_too() {
    let options = ConvOptions { strides: vec![2, 2], pads: vec![(0, 0); 2], dilations: vec![1, 1], groups: 1 };
    let x = random::normal(9, &[2, 4, 3, 3], 0.0, 1.0).unwrap();
    let weight = random::normal(8, &[4, 3, 2, 2], 0.0, 0.5).unwrap();
    let (offset, factor) = (random::normal(7, &[1, 3, 1, 1], 0.0, 1.0).unwrap(), random::uniform(6, &[3, 1, 1], 0.5, 2.0).unwrap());
    let mut m = model("ConvTranspose", weight.clone(), None, 3);
    between(&mut m, "Div", Tensor::scalar(4f32));
    between(&mut m, "Sub", offset.clone());
    between(&mut m, "Mul", factor.clone());
    // The constant inserted last comes first.
    let h = x.conv_transpose(&weight, None, &options, &[0, 0]).unwrap();
    let h = h.mul(&factor).unwrap().sub(&offset).unwrap().div(&Tensor::scalar(4f32)).unwrap();
    let expected = normalized(&m, &h);
    assert_eq!(fold_batch_norm(&mut m).unwrap(), 1);
    m.verify().unwrap();
    assert_eq!((m.graph.nodes.len(), m.graph.constants.len()), (1, 2));
    close(&x.conv_transpose(&get(&m, "l.weight"), Some(&get(&m, "l.bias")), &options, &[0, 0]).unwrap(), &expected);
    let mut pixels = model("Conv", random::normal(8, &[3, 3, 1, 1], 0.0, 0.5).unwrap(), None, 3);
    between(&mut pixels, "Add", random::normal(7, &[1, 1, 1, 3], 0.0, 1.0).unwrap());
    assert_eq!(fold_batch_norm(&mut pixels).unwrap(), 0);
}

#[test]
fn what_keeps_a_normalization_is_said() {
    let reason = |m: &Model| why_not_folded(m, &m.graph, m.find("y").unwrap());
    let weight = random::normal(8, &[6, 4, 1, 1], 0.0, 0.5).unwrap();
    let mut read_twice = model("Conv", weight.clone(), None, 6);
    let h = read_twice.find("h").unwrap();
    read_twice.graph.outputs.push(h);
    assert!(reason(&read_twice).contains("the output of 'l' before it has another reader"), "{}", reason(&read_twice));
    let mut input = model("Conv", weight.clone(), None, 6);
    input.graph.nodes.remove(0);
    assert!(reason(&input).contains("'h', which is not the output of a layer"), "{}", reason(&input));
    let relu = model("Relu", weight, None, 6);
    assert!(reason(&relu).contains("Relu 'l' before it is no layer"), "{}", reason(&relu));
}

/// Gives the node a name, so that a pattern finds it afterwards.
#[test]
fn an_unnamed_layer_is_known_by_the_same_label_afterwards() {
    let mut m = model("Conv", random::normal(8, &[4, 4, 1, 1], 0.0, 0.5).unwrap(), None, 4);
    m.graph.nodes[0].name.clear();
    fold_batch_norm(&mut m).unwrap();
    assert_eq!(m.graph.nodes[0].label(&m.values), "Conv→h");
}
