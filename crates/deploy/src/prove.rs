//! The proof that a deployed file computes what the simulation computed, and how well it does in each arithmetic.
use crate::measure::{Accuracy, Agreement, Confusion, Difference, Limits, Runs, output_step, scores, split};
use crate::runtime::{Choice, Runtime, SessionOptions, Source};
use crate::{DeployError, Result};
use graph::Model;
use std::collections::BTreeMap;
use tensor::Tensor;
use train::{Batch, Executor, Mode, TrainError};

/// Outputs nearer to noise than this (in decibels) get a warning where no label tells how good they are.
pub const SQNR_FLOOR_DB: f64 = 10.0;

/// Literal and default accuracy further apart than this (in points) get a warning, if it is more than chance.
const NOTICEABLE_POINTS: f64 = 0.1;

/// How a proof is made.
#[derive(Clone, Debug)]
pub struct ProofOptions {
    /// Threads of the runtime's sessions.
    pub threads: usize,
    /// What the deployed file is held to.
    pub limits: Limits,
    /// The output whose largest element is the decision; `None`: the only output, if it is `[n, classes]`.
    pub scored: Option<String>,
    /// Batches on which the reference interpreter runs the file too; it is slower than a runtime.
    pub reference_batches: usize,
}

impl Default for ProofOptions {
    fn default() -> Self {
        ProofOptions { threads: 1, limits: Limits::default(), scored: None, reference_batches: 1 }
    }
}

/// What a deployed file was found to do.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The runtime that served, with its version.
    pub runtime: String,
    /// Samples that were run.
    pub samples: u64,
    /// The file in literal arithmetic against the simulation, by output: what decides.
    pub literal: Vec<Agreement>,
    /// The file with the runtime's defaults against the simulation, by output.
    pub default: Vec<Agreement>,
    /// The file in the reference interpreter against the simulation, by output, on the first batches.
    pub reference: Vec<Agreement>,
    /// Accuracies, where the data has labels.
    pub accuracy: Option<Accuracies>,
    /// What each class was taken for by the file with the runtime's defaults, where the data has labels.
    pub confusion: Option<Confusion>,
    /// What goes beyond a limit, as sentences; none if the file is proved.
    pub violations: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Accuracy of one network in each of its forms, on the same samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracies {
    /// The graph without its encodings; masks hold.
    pub float: Accuracy,
    /// The graph in simulation.
    pub simulated: Accuracy,
    /// The file in literal arithmetic.
    pub literal: Accuracy,
    /// The file with the runtime's defaults.
    pub default: Accuracy,
    /// Samples that one of the file's two arithmetics has right and the other wrong.
    pub split: u64,
}

