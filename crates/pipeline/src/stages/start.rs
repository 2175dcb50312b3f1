//! The model a recipe starts from.
use super::lesson::{figures, given};
use super::{StageBody, StageCx, StageError, StageOutput};
use crate::recipe::ModelSource;
use graph::Model;
use std::path::PathBuf;

/// Loads the file, ready to train (quantization operators lifted to annotations, a fixed batch opened where samples stay apart), or builds the
/// architecture with weights drawn from the seed.
///
/// # Errors
/// If the file cannot be read, or the architecture cannot be built at that size.
pub fn start(source: &ModelSource, seed: u64, place: impl Fn(&str) -> PathBuf) -> Result<Model, StageError> {
    match (&source.file, &source.arch) {
        (Some(file), _) => {
            let mut model = onnx::load(&place(file))?;
            deploy::lift(&mut model)?;
            ::train::open_batch(&mut model);
            Ok(model)
        }
        (None, Some(arch)) => {
            let entry = zoo::find(arch)?;
            let mut options = entry.default_options();
            options.width = source.width;
            options.seed = seed;
            options.classes = source.classes.unwrap_or(options.classes);
            options.input = source.input.clone().unwrap_or(options.input);
            Ok(entry.build(&options)?)
        }
        (None, None) => Err("the model has neither a file nor an arch".into()),
    }
}

/// Tells that a model's samples cannot run together, where that is so.
pub(super) fn batch_note(cx: &mut StageCx, model: &Model) {
    if let Some(note) = ::train::open_batch(&mut model.clone()).note() {
        cx.note(false, note);
    }
}

/// Measures the graph as it is: what the stages after it are compared with.
pub(crate) struct Measure;

impl StageBody for Measure {
    fn run(&self, cx: &mut StageCx, input: Option<Model>) -> Result<StageOutput, StageError> {
        let sources = cx.sources()?;
        let model = given(input)?;
        batch_note(cx, &model);
        figures(cx, model, vec![], &sources)
    }
}
