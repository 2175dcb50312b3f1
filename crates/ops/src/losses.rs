//! SoftmaxCrossEntropyLoss and NegativeLogLikelihoodLoss.
use crate::shapes::typed;
use crate::simple::{Simple, one};
use crate::{Effect, EvalCx, Inputs, OpError, Operator, ShapeCx};
use graph::{Dim, Node, ValueType};
use tensor::Tensor;

const FLOAT: fn(&Node) -> Effect = |_| Effect::NotQuantizable("a loss is not part of a deployed network");

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("SoftmaxCrossEntropyLoss", "Cross-entropy of softmax over axis 1.", &[12, 13], cross_entropy, infer).effect(FLOAT),
    &Simple::new("NegativeLogLikelihoodLoss", "Minus the log-probability of each label.", &[12, 13, 22], likelihood, infer).effect(FLOAT),
];

fn cross_entropy(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let log_probabilities = inputs.get(0)?.log_softmax(1)?;
    let loss = reduced(cx.node, &log_probabilities, inputs.get(1)?, inputs.opt(2))?;
    Ok(vec![loss, log_probabilities])
}

fn likelihood(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(reduced(cx.node, inputs.get(0)?, inputs.get(1)?, inputs.opt(2))?)
}

fn reduced(node: &Node, scores: &Tensor, labels: &Tensor, weights: Option<&Tensor>) -> Result<Tensor, OpError> {
    let Some(classes) = scores.shape().get(1).copied() else {
        return Err(node.error(format!("needs a class axis, the input has shape {:?}", scores.shape())).into());
    };
    let ignored = node.int("ignore_index")?;
    let list = labels.to_i64_vec()?;
    if let Some(bad) = list.iter().find(|l| Some(**l) != ignored && !(0..classes as i64).contains(*l)) {
        return Err(node.error(format!("label {bad} is outside 0..{classes}")).into());
    }
    let kept: Vec<f32> = list.iter().map(|l| if Some(*l) == ignored { 0.0 } else { 1.0 }).collect();
    let safe: Vec<i64> = list.iter().map(|l| if Some(*l) == ignored { 0 } else { *l }).collect();
    let index = Tensor::new(safe, labels.shape())?;
    let mut weight = Tensor::new(kept, labels.shape())?.cast(scores.dtype())?;
    if let Some(w) = weights {
        weight = weight.mul(&w.gather(&index, 0)?)?;
    }
    let losses = scores.gather_elements(&index.unsqueeze(&[1])?, 1)?.squeeze(&[1])?.mul(&weight)?.neg()?;
    let axes: Vec<usize> = (0..losses.rank()).collect();
    Ok(match node.string_or("reduction", "mean")? {
        "none" => losses,
        "sum" => losses.sum(&axes, false)?,
        "mean" => losses.sum(&axes, false)?.div(&weight.sum(&axes, false)?)?,
        other => return Err(OpError::unsupported(node, format!("reduction = '{other}'"))),
    })
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let scalar = cx.node.string_or("reduction", "mean")? != "none";
    let loss = if scalar { Some(vec![]) } else { cx.shape(1).map(<[Dim]>::to_vec) };
    Ok(vec![typed(cx.dtype(0), loss), typed(cx.dtype(0), cx.shape(0).map(<[Dim]>::to_vec))])
}
