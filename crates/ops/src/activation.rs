//! Activation functions.
use crate::couples::{elementwise, first_elementwise};
use crate::shapes::{broadcast, same};
use crate::simple::{Constants, Simple, one, set_input};
use crate::{Effect, EvalCx, Inputs, OpError, Operator, Role};
use graph::{AttributeValue, Model, Node, ValueType};
use tensor::Tensor;

/// An activation: a tensor method with float attributes and their defaults.
macro_rules! activation {
    ($name:literal, $summary:literal, $versions:expr, $method:ident $(, $attribute:literal = $default:expr)*) => {
        Simple::new($name, $summary, &$versions, |_cx, i| one(i.get(0)?.$method($(_cx.node.float_or($attribute, $default)? as f64),*)?), same)
            .couples(first_elementwise)
    };
}

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("Relu", "Each element or zero, whichever is larger.", &[1, 6, 13, 14], relu, same)
        .effect(|_| Effect::Clips)
        .couples(first_elementwise),
    &activation!("LeakyRelu", "x above zero, alpha*x below.", [1, 6, 16], leaky_relu, "alpha" = 0.01).all_data(),
    &activation!("Elu", "x above zero, alpha*(e^x - 1) below.", [1, 6, 22], elu, "alpha" = 1.0),
    &activation!("Selu", "gamma*x above zero, gamma*alpha*(e^x - 1) below.", [1, 6, 22], selu, "alpha" = 1.673_263_2, "gamma" = 1.050_701),
    &activation!("Celu", "x above zero, alpha*(e^(x/alpha) - 1) below.", [12, 28], celu, "alpha" = 1.0),
    &activation!("Sigmoid", "Logistic function 1/(1 + e^-x).", [1, 6, 13], sigmoid).all_data(),
    &activation!("HardSigmoid", "alpha*x + beta, held between 0 and 1.", [1, 6, 22], hard_sigmoid, "alpha" = 0.2, "beta" = 0.5),
    &activation!("HardSwish", "x times HardSigmoid of x with alpha 1/6 and beta 1/2.", [14, 22], hard_swish),
    &activation!("Tanh", "Hyperbolic tangent.", [1, 6, 13], tanh),
    &activation!("Softplus", "ln(1 + e^x).", [1, 22], softplus),
    &activation!("Softsign", "x/(1 + |x|).", [1, 22], softsign),
    &activation!("Mish", "x*tanh(softplus(x)).", [18, 22], mish),
    &activation!("Swish", "x*sigmoid(alpha*x).", [24], swish, "alpha" = 1.0),
    &activation!("ThresholdedRelu", "x above alpha, zero elsewhere.", [10, 22], thresholded_relu, "alpha" = 1.0),
    &activation!("Shrink", "x - bias above lambd, x + bias below -lambd, zero between.", [9], shrink, "bias" = 0.0, "lambd" = 0.5),
    &Simple::new("Gelu", "x times the normal distribution function of x, exact or by tanh.", &[20], gelu, same).couples(first_elementwise),
    &Simple::new("PRelu", "x above zero, slope*x below, with a slope that is learned.", &[1, 6, 7, 9, 16], prelu, same)
        .role(slope_role)
        .couples(elementwise),
    &Simple::new("SwiGLU", "Swish of the first input times the second.", &[28], swiglu, broadcast).couples(elementwise),
    &Simple::new("Clip", "Limits each element to the range between two bounds.", &[1, 6, 11, 12, 13], clip, same)
        .effect(|_| Effect::Clips)
        .couples(first_elementwise)
        .upgrade(upgrade_clip),
];

/// Works in the input's storage if there is no other reader (also for Clip).
fn relu(_: &EvalCx, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    one(inputs.take(0)?.clip_owned(Some(0.0), None)?)
}

fn gelu(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    match cx.node.string_or("approximate", "none")? {
        "none" => one(inputs.get(0)?.gelu(false)?),
        "tanh" => one(inputs.get(0)?.gelu(true)?),
        other => Err(cx.node.attribute_error("approximate", format!("is '{other}'; 'none' or 'tanh' is needed")).into()),
    }
}

/// A slope is trained like the scale of a normalization: it multiplies activations and must not decay.
fn slope_role(_: &Node, input: usize) -> Role {
    if input == 1 { Role::NormScale } else { Role::Data }
}

fn prelu(_: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let slope = inputs.get(1)?.expand(x.shape())?;
    let negative = x.less(&x.scalar_like(0.0)?)?;
    one(Tensor::where_(&negative, &x.mul(&slope)?, x)?)
}

