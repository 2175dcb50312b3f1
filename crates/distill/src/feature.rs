//! Hints: the student's features follow the teacher's through a learned adapter (Romero et al. 2015, arXiv:1412.6550).
use crate::pairs::{Pair, matched, mean, pairs};
use crate::{Loss, Models, Seen, Term};
use graph::ValueId;
use technique::{Manual, Settings};
use tensor::{ConvOptions, Tensor, random};
use train::{LossParameter, TrainError, loss_error, read};

/// `mean((teacher - adapter(student))^2)` over all elements of a feature, the mean over the pairs.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Feature {
    /// Pairs of value names, student's and teacher's, as `[["relu_9", "relu_27"]]`; empty: of each size that feature maps of both have,
    /// the last one.
    pub pairs: Vec<(String, String)>,
    /// Puts a 1x1 convolution with a bias between the student's feature and the teacher's; it is trained with the student and
    /// left out of its file. `false`: features are compared as they are, and need the same number of channels.
    pub adapter: bool,
}

impl Default for Feature {
    fn default() -> Self {
        Feature { pairs: vec![], adapter: true }
    }
}

impl Settings for Feature {}

impl Feature {
    pub(crate) const MANUAL: Manual = Manual {
        name: "feature",
        summary: "The student's features follow the teacher's through a learned adapter (hints of FitNets).",
        details: "mean((teacher - adapter(student))^2) on features [n, channels, ...]: the teacher's against the student's through a 1x1 \
                  convolution that is learned with the student and is no part of its file. Of a pair with different sizes the larger is \
                  averaged over windows, where one size is a multiple of the other; other sizes are refused. Equation 3 sums over the \
                  elements and halves; the mean makes the weight independent of the feature's size. Use it beside hinton for a student \
                  that is much smaller than its teacher; weights from 0.01 to 1 are usual, by the size of the features.",
        source: "Romero et al. 2015, arXiv:1412.6550, equation 3",
        example: "losses = [{ kind = \"hinton\", weight = 0.7 }, { kind = \"feature\", weight = 0.1 }]",
    };
}

impl Loss for Feature {
    fn term(&self, models: &Models) -> Result<Box<dyn Term>, TrainError> {
        let (pairs, note) = pairs(models, &self.pairs, Feature::MANUAL.name)?;
        let mut parameters = vec![];
        for (i, pair) in pairs.iter().enumerate() {
            let (of_student, of_teacher) = (pair.student.channels(), pair.teacher.channels());
            let (s, t) = (&pair.student.name, &pair.teacher.name);
            if !self.adapter {
                if let Some((a, b)) = of_student.zip(of_teacher).filter(|(a, b)| a != b) {
                    return Err(channels(s, t, a, b));
                }
                continue;
            }
            let (Some(from), Some(to)) = (of_student, of_teacher) else {
                let what = format!(
                    "the channels of student '{s}' and teacher '{t}' must be known for an adapter, and are not declared; name others"
                );
                return Err(TrainError::Setting { setting: "feature.pairs".into(), what });
            };
            let weight = random::normal(random::derive(models.seed, i as u64), &[to, from, 1, 1], 0.0, (1.0 / from.max(1) as f32).sqrt());
            let parameter = |part: &str, value, decays| LossParameter { name: format!("{s}.adapter.{part}"), value, decays };
            parameters.push(parameter("weight", weight.map_err(loss_error)?, true));
            parameters.push(parameter("bias", Tensor::full(0f32, [to]).map_err(loss_error)?, false));
        }
        Ok(Box::new(Hints { pairs, parameters, note }))
    }
}

fn channels(student: &str, teacher: &str, a: usize, b: usize) -> TrainError {
    let what = format!("student '{student}' has {a} channels, teacher '{teacher}' {b}: they need an adapter (adapter = true)");
    TrainError::Setting { setting: "feature.adapter".into(), what }
}

struct Hints {
    pairs: Vec<Pair>,
    /// Weight and bias of each pair's adapter; empty: no adapters.
    parameters: Vec<LossParameter>,
    note: String,
}

impl Term for Hints {
    fn student_values(&self) -> Vec<ValueId> {
        self.pairs.iter().map(|p| p.student.value).collect()
    }

    fn teacher_values(&self) -> Vec<ValueId> {
        self.pairs.iter().map(|p| p.teacher.value).collect()
    }

    fn parameters(&self) -> Vec<LossParameter> {
        self.parameters.clone()
    }

    fn notes(&self) -> Vec<String> {
        vec![self.note.clone()]
    }

