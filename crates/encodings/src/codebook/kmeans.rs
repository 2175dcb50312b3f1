//! k-means of numbers on a line: the optimum by dynamic programming, or Lloyd's iterations from a start.
//!
//! On a line every cluster is a run of the sorted numbers, so prefix sums give the mean and the error of any cluster in constant time.
use tensor::random;

/// Most cells (numbers times centroids) of the dynamic program's tables. Above it the program runs on evenly chosen numbers, and
/// Lloyd's iterations over all numbers follow.
const CELLS: usize = 1 << 18;

/// The initial centroids of Lloyd's iterations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The centroids of least squared error, by dynamic programming (Wang and Song 2011); for large weights the optimum of evenly
    /// chosen elements, then Lloyd's iterations over all.
    #[default]
    Optimal,
    /// Evenly between the smallest and the largest element (Han et al. 2016, section 3.2: keeps the large weights).
    Linear,
    /// Quantiles: equally many elements between neighbouring centroids.
    Density,
    /// Elements drawn one after the other, each with the probability of its squared distance from those drawn before (Arthur and
    /// Vassilvitskii 2007); always the same draws.
    KmeansPlusPlus,
}

/// Sorted numbers with weights, and their prefix sums.
pub(super) struct Points {
    x: Vec<f64>,
    /// Sums of weights, of weight times number, and of weight times square over all numbers before an index.
    sums: Vec<[f64; 3]>,
}

impl Points {
    /// From pairs of a number and its weight.
    pub(super) fn new(mut pairs: Vec<(f64, f64)>) -> Points {
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut sums = Vec::with_capacity(pairs.len() + 1);
        let mut sum = [0f64; 3];
        sums.push(sum);
        for (x, w) in &pairs {
            sum = [sum[0] + w, sum[1] + w * x, sum[2] + w * x * x];
            sums.push(sum);
        }
        Points { x: pairs.into_iter().map(|p| p.0).collect(), sums }
    }

    /// `count` centroids in ascending order; with `zero` one of them is exactly zero. Fewer numbers than centroids leave the last one
    /// repeated.
    pub(super) fn fit(&self, count: usize, start: Start, iterations: usize, zero: bool) -> Vec<f64> {
        if self.x.is_empty() {
            return vec![0.0; count];
        }
        let first = match start {
            Start::Optimal => return self.best(count, iterations, zero),
            Start::Linear => self.linear(count),
            Start::Density => self.quantiles(count),
            Start::KmeansPlusPlus => self.drawn(count),
        };
        self.lloyd(first, iterations, zero)
    }

    fn best(&self, count: usize, iterations: usize, zero: bool) -> Vec<f64> {
        let most = (CELLS / count.max(1)).max(8 * count);
        if self.x.len() <= most {
            return padded(self.optimal(count, zero), count);
        }
        let chosen = (0..most).map(|i| {
            let at = i * self.x.len() / most;
            (self.x[at], self.sums[at + 1][0] - self.sums[at][0])
        });
        self.lloyd(padded(Points::new(chosen.collect()).optimal(count, zero), count), iterations, zero)
    }

    fn linear(&self, count: usize) -> Vec<f64> {
        let (lo, hi) = (self.x[0], self.x[self.x.len() - 1]);
        (0..count).map(|i| lo + (hi - lo) * i as f64 / (count - 1).max(1) as f64).collect()
    }

    fn quantiles(&self, count: usize) -> Vec<f64> {
        (0..count).map(|i| self.x[(2 * i + 1) * self.x.len() / (2 * count)]).collect()
    }

    fn drawn(&self, count: usize) -> Vec<f64> {
        let draw = |i: usize| random::unit(0xc0de, i as u64);
        let mut chosen = vec![self.x[((draw(0) * self.x.len() as f64) as usize).min(self.x.len() - 1)]];
        let mut nearest: Vec<f64> = self.x.iter().map(|x| (x - chosen[0]).powi(2)).collect();
        while chosen.len() < count {
            let weighed = |i: usize| nearest[i] * (self.sums[i + 1][0] - self.sums[i][0]);
            let total: f64 = (0..nearest.len()).map(weighed).sum();
            let mut left = draw(chosen.len()) * total;
            let at = (0..nearest.len()).find(|i| {
                left -= weighed(*i);
                left < 0.0
            });
            let next = self.x[at.unwrap_or(self.x.len() - 1)];
            chosen.push(next);
            nearest.iter_mut().zip(&self.x).for_each(|(d, x)| *d = d.min((x - next).powi(2)));
        }
        chosen
    }

