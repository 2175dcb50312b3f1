//! Gradual pruning.

/// Sparsity after a fraction of a gradual pruning: fast at first, while much is redundant, slow at the end.
///
/// `progress` is clamped to 0..1; at 0 the result is `from`, at 1 it is `to`.
///
/// # Source
/// Zhu & Gupta 2017, arXiv:1710.01878, eq. 1: `to + (from - to) * (1 - progress)^3`.
pub fn cubic(from: f64, to: f64, progress: f64) -> f64 {
    to + (from - to) * (1.0 - progress.clamp(0.0, 1.0)).powi(3)
}

#[cfg(test)]
mod tests {
    use super::cubic;

    #[test]
    fn starts_and_ends_where_it_should_and_rises() {
        assert_eq!((cubic(0.25, 0.75, 0.0), cubic(0.25, 0.75, 1.0), cubic(0.25, 0.75, 7.0)), (0.25, 0.75, 0.75));
        let steps: Vec<f64> = (0..=10).map(|i| cubic(0.0, 0.5, f64::from(i) / 10.0)).collect();
        assert!(steps.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(steps[5], 0.4375);
    }
}
