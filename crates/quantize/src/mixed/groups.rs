//! What a search over widths chooses for: groups of weights and activations that must have one width, and what a width costs.
use crate::calibrate::fit;
use crate::error::named;
use crate::plan::StoredConstant;
use crate::{LayerPart, Observations, QuantPlan, QuantizeSettings, Result, Rule, plan};
use encodings::{Decode, Encodings};
use graph::{Model, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use technique::{Choice, Fault};
use tensor::Tensor;

/// Bits of a value that stays float.
const FLOAT_BITS: u64 = 32;

/// The widths of activations in a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Widths {
    /// An activation that layers with a weight read has the width of their weights; others are stored as the settings say.
    #[default]
    AsWeights,
    /// All activations are stored as the settings say; only the widths of weights are searched.
    AsPlanned,
}

/// The widths of activations in a search, and the least of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationWidths {
    /// Which activations have the width of weights.
    pub widths: Widths,
    /// Activations that have the width of weights have at least so many bits.
    pub least: u32,
}

impl Default for ActivationWidths {
    fn default() -> Self {
        ActivationWidths { widths: Widths::default(), least: 2 }
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Bits of all weights.
    Bits,
    /// Bytes of all weights as a file stores them, with their scales and tables.
    Bytes,
    /// Multiply-accumulates for one sample, each times the bits of its weight and of its activation. What a layer reads in float
    /// counts 32 bits.
    BitOps,
}

/// Weights and activations that must have one width: layers that share a weight, and layers that read the same activation if that has
/// the width of the weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Names of the layers, in the order of the graph.
    pub nodes: Vec<String>,
    /// Their weights, each once.
    pub weights: Vec<ValueId>,
    /// Names of the nodes whose rules decide on the activations.
    pub deciders: Vec<String>,
    /// The activations.
    pub activations: Vec<ValueId>,
    /// Elements of the weights.
    pub elements: u64,
    /// Multiply-accumulates of the layers for one sample.
    pub macs: u64,
}

/// The groups of a model, with what is stored as the rules of the settings say.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    /// The groups, in the order of the graph.
    pub groups: Vec<Group>,
    /// How each weight is stored by the settings.
    encodings: BTreeMap<ValueId, Choice<Encodings>>,
    /// Elements of each weight.
    elements: BTreeMap<ValueId, u64>,
    /// The layers' multiply-accumulates with their weights and the activations that they read.
    products: Vec<(u64, Stored, Stored)>,
    /// Rules for activations that only layers with a rule of their own read: they have the width of these layers.
    settled: Vec<Rule>,
    /// Least bits of the groups' activations.
    least: u32,
}

/// How wide a value is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    /// As wide as is chosen for this group.
    In(usize),
    /// So many bits, whatever is chosen.
    Bits(u64),
}

