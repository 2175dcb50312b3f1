//! Differences between two computations of the same values.
use crate::{DeployError, Result};
use graph::{Model, ValueId};
use tensor::{SignalToNoise, Tensor};
use train::arg_max;

/// The difference between a reference and another computation of the same value, summed over any number of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    elements: u64,
    ratio: SignalToNoise,
    largest: f64,
    rows: u64,
    rows_equal: u64,
    samples: u64,
    samples_nan: u64,
}

impl Difference {
    /// Adds one pair of tensors of equal shape. A row is what lies along the last axis; its largest element counts as
    /// the decision (ties go to the first); one with a NaN decides nothing and equals no other. What lies behind one index
    /// of the first axis is a sample.
    ///
    /// # Errors
    /// [`DeployError::Measure`] if the shapes differ, or the elements cannot be read as numbers.
    pub fn add(&mut self, reference: &Tensor, other: &Tensor) -> Result<()> {
        if reference.shape() != other.shape() {
            let what = format!("shapes {:?} and {:?} cannot be compared", reference.shape(), other.shape());
            return Err(DeployError::Measure { what });
        }
        let (a, b) = (reference.to_f32_vec()?, other.to_f32_vec()?);
        for (x, y) in a.iter().zip(&b) {
            // Infinity minus itself is NaN; equal infinities count as no difference.
            let d = if x == y { 0.0 } else { f64::from(*y) - f64::from(*x) };
            self.ratio.add(f64::from(*x), d);
            self.largest = if (d + self.largest).is_nan() { f64::NAN } else { self.largest.max(d.abs()) };
        }
        self.elements += a.len() as u64;
        let row = reference.shape().last().copied().unwrap_or(1).max(1);
        for (x, y) in a.chunks(row).zip(b.chunks(row)) {
            self.rows += 1;
            self.rows_equal += u64::from(arg_max(x).is_some_and(|place| arg_max(y) == Some(place)));
        }
        let samples = reference.shape().first().copied().unwrap_or(1);
        self.samples += samples as u64;
        self.samples_nan += b.chunks((b.len() / samples.max(1)).max(1)).filter(|s| s.iter().any(|v| v.is_nan())).count() as u64;
        Ok(())
    }

    /// Samples compared.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples in which the other computation has a NaN.
    pub fn samples_nan(&self) -> u64 {
        self.samples_nan
    }

    /// Elements compared.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Root mean square of the difference.
    pub fn rms(&self) -> f64 {
        (self.ratio.noise / self.elements.max(1) as f64).sqrt()
    }

    /// Root mean square of the reference.
    pub fn reference_rms(&self) -> f64 {
        (self.ratio.signal / self.elements.max(1) as f64).sqrt()
    }

    /// Largest absolute difference of any element; NaN if any is.
    pub fn largest(&self) -> f64 {
        self.largest
    }

    /// Signal to quantization noise ratio in dB; infinite where nothing differs, NaN where a NaN is in either
    /// ([`SignalToNoise::db`]).
    pub fn sqnr_db(&self) -> f64 {
        self.ratio.db()
    }

    /// Share of the rows whose largest element is at the same place, 0..1.
    pub fn argmax_agreement(&self) -> f64 {
        if self.rows == 0 { 1.0 } else { self.rows_equal as f64 / self.rows as f64 }
    }
}

/// Limits on the difference between a deployed file and its simulation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Largest rms of the difference, as a share of the quantization's own rms (simulation against float).
    pub rms_share: f64,
    /// Largest difference of any element, in quantization steps of the output.
    pub steps: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { rms_share: 1.0 / 3.0, steps: 2.0 }
    }
}

/// Whether a deployed file computes what the simulation computed, for one output.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// The output's name.
    pub output: String,
    /// The simulation against the float model: what compression costs.
    pub compression: Difference,
    /// The deployed file against the simulation: what deployment adds.
    pub deployment: Difference,
    /// The deployed file against the float model: both together.
    pub whole: Difference,
    /// Quantization step of the output: the scale of its own grid, or of the nearest quantized value before it.
    pub step: Option<f64>,
}

/// True if a figure is above its limit or is NaN.
fn exceeds(value: f64, limit: f64) -> bool {
    value.partial_cmp(&limit).is_none_or(std::cmp::Ordering::is_gt)
}

impl Agreement {
    /// Largest difference in quantization steps, where the output has one.
    pub fn largest_steps(&self) -> Option<f64> {
        Some(self.deployment.largest() / self.step?)
    }

