//! One weight while its mask is chosen: its units, ranked.
use crate::{Candidate, Criterion, GroupNorm, ImportanceContext, PruneError, PruneSettings, Result, Units, least_important};
use tensor::Tensor;

/// What becomes of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// That of a unit.
    With(usize),
    /// It lives: its pattern keeps it.
    Lives,
    /// It is zero or masked already.
    Dead,
}

/// A weight's units (elements, or groups of them) with their importance.
pub(crate) struct Layer {
    /// What becomes of each element.
    fates: Vec<Fate>,
    /// Importance of each unit that may be pruned; infinite for one that must be kept.
    pub(crate) ranked: Vec<f32>,
    /// Elements of each unit; `None`: one each.
    pub(crate) sizes: Option<Vec<usize>>,
    /// Elements that must be kept.
    floor: usize,
    /// Elements that are zero without a mask.
    pub(crate) zeros: usize,
    /// Elements that are masked already and stay so.
    pub(crate) dead: usize,
    /// Elements that the sparsity is a share of: all but those that are zero without a mask.
    pub(crate) total: usize,
    /// The units are what a pattern prunes in the end.
    pub(crate) pattern: bool,
    /// The part of the network that the weight belongs to, as one unit, where a part lives or dies as a whole.
    pub(crate) part: Option<usize>,
}

impl Layer {
    /// Reads a candidate; the inner error says why it stays dense.
    pub(crate) fn read(
        context: &ImportanceContext,
        criterion: &dyn Criterion,
        candidate: &Candidate,
        settings: &PruneSettings,
        keep_dead: bool,
        part: Option<usize>,
    ) -> Result<Result<Layer, String>> {
        let units = match (settings.granularity.units_in(context.model, candidate), part) {
            (Units::Dense(why), _) => Units::Dense(why),
            // What belongs to a part is one unit of it.
            (_, Some(_)) => Units::Groups(vec![0; context.model.values.tensor(candidate.weight).map_or(0, Tensor::len)]),
            (units, None) => units,
        };
        if let Units::Dense(why) = units {
            return Ok(Err(why));
        }
        if let Some(why) = criterion.spares(context, candidate) {
            return Ok(Err(why));
        }
        let importance = importance(context, criterion, candidate)?;
        let wrong = |source| PruneError::Tensor { weight: candidate.name.clone(), source };
        let tensor = context.model.values.tensor(candidate.weight);
        let weight = tensor.map(|t| t.to_f32_vec().map_err(wrong)).transpose()?.unwrap_or_default();
        let masked = match context.model.annotations.mask(candidate.weight) {
            Some(mask) => mask.as_slice::<bool>().map_err(wrong)?.iter().map(|live| !live).collect(),
            None => vec![false; weight.len()],
        };
        let total = weight.iter().filter(|w| **w != 0.0).count();
        let zeros = weight.len() - total;
        // Single elements that are masked can be restored; groups and patterns are made of those that live.
        let restores = !keep_dead && units == Units::Elements;
        let open = |i: usize| weight[i] != 0.0 && (restores || !masked[i]);
        let mut layer = match units {
            Units::Groups(of) => Layer::groups(&of, &importance, open, settings.granularity.norm()),
            Units::Blocks { of, keep } => Layer::elements(&importance, &masked, open, &spared(&of, keep, &importance, open)),
            _ => Layer::elements(&importance, &masked, open, &vec![false; weight.len()]),
        };
        (layer.total, layer.zeros, layer.pattern, layer.part) = (total, zeros, settings.granularity.sparsity().is_some(), part);
        layer.dead = if restores { 0 } else { (0..weight.len()).filter(|i| weight[*i] != 0.0 && masked[*i]).count() };
        layer.hold((settings.min_per_layer * weight.len() as f64).ceil() as usize);
        Ok(Ok(layer))
    }

    /// Each element that is open and not spared is a unit.
    fn elements(importance: &[f32], masked: &[bool], open: impl Fn(usize) -> bool, spared: &[bool]) -> Layer {
        let (mut fates, mut ranked) = (Vec::with_capacity(importance.len()), vec![]);
        for (i, v) in importance.iter().enumerate() {
            fates.push(match (open(i), spared[i]) {
                (false, _) => Fate::Dead,
                (true, true) => Fate::Lives,
                (true, false) => {
                    // Importance is never negative, so the negated reciprocal sorts masked elements before the others, in their own order.
                    ranked.push(if masked[i] { -1.0 / v.abs() } else { *v });
                    Fate::With(ranked.len() - 1)
                }
            });
        }
        Layer { fates, ranked, sizes: None, floor: 0, zeros: 0, dead: 0, total: 0, pattern: false, part: None }
    }

    /// Each group with an open element is a unit.
    fn groups(of: &[usize], importance: &[f32], open: impl Fn(usize) -> bool, norm: GroupNorm) -> Layer {
        let count = of.iter().max().map_or(0, |most| most + 1);
        let (mut sums, mut counts, mut sizes) = (vec![0f64; count], vec![0usize; count], vec![0usize; count]);
        for (i, group) in of.iter().enumerate() {
            counts[*group] += 1;
            if open(i) {
                norm.add(&mut sums[*group], importance[i]);
                sizes[*group] += 1;
            }
        }
        let (mut number, mut ranked, mut kept) = (vec![0; count], vec![], vec![]);
        for group in (0..count).filter(|g| sizes[*g] > 0) {
            number[group] = ranked.len();
            ranked.push(norm.finish(sums[group], counts[group]));
            kept.push(sizes[group]);
        }
        let fates = of.iter().enumerate().map(|(i, group)| if open(i) { Fate::With(number[*group]) } else { Fate::Dead }).collect();
        Layer { fates, ranked, sizes: Some(kept), floor: 0, zeros: 0, dead: 0, total: 0, pattern: false, part: None }
    }

