//! Operators of the domain `com.microsoft` that ONNX Runtime's quantizers write. They are read and run; whether a model without
//! float weights can be trained is checked elsewhere.
mod block_weights;
mod dynamic_lstm;
mod gather_block_quantized;
mod matmul_nbits;
mod q_gemm;
mod qlinear;

use crate::Operator;

/// Domain of ONNX Runtime's own operators.
pub(crate) const DOMAIN: &str = "com.microsoft";

pub(crate) static OPERATORS: &[&[&dyn Operator]] =
    &[dynamic_lstm::OPERATORS, gather_block_quantized::OPERATORS, matmul_nbits::OPERATORS, q_gemm::OPERATORS, qlinear::OPERATORS];