impl Layers {
    /// Lists what can be chosen. A weight or activation on which a rule of the settings decides is stored as the rule says. `macs` has
    /// the multiply-accumulates for one sample, by node.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn of(model: &Model, settings: &QuantizeSettings, activations: ActivationWidths, macs: &BTreeMap<String, u64>) -> Result<Layers> {
        let plan = plan(model, settings)?;
        let mut sets = Sets::default();
        for part in plan.layers.iter().filter(|p| !p.pinned) {
            let weights = part.weights.iter().map(|id| Item::Weight(*id));
            for item in weights.chain(free_deciders(&plan, part, activations).into_iter().map(Item::Decider)) {
                let (own, named) = (sets.find(item), sets.find(Item::Node(part.node.clone())));
                sets.join(own, named);
            }
        }
        let mut layers = Layers {
            groups: vec![],
            encodings: BTreeMap::new(),
            elements: BTreeMap::new(),
            products: vec![],
            settled: vec![],
            least: activations.least,
        };
        let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
        let mut group_of: BTreeMap<ValueId, usize> = BTreeMap::new();
        for part in &plan.layers {
            let mut seen = BTreeSet::new();
            for id in &part.weights {
                let Some(StoredConstant::Weight { encoding, .. }) = plan.constants.get(id) else { continue };
                layers.encodings.insert(*id, encoding.clone());
                let elements = model.values.tensor(*id).map_or(0, Tensor::len) as u64;
                layers.elements.insert(*id, elements);
                if part.pinned && !sets.knows(&Item::Weight(*id)) {
                    continue;
                }
                let root = sets.find(Item::Weight(*id));
                let number = *numbers.entry(root).or_insert_with(|| {
                    layers.groups.push(Group::default());
                    layers.groups.len() - 1
                });
                let group = &mut layers.groups[number];
                if seen.insert(number) {
                    group.nodes.push(part.node.clone());
                    group.macs += macs.get(&part.node).copied().unwrap_or(0);
                }
                if group_of.insert(*id, number).is_none() {
                    group.weights.push(*id);
                    group.elements += elements;
                }
            }
        }
        for (value, decider) in &plan.deciders {
            let item = Item::Decider(decider.node.clone());
            if let Some(number) = sets.knows(&item).then(|| sets.find(item)).and_then(|root| numbers.get(&root)) {
                let group = &mut layers.groups[*number];
                group.activations.push(*value);
                if !group.deciders.contains(&decider.node) {
                    group.deciders.push(decider.node.clone());
                }
                group_of.insert(*value, *number);
            }
        }
        layers.settle(&plan, activations, &group_of);
        layers.products(&plan, macs, &group_of);
        Ok(layers)
    }

    /// Activations that only layers with rules of their own read have the largest width of these layers.
    fn settle(&mut self, plan: &QuantPlan, activations: ActivationWidths, group_of: &BTreeMap<ValueId, usize>) {
        let mut widths: BTreeMap<String, u32> = BTreeMap::new();
        for part in &plan.layers {
            let Some(bits) = part.weights.iter().filter_map(|id| self.encodings.get(id)).map(|e| e.bits()).max() else { continue };
            let free = part.data.iter().any(|v| group_of.contains_key(v));
            for decider in free_deciders(plan, part, activations).into_iter().filter(|_| !free) {
                let width = widths.entry(decider).or_default();
                *width = (*width).max(bits.clamp(activations.least, 16));
            }
        }
        self.settled = widths.into_iter().map(|(node, bits)| activations_of(&node, bits)).collect();
    }

    fn products(&mut self, plan: &QuantPlan, macs: &BTreeMap<String, u64>, group_of: &BTreeMap<ValueId, usize>) {
        for part in &plan.layers {
            let count = macs.get(&part.node).copied().unwrap_or(0);
            // The weights of a layer are in one group, or in none.
            let weight_bits = part.weights.iter().filter_map(|id| self.encodings.get(id)).map(|e| u64::from(e.bits())).max();
            let group = part.weights.iter().find_map(|id| group_of.get(id));
            let weight = group.map_or(Stored::Bits(weight_bits.unwrap_or(FLOAT_BITS)), |g| Stored::In(*g));
            let planned = |value: &ValueId| {
                let decider = plan.deciders.get(value).map(|d| d.node.as_str());
                let settled = self.settled.iter().find(|r| r.pattern.as_deref() == decider).and_then(|r| r.activations.as_ref()?.stored());
                settled.or(plan.activations.get(value).map(|grid| grid.bits))
            };
            let data = match part.data.first() {
                Some(value) => match group_of.get(value) {
                    Some(group) => Stored::In(*group),
                    None => Stored::Bits(planned(value).map_or(FLOAT_BITS, u64::from)),
                },
                None => Stored::Bits(FLOAT_BITS),
            };
            self.products.push((count, weight, data));
        }
    }

    /// Elements of all weights.
    pub fn elements(&self) -> u64 {
        self.elements.values().sum()
    }

    /// What the groups cost at these widths, and what the weights with a rule of their own cost. For [`Cost::Bytes`] `fitted` has the
    /// grids of every width.
    ///
    /// # Errors
    /// For a weight that cannot be stored.
    pub fn cost(&self, cost: Cost, group: Option<usize>, width: u32, fitted: &Fitted) -> Result<u64> {
        let width = u64::from(width);
        let ours: BTreeSet<ValueId> = match group {
            Some(group) => self.groups[group].weights.iter().copied().collect(),
            None => {
                let chosen: BTreeSet<ValueId> = self.groups.iter().flat_map(|g| g.weights.iter().copied()).collect();
                self.elements.keys().filter(|id| !chosen.contains(id)).copied().collect()
            }
        };
        Ok(match cost {
            Cost::Bits => {
                let bits = |id: &ValueId| if group.is_some() { width } else { self.encodings.get(id).map_or(0, |e| u64::from(e.bits())) };
                ours.iter().map(|id| self.elements[id] * bits(id)).sum()
            }
            Cost::Bytes => {
                let found = fitted.0.get(&(width as u32)).or_else(|| fitted.0.values().next());
                let Some(model) = found else { return Ok(0) };
                ours.iter().map(|id| stored_bytes(model, *id)).sum::<Result<u64>>()?
            }
            Cost::BitOps => {
                let bits = |stored: &Stored, least: u32| match stored {
                    Stored::In(_) => width.max(u64::from(least)),
                    Stored::Bits(bits) => *bits,
                };
                let owner = |(_, weight, data): &(u64, Stored, Stored)| match (weight, data) {
                    (Stored::In(group), _) | (_, Stored::In(group)) => Some(*group),
                    _ => None,
                };
                self.products
                    .iter()
                    .filter(|p| owner(p) == group)
                    .map(|(macs, weight, data)| macs * bits(weight, 0) * bits(data, self.least))
                    .sum()
            }
        })
    }

    /// The rules for a width of each group, in the order of the graph. They go before the settings' own rules, which so decide where
    /// they apply.
    ///
    /// # Errors
    /// [`crate::QuantizeError::Setting`] for a kind of encoding that has no bits to choose, or not so many.
    pub fn rules(&self, widths: &[u32]) -> Result<Vec<Rule>> {
        let mut rules: Vec<Rule> = self.settled.clone();
        let mut at: BTreeMap<String, usize> = rules.iter().enumerate().filter_map(|(i, r)| Some((r.pattern.clone()?, i))).collect();
        for (group, bits) in self.groups.iter().zip(widths) {
            let weight = group.weights.first().and_then(|id| self.encodings.get(id));
            let Some(encoding) = weight.map(|e| with_bits(e, *bits)).transpose()? else { continue };
            let new =
                group.nodes.iter().map(|node| Rule { pattern: Some(node.clone()), weights: Some(encoding.clone()), ..Rule::default() });
            for rule in new.chain(group.deciders.iter().map(|node| activations_of(node, (*bits).max(self.least)))) {
                let place = *at.entry(rule.pattern.clone().unwrap_or_default()).or_insert(rules.len());
                match rules.get_mut(place) {
                    Some(known) => {
                        known.weights = rule.weights.or(known.weights.take());
                        known.activations = rule.activations.or(known.activations.take());
                    }
                    None => rules.push(rule),
                }
            }
        }
        Ok(rules)
    }

    /// The settings with a width for each group.
    ///
    /// # Errors
    /// As [`Layers::rules`].
    pub fn settings(&self, settings: &QuantizeSettings, widths: &[u32]) -> Result<QuantizeSettings> {
        let rules = self.rules(widths)?.into_iter().chain(settings.rules.iter().cloned()).collect();
        Ok(QuantizeSettings { rules, ..settings.clone() })
    }
}

