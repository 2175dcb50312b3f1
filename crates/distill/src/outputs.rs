//! The teacher's outputs as targets, for networks with numeric outputs.
use crate::{Loss, Models, Seen, Term};
use graph::{Model, ValueId};
use technique::{Manual, Settings};
use tensor::Tensor;
use train::{TrainError, align, loss_error, read};

/// `mean((student - teacher)^2)` over the elements of an output, the mean over the pairs of outputs.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Outputs {
    /// Pairs of output names, student's and teacher's, as `[["y", "y"]]`; empty: the first output of each.
    pub outputs: Vec<(String, String)>,
}

impl Settings for Outputs {}

impl Outputs {
    pub(crate) const MANUAL: Manual = Manual {
        name: "outputs",
        summary: "The student's outputs follow the teacher's: mean squared error.",
        details: "mean((student - teacher)^2) over the elements of an output [n, ...], which needs the same number of elements a sample on both \
                  sides. Use it where outputs are numbers: it is the default of a regression's teacher where a stage names no losses, \
                  with weight = alpha and task_weight = 1 - alpha. A teacher's outputs carry less noise than the targets. On the logits of \
                  classes it is what hinton tends to at high temperatures.",
        source: "Ba & Caruana 2014, arXiv:1312.6184, section 2.2",
        example: "task_weight = 0.5\nlosses = [{ kind = \"outputs\", weight = 0.5 }]",
    };
}

/// The output of this name, or the first.
fn output(model: &Model, name: Option<&str>, whose: &str) -> Result<ValueId, TrainError> {
    let outputs = &model.graph.outputs;
    let found = match name {
        None => outputs.first().copied(),
        Some(name) => outputs.iter().copied().find(|v| model.values[*v].name == name),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = outputs.iter().map(|v| model.values[*v].name.as_str()).collect();
        let what = format!("'{}' is not an output of the {whose} (outputs: {})", name.unwrap_or_default(), known.join(", "));
        TrainError::Setting { setting: "outputs".into(), what }
    })
}

impl Loss for Outputs {
    fn term(&self, models: &Models) -> Result<Box<dyn Term>, TrainError> {
        let names: Vec<(Option<&str>, Option<&str>)> = match self.outputs.as_slice() {
            [] => vec![(None, None)],
            list => list.iter().map(|(s, t)| (Some(s.as_str()), Some(t.as_str()))).collect(),
        };
        let pair = |(s, t)| Ok((output(models.student, s, "student")?, output(models.teacher, t, "teacher")?));
        Ok(Box::new(Distance { pairs: names.into_iter().map(pair).collect::<Result<_, TrainError>>()? }))
    }
}

struct Distance {
    pairs: Vec<(ValueId, ValueId)>,
}

impl Term for Distance {
    fn student_values(&self) -> Vec<ValueId> {
        self.pairs.iter().map(|p| p.0).collect()
    }

    fn teacher_values(&self) -> Vec<ValueId> {
        self.pairs.iter().map(|p| p.1).collect()
    }

    fn loss(&self, seen: &Seen) -> Result<Tensor, TrainError> {
        let mut losses = vec![];
        for (student, teacher) in &self.pairs {
            let student = read(seen.student, *student)?;
            let wanted = align(student, read(seen.teacher, *teacher)?)?;
            losses.push(tensor::mse_loss(student, &wanted).map_err(loss_error)?);
        }
        crate::pairs::mean(losses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_term, identity, two_outputs};
    use std::collections::HashMap;
    use train::Batch;

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let (student, teacher) = (two_outputs(), two_outputs());
        let outputs = vec![("a".to_string(), "b".to_string()), ("b".into(), "a".into())];
        let term = Outputs { outputs }.term(&Models::new(&student, &teacher, 0)).unwrap();
        check_term(term.as_ref(), &[vec![3, 2], vec![3, 1]], &[vec![3, 2], vec![3]]).unwrap();
    }

    #[test]
    fn a_student_that_says_the_same_has_nothing_to_learn() {
        let (student, teacher) = (identity("x"), identity("x"));
        let term = Outputs::default().term(&Models::new(&student, &teacher, 0)).unwrap();
        let loss = |s: [f32; 4], t: [f32; 4]| {
            let of = |v: [f32; 4], id| HashMap::from([(id, Tensor::new(v.to_vec(), [2, 2]).unwrap())]);
            let (s, t) = (of(s, student.graph.outputs[0]), of(t, teacher.graph.outputs[0]));
            let seen = Seen { student: &s, teacher: &t, parameters: &[], batch: &Batch::default() };
            term.loss(&seen).unwrap().item::<f32>().unwrap()
        };
        assert_eq!(loss([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]), 0.0);
        assert_eq!(loss([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 6.0]), 1.0);
        let named = Outputs { outputs: vec![("q".into(), "logits".into())] };
        let error = named.term(&Models::new(&student, &teacher, 0)).err().unwrap().to_string();
        assert!(error.contains("'q' is not an output of the student (outputs: logits)"), "{error}");
    }
}
