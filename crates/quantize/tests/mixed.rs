//! Widths for each layer: what must be chosen together, what a width costs, and what is measured of each.
use espalier_quantize::mixed::{ActivationWidths, Candidate, Cost, Fitted, Layers, Sensitivity, Widths, best, fitted, sensitivity};
use espalier_quantize::{ActivationSettings, QuantizeSettings, Rule, fit, observe, plan, prepare};
use graph::{Dim, Model, Node, ValueId, ValueType};
use std::collections::BTreeMap;
use tensor::{DType, Tensor, random};
use train::{Batch, Classification, Executor, Mode, Named, Task, TrainError};

/// `input` is read by `a` and `b`, whose sum `c` reads; `d` has the weight of `c`; `last` makes the outputs.
fn network() -> Model {
    let mut model = Model::new(17);
    let x = model.values.add_named("input");
    model.values[x].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Symbol("n".into()), Dim::Known(8)]) };
    model.graph.inputs.push(x);
    let mut weights = BTreeMap::new();
    let mut seed = 0;
    let mut gemm = |model: &mut Model, name: &str, x: ValueId, weight: &str, columns: usize| {
        let w = *weights.entry(weight.to_string()).or_insert_with(|| {
            seed += 1;
            let w = model.values.add_constant(weight, random::normal(seed, &[8, columns], 0.0, 0.5).unwrap());
            model.graph.constants.push(w);
            w
        });
        let y = model.values.add_named(format!("{name}.out"));
        model.graph.nodes.push(Node::new("Gemm", name, &[x, w], &[y]));
        y
    };
    let relu = |model: &mut Model, name: &str, inputs: &[ValueId], op: &str| {
        let y = model.values.add_named(format!("{name}.out"));
        model.graph.nodes.push(Node::new(op, name, inputs, &[y]));
        y
    };
    let a = gemm(&mut model, "a", x, "wa", 8);
    let a = relu(&mut model, "a.relu", &[a], "Relu");
    let b = gemm(&mut model, "b", x, "wb", 8);
    let sum = relu(&mut model, "sum", &[a, b], "Add");
    let c = gemm(&mut model, "c", sum, "wc", 8);
    let c = relu(&mut model, "c.relu", &[c], "Relu");
    let d = gemm(&mut model, "d", c, "wc", 8);
    let d = relu(&mut model, "d.relu", &[d], "Relu");
    let last = gemm(&mut model, "last", d, "wl", 3);
    model.values[last].name = "out".into();
    model.graph.outputs.push(last);
    model.verify().unwrap();
    model
}

fn batches() -> Vec<Result<Batch, TrainError>> {
    let batch = |seed| {
        let inputs: Named = [("input".to_string(), random::normal(seed, &[16, 8], 0.0, 1.0).unwrap())].into();
        let labels = Tensor::vector((0..16i64).map(|i| i % 3).collect());
        Ok(Batch { inputs, targets: [("label".to_string(), labels)].into(), ..Batch::default() })
    };
    (10..14).map(batch).collect()
}

fn rules(text: &str) -> Vec<Rule> {
    serde_json::from_str(text).unwrap()
}

fn settings(rules_text: &str) -> QuantizeSettings {
    QuantizeSettings { rules: rules(rules_text), ..QuantizeSettings::default() }
}

fn macs() -> BTreeMap<String, u64> {
    ["a", "b", "c", "d"].iter().map(|n| (n.to_string(), 64)).chain([("last".to_string(), 24)]).collect()
}

fn layers(settings: &QuantizeSettings, widths: Widths) -> Layers {
    Layers::of(&network(), settings, ActivationWidths { widths, ..ActivationWidths::default() }, &macs()).unwrap()
}

fn told(layers: &Layers) -> Vec<(String, String)> {
    layers.groups.iter().map(|g| (g.nodes.join(" "), g.deciders.join(" "))).collect()
}

fn all(settings: &QuantizeSettings, activations: Widths, widths: &[u32]) -> (Model, Layers, Fitted) {
    let (mut model, layers) = (network(), layers(settings, activations));
    prepare(&mut model, settings).unwrap();
    let seen = observe(&model, settings, batches().into_iter()).unwrap();
    let fitted = fitted(&model, settings, &layers, widths, &seen).unwrap();
    (model, layers, fitted)
}

fn measured(settings: &QuantizeSettings, widths: &[u32]) -> (Model, Layers, Fitted, Sensitivity) {
    let (model, layers, fitted) = all(settings, Widths::AsWeights, widths);
    let task = Classification::default();
    let seen = sensitivity(&model, &layers, &fitted, Some(&task as &dyn Task), batches().into_iter(), &mut |_, _| {}).unwrap();
    (model, layers, fitted, seen)
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_string(), b.to_string())
}

