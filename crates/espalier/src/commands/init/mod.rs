//! `init`: a recipe for a model and its data; and `quantize`, `prune` and `distill`, which run one at once.
mod guess;
mod recipe;
mod rows;
mod short;

pub use short::{Shortcut, shortcut};

use super::observe::{generous_limits, limits, unended};
use super::preprocessing::{PreprocessChanges, carried};
use crate::{Error, Result};
use graph::Model;
use guess::{Guess, guess, input_dims, shape_text};
use pipeline::recipe::ByteSize;
use report::text;
use rows::{Found, Kind};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use technique::Choice;
use train::Tasks;

/// A model and its data.
#[derive(Clone, Debug)]
pub struct Task {
    /// Path of the model (ONNX).
    pub model: PathBuf,
    /// The data set.
    pub data: PathBuf,
    /// Samples to measure the result on; absent: the data set's test split.
    pub test: Option<PathBuf>,
    /// Preprocessing of images, where it is given.
    pub preprocess: PreprocessChanges,
}

/// How many channels are removed.
#[derive(Clone, Debug, PartialEq)]
pub enum Cut {
    /// Until this share of the multiply-accumulates is gone.
    Macs(f64),
    /// Until a run in the target's runtime on this machine takes this share less time.
    Latency(f64),
    /// Until the deployed file is at most this large.
    Size(ByteSize),
}

/// The purpose of the recipe.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// To read and change: quantization, with further stages commented out.
    All,
    /// Quantization, then training with the quantizers.
    Quantize {
        /// Passes over the training data.
        epochs: u64,
    },
    /// Pruning, then training.
    Prune {
        /// Share of the weights that become zero.
        sparsity: f64,
        /// Passes over the training data.
        epochs: u64,
    },
    /// Removal of whole channels, then training with the uncut network as teacher.
    PruneChannels {
        /// How much goes.
        cut: Cut,
        /// Passes over the training data.
        epochs: u64,
    },
    /// Distillation into a student.
    Distill {
        /// An architecture of the zoo, or an ONNX file.
        student: String,
        /// Width of the architecture.
        width: f64,
        /// Passes over the training data.
        epochs: u64,
    },
}

impl Purpose {
    /// The command's name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Purpose::All => "init",
            Purpose::Quantize { .. } => "quantize",
            Purpose::Prune { .. } | Purpose::PruneChannels { .. } => "prune",
            Purpose::Distill { .. } => "distill",
        }
    }
}

/// A recipe that was written.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// The file; empty where there is none.
    pub file: String,
    /// The recipe's text (TOML).
    pub text: String,
    /// Warnings for the user.
    pub notes: Vec<String>,
}

/// Facts about a model and its data that a recipe states.
struct Facts {
    name: String,
    model_path: String,
    description: String,
    train_path: String,
    test_path: String,
    data_description: String,
    split_warning: Option<&'static str>,
    guess: Option<Guess>,
    task: Choice<Tasks>,
    labelled: bool,
    batch: usize,
    calibration_images: usize,
}

