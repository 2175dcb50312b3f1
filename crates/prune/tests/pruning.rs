//! Pruning of networks from the zoo.
use espalier_prune::{Global, PerLayer, PruneError, PruneSettings, Scopes, candidates, prune};
use graph::Model;
use technique::{Choice, Settings};
use tensor::Tensor;

fn model(name: &str) -> Model {
    let entry = zoo::find(name).unwrap();
    entry.build(&entry.default_options()).unwrap()
}

fn global() -> Choice<Scopes> {
    Global {}.choice().unwrap()
}

fn per_layer() -> Choice<Scopes> {
    PerLayer {}.choice().unwrap()
}

fn settings(sparsity: f64, scope: Choice<Scopes>) -> PruneSettings {
    PruneSettings { scope, ..PruneSettings::new(sparsity) }
}

#[test]
fn global_sparsity_is_exact_and_differs_by_layer() {
    let mut m = model("lenet300-100");
    let report = prune(&mut m, &settings(0.9, global())).unwrap();
    let (zeros, total) = report.layers.iter().fold((0, 0), |(z, t), l| (z + l.zeros, t + l.total));
    assert_eq!(total, 784 * 300 + 300 * 100 + 100 * 10);
    assert_eq!(zeros, (0.9 * total as f64).round() as usize);
    // PyTorch's initial weights are smaller in layers with more inputs.
    assert!(report.layers[0].sparsity > report.layers[2].sparsity);
    m.verify().unwrap();
}

#[test]
fn layer_scope_prunes_each_alike() {
    let mut m = model("lenet5");
    let report = prune(&mut m, &settings(0.5, per_layer())).unwrap();
    assert_eq!(report.layers.len(), 4);
    assert!(report.layers.iter().all(|l| l.zeros == (l.total as f64 / 2.0).round() as usize));
}

#[test]
fn pruning_further_never_revives() {
    let mut m = model("mlp");
    prune(&mut m, &settings(0.3, global())).unwrap();
    let before = m.annotations.clone();
    let report = prune(&mut m, &settings(0.6, global())).unwrap();
    assert!((report.sparsity - 0.6).abs() < 1e-4);
    for (id, old) in before.iter() {
        let (old, new) = (old.mask.as_ref().unwrap(), m.annotations.mask(id).unwrap());
        let revived = old.as_slice::<bool>().unwrap().iter().zip(new.as_slice::<bool>().unwrap()).filter(|(o, n)| !**o && **n);
        assert_eq!(revived.count(), 0);
    }
}

#[test]
fn the_folded_weight_decides() {
    let mut m = model("resnet8");
    let gamma = m.find("layer1.bn1.weight").unwrap();
    m.values.set_tensor(gamma, Tensor::full(1e-3f32, [16]).unwrap());
    let report = prune(&mut m, &settings(0.2, global())).unwrap();
    let layer = report.layers.iter().find(|l| l.name == "layer1.conv1.weight").unwrap();
    assert_eq!(layer.sparsity, 1.0);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let mut m = model("lenet5");
    for sparsity in [-0.1, 1.0, f64::NAN] {
        let refused = prune(&mut m, &settings(sparsity, global()));
        assert!(matches!(refused, Err(PruneError::Setting(fault)) if fault.path == ["sparsity"]));
    }
    assert!(candidates(&m, &["conv9*".into()]).unwrap_err().to_string().contains("conv9*"));
    assert_eq!(candidates(&m, &["conv*".into()]).unwrap().len(), 2);
    let by_gradients = PruneSettings { criterion: Choice::named("taylor").unwrap(), ..settings(0.5, global()) };
    let error = prune(&mut m, &by_gradients).unwrap_err().to_string();
    assert_eq!(
        error,
        "setting 'criterion': taylor needs gradients, and there is no data to take them over; prune with a data set, or by magnitude"
    );
    let weight = m.find("fc1.weight").unwrap();
    let broken = Tensor::full(f32::NAN, m.values.tensor(weight).unwrap().shape()).unwrap();
    m.values.set_tensor(weight, broken);
    assert!(prune(&mut m, &settings(0.5, global())).unwrap_err().to_string().contains("fc1.weight"));
}

