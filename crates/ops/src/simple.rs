//! An operator as a record of functions, for the many operators that differ only in their formula.
use crate::couples::{CouplesRule, CutRule};
use crate::{Couples, CouplesCx, CutCx, Effect, EvalCx, Inputs, IntegerForm, MacsCx, OpError, Operator, Parts, Role, ShapeCx};
use graph::{Model, Node, ValueId, ValueType};
use tensor::Tensor;

pub(crate) type Eval = fn(&EvalCx, Inputs) -> Result<Vec<Tensor>, OpError>;
pub(crate) type Infer = fn(&ShapeCx) -> Result<Vec<ValueType>, OpError>;
pub(crate) type Constants<'a> = &'a mut dyn FnMut(&str, Tensor) -> ValueId;
/// The context of an upgrade: the target version, and the declared types of its inputs.
pub(crate) type Upgrade = fn(&mut Node, i64, &[ValueType], Constants) -> Result<(), OpError>;
/// A function that returns the replacement of a node in a version, from the node, the version and the types of its inputs.
pub(crate) type Rewrite = fn(&Node, i64, &[ValueType], &mut Parts) -> Result<Option<Vec<Node>>, OpError>;

/// What an effect depends on.
enum EffectRule {
    /// Decided by the roles of the inputs.
    ByRoles,
    /// Decided by a function of the node.
    Own(fn(&Node) -> Effect),
    /// Decided by the node and the model around it.
    Within(fn(&Node, &Model) -> Effect),
}

/// One operator; its domain is ONNX's own by default.
pub(crate) struct Simple {
    op_type: &'static str,
    domain: &'static str,
    summary: &'static str,
    versions: &'static [i64],
    eval: Eval,
    infer: Infer,
    role: fn(&Node, usize) -> Role,
    weight_axis: fn(&Node, usize) -> Option<usize>,
    effect: EffectRule,
    macs: fn(&MacsCx) -> u64,
    upgrade: Upgrade,
    rewrite: Rewrite,
    all_on_grid: bool,
    probabilities: bool,
    integer_form: Option<&'static IntegerForm>,
    couples: Option<CouplesRule>,
    cut: CutRule,
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
            weight_axis: |_, _| None,
            effect: EffectRule::ByRoles,
            macs: |_| 0,
            upgrade: |_, _, _, _| Ok(()),
            rewrite: |_, _, _, _| Ok(None),
            all_on_grid: false,
            probabilities: false,
            integer_form: None,
            couples: None,
            cut: |_, _, _| Ok(()),
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

    /// Sets the axis of each weight input along which an index belongs to one result.
    pub(crate) const fn weight_axis(mut self, axis: fn(&Node, usize) -> Option<usize>) -> Self {
        self.weight_axis = axis;
        self
    }

    pub(crate) const fn effect(mut self, rule: fn(&Node) -> Effect) -> Self {
        self.effect = EffectRule::Own(rule);
        self
    }

    /// Sets an effect that depends on more than the node.
    pub(crate) const fn effect_within(mut self, rule: fn(&Node, &Model) -> Effect) -> Self {
        self.effect = EffectRule::Within(rule);
        self
    }

    /// The operator moves or selects elements, so that quantized data keep their grid.
    pub(crate) const fn moves(self) -> Self {
        self.effect(|_| Effect::Moves)
    }

    /// The same for an operator all of whose outputs consist of elements of its first input.
    pub(crate) const fn pieces_on_grid(mut self) -> Self {
        self.all_on_grid = true;
        self.moves()
    }

    /// The operator turns logits into probabilities or their logarithms.
    pub(crate) const fn probabilities(mut self) -> Self {
        self.probabilities = true;
        self
    }

    /// The operator computes, with all its inputs as data.
    pub(crate) const fn all_data(self) -> Self {
        self.effect(|node| Effect::Computes { data: (0..node.inputs.len()).collect(), weight: None })
    }

    pub(crate) const fn macs(mut self, macs: fn(&MacsCx) -> u64) -> Self {
        self.macs = macs;
        self
    }

    pub(crate) const fn upgrade(mut self, upgrade: Upgrade) -> Self {
        self.upgrade = upgrade;
        self
    }

    /// An integer operator that stands for a float operator.
    pub(crate) const fn integer_form(mut self, form: &'static IntegerForm) -> Self {
        self.integer_form = Some(form);
        self
    }

    /// Sets how the axes go together when channels are removed.
    pub(crate) const fn couples(mut self, rule: CouplesRule) -> Self {
        self.couples = Some(rule);
        self
    }

    /// Sets how attributes and shape inputs follow removed channels.
    pub(crate) const fn cut(mut self, rule: CutRule) -> Self {
        self.cut = rule;
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
    fn weight_axis(&self, node: &Node, input: usize) -> Option<usize> {
        (self.weight_axis)(node, input)
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
    fn effect(&self, node: &Node, model: &Model) -> Effect {
        match self.effect {
            EffectRule::ByRoles => {
                Effect::Computes { data: (0..node.inputs.len()).filter(|i| self.role(node, *i) == Role::Data).collect(), weight: None }
            }
            EffectRule::Own(rule) => rule(node),
            EffectRule::Within(rule) => rule(node, model),
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
    fn integer_form(&self) -> Option<&'static IntegerForm> {
        self.integer_form
    }
    fn couples(&self, cx: &CouplesCx, couples: &mut Couples) -> Result<(), OpError> {
        match self.couples {
            Some(rule) => rule(cx, couples),
            None => {
                couples.reason = Some("it does not say how its axes go together".into());
                Ok(())
            }
        }
    }
    fn cut(&self, cx: &CutCx, node: &mut Node, constants: Constants) -> Result<(), OpError> {
        (self.cut)(cx, node, constants)
    }
}

/// The one output of an operator.
pub(crate) fn one(t: Tensor) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![t])
}

/// Turns an integer-list attribute into an input at position `at`, as in newer versions of many operators.
pub(crate) fn attribute_to_input(node: &mut Node, attribute: &str, at: usize, constants: Constants) -> Result<(), OpError> {
    let Some(values) = node.ints(attribute)? else { return Ok(()) };
    node.attributes.remove(attribute);
    set_input(node, at, constants(attribute, Tensor::vector(values)));
    Ok(())
}

/// Sets an input, with omitted inputs before it if the node has fewer.
pub(crate) fn set_input(node: &mut Node, at: usize, value: ValueId) {
    if node.inputs.len() <= at {
        node.inputs.resize(at + 1, None);
    }
    node.inputs[at] = Some(value);
}
