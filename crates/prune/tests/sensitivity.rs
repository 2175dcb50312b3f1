//! What each layer alone costs, and shares by it, on small networks whose numbers can be worked out.
use espalier_prune::{PerLayer, PruneSettings, Scopes, SensitivityShares, candidates, prune, sensitivity};
use graph::{Model, Node};
use std::collections::BTreeMap;
use technique::{Choice, Settings};
use tensor::{Tensor, random};
use train::{Batch, EffectMeter, Harm, TrainError};

/// Matrix products one after the other.
fn chain(weights: &[Tensor]) -> Model {
    let mut m = Model::new(17);
    let mut at = m.values.add_named("x");
    m.graph.inputs.push(at);
    for (i, w) in weights.iter().enumerate() {
        let (w, y) = (m.values.add_constant(format!("w{i}"), w.clone()), m.values.add_named(format!("y{i}")));
        m.graph.constants.push(w);
        m.graph.nodes.push(Node::new("MatMul", format!("fc{i}"), &[at, w], &[y]));
        at = y;
    }
    m.graph.outputs.push(at);
    m
}

fn batch(x: Tensor) -> Result<Batch, TrainError> {
    Ok(Batch { inputs: BTreeMap::from([("x".into(), x)]), ..Batch::default() })
}

#[test]
fn the_noise_of_a_layer_is_the_power_of_what_it_loses() {
    // The rows of x pick the rows of the weight, so outputs are weights.
    let m = chain(&[Tensor::new(vec![1f32, 2.0, 3.0, 4.0], [2, 2]).unwrap()]);
    let eye = || batch(Tensor::new(vec![1f32, 0.0, 0.0, 1.0], [2, 2]).unwrap());
    let mut ticks = vec![];
    let found = sensitivity(&m, &PruneSettings::new(0.5), &[0.25, 0.5, 0.75], None, None, [eye(), eye()].into_iter(), &mut |done, all| {
        ticks.push((done, all));
    })
    .unwrap();
    let noise: Vec<f64> = found.layers[0].effects.iter().map(|(_, e)| e.noise).collect();
    let wanted = [1.0 / 30.0, 5.0 / 30.0, 14.0 / 30.0];
    assert!(noise.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{noise:?}");
    assert_eq!((found.samples, found.layers[0].elements, found.layers.len()), (4, 4, 1));
    assert_eq!(ticks, [(0, 3), (1, 3), (2, 3), (0, 3), (1, 3), (2, 3)]);
    assert!(found.curves(Harm::Loss).is_none());
    assert_eq!(found.curves(Harm::Noise).unwrap()[0].points.iter().map(|p| p[0]).collect::<Vec<_>>(), [0.25, 0.5, 0.75]);
    // What is masked already stays so, at shares below its own too.
    let mut half = m.clone();
    let w = half.find("w0").unwrap();
    half.annotations.entry(w).mask = Some(Tensor::new(vec![false, true, true, false], [2, 2]).unwrap());
    let again = sensitivity(&half, &PruneSettings::new(0.5), &[0.25, 0.5, 0.75], None, None, [eye()].into_iter(), &mut |_, _| {}).unwrap();
    let noise: Vec<f64> = again.layers[0].effects.iter().map(|(_, e)| e.noise).collect();
    assert!(noise[..2] == [0.0, 0.0] && (noise[2] - 4.0 / 13.0).abs() < 1e-6, "{noise:?}");
    // The network stays as it is, and no batch is no measurement.
    assert!(m.annotations.iter().all(|(_, a)| a.is_empty()));
    let none = sensitivity(&m, &PruneSettings::new(0.5), &[0.5], None, None, std::iter::empty(), &mut |_, _| {});
    assert!(none.unwrap_err().to_string().contains("no batch"));
}

/// The noise of a network pruned by settings.
fn noise(m: &Model, settings: &PruneSettings, x: &Tensor) -> (Model, f64) {
    let mut pruned = m.clone();
    prune(&mut pruned, settings).unwrap();
    let (mut meter, batch) = (EffectMeter::new(m, None), batch(x.clone()).unwrap());
    let (right, got) = (meter.run(m, &batch).unwrap(), meter.run(&pruned, &batch).unwrap());
    meter.add(&right, &got, &batch).unwrap();
    (pruned, meter.effect().noise)
}

#[test]
fn a_fragile_layer_is_spared_where_the_same_share_of_each_breaks_it() {
    // Every weight of the first layer counts alike; of the second, three quarters are almost nothing.
    let fragile = (0..64).map(|i| if random::bits(7, i) & 1 == 0 { 0.3f32 } else { -0.3 }).collect::<Vec<_>>();
    let spare = |i: u64| random::gaussian(8, i) as f32 * if i.is_multiple_of(4) { 0.5 } else { 1e-3 };
    let m = chain(&[Tensor::new(fragile, [8, 8]).unwrap(), Tensor::new((0..256).map(spare).collect::<Vec<_>>(), [8, 32]).unwrap()]);
    let x = random::normal(9, &[32, 8], 0.0, 1.0).unwrap();
    let with = |scope: Choice<Scopes>| PruneSettings { scope, ..PruneSettings::new(0.5) };
    let wanting = with(SensitivityShares::default().choice().unwrap());
    let wanted = wanting.scope.measure().unwrap();
    let found = sensitivity(&m, &wanting, wanted.sparsities, None, None, [batch(x.clone())].into_iter(), &mut |_, _| {}).unwrap();
    let scope = wanting.scope.measured(found.curves(wanted.by).unwrap()).unwrap().unwrap();
    assert_eq!(scope.measure(), None);

    let (by_curve, least) = noise(&m, &with(scope), &x);
    let (_, uniform) = noise(&m, &with(PerLayer {}.choice().unwrap()), &x);
    assert!(uniform > 0.1 && least < 1e-3 * uniform, "{least} {uniform}");
    let live = |name: &str| {
        let weight = candidates(&by_curve, &[]).unwrap().into_iter().find(|c| c.name == name).unwrap().weight;
        by_curve.annotations.mask(weight).unwrap().as_slice::<bool>().unwrap().iter().filter(|live| **live).count()
    };
    assert_eq!((live("w0"), live("w1")), (64, 96));
}

#[test]
fn what_needs_no_measurement_refuses_it() {
    let scope: Choice<Scopes> = serde_json::from_str("\"sensitivity\"").unwrap();
    let pattern =
        PruneSettings { scope: scope.clone(), granularity: serde_json::from_str("\"n_m\"").unwrap(), ..PruneSettings::of_pattern() };
    assert_eq!(pattern.check().unwrap_err().path, ["scope"]);
    let error = prune(&mut chain(&[Tensor::full(1f32, [2, 2]).unwrap()]), &PruneSettings { scope, ..PruneSettings::new(0.5) });
    assert!(error.unwrap_err().to_string().contains("nothing has been measured"));
}
