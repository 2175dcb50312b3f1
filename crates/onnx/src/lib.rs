//! The ONNX file format: protobuf to [`graph::Model`] and back.
//!
//! The reader goes by field numbers and lends slices of the input, so a false length cannot make it allocate; fields it does not
//! know are carried through as bytes at every level. A model that was read and not edited is written back byte for byte: the
//! source is read again and compared, so no edit can be missed.
mod annotations;
mod attribute;
mod data_files;
mod data_type;
mod error;
mod export;
mod foreign;
mod import;
mod spans;
mod strip;
mod tensor_proto;
mod types;
mod wire;

pub use data_files::{allow_external, bytes_on_disk, data_files};
pub use error::{OnnxError, Result};
pub use spans::{Span, spans};
pub use strip::strip;

use error::Place;
use graph::Model;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tensor::Tensor;

/// The newest operator set this release knows.
pub const NEWEST_OPSET: i64 = 28;
/// The oldest operator set that is read.
pub const OLDEST_OPSET: i64 = 7;

/// Reads a model file; external data is looked for beside it.
///
/// # Errors
/// [`OnnxError::Io`] if it cannot be read, [`OnnxError::Format`] with the place where it is damaged,
/// [`OnnxError::Unsupported`] for an operator set outside [`OLDEST_OPSET`]..=[`NEWEST_OPSET`].
pub fn load(path: &Path) -> Result<Model> {
    let bytes = std::fs::read(path).map_err(|source| OnnxError::Io { path: path.display().to_string(), source })?;
    from_bytes(&bytes, Some(files::folder_of(path))).map_err(|e| e.in_file(path))
}

/// Reads a model from memory. Without a `folder`, external data is an error.
///
/// # Errors
/// As [`load`].
pub fn from_bytes(bytes: &[u8], folder: Option<&Path>) -> Result<Model> {
    if let Some(what) = foreign::named(bytes) {
        return Err(Place::root("model").error(what));
    }
    let mut model = parse(bytes, folder)?;
    model.source = Some(graph::Source { bytes: Arc::from(bytes), folder: folder.map(Path::to_path_buf) });
    Ok(model)
}

fn parse(bytes: &[u8], folder: Option<&Path>) -> Result<Model> {
    let mut model = import::model(bytes, folder)?;
    annotations::restore(&mut model)?;
    Ok(model)
}

/// The model as one file's bytes, external data embedded. An unedited model without external data gives its original bytes.
///
/// # Errors
/// [`OnnxError::Graph`] if the model is not well formed.
pub fn to_bytes(model: &Model) -> Result<Vec<u8>> {
    if let Some(bytes) = original(model)
        && !has_external(model)
    {
        return Ok(bytes.to_vec());
    }
    model.verify()?;
    Ok(export::model(&annotations::store(model)?, None).0)
}

/// Writes a model: to a temporary file in the same folder, synced, then renamed, so a failure leaves the old file.
///
/// External data: an unedited model saved into the folder it came from keeps its bytes and its data files; an edited one
/// saved there takes its external tensors into the model file, because the source still needs its data files; a model saved
/// into another folder lays its external tensors out anew in `<path>.data`. No other file is written, and a file of that name
/// that is not the old model's own is never replaced.
///
/// # Errors
/// [`OnnxError::Io`] if it cannot be written, [`OnnxError::Graph`] if the model is not well formed, [`OnnxError::Taken`] if
/// another model's data would be lost.
pub fn save(model: &Model, path: &Path) -> Result<()> {
    if let Some(data) = files::destroyed(path, data_files(model).iter().map(PathBuf::as_path)) {
        let what = "holds the model's own data: choose another output".to_string();
        return Err(OnnxError::Taken { path: data.display().to_string(), what });
    }
    let folder = files::folder_of(path);
    if !has_external(model) {
        return write_atomically(path, &to_bytes(model)?);
    }
    let at_home = model.source.as_ref().and_then(|s| s.folder.as_ref()).is_some_and(|home| files::same(home, folder));
    match (original(model), path.file_name().and_then(|n| n.to_str())) {
        (Some(bytes), _) if at_home => write_atomically(path, &bytes),
        (_, Some(name)) if !at_home => {
            model.verify()?;
            let beside = format!("{name}.data");
            let (bytes, data) = export::model(&annotations::store(model)?, Some(&beside));
            let target = folder.join(&beside);
            if target.exists() && !refers_to(path, &beside) && std::fs::read(&target).ok().as_ref() != Some(&data) {
                let what = format!("exists already and is not {name}'s own: choose another output, or move it away");
                return Err(OnnxError::Taken { path: target.display().to_string(), what });
            }
            let io = |(at, source): (&Path, _)| OnnxError::Io { path: at.display().to_string(), source };
            files::write_together(&[(&target, &data), (path, &bytes)]).map_err(io)
        }
        _ => write_atomically(path, &to_bytes(model)?),
    }
}

/// True if the file is a model with elements in the file of that name beside it.
fn refers_to(path: &Path, name: &str) -> bool {
    std::fs::read(path).is_ok_and(|bytes| tensor_proto::external_locations(&bytes).contains(name))
}

/// The source's bytes, if the model still equals it. If the two are not equal, their exports may be: a NaN is not equal to
/// itself.
fn original(model: &Model) -> Option<Arc<[u8]>> {
    let source = model.source.as_ref()?;
    let again = parse(&source.bytes, source.folder.as_deref()).ok()?;
    let export = |m: &Model| annotations::store(m).ok().map(|m| export::model(&m, None).0);
    let same = again == *model || matches!((export(&again), export(model)), (Some(a), Some(b)) if a == b);
    same.then(|| source.bytes.clone())
}

fn has_external(model: &Model) -> bool {
    model.values.iter().any(|(_, v)| v.constant.as_ref().is_some_and(|c| matches!(c.origin, graph::Origin::External { .. })))
}

/// Writes a file so that a reader sees either the old one or the whole new one.
///
/// # Errors
/// [`OnnxError::Io`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    files::write(path, bytes).map_err(|source| OnnxError::Io { path: path.display().to_string(), source })
}

/// Reads one serialized `TensorProto`.
///
/// # Errors
/// [`OnnxError::Format`] if it is damaged or its elements lie elsewhere.
pub fn read_tensor(bytes: &[u8]) -> Result<Tensor> {
    tensor_proto::read(bytes, None, &Place::root("tensor file")).map(|s| s.tensor)
}