/// A model with the grids of every width, by the width; each group has it in one.
#[derive(Clone, Debug, Default)]
pub struct Fitted(pub BTreeMap<u32, Model>);

/// Fits the grids of each width to a prepared model, all groups at that width.
///
/// # Errors
/// As [`Layers::rules`] and [`fit`].
pub fn fitted(model: &Model, settings: &QuantizeSettings, layers: &Layers, widths: &[u32], seen: &Observations) -> Result<Fitted> {
    let mut out = Fitted::default();
    for width in widths {
        let mut at_width = model.clone();
        fit(&mut at_width, &layers.settings(settings, &vec![*width; layers.groups.len()])?, seen)?;
        out.0.insert(*width, at_width);
    }
    Ok(out)
}

/// Bytes of an encoded weight as a file stores it, with its scales and tables.
fn stored_bytes(model: &Model, id: ValueId) -> Result<u64> {
    let (Some(tensor), Some(encoding)) = (model.values.tensor(id), model.annotations.encoding(id)) else { return Ok(0) };
    let stored = encodings::store(tensor, model.annotations.mask(id), encoding).map_err(named(&model.values[id].name))?;
    let bytes = |t: &Tensor| (t.len() * t.dtype().bits()).div_ceil(8) as u64;
    Ok(match &stored.decode {
        Decode::Affine { scale, zero_point, .. } => bytes(&stored.data) + bytes(scale) + bytes(zero_point),
        Decode::Table { table, bits, scale, .. } => {
            (stored.data.len() * *bits as usize).div_ceil(8) as u64 + bytes(table) + scale.as_ref().map_or(0, bytes)
        }
    })
}

/// An encoding with another number of bits.
///
/// # Errors
/// A [`Fault`] for a kind of encoding that has no bits to choose, or not so many.
pub fn with_bits(encoding: &Choice<Encodings>, bits: u32) -> std::result::Result<Choice<Encodings>, Fault> {
    let mut settings = encoding.settings().clone();
    settings.insert("bits".into(), bits.into());
    Choice::new(encoding.kind(), settings).map_err(|fault| {
        let what = format!("{} weights cannot have {bits} bits: {}", encoding.kind(), fault.what);
        Fault::new("weights", what).hint("search among widths that they can have, or store them in another way")
    })
}

fn activations_of(node: &str, bits: u32) -> Rule {
    let activations = crate::ActivationSettings { bits, ..Default::default() };
    Rule { pattern: Some(node.to_string()), activations: Some(activations), ..Rule::default() }
}

/// The nodes that decide on the activations that a layer reads, where they have the width of the weights and no rule of their own.
fn free_deciders(plan: &QuantPlan, part: &LayerPart, activations: ActivationWidths) -> Vec<String> {
    let free = part.data.iter().filter_map(|v| plan.deciders.get(v)).filter(|d| !d.pinned);
    free.filter(|_| activations.widths == Widths::AsWeights).map(|d| d.node.clone()).collect()
}

/// What may be joined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Weight(ValueId),
    /// Layers of one name: a rule applies to both.
    Node(String),
    Decider(String),
}

/// Disjoint sets.
#[derive(Default)]
struct Sets {
    numbers: BTreeMap<Item, usize>,
    above: Vec<usize>,
}

impl Sets {
    fn knows(&self, item: &Item) -> bool {
        self.numbers.contains_key(item)
    }

    /// The set of an item; one of its own for a new one.
    fn find(&mut self, item: Item) -> usize {
        let next = self.above.len();
        let mut at = *self.numbers.entry(item).or_insert(next);
        if at == next {
            self.above.push(next);
        }
        while self.above[at] != at {
            at = self.above[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        self.above[a.max(b)] = a.min(b);
    }
}
