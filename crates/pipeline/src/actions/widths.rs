//! Widths of layers: how sensitive the network is to each, and the best ones within a budget.
use super::calibrate::{Observed, observed};
use super::{CompressOn, Tick, metric_record};
use crate::StageError;
use crate::recipe::{Limit, QuantizeStage};
use crate::run_dir::{Cache, Key};
use crate::stages::write_rules;
use graph::Model;
use quantize::mixed::{ActivationWidths, Candidate, Cost, Effect, Fitted, Group, Layers, Sensitivity, best, fitted, sensitivity};
use quantize::{Observations, QuantizeSettings, Rule};
use report::record::{GroupRecord, LimitRecord, PlanRecord, SCHEMA_VERSION, SensitivityRecord, WidthRecord, readable};
use report::text;
use std::collections::{BTreeMap, BTreeSet};
use train::{Batches, Harm, LoaderBatches};

/// The cache's name for tables of sensitivities.
const KIND: &str = "sensitivity";

/// The widths that were found for a budget.
pub struct FoundPlan {
    /// The rules, to be applied before those of the stage.
    pub rules: Vec<Rule>,
    /// The plan as a file: rules as a recipe has them.
    pub text: String,
    /// The record of the choice.
    pub record: PlanRecord,
    /// A sentence for the user.
    pub note: String,
}

/// How sensitive a network is to the widths of its layers, by the settings of a quantize stage. The network stays as it is.
///
/// # Errors
/// Errors of the settings, the data or the graph.
pub fn sensitivities(model: &Model, stage: &QuantizeStage, on: &CompressOn, tick: Tick) -> Result<SensitivityRecord, StageError> {
    let mut model = model.clone();
    let Observed { settings, seen, .. } = observed(&mut model, stage, on, tick)?;
    let part = Part { model: &model, settings: &settings, seen: &seen, stage, on };
    let (layers, fitted) = part.layers()?;
    part.table(&layers, &fitted, tick)
}

/// Finds the widths with the least harm within the stage's budget.
///
/// # Errors
/// For a budget that cannot be met; as [`sensitivities`].
pub(super) fn find(
    model: &Model,
    settings: &QuantizeSettings,
    seen: &Observations,
    stage: &QuantizeStage,
    on: &CompressOn,
    tick: Tick,
) -> Result<Option<FoundPlan>, StageError> {
    let Some(budget) = &stage.budget else { return Ok(None) };
    let part = Part { model, settings, seen, stage, on };
    let (layers, fitted) = part.layers()?;
    if stage.search.samples == 0 {
        // A trial: the form that is hardest to deploy.
        let smallest = vec![stage.search.widths.first().copied().unwrap_or_default(); layers.groups.len()];
        let record = PlanRecord::default();
        return Ok(Some(FoundPlan { rules: layers.rules(&smallest)?, text: String::new(), record, note: String::new() }));
    }
    let table = match &stage.search.table {
        Some(table) => (**table).clone(),
        None => part.table(&layers, &fitted, tick)?,
    };
    let limits = budget.limits();
    let table = part.in_order(&layers, table)?;
    let options = part.options(&table)?;
    let costs = Costs { layers: &layers, fitted: &fitted };
    let (chosen, room) = costs.choose(&options, limits)?;
    let rules = layers.rules(&chosen)?;
    let takes = [Cost::Bits, Cost::Bytes, Cost::BitOps].map(|cost| costs.told(cost, &chosen));
    let takes: Vec<String> = takes.into_iter().collect::<Result<_, _>>()?;
    let taken = |limit: &Limit| costs.told(cost_of(limit), &chosen);
    let limits = limits.iter().map(|l| Ok(LimitRecord { limit: l.to_string(), taken: taken(l)? }));
    let limits = limits.collect::<Result<Vec<_>, StageError>>()?;
    let mut counted: BTreeMap<u32, usize> = BTreeMap::new();
    layers.groups.iter().zip(&chosen).for_each(|(group, bits)| *counted.entry(*bits).or_default() += group.nodes.len());
    let counted: Vec<String> = counted.iter().map(|(bits, n)| format!("{bits} bits in {n}")).collect();
    let note = format!("widths within {budget}: {} layers; in all {}", counted.join(", "), takes.join(", "));
    let note = match room {
        true => format!("{note}. The budget has room: every layer that may be chosen has the largest width"),
        false => note,
    };
    let comments = [
        format!("The best widths within {budget}, found by {} on {} {}.", harm_text(stage.search.by), table.samples, table.taken_from),
        format!("They take {}.", takes.join(", ")),
        "To use or edit them, write plan = \"THIS FILE\" into the quantize stage in place of budget, or copy the rules below it.".into(),
    ];
    let text = write_rules(&comments, &rules)?;
    let record = PlanRecord { limits, takes, sensitivity: table, chosen, file: None };
    Ok(Some(FoundPlan { rules, text, record, note }))
}

fn harm_text(by: Harm) -> &'static str {
    match by {
        Harm::Noise => "the change of the outputs",
        Harm::Loss => "the rise of the loss",
    }
}

