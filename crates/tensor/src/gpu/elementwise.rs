//! Functions of one, two or three elements. The kernels are templates: the function's expression is inserted into `map.wgsl` or
//! `zip.wgsl`, and each is compiled at first use.
use super::context::{Context, MOST_GROUPS};
use super::storage::{DeviceData, on_device};
use crate::strided::Strided;
use crate::{DType, Result, Tensor, shape};
use std::sync::Arc;

pub(super) const FUNCTIONS: &str = include_str!("functions.wgsl");
const MAP: &str = include_str!("map.wgsl");
const ZIP: &str = include_str!("zip.wgsl");
const CHOOSE: &str = include_str!("choose.wgsl");

/// `(name, value in x, slope in the kept value)` of the functions of `unary.rs` and `activation.rs`; the slope's `x` is the input
/// or the output, whichever the CPU's table keeps; `a` and `b` are the function's arguments. Sine and cosine are missing: Vulkan
/// allows them an error of 2^-11.
const UNARY: &[(&str, &str, &str)] = &[
    ("sqrt", "sqrt(x)", "select(0.5 / x, 0.0, x == 0.0)"),
    ("exp", "exp(x)", "x"),
    ("log", "log(x)", "1.0 / x"),
    ("tanh", "hyperbolic_tangent(x)", "1.0 - x * x"),
    ("erf", "error_function(x)", "exp(-x * x) * 1.12837917"),
    ("reciprocal", "1.0 / x", "-x * x"),
    ("floor", "floor(x)", "0.0"),
    ("ceil", "ceil(x)", "0.0"),
    ("trunc", "trunc(x)", "0.0"),
    ("round", "round(x)", "0.0"),
    ("sigmoid", "logistic(x)", "x * (1.0 - x)"),
    ("leaky_relu", "select(x, x * a, x < 0.0)", "select(1.0, a, x < 0.0)"),
    ("elu", "select(x, (exp(min(x, 0.0)) - 1.0) * a, x < 0.0)", "select(1.0, exp(min(x, 0.0)) * a, x < 0.0)"),
    ("hard_sigmoid", "clamp(x * a + b, 0.0, 1.0)", "select(0.0, a, x > 0.0 && x < 1.0)"),
    ("hard_swish", "x * clamp(x / 6.0 + 0.5, 0.0, 1.0)", "select(select(x / 3.0 + 0.5, 1.0, x >= 3.0), 0.0, x <= -3.0)"),
    ("softplus", "max(x, 0.0) + log(1.0 + exp(-abs(x)))", "logistic(x)"),
    ("softsign", "x / (1.0 + abs(x))", "1.0 / ((1.0 + abs(x)) * (1.0 + abs(x)))"),
    (
        "gelu_exact",
        "x * 0.5 * (1.0 + error_function(x * 0.707106781))",
        "0.5 * (1.0 + error_function(x * 0.707106781)) + x * exp(-0.5 * x * x) * 0.398942280",
    ),
    (
        "gelu_tanh",
        "0.5 * x * (1.0 + hyperbolic_tangent(0.797884561 * (x + 0.044715 * x * x * x)))",
        "0.5 * (1.0 + hyperbolic_tangent(0.797884561 * (x + 0.044715 * x * x * x))) + 0.5 * x * (1.0 - power(hyperbolic_tangent(0.797884561 * (x + 0.044715 * x * x * x)), 2.0)) * 0.797884561 * (1.0 + 0.134145 * x * x)",
    ),
    ("swish", "x * logistic(a * x)", "logistic(a * x) + x * a * logistic(a * x) * (1.0 - logistic(a * x))"),
    ("neg", "-x", "-1.0"),
    ("abs", "abs(x)", "sign(x)"),
    ("sign", "sign(x)", "0.0"),
    // NaN stays NaN, and the gradient passes strictly between the bounds.
    ("clip", "select(select(x, a, x < a), b, x > b)", "select(0.0, 1.0, x > a && x < b)"),
];

