//! The deployed file: lowered, written, run in a runtime, compared with the simulation, measured beside the original.
use super::counted::counted;
use super::measure::{by_class, figures, macs_of_one};
use super::{MemoryProbe, Original, Sources, Tick};
use crate::StageError;
use crate::recipe::DeployStage;
use deploy::format::{Artifact, ExportOptions};
use deploy::measure::{Agreement, LatencyOptions, latencies};
use deploy::runtime::{Runtime, Session, SessionOptions, Source, of_target, take_messages};
use deploy::{LowerOptions, Lowered, Placement, Proof, ProofOptions, prove};
use graph::Model;
use ops::Effect;
use report::record::{
    Arithmetic, ClassesRecord, DeployRecord, FloatPart, Latency, NodeCount, Note, OriginalRecord, OutputRecord, PlacementRecord,
    RuntimeRecord,
};
use report::text;
use std::collections::BTreeMap;
use train::{Batches, Figures, Named};

/// Key of the share of samples with the same largest element, for tasks with classes.
const SAME_CLASS: &str = "same_class";

/// Number of runs that the reference interpreter checks too, where a run takes one sample.
const RUNS_IN_REFERENCE: usize = 16;

/// Number of samples that it checks, in whole batches, where a run takes a batch.
const SAMPLES_IN_REFERENCE: usize = 250;

/// A deployed file slower than its original by this factor (by median and by best run) gets a warning; smaller factors are within
/// the noise of the runs.
const NOTICEABLY_SLOWER: f64 = 1.05;

/// A deployed model and its measurements.
pub struct Deployment {
    /// Contents of the deployed file.
    pub bytes: Vec<u8>,
    /// The model in the file.
    pub model: Model,
    /// Measurements.
    pub record: DeployRecord,
    /// Metrics of the deployed file on the test set, in default arithmetic.
    pub figures: Option<Figures>,
    /// Class by class, with the runtime's defaults.
    pub classes: Option<ClassesRecord>,
    /// Operators that compute in float.
    pub float_parts: Vec<FloatPart>,
    /// Notes for the user.
    pub notes: Vec<Note>,
}

/// The context of a deployment.
pub struct DeployOn<'a> {
    /// Name of the file, for the record.
    pub file: &'a str,
    /// Threads of the runtime, if the stage sets none.
    pub threads: usize,
    /// The data sets to prove and measure on.
    pub sources: &'a Sources,
    /// The model that the run began with, to compare with.
    pub original: Option<&'a Original>,
    /// The program that measures memory.
    pub probe: Option<&'a MemoryProbe>,
    /// Why nodes stay float, by node, as planned at quantization: the lowered graph tells only that nothing is quantized there.
    pub float_reasons: &'a BTreeMap<String, String>,
}

/// Settings of how a stage writes its file.
pub fn export_options(stage: &DeployStage) -> ExportOptions {
    let lower = LowerOptions { opset: stage.opset, target: stage.target.clone(), ..LowerOptions::default() };
    ExportOptions { lower, exporter_notes: stage.exporter_notes }
}

/// The file that a model would be deployed as, without measuring it.
///
/// # Errors
/// Errors of lowering.
pub fn exported(model: &Model, sources: &Sources, stage: &DeployStage) -> Result<Artifact, StageError> {
    let mut model = model.clone();
    sources.describe(&mut model)?;
    Ok(stage.format.export(&model, &export_options(stage))?)
}