    /// Makes the most important units infinitely so, until `least` elements are sure to live.
    fn hold(&mut self, least: usize) {
        let spared = self.fates.iter().filter(|fate| **fate == Fate::Lives).count();
        let open: usize = self.each().sum();
        self.floor = least.saturating_sub(spared).min(open);
        if self.floor == 0 {
            return;
        }
        let weak = match &self.sizes {
            None => least_important(&self.ranked, open - self.floor),
            Some(sizes) => below(&self.ranked, sizes, open - self.floor),
        };
        self.ranked.iter_mut().zip(weak).filter(|(_, must_live)| *must_live).for_each(|(v, _)| *v = f32::INFINITY);
    }

    /// Elements of each unit.
    pub(crate) fn each(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.ranked.len()).map(|unit| self.sizes.as_ref().map_or(1, |sizes| sizes[unit]))
    }

    /// Number of elements of the weight.
    pub(crate) fn len(&self) -> usize {
        self.fates.len()
    }

    /// Number of elements that may be pruned.
    pub(crate) fn most(&self) -> usize {
        self.each().sum::<usize>() - self.floor
    }

    /// Number of elements to prune, for a share of `total` of which `dead` are pruned already.
    pub(crate) fn budget(sparsity: f64, total: usize, dead: usize) -> usize {
        ((sparsity * total as f64).round() as usize).saturating_sub(dead)
    }

    /// Which units live if this layer has a share of its own; `whole`: a pattern is reached.
    pub(crate) fn alone(&self, share: f64, whole: bool) -> Vec<bool> {
        let budget = if whole && self.pattern { usize::MAX } else { Layer::budget(share, self.total, self.dead) };
        select(&self.ranked, self.sizes.as_deref(), budget, self.most(), false)
    }

    /// The mask, from which units live.
    pub(crate) fn mask(&self, alive: &[bool]) -> Vec<bool> {
        let lives = |fate: &Fate| match fate {
            Fate::With(unit) => alive[*unit],
            Fate::Lives => true,
            Fate::Dead => false,
        };
        self.fates.iter().map(lives).collect()
    }
}

/// Which units live if the least important are pruned: `budget` elements, at most `most`. Units of several elements are taken as
/// long as that comes nearer to the budget, and then, with `pass_over`, smaller ones that come nearer still; infinitely important ones never.
pub(crate) fn select(ranked: &[f32], sizes: Option<&[usize]>, budget: usize, most: usize, pass_over: bool) -> Vec<bool> {
    let Some(sizes) = sizes else { return least_important(ranked, budget.min(most)) };
    let mut live = vec![true; ranked.len()];
    let mut left = budget;
    for unit in ascending(ranked) {
        let too_large = sizes[unit].div_ceil(2) > left;
        if ranked[unit] == f32::INFINITY || (too_large && !pass_over) {
            break;
        }
        if too_large {
            continue;
        }
        live[unit] = false;
        left = left.saturating_sub(sizes[unit]);
    }
    live
}

/// Which units live if the least important are pruned, at most `budget` elements of them.
fn below(ranked: &[f32], sizes: &[usize], budget: usize) -> Vec<bool> {
    let mut live = vec![true; ranked.len()];
    let mut left = budget;
    for unit in ascending(ranked) {
        if sizes[unit] > left {
            break;
        }
        live[unit] = false;
        left -= sizes[unit];
    }
    live
}

/// Units from the least to the most important, equals by position.
fn ascending(ranked: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ranked.len()).collect();
    order.sort_by(|a, b| ranked[*a].total_cmp(&ranked[*b]).then(a.cmp(b)));
    order
}

/// The `keep` most important open elements of each block; among equals the last ones.
fn spared(of: &[usize], keep: usize, importance: &[f32], open: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut order: Vec<usize> = (0..of.len()).filter(|i| open(*i)).collect();
    order.sort_by(|a, b| of[*a].cmp(&of[*b]).then(importance[*b].total_cmp(&importance[*a])).then(b.cmp(a)));
    let (mut spared, mut block, mut kept) = (vec![false; of.len()], usize::MAX, 0);
    for i in order {
        if of[i] != block {
            (block, kept) = (of[i], 0);
        }
        kept += 1;
        spared[i] = kept <= keep;
    }
    spared
}

/// Importance of each element.
///
/// # Errors
/// [`PruneError::Weight`] if one is not a number.
pub(crate) fn importance(context: &ImportanceContext, criterion: &dyn Criterion, candidate: &Candidate) -> Result<Vec<f32>> {
    let importance = criterion.importance(context, candidate)?;
    if let Some(at) = importance.iter().position(|v| v.is_nan()) {
        let what = format!("the importance of element {at} is not a number; the weight, or what the criterion reads beside it, holds NaN");
        return Err(PruneError::Weight { weight: candidate.name.clone(), what });
    }
    Ok(importance)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least important unit has ten elements, of a budget of four.
    #[test]
    fn a_unit_too_large_for_now_is_waited_for_unless_it_is_passed_over() {
        let (ranked, sizes) = ([1.0, 2.0, 3.0], [10, 2, 3]);
        assert_eq!(select(&ranked, Some(&sizes), 4, 15, false), [true, true, true]);
        assert_eq!(select(&ranked, Some(&sizes), 4, 15, true), [true, false, false]);
        // Its half fits: it goes first either way.
        assert_eq!(select(&ranked, Some(&sizes), 5, 15, false), [false, true, true]);
        assert_eq!(select(&ranked, Some(&sizes), 5, 15, true), [false, true, true]);
        assert_eq!(select(&[f32::INFINITY, 2.0], Some(&[1, 1]), 2, 2, true), [true, false]);
    }
}
