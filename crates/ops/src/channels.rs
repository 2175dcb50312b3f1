//! Arithmetic with one factor and one shift for each channel: a normalization with fixed statistics, and Add, Sub, Mul and Div
//! with a constant, as exporters write it.
use crate::OpError;
use graph::{Node, ValueId, Values};
use tensor::{DType, Tensor};

/// `y = factor * x + shift` for each channel.
pub(crate) struct Affine {
    pub(crate) factor: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

impl Affine {
    /// From a BatchNormalization; `None` if a parameter is not a constant with one f32 for each channel.
    pub(crate) fn of_norm(norm: &Node, values: &Values) -> Result<Option<Affine>, OpError> {
        let mut parameters = vec![];
        for i in 1..5 {
            let Some(t) = norm.input(i).and_then(|v| values.tensor(v)).filter(|t| t.dtype() == DType::F32) else { return Ok(None) };
            parameters.push(t.to_f64_vec()?);
        }
        let [scale, bias, mean, variance] = parameters.as_slice() else { return Ok(None) };
        if [bias, mean, variance].iter().any(|p| p.len() != scale.len()) {
            return Err(norm.error("has parameters of different lengths").into());
        }
        let epsilon = f64::from(norm.float_or("epsilon", 1e-5)?);
        let factor: Vec<f64> = scale.iter().zip(variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        if let Some(at) = factor.iter().position(|f| !f.is_finite()) {
            return Err(norm.error(format!("has no finite scale for channel {at}: its variance is {}", variance[at])).into());
        }
        let shift = factor.iter().zip(bias).zip(mean).map(|((f, b), m)| b - f * m).collect();
        Ok(Some(Affine { factor, shift }))
    }

    pub(crate) fn channels(&self) -> usize {
        self.factor.len()
    }

    /// The given steps, the last first, followed by this one; `None` if a step is not the same within each channel of a tensor of
    /// `rank` axes.
    pub(crate) fn behind(mut self, steps: &[Step], rank: usize) -> Option<Affine> {
        for step in steps {
            let by = channel_by_channel(&step.by, rank, self.channels())?;
            for ((f, s), by) in self.factor.iter_mut().zip(&mut self.shift).zip(by) {
                if step.multiplies { *f *= by } else { *s += *f * by }
            }
        }
        self.factor.iter().chain(&self.shift).all(|v| v.is_finite()).then_some(self)
    }
}

/// An Add, Sub, Mul or Div with a constant.
pub(crate) struct Step {
    pub(crate) constant: ValueId,
    multiplies: bool,
    /// The number added or multiplied: the constant, its negative or its inverse.
    by: Tensor,
}

impl Step {
    /// From a node, with the value that it reads beside the constant.
    pub(crate) fn of(node: &Node, values: &Values) -> Option<(Step, ValueId)> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        // Before operator set 7, attributes specified the broadcast.
        if !node.is_onnx() || !node.attributes.list.is_empty() {
            return None;
        }
        let (constant, from) = match node.op_type.as_str() {
            "Add" | "Mul" if values.tensor(a).is_some() => (a, b),
            "Add" | "Mul" | "Sub" | "Div" => (b, a),
            _ => return None,
        };
        let by = values.tensor(constant).filter(|t| t.dtype() == DType::F32)?.cast(DType::F64).ok()?;
        let by = match node.op_type.as_str() {
            "Sub" => by.neg().ok()?,
            "Div" => by.scalar_like(1.0).ok()?.div(&by).ok()?,
            _ => by,
        };
        let multiplies = matches!(node.op_type.as_str(), "Mul" | "Div");
        (values.tensor(from).is_none()).then_some((Step { constant, multiplies, by }, from))
    }
}

/// The elements of `t` for each channel of a tensor of `rank` axes that `t` is broadcast to; `None` if they differ within a
/// channel.
fn channel_by_channel(t: &Tensor, rank: usize, channels: usize) -> Option<Vec<f64>> {
    let list = t.to_f64_vec().ok()?;
    if t.rank() <= rank && list.len() == 1 {
        return Some(vec![list[0]; channels]);
    }
    // Axis 1 of the tensor, counted from the end.
    let axis = (t.rank() + 1).checked_sub(rank).filter(|a| t.rank() <= rank && *a < t.rank())?;
    (list.len() == channels && t.shape()[axis] == channels).then_some(list)
}
