//! Architectures built as ONNX graphs (opset 17, symbolic batch `N`), with random weights, at any width, class count and input
//! shape. One file an architecture; to add one, add a file and a line in [`list`].
//!
//! Parameters have PyTorch's names (`layer1.0.conv1.weight`, `layer1.0.bn1.running_mean`); a value has the name of the layer that
//! computes it. The input is `input`, the output `logits`, without a Softmax. BatchNormalization stays a node of its own.
mod builder;
mod ds_cnn;
mod error;
mod init;
mod lenet;
mod mlp;
mod mobilenet;
mod resnet18;
mod resnet8;
mod resnet_cifar;
#[cfg(test)]
mod tests;

pub use error::{Result, ZooError};

use builder::{Builder, Flow};
use graph::Model;
use technique::did_you_mean;

/// Options of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct ZooOptions {
    /// Factor on the channels of every hidden layer.
    pub width: f64,
    /// Number of classes: size of the output's last axis.
    pub classes: usize,
    /// Shape of one input: channels, height, width.
    pub input: Vec<usize>,
    /// Seed of the initial values of all parameters.
    pub seed: u64,
}

/// One architecture.
#[derive(Clone, Copy, Debug)]
pub struct ZooEntry {
    /// Its name in recipes.
    pub name: &'static str,
    /// One sentence: description and origin.
    pub summary: &'static str,
    /// The input it was designed for: channels, height, width.
    pub input: [usize; 3],
    /// The number of classes it was designed for.
    pub classes: usize,
    build: fn(&mut Builder, Flow, &ZooOptions) -> Result<Flow>,
}

impl ZooEntry {
    /// The options it was designed for: width 1, its own input and classes, seed 0.
    pub fn default_options(&self) -> ZooOptions {
        ZooOptions { width: 1.0, classes: self.classes, input: self.input.to_vec(), seed: 0 }
    }

    /// Builds the network.
    ///
    /// # Errors
    /// [`ZooError::Option`] for an option out of range, [`ZooError::Layer`] for an input too small for a layer.
    pub fn build(&self, options: &ZooOptions) -> Result<Model> {
        self.check(options)?;
        let (mut builder, input) = Builder::new(self.name, options);
        let output = (self.build)(&mut builder, input, options)?;
        builder.finish(output)
    }

    /// Checks the options without building anything.
    ///
    /// # Errors
    /// [`ZooError::Option`] for an option out of range.
    pub fn check(&self, options: &ZooOptions) -> Result<()> {
        let refuse = |option, what| Err(ZooError::Option { architecture: self.name.to_string(), option, what });
        // Also refuses NaN.
        if !(options.width > 0.0 && options.width <= 64.0) {
            return refuse("width", format!("is {}, which is not above 0 and at most 64", options.width));
        }
        if options.classes == 0 || options.classes > 1 << 20 {
            return refuse("classes", format!("is {}, which is not in 1..={}", options.classes, 1 << 20));
        }
        if options.input.len() != 3 || options.input.iter().any(|d| !(1..=1 << 16).contains(d)) {
            return refuse("input", format!("is {:?}; three sizes in 1..=65536 are needed: channels, height, width", options.input));
        }
        Ok(())
    }
}

/// All architectures.
pub fn list() -> &'static [ZooEntry] {
    static LIST: &[ZooEntry] = &[
        lenet::LENET_300_100,
        lenet::LENET_5,
        mlp::MLP,
        resnet8::RESNET_8,
        resnet_cifar::RESNET_20,
        resnet_cifar::RESNET_32,
        resnet_cifar::RESNET_44,
        resnet_cifar::RESNET_56,
        resnet18::RESNET_18,
        mobilenet::MOBILENET_V1,
        mobilenet::MOBILENET_V2,
        ds_cnn::DS_CNN,
    ];
    LIST
}

/// The architecture of this name; case, `-` and `_` make no difference.
///
/// # Errors
/// [`ZooError::UnknownArchitecture`], with the known names and the most similar one.
pub fn find(name: &str) -> Result<&'static ZooEntry> {
    let plain = |s: &str| s.to_lowercase().replace(['-', '_'], "");
    if let Some(entry) = list().iter().find(|e| plain(e.name) == plain(name)) {
        return Ok(entry);
    }
    let known: Vec<String> = list().iter().map(|e| plain(e.name)).collect();
    let meant = did_you_mean(&plain(name), known.iter().map(String::as_str));
    let suggestion = meant.and_then(|meant| list().iter().find(|e| plain(e.name) == meant)).map(|e| e.name.to_string());
    Err(ZooError::UnknownArchitecture { name: name.to_string(), suggestion, known: list().iter().map(|e| e.name.to_string()).collect() })
}

/// Builds the architecture of this name.
///
/// # Errors
/// As [`find`] and [`ZooEntry::build`].
pub fn build(name: &str, options: &ZooOptions) -> Result<Model> {
    find(name)?.build(options)
}

/// A number of channels at a width: rounded, at least 1.
fn scaled(channels: usize, width: f64) -> usize {
    ((channels as f64 * width).round() as usize).max(1)
}
