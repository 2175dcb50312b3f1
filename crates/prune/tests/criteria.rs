//! Criteria that need data, on a small network whose numbers can be checked.
use espalier_prune::{Candidate, Criteria, GradualPruning, PruneError, PruneSettings, SparsitySchedules, candidates, prune, prune_with};
use graph::{AttributeValue, Model, Node, ValueId};
use std::collections::BTreeMap;
use technique::Choice;
use tensor::{Tensor, random};
use train::{Batch, Batches, CrossEntropy, GradientSource, Participant, StepContext, TrainContext, TrainError, TrainSettings};

/// Noise whose channels differ in size and have a part in common, with random labels.
struct Noise {
    shape: Vec<usize>,
    common: f32,
}

impl Batches for Noise {
    fn batches(&self) -> u64 {
        4
    }
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..4).map(move |i| {
            let shape: Vec<usize> = std::iter::once(8).chain(self.shape.iter().copied()).collect();
            let run: usize = self.shape[1..].iter().product();
            let x = random::normal(random::derive(epoch, i), &shape, 0.0, 1.0)?.to_f32_vec()?;
            let common = |i: usize| random::gaussian(epoch, (i / run / self.shape[0] * run + i % run) as u64) as f32;
            let x =
                x.iter().enumerate().map(|(i, v)| v * (1 + i / run % self.shape[0]) as f32 + self.common * common(i)).collect::<Vec<_>>();
            let labels = (0..8).map(|k| (random::bits(epoch + 9, i * 8 + k) % 3) as i64).collect::<Vec<_>>();
            Ok(Batch {
                inputs: BTreeMap::from([("x".into(), Tensor::new(x, shape)?)]),
                targets: BTreeMap::from([("label".into(), Tensor::vector(labels))]),
                ..Batch::default()
            })
        }))
    }
}

/// A matrix layer alone: classes from 4 numbers.
fn linear() -> Model {
    let mut m = Model::new(17);
    let (x, y) = (m.values.add_named("x"), m.values.add_named("y"));
    let w = m.values.add_constant("w", random::normal(3, &[4, 3], 0.0, 0.5).unwrap());
    m.graph.inputs.push(x);
    m.graph.constants.push(w);
    m.graph.nodes.push(Node::new("Gemm", "fc", &[x, w], &[y]));
    m.graph.outputs.push(y);
    m
}

/// A convolution of two groups.
fn grouped() -> Model {
    let mut m = Model::new(17);
    let [x, a, p, f, y] = ["x", "a", "p", "f", "y"].map(|n| m.values.add_named(n));
    let w = m.values.add_constant("w", random::normal(5, &[4, 2, 3, 3], 0.0, 0.5).unwrap());
    let v = m.values.add_constant("v", random::normal(6, &[4, 3], 0.0, 0.5).unwrap());
    m.graph.inputs.push(x);
    m.graph.constants.extend([w, v]);
    m.graph.nodes.push(Node::new("Conv", "conv", &[x, w], &[a]).with("group", AttributeValue::Int(2)));
    m.graph.nodes.push(Node::new("GlobalAveragePool", "pool", &[a], &[p]));
    m.graph.nodes.push(Node::new("Flatten", "flat", &[p], &[f]));
    m.graph.nodes.push(Node::new("Gemm", "fc", &[f, v], &[y]));
    m.graph.outputs.push(y);
    m
}

fn criterion(text: &str) -> Choice<Criteria> {
    serde_json::from_str(text).unwrap()
}

fn weight(m: &Model, name: &str) -> (Candidate, Vec<f32>) {
    let candidate = candidates(m, &[]).unwrap().into_iter().find(|c| c.name == name).unwrap();
    let w = m.values.tensor(candidate.weight).unwrap().to_f32_vec().unwrap();
    (candidate, w)
}

fn live(m: &Model, id: ValueId) -> Vec<bool> {
    m.annotations.mask(id).unwrap().as_slice::<bool>().unwrap().to_vec()
}

/// Asserts that the dead elements of `name` are those of least `importance`.
fn least_die(m: &Model, name: &str, importance: &[f32]) {
    let (candidate, _) = weight(m, name);
    let live = live(m, candidate.weight);
    let over = |keep: bool| importance.iter().zip(&live).filter(move |(_, l)| **l == keep).map(|(v, _)| *v);
    assert!(live.contains(&false) && live.contains(&true));
    let (most, least) = (over(false).fold(0.0, f32::max), over(true).fold(f32::INFINITY, f32::min));
    assert!(most <= least * 1.0001, "{most} is dead, {least} lives: {importance:?}");
}

