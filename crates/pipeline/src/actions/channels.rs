//! Removing channels as the recipe asks for it, with the proof that the smaller graph computes the same as zeros in their place.
use super::cut_search::{CutGoal, Search};
use super::prune::gradients;
use super::{CompressOn, Tick};
use crate::StageError;
use deploy::measure::Difference;
use graph::Model;
use prune::ImportanceContext;
use prune::channels::{ChannelSettings, Chosen, Groups, Ranking, choose, cut, dead, drop_branches, fold_constants, groups, zeroed};
use report::record::CutRecord;
use std::collections::BTreeMap;
use train::{Executor, Mode, Named};

/// Largest difference between both graphs, relative to the root mean square of the outputs: sums in another order.
const SAME: f64 = 1e-4;

/// Most layers that a note lists.
const LISTED: usize = 5;

/// Removes channels, and returns notes for the user. The smaller graph is compared with the graph whose removed channels are zero, on one
/// sample. With a `goal`, candidates are measured until the least removal that meets it is found; then their records are returned too.
///
/// # Errors
/// Errors of the settings, the data or the graph; if the graphs differ; for a goal that cannot be met.
pub fn remove_channels(
    model: &mut Model,
    settings: &ChannelSettings,
    on: &CompressOn,
    goal: Option<&CutGoal>,
    tick: Tick,
) -> Result<(Vec<String>, Vec<CutRecord>), StageError> {
    let sample = on.sources.one_sample(model)?;
    let shapes: BTreeMap<String, Vec<usize>> = sample.iter().map(|(name, t)| (name.clone(), t.shape().to_vec())).collect();
    let mut told = if settings.remove.dead { remove_dead(model, &shapes, &sample)? } else { vec![] };
    if !settings.remove.has_share() && goal.is_none() {
        return Ok((told, vec![]));
    }
    let found = groups(model, &shapes)?;
    let before = model.clone();
    let wanted = settings.criterion.needs().reads_data();
    let context = gradients(&before, on, wanted, &mut |source| {
        Ok(ImportanceContext::gather(&before, &settings.criterion, &prune::candidates(&before, &[])?, source)?)
    })?;
    let cutter = Cutter { before: &before, sample: &sample, groups: &found, context };
    let (chosen, cuts) = match goal {
        None => (choose(&cutter.context, &found, settings)?, vec![]),
        Some(goal) => {
            let (chosen, cuts, note) = Search::new(&cutter, settings, goal)?.run(on, tick)?;
            told.push(note);
            (chosen, cuts)
        }
    };
    if chosen.removed.is_empty() {
        told.push("nothing was removed: the uncut network meets what was asked for".into());
        return Ok((told, cuts));
    }
    *model = cutter.cut(&chosen)?;
    let zeros = zeroed(&before, &chosen.removed)?;
    let difference = compare(&zeros, "the graph with zeros in place of the removed channels", model, &sample, Mode::FLOAT)?;
    told.extend(notes(&found, &chosen, &difference));
    Ok((told, cuts))
}

/// A network with its channels and their importance.
pub(super) struct Cutter<'a> {
    pub(super) before: &'a Model,
    pub(super) sample: &'a Named,
    groups: &'a Groups,
    context: ImportanceContext<'a>,
}

impl<'a> Cutter<'a> {
    pub(super) fn ranking(&self, settings: &ChannelSettings) -> Result<Ranking<'a>, StageError> {
        Ok(Ranking::of(&self.context, self.groups, settings)?)
    }

    /// The network without some channels.
    pub(super) fn cut(&self, chosen: &Chosen) -> Result<Model, StageError> {
        let mut model = self.before.clone();
        cut(&mut model, self.groups, &chosen.removed)?;
        Ok(model)
    }
}

/// Removes the channels and branches that masks have emptied: no output changes by it.
fn remove_dead(model: &mut Model, shapes: &BTreeMap<String, Vec<usize>>, sample: &Named) -> Result<Vec<String>, StageError> {
    let (before, mut gone, mut rounds) = (model.clone(), 0, 0);
    let all = groups(model, shapes)?.channels();
    let (mut branches, mut folded) = (0, 0);
    // A channel or a branch that goes may leave others without a reader.
    loop {
        let dropped = drop_branches(model, sample)?;
        let found = groups(model, shapes)?;
        let moved = fold_constants(model, &found, sample)?;
        let empty = dead(model, &found, sample)?;
        if empty.is_empty() && dropped == 0 && moved == 0 {
            break;
        }
        (gone, branches, folded, rounds) = (gone + empty.len(), branches + dropped, folded + moved, rounds + 1);
        cut(model, &found, &empty)?;
    }
    if rounds == 0 {
        return Ok(vec![format!("none of the {all} channels is empty, and no branch")]);
    }
    let difference = compare(&before, "the graph before", model, sample, Mode::SIMULATED)?;
    let mut told = vec![format!("removed {gone} of {all} channels that had no weights left: {}", apart(&difference))];
    if folded > 0 {
        told.push(format!("{folded} channels were constants, which are in the biases of the layers that read them now"));
    }
    if branches > 0 {
        let (of, sums) = if branches == 1 { ("branch", "its sum reads") } else { ("branches", "their sums read") };
        told.push(format!("removed {branches} {of} whose result was the same for all data: {sums} the other side"));
    }
    Ok(told)
}

