//! The model a recipe starts from.
use super::training::{figures, given};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::ModelSource;
use graph::Model;
use std::path::PathBuf;
use tensor::DType;

/// Loads the file and prepares it for training, or builds the architecture with weights drawn from the seed. Returns the model
/// and sentences about the changes.
///
/// # Errors
/// If the file cannot be read, or the architecture cannot be built at that size.
pub fn start(source: &ModelSource, seed: u64, place: impl Fn(&str) -> PathBuf) -> Result<(Model, Vec<String>), StageError> {
    match (&source.file, &source.arch) {
        (Some(file), _) => {
            let mut model = onnx::load(&place(file))?;
            let notes = ready(&mut model)?;
            Ok((model, notes))
        }
        (None, Some(arch)) => {
            let entry = zoo::find(arch)?;
            let mut options = entry.default_options();
            options.width = source.width;
            options.seed = seed;
            options.classes = source.classes.unwrap_or(options.classes);
            options.input = source.input.clone().unwrap_or(options.input);
            Ok((entry.build(&options)?, vec![]))
        }
        (None, None) => Err("the model has neither a file nor an arch".into()),
    }
}

/// Notes that a model's samples cannot run together, if so.
pub(super) fn batch_note(cx: &mut StageCx, model: &Model) {
    if let Some(note) = ::train::open_batch(&mut model.clone()).note() {
        cx.note(false, note);
    }
}

/// Prepares a model from a file for the stages: training form becomes inference form, half and double precision become float32,
/// quantization operators are lifted to annotations, every parameter is made visible, and a fixed batch is opened if samples are
/// independent. Returns sentences about the changes.
///
/// # Errors
/// If the graph is not well formed.
pub(crate) fn ready(model: &mut Model) -> Result<Vec<String>, StageError> {
    let mut notes = ops::to_inference_form(model)?;
    let inputs = model.free_inputs();
    let narrow = |model: &Model| inputs.iter().filter(|v| model.values[**v].dtype() != Some(DType::F32)).count();
    let before = narrow(model);
    let precision = if ::train::is_double(model) { "double" } else { "half" };
    if ::train::to_float32(model)? > 0 {
        let ends = if narrow(model) < before { ", its inputs too" } else { "" };
        notes.push(format!("the model was converted from {precision} precision to float32{ends}"));
    }
    deploy::lift(model)?;
    notes.extend(::train::prepare(model)?);
    notes.extend(::train::unreached(model).note());
    ::train::open_batch(model);
    Ok(notes)
}

/// Measures the graph before any stage, as the reference for the stages.
pub(crate) struct Measure {
    /// Sentences about the changes to the graph.
    pub(crate) notes: Vec<String>,
}

impl StageBody for Measure {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        self.notes.iter().for_each(|note| cx.note(false, note.as_str()));
        let model = given(input)?;
        batch_note(cx, &model);
        figures(cx, model, vec![], &sources)
    }
}