#[test]
fn zeros_that_are_there_already_are_no_part_of_the_share() {
    // A filter bank of which 97 % are zeros, beside two weights.
    let mut m = model("mlp");
    let bank = candidates(&m, &[]).unwrap().remove(0);
    let values = m.values.tensor(bank.weight).unwrap().to_f32_vec().unwrap();
    let sparse: Vec<f32> = values.iter().enumerate().map(|(i, v)| if i % 100 < 97 { 0.0 } else { *v }).collect();
    let (zeros, shape) = (sparse.iter().filter(|v| **v == 0.0).count(), m.values.tensor(bank.weight).unwrap().shape().to_vec());
    m.values.set_tensor(bank.weight, Tensor::new(sparse, shape).unwrap());
    let total: usize = candidates(&m, &[]).unwrap().iter().map(|c| m.values.tensor(c.weight).unwrap().len()).sum();
    let report = prune(&mut m, &settings(0.5, global())).unwrap();
    let dead: usize = report.layers.iter().map(|l| l.zeros).sum();
    assert_eq!(report.zero_before, zeros);
    assert_eq!(dead - zeros, ((total - zeros) as f64 * 0.5).round() as usize);
    // They are held: training does not change them.
    let mask = m.annotations.mask(bank.weight).unwrap().as_slice::<bool>().unwrap().to_vec();
    assert!((0..mask.len()).all(|i| i % 100 >= 97 || !mask[i]));
    // Pruning again to the same share prunes nothing more.
    assert_eq!(prune(&mut m, &settings(0.5, global())).unwrap(), report);
}

#[test]
fn a_layer_of_zeros_alone_is_left_as_it_is() {
    let mut m = model("mlp");
    let first = candidates(&m, &[]).unwrap().remove(0).weight;
    let shape = m.values.tensor(first).unwrap().shape().to_vec();
    m.values.set_tensor(first, Tensor::full(0f32, shape).unwrap());
    let report = prune(&mut m, &settings(0.5, per_layer())).unwrap();
    assert!(m.annotations.mask(first).is_none());
    assert_eq!(report.emptied, Vec::<String>::new());
}

#[test]
fn a_layer_of_which_nothing_is_left_is_named_and_a_floor_keeps_some() {
    let small = |m: &mut Model| {
        let last = candidates(m, &[]).unwrap().pop().unwrap();
        let t = m.values.tensor(last.weight).unwrap();
        let tiny = t.to_f32_vec().unwrap().iter().map(|v| v * 1e-6).collect::<Vec<_>>();
        let shape = t.shape().to_vec();
        m.values.set_tensor(last.weight, Tensor::new(tiny, shape).unwrap());
        last
    };
    let mut m = model("mlp");
    let last = small(&mut m);
    let report = prune(&mut m, &settings(0.5, global())).unwrap();
    assert_eq!(report.emptied, std::slice::from_ref(&last.name));
    let mut m = model("mlp");
    small(&mut m);
    let report = prune(&mut m, &PruneSettings { min_per_layer: 0.1, ..settings(0.5, global()) }).unwrap();
    assert_eq!(report.emptied, Vec::<String>::new());
    let layer = report.layers.iter().find(|l| l.name == last.name).unwrap();
    assert_eq!(layer.total - layer.zeros, layer.total.div_ceil(10));
    // The total share is as requested.
    assert!((report.sparsity - 0.5).abs() < 1e-4);
    // If the minimum share forbids it, fewer are pruned.
    let mut m = model("mlp");
    let report = prune(&mut m, &PruneSettings { min_per_layer: 0.4, ..settings(0.9, per_layer()) }).unwrap();
    assert!(report.layers.iter().all(|l| l.total - l.zeros == (l.total as f64 * 0.4).ceil() as usize));
}
