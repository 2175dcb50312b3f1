//! Adam with decoupled weight decay.
use super::{Optimizer, Optimizers, Update, below_one, positive_rate};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use technique::{Choice, Fault, Manual, Settings, within};
use tensor::{AdamWOptions, Tensor, TensorError};

/// Adam with decoupled weight decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Peak learning rate.
    pub lr: f64,
    /// Decay rates of the first and second moment, each 0 up to but not 1.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay of weights (never of norms and biases), 0..1.
    pub weight_decay: f64,
}

pub(super) const ADAMW: Manual = Manual {
    name: "adamw",
    summary: "Adam with decoupled weight decay.",
    details: "m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= lr * factor * (m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + \
              weight_decay * w), with factor from the schedule and t the number of the step. Two tensors of state for each parameter. \
              Each weight's step is about lr whatever the size of its gradients: for weights that have been trained already (with a \
              small lr), for networks without normalization, and for recurrent and attention layers.",
    source: "Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2",
    example: "optimizer = { kind = \"adamw\", lr = 0.001, weight_decay = 0.01 }",
};

impl Default for AdamW {
    fn default() -> Self {
        AdamW { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 }
    }
}

impl AdamW {
    /// The default for weights that are trained already: a small rate. A rate for random weights would destroy in the first steps
    /// what was learned.
    pub fn for_trained_weights() -> Choice<Optimizers> {
        let adamw = AdamW { lr: 1e-4, ..AdamW::default() };
        let member: Arc<dyn Optimizer> = Arc::new(adamw.clone());
        Choice::of(ADAMW.name, &adamw, member)
    }
}

impl Settings for AdamW {
    fn check(&self) -> Result<(), Fault> {
        positive_rate(self.lr)?;
        self.betas.iter().try_for_each(|beta| below_one("betas", *beta))?;
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(Fault::new("eps", format!("eps = {}: a positive number is needed", self.eps)));
        }
        within("weight_decay", self.weight_decay, 0.0, 1.0, "it is a share of the weight")
    }
}

impl Optimizer for AdamW {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn moments(&self) -> usize {
        2
    }

    fn scales_each_weight(&self) -> bool {
        true
    }

    fn update(&self, value: &mut Tensor, gradient: &Tensor, moments: &mut [Tensor], update: Update) -> Result<(), TensorError> {
        let options = AdamWOptions {
            lr: (self.lr * update.factor) as f32,
            beta1: self.betas[0] as f32,
            beta2: self.betas[1] as f32,
            eps: self.eps as f32,
            weight_decay: if update.decays { self.weight_decay as f32 } else { 0.0 },
            step: update.step,
        };
        let (first, second) = moments.split_at_mut(1);
        tensor::adamw_step(value, gradient, &mut first[0], &mut second[0], &options)
    }
}
