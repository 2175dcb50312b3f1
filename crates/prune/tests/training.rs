//! Pruning with data: by gradients, and during training.
use espalier_prune::{
    Criteria, GradualPruning, Granularities, PruneSettings, Scopes, SparsitySchedules, Updates, candidates, prune, prune_with,
};
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use technique::{Choice, Family, manual};
use tensor::{Tensor, random};
use train::{
    Batch, Batches, CrossEntropy, GradientSource, Keep, Mode, Overrides, Participant, ParticipantState, StepContext, TrainContext,
    TrainError, TrainSettings,
};

/// Noise whose brightest corner is its label.
struct Corners {
    batches: u64,
}

impl Batches for Corners {
    fn batches(&self) -> u64 {
        self.batches
    }
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..self.batches).map(move |i| {
            let pixels = random::normal(random::derive(epoch, i), &[16, 1, 6, 6], 0.0, 1.0)?;
            let corners = |image: &[f32]| [image[0], image[5], image[30], image[35]];
            let brightest = |v: [f32; 4]| (0..4).max_by(|a, b| v[*a].total_cmp(&v[*b])).unwrap_or(0) as i64;
            let labels = pixels.to_f32_vec()?.chunks(36).map(|image| brightest(corners(image))).collect::<Vec<_>>();
            Ok(Batch {
                inputs: BTreeMap::from([("input".into(), pixels)]),
                targets: BTreeMap::from([("label".into(), Tensor::vector(labels))]),
                ..Batch::default()
            })
        }))
    }
}

fn model() -> Model {
    let entry = zoo::find("lenet300-100").unwrap();
    entry.build(&zoo::ZooOptions { width: 0.1, classes: 4, input: vec![1, 6, 6], ..entry.default_options() }).unwrap()
}

fn settings(sparsity: f64, criterion: &str, schedule: &str) -> PruneSettings {
    PruneSettings {
        criterion: serde_json::from_str(criterion).unwrap(),
        sparsity_schedule: serde_json::from_str(schedule).unwrap(),
        ..PruneSettings::new(sparsity)
    }
}

const CUBIC: &str = r#"{ "kind": "cubic", "begin": 0.1, "end": 0.6, "every": 3 }"#;
const TAYLOR: &str = r#"{ "kind": "taylor", "batches": 2 }"#;

fn live(m: &Model, id: ValueId) -> Vec<bool> {
    m.annotations.mask(id).unwrap().as_slice::<bool>().unwrap().to_vec()
}

/// By the definition: a gradient for each batch, from a step of its own.
fn reference(m: &Model, source: &GradientSource, id: ValueId, batches: usize) -> Vec<f64> {
    let weight = m.values.tensor(id).unwrap();
    let mut sum = vec![0f64; weight.len()];
    for batch in source.data.epoch(source.epoch).take(batches) {
        let batch = batch.unwrap();
        let leaf = weight.tracked().unwrap();
        let overrides = Overrides { constants: [(id, leaf.clone())].into(), ..Overrides::default() };
        let executor = train::Executor::with_taps(m, &source.objective.taps()).unwrap();
        let out = executor.run_with(&batch.inputs, &overrides, Mode::SIMULATED, None).unwrap();
        let gradients = source.objective.loss(&out.values, &batch).unwrap().backward().unwrap();
        let (g, w) = (gradients.get(&leaf).unwrap().to_f64_vec().unwrap(), weight.to_f64_vec().unwrap());
        sum.iter_mut().zip(g.iter().zip(w)).for_each(|(s, (g, w))| *s += (g * w).powi(2));
    }
    sum
}