/// Lowers a model, and measures the file on the whole test set in the target's runtime, beside the original.
///
/// # Errors
/// Errors of lowering, the runtime or the data. A file that does not compute what the simulation computed is no error but a
/// warning that says where.
pub fn deploy(model: &Model, stage: &DeployStage, on: &DeployOn, tick: Tick) -> Result<Deployment, StageError> {
    let DeployOn { file, sources, original, probe, .. } = *on;
    let Artifact { bytes, mut lowered, stripped } = exported(model, sources, stage)?;
    for part in &mut lowered.float_parts {
        if let Some(planned) = on.float_reasons.get(&part.node) {
            part.reason.clone_from(planned);
        }
    }
    let choice = of_target(&**stage.target.member())?;
    let mut notes: Vec<Note> = std::mem::take(&mut lowered.notes).into_iter().map(|text| note(false, text)).collect();
    if stripped > 0 {
        let size = text::bytes(stripped as u64);
        notes.push(note(
            false,
            format!("{size} that the exporter noted for itself (stack traces, paths) are left out; exporter_notes = true keeps them"),
        ));
    }
    let threads = stage.threads.unwrap_or(on.threads);
    let source = Source::Bytes(&bytes);
    let name = choice.runtime.name().to_string();
    let version = choice.runtime.version();
    let runtime =
        |arithmetic| RuntimeRecord { runtime: name.clone(), version: Some(version.clone()), arithmetic, ..RuntimeRecord::default() };
    let (mut literal, mut default) = (runtime(Arithmetic::Literal), runtime(Arithmetic::Default));
    let mut reference = RuntimeRecord { runtime: "reference".into(), arithmetic: Arithmetic::Literal, ..RuntimeRecord::default() };
    let mut record = DeployRecord {
        file: file.to_string(),
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        opset: lowered.model.onnx_opset(),
        ..DeployRecord::default()
    };
    let (mut classes, mut scored) = (None, None);
    let chosen = stage.images.filter(|n| *n < sources.rows().test);
    if let Some(test) = sources.some_test(model, stage.images)? {
        if let Some(n) = chosen {
            record.chosen_images = Some(n as u64);
            notes.push(note(
                true,
                format!("the file was measured on {n} of {} test samples, evenly chosen (samples = {n})", sources.rows().test),
            ));
        }
        let reference_batches = match test.runs_alone() {
            true => RUNS_IN_REFERENCE,
            false => SAMPLES_IN_REFERENCE.div_ceil(test.options().batch.max(1)),
        };
        let (task, by_reference) = (sources.task().clone(), stage.format.rounds_itself());
        let options = ProofOptions { threads, reference_batches, task, by_reference, ..ProofOptions::default() };
        let proof = prove(model, source, &choice, &mut counted(&test, tick), &options)?;
        let by_class_alone = proof.nearness.iter().all(|near| near.keys().all(|key| *key == SAME_CLASS));
        agreement(&mut literal, &proof.literal, by_class_alone);
        agreement(&mut default, &proof.default, by_class_alone);
        agreement(&mut reference, &proof.reference, by_class_alone);
        for (record, near) in [&mut literal, &mut default].into_iter().zip(&proof.nearness) {
            record.differences = near.iter().filter(|(key, _)| **key != SAME_CLASS).map(|(key, v)| (key.to_string(), *v)).collect();
        }
        record.outputs = outputs(&proof);
        if let Some(found) = &proof.figures {
            record.keep_simulation(&found.simulated.values);
            literal.keep(&found.literal.values);
            default.keep(&found.default.values);
            let names = sources.class_names_for(model)?;
            classes = found.default.confusion.as_ref().map(|c| by_class(c, &names));
            scored = Some(found.default.clone());
        }
        notes.extend(proof.violations.into_iter().chain(proof.warnings).map(|text| note(true, text)));
    } else if let Some(text) = choice.note {
        notes.push(note(true, text));
    }
    let placement = placement(choice.runtime.as_ref(), source, &lowered, &mut notes);
    let options = LatencyOptions { runs: stage.latency_runs, ..LatencyOptions::default() };
    let beside = Beside { runtime: choice.runtime.as_ref(), threads, options };
    let sample = sources.one_sample(model)?;
    let (own, of_original) = beside.measure(source, &sample, original, sources, &mut notes)?;
    let mut memory = |measured: Result<u64, StageError>| {
        measured.map_err(|e| notes.push(note(false, format!("the memory that a file takes is not known: {e}")))).ok()
    };
    default.peak_memory_bytes = probe.and_then(|p| memory(p.bytes_of(&bytes, &name, threads, &sample)));
    default.latency = Some(latency_record(own, threads));
    if let Some(original) = original {
        let inputs = sources.one_sample(&original.model).ok().filter(|_| of_original.is_some());
        let peak_memory_bytes = probe.zip(inputs.as_ref()).and_then(|(p, i)| memory(original.memory(p, &name, threads, i)));
        // A file measured on part of the samples is compared with the original on the same part.
        let beside = scored.as_ref().and(chosen).map_or(Ok(None), |_| figures(&original.model, sources, chosen, tick));
        let beside = beside.unwrap_or_else(|e| {
            notes.push(note(false, format!("the original was not scored on the same samples: {e}")));
            None
        });
        let mut found = OriginalRecord {
            stage: original.stage.clone(),
            file_bytes: original.file_bytes,
            macs: inputs.and_then(|inputs| macs_of_one(&original.model, &inputs, sources).ok()),
            latency: of_original.map(|l| latency_record(l, threads)),
            peak_memory_bytes,
            ..OriginalRecord::default()
        };
        found.keep(&beside.map(|f| f.values).unwrap_or_default());
        record.original = Some(found);
        notes.extend(larger(bytes.len() as u64, original, model));
        // The reference interpreter is written for correctness; its speed says nothing about a file.
        let theirs = of_original.filter(|_| name != "reference");
        notes.extend(theirs.and_then(|theirs| slower(own, theirs, &original.stage, placement.as_ref(), model)));
    }
    if stage.pack {
        notes.push(packed(&bytes, original.map(|o| o.file_bytes))?);
    }
    record.placement = placement.as_ref().map(placement_record);
    record.runtimes = vec![literal, default];
    if name != "reference" && reference.rms_difference.is_some() {
        record.runtimes.push(reference);
    }
    notes.extend(take_messages().into_iter().map(|text| note(true, format!("{name}: {text}"))));
    let float_parts = placement.map_or(lowered.float_parts, |p| p.float_parts);
    let float_parts = float_parts.into_iter().map(|p| FloatPart { node: p.node, op_type: p.op_type, reason: p.reason }).collect();
    Ok(Deployment { bytes, model: lowered.model, record, figures: scored, classes, float_parts, notes })
}

