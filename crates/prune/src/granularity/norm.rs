//! The importance of a group of elements.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the importance of a group follows from that of its n elements. Each is a mean, so that groups of different sizes compare by what
/// a zero costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupNorm {
    /// The mean of the elements' importance: by magnitude the L1 norm over n.
    L1,
    /// The root of the mean of its square: by magnitude the L2 norm over the root of n; by taylor the summed effect on the loss.
    #[default]
    L2,
    /// The largest.
    Max,
}

impl GroupNorm {
    /// Adds an element's importance to a group's sum.
    pub(crate) fn add(self, sum: &mut f64, importance: f32) {
        let v = f64::from(importance);
        match self {
            GroupNorm::L1 => *sum += v,
            GroupNorm::L2 => *sum += v * v,
            GroupNorm::Max => *sum = sum.max(v),
        }
    }

    /// The importance of a group of `n` elements.
    pub(crate) fn finish(self, sum: f64, n: usize) -> f32 {
        let n = n.max(1) as f64;
        (match self {
            GroupNorm::L1 => sum / n,
            GroupNorm::L2 => (sum / n).sqrt(),
            GroupNorm::Max => sum,
        }) as f32
    }

    /// The importance of groups together, each with its number of elements.
    pub(crate) fn joined(self, groups: &[(f32, usize)]) -> f32 {
        let (mut sum, mut n) = (0.0, 0);
        for (importance, count) in groups {
            let mut one = 0.0;
            self.add(&mut one, *importance);
            match self {
                GroupNorm::Max => sum = f64::max(sum, one),
                GroupNorm::L1 | GroupNorm::L2 => sum += one * *count as f64,
            }
            n += count;
        }
        self.finish(sum, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_means_over_the_elements() {
        let of = |norm: GroupNorm, values: &[f32]| {
            let mut sum = 0.0;
            values.iter().for_each(|v| norm.add(&mut sum, *v));
            norm.finish(sum, values.len())
        };
        assert_eq!(of(GroupNorm::L1, &[1.0, 3.0]), 2.0);
        assert_eq!(of(GroupNorm::L2, &[1.0, 7.0]), 5.0);
        assert_eq!(of(GroupNorm::Max, &[1.0, 7.0, 2.0]), 7.0);
        for norm in [GroupNorm::L1, GroupNorm::L2, GroupNorm::Max] {
            assert_eq!(of(norm, &[2.0; 5]), 2.0);
            // Of two groups together it is that of all their elements.
            let (a, b) = ([1.0, 3.0, 2.0], [7.0, 1.0]);
            let together = norm.joined(&[(of(norm, &a), 3), (of(norm, &b), 2)]);
            assert!((together - of(norm, &[a.as_slice(), &b].concat())).abs() < 1e-6);
            assert_eq!(norm.joined(&[(f32::INFINITY, 2), (1.0, 2)]), f32::INFINITY);
        }
    }
}