impl Proof {
    /// True if the file computes what the simulation computed.
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Runs an annotated model (float, its masks applied, and simulated) and the file that was made from it (literal, with the runtime's
/// defaults, and in the reference interpreter) over the same data, and compares.
///
/// # Errors
/// Whatever a run or the data reports; a file that does not agree is no error but [`Proof::violations`].
pub fn prove(
    model: &Model,
    file: Source,
    choice: &Choice,
    batches: &mut dyn Iterator<Item = Result<Batch, TrainError>>,
    options: &ProofOptions,
) -> Result<Proof> {
    let executor = Executor::new(model)?;
    let masked = without_encodings(model);
    let float = Executor::new(&masked)?;
    let runtime = choice.runtime.as_ref();
    let mut literal = runtime.load(file, SessionOptions::literal(options.threads))?;
    let mut default = runtime.load(file, SessionOptions::default_arithmetic(options.threads))?;
    let mut reference = crate::runtime::Reference.load(file, SessionOptions::literal(options.threads))?;
    let mut tally = Tally::new(model, options);
    for (i, batch) in batches.enumerate() {
        let batch = batch?;
        let forms = Forms {
            float: batch.counted_values(float.run(&batch.inputs, Mode::SIMULATED)?)?,
            simulated: batch.counted_values(executor.run(&batch.inputs, Mode::SIMULATED)?)?,
            literal: batch.counted_values(literal.outputs_of(&batch.inputs)?)?,
            default: batch.counted_values(default.outputs_of(&batch.inputs)?)?,
            reference: if i < options.reference_batches { Some(batch.counted_values(reference.run(&batch.inputs)?)?) } else { None },
        };
        tally.add(&batch, &forms)?;
    }
    if tally.samples == 0 {
        return Err(DeployError::Measure { what: "a proof needs at least one batch of data".into() });
    }
    Ok(tally.finish(format!("{} {}", runtime.name(), runtime.version()), choice.note.clone(), &options.limits))
}

/// The float network that was quantized: what a mask holds at zero is no noise of quantization.
fn without_encodings(model: &Model) -> Model {
    let mut masked = model.clone();
    let encoded: Vec<graph::ValueId> = model.annotations.iter().filter(|(_, a)| a.encoding.is_some()).map(|(id, _)| id).collect();
    for id in encoded {
        masked.annotations.entry(id).encoding = None;
    }
    masked
}

/// One batch's outputs in every form.
struct Forms {
    float: BTreeMap<String, Tensor>,
    simulated: BTreeMap<String, Tensor>,
    literal: BTreeMap<String, Tensor>,
    default: BTreeMap<String, Tensor>,
    reference: Option<BTreeMap<String, Tensor>>,
}

/// Sums over the batches.
struct Tally {
    samples: u64,
    scored: Option<String>,
    literal: Vec<Agreement>,
    default: Vec<Agreement>,
    reference: Vec<Agreement>,
    accuracy: Option<Accuracies>,
    confusion: Option<Confusion>,
    /// Outputs whose elements are real numbers.
    real: Vec<String>,
}

impl Tally {
    fn new(model: &Model, options: &ProofOptions) -> Self {
        let outputs = &model.graph.outputs;
        let is_scores = |v: &graph::ValueId| model.values[*v].shape().is_none_or(|s| s.len() == 2);
        let scored = options.scored.clone().or_else(|| match outputs.as_slice() {
            [one] if is_scores(one) => Some(model.values[*one].name.clone()),
            _ => None,
        });
        let start: Vec<Agreement> = outputs
            .iter()
            .map(|v| {
                let output = model.values[*v].name.clone();
                Agreement {
                    classifier: scored.as_ref() == Some(&output),
                    step: output_step(model, *v),
                    output,
                    compression: Difference::default(),
                    deployment: Difference::default(),
                    whole: Difference::default(),
                }
            })
            .collect();
        let is_real = |v: &&graph::ValueId| model.values[**v].dtype().is_none_or(|d| d.is_float());
        let real = outputs.iter().filter(is_real).map(|v| model.values[*v].name.clone()).collect();
        let (literal, default) = (start.clone(), start.clone());
        Tally { samples: 0, scored, literal, default, reference: start, accuracy: None, confusion: None, real }
    }

    fn add(&mut self, batch: &Batch, forms: &Forms) -> Result<()> {
        self.samples += batch.len() as u64;
        add(&mut self.literal, forms, &forms.literal)?;
        add(&mut self.default, forms, &forms.default)?;
        if let Some(reference) = &forms.reference {
            add(&mut self.reference, forms, reference)?;
        }
        if let (Some(labels), Some(scored)) = (batch.targets.get("label"), self.scored.as_deref()) {
            let sums = self.accuracy.get_or_insert_default();
            for (sum, outputs) in [
                (&mut sums.float, &forms.float),
                (&mut sums.simulated, &forms.simulated),
                (&mut sums.literal, &forms.literal),
                (&mut sums.default, &forms.default),
            ] {
                sum.add(scores(outputs, Some(scored))?, labels)?;
            }
            sums.split += split(scores(&forms.literal, Some(scored))?, scores(&forms.default, Some(scored))?, labels)?;
            self.confusion.get_or_insert_default().add(scores(&forms.default, Some(scored))?, labels)?;
        }
        Ok(())
    }

    fn finish(self, runtime: String, note: Option<String>, limits: &Limits) -> Proof {
        let violations = self.literal.iter().flat_map(|a| a.violations(limits)).collect();
        let mut warnings: Vec<String> = note.into_iter().collect();
        warnings.extend(self.accuracy.as_ref().and_then(arithmetic_warning));
        warnings.extend(self.default.iter().filter_map(nan_warning));
        if self.accuracy.is_none() {
            warnings.extend(self.default.iter().filter(|a| self.real.contains(&a.output)).filter_map(noise_warning));
        }
        Proof {
            runtime,
            samples: self.samples,
            literal: self.literal,
            default: self.default,
            reference: self.reference.into_iter().filter(|a| a.deployment.elements() > 0).collect(),
            accuracy: self.accuracy,
            confusion: self.confusion,
            violations,
            warnings,
        }
    }
}

fn add(agreements: &mut [Agreement], forms: &Forms, deployed: &BTreeMap<String, Tensor>) -> Result<()> {
    for agreement in agreements {
        let name = &agreement.output;
        let of = |outputs: &BTreeMap<String, Tensor>| {
            outputs.get(name).cloned().ok_or_else(|| DeployError::Measure { what: format!("output '{name}' is not in the deployed file") })
        };
        let (float, simulated, deployed) = (of(&forms.float)?, of(&forms.simulated)?, of(deployed)?);
        agreement.compression.add(&float, &simulated)?;
        agreement.deployment.add(&simulated, &deployed)?;
        agreement.whole.add(&float, &deployed)?;
    }
    Ok(())
}

/// A sentence where the deployed file's output has NaN.
fn nan_warning(a: &Agreement) -> Option<String> {
    let (nan, samples) = (a.deployment.samples_nan(), a.deployment.samples());
    (nan > 0).then(|| {
        let before = a.compression.samples_nan();
        format!(
            "output '{}': {nan} of {samples} samples have NaN in the deployed file, {before} in the simulation; none counts as right",
            a.output
        )
    })
}

/// A sentence where quantization left little of an output.
fn noise_warning(a: &Agreement) -> Option<String> {
    let sqnr = a.whole.sqnr_db();
    (a.whole.reference_rms() > 0.0 && sqnr < SQNR_FLOOR_DB).then(|| {
        format!(
            "output '{}': {sqnr:.1} dB of signal to noise against the float network, below {SQNR_FLOOR_DB} dB: little of it may be left; \
             `espalier compare` shows the layer where it is lost, `skip` keeps one in float, more bits or another observer may help",
            a.output
        )
    })
}

/// A sentence where the runtime's default arithmetic costs (or gains) noticeably against the literal one: more than two standard
/// errors of a difference of paired decisions, which are the root of the number of samples that they are split over. Where
/// roundings alone decide, each of those falls to either side.
fn arithmetic_warning(a: &Accuracies) -> Option<String> {
    let (literal, default) = (100.0 * a.literal.top1_share(), 100.0 * a.default.top1_share());
    let told = a.literal.top1.abs_diff(a.default.top1) as f64 > 2.0 * (a.split as f64).sqrt();
    (told && (literal - default).abs() > NOTICEABLE_POINTS).then(|| {
        format!(
            "the runtime's default arithmetic, which ships and counts, scores {default:.2} %, literal arithmetic {literal:.2} %: its integer \
             kernels may saturate on this processor; `reduce_range = true` (7-bit weights) avoids that"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_between_arithmetics_is_reported_with_its_remedy() {
        let of = |top1| Accuracy { samples: 1000, top1, top5: 1000, nan: 0 };
        let mut a = Accuracies { literal: of(900), default: of(898), ..Accuracies::default() };
        assert!(arithmetic_warning(&a).unwrap().contains("reduce_range"));
        a.default = of(899);
        assert_eq!(arithmetic_warning(&a), None);
    }

    #[test]
    fn a_gap_that_few_images_do_not_tell_from_chance_is_no_alarm() {
        let of = |top1| Accuracy { samples: 64, top1, top5: 64, nan: 0 };
        let told = |default, split| {
            let a = Accuracies { literal: of(60), default: of(default), split, ..Accuracies::default() };
            arithmetic_warning(&a).is_some()
        };
        assert!(!told(59, 1) && !told(61, 1) && !told(57, 3));
        assert!(told(55, 5), "five of five against it");
        assert!(!told(55, 7) && told(40, 22));
    }

    fn whole(float: &[f32], file: &[f32]) -> Agreement {
        let mut difference = Difference::default();
        difference.add(&Tensor::vector(float.to_vec()), &Tensor::vector(file.to_vec())).unwrap();
        let d = difference;
        Agreement { output: "y".into(), compression: d, deployment: d, whole: d, step: None, classifier: false }
    }

    #[test]
    fn noise_and_nan_in_an_output_are_told_with_figures() {
        assert_eq!(noise_warning(&whole(&[1.0, 2.0], &[1.0, 2.1])), None);
        assert_eq!(noise_warning(&whole(&[0.0, 0.0], &[0.0, 0.0])), None);
        assert!(noise_warning(&whole(&[1.0, 2.0], &[2.0, 1.0])).unwrap().contains("4.0 dB"));
        assert_eq!(nan_warning(&whole(&[1.0, 2.0], &[2.0, 1.0])), None);
        let told = nan_warning(&whole(&[1.0, 2.0], &[f32::NAN, 1.0])).unwrap();
        assert!(told.starts_with("output 'y': 1 of 2 samples have NaN"), "{told}");
    }
}
