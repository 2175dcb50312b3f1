//! Random tensors and Dropout. Draws depend only on the seed of the evaluation (and the node's own, if it has one).
use crate::couples::first_elementwise;
use crate::dtypes::dtype_attribute;
use crate::layout::sizes;
use crate::shapes::typed;
use crate::simple::{Constants, Simple, one, set_input};
use crate::{EvalCx, Inputs, OpError, Operator, Parts, ShapeCx};
use graph::{AttributeValue, Dim, Node, ValueType};
use tensor::{DType, Tensor, random};

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("RandomNormal", "Normally distributed numbers in a given shape.", &[1, 22], |cx, _| shaped(cx, normal), infer_shaped),
    &Simple::new("RandomUniform", "Evenly distributed numbers in a given shape.", &[1, 22], |cx, _| shaped(cx, uniform), infer_shaped),
    &Simple::new(
        "RandomNormalLike",
        "Normally distributed numbers in the input's shape.",
        &[1, 22],
        |cx, i| like(cx, i, normal),
        infer_like,
    ),
    &Simple::new(
        "RandomUniformLike",
        "Evenly distributed numbers in the input's shape.",
        &[1, 22],
        |cx, i| like(cx, i, uniform),
        infer_like,
    ),
    &Simple::new("Bernoulli", "True with the probability that the input gives.", &[15, 22], bernoulli, infer_like),
    &Simple::new("Multinomial", "Classes drawn with unnormalized log-probabilities.", &[7, 22], multinomial, infer_multinomial),
    &Simple::new(
        "Dropout",
        "In training, drops elements at random and scales up the others.",
        &[1, 6, 7, 10, 12, 13, 22],
        dropout,
        infer_dropout,
    )
    .couples(first_elementwise)
    .moves()
    .upgrade(upgrade_dropout)
    .rewrite(rewrite_dropout),
];

fn seed(cx: &EvalCx) -> Result<u64, OpError> {
    // The seed attribute is an integer in Dropout and a float in the others.
    let own = match cx.node.attributes.get("seed") {
        Some(AttributeValue::Int(s)) => Some(*s as u64),
        _ => cx.node.float("seed")?.map(|s| u64::from(s.to_bits())),
    };
    Ok(own.map_or(cx.seed, |s| random::derive(cx.seed, s)))
}

fn normal(cx: &EvalCx, shape: &[usize]) -> Result<Tensor, OpError> {
    Ok(random::normal(seed(cx)?, shape, cx.node.float_or("mean", 0.0)?, cx.node.float_or("scale", 1.0)?)?)
}

fn uniform(cx: &EvalCx, shape: &[usize]) -> Result<Tensor, OpError> {
    Ok(random::uniform(seed(cx)?, shape, cx.node.float_or("low", 0.0)?, cx.node.float_or("high", 1.0)?)?)
}

type Draw = fn(&EvalCx, &[usize]) -> Result<Tensor, OpError>;

fn shaped(cx: &EvalCx, draw: Draw) -> Result<Vec<Tensor>, OpError> {
    let dtype = dtype_attribute(cx.node, "dtype")?.unwrap_or(DType::F32);
    one(draw(cx, &given_shape(cx.node)?)?.cast(dtype)?)
}

fn given_shape(node: &Node) -> Result<Vec<usize>, OpError> {
    sizes(node, &node.ints("shape")?.ok_or_else(|| node.attribute_error("shape", "is missing"))?)
}

fn infer_shaped(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let dtype = dtype_attribute(cx.node, "dtype")?.unwrap_or(DType::F32);
    Ok(vec![typed(Some(dtype), Some(given_shape(cx.node)?.into_iter().map(Dim::Known).collect()))])
}

fn like(cx: &EvalCx, inputs: Inputs, draw: Draw) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    one(draw(cx, x.shape())?.cast(dtype_attribute(cx.node, "dtype")?.unwrap_or(x.dtype()))?)
}

fn infer_like(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    Ok(vec![typed(dtype_attribute(cx.node, "dtype")?.or(cx.dtype(0)), cx.shape(0).map(<[Dim]>::to_vec))])
}

fn bernoulli(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let p = inputs.get(0)?;
    let draws = random::uniform(seed(cx)?, p.shape(), 0.0, 1.0)?;
    let hit = draws.less(&p.detach().cast(DType::F32)?)?;
    one(hit.cast(dtype_attribute(cx.node, "dtype")?.unwrap_or(p.dtype()))?)
}

fn multinomial(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let [batch, classes] = *x.shape() else { return Err(cx.node.error(format!("[batch, classes] is needed, not {:?}", x.shape())).into()) };
    let samples = cx.node.int_or("sample_size", 1)?;
    let samples = usize::try_from(samples).map_err(|_| cx.node.attribute_error("sample_size", format!("is {samples}")))?;
    if classes == 0 {
        return Err(cx.node.error("there are no classes to draw from").into());
    }
    tensor::memory::room::<i64>("multinomial", &[batch, samples])?;
    let p = x.detach().cast(DType::F64)?.softmax(1)?;
    let p = p.as_slice::<f64>()?;
    let seed = seed(cx)?;
    let draw = |i: usize| {
        let mut left = random::unit(seed, i as u64);
        let row = &p[i / samples * classes..(i / samples + 1) * classes];
        let hit = row.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        hit.unwrap_or(classes - 1) as i64
    };
    let drawn = Tensor::new((0..batch * samples).map(draw).collect(), [batch, samples])?;
    one(drawn.cast(dtype_attribute(cx.node, "dtype")?.unwrap_or(DType::I32))?)
}

