//! Statistics of a value: enough for every observer, so that one pass over the data serves all of them.
use super::moving_average::AverageRange;
use super::{Histogram, bounds};
use serde::{Deserialize, Serialize};
use tensor::Tensor;

/// Statistics of one value over a stream of tensors: its range, the moving average of each tensor's range, a histogram, and the
/// largest element of each channel. Memory: 4,096 counters and a number for each channel, however many elements are seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    histogram: Histogram,
    average: AverageRange,
    /// Largest element at each index of axis 1; empty where tensors differ in it.
    largest: Vec<f32>,
    uneven: bool,
}

impl Statistics {
    /// Empty statistics; the moving average keeps the share `momentum` (0..1) of the past at each tensor.
    pub fn new(momentum: f64) -> Self {
        Statistics { histogram: Histogram::default(), average: AverageRange::new(momentum), largest: vec![], uneven: false }
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
        if let [_, channels, rest @ ..] = tensor.shape() {
            let (channels, plane) = (*channels, rest.iter().product::<usize>().max(1));
            let mut largest = vec![f32::NEG_INFINITY; channels];
            for (i, piece) in elements.chunks(plane).enumerate() {
                largest[i % channels] = piece.iter().fold(largest[i % channels], |a, v| a.max(*v));
            }
            self.raise(&largest);
        }
        Ok(())
    }

    /// Takes in the largest elements of other channels.
    fn raise(&mut self, other: &[f32]) {
        if self.largest.is_empty() && !self.uneven {
            self.largest = other.to_vec();
        } else if self.largest.len() != other.len() {
            (self.largest, self.uneven) = (vec![], true);
        }
        self.largest.iter_mut().zip(other).for_each(|(a, b)| *a = a.max(*b));
    }

    /// The largest element at each index of axis 1; empty where no tensor had one, or they differ in its length.
    pub fn largest(&self) -> &[f32] {
        &self.largest
    }

    /// Adds later statistics with the same momentum: the result equals one pass over both, except for the moving average's last
    /// bits.
    pub fn merge(&mut self, later: &Statistics) {
        self.histogram.merge(&later.histogram);
        self.average.merge(&later.average);
        self.uneven |= later.uneven;
        if self.uneven {
            self.largest = vec![];
        } else if !later.largest.is_empty() {
            self.raise(&later.largest);
        }
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
