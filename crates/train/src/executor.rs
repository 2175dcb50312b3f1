//! Runs a graph of run-time rank: the reference interpreter, the simulation of a compressed graph, and the forward pass
//! of training are one piece of code.
use crate::TrainError;
use crate::codecs::Codecs;
use crate::limits::{Limits, stopped};
use crate::plan::{Plan, Step, Work, operator};
use graph::{Graph, Model, Node, ValueId, ValueType};
use ops::{EvalCx, Inputs, OpError, RunSubgraph, Sums};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tensor::{Activation, Tensor, TensorError};

/// Tensors by name.
pub type Named = BTreeMap<String, Tensor>;

/// How a graph is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Mode {
    /// Batch statistics in BatchNormalization, dropping in Dropout.
    pub training: bool,
    /// Pass annotated values through their masks and encodings.
    pub simulate: bool,
    /// Seed of the random numbers of this run.
    pub seed: u64,
}

impl Mode {
    /// Inference on the float graph, annotations ignored.
    pub const FLOAT: Mode = Mode { training: false, simulate: false, seed: 0 };
    /// Inference with annotations simulated.
    pub const SIMULATED: Mode = Mode { training: false, simulate: true, seed: 0 };
}

/// Salt that separates the draws of [`Overrides::unencoded`] from others of the same seed.
const UNENCODED: u64 = 0x51d2_0b07;

/// Values that replace the model's own during one run.
#[derive(Clone, Default)]
pub struct Overrides {
    /// Constants (tracked master weights).
    pub constants: HashMap<ValueId, Tensor>,
    /// Parameters of encodings, by value and parameter name (tracked scales).
    pub encodings: HashMap<(ValueId, String), Tensor>,
    /// Elements of constants that a mask holds at zero get the gradient that they would have without the mask. The values of the
    /// run do not change.
    pub dense_gradients: bool,
    /// The probability that an element of an encoded activation keeps its value from before the encoding, drawn anew for each
    /// [`Mode::seed`] (Wei et al. 2022, arXiv:2203.05740).
    pub unencoded: f64,
}

/// The result of one run.
pub struct RunOutput {
    /// Graph outputs and tapped values, by id.
    pub values: HashMap<ValueId, Tensor>,
    /// New running statistics, by the constant they replace.
    pub updates: Vec<(ValueId, Tensor)>,
}

/// A model ready to run.
pub struct Executor<'m> {
    model: Cow<'m, Model>,
    plan: Plan,
    codecs: Codecs,
    taps: Vec<ValueId>,
    limits: Limits,
    sums: Sums,
}

impl Executor<'static> {
    /// Prepares a model that the executor keeps.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn owned(model: Model) -> Result<Self, TrainError> {
        let model = if model.functions.is_empty() { model } else { graph::inline_functions(&model)? };
        let plan = Plan::new(&model, &HashSet::new(), true)?;
        let codecs = Codecs::of(&model);
        Ok(Executor { model: Cow::Owned(model), plan, codecs, taps: vec![], limits: Limits::default(), sums: Sums::Exact })
    }
}

impl<'m> Executor<'m> {
    /// Prepares a model.
    ///
    /// # Errors
    /// [`TrainError::UnknownOperator`] for an unknown operator, [`TrainError::Graph`] for a malformed graph.
    pub fn new(model: &'m Model) -> Result<Self, TrainError> {
        Self::with_taps(model, &[])
    }

    /// Prepares a model, keeping some inner values (the value before a final Softmax, a layer's output).
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn with_taps(model: &'m Model, taps: &[ValueId]) -> Result<Self, TrainError> {
        Self::build(model, taps, true)
    }

    fn build(model: &'m Model, taps: &[ValueId], fuse: bool) -> Result<Self, TrainError> {
        let model = if model.functions.is_empty() { Cow::Borrowed(model) } else { Cow::Owned(graph::inline_functions(model)?) };
        let plan = Plan::new(&model, &taps.iter().copied().collect(), fuse)?;
        let codecs = Codecs::of(&model);
        Ok(Executor { model, plan, codecs, taps: taps.to_vec(), limits: Limits::default(), sums: Sums::Exact })
    }

