//! Lowering: annotations become standard ONNX operators.
//!
//! - An encoded *weight* becomes an integer initializer behind a DequantizeLinear, which takes over the weight's name;
//!   the float initializer is gone, so the file shrinks. Masked elements are zeros in the stored tensor.
//! - A weight that decodes from a table becomes packed indices behind Cast and Gather, which runtimes compute once when they load
//!   the file; weights of two to four levels share one strip of bytes.
//! - An encoded weight that only operators in float read (LSTM, an embedding by rows) becomes integers behind Cast and Mul instead where the
//!   target wants that: its runtime computes those once and DequantizeLinear in each run.
//! - A weight with a scale for each block has DequantizeLinear with `block_size`, or Cast, Mul and Reshape in the same places.
//! - An encoded *activation* passes through QuantizeLinear and DequantizeLinear; every reader reads the dequantized value.
//! - A Relu or Clip whose result lies on a grid that ends where its bounds are is left out.
//! - Operators that only move elements (`ops::Effect::Moves`) get the same pair again behind them, with the same grid:
//!   it changes no value, and it is what lets a runtime keep such an operator in integers.
//!
//! The integers are the ones the simulation rounded to, so the file computes what the simulation computed.
mod blocks;
mod bodies;
mod check;
mod constants;
mod covered;
mod decode_nodes;
mod division;
mod equal;
mod float_parts;
mod in_float;
mod rewrite;
mod same_grid;
mod strip;
mod table;

pub use target::FloatPart;

use crate::Result;
use graph::{Annotations, Model};

/// How a model is lowered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LowerOptions {
    /// Version of ONNX's operator set the file should have at least; it is raised further where an encoding needs it.
    pub opset: Option<i64>,
    /// The runtime that the file is for.
    pub target: target::Choice,
    /// Stores integer weights of layers with float data behind Cast and Mul: the runtime decodes them once.
    pub decode_once: bool,
}

/// A model in standard ONNX.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The model, without annotations.
    pub model: Model,
    /// Nodes that compute in float, each with its reason.
    pub float_parts: Vec<FloatPart>,
    /// What lowering did beside inserting operators (opset raised, ...), as sentences.
    pub notes: Vec<String>,
}

/// Turns a model's annotations into operators. The model given is left as it is.
///
/// # Errors
/// [`crate::DeployError::Lower`] for an annotation that has no form in standard ONNX, by name; whatever an upgrade to a
/// newer operator set reports.
pub fn lower(model: &Model, options: &LowerOptions) -> Result<Lowered> {
    let mut model = model.clone();
    let mut notes = vec![];
    check::weights_are_folded(&model)?;
    let before = model.onnx_opset();
    let target = &**options.target.member();
    let needed = check::needed_opset(&model, target)?.max(options.opset.unwrap_or(0));
    if needed > before {
        ops::convert_opset(&mut model, needed)?;
        notes.push(format!("operator set raised from {before} to {needed}"));
    }
    if let Some(asked) = options.opset.filter(|o| *o < model.onnx_opset()) {
        notes.push(format!("operator set {asked} was asked for; what the graph uses needs {}", model.onnx_opset()));
    }
    let moved = same_grid::propagate(&mut model);
    let (covered, divided, in_float) = (covered::find(&model), division::find(&model), in_float::find(&model, options));
    let float_parts = float_parts::list(&model, &divided.keys().copied().collect::<Vec<_>>(), target);
    let found = rewrite::Found { covered, divided, moved, in_float };
    let annotations = std::mem::take(&mut model.annotations);
    let mut graph = std::mem::take(&mut model.graph);
    let rewritten = rewrite::Rewriter::new(&graph, &mut model.values, &annotations, &found, target).graph(&mut graph);
    bodies::dequantize_inside(&mut graph, &mut model.values);
    model.graph = graph;
    rewritten?;
    model.annotations = Annotations::default();
    model.remove_dead();
    drop_unread_defaults(&mut model);
    ops::drop_defaults(&mut model.graph);
    equal::share(&mut model);
    model.verify()?;
    Ok(Lowered { model, float_parts, notes })
}

/// Removes inputs without readers that need not be fed: old exporters list every initializer as an input too.
fn drop_unread_defaults(model: &mut Model) {
    let read = model.graph.use_counts();
    let dead = |v: &graph::ValueId, values: &graph::Values| values.tensor(*v).is_some() && !read.contains_key(v);
    let (graph, values) = (&mut model.graph, &model.values);
    graph.inputs.retain(|v| !dead(v, values));
    graph.constants.retain(|v| !dead(v, values));
}