fn note(warning: bool, text: String) -> Note {
    Note { warning, text }
}

fn is_quantized(model: &Model) -> bool {
    model.annotations.iter().any(|(_, a)| a.encoding.is_some())
}

/// How many nodes the runtime runs on integers and in float; `None` if it does not tell, or nothing in the file is quantized.
fn placement(runtime: &dyn Runtime, file: Source, lowered: &Lowered, notes: &mut Vec<Note>) -> Option<Placement> {
    let quantizes = |node: &graph::Node| matches!(node.op_type.as_str(), "QuantizeLinear" | "DequantizeLinear");
    if !lowered.model.graph.nodes.iter().any(quantizes) {
        return None;
    }
    let placement = match runtime.optimized(file) {
        Ok(optimized) => Placement::of(&optimized?, lowered),
        Err(e) => {
            notes.push(note(false, format!("which nodes it computes on integers is not known: {e}")));
            return None;
        }
    };
    notes.push(note(false, format!("{} computes {}", runtime.name(), counts(&placement))));
    Some(placement)
}

/// `on integers: 9 Conv, 1 Gemm; in float: 1 Softmax; 4 conversions between the two`.
fn counts(placement: &Placement) -> String {
    let of = |count: fn(&deploy::Count) -> usize| {
        let some = placement.operators.iter().filter(|(_, c)| count(c) > 0).map(|(op, c)| format!("{} {op}", count(c)));
        let list = some.collect::<Vec<_>>().join(", ");
        if list.is_empty() { "nothing".to_string() } else { list }
    };
    let (integer, float) = (of(|c| c.integer), of(|c| c.float));
    format!("on integers: {integer}; in float: {float}; {} conversions between the two", placement.conversions)
}

fn placement_record(placement: &Placement) -> PlacementRecord {
    let count = |(op, c): (&String, &deploy::Count)| (op.clone(), NodeCount { integer: c.integer as u64, float: c.float as u64 });
    PlacementRecord { operators: placement.operators.iter().map(count).collect(), conversions: placement.conversions as u64 }
}

/// The deployed file and the original in one runtime.
struct Beside<'a> {
    runtime: &'a dyn Runtime,
    threads: usize,
    options: LatencyOptions,
}

