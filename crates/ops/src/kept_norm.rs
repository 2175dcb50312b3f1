//! BatchNormalization that stays an operator while the weight before it is stored folded.
//!
//! Such a layer stores `q = round(w * f / s)` with the channel's factor `f = gamma / sqrt(variance + epsilon)` and a scale
//! `s` of the folded weight's grid. That is `round(w / (s / |f|))` up to the sign: the folded weight is simulated on the
//! graph as it is, without a further operator, by an encoding whose working scale is `s / |f|`. It follows the running
//! statistics, so it is set anew whenever they have moved; `s` itself stands beside it as [`FOLDED_SCALE`]. The form of
//! Jacob et al. 2018 (arXiv:1712.05877, section 3.2) in that the running statistics scale the weight, and of PyTorch's
//! `ConvBn2d` in that the batch's own statistics normalize the output; differs from both in that no gradient flows to
//! gamma through the scale.
use crate::OpError;
use crate::fold::{Known, Scope, Unit, ranks};
use graph::{Encoding, FOLDED_SCALE, Graph, Model, Setting, ValueId};
use tensor::Tensor;

/// Setting of an encoding: true once the statistics that it depends on no longer change.
const FROZEN: &str = "frozen_statistics";

/// A layer with a BatchNormalization that can be folded into it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptNorm {
    /// The normalization's name.
    pub norm: String,
    /// The layer's weight.
    pub weight: ValueId,
    /// The layer's bias, if it has one.
    pub bias: Option<ValueId>,
    /// The factor of the normalization for each channel.
    pub factor: Vec<f64>,
    /// The weight's axis of these channels; `None` if no axis counts them (a grouped transposed convolution).
    pub axis: Option<usize>,
}

/// All layers whose BatchNormalization can be folded, subgraphs included.
///
/// # Errors
/// As [`crate::fold_batch_norm`].
pub fn foldable_norms(model: &Model) -> Result<Vec<KeptNorm>, OpError> {
    let mut found = vec![];
    let (ranks, opset) = (ranks(model), model.onnx_opset());
    in_graph(&model.graph, &Scope { values: &model.values, annotations: &model.annotations, ranks: &ranks, opset }, &mut found)?;
    Ok(found)
}

fn in_graph(graph: &Graph, scope: &Scope, found: &mut Vec<KeptNorm>) -> Result<(), OpError> {
    let known = Known::of(graph);
    for (at, node) in graph.nodes.iter().enumerate() {
        for sub in node.subgraphs() {
            in_graph(sub, scope, found)?;
        }
        if let Some(Ok(unit)) = Unit::of(graph, at, scope, &known)? {
            let bias = graph.nodes[unit.producer].input(2);
            found.push(KeptNorm {
                norm: node.label(scope.values),
                weight: unit.layer.weight_id,
                bias,
                factor: unit.affine.factor,
                axis: unit.layer.axis,
            });
        }
    }
    Ok(())
}

/// True if a weight of the model is stored folded before a BatchNormalization that is kept.
pub fn keeps_norms(model: &Model) -> bool {
    model.annotations.iter().any(|(_, a)| a.encoding.as_ref().is_some_and(|e| e.parameters.contains_key(FOLDED_SCALE)))
}

/// Sets the working scales from the present running statistics. Call it after these have changed.
///
/// # Errors
/// As [`foldable_norms`].
pub fn refresh_kept_norms(model: &mut Model) -> Result<(), OpError> {
    if !keeps_norms(model) {
        return Ok(());
    }
    for unit in foldable_norms(model)? {
        let Some(folded) = model.annotations.encoding(unit.weight).and_then(|e| e.parameters.get(FOLDED_SCALE)) else { continue };
        let working = |(s, f): (f32, &f64)| {
            let scale = (f64::from(s) / f.abs()) as f32;
            // A channel with factor zero is zero on any grid.
            if scale.is_finite() && scale > 0.0 { scale } else { s }
        };
        let scale = Tensor::vector(folded.to_f32_vec()?.into_iter().zip(&unit.factor).map(working).collect::<Vec<f32>>());
        if let Some(encoding) = &mut model.annotations.entry(unit.weight).encoding {
            encoding.parameters.insert("scale".into(), scale);
        }
    }
    Ok(())
}

/// Marks all of them with whether their statistics have stopped changing.
pub fn mark_kept_norms(model: &mut Model, frozen: bool) {
    for (_, annotation) in model.annotations.iter_mut() {
        if let Some(encoding) = annotation.encoding.as_mut().filter(|e| e.parameters.contains_key(FOLDED_SCALE)) {
            encoding.settings.insert(FROZEN.into(), Setting::Bool(frozen));
        }
    }
}

/// Names of the normalizations whose statistics still changed when the model was last trained.
///
/// # Errors
/// As [`foldable_norms`].
pub fn moving_norms(model: &Model) -> Result<Vec<String>, OpError> {
    let moves = |e: &Encoding| e.parameters.contains_key(FOLDED_SCALE) && e.settings.get(FROZEN) != Some(&Setting::Bool(true));
    let units = foldable_norms(model)?;
    Ok(units.into_iter().filter(|u| model.annotations.encoding(u.weight).is_some_and(moves)).map(|u| u.norm).collect())
}

/// The encoding of the folded weight; `None` if there is only the working one.
pub(crate) fn folded(encoding: &Encoding) -> Option<Encoding> {
    let mut encoding = encoding.clone();
    let scale = encoding.parameters.remove(FOLDED_SCALE)?;
    encoding.parameters.insert("scale".into(), scale);
    encoding.settings.remove(FROZEN);
    Some(encoding)
}