    /// Prepares a model for [`Executor::run_observed`]: nothing is fused, so every value can be observed.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn unfused(model: &'m Model) -> Result<Self, TrainError> {
        Self::build(model, &[], false)
    }

    /// The same with limits on loops.
    pub fn within(self, limits: Limits) -> Self {
        Executor { limits, ..self }
    }

    /// The same with operators on integers that sum as a processor does.
    pub fn summing(self, sums: Sums) -> Self {
        Executor { sums, ..self }
    }

    /// The model, its functions inlined.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Runs the graph on named inputs and returns its named outputs.
    ///
    /// # Errors
    /// [`TrainError::Input`] for inputs that do not fit, [`TrainError::Node`] for a node that fails.
    pub fn run(&self, inputs: &Named, mode: Mode) -> Result<Named, TrainError> {
        let mut out = self.run_with(inputs, &Overrides::default(), mode, None)?;
        self.model
            .graph
            .outputs
            .iter()
            .map(|v| {
                let name = self.model.values[*v].name.clone();
                let t = out
                    .values
                    .get_mut(v)
                    .cloned()
                    .ok_or_else(|| TrainError::Value { value: name.clone(), what: "was not computed".into() })?;
                Ok((name, t))
            })
            .collect()
    }

    /// Runs the graph and passes on each computed value (inputs and node outputs, after their annotation).
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn run_observed(&self, inputs: &Named, mode: Mode, observe: &mut dyn FnMut(ValueId, &Tensor)) -> Result<(), TrainError> {
        self.run_with(inputs, &Overrides::default(), mode, Some(observe)).map(|_| ())
    }

    /// The general run: overrides, taps and statistics.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn run_with(
        &self,
        inputs: &Named,
        overrides: &Overrides,
        mode: Mode,
        observe: Option<&mut dyn FnMut(ValueId, &Tensor)>,
    ) -> Result<RunOutput, TrainError> {
        let run = Run { limits: self.limits, sums: self.sums, ..Run::new(&self.model, &self.codecs, overrides, mode, observe) };
        run.guarded(|| {
            run.feed(inputs)?;
            self.plan.steps.iter().try_for_each(|step| run.step(step))?;
            run.output(&self.taps)
        })
    }
}

fn names(inputs: &Named) -> String {
    if inputs.is_empty() { "nothing".into() } else { inputs.keys().cloned().collect::<Vec<_>>().join(", ") }
}

fn check_input(value: &graph::Value, t: &Tensor) -> Result<(), TrainError> {
    let wrong = |what: String| Err(TrainError::Input { input: value.name.clone(), what });
    if let Some(dtype) = value.dtype()
        && dtype != t.dtype()
    {
        return wrong(format!("has element type {}, the graph wants {dtype}", t.dtype()));
    }
    if let Some(shape) = value.shape() {
        let fits = shape.len() == t.rank() && shape.iter().zip(t.shape()).all(|(d, n)| d.known().is_none_or(|k| k == *n));
        if !fits {
            let wanted: Vec<String> = shape
                .iter()
                .map(|d| match d {
                    graph::Dim::Known(n) => n.to_string(),
                    graph::Dim::Symbol(s) => s.clone(),
                    graph::Dim::Unknown => "?".into(),
                })
                .collect();
            return wrong(format!("has shape {:?}, the graph wants [{}]", t.shape(), wanted.join(", ")));
        }
    }
    Ok(())
}

/// State of one run.
pub(crate) struct Run<'a, 'o> {
    model: &'a Model,
    codecs: &'a Codecs,
    overrides: &'a Overrides,
    mode: Mode,
    pub(crate) env: RefCell<Vec<Option<Tensor>>>,
    /// Constants after their annotation, so that a shared weight is masked and quantized once.
    constants: RefCell<HashMap<ValueId, Tensor>>,
    pub(crate) updates: RefCell<Vec<(ValueId, Tensor)>>,
    observe: RefCell<Option<&'o mut (dyn FnMut(ValueId, &Tensor) + 'o)>>,
    current: Cell<Option<usize>>,
    limits: Limits,
    sums: Sums,
    /// Runs of subgraphs so far, and nodes in them.
    inner: Cell<(u64, u64)>,
}