/// How far the smaller model's outputs are from another's.
fn compare(a: &Model, what: &str, b: &Model, sample: &Named, mode: Mode) -> Result<Difference, StageError> {
    let (wanted, got) = (Executor::new(a)?.run(sample, mode)?, Executor::new(b)?.run(sample, mode)?);
    let mut difference = Difference::default();
    for (name, wanted) in &wanted {
        let Some(got) = got.get(name) else { return Err(format!("the smaller graph has no output '{name}'").into()) };
        difference.add(wanted, got)?;
    }
    let (largest, size) = (difference.largest(), difference.reference_rms());
    if largest.is_nan() || largest > SAME * size {
        let text = format!(
            "the smaller graph does not compute what {what} computes: outputs differ by {largest:.3e}, their root mean square is {size:.3e}; \
             please report this graph, and name layers in skip until then"
        );
        return Err(text.into());
    }
    Ok(difference)
}

/// A difference, in words.
fn apart(difference: &Difference) -> String {
    let (largest, size) = (difference.largest(), difference.reference_rms());
    format!("outputs differ by at most {largest:.1e} (their root mean square is {size:.3})")
}

fn notes(found: &Groups, chosen: &Chosen, difference: &Difference) -> Vec<String> {
    let share = |(before, after): (u64, u64)| (before - after) as f64 / before.max(1) as f64 * 100.0;
    let touched = chosen.groups.iter().filter(|(before, after)| after < before).count();
    let mut list = vec![
        format!(
            "removed {} of {} channels, from {touched} of {} groups: {:.1} % of the MACs, {:.1} % of the parameters",
            chosen.removed.len(),
            found.channels(),
            found.groups.len(),
            share(chosen.macs),
            share(chosen.parameters)
        ),
        format!("the smaller graph computes what the graph with zeros in their place computes: {}", apart(difference)),
    ];
    if !found.held.is_empty() {
        let layers: Vec<String> = found.held.iter().take(LISTED).map(|h| format!("{} ({})", h.layer, h.reason)).collect();
        let more = match found.held.len().saturating_sub(LISTED) {
            0 => String::new(),
            n => format!(" and {n} more, which espalier inspect --groups lists"),
        };
        list.push(format!("all output channels stay in {}{more}", layers.join(", ")));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use graph::{Dim, Node, Value, ValueType};
    use tensor::{DType, Tensor};

    #[test]
    fn a_constant_that_is_folded_is_told_where_its_channel_stays() {
        let mut m = Model::new(17);
        let ty = ValueType::Tensor { dtype: DType::F32, shape: Some(vec![Dim::Symbol("n".into()), Dim::Known(3)]) };
        let x = m.values.add(Value { name: "x".into(), ty, ..Value::default() });
        let [a, b, c, y] = ["a", "b", "c", "y"].map(|n| m.values.add_named(n));
        let full = |v: f32, shape: &[usize]| Tensor::full(v, shape).unwrap();
        let constants = [("empty", full(0.0, &[3, 2])), ("shift", full(0.5, &[2])), ("w", full(2.0, &[2, 2])), ("bias", full(1.0, &[2]))];
        let [empty, shift, w, bias] = constants.map(|(name, t)| m.values.add_constant(name, t));
        m.graph.inputs.push(x);
        m.graph.constants.extend([empty, shift, w, bias]);
        for (op, inputs, output) in [("MatMul", [x, empty], a), ("Add", [a, shift], b), ("MatMul", [b, w], c), ("Add", [c, bias], y)] {
            m.graph.nodes.push(Node::new(op, m.values[output].name.clone(), &inputs, &[output]));
        }
        m.graph.outputs.push(y);
        let sample = Named::from([("x".to_string(), Tensor::new(vec![1f32, 2.0, 3.0], [1, 3]).unwrap())]);
        let told = remove_dead(&mut m, &BTreeMap::from([("x".to_string(), vec![1, 3])]), &sample).unwrap();
        // The last channel of a layer stays; what both added is in the bias.
        assert_eq!(m.values.tensor(bias).unwrap().to_f32_vec().unwrap(), [3.0, 3.0]);
        assert!(told[0].starts_with("removed 1 of") && told[1].starts_with("2 channels were constants"), "{told:?}");
    }
}
