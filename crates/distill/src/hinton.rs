//! Knowledge distillation on softened outputs (Hinton et al. 2015, arXiv:1503.02531).
use crate::{Teacher, logits_value};
use graph::{Model, ValueId};
use std::collections::HashMap;
use tensor::Tensor;
use train::{Batch, Mode, Objective, TrainError, flat, loss_error, read};

/// Settings of Hinton's loss.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HintonSettings {
    /// Softens both distributions; above 0. Low (1 to 2) where the student is quantized.
    pub temperature: f32,
    /// Weight of the teacher, 0..1; the task loss gets the rest.
    pub alpha: f32,
    /// Pairs of output names, student's and teacher's; empty: the first output of each.
    pub outputs: Vec<(String, String)>,
}

impl Default for HintonSettings {
    fn default() -> Self {
        HintonSettings { temperature: 4.0, alpha: 0.7, outputs: vec![] }
    }
}

/// `(1 - alpha) * task + alpha * T^2 * KL(softmax(teacher / T) || softmax(student / T))`, the mean over the pairs of outputs
/// and the batch, on logits: a final Softmax is skipped on either side.
pub struct Hinton<'m, T> {
    task: T,
    teacher: Teacher<'m>,
    pairs: Vec<(ValueId, ValueId)>,
    settings: HintonSettings,
    /// Sentences for the user: where a final Softmax was skipped.
    pub hints: Vec<String>,
}

impl<'m, T: Objective> Hinton<'m, T> {
    /// Distills from `teacher` (run as a float graph) into `student`, beside the task loss.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a setting out of range or an output that does not exist; as [`Teacher::new`].
    pub fn new(task: T, student: &Model, teacher: &'m Model, settings: HintonSettings) -> Result<Self, TrainError> {
        let refuse = |setting: &str, what: String| Err(TrainError::Setting { setting: setting.into(), what });
        if !settings.temperature.is_finite() || settings.temperature <= 0.0 {
            return refuse("temperature", format!("is {}; it must be above 0", settings.temperature));
        }
        if !(0.0..=1.0).contains(&settings.alpha) {
            return refuse("alpha", format!("is {}; it must be from 0 to 1", settings.alpha));
        }
        let names: Vec<(Option<&str>, Option<&str>)> = match settings.outputs.as_slice() {
            [] => vec![(None, None)],
            list => list.iter().map(|(s, t)| (Some(s.as_str()), Some(t.as_str()))).collect(),
        };
        let (mut pairs, mut hints) = (vec![], vec![]);
        for (of_student, of_teacher) in names {
            let (s, t) = (logits_value(student, of_student)?, logits_value(teacher, of_teacher)?);
            pairs.push((s.value, t.value));
            hints.extend(s.hint.map(|h| format!("student: {h}")));
            hints.extend(t.hint.map(|h| format!("teacher: {h}")));
        }
        let taps: Vec<ValueId> = pairs.iter().map(|(_, t)| *t).collect();
        Ok(Hinton { task, teacher: Teacher::new(teacher, &taps, Mode::FLOAT)?, pairs, settings, hints })
    }
}

impl<T: Objective> Objective for Hinton<'_, T> {
    fn taps(&self) -> Vec<ValueId> {
        let mut taps = self.task.taps();
        taps.extend(self.pairs.iter().map(|(s, _)| *s));
        taps.sort();
        taps.dedup();
        taps
    }

    fn loss(&self, values: &HashMap<ValueId, Tensor>, batch: &Batch) -> Result<Tensor, TrainError> {
        let taught = self.teacher.observe(batch)?;
        let share = f64::from(self.settings.alpha) / self.pairs.len() as f64;
        let task = self.task.loss(values, batch)?;
        let mut total = task.mul_scalar(1.0 - f64::from(self.settings.alpha)).map_err(loss_error)?;
        for (student, teacher) in &self.pairs {
            let (student, teacher) = (flat(read(values, *student)?)?, flat(read(&taught, *teacher)?)?);
            if student.shape() != teacher.shape() {
                let what = format!(
                    "the student's logits have shape {:?}, the teacher's {:?}; the classes must agree",
                    student.shape(),
                    teacher.shape()
                );
                return Err(TrainError::Setting { setting: "teacher".into(), what });
            }
            let loss = tensor::distillation_loss(&student, &teacher, self.settings.temperature).map_err(loss_error)?;
            total = total.add(&loss.mul_scalar(share).map_err(loss_error)?).map_err(loss_error)?;
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
    use graph::Node;
    use train::CrossEntropy;

    /// `logits = Identity(x)`: known to the executor, and a gradient passes.
    fn identity(input: &str) -> Model {
        let mut m = Model::new(17);
        let (x, y) = (m.values.add_named(input), m.values.add_named("logits"));
        m.graph.inputs.push(x);
        m.graph.nodes.push(Node::new("Identity", "id", &[x], &[y]));
        m.graph.outputs.push(y);
        m
    }

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
            let hinton = Hinton::new(task, &student, &teacher, HintonSettings { alpha, temperature: 2.0, outputs: vec![] }).unwrap();
            hinton.loss(&hinton.taps().into_iter().map(|v| (v, logits.clone())).collect(), &batch(&x)).unwrap()
        };
        assert!(loss(1.0, &x).item::<f32>().unwrap().abs() < 1e-6);
        assert!(loss(1.0, &y).item::<f32>().unwrap() > 0.1);
        let (half, task, taught) = (loss(0.5, &y), loss(0.0, &y), loss(1.0, &y));
        let mean = (task.item::<f32>().unwrap() + taught.item::<f32>().unwrap()) / 2.0;
        assert!((half.item::<f32>().unwrap() - mean).abs() < 1e-6);
        let leaf = y.tracked().unwrap();
        assert!(loss(1.0, &leaf).backward().unwrap().get(&leaf).is_some());
    }

    #[test]
    fn bad_settings_are_refused_by_name() {
        let m = identity("x");
        let make =
            |s: HintonSettings| Hinton::new(CrossEntropy::of(&m, 0.0).unwrap(), &m, &m, s).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(make(HintonSettings { temperature: 0.0, ..Default::default() }).contains("temperature"));
        assert!(make(HintonSettings { alpha: 1.5, ..Default::default() }).contains("alpha"));
        assert!(make(HintonSettings { outputs: vec![("y".into(), "logits".into())], ..Default::default() }).contains("'y'"));
    }
}
