//! Pruning of networks from the zoo.
use espalier_prune::{PruneError, PruneSettings, Scope, candidates, prune};
use graph::Model;
use tensor::Tensor;

fn model(name: &str) -> Model {
    let entry = zoo::find(name).unwrap();
    entry.build(&entry.default_options()).unwrap()
}

fn settings(sparsity: f64, scope: Scope) -> PruneSettings {
    PruneSettings { method: "magnitude".into(), sparsity, scope, skip: vec![] }
}

#[test]
fn global_sparsity_is_exact_and_differs_by_layer() {
    let mut m = model("lenet300-100");
    let report = prune(&mut m, &settings(0.9, Scope::Global)).unwrap();
    let (zeros, total) = report.layers.iter().fold((0, 0), |(z, t), l| (z + l.zeros, t + l.total));
    assert_eq!(total, 784 * 300 + 300 * 100 + 100 * 10);
    assert_eq!(zeros, (0.9 * total as f64).round() as usize);
    // PyTorch's start is narrower where more inputs are summed.
    assert!(report.layers[0].sparsity > report.layers[2].sparsity);
    m.verify().unwrap();
}

#[test]
fn layer_scope_prunes_each_alike() {
    let mut m = model("lenet5");
    let report = prune(&mut m, &settings(0.5, Scope::Layer)).unwrap();
    assert_eq!(report.layers.len(), 4);
    assert!(report.layers.iter().all(|l| l.zeros == (l.total as f64 / 2.0).round() as usize));
}

#[test]
fn pruning_further_never_revives() {
    let mut m = model("mlp");
    prune(&mut m, &settings(0.3, Scope::Global)).unwrap();
    let before = m.annotations.clone();
    let report = prune(&mut m, &settings(0.6, Scope::Global)).unwrap();
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
    let report = prune(&mut m, &settings(0.2, Scope::Global)).unwrap();
    let layer = report.layers.iter().find(|l| l.name == "layer1.conv1.weight").unwrap();
    assert_eq!(layer.sparsity, 1.0);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let mut m = model("lenet5");
    for sparsity in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(prune(&mut m, &settings(sparsity, Scope::Global)), Err(PruneError::Setting { setting: "sparsity", .. })));
    }
    assert!(candidates(&m, &["conv9*".into()]).unwrap_err().to_string().contains("conv9*"));
    assert_eq!(candidates(&m, &["conv*".into()]).unwrap().len(), 2);
    let unknown = PruneSettings { method: "magnitud".into(), ..settings(0.5, Scope::Global) };
    assert!(prune(&mut m, &unknown).unwrap_err().to_string().contains("magnitude"));
    let weight = m.find("fc1.weight").unwrap();
    let broken = Tensor::full(f32::NAN, m.values.tensor(weight).unwrap().shape()).unwrap();
    m.values.set_tensor(weight, broken);
    assert!(prune(&mut m, &settings(0.5, Scope::Global)).unwrap_err().to_string().contains("fc1.weight"));
}