impl Beside<'_> {
    /// Latencies of both, run in turn. An original that the runtime cannot run is noted and left out.
    fn measure(
        &self,
        file: Source,
        sample: &Named,
        original: Option<&Original>,
        sources: &Sources,
        notes: &mut Vec<Note>,
    ) -> Result<(deploy::measure::Latency, Option<deploy::measure::Latency>), StageError> {
        let mut own = self.runtime.load(file, SessionOptions::default_arithmetic(self.threads))?;
        let theirs = original.map(|o| self.prepare(o, sources)).transpose();
        let mut theirs = theirs.unwrap_or_else(|e| {
            notes.push(note(false, format!("the original was not measured beside the file: {e}")));
            None
        });
        let measured = match &mut theirs {
            Some((session, inputs)) => latencies(&mut [(own.as_mut(), sample), (session.as_mut(), inputs)], self.options)?,
            None => latencies(&mut [(own.as_mut(), sample)], self.options)?,
        };
        let mut measured = measured.into_iter();
        Ok((measured.next().ok_or("no latency was measured")?, measured.next()))
    }

    /// The original, loaded, with one sample on which it ran once.
    fn prepare(&self, original: &Original, sources: &Sources) -> Result<(Box<dyn Session>, Named), StageError> {
        let inputs = sources.one_sample(&original.model)?;
        let mut session = self.runtime.load(original.source(), SessionOptions::default_arithmetic(self.threads))?;
        session.run(&inputs)?;
        Ok((session, inputs))
    }
}

fn latency_record(l: deploy::measure::Latency, threads: usize) -> Latency {
    Latency { p50_ms: l.p50_ms, p95_ms: l.p95_ms, runs: l.runs, threads }
}

/// A warning if the deployed file is larger than the original.
fn larger(bytes: u64, original: &Original, model: &Model) -> Option<Note> {
    let why = match is_quantized(model) {
        true => "what quantizers add (scales, zero points, nodes) is more than narrower weights save",
        false => "nothing in it is quantized, and pruned weights are stored as zeros",
    };
    (bytes > original.file_bytes).then(|| {
        let (own, theirs) = (text::bytes(bytes), text::bytes(original.file_bytes));
        note(true, format!("the deployed file is larger than the original ({}): {own} against {theirs}: {why}", original.stage))
    })
}

/// The size that `espalier pack` makes of a file, beside that of the original.
fn packed(file: &[u8], original: Option<u64>) -> Result<Note, StageError> {
    let (archive, _) = pack::pack(file)?;
    let size = archive.len() as f64;
    let smaller = original.map(|bytes| format!(", {:.2} times smaller than the original file", bytes as f64 / size)).unwrap_or_default();
    Ok(note(false, format!("packed by `espalier pack`: {} bytes, {:.3} of the file{smaller}", archive.len(), size / file.len() as f64)))
}

/// Channels that a processor's kernels compute at once.
const LANES: usize = 8;

/// How many layers compute a number of channels that is no multiple of [`LANES`], and how many layers there are.
fn uneven(model: &Model) -> (usize, usize) {
    let (mut uneven, mut all) = (0, 0);
    model.graph.visit(&mut |node| {
        let Some(op) = ops::find(&node.domain, &node.op_type) else { return };
        let Effect::Computes { weight: Some(rule), .. } = op.effect(node, model) else { return };
        let channels = node.input(rule.input).and_then(|w| model.constant(w)).zip(rule.axis).map(|(w, axis)| w.shape()[axis]);
        if let Some(channels) = channels {
            all += 1;
            uneven += usize::from(!channels.is_multiple_of(LANES));
        }
    });
    (uneven, all)
}

/// A warning if the deployed file is slower than the original, with the reason as far as the runtime's graph shows it.
fn slower(
    own: deploy::measure::Latency,
    theirs: deploy::measure::Latency,
    original: &str,
    placement: Option<&Placement>,
    model: &Model,
) -> Option<Note> {
    if own.p50_ms <= theirs.p50_ms * NOTICEABLY_SLOWER || own.best_ms <= theirs.best_ms * NOTICEABLY_SLOWER {
        return None;
    }
    let why = match placement {
        None if !is_quantized(model) => match uneven(model) {
            (uneven, all) if uneven * 2 > all => format!(
                "{uneven} of its {all} layers compute a number of channels that is no multiple of {LANES}, which kernels are slow with: \
                 round_to = 16 in the prune_channels stage keeps multiples of 16"
            ),
            _ => "nothing in it is quantized, and pruned weights are computed with like any others".to_string(),
        },
        None => "the runtime does not tell which of its nodes run on integers".to_string(),
        Some(p) if p.float_parts.is_empty() => format!(
            "all {} nodes run on integers, but the {} conversions and this processor's integer kernels cost more than they save at this size",
            p.total().integer,
            p.conversions
        ),
        Some(p) => {
            let (total, shown) = (p.total(), p.float_parts.iter().take(2));
            let parts: Vec<String> = shown.map(|f| format!("{} '{}': {}", f.op_type, f.node, f.reason)).collect();
            let rest = p.float_parts.len().saturating_sub(parts.len());
            let more = if rest > 0 { format!("; and {rest} more, listed as what stays float") } else { String::new() };
            format!(
                "{} of {} nodes run in float, with {} conversions ({}{more})",
                total.float,
                total.float + total.integer,
                p.conversions,
                parts.join("; ")
            )
        }
    };
    let times = own.p50_ms / theirs.p50_ms;
    Some(note(
        true,
        format!(
            "the deployed file is {times:.2} times slower than the original ({original}): {:.3} ms against {:.3} ms: {why}",
            own.p50_ms, theirs.p50_ms
        ),
    ))
}