    /// Lloyd's iterations: each number goes to its nearest centroid, each centroid to the mean of its numbers; a centroid without
    /// numbers stays. With `zero` the centroid nearest to zero is set to zero and stays there. Ends early if nothing moves.
    pub(super) fn lloyd(&self, mut centroids: Vec<f64>, iterations: usize, zero: bool) -> Vec<f64> {
        centroids.sort_by(f64::total_cmp);
        let fixed = (0..centroids.len()).filter(|_| zero).min_by(|a, b| centroids[*a].abs().total_cmp(&centroids[*b].abs()));
        if let Some(fixed) = fixed {
            centroids[fixed] = 0.0;
        }
        for _ in 0..iterations {
            let bounds = self.bounds(&centroids);
            let mut moved = false;
            for (i, c) in centroids.iter_mut().enumerate().filter(|(i, _)| Some(*i) != fixed) {
                let [w, wx, _] = self.between(bounds[i], bounds[i + 1]);
                if w > 0.0 && wx / w != *c {
                    (*c, moved) = (wx / w, true);
                }
            }
            if !moved {
                break;
            }
        }
        centroids
    }

    /// Start of each centroid's numbers, and the end.
    fn bounds(&self, centroids: &[f64]) -> Vec<usize> {
        let middles = centroids.windows(2).map(|c| (c[0] + c[1]) / 2.0);
        let inner = middles.map(|m| self.x.partition_point(|x| *x <= m));
        std::iter::once(0).chain(inner).chain([self.x.len()]).collect()
    }

    fn between(&self, from: usize, to: usize) -> [f64; 3] {
        let (a, b) = (self.sums[from], self.sums[to]);
        [b[0] - a[0], b[1] - a[1], b[2] - a[2]]
    }

    /// Squared error of the numbers `from..to` about their mean.
    fn spread(&self, from: usize, to: usize) -> f64 {
        let [w, wx, wxx] = self.between(from, to);
        if w > 0.0 { (wxx - wx * wx / w).max(0.0) } else { 0.0 }
    }

    /// Squared error of all numbers from their nearest centroids, which are in ascending order.
    #[cfg(test)]
    fn error(&self, centroids: &[f64]) -> f64 {
        let bounds = self.bounds(centroids);
        let one = |(i, c): (usize, &f64)| {
            let [w, wx, wxx] = self.between(bounds[i], bounds[i + 1]);
            wxx - 2.0 * c * wx + c * c * w
        };
        centroids.iter().enumerate().map(one).sum::<f64>().max(0.0)
    }

    /// The centroids of least squared error, in ascending order; at most as many as there are numbers.
    ///
    /// `best[i]` is the least error of the first `i` numbers with so many clusters; where the last cluster begins grows with `i`, so
    /// halving finds a whole row in `n log n` steps. With `zero` a second row counts those ways in which one cluster is that of
    /// zero: its error is the sum of squares, so where it begins is a running minimum.
    fn optimal(&self, count: usize, zero: bool) -> Vec<f64> {
        let n = self.x.len();
        let clusters = count.min(n + usize::from(zero));
        let mut plain: Vec<f64> = (0..=n).map(|i| if i == 0 { 0.0 } else { f64::INFINITY }).collect();
        let mut with = vec![f64::INFINITY; n + 1];
        let mut steps = vec![];
        for _ in 0..clusters {
            let (next, from) = self.row(&plain);
            let (mut best, mut came) = if zero { self.row(&with) } else { (vec![f64::INFINITY; n + 1], vec![0; n + 1]) };
            let mut is_zero = vec![false; n + 1];
            if zero {
                let mut least = (f64::INFINITY, 0);
                for i in 0..=n {
                    let open = plain[i] - self.sums[i][2];
                    if open < least.0 {
                        least = (open, i);
                    }
                    let error = least.0 + self.sums[i][2];
                    if error < best[i] {
                        (best[i], came[i], is_zero[i]) = (error, least.1 as u32, true);
                    }
                }
            }
            (plain, with) = (next, best);
            steps.push((from, came, is_zero));
        }
        // Backtracking from the end: the start of each cluster.
        let (mut at, mut zero_to_come, mut centroids) = (n, zero, vec![]);
        for (from, came, is_zero) in steps.iter().rev() {
            let begin = if zero_to_come { came[at] } else { from[at] } as usize;
            let own_zero = zero_to_come && is_zero[at];
            zero_to_come &= !own_zero;
            let [w, wx, _] = self.between(begin, at);
            match own_zero {
                true => centroids.push(0.0),
                false if w > 0.0 => centroids.push(wx / w),
                false => {}
            }
            at = begin;
        }
        centroids.sort_by(f64::total_cmp);
        centroids
    }

