//! Shared code of RNN, GRU and LSTM: attributes, directions, activations, and the loop over the sequence.
use crate::conv::product;
use crate::couples::{
    Couples, CouplesCx, CutCx,
    Place::{Input, Output},
};
use crate::shapes::typed;
use crate::simple::Constants;
use crate::{EvalCx, Inputs, MacsCx, OpError, Role, ShapeCx};
use graph::{AttributeValue, Dim, Node, ValueType};
use tensor::{DType, Tensor};

/// An activation of a cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellActivation {
    kind: ActivationKind,
    alpha: f64,
    beta: f64,
}

#[derive(Clone, Copy, Debug)]
enum ActivationKind {
    Relu,
    Tanh,
    Sigmoid,
    Affine,
    LeakyRelu,
    ThresholdedRelu,
    ScaledTanh,
    HardSigmoid,
    Elu,
    Softsign,
    Softplus,
}

impl CellActivation {
    fn named(
        node: &Node,
        name: &str,
        alphas: &mut impl Iterator<Item = f32>,
        betas: &mut impl Iterator<Item = f32>,
    ) -> Result<Self, OpError> {
        // Kind, and the defaults of alpha and beta where it has them.
        let (kind, alpha, beta) = match name.to_ascii_lowercase().as_str() {
            "relu" => (ActivationKind::Relu, None, None),
            "tanh" => (ActivationKind::Tanh, None, None),
            "sigmoid" => (ActivationKind::Sigmoid, None, None),
            "affine" => (ActivationKind::Affine, Some(1.0), Some(0.0)),
            "leakyrelu" => (ActivationKind::LeakyRelu, Some(0.01), None),
            "thresholdedrelu" => (ActivationKind::ThresholdedRelu, Some(1.0), None),
            "scaledtanh" => (ActivationKind::ScaledTanh, Some(1.0), Some(1.0)),
            "hardsigmoid" => (ActivationKind::HardSigmoid, Some(0.2), Some(0.5)),
            "elu" => (ActivationKind::Elu, Some(1.0), None),
            "softsign" => (ActivationKind::Softsign, None, None),
            "softplus" => (ActivationKind::Softplus, None, None),
            _ => return Err(OpError::unsupported(node, format!("activation '{name}'"))),
        };
        let given = |default: Option<f64>, list: &mut dyn Iterator<Item = f32>| default.map_or(0.0, |d| list.next().map_or(d, f64::from));
        Ok(CellActivation { kind, alpha: given(alpha, alphas), beta: given(beta, betas) })
    }

    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor, OpError> {
        let (a, b) = (self.alpha, self.beta);
        Ok(match self.kind {
            ActivationKind::Relu => x.relu()?,
            ActivationKind::Tanh => x.tanh()?,
            ActivationKind::Sigmoid => x.sigmoid()?,
            ActivationKind::Affine => x.mul_scalar(a)?.add_scalar(b)?,
            ActivationKind::LeakyRelu => x.leaky_relu(a)?,
            ActivationKind::ThresholdedRelu => Tensor::where_(&x.greater(&x.scalar_like(a)?)?, x, &x.scalar_like(0.0)?)?,
            ActivationKind::ScaledTanh => x.mul_scalar(b)?.tanh()?.mul_scalar(a)?,
            ActivationKind::HardSigmoid => x.hard_sigmoid(a, b)?,
            ActivationKind::Elu => x.elu(a)?,
            ActivationKind::Softsign => x.softsign()?,
            ActivationKind::Softplus => x.softplus()?,
        })
    }
}

/// The attributes of a recurrent node.
pub(crate) struct Settings {
    pub(crate) hidden: usize,
    /// For each direction, whether it runs backwards.
    pub(crate) backwards: Vec<bool>,
    /// For each direction, the activations of its cell.
    pub(crate) activations: Vec<Vec<CellActivation>>,
    pub(crate) clip: Option<f64>,
    pub(crate) batch_first: bool,
}