#[test]
fn wanda_weighs_by_the_channel_that_a_weight_multiplies() {
    let mut m = grouped();
    let (data, loss) = (Noise { shape: vec![4, 5, 5], common: 0.0 }, CrossEntropy::of(&m, 0.0).unwrap());
    let source = GradientSource { data: &data, epoch: 2, objective: &loss, simulate: true };
    // Root mean squares of the input's channels, by the definition.
    let (mut squares, mut count) = ([0f64; 4], 0);
    for batch in data.epoch(2).take(3) {
        for (i, v) in batch.unwrap().inputs["x"].to_f32_vec().unwrap().iter().enumerate() {
            squares[i / 25 % 4] += f64::from(*v).powi(2);
            count += 1;
        }
    }
    let (_, w) = weight(&m, "w");
    // Output o of two groups reads the channels of its group.
    let channel = |i: usize| i / 36 * 2 + i / 9 % 2;
    let importance: Vec<f32> = (0..w.len()).map(|i| w[i].abs() * (squares[channel(i)] / (count / 4) as f64).sqrt() as f32).collect();
    let settings = PruneSettings {
        criterion: criterion(r#"{ "kind": "wanda", "batches": 3 }"#),
        scope: Choice::named("layer").unwrap(),
        ..PruneSettings::new(0.5)
    };
    prune_with(&mut m, &settings, Some(&source)).unwrap();
    least_die(&m, "w", &importance);
    let error = prune(&mut grouped(), &settings).unwrap_err().to_string();
    assert!(error.contains("wanda needs inputs, and there is no data to run"), "{error}");
}

#[test]
fn obd_follows_the_second_derivatives() {
    let mut m = linear();
    let (data, loss) = (Noise { shape: vec![4], common: 0.0 }, CrossEntropy::of(&m, 0.0).unwrap());
    let source = GradientSource { data: &data, epoch: 0, objective: &loss, simulate: true };
    // Softmax of x W: the second derivative by w_ij is the mean of x_i^2 p_j (1 - p_j).
    let (_, w) = weight(&m, "w");
    let (mut h, mut n) = (vec![0f64; 12], 0);
    for batch in data.epoch(0) {
        let x = batch.unwrap().inputs["x"].to_f32_vec().unwrap();
        for x in x.chunks(4) {
            let z: Vec<f64> = (0..3).map(|j| (0..4).map(|i| f64::from(x[i] * w[i * 3 + j])).sum()).collect();
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            for (k, h) in h.iter_mut().enumerate() {
                let p = z[k % 3].exp() / sum;
                *h += f64::from(x[k / 3]).powi(2) * p * (1.0 - p);
            }
            n += 1;
        }
    }
    let importance: Vec<f64> = (0..12).map(|k| f64::from(w[k].abs()) * (h[k] / f64::from(n) / 2.0).sqrt()).collect();
    let settings = PruneSettings { criterion: criterion(r#"{ "kind": "obd", "batches": 4, "draws": 400 }"#), ..PruneSettings::new(0.5) };
    prune_with(&mut m, &settings, Some(&source)).unwrap();
    let (candidate, _) = weight(&m, "w");
    let live = live(&m, candidate.weight);
    let over = |keep: bool| importance.iter().zip(&live).filter(move |(_, l)| **l == keep).map(|(v, _)| *v);
    // The estimate is a mean over random directions.
    let (most, least) = (over(false).fold(0.0, f64::max), over(true).fold(f64::INFINITY, f64::min));
    assert!(most <= least * 1.15, "{most} is dead, {least} lives: {importance:?} {live:?}");
}

#[test]
fn snip_takes_the_mean_gradient_and_random_only_its_seed() {
    let (data, loss) = (Noise { shape: vec![4], common: 0.0 }, CrossEntropy::of(&linear(), 0.0).unwrap());
    let source = GradientSource { data: &data, epoch: 1, objective: &loss, simulate: true };
    let mut m = linear();
    let (candidate, w) = weight(&m, "w");
    let moments = train::gradient_moments(&m, &source, &[candidate.weight], 2).unwrap();
    let importance: Vec<f32> = w.iter().zip(&moments[&candidate.weight].mean).map(|(w, g)| (w * g).abs()).collect();
    let settings = PruneSettings { criterion: criterion(r#"{ "kind": "snip", "batches": 2 }"#), ..PruneSettings::new(0.5) };
    prune_with(&mut m, &settings, Some(&source)).unwrap();
    least_die(&m, "w", &importance);
    let drawn = |seed: u64| {
        let mut m = grouped();
        let settings =
            PruneSettings { criterion: Choice::with("random", &serde_json::json!({ "seed": seed })).unwrap(), ..PruneSettings::new(0.5) };
        let report = prune(&mut m, &settings).unwrap();
        assert!((report.sparsity - 0.5).abs() < 0.02);
        live(&m, weight(&m, "w").0.weight)
    };
    assert!(drawn(1) == drawn(1) && drawn(1) != drawn(2));
}

#[test]
fn layers_that_a_criterion_does_not_know_stay_dense_and_are_named() {
    let mut m = grouped();
    let settings =
        PruneSettings { criterion: criterion(r#""bn_scale""#), granularity: Choice::named("filter").unwrap(), ..PruneSettings::new(0.5) };
    let report = prune(&mut m, &settings).unwrap();
    assert_eq!(report.dense.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["w", "v"]);
    let entry = zoo::find("resnet8").unwrap();
    let mut m = entry.build(&entry.default_options()).unwrap();
    let gamma = m.find("layer1.bn1.weight").unwrap();
    m.values.set_tensor(gamma, Tensor::vector((0..16).map(|i| if i % 2 == 0 { 1e-3f32 } else { 3.0 }).collect::<Vec<_>>()));
    let settings = PruneSettings { scope: Choice::named("layer").unwrap(), ..settings };
    let report = prune(&mut m, &settings).unwrap();
    let dense: Vec<&str> = report.dense.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(dense, ["layer2.shortcut.weight", "layer3.shortcut.weight", "linear.weight"]);
    let live = live(&m, m.find("layer1.conv1.weight").unwrap());
    assert!(live.chunks(live.len() / 16).enumerate().all(|(o, filter)| filter.iter().all(|l| *l == (o % 2 == 1))));
}

/// What plain SGD does to the weight at each step: the sum of `-w * g`.
#[derive(Default)]
struct Moved(Vec<f64>);

impl Participant for Moved {
    fn name(&self) -> &'static str {
        "moved"
    }
    fn gradients(&mut self, cx: &mut StepContext, gradients: &mut [Option<Tensor>]) -> Result<(), TrainError> {
        let (parameter, gradient) = (&cx.parameters[0], gradients[0].as_ref().unwrap().to_f32_vec()?);
        let w = cx.model.values.tensor(parameter.id.value).unwrap().to_f32_vec()?;
        self.0.resize(w.len(), 0.0);
        if cx.step < 6 {
            self.0.iter_mut().zip(w.iter().zip(gradient)).for_each(|(s, (w, g))| *s -= f64::from(w * g));
        }
        Ok(())
    }
}

#[test]
fn movement_prunes_what_training_shrinks() {
    let mut m = linear();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let settings = PruneSettings {
        criterion: criterion(r#""movement""#),
        sparsity_schedule: serde_json::from_str(r#"{ "kind": "iterative", "rounds": 1, "end": 0.5 }"#).unwrap(),
        ..PruneSettings::new(0.5)
    };
    let (mut gradual, mut moved) = (GradualPruning::new(&settings).unwrap(), Moved::default());
    let participants: Vec<&mut dyn Participant> = vec![&mut gradual, &mut moved];
    let mut context = TrainContext { participants, ..TrainContext::default() };
    let training = TrainSettings { epochs: 3, ..TrainSettings::default() };
    train::train(&mut m, &Noise { shape: vec![4], common: 0.0 }, &loss, &training, &mut context).unwrap();
    let least = moved.0.iter().copied().fold(0.0, f64::min);
    least_die(&m, "w", &moved.0.iter().map(|s| (s - least) as f32).collect::<Vec<_>>());
    let at_once = PruneSettings { sparsity_schedule: Choice::<SparsitySchedules>::default(), ..settings.clone() };
    assert_eq!(at_once.check().unwrap_err().path, ["criterion"]);
    assert!(matches!(prune(&mut linear(), &settings), Err(PruneError::Setting(fault)) if fault.path == ["criterion"]));
}

/// The number of live elements before each step, and how many live that did not before.
#[derive(Default)]
struct Lives {
    counts: Vec<usize>,
    revived: usize,
    last: Vec<bool>,
}

impl Participant for Lives {
    fn name(&self) -> &'static str {
        "lives"
    }
    fn before_step(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        let now: Vec<bool> =
            cx.model.annotations.iter().filter_map(|(_, a)| a.mask.as_ref()).flat_map(|m| m.as_slice::<bool>().unwrap().to_vec()).collect();
        self.revived += self.last.iter().zip(&now).filter(|(was, is)| !**was && **is).count();
        self.counts.push(now.iter().filter(|l| **l).count());
        self.last = now;
        Ok(())
    }
}

#[test]
fn rigl_exchanges_weights_and_keeps_the_sparsity() {
    let mut m = grouped();
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let settings = PruneSettings {
        sparsity_schedule: serde_json::from_str(r#"{ "kind": "rigl", "every": 2, "share": 0.5, "end": 0.8 }"#).unwrap(),
        ..PruneSettings::new(0.5)
    };
    let (mut gradual, mut lives) = (GradualPruning::new(&settings).unwrap(), Lives::default());
    let participants: Vec<&mut dyn Participant> = vec![&mut gradual, &mut lives];
    let mut context = TrainContext { participants, ..TrainContext::default() };
    let training = TrainSettings { epochs: 5, ..TrainSettings::default() };
    train::train(&mut m, &Noise { shape: vec![4, 5, 5], common: 0.0 }, &loss, &training, &mut context).unwrap();
    assert!(lives.counts.iter().all(|c| *c == lives.counts[0]) && lives.counts[0] == 42, "{:?}", lives.counts);
    assert!(lives.revived > 5, "{}", lives.revived);
    let pattern = PruneSettings { granularity: Choice::named("filter").unwrap(), ..settings };
    assert_eq!(pattern.check().unwrap_err().path, ["sparsity_schedule"]);
}

/// What the convolution gives for the batches of an epoch.
fn results(m: &Model, data: &Noise) -> Vec<f64> {
    let mut m = m.clone();
    m.graph.outputs = vec![m.find("a").unwrap()];
    let executor = train::Executor::new(&m).unwrap();
    let batch = |b: Result<Batch, TrainError>| executor.run(&b.unwrap().inputs, train::Mode::SIMULATED).unwrap()["a"].to_f64_vec().unwrap();
    data.epoch(7).flat_map(batch).collect()
}

#[test]
fn weights_that_live_make_up_for_those_that_do_not() {
    let data = Noise { shape: vec![4, 5, 5], common: 8.0 };
    let dense = grouped();
    let loss = CrossEntropy::of(&dense, 0.0).unwrap();
    let source = GradientSource { data: &data, epoch: 0, objective: &loss, simulate: true };
    let wanted = results(&dense, &data);
    let error = |criterion: &str, update: &str| {
        let mut m = grouped();
        let settings = PruneSettings {
            criterion: serde_json::from_str(criterion).unwrap(),
            update: serde_json::from_str(update).unwrap(),
            scope: Choice::named("layer").unwrap(),
            ..PruneSettings::new(0.5)
        };
        let report = prune_with(&mut m, &settings, Some(&source)).unwrap();
        assert!((report.sparsity - 0.5).abs() < 0.02 && report.dense.is_empty(), "{report:?}");
        // Dead elements keep their values below the mask.
        for (name, was) in ["w", "v"].map(|name| (name, weight(&dense, name).1)) {
            let (candidate, now) = weight(&m, name);
            assert!(live(&m, candidate.weight).iter().zip(was.iter().zip(&now)).all(|(live, (was, now))| *live || was == now));
        }
        results(&m, &data).iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
    };
    let (magnitude, updated) = (error(r#""magnitude""#, r#""keep""#), error(r#""magnitude""#, r#""least_squares""#));
    assert!(updated < 0.9 * magnitude, "{magnitude} {updated}");
    let gradual = PruneSettings {
        update: Choice::named("least_squares").unwrap(),
        sparsity_schedule: Choice::named("cubic").unwrap(),
        ..PruneSettings::new(0.5)
    };
    assert_eq!(gradual.check().unwrap_err().path, ["update"]);
}

#[test]
fn the_surgeon_finds_the_weight_that_is_missed_least() {
    let data = Noise { shape: vec![4, 5, 5], common: 8.0 };
    let dense = grouped();
    let loss = CrossEntropy::of(&dense, 0.0).unwrap();
    let source = GradientSource { data: &data, epoch: 7, objective: &loss, simulate: true };
    let wanted = results(&dense, &data);
    let error = |criterion: &str| {
        let mut m = grouped();
        let settings = PruneSettings {
            criterion: serde_json::from_str(criterion).unwrap(),
            update: serde_json::from_str(r#"{ "kind": "least_squares", "damping": 1e-6 }"#).unwrap(),
            skip: vec!["v".into()],
            ..PruneSettings::new(1.0 / 72.0)
        };
        let report = prune_with(&mut m, &settings, Some(&source)).unwrap();
        assert_eq!(report.layers[0].zeros, 1);
        results(&m, &data).iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).sum::<f64>()
    };
    let surgeon = error(r#"{ "kind": "obs", "damping": 1e-6 }"#);
    let others = (0..12).map(|seed| error(&format!(r#"{{ "kind": "random", "seed": {seed} }}"#))).chain([error("\"magnitude\"")]);
    let others: Vec<f64> = others.collect();
    assert!(others.iter().all(|other| surgeon <= other * 1.001), "{surgeon} {others:?}");
    assert!(others.iter().any(|other| surgeon < other * 0.5));
}
