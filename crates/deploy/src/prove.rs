//! The proof that a deployed file computes what the simulation computed, and how well it does in each arithmetic.
use crate::measure::{Accuracy, Agreement, Difference, Limits, Runs, output_step, scores};
use crate::runtime::{Choice, Runtime, SessionOptions, Source};
use crate::{DeployError, Result};
use graph::Model;
use std::collections::BTreeMap;
use tensor::Tensor;
use train::{Batch, Executor, Mode, TrainError};

/// Literal and default accuracy further apart than this (in points) get a warning.
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
    /// What goes beyond a limit, as sentences; none if the file is proved.
    pub violations: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Accuracy of one network in each of its forms, on the same samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accuracies {
    /// The graph without its annotations.
    pub float: Accuracy,
    /// The graph in simulation.
    pub simulated: Accuracy,
    /// The file in literal arithmetic.
    pub literal: Accuracy,
    /// The file with the runtime's defaults.
    pub default: Accuracy,
}

impl Proof {
    /// True if the file computes what the simulation computed.
    pub fn holds(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Runs an annotated model (float and simulated) and the file that was made from it (literal, with the runtime's
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
    let runtime = choice.runtime.as_ref();
    let mut literal = runtime.load(file, SessionOptions::literal(options.threads))?;
    let mut default = runtime.load(file, SessionOptions::default_arithmetic(options.threads))?;
    let mut reference = crate::runtime::Reference.load(file, SessionOptions::literal(options.threads))?;
    let mut tally = Tally::new(model, options);
    for (i, batch) in batches.enumerate() {
        let batch = batch?;
        let forms = Forms {
            float: batch.counted_values(executor.run(&batch.inputs, Mode::FLOAT)?)?,
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
                }
            })
            .collect();
        Tally { samples: 0, scored, literal: start.clone(), default: start.clone(), reference: start, accuracy: None }
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
        }
        Ok(())
    }

    fn finish(self, runtime: String, note: Option<String>, limits: &Limits) -> Proof {
        let violations = self.literal.iter().flat_map(|a| a.violations(limits)).collect();
        let mut warnings: Vec<String> = note.into_iter().collect();
        warnings.extend(self.accuracy.as_ref().and_then(arithmetic_warning));
        Proof {
            runtime,
            samples: self.samples,
            literal: self.literal,
            default: self.default,
            reference: self.reference.into_iter().filter(|a| a.deployment.elements() > 0).collect(),
            accuracy: self.accuracy,
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
    }
    Ok(())
}

/// A sentence where the runtime's default arithmetic costs (or gains) noticeably against the literal one.
fn arithmetic_warning(a: &Accuracies) -> Option<String> {
    let (literal, default) = (100.0 * a.literal.top1_share(), 100.0 * a.default.top1_share());
    ((literal - default).abs() > NOTICEABLE_POINTS).then(|| {
        format!(
            "the runtime's default arithmetic scores {default:.2} %, literal arithmetic {literal:.2} %: its integer kernels saturate on this \
             processor; `reduce_range = true` (7-bit weights) avoids that"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_between_arithmetics_is_reported_with_its_remedy() {
        let of = |top1| Accuracy { samples: 1000, top1, top5: 1000 };
        let mut a = Accuracies { literal: of(900), default: of(898), ..Accuracies::default() };
        assert!(arithmetic_warning(&a).unwrap().contains("reduce_range"));
        a.default = of(899);
        assert_eq!(arithmetic_warning(&a), None);
    }
}