/// `(name, value)` of the functions of two numbers in `elementwise.rs`.
const BINARY: &[(&str, &str)] = &[
    ("add_values", "x + y"),
    ("sub_values", "x - y"),
    ("mul_values", "x * y"),
    ("div_values", "x / y"),
    ("pow_values", "power(x, y)"),
    ("max_values", "larger(x, y)"),
    ("min_values", "smaller(x, y)"),
    ("pow_by_base", "select(y * power(x, y - 1.0), 0.0, y == 0.0 || (x == 0.0 && y < 1.0))"),
    ("pow_by_exponent", "select(0.0, power(x, y) * log(x), x > 0.0)"),
    ("share_of_larger", "select(select(0.0, 0.5, x == y), 1.0, x > y)"),
];

/// `(name, value)` of the comparisons.
const COMPARE: &[(&str, &str)] = &[
    ("less", "select(0u, 1u, x < y)"),
    ("greater", "select(0u, 1u, x > y)"),
    ("less_or_equal", "select(0u, 1u, x <= y)"),
    ("greater_or_equal", "select(0u, 1u, x >= y)"),
    ("equal", "select(0u, 1u, x == y)"),
];

/// The workgroups of 256 that cover so many elements, folded over two axes if there are many; `None` if there are too many.
pub(super) fn groups(elements: usize) -> Option<[u32; 3]> {
    let groups = u32::try_from(elements.div_ceil(256)).ok()?;
    let x = groups.min(MOST_GROUPS);
    let y = groups.div_ceil(x.max(1));
    (y <= MOST_GROUPS && elements < 1 << 31).then_some([x, y, 1])
}

/// The axes of an index space as parameters: their number, then size and strides of each.
pub(super) fn axes<const N: usize>(space: &Strided<N>) -> Vec<u32> {
    let mut words = vec![space.axes().len() as u32];
    for (dim, strides) in space.axes() {
        words.push(dim as u32);
        // Negative strides wrap, and so does the arithmetic of the kernels.
        words.extend(strides.iter().map(|s| *s as u32));
    }
    words
}

/// Applies an expression to each element.
fn map(expression: &str, ty: &str, [a, b]: [f32; 2], x: &Tensor) -> Option<DeviceData> {
    let context = Context::get()?;
    let (source, to) = (on_device(context, x)?, if ty == "u32" { DType::Bool } else { DType::F32 });
    let out = DeviceData::new(context, to, x.len())?;
    let kernel = context
        .kernel(&format!("map {expression}"), 1, 1, || [FUNCTIONS, &MAP.replace("EXPRESSION", expression).replace("TYPE", ty)].concat());
    let parameters = [x.len() as u32, a.to_bits(), b.to_bits()];
    context.run(&kernel, &parameters, &[source.memory()], &[out.memory()], groups(x.len())?);
    Some(out)
}

/// Applies an expression to each pair of elements.
fn zip(expression: &str, ty: &str, [a, b]: [f32; 2], x: &Tensor, y: &Tensor, to: &[usize]) -> Option<DeviceData> {
    let context = Context::get()?;
    let n = shape::count(to).ok()?;
    let (left, right) = (on_device(context, x)?, on_device(context, y)?);
    let out = DeviceData::new(context, if ty == "u32" { DType::Bool } else { DType::F32 }, n)?;
    let kernel = context
        .kernel(&format!("zip {expression}"), 2, 1, || [FUNCTIONS, &ZIP.replace("EXPRESSION", expression).replace("TYPE", ty)].concat());
    let mut parameters = vec![n as u32, a.to_bits(), b.to_bits()];
    parameters.extend(axes(&Strided::broadcast(to, [x.shape(), y.shape()])));
    context.run(&kernel, &parameters, &[left.memory(), right.memory()], &[out.memory()], groups(n)?);
    Some(out)
}

fn f32s(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32 && !t.is_empty()) && tensors.iter().any(|t| t.on_device())
}

fn arguments(list: &[f64]) -> [f32; 2] {
    [list.first().map_or(0.0, |v| *v as f32), list.get(1).map_or(0.0, |v| *v as f32)]
}

