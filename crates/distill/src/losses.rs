//! The family of losses between a student and a teacher.
use crate::{AttentionTransfer, Feature, Hinton, Outputs};
use graph::{Model, ValueId, ValueType};
use std::collections::HashMap;
use std::sync::OnceLock;
use technique::{Entry, Family, member};
use tensor::Tensor;
use train::{Batch, LossParameter, TrainError};

/// Losses between a student and a teacher.
pub struct Losses;

impl Family for Losses {
    type Member = dyn Loss;
    const NAME: &'static str = "loss";
    const SUMMARY: &'static str = "What a student learns from its teacher: a list of losses, each with its weight.";
    const DEFAULT: Option<&'static str> = Some("hinton");

    fn members() -> &'static [Entry<dyn Loss>] {
        static LIST: &[Entry<dyn Loss>] = &[
            member!(Hinton as dyn Loss, Hinton::MANUAL),
            member!(Feature as dyn Loss, Feature::MANUAL),
            member!(AttentionTransfer as dyn Loss, AttentionTransfer::MANUAL),
            member!(Outputs as dyn Loss, Outputs::MANUAL),
        ];
        LIST
    }
}

/// A loss between a student and a teacher: its settings.
///
/// It is a type in a file of its own, the [`Term`] that it becomes for two models, and a line in [`Losses::members`]. The mean
/// absolute difference of the first outputs, whole but for its manual page:
/// ```
/// use espalier_distill::{Loss, Models, Seen, Term};
/// use graph::ValueId;
/// use tensor::Tensor;
/// use train::TrainError;
///
/// #[derive(Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// #[serde(default, deny_unknown_fields)]
/// struct Absolute {}
/// impl technique::Settings for Absolute {}
/// impl Loss for Absolute {
///     fn term(&self, models: &Models) -> Result<Box<dyn Term>, TrainError> {
///         Ok(Box::new(Between(models.student.graph.outputs[0], models.teacher.graph.outputs[0])))
///     }
/// }
/// struct Between(ValueId, ValueId);
/// impl Term for Between {
///     fn student_values(&self) -> Vec<ValueId> {
///         vec![self.0]
///     }
///     fn teacher_values(&self) -> Vec<ValueId> {
///         vec![self.1]
///     }
///     fn loss(&self, seen: &Seen) -> Result<Tensor, TrainError> {
///         let student = train::read(seen.student, self.0)?;
///         let teacher = train::align(student, train::read(seen.teacher, self.1)?)?;
///         Ok(student.sub(&teacher)?.abs()?.mean_all()?)
///     }
/// }
/// let member =
///     technique::member!(Absolute as dyn Loss, technique::Manual { name: "absolute", summary: "", details: "", source: "", example: "" });
/// let mut model = graph::Model::new(17);
/// let y = model.values.add_named("y");
/// model.graph.outputs.push(y);
/// let term = (member.build)(Default::default()).unwrap().term(&Models::new(&model, &model, 0)).unwrap();
/// let of = |values: [f32; 2]| [(y, Tensor::vector(values.to_vec()))].into();
/// let seen = Seen { student: &of([1.0, 2.0]), teacher: &of([1.5, 1.0]), parameters: &[], batch: &Default::default() };
/// assert_eq!(term.loss(&seen).unwrap().item::<f32>().unwrap(), 0.75);
/// ```
pub trait Loss: Send + Sync {
    /// The loss for these two models.
    ///
    /// # Errors
    /// [`TrainError::Setting`] where the settings name what the models do not have, or the models cannot be compared.
    fn term(&self, models: &Models) -> Result<Box<dyn Term>, TrainError>;

    /// True if it compares probabilities of classes, which not every task has.
    fn compares_classes(&self) -> bool {
        false
    }

    /// Approximate loss of an untrained student, in units of the logarithm of the number of classes; 0 where it is not known.
    /// With it a diverging training is told from one whose loss is large because of its temperature.
    fn scale(&self) -> f64 {
        0.0
    }
}

