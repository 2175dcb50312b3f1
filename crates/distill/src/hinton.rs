//! Knowledge distillation on softened outputs (Hinton et al. 2015, arXiv:1503.02531).
use crate::{Loss, Losses, Models, Seen, Term};
use graph::ValueId;
use std::sync::Arc;
use technique::{Choice, Fault, Manual, Settings};
use tensor::Tensor;
use train::{TrainError, flat, logits_of, loss_error, read};

/// `T^2 * KL(softmax(teacher / T) || softmax(student / T))`, the mean over the batch and the pairs of outputs, on logits: a final
/// Softmax is skipped on either side.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hinton {
    /// Divides the logits of both; above 0. A high temperature also counts the teacher's small probabilities. Use a low one, from 1
    /// to 2, where the student is quantized.
    pub temperature: f32,
    /// Pairs of output names, student's and teacher's, as `[["logits", "logits"]]`; empty: the first output of each.
    pub outputs: Vec<(String, String)>,
}

impl Default for Hinton {
    fn default() -> Self {
        Hinton { temperature: 4.0, outputs: vec![] }
    }
}

impl Settings for Hinton {
    fn check(&self) -> Result<(), Fault> {
        if self.temperature > 0.0 && self.temperature.is_finite() {
            return Ok(());
        }
        Err(Fault::new("temperature", format!("temperature = {}: a number above 0 is needed", self.temperature)))
    }
}

impl Hinton {
    pub(crate) const MANUAL: Manual = Manual {
        name: "hinton",
        summary: "The student's output probabilities follow the teacher's, both softened by a temperature.",
        details: "T^2 * KL(softmax(teacher / T) || softmax(student / T)) on logits [n, classes], the mean over the batch. The factor T^2 keeps \
                  the size of the gradient over temperatures. A final Softmax is skipped on either side. Use it wherever both networks tell \
                  the same classes apart. In short: temperature and alpha on the stage, without losses, mean task_weight = 1 - alpha and \
                  this loss with weight = alpha.",
        source: "Hinton et al. 2015, arXiv:1503.02531, section 2",
        example: "task_weight = 0.3\nlosses = [{ kind = \"hinton\", weight = 0.7, temperature = 4 }]",
    };

    /// As a choice of its family. Settings out of range are refused by [`Loss::term`].
    pub(crate) fn choice(self) -> Choice<Losses> {
        let member: Arc<dyn Loss> = Arc::new(self.clone());
        Choice::of(Hinton::MANUAL.name, &self, member)
    }
}

impl Loss for Hinton {
    fn term(&self, models: &Models) -> Result<Box<dyn Term>, TrainError> {
        self.check().map_err(|f| TrainError::Setting { setting: f.path.join("."), what: f.what })?;
        let names: Vec<(Option<&str>, Option<&str>)> = match self.outputs.as_slice() {
            [] => vec![(None, None)],
            list => list.iter().map(|(s, t)| (Some(s.as_str()), Some(t.as_str()))).collect(),
        };
        let (mut pairs, mut notes) = (vec![], vec![]);
        for (of_student, of_teacher) in names {
            let (s, t) = (logits_of(models.student, of_student)?, logits_of(models.teacher, of_teacher)?);
            pairs.push((s.value, t.value));
            notes.extend(s.hint.map(|h| format!("student: {h}")));
            notes.extend(t.hint.map(|h| format!("teacher: {h}")));
        }
        Ok(Box::new(Softened { pairs, temperature: self.temperature, notes }))
    }

    fn compares_classes(&self) -> bool {
        true
    }

    fn scale(&self) -> f64 {
        f64::from(self.temperature) * f64::from(self.temperature)
    }
}

struct Softened {
    pairs: Vec<(ValueId, ValueId)>,
    temperature: f32,
    notes: Vec<String>,
}

impl Term for Softened {
    fn student_values(&self) -> Vec<ValueId> {
        self.pairs.iter().map(|p| p.0).collect()
    }

    fn teacher_values(&self) -> Vec<ValueId> {
        self.pairs.iter().map(|p| p.1).collect()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn loss(&self, seen: &Seen) -> Result<Tensor, TrainError> {
        let mut losses = vec![];
        for (student, teacher) in &self.pairs {
            let (student, teacher) = (flat(read(seen.student, *student)?)?, flat(read(seen.teacher, *teacher)?)?);
            if student.shape() != teacher.shape() {
                let (s, t) = (student.shape(), teacher.shape());
                let what = format!("the student's logits have shape {s:?}, the teacher's {t:?}; the classes must agree");
                return Err(TrainError::Setting { setting: "teacher".into(), what });
            }
            losses.push(tensor::distillation_loss(&student, &teacher, self.temperature).map_err(loss_error)?);
        }
        crate::pairs::mean(losses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{identity, two_outputs};
    use std::collections::HashMap;
    use tensor::random::uniform_f64;
    use train::Batch;

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let (student, teacher) = (two_outputs(), two_outputs());
        let outputs = vec![("a".to_string(), "b".to_string()), ("b".into(), "a".into())];
        let term = Hinton { temperature: 3.0, outputs }.term(&Models::new(&student, &teacher, 0)).unwrap();
        let (s, t) = (term.student_values(), term.teacher_values());
        assert_eq!((s.len(), s[0], s[1]), (2, t[1], t[0]));
        let taught: HashMap<_, _> = t.iter().zip(1..).map(|(v, seed)| (*v, uniform_f64(seed, &[3, 4], -2.0, 2.0))).collect();
        let inputs = [uniform_f64(8, &[3, 4], -2.0, 2.0), uniform_f64(9, &[3, 4], -2.0, 2.0)];
        tensor::gradcheck::check(&inputs, |x| {
            let values = s.iter().copied().zip(x.iter().cloned()).collect();
            let seen = Seen { student: &values, teacher: &taught, parameters: &[], batch: &Batch::default() };
            term.loss(&seen).map_err(|e| tensor::TensorError::value("hinton", e.to_string()))
        })
        .unwrap();
    }

    #[test]
    fn bad_settings_are_refused_by_name() {
        let m = identity("x");
        let told = |s: Hinton| s.term(&Models::new(&m, &m, 0)).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(told(Hinton { temperature: 0.0, ..Hinton::default() }).contains("temperature"));
        assert!(told(Hinton { outputs: vec![("y".into(), "logits".into())], ..Hinton::default() }).contains("'y'"));
        assert_eq!(told(Hinton::default()), "");
    }
}
