//! Identity, as the pattern for the files to come.
use crate::{EvalCx, Inputs, OpError, Operator, QuantRule};
use graph::Node;
use tensor::Tensor;

pub(crate) static OPERATORS: &[&dyn Operator] = &[&Identity];

struct Identity;
impl Operator for Identity {
    fn op_type(&self) -> &'static str {
        "Identity"
    }
    fn summary(&self) -> &'static str {
        "Returns its input."
    }
    fn versions(&self) -> &'static [i64] {
        &[1, 13, 14, 16, 19, 21, 23, 24, 25]
    }
    fn eval(&self, _cx: &EvalCx, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![inputs.take(0)?])
    }
    fn quantization(&self, _node: &Node) -> QuantRule {
        QuantRule::SameGrid
    }
}
