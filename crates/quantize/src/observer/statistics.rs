//! Statistics of a value: enough for every observer, so that one pass over the data serves all of them.
use super::moving_average::AverageRange;
use super::{Histogram, bounds};
use ops::ChannelAxis;
use serde::{Deserialize, Serialize};
use tensor::Tensor;

/// Statistics of one value over a stream of tensors: its range, the moving average of each tensor's range, a histogram, and the
/// largest element of each channel. Memory: 4,096 counters and a number for each channel, however many elements are seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    histogram: Histogram,
    average: AverageRange,
    maxima: ChannelMaxima,
}

/// The largest element at each index of axis 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum ChannelMaxima {
    /// No tensor was seen.
    #[default]
    Unseen,
    /// Of tensors of one rank.
    Of { rank: usize, largest: Vec<f32> },
    /// Tensors differ in their rank or in the length of axis 1, or have no such axis.
    Mixed,
}

impl ChannelMaxima {
    fn of(shape: &[usize], elements: &[f32]) -> Self {
        let [_, channels, rest @ ..] = shape else { return ChannelMaxima::Mixed };
        let (channels, plane) = (*channels, rest.iter().product::<usize>().max(1));
        let mut largest = vec![f32::MIN; channels];
        for (i, piece) in elements.chunks(plane).enumerate() {
            largest[i % channels] = piece.iter().fold(largest[i % channels], |a, v| a.max(*v));
        }
        ChannelMaxima::Of { rank: shape.len(), largest }
    }

    fn merge(&mut self, later: &ChannelMaxima) {
        match (&mut *self, later) {
            (_, ChannelMaxima::Unseen) => {}
            (ChannelMaxima::Unseen, later) => *self = later.clone(),
            (ChannelMaxima::Of { rank, largest }, ChannelMaxima::Of { rank: r, largest: l }) if *rank == *r && largest.len() == l.len() => {
                largest.iter_mut().zip(l).for_each(|(a, b)| *a = a.max(*b));
            }
            _ => *self = ChannelMaxima::Mixed,
        }
    }
}

impl Statistics {
    /// Empty statistics; the moving average keeps the share `momentum` (0..1) of the past at each tensor.
    pub fn new(momentum: f64) -> Self {
        Statistics { histogram: Histogram::default(), average: AverageRange::new(momentum), maxima: ChannelMaxima::Unseen }
    }

    /// Adds the elements of one tensor (f32); an empty one changes nothing.
    ///
    /// # Errors
    /// A sentence if an element is NaN or infinite, or the tensor is not f32; then nothing is changed.
    pub fn update(&mut self, tensor: &Tensor) -> Result<(), String> {
        let Some(range) = bounds(tensor)? else { return Ok(()) };
        let elements = tensor.as_slice::<f32>().map_err(|e| e.to_string())?;
        self.average.update(range);
        self.histogram.update(elements, range);
        self.maxima.merge(&ChannelMaxima::of(tensor.shape(), elements));
        Ok(())
    }

    /// The largest element of each channel, where channels lie as an operator wants them: along axis 1 of at least three for
    /// convolutions, of two for matrix products. Empty where they lie elsewhere, or tensors differ.
    pub fn largest(&self, at: ChannelAxis) -> &[f32] {
        match (&self.maxima, at) {
            (ChannelMaxima::Of { rank: 3.., largest }, ChannelAxis::Second) => largest,
            (ChannelMaxima::Of { rank: 2, largest }, ChannelAxis::Last) => largest,
            _ => &[],
        }
    }

    /// Adds later statistics with the same momentum: the result equals one pass over both, except for the moving average's last
    /// bits.
    pub fn merge(&mut self, later: &Statistics) {
        self.histogram.merge(&later.histogram);
        self.average.merge(&later.average);
        self.maxima.merge(&later.maxima);
    }

    /// Counts of elements by value, with the smallest and the largest.
    pub fn histogram(&self) -> &Histogram {
        &self.histogram
    }

    /// The moving average.
    pub fn average(&self) -> &AverageRange {
        &self.average
    }
}