/// A function of the table by name.
pub(crate) fn unary(name: &str, args: &[f64], x: &Tensor) -> Result<Option<Tensor>> {
    let Some((_, value, _)) = UNARY.iter().find(|f| f.0 == name).filter(|_| f32s(&[x])) else { return Ok(None) };
    Ok(map(value, "f32", arguments(args), x).map(|d| Tensor::from_device(DType::F32, Arc::new(d), x.shape())))
}

/// The gradient of the function: slope at the kept value, times `dy`.
pub(crate) fn slope(name: &str, args: &[f64], kept: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
    let Some((.., slope)) = UNARY.iter().find(|f| f.0 == name).filter(|_| f32s(&[kept, dy])) else { return Ok(None) };
    let data = zip(&format!("({slope}) * y"), "f32", arguments(args), kept, dy, dy.shape());
    Ok(data.map(|d| Tensor::from_device(DType::F32, Arc::new(d), dy.shape())))
}

/// A function of two numbers by name.
pub(crate) fn binary(name: &str, x: &Tensor, y: &Tensor) -> Result<Option<Tensor>> {
    two(BINARY, "f32", DType::F32, name, x, y)
}

/// A comparison by name.
pub(crate) fn compare(name: &str, x: &Tensor, y: &Tensor) -> Result<Option<Tensor>> {
    two(COMPARE, "u32", DType::Bool, name, x, y)
}

fn two(table: &[(&str, &str)], ty: &str, dtype: DType, name: &str, x: &Tensor, y: &Tensor) -> Result<Option<Tensor>> {
    let Some((_, value)) = table.iter().find(|f| f.0 == name).filter(|_| f32s(&[x, y])) else { return Ok(None) };
    let Ok(to) = shape::broadcast("zip", x.shape(), y.shape()) else { return Ok(None) };
    Ok(zip(value, ty, [0.0; 2], x, y, &to).map(|d| Tensor::from_device(dtype, Arc::new(d), to)))
}

/// Whether each element is NaN, or infinite of the signs asked for, by an expression in x.
pub(crate) fn test(expression: &str, x: &Tensor) -> Result<Option<Tensor>> {
    let data = f32s(&[x]).then(|| map(&format!("select(0u, 1u, {expression})"), "u32", [0.0; 2], x)).flatten();
    Ok(data.map(|d| Tensor::from_device(DType::Bool, Arc::new(d), x.shape())))
}

/// `a` where `condition` holds, `b` elsewhere.
pub(crate) fn select_elements(condition: &Tensor, a: &Tensor, b: &Tensor, to: &[usize]) -> Result<Option<Tensor>> {
    let any = [condition, a, b].iter().any(|t| t.on_device());
    if !any || condition.dtype() != DType::Bool || a.dtype() != DType::F32 || b.dtype() != DType::F32 {
        return Ok(None);
    }
    let run = || {
        let context = Context::get()?;
        let n = shape::count(to).ok()?;
        let (c, x, y) = (on_device(context, condition)?, on_device(context, a)?, on_device(context, b)?);
        let out = DeviceData::new(context, DType::F32, n)?;
        let kernel = context.kernel("choose", 3, 1, || [FUNCTIONS, CHOOSE].concat());
        let mut parameters = vec![n as u32];
        parameters.extend(axes(&Strided::broadcast(to, [condition.shape(), a.shape(), b.shape()])));
        context.run(&kernel, &parameters, &[c.memory(), x.memory(), y.memory()], &[out.memory()], groups(n)?);
        Some(Tensor::from_device(DType::F32, Arc::new(out), to))
    };
    Ok(run())
}

/// Bool on the device as 0 and 1.
pub(crate) fn to_float(t: &Tensor) -> Result<Option<Tensor>> {
    if !t.on_device() || t.dtype() != DType::Bool {
        return Ok(None);
    }
    select_elements(t, &Tensor::scalar(1f32), &Tensor::scalar(0f32), t.shape())
}