fn infer_multinomial(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let batch = cx.shape(0).and_then(|s| s.first().cloned()).unwrap_or(Dim::Unknown);
    let samples = usize::try_from(cx.node.int_or("sample_size", 1)?).map_or(Dim::Unknown, Dim::Known);
    let dtype = dtype_attribute(cx.node, "dtype")?.unwrap_or(DType::I32);
    Ok(vec![typed(Some(dtype), Some(vec![batch, samples]))])
}

/// Drops in training mode, also for a model exported for inference, and where the node's own `training_mode` is true.
fn dropout(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let x = inputs.get(0)?;
    let ratio = match inputs.opt(1) {
        Some(r) => r.to_f64_vec()?.first().copied().unwrap_or(0.5),
        None => cx.node.float_or("ratio", 0.5)? as f64,
    };
    let told = inputs.opt(2).is_some_and(|t| t.to_i64_vec().is_ok_and(|v| v == [1]));
    if !(0.0..1.0).contains(&ratio) {
        return Err(cx.node.error(format!("ratio is {ratio}; 0 up to 1 is needed")).into());
    }
    let (y, kept) = if (cx.training || told) && ratio > 0.0 {
        let kept = random::uniform(seed(cx)?, x.shape(), 0.0, 1.0)?.greater_or_equal(&Tensor::scalar(ratio as f32))?;
        let scale = kept.cast(x.dtype())?.mul_scalar(1.0 / (1.0 - ratio))?;
        (x.mul(&scale)?, kept)
    } else {
        (x.clone(), Tensor::scalar(true).expand(x.shape())?)
    };
    // The mask has the data's type up to opset 9.
    let mask = if cx.opset < 10 { kept.cast(x.dtype())? } else { kept };
    Ok(vec![y, mask])
}

fn infer_dropout(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let dims = cx.shape(0).map(<[Dim]>::to_vec);
    let mask = if cx.opset < 10 { cx.dtype(0) } else { Some(DType::Bool) };
    Ok(vec![typed(cx.dtype(0), dims.clone()), typed(mask, dims)])
}

fn upgrade_dropout(node: &mut Node, to: i64, _: &[ValueType], constants: Constants) -> Result<(), OpError> {
    match to {
        12 => {
            if let Some(ratio) = node.float("ratio")? {
                node.attributes.remove("ratio");
                set_input(node, 1, constants("ratio", Tensor::scalar(ratio)));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The mask is bool from operator set 10 on: its readers get it cast back.
fn rewrite_dropout(node: &Node, to: i64, types: &[ValueType], parts: &mut Parts) -> Result<Option<Vec<Node>>, OpError> {
    let Some(mask) = node.output(1).filter(|_| to == 10) else { return Ok(None) };
    let dtype = match types.first() {
        Some(ValueType::Tensor { dtype, .. }) => *dtype,
        _ => DType::F32,
    };
    let mut dropout = node.clone();
    let kept = parts.value("kept");
    dropout.outputs[1] = Some(kept);
    let code = graph::code_of_dtype(dtype);
    let cast = Node::new("Cast", parts.node("kept"), &[kept], &[mask]).with("to", AttributeValue::Int(code));
    Ok(Some(vec![dropout, cast]))
}

#[cfg(test)]
mod tests {
    use crate::testing::{Case, floats};
    use tensor::{DType, Tensor};

    #[test]
    fn dropout_drops_in_training_alone() {
        let x = Tensor::full(1f32, [1000]).unwrap();
        assert_eq!(Case::new("Dropout", 13).run(std::slice::from_ref(&x)), x);
        let y = Case::new("Dropout", 13).training().outputs(2).run_all(&[x.clone(), Tensor::scalar(0.25f32)]).unwrap();
        let zeros = y[0].as_slice::<f32>().unwrap().iter().filter(|v| **v == 0.0).count();
        assert!((150..350).contains(&zeros), "{zeros}");
        assert_eq!(y[1].as_slice::<bool>().unwrap().iter().filter(|m| !**m).count(), zeros);
        let again = Case::new("Dropout", 13).training().run(&[x.clone(), Tensor::scalar(0.25f32)]);
        assert_eq!(again, y[0]);
        assert!(Case::new("Dropout", 13).run_all(&[x, Tensor::scalar(1.5f32)]).is_err());
    }

    #[test]
    fn draws_have_the_type_and_shape_asked_for() {
        let y = Case::new("RandomNormal", 22).ints("shape", &[2, 3]).int("dtype", 11).run(&[]);
        assert_eq!((y.dtype(), y.shape()), (DType::F64, [2usize, 3].as_slice()));
        assert_eq!(Case::new("Bernoulli", 15).int("dtype", 9).run(&[floats(&[0.0, 1.0])]), Tensor::vector(vec![false, true]));
        let p = Tensor::new(vec![-100f32, 0.0], [1, 2]).unwrap();
        assert_eq!(Case::new("Multinomial", 7).int("sample_size", 3).run(&[p]).to_i64_vec().unwrap(), [1, 1, 1]);
    }
}