    fn loss(&self, seen: &Seen) -> Result<Tensor, TrainError> {
        let mut losses = vec![];
        for (i, pair) in self.pairs.iter().enumerate() {
            let (student, teacher) = (read(seen.student, pair.student.value)?, read(seen.teacher, pair.teacher.value)?);
            let (student, teacher) = matched(pair, student, teacher, Feature::MANUAL.name)?;
            let student = match seen.parameters.get(2 * i..2 * i + 2) {
                Some([weight, bias]) => adapted(&student, weight, bias)?,
                _ => student,
            };
            if student.shape().get(1) != teacher.shape().get(1) {
                let of = |t: &Tensor| t.shape().get(1).copied().unwrap_or(1);
                return Err(channels(&pair.student.name, &pair.teacher.name, of(&student), of(&teacher)));
            }
            losses.push(tensor::mse_loss(&student, &teacher).map_err(loss_error)?);
        }
        mean(losses)
    }
}

/// A 1x1 convolution of `[n, channels, ...space]` with a weight `[to, channels, 1, 1]`.
fn adapted(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor, TrainError> {
    let (shape, to) = (x.shape().to_vec(), weight.shape()[0]);
    let space: usize = shape[2..].iter().product();
    let planar = if shape.len() == 4 { shape.clone() } else { vec![shape[0], shape[1], 1, space] };
    let out = x.reshape(planar).and_then(|x| x.conv(weight, Some(bias), &ConvOptions::plain(2)));
    let mut target = shape;
    target[1] = to;
    out.and_then(|y| y.reshape(target)).map_err(loss_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_term, three_sizes};
    use tensor::random::uniform_f64;

    #[test]
    fn gradients_by_the_student_and_by_the_adapters() {
        let (student, teacher) = (three_sizes(2), three_sizes(3));
        let term = Feature::default().term(&Models::new(&student, &teacher, 1)).unwrap();
        let names: Vec<String> = term.parameters().into_iter().map(|p| p.name).collect();
        assert_eq!(names[..3], ["relu0.adapter.weight", "relu0.adapter.bias", "relu1.adapter.weight"]);
        assert_eq!(term.parameters()[2].value.shape(), [6, 4, 1, 1]);
        let shapes = |c: usize| [vec![2, c, 8, 8], vec![2, 2 * c, 4, 4], vec![2, 4 * c, 2, 2]];
        check_term(term.as_ref(), &shapes(2), &shapes(3)).unwrap();
        // Other spatial sizes on either side, and no spatial axes at all.
        for (a, b) in [(vec![2, 4, 8, 8], vec![2, 6, 4, 4]), (vec![2, 4, 2, 2], vec![2, 6, 4, 4])] {
            let pairs = vec![("relu1".to_string(), "relu1".to_string())];
            let term = Feature { pairs, adapter: true }.term(&Models::new(&student, &teacher, 1)).unwrap();
            check_term(term.as_ref(), &[a], &[b]).unwrap();
        }
        let pairs = vec![("flat".to_string(), "flat".to_string())];
        let term = Feature { pairs, adapter: true }.term(&Models::new(&student, &teacher, 1)).unwrap();
        check_term(term.as_ref(), &[vec![3, 8]], &[vec![3, 12]]).unwrap();
    }

    #[test]
    fn the_loss_is_the_mean_squared_error_through_the_adapter() {
        let x = uniform_f64(1, &[2, 3, 2, 2], -1.0, 1.0);
        let (w, b) = (uniform_f64(2, &[4, 3, 1, 1], -1.0, 1.0), uniform_f64(3, &[4], -1.0, 1.0));
        let y = adapted(&x, &w, &b).unwrap();
        let (x, w, b, y) = (x.to_f64_vec().unwrap(), w.to_f64_vec().unwrap(), b.to_f64_vec().unwrap(), y.to_f64_vec().unwrap());
        for (n, o, p) in [(0, 0, 0), (0, 3, 2), (1, 2, 3)] {
            let expected: f64 = (0..3).map(|c| w[o * 3 + c] * x[(n * 3 + c) * 4 + p]).sum::<f64>() + b[o];
            assert!((y[(n * 4 + o) * 4 + p] - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn without_an_adapter_the_channels_must_agree() {
        let (student, teacher) = (three_sizes(2), three_sizes(3));
        let plain = Feature { adapter: false, ..Feature::default() };
        let refused = plain.term(&Models::new(&student, &teacher, 1)).err().unwrap().to_string();
        assert!(refused.contains("'relu0' has 2 channels, teacher 'relu0' 3") && refused.contains("adapter = true"), "{refused}");
        assert!(plain.term(&Models::new(&student, &student, 1)).unwrap().parameters().is_empty());
    }
}