/// A loss bound to its two models.
pub trait Term: Send + Sync {
    /// Values of the student that it reads.
    fn student_values(&self) -> Vec<ValueId>;

    /// Values of the teacher that it reads.
    fn teacher_values(&self) -> Vec<ValueId>;

    /// Initial values of the parameters that it owns.
    fn parameters(&self) -> Vec<LossParameter> {
        vec![]
    }

    /// Sentences for the user: which values are compared.
    fn notes(&self) -> Vec<String> {
        vec![]
    }

    /// The scalar to minimize.
    ///
    /// # Errors
    /// An error for values that cannot be compared, with their names.
    fn loss(&self, seen: &Seen) -> Result<Tensor, TrainError>;
}

/// The values that a [`Term`] computes its loss from.
pub struct Seen<'a> {
    /// The student's values on the batch.
    pub student: &'a HashMap<ValueId, Tensor>,
    /// The teacher's values. No gradient flows to them.
    pub teacher: &'a HashMap<ValueId, Tensor>,
    /// The term's own parameters, in the order of [`Term::parameters`].
    pub parameters: &'a [Tensor],
    /// The batch that both networks ran on.
    pub batch: &'a Batch,
}

/// The student and the teacher that a loss is made for.
pub struct Models<'a> {
    /// The student's model.
    pub student: &'a Model,
    /// The teacher's model.
    pub teacher: &'a Model,
    /// Seed of the initial parameters of the loss.
    pub seed: u64,
    types: [OnceLock<HashMap<ValueId, ValueType>>; 2],
}

impl<'a> Models<'a> {
    /// `seed`: seed of the initial parameters of the losses.
    pub fn new(student: &'a Model, teacher: &'a Model, seed: u64) -> Self {
        Models { student, teacher, seed, types: Default::default() }
    }

    /// Types of the student's values, as far as they are known before it runs.
    pub fn student_types(&self) -> &HashMap<ValueId, ValueType> {
        self.types[0].get_or_init(|| types(self.student))
    }

    /// Types of the teacher's values, as far as they are known before it runs.
    pub fn teacher_types(&self) -> &HashMap<ValueId, ValueType> {
        self.types[1].get_or_init(|| types(self.teacher))
    }
}

/// Declarations of a contradictory graph are ignored; running it names the node.
fn types(model: &Model) -> HashMap<ValueId, ValueType> {
    let declared = model.values.iter().map(|(id, v)| (id, v.ty.clone()));
    let constants = model.values.iter().filter_map(|(id, v)| Some((id, v.constant.as_ref()?)));
    let mut types: HashMap<ValueId, ValueType> = declared.collect();
    types.extend(constants.map(|(id, c)| {
        let shape = c.tensor.shape().iter().map(|d| graph::Dim::Known(*d)).collect();
        (id, ValueType::Tensor { dtype: c.tensor.dtype(), shape: Some(shape) })
    }));
    types.extend(ops::infer_types(model).unwrap_or_default());
    types
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WeightedLoss;
    use technique::{Choice, manual};

    #[test]
    fn every_loss_is_documented_and_its_example_is_read() {
        let family = manual::<Losses>();
        assert_eq!(family.members.len(), Losses::members().len());
        for member in &family.members {
            let page = &member.manual;
            assert!(!page.details.is_empty() && page.source.contains("arXiv:"), "{}", page.name);
            assert!(Choice::<Losses>::named(page.name).is_ok());
            assert!(member.settings.iter().all(|s| !s.summary.is_empty() && s.default.is_some()), "{}", page.name);
            // The example as a recipe would read it.
            let list = page.example.lines().find_map(|l| l.strip_prefix("losses = ")).unwrap();
            let json = list.replace("kind =", "\"kind\":").replace(" = ", ": ");
            let json = ["weight", "temperature", "pairs", "outputs", "adapter"]
                .iter()
                .fold(json, |text, key| text.replace(&format!("{key}:"), &format!("\"{key}\":")));
            let read: Vec<WeightedLoss> = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{json}: {e}"));
            assert!(read.iter().any(|l| l.loss.kind() == page.name), "{}", page.name);
        }
    }
}
