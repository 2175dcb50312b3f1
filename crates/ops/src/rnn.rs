//! RNN, GRU and LSTM: the cells.
use crate::recurrent::{Sequence, Settings, Step, cut_units, gate_rows, hidden_size, in_full_precision, infer, macs, part, role, units};
use crate::simple::Simple;
use crate::{EvalCx, Inputs, OpError, Operator};
use tensor::Tensor;

pub(crate) static OPERATORS: &[&dyn Operator] = &[
    &Simple::new("RNN", "Simple recurrent network.", &[1, 7, 14, 22], |cx, i| in_full_precision(cx, i, rnn), |cx| infer(cx, 1))
        .couples(|cx, out| units(cx, out, 1))
        .cut(cut_units)
        .role(role)
        .weight_axis(gate_rows)
        .macs(macs),
    &Simple::new("GRU", "Gated recurrent unit.", &[1, 3, 7, 14, 22], |cx, i| in_full_precision(cx, i, gru), |cx| infer(cx, 1))
        .couples(|cx, out| units(cx, out, 3))
        .cut(cut_units)
        .role(role)
        .weight_axis(gate_rows)
        .macs(macs),
    &Simple::new("LSTM", "Long short-term memory.", &[1, 7, 14, 22], |cx, i| in_full_precision(cx, i, lstm), |cx| infer(cx, 2))
        .couples(|cx, out| units(cx, out, 4))
        .cut(cut_units)
        .role(role)
        .weight_axis(gate_rows)
        .macs(macs),
];

/// One direction's bias: the part for the inputs and the part for the recurrence.
fn biases(inputs: &Inputs, direction: usize, width: usize) -> Result<Option<(Tensor, Tensor)>, OpError> {
    let Some(b) = inputs.opt(3) else { return Ok(None) };
    let b = part(b, direction)?;
    Ok(Some((b.narrow(0, 0, width)?, b.narrow(0, width, width)?)))
}

/// The sum of both biases, for gates that add them.
fn summed(pair: Option<(Tensor, Tensor)>) -> Result<Option<Tensor>, OpError> {
    Ok(pair.map(|(a, b)| a.add(&b)).transpose()?)
}

fn rnn(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let hidden = hidden_size(cx.node, &inputs, 1)?;
    let settings = Settings::of(cx.node, hidden, &["Tanh"])?;
    let sequence = Sequence::of(cx.node, &inputs, &settings, 1)?;
    sequence.run(&settings, |d| {
        let gates = sequence.project(&part(inputs.get(1)?, d)?, summed(biases(&inputs, d, hidden)?)?.as_ref())?;
        let recurrence = part(inputs.get(2)?, d)?.transpose(&[1, 0])?;
        let (s, f) = (&settings, settings.activations[d][0]);
        let step: Box<Step> = Box::new(move |x, state| {
            let sum = x.add(&state[0].matmul(&recurrence)?)?;
            Ok(vec![f.apply(&s.clipped(sum)?)?])
        });
        Ok((gates, step))
    })
}

fn gru(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let hidden = hidden_size(cx.node, &inputs, 3)?;
    let settings = Settings::of(cx.node, hidden, &["Sigmoid", "Tanh"])?;
    let sequence = Sequence::of(cx.node, &inputs, &settings, 1)?;
    let linear_before_reset = cx.node.int_or("linear_before_reset", 0)? != 0;
    sequence.run(&settings, |d| {
        let bias = biases(&inputs, d, 3 * hidden)?;
        let gates = sequence.project(&part(inputs.get(1)?, d)?, bias.as_ref().map(|(w, _)| w))?;
        let r = part(inputs.get(2)?, d)?.transpose(&[1, 0])?;
        let (r_zr, r_h) = (r.narrow(1, 0, 2 * hidden)?, r.narrow(1, 2 * hidden, hidden)?);
        let (b_zr, b_h) = match bias {
            Some((_, b)) => (Some(b.narrow(0, 0, 2 * hidden)?), Some(b.narrow(0, 2 * hidden, hidden)?)),
            None => (None, None),
        };
        let plus = |t: Tensor, b: &Option<Tensor>| -> Result<Tensor, OpError> { Ok(b.as_ref().map_or(Ok(t.clone()), |b| t.add(b))?) };
        let (s, f, g) = (&settings, settings.activations[d][0], settings.activations[d][1]);
        let step: Box<Step> = Box::new(move |x, state| {
            let h = &state[0];
            let zr = plus(x.narrow(1, 0, 2 * hidden)?.add(&h.matmul(&r_zr)?)?, &b_zr)?;
            let zr = f.apply(&s.clipped(zr)?)?;
            let (z, r) = (zr.narrow(1, 0, hidden)?, zr.narrow(1, hidden, hidden)?);
            let recurrent = match linear_before_reset {
                true => plus(h.matmul(&r_h)?, &b_h)?.mul(&r)?,
                false => plus(r.mul(h)?.matmul(&r_h)?, &b_h)?,
            };
            let candidate = g.apply(&s.clipped(x.narrow(1, 2 * hidden, hidden)?.add(&recurrent)?)?)?;
            // h' = (1 - z) * candidate + z * h
            Ok(vec![candidate.add(&z.mul(&h.sub(&candidate)?)?)?])
        });
        Ok((gates, step))
    })
}

