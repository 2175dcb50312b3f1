//! The objective: the task's loss and weighted losses between student and teacher.
use crate::{DistillationSettings, Models, Seen, Teacher, Term};
use graph::{Model, ValueId};
use std::collections::HashMap;
use std::ops::Range;
use tensor::Tensor;
use train::{Batch, LossParameter, Mode, Objective, TrainError, loss_error};

/// `task_weight * task + sum of weight * loss(student, teacher)`.
pub struct Distillation<'m, T> {
    task: T,
    task_weight: f64,
    terms: Vec<Weighted>,
    teacher: Teacher<'m>,
    parameters: Vec<LossParameter>,
    /// Sentences for the user: what is compared with what, and where a final Softmax is skipped.
    pub notes: Vec<String>,
}

/// A term with its weight and the range of the objective's parameters that it owns.
struct Weighted {
    weight: f64,
    term: Box<dyn Term>,
    own: Range<usize>,
}

impl<'m, T: Objective> Distillation<'m, T> {
    /// Distils from `teacher` (run as a float graph) into `student`, beside the task's loss. `seed` makes the initial parameters
    /// of the losses.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a setting out of range, or what the models do not have; as [`Teacher::new`].
    pub fn new(task: T, student: &Model, teacher: &'m Model, settings: &DistillationSettings, seed: u64) -> Result<Self, TrainError> {
        let (mut parameters, mut terms, mut notes) = (task.parameters(), vec![], vec![]);
        let weights = settings.losses.iter().map(|l| l.weight).chain([settings.task_weight]);
        if let Some(weight) = weights.into_iter().find(|w| !(w.is_finite() && *w >= 0.0)) {
            return Err(TrainError::Setting { setting: "weight".into(), what: format!("is {weight}; it must be 0 or more") });
        }
        for (i, given) in settings.losses.iter().enumerate() {
            let models = Models::new(student, teacher, tensor::random::derive(seed, i as u64));
            let term = given.loss.term(&models)?;
            let begin = parameters.len();
            let own = term.parameters().into_iter();
            parameters.extend(own.map(|p| LossParameter { name: format!("losses.{i}.{}", p.name), ..p }));
            notes.extend(term.notes());
            terms.push(Weighted { weight: given.weight, term, own: begin..parameters.len() });
        }
        let mut taps: Vec<ValueId> = vec![];
        for value in terms.iter().flat_map(|t| t.term.teacher_values()) {
            if !taps.contains(&value) {
                taps.push(value);
            }
        }
        let teacher = Teacher::new(teacher, &taps, Mode::FLOAT)?;
        Ok(Distillation { task, task_weight: settings.task_weight, terms, teacher, parameters, notes })
    }
}

