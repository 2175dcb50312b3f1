use super::*;
use graph::Node;
use tensor::gradcheck;

/// `y = x`, with two outputs.
fn identity() -> Model {
    let mut m = Model::new(17);
    let x = m.values.add_named("x");
    m.graph.inputs.push(x);
    for name in ["y", "z"] {
        let y = m.values.add_named(name);
        m.graph.nodes.push(Node::new("Identity", name, &[x], &[y]));
        m.graph.outputs.push(y);
    }
    m
}

fn batch(target: Tensor) -> Batch {
    Batch { targets: BTreeMap::from([(TARGET.to_string(), target)]), ..Batch::default() }
}

fn scored(said: &[f32], wanted: &[f32], shape: &[usize]) -> Figures {
    let m = identity();
    let mut score = Regression::default().score(&m, Reads::Output(m.graph.outputs[0])).unwrap();
    let rows = shape[0];
    // In two parts, which must not matter.
    for (from, count) in [(0, rows / 2), (rows / 2, rows - rows / 2)] {
        let part = |v: &[f32]| Tensor::new(v.to_vec(), shape).unwrap().narrow(0, from, count).unwrap();
        let values = HashMap::from([(m.graph.outputs[0], part(said))]);
        score.add(&values, &batch(part(wanted))).unwrap();
    }
    score.figures()
}

#[test]
fn figures_of_known_numbers() {
    // By hand: errors 1, 0, 2, 1; mean of the targets 2.5, squared deviations 2.25 + 0.25 + 0.25 + 2.25 = 5.
    let f = scored(&[2.0, 2.0, 5.0, 3.0], &[1.0, 2.0, 3.0, 4.0], &[4, 1]);
    assert_eq!((f.samples, f.nan, f.values["mae"]), (4, 0, 1.0));
    assert!((f.values["r2"] - (1.0 - 6.0 / 5.0)).abs() < 1e-12);
    // Standard deviation of the errors: sqrt(2/3); of their mean: half of it.
    let (low, high) = f.intervals["mae"];
    let half = 1.96 * (2.0f64 / 3.0).sqrt() / 2.0;
    assert!((low - (1.0 - half)).abs() < 1e-3 && (high - (1.0 + half)).abs() < 1e-3, "{low} {high}");
    // Each element of a target has a mean of its own.
    let f = scored(&[0.0, 100.0, 2.0, 104.0], &[0.0, 100.0, 2.0, 102.0], &[2, 2]);
    assert!((f.values["r2"] - (1.0 - 4.0 / 4.0)).abs() < 1e-9, "{f:?}");
}

#[test]
fn a_nan_hides_behind_no_figure() {
    let f = scored(&[f32::NAN, 2.0], &[1.0, 2.0], &[2, 1]);
    assert_eq!((f.nan, f.values.len(), f.intervals.len()), (1, 0, 0));
}

#[test]
fn each_sample_has_its_error_and_the_direction_is_down() {
    let m = identity();
    let score = Regression::default().score(&m, Reads::Graph).unwrap();
    let values = HashMap::from([(m.graph.outputs[0], Tensor::new(vec![1f32, 3.0, 5.0, 5.0], [2, 2]).unwrap())]);
    let target = Tensor::new(vec![0f32, 0.0, 5.0, 4.0], [2, 2]).unwrap();
    assert_eq!(score.each(&values, &batch(target)).unwrap(), [2.0, 0.5]);
    assert_eq!(score.better(), Better::Lower);
    assert!(Better::Lower.better(1.0, 2.0) && !Better::Lower.better(2.0, 2.0) && Better::Lower.as_good(2.0, 2.0));
    assert!(Better::Higher.better(2.0, 1.0) && !Better::Higher.better(f64::NAN, 1.0));
}

#[test]
fn the_loss_takes_a_target_without_its_last_axis_and_its_gradient_is_right() {
    let m = identity();
    let loss = Regression::default().loss(&m, 0.0).unwrap();
    let target = Tensor::vector(vec![1.0f64, -2.0, 0.5]);
    let x = Tensor::new(vec![0.25f64, 1.0, 0.5], [3, 1]).unwrap();
    let of = |t: &Tensor| loss.loss(&HashMap::from([(m.graph.outputs[0], t.clone())]), &batch(target.clone()));
    let expected = (0.75f64.powi(2) + 9.0) / 3.0;
    assert!((of(&x).unwrap().item::<f64>().unwrap() - expected).abs() < 1e-12);
    gradcheck::check(&[x], |t| of(&t[0]).map_err(|e| tensor::TensorError::shape("loss", e.to_string()))).unwrap();
    let error = of(&Tensor::new(vec![0f64; 6], [3, 2]).unwrap()).unwrap_err().to_string();
    assert!(error.contains("the output has shape [3, 2], the targets [3]"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let m = identity();
    let named = Regression { output: Some("q".into()), ..Regression::default() };
    assert!(named.loss(&m, 0.0).err().unwrap().to_string().contains("'q' is not an output of the model; its outputs: y, z"));
    assert!(Regression::default().loss(&m, 0.1).err().unwrap().to_string().contains("label_smoothing"));
    let z = Regression { output: Some("z".into()), ..Regression::default() };
    assert_eq!(z.output(&m), Some(m.graph.outputs[1]));
}

#[test]
fn a_file_is_held_to_the_spread_of_the_targets() {
    let wanted = batch(Tensor::vector(vec![0f32, 2.0, 4.0, 6.0])); // Standard deviation: sqrt(5).
    let simulated = Tensor::new(vec![0f32, 2.0, 4.0, 6.0], [4, 1]).unwrap();
    let mut near = Nearness::default();
    near.add(&simulated, &Tensor::new(vec![0.0f32, 2.04, 4.0, 6.0], [4, 1]).unwrap(), &wanted).unwrap();
    assert!((near.figures()["mean_difference"] - 0.01 / 5f64.sqrt()).abs() < 1e-6, "{:?}", near.figures());
    assert!(near.violations("y").is_empty());
    let mut far = Nearness::default();
    far.add(&simulated, &Tensor::new(vec![0f32, 2.0, 4.0, 8.0], [4, 1]).unwrap(), &wanted).unwrap();
    let told = far.violations("y");
    assert_eq!(told.len(), 2);
    assert!(told[1].starts_with("output 'y': the largest difference to the simulation is 89.44 %"), "{told:?}");
    let mut lost = Nearness::default();
    lost.add(&simulated, &Tensor::new(vec![0f32, 2.0, f32::NAN, 6.0], [4, 1]).unwrap(), &wanted).unwrap();
    assert_eq!((lost.violations("y").len(), lost.figures().len()), (2, 0));
}