/// A product with one direction's weight, transposed.
pub(crate) type Product<'a> = Box<dyn Fn(&Tensor) -> Result<Tensor, OpError> + 'a>;

/// The two products of one direction of a cell.
pub(crate) struct Products<'a> {
    /// `[steps, batch, features]` into `[steps, batch, gates * hidden]`.
    pub(crate) inputs: Product<'a>,
    /// `[batch, hidden]` into `[batch, gates * hidden]`.
    pub(crate) states: Product<'a>,
}

fn lstm(cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
    let hidden = hidden_size(cx.node, &inputs, 4)?;
    lstm_with(cx, &inputs, hidden, &|d| {
        let (w, r) = (part(inputs.get(1)?, d)?.transpose(&[1, 0])?, part(inputs.get(2)?, d)?.transpose(&[1, 0])?);
        Ok(Products { inputs: Box::new(move |x| Ok(x.matmul(&w)?)), states: Box::new(move |h| Ok(h.matmul(&r)?)) })
    })
}

/// An LSTM whose products come from `products` for each direction; biases, states and peepholes as in the plain one.
pub(crate) fn lstm_with<'a>(
    cx: &EvalCx,
    inputs: &Inputs,
    hidden: usize,
    products: &dyn Fn(usize) -> Result<Products<'a>, OpError>,
) -> Result<Vec<Tensor>, OpError> {
    let settings = Settings::of(cx.node, hidden, &["Sigmoid", "Tanh", "Tanh"])?;
    let sequence = Sequence::of(cx.node, inputs, &settings, 2)?;
    let coupled = cx.node.int_or("input_forget", 0)? != 0;
    sequence.run(&settings, |d| {
        let Products { inputs: project, states } = products(d)?;
        let mut gates = project(&sequence.x)?;
        if let Some(bias) = summed(biases(inputs, d, 4 * hidden)?)? {
            gates = gates.add(&bias)?;
        }
        // Peepholes in the order input, output, forget.
        let peepholes = match inputs.opt(7) {
            None => None,
            Some(p) => {
                let p = part(p, d)?;
                Some([p.narrow(0, 0, hidden)?, p.narrow(0, hidden, hidden)?, p.narrow(0, 2 * hidden, hidden)?])
            }
        };
        let (s, list) = (&settings, settings.activations[d].clone());
        let step: Box<Step> = Box::new(move |x, state| {
            let (h, c) = (&state[0], &state[1]);
            let sums = x.add(&states(h)?)?;
            // Gates lie in the order input, output, forget, cell.
            let gate = |i: usize, cell: Option<&Tensor>| -> Result<Tensor, OpError> {
                let mut sum = sums.narrow(1, i * hidden, hidden)?;
                if let (Some(p), Some(cell)) = (&peepholes, cell) {
                    sum = sum.add(&p[i].mul(cell)?)?;
                }
                s.clipped(sum)
            };
            let input = list[0].apply(&gate(0, Some(c))?)?;
            let forget = match coupled {
                true => input.neg()?.add_scalar(1.0)?,
                false => list[0].apply(&gate(2, Some(c))?)?,
            };
            let candidate = list[1].apply(&gate(3, None)?)?;
            let cell = forget.mul(c)?.add(&input.mul(&candidate)?)?;
            let output = list[0].apply(&gate(1, Some(&cell))?)?;
            Ok(vec![output.mul(&list[2].apply(&cell)?)?, cell])
        });
        Ok((gates, step))
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::Case;
    use tensor::{Tensor, gradcheck, random::uniform_f64};

    #[test]
    fn gradients_through_time() {
        let lengths = Tensor::vector(vec![3i32, 2]);
        for (op, gates, states) in [("RNN", 1, 1), ("GRU", 3, 1), ("LSTM", 4, 2)] {
            let u = |seed, shape: &[usize]| uniform_f64(seed, shape, -0.8, 0.8);
            let mut inputs =
                vec![u(1, &[3, 2, 2]), u(2, &[2, gates * 2, 2]), u(3, &[2, gates * 2, 2]), u(4, &[2, 2 * gates * 2]), u(5, &[2, 2, 2])];
            if states == 2 {
                inputs.extend([u(6, &[2, 2, 2]), u(7, &[2, 6])]);
            }
            gradcheck::check(&inputs, |t| {
                let mut list = t.to_vec();
                list.insert(4, lengths.clone());
                let case = Case::new(op, 14).string("direction", "bidirectional").outputs(1 + states);
                let out = case.run_all(&list).map_err(|e| tensor::TensorError::value("cell", e.to_string()))?;
                out[0].sum_all()?.add(&out[1].mul(&out[1])?.sum_all()?)
            })
            .unwrap_or_else(|e| panic!("{op}: {e}"));
        }
    }
}
