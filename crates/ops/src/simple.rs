//! An operator as a record of functions: for the many that differ in their formula alone.
use crate::{EvalCx, Inputs, MacsCx, OpError, Operator, Parts, QuantRule, Role, ShapeCx};
use graph::{Model, Node, ValueId, ValueType};
use tensor::Tensor;

pub(crate) type Eval = fn(&EvalCx, Inputs) -> Result<Vec<Tensor>, OpError>;
pub(crate) type Infer = fn(&ShapeCx) -> Result<Vec<ValueType>, OpError>;
pub(crate) type Constants<'a> = &'a mut dyn FnMut(&str, Tensor) -> ValueId;
/// What an upgrade sees besides the node: the version it comes to, and the declared types of its inputs.
pub(crate) type Upgrade = fn(&mut Node, i64, &[ValueType], Constants) -> Result<(), OpError>;
/// What takes a node's place in a version, seen from it, the version and the types of its inputs.
pub(crate) type Rewrite = fn(&Node, i64, &[ValueType], &mut Parts) -> Result<Option<Vec<Node>>, OpError>;

/// What a rule of quantization looks at.
enum Rule {
    /// The node.
    Own(fn(&Node) -> QuantRule),
    /// The node and the model around it.
    Within(fn(&Node, &Model) -> QuantRule),
}

/// One operator, of ONNX's own domain unless told otherwise.
pub(crate) struct Simple {
    op_type: &'static str,
    domain: &'static str,
    summary: &'static str,
    versions: &'static [i64],
    eval: Eval,
    infer: Infer,
    role: fn(&Node, usize) -> Role,
    quantization: Rule,
    macs: fn(&MacsCx) -> u64,
    upgrade: Upgrade,
    rewrite: Rewrite,
    all_on_grid: bool,
    probabilities: bool,
}

impl Simple {
    /// An operator whose first input is data and whose other inputs are constants, that stays float and counts no MACs.
    pub(crate) const fn new(op_type: &'static str, summary: &'static str, versions: &'static [i64], eval: Eval, infer: Infer) -> Self {
        Simple {
            op_type,
            domain: "",
            summary,
            versions,
            eval,
            infer,
            role: |_, i| if i == 0 { Role::Data } else { Role::Constant },
            quantization: Rule::Own(|_| QuantRule::Float("no integer kernel is expected for it")),
            macs: |_| 0,
            upgrade: |_, _, _, _| Ok(()),
            rewrite: |_, _, _, _| Ok(None),
            all_on_grid: false,
            probabilities: false,
        }
    }

    pub(crate) const fn domain(mut self, domain: &'static str) -> Self {
        self.domain = domain;
        self
    }

    pub(crate) const fn role(mut self, role: fn(&Node, usize) -> Role) -> Self {
        self.role = role;
        self
    }

    pub(crate) const fn quantization(mut self, rule: fn(&Node) -> QuantRule) -> Self {
        self.quantization = Rule::Own(rule);
        self
    }

    /// A rule that depends on more than the node.
    pub(crate) const fn quantization_within(mut self, rule: fn(&Node, &Model) -> QuantRule) -> Self {
        self.quantization = Rule::Within(rule);
        self
    }

    /// Moves or selects elements, so that quantized data keeps its grid.
    pub(crate) const fn same_grid(self) -> Self {
        self.quantization(|_| QuantRule::SameGrid)
    }

    /// The same for an operator whose outputs are all made of its first input's elements.
    pub(crate) const fn pieces_on_grid(mut self) -> Self {
        self.all_on_grid = true;
        self.same_grid()
    }

    /// Turns logits into probabilities or their logarithms.
    pub(crate) const fn probabilities(mut self) -> Self {
        self.probabilities = true;
        self
    }

    /// Runs on integers with all its inputs as data.
    pub(crate) const fn integer(self) -> Self {
        self.quantization(|node| QuantRule::Integer { data: (0..node.inputs.len()).collect(), weight: None })
    }

    pub(crate) const fn macs(mut self, macs: fn(&MacsCx) -> u64) -> Self {
        self.macs = macs;
        self
    }

    pub(crate) const fn upgrade(mut self, upgrade: Upgrade) -> Self {
        self.upgrade = upgrade;
        self
    }

    pub(crate) const fn rewrite(mut self, rewrite: Rewrite) -> Self {
        self.rewrite = rewrite;
        self
    }
}

impl Operator for Simple {
    fn op_type(&self) -> &'static str {
        self.op_type
    }
    fn domain(&self) -> &'static str {
        self.domain
    }
    fn summary(&self) -> &'static str {
        self.summary
    }
    fn versions(&self) -> &'static [i64] {
        self.versions
    }
    fn role(&self, node: &Node, input: usize) -> Role {
        (self.role)(node, input)
    }
    fn eval(&self, cx: &EvalCx, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        (self.eval)(cx, inputs)
    }
    fn infer(&self, cx: &ShapeCx) -> Result<Vec<ValueType>, OpError> {
        (self.infer)(cx)
    }
    fn macs(&self, cx: &MacsCx) -> u64 {
        (self.macs)(cx)
    }
    fn quantization(&self, node: &Node, model: &Model) -> QuantRule {
        match self.quantization {
            Rule::Own(rule) => rule(node),
            Rule::Within(rule) => rule(node, model),
        }
    }
    fn upgrade(&self, node: &mut Node, from: i64, to: i64, constants: Constants) -> Result<(), OpError> {
        self.upgrade_typed(node, &[], from, to, constants)
    }
    fn upgrade_typed(&self, node: &mut Node, types: &[ValueType], _from: i64, to: i64, constants: Constants) -> Result<(), OpError> {
        (self.upgrade)(node, to, types, constants)
    }
    fn rewrite(&self, node: &Node, types: &[ValueType], to: i64, parts: &mut Parts) -> Result<Option<Vec<Node>>, OpError> {
        (self.rewrite)(node, to, types, parts)
    }
    fn gives_probabilities(&self) -> bool {
        self.probabilities
    }
    fn outputs_on_grid(&self, node: &Node) -> usize {
        if self.all_on_grid { node.outputs.len() } else { 1 }
    }
}

/// The one output of an operator.
pub(crate) fn one(t: Tensor) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![t])
}

/// Turns an integer-list attribute into an input at position `at`, as newer versions of many operators have it.
pub(crate) fn attribute_to_input(node: &mut Node, attribute: &str, at: usize, constants: Constants) -> Result<(), OpError> {
    let Some(values) = node.ints(attribute)? else { return Ok(()) };
    node.attributes.remove(attribute);
    set_input(node, at, constants(attribute, Tensor::vector(values)));
    Ok(())
}

/// Sets an input, with omitted ones before it where the node has fewer.
pub(crate) fn set_input(node: &mut Node, at: usize, value: ValueId) {
    if node.inputs.len() <= at {
        node.inputs.resize(at + 1, None);
    }
    node.inputs[at] = Some(value);
}
