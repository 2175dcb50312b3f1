//! Which channels go: the least important ones, until enough is removed.
use super::groups::{Channel, Groups};
use super::settings::{ChannelScope, ChannelSettings, Remove};
use crate::layer::importance;
use crate::{Candidate, ImportanceContext, Needs, PruneError, Result, candidates};
use graph::{Dim, Model, ValueId};
use ops::{MacsCx, Role};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use technique::Fault;
use tensor::DType;

/// The channels that go, and what goes with them.
#[derive(Clone, Debug)]
pub struct Chosen<'a> {
    /// The channels.
    pub removed: Vec<&'a Channel>,
    /// For each group: channels before and after.
    pub groups: Vec<(usize, usize)>,
    /// Multiply-accumulates of one batch before and after.
    pub macs: (u64, u64),
    /// Parameters before and after.
    pub parameters: (u64, u64),
}

/// Chooses the channels that go by a criterion that needs only the weights, or with the gradients in `context`.
///
/// # Errors
/// [`PruneError::Setting`] for settings that [`ChannelSettings::check`] refuses, a pattern that matches nothing, a target that cannot
/// be reached, and a share of a time, which [`Ranking`] does not know; [`PruneError::Weight`] for a weight whose importance is not a number.
pub fn choose<'a>(context: &ImportanceContext<'a>, groups: &'a Groups, settings: &ChannelSettings) -> Result<Chosen<'a>> {
    settings.check()?;
    if settings.remove.latency.is_some() {
        let what = "a time is measured on a deployed file, and nothing is deployed here";
        return Err(Fault::new("latency", what).under("remove").hint("remove a share of the macs, or cut in a stage of a recipe").into());
    }
    Ranking::of(context, groups, settings)?.reach(&settings.remove)
}

/// The channels of a network from the least to the most important for what they save. Each beginning of the list is a smaller network.
pub struct Ranking<'a> {
    groups: &'a Groups,
    /// Importance for what is saved, group, channel.
    order: Vec<(f64, usize, usize)>,
    places: Places,
    costs: Costs<'a>,
    min_per_layer: f64,
    round_to: usize,
}

impl<'a> Ranking<'a> {
    /// Ranks by the criterion and the scope of the settings. What `remove` names says what channels save; how much of it does not matter.
    ///
    /// # Errors
    /// [`PruneError::Setting`] for a pattern that matches nothing; [`PruneError::Weight`] for a weight whose importance is not a number.
    pub fn of(context: &ImportanceContext<'a>, groups: &'a Groups, settings: &ChannelSettings) -> Result<Ranking<'a>> {
        let model = context.model;
        let all = candidates(model, &[])?;
        let open: BTreeSet<ValueId> = candidates(model, &settings.skip)?.iter().map(|c| c.weight).collect();
        let skipped: BTreeSet<ValueId> = all.iter().map(|c| c.weight).filter(|w| !open.contains(w)).collect();
        let scores = scores(context, all, groups, settings)?;
        let costs = Costs::of(model, groups);
        let places = Places::of(groups, &costs);
        let mut order: Vec<(f64, usize, usize)> = vec![];
        for (g, group) in groups.groups.iter().enumerate() {
            if scores[g].is_empty() || group.axes.iter().any(|(value, _)| skipped.contains(value)) {
                continue;
            }
            let worth = costs.worth(groups, group, &settings.remove);
            let mut ranked: Vec<(f64, usize)> = scores[g].iter().copied().zip(0..).collect();
            ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
            for (place, (score, channel)) in ranked.into_iter().enumerate() {
                // For the same share of each group, the place within it decides.
                let key =
                    if settings.scope == ChannelScope::Global { score / worth } else { (place as f64 + 0.5) / group.channels.len() as f64 };
                order.push((key, g, channel));
            }
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        Ok(Ranking { groups, order, places, costs, min_per_layer: settings.min_per_layer, round_to: settings.round_to })
    }