    /// Least errors with one cluster more than in `before`, and the start of that cluster.
    fn row(&self, before: &[f64]) -> (Vec<f64>, Vec<u32>) {
        let n = self.x.len();
        let (mut best, mut from) = (vec![f64::INFINITY; n + 1], vec![0u32; n + 1]);
        let mut open = vec![(0, n, 0, n)];
        while let Some((low, high, first, last)) = open.pop() {
            let at = (low + high) / 2;
            for (begin, so_far) in before.iter().enumerate().take(last.min(at) + 1).skip(first) {
                let error = so_far + self.spread(begin, at);
                if error < best[at] {
                    (best[at], from[at]) = (error, begin as u32);
                }
            }
            let split = if best[at].is_finite() { from[at] as usize } else { first };
            if at > low {
                open.push((low, at - 1, first, if best[at].is_finite() { split } else { last }));
            }
            if at < high {
                open.push((at + 1, high, split, last));
            }
        }
        (best, from)
    }
}

/// Exactly as many centroids as asked for: the last one is repeated, and its copies get no element.
fn padded(mut centroids: Vec<f64>, count: usize) -> Vec<f64> {
    let last = centroids.last().copied().unwrap_or(0.0);
    centroids.resize(count, last);
    centroids
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn points(x: &[f64]) -> Points {
        Points::new(x.iter().map(|x| (*x, 1.0)).collect())
    }

    /// Brute force: the least error over all ways to cut the sorted numbers into runs, one of which may be the cluster of zero.
    fn by_trying(x: &[f64], count: usize, zero: bool) -> f64 {
        let p = points(x);
        fn cut(p: &Points, from: usize, left: usize, zero: bool) -> f64 {
            let n = p.x.len();
            if left == 0 {
                return if from == n && !zero { 0.0 } else { f64::INFINITY };
            }
            (from..=n)
                .map(|to| {
                    let plain = p.spread(from, to) + cut(p, to, left - 1, zero);
                    let at_zero = if zero { p.between(from, to)[2] + cut(p, to, left - 1, false) } else { f64::INFINITY };
                    plain.min(at_zero)
                })
                .fold(f64::INFINITY, f64::min)
        }
        cut(&p, 0, count, zero)
    }

    #[test]
    fn clusters_that_stand_apart_are_found_from_every_start() {
        let x: Vec<f64> = [-4.0, -1.0, 2.0, 7.0].iter().flat_map(|c| [-0.1, 0.0, 0.1].map(|d| c + d)).collect();
        for start in [Start::Optimal, Start::Linear, Start::Density, Start::KmeansPlusPlus] {
            let found = points(&x).fit(4, start, 50, false);
            assert!(found.iter().zip([-4.0, -1.0, 2.0, 7.0]).all(|(a, b)| (a - b).abs() < 1e-9), "{start:?}: {found:?}");
        }
    }

    #[test]
    fn few_numbers_leave_centroids_over() {
        assert_eq!(points(&[1.0, 2.0]).fit(4, Start::Optimal, 10, false), [1.0, 2.0, 2.0, 2.0]);
        assert_eq!(points(&[1.0, 2.0]).fit(4, Start::Optimal, 10, true), [0.0, 1.0, 2.0, 2.0]);
        assert_eq!(points(&[]).fit(2, Start::Optimal, 10, true), [0.0, 0.0]);
        assert!(points(&[0.5; 9]).fit(4, Start::Optimal, 10, true).contains(&0.5));
    }

    #[test]
    fn many_numbers_are_fitted_by_some_of_them() {
        let x: Vec<f64> = (0..20_000).map(|i| (i as f64 * 0.7).sin()).collect();
        let p = points(&x);
        let (sampled, dense) = (p.fit(64, Start::Optimal, 100, true), p.fit(64, Start::Density, 100, true));
        assert!(sampled.contains(&0.0) && p.error(&sampled) <= p.error(&dense), "{} {}", p.error(&sampled), p.error(&dense));
    }

    proptest! {
        #[test]
        fn the_optimum_is_that_of_trying_all(x in prop::collection::vec(-3f64..3.0, 1..9), count in 1usize..5, zero: bool) {
            let p = points(&x);
            let found = p.fit(count, Start::Optimal, 0, zero);
            prop_assert!(!zero || found.contains(&0.0));
            let least = by_trying(&x, count, zero);
            prop_assert!((p.error(&found) - least).abs() < 1e-9, "{} {least} {found:?}", p.error(&found));
        }

        #[test]
        fn iterations_never_add_to_the_error(x in prop::collection::vec(-3f64..3.0, 1..60), zero: bool) {
            let p = points(&x);
            for start in [Start::Linear, Start::Density, Start::KmeansPlusPlus] {
                let errors: Vec<f64> = (0..6).map(|n| p.error(&p.fit(4, start, n, zero))).collect();
                prop_assert!(errors.windows(2).all(|e| e[1] <= e[0] + 1e-9), "{start:?} {errors:?}");
                prop_assert!(p.error(&p.fit(4, Start::Optimal, 0, zero)) <= errors[5] + 1e-9);
            }
        }
    }
}