/// Writes a recipe for a model and its data; without `output`, `NAME.toml` in the present folder, never over a file that is
/// there.
///
/// # Errors
/// If the model or the data cannot be read, or the file exists already.
pub fn init(task: &Task, output: Option<&Path>) -> Result<Written> {
    let path = output.map_or_else(|| PathBuf::from(format!("{}.toml", name(&task.model))), Path::to_path_buf);
    if path.exists() {
        return Err(Error::Input(format!("{} exists already: name another file with --output", path.display())));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let written = draft(task, &Purpose::All, folder)?;
    pipeline::run_dir::write_atomically(&path, written.text.as_bytes()).map_err(Error::from)?;
    Ok(Written { file: path.display().to_string(), ..written })
}

/// The recipe's text, for a file in `folder`.
pub(super) fn draft(task: &Task, purpose: &Purpose, folder: &Path) -> Result<Written> {
    tensor::set_threads(None);
    let mut model = onnx::load(&task.model)?;
    let not_ended = unended(&model, limits());
    if not_ended.is_some()
        && *purpose != Purpose::All
        && let Some(why) = unended(&model, generous_limits())
    {
        return Err(Error::Input(format!(
            "{}: even a run on one sample did not finish: {why}; espalier init writes a recipe, which espalier run runs without a limit",
            task.model.display()
        )));
    }
    // Guesses are tried on a graph with an open batch where possible, otherwise on the graph as it is.
    if not_ended.is_none() {
        train::open_batch(&mut model);
    }
    let found = Found::open(&task.data, task.test.as_deref(), &model)?;
    let guess = match carried(&model)? {
        Some(_) if task.preprocess.is_empty() => None,
        Some(own) => Some(given(task, own)),
        None if task.preprocess.is_empty() => Some(guess(&model, &found)),
        None => Some(given(task, guess(&model, &found).preprocess)),
    };
    let elements: usize = input_dims(&model).iter().map(|d| d.unwrap_or(1)).product();
    let batch = match elements {
        0..=16_384 => 64,
        16_385..=65_536 => 32,
        _ => 16,
    };
    let mut notes: Vec<String> = found.warning.map(str::to_string).into_iter().collect();
    notes.extend(guess.as_ref().and_then(|g| g.warning.clone()));
    notes.extend(
        not_ended.map(|why| format!("the model's run did not finish: {why}; a run of the recipe may never finish, Ctrl-C stops it")),
    );
    notes.extend(classes(&model, &found));
    let facts = Facts {
        name: name(&task.model),
        model_path: place(&task.model, folder)?,
        description: describe(&model)?,
        train_path: place(&task.data, folder)?,
        test_path: place(&found.test_path, folder)?,
        data_description: describe_data(&found),
        split_warning: found.warning,
        guess,
        labelled: found.labelled,
        task: found.task.clone(),
        batch,
        calibration_images: if elements > 65_536 { 128 } else { 512 },
    };
    let text = recipe::text(&facts, purpose);
    pipeline::recipe::parse(&text, &[]).map_err(|e| Error::Input(format!("the recipe that was written is at fault: {e}\n{text}")))?;
    Ok(Written { file: String::new(), text, notes })
}

fn given(task: &Task, base: data::Preprocess) -> Guess {
    Guess { preprocess: task.preprocess.over(base), reasons: vec!["As given on the command line.".into()], warning: None }
}

/// A run's name: the file's name, without characters that a folder's name may not have.
fn name(model: &Path) -> String {
    let stem = model.file_stem().unwrap_or_default().to_string_lossy();
    let name: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.' { c } else { '-' }).collect();
    let name = name.trim_start_matches('.').to_string();
    if name.is_empty() { "model".into() } else { name }
}

/// A path as written in a recipe in `folder`: unchanged if that is the present folder, else absolute.
fn place(path: &Path, folder: &Path) -> Result<String> {
    let path = if folder.as_os_str().is_empty() || folder == Path::new(".") {
        path.to_path_buf()
    } else {
        std::path::absolute(path).map_err(|e| Error::Input(format!("{}: {e}", path.display())))?
    };
    path.to_str().map(str::to_string).ok_or_else(|| Error::Input(format!("{} is not UTF-8, as a recipe must be", path.display())))
}

/// A model in a line: its kind, inputs, classes, parameters.
fn describe(model: &Model) -> Result<String> {
    let mut counts = [0usize; 4];
    model.graph.visit(&mut |node| match node.op_type.as_str() {
        "Conv" | "ConvTranspose" => counts[0] += 1,
        "LSTM" | "GRU" | "RNN" => counts[1] += 1,
        "Attention" | "MultiHeadAttention" | "LayerNormalization" => counts[2] += 1,
        "Gemm" | "MatMul" => counts[3] += 1,
        _ => {}
    });
    let kind = match counts {
        [_, recurrent, ..] if recurrent > 0 => "a recurrent network".to_string(),
        [_, _, attention, _] if attention > 1 => "a transformer".to_string(),
        [conv, ..] if conv > 0 => format!("a network of {conv} convolutions"),
        [.., products] if products > 0 => format!("a network of {products} matrix products"),
        _ => "a graph without weights that are known".to_string(),
    };
    let inputs: Vec<String> = model.free_inputs().iter().map(|v| model.values[*v].name.clone()).collect();
    let classes = train::classes(model).map_or(String::new(), |n| format!(", {n} classes"));
    let parameters = deploy::measure::parameters(model)?.total;
    Ok(format!("{kind}, input {} {}{classes}, {} parameters", inputs.join(", "), shape_text(&input_dims(model)), text::count(parameters)))
}

fn describe_data(found: &Found) -> String {
    let kind = match &found.kind {
        Kind::Images { channels, height, width, alike } => {
            let size = if *alike { format!("of {height} x {width}") } else { format!("of different sizes (the first {height} x {width})") };
            format!("{} images {size}", if *channels == 1 { "grey" } else { "colour" })
        }
        Kind::Sounds { length, alike: true } => format!("sounds of {length} samples"),
        Kind::Sounds { .. } => "sounds of different lengths".into(),
        Kind::Arrays => "arrays, given to the model as they are".into(),
    };
    let names = found.train.class_names();
    let classes = if names.is_empty() { String::new() } else { format!(", {} classes", names.len()) };
    let labels = if found.labelled { "" } else { ", without labels" };
    format!("{kind}{classes}{labels}: {} to train and calibrate on, {} to test", found.train.len(), found.test.len())
}

/// A note if the model and the data disagree in their classes.
fn classes(model: &Model, found: &Found) -> Option<String> {
    let (own, theirs) = (train::classes(model)?, found.train.class_names().len());
    (theirs > 0 && own != theirs && found.labelled)
        .then(|| format!("the model has {own} classes, the data set {theirs}: labels must be the model's, in its order"))
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: written; espalier run {0} runs it, --dry-run first says what it will do", self.file)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}
