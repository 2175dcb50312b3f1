//! The text of a recipe from parts, so that a test shows only the keys that it tests.
//!
//! ```
//! use test_support::recipe::{DEPLOY, DIGITS, QUANTIZE, RESNET8, recipe};
//! let text = recipe(DIGITS, RESNET8, &[QUANTIZE, DEPLOY]);
//! assert!(text.contains("arch = \"resnet8\"\n") && text.ends_with("latency_runs = 1\n"));
//! ```

/// `[data]`: the digits that come with the repository, images of 8 x 8 pixels from 0 to 16, to train and to test on. Relative to
/// [`crate::folders::recipes`].
pub const DIGITS: &str = "train = \"data/digits\"\ntest = \"data/digits\"\npreprocess = { scale = 0.0625 }";

/// `[model]`: a small residual network for the digits.
pub const RESNET8: &str = "arch = \"resnet8\"\ninput = [1, 8, 8]\nwidth = 0.25";

/// `[model]`: a perceptron for the digits.
pub const MLP: &str = "arch = \"mlp\"\ninput = [1, 8, 8]";

/// One epoch of training.
pub const TRAIN: &str = "kind = \"train\"\nepochs = 1";

/// Quantization after a calibration on few samples.
pub const QUANTIZE: &str = "kind = \"quantize\"\ncalibration = { images = 64 }";

/// Deployment, timed once.
pub const DEPLOY: &str = "kind = \"deploy\"\nlatency_runs = 1";

/// Deployment for the reference interpreter, which is always available.
pub const DEPLOY_REFERENCE: &str = "kind = \"deploy\"\ntarget = \"reference\"\nlatency_runs = 1";

/// A recipe with seed 1 from the keys of its `[data]`, its `[model]` and each of its stages.
pub fn recipe(data: &str, model: &str, stages: &[&str]) -> String {
    let stages: String = stages.iter().map(|keys| format!("[[stages]]\n{}\n", keys.trim())).collect();
    format!("name = \"test\"\nseed = 1\n[data]\n{}\n[model]\n{}\n{stages}", data.trim(), model.trim())
}

/// [`recipe`] on the digits.
pub fn on_digits(model: &str, stages: &[&str]) -> String {
    recipe(DIGITS, model, stages)
}
