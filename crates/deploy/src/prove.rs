//! The proof that a deployed file computes what the simulation computed, and the file's figures in each arithmetic.
use crate::measure::{Agreement, Difference, Limits, Runs, output_step};
use crate::runtime::{Choice, Runtime, SessionOptions, Source};
use crate::{DeployError, Result};
use graph::{Model, ValueId};
use std::collections::BTreeMap;
use technique::Choice as Chosen;
use tensor::Tensor;
use train::{Batch, Better, Executor, Figures, MetricFacts, Mode, Reads, Score, Tasks, TrainError, by_value};

/// Signal-to-noise ratio, in decibels, below which an output without labels gets a warning.
pub const SQNR_FLOOR_DB: f64 = 10.0;

/// Difference between the accuracies in literal and default arithmetic, in percentage points, from which on there is a warning,
/// if it is more than chance.
const NOTICEABLE_POINTS: f64 = 0.1;

/// The same for other figures, as a share of the literal one.
const NOTICEABLE_PART: f64 = 0.01;

/// Options of a proof.
#[derive(Clone, Debug)]
pub struct ProofOptions {
    /// Threads of the runtime's sessions.
    pub threads: usize,
    /// The limits that the deployed file must keep.
    pub limits: Limits,
    /// The task of the model.
    pub task: Chosen<Tasks>,
    /// The output that is scored; `None`: the one that the task names.
    pub scored: Option<String>,
    /// Batches on which the reference interpreter runs the file too; it is slower than a runtime.
    pub reference_batches: usize,
    /// Holds the reference interpreter's outputs to the limits instead of the runtime's literal ones: for a format whose operators
    /// round once more than the simulation, in a way that is the runtime's own ([`crate::format::Format::rounds_itself`]).
    pub by_reference: bool,
}

impl Default for ProofOptions {
    fn default() -> Self {
        ProofOptions {
            threads: 1,
            limits: Limits::default(),
            task: Chosen::default(),
            scored: None,
            reference_batches: 1,
            by_reference: false,
        }
    }
}

/// The result of a proof.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The runtime that ran the file, with its version.
    pub runtime: String,
    /// Samples that were run.
    pub samples: u64,
    /// The file in literal arithmetic against the simulation, by output. This comparison decides.
    pub literal: Vec<Agreement>,
    /// The file with the runtime's defaults against the simulation, by output.
    pub default: Vec<Agreement>,
    /// The file in the reference interpreter against the simulation, by output, on the first batches.
    pub reference: Vec<Agreement>,
    /// The task's figures, where the data has targets.
    pub figures: Option<Scores<Figures>>,
    /// How near the scored output of the file is to the simulation's, as the task compares them: in literal arithmetic, and with the
    /// runtime's defaults. Empty without a scored output.
    pub nearness: [BTreeMap<&'static str, f64>; 2],
    /// Violations of the limits, as sentences; none if the file is proved.
    pub violations: Vec<String>,
    /// Notes for the user.
    pub warnings: Vec<String>,
}

/// A figure of one network in each of its forms, on the same samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores<T> {
    /// The graph without its encodings; masks hold.
    pub float: T,
    /// The graph in simulation.
    pub simulated: T,
    /// The file in literal arithmetic.
    pub literal: T,
    /// The file with the runtime's defaults.
    pub default: T,
}

impl<T> Scores<T> {
    fn map<U>(&self, f: impl Fn(&T) -> U) -> Scores<U> {
        Scores { float: f(&self.float), simulated: f(&self.simulated), literal: f(&self.literal), default: f(&self.default) }
    }
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
    let mut tally = Tally::new(model, options)?;
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

/// The float network that was quantized; its masks hold, since masking is no noise of quantization.
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
struct Tally<'m> {
    model: &'m Model,
    task: Chosen<Tasks>,
    samples: u64,
    scored: Option<ValueId>,
    literal: Vec<Agreement>,
    default: Vec<Agreement>,
    reference: Vec<Agreement>,
    /// The scored output of the file against the simulation, literally and by default.
    nearness: [Box<dyn train::Agreement>; 2],
    scores: Option<Scores<Box<dyn Score>>>,
    /// The main figure of each sample in default arithmetic, less that in literal.
    between: Between,
    /// Outputs whose elements are real numbers.
    real: Vec<String>,
    by_reference: bool,
}

/// Sums of the differences of the main figure, sample by sample.
#[derive(Clone, Copy, Debug, Default)]
struct Between {
    sum: f64,
    squares: f64,
}

