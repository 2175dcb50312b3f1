//! The shift of a channel for which the activation behind a layer has a wanted mean.
//!
//! A clipping activation passes a part of its channel: where rounding has made the channel's signal weaker, the mean in front of the
//! activation can be that of the float network while nothing passes any more. The mean behind it falls with the shift, so bisection
//! finds the shift.

/// Parts of a channel's range that are counted apart.
const BINS: usize = 2048;

/// Halvings of the interval that holds the shift.
const HALVINGS: usize = 48;

/// Smallest and largest element of a channel, zero included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Span {
    low: f64,
    high: f64,
}

impl Span {
    pub(super) fn add(&mut self, piece: &[f32]) {
        for v in piece.iter().map(|v| f64::from(*v)).filter(|v| v.is_finite()) {
            (self.low, self.high) = (self.low.min(v), self.high.max(v));
        }
    }
}

/// How often a channel's elements occur: in each bin their count and their sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spread {
    span: Span,
    bins: Vec<(f64, f64)>,
}

impl Spread {
    pub(super) fn within(span: Span) -> Self {
        Spread { span, bins: vec![(0.0, 0.0); BINS] }
    }

    pub(super) fn add(&mut self, piece: &[f32]) {
        let width = (self.span.high - self.span.low).max(f64::MIN_POSITIVE);
        for v in piece.iter().map(|v| f64::from(*v)).filter(|v| v.is_finite()) {
            let at = ((v - self.span.low) / width * BINS as f64) as usize;
            if let Some((count, sum)) = self.bins.get_mut(at.min(BINS - 1)) {
                *count += 1.0;
                *sum += v;
            }
        }
    }

    /// The mean of the elements, each reduced by `shift` and clipped.
    fn mean(&self, shift: f64, (min, max): (f64, f64)) -> f64 {
        let (mut total, mut count) = (0.0, 0.0);
        for (n, sum) in self.bins.iter().filter(|(n, _)| *n > 0.0) {
            total += n * (sum / n - shift).clamp(min, max);
            count += n;
        }
        if count > 0.0 { total / count } else { 0.0 }
    }

    /// The number to subtract from the channel for its clipped elements to have the mean `wanted`, which lies within the bounds; zero
    /// where they have it already.
    pub(super) fn shift(&self, bounds: (f64, f64), wanted: f64) -> f64 {
        let now = self.mean(0.0, bounds);
        if (now - wanted).abs() <= 1e-9 * wanted.abs().max(1e-9) {
            return 0.0;
        }
        // There every element is at least, and at most, what is wanted.
        let (mut low, mut high) = (self.span.low - wanted, self.span.high - wanted);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if self.mean(middle, bounds) > wanted { low = middle } else { high = middle }
        }
        0.5 * (low + high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(values: &[f32]) -> Spread {
        let mut span = Span::default();
        span.add(values);
        let mut spread = Spread::within(span);
        spread.add(values);
        spread
    }

    #[test]
    fn the_shifted_elements_have_the_wanted_mean_behind_the_activation() {
        let values: Vec<f32> = (0..500).map(|i| ((i * 37) % 101) as f32 / 50.0 - 3.0).collect();
        let of = spread(&values);
        for bounds in [(0.0, f64::INFINITY), (0.0, 6.0), (f64::NEG_INFINITY, f64::INFINITY), (-1.0, 1.0)] {
            for wanted in [0.05, 0.3, 0.9] {
                let shift = of.shift(bounds, wanted);
                let mean = values.iter().map(|v| (f64::from(*v) - shift).clamp(bounds.0, bounds.1)).sum::<f64>() / 500.0;
                assert!((mean - wanted).abs() < 1e-3, "{bounds:?} {wanted}: {mean}");
            }
        }
        // Without bounds: the difference of the means.
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 500.0;
        assert!((of.shift((f64::NEG_INFINITY, f64::INFINITY), 0.3) - (mean - 0.3)).abs() < 1e-9);
    }

    #[test]
    fn a_channel_of_which_nothing_passes_stays_where_nothing_should() {
        assert_eq!(spread(&[-3.0, -2.0, -1.0]).shift((0.0, 6.0), 0.0), 0.0);
        assert_eq!(spread(&[]).shift((0.0, 6.0), 0.0), 0.0);
    }
}
