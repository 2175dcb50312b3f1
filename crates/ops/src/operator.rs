//! The trait that describes an operator.
use crate::{Couples, CouplesCx, CutCx, EvalCx, Inputs, IntegerForm, OpError, Parts};
use graph::{Dim, Model, Node, ValueType};
use tensor::Tensor;

/// The role of an input. Whether it is trained follows from the role alone: a constant in an Add or Mul is [`Role::Constant`].
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
    /// Shapes, axes, indices, scalars: never trained.
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

/// What an operator does with the numbers of its data, independent of the runtime. Which operators run on integers, and in which
/// form, is defined by a target (crate `target`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Computes new numbers from its data, and from a weight if it has one.
    Computes {
        /// Inputs with data.
        data: Vec<usize>,
        /// The weight of a layer.
        weight: Option<WeightRule>,
    },
    /// Moves or selects elements: its output has the grid of its first input.
    Moves,
    /// Clips (Relu, Clip): a grid that ends at the bounds has the same effect.
    Clips,
    /// Scales and shifts each channel by stored statistics: it can be folded into the layer before it, if there is one.
    Normalizes,
    /// Computes on integers, or reads a weight of few bits, by its definition; it is not quantized, for this reason.
    AlreadyQuantized(&'static str),
    /// Not quantized in any runtime, for this reason.
    NotQuantizable(&'static str),
}

/// Input of shape inference: declared types of the inputs, and elements of those that are known.
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

/// Input of counting MACs: the shapes of one real run.
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

    /// Opset versions in which ONNX changed the operator, oldest first. A model that imports an opset newer than any known one is
    /// refused earlier.
    fn versions(&self) -> &'static [i64];

    /// The role of input `i`.
    fn role(&self, _node: &Node, _input: usize) -> Role {
        Role::Data
    }

    /// The axis of a weight input ([`Role::Weight`]) along which each index belongs to one result, or holds one looked-up row: a scale
    /// of its own for each index costs least there. For the weight of a layer [`WeightRule::axis`] says it.
    fn weight_axis(&self, _node: &Node, _input: usize) -> Option<usize> {
        None
    }

    /// Evaluates the node. Differentiable where it is written in differentiable tensor operations.
    ///
    /// # Errors
    /// Errors of the tensor operations; [`OpError::Unsupported`] for what is not implemented.
    fn eval(&self, cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError>;

    /// Types of the outputs, as far as they follow from the inputs' types.
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

    /// What the node does with numbers. If that depends on more than the node (a constant's value or rank, the readers of the
    /// result), it is looked up in the model. By default the node computes from the inputs that are data.
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

    /// As [`Operator::upgrade`], for upgrades that depend on the declared types of the inputs (mostly the rank). Callers use this
    /// method; an operator that needs no types implements only [`Operator::upgrade`].
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

    /// Several nodes of version `to` that replace the node, if no single node can. Asked before [`Operator::upgrade_typed`].
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

    /// How many of the first outputs of an [`Effect::Moves`] operator have its input's grid. Further outputs (a mask, indices) do
    /// not.
    fn outputs_on_grid(&self, _node: &Node) -> usize {
        1
    }

    /// For an integer operator (QLinearConv): the float operator that it stands for, and how its inputs follow from that
    /// operator's.
    fn integer_form(&self) -> Option<&'static IntegerForm> {
        None
    }

    /// Which indices of its inputs' and outputs' axes are removed together. By default no axis may lose an index.
    ///
    /// # Errors
    /// If an attribute has the wrong type.
    fn couples(&self, _cx: &CouplesCx, couples: &mut Couples) -> Result<(), OpError> {
        couples.reason = Some("it does not say how its axes go together".into());
        Ok(())
    }

    /// Adapts attributes and shape inputs to indices that are removed from the node's inputs and outputs. `constants` makes an
    /// initializer. By default nothing depends on sizes.
    ///
    /// # Errors
    /// [`OpError::Unsupported`] where the node cannot express it; [`Operator::couples`] should have said so.
    fn cut(&self, _cx: &CutCx, _node: &mut Node, _constants: &mut dyn FnMut(&str, Tensor) -> graph::ValueId) -> Result<(), OpError> {
        Ok(())
    }
}