fn swiglu(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let (gate, value) = (inputs.get(0)?, inputs.get(1)?);
    if gate.shape() != value.shape() {
        return Err(cx.node.error(format!("gate {:?} and value {:?} differ in shape", gate.shape(), value.shape())).into());
    }
    one(gate.swish(cx.node.float_or("alpha", 1.0)? as f64)?.mul(value)?)
}

/// Constant bounds of a Clip, given as attributes (up to opset 10) or inputs; of a Relu: zero and none. `None` for other
/// nodes, and where a bound is not known.
pub fn clip_bounds(model: &Model, node: &Node) -> Option<(f32, f32)> {
    let bound = |name: &str, i: usize, default: f32| match node.attributes.get(name) {
        Some(AttributeValue::Float(v)) => Some(*v),
        Some(_) => None,
        None => match node.input(i) {
            None => Some(default),
            Some(v) => model.constant(v).and_then(|t| t.item::<f32>().ok()),
        },
    };
    match node.op_type.as_str() {
        "Relu" if node.is_onnx() => Some((0.0, f32::MAX)),
        "Clip" if node.is_onnx() => Some((bound("min", 1, f32::MIN)?, bound("max", 2, f32::MAX)?)),
        _ => None,
    }
}

/// The bounds are attributes up to opset 10, then optional inputs.
fn clip(cx: &EvalCx, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.take(0)?;
    if x.dtype().is_int() && (inputs.opt(1).is_some() || inputs.opt(2).is_some()) {
        // Integers beyond 2^53 would lose digits in f64.
        let low = inputs.opt(1).map_or_else(|| Ok(x.clone()), |min| x.max(min))?;
        return one(inputs.opt(2).map_or_else(|| Ok(low.clone()), |max| low.min(max))?);
    }
    let bound = |i: usize, attribute: &str| -> Result<Option<f64>, OpError> {
        match inputs.opt(i) {
            Some(t) => Ok(t.to_f64_vec()?.first().copied()),
            None => Ok(cx.node.float(attribute)?.map(f64::from)),
        }
    };
    let (min, max) = (bound(1, "min")?, bound(2, "max")?);
    one(x.clip_owned(min, max)?)
}

fn upgrade_clip(node: &mut Node, to: i64, types: &[ValueType], constants: Constants) -> Result<(), OpError> {
    if to != 11 {
        return Ok(());
    }
    let dtype = match types.first() {
        Some(ValueType::Tensor { dtype, .. }) => *dtype,
        _ => tensor::DType::F32,
    };
    for (at, name) in [(1, "min"), (2, "max")] {
        if let Some(bound) = node.float(name)? {
            node.attributes.remove(name);
            set_input(node, at, constants(name, Tensor::scalar(bound).cast(dtype)?));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats, ints};
    use tensor::Tensor;

    #[test]
    fn clip_takes_bounds_from_attributes_and_inputs() {
        let x = floats(&[-2.0, 0.5, 9.0]);
        assert_eq!(Case::new("Clip", 6).float("min", 0.0).float("max", 6.0).run(std::slice::from_ref(&x)), floats(&[0.0, 0.5, 6.0]));
        let y = Case::new("Clip", 13).run_optional(vec![Some(x), None, Some(Tensor::scalar(1f32))]).unwrap();
        assert_eq!(y[0], floats(&[-2.0, 0.5, 1.0]));
        let y = Case::new("Clip", 13).run(&[ints(&[-5, i64::MAX]), Tensor::scalar(0i64), Tensor::scalar(i64::MAX)]);
        assert_eq!(y, ints(&[0, i64::MAX]));
    }

    #[test]
    fn prelu_broadcasts_its_slope() {
        let x = Tensor::new(vec![-1f32, 2.0, -3.0, -4.0], [1, 2, 2]).unwrap();
        let slope = Tensor::new(vec![0.5f32, 2.0], [2, 1]).unwrap();
        let y = Case::new("PRelu", 16).run(&[x, slope]);
        assert_eq!(y.as_slice::<f32>().unwrap(), [-0.5, 2.0, -6.0, -8.0]);
    }

    #[test]
    fn clip_upgrades_to_inputs() {
        let mut case = Case::new("Clip", 6).float("max", 6.0);
        case.node.inputs = vec![Some(graph::ValueId(0))];
        let op = crate::find("", "Clip").unwrap();
        let mut made = vec![];
        let mut constants = |name: &str, t: Tensor| {
            made.push((name.to_string(), t));
            graph::ValueId(7)
        };
        op.upgrade(&mut case.node, 6, 11, &mut constants).unwrap();
        assert_eq!(case.node.inputs, [Some(graph::ValueId(0)), None, Some(graph::ValueId(7))]);
        assert_eq!(made, [("max".to_string(), Tensor::scalar(6f32))]);
    }
}
