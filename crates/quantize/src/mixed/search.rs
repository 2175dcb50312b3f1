//! The choice of one candidate a group with the least harm in sum within limits: the multiple-choice knapsack problem.
//!
//! Group by group, all partial choices are kept that no other beats: none costs no more in every respect and does no more harm.
//! The result is a best one as long as there are at most [`MOST`] of them at any time. Beyond that, the space of costs is cut into as many
//! cells, and the one of least harm in each is kept: the limits still hold exactly, and the harm may be slightly above the least.
//! (H. Kellerer, U. Pferschy, D. Pisinger, "Knapsack Problems", 2004, section 11.5: dynamic programming with dominance.)
use std::collections::BTreeMap;

/// Partial choices that are kept at once.
const MOST: usize = 1 << 14;

/// Harm of a candidate that cannot be measured.
const WORST: f64 = 1e30;

/// One way to store a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// What it does to the network; what is not finite counts as the worst.
    pub harm: f64,
    /// What it costs, for each limit.
    pub costs: Vec<u64>,
}

/// A choice for the first groups.
#[derive(Clone, Debug)]
struct State {
    costs: [u64; 2],
    harm: f64,
    /// Index of the choice for the groups before, and the candidate taken of the last.
    from: (usize, usize),
}

/// The candidates, one of each group, with the least sum of harm whose costs in sum are within the limits; at most two limits. Of
/// equals the cheaper one is taken.
///
/// # Errors
/// The least possible costs, if no choice is within the limits.
pub fn best(groups: &[Vec<Candidate>], limits: &[u64]) -> Result<Vec<usize>, Vec<u64>> {
    let limit = |d: usize| limits.get(d).copied().unwrap_or(u64::MAX);
    let cost = |c: &Candidate, d: usize| if d < limits.len() { c.costs.get(d).copied().unwrap_or(0) } else { 0 };
    // The least that the groups from each on cost.
    let mut rest = vec![[0u64; 2]];
    for group in groups.iter().rev() {
        let after = rest.last().copied().unwrap_or_default();
        let least = |d: usize| group.iter().map(|c| cost(c, d)).min().unwrap_or(0).saturating_add(after[d]);
        rest.push([least(0), least(1)]);
    }
    rest.reverse();
    let least = || rest[0][..limits.len().min(2)].to_vec();
    let mut layers: Vec<Vec<State>> = vec![vec![State { costs: [0; 2], harm: 0.0, from: (0, 0) }]];
    for (group, rest) in groups.iter().zip(rest.iter().skip(1)) {
        let mut next = vec![];
        for (from, state) in layers.last().into_iter().flatten().enumerate() {
            for (taken, candidate) in group.iter().enumerate() {
                let costs = [0, 1].map(|d| state.costs[d].saturating_add(cost(candidate, d)));
                if (0..2).all(|d| costs[d].saturating_add(rest[d]) <= limit(d)) {
                    let harm = state.harm + if candidate.harm.is_finite() { candidate.harm } else { WORST };
                    next.push(State { costs, harm, from: (from, taken) });
                }
            }
        }
        layers.push(thinned(undominated(next), limits));
    }
    let last = layers.last().map_or(&[][..], Vec::as_slice);
    // They are sorted by costs, so the first of least harm is the cheapest.
    let found = (0..last.len()).min_by(|a, b| last[*a].harm.total_cmp(&last[*b].harm));
    let mut at = found.ok_or_else(least)?;
    let mut taken = vec![];
    for states in layers.iter().skip(1).rev() {
        taken.push(states[at].from.1);
        at = states[at].from.0;
    }
    taken.reverse();
    Ok(taken)
}

/// Without the states that another beats, by rising costs.
fn undominated(mut states: Vec<State>) -> Vec<State> {
    states.sort_by(|a, b| a.costs.cmp(&b.costs).then(a.harm.total_cmp(&b.harm)));
    // The least harm so far by second cost: the more it costs, the less harm it does.
    let mut stairs: BTreeMap<u64, f64> = BTreeMap::new();
    states.retain(|state| {
        let second = state.costs[1];
        if stairs.range(..=second).next_back().is_some_and(|(_, harm)| *harm <= state.harm) {
            return false;
        }
        let beaten: Vec<u64> = stairs.range(second..).take_while(|(_, harm)| **harm >= state.harm).map(|(cost, _)| *cost).collect();
        stairs.retain(|cost, _| !beaten.contains(cost));
        stairs.insert(second, state.harm);
        true
    });
    states
}

