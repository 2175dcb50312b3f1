//! `convert`: import, clean up, raise the operator set, export.
use super::inputs::{takes, takes_text};
use crate::{Error, Result};
use report::text;
use serde::Serialize;
use std::fmt;
use std::path::Path;

/// The changes to make.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// Fold constants and BatchNormalization, remove identities and nodes without effect, and declare all shapes that can be
    /// inferred.
    pub clean: bool,
    /// Raise ONNX's own operator set to this version.
    pub opset: Option<i64>,
    /// Make half and double precision float32.
    pub float32: bool,
}

/// The result of a conversion.
#[derive(Clone, Debug, Serialize)]
pub struct Converted {
    /// The file written.
    pub file: String,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Its operator set.
    pub opset: i64,
    /// Nodes before and after.
    pub nodes: [usize; 2],
    /// True if the file equals its source byte for byte.
    pub identical: bool,
    /// How samples are laid out in each input.
    pub inputs: Vec<(String, String)>,
}

/// Reads a model, makes the changes, and writes it.
///
/// # Errors
/// If it cannot be read or written, or the operator set cannot be raised: then nothing is written.
pub fn convert(input: &Path, output: &Path, options: &ConvertOptions) -> Result<Converted> {
    let known = onnx::OLDEST_OPSET..=onnx::NEWEST_OPSET;
    if let Some(opset) = options.opset.filter(|o| !known.contains(o)) {
        return Err(Error::Input(format!("operator set {opset} is not supported: {} to {} are", known.start(), known.end())));
    }
    let mut model = onnx::load(input)?;
    let before = model.graph.nodes.len();
    if options.float32 {
        train::to_float32(&mut model)?;
    }
    if options.clean {
        train::fold_constants(&mut model)?;
        ops::fold_batch_norm(&mut model)?;
        ops::remove_identities(&mut model);
        model.remove_dead();
        ops::infer_shapes(&mut model)?;
    }
    if let Some(opset) = options.opset {
        ops::convert_opset(&mut model, opset)?;
    }
    onnx::save(&model, output)?;
    let read = |p: &Path| std::fs::read(p).unwrap_or_default();
    let written = read(output);
    Ok(Converted {
        file: output.display().to_string(),
        file_bytes: written.len() as u64,
        opset: model.onnx_opset(),
        nodes: [before, model.graph.nodes.len()],
        identical: written == read(input),
        inputs: takes(&model),
    })
}

impl fmt::Display for Converted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let same = if self.identical { ", byte for byte as it was" } else { "" };
        let [before, after] = self.nodes;
        writeln!(f, "{}: {}, opset {}, {after} nodes (before: {before}){same}", self.file, text::bytes(self.file_bytes), self.opset)?;
        let told: Vec<(&str, &str)> = self.inputs.iter().map(|(name, takes)| (name.as_str(), takes.as_str())).collect();
        f.write_str(&takes_text(&told))
    }
}
