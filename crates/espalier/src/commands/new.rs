//! `new`: a network of the zoo with random weights.
use crate::Result;
use report::text;
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// Size and seed; absent settings are those that the architecture was designed with.
#[derive(Clone, Debug)]
pub struct NewOptions {
    /// Factor on the channels of every hidden layer.
    pub width: f64,
    /// Number of classes.
    pub classes: Option<usize>,
    /// Shape of one input: channels, height, width.
    pub input: Option<Vec<usize>>,
    /// Seed of the random weights.
    pub seed: u64,
}

/// The file that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Created {
    /// Path of the file written.
    pub file: String,
    /// Name of the architecture.
    pub arch: String,
    /// Elements of weights, biases and normalization parameters, as `inspect` counts them.
    pub parameters: u64,
    /// Size of the file in bytes.
    pub file_bytes: u64,
}

/// Builds the architecture and writes it.
///
/// # Errors
/// If there is no such architecture, it cannot be built at that size, or the file cannot be written.
pub fn new(arch: &str, output: &Path, options: &NewOptions) -> Result<Created> {
    let entry = zoo::find(arch)?;
    let mut zoo_options = entry.default_options();
    zoo_options.width = options.width;
    zoo_options.seed = options.seed;
    zoo_options.classes = options.classes.unwrap_or(zoo_options.classes);
    zoo_options.input = options.input.clone().unwrap_or(zoo_options.input);
    let model = entry.build(&zoo_options)?;
    onnx::save(&model, output)?;
    let parameters = deploy::measure::parameters(&model)?.total;
    let file_bytes = std::fs::metadata(output).map_or(0, |m| m.len());
    Ok(Created { file: output.display().to_string(), arch: entry.name.to_string(), parameters, file_bytes })
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}, {} parameters, {}", self.file, self.arch, text::count(self.parameters), text::bytes(self.file_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_parameters_as_inspect_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.onnx");
        let options = NewOptions { width: 1.0, classes: None, input: None, seed: 0 };
        for (arch, expected) in [("ds-cnn", 23_180), ("lenet5", 431_080)] {
            let made = new(arch, &file, &options).unwrap();
            let seen = crate::commands::inspect(&file, &Default::default()).unwrap();
            assert_eq!((made.parameters, seen.parameters), (expected, expected), "{arch}");
        }
    }
}
