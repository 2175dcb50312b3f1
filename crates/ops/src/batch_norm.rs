//! BatchNormalization.
use crate::couples::{
    Couples, CouplesCx,
    Place::{Input, Output},
    pass,
};
use crate::shapes::typed;
use crate::simple::Simple;
use crate::{Effect, EvalCx, Inputs, OpError, Operator, Role, ShapeCx};
use graph::{Dim, Node, ValueId, ValueType};
use tensor::{Activation, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[&Simple::new(
    "BatchNormalization",
    "Normalizes each channel by running statistics, in training by the batch's own.",
    &[1, 6, 7, 9, 14, 15],
    eval,
    infer,
)
.role(role)
.effect(|_| Effect::Normalizes)
.couples(couples)
.upgrade(upgrade)];

fn role(_: &Node, input: usize) -> Role {
    match input {
        1 => Role::NormScale,
        2 => Role::NormBias,
        3 | 4 => Role::Statistic,
        _ => Role::Data,
    }
}

fn eval(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let node = cx.node;
    if cx.opset < 9 && node.int_or("spatial", 1)? != 1 {
        return Err(OpError::unsupported(node, "spatial = 0: statistics for each pixel"));
    }
    let (x, scale, bias, mean, var) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?, inputs.get(3)?, inputs.get(4)?);
    // A tensor of one axis is a batch with one channel.
    let data = match x.rank() {
        1 => x.reshape([x.len(), 1])?,
        0 => return Err(node.error("a scalar has no channels").into()),
        _ => x.clone(),
    };
    let eps = node.float_or("epsilon", 1e-5)?;
    let asked = match cx.opset {
        14.. => node.int_or("training_mode", 0)? != 0,
        7..14 => false,
        _ => node.int_or("is_test", 0)? == 0 && node.outputs.iter().skip(1).any(Option::is_some),
    };
    if !(asked || cx.training) {
        let y = data.batch_norm(scale, bias, mean, var, eps, None, Activation::None)?;
        return Ok(vec![y.reshape(x.shape())?]);
    }
    let (y, batch_mean, batch_var) = data.batch_norm_train(scale, bias, eps, None, Activation::None)?;
    let momentum = f64::from(node.float_or("momentum", 0.9)?);
    let running = |old: &Tensor, new: &Tensor| -> Result<Tensor, OpError> {
        Ok(old.detach().mul_scalar(momentum)?.add(&new.detach().cast(old.dtype())?.mul_scalar(1.0 - momentum)?)?)
    };
    let (new_mean, new_var) = (running(mean, &batch_mean)?, running(var, &batch_var)?);
    if cx.training {
        cx.updates.borrow_mut().extend([(3, new_mean.clone()), (4, new_var.clone())]);
    }
    let mut out = vec![y.reshape(x.shape())?, new_mean, new_var];
    if node.outputs.len() > 3 {
        // Saved statistics of operator sets below 14.
        out.extend([batch_mean.detach(), batch_var.detach()]);
    }
    Ok(out)
}

fn infer(cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
    let mut out = vec![typed(cx.dtype(0), cx.shape(0).map(<[Dim]>::to_vec))];
    for i in 1..cx.node.outputs.len() {
        let like = if i % 2 == 1 { 3 } else { 4 };
        out.push(typed(cx.dtype(like), cx.shape(like).map(<[Dim]>::to_vec)));
    }
    Ok(out)
}

fn upgrade(node: &mut Node, to: i64, _: &[ValueType], _: &mut dyn FnMut(&str, Tensor) -> ValueId) -> Result<(), OpError> {
    match to {
        7 => {
            node.attributes.remove("is_test");
            node.attributes.remove("consumed_inputs");
        }
        9 if node.int_or("spatial", 1)? != 1 => {
            return Err(OpError::unsupported(node, "spatial = 0 cannot be expressed from operator set 9 on"));
        }
        9 => {
            node.attributes.remove("spatial");
        }
        14 if node.outputs.iter().skip(1).any(Option::is_some) => {
            return Err(OpError::unsupported(node, "outputs of saved statistics cannot be expressed from operator set 14 on"));
        }
        14 => node.outputs.truncate(1),
        _ => {}
    }
    Ok(())
}

fn couples(cx: &CouplesCx, out: &mut Couples) -> Result<(), OpError> {
    let rank = cx.input(0).map_or(0, <[Dim]>::len);
    if rank > 1 {
        pass(out, 0..rank);
        (1..5).for_each(|i| out.tie(Input(0, 1), Input(i, 0)));
        // Statistics that the node gives in training.
        (1..cx.outputs.len()).for_each(|o| out.tie(Input(0, 1), Output(o, 0)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, floats, iota};

    fn inputs() -> Vec<Tensor> {
        vec![iota(&[2, 2, 2]), floats(&[1., 2.]), floats(&[0., 1.]), floats(&[1., 2.]), floats(&[1., 4.])]
    }

    #[test]
    fn running_statistics_in_evaluation_and_batch_statistics_in_training() {
        let y = Case::new("BatchNormalization", 15).float("epsilon", 0.0).run(&inputs());
        assert_eq!(y.to_f32_vec().unwrap(), [-1., 0., 1., 2., 3., 4., 5., 6.]);
        let out =
            Case::new("BatchNormalization", 15).int("training_mode", 1).float("momentum", 0.75).outputs(3).run_all(&inputs()).unwrap();
        let mean = out[0].mean(&[0, 2], false).unwrap().to_f32_vec().unwrap();
        assert!(mean[0].abs() < 1e-5 && (mean[1] - 1.0).abs() < 1e-5, "{mean:?}");
        assert_eq!(out[1].to_f32_vec().unwrap(), [0.75 + 0.625, 1.5 + 1.125]);
    }
}
