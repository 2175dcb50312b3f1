//! Selection of exactly the least important elements.

/// The mask that prunes the `count` least important elements; among equals the first ones. NaN counts as most important.
pub fn least_important(importance: &[f32], count: usize) -> Vec<bool> {
    let mut live = vec![true; importance.len()];
    if count >= importance.len() {
        live.fill(false);
        return live;
    }
    if count == 0 {
        return live;
    }
    let mut order: Vec<usize> = (0..importance.len()).collect();
    let (dead, last, _) = order.select_nth_unstable_by(count - 1, |a, b| importance[*a].total_cmp(&importance[*b]).then(a.cmp(b)));
    live[*last] = false;
    dead.iter().for_each(|i| live[*i] = false);
    live
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ties_are_broken_by_position() {
        assert_eq!(least_important(&[1.0, 1.0, 0.5, 1.0], 2), vec![false, true, false, true]);
        assert_eq!(least_important(&[1.0; 4], 4), vec![false; 4]);
        assert_eq!(least_important(&[], 0), Vec::<bool>::new());
    }

    proptest! {
        #[test]
        fn exactly_count_die_and_none_is_more_important_than_a_live_one(
            values in prop::collection::vec((0u8..20).prop_map(f32::from), 0..200), share in 0f64..=1.0,
        ) {
            let count = (share * values.len() as f64).round() as usize;
            let live = least_important(&values, count);
            prop_assert_eq!(live.iter().filter(|l| !**l).count(), count);
            let dead = values.iter().zip(&live).filter(|(_, l)| !**l).map(|(v, _)| *v).fold(f32::NEG_INFINITY, f32::max);
            let kept = values.iter().zip(&live).filter(|(_, l)| **l).map(|(v, _)| *v).fold(f32::INFINITY, f32::min);
            prop_assert!(dead <= kept);
        }
    }
}
