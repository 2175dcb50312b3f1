//! The data that criteria compute importance from.
use super::activity::activity;
use super::curvature::curvature;
use super::flow::flow;
use super::gradient_flow::gradient_flow;
use super::inputs::input_norms;
use super::inverse::inverse_diagonals;
use crate::{Candidate, Criteria, PruneError, Result};
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use technique::{Choice, Fault};
use train::{GradientMoments, GradientSource, gradient_moments};

/// The data that a criterion needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Needs {
    /// The model only.
    Weights,
    /// The gradient of the training loss by each weight, over several training batches.
    Gradients {
        /// Number of batches.
        batches: u64,
    },
    /// The diagonal of the loss's Hessian by the weights, estimated from differences of gradients.
    Curvature {
        /// Number of batches of each gradient.
        batches: u64,
        /// Number of random directions.
        draws: u64,
    },
    /// The power of what each weight is multiplied with, over several training batches.
    Inputs {
        /// Number of batches.
        batches: u64,
    },
    /// The sums of products of what each weight is multiplied with, over several training batches.
    InputProducts {
        /// Number of batches.
        batches: u64,
        /// Share of their mean that is added to the diagonal.
        damping: f64,
    },
    /// What a zero in place of each weight does to the norm of the loss's gradient, over several training batches.
    GradientFlow {
        /// Number of batches.
        batches: u64,
    },
    /// How often what each layer's outputs become is not zero, over several training batches.
    Activity {
        /// Number of batches.
        batches: u64,
    },
    /// The flow through each weight in the network of magnitudes: the model only, run on ones.
    Flow,
    /// How training moves the weights: only schedules that prune while the stage trains know it.
    Movement,
}

impl Needs {
    /// True if batches of data are read.
    pub fn reads_data(self) -> bool {
        !matches!(self, Needs::Weights | Needs::Flow)
    }
}

/// The data that importance is computed from.
pub struct ImportanceContext<'a> {
    /// The model, with its present masks and encodings.
    pub model: &'a Model,
    /// Moments of the gradient by weight; empty unless the criterion asks for them.
    pub gradients: BTreeMap<ValueId, GradientMoments>,
    /// Diagonal of the Hessian by weight, element by element; empty unless the criterion asks for it.
    pub curvature: BTreeMap<ValueId, Vec<f32>>,
    /// By weight, the root of the mean square of each channel of the value that it is multiplied with; empty unless the criterion asks
    /// for it.
    pub inputs: BTreeMap<ValueId, Vec<f32>>,
    /// By weight, for each element the diagonal element of the inverse of the sums of products of the inputs; empty unless the criterion
    /// asks for it.
    pub inverse: BTreeMap<ValueId, Vec<f32>>,
    /// By weight, element by element the product with Hessian times gradient; empty unless the criterion asks for it.
    pub gradient_flow: BTreeMap<ValueId, Vec<f32>>,
    /// By weight, the share of each output's activations that are not zero; empty unless the criterion asks for it.
    pub activity: BTreeMap<ValueId, Vec<f32>>,
    /// By weight, the flow through each element in the network of magnitudes; empty unless the criterion asks for it.
    pub flow: BTreeMap<ValueId, Vec<f32>>,
    /// By weight, the sum over the steps so far of `-w * g`; empty unless the criterion asks for it.
    pub movement: BTreeMap<ValueId, Vec<f32>>,
}

impl<'a> ImportanceContext<'a> {
    /// A context with a model only.
    pub fn new(model: &'a Model) -> Self {
        let (gradients, curvature, inputs, inverse, movement) = Default::default();
        let (gradient_flow, activity, flow) = Default::default();
        ImportanceContext { model, gradients, curvature, inputs, inverse, gradient_flow, activity, flow, movement }
    }

    /// What a criterion needs, for the candidates: gradients and inputs over the batches of the source.
    ///
    /// # Errors
    /// [`PruneError::Setting`] for a criterion that needs data, without a source; [`PruneError::Train`] for errors of running the graph.
    pub fn gather(model: &'a Model, criterion: &Choice<Criteria>, list: &[Candidate], source: Option<&GradientSource>) -> Result<Self> {
        let plain = ImportanceContext::new(model);
        let needs = criterion.needs();
        if needs == Needs::Flow {
            return Ok(ImportanceContext { flow: flow(model, list)?, ..plain });
        }
        if needs == Needs::Weights || needs == Needs::Movement {
            return Ok(plain);
        }
        let Some(source) = source else {
            let what = if matches!(needs, Needs::Inputs { .. } | Needs::InputProducts { .. } | Needs::Activity { .. }) {
                "inputs, and there is no data to run"
            } else {
                "gradients, and there is no data to take them over"
            };
            let what = format!("{} needs {what}", criterion.kind());
            return Err(Fault::new("criterion", what).hint("prune with a data set, or by magnitude").into());
        };
        let weights: Vec<_> = list.iter().map(|c| c.weight).collect();
        match needs {
            Needs::Gradients { batches } => {
                Ok(ImportanceContext { gradients: gradient_moments(model, source, &weights, batches)?, ..plain })
            }
            Needs::Curvature { batches, draws } => {
                Ok(ImportanceContext { curvature: curvature(model, source, &weights, batches, draws)?, ..plain })
            }
            Needs::Inputs { batches } => Ok(ImportanceContext { inputs: input_norms(model, source, list, batches)?, ..plain }),
            Needs::InputProducts { batches, damping } => {
                Ok(ImportanceContext { inverse: inverse_diagonals(model, source, list, batches, damping)?, ..plain })
            }
            Needs::GradientFlow { batches } => {
                Ok(ImportanceContext { gradient_flow: gradient_flow(model, source, &weights, batches)?, ..plain })
            }
            Needs::Activity { batches } => Ok(ImportanceContext { activity: activity(model, source, list, batches)?, ..plain }),
            Needs::Weights | Needs::Flow | Needs::Movement => Ok(plain),
        }
    }

    /// What is known of a candidate.
    ///
    /// # Errors
    /// [`PruneError::Weight`] if it was not asked for.
    pub(crate) fn known<'c, T>(&self, candidate: &Candidate, of: &'c BTreeMap<ValueId, T>, what: &str) -> Result<&'c T> {
        let missing = || PruneError::Weight { weight: candidate.name.clone(), what: format!("no {what} known for it") };
        of.get(&candidate.weight).ok_or_else(missing)
    }

    /// Reads a constant as f32, in its own order.
    ///
    /// # Errors
    /// [`PruneError::Weight`] if the graph computes it; [`PruneError::Tensor`] if its elements are not numbers.
    pub fn read(&self, candidate: &Candidate, id: ValueId) -> Result<Vec<f32>> {
        let Some(tensor) = self.model.values.tensor(id) else {
            let what = format!("'{}' is computed by the graph; fold constants first", self.model.values[id].name);
            return Err(PruneError::Weight { weight: candidate.name.clone(), what });
        };
        tensor.to_f32_vec().map_err(|source| PruneError::Tensor { weight: candidate.name.clone(), source })
    }

    /// The moments of a weight's gradient.
    ///
    /// # Errors
    /// [`PruneError::Weight`] if they were not asked for.
    pub fn gradients(&self, candidate: &Candidate) -> Result<&GradientMoments> {
        let missing = || PruneError::Weight { weight: candidate.name.clone(), what: "no gradients were taken for it".into() };
        self.gradients.get(&candidate.weight).ok_or_else(missing)
    }
}
