//! Attention transfer: the student's attention maps follow the teacher's (Zagoruyko & Komodakis 2017, arXiv:1612.03928).
use crate::pairs::{Pair, matched, pairs, sum};
use crate::{Loss, Models, Seen, Term};
use graph::ValueId;
use technique::{Manual, Settings};
use tensor::Tensor;
use train::{TrainError, loss_error, read};

/// Added below the squared norm of a map, against division by zero; a map of zeros has no direction, and no gradient.
const EPSILON: f64 = 1e-12;

/// `1/2 * |Q_s / |Q_s| - Q_t / |Q_t||^2`, the mean over the batch, summed over the pairs; `Q` `[space]` is the sum of squares over the
/// channels.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AttentionTransfer {
    /// Pairs of value names, student's and teacher's, as `[["relu_9", "relu_27"]]`; empty: of each size that feature maps of both have,
    /// the last one.
    pub pairs: Vec<(String, String)>,
}

impl Settings for AttentionTransfer {}

impl AttentionTransfer {
    pub(crate) const MANUAL: Manual = Manual {
        name: "attention_transfer",
        summary: "The student's attention maps follow the teacher's: normalized sums of squares of the features over the channels.",
        details: "1/2 * |Q_s / |Q_s| - Q_t / |Q_t||^2 a sample and pair, where Q is the sum of squares over the channels of a feature \
                  [n, channels, ...space]: one map of the space, whatever the number of channels, so no adapter is needed. The mean over \
                  the batch, the sum over the pairs. The distance is squared, as in the authors' program. Of maps of different sizes the \
                  larger is averaged over windows, where one size is a multiple of the other; other sizes are refused. Each pair \
                  gives 1 at most; weights from 1 to 10 are usual (the authors' 1000 counts the mean over the space).",
        source: "Zagoruyko & Komodakis 2017, arXiv:1612.03928, equation 2",
        example: "losses = [{ kind = \"hinton\", weight = 0.7 }, { kind = \"attention_transfer\", weight = 1 }]",
    };
}

impl Loss for AttentionTransfer {
    fn term(&self, models: &Models) -> Result<Box<dyn Term>, TrainError> {
        let (pairs, note) = pairs(models, &self.pairs, AttentionTransfer::MANUAL.name)?;
        Ok(Box::new(Maps { pairs, note }))
    }
}

struct Maps {
    pairs: Vec<Pair>,
    note: String,
}

impl Term for Maps {
    fn student_values(&self) -> Vec<ValueId> {
        self.pairs.iter().map(|p| p.student.value).collect()
    }

    fn teacher_values(&self) -> Vec<ValueId> {
        self.pairs.iter().map(|p| p.teacher.value).collect()
    }

    fn notes(&self) -> Vec<String> {
        vec![self.note.clone()]
    }

    fn loss(&self, seen: &Seen) -> Result<Tensor, TrainError> {
        let mut losses = vec![];
        for pair in &self.pairs {
            let (student, teacher) = (read(seen.student, pair.student.value)?, read(seen.teacher, pair.teacher.value)?);
            if student.rank() < 3 {
                let what = format!(
                    "'{}' has shape {:?}, and no spatial axes after the channels: name other values",
                    pair.student.name,
                    student.shape()
                );
                return Err(TrainError::Setting { setting: "attention_transfer.pairs".into(), what });
            }
            let maps = energy(student).and_then(|s| Ok((s, energy(teacher)?))).map_err(loss_error)?;
            let (student, teacher) = matched(pair, &maps.0, &maps.1, AttentionTransfer::MANUAL.name)?;
            losses.push(distance(&student, &teacher).map_err(loss_error)?);
        }
        sum(losses)
    }
}

/// The sum of squares over the channels: `[n, channels, ...space]` to `[n, 1, ...space]`.
fn energy(x: &Tensor) -> tensor::Result<Tensor> {
    x.mul(x)?.sum(&[1], true)
}

/// Half the squared distance between the directions of two maps `[n, 1, ...space]`, the mean over the batch.
fn distance(student: &Tensor, teacher: &Tensor) -> tensor::Result<Tensor> {
    let direction = |map: &Tensor| {
        let rows = map.reshape([map.shape()[0], map.len() / map.shape()[0].max(1)])?;
        let norm = rows.mul(&rows)?.sum(&[1], true)?.add_scalar(EPSILON)?.sqrt()?;
        rows.div(&norm)
    };
    let difference = direction(student)?.sub(&direction(teacher)?)?;
    let rows = difference.shape()[0].max(1) as f64;
    difference.mul(&difference)?.sum_all()?.mul_scalar(0.5 / rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_term, three_sizes};
    use tensor::random::uniform_f64;

    #[test]
    fn gradients_by_the_student() {
        let (student, teacher) = (three_sizes(2), three_sizes(3));
        let term = AttentionTransfer::default().term(&Models::new(&student, &teacher, 1)).unwrap();
        assert!(term.parameters().is_empty() && term.student_values().len() == 3);
        let shapes = |c: usize| [vec![2, c, 8, 8], vec![2, 2 * c, 4, 4], vec![2, 4 * c, 2, 2]];
        check_term(term.as_ref(), &shapes(2), &shapes(3)).unwrap();
        let pairs = vec![("relu1".to_string(), "relu1".to_string())];
        let term = AttentionTransfer { pairs }.term(&Models::new(&student, &teacher, 1)).unwrap();
        check_term(term.as_ref(), &[vec![2, 4, 4, 4]], &[vec![2, 6, 2, 2]]).unwrap();
    }

    #[test]
    fn only_the_direction_of_a_map_counts() {
        let x = uniform_f64(1, &[3, 4, 5, 5], -1.0, 1.0);
        let of = |a: &Tensor, b: &Tensor| distance(&energy(a).unwrap(), &energy(b).unwrap()).unwrap().item::<f64>().unwrap();
        assert!(of(&x, &x.mul_scalar(3.0).unwrap()) < 1e-12);
        // Channels in another order, and twice as many: the map is the same.
        let twice = Tensor::concat(&[x.flip(&[1]).unwrap(), x.clone()], 1).unwrap();
        assert!(of(&x, &twice) < 1e-12);
        // Two maps without a common nonzero place are 1 apart.
        let one = |at: usize| Tensor::new((0..4).map(|i| f64::from(u8::from(i == at))).collect::<Vec<f64>>(), [1, 1, 2, 2]).unwrap();
        assert!((of(&one(0), &one(3)) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_map_of_zeros_has_a_finite_loss_and_gradient() {
        let x = Tensor::full(0f32, [2, 3, 2, 2]).unwrap().tracked().unwrap();
        let loss = distance(&energy(&x).unwrap(), &energy(&Tensor::full(1f32, [2, 3, 2, 2]).unwrap()).unwrap()).unwrap();
        assert!((loss.item::<f32>().unwrap() - 0.5).abs() < 1e-6);
        let gradient = loss.backward().unwrap().take(&x).unwrap();
        assert!(gradient.to_f32_vec().unwrap().iter().all(|g| g.is_finite()));
    }
}