    /// All channels that the settings let go.
    pub fn most(&self) -> Chosen<'a> {
        self.chosen(&self.attempt(self.order.len()))
    }

    /// The fewest of the list with which all shares of `remove` are reached.
    ///
    /// # Errors
    /// [`PruneError::Setting`] if that is impossible.
    pub fn reach(&self, remove: &Remove) -> Result<Chosen<'a>> {
        let enough = |a: &Attempt| a.reaches(remove, self.groups.channels());
        let most = self.attempt(self.order.len());
        if !enough(&most) {
            return Err(unreachable(&most, self.groups));
        }
        let (mut low, mut high) = (0, self.order.len());
        while low < high {
            let middle = (low + high) / 2;
            match enough(&self.attempt(middle)) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Ok(self.chosen(&self.attempt(low)))
    }

    fn attempt(&self, n: usize) -> Attempt {
        Attempt::of(&self.order[..n], &self.places, (self.min_per_layer, self.round_to), &self.costs)
    }

    fn chosen(&self, attempt: &Attempt) -> Chosen<'a> {
        let removed = attempt.removed.iter().map(|(g, c)| &self.groups.groups[*g].channels[*c]).collect();
        let counted = |(g, group): (usize, &super::Group)| {
            let gone = attempt.removed.iter().filter(|(of, _)| *of == g).count();
            (group.channels.len(), group.channels.len() - gone)
        };
        let groups = self.groups.groups.iter().enumerate().map(counted).collect();
        Chosen { removed, groups, macs: attempt.macs, parameters: attempt.parameters }
    }
}

fn unreachable(most: &Attempt, groups: &Groups) -> PruneError {
    let share = |(before, after): (u64, u64)| (before - after) as f64 / before.max(1) as f64;
    let told = format!(
        "at most {:.1} % of the MACs, {:.1} % of the parameters and {:.1} % of the channels can be removed from this graph with these \
         settings",
        share(most.macs) * 100.0,
        share(most.parameters) * 100.0,
        most.removed.len() as f64 / groups.channels().max(1) as f64 * 100.0
    );
    Fault::new("remove", told).hint("lower it, or lower min_per_layer; espalier inspect --groups lists what stays and why").into()
}

/// Importance of each group's channels, none for a group of which the criterion says nothing: the sum of squares of the importance of all
/// their weights' elements. A criterion that reads weights or activations alone says nothing of other groups' channels, so there it is
/// divided by the mean of the group; one that needs gradients estimates the loss.
fn scores(context: &ImportanceContext, all: Vec<Candidate>, groups: &Groups, settings: &ChannelSettings) -> Result<Vec<Vec<f64>>> {
    let list: BTreeMap<ValueId, Candidate> = all.into_iter().map(|c| (c.weight, c)).collect();
    // The sum of squares for each index of each axis of a weight.
    let mut sums: HashMap<(ValueId, usize), Vec<f64>> = HashMap::new();
    let mut squares: HashMap<ValueId, Vec<f64>> = HashMap::new();
    let mut out = vec![];
    for group in &groups.groups {
        for (value, axis) in &group.axes {
            let Some(candidate) = list.get(value).filter(|_| !sums.contains_key(&(*value, *axis))) else { continue };
            if settings.criterion.spares(context, candidate).is_some() {
                continue;
            }
            let shape = context.model.values.tensor(*value).map(|t| t.shape().to_vec()).unwrap_or_default();
            if !squares.contains_key(value) {
                let importance = importance(context, &*settings.criterion, candidate)?;
                squares.insert(*value, importance.iter().map(|v| f64::from(*v) * f64::from(*v)).collect());
            }
            let inner: usize = shape[*axis + 1..].iter().product::<usize>().max(1);
            let mut along = vec![0.0; shape[*axis]];
            for (i, chunk) in squares[value].chunks(inner).enumerate() {
                let sum = &mut along[i % shape[*axis]];
                chunk.iter().for_each(|s| *sum += s);
            }
            sums.insert((*value, *axis), along);
        }
        // A group of which the criterion says nothing keeps its channels.
        if !group.axes.iter().any(|axis| sums.contains_key(axis)) {
            out.push(vec![]);
            continue;
        }
        let score = |c: &Channel| c.places.iter().filter_map(|p| sums.get(&(p.value, p.axis))?.get(p.index)).sum::<f64>();
        let scores: Vec<f64> = group.channels.iter().map(score).collect();
        let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        let by_mean = matches!(settings.criterion.needs(), Needs::Weights | Needs::Activity { .. }) && mean > 0.0;
        out.push(scores.into_iter().map(|s| if by_mean { s / mean } else { s }).collect());
    }
    Ok(out)
}