impl<T: Objective> Objective for Distillation<'_, T> {
    fn taps(&self) -> Vec<ValueId> {
        let mut taps = self.task.taps();
        taps.extend(self.terms.iter().flat_map(|t| t.term.student_values()));
        taps.sort();
        taps.dedup();
        taps
    }

    fn parameters(&self) -> Vec<LossParameter> {
        self.parameters.clone()
    }

    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        let parameters: Vec<Tensor> = self.parameters.iter().map(|p| p.value.clone()).collect();
        self.loss_with(&parameters, values, batch)
    }

    fn loss_with(&self, parameters: &[Tensor], values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        let taught = self.teacher.observe(batch)?;
        let own = |range: Range<usize>| {
            parameters.get(range).ok_or_else(|| TrainError::Value { value: "loss".into(), what: "was given too few parameters".into() })
        };
        let of_task = self.terms.first().map_or(self.parameters.len(), |t| t.own.start);
        let task = self.task.loss_with(own(0..of_task)?, values, batch)?;
        let mut total = task.mul_scalar(self.task_weight).map_err(loss_error)?;
        for Weighted { weight, term, own: range } in &self.terms {
            let loss = term.loss(&Seen { student: values, teacher: &taught, parameters: own(range.clone())?, batch })?;
            total = total.add(&loss.mul_scalar(*weight).map_err(loss_error)?).map_err(loss_error)?;
        }
        Ok(total)
    }

    fn correct(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Option<usize> {
        self.task.correct(values, batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{identity, three_sizes};
    use crate::{Feature, Losses, WeightedLoss};
    use technique::{Choice, Settings};
    use tensor::random;
    use train::{AdamW, Batches, CrossEntropy, TrainContext, TrainSettings};

    fn batch(x: &Tensor) -> Batch {
        Batch {
            inputs: [("x".to_string(), x.clone())].into(),
            targets: [("label".to_string(), Tensor::vector(vec![1i64, 0]))].into(),
            ..Batch::default()
        }
    }

    #[test]
    fn alpha_one_pulls_to_the_teacher_and_alpha_zero_to_the_task() {
        let (student, teacher) = (identity("x"), identity("other_name"));
        let x = Tensor::new(vec![2f32, -1.0, 0.5, 1.0], [2, 2]).unwrap();
        let y = Tensor::new(vec![0f32, 1.0, 2.0, 0.0], [2, 2]).unwrap();
        let loss = |alpha: f32, logits: &Tensor| {
            let task = CrossEntropy::of(&student, 0.0).unwrap();
            let objective = Distillation::new(task, &student, &teacher, &DistillationSettings::hinton(2.0, alpha), 0).unwrap();
            objective.loss(&objective.taps().into_iter().map(|v| (v, logits.clone())).collect(), &batch(&x)).unwrap()
        };
        assert!(loss(1.0, &x).item::<f32>().unwrap().abs() < 1e-6);
        assert!(loss(1.0, &y).item::<f32>().unwrap() > 0.1);
        let (half, task, taught) = (loss(0.5, &y), loss(0.0, &y), loss(1.0, &y));
        let mean = (task.item::<f32>().unwrap() + taught.item::<f32>().unwrap()) / 2.0;
        assert!((half.item::<f32>().unwrap() - mean).abs() < 1e-6);
        let leaf = y.tracked().unwrap();
        assert!(loss(1.0, &leaf).backward().unwrap().get(&leaf).is_some());
    }

    /// `(1 - alpha) * task + alpha * T^2 * KL`, in this order of operations: what a recipe with temperature and alpha trains.
    #[test]
    fn hintons_loss_alone_is_its_formula_to_the_bit() {
        let (student, teacher) = (identity("x"), identity("x"));
        let (x, y) = (random::normal(1, &[2, 5], 0.0, 3.0).unwrap(), random::normal(2, &[2, 5], 0.0, 3.0).unwrap());
        for (temperature, alpha) in [(4.0, 0.7f32), (2.0, 0.3), (1.3, 0.9)] {
            let task = CrossEntropy::of(&student, 0.1).unwrap();
            let objective = Distillation::new(task, &student, &teacher, &DistillationSettings::hinton(temperature, alpha), 0).unwrap();
            let values = objective.taps().into_iter().map(|v| (v, y.clone())).collect();
            let loss = objective.loss(&values, &batch(&x)).unwrap();
            let labels = Tensor::vector(vec![1i64, 0]);
            let task = tensor::cross_entropy(&y, &labels, 0.1).unwrap().mul_scalar(1.0 - f64::from(alpha)).unwrap();
            let taught = tensor::distillation_loss(&y, &x, temperature).unwrap().mul_scalar(f64::from(alpha)).unwrap();
            assert_eq!(loss, task.add(&taught).unwrap());
        }
    }

    #[test]
    fn a_bad_setting_is_refused_by_name() {
        let m = identity("x");
        let make = |s: &DistillationSettings| {
            let made = Distillation::new(CrossEntropy::of(&m, 0.0).unwrap(), &m, &m, s, 0);
            made.err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(make(&DistillationSettings::hinton(0.0, 0.7)).contains("temperature"));
        assert!(make(&DistillationSettings::hinton(4.0, 1.5)).contains("weight"));
        assert!(make(&DistillationSettings::hinton(4.0, f32::NAN)).contains("weight"));
        assert_eq!(make(&DistillationSettings::default()), "");
    }

    struct Noise;
    impl Batches for Noise {
        fn batches(&self) -> u64 {
            4
        }
        fn epoch(&self, _epoch: u64) -> Box<dyn Iterator<Item = Result<Batch, TrainError>> + '_> {
            Box::new((0..4).map(|i| {
                let x = random::normal(i, &[8, 3, 8, 8], 0.0, 1.0).unwrap();
                let labels = Tensor::vector((0..8).collect::<Vec<i64>>());
                Ok(Batch { inputs: [("input".into(), x)].into(), targets: [("label".into(), labels)].into(), ..Batch::default() })
            }))
        }
    }

    /// The student has half the teacher's channels: adapters of its own lead from one to the other, learn, and are not in the model.
    #[test]
    fn several_losses_in_one_list_train_a_student_and_its_adapters() {
        let (mut student, teacher) = (three_sizes(2), three_sizes(4));
        let before = student.clone();
        let losses = [("feature", 1.0), ("attention_transfer", 0.5)]
            .map(|(kind, weight)| WeightedLoss::new(weight, Choice::<Losses>::named(kind).unwrap()).unwrap());
        let settings = DistillationSettings { task_weight: 0.1, losses: losses.to_vec() };
        let task = CrossEntropy::of(&student, 0.0).unwrap();
        let objective = Distillation::new(task, &student, &teacher, &settings, 7).unwrap();
        let names: Vec<String> = objective.parameters().into_iter().map(|p| p.name).collect();
        assert_eq!((names.len(), names[0].as_str()), (6, "losses.0.relu0.adapter.weight"));
        assert!(objective.notes.iter().any(|n| n.starts_with("attention_transfer compares student 'relu0'")), "{:?}", objective.notes);
        let optimizer = AdamW { lr: 0.01, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }.choice().unwrap();
        let settings = TrainSettings { epochs: 15, optimizer, ..TrainSettings::default() };
        let mut around = TrainContext::default();
        let report = train::train(&mut student, &Noise, &objective, &settings, &mut around).unwrap();
        let (first, last) = (report.history[0].loss, report.history[14].loss);
        assert!(last < 0.7 * first, "{first} -> {last}");
        assert_eq!(student.values.len(), before.values.len());
        assert_eq!(student.graph, before.graph);
    }

    #[test]
    fn equal_seeds_give_equal_adapters_and_each_loss_its_own() {
        let (student, teacher) = (three_sizes(2), three_sizes(4));
        let feature = || WeightedLoss { weight: 1.0, loss: Choice::<Losses>::with("feature", &Feature::default()).unwrap() };
        let of = |seed: u64, losses: Vec<WeightedLoss>| {
            let task = CrossEntropy::of(&student, 0.0).unwrap();
            let settings = DistillationSettings { task_weight: 1.0, losses };
            Distillation::new(task, &student, &teacher, &settings, seed).unwrap().parameters()
        };
        let twice = of(1, vec![feature(), feature()]);
        assert_eq!(twice, of(1, vec![feature(), feature()]));
        assert_ne!(twice[0].value, twice[6].value);
        assert_ne!(twice[0].value, of(2, vec![feature()])[0].value);
    }
}
