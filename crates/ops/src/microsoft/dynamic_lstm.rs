//! DynamicQuantizeLSTM: an LSTM with 8-bit weights that quantizes inputs and states by their own range.
use super::DOMAIN;
use crate::qlinear::centred;
use crate::quantize_linear::dynamic_range;
use crate::recurrent::{infer_hidden, part};
use crate::rnn::{Products, lstm_with};
use crate::simple::Simple;
use crate::{Effect, EvalCx, Inputs, OpError, Operator, Role};
use graph::{Dim, Node};
use tensor::{DType, Tensor};

pub(crate) static OPERATORS: &[&dyn Operator] = &[&Simple::new(
    "DynamicQuantizeLSTM",
    "LSTM with 8-bit weights; inputs and states are quantized by their own range.",
    &[1],
    eval,
    |cx| infer_hidden(cx, 2, cx.shape(2).and_then(|s| s.get(1)).cloned().unwrap_or(Dim::Unknown)),
)
.domain(DOMAIN)
.role(role)
.effect(|_| Effect::AlreadyQuantized("it computes on integers already"))];

fn role(_: &Node, input: usize) -> Role {
    match input {
        0 => Role::Data,
        3 => Role::Bias,
        _ => Role::Constant,
    }
}

fn eval(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let weight = |at: usize, d: usize| weight(cx.node, &inputs, at, d);
    let hidden = inputs.get(2)?.shape().get(1).copied().unwrap_or(0);
    lstm_with(cx, &inputs, hidden, &|d| {
        let (w, r) = (weight(1, d)?, weight(2, d)?);
        Ok(Products {
            inputs: Box::new(move |x| Ok(on_its_grid(x)?.matmul(&w)?)),
            states: Box::new(move |h| Ok(on_its_grid(h)?.matmul(&r)?)),
        })
    })
}

/// One direction's weight `[features, gates * hidden]` as floats. Its scale and zero point are inputs 8 and 9, those of the
/// recurrence 10 and 11: one for each direction, or one for each column.
fn weight(node: &Node, inputs: &Inputs, at: usize, direction: usize) -> Result<Tensor, OpError> {
    let of_direction = |t: &Tensor| -> Result<Tensor, OpError> {
        if t.rank() == 2 { part(t, direction) } else { Ok(t.narrow(0, direction.min(t.len().saturating_sub(1)), 1)?) }
    };
    let (scale, zero) = (of_direction(inputs.get(6 + 2 * at)?)?, of_direction(inputs.get(7 + 2 * at)?)?);
    let w = centred(node, &part(inputs.get(at)?, direction)?, Some(&zero), 1)?;
    Ok(w.cast(DType::F32)?.mul(&scale)?)
}

/// A value after rounding to the 256 steps that its own range gives.
fn on_its_grid(x: &Tensor) -> Result<Tensor, OpError> {
    let (scale, zero) = dynamic_range(&x.to_f32_vec()?);
    let round = |v: f32| (((v / scale).round_ties_even() + zero).clamp(0.0, 255.0) - zero) * scale;
    Ok(Tensor::new(x.to_f32_vec()?.into_iter().map(round).collect::<Vec<f32>>(), x.shape())?)
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use tensor::{DType, Tensor, random::uniform};

    /// Compared with the plain LSTM with the same weights: the difference is the rounding of inputs and states to 8 bits.
    #[test]
    fn it_is_an_lstm() {
        let (x, bias) = (uniform(1, &[5, 2, 3], -1.0, 1.0).unwrap(), uniform(2, &[2, 32], -0.5, 0.5).unwrap());
        let integers = |seed: u64, shape: &[usize]| uniform(seed, shape, -127.0, 127.0).unwrap().cast(DType::I8).unwrap();
        let (w, r) = (integers(3, &[2, 3, 16]), integers(4, &[2, 4, 16]));
        let scale = Tensor::vector(vec![0.01f32, 0.02]);
        let zero = Tensor::vector(vec![0i8, 0]);
        let lists = [&x, &w, &r, &bias].map(|t| Some(t.clone())).into_iter().chain([None, None, None, None]);
        let lists = lists.chain([&scale, &zero, &scale, &zero].map(|t| Some(t.clone()))).collect();
        let case = |c: Case| c.string("direction", "bidirectional").int("hidden_size", 4).outputs(3);
        let dynamic = case(Case::of("com.microsoft", "DynamicQuantizeLSTM", 1)).run_optional(lists).unwrap();
        let real = |t: &Tensor| {
            let by = Tensor::new(vec![0.01f32, 0.02], [2, 1, 1]).unwrap();
            t.cast(DType::F32).unwrap().mul(&by).unwrap().transpose(&[0, 2, 1]).unwrap()
        };
        let plain = case(Case::new("LSTM", 14)).run_all(&[x, real(&w), real(&r), bias]).unwrap();
        for (a, b) in dynamic.iter().zip(&plain) {
            assert_eq!(a.shape(), b.shape());
            let off = a.sub(b).unwrap().abs().unwrap().to_f32_vec().unwrap().into_iter().fold(0f32, f32::max);
            assert!(off > 0.0 && off < 0.02, "{off}");
        }
    }
}
