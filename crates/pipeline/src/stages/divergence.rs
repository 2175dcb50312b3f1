//! Detects that a training diverges or learns nothing, and suggests remedies.
use crate::recipe::Training;
use distill::DistillationSettings;
use graph::Model;
use train::{Sgd, Task};

/// A loss that rose by this factor over the lowest so far gets a warning ...
const RISE: f64 = 2.0;
/// ... if it is at least this share of the loss of an untrained network.
const SMALL: f64 = 0.5;

/// A loss within this share of an untrained network's ...
const NEAR: f64 = 0.02;
/// ... after this many epochs gets a warning.
const STUCK: u64 = 2;

/// Watches the losses of a stage.
pub(super) struct Divergence {
    lowest: Option<f64>,
    /// Loss of a network that gives every class the same probability; 0 if the task does not define it.
    ignorant: f64,
    advice: String,
    told: bool,
    /// Epochs in which the loss showed no learning; `None` once it did, or if a teacher changes the loss.
    stuck: Option<u64>,
    normalizes: bool,
}

/// Remedies against a diverging training.
pub(super) fn advice(model: &Model, training: &Training) -> String {
    let optimizer = training.optimizer.clone().unwrap_or_else(Sgd::for_random_weights);
    let lr = optimizer.lr();
    let clip = if training.clip_norm.is_none() { ", or set clip_norm = 1.0" } else { "" };
    if optimizer.scales_each_weight() {
        return format!("lower optimizer.lr (it is {lr}){clip}");
    }
    let folded = if normalizes(model) { "" } else { "without BatchNormalization (quantizing folds it) SGD needs a small rate; " };
    format!("{folded}lower optimizer.lr (it is {lr}), take optimizer = {{ kind = \"adamw\", lr = 0.001 }}{clip}")
}

fn normalizes(model: &Model) -> bool {
    let mut found = false;
    model.graph.visit(&mut |n| found |= n.op_type.ends_with("Normalization"));
    found
}

impl Divergence {
    /// For a stage that trains `model` for a task; `losses` between the stage's model and its teacher, if it has one.
    pub(super) fn new(model: &Model, task: &dyn Task, training: &Training, losses: Option<&DistillationSettings>) -> Self {
        let scale = losses.map_or(1.0, DistillationSettings::scale);
        let ignorant = scale * task.ignorant_loss(model).unwrap_or(0.0);
        let stuck = (losses.is_none_or(|l| !l.has_weight()) && ignorant > 0.0).then_some(0);
        Divergence { lowest: None, ignorant, advice: advice(model, training), told: false, stuck, normalizes: normalizes(model) }
    }

    /// A step's loss; only the first counts, as the initial loss of the stage.
    pub(super) fn step(&mut self, loss: f64) {
        self.lowest.get_or_insert(loss);
    }

    /// As [`Divergence::epoch`], for a training that learns nothing: its loss stays at the logarithm of the number of classes.
    pub(super) fn stuck(&mut self, epoch: u64, loss: f64) -> Option<String> {
        let epochs = self.stuck.as_mut()?;
        if (loss - self.ignorant).abs() > NEAR * self.ignorant {
            self.stuck = None;
            return None;
        }
        *epochs += 1;
        if *epochs != STUCK {
            return None;
        }
        let ignorant = self.ignorant;
        let folded = if self.normalizes {
            ""
        } else {
            "; the network has no BatchNormalization: if its exporter folded it away before it was trained (PyTorch's does unless told \
             training = TRAINING, do_constant_folding = False), export it with it"
        };
        Some(format!(
            "the network has learned nothing: after epoch {epoch} its loss is still {loss:.3}, that of an equal guess among the classes is \
             {ignorant:.3}; another learning rate, labels that do not belong to the samples, or inputs that are all alike \
             (data.preprocess) are the usual causes{folded}"
        ))
    }

    /// Takes an epoch's mean loss; returns a warning, once for each stage.
    pub(super) fn epoch(&mut self, epoch: u64, loss: f64) -> Option<String> {
        let lowest = self.lowest.get_or_insert(loss);
        let rose = loss > RISE * *lowest && loss > SMALL * self.ignorant;
        let from = *lowest;
        *lowest = lowest.min(loss);
        if !rose || std::mem::replace(&mut self.told, true) {
            return None;
        }
        Some(format!("the training diverges: the loss rose from {from:.3} to {loss:.3} in epoch {epoch}; {}", self.advice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Stage, parse};

    fn watch(teacher: Option<(f32, f32)>) -> Divergence {
        let text = "name = \"t\"\n[data]\ntrain = \"x\"\n[[stages]]\nkind = \"train\"\nmodel = { arch = \"lenet5\" }\n";
        let recipe = parse(text, &[]).unwrap();
        let training = recipe.stages.first().and_then(Stage::training).unwrap();
        let entry = zoo::find("lenet5").unwrap();
        let task = technique::Choice::<train::Tasks>::default();
        let losses = teacher.map(|(temperature, alpha)| DistillationSettings::hinton(temperature, alpha));
        Divergence::new(&entry.build(&entry.default_options()).unwrap(), task.member().as_ref(), training, losses.as_ref())
    }

    #[test]
    fn a_rise_is_told_once_with_what_helps() {
        let mut w = watch(None);
        w.step(0.1);
        w.step(9.0);
        let told = w.epoch(1, 2.3).unwrap();
        assert!(
            told.starts_with("the training diverges: the loss rose from 0.100 to 2.300 in epoch 1; without BatchNormalization"),
            "{told}"
        );
        assert!(told.contains("lower optimizer.lr (it is 0.05), take optimizer = { kind = \"adamw\""), "{told}");
        assert_eq!(w.epoch(2, 5.0), None);
    }

    #[test]
    fn a_loss_that_stays_at_an_equal_guess_is_told_once() {
        let mut w = watch(None);
        assert_eq!(w.stuck(1, 2.31), None);
        let told = w.stuck(2, 2.302).unwrap();
        assert!(told.starts_with("the network has learned nothing: after epoch 2 its loss is still 2.302"), "{told}");
        assert!(told.contains("no BatchNormalization"), "{told}");
        assert_eq!(w.stuck(3, 2.30), None);
        let mut learns = watch(None);
        assert_eq!((learns.stuck(1, 2.30), learns.stuck(2, 2.1), learns.stuck(3, 2.30), learns.stuck(4, 2.30)), (None, None, None, None));
        let mut taught = watch(Some((4.0, 0.7)));
        assert_eq!((taught.stuck(1, taught.ignorant), taught.stuck(2, taught.ignorant)), (None, None));
    }

    #[test]
    fn what_falls_or_stays_small_or_has_a_teacher_with_a_high_temperature_is_no_divergence() {
        for (teacher, first, losses) in
            [(None, 2.4, [2.2, 1.0, 1.1]), (None, 0.02, [0.1, 0.3, 0.2]), (Some((4.0, 0.7)), 5.0, [12.0, 8.0, 1.0])]
        {
            let mut w = watch(teacher);
            w.step(first);
            assert!(losses.iter().all(|l| w.epoch(1, *l).is_none()), "{losses:?}");
        }
    }
}