fn cost_of(limit: &Limit) -> Cost {
    match limit {
        Limit::Bits(_) => Cost::Bits,
        Limit::Bytes(_) => Cost::Bytes,
        Limit::BitOps(_) => Cost::BitOps,
    }
}

/// A calibrated model before its widths are known.
struct Part<'a> {
    model: &'a Model,
    settings: &'a QuantizeSettings,
    seen: &'a Observations,
    stage: &'a QuantizeStage,
    on: &'a CompressOn<'a>,
}

impl Part<'_> {
    /// What can be chosen, and the grids of every width.
    fn layers(&self) -> Result<(Layers, Fitted), StageError> {
        let sources = self.on.sources;
        let counted = deploy::measure::macs(self.model, &sources.one_sample(self.model)?)?;
        let run = sources.feeding(self.model)?.fixed().unwrap_or(1) as u64;
        let macs = counted.nodes.into_iter().map(|node| (node.node, node.macs / run)).collect();
        let search = &self.stage.search;
        let activations = ActivationWidths { widths: search.activations, least: search.least_activations };
        let layers = Layers::of(self.model, self.settings, activations, &macs)?;
        if layers.groups.is_empty() {
            return Err("there is no width to choose: no layer has a weight that is stored in bits, or rules decide on all of them".into());
        }
        let fitted = fitted(self.model, self.settings, &layers, &search.widths, self.seen)?;
        Ok((layers, fitted))
    }

    /// Measures the sensitivities, or takes them from the cache.
    fn table(&self, layers: &Layers, fitted: &Fitted, tick: Tick) -> Result<SensitivityRecord, StageError> {
        let (sources, c) = (self.on.sources, &self.stage.calibration);
        let held = self.settings.observer.held().min(c.images);
        let (data, taken_from, labelled) =
            sources.judging(self.model, self.stage.search.samples, c.batch, (c.seed.unwrap_or(self.on.seed), c.images + held))?;
        let task = sources.task().member();
        let entry = self.on.cache.map(|cache| Ok::<_, StageError>((cache, self.key(&cache, &data)?))).transpose()?;
        if let Some(known) = entry.as_ref().and_then(|(cache, key)| cache.get(KIND, key)) {
            return Ok(known);
        }
        let trials = (layers.groups.len() * fitted.0.len()) as u64;
        let all = data.batches() * trials;
        let mut done = 0;
        let mut step = |_: u64, _: u64| {
            tick(done, all);
            done += 1;
        };
        let found = sensitivity(self.model, layers, fitted, labelled.then(|| task.as_ref()), data.epoch(0), &mut step)?;
        let record = record(layers, &found, taken_from, labelled.then(|| metric_record(task.as_ref())));
        if let Some((cache, key)) = entry {
            cache.put(KIND, &key, &record)?;
        }
        Ok(record)
    }

    fn key(&self, cache: &Cache, data: &LoaderBatches) -> Result<Key, StageError> {
        let options = data.options();
        let search = &self.stage.search;
        let rows: Vec<u8> = options.rows.iter().flat_map(|rows| rows.iter()).flat_map(|r| (*r as u64).to_le_bytes()).collect();
        Ok(cache
            .key()
            .part("sensitivity", onnx::to_bytes(self.model)?)
            .part("settings", serde_json::to_string(self.settings)?)
            .part("calibration", serde_json::to_string(&self.stage.calibration)?)
            .part("search", serde_json::to_string(&(&search.widths, search.activations, search.least_activations))?)
            .part("set", data.dataset().path().display().to_string())
            .part("rows", rows)
            .part("preprocess", serde_json::to_string(&options.preprocess)?)
            .finish())
    }

    /// A table with one row for each group, in their order: a file may have been edited.
    fn in_order(&self, layers: &Layers, table: SensitivityRecord) -> Result<SensitivityRecord, StageError> {
        let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<String>>();
        let row = |group: &Group| {
            let known = table.groups.iter().find(|known| sorted(&known.layers) == sorted(&group.nodes));
            let names = group.nodes.join("', '");
            let what = format!("the table of sensitivities has no row for '{names}': measure it again with this model and these rules");
            known.cloned().ok_or_else(|| StageError::from(what))
        };
        let groups = layers.groups.iter().map(row).collect::<Result<_, _>>()?;
        Ok(SensitivityRecord { groups, ..table })
    }

    /// The widths that each row's group may have, with their harm.
    fn options(&self, table: &SensitivityRecord) -> Result<Vec<Vec<(u32, f64)>>, StageError> {
        let mut out = vec![];
        for known in &table.groups {
            let harm = |w: &WidthRecord| match self.stage.search.by {
                Harm::Noise => Ok(w.noise),
                Harm::Loss => w.loss.zip(table.float_loss).map(|(loss, float)| loss - float).ok_or_else(|| {
                    StageError::from(
                        "search.by = \"loss\" needs samples with labels, and there are none: leave it out, or name labelled data",
                    )
                }),
            };
            let allowed = known.widths.iter().filter(|w| self.stage.search.widths.contains(&w.bits));
            let widths = allowed.map(|w| Ok((w.bits, harm(w)?))).collect::<Result<Vec<_>, StageError>>()?;
            if widths.is_empty() {
                return Err(format!(
                    "'{}' has none of the widths {:?} in the table of sensitivities",
                    known.layers.join("', '"),
                    self.stage.search.widths
                )
                .into());
            }
            out.push(widths);
        }
        Ok(out)
    }
}