/// What a network costs, by the sizes of its values' axes.
struct Costs<'a> {
    shapes: HashMap<ValueId, Vec<usize>>,
    /// Nodes with multiply-accumulates.
    nodes: Vec<&'a graph::Node>,
    parameters: BTreeSet<ValueId>,
}

impl<'a> Costs<'a> {
    fn of(model: &'a Model, groups: &Groups) -> Costs<'a> {
        let known = |s: &Vec<Dim>| s.iter().map(|d| d.known().unwrap_or(1)).collect::<Vec<usize>>();
        let mut costs =
            Costs { shapes: groups.shapes.iter().map(|(id, s)| (*id, known(s))).collect(), nodes: vec![], parameters: BTreeSet::new() };
        let roles = ops::Roles::of(model);
        for node in &model.graph.nodes {
            for (i, id) in node.inputs.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))) {
                let float = model.values.tensor(id).is_some_and(|t| t.dtype() == DType::F32);
                if float && !matches!(roles.role(node, i), Role::Data | Role::Constant | Role::Statistic) {
                    costs.parameters.insert(id);
                }
            }
        }
        costs.nodes = model.graph.nodes.iter().filter(|n| costs.macs_of(n, &HashMap::new()) > 0).collect();
        costs
    }

    fn shape(&self, value: ValueId, removed: &HashMap<(ValueId, usize), usize>) -> Option<Vec<usize>> {
        let mut shape = self.shapes.get(&value)?.clone();
        for (axis, size) in shape.iter_mut().enumerate() {
            *size -= removed.get(&(value, axis)).copied().unwrap_or(0);
        }
        Some(shape)
    }

    fn macs_of(&self, node: &graph::Node, removed: &HashMap<(ValueId, usize), usize>) -> u64 {
        let shape = |v: &Option<ValueId>| v.and_then(|v| self.shape(v, removed));
        let cx = MacsCx { node, inputs: node.inputs.iter().map(shape).collect(), outputs: node.outputs.iter().map(shape).collect() };
        ops::find(&node.domain, &node.op_type).map_or(0, |op| op.macs(&cx))
    }

    fn macs(&self, removed: &HashMap<(ValueId, usize), usize>) -> u64 {
        self.nodes.iter().map(|n| self.macs_of(n, removed)).fold(0, u64::saturating_add)
    }

    /// What removing one channel of a group is worth: the sum of its shares of what is to be removed.
    fn worth(&self, groups: &Groups, group: &super::Group, remove: &Remove) -> f64 {
        let (none, mut one) = (HashMap::new(), HashMap::new());
        let first = group.channels.first().map(|c| c.places.as_slice()).unwrap_or_default();
        first.iter().for_each(|p| *one.entry((p.value, p.axis)).or_default() += 1);
        let share = |whole: u64, left: u64, wanted: Option<f64>| match wanted {
            Some(wanted) if wanted > 0.0 => (whole - left) as f64 / (whole.max(1) as f64 * wanted),
            _ => 0.0,
        };
        let macs = share(self.macs(&none), self.macs(&one), remove.macs);
        let parameters = share(self.count(&none), self.count(&one), remove.parameters);
        let channels = share(groups.channels() as u64, groups.channels() as u64 - 1, remove.channels);
        (macs + parameters + channels).max(f64::MIN_POSITIVE)
    }

    fn count(&self, removed: &HashMap<(ValueId, usize), usize>) -> u64 {
        let size = |v: &ValueId| self.shape(*v, removed).map_or(0, |s| s.iter().map(|d| *d as u64).product());
        self.parameters.iter().map(size).sum()
    }
}

