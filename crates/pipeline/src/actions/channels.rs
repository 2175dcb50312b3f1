//! Removing channels as the recipe asks for it, with the proof that the smaller graph computes the same as zeros in their place.
use super::CompressOn;
use crate::StageError;
use deploy::measure::Difference;
use graph::Model;
use prune::channels::{ChannelSettings, Chosen, Groups, choose, cut, dead, groups, zeroed};
use prune::{ImportanceContext, Needs};
use std::collections::BTreeMap;
use train::{Executor, GradientSource, Mode, Named};

/// Largest difference between both graphs, relative to the root mean square of the outputs: sums in another order.
const SAME: f64 = 1e-4;

/// Most layers that a note lists.
const LISTED: usize = 5;

/// Removes channels, and returns notes for the user. The smaller graph is compared with the graph whose removed channels are zero, on one
/// sample.
///
/// # Errors
/// Errors of the settings, the data or the graph; if the graphs differ.
pub fn remove_channels(model: &mut Model, settings: &ChannelSettings, on: &CompressOn) -> Result<Vec<String>, StageError> {
    let sample = on.sources.one_sample(model)?;
    let shapes: BTreeMap<String, Vec<usize>> = sample.iter().map(|(name, t)| (name.clone(), t.shape().to_vec())).collect();
    let mut told = if settings.remove.dead { remove_dead(model, &shapes, &sample)? } else { vec![] };
    if !settings.remove.has_share() {
        return Ok(told);
    }
    let found = groups(model, &shapes)?;
    let before = model.clone();
    let mut context = ImportanceContext::new(&before);
    if settings.criterion.needs() != Needs::Weights {
        let data = on.sources.training(&before, on.seed, on.training.batch)?;
        let objective = on.sources.task().loss(&before, on.training.label_smoothing as f32)?;
        let source = GradientSource { data: &data, epoch: 0, objective: objective.as_ref(), simulate: true };
        context = ImportanceContext::gather(&before, &settings.criterion, &prune::candidates(&before, &[])?, Some(&source))?;
    }
    let chosen = choose(&context, &found, settings)?;
    cut(model, &found, &chosen.removed)?;
    let zeros = zeroed(&before, &chosen.removed)?;
    let difference = compare(&zeros, "the graph with zeros in place of the removed channels", model, &sample, Mode::FLOAT)?;
    told.extend(notes(&found, &chosen, &difference));
    Ok(told)
}

/// Removes the channels that masks have emptied: no output changes by it.
fn remove_dead(model: &mut Model, shapes: &BTreeMap<String, Vec<usize>>, sample: &Named) -> Result<Vec<String>, StageError> {
    let (before, mut gone, mut rounds) = (model.clone(), 0, 0);
    let all = groups(model, shapes)?.channels();
    // A channel that goes may leave others without a reader.
    loop {
        let found = groups(model, shapes)?;
        let empty = dead(model, &found, sample)?;
        if empty.is_empty() {
            break;
        }
        (gone, rounds) = (gone + empty.len(), rounds + 1);
        cut(model, &found, &empty)?;
    }
    if rounds == 0 {
        return Ok(vec![format!("none of the {all} channels is empty")]);
    }
    let difference = compare(&before, "the graph before", model, sample, Mode::SIMULATED)?;
    Ok(vec![format!("removed {gone} of {all} channels that had no weights left: {}", apart(&difference))])
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
