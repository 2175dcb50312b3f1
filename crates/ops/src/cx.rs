//! The environment of a node's evaluation.
use crate::{OpError, Sums};
use graph::{Graph, Node, ValueId, ValueType};
use std::cell::RefCell;
use tensor::{Tensor, TensorError};

/// Runs a subgraph of the node that is being evaluated (If, Loop, Scan), eagerly, with the outer scope visible.
pub trait RunSubgraph {
    /// `inputs` are the subgraph's formal inputs in order; the results are its outputs in order.
    ///
    /// # Errors
    /// Whatever a node inside reports, named.
    fn run_subgraph(&self, graph: &Graph, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, OpError>;

    /// Declared type of a value: the shape of the output of a loop without iterations.
    fn declared(&self, _id: ValueId) -> ValueType {
        ValueType::Unknown
    }
}

/// The environment of one evaluation.
pub struct EvalCx<'a> {
    /// The node to evaluate.
    pub node: &'a Node,
    /// Version of the node's operator set that the model imports.
    pub opset: i64,
    /// Training mode: batch statistics in BatchNormalization, dropping in Dropout.
    pub training: bool,
    /// Seed of this node's random numbers in this step; equal seeds give equal draws.
    pub seed: u64,
    /// How sums of 8-bit products are computed.
    pub sums: Sums,
    /// Runs subgraphs.
    pub subgraphs: &'a dyn RunSubgraph,
    /// New values of inputs that are statistics (running mean and variance), by input index: the executor writes them
    /// back to the model after the step.
    pub updates: RefCell<Vec<(usize, Tensor)>>,
}

impl<'a> EvalCx<'a> {
    /// The same with another version of the operator set, for an operator that is evaluated as another one.
    pub(crate) fn at_opset(&self, opset: i64) -> EvalCx<'a> {
        let EvalCx { node, training, seed, sums, subgraphs, .. } = *self;
        EvalCx { node, opset, training, seed, sums, subgraphs, updates: RefCell::default() }
    }
}

/// The inputs of one evaluation. Taking one out lets an operation work in place, if there is no other reference.
pub struct Inputs(Vec<Option<Tensor>>);

impl Inputs {
    /// Wraps the inputs in the node's order.
    pub fn new(list: Vec<Option<Tensor>>) -> Self {
        Inputs(list)
    }

    /// Number of inputs, omitted ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An input that must be given.
    ///
    /// # Errors
    /// [`TensorError::Value`] if it is omitted.
    pub fn get(&self, i: usize) -> Result<&Tensor, TensorError> {
        self.opt(i).ok_or_else(|| TensorError::value("input", format!("input {i} is missing")))
    }

    /// An optional input.
    pub fn opt(&self, i: usize) -> Option<&Tensor> {
        self.0.get(i).and_then(|t| t.as_ref())
    }

    /// An input that must be given, by value.
    ///
    /// # Errors
    /// [`TensorError::Value`] if it is omitted.
    pub fn take(&mut self, i: usize) -> Result<Tensor, TensorError> {
        self.0.get_mut(i).and_then(Option::take).ok_or_else(|| TensorError::value("input", format!("input {i} is missing")))
    }

    /// All inputs, by value.
    pub fn into_vec(self) -> Vec<Option<Tensor>> {
        self.0
    }
}
