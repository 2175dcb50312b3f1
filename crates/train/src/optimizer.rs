//! Optimizers over named parameters. State is kept by parameter name and starts fresh in each stage.
use crate::TrainError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tensor::{AdamWOptions, SgdOptions, Tensor};

/// Which optimizer, and its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerSettings {
    /// Stochastic gradient descent with momentum, as PyTorch defines it (decay added to the gradient).
    Sgd {
        /// Peak learning rate.
        lr: f64,
        /// Momentum, 0..1.
        #[serde(default = "momentum")]
        momentum: f64,
        /// Nesterov's form.
        #[serde(default)]
        nesterov: bool,
        /// L2 factor on weights (never on norms and biases).
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2).
    Adamw {
        /// Peak learning rate.
        lr: f64,
        /// Decay rates of the first and second moment.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment.
        #[serde(default = "epsilon")]
        eps: f64,
        /// Decoupled decay of weights (never of norms and biases).
        #[serde(default)]
        weight_decay: f64,
    },
}

fn momentum() -> f64 {
    0.9
}
fn betas() -> [f64; 2] {
    [0.9, 0.999]
}
fn epsilon() -> f64 {
    1e-8
}

impl Default for OptimizerSettings {
    fn default() -> Self {
        OptimizerSettings::Sgd { lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 5e-4 }
    }
}

impl OptimizerSettings {
    /// For weights that are good already: AdamW with a small rate. A rate made for random weights throws away in its first
    /// steps what was learned.
    pub fn gentle() -> Self {
        OptimizerSettings::Adamw { lr: 1e-4, betas: betas(), eps: epsilon(), weight_decay: 0.0 }
    }

    /// Peak learning rate.
    pub fn lr(&self) -> f64 {
        match self {
            OptimizerSettings::Sgd { lr, .. } | OptimizerSettings::Adamw { lr, .. } => *lr,
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a learning rate that is not positive and finite, or a decay outside its range.
    pub fn check(&self) -> Result<(), TrainError> {
        let wrong = |setting: &str, what: String| Err(TrainError::Setting { setting: format!("optimizer.{setting}"), what });
        if !(self.lr() > 0.0 && self.lr().is_finite()) {
            return wrong("lr", format!("is {}, a positive number is needed", self.lr()));
        }
        let (rates, decay) = match self {
            OptimizerSettings::Sgd { momentum, weight_decay, .. } => (vec![*momentum], *weight_decay),
            OptimizerSettings::Adamw { betas, weight_decay, .. } => (betas.to_vec(), *weight_decay),
        };
        if let Some(r) = rates.iter().find(|r| !(0.0..1.0).contains(*r)) {
            return wrong("momentum", format!("is {r}, it must be at least 0 and below 1"));
        }
        if !(0.0..=1.0).contains(&decay) {
            return wrong("weight_decay", format!("is {decay}, it must be within 0..1"));
        }
        Ok(())
    }
}

/// An optimizer with its state.
#[derive(Clone, Debug)]
pub struct Optimizer {
    settings: OptimizerSettings,
    /// Moments by `parameter name` + `#0`, `#1`.
    state: BTreeMap<String, Tensor>,
    steps: u64,
}

impl Optimizer {
    /// A fresh optimizer.
    pub fn new(settings: OptimizerSettings) -> Self {
        Optimizer { settings, state: BTreeMap::new(), steps: 0 }
    }

    /// Its settings.
    pub fn settings(&self) -> &OptimizerSettings {
        &self.settings
    }

    /// Counts a step; call once before the parameters of the step are updated.
    pub fn begin_step(&mut self) {
        self.steps += 1;
    }

    /// Updates one parameter in place. Its state is kept under `name`; weight decay pulls on it if it `decays`; `factor` is the
    /// schedule's.
    ///
    /// # Errors
    /// [`TrainError::Value`] if gradient and parameter differ in shape.
    pub fn update(&mut self, name: &str, decays: bool, value: &mut Tensor, gradient: &Tensor, factor: f64) -> Result<(), TrainError> {
        let wrong = |e: tensor::TensorError| TrainError::Value { value: name.to_string(), what: e.to_string() };
        let decays = if decays { 1.0 } else { 0.0 };
        let mut moment = |i: usize| match self.state.remove(&format!("{name}#{i}")) {
            Some(t) => Ok(t),
            None => Tensor::full(0f32, value.shape()),
        };
        let moments = match &self.settings {
            OptimizerSettings::Sgd { lr, momentum, nesterov, weight_decay } => {
                let mut velocity = moment(0).map_err(wrong)?;
                let options = SgdOptions {
                    lr: (lr * factor) as f32,
                    momentum: *momentum as f32,
                    nesterov: *nesterov,
                    weight_decay: (weight_decay * decays) as f32,
                };
                tensor::sgd_step(value, gradient, &mut velocity, &options).map_err(wrong)?;
                vec![velocity]
            }
            OptimizerSettings::Adamw { lr, betas, eps, weight_decay } => {
                let (mut first, mut second) = (moment(0).map_err(wrong)?, moment(1).map_err(wrong)?);
                let options = AdamWOptions {
                    lr: (lr * factor) as f32,
                    beta1: betas[0] as f32,
                    beta2: betas[1] as f32,
                    eps: *eps as f32,
                    weight_decay: (weight_decay * decays) as f32,
                    step: self.steps,
                };
                tensor::adamw_step(value, gradient, &mut first, &mut second, &options).map_err(wrong)?;
                vec![first, second]
            }
        };
        for (i, m) in moments.into_iter().enumerate() {
            self.state.insert(format!("{name}#{i}"), m);
        }
        Ok(())
    }

    /// The state for a checkpoint.
    pub fn state(&self) -> (&BTreeMap<String, Tensor>, u64) {
        (&self.state, self.steps)
    }

    /// Puts back a checkpoint's state.
    pub fn restore(&mut self, state: BTreeMap<String, Tensor>, steps: u64) {
        self.state = state;
        self.steps = steps;
    }
}