/// Comparison of the outputs with those of the float network.
fn outputs(proof: &Proof) -> Vec<OutputRecord> {
    let sqnr = |a: &Agreement| Some(a.whole.sqnr_db()).filter(|d| d.is_finite());
    let of = |(default, literal): (&Agreement, &Agreement)| OutputRecord {
        name: default.output.clone(),
        sqnr_db: sqnr(default),
        literal_sqnr_db: sqnr(literal),
        nan_samples: Some(default.deployment.samples_nan()).filter(|n| *n > 0),
    };
    proof.default.iter().zip(&proof.literal).map(of).collect()
}

/// The worst agreement over the outputs; agreement of the largest element only for tasks with classes.
fn agreement(record: &mut RuntimeRecord, outputs: &[Agreement], by_class_alone: bool) {
    for a in outputs {
        let (rows, rms) = (a.deployment.argmax_agreement(), a.deployment.rms());
        record.agreement = Some(record.agreement.map_or(rows, |r| r.min(rows))).filter(|_| by_class_alone);
        record.rms_difference = Some(record.rms_difference.map_or(rms, |r| r.max(rms)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(ms: f64) -> deploy::measure::Latency {
        deploy::measure::Latency { runs: 9, best_ms: ms, p50_ms: ms, p95_ms: ms, p99_ms: ms }
    }

    #[test]
    fn channels_that_kernels_are_slow_with_are_told() {
        let entry = zoo::find("resnet8").unwrap();
        for (width, text) in [(0.35, "no multiple of 8"), (1.0, "nothing in it is quantized")] {
            let model = entry.build(&zoo::ZooOptions { width, ..entry.default_options() }).unwrap();
            let told = slower(took(2.0), took(1.0), "start", None, &model).unwrap().text;
            assert!(told.contains(text), "{width}: {told}");
        }
    }

    #[test]
    fn a_file_slower_than_its_original_is_told_with_the_reason() {
        let part = |node: &str| deploy::FloatPart { node: node.into(), op_type: "Conv".into(), reason: "a Clip stands behind it".into() };
        let mut placement = Placement {
            operators: BTreeMap::from([("Conv".to_string(), deploy::Count { integer: 1, float: 3 })]),
            conversions: 6,
            float_parts: ["a", "b", "c"].map(part).to_vec(),
        };
        let told = |own, placement: Option<&Placement>| slower(took(own), took(1.0), "start", placement, &Model::new(17)).map(|n| n.text);
        assert_eq!(told(1.04, Some(&placement)), None);
        let text = told(2.5, Some(&placement)).unwrap();
        assert!(text.starts_with("the deployed file is 2.50 times slower than the original (start): 2.500 ms against 1.000 ms: 3 of 4"));
        assert!(text.contains("Conv 'a': a Clip stands behind it") && text.contains("and 1 more"), "{text}");
        placement.float_parts.clear();
        placement.operators.insert("Conv".into(), deploy::Count { integer: 4, float: 0 });
        assert!(told(2.5, Some(&placement)).unwrap().contains("all 4 nodes run on integers"));
        assert!(told(2.5, None).unwrap().contains("nothing in it is quantized"));
        assert_eq!(counts(&placement), "on integers: 4 Conv; in float: nothing; 6 conversions between the two");
    }
}