impl Settings {
    pub(crate) fn of(node: &Node, hidden: usize, defaults: &[&str]) -> Result<Settings, OpError> {
        let backwards = directions(node)?;
        if node.int("hidden_size")?.is_some_and(|h| h != hidden as i64) {
            return Err(node.attribute_error("hidden_size", format!("does not fit weights for {hidden}")).into());
        }
        let names: Vec<String> = match node.attributes.get("activations") {
            None => backwards.iter().flat_map(|_| defaults.iter().map(ToString::to_string)).collect(),
            Some(AttributeValue::Strings(list)) => list.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect(),
            Some(_) => return Err(node.attribute_error("activations", "is not a list of strings").into()),
        };
        if names.len() != defaults.len() * backwards.len() {
            let what = format!("has {} entries where {} are needed", names.len(), defaults.len() * backwards.len());
            return Err(node.attribute_error("activations", what).into());
        }
        let mut alphas = node.floats_or("activation_alpha", vec![])?.into_iter();
        let mut betas = node.floats_or("activation_beta", vec![])?.into_iter();
        let all: Vec<CellActivation> =
            names.iter().map(|n| CellActivation::named(node, n, &mut alphas, &mut betas)).collect::<Result<_, _>>()?;
        Ok(Settings {
            hidden,
            activations: all.chunks(defaults.len()).map(<[CellActivation]>::to_vec).collect(),
            clip: node.float("clip")?.map(f64::from),
            batch_first: node.int_or("layout", 0)? != 0,
            backwards,
        })
    }

    /// Clips the input of an activation, if the node asks for it.
    pub(crate) fn clipped(&self, x: Tensor) -> Result<Tensor, OpError> {
        Ok(match self.clip {
            Some(c) => x.clip(Some(-c), Some(c))?,
            None => x,
        })
    }
}

fn directions(node: &Node) -> Result<Vec<bool>, OpError> {
    match node.string_or("direction", "forward")? {
        "forward" => Ok(vec![false]),
        "reverse" => Ok(vec![true]),
        "bidirectional" => Ok(vec![false, true]),
        other => Err(OpError::unsupported(node, format!("direction = '{other}'"))),
    }
}

/// One direction's part of a weight-like input `[directions, ...]`.
pub(crate) fn part(t: &Tensor, direction: usize) -> Result<Tensor, OpError> {
    Ok(t.narrow(0, direction, 1)?.squeeze(&[0])?)
}

/// The step function of a cell: from the step's inputs `[batch, gates * hidden]` (already multiplied) and the state to the new
/// state; the first state tensor is the hidden one.
pub(crate) type Step<'a> = dyn Fn(&Tensor, &[Tensor]) -> Result<Vec<Tensor>, OpError> + 'a;

/// Inputs in time-major order and the states before the first step.
pub(crate) struct Sequence {
    /// `[steps, batch, features]`
    pub(crate) x: Tensor,
    lengths: Option<Vec<i64>>,
    /// For each state, `[directions, batch, hidden]`.
    initial: Vec<Tensor>,
}

impl Sequence {
    /// Reads data, sequence lengths (input 4) and `states` initial states (from input 5 on).
    pub(crate) fn of(node: &Node, inputs: &Inputs, settings: &Settings, states: usize) -> Result<Sequence, OpError> {
        let x = inputs.get(0)?;
        if x.rank() != 3 {
            return Err(node.error(format!("needs data of three axes, not {:?}", x.shape())).into());
        }
        let x = if settings.batch_first { x.transpose(&[1, 0, 2])? } else { x.clone() };
        let (steps, batch) = (x.shape()[0], x.shape()[1]);
        let lengths = inputs.opt(4).map(Tensor::to_i64_vec).transpose()?;
        if let Some(bad) = lengths.as_ref().filter(|l| l.len() != batch || l.iter().any(|n| !(0..=steps as i64).contains(n))) {
            return Err(node.error(format!("sequence lengths {bad:?} for {batch} sequences of {steps} steps")).into());
        }
        let shape = [settings.backwards.len(), batch, settings.hidden];
        let mut initial = vec![];
        for i in 0..states {
            let state = match inputs.opt(5 + i) {
                None => Tensor::zeros(x.dtype(), &shape)?,
                Some(t) if settings.batch_first => t.transpose(&[1, 0, 2])?,
                Some(t) => t.clone(),
            };
            if state.shape() != shape {
                return Err(node.error(format!("an initial state of shape {:?} where {shape:?} is needed", state.shape())).into());
            }
            initial.push(state);
        }
        Ok(Sequence { x, lengths, initial })
    }

