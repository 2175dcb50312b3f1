//! Trainings that go back to an early step, and trainings of the mask alone.
use espalier_prune::{GradualPruning, PruneSettings, candidates};
use graph::{Model, Node};
use std::collections::BTreeMap;
use tensor::{Tensor, random};
use train::{Batch, Batches, MeanSquaredError, Participant, StepContext, TrainContext, TrainError, TrainSettings};

/// Numbers whose second alone matters: the target is half of it.
struct Half;

impl Batches for Half {
    fn batches(&self) -> u64 {
        10
    }
    fn epoch(&self, epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
        Box::new((0..10).map(move |i| {
            let x = random::normal(random::derive(epoch, i), &[16, 4], 0.0, 1.0)?;
            let y: Vec<f32> = x.to_f32_vec()?.chunks(4).map(|row| 0.5 * row[1]).collect();
            let (inputs, targets) = (BTreeMap::from([("x".into(), x)]), BTreeMap::from([("y".into(), Tensor::new(y, [16, 1])?)]));
            Ok(Batch { inputs, targets, ..Batch::default() })
        }))
    }
}

/// `y = x w`, with the weight that matters not the largest.
fn net() -> Model {
    let mut m = Model::new(17);
    let [x, y] = ["x", "y"].map(|n| m.values.add_named(n));
    let w = m.values.add_constant("w", Tensor::new(vec![1.0f32, 0.5, -0.8, 0.3], [4, 1]).unwrap());
    m.graph.inputs.push(x);
    m.graph.constants.push(w);
    m.graph.nodes.push(Node::new("MatMul", "fc", &[x, w], &[y]));
    m.graph.outputs.push(y);
    m
}

fn settings(sparsity: f64, schedule: &str) -> PruneSettings {
    PruneSettings { sparsity_schedule: serde_json::from_str(schedule).unwrap(), ..PruneSettings::new(sparsity) }
}

/// The weight and the schedule's factor before each step.
#[derive(Default)]
struct Seen(Vec<(Vec<f32>, f64)>);

impl Participant for Seen {
    fn name(&self) -> &'static str {
        "seen"
    }
    fn before_step(&mut self, cx: &mut StepContext) -> Result<(), TrainError> {
        let w = cx.model.find("w").and_then(|id| cx.model.values.tensor(id)).unwrap().to_f32_vec()?;
        self.0.push((w, cx.factor));
        Ok(())
    }
}

fn trained(settings: &PruneSettings, epochs: u64) -> (Model, Vec<(Vec<f32>, f64)>) {
    trained_with(settings, epochs, None).0
}

type Validate<'a> = &'a mut dyn FnMut(&Model) -> Result<f64, TrainError>;

/// Also the epoch that was kept.
#[allow(clippy::type_complexity)]
fn trained_with(settings: &PruneSettings, epochs: u64, validate: Option<Validate>) -> ((Model, Vec<(Vec<f32>, f64)>), u64) {
    let (mut m, mut seen) = (net(), Seen::default());
    let loss = MeanSquaredError::of(&m).unwrap();
    let mut gradual = GradualPruning::new(settings).unwrap();
    let participants: Vec<&mut dyn Participant> = vec![&mut gradual, &mut seen];
    let validate = validate.map(|v| v as Validate);
    let mut context = TrainContext { participants, validate, ..TrainContext::default() };
    let optimizer = serde_json::from_str(r#"{ "kind": "sgd", "lr": 0.05, "momentum": 0.0, "nesterov": false, "weight_decay": 0.0 }"#);
    let training = TrainSettings { epochs, optimizer: optimizer.unwrap(), ..TrainSettings::default() };
    let kept = train::train(&mut m, &Half, &loss, &training, &mut context).unwrap().kept;
    drop(context);
    ((m, seen.0), kept)
}

fn live(m: &Model) -> Vec<bool> {
    let list = candidates(m, &[]).unwrap();
    m.annotations.mask(list[0].weight).unwrap().as_slice::<bool>().unwrap().to_vec()
}

#[test]
fn weights_and_learning_rate_go_back_to_the_early_step() {
    // 100 steps, of which 40 are a whole training; rounds prune before the steps 40 and 70, and go back to step 10.
    let schedule = |of: &str| format!(r#"{{ "kind": "rewind", "rounds": 2, "to": 0.25, "of": "{of}" }}"#);
    let (m, seen) = trained(&settings(0.75, &schedule("weights")), 10);
    assert_eq!((&seen[40].0, &seen[70].0), (&seen[10].0, &seen[10].0));
    assert_ne!(seen[39].0, seen[10].0);
    assert!(seen[40].1 == seen[10].1 && seen[99].1 == seen[39].1 && seen[39].1 < 0.01 && seen[10].1 > 0.8, "{seen:?}");
    assert_eq!(live(&m).iter().filter(|live| **live).count(), 1);
    // The weight that training made the largest is the one that matters.
    assert_eq!(live(&m), [false, true, false, false]);

    let (_, seen) = trained(&settings(0.75, &schedule("learning_rate")), 10);
    assert!(seen[40].1 == seen[10].1 && seen[40].0 != seen[10].0);
    // Nothing but the step's own update lies between them.
    assert!(seen[40].0.iter().zip(&seen[39].0).all(|(a, b)| (a - b).abs() < 1e-3), "{:?} {:?}", seen[39], seen[40]);
}

#[test]
fn a_mask_is_found_whose_weights_have_not_moved() {
    let search = settings(0.75, r#"{ "kind": "mask_search", "rate": 0.2 }"#);
    let (m, seen) = trained(&search, 2);
    assert!(seen.iter().all(|(w, _)| *w == [1.0, 0.5, -0.8, 0.3]), "{:?}", seen.last());
    assert_eq!(live(&m), [false, true, false, false]);
    let groups = PruneSettings { granularity: serde_json::from_str("\"filter\"").unwrap(), ..search.clone() };
    assert_eq!(groups.check().unwrap_err().path, ["sparsity_schedule"]);
    let moved = PruneSettings { criterion: serde_json::from_str("\"movement\"").unwrap(), ..search.clone() };
    assert_eq!(moved.check().unwrap_err().path, ["criterion"]);
    // The first epoch is the best by validation, and the mask is the last one's: the last is kept.
    let mut judged = 0.0;
    let mut validate = |_: &Model| {
        judged -= 1.0;
        Ok(judged)
    };
    assert_eq!(trained_with(&search, 3, Some(&mut validate)).1, 2);
}