#[test]
fn taylor_removes_what_the_mean_of_squared_products_says() {
    let mut m = model();
    let (data, loss) = (Corners { batches: 5 }, CrossEntropy::of(&m, 0.0).unwrap());
    let source = GradientSource { data: &data, epoch: 3, objective: &loss, simulate: true };
    let before = m.clone();
    let report = prune_with(&mut m, &settings(0.6, r#"{ "kind": "taylor", "batches": 3 }"#, r#""one_shot""#), Some(&source)).unwrap();
    assert!((report.sparsity - 0.6).abs() < 1e-3);
    let (mut dead, mut kept) = (vec![], vec![]);
    for candidate in candidates(&before, &[]).unwrap() {
        let importance = reference(&before, &source, candidate.weight, 3);
        for (i, live) in importance.into_iter().zip(live(&m, candidate.weight)) {
            if live { kept.push(i) } else { dead.push(i) }
        }
    }
    let most = dead.into_iter().fold(0.0, f64::max);
    let least = kept.into_iter().fold(f64::INFINITY, f64::min);
    assert!(most <= least * 1.001, "{most} is dead, {least} lives");
    // Weights and statistics are as they were.
    for (id, v) in before.values.iter() {
        assert_eq!(v.constant, m.values[id].constant);
    }
}

#[test]
fn pruning_further_by_gradients_never_revives() {
    let mut m = model();
    let (data, loss) = (Corners { batches: 5 }, CrossEntropy::of(&m, 0.0).unwrap());
    let source = GradientSource { data: &data, epoch: 0, objective: &loss, simulate: true };
    prune_with(&mut m, &settings(0.3, TAYLOR, r#""one_shot""#), Some(&source)).unwrap();
    let before = m.clone();
    let report = prune_with(&mut m, &settings(0.7, TAYLOR, r#""one_shot""#), Some(&source)).unwrap();
    assert!((report.sparsity - 0.7).abs() < 1e-3);
    for candidate in candidates(&m, &[]).unwrap() {
        let revived = live(&before, candidate.weight).into_iter().zip(live(&m, candidate.weight)).filter(|(was, is)| !was && *is);
        assert_eq!(revived.count(), 0, "{}", candidate.name);
    }
}

/// Records the sparsity after each step, and that no pruned element is restored.
#[derive(Default)]
struct Sparsities {
    list: Vec<f64>,
    last: Vec<bool>,
}

impl Participant for Sparsities {
    fn name(&self) -> &'static str {
        "sparsities"
    }
    fn after_update(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        let masks = cx.model.annotations.iter().filter_map(|(_, a)| a.mask.as_ref());
        let now: Vec<bool> = masks.flat_map(|m| m.as_slice::<bool>().unwrap().to_vec()).collect();
        assert!(self.last.is_empty() || self.last.iter().zip(&now).all(|(was, is)| *was || !is), "an element lives again");
        self.list.push(now.iter().filter(|l| !**l).count() as f64 / now.len().max(1) as f64);
        self.last = now;
        Ok(())
    }
}

fn train_settings(epochs: u64) -> TrainSettings {
    TrainSettings { epochs, keep: Keep::Best, ..TrainSettings::default() }
}

#[test]
fn the_sparsity_rises_while_it_trains_and_ends_where_it_should() {
    for criterion in [r#""magnitude""#, TAYLOR] {
        let settings = settings(0.8, criterion, CUBIC);
        let mut m = model();
        let loss = CrossEntropy::of(&m, 0.0).unwrap();
        let (mut gradual, mut seen) = (GradualPruning::new(&settings).unwrap(), Sparsities::default());
        let mut epoch = 0;
        let mut judge = |_: &Model| {
            epoch += 1;
            Ok([0.9, 0.9, 0.8, 0.5, 0.7, 0.6][epoch - 1])
        };
        let participants: Vec<&mut dyn Participant> = vec![&mut gradual, &mut seen];
        let mut context = TrainContext { validate: Some(&mut judge), participants, ..TrainContext::default() };
        let report = train::train(&mut m, &Corners { batches: 5 }, &loss, &train_settings(6), &mut context).unwrap();
        // 30 steps: prunings before the steps 3, 6, .. 15 and 18.
        assert_eq!(seen.list[..3], [0.0; 3]);
        assert!(seen.list.windows(2).all(|w| w[0] <= w[1]));
        assert!(seen.list[17] < 0.795, "{:?}", seen.list);
        assert!(seen.list[18..].iter().all(|s| (s - 0.8).abs() < 1e-3), "{:?}", seen.list);
        assert_eq!(seen.list.windows(2).filter(|w| w[0] < w[1]).count(), 5, "{:?}", seen.list);
        assert_eq!(report.kept, 4, "the epochs before the end of the schedule do not count");
        assert!((gradual.report().unwrap().sparsity - 0.8).abs() < 1e-3);
        assert!((espalier_prune::report(&m, &candidates(&m, &[]).unwrap()).sparsity - 0.8).abs() < 1e-3);
    }
}

#[test]
fn masks_that_are_there_are_kept_by_a_schedule_that_begins_below_them() {
    let mut m = model();
    prune(&mut m, &PruneSettings::new(0.5)).unwrap();
    let settings = PruneSettings { min_per_layer: 0.15, ..settings(0.8, r#""magnitude""#, CUBIC) };
    let loss = CrossEntropy::of(&m, 0.0).unwrap();
    let (mut gradual, mut seen) = (GradualPruning::new(&settings).unwrap(), Sparsities::default());
    let participants: Vec<&mut dyn Participant> = vec![&mut seen, &mut gradual];
    let mut context = TrainContext { participants, ..TrainContext::default() };
    train::train(&mut m, &Corners { batches: 5 }, &loss, &train_settings(2), &mut context).unwrap();
    assert!((seen.list[0] - 0.5).abs() < 1e-3 && (seen.list[9] - 0.8).abs() < 1e-3, "{:?}", seen.list);
}

/// Stops before a step.
struct StopAt(u64);
impl Participant for StopAt {
    fn name(&self) -> &'static str {
        "stop"
    }
    fn before_step(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        if cx.step == self.0 { Err(TrainError::Interrupted) } else { Ok(()) }
    }
    fn restore(&mut self, _: &mut Model, _: &ParticipantState) -> Result<(), TrainError> {
        self.0 = u64::MAX;
        Ok(())
    }
}

#[test]
fn a_training_that_was_stopped_ends_in_the_same_bits() {
    for (criterion, stop) in [(r#""magnitude""#, 12), (TAYLOR, 12), (TAYLOR, 27)] {
        let settings = settings(0.8, criterion, CUBIC);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint");
        let data = Corners { batches: 5 };
        let run = |checkpoint: bool, stop: u64| {
            let mut m = model();
            let loss = CrossEntropy::of(&m, 0.0).unwrap();
            let (mut gradual, mut stops) = (GradualPruning::new(&settings).unwrap(), StopAt(stop));
            let participants: Vec<&mut dyn Participant> = vec![&mut gradual, &mut stops];
            let checkpoint = checkpoint.then(|| path.clone());
            let mut context = TrainContext { checkpoint, participants, ..TrainContext::default() };
            let report = train::train(&mut m, &data, &loss, &train_settings(6), &mut context);
            (report.map(|r| r.history), m, gradual.report().cloned())
        };
        let (history, whole, report) = run(false, u64::MAX);
        assert_eq!(run(true, stop).0.unwrap_err(), TrainError::Interrupted);
        let resumed = run(true, stop);
        assert_eq!((resumed.0, resumed.2), (history, report));
        for (id, v) in whole.values.iter() {
            assert_eq!(v.constant, resumed.1.values[id].constant, "{}", v.name);
            assert_eq!(whole.annotations.mask(id), resumed.1.annotations.mask(id), "{}", v.name);
        }
    }
}

/// Every member has a manual page, and an example that parses to it.
fn documented<F: Family>() {
    let pages = manual::<F>();
    assert!(!pages.summary.is_empty() && pages.default.is_none_or(|name| pages.members.iter().any(|m| m.manual.name == name)));
    for page in pages.members {
        let (name, example) = (page.manual.name, page.manual.example);
        assert!(!page.manual.summary.is_empty() && example.contains(&format!("{} = ", F::NAME)), "{name}");
        assert!(page.settings.iter().all(|s| !s.summary.is_empty()), "{name}");
        Choice::<F>::named(name).unwrap();
    }
}

#[test]
fn every_member_is_documented() {
    documented::<Criteria>();
    documented::<SparsitySchedules>();
    documented::<Granularities>();
    documented::<Scopes>();
    documented::<Updates>();
}

#[test]
fn settings_are_read_from_names_and_tables_and_checked() {
    let read = |text: &str| serde_json::from_str::<PruneSettings>(text);
    let short = read(r#"{ "sparsity": 0.5, "criterion": "taylor" }"#).unwrap();
    assert_eq!((short.criterion.kind(), short.sparsity_schedule.kind()), ("taylor", "one_shot"));
    for (text, what) in [
        (r#"{ "sparsity": 0.5, "criterion": "tailor" }"#, "did you mean 'taylor'?"),
        (r#"{ "sparsity": 0.5, "criterion": { "kind": "taylor", "batches": 0 } }"#, "batches = 0"),
        (r#"{ "sparsity": 0.5, "criterion": { "kind": "magnitude", "batches": 3 } }"#, "batches"),
        (r#"{ "sparsity": 0.5, "sparsity_schedule": { "kind": "cubic", "end": 0.0 } }"#, "end = 0 does not lie behind begin"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    let fault = |s: PruneSettings| s.check().unwrap_err();
    assert_eq!(fault(PruneSettings::new(1.0)).what, "sparsity = 1 leaves no weight: it must be below 1");
    let above = settings(0.3, r#""magnitude""#, r#"{ "kind": "cubic", "initial": 0.4 }"#);
    assert_eq!(fault(above).path, ["sparsity_schedule", "initial"]);
}