/// At most [`MOST`] states and the cheapest ones: of each cell of the space of costs the one of least harm.
fn thinned(states: Vec<State>, limits: &[u64]) -> Vec<State> {
    if states.len() <= MOST {
        return states;
    }
    let sides = if limits.len() > 1 { [128, 128] } else { [MOST as u128, 1] };
    let cell = |state: &State| [0, 1].map(|d| u128::from(state.costs[d]) * sides[d] / u128::from(limits.get(d).map_or(1, |l| *l)).max(1));
    let mut kept: BTreeMap<[u128; 2], usize> = BTreeMap::new();
    for (i, state) in states.iter().enumerate() {
        let place = kept.entry(cell(state)).or_insert(i);
        if state.harm < states[*place].harm {
            *place = i;
        }
    }
    let cheapest = |d: usize| (0..states.len()).min_by_key(|i| states[*i].costs[d]);
    let mut chosen: Vec<usize> = kept.into_values().chain([cheapest(0), cheapest(1)].into_iter().flatten()).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().map(|i| states[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums(groups: &[Vec<Candidate>], taken: &[usize], limits: usize) -> (Vec<u64>, f64) {
        let of = |d: usize| groups.iter().zip(taken).map(|(g, t)| g[*t].costs[d]).sum();
        ((0..limits).map(of).collect(), groups.iter().zip(taken).map(|(g, t)| g[*t].harm).sum())
    }

    /// All choices, one after the other.
    fn choices(groups: &[Vec<Candidate>]) -> Vec<Vec<usize>> {
        groups.iter().fold(vec![vec![]], |all, group| {
            all.iter().flat_map(|head| (0..group.len()).map(move |t| head.iter().copied().chain([t]).collect())).collect()
        })
    }

    fn groups(limits: usize) -> impl Strategy<Value = Vec<Vec<Candidate>>> {
        let candidate = (-10i32..100, prop::collection::vec(0u64..50, limits));
        let candidate = candidate.prop_map(|(harm, costs)| Candidate { harm: f64::from(harm), costs });
        prop::collection::vec(prop::collection::vec(candidate, 1..4), 0..6)
    }

    fn agrees(groups: &[Vec<Candidate>], limits: &[u64]) -> Result<(), TestCaseError> {
        let within = |costs: &[u64]| costs.iter().zip(limits).all(|(c, l)| c <= l);
        let all = choices(groups).into_iter().map(|taken| sums(groups, &taken, limits.len()));
        let wanted = all.filter(|(costs, _)| within(costs)).map(|(_, harm)| harm).min_by(f64::total_cmp);
        match best(groups, limits) {
            Ok(taken) => {
                let (costs, harm) = sums(groups, &taken, limits.len());
                prop_assert!(within(&costs));
                prop_assert_eq!(Some(harm), wanted);
            }
            Err(_) => prop_assert_eq!(wanted, None),
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_the_best_of_all_within_one_limit(groups in groups(1), limit in 0u64..200) {
            agrees(&groups, &[limit])?;
        }

        #[test]
        fn it_is_the_best_of_all_within_two_limits(groups in groups(2), first in 0u64..200, second in 0u64..200) {
            agrees(&groups, &[first, second])?;
        }
    }

    #[test]
    fn the_least_possible_is_told_where_nothing_is_within_the_limits() {
        let of = |costs: [u64; 2]| costs.map(|c| Candidate { harm: 1.0 / c as f64, costs: vec![c, 2 * c] }).to_vec();
        let groups = [of([2, 8]), of([3, 4])];
        assert_eq!(best(&groups, &[4]), Err(vec![5]));
        assert_eq!(best(&groups, &[5, 9]), Err(vec![5, 10]));
        assert_eq!(best(&groups, &[5, 10]), Ok(vec![0, 0]));
        assert_eq!(best(&groups, &[100]), Ok(vec![1, 1]));
    }

    #[test]
    fn many_groups_of_many_costs_stay_within_the_limit_and_near_the_bound() {
        // Costs that all differ, so that far more choices are undominated than are kept.
        let width = |g: u64, bits: u64| Candidate {
            harm: 4f64.powi(-(bits as i32)) * (1.0 + g as f64),
            costs: vec![bits * (100_003 + g * g * 977)],
        };
        let groups: Vec<Vec<Candidate>> = (0..60).map(|g| (2..=8).map(|bits| width(g, bits)).collect()).collect();
        let elements: u64 = groups.iter().map(|g| g[0].costs[0] / 2).sum();
        let limit = elements * 7 / 2;
        let (costs, harm) = {
            let taken = best(&groups, &[limit]).unwrap();
            sums(&groups, &taken, 1)
        };
        assert!(costs[0] <= limit && costs[0] > limit - limit / 500, "{costs:?} {limit}");
        // No choice is better than the bound of a Lagrangian relaxation, for any multiplier.
        let bound = |l: f64| {
            groups.iter().map(|g| g.iter().map(|c| c.harm + l * c.costs[0] as f64).fold(f64::INFINITY, f64::min)).sum::<f64>()
                - l * limit as f64
        };
        let bound = (0..400).map(|i| bound(1e-9 * 1.05f64.powi(i))).fold(0.0, f64::max);
        assert!(harm >= bound && harm < 1.01 * bound, "{harm} {bound}");
    }

    #[test]
    fn what_cannot_be_measured_is_taken_last() {
        let groups = [vec![Candidate { harm: f64::NAN, costs: vec![1] }, Candidate { harm: 5.0, costs: vec![2] }]];
        assert_eq!((best(&groups, &[2]), best(&groups, &[1])), (Ok(vec![1]), Ok(vec![0])));
    }
}