impl<'a, 'o> Run<'a, 'o> {
    pub(crate) fn new(
        model: &'a Model,
        codecs: &'a Codecs,
        overrides: &'a Overrides,
        mode: Mode,
        observe: Option<&'o mut (dyn FnMut(ValueId, &Tensor) + 'o)>,
    ) -> Self {
        Run {
            model,
            codecs,
            overrides,
            mode,
            env: RefCell::new(vec![None; model.values.len()]),
            constants: RefCell::new(HashMap::new()),
            updates: RefCell::new(vec![]),
            observe: RefCell::new(observe),
            current: Cell::new(None),
            limits: Limits::default(),
            sums: Sums::Exact,
            inner: Cell::new((0, 0)),
        }
    }

    /// Converts a panic in a kernel into an error that names the node; tensors are values, so no state is left inconsistent.
    pub(crate) fn guarded<R>(&self, work: impl FnOnce() -> Result<R, TrainError>) -> Result<R, TrainError> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result,
            Err(panic) => {
                let what = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()));
                let node = self.current.get().map_or_else(String::new, |i| self.model.graph.nodes[i].label(&self.model.values));
                Err(TrainError::Internal { node, what: what.unwrap_or_default() })
            }
        }
    }

    /// Takes the graph's inputs.
    pub(crate) fn feed(&self, inputs: &Named) -> Result<(), TrainError> {
        let mut known = HashSet::new();
        for v in &self.model.graph.inputs {
            let value = &self.model.values[*v];
            known.insert(value.name.as_str());
            match inputs.get(&value.name) {
                Some(t) => {
                    check_input(value, t)?;
                    self.write(*v, t.clone(), &value.name)?;
                }
                None if value.constant.is_some() => {}
                None => {
                    return Err(TrainError::Input { input: value.name.clone(), what: format!("is not given (given: {})", names(inputs)) });
                }
            }
        }
        match inputs.keys().find(|k| !known.contains(k.as_str())) {
            Some(extra) => Err(TrainError::Input { input: extra.clone(), what: "is not an input of the graph".into() }),
            None => Ok(()),
        }
    }

    /// The result of the run: graph outputs, taps and statistics.
    pub(crate) fn output(&self, taps: &[ValueId]) -> Result<RunOutput, TrainError> {
        let wanted = self.model.graph.outputs.iter().chain(taps);
        let values = wanted.map(|v| Ok((*v, self.read(*v, false)?))).collect::<Result<_, TrainError>>()?;
        Ok(RunOutput { values, updates: self.updates.take() })
    }

    pub(crate) fn step(&self, step: &Step) -> Result<(), TrainError> {
        self.current.set(Some(step.node));
        tensor::profile::section(|| format!("{} forward", step.label(&self.model.graph)), || self.evaluate_step(step))
    }

    fn evaluate_step(&self, step: &Step) -> Result<(), TrainError> {
        let node = &self.model.graph.nodes[step.node];
        let inputs = step.reads.iter().map(|r| r.map(|(v, last)| self.read(v, last)).transpose()).collect::<Result<Vec<_>, _>>()?;
        let outputs = match &step.work {
            Work::Node(op) => self.evaluate(*op, node, inputs, step.node as u64)?,
            Work::Activation(op, activation) => match self.encoded_activation(node, &inputs, *activation)? {
                Some((v, t)) => {
                    self.env.borrow_mut()[v.0 as usize] = Some(t);
                    return Ok(());
                }
                None => self.evaluate(*op, node, inputs, step.node as u64)?,
            },
            Work::BatchNorm { norm, activation } => {
                let norm = &self.model.graph.nodes[*norm];
                vec![self.batch_norm(norm, inputs, *activation).map_err(|e| self.name(norm, e))?]
            }
            Work::Attention { scale } => vec![attention(inputs, *scale).map_err(|e| self.name(node, e))?],
        };
        self.write_outputs(node, outputs)?;
        let mut env = self.env.borrow_mut();
        for v in &step.drops {
            env[v.0 as usize] = None;
        }
        Ok(())
    }

    /// The result of an activation as its encoding stores it, in one pass; `None` if it has no encoding, or if its own value is
    /// observed.
    fn encoded_activation(
        &self,
        node: &Node,
        inputs: &[Option<Tensor>],
        activation: Activation,
    ) -> Result<Option<(ValueId, Tensor)>, TrainError> {
        let (Some(v), Some(Some(x))) = (node.output(0), inputs.first()) else { return Ok(None) };
        if self.observe.borrow().is_some() || x.dtype() != tensor::DType::F32 {
            return Ok(None);
        }
        let name = &self.model.values[v].name;
        let Some(t) = self.encoded(v, name, x, activation).transpose()? else { return Ok(None) };
        let activated = || activation.apply(x);
        Ok(Some((v, self.partly_encoded(v, name, t, &activated)?)))
    }

    fn write_outputs(&self, node: &Node, outputs: Vec<Tensor>) -> Result<(), TrainError> {
        let mut outputs = outputs.into_iter();
        for v in &node.outputs {
            match (v, outputs.next()) {
                (Some(v), Some(t)) => self.write(*v, t, &self.model.values[*v].name)?,
                (None, _) => {}
                (Some(v), None) => {
                    return Err(
                        self.name(node, OpError::unsupported(node, format!("output '{}' is not computed", self.model.values[*v].name)))
                    );
                }
            }
        }
        Ok(())
    }

    fn evaluate(&self, op: &dyn ops::Operator, node: &Node, inputs: Vec<Option<Tensor>>, index: u64) -> Result<Vec<Tensor>, TrainError> {
        let cx = EvalCx {
            node,
            opset: self.model.opset(&node.domain).unwrap_or(1),
            training: self.mode.training,
            seed: tensor::random::derive(self.mode.seed, index),
            sums: self.sums,
            subgraphs: self,
            updates: RefCell::new(vec![]),
        };
        let outputs = op.eval(&cx, Inputs::new(inputs)).map_err(|e| self.name(node, e))?;
        for (i, t) in cx.updates.take() {
            if let Some(v) = node.input(i) {
                self.updates.borrow_mut().push((v, t));
            }
        }
        Ok(outputs)
    }

    fn batch_norm(&self, node: &Node, mut inputs: Vec<Option<Tensor>>, activation: Activation) -> Result<Tensor, OpError> {
        let residual = inputs.pop().flatten();
        let mut inputs = Inputs::new(inputs);
        let x = inputs.take(0)?;
        let (scale, bias, mean, var) = (inputs.take(1)?, inputs.take(2)?, inputs.take(3)?, inputs.take(4)?);
        let eps = node.float_or("epsilon", 1e-5)?;
        if !self.mode.training {
            return Ok(x.batch_norm(&scale, &bias, &mean, &var, eps, residual.as_ref(), activation)?);
        }
        let (y, batch_mean, batch_var) = x.batch_norm_train(&scale, &bias, eps, residual.as_ref(), activation)?;
        let momentum = node.float_or("momentum", 0.9)?;
        for (i, old, new) in [(3, mean, batch_mean), (4, var, batch_var)] {
            let kept = if new.on_device() {
                old.mul_scalar(f64::from(momentum))?.add(&new.mul_scalar(f64::from(1.0 - momentum))?)?
            } else {
                let pairs = old.as_slice::<f32>()?.iter().zip(new.as_slice::<f32>()?);
                Tensor::new(pairs.map(|(o, n)| o * momentum + n * (1.0 - momentum)).collect(), old.shape())?
            };
            if let Some(v) = node.input(i) {
                self.updates.borrow_mut().push((v, kept));
            }
        }
        Ok(y)
    }

    /// A value for reading; `last` drops the environment's reference to it.
    pub(crate) fn read(&self, v: ValueId, last: bool) -> Result<Tensor, TrainError> {
        let mut env = self.env.borrow_mut();
        let slot = &mut env[v.0 as usize];
        if let Some(t) = if last { slot.take() } else { slot.clone() } {
            return Ok(t);
        }
        drop(env);
        self.constant(v)
    }

    pub(crate) fn constant(&self, v: ValueId) -> Result<Tensor, TrainError> {
        if let Some(t) = self.constants.borrow().get(&v) {
            return Ok(t.clone());
        }
        let value = self.model.value(v)?;
        let own = || value.constant.as_ref().map(|c| &c.tensor);
        let Some(master) = self.overrides.constants.get(&v).or_else(own) else {
            return Err(TrainError::Value { value: value.name.clone(), what: "is read before it is made".into() });
        };
        let mut t = self.annotate(v, master.clone(), &value.name)?;
        if let Some(mask) = self.model.annotations.mask(v).filter(|_| self.overrides.dense_gradients && self.mode.simulate) {
            t = let_through(master, mask, t).map_err(|e| TrainError::Value { value: value.name.clone(), what: e.to_string() })?;
        }
        self.constants.borrow_mut().insert(v, t.clone());
        Ok(t)
    }

    fn write(&self, v: ValueId, t: Tensor, name: &str) -> Result<(), TrainError> {
        if let Some(observe) = self.observe.borrow_mut().as_deref_mut() {
            observe(v, &t);
        }
        let t = match self.encoded(v, name, &t, Activation::None).transpose()? {
            Some(encoded) => self.partly_encoded(v, name, encoded, &|| Ok(t.clone()))?,
            None => t,
        };
        self.env.borrow_mut()[v.0 as usize] = Some(t);
        Ok(())
    }

    /// An encoded activation with some elements, drawn at random, as they were before the encoding: see [`Overrides::unencoded`].
    fn partly_encoded(
        &self,
        v: ValueId,
        name: &str,
        encoded: Tensor,
        plain: &dyn Fn() -> tensor::Result<Tensor>,
    ) -> Result<Tensor, TrainError> {
        let share = self.overrides.unencoded;
        if share <= 0.0 || self.model.annotations.encoding(v).is_none() {
            return Ok(encoded);
        }
        let seed = tensor::random::derive(self.mode.seed ^ UNENCODED, u64::from(v.0));
        let mixed = plain().and_then(|plain| plain.mixed(&encoded, share, seed));
        mixed.map_err(|e| TrainError::Value { value: name.to_string(), what: e.to_string() })
    }

    /// A value as its annotation stores it.
    fn annotate(&self, v: ValueId, t: Tensor, name: &str) -> Result<Tensor, TrainError> {
        self.encoded(v, name, &t, Activation::None).unwrap_or(Ok(t))
    }

    /// An activation of a value as the value's annotation stores it, with tracked parameters if given; `None` if annotations are
    /// ignored or there is none.
    fn encoded(&self, v: ValueId, name: &str, x: &Tensor, activation: Activation) -> Option<Result<Tensor, TrainError>> {
        let annotation = self.model.annotations.get(v).filter(|_| self.mode.simulate)?;
        let tracked = self.overrides.encodings.iter().filter(|((id, _), _)| *id == v).map(|((_, p), t)| (p.clone(), t.clone()));
        let mut tracked = tracked.peekable();
        let parameters = tracked.peek().is_some().then(|| {
            let mut own = annotation.encoding.as_ref().map(|e| e.parameters.clone()).unwrap_or_default();
            own.extend(tracked);
            own
        });
        let simulate = || self.codecs.simulate(v, x, activation, annotation, parameters.as_ref());
        let simulated = tensor::profile::section(|| "simulation forward".into(), simulate);
        Some(simulated.map_err(|e| TrainError::Value { value: name.to_string(), what: e.to_string() }))
    }

    fn name(&self, node: &Node, source: OpError) -> TrainError {
        TrainError::Node { node: node.label(&self.model.values), op_type: node.op_type.clone(), source }
    }
}