fn record(layers: &Layers, found: &Sensitivity, taken_from: String, measured: Option<report::record::MetricRecord>) -> SensitivityRecord {
    let width =
        |(bits, e): (&u32, &Effect)| WidthRecord { bits: *bits, noise: readable(e.noise), loss: e.loss.map(readable), metric: e.metric };
    let groups = layers.groups.iter().zip(&found.groups).map(|(group, effects)| GroupRecord {
        layers: group.nodes.clone(),
        activations: group.deciders.clone(),
        elements: group.elements,
        macs: group.macs,
        widths: effects.iter().map(width).collect(),
    });
    SensitivityRecord {
        schema_version: SCHEMA_VERSION,
        name: String::new(),
        samples: found.samples as u64,
        taken_from,
        measured: measured.filter(|_| found.float.metric.is_some()),
        float_loss: found.float.loss,
        float_metric: found.float.metric,
        groups: groups.collect(),
    }
}

/// What widths cost.
struct Costs<'a> {
    layers: &'a Layers,
    fitted: &'a Fitted,
}

impl Costs<'_> {
    /// What the widths cost in all, with what rules decide on.
    fn total(&self, cost: Cost, widths: &[u32]) -> Result<u64, StageError> {
        let any = self.fitted.0.keys().next().copied().unwrap_or_default();
        let mut sum = self.layers.cost(cost, None, any, self.fitted)?;
        for (group, bits) in widths.iter().enumerate() {
            sum += self.layers.cost(cost, Some(group), *bits, self.fitted)?;
        }
        Ok(sum)
    }

    fn told(&self, cost: Cost, widths: &[u32]) -> Result<String, StageError> {
        Ok(self.written(cost, self.total(cost, widths)?))
    }

    fn written(&self, cost: Cost, total: u64) -> String {
        match cost {
            Cost::Bits => format!("{} bits", text::number(total as f64 / self.layers.elements().max(1) as f64)),
            Cost::Bytes => text::bytes(total),
            // `count` ends in a prefix from a thousand on.
            Cost::BitOps if total < 1000 => format!("{total} BOPs"),
            Cost::BitOps => format!("{}BOPs", text::count(total)),
        }
    }

    /// The best widths, and whether the largest ones are within the limits.
    fn choose(&self, options: &[Vec<(u32, f64)>], limits: &[Limit]) -> Result<(Vec<u32>, bool), StageError> {
        let kinds: Vec<Cost> = limits.iter().map(cost_of).collect();
        let mut groups = vec![];
        for (group, widths) in options.iter().enumerate() {
            let mut candidates = vec![];
            for (bits, harm) in widths {
                let costs = kinds.iter().map(|kind| self.layers.cost(*kind, Some(group), *bits, self.fitted));
                candidates.push(Candidate { harm: *harm, costs: costs.collect::<Result<Vec<u64>, _>>()? });
            }
            groups.push(candidates);
        }
        let bound = |limit: &Limit| match limit {
            Limit::Bits(mean) => (mean * self.layers.elements() as f64 + 1e-6) as u64,
            Limit::Bytes(bytes) => bytes.0,
            Limit::BitOps(n) => *n as u64,
        };
        let fixed = kinds.iter().map(|kind| self.total(*kind, &[])).collect::<Result<Vec<u64>, _>>()?;
        let left: Option<Vec<u64>> = limits.iter().zip(&fixed).map(|(limit, fixed)| bound(limit).checked_sub(*fixed)).collect();
        let Some(taken) = left.as_ref().and_then(|left| best(&groups, left).ok()) else {
            return Err(self.unmet(&groups, limits, &fixed));
        };
        let chosen: Vec<u32> = options.iter().zip(taken).map(|(widths, t)| widths[t].0).collect();
        let largest: Vec<u32> = options.iter().map(|widths| widths.iter().map(|w| w.0).max().unwrap_or_default()).collect();
        let room = limits.iter().map(|l| Ok(self.total(cost_of(l), &largest)? <= bound(l))).collect::<Result<Vec<bool>, StageError>>()?;
        Ok((chosen, room.into_iter().all(|fits| fits)))
    }

    /// The error of a budget below what is possible.
    fn unmet(&self, groups: &[Vec<Candidate>], limits: &[Limit], fixed: &[u64]) -> StageError {
        let least = |d: usize| fixed[d] + groups.iter().map(|g| g.iter().map(|c| c.costs[d]).min().unwrap_or(0)).sum::<u64>();
        let all: Vec<String> = limits.iter().enumerate().map(|(d, l)| self.written(cost_of(l), least(d))).collect();
        let budget: Vec<String> = limits.iter().map(|l| l.to_string()).collect();
        format!(
            "budget = {} cannot be met: the least possible is {} (search.widths allows no smaller widths, and rules decide on some layers)",
            budget.join(" and "),
            all.join(" and ")
        )
        .into()
    }
}
