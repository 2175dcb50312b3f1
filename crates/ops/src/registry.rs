//! The list of operators.
use crate::Operator;
use std::collections::HashMap;
use std::sync::OnceLock;

/// The lists of all files: one line a file.
static FILES: &[&[&dyn Operator]] = &[
    crate::activation::OPERATORS,
    crate::arithmetic::OPERATORS,
    crate::attention::OPERATORS,
    crate::batch_norm::OPERATORS,
    crate::blocks::OPERATORS,
    crate::cast::OPERATORS,
    crate::causal_conv::OPERATORS,
    crate::control_flow::OPERATORS,
    crate::conv::OPERATORS,
    crate::deform_conv::OPERATORS,
    crate::detection::OPERATORS,
    crate::einsum::OPERATORS,
    crate::generate::OPERATORS,
    crate::grid_sample::OPERATORS,
    crate::indexing::OPERATORS,
    crate::layout::OPERATORS,
    crate::linear_attention::OPERATORS,
    crate::logic::OPERATORS,
    crate::losses::OPERATORS,
    crate::matmul::OPERATORS,
    crate::normalization::OPERATORS,
    crate::pool::OPERATORS,
    crate::qlinear::OPERATORS,
    crate::quantize_linear::OPERATORS,
    crate::random::OPERATORS,
    crate::ranking::OPERATORS,
    crate::rearrange::OPERATORS,
    crate::reduction::OPERATORS,
    crate::resize::OPERATORS,
    crate::rnn::OPERATORS,
    crate::signal::OPERATORS,
    crate::slicing::OPERATORS,
    crate::softmax::OPERATORS,
];

/// All operators, in the order of the files.
pub fn all() -> impl Iterator<Item = &'static dyn Operator> {
    FILES.iter().chain(crate::microsoft::OPERATORS).flat_map(|f| f.iter().copied())
}

/// The operator of this domain and name; `ai.onnx` is the empty domain.
pub fn find(domain: &str, op_type: &str) -> Option<&'static dyn Operator> {
    static TABLE: OnceLock<HashMap<(&'static str, &'static str), &'static dyn Operator>> = OnceLock::new();
    let table = TABLE.get_or_init(|| all().map(|o| ((o.domain(), o.op_type()), o)).collect());
    let domain = if domain == "ai.onnx" { "" } else { domain };
    table.get(&(domain, op_type)).copied()
}
