//! Optimizers: the family, and their state over named parameters, which starts from zero in each stage.
mod adamw;
mod sgd;

pub use adamw::AdamW;
pub use sgd::Sgd;

use crate::TrainError;
use std::collections::BTreeMap;
use technique::{Choice, Entry, Family, Fault, member};
use tensor::{Tensor, TensorError};

/// Parameters of one update of one parameter.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// The learning rate's factor at this step, from the [`crate::Schedule`]; times [`Optimizer::lr`] it is the rate.
    pub factor: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// Whether weight decay applies to this parameter: to weights, never to norms and biases.
    pub decays: bool,
}

/// The update rule of a parameter, given its gradient.
pub trait Optimizer: Send + Sync {
    /// Peak learning rate.
    fn lr(&self) -> f64;

    /// Number of tensors of the parameter's shape that are kept for each parameter between steps.
    fn moments(&self) -> usize;

    /// True if each weight's step is scaled by the size of its own gradients: then a layer with large gradients cannot make the
    /// training diverge by itself.
    fn scales_each_weight(&self) -> bool;

    /// Updates `value` in place. `moments` holds [`Optimizer::moments`] tensors, which begin at zero.
    ///
    /// # Errors
    /// If gradient and parameter differ in shape.
    fn update(&self, value: &mut Tensor, gradient: &Tensor, moments: &mut [Tensor], update: Update) -> Result<(), TensorError>;
}

/// The family of optimizers.
///
/// A new one is a type in its own file and a line in [`Optimizers::members`]:
///
/// ```
/// use espalier_train::{Optimizer, Update};
/// use tensor::{Tensor, TensorError};
///
/// /// Moves by the gradient's sign alone (Bernstein et al. 2018, arXiv:1802.04434, algorithm 1).
/// struct SignSgd {
///     lr: f64,
/// }
/// impl Optimizer for SignSgd {
///     fn lr(&self) -> f64 {
///         self.lr
///     }
///     fn moments(&self) -> usize {
///         0
///     }
///     fn scales_each_weight(&self) -> bool {
///         true
///     }
///     fn update(&self, value: &mut Tensor, gradient: &Tensor, _: &mut [Tensor], update: Update) -> Result<(), TensorError> {
///         let rate = (self.lr * update.factor) as f32;
///         let (weights, gradients) = (value.to_f32_vec()?, gradient.to_f32_vec()?);
///         let moved: Vec<f32> = weights.iter().zip(gradients).map(|(w, g)| w - rate * g.signum()).collect();
///         *value = Tensor::new(moved, value.shape())?;
///         Ok(())
///     }
/// }
/// let mut weight = Tensor::new(vec![1f32, 1.0], [2])?;
/// let gradient = Tensor::new(vec![0.2f32, -7.0], [2])?;
/// SignSgd { lr: 0.5 }.update(&mut weight, &gradient, &mut [], Update { factor: 1.0, step: 1, decays: false })?;
/// assert_eq!(weight.to_f32_vec()?, [0.5, 1.5]);
/// # Ok::<(), TensorError>(())
/// ```
pub struct Optimizers;

impl Family for Optimizers {
    type Member = dyn Optimizer;
    const NAME: &'static str = "optimizer";
    const SUMMARY: &'static str = "How the weights are updated from their gradients.";
    const DEFAULT: Option<&'static str> = Some("sgd");
    fn members() -> &'static [Entry<dyn Optimizer>] {
        static LIST: &[Entry<dyn Optimizer>] = &[member!(Sgd as dyn Optimizer, sgd::SGD), member!(AdamW as dyn Optimizer, adamw::ADAMW)];
        LIST
    }
}

/// Refuses a learning rate that is not positive and finite.
fn positive_rate(lr: f64) -> Result<(), Fault> {
    match lr > 0.0 && lr.is_finite() {
        true => Ok(()),
        false => Err(Fault::new("lr", format!("lr = {lr}: a positive number is needed"))),
    }
}

/// Refuses a decay rate of a moment outside 0 up to but not 1.
fn below_one(key: &str, rate: f64) -> Result<(), Fault> {
    match (0.0..1.0).contains(&rate) {
        true => Ok(()),
        false => Err(Fault::new(key, format!("{key} = {rate}: it must be at least 0 and below 1"))),
    }
}

/// An optimizer with its state.
#[derive(Clone, Debug)]
pub struct OptimizerState {
    optimizer: Choice<Optimizers>,
    /// Moments by `parameter name` + `#0`, `#1`.
    state: BTreeMap<String, Tensor>,
    steps: u64,
}

impl OptimizerState {
    /// The initial state, before any step.
    pub fn new(optimizer: Choice<Optimizers>) -> Self {
        OptimizerState { optimizer, state: BTreeMap::new(), steps: 0 }
    }

    /// The optimizer that the state belongs to.
    pub fn optimizer(&self) -> &dyn Optimizer {
        self.optimizer.member().as_ref()
    }

    /// Counts a step; call once before the parameters of the step are updated.
    pub fn begin_step(&mut self) {
        self.steps += 1;
    }

    /// Updates one parameter in place. Its state is stored under `name`; weight decay applies if it `decays`; `factor` is the
    /// schedule's.
    ///
    /// # Errors
    /// [`TrainError::Value`] if gradient and parameter differ in shape.
    pub fn update(&mut self, name: &str, decays: bool, value: &mut Tensor, gradient: &Tensor, factor: f64) -> Result<(), TrainError> {
        let wrong = |e: TensorError| TrainError::Value { value: name.to_string(), what: e.to_string() };
        let key = |i: usize| format!("{name}#{i}");
        let mut moments = vec![];
        for i in 0..self.optimizer.moments() {
            let kept = self.state.remove(&key(i));
            moments.push(kept.map_or_else(|| Tensor::full(0f32, value.shape()), Ok).map_err(wrong)?);
        }
        self.optimizer.update(value, gradient, &mut moments, Update { factor, step: self.steps, decays }).map_err(wrong)?;
        self.state.extend(moments.into_iter().enumerate().map(|(i, moment)| (key(i), moment)));
        Ok(())
    }

    /// The state for a checkpoint.
    pub fn state(&self) -> (&BTreeMap<String, Tensor>, u64) {
        (&self.state, self.steps)
    }

    /// Restores the state of a checkpoint.
    pub fn restore(&mut self, state: BTreeMap<String, Tensor>, steps: u64) {
        self.state = state;
        self.steps = steps;
    }
}
