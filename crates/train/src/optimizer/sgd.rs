//! Stochastic gradient descent with momentum.
use super::{Optimizer, Optimizers, Update, below_one, positive_rate};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use technique::{Choice, Fault, Manual, Settings, within};
use tensor::{SgdOptions, Tensor, TensorError};

/// Stochastic gradient descent with momentum, as PyTorch defines it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sgd {
    /// Peak learning rate.
    pub lr: f64,
    /// Momentum, 0 up to but not 1.
    pub momentum: f64,
    /// Nesterov's form.
    pub nesterov: bool,
    /// L2 factor on weights, added to the gradient (never on norms and biases), 0..1.
    pub weight_decay: f64,
}

pub(super) const SGD: Manual = Manual {
    name: "sgd",
    summary: "Stochastic gradient descent with momentum, as PyTorch defines it (decay added to the gradient).",
    details: "g += weight_decay * w; v = momentum * v + g; w -= lr * factor * (nesterov ? g + momentum * v : v), with factor from the \
              schedule. One tensor of state for each parameter. For networks with BatchNormalization that are trained from random \
              weights; without normalization its rate has to be small.",
    source: "Sutskever et al. 2013, On the importance of initialization and momentum in deep learning, eq. 1-4; \
             PyTorch, torch.optim.SGD",
    example: "optimizer = { kind = \"sgd\", lr = 0.05, momentum = 0.9, nesterov = true, weight_decay = 5e-4 }",
};

impl Default for Sgd {
    fn default() -> Self {
        Sgd { lr: 0.05, momentum: 0.9, nesterov: false, weight_decay: 0.0 }
    }
}

impl Sgd {
    /// The default for random weights.
    pub fn for_random_weights() -> Choice<Optimizers> {
        let sgd = Sgd { lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 5e-4 };
        let member: Arc<dyn Optimizer> = Arc::new(sgd.clone());
        Choice::of(SGD.name, &sgd, member)
    }
}

impl Settings for Sgd {
    fn check(&self) -> Result<(), Fault> {
        positive_rate(self.lr)?;
        below_one("momentum", self.momentum)?;
        within("weight_decay", self.weight_decay, 0.0, 1.0, "it is a share of the weight")
    }
}

impl Optimizer for Sgd {
    fn lr(&self) -> f64 {
        self.lr
    }

    fn moments(&self) -> usize {
        1
    }

    fn scales_each_weight(&self) -> bool {
        false
    }

    fn update(&self, value: &mut Tensor, gradient: &Tensor, moments: &mut [Tensor], update: Update) -> Result<(), TensorError> {
        let options = SgdOptions {
            lr: (self.lr * update.factor) as f32,
            momentum: self.momentum as f32,
            nesterov: self.nesterov,
            weight_decay: if update.decays { self.weight_decay as f32 } else { 0.0 },
        };
        tensor::sgd_step(value, gradient, &mut moments[0], &options)
    }
}