    /// Runs one direction. Returns all hidden states `[steps, batch, hidden]` (zero after a sequence's end) and the last states.
    /// A shorter sequence in reverse direction starts at its own last step.
    fn walk(&self, gates: &Tensor, direction: usize, backwards: bool, step: &Step) -> Result<(Tensor, Vec<Tensor>), OpError> {
        let steps = self.x.shape()[0];
        let mut state: Vec<Tensor> = self.initial.iter().map(|t| part(t, direction)).collect::<Result<_, _>>()?;
        let mut outputs: Vec<Tensor> = Vec::with_capacity(steps);
        for i in 0..steps {
            let t = if backwards { steps - 1 - i } else { i };
            let mut next = step(&gates.narrow(0, t, 1)?.squeeze(&[0])?, &state)?;
            let mut output = next.first().cloned().ok_or_else(|| OpError::Inner("a cell without state".into()))?;
            if let Some(lengths) = &self.lengths {
                let alive = Tensor::new(lengths.iter().map(|n| (t as i64) < *n).collect::<Vec<bool>>(), [lengths.len(), 1])?;
                for (new, old) in next.iter_mut().zip(&state) {
                    *new = Tensor::where_(&alive, new, old)?;
                }
                output = Tensor::where_(&alive, &output, &output.scalar_like(0.0)?)?;
            }
            outputs.push(output.unsqueeze(&[0])?);
            state = next;
        }
        if backwards {
            outputs.reverse();
        }
        let all = match outputs.is_empty() {
            true => Tensor::zeros(self.x.dtype(), &[0, self.x.shape()[1], gates.shape()[2]])?,
            false => Tensor::concat(&outputs, 0)?,
        };
        Ok((all, state))
    }

    /// Runs all directions. `cell` returns the step function and the multiplied inputs `[steps, batch, gates * hidden]` of one
    /// direction. Returns `Y` and the last states in the node's layout.
    pub(crate) fn run<'a>(
        &self,
        settings: &Settings,
        mut cell: impl FnMut(usize) -> Result<(Tensor, Box<Step<'a>>), OpError>,
    ) -> Result<Vec<Tensor>, OpError> {
        let (mut all, mut last) = (vec![], vec![vec![]; self.initial.len()]);
        for (direction, backwards) in settings.backwards.iter().enumerate() {
            let (gates, step) = cell(direction)?;
            let (outputs, state) = self.walk(&gates, direction, *backwards, &*step)?;
            all.push(outputs.unsqueeze(&[1])?);
            for (list, t) in last.iter_mut().zip(state) {
                list.push(t.unsqueeze(&[0])?);
            }
        }
        let y = Tensor::concat(&all, 1)?;
        let mut out = vec![if settings.batch_first { y.transpose(&[2, 0, 1, 3])? } else { y }];
        for list in last {
            let state = Tensor::concat(&list, 0)?;
            out.push(if settings.batch_first { state.transpose(&[1, 0, 2])? } else { state });
        }
        Ok(out)
    }

