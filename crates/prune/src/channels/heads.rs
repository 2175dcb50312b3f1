//! Which inputs of a layer come from which head of an attention.
use super::dead::{Part, parts};
use super::groups::groups;
use graph::{Model, ValueId};
use std::collections::BTreeMap;

/// For a weight that reads the joined results of several attention heads, the head of each index of the axis that it sums over; `None` for
/// other weights. Heads that share keys and values count as one.
///
/// A head is a channel of several indices both where it is computed (queries, keys, values) and where it is read.
pub(crate) fn heads(model: &Model, weight: ValueId) -> Option<Vec<usize>> {
    let found = groups(model, &BTreeMap::new()).ok()?;
    let parts = &parts(model);
    for group in &found.groups {
        let of = |wanted: Part| group.axes.iter().copied().filter(move |axis| parts.get(axis) == Some(&wanted));
        let Some(read) = of(Part::Reads).find(|(value, _)| *value == weight) else { continue };
        let first = &group.channels.first()?.places;
        let wide = |axis: (ValueId, usize)| first.iter().filter(|p| (p.value, p.axis) == axis).count() > 1;
        if !wide(read) || of(Part::Filters).next().is_some() || of(Part::Computes).next().is_none() || !of(Part::Computes).all(wide) {
            continue;
        }
        let size = model.values.tensor(weight)?.shape().get(read.1).copied()?;
        let mut numbers: Vec<Option<usize>> = vec![None; size];
        for (head, channel) in group.channels.iter().enumerate() {
            channel.places.iter().filter(|p| (p.value, p.axis) == read).for_each(|p| numbers[p.index] = Some(head));
        }
        return numbers.into_iter().collect();
    }
    None
}