impl<'m> Tally<'m> {
    fn new(model: &'m Model, options: &ProofOptions) -> Result<Self> {
        let outputs = &model.graph.outputs;
        let task = options.task.clone();
        let scored = match &options.scored {
            Some(name) => Some(named(model, name)?),
            None => task.output(model),
        };
        let start: Vec<Agreement> = outputs
            .iter()
            .map(|v| Agreement {
                output: model.values[*v].name.clone(),
                step: output_step(model, *v),
                compression: Difference::default(),
                deployment: Difference::default(),
                whole: Difference::default(),
            })
            .collect();
        let is_real = |v: &&graph::ValueId| model.values[**v].dtype().is_none_or(|d| d.is_float());
        let real = outputs.iter().filter(is_real).map(|v| model.values[*v].name.clone()).collect();
        let (literal, default) = (start.clone(), start.clone());
        let nearness = [task.agreement(), task.agreement()];
        Ok(Tally {
            model,
            task,
            samples: 0,
            scored,
            literal,
            default,
            reference: start,
            nearness,
            scores: None,
            between: Between::default(),
            real,
            by_reference: options.by_reference,
        })
    }

    fn add(&mut self, batch: &Batch, forms: &Forms) -> Result<()> {
        self.samples += batch.len() as u64;
        add(&mut self.literal, forms, &forms.literal)?;
        add(&mut self.default, forms, &forms.default)?;
        if let Some(reference) = &forms.reference {
            add(&mut self.reference, forms, reference)?;
        }
        let Some(scored) = self.scored else { return Ok(()) };
        let labelled = batch.targets.contains_key(self.task.target());
        let name = &self.model.values[scored].name;
        let simulated = output(&forms.simulated, name)?;
        let held = if self.by_reference { forms.reference.as_ref() } else { Some(&forms.literal) };
        for (near, outputs) in self.nearness.iter_mut().zip([held, Some(&forms.default)]) {
            let Some(outputs) = outputs else { continue };
            if labelled || !near.needs_targets() {
                near.add(simulated, output(outputs, name)?, batch)?;
            }
        }
        if labelled { self.score(scored, batch, forms) } else { Ok(()) }
    }

    fn score(&mut self, scored: ValueId, batch: &Batch, forms: &Forms) -> Result<()> {
        let fresh = || self.task.score(self.model, Reads::Output(scored));
        if self.scores.is_none() {
            self.scores = Some(Scores { float: fresh()?, simulated: fresh()?, literal: fresh()?, default: fresh()? });
        }
        let Some(sums) = &mut self.scores else { return Ok(()) };
        let of = |outputs: &BTreeMap<String, Tensor>| by_value(self.model, outputs);
        let (literal, default) = (of(&forms.literal), of(&forms.default));
        sums.float.add(&of(&forms.float), batch)?;
        sums.simulated.add(&of(&forms.simulated), batch)?;
        sums.literal.add(&literal, batch)?;
        sums.default.add(&default, batch)?;
        for (literal, default) in sums.literal.each(&literal, batch)?.into_iter().zip(sums.default.each(&default, batch)?) {
            self.between.sum += default - literal;
            self.between.squares += (default - literal).powi(2);
        }
        Ok(())
    }

    fn finish(self, runtime: String, note: Option<String>, limits: &Limits) -> Proof {
        let held = if self.by_reference { &self.reference } else { &self.literal };
        let mut violations: Vec<String> = held.iter().flat_map(|a| a.violations(limits)).collect();
        violations.extend(self.scored.iter().flat_map(|v| self.nearness[0].violations(&self.model.values[*v].name)));
        let figures = self.scores.as_ref().map(|s| s.map(|score| score.figures()));
        let metric = self.task.main_metric();
        let mut warnings: Vec<String> = note.into_iter().collect();
        warnings.extend(figures.as_ref().and_then(|f| arithmetic_warning(metric, &f.literal, &f.default, self.between)));
        warnings.extend(self.default.iter().filter_map(nan_warning));
        if figures.is_none() {
            warnings.extend(self.default.iter().filter(|a| self.real.contains(&a.output)).filter_map(noise_warning));
        }
        Proof {
            runtime,
            samples: self.samples,
            literal: self.literal,
            default: self.default,
            reference: self.reference.into_iter().filter(|a| a.deployment.elements() > 0).collect(),
            figures,
            nearness: if self.scored.is_some() { self.nearness.map(|n| n.figures()) } else { Default::default() },
            violations,
            warnings,
        }
    }
}

/// The model's output of this name.
fn named(model: &Model, name: &str) -> Result<ValueId> {
    let outputs = &model.graph.outputs;
    outputs.iter().copied().find(|v| model.values[*v].name == name).ok_or_else(|| {
        let names: Vec<&str> = outputs.iter().map(|v| model.values[*v].name.as_str()).collect();
        DeployError::Measure { what: format!("the model has no output '{name}'; it has {}", names.join(", ")) }
    })
}

