//! tmp
use crate::{EvalCx, Inputs, OpError, Operator, Role};
use graph::Node;
use tensor::{Activation, ConvOptions, PoolOptions, Tensor};
pub(crate) static OPERATORS: &[&dyn Operator] = &[&Conv, &BatchNormalization, &GlobalAveragePool, &MaxPool];
struct Conv;
impl Operator for Conv {
    fn op_type(&self) -> &'static str { "Conv" }
    fn summary(&self) -> &'static str { "" }
    fn versions(&self) -> &'static [i64] { &[1] }
    fn role(&self, _n: &Node, i: usize) -> Role { [Role::Data, Role::Weight, Role::Bias][i] }
    fn eval(&self, cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let w = inputs.get(1)?; let r = w.rank() - 2;
        let u = |v: Vec<i64>| v.iter().map(|v| *v as usize).collect::<Vec<_>>();
        let p = u(cx.node.ints_or("pads", vec![0; 2 * r])?);
        let o = ConvOptions { strides: u(cx.node.ints_or("strides", vec![1; r])?), dilations: u(cx.node.ints_or("dilations", vec![1; r])?), pads: (0..r).map(|i| (p[i], p[i + r])).collect(), groups: cx.node.int_or("group", 1)? as usize };
        Ok(vec![inputs.get(0)?.conv(w, inputs.opt(2), &o)?])
    }
}
struct BatchNormalization;
impl Operator for BatchNormalization {
    fn op_type(&self) -> &'static str { "BatchNormalization" }
    fn summary(&self) -> &'static str { "" }
    fn versions(&self) -> &'static [i64] { &[1] }
    fn role(&self, _n: &Node, i: usize) -> Role { [Role::Data, Role::NormScale, Role::NormBias, Role::Statistic, Role::Statistic][i] }
    fn eval(&self, cx: &EvalCx, i: Inputs) -> Result<Vec<Tensor>, OpError> {
        let eps = cx.node.float_or("epsilon", 1e-5)?;
        Ok(vec![i.get(0)?.batch_norm(i.get(1)?, i.get(2)?, i.get(3)?, i.get(4)?, eps, None, Activation::None)?])
    }
}
struct GlobalAveragePool;
impl Operator for GlobalAveragePool {
    fn op_type(&self) -> &'static str { "GlobalAveragePool" }
    fn summary(&self) -> &'static str { "" }
    fn versions(&self) -> &'static [i64] { &[1] }
    fn eval(&self, _cx: &EvalCx, i: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = i.get(0)?; let axes: Vec<usize> = (2..x.rank()).collect();
        Ok(vec![x.mean(&axes, true)?])
    }
}
struct MaxPool;
impl Operator for MaxPool {
    fn op_type(&self) -> &'static str { "MaxPool" }
    fn summary(&self) -> &'static str { "" }
    fn versions(&self) -> &'static [i64] { &[1] }
    fn eval(&self, cx: &EvalCx, i: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = i.get(0)?; let r = x.rank() - 2; let u = |v: Vec<i64>| v.iter().map(|v| *v as usize).collect::<Vec<_>>();
        let p = u(cx.node.ints_or("pads", vec![0; 2 * r])?);
        let o = PoolOptions { kernel: u(cx.node.ints_or("kernel_shape", vec![])?), strides: u(cx.node.ints_or("strides", vec![1; r])?), dilations: vec![1; r], pads: (0..r).map(|i| (p[i], p[i + r])).collect(), ceil_mode: false, count_include_pad: false };
        Ok(vec![x.max_pool(&o)?.0])
    }
}