#[test]
fn what_shares_a_weight_or_an_activation_has_one_width() {
    // `a` and `b` read one activation, `c` and `d` have one weight.
    let free = layers(&settings("[]"), Widths::AsWeights);
    assert_eq!(told(&free), [pair("a b", "a"), pair("c d", "sum c.relu"), pair("last", "d.relu")]);
    let weights = layers(&settings("[]"), Widths::AsPlanned);
    assert_eq!(told(&weights), [pair("a", ""), pair("b", ""), pair("c d", ""), pair("last", "")]);
    assert_eq!(free.elements(), 3 * 64 + 24);
    assert_eq!((free.groups[1].elements, free.groups[1].macs), (64, 128));
}

#[test]
fn what_a_rule_decides_on_is_not_chosen_and_what_only_such_layers_read_follows_them() {
    let settings = settings(r#"[{"match":"a","weights":{"bits":8},"activations":{"bits":8}},{"match":"last","weights":{"bits":6}}]"#);
    let layers = layers(&settings, Widths::AsWeights);
    assert_eq!(told(&layers), [pair("b", ""), pair("c d", "sum c.relu")]);
    let rules = layers.rules(&[3, 5]).unwrap();
    let written: Vec<String> = rules.iter().map(|r| r.to_string()).collect();
    assert_eq!(
        written,
        [
            "match = \"d.relu\": activations in 6 bits",
            "match = \"b\": weights affine with bits = 3",
            "match = \"c\": weights affine with bits = 5",
            "match = \"d\": weights affine with bits = 5",
            "match = \"sum\": activations in 5 bits",
            "match = \"c.relu\": activations in 5 bits",
        ]
    );
    let model = network();
    let plan = plan(&model, &layers.settings(&settings, &[3, 5]).unwrap()).unwrap();
    let value = |name: &str| model.values.iter().find(|(_, v)| v.name == name).unwrap().0;
    let weight = |name: &str| plan.constants[&value(name)].grid().unwrap().bits;
    let activation = |name: &str| plan.activations[&value(name)].bits;
    assert_eq!(["wa", "wb", "wc", "wl"].map(weight), [8, 3, 5, 6]);
    assert_eq!(["input", "sum.out", "c.relu.out", "d.relu.out", "b.out"].map(activation), [8, 5, 5, 6, 8]);
}

#[test]
fn a_width_costs_its_bits_its_bytes_and_its_products() {
    let settings = settings(r#"[{"match":"last","weights":{"bits":6}}]"#);
    let (_, layers, fitted) = all(&settings, Widths::AsWeights, &[2, 3, 8]);
    let cost = |cost, group, width| layers.cost(cost, group, width, &fitted).unwrap();
    assert_eq!([0, 1].map(|g| cost(Cost::Bits, Some(g), 3)), [3 * 128, 3 * 64]);
    assert_eq!(cost(Cost::Bits, None, 3), 6 * 24);
    // Three bits are stored in four; a scale and a zero point for each of 8 channels.
    let scales = |bits: u64| 8 * 4 + bits;
    assert_eq!(cost(Cost::Bytes, Some(1), 8), 64 + scales(8));
    assert_eq!(cost(Cost::Bytes, Some(1), 3), 32 + scales(4));
    assert_eq!(cost(Cost::Bytes, Some(1), 2), 16 + scales(2));
    assert_eq!(cost(Cost::Bytes, None, 2), 24 + 3 * 4 + 3);
    assert_eq!([0, 1].map(|g| cost(Cost::BitOps, Some(g), 3)), [128 * 9, 128 * 9]);
    assert_eq!(cost(Cost::BitOps, None, 3), 24 * 36);
    // Activations may have a least width of their own.
    let at_least = ActivationWidths { least: 5, ..ActivationWidths::default() };
    let wide = Layers::of(&network(), &settings, at_least, &macs()).unwrap();
    assert_eq!([3, 8].map(|w| wide.cost(Cost::BitOps, Some(1), w, &fitted).unwrap()), [128 * 3 * 5, 128 * 8 * 8]);
    assert!(wide.rules(&[3, 3]).unwrap().iter().any(|r| r.to_string() == "match = \"sum\": activations in 5 bits"));
    // Where the activations stay as they are, only one factor grows.
    let (_, layers, fitted) = all(&settings, Widths::AsPlanned, &[4]);
    assert_eq!(layers.cost(Cost::BitOps, Some(0), 4, &fitted).unwrap(), 64 * 4 * 8);
    let float = QuantizeSettings { activations: ActivationSettings::float(), ..QuantizeSettings::default() };
    let (_, layers, fitted) = all(&float, Widths::AsWeights, &[4]);
    assert_eq!(layers.cost(Cost::BitOps, Some(0), 4, &fitted).unwrap(), 64 * 4 * 32);
}

#[test]
fn each_group_is_measured_alone_and_the_best_plan_is_better_than_one_width() {
    let widths = [2, 3, 4, 8];
    let (model, layers, fitted, seen) = measured(&settings("[]"), &widths);
    assert_eq!((seen.samples, seen.float.noise, seen.groups.len()), (64, 0.0, 3));
    for group in &seen.groups {
        let noise: Vec<f64> = widths.iter().map(|w| group[w].noise).collect();
        assert!(noise.windows(2).all(|w| w[0] > 2.0 * w[1]) && noise[3] > 0.0, "{noise:?}");
    }
    // Alone: the same as a network in which nothing else is quantized.
    let mut one = model.clone();
    for id in layers.groups[2].weights.iter().chain(&layers.groups[2].activations) {
        one.annotations.entry(*id).encoding = fitted.0[&3].annotations.encoding(*id).cloned();
    }
    let (mut noise, mut signal) = (0.0, 0.0);
    for batch in batches().into_iter().flatten() {
        let out = |m: &Model| Executor::new(m).unwrap().run(&batch.inputs, Mode::SIMULATED).unwrap()["out"].to_f32_vec().unwrap();
        for (a, b) in out(&model).into_iter().zip(out(&one)) {
            noise += f64::from(a - b).powi(2);
            signal += f64::from(a).powi(2);
        }
    }
    assert!((seen.groups[2][&3].noise - noise / signal).abs() < 1e-9 * noise / signal);
    let (float, worst) = (&seen.float, &seen.groups[0][&2]);
    assert!(float.metric.is_some() && (worst.loss.unwrap() - float.loss.unwrap()).abs() > 1e-4, "{float:?} {worst:?}");

    let candidate = |g: usize, w: u32| {
        let costs = vec![layers.cost(Cost::Bits, Some(g), w, &fitted).unwrap()];
        Candidate { harm: seen.groups[g][&w].noise, costs }
    };
    let groups: Vec<Vec<Candidate>> = (0..3).map(|g| widths.iter().map(|w| candidate(g, *w)).collect()).collect();
    let taken: Vec<u32> = best(&groups, &[3 * layers.elements()]).unwrap().into_iter().map(|t| widths[t]).collect();
    let harm = |chosen: &[u32]| (0..3).map(|g| seen.groups[g][&chosen[g]].noise).sum::<f64>();
    assert!(harm(&taken) <= harm(&[3, 3, 3]), "{taken:?}");
}

#[test]
fn weights_without_bits_to_choose_are_refused_by_name() {
    let ternary = QuantizeSettings { weights: serde_json::from_str("\"ternary\"").unwrap(), ..QuantizeSettings::default() };
    let error = layers(&ternary, Widths::AsPlanned).rules(&[2, 2, 2, 2]).unwrap_err().to_string();
    assert!(error.contains("ternary weights cannot have 2 bits"), "{error}");
    let codebook = serde_json::from_str(r#"{"kind":"codebook","bits":4}"#).unwrap();
    let codebook = QuantizeSettings { weights: codebook, activations: ActivationSettings::float(), ..QuantizeSettings::default() };
    let (mut model, layers) = (network(), layers(&codebook, Widths::AsWeights));
    let seen = observe(&model, &codebook, batches().into_iter()).unwrap();
    fit(&mut model, &layers.settings(&codebook, &[2, 2, 3, 4]).unwrap(), &seen).unwrap();
    let bits = |v: &ValueId| encodings::decode(model.annotations.encoding(*v).unwrap()).unwrap();
    assert!(matches!(bits(&layers.groups[2].weights[0]), encodings::Decode::Table { bits: 3, .. }));
}

#[test]
fn the_weights_of_a_recurrent_layer_have_one_width() {
    let mut model = Model::new(17);
    let x = model.values.add_named("input");
    let shape = [4, 2, 3].map(Dim::Known).to_vec();
    model.values[x].ty = ValueType::Tensor { dtype: DType::F32, shape: Some(shape) };
    model.graph.inputs.push(x);
    let [w, r] = [("w", [1, 20, 3]), ("r", [1, 20, 5])].map(|(name, shape)| {
        let id = model.values.add_constant(name, random::normal(1, &shape, 0.0, 0.5).unwrap());
        model.graph.constants.push(id);
        id
    });
    let y = model.values.add_named("out");
    model.graph.nodes.push(Node::new("LSTM", "lstm", &[x, w, r], &[y]).with("hidden_size", graph::AttributeValue::Int(5)));
    model.graph.outputs.push(y);
    model.verify().unwrap();
    let settings = QuantizeSettings { weight_only: true, activations: ActivationSettings::float(), ..QuantizeSettings::default() };
    let macs = BTreeMap::from([("lstm".to_string(), 640)]);
    let layers = Layers::of(&model, &settings, ActivationWidths::default(), &macs).unwrap();
    assert_eq!(told(&layers), [pair("lstm", "")]);
    let group = &layers.groups[0];
    assert_eq!((group.weights.clone(), group.elements, group.macs), (vec![w, r], 60 + 100, 640));
    assert_eq!(layers.cost(Cost::BitOps, Some(0), 4, &Fitted::default()).unwrap(), 640 * 4 * 32);
    assert_eq!(layers.rules(&[4]).unwrap().len(), 1);
}