/// A masked value to which the masked elements of its master are added and subtracted again: the value stays the same, and its
/// gradient reaches them.
fn let_through(master: &Tensor, mask: &Tensor, masked: Tensor) -> Result<Tensor, TensorError> {
    let dead = Tensor::where_(mask, &Tensor::scalar(0f32).cast(master.dtype())?, master)?;
    masked.add(&dead.sub(&dead.detach())?)
}

/// Queries, keys as `[.., d, n]`, values and the bias of the scores.
fn attention(inputs: Vec<Option<Tensor>>, scale: f64) -> Result<Tensor, OpError> {
    let inputs = Inputs::new(inputs);
    let options = tensor::AttentionOptions { scale, keys_transposed: true };
    Ok(inputs.get(0)?.attention(inputs.get(1)?, inputs.get(2)?, inputs.opt(3), options)?)
}

impl RunSubgraph for Run<'_, '_> {
    fn declared(&self, id: ValueId) -> ValueType {
        self.model.values.get(id).map_or(ValueType::Unknown, |v| v.ty.clone())
    }

    fn run_subgraph(&self, graph: &Graph, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, OpError> {
        let inner = |e: TrainError| OpError::Inner(e.to_string());
        let (iterations, nodes) = self.inner.get();
        let ran = (iterations + 1, nodes + graph.nodes.len() as u64);
        self.inner.set(ran);
        if stopped() {
            return Err(OpError::Inner("stopped".to_string()));
        }
        if let Some(what) = self.limits.exceeded(ran.0, ran.1) {
            return Err(OpError::Inner(what));
        }
        if inputs.len() != graph.inputs.len() {
            return Err(TensorError::value(
                "subgraph",
                format!("'{}' takes {} inputs, {} are given", graph.name, graph.inputs.len(), inputs.len()),
            )
            .into());
        }
        for (v, t) in graph.inputs.iter().zip(inputs) {
            self.write(*v, t, &self.model.values[*v].name).map_err(inner)?;
        }
        for (i, node) in graph.nodes.iter().enumerate() {
            let op = operator(self.model, node).map_err(inner)?;
            let inputs =
                node.inputs.iter().map(|v| v.map(|v| self.read(v, false)).transpose()).collect::<Result<Vec<_>, _>>().map_err(inner)?;
            let index = tensor::random::derive(i as u64, node.outputs.iter().flatten().map(|v| u64::from(v.0)).sum());
            let outputs = self.evaluate(op, node, inputs, index).map_err(inner)?;
            self.write_outputs(node, outputs).map_err(inner)?;
        }
        let results = graph.outputs.iter().map(|v| self.read(*v, false)).collect::<Result<Vec<_>, _>>().map_err(inner);
        let mut env = self.env.borrow_mut();
        for v in graph.nodes.iter().flat_map(|n| n.outputs.iter().flatten()).chain(&graph.inputs) {
            env[v.0 as usize] = None;
        }
        results
    }
}
