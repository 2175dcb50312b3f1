//! The trait that answers everything about an operator.
use crate::{EvalCx, Inputs, IntegerForm, OpError, Parts};
use graph::{Dim, Model, Node, ValueType};
use tensor::Tensor;

/// What an input is for. What trains follows from the role alone: a constant in an Add or Mul is [`Role::Constant`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Activations.
    Data,
    /// A weight: trains, decays, may be masked and encoded.
    Weight,
    /// A bias: trains, no weight decay.
    Bias,
    /// Scale (gamma) of a normalization: trains, no weight decay.
    NormScale,
    /// Shift (beta) of a normalization: trains, no weight decay.
    NormBias,
    /// A running statistic: updated in training, not by the optimizer.
    Statistic,
    /// Shapes, axes, indices, scalars: never trains.
    Constant,
}

/// Where an operator's weight is and along which axis its output channels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightRule {
    /// Input index of the weight.
    pub input: usize,
    /// Axis of output channels (`None`: per tensor only).
    pub axis: Option<usize>,
    /// Input index of the bias, if the operator has one.
    pub bias: Option<usize>,
}

/// What an operator does with the numbers of its data, whatever the runtime. Which of these run on integers, and in which form, is for
/// a target to say (crate `target`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Computes new numbers of its data, and of a weight where it has one.
    Computes {
        /// Inputs with data.
        data: Vec<usize>,
        /// The weight of a layer.
        weight: Option<WeightRule>,
    },
    /// Moves or selects elements: what it makes lies on the grid of its first input.
    Moves,
    /// Holds each element within bounds (Relu, Clip): a grid that ends at the bounds does the same.
    Clips,
    /// Scales and shifts each channel by stored statistics: a part of the layer before it, where there is one.
    Normalizes,
    /// Computes on integers, or reads a weight of few bits, by its definition; for this reason it is not quantized.
    AlreadyQuantized(&'static str),
    /// Is not quantized in any runtime, for this reason.
    NotQuantizable(&'static str),
}

/// What shape inference sees: declared types of the inputs and elements of those that are known.
pub struct ShapeCx<'a> {
    /// The node whose output shapes are inferred.
    pub node: &'a Node,
    /// Version of the operator set.
    pub opset: i64,
    /// Types of the inputs.
    pub types: Vec<ValueType>,
    /// Known elements of the inputs (constants, folded shape arithmetic).
    pub values: Vec<Option<Tensor>>,
}

impl ShapeCx<'_> {
    /// Shape of an input, if its rank is known.
    pub fn shape(&self, i: usize) -> Option<&[Dim]> {
        match self.types.get(i)? {
            ValueType::Tensor { shape: Some(s), .. } => Some(s),
            _ => None,
        }
    }

    /// Element type of an input, if known.
    pub fn dtype(&self, i: usize) -> Option<tensor::DType> {
        match self.types.get(i)? {
            ValueType::Tensor { dtype, .. } => Some(*dtype),
            _ => None,
        }
    }
}

/// What counting sees: the shapes of one real run.
pub struct MacsCx<'a> {
    /// The node whose MACs are counted.
    pub node: &'a Node,
    /// Shapes of the inputs.
    pub inputs: Vec<Option<Vec<usize>>>,
    /// Shapes of the outputs.
    pub outputs: Vec<Option<Vec<usize>>>,
}

/// Everything about one ONNX operator.
pub trait Operator: Sync {
    /// ONNX's name.
    fn op_type(&self) -> &'static str;

    /// Domain; empty is ONNX's own.
    fn domain(&self) -> &'static str {
        ""
    }

    /// One sentence for `espalier explain`.
    fn summary(&self) -> &'static str;

    /// Opset versions at which ONNX changed the operator, oldest first. A model that imports an opset newer than any
    /// we know is refused before this is asked.
    fn versions(&self) -> &'static [i64];

    /// What input `i` is for.
    fn role(&self, _node: &Node, _input: usize) -> Role {
        Role::Data
    }

    /// Evaluates the node. Differentiable where it is written in differentiable tensor operations.
    ///
    /// # Errors
    /// What the tensor operations report; [`OpError::Unsupported`] for what is not implemented.
    fn eval(&self, cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError>;

    /// Types of the outputs as far as they follow from the inputs' types.
    ///
    /// # Errors
    /// If the inputs contradict the operator's schema.
    fn infer(&self, cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
        Ok(vec![ValueType::Unknown; cx.node.outputs.len()])
    }

    /// Multiply-accumulate operations of one evaluation.
    fn macs(&self, _cx: &MacsCx) -> u64 {
        0
    }

    /// What the node does with numbers. What that depends on beside the node (a constant's value or rank, who reads the result) is
    /// looked up in the model. Unless told otherwise it computes, of the inputs that are data.
    fn effect(&self, node: &Node, _model: &Model) -> Effect {
        Effect::Computes { data: (0..node.inputs.len()).filter(|i| self.role(node, *i) == Role::Data).collect(), weight: None }
    }

    /// Rewrites the node from one version of the operator to the next one in [`Operator::versions`] without changing
    /// its meaning, or refuses by name. `constants` makes an initializer for an attribute that became an input.
    ///
    /// # Errors
    /// [`OpError::Unsupported`] where the meaning cannot be expressed in the newer version.
    fn upgrade(
        &self,
        _node: &mut Node,
        _from: i64,
        _to: i64,
        _constants: &mut dyn FnMut(&str, Tensor) -> graph::ValueId,
    ) -> Result<(), OpError> {
        Ok(())
    }

    /// The same for upgrades that depend on the declared types of the inputs (the rank, mostly). This is what is called;
    /// an operator that needs no types implements [`Operator::upgrade`] alone.
    ///
    /// # Errors
    /// As [`Operator::upgrade`].
    fn upgrade_typed(
        &self,
        node: &mut Node,
        _types: &[ValueType],
        from: i64,
        to: i64,
        constants: &mut dyn FnMut(&str, Tensor) -> graph::ValueId,
    ) -> Result<(), OpError> {
        self.upgrade(node, from, to, constants)
    }

    /// Nodes that mean in version `to` what the node meant before, where no single one does: asked before
    /// [`Operator::upgrade_typed`]. They are written in version `to`.
    ///
    /// # Errors
    /// As [`Operator::upgrade`].
    fn rewrite(&self, _node: &Node, _types: &[ValueType], _to: i64, _parts: &mut Parts) -> Result<Option<Vec<Node>>, OpError> {
        Ok(None)
    }

    /// True if it turns logits into probabilities or their logarithms: a loss on logits reads its input instead of its output.
    fn gives_probabilities(&self) -> bool {
        false
    }

    /// How many of the first outputs of a [`Effect::Moves`] operator lie on its input's grid. Others (a mask, indices)
    /// are no elements of it.
    fn outputs_on_grid(&self, _node: &Node) -> usize {
        1
    }

    /// For an operator between two grids (QLinearConv): the float operator that it stands for, and how its inputs follow from that
    /// one's.
    fn integer_form(&self) -> Option<&'static IntegerForm> {
        None
    }
}
