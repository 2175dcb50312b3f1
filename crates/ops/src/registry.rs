//! The list of operators.
use crate::Operator;
use std::collections::HashMap;
use std::sync::OnceLock;

/// Each file contributes its operators here: one line a file.
static FILES: &[&[&dyn Operator]] = &[crate::nn_tmp::OPERATORS, crate::activation::OPERATORS, crate::arithmetic::OPERATORS, crate::cast::OPERATORS, crate::einsum::OPERATORS, crate::generate::OPERATORS, crate::indexing::OPERATORS, crate::layout::OPERATORS, crate::logic::OPERATORS, crate::matmul::OPERATORS, crate::random::OPERATORS, crate::ranking::OPERATORS, crate::rearrange::OPERATORS, crate::reduction::OPERATORS, crate::slicing::OPERATORS, crate::softmax::OPERATORS];

/// All operators, in the order of the files.
pub fn all() -> impl Iterator<Item = &'static dyn Operator> {
    FILES.iter().flat_map(|f| f.iter().copied())
}

/// The operator of this domain and name; `ai.onnx` is the empty domain.
pub fn find(domain: &str, op_type: &str) -> Option<&'static dyn Operator> {
    static TABLE: OnceLock<HashMap<(&'static str, &'static str), &'static dyn Operator>> = OnceLock::new();
    let table = TABLE.get_or_init(|| all().map(|o| ((o.domain(), o.op_type()), o)).collect());
    let domain = if domain == "ai.onnx" { "" } else { domain };
    table.get(&(domain, op_type)).copied()
}