/// The axes that channels are on, numbered, and how often each channel is on each: most networks have thousands of channels, and they are
/// counted again for each attempt.
struct Places {
    axes: Vec<(ValueId, usize)>,
    /// Size of each axis.
    sizes: Vec<usize>,
    /// For each group and channel: the numbers of its axes, and its indices on each.
    of: Vec<Vec<Vec<(usize, usize)>>>,
}

impl Places {
    fn of(groups: &Groups, costs: &Costs) -> Places {
        let axes: BTreeSet<(ValueId, usize)> = groups.groups.iter().flat_map(|g| g.axes.iter().copied()).collect();
        let axes: Vec<(ValueId, usize)> = axes.into_iter().collect();
        let number: HashMap<(ValueId, usize), usize> = axes.iter().copied().zip(0..).collect();
        let channel = |c: &Channel| {
            let mut list: Vec<(usize, usize)> = vec![];
            // Places of one axis lie side by side.
            for at in c.places.iter().map(|p| number[&(p.value, p.axis)]) {
                match list.last_mut() {
                    Some((last, count)) if *last == at => *count += 1,
                    _ => list.push((at, 1)),
                }
            }
            list
        };
        let of = groups.groups.iter().map(|g| g.channels.iter().map(channel).collect()).collect();
        let sizes = axes.iter().map(|(value, axis)| costs.shapes.get(value).map_or(0, |s| s[*axis])).collect();
        Places { axes, sizes, of }
    }
}

/// What removing the first channels of the list comes to.
struct Attempt {
    removed: Vec<(usize, usize)>,
    macs: (u64, u64),
    parameters: (u64, u64),
}

impl Attempt {
    fn of(wanted: &[(f64, usize, usize)], places: &Places, (min_per_layer, multiple): (f64, usize), costs: &Costs) -> Attempt {
        let mut gone = vec![0usize; places.axes.len()];
        let floors: Vec<usize> = places.sizes.iter().map(|n| ((*n as f64 * min_per_layer).ceil() as usize).max(1)).collect();
        // Each group's share, the least important first.
        let mut taken: Vec<Vec<usize>> = vec![vec![]; places.of.len()];
        for (_, g, c) in wanted {
            let own = &places.of[*g][*c];
            if own.iter().all(|(at, n)| places.sizes[*at].saturating_sub(gone[*at] + n) >= floors[*at]) {
                own.iter().for_each(|(at, n)| gone[*at] += n);
                taken[*g].push(*c);
            }
        }
        for (g, list) in taken.iter_mut().enumerate() {
            let all = places.of[g].len();
            // The most important of those that would go come back until a multiple is left.
            while multiple > 1 && all >= multiple && !list.is_empty() && !(all - list.len()).is_multiple_of(multiple) {
                let Some(back) = list.pop() else { break };
                places.of[g][back].iter().for_each(|(at, n)| gone[*at] -= n);
            }
        }
        let removed = taken.into_iter().enumerate().flat_map(|(g, list)| list.into_iter().map(move |c| (g, c))).collect();
        let gone: HashMap<(ValueId, usize), usize> = places.axes.iter().copied().zip(gone).filter(|(_, n)| *n > 0).collect();
        let none = HashMap::new();
        Attempt { removed, macs: (costs.macs(&none), costs.macs(&gone)), parameters: (costs.count(&none), costs.count(&gone)) }
    }

    fn reaches(&self, remove: &Remove, channels: usize) -> bool {
        let share = |(before, after): (u64, u64)| (before - after) as f64 / before.max(1) as f64;
        let gone = self.removed.len() as f64 / channels.max(1) as f64;
        let met = |wanted: Option<f64>, got: f64| wanted.is_none_or(|w| got >= w);
        met(remove.macs, share(self.macs)) && met(remove.parameters, share(self.parameters)) && met(remove.channels, gone)
    }
}
