//! The deployed file: lowered, written, run in a runtime, compared with the simulation, measured.
use super::counted::counted;
use super::{Sources, Tick};
use crate::recipe::{DeployStage, Target};
use crate::stages::StageError;
use deploy::measure::{Agreement, LatencyOptions, latency};
use deploy::runtime::{Choice, SessionOptions, Source, by_name, choose};
use deploy::{LowerOptions, ProofOptions, prove};
use graph::Model;
use report::record::{Arithmetic, DeployRecord, FloatPart, Latency, Note, RuntimeRecord};
use train::Batches;

/// Runs of a lone sample that the reference interpreter makes too.
const RUNS_IN_REFERENCE: usize = 16;

/// A deployed model and what was found about it.
pub struct Deployment {
    /// The file.
    pub bytes: Vec<u8>,
    /// The model in the file.
    pub model: Model,
    /// Measurements.
    pub record: DeployRecord,
    /// Operators that stay float.
    pub float_parts: Vec<FloatPart>,
    /// What the user should know.
    pub notes: Vec<Note>,
}

/// Lowers a model, and measures the file on the whole test set in the target's runtime.
///
/// # Errors
/// What lowering, the runtime or the data report. A file that does not compute what the simulation computed is no error
/// but a warning that says where.
pub fn deploy(
    model: &Model,
    stage: &DeployStage,
    file: &str,
    threads: usize,
    sources: &Sources,
    tick: Tick,
) -> Result<Deployment, StageError> {
    let mut model = model.clone();
    sources.describe(&mut model)?;
    let mut lowered = deploy::lower(&model, &LowerOptions { opset: stage.opset })?;
    let stripped = if stage.exporter_notes { 0 } else { onnx::strip(&mut lowered.model) };
    let bytes = onnx::to_bytes(&lowered.model)?;
    let choice = match stage.target {
        Target::OnnxRuntime => choose(),
        Target::Reference => Choice { runtime: by_name("reference")?, note: None },
    };
    let note = |warning: bool, text: String| Note { warning, text };
    let mut notes: Vec<Note> = lowered.notes.into_iter().map(|text| note(false, text)).collect();
    if stripped > 0 {
        let size = report::text::bytes(stripped as u64);
        notes.push(note(
            false,
            format!("{size} that the exporter noted for itself (stack traces, paths) are left out; exporter_notes = true keeps them"),
        ));
    }
    let threads = stage.threads.unwrap_or(threads);
    let source = Source::Bytes(&bytes);
    let name = choice.runtime.name().to_string();
    let version = choice.runtime.version();
    let runtime =
        |arithmetic| RuntimeRecord { runtime: name.clone(), version: Some(version.clone()), arithmetic, ..RuntimeRecord::default() };
    let (mut literal, mut default) = (runtime(Arithmetic::Literal), runtime(Arithmetic::Default));
    let mut reference = RuntimeRecord { runtime: "reference".into(), arithmetic: Arithmetic::Literal, ..RuntimeRecord::default() };
    let mut simulation_accuracy = None;
    if let Some(test) = sources.some_test(&model, stage.images)? {
        if let Some(n) = stage.images.filter(|n| *n < sources.rows().test) {
            notes.push(note(
                true,
                format!("the file was measured on {n} of {} test images, evenly chosen (images = {n})", sources.rows().test),
            ));
        }
        let reference_batches = if test.runs_alone() { RUNS_IN_REFERENCE } else { 1 };
        let options = ProofOptions { threads, reference_batches, ..ProofOptions::default() };
        let proof = prove(&model, source, &choice, &mut counted(&test, tick), &options)?;
        agreement(&mut literal, &proof.literal);
        agreement(&mut default, &proof.default);
        agreement(&mut reference, &proof.reference);
        if let Some(a) = &proof.accuracy {
            simulation_accuracy = Some(a.simulated.top1_share());
            literal.accuracy = Some(a.literal.top1_share());
            default.accuracy = Some(a.default.top1_share());
        }
        notes.extend(proof.violations.into_iter().chain(proof.warnings).map(|text| note(true, text)));
    } else if let Some(text) = choice.note {
        notes.push(note(true, text));
    }
    let mut session = choice.runtime.load(source, SessionOptions::default_arithmetic(threads))?;
    let measured =
        latency(session.as_mut(), &sources.one_sample(&model)?, LatencyOptions { runs: stage.latency_runs, ..LatencyOptions::default() })?;
    default.latency = Some(Latency { p50_ms: measured.p50_ms, p95_ms: measured.p95_ms, runs: measured.runs, threads });
    let mut runtimes = vec![literal, default];
    if name != "reference" && reference.agreement.is_some() {
        runtimes.push(reference);
    }
    let float_parts = lowered.float_parts.into_iter().map(|p| FloatPart { node: p.node, op_type: p.op_type, reason: p.reason }).collect();
    let record = DeployRecord {
        file: file.to_string(),
        blake3: blake3::hash(&bytes).to_hex().to_string(),
        opset: lowered.model.onnx_opset(),
        simulation_accuracy,
        runtimes,
    };
    Ok(Deployment { bytes, model: lowered.model, record, float_parts, notes })
}

/// The worst agreement over the outputs.
fn agreement(record: &mut RuntimeRecord, outputs: &[Agreement]) {
    for a in outputs {
        let (rows, rms) = (a.deployment.argmax_agreement(), a.deployment.rms());
        record.agreement = Some(record.agreement.map_or(rows, |r| r.min(rows)));
        record.rms_difference = Some(record.rms_difference.map_or(rms, |r| r.max(rms)));
    }
}