    /// Violations of the limits, as sentences; none if the file agrees with the simulation.
    pub fn violations(&self, limits: &Limits) -> Vec<String> {
        let mut out = vec![];
        let allowed = limits.rms_share * self.compression.rms();
        // Where quantization causes no error, only rounding of the last place may differ.
        let allowed = allowed.max(1e-5 * self.compression.reference_rms());
        if exceeds(self.deployment.rms(), allowed) {
            out.push(format!(
                "output '{}': rms {:.3e} from the simulation, more than {allowed:.3e} ({:.2} of the quantization's own rms)",
                self.output,
                self.deployment.rms(),
                limits.rms_share
            ));
        }
        // Differences are whole steps, up to f32 rounding.
        if let Some(steps) = self.largest_steps().filter(|s| exceeds(*s, limits.steps + 1e-3)) {
            out.push(format!("output '{}': an element is {steps:.2} quantization steps off, more than {}", self.output, limits.steps));
        }
        out
    }
}

/// Quantization step of a value: the largest scale of its own encoding, else of the nearest encoded value before it along
/// first inputs. `None` where nothing before it is quantized.
pub fn output_step(model: &Model, value: ValueId) -> Option<f64> {
    let (mut value, linked) = (value, model.graph.linked());
    for _ in 0..=model.graph.nodes.len() {
        let scale = model.annotations.encoding(value).and_then(|e| e.parameters.get("scale"));
        if let Some(scale) = scale {
            return scale.to_f32_vec().ok()?.into_iter().map(f64::from).reduce(f64::max);
        }
        value = linked.maker(value)?.input(0)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(a: &[f32], b: &[f32], shape: &[usize]) -> Difference {
        let mut d = Difference::default();
        d.add(&Tensor::new(a.to_vec(), shape).unwrap(), &Tensor::new(b.to_vec(), shape).unwrap()).unwrap();
        d
    }

    #[test]
    fn figures_of_a_known_difference() {
        let d = difference(&[3.0, 4.0, 0.0, 5.0], &[3.0, 4.5, 0.0, 4.0], &[2, 2]);
        assert_eq!(d.elements(), 4);
        assert!((d.rms() - (1.25f64 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(d.largest(), 1.0);
        assert!((d.sqnr_db() - 10.0 * (50.0f64 / 1.25).log10()).abs() < 1e-9);
        assert_eq!(d.argmax_agreement(), 1.0);
        assert_eq!(difference(&[1.0, 2.0], &[2.0, 1.0], &[1, 2]).argmax_agreement(), 0.0);
        assert_eq!(difference(&[1.0], &[1.0], &[1]).sqnr_db(), f64::INFINITY);
    }

    #[test]
    fn other_shapes_are_refused_and_nan_is_not_hidden() {
        let mut d = Difference::default();
        assert!(d.add(&Tensor::vector(vec![1f32]), &Tensor::vector(vec![1f32, 2.0])).is_err());
        d.add(&Tensor::vector(vec![1f32, 1.0]), &Tensor::vector(vec![f32::NAN, 1.0])).unwrap();
        assert!(d.largest().is_nan() && d.rms().is_nan() && d.sqnr_db().is_nan());
        let infinite = [f32::INFINITY, f32::NEG_INFINITY];
        assert_eq!(difference(&infinite, &infinite, &[2]).largest(), 0.0);
        assert_eq!(difference(&infinite, &[1.0, f32::NEG_INFINITY], &[2]).largest(), f64::INFINITY);
    }

    #[test]
    fn a_nan_decides_nothing_and_equals_no_other_not_even_itself() {
        let nan = f32::NAN;
        let d = difference(&[nan, 1.0, 3.0, 4.0], &[nan, 1.0, 3.0, 4.0], &[2, 2]);
        assert_eq!((d.argmax_agreement(), d.samples(), d.samples_nan()), (0.5, 2, 1));
        let d = difference(&[3.0, 1.0, 3.0, 4.0], &[3.0, -nan, 3.0, 4.0], &[2, 2]);
        assert_eq!((d.argmax_agreement(), d.samples_nan()), (0.5, 1));
    }

    #[test]
    fn each_limit_has_its_sentence() {
        let agreement = Agreement {
            output: "y".into(),
            compression: difference(&[1.0, 2.0], &[1.1, 2.1], &[1, 2]),
            deployment: difference(&[1.1, 2.1], &[2.1, 1.1], &[1, 2]),
            whole: difference(&[1.0, 2.0], &[2.1, 1.1], &[1, 2]),
            step: Some(0.1),
        };
        assert_eq!(agreement.violations(&Limits::default()).len(), 2);
        let same = Agreement { deployment: difference(&[1.1, 2.1], &[1.1, 2.1], &[1, 2]), ..agreement };
        assert!(same.violations(&Limits::default()).is_empty());
    }
}