    /// Inputs times the transposed weight `[gates * hidden, features]` plus a bias, for all steps in one product.
    pub(crate) fn project(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, OpError> {
        let y = self.x.matmul(&weight.transpose(&[1, 0])?)?;
        Ok(match bias {
            Some(b) => y.add(b)?,
            None => y,
        })
    }
}

/// Hidden size from the recurrence weight `[directions, gates * hidden, hidden]`, with weights checked against it.
pub(crate) fn hidden_size(node: &Node, inputs: &Inputs, gates: usize) -> Result<usize, OpError> {
    let (x, w, r) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
    let hidden = r.shape().get(2).copied().unwrap_or(0);
    let directions = directions(node)?.len();
    let fits = w.shape() == [directions, gates * hidden, x.shape().last().copied().unwrap_or(0)]
        && r.shape() == [directions, gates * hidden, hidden]
        && inputs.opt(3).is_none_or(|b| b.shape() == [directions, 2 * gates * hidden]);
    if fits {
        Ok(hidden)
    } else {
        Err(node
            .error(format!("weights {:?} and {:?} do not fit data {:?} and {directions} direction(s)", w.shape(), r.shape(), x.shape()))
            .into())
    }
}

pub(crate) fn role(_: &Node, input: usize) -> Role {
    match input {
        1 | 2 => Role::Weight,
        3 | 7 => Role::Bias,
        4 => Role::Constant,
        _ => Role::Data,
    }
}

/// The rows of the gates: W is `[directions, gates * hidden, input]` and R `[directions, gates * hidden, hidden]`.
pub(crate) fn gate_rows(_: &Node, input: usize) -> Option<usize> {
    matches!(input, 1 | 2).then_some(1)
}

/// A hidden unit is one row in each gate of the weights, one column of the recurrence and one element of the state; of both directions,
/// since they share the weights' shape.
pub(crate) fn units(cx: &CouplesCx, out: &mut Couples, gates: usize) -> Result<(), OpError> {
    let Some(hidden) = cx.size(Input(2, 2)) else { return Ok(()) };
    let Some(x) = cx.input(0).map(<[Dim]>::len).filter(|r| *r == 3) else { return Ok(()) };
    let unit = Input(2, 2);
    let rows = |count: usize| (0..count * hidden).map(|row| (row % hidden, row));
    out.tie(Input(0, x - 1), Input(1, 2));
    out.tie_at(unit, Input(1, 1), rows(gates));
    out.tie_at(unit, Input(2, 1), rows(gates));
    out.tie_at(unit, Input(3, 1), rows(2 * gates));
    out.tie_at(unit, Input(7, 1), rows(3));
    [Input(5, 2), Input(6, 2), Output(0, 3), Output(1, 2), Output(2, 2)].into_iter().for_each(|place| out.tie(unit, place));
    out.reason = Some("it computes step by step along this axis, or counts directions or samples by it".into());
    Ok(())
}

pub(crate) fn cut_units(cx: &CutCx, node: &mut Node, _: Constants) -> Result<(), OpError> {
    if let Some(kept) = (cx.kept)(Input(2, 2)) {
        node.attributes.set("hidden_size", AttributeValue::Int(kept.len() as i64));
    }
    Ok(())
}

/// MACs: input and recurrence product of each step, sequence and direction.
pub(crate) fn macs(cx: &MacsCx) -> u64 {
    let (Some(Some(x)), Some(Some(w)), Some(Some(r))) = (cx.inputs.first(), cx.inputs.get(1), cx.inputs.get(2)) else { return 0 };
    let sequences = product(&x[..x.len().min(2)]);
    sequences.saturating_mul(product(w).saturating_add(product(r)))
}

/// Types of `Y` and of `states` last states.
pub(crate) fn infer(cx: &ShapeCx, states: usize) -> Result<Vec<ValueType>, OpError> {
    let hidden = match (cx.node.int("hidden_size")?, cx.shape(2)) {
        (_, Some([_, _, h])) => h.clone(),
        (Some(h), _) if h > 0 => Dim::Known(h as usize),
        _ => Dim::Unknown,
    };
    infer_hidden(cx, states, hidden)
}

/// As above, for a known size of the hidden state.
pub(crate) fn infer_hidden(cx: &ShapeCx, states: usize, hidden: Dim) -> Result<Vec<ValueType>, OpError> {
    let directions = Dim::Known(directions(cx.node)?.len());
    let (steps, batch) = match cx.shape(0) {
        Some([a, b, _]) if cx.node.int_or("layout", 0)? == 0 => (a.clone(), b.clone()),
        Some([a, b, _]) => (b.clone(), a.clone()),
        _ => (Dim::Unknown, Dim::Unknown),
    };
    let (y, state) = match cx.node.int_or("layout", 0)? {
        0 => (vec![steps, directions.clone(), batch.clone(), hidden.clone()], vec![directions, batch, hidden]),
        _ => (vec![batch.clone(), steps, directions.clone(), hidden.clone()], vec![batch, directions, hidden]),
    };
    let dtype: Option<DType> = cx.dtype(0);
    let mut out = vec![typed(dtype, Some(y))];
    out.extend((0..states).map(|_| typed(dtype, Some(state.clone()))));
    Ok(out)
}

/// Evaluates in f32 if the data type is narrower: a long recurrence would lose too much precision.
pub(crate) fn in_full_precision(
    cx: &EvalCx,
    inputs: Inputs,
    eval: fn(&EvalCx, Inputs) -> Result<Vec<Tensor>, OpError>,
) -> Result<Vec<Tensor>, OpError> {
    let dtype = inputs.get(0)?.dtype();
    if !matches!(dtype, DType::F16 | DType::BF16) {
        return eval(cx, inputs);
    }
    let widen = |t: Tensor| if t.dtype() == dtype { t.cast(DType::F32) } else { Ok(t) };
    let inputs = inputs.into_vec().into_iter().map(|t| t.map(widen).transpose()).collect::<Result<Vec<_>, _>>()?;
    eval(cx, Inputs::new(inputs))?.into_iter().map(|t| Ok(t.cast(dtype)?)).collect()
}