fn output<'o>(outputs: &'o BTreeMap<String, Tensor>, name: &str) -> Result<&'o Tensor> {
    outputs.get(name).ok_or_else(|| DeployError::Measure { what: format!("output '{name}' is not in the deployed file") })
}

fn add(agreements: &mut [Agreement], forms: &Forms, deployed: &BTreeMap<String, Tensor>) -> Result<()> {
    for agreement in agreements {
        let name = &agreement.output;
        let of = |outputs: &BTreeMap<String, Tensor>| output(outputs, name).cloned();
        let (float, simulated, deployed) = (of(&forms.float)?, of(&forms.simulated)?, of(deployed)?);
        agreement.compression.add(&float, &simulated)?;
        agreement.deployment.add(&simulated, &deployed)?;
        agreement.whole.add(&float, &deployed)?;
    }
    Ok(())
}

/// A sentence if the deployed file's output has NaN.
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

/// A sentence if the quantized output is mostly noise.
fn noise_warning(a: &Agreement) -> Option<String> {
    let sqnr = a.whole.sqnr_db();
    (a.whole.reference_rms() > 0.0 && sqnr < SQNR_FLOOR_DB).then(|| {
        format!(
            "output '{}': {sqnr:.1} dB of signal to noise against the float network, below {SQNR_FLOOR_DB} dB: most of the output may be \
             noise; `espalier compare` shows the layer that causes it, `skip` keeps a layer in float, more bits or another observer may \
             help",
            a.output
        )
    })
}

/// A sentence where the runtime's default arithmetic costs (or gains) noticeably against the literal one: more than two standard
/// errors of a sum of paired differences, which are the root of the sum of their squares (for right and wrong, of the number of
/// samples that one of the two has right and the other wrong). Where roundings alone decide, each of those falls to either side.
fn arithmetic_warning(metric: &MetricFacts, literal: &Figures, default: &Figures, between: Between) -> Option<String> {
    let scale = if metric.percent { 100.0 } else { 1.0 };
    let (literal, default) = (scale * *literal.values.get(metric.key)?, scale * *default.values.get(metric.key)?);
    let told = between.sum.abs() > 2.0 * between.squares.sqrt();
    let noticeable = if metric.percent { NOTICEABLE_POINTS } else { NOTICEABLE_PART * literal.abs() };
    let write = |v: f64| if metric.percent { format!("{v:.2} %") } else { format!("{v:.4}") };
    let direction = if metric.percent {
        ""
    } else if metric.better == Better::Lower {
        " (lower is better)"
    } else {
        " (higher is better)"
    };
    (told && (literal - default).abs() > noticeable).then(|| {
        format!(
            "the runtime's default arithmetic (the one that ships and is measured) has {} {}{direction}, literal arithmetic {}: \
             its integer kernels may saturate on this processor; `reduce_range = true` (7-bit weights) avoids that",
            metric.label,
            write(default),
            write(literal)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use technique::Family;

    fn warning(literal: f64, default: f64, split: u64, samples: f64) -> Option<String> {
        let task = Chosen::<Tasks>::named(Tasks::DEFAULT.unwrap()).unwrap();
        let metric = task.main_metric();
        let of = |right: f64| Figures { values: [(metric.key, right / samples)].into(), ..Figures::default() };
        let between = Between { sum: default - literal, squares: split as f64 };
        arithmetic_warning(metric, &of(literal), &of(default), between)
    }

    #[test]
    fn a_gap_between_arithmetics_is_reported_with_its_remedy() {
        let told = warning(900.0, 898.0, 0, 1000.0).unwrap();
        assert!(told.contains("reduce_range") && told.contains("accuracy 89.80 %, literal arithmetic 90.00 %"), "{told}");
        assert_eq!(warning(900.0, 899.0, 0, 1000.0), None);
    }

    #[test]
    fn a_gap_that_few_samples_do_not_tell_from_chance_is_no_alarm() {
        let told = |default, split| warning(60.0, default, split, 64.0).is_some();
        assert!(!told(59.0, 1) && !told(61.0, 1) && !told(57.0, 3));
        assert!(told(55.0, 5), "five of five against it");
        assert!(!told(55.0, 7) && told(40.0, 22));
    }

    fn whole(float: &[f32], file: &[f32]) -> Agreement {
        let mut difference = Difference::default();
        difference.add(&Tensor::vector(float.to_vec()), &Tensor::vector(file.to_vec())).unwrap();
        let d = difference;
        Agreement { output: "y".into(), compression: d, deployment: d, whole: d, step: None }
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
