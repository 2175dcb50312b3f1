//! The network of a distillation's student.
use crate::StageError;
use crate::recipe::{ModelSource, Student};
use graph::{Dim, Model};
use std::path::PathBuf;
use zoo::ZooOptions;

/// A student: its file, or an architecture with random weights and the teacher's input and classes. `own` is the recipe's own
/// model, whose architecture is taken if the student names none.
///
/// # Errors
/// If the file cannot be read, or the teacher's input or output shape is not declared; errors of the zoo.
pub fn student(
    of: &Student,
    own: Option<&ModelSource>,
    teacher: &Model,
    seed: u64,
    place: impl Fn(&str) -> PathBuf,
) -> Result<Model, StageError> {
    if of.file.is_some() {
        let source = ModelSource { file: of.file.clone(), arch: None, width: 1.0, classes: None, input: None };
        return crate::stages::start(&source, seed, place).map(|(model, _)| model);
    }
    let (arch, width) = match (&of.arch, own) {
        (Some(arch), _) => (arch, of.width),
        (None, Some(ModelSource { arch: Some(arch), width, .. })) => (arch, of.width * width),
        _ => return Err("the student has neither an arch nor a file".into()),
    };
    let wrong = |what: &str| StageError::from(format!("the teacher's {what} shape is not declared, so no student can be built for it"));
    let input = teacher.free_inputs().first().and_then(|v| teacher.values[*v].shape()).ok_or_else(|| wrong("input"))?;
    let input = input.iter().skip(1).map(Dim::known).collect::<Option<Vec<usize>>>().ok_or_else(|| wrong("input"))?;
    let classes = train::classes(teacher).ok_or_else(|| wrong("output"))?;
    let options = ZooOptions { width, classes, input, seed };
    Ok(zoo::build(arch, &options)?)
}
